"""The tape: an interpreter that computes with another one and remembers how to go back (reverse mode).

Tapes nest: a value of an outer tape may hold a value of an inner one, so gradients of gradients need nothing more.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
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

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        # TensorFlow would take the elements by `__array__` and lose the history; so it asks `__rmul__` and such.
        raise TypeError("a function of TensorFlow got a value whose history Cornu's tape keeps: use cornu.ops")

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


class _Call:
    """A function on the tape of which only the operands are kept: it is computed again on the way back."""

    __slots__ = ("around", "f", "operands", "outputs", "places")

    def __init__(self, f: Callable[..., Any], operands: Any, places: list[int], outputs: list[int]) -> None:
        self.f = f
        self.operands = operands
        self.places = places  # of the floats among what it gives
        self.outputs = outputs
        self.around = contextvars.copy_context()


class Tape(Interpreter):
    """A record of the ops computed on taped values.

    Args:
        outer: the tape in whose stead it is to record; by default it stands for itself.
        keeps: whether it records at all.
    """

    name = "tape"

    def __init__(self, outer: "Tape | None" = None, keeps: bool = True) -> None:
        # A tape that records in another's stead comes right below it, above the tapes within which that one is.
        self.gap: float = 1.0 if outer is None else outer.gap / 2
        self.rank: float = TAPE_RANK + 1 + _level.get() if outer is None else outer.rank - self.gap
        self.entries: list[_Entry | _Call] = []
        self.count = 0
        self.keeps = keeps
        # What this tape's values are to be replaced by, while a function that closes over some runs on another tape.
        self.instead: Callable[[Taped], Taped] | None = None

    def watch(self, value: Any) -> Taped:
        """The value, with its history kept from here on."""
        self.count += 1
        return Taped(self, value, self.count - 1)

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op on the values below, and note it."""
        if self.instead is not None:
            return op.on({name: self._replaced(value) for name, value in arrays.items()}, static)
        if op.name == "rematerialized":
            return self.call(op, **arrays, **static)
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
        if not self.keeps:
            return tree.map_structure(self.watch, result)
        parents = {name: self._parents(value) for name, value in ready.items()}
        many = isinstance(result, (tuple, list))
        results = result if many else (result,)
        outputs = [self.watch(part) for part in results]
        self.entries.append(_Entry(op, below, static, parents, result, [out.index for out in outputs]))
        return type(result)(outputs) if many else outputs[0]

    def call(self, op: Op, operands: Any, f: Callable[..., Any]) -> Any:
        """What a function gives, computed without noting what is in it, and noted as a whole."""
        if not self.keeps:
            return f(*operands)
        ghost, met = Tape(self, keeps=False), dict[int, Taped]()
        with self._on(ghost, met), _innermost(ghost):
            result = f(*self._replaced(operands))
            leaves = [leaf.value if ghost._mine(leaf) else leaf for leaf in tree.leaves(self._replaced(result))]
        if not met:
            return tree.pack(result, leaves)
        places = [i for i, leaf in enumerate(leaves) if leaf is not None and _c.dtype(leaf) in dtypes.FLOATS]
        for i in places:
            leaves[i] = self.watch(leaves[i])
        self.entries.append(_Call(f, operands, places, [leaves[i].index for i in places]))
        return tree.pack(result, leaves)

    @contextlib.contextmanager
    def _on(self, other: "Tape", met: dict[int, Taped]) -> Iterator[None]:
        """Let another tape have this one's values as its own within the block; those met are kept by their number."""

        def instead(value: Taped) -> Taped:
            if value.index not in met:
                met[value.index] = other.watch(value.value)
            return met[value.index]

        before, self.instead = self.instead, instead
        try:
            yield
        finally:
            self.instead = before

    def _replaced(self, value: Any) -> Any:
        """A structure with this tape's values replaced."""

        def replaced(leaf: Any) -> Any:
            leaf = leaf.value if isinstance(leaf, Variable) else leaf
            return self.instead(leaf) if self.instead is not None and self._mine(leaf) else leaf

        return tree.map_structure(replaced, value)

    def _again(self, call: _Call, gradients: list[Any], found: dict[int, Any]) -> None:
        """Compute a function again, and go back through it."""
        shares = call.around.copy().run(self._computed_again, call, gradients)
        for index, share, value in shares:
            self._add(found, index, share, value)

    def _computed_again(self, call: _Call, gradients: list[Any]) -> list[tuple[int, Any, Any]]:
        tape, met, seeds = Tape(self), dict[int, Taped](), dict[int, Any]()
        told = context.on_call.set(None)
        try:
            # Functions within this one, too, find this tape's values replaced when their turn comes on the way back.
            with self._on(tape, met), _innermost(tape):
                leaves = tree.leaves(self._replaced(call.f(*self._replaced(call.operands))))
                for place, gradient in zip(call.places, gradients, strict=True):
                    if gradient is not None and tape._mine(leaves[place]):
                        tape._add(seeds, leaves[place].index, gradient, leaves[place].value)
                tape.go_back(seeds)
        finally:
            context.on_call.reset(told)
        return [(index, seeds.get(inner.index), inner.value) for index, inner in met.items()]

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
        self.go_back(found)
        return [found.get(s.index) if s.index in found else _c.zeros_like(s.value) for s in sources]

    def go_back(self, found: dict[int, Any]) -> None:
        """Carry gradients, by the numbers of the values they belong to, back to where the tape begins."""
        token = strict_scalars.set(True)
        try:
            with np.errstate(all="ignore"):
                while self.entries:
                    entry = self.entries.pop()
                    gradients = [found.pop(index, None) for index in entry.outputs]
                    if all(gradient is None for gradient in gradients):
                        continue
                    if isinstance(entry, _Call):
                        self._again(entry, gradients, found)
                    else:
                        self._back(entry, gradients, found)
        finally:
            strict_scalars.reset(token)

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


@contextlib.contextmanager
def _innermost(tape: Tape) -> Iterator[None]:
    """Let functions that are computed again be noted by this tape within the block."""
    token = context.tape.set(tape)
    try:
        yield
    finally:
        context.tape.reset(token)


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
            with _unrolled(), _innermost(tape):
                output, rest = function(sources)
        finally:
            _level.reset(token)

        def below(value: Any) -> Any:
            return value.value if isinstance(value, Taped) and value.tape is tape else value

        gradients = tape.gradients(output, sources)
        return (below(output), tree.map_structure(below, rest)), gradients

    return run
