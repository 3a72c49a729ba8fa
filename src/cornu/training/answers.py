"""`predict` of arrays like earlier ones: straight to its compiled steps.

Which engine, variables and steps a call comes down to hangs on the model's structure, on what the call asks for, and on
the structure, shapes and dtypes of its arrays. What was found is kept while none of that changes.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.variable import Variable, read_all
from cornu.engines import registry
from cornu.engines.auto import Auto, default_budget
from cornu.training import every_op
from cornu.training.columns import is_standard
from cornu.training.data import DEFAULT_BATCH_SIZE
from cornu.training.forward import Direct, Forward, direct, joined

__all__ = ["answer", "keep"]

_MANY = 64  # kinds of calls that a model remembers
_READY = 4  # of those, how many have their steps prepared: that may take memory
_state_of = operator.attrgetter("version", "holder", "home")


class _Way:
    """What a call comes down to.

    Args:
        engine: the engine that was chosen.
        variables: what the steps read.
        step: of the variables' values and a batch's inputs, as the engine takes them.
        size: rows of such a batch.
        whole: rows in batches of that size.
        rest: the step of the rows after those, if there are any.
        calls: how many more calls it serves.
    """

    __slots__ = ("_ready", "calls", "engine", "rest", "size", "step", "variables", "whole")

    def __init__(
        self,
        engine: Any,
        variables: list[Variable],
        step: Direct,
        size: int,
        whole: int,
        rest: Direct | None,
        calls: float,
    ) -> None:
        self.engine = engine
        self.variables = variables
        self.step = step
        self.size = size
        self.whole = whole
        self.rest = rest
        self.calls = calls
        self._ready: tuple[Any, Any, Any] | None = None

    def __call__(self, x: Any) -> Any:
        """The outputs for arrays."""
        ready = self._ready
        # Unless somebody has written to a variable, or one lives where others may write to it.
        if ready is None or ready[0] != [*map(_state_of, self.variables)]:
            ready = self._prepared()
        _, step, rest = ready
        lend, whole, size = self.engine.lend, self.whole, self.size
        if whole == size and rest is None:
            return joined(self.engine, [step(_lent(lend, x))])
        outputs = [step(_taken(lend, x, slice(start, start + size))) for start in range(0, whole, size)]
        if rest is not None:
            outputs.append(rest(_taken(lend, x, slice(whole, None))))
        return joined(self.engine, outputs)

    def _prepared(self) -> tuple[Any, Any, Any]:
        """The steps with the values that the variables have now, and how these variables are then."""
        states = [(variable.version, None, None) for variable in self.variables]
        with context.use_engine(self.engine):
            values = [self._value(variable) for variable in self.variables]
            ready = states, self.step(values), None if self.rest is None else self.rest(values)
        self._ready = ready  # at once, for other threads
        return ready

    def forget(self) -> None:
        """Let go of what is prepared."""
        self._ready = None

    def _value(self, variable: Variable) -> Any:
        home = variable.home
        if home is not None and home.engine is self.engine and variable.holder is None:
            return home.look(variable)  # nobody writes to it during the call
        return read_all([variable])[0]


def answer(model: Any, x: Any, rows: int | None, engine: Any) -> Any:
    """The outputs for arrays like earlier ones; `None` if the ordinary way is to be gone.

    Args:
        model: the model.
        x: its inputs, as `predict` was given them.
        rows: the batch size that was asked for.
        engine: what the call names as engine.
    """
    known = model._cache.get("answers")
    if known is None or known[0] != _version(model) or context.bindings.get() is not None or context.is_abstract():
        return None
    key = _key(model, x, rows, engine)
    way = known[1].get(key)
    if way is None or not way.calls:
        return None
    if key[2] == "auto" and way.variables and way.variables[0].holder is not None:
        return None  # perhaps a callback's call, within a loop that has its engine
    way.calls -= 1
    if way not in known[2]:
        _remember(known[2], way)
    return way(x)


def _remember(ready: list[_Way], way: _Way) -> None:
    """Note whose steps are prepared; the oldest let go of them. Other threads may do the same."""
    ready.append(way)
    for old in ready[:-_READY]:
        old.forget()
    del ready[:-_READY]


def _lent(lend: Callable[[np.ndarray], Any], x: Any) -> Any:
    """The inputs, as an engine takes them."""
    if type(x) is np.ndarray:
        return lend(x)
    if type(x) is dict:
        return {name: lend(value) for name, value in x.items()}
    return type(x)([lend(value) for value in x])


def _taken(lend: Callable[[Any], Any], x: Any, part: slice) -> Any:
    """Some rows of the inputs, as an engine takes them."""
    return _lent(lambda array: lend(array[part]), x)


def keep(
    model: Any, x: Any, rows: int | None, engine: Any, forward: Forward, outputs: Any, calls: float = math.inf
) -> None:
    """Remember what a call came down to, if the next one like it comes down to the same.

    Args:
        model: the model.
        x: its inputs, as `predict` was given them.
        rows: the batch size that was asked for.
        engine: what the call named as engine.
        forward: what computed the outputs.
        outputs: those of one batch, as the step gave them.
        calls: how many calls it serves.
    """
    key = _key(model, x, rows, engine)
    watched = model.run_eagerly or every_op.is_on()
    if not calls or key is None or watched or forward.assigns or not model._is_plain_graph():
        return
    fitting = all(map(is_standard, tree.leaves(x))) and all(value.ndim for value in tree.leaves(outputs))
    if not fitting or model._function.looks_at(x):
        return
    version = _version(model)
    known = model._cache.get("answers")
    if known is None or known[0] != version or len(known[1]) == _MANY:
        known = model._cache["answers"] = (version, {}, [])
    total = len(tree.leaves(x)[0])
    size = min(total, int(rows or DEFAULT_BATCH_SIZE))
    over = total % size
    step, rest = direct(*forward.first), direct(*forward.last) if over else None
    known[1][key] = _Way(forward.engine, forward.variables, step, size, total - over, rest, calls)


def _version(model: Any) -> tuple[Any, ...]:
    return (*model._step_version(), id(model._function), len(vars(model)), dtypes.floatx())


def _key(model: Any, x: Any, rows: int | None, engine: Any) -> Any:
    """What tells one call from another; `None` for inputs of another kind than arrays of the host."""
    if type(x) is np.ndarray:
        parts: Any = (x.shape, x.dtype)
    elif type(x) is dict:
        parts = tuple([(name, value.shape, value.dtype) for name, value in x.items() if type(value) is np.ndarray])
        if len(parts) != len(x):
            return None
    elif type(x) is list or type(x) is tuple:
        parts = (type(x), *[(value.shape, value.dtype) for value in x if type(value) is np.ndarray])
        if len(parts) != len(x) + 1:
            return None
    else:
        return None
    asked = engine or model._compile_engine or registry.auto_in_force()
    if type(asked) is str:
        return parts, rows, asked, default_budget() if asked == "auto" else None
    if not isinstance(asked, Auto):
        return parts, rows, model._engine(engine).name, None
    return parts, rows, "auto", (asked.budget, asked.engines and tuple(asked.engines))
