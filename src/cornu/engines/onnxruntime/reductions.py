"""Reductions, cumulative functions and sorting, in ONNX."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.builder import emit
from cornu.engines.onnxruntime.nodes import Value
from cornu.engines.onnxruntime.quirks import widened
from cornu.ops._rules import axes_of
from cornu.ops.reduction import reduced_shape

__all__ = ["TABLE", "ordered"]

_TOP_BIT = 1 << 63


def ordered(x: Value) -> Value:
    """uint64 as int64 in the same order (the kernels compare signed numbers only); other dtypes as they are."""
    return n.cast(n.bitwise_xor(x, _TOP_BIT), "int64") if x.dtype == "uint64" else x


def _unordered(x: Value, dtype: str) -> Value:
    return n.bitwise_xor(n.cast(x, "uint64"), _TOP_BIT) if dtype == "uint64" else x


def _is_float(x: Value) -> bool:
    return x.dtype in dtypes.FLOATS


def _total(operator: str, whole: Callable[[Value], Value]) -> Callable[..., Value]:
    """A sum or product; that of whole numbers by a function of `(rows, columns)` that wraps as they do."""

    def run(x: Value, axis: Any, keepdims: bool) -> Value:
        axes = axes_of(axis, x.ndim)
        if _is_float(x) or not axes or 0 in x.shape:
            return n.reduce(operator, x, axes, keepdims)
        kept = [a for a in range(x.ndim) if a not in axes]
        rows = math.prod(x.shape[a] for a in kept)
        return n.reshape(
            whole(n.reshape(n.transpose(x, (*kept, *axes)), (rows, x.size // rows))),
            reduced_shape(x.shape, axes, keepdims),
        )

    return run


def _whole_sum(x: Value) -> Value:
    return n.matmul(x, n.constant(np.ones((x.shape[1], 1)), x.dtype), (x.shape[0], 1))


def _whole_prod(x: Value) -> Value:
    """One half times the other until one is left."""
    while x.shape[1] > 1:
        half = x.shape[1] // 2
        rest = n.slice_box(x, {1: (2 * half, x.shape[1], 1)})
        both = n.mul(n.slice_box(x, {1: (0, half, 1)}), n.slice_box(x, {1: (half, 2 * half, 1)}))
        x = n.concat([both, rest], 1) if rest.shape[1] else both
    return x


def _extreme(operator: str) -> Callable[..., Value]:
    def run(x: Value, axis: Any, keepdims: bool) -> Value:
        axes = axes_of(axis, x.ndim)
        found = _unordered(n.reduce(operator, ordered(x), axes, keepdims), x.dtype)
        if not _is_float(x) or not axes:
            return found
        return n.where(n.reduce("ReduceMax", n.isnan(x), axes, keepdims), math.nan, found)

    return run


def _truth(operator: str, of_none: bool) -> Callable[..., Value]:
    def run(x: Value, axis: Any, keepdims: bool) -> Value:
        axes = axes_of(axis, x.ndim)
        if 0 in [x.shape[a] for a in axes]:
            return n.expand(n.constant(of_none, "bool"), reduced_shape(x.shape, axes, keepdims))
        return n.reduce(operator, x, axes, keepdims)

    return run


def _place(operator: str) -> Callable[..., Value]:
    def run(x: Value, axis: int | None, keepdims: bool) -> Value:
        shape = reduced_shape(x.shape, axes_of(axis, x.ndim), keepdims)
        flat = n.reshape(x, (x.size,)) if axis is None else x
        at = 0 if axis is None else axis % x.ndim

        def find(operator: str, y: Value) -> Value:
            left = tuple(size for a, size in enumerate(y.shape) if a != at)
            return n.node(operator, y, shape=left, dtype="int64", axis=at, keepdims=0)

        places = find(operator, ordered(flat))
        if _is_float(x):
            missing = n.isnan(flat)
            first = find("ArgMax", n.cast(missing, "uint8"))
            places = n.where(n.reduce("ReduceMax", missing, [at]), first, places)
        return n.reshape(n.cast(places, "int32"), shape)

    return run


TABLE: dict[str, Callable[..., Any]] = {
    "sum": _total("ReduceSum", _whole_sum),
    "prod": _total("ReduceProd", _whole_prod),
    "max": _extreme("ReduceMax"),
    "min": _extreme("ReduceMin"),
    "any": _truth("ReduceMax", False),
    "all": _truth("ReduceMin", True),
    "argmax": _place("ArgMax"),
    "argmin": _place("ArgMin"),
}


# ---------------------------------------------------------------- cumulative


def _cumulative_sum(x: Value, axis: int, reverse: bool) -> Value:
    place = n.constant(axis % x.ndim, "int64")
    return x if x.size == 0 else n.node("CumSum", x, place, shape=x.shape, reverse=int(reverse))


def _doubling(combine: Callable[[Value, Value], Value]) -> Callable[..., Value]:
    """A cumulative function of an associative one: after k rounds each element has met the 2**k - 1 before it."""

    def run(x: Value, axis: int, reverse: bool) -> Value:
        own = x.dtype
        if own in ("float16", "bfloat16"):
            x = n.cast(x, "float32")
        axis, reach = axis % x.ndim, 1
        size = x.shape[axis]
        while reach < size:
            here = (0, size - reach, 1) if reverse else (reach, size, 1)
            there = (reach, size, 1) if reverse else (0, size - reach, 1)
            alone = (size - reach, size, 1) if reverse else (0, reach, 1)
            met = combine(n.slice_box(x, {axis: here}), n.slice_box(x, {axis: there}))
            rest = n.slice_box(x, {axis: alone})
            x = n.concat([met, rest] if reverse else [rest, met], axis)
            reach *= 2
        return n.cast(x, own)

    return run


TABLE |= {
    "cumulative_sum": _cumulative_sum,
    "cumulative_prod": _doubling(n.mul),
    "cumulative_max": _doubling(lambda x, y: n.or_(x, y) if x.dtype == "bool" else n.maximum(x, y)),
}


# ---------------------------------------------------------------- sorting


def _top(x: Value, k: int, axis: int, largest: bool) -> tuple[Value, Value]:
    """`TopK`, which takes the first of equal elements first; NaN counts as it falls."""
    wide = widened("TopK", x.dtype)
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    outs = [(shape, wide), (shape, "int64")]
    values, places = emit("TopK", [n.cast(x, wide), n.shape_tensor([k])], outs, axis=axis, largest=int(largest))
    return n.cast(values, x.dtype), places


def _take(x: Value, places: Value, axis: int) -> Value:
    return n.node("GatherElements", x, places, shape=places.shape, dtype=x.dtype, axis=axis)


def _order(x: Value, axis: int, largest: bool) -> Value:
    """The places in order, equal elements as they stand, NaN as the largest."""
    size = x.shape[axis]
    if not _is_float(x):
        return _top(ordered(x), size, axis, largest)[1]
    missing = n.isnan(x)
    _, places = _top(n.where(missing, math.inf, x), size, axis, largest)
    _, again = _top(_take(n.cast(missing, "uint8"), places, axis), size, axis, largest)
    return _take(places, again, axis)


def _sort(x: Value, axis: int) -> Value:
    if not x.ndim or x.size == 0:
        return x
    axis %= x.ndim
    size = x.shape[axis]
    if not _is_float(x):
        return _unordered(_top(ordered(x), size, axis, False)[0], x.dtype)
    missing = n.isnan(x)
    values, _ = _top(n.where(missing, math.inf, x), size, axis, False)
    count = n.reduce("ReduceSum", n.cast(missing, "int32"), [axis], keepdims=True)
    ranks = np.arange(size - 1, -1, -1, dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return n.where(n.less(n.constant(ranks, "int32"), count), math.nan, values)


def _argsort(x: Value, axis: int) -> Value:
    if not x.ndim or x.size == 0:
        return n.constant(np.zeros(x.shape), "int32")
    return n.cast(_order(x, axis % x.ndim, False), "int32")


def _top_k(x: Value, k: int, sorted: bool) -> tuple[Value, Value]:
    axis = x.ndim - 1
    if k == 0 or x.size == 0:
        shape = (*x.shape[:-1], k)
        return n.constant(np.zeros(shape), x.dtype), n.constant(np.zeros(shape), "int32")
    if not _is_float(x):
        _, places = _top(ordered(x), k, axis, True)
    else:
        places = n.slice_box(_order(x, axis, True), {axis: (0, k, 1)})
    return _take(x, places, axis), n.cast(places, "int32")


TABLE |= {"sort": _sort, "argsort": _argsort, "top_k": _top_k}
