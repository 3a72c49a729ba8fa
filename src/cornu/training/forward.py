"""Outputs batch by batch, with the model's own variables."""

from typing import Any

import numpy as np

from cornu.core import tree
from cornu.core.variable import read_all
from cornu.training.loop import fed
from cornu.training.step import Late

__all__ = ["NUMBER", "Forward", "joined"]


class Forward:
    """Compiled `predict_step` of a model, on the values that its variables have now.

    Args:
        model: the model, whose variables are made.
        engine: the engine in force.

    Attributes:
        assigns: whether the last step changed variables.
        last: the last step, with its arguments.
    """

    def __init__(self, model: Any, engine: Any) -> None:
        self.model = model
        self.engine = engine
        self.variables = [*model._steady_variables(), *model._late()]
        self.values = read_all(self.variables)
        self.assigns = False
        self.last: tuple[Any, ...] = ()

    def __call__(self, number: int, batch: Any) -> Any:
        """The outputs for a batch, `(x, None, None)`; they may still be under way."""
        model, engine = self.model, self.engine
        model._check_inputs(batch)
        batch = fed(engine, batch)
        while True:
            try:
                step = model._compiled_predict(engine, self.variables, number)
                changed, outputs = step(self.values, NUMBER, batch)
                break
            except Late as late:
                model._late().extend(late.variables)
                self.variables = [*self.variables, *late.variables]
                self.values = [*self.values, *read_all(late.variables)]
        self.assigns, self.last = bool(changed), (step, self.values, batch)
        for place, value in changed.items():
            self.values[place] = value
            variable = self.variables[place]
            if variable.holder is None:
                variable.set_value(value)
            else:
                variable.holder.write(variable, value)
        return outputs


# Prediction draws nothing that hangs on the step.
NUMBER = np.int32(0)


def joined(engine: Any, parts: list[Any]) -> Any:
    """The outputs of batches as host arrays of all rows, in memory of their own."""
    columns = zip(*(tree.leaves(part) for part in parts), strict=True)
    arrays = [np.concatenate([np.atleast_1d(engine.to_host(part)) for part in column]) for column in columns]
    return tree.pack(parts[0], arrays)
