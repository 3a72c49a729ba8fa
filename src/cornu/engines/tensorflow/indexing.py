"""Moving elements, choosing them by position, putting them at positions, and products of matrices, in TensorFlow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cornu.core.dims import Dim
from cornu.engines.tensorflow import quirks
from cornu.engines.tensorflow.elementwise import last, restored, sort_keys
from cornu.engines.tensorflow.sizes import resolve, shape_vector, sizes_of
from cornu.ops._declare import operator
from cornu.ops._rules import broadcast_shapes, product

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Any]] = {}

# ---------------------------------------------------------------- movement


def _reshape(x: Any, shape: Any) -> Any:
    unknown = [i for i, size in enumerate(shape) if isinstance(size, Dim)]
    if len(unknown) == 1 and 0 not in shape:
        return tf.reshape(x, [-1 if i in unknown else size for i, size in enumerate(shape)])
    return tf.reshape(x, shape_vector(shape))


def _permute(x: Any, axes: Any) -> Any:
    return x if list(axes) == list(range(len(axes))) else tf.transpose(x, axes)


def _pairs(widths: Any) -> Any:
    """Pairs of counts as TensorFlow takes them."""
    if not any(isinstance(size, Dim) for pair in widths for size in pair):
        return np.asarray(widths, np.int32).reshape(-1, 2)
    return tf.stack([shape_vector(pair) for pair in widths])


def _pad(x: Any, value: Any, widths: Any) -> Any:
    return tf.pad(x, _pairs(widths), constant_values=value)


def _slice_static(x: Any, starts: Any, stops: Any, steps: Any) -> Any:
    rows = []
    for start, stop, step, size in zip(starts, stops, steps, sizes_of(x), strict=True):
        whole = stop == size and type(stop) is type(size)
        first = None if type(start) is int and start == 0 else resolve(start)
        rows.append(slice(first, None if whole else resolve(stop), step))
    changed = any(row.start is not None or row.stop is not None or row.step != 1 for row in rows)
    return x[tuple(rows)] if changed else x


def _split(x: Any, indices_or_sections: Any, axis: int) -> list[Any]:
    """Equal parts as one operator, whose gradient is one too; others as composed."""
    if isinstance(indices_or_sections, int) and -x.shape.rank <= axis < x.shape.rank:
        size = x.shape[axis]
        if size is not None and indices_or_sections > 0 and size % indices_or_sections == 0:
            return list(tf.split(x, indices_or_sections, axis))
    return list(operator("split").body(x, indices_or_sections, axis))


TABLE |= {
    "split": _split,
    "reshape_to": _reshape,
    "permute": _permute,
    "concatenate_all": lambda xs, axis: tf.concat(xs, axis),
    "flip_axes": lambda x, axes: tf.reverse(x, list(axes)),
    "pad_constant": _pad,
    "slice_static": _slice_static,
}

# ---------------------------------------------------------------- boxes at positions


def _begin(x: Any, starts: list[Any], shape: Any) -> list[Any]:
    """Where a box starts, moved inwards where it would stick out."""
    rows = zip(starts, sizes_of(x), shape, strict=True)
    return [
        tf.clip_by_value(tf.cast(start, tf.int32), 0, tf.cast(resolve(size - want), tf.int32))
        for start, size, want in rows
    ]


def _dynamic_slice(x: Any, starts: list[Any], shape: Any) -> Any:
    return tf.slice(x, tf.stack(_begin(x, starts, shape)), shape_vector(shape)) if starts else x


def _dynamic_update(x: Any, update: Any, starts: list[Any]) -> Any:
    if not starts:
        return update
    shape = sizes_of(update)
    begin = _begin(x, starts, shape)
    rest = [resolve(size - want) - at for size, want, at in zip(sizes_of(x), shape, begin, strict=True)]
    widths = tf.stack([begin, rest], axis=1)
    inside = tf.pad(tf.fill(tf.shape(update), True), widths)
    return tf.ensure_shape(tf.where(inside, tf.pad(update, widths), x), x.shape)


# ---------------------------------------------------------------- gather


def _positions(indices: Any) -> Any:
    """Indices as TensorFlow takes them."""
    if indices.dtype in (tf.int32, tf.int64):
        return indices
    return tf.cast(indices, tf.int64 if indices.dtype in (tf.uint32, tf.uint64) else tf.int32)


def _inside(indices: Any, size: Any) -> Any:
    """Which positions lie on an axis; `None` where all are known to."""
    known = tf.get_static_value(indices) if isinstance(size, int) else None
    if known is not None and np.all((known >= 0) & (known < size)):
        return None
    return (indices >= 0) & (indices < tf.cast(resolve(size), indices.dtype))


def _outside(x: Any) -> Any:
    """What a position outside gives."""
    return tf.constant(np.nan, x.dtype) if x.dtype.is_floating else tf.zeros((), x.dtype)


def _gather(x: Any, indices: Any, axis: int) -> Any:
    indices = _positions(indices)
    size = sizes_of(x)[axis]
    if not isinstance(size, Dim) and size == 0:  # nothing to take from
        shape = tf.concat([tf.shape(x)[:axis], tf.shape(indices), tf.shape(x)[axis + 1 :]], 0)
        return tf.fill(shape, _outside(x))
    inside = _inside(indices, size)
    if inside is None:
        return tf.gather(x, indices, axis=axis)
    taken = tf.gather(x, tf.where(inside, indices, tf.zeros((), indices.dtype)), axis=axis)
    rest = len(x.shape) - axis - 1
    wide = inside[(tf.newaxis,) * axis + (Ellipsis,) + (tf.newaxis,) * rest]
    return tf.where(wide, taken, _outside(x))


def _spread(x: Any, shape: Any) -> Any:
    """The array repeated along axes of size 1."""
    return x if sizes_of(x) == tuple(shape) else tf.broadcast_to(x, shape_vector(shape))


def _gather_along(x: Any, indices: Any, axis: int) -> Any:
    indices = _positions(indices)
    sizes, wanted = sizes_of(x), sizes_of(indices)
    others = broadcast_shapes(*(s[:axis] + (1,) + s[axis + 1 :] for s in (sizes, wanted)))
    x = last(_spread(x, others[:axis] + (sizes[axis],) + others[axis + 1 :]), axis)
    indices = last(_spread(indices, others[:axis] + (wanted[axis],) + others[axis + 1 :]), axis)
    inside = _inside(indices, sizes[axis])
    safe = indices if inside is None else tf.where(inside, indices, tf.zeros((), indices.dtype))
    taken = tf.gather(x, safe, batch_dims=len(sizes) - 1)
    return restored(taken if inside is None else tf.where(inside, taken, _outside(x)), axis)


# ---------------------------------------------------------------- scatter


def _flat_positions(indices: Any, sizes: Any) -> Any:
    """Positions on the first axes as positions in them flattened; -1 for those outside."""
    if not sizes:
        return tf.zeros([tf.reduce_prod(tf.shape(indices)[:-1])], tf.int32)
    flat: Any = 0
    inside: Any = True
    for i, size in enumerate(sizes):
        at = indices[..., i]
        bound = tf.cast(resolve(size), at.dtype)
        inside = (at >= 0) & (at < bound) & inside
        flat = flat * bound + at
    return tf.reshape(tf.where(inside, flat, tf.constant(-1, indices.dtype)), [-1])


def _scatter_nd(x: Any, indices: Any, updates: Any, mode: str) -> Any:
    if x.dtype == tf.bool:
        mode = {"add": "max", "mul": "min"}.get(mode, mode)
        return tf.cast(_scatter_nd(tf.cast(x, tf.uint8), indices, tf.cast(updates, tf.uint8), mode), tf.bool)
    indices = _positions(indices)
    depth, sizes = indices.shape[-1], sizes_of(x)
    rest = sizes[depth:]
    count = product(sizes[:depth])
    flat = _flat_positions(indices, sizes[:depth])
    rows = _reshape(_spread(updates, sizes_of(indices)[:-1] + rest), (product(sizes_of(indices)[:-1]), *rest))
    if rows.shape[0] == 0 or count == 0:
        return x
    half = x.dtype.is_floating and x.dtype.size == 2
    table = _reshape(tf.cast(x, tf.float32) if half else x, (count, *rest))
    found = _SCATTER[mode](table, flat, tf.cast(rows, table.dtype), resolve(count))
    return tf.ensure_shape(_reshape(tf.cast(found, x.dtype), sizes), x.shape)


def _is_zeros(x: Any) -> bool:
    """Whether a graph's tensor is known to hold zeros only, as the gradients of what is gathered begin with."""
    if tf.executing_eagerly() or not hasattr(x, "op"):
        return False
    while x.op.type in ("BroadcastTo", "Fill", "Reshape"):
        x = x.op.inputs[1 if x.op.type == "Fill" else 0]
    known = tf.get_static_value(x) if x.shape.rank == 0 else None
    return x.op.type == "ZerosLike" or (known is not None and not known)


def _add(table: Any, flat: Any, rows: Any, count: Any) -> Any:
    total = tf.math.unsorted_segment_sum(rows, flat, count)
    return total if _is_zeros(table) else table + total


def _set(table: Any, flat: Any, rows: Any, count: Any) -> Any:
    """For each place the last row that goes there."""
    order = tf.range(tf.shape(rows)[0])
    winner = tf.math.unsorted_segment_max(order, flat, count)
    hit = (winner >= 0)[(Ellipsis,) + (tf.newaxis,) * (len(table.shape) - 1)]
    return tf.where(hit, tf.gather(rows, tf.maximum(winner, 0)), table)


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(table: Any, flat: Any, rows: Any, count: Any) -> Any:
        spare = tf.concat([table, table[:1]], 0)  # one more row, for what goes outside
        where = tf.where(flat >= 0, flat, tf.cast(count, flat.dtype))
        found = function(spare, where[:, tf.newaxis], rows)[:-1]
        if not table.dtype.is_floating:
            return found
        missing = tf.math.unsorted_segment_max(tf.cast(tf.math.is_nan(rows), tf.int32), flat, count) > 0
        return tf.where(missing | tf.math.is_nan(table), tf.constant(np.nan, table.dtype), found)

    return run


_SCATTER: dict[str, Callable[..., Any]] = {
    "add": _add,
    "mul": lambda table, flat, rows, count: table * tf.math.unsorted_segment_prod(rows, flat, count),
    "max": _extreme(tf.tensor_scatter_nd_max),
    "min": _extreme(tf.tensor_scatter_nd_min),
    "set": _set,
}


def _searchsorted(sorted_sequence: Any, values: Any, side: str) -> Any:
    found = tf.searchsorted(sort_keys(sorted_sequence), tf.reshape(sort_keys(values), [-1]), side)
    return _reshape(found, sizes_of(values))


TABLE |= {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update": _dynamic_update,
    "gather": _gather,
    "gather_along": _gather_along,
    "scatter_nd": _scatter_nd,
    "searchsorted_in": _searchsorted,
}

# ---------------------------------------------------------------- products


@quirks.in_whole_numbers
@quirks.added_in_float32
def _matmul(x1: Any, x2: Any) -> Any:
    rank_1, rank_2 = len(x1.shape), len(x2.shape)
    if rank_1 == 1 or rank_2 == 1:
        left = x1[tf.newaxis] if rank_1 == 1 else x1
        right = x2[:, tf.newaxis] if rank_2 == 1 else x2
        result = _matmul(left, right)
        if rank_2 == 1:
            result = result[..., 0]
        return result if rank_1 > 1 else result[0] if rank_2 == 1 else result[..., 0, :]
    if rank_1 > 2 and rank_2 == 2:  # one product, not one for each matrix of a batch
        sizes = sizes_of(x1)
        rows = tf.matmul(_reshape(x1, (product(sizes[:-1]), sizes[-1])), x2)
        return _reshape(rows, (*sizes[:-1], sizes_of(x2)[-1]))
    return tf.matmul(x1, x2)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@quirks.in_whole_numbers
@quirks.added_in_float32
def _dot_general(x1: Any, x2: Any, contract: Any, batch: Any) -> Any:
    names_1 = list(_LETTERS[: len(x1.shape)])
    names_2 = list(_LETTERS[len(names_1) : len(names_1) + len(x2.shape)])
    for pairs in (contract, batch):
        for a, b in zip(*pairs, strict=True):
            names_2[b] = names_1[a]
    shared = [names_1[a] for a in batch[0]]
    free = [name for name in names_1 + names_2 if (name in names_1) != (name in names_2)]
    equation = f"{''.join(names_1)},{''.join(names_2)}->{''.join(shared + free)}"
    return tf.raw_ops.Einsum(inputs=[x1, x2], equation=equation)


TABLE |= {"matmul": _matmul, "dot_general": _dot_general}
