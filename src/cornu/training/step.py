"""One pure step of training, and the state it carries from one step to the next.

`train_step`, `test_step` and `predict_step` are written with variables that are read and assigned. Here each becomes
a pure function `(values, step number, batch) -> (values, logs, finite)`, by binding the variables to values; the
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
from cornu.ops import reduction as _r
from cornu.ops._declare import dtype_of
from cornu.ops.indexing import get_item
from cornu.random import at_step
from cornu.training.every_op import Collector

__all__ = ["Late", "State", "forward_step", "note_loss", "several", "train_step"]

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


class State:
    """Where variables live while a loop runs: a list of the engine's values.

    Args:
        variables: the variables, each once.
        engine: the engine in force.
    """

    def __init__(self, variables: list[Variable], engine: Any) -> None:
        self.variables: list[Variable] = []
        self.engine = engine
        self.index: dict[int, int] = {}
        self.values: list[Any] = []
        self._given = variables
        self._before: list[Any] = []

    def add(self, variables: list[Variable]) -> None:
        """Take over more variables, within a block of `held`."""
        with context.use_engine(self.engine):
            for variable in variables:
                self.values.append(self._fresh(variable))
                self.index[id(variable)] = len(self.variables)
                self.variables.append(variable)
                self._before.append(variable.holder)
                variable.holder = self

    def read(self, variable: Variable) -> Any:
        """The variable's current value, as a host copy (the step may reuse the engine's memory)."""
        return np.array(self.engine.to_host(self.values[self.index[id(variable)]]))

    def write(self, variable: Variable, value: Any) -> None:
        """Replace the variable's value."""
        with context.use_engine(self.engine):
            self.values[self.index[id(variable)]] = self.engine.own(value, variable.dtype)

    @contextlib.contextmanager
    def held(self) -> Iterator["State"]:
        """Take the variables' values over for a block, and give them back at its end, whatever happens."""
        with context.use_engine(self.engine):
            try:
                self.add(self._given)
                yield self
            finally:
                for variable, value, before in zip(self.variables, self.values, self._before, strict=True):
                    variable.holder = before
                    if before is None:
                        variable.set_value(value)
                    else:  # a loop within a loop: a callback that evaluates
                        before.write(variable, value)

    def _fresh(self, variable: Variable) -> Any:
        # A copy: the step may reuse the memory of what it is given.
        stored = variable.stored()
        return self.engine.copy(self.engine.from_any(stored))


def _finite(noted: list[Any], old: list[Any], new: list[Any]) -> Any:
    """Whether the step's losses and all values it changed are finite."""
    good: Any = None
    for value in noted:
        one = _e.isfinite(_e.cast(value, "float32"))
        good = one if good is None else _a.logical_and(good, one)
    for before, after in zip(old, new, strict=True):
        if after is not before and dtype_of(after) in ("float32", "float64", "bfloat16", "float16"):
            one = _e.isfinite(_r.sum(_a.multiply(_e.cast(after, "float32"), 0.0)))
            good = one if good is None else _a.logical_and(good, one)
    return good


def train_step(
    method: Callable[[Any], dict[str, Any]],
    variables: list[Variable],
    guarded: list[Variable] | None,
    collector: Collector | None = None,
) -> Callable[..., Any]:
    """A step that changes state.

    Args:
        method: the model's `train_step`.
        variables: all variables it may read or assign.
        guarded: the weights that must stay finite; `None` to watch nothing.
        collector: what watches every op besides, or `None`.

    Returns:
        function `(values, number, alive, batch) -> (values, logs, alive)`, which raises `Late` if a variable is
        missing. A step whose loss or new weights are not finite changes nothing, and neither does any after it
        (`alive` is false from then on).
    """
    watched = None if guarded is None else {id(variable) for variable in guarded}
    known = variables if collector is None else [*variables, collector.flag]

    def step(values: list[Any], number: Any, alive: Any, batch: Any) -> Any:
        noted: list[Any] = []
        token = _losses.set(noted)
        told = context.on_read.set(context.engine_in_force().read_in_step)
        try:
            with _bound(known, values, collector) as scope, at_step(number):
                logs = method(batch)
                _check_known(scope, known)
                new = [scope.values[id(variable)] for variable in variables]
        finally:
            _losses.reset(token)
            context.on_read.reset(told)
        if watched is None:
            return new, logs, alive
        pairs = [(o, n) for v, o, n in zip(variables, values, new, strict=True) if id(v) in watched]
        good = _finite(noted, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
        if collector is not None:
            finite = scope.values[id(collector.flag)]
            good = finite if good is None else _a.logical_and(good, finite)
        if good is None:
            return new, logs, alive
        alive = _a.logical_and(alive, good)
        kept = [n if n is o else _e.choose(alive, n, o) for o, n in zip(values, new, strict=True)]
        return kept, logs, alive

    return step


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
        function `(values, number of the first, alive, batches) -> (values, logs of the last, alive after each)`, where
        the arrays of `batches` have a new first axis, along which the steps go.
    """

    def run(values: list[Any], number: Any, alive: Any, batches: Any) -> Any:
        def one(state: Any, batch: Any) -> Any:
            values, number, alive = state
            values, logs, alive = step(list(values), number, alive, batch)
            return (tuple(values), _a.add(number, np.int32(1)), alive), (logs, alive)

        (values, _, _), (logs, alives) = control.scan(one, (tuple(values), number, alive), batches)
        return list(values), tree.map_structure(lambda log: get_item(log, -1), logs), alives

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
            result = method(batch)
            _check_known(scope, known)
            changed = {place[key]: scope.values[key] for key in scope.assigned if key in place}
            return (changed, result) if collector is None else (changed, result, collector.good(result))

    return step
