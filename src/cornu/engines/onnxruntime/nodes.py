"""The operators of ONNX as functions of values: shapes and dtypes follow, kernels that are missing are got round.

Whole numbers and floats of Python take the dtype of the value they meet. Sizes enter through `shape_tensor` alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cornu.core import dtypes
from cornu.engines.onnxruntime.builder import ELEMENT_TYPES, choose, current, emit
from cornu.engines.onnxruntime.quirks import POSITIONAL, widened
from cornu.engines.onnxruntime.value import OnnxValue
from cornu.ops._rules import broadcast_shapes

Value = OnnxValue
Shape = tuple[int, ...]


def constant(value: Any, dtype: str) -> Value:
    """A host array or a number as a value of a dtype."""
    array = np.asarray(value).astype(dtypes.numpy_dtype(dtype), copy=False)
    return OnnxValue(array.shape, dtype, array=array)


def shape_tensor(sizes: Sequence[int]) -> Value:
    """Sizes (or axes, starts ...) as the int64 vector that operators take."""
    return constant(np.array(sizes, np.int64).reshape(-1), "int64")


def cast(x: Value, dtype: str) -> Value:
    """The value in another dtype, out of range as the processor does."""
    return x if x.dtype == dtype else emit("Cast", [x], [(x.shape, dtype)], to=ELEMENT_TYPES[dtype])[0]


def node(operator: str, *inputs: Value | None, shape: Shape, dtype: str | None = None, **attributes: Any) -> Value:
    """One node with one result.

    Args:
        operator: ONNX's name.
        inputs: values.
        shape: the result's shape.
        dtype: the result's dtype; `None` for that of the data, which is widened and cast back if there is no kernel.
        attributes: as for `emit`.
    """
    places = POSITIONAL.get(operator) or range(len(inputs))
    first = inputs[places[0]]
    own = first.dtype if first is not None else ""
    wide = widened(operator, own)
    if wide == own:
        return emit(operator, inputs, [(shape, dtype or own)], **attributes)[0]
    given = [cast(x, wide) if x is not None and i in places else x for i, x in enumerate(inputs)]
    result = emit(operator, given, [(shape, dtype or wide)], **attributes)[0]
    return result if dtype else cast(result, own)


# ---------------------------------------------------------------- elementwise


def _unary(operator: str, dtype: str | None = None) -> Callable[[Value], Value]:
    return lambda x: node(operator, x, shape=x.shape, dtype=dtype)


def _both(x: Any, y: Any) -> tuple[Value, Value]:
    if not isinstance(x, OnnxValue):
        return constant(x, y.dtype), y
    return x, y if isinstance(y, OnnxValue) else constant(y, x.dtype)


def _binary(operator: str, dtype: str | None = None, **attributes: Any) -> Callable[[Any, Any], Value]:
    def run(x: Any, y: Any) -> Value:
        x, y = _both(x, y)
        return node(operator, x, y, shape=broadcast_shapes(x.shape, y.shape), dtype=dtype, **attributes)  # type: ignore

    return run


exp, log, sqrt = _unary("Exp"), _unary("Log"), _unary("Sqrt")
sin, cos, tan = _unary("Sin"), _unary("Cos"), _unary("Tan")
arcsin, arccos, arctan = _unary("Asin"), _unary("Acos"), _unary("Atan")
sinh, cosh, tanh = _unary("Sinh"), _unary("Cosh"), _unary("Tanh")
arcsinh, arccosh, arctanh = _unary("Asinh"), _unary("Acosh"), _unary("Atanh")
erf, neg, sign, absolute = _unary("Erf"), _unary("Neg"), _unary("Sign"), _unary("Abs")
floor, ceil, round_even, reciprocal = _unary("Floor"), _unary("Ceil"), _unary("Round"), _unary("Reciprocal")
not_, bitwise_not = _unary("Not"), _unary("BitwiseNot")
isnan, isinf = _unary("IsNaN", "bool"), _unary("IsInf", "bool")
sub, mul, div = _binary("Sub"), _binary("Mul"), _binary("Div")
power, maximum, minimum = _binary("Pow"), _binary("Max"), _binary("Min")
mod, fmod = _binary("Mod"), _binary("Mod", fmod=1)
equal, less, less_equal = _binary("Equal", "bool"), _binary("Less", "bool"), _binary("LessOrEqual", "bool")
greater, greater_equal = _binary("Greater", "bool"), _binary("GreaterOrEqual", "bool")
and_, or_, xor = _binary("And"), _binary("Or"), _binary("Xor")
bitwise_and, bitwise_or, bitwise_xor = _binary("BitwiseAnd"), _binary("BitwiseOr"), _binary("BitwiseXor")
shift_left = _binary("BitShift", direction="LEFT")
shift_right = _binary("BitShift", direction="RIGHT")


_add = _binary("Add")


def add(x: Any, y: Any) -> Value:
    """`x + y`; two boxes with zeros around them that touch become one box (the gradients of the slices of an array)."""
    x, y = _both(x, y)
    notes = _notes()
    first, second = notes.get(x.name), notes.get(y.name)
    if type(first) is not _Box or type(second) is not _Box or first.axis != second.axis or x.shape != y.shape:
        return _add(x, y)
    if first.start > second.start:
        first, second = second, first
    axis = first.axis
    if first.start == second.start and first.value.shape == second.value.shape:
        return _boxed(add(first.value, second.value), axis, first.start, x.shape)
    if first.start + first.value.shape[axis] != second.start:
        return _add(x, y)
    return _boxed(concat([first.value, second.value], axis), axis, first.start, x.shape)


def _boxed(x: Value, axis: int, start: int, shape: Shape) -> Value:
    rest = shape[axis] - start - x.shape[axis]
    return pad(x, [(start, rest) if a == axis else (0, 0) for a in range(x.ndim)])


def where(condition: Value, x: Any, y: Any) -> Value:
    """`x` where a boolean condition holds, `y` elsewhere; all broadcast."""
    x, y = _both(x, y)
    shape: Any = broadcast_shapes(condition.shape, x.shape, y.shape)
    return node("Where", condition, x, y, shape=shape)


# From how many elements on `If` costs less than `Where`.
_LARGE = 4096


def select(condition: Value, x: Value, y: Value) -> Value:
    """`where` for large floats: a choice of arrays, or a sum of products; `Where` only where that gives NaN."""
    shape: Any = broadcast_shapes(condition.shape, x.shape, y.shape)
    if math.prod(shape) < _LARGE or x.dtype not in ("float32", "float64"):
        return where(condition, x, y)
    if not condition.ndim and x.shape == y.shape:
        return choose(condition, lambda: x, lambda: y)
    x, y = _only_zero(x), _only_zero(y)
    share = cast(condition, x.dtype)
    parts = [mul(x, share)] if x.array is None or x.array.any() else []
    if not parts or y.array is None or y.array.any():
        parts.append(mul(y, sub(1, share)))
    result = parts[0] if len(parts) == 1 else add(*parts)
    if result.shape != shape:
        return where(condition, expand(x, shape), y)
    lost = isnan(reduce("ReduceSum", result, range(result.ndim)))
    return choose(lost, lambda: where(condition, x, y), lambda: result)


def _only_zero(x: Value) -> Value:
    """A constant of zeros as a single one."""
    return constant(0, x.dtype) if x.array is not None and not x.array.any() else x


def polynomial(coefficients: Sequence[float], x: Value) -> Value:
    """Horner's scheme, highest power first."""
    result = constant(coefficients[0], x.dtype)
    for coefficient in coefficients[1:]:
        result = add(mul(result, x), coefficient)
    return result


# ---------------------------------------------------------------- movement


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """The elements in another shape."""
    shape = tuple(shape)
    if shape == x.shape:
        return x
    return node("Reshape", x, shape_tensor(shape), shape=shape, dtype=x.dtype, allowzero=int(0 in shape))


def transpose(x: Value, axes: Sequence[int]) -> Value:
    """The axes in another order."""
    axes = tuple(int(a) for a in axes)
    if axes == tuple(range(len(axes))):
        return x
    return node("Transpose", x, shape=tuple(x.shape[a] for a in axes), perm=axes)


def expand(x: Value, shape: Sequence[int]) -> Value:
    """The value repeated to a shape."""
    shape = tuple(shape)
    return x if shape == x.shape else node("Expand", x, shape_tensor(shape), shape=shape)


class _Box(NamedTuple):
    """How a value was made: a box with zeros before and after it along one axis."""

    value: Value
    axis: int
    start: int


class _Joined(NamedTuple):
    """How a value was made: parts joined along an axis."""

    parts: list[Value]
    axis: int


def _notes() -> dict[str, Any]:
    graph = current()
    return {} if graph is None else graph.root.notes


def concat(xs: Sequence[Value], axis: int) -> Value:
    """Values joined along an axis; those that were just joined along it are taken apart first."""
    if len(xs) == 1:
        return xs[0]
    parts, notes = [], _notes()
    for x in xs:
        known = notes.get(x.name)
        parts.extend(known.parts if type(known) is _Joined and known.axis == axis else [x])
    first = parts[0].shape
    shape = (*first[:axis], sum(x.shape[axis] for x in parts), *first[axis + 1 :])
    result = node("Concat", *parts, shape=shape, axis=axis)
    notes[result.name] = _Joined(parts, axis)
    return result


def slice_box(x: Value, bounds: dict[int, tuple[int, int, int]]) -> Value:
    """A box of elements, from `{axis: (start, stop, step)}`, the step above 0; other axes stay whole."""
    rows = {a: row for a, row in bounds.items() if row != (0, x.shape[a], 1)}
    if not rows:
        return x
    shape = list(x.shape)
    for a, (start, stop, step) in rows.items():
        shape[a] = max(0, -(-(stop - start) // step))
    starts, stops, steps = zip(*rows.values(), strict=True)
    settings = [shape_tensor(part) for part in (starts, stops, list(rows), steps)]
    return node("Slice", x, *settings, shape=tuple(shape), dtype=x.dtype)


def flip(x: Value, axes: Sequence[int]) -> Value:
    """The elements in reverse order along axes."""
    axes = [a for a in axes if x.shape[a] > 1]
    if not axes:
        return x
    ends = [-1 - x.shape[a] for a in axes]
    settings = [shape_tensor(part) for part in ([-1] * len(axes), ends, axes, [-1] * len(axes))]
    return node("Slice", x, *settings, shape=x.shape, dtype=x.dtype)


def pad(x: Value, widths: Sequence[tuple[int, int]], value: Any = 0) -> Value:
    """A value added before and after along each axis; below 0, elements are left out."""
    if not any(low or high for low, high in widths):
        return x
    shape = tuple(low + size + high for size, (low, high) in zip(x.shape, widths, strict=True))
    fill = value if isinstance(value, OnnxValue) else constant(value, x.dtype)
    counts = shape_tensor([low for low, _ in widths] + [high for _, high in widths])
    result = node("Pad", x, counts, fill, shape=shape)
    touched = [a for a, pair in enumerate(widths) if pair != (0, 0)]
    if len(touched) == 1 and min(widths[touched[0]]) >= 0 and fill.array is not None and not fill.array.any():
        _notes()[result.name] = _Box(x, touched[0], widths[touched[0]][0])
    return result


# ---------------------------------------------------------------- reductions, choice, products


def reduce(operator: str, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
    """One of ONNX's reductions over axes counted from the front."""
    if not axes:
        return x
    shape = tuple(1 if a in axes else size for a, size in enumerate(x.shape) if keepdims or a not in axes)
    return node(operator, x, shape_tensor(axes), shape=shape, keepdims=int(keepdims))


def gather(x: Value, indices: Value, axis: int) -> Value:
    """The parts at positions that are all inside."""
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    return node("Gather", x, indices, shape=shape, dtype=x.dtype, axis=axis)


def scatter_elements(x: Value, indices: Value, updates: Value, mode: str) -> Value:
    """Updates put in along axis 0, in order; all indices inside."""
    return node("ScatterElements", x, indices, updates, shape=x.shape, axis=0, reduction=mode)


def matmul(x: Value, y: Value, shape: Shape) -> Value:
    """The matrix product, NumPy's."""
    return node("MatMul", x, y, shape=shape)
