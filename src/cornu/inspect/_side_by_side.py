"""An engine whose values are several engines' values side by side, and the judge of their differences."""

import contextlib
import itertools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.dims import shape_text
from cornu.core.errors import ArgumentError, EngineError
from cornu.core.spec import ArrayOperators
from cornu.core.variable import Variable
from cornu.engines.contract import Engine
from cornu.inspect._calls import Calls
from cornu.inspect._table import number_text
from cornu.layers._context import Call, call_in_force
from cornu.ops import control
from cornu.ops._declare import SPEC_RANK, Op, dtype_of, host_array, interprets, prepare, shape_of
from cornu.ops.creation import convert_to_numpy
from cornu.ops.elementwise import cast_to

__all__ = ["Beside", "Difference", "Judge", "SideBySide"]

_numbers = itertools.count()
# Inside one engine's own loop: which of the engines it is, and whether it works on the reference's values.
_alone: ContextVar[tuple[int, bool] | None] = ContextVar("cornu_alone", default=None)
# Families whose elements are each computed by themselves, so that each must agree; others sum, and may cancel.
_ELEMENT_BY_ELEMENT = ("elementwise", "movement", "indexing", "creation", "sorting", "random")


class Beside(ArrayOperators):
    """One value as each engine has it; the reference's first."""

    __slots__ = ("__weakref__", "engine", "values")

    def __init__(self, engine: "SideBySide", values: list[Any]) -> None:
        self.engine = engine
        self.values = values

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape, which is the same on all."""
        return shape_of(self.values[0])

    @property
    def dtype(self) -> str:
        """The dtype's name, which is the same on all."""
        return dtypes.promote(dtype_of(self.values[0]))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = self.engine.to_host(self)
        return host if dtype is None else host.astype(dtype)

    def __bool__(self) -> bool:
        return bool(np.asarray(self))

    def __float__(self) -> float:
        return float(np.asarray(self))

    def __int__(self) -> int:
        return int(np.asarray(self))


class SideBySide(Engine):
    """Computes every op on several engines.

    Args:
        engines: the engines, the reference first.
        judge: told of what each op gave.
    """

    rank = SPEC_RANK
    traces = False

    def __init__(self, engines: list[Any], judge: "Judge") -> None:
        self.name = f"side by side {next(_numbers)}"
        self.engines = engines
        self.judge = judge
        self.table = {}

    @contextlib.contextmanager
    def listening(self, calls: Calls) -> Iterator[None]:
        """Note the paths of layer calls in this block."""
        with calls.listening():
            yield

    def owns(self, kind: type) -> bool:
        """Values side by side."""
        return kind is Beside

    def from_host(self, value: np.ndarray) -> Beside:
        """A host array on each engine."""
        return Beside(self, [engine.from_host(value) for engine in self.engines])

    def to_host(self, value: Any) -> np.ndarray:
        """The reference's value."""
        return np.asarray(self.engines[0].to_host(value.values[0]))

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Anything an op takes, side by side, cast if a dtype is given."""
        if isinstance(value, Variable):
            value = value.value
        if not isinstance(value, Beside):
            return self.from_host(host_array(convert_to_numpy(value), dtype))
        return value if dtype is None or value.dtype == dtype else cast_to(value, dtype=dtype)

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op on every engine, and have the results judged."""
        alone = _alone.get()
        if alone is not None:
            place, from_reference = alone
            return self._on(place, op, arrays, static, from_reference)
        if op.family == "control":
            return self._loop(op, arrays, static)
        if not op.is_primitive and not any(op.name in engine.table for engine in self.engines):
            if op.promote is not None:
                arrays = prepare(op, arrays, self.own)
            with context.use_engine(self):
                return op.body(**arrays, **static)
        arrays = self._besides(arrays)
        results = [self._on(i, op, arrays, static) for i in range(len(self.engines))]
        again = [self._on(i, op, arrays, static, True) for i in range(1, len(self.engines))]
        return self._judged(op, arrays, results, again)

    def _loop(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A loop op by op; then, where an engine has a loop of its own, that one as a whole."""
        arrays = self._besides(arrays)
        plain = control.UNROLLED[op.name]
        with context.use_engine(self):
            stepwise = plain(**prepare(op, arrays, self.own), **static)
        results = [self._pick(stepwise, i, False) for i in range(len(self.engines))]
        again = [self._pick(stepwise, i, False) for i in range(1, len(self.engines))]
        native = False
        for i, engine in enumerate(self.engines[1:], start=1):
            if engine.table.get(op.name, plain) is not plain:
                native = True
                results[i] = self._on_alone(i, op, arrays, static, False)
                again[i - 1] = self._on_alone(i, op, arrays, static, True)
        if not native:
            return stepwise
        return self._judged(op, arrays, results, again)

    def _on_alone(self, place: int, op: Op, arrays: Any, static: Any, from_reference: bool) -> Any:
        """An op on one engine, with all that its functions take from outside brought to that engine."""
        alone, told = _alone.set((place, from_reference)), context.on_call.set(None)
        try:
            return self._on(place, op, arrays, static, from_reference)
        finally:
            context.on_call.reset(told)
            _alone.reset(alone)

    def _on(self, place: int, op: Op, arrays: Any, static: Any, from_reference: bool = False) -> Any:
        engine = self.engines[place]
        given = {name: self._pick(value, place, from_reference) for name, value in arrays.items()}
        with context.use_engine(engine):
            return engine.apply(op, given, static)

    def _pick(self, value: Any, place: int, from_reference: bool) -> Any:
        """A structure of values side by side as one engine has them, or as it has the reference's."""

        def pick(leaf: Any) -> Any:
            if isinstance(leaf, Variable):
                leaf = leaf.value
            if not isinstance(leaf, Beside):
                return leaf
            if not from_reference:
                return leaf.values[place]
            return self.engines[place].from_any(self.engines[0].to_host(leaf.values[0]))

        return tree.map_structure(pick, value)

    def _besides(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Arrays with variables read; one of a single engine's values cannot be compared."""

        def read(leaf: Any) -> Any:
            return leaf.value if isinstance(leaf, Variable) else leaf

        return {name: tree.map_structure(read, value) for name, value in arrays.items()}

    def _judged(self, op: Op, arrays: Any, results: list[Any], again: list[Any]) -> Any:
        columns = [tree.leaves(result) for result in results]
        if len({len(column) for column in columns}) != 1:
            raise EngineError(
                f"the engines give {', '.join(str(len(column)) for column in columns)} results for {op.name!r}",
                "the same number on each",
            )
        repeated = [tree.leaves(result) for result in again]
        packed: list[Any] = []
        many = len(columns[0]) > 1
        for i, (row, own) in enumerate(zip(zip(*columns, strict=True), zip(*repeated, strict=True), strict=True)):
            if not hasattr(row[0], "dtype"):
                packed.append(row[0])
                continue
            self.judge.add(op, arrays, self, row, own, i if many else None)
            packed.append(Beside(self, list(row)))
        self.judge.number += 1
        return tree.pack(results[0], packed)


interprets(Beside, lambda value: value.engine)


class Difference:
    """The difference of one engine from the reference on what one op gave.

    Attributes:
        number: the op's number in the order of execution, from 1.
        name: the op's name.
        layer: the path of the layer's call it was computed in; empty outside of layers.
        inputs: the shapes of its arrays.
        output: which of the op's results it is, `None` if there is but one.
        shape: the result's shape.
        dtype: the result's dtype.
        engine: the engine's name.
        absolute: the largest difference on the reference's values: the op's own.
        relative: the largest of those relative to the larger of the two magnitudes.
        where: the indices of the element that differs most by what is allowed.
        values: that element on the reference, and on the engine.
        parts: whether that is more than allowed.
        excess: the own difference as a multiple of what is allowed.
        added_absolute: the largest difference on the engine's own values: what added up.
        added_relative: that, relative to the largest magnitude in the result.
        drifts: whether that is more than allowed.
        place: its place among the rows.
    """

    layer = ""
    place = -1

    def __init__(self, number: int, name: str, engine: str, inputs: list[tuple[Any, ...]]) -> None:
        self.number, self.name, self.engine, self.inputs = number, name, engine, inputs
        self.output: int | None = None
        self.shape: tuple[int, ...] = ()
        self.dtype = ""
        self.absolute = self.relative = self.excess = self.added_absolute = self.added_relative = 0.0
        self.where: tuple[int, ...] = ()
        self.values: tuple[Any, Any] = (None, None)
        self.parts = self.drifts = False

    def told(self, reference: str) -> str:
        """In words: by how much, and where."""
        if self.shape != np.shape(self.values[0]) and self.values[0] is None:
            return "their shapes or dtypes differ"
        at = f" at {self.where}" if self.where else ""
        return (
            f"by {number_text(self.absolute)} (relative {number_text(self.relative)}){at}, "
            f"{self.values[0]:.7g} on {reference} and {self.values[1]:.7g} on {self.engine}; "
            f"inputs {', '.join(map(shape_text, self.inputs)) or 'none'}"
        )

    def cells(self) -> list[str]:
        """The cells of a table's row."""
        numbers = (self.absolute, self.relative, self.added_absolute, self.added_relative)
        mark = f"parts at {self.where}" if self.parts else "drifts" if self.drifts else ""
        output = f"{shape_text(self.shape)} {self.dtype}"
        name = self.name if self.output is None else f"{self.name}:{self.output}"
        return [str(self.number), name, self.layer, output, self.engine, *map(number_text, numbers), mark]

    def __repr__(self) -> str:
        place = f" in {self.layer!r}" if self.layer else ""
        return f"<op {self.number} {self.name!r}{place} on {self.engine}: {number_text(self.absolute)}>"


class Judge:
    """Measures differences by what is allowed.

    Args:
        rtol: relative difference allowed.
        atol: absolute difference allowed.
    """

    def __init__(self, rtol: float, atol: float) -> None:
        if rtol < 0 or atol < 0:
            raise ArgumentError(f"compare got rtol={rtol!r} and atol={atol!r}", "numbers from 0")
        self.rtol, self.atol = rtol, atol
        self.number = 1
        self.rows: list[Difference] = []
        self._calls: list[Call | None] = []

    def add(
        self, op: Op, arrays: Any, side: SideBySide, row: tuple[Any, ...], own: tuple[Any, ...], output: int | None
    ) -> None:
        """Judge one result of an op: each engine's, on its own values (`row`) and on the reference's (`own`)."""
        inputs = [shape_of(leaf) for leaf in tree.leaves(arrays) if hasattr(leaf, "dtype")]
        reference = side.to_host(Beside(side, list(row)))
        each = op.family in _ELEMENT_BY_ELEMENT
        for engine, added, value in zip(side.engines[1:], row[1:], own, strict=True):
            found = Difference(self.number, op.name, engine.name, inputs)
            found.output = output
            self._fill(found, reference, np.asarray(engine.to_host(value)), each)
            self._add_up(found, reference, np.asarray(engine.to_host(added)))
            self.rows.append(found)
            self._calls.append(call_in_force())

    def outputs(self, engine: str, reference: list[np.ndarray], found: list[np.ndarray]) -> list[Difference]:
        """Judge a model's outputs."""
        rows = []
        for i, (want, have) in enumerate(zip(reference, found, strict=True)):
            row = Difference(0, f"output {i}" if len(reference) > 1 else "output", engine, [])
            self._fill(row, want, have, False)
            rows.append(row)
        return rows

    def finished(self, calls: Calls) -> list[Difference]:
        """All rows, with the paths of their layers."""
        for place, (row, call) in enumerate(zip(self.rows, self._calls, strict=True)):
            row.layer, row.place = calls.path(call), place
        return self.rows

    def _fill(self, row: Difference, want: np.ndarray, have: np.ndarray, each: bool) -> None:
        row.shape, row.dtype = want.shape, want.dtype.name
        if want.shape != have.shape or want.dtype != have.dtype:
            row.absolute = row.relative = row.excess = float("inf")
            row.parts = True
            return
        if not want.size:
            return
        distance, magnitude, larger = _distance(want, have)
        allowed = self._allowed(want, magnitude if each else magnitude.max())
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(distance > 0, distance / allowed, 0.0)
            relative = np.where(distance > 0, distance / larger, 0.0)
        worst = np.unravel_index(int(np.argmax(excess)), want.shape)
        row.where = tuple(int(i) for i in worst)
        row.values = (want[worst].item(), have[worst].item())
        row.absolute, row.relative = float(distance.max()), float(relative.max())
        row.excess = float(excess.max())
        row.parts = row.excess > 1

    def _add_up(self, row: Difference, want: np.ndarray, have: np.ndarray) -> None:
        if want.shape != have.shape or not want.size:
            return
        distance, magnitude, _ = _distance(want, have)
        scale = float(magnitude.max())
        row.added_absolute = float(distance.max())
        row.added_relative = row.added_absolute / scale if scale else float(row.added_absolute > 0)
        row.drifts = want.dtype.kind not in "biu" and bool((distance > self._allowed(want, scale)).any())

    def _allowed(self, want: np.ndarray, scale: Any) -> Any:
        if want.dtype.kind in "biu":
            return np.zeros_like(scale, dtype="float64")
        units = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(want.dtype.name, 0.0)
        return self.atol + max(self.rtol, 8 * units) * scale


def _distance(want: np.ndarray, have: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The differences, the reference's magnitudes and the larger magnitudes; what is equally non-finite is equal."""
    a, b = want.astype("float64"), have.astype("float64")
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
    distance = np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))
    first, second = (np.where(np.isfinite(v), np.abs(v), 0.0) for v in (a, b))
    return distance, first, np.maximum(first, second)
