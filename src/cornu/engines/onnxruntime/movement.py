"""Creation, movement, choosing and putting elements by position, in ONNX."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.nodes import Value
from cornu.ops._rules import broadcast_shapes

__all__ = ["TABLE"]


def _slice_static(x: Value, starts: Any, stops: Any, steps: Any) -> Value:
    return n.slice_box(x, dict(enumerate(zip(starts, stops, steps, strict=True))))


TABLE: dict[str, Callable[..., Any]] = {
    "broadcast_to_shape": lambda x, shape: n.expand(x, shape),
    "iota": lambda size, dtype: n.constant(np.arange(size), dtype),
    "size_as_array": lambda size: n.constant(size, "int32"),
    "reshape_to": lambda x, shape: n.reshape(x, shape),
    "permute": lambda x, axes: n.transpose(x, axes),
    "concatenate_all": lambda xs, axis: n.concat(xs, axis),
    "flip_axes": lambda x, axes: n.flip(x, axes),
    "pad_constant": lambda x, value, widths: n.pad(x, widths, n.reshape(value, ())),
    "slice_static": _slice_static,
}


# ---------------------------------------------------------------- boxes that start where scalars say


def _first(x: Value, starts: list[Value], shape: Any) -> Value:
    """Where a box starts on all axes, moved inwards where it would stick out: int64 `(rank,)`."""
    corner = n.concat([n.reshape(n.cast(start, "int64"), (1,)) for start in starts], 0)
    most = [size - want for size, want in zip(x.shape, shape, strict=True)]
    return n.minimum(n.maximum(corner, 0), n.shape_tensor(most))


def _dynamic_slice(x: Value, starts: list[Value], shape: Any) -> Value:
    if not x.ndim:
        return x
    corner = _first(x, starts, shape)
    ends = n.add(corner, n.shape_tensor(shape))
    return n.node("Slice", x, corner, ends, n.shape_tensor(range(x.ndim)), shape=tuple(shape), dtype=x.dtype)


def _dynamic_update(x: Value, update: Value, starts: list[Value]) -> Value:
    if not x.ndim:
        return update
    # Axes at the end that the update covers whole need no positions.
    depth = max((a + 1 for a in range(x.ndim) if x.shape[a] != update.shape[a]), default=0)
    if depth == 0:
        return update
    box = update.shape[:depth]
    grid = np.stack(np.meshgrid(*map(np.arange, box), indexing="ij"), -1)
    corner = n.slice_box(_first(x, starts, update.shape), {0: (0, depth, 1)})
    places = n.add(n.constant(grid, "int64"), corner)
    # All positions differ, so that `ScatterND` has nothing to race for.
    return n.node("ScatterND", x, places, update, shape=x.shape, dtype=x.dtype)


# ---------------------------------------------------------------- gather


def _outside(dtype: str) -> Any:
    return math.nan if dtype in dtypes.FLOATS else 0


def _inside(indices: Value, size: int) -> Value | None:
    """Whether positions are within an axis; `None` if all are known to be."""
    known = indices.array
    if known is not None and ((known >= 0) & (known < size)).all():
        return None
    return n.and_(n.greater_equal(indices, 0), n.less(indices, size))


def _signed(indices: Value) -> Value:
    if indices.dtype in ("int32", "int64"):
        return indices
    if indices.array is not None:
        return n.constant(indices.array, "int64")
    return n.cast(indices, "int64")


def _gather(x: Value, indices: Value, axis: int) -> Value:
    indices = _signed(indices)
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    if x.shape[axis] == 0 or 0 in shape:
        return n.expand(n.constant(_outside(x.dtype), x.dtype), shape)
    inside = _inside(indices, x.shape[axis])
    if inside is None:
        return n.gather(x, indices, axis)
    taken = n.gather(x, n.where(inside, indices, 0), axis)
    mask = n.reshape(inside, (1,) * axis + indices.shape + (1,) * (x.ndim - axis - 1))
    return n.where(mask, taken, _outside(x.dtype))


def _gather_along(x: Value, indices: Value, axis: int) -> Value:
    indices = _signed(indices)
    rest: Any = broadcast_shapes(*[s[:axis] + (1,) + s[axis + 1 :] for s in (x.shape, indices.shape)])
    shape = (*rest[:axis], indices.shape[axis], *rest[axis + 1 :])
    if x.shape[axis] == 0 or 0 in shape:
        return n.expand(n.constant(_outside(x.dtype), x.dtype), shape)
    inside = _inside(indices, x.shape[axis])
    places = n.expand(indices if inside is None else n.where(inside, indices, 0), shape)
    wide = n.expand(x, (*rest[:axis], x.shape[axis], *rest[axis + 1 :]))
    taken = n.node("GatherElements", wide, places, shape=shape, dtype=x.dtype, axis=axis)
    return taken if inside is None else n.where(inside, taken, _outside(x.dtype))


# ---------------------------------------------------------------- scatter


def _flat_places(indices: Value, sizes: tuple[int, ...]) -> Value:
    """Positions on several axes as one int64 number each, in a row; `prod(sizes)` for those outside."""
    count = math.prod(sizes)
    indices = n.cast(_signed(indices), "int64")
    depth = indices.shape[-1]
    rows = n.reshape(indices, (math.prod(indices.shape[:-1]), depth))
    strides = [math.prod(sizes[i + 1 :]) for i in range(depth)]
    flat = n.reduce("ReduceSum", n.mul(rows, n.shape_tensor(strides)), [1])
    good = n.and_(n.greater_equal(rows, 0), n.less(rows, n.shape_tensor(sizes)))
    return n.where(n.reduce("ReduceMin", good, [1]), flat, count)


def _last_of_equal(flat: Value, count: int) -> Value:
    """Places with all but the last of equal ones moved outside."""
    order = n.constant(np.arange(flat.shape[0]), "int64")
    nobody = n.expand(n.constant(-1, "int64"), (count + 1,))
    last = n.scatter_elements(nobody, flat, order, "max")
    return n.where(n.equal(n.gather(last, flat, 0), order), flat, count)


def _scatter_nd(x: Value, indices: Value, updates: Value, mode: str) -> Value:
    depth = indices.shape[-1]
    sizes, rest = x.shape[:depth], x.shape[depth:]
    count, width = math.prod(sizes), math.prod(rest)
    rows = math.prod(indices.shape[:-1])
    if rows == 0 or x.size == 0:
        return x
    values = n.reshape(n.expand(updates, (*indices.shape[:-1], *rest)), (rows, width))
    table = n.reshape(x, (count, width))
    if depth == 0:
        flat = n.constant(np.zeros(rows), "int64")
    else:
        flat = _flat_places(indices, sizes)
    if mode == "set":
        flat = _last_of_equal(flat, count)
    # One more row takes what falls outside.
    table = n.pad(table, ((0, 1), (0, 0)))
    places = n.expand(n.reshape(flat, (rows, 1)), (rows, width))
    found = _combine(table, places, values, mode)
    return n.reshape(n.slice_box(found, {0: (0, count, 1)}), x.shape)


def _combine(table: Value, places: Value, values: Value, mode: str) -> Value:
    found = n.scatter_elements(table, places, values, "none" if mode == "set" else mode)
    if mode not in ("max", "min") or table.dtype not in dtypes.FLOATS:
        return found
    missing = [n.cast(n.isnan(part), "int32") for part in (table, values)]
    lost = n.scatter_elements(missing[0], places, missing[1], "max")
    return n.where(n.greater(lost, 0), math.nan, found)


# ---------------------------------------------------------------- search


def _searchsorted(sorted_sequence: Value, values: Value, side: str) -> Value:
    """By halving: each round tries to move on by a power of 2. NaN is larger than any number."""
    size = sorted_sequence.shape[0]
    is_float = values.dtype in dtypes.FLOATS

    def before(element: Value) -> Value:
        holds = n.less(element, values) if side == "left" else n.less_equal(element, values)
        if not is_float:
            return holds
        last = n.isnan(values)
        return n.or_(holds, n.and_(last, n.not_(n.isnan(element))) if side == "left" else last)

    found = n.constant(np.zeros(values.shape), "int32")
    for power in reversed(range(size.bit_length())):
        ahead = n.add(found, 1 << power)
        inside = n.less_equal(ahead, size)
        element = n.gather(sorted_sequence, n.sub(n.where(inside, ahead, 1), 1), 0)
        found = n.where(n.and_(inside, before(element)), ahead, found)
    return found


TABLE |= {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update": _dynamic_update,
    "gather": _gather,
    "gather_along": _gather_along,
    "scatter_nd": _scatter_nd,
    "searchsorted_in": _searchsorted,
}
