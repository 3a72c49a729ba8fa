"""The tape: an interpreter that computes with another one and remembers how to go back (reverse mode).

Tapes nest: a value of an outer tape may hold a value of an inner one, so gradients of gradients need nothing more.
"""

from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import numpy as np

from cornu.autodiff.rules import RULES
from cornu.core import context, dtypes, tree
from cornu.core.dims import Dim
from cornu.core.errors import UnsupportedError
from cornu.core.spec import ArrayOperators
from cornu.core.variable import Variable
from cornu.ops import control
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import movement as _m
from cornu.ops import reduction as _r
from cornu.ops._declare import (
    TAPE_RANK,
    Interpreter,
    Op,
    dtype_of,
    interpreter_of,
    interprets,
    prepare,
    shape_of,
    strict_scalars,
)

__all__ = ["Taped", "Tape", "tape_value_and_grad"]

_level: ContextVar[int] = ContextVar("cornu_tape_level", default=0)


class Taped(ArrayOperators):
    """A value whose history a tape keeps."""

    __slots__ = ("__weakref__", "index", "tape", "value")

    def __init__(self, tape: "Tape", value: Any, index: int) -> None:
        self.tape = tape
        self.value = value
        self.index = index

    @property
    def shape(self) -> tuple[Any, ...]:
        """The value's shape."""
        return shape_of(self.value)

    @property
    def dtype(self) -> str:
        """The name of the value's dtype."""
        return dtypes.promote(dtype_of(self.value))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Any:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = _c.convert_to_numpy(self.value)
        return host if dtype is None else host.astype(dtype)

    def __repr__(self) -> str:
        return f"Taped({self.value!r})"


class _Entry:
    """One op on the tape: what went in, what came out, and the taped values among both."""

    __slots__ = ("arrays", "op", "outputs", "parents", "result", "static")

    def __init__(self, op: Op, arrays: Any, static: Any, parents: Any, result: Any, outputs: list[int]) -> None:
        self.op = op
        self.arrays = arrays
        self.static = static
        self.parents = parents
        self.result = result
        self.outputs = outputs


class Tape(Interpreter):
    """A record of the ops computed on taped values."""

    name = "tape"

    def __init__(self) -> None:
        self.rank = TAPE_RANK + 1 + _level.get()
        self.entries: list[_Entry] = []
        self.count = 0

    def watch(self, value: Any) -> Taped:
        """The value, with its history kept from here on."""
        self.count += 1
        return Taped(self, value, self.count - 1)

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op on the values below, and note it."""
        if op.family == "control":
            with _unrolled():
                return control.UNROLLED[op.name](**arrays, **static)
        ready = prepare(op, arrays, self.convert)
        if not op.is_primitive:
            return op.body(**ready, **static)
        below = {name: self._below(value) for name, value in ready.items()}
        result = op.on(below, static)
        if op.name == "stop_gradient" or not _has_gradient(result):
            return result
        parents = {name: self._parents(value) for name, value in ready.items()}
        many = isinstance(result, (tuple, list))
        results = result if many else (result,)
        outputs = [self.watch(part) for part in results]
        self.entries.append(_Entry(op, below, static, parents, result, [out.index for out in outputs]))
        return type(result)(outputs) if many else outputs[0]

    def convert(self, value: Any, dtype: str | None) -> Any:
        """A value in the dtype in which an op computes; what is not taped is left to the interpreter below."""
        if isinstance(value, Variable):
            value = value.value
        if dtype is None or not isinstance(value, Taped) or value.dtype == dtype:
            return value
        return _e.cast_to(value, dtype=dtype)

    def _mine(self, value: Any) -> bool:
        return isinstance(value, Taped) and value.tape is self

    def _below(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._below(item) for item in value]
        return value.value if self._mine(value) else value

    def _parents(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._parents(item) for item in value]
        return value.index if self._mine(value) and value.dtype in dtypes.FLOATS else None

    def plain(self, value: Any) -> Any:
        """The value under all tapes."""
        below = value.value
        owner = interpreter_of(below)
        return below if owner is None else owner.plain(below)

    def to_host(self, value: Any) -> np.ndarray:
        """The value under all tapes as a host array."""
        return _c.convert_to_numpy(value.value)

    def from_any(self, value: Any) -> Any:
        """The value itself."""
        return value

    def gradients(self, output: Any, sources: list[Taped]) -> list[Any]:
        """The gradient of a scalar for each source; zeros where it does not depend on one."""
        found: dict[int, Any] = {}
        if self._mine(output):
            found[output.index] = _c.ones_like(output.value)
        token = strict_scalars.set(True)
        try:
            with np.errstate(all="ignore"):
                while self.entries:
                    entry = self.entries.pop()
                    gradients = [found.pop(index, None) for index in entry.outputs]
                    if any(gradient is not None for gradient in gradients):
                        self._back(entry, gradients, found)
        finally:
            strict_scalars.reset(token)
        return [found.get(s.index) if s.index in found else _c.zeros_like(s.value) for s in sources]

    def _back(self, entry: _Entry, gradients: list[Any], found: dict[int, Any]) -> None:
        rules = rules_of(entry.op)
        many = isinstance(entry.result, (tuple, list))
        gradient = gradients if many else gradients[0]
        arguments = SimpleNamespace(**entry.arrays, **entry.static)
        told = context.way_back.get()
        for name, parent in entry.parents.items():
            if parent is None or (isinstance(parent, list) and all(p is None for p in parent)):
                continue
            rule = rules.get(name)
            if rule is None:
                continue
            if told is None:
                share = rule(gradient, entry.result, arguments)
            else:  # who watches the way back is told of the rule's result, not of the ops within
                token = context.watcher.set(None)
                try:
                    share = rule(gradient, entry.result, arguments)
                finally:
                    context.watcher.reset(token)
                told(entry.op, entry.result, gradient, share)
            if isinstance(parent, list):
                for index, part, value in zip(parent, share, entry.arrays[name], strict=True):
                    self._add(found, index, part, value)
            else:
                self._add(found, parent, share, entry.arrays[name])

    def _add(self, found: dict[int, Any], index: int | None, share: Any, value: Any) -> None:
        if index is None or share is None:
            return
        share = like(share, value)
        found[index] = share if index not in found else found[index] + share


def rules_of(op: Op) -> dict[str, Callable[[Any, Any, Any], Any]]:
    """The gradient rules of a primitive, by argument.

    Raises:
        UnsupportedError: if it has none.
    """
    rules = RULES.get(op.name)
    if rules is None:
        raise UnsupportedError(f"the op {op.name!r} has no gradient", "ops.stop_gradient around it")
    return rules


def pull_back(op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any, gradient: Any) -> dict[str, Any]:
    """The gradients of one primitive's arguments by the tape's rules, for engines that differentiate natively.

    Args:
        op: the primitive.
        arrays: its promoted array arguments by name.
        static: its other arguments.
        result: what it gave.
        gradient: the gradient of the result.

    Returns:
        a gradient (or `None`) in the shape and dtype of each argument; a list of them for a list.
    """
    arguments = SimpleNamespace(**arrays, **static)
    rules = rules_of(op)
    found: dict[str, Any] = dict.fromkeys(arrays)
    for name, value in arrays.items():
        if name not in rules:
            continue
        share = rules[name](gradient, result, arguments)
        if isinstance(value, list):
            found[name] = [_share_of(part, own) for part, own in zip(share, value, strict=True)]
        else:
            found[name] = _share_of(share, value)
    return found


def _share_of(share: Any, value: Any) -> Any:
    return None if share is None or _c.dtype(value) not in dtypes.FLOATS else like(share, value)


def like(gradient: Any, value: Any) -> Any:
    """A gradient summed over the axes along which its value was broadcast, in the value's dtype."""
    have, want = shape_of(gradient), shape_of(value)
    if have != want:
        extra = len(have) - len(want)
        axes = list(range(extra))
        for i, size in enumerate(want):
            if not isinstance(size, Dim) and size == 1 and have[i + extra] != 1:
                axes.append(i + extra)
        if axes:
            gradient = _m.reshape_to(_r.sum(gradient, axis=tuple(axes), keepdims=True), shape=want)
        else:
            gradient = _c.broadcast_to_shape(gradient, shape=want)
    dtype = _c.dtype(value)
    return gradient if _c.dtype(gradient) == dtype else _e.cast_to(gradient, dtype=dtype)


def _has_gradient(result: Any) -> bool:
    return any(_c.dtype(part) in dtypes.FLOATS for part in (result if isinstance(result, (tuple, list)) else (result,)))


class _unrolled:
    """Loops inside this block run as Python loops."""

    def __enter__(self) -> None:
        self.token = context.unroll.set(True)

    def __exit__(self, *_: object) -> None:
        context.unroll.reset(self.token)


def _of_taped(value: Taped) -> Tape:
    return value.tape


interprets(Taped, _of_taped)


def tape_value_and_grad(function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any]:
    """Differentiate with the tape, on any engine.

    Args:
        function: of a list of values, gives `(scalar, rest)`.

    Returns:
        function of the list that gives `((scalar, rest), gradients)`.
    """

    def run(values: list[Any]) -> Any:
        tape = Tape()
        sources = [tape.watch(value) for value in values]
        token = _level.set(_level.get() + 1)
        try:
            with _unrolled():
                output, rest = function(sources)
        finally:
            _level.reset(token)

        def below(value: Any) -> Any:
            return value.value if isinstance(value, Taped) and value.tape is tape else value

        gradients = tape.gradients(output, sources)
        return (below(output), tree.map_structure(below, rest)), gradients

    return run
