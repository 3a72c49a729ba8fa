"""The contract of an engine: what an engine must offer, all of it in this file.

An engine is a table from names of ops to functions, plus the few methods below. Every primitive must be in the
table; an op that is composed of others may be, where the engine has a faster way. A function of the table gets the
op's arrays, already promoted and already the engine's own, by position, and its static arguments by name (loops get
all by name).

To add an engine: subclass `Engine` in a module of this folder, fill `table`, and enter it in `registry.ENGINES`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cornu.core import context
from cornu.core.errors import UnsupportedError
from cornu.core.spec import Spec
from cornu.core.variable import Home, Variable
from cornu.engines.compiled import Compiled
from cornu.ops import control
from cornu.ops._declare import ENGINE_RANK, Interpreter, Op, dtype_of, host_array, interpreter_of, prepare
from cornu.ops.creation import convert_to_numpy

__all__ = ["Engine"]


_BORROWED = ("float16", "bfloat16", "float32", "int8", "int16", "int32", "uint8", "uint16", "uint32")
_CPU = 1  # DLPack's number


def can_be_borrowed(value: Any) -> bool:
    """Whether a value speaks DLPack, lies in the memory of the CPU, and has a dtype that all who speak it share."""
    return dtype_of(value) in _BORROWED and hasattr(value, "__dlpack__") and value.__dlpack_device__()[0] == _CPU


def is_finite(host: np.ndarray) -> bool:
    """Whether all elements of a host array of floats are finite."""
    with np.errstate(all="ignore"):
        total = host.sum(dtype="float32" if host.dtype.itemsize < 4 else None)
    # What is not finite leaves no sum finite, but a sum may overflow by itself.
    return bool(np.isfinite(total)) or bool(np.isfinite(host.astype("float64")).all())


class Engine(Interpreter):
    """Base of all engines.

    Attributes:
        name: the name users give.
        table: name of an op -> function that computes it.
        gaps: name of an op -> why this engine cannot do it (data, shown to users and tests).
        ruled: name of a primitive -> whether, for these static arguments, the engine's own gradient differs from the
            language's, so that `by_rule` is asked instead of the table.
        follows_users: whether `is_compiling` is to be asked wherever no engine is chosen (it must be cheap).
        immutable: whether nobody can write to the memory of its values.
        traces: whether `compile` runs a function once on stand-ins, rather than at every call.
        loops: whether steps in a compiled loop cost less than the same steps compiled one by one.
        reuses: whether a compiled function may reuse the memory of the values it is given (`donate`).
        keeps_memory: whether the process keeps freed memory; `None` if the engine has not asked for it.
    """

    rank = ENGINE_RANK
    name = "engine"
    table: dict[str, Callable[..., Any]]
    gaps: dict[str, str] = {}
    ruled: dict[str, Callable[[dict[str, Any]], bool]] = {}
    follows_users = False
    immutable = False
    traces = False
    loops = False
    reuses = False
    keeps_memory: bool | None = None

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

    def trace(
        self, function: Callable[[list[Any]], list[Any]], values: list[Any], donated: int, thorough: bool
    ) -> Callable[[list[Any]], list[Any]]:
        """A pure function of a flat list of values, made fast for values of these shapes and dtypes.

        Args:
            function: takes a list of the engine's values (or stand-ins for them) and gives a list of them.
            values: what it is called with first; later calls have the same shapes and dtypes.
            donated: how many of the first values may lend their memory to the results.
            thorough: whether to compile for long, for a faster function.
        """
        return function

    def compile(self, function: Callable[..., Any], donate: bool = False, thorough: bool = False) -> Callable[..., Any]:
        """A pure function of nested structures of values, made fast: traced once per shapes and dtypes.

        Args:
            function: takes and gives structures of the engine's values.
            donate: whether the first argument's memory may be used for the result.
            thorough: whether to compile for long, for a faster function (Keras's `jit_compile=True`).
        """
        return Compiled(self, function, donate, thorough)

    def value_and_grad(self, function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any] | None:
        """The engine's own differentiation, or `None` where the tape serves.

        Args:
            function: of a list of values, gives `(scalar, rest)`.

        Returns:
            function of the list that gives `((scalar, rest), gradients)`.
        """
        return None

    def infer(self, function: Callable[[list[Any]], list[Any]], specs: list[Spec]) -> list[Spec]:
        """What a function of the engine's own functions gives, by the engine's own abstract evaluation.

        Args:
            function: of a list of the engine's values; called with stand-ins for them.
            specs: shapes (all sizes known) and dtypes of its arguments.

        Returns:
            shapes and dtypes of its results; nothing is computed.
        """
        raise UnsupportedError(f"engine {self.name!r} cannot infer the shapes of its own functions", "another engine")

    def by_rule(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A primitive of `ruled`, on prepared arrays, with `autodiff.tape.pull_back` as its native gradient."""
        raise NotImplementedError

    def home(self, variable: Variable, always: bool = False) -> Home | None:
        """Where a variable that a user's own code reads must live so that this engine's autodiff follows it.

        Asked outside Cornu's own steps only; `None` where a plain value will do, unless it is `always` to have one.
        """
        return None

    def read_in_step(self, variable: Variable) -> None:
        """Told of every trainable variable that a training step reads, for an autodiff that the user starts in it."""

    def adopt(self, native: Any) -> Home:
        """A home in an object of this engine's library that exists already, which then holds the variable's value."""
        raise UnsupportedError(f"engine {self.name!r} has no objects in which variables live", "another engine")

    def is_compiling(self) -> bool:
        """Whether a function that the user compiles with the engine itself is being traced here and now."""
        return False

    def wait(self, value: Any) -> None:
        """Return once the value is computed."""

    def waits(self) -> bool:
        """Whether a compiled function comes back only when its work is done, lets other threads run meanwhile, and may
        be called by any of them as it would be from here and now.
        """
        return False

    def leave(self) -> None:
        """Let go of what only helps the thread that asks to compute: another is about to."""

    def all_finite(self, values: list[Any]) -> bool:
        """Whether all elements of some values of float dtypes are finite; waits for them."""
        return all(is_finite(self.to_host(value)) for value in values)

    def ask_finite(self, values: list[Any]) -> Callable[[], bool]:
        """Ask what `all_finite` does, of values that nobody writes to; what is given waits for the answer."""
        return lambda: self.all_finite(values)

    def devices(self) -> list[str]:
        """The devices the engine computes on."""
        return ["cpu"]

    def details(self) -> dict[str, str]:
        """What else `cornu doctor` should show of the engine as it is set up here: linkers, threads, providers."""
        return {} if self.keeps_memory is None else {"freed memory": "kept" if self.keeps_memory else "given back"}

    def use_compile_cache(self, directory: Path | None) -> str | None:
        """Keep what is compiled from now on below a directory, for other processes (`None`: no longer).

        Asked when the engine is loaded and whenever `cornu.set_compile_cache` is called; the directory need not exist.

        Returns:
            what is kept and where, in words for `cornu doctor`; `None` if this engine keeps nothing.
        """
        return None

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
        watcher = context.watcher.get()
        if op.family == "control":
            seen = watcher if function is control.UNROLLED[op.name] else None
            with context.watched_by(seen), context.use_engine(self):
                result = function(**prepare(op, arrays, self.own), **static)
        elif op.name in self.ruled and self.ruled[op.name](static):
            result = self.by_rule(op, prepare(op, arrays, self.own), static)
        elif watcher is None or op.is_primitive:
            result = function(*prepare(op, arrays, self.own).values(), **static)
        else:  # who watches sees the whole, not what it may be composed of too
            with context.watched_by(None):
                result = function(*prepare(op, arrays, self.own).values(), **static)
        if watcher is not None:
            watcher(op, arrays, static, result)
        return result

    def fitted(self, function: Callable[..., Any], dtypes: list[str], ranks: list[int]) -> Callable[..., Any]:
        """A function of the table as it is for arguments of these dtypes and ranks, without asking for them again."""
        return function

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Anything an op takes as this engine's value, cast if a dtype is given."""
        if isinstance(value, Variable):
            with context.use_engine(self):
                value = value.value
        if self.owns(type(value)):
            return value if dtype is None or dtype_of(value) == dtype else self.table["cast_to"](value, dtype)
        owner = interpreter_of(value)
        if owner is not None:
            value = owner.to_host(value)
        return self.from_host(host_array(value, dtype))

    def plain(self, value: Any) -> Any:
        """The value itself (a tape's value gives what is under it)."""
        return value

    def from_any(self, value: Any) -> Any:
        """A host array, another engine's value or this engine's own, as this engine's own."""
        if self.owns(type(value)):
            return value
        if not isinstance(value, np.ndarray):
            owner = interpreter_of(value)
            if self.immutable and getattr(owner, "immutable", False) and not owner.is_tracing(value):
                borrowed = self.borrow(value)
                if borrowed is not None:
                    return borrowed
            value = convert_to_numpy(value)
        return self.from_host(value)

    def borrow(self, value: Any) -> Any:
        """Another engine's value in the same memory, where nobody can write to it; `None` where that cannot be."""
        return self.from_dlpack(value) if can_be_borrowed(value) else None

    def from_dlpack(self, value: Any) -> Any:
        """A value that speaks DLPack, on the CPU, in the same memory; `None` if the engine does not do that."""
        return None

    def copy(self, value: Any) -> Any:
        """The engine's value again, in memory of its own."""
        return self.from_host(np.array(self.to_host(value)))

    def kept(self, values: list[Any]) -> list[Any]:
        """Copies of the engine's values that are only kept, to be given to `from_any` one day."""
        return [self.copy(value) for value in values]

    def keeps_in_turn(self, values: list[Any]) -> bool:
        """Whether `kept` does not wait for these: they are copied once all is done that was asked for before."""
        return False

    def place(self, value: Any) -> Any:
        """A place that holds the engine's value, for a compiled function with `donate` to read and write.

        By default a copy: a value in memory of its own.
        """
        return self.copy(value)

    def place_host(self, value: np.ndarray) -> Any:
        """A place that holds what a host array does, to which nobody writes as long as the place is used."""
        return self.place(self.from_host(value))

    def put(self, place: Any, value: Any) -> Any:
        """The place with another value in it: the engine's or a host array, and nobody else's."""
        return self.feed(value) if isinstance(value, np.ndarray) else value

    def lift(self, place: Any) -> Any:
        """What a place holds, as a plain value; the place itself is not used any more."""
        return place

    def feed(self, value: Any) -> Any:
        """A batch's array as an argument of a compiled function."""
        return self.from_any(value)

    def lend(self, value: Any) -> Any:
        """An array as such an argument, for a call that is over before anybody writes to the array."""
        return self.feed(value)

    def peek(self, value: Any) -> np.ndarray:
        """A value's elements to be read at once: the array may be the value's own memory."""
        return self.to_host(value)

    def __repr__(self) -> str:
        return f"<engine {self.name}>"
