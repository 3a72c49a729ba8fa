"""`predict` of one batch again: straight to its compiled step, for batches like those of earlier calls.

Which engine, variables and step a call comes down to hangs on the model's structure, on what the call asks for, and on
the structure, shapes and dtypes of its batch. What was found is kept while none of that changes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.variable import Variable, read_all
from cornu.engines import registry
from cornu.engines.auto import Auto
from cornu.engines.compiled import Compiled
from cornu.training import every_op
from cornu.training.columns import standard
from cornu.training.forward import NUMBER, Forward

__all__ = ["answer", "keep"]

_MANY = 64  # kinds of batches that a model remembers


class _Way:
    """What a call comes down to.

    Args:
        engine: the engine that was chosen.
        variables: what the step reads.
        step: of the variables' values and the inputs, as the engine takes them.
    """

    __slots__ = ("_values", "_versions", "engine", "step", "variables")

    def __init__(self, engine: Any, variables: list[Variable], step: Callable[[list[Any], Any], Any]) -> None:
        self.engine = engine
        self.variables = variables
        self.step = step
        self._values: list[Any] = []
        self._versions: list[int] = []

    def values(self) -> list[Any]:
        """The variables' values now: read anew if one of them was written to, or lives elsewhere."""
        if len(self._versions) == len(self.variables):
            for variable, version in zip(self.variables, self._versions, strict=True):
                if variable.version != version or variable.holder is not None or variable.home is not None:
                    break
            else:
                return self._values
        with context.use_engine(self.engine):
            self._values = [self._value(variable) for variable in self.variables]
        self._versions = [variable.version for variable in self.variables]
        return self._values

    def _value(self, variable: Variable) -> Any:
        home = variable.home
        if home is not None and home.engine is self.engine and variable.holder is None:
            return home.look(variable)  # nobody writes to it during the call
        return read_all([variable])[0]


def answer(model: Any, x: Any, rows: int | None, engine: Any) -> Any:
    """The outputs for a batch like an earlier one; `None` if the ordinary way is to be gone.

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
    if way is None:
        return None
    if key[2] == "auto" and any(variable.holder is not None for variable in way.variables[:1]):
        return None  # perhaps a callback's call, within a loop that has its engine
    feed = way.engine.feed
    if type(x) is np.ndarray:
        given: Any = feed(x)
    elif type(x) is dict:
        given = {name: feed(value) for name, value in x.items()}
    else:
        given = type(x)([feed(value) for value in x])
    outputs = way.step(way.values(), given)
    to_host = way.engine.to_host
    if hasattr(outputs, "dtype"):
        return np.array(to_host(outputs))
    return tree.map_structure(lambda value: np.array(to_host(value)), outputs)


def keep(model: Any, x: Any, rows: int | None, engine: Any, forward: Forward, outputs: Any) -> None:
    """Remember what a call of one batch came down to, if the next one like it comes down to the same.

    Args:
        model: the model.
        x: its inputs, as `predict` was given them.
        rows: the batch size that was asked for.
        engine: what the call named as engine.
        forward: what computed the outputs.
        outputs: as the step gave them.
    """
    key = _key(model, x, rows, engine)
    if key is None or model.run_eagerly or every_op.is_on() or forward.assigns or not model._is_plain_graph():
        return
    fitting = all(map(_is_fed_as_it_is, tree.leaves(x))) and all(value.ndim for value in tree.leaves(outputs))
    if not fitting or model._function.looks_at(x):
        return
    version = _version(model)
    known = model._cache.get("answers")
    if known is None or known[0] != version or len(known[1]) == _MANY:
        known = model._cache["answers"] = (version, {})
    known[1][key] = _Way(forward.engine, forward.variables, _direct(*forward.last))


def _direct(step: Callable[..., Any], values: list[Any], batch: Any) -> Callable[[list[Any], Any], Any]:
    """A compiled step of values and inputs like these, which gives outputs alone."""
    if not isinstance(step, Compiled):
        return lambda values, x: step(values, NUMBER, (x, None, None))[1]
    run, number = step.known(values, NUMBER, batch), step.engine.feed(NUMBER)
    return lambda values, x: run([*values, number, *tree.leaves(x)])[1]


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
    if not registry.is_auto(asked):
        return parts, rows, model._engine(engine).name
    measured = asked if isinstance(asked, Auto) else Auto()
    return parts, rows, "auto", measured.budget, measured.engines and tuple(measured.engines)


def _is_fed_as_it_is(array: np.ndarray) -> bool:
    """Whether an array comes to the step in its own dtype, whatever its elements are."""
    return array.ndim > 0 and array.dtype != np.int64 and standard(array, False) is array
