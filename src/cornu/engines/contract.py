"""The contract of an engine: what an engine must offer, all of it in this file.

An engine is a table from names of ops to functions, plus the few methods below. Every primitive must be in the
table; an op that is composed of others may be, where the engine has a faster way. A function of the table gets the
op's arrays, already promoted and already the engine's own, by position, and its static arguments by name (loops get
all by name).

To add an engine: subclass `Engine` in a module of this folder, fill `table`, and enter it in `registry.ENGINES`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import context
from cornu.core.errors import UnsupportedError
from cornu.ops import control
from cornu.ops._declare import ENGINE_RANK, Interpreter, Op, prepare
from cornu.ops.creation import convert_to_numpy

__all__ = ["Engine"]


class Engine(Interpreter):
    """Base of all engines.

    Attributes:
        name: the name users give.
        table: name of an op -> function that computes it.
        gaps: name of an op -> why this engine cannot do it (data, shown to users and tests).
        traces: whether `compile` runs a function once on stand-ins, rather than at every call.
    """

    rank = ENGINE_RANK
    name = "engine"
    table: dict[str, Callable[..., Any]]
    gaps: dict[str, str] = {}
    traces = False

    # ------------------------------------------------ what each engine says

    def owns(self, kind: type) -> bool:
        """Whether values of this type are the engine's own."""
        raise NotImplementedError

    def from_host(self, value: np.ndarray) -> Any:
        """A host array as the engine's value, same shape and dtype."""
        raise NotImplementedError

    def to_host(self, value: Any) -> np.ndarray:
        """The engine's value as a host array, same shape and dtype."""
        raise NotImplementedError

    def compile(self, function: Callable[..., Any], donate: bool = False) -> Callable[..., Any]:
        """A pure function of nested structures of values, made fast.

        Args:
            function: takes and gives structures of the engine's values.
            donate: whether the first argument's memory may be used for the result.
        """
        return function

    def value_and_grad(self, function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any] | None:
        """The engine's own differentiation, or `None` where the tape serves.

        Args:
            function: of a list of values, gives `(scalar, rest)`.

        Returns:
            function of the list that gives `((scalar, rest), gradients)`.
        """
        return None

    def is_tracing(self, value: Any) -> bool:
        """Whether a value stands for one that is not known yet (inside `compile`)."""
        return False

    def wait(self, value: Any) -> None:
        """Return once the value is computed."""

    def devices(self) -> list[str]:
        """The devices the engine computes on."""
        return ["cpu"]

    # ------------------------------------------------ what follows for all of them

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op on this engine's values."""
        if op.family == "control" and context.unroll.get():
            function: Callable[..., Any] | None = control.UNROLLED[op.name]
        else:
            function = self.table.get(op.name)
        if function is None:
            if op.is_primitive:
                reason = self.gaps.get(op.name, "it is not in the engine's table")
                raise UnsupportedError(f"engine {self.name!r} cannot do {op.name!r}: {reason}", "another engine")
            if op.promote is not None:
                arrays = prepare(op, arrays, self.own)
            with context.use_engine(self):
                return op.body(**arrays, **static)
        if op.family == "control":
            with context.use_engine(self):
                result = function(**prepare(op, arrays, self.own), **static)
        else:
            result = function(*prepare(op, arrays, self.own).values(), **static)
        watcher = context.watcher.get()
        if watcher is not None:
            watcher(op, arrays, result)
        return result

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Anything an op takes as this engine's value, cast if a dtype is given."""
        raise NotImplementedError

    def plain(self, value: Any) -> Any:
        """The value itself (a tape's value gives what is under it)."""
        return value

    def from_any(self, value: Any) -> Any:
        """A host array, another engine's value or this engine's own, as this engine's own."""
        if self.owns(type(value)):
            return value
        if not isinstance(value, np.ndarray):
            value = convert_to_numpy(value)
        return self.from_host(value)

    def copy(self, value: Any) -> Any:
        """The engine's value again, in memory of its own."""
        return self.from_host(np.array(self.to_host(value)))

    def feed(self, value: Any) -> Any:
        """A batch's array as an argument of a compiled function."""
        return self.from_any(value)

    def __repr__(self) -> str:
        return f"<engine {self.name}>"
