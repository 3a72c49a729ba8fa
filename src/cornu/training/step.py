"""One pure step of training, evaluation or prediction.

`train_step`, `test_step` and `predict_step` are written with variables that are read and assigned. Here each becomes
a pure function `(values, step number, alive, batch) -> (values, logs, alive)`, by binding the variables to values; the
engine compiles it whole.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import context, tree
from cornu.core.variable import Variable
from cornu.ops import arithmetic as _a
from cornu.ops import control
from cornu.ops import elementwise as _e
from cornu.ops.indexing import get_item
from cornu.random import at_step
from cornu.training import shapes
from cornu.training.every_op import Collector

__all__ = ["Late", "forward_step", "note_loss", "several", "train_step"]

_losses: ContextVar[list[Any] | None] = ContextVar("cornu_step_losses", default=None)


class Late(Exception):
    """A step met variables it was not given: an optimizer's in an attribute, say, that are made at its first use.

    Attributes:
        variables: those, each once.
    """

    def __init__(self, variables: list[Variable]) -> None:
        super().__init__(f"{len(variables)} variables")
        self.variables = variables


def _check_known(scope: context.Bindings, variables: list[Variable]) -> None:
    """Refuse to go on without a variable that the step read or assigned; one nobody holds any more was its own."""
    known = {id(variable) for variable in variables}
    met = (*scope.missed.items(), *scope.assigned.items())
    late = {key: weakref.ref(variable) for key, variable in met if key not in known}
    del met
    if not late:
        return
    for key in late:
        scope.missed.pop(key, None)
        scope.assigned.pop(key, None)
    alive = [variable for reference in late.values() if (variable := reference()) is not None]
    if alive:
        raise Late(alive)


def note_loss(loss: Any) -> None:
    """Tell the step in progress of its loss, so that it can watch it."""
    noted = _losses.get()
    if noted is not None:
        noted.append(loss)


def train_step(
    method: Callable[[Any], dict[str, Any]],
    variables: list[Variable],
    guarded: bool,
    collector: Collector | None = None,
) -> Callable[..., Any]:
    """A step that changes state.

    Args:
        method: the model's `train_step`.
        variables: all variables it may read or assign.
        guarded: whether to tell if the losses were finite.
        collector: what watches every op besides, or `None`.

    Returns:
        function `(values, number, alive, batch) -> (values, logs, alive)`, which raises `Late` if a variable is
        missing. `alive` becomes false with the first step that is not finite, and stays so.
    """
    known = variables if collector is None else [*variables, collector.flag]

    def step(values: list[Any], number: Any, alive: Any, batch: Any) -> Any:
        noted: list[Any] = []
        token = _losses.set(noted)
        told = context.on_read.set(context.engine_in_force().read_in_step)
        try:
            with _bound(known, values, collector) as scope, at_step(number):
                _met(method, batch)
                logs = method(batch)
                _check_known(scope, known)
                new = [scope.values[id(variable)] for variable in variables]
        finally:
            _losses.reset(token)
            context.on_read.reset(told)
        if guarded:
            for loss in noted:
                alive = _a.logical_and(alive, _e.isfinite(_e.cast(loss, "float32")))
            if collector is not None:
                alive = _a.logical_and(alive, scope.values[id(collector.flag)])
        return new, logs, alive

    return step


def _met(method: Callable[..., Any], batch: Any) -> None:
    """Note the shapes that a step is compiled for."""
    if context.engine_in_force().traces and not context.by_tape.get():
        shapes.met(method, batch)


@contextlib.contextmanager
def _bound(known: list[Variable], values: list[Any], collector: Collector | None) -> Iterator[context.Bindings]:
    """The variables bound to values, and every op watched if there is a collector (its flag is the last variable)."""
    if collector is None:
        with context.bind(known, values) as scope:
            yield scope
        return
    start = context.engine_in_force().from_host(np.array(True))
    with context.bind(known, [*values, start]) as scope, collector.watching():
        yield scope


def several(step: Callable[..., Any]) -> Callable[..., Any]:
    """Training steps one after the other, in one function.

    Args:
        step: what `train_step` gave.

    Returns:
        function `(values, number of the first, alive, batches) -> (values, logs of the last, alive)`, where the arrays
        of `batches` have a new first axis, along which the steps go.
    """

    def run(values: list[Any], number: Any, alive: Any, batches: Any) -> Any:
        def one(state: Any, batch: Any) -> Any:
            values, number, alive = state
            values, logs, alive = step(list(values), number, alive, batch)
            return (tuple(values), _a.add(number, np.int32(1)), alive), logs

        (values, _, alive), logs = control.scan(one, (tuple(values), number, alive), batches)
        return list(values), tree.map_structure(lambda log: get_item(log, -1), logs), alive

    return run


def forward_step(
    method: Callable[[Any], Any], variables: list[Variable], collector: Collector | None = None
) -> Callable[..., Any]:
    """A step without training.

    Args:
        method: the model's `test_step` or `predict_step`.
        variables: all variables it may read or assign.
        collector: what watches every op, or `None`.

    Returns:
        function `(values, number, batch) -> (changed, result)`, where `changed` maps places in `values` to new
        values. It raises `Late` if a variable is missing. With a collector it gives also whether all was finite.
    """
    place = {id(variable): i for i, variable in enumerate(variables)}
    known = variables if collector is None else [*variables, collector.flag]

    def step(values: list[Any], number: Any, batch: Any) -> Any:
        with _bound(known, values, collector) as scope, at_step(number):
            _met(method, batch)
            result = method(batch)
            _check_known(scope, known)
            changed = {place[key]: scope.values[key] for key in scope.assigned if key in place}
            return (changed, result) if collector is None else (changed, result, collector.good(result))

    return step
