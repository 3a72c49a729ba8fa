"""Outputs batch by batch, with the model's own variables."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import tree
from cornu.core.variable import read_all
from cornu.engines.compiled import Compiled
from cornu.training.handover import Handover, UnderWay
from cornu.training.loop import fed
from cornu.training.step import Late

__all__ = ["NUMBER", "Direct", "Forward", "direct", "joined"]

# Of variables' values, which stay as they are, gives a function of a batch's inputs, as the engine takes them, that
# gives outputs alone.
Direct = Callable[[list[Any]], Callable[[Any], Any]]


class Forward:
    """Compiled `predict_step` of a model, on the values that its variables have now.

    Args:
        model: the model, whose variables are made.
        engine: the engine in force.
        handover: takes steps while the next batch is made; `None` for nothing of the kind.

    Attributes:
        assigns: whether a step changed variables.
        first, last: the first step and the last one, with their arguments.
    """

    def __init__(self, model: Any, engine: Any, handover: Handover | None = None) -> None:
        self.model = model
        self.engine = engine
        self.variables = [*model._steady_variables(), *model._late()]
        self.values = read_all(self.variables)
        self.assigns = False
        self.first: tuple[Any, ...] = ()
        self.last: tuple[Any, ...] = ()
        self._handover = handover
        self._under_way: UnderWay | None = None

    def __call__(self, number: int, batch: Any) -> Any:
        """The outputs for a batch, `(x, None, None)`; they may still be under way."""
        return self.begun(number, batch)()

    def begun(self, number: int, batch: Any, shared: bool = False) -> Callable[[], Any]:
        """The way to the outputs for a batch, which may be with another thread until they are asked for.

        Args:
            number: the batch's number.
            batch: `(x, None, None)`.
            shared: whether others may write to it later.
        """
        self._arrive()
        model, engine, handover = self.model, self.engine, self._handover
        model._check_inputs(batch)
        batch = fed(engine, batch, later=shared and handover is not None)
        while True:
            try:
                step = model._compiled_predict(engine, self.variables, number)
                given = self.values, NUMBER, batch
                found = step(*given) if handover is None else handover("predict", step, *given)
                break
            except Late as late:
                model._late().extend(late.variables)
                self.variables = [*self.variables, *late.variables]
                self.values = [*self.values, *read_all(late.variables)]
        self.last = (step, self.values, batch)
        self.first = self.first or self.last
        if type(found) is not UnderWay:
            outputs = self._taken(found)
            return lambda: outputs
        self._under_way = found

        def outputs_of() -> Any:
            self._arrive()
            return found.result()[1]

        return outputs_of

    def __enter__(self) -> "Forward":
        return self

    def __exit__(self, *_: object) -> None:
        self._arrive()

    def _arrive(self) -> None:
        """Wait for the step under way, if there is one, and write what it assigned."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            self._taken(under_way.result())

    def _taken(self, found: Any) -> Any:
        changed, outputs = found
        self.assigns = self.assigns or bool(changed)
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


def direct(step: Callable[..., Any], values: list[Any], batch: Any) -> Direct:
    """A compiled step of values and inputs like these, which gives outputs alone."""
    if isinstance(step, Compiled):
        known, number, leaves = step.known(1, values, NUMBER, batch), step.engine.feed(NUMBER), _leaves_of(batch[0])

        def given(values: list[Any]) -> Callable[[Any], Any]:
            run = known([*values, number])
            return lambda x: run(leaves(x))

        return given
    if hasattr(step, "known"):
        call = step.known(1, values, NUMBER, batch)
        return lambda values: lambda x: call(values, NUMBER, (x, None, None))
    return lambda values: lambda x: step(values, NUMBER, (x, None, None))[1]


def _leaves_of(like: Any) -> Callable[[Any], list[Any]]:
    """`tree.leaves` of structures like this one."""
    if not tree.is_nested(like):
        return lambda x: [x]
    if type(like) is dict and not any(map(tree.is_nested, like.values())):
        names = tree._keys(like)
        return lambda x: [x[name] for name in names]
    return tree.leaves


def joined(engine: Any, parts: list[Any]) -> Any:
    """The outputs of batches as host arrays of all rows, in memory of their own."""
    peek = engine.peek
    if hasattr(parts[0], "dtype"):
        if len(parts) == 1:
            return np.array(peek(parts[0]), ndmin=1)
        arrays = [peek(part) for part in parts]
        return np.concatenate(arrays if arrays[0].ndim else [np.atleast_1d(array) for array in arrays])
    columns = zip(*(tree.leaves(part) for part in parts), strict=True)
    return tree.pack(parts[0], [joined(engine, list(column)) for column in columns])
