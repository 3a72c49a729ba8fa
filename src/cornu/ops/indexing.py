"""Choosing elements by position, and putting elements at positions."""

from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.core.dims import Dim, Size, shape_text
from cornu.core.errors import ArgumentError, DtypeError, ShapeError, UnsupportedError
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import movement as _m
from cornu.ops._declare import dtype_of, interpreter_of, op, primitive, shape_of
from cornu.ops._rules import axis_of, broadcast_shapes, product

__all__ = [
    "get_item", "one_hot", "scatter", "scatter_update", "searchsorted", "slice", "slice_update", "take",
    "take_along_axis",
]  # fmt: skip

_slice = slice


@primitive(family="indexing")
def dynamic_slice(x: Spec, starts: list[Spec], shape=()) -> Spec:
    """A box of the given shape that starts where scalars say; moved inwards where it would stick out."""
    return Spec(shape, x.dtype)


@primitive(promote=("x", "update"), family="indexing")
def dynamic_update(x: Spec, update: Spec, starts: list[Spec]) -> Spec:
    """The array with a box replaced by `update`, starting where scalars say; moved inwards where it would stick out."""
    return Spec(x.shape, x.dtype)


def _starts(start_indices: Any, rank: int) -> list[Any]:
    if isinstance(start_indices, (list, tuple)):
        return list(start_indices)
    return [get_item(start_indices, i) for i in range(rank)]


@op(family="indexing")
def slice(inputs: Spec, start_indices: list[Spec], shape=()) -> Spec:
    """A box of elements.

    Args:
        inputs: array.
        start_indices: where the box starts on each axis: numbers, or integer scalars.
        shape: the box's size on each axis; -1 for all that is left (with known starts).

    Returns:
        array of that shape.
    """
    sizes = shape_of(inputs)
    starts = _starts(start_indices, len(sizes))
    box = tuple(
        size - start if not isinstance(want, Dim) and want == -1 else want
        for size, start, want in zip(sizes, starts, _c._sizes(shape), strict=True)
    )
    if all(isinstance(start, (int, np.integer)) for start in starts):
        return _m.strided_slice(
            inputs, {i: (int(s), int(s) + b, 1) for i, (s, b) in enumerate(zip(starts, box, strict=True))}
        )
    return dynamic_slice(inputs, [_e.cast(start, "int32") for start in starts], shape=box)


@op(family="indexing")
def slice_update(inputs: Spec, start_indices: list[Spec], updates: Spec) -> Spec:
    """The array with a box replaced.

    Args:
        inputs: array.
        start_indices: where the box starts on each axis.
        updates: the elements of the box.

    Returns:
        array of the shape of `inputs`.
    """
    starts = _starts(start_indices, len(shape_of(inputs)))
    return dynamic_update(inputs, updates, [_e.cast(start, "int32") for start in starts])


@primitive(family="indexing")
def gather(x: Spec, indices: Spec, axis=0) -> Spec:
    """The parts of an array at whole-number positions on one axis; positions outside give NaN (0 for integers)."""
    return Spec(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)


def _checked_indices(indices: Any, what: str) -> Any:
    name = dtype_of(indices)
    if name not in dtypes.INTEGERS and name not in ("int", "bool"):
        raise DtypeError(f"{what} got indices of dtype {name}", "integers", "cornu.ops.cast(indices, 'int32')")
    return indices


def _from_front(indices: Any, size: Size) -> Any:
    if interpreter_of(indices) is None and not isinstance(size, Dim):
        host = np.asarray(indices)
        if host.size and (host.max() >= size or host.min() < -size):
            raise ArgumentError(
                f"index {host.min()} to {host.max()} on an axis of {size}", f"from {-size} to {size - 1}"
            )
        return np.where(host < 0, host + size, host).astype(np.int32)
    bound = _c.size_array(size) if isinstance(size, Dim) else size
    indices = _e.cast(indices, "int32") if dtype_of(indices) not in ("int32", "int64") else indices
    return _e.where(_a.less(indices, 0), _a.add(indices, bound), indices)


@op(family="indexing")
def take(x: Spec, indices: Spec, axis=None) -> Spec:
    """The parts of an array at given positions on one axis.

    Args:
        x: array.
        indices: integers; negative ones count from the end.
        axis: the axis; `None` for the flattened array.

    Returns:
        array with the axis replaced by the axes of `indices`. Positions outside give NaN (0 for integers), never
        another element's value.

    Raises:
        DtypeError: if the indices are not integers.

    Example:
        >>> import cornu
        >>> cornu.ops.take([10, 20, 30], [2, 0], axis=0).tolist()
        [30, 10]
    """
    if axis is None:
        x, axis = _m.ravel(x), 0
    at = axis_of(axis, len(shape_of(x)))
    return gather(x, _from_front(_checked_indices(indices, "take"), shape_of(x)[at]), axis=at)


@primitive(family="indexing")
def gather_along(x: Spec, indices: Spec, axis=0) -> Spec:
    """For each position of `indices`, the element of `x` there, with the index itself on one axis."""
    if x.ndim != indices.ndim:
        raise ShapeError(f"take_along_axis of {x!r} by {indices!r}", "the same number of axes")
    shape = list(broadcast_shapes(*[s[:axis] + (1,) + s[axis + 1 :] for s in (x.shape, indices.shape)]))
    shape[axis] = indices.shape[axis]
    return Spec(tuple(shape), x.dtype)


@op(family="indexing")
def take_along_axis(x: Spec, indices: Spec, axis=None) -> Spec:
    """For each position of `indices`, the element of `x` there, the index itself on one axis (`None`: both flat)."""
    if axis is None:
        x, indices, axis = _m.ravel(x), _m.ravel(indices), 0
    at = axis_of(axis, len(shape_of(x)))
    return gather_along(x, _from_front(_checked_indices(indices, "take_along_axis"), shape_of(x)[at]), axis=at)


@primitive(promote=("x", "updates"), family="indexing")
def scatter_nd(x: Spec, indices: Spec, updates: Spec, mode="add") -> Spec:
    """The array with updates put in at positions.

    `indices` is `(..., depth)`, whole positions on the first `depth` axes; `updates` is `(..., *rest)`. `mode` is
    `"add"`, `"set"` (the last of equal positions wins), `"max"`, `"min"` or `"mul"`. Positions outside are left out.
    """
    depth = indices.shape[-1]
    if isinstance(depth, Dim) or depth > x.ndim:
        raise ShapeError(f"scatter into {x!r} got indices {indices!r}", f"a last axis of at most {x.ndim}")
    want = indices.shape[:-1] + x.shape[depth:]
    if len(updates.shape) != len(want):
        raise ShapeError(f"scatter got updates {updates!r}", f"shape {shape_text(want)}")
    return Spec(x.shape, x.dtype)


@op(family="indexing")
def scatter(indices: Spec, values: Spec, shape=()) -> Spec:
    """Zeros of a shape, with values added in at positions.

    Args:
        indices: integers `(..., depth)`, positions on the first `depth` axes.
        values: array `(..., *rest)`; values at equal positions are added up.
        shape: the shape of the result.

    Returns:
        array of that shape.
    """
    return scatter_nd(_c.zeros(shape, _c.dtype(values)), _checked_indices(indices, "scatter"), values, mode="add")


@op(family="indexing")
def scatter_update(inputs: Spec, indices: Spec, updates: Spec, reduction=None) -> Spec:
    """The array with elements at positions replaced, or combined with what is there.

    Args:
        inputs: array.
        indices: integers `(..., depth)`, positions on the first `depth` axes.
        updates: array `(..., *rest)`.
        reduction: `None` to replace, or `"add"`, `"max"`, `"min"`, `"mul"`.

    Returns:
        array of the shape of `inputs`.
    """
    if reduction not in (None, "add", "max", "min", "mul"):
        raise ArgumentError(f"scatter_update got reduction={reduction!r}", "None, 'add', 'max', 'min' or 'mul'")
    return scatter_nd(inputs, _checked_indices(indices, "scatter_update"), updates, mode=reduction or "set")


@primitive(promote=True, family="indexing")
def searchsorted_in(sorted_sequence: Spec, values: Spec, side="left") -> Spec:
    """Where values would go in a sorted sequence, as int32 (`searchsorted` with `side` checked)."""
    return Spec(values.shape, "int32")


@op(family="indexing")
def searchsorted(sorted_sequence: Spec, values: Spec, side="left") -> Spec:
    """Where values would go in a sorted sequence to keep it sorted.

    Args:
        sorted_sequence: array `(n,)`, rising.
        values: array.
        side: `"left"` to go before equal elements, `"right"` to go after.

    Returns:
        int32 positions in the shape of `values`.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted got side={side!r}", "'left' or 'right'")
    if len(shape_of(sorted_sequence)) != 1:
        raise ShapeError(f"searchsorted in an array of shape {shape_text(shape_of(sorted_sequence))}", "one axis")
    return searchsorted_in(sorted_sequence, values, side=side)


@op(family="indexing")
def one_hot(x: Spec, num_classes=0, axis=-1, dtype=None, sparse=False) -> Spec:
    """1 at the position a whole number names, 0 elsewhere.

    Args:
        x: integers; those outside `0 .. num_classes - 1` give all zeros.
        num_classes: how many positions.
        axis: where the new axis goes.
        dtype: dtype of the result; by default the default float.

    Returns:
        array with one more axis, of size `num_classes`.
    """
    if sparse:
        raise UnsupportedError("one_hot with sparse=True", "a dense array")
    rank = len(shape_of(x)) + 1
    at = axis_of(axis, rank)
    positions = np.arange(num_classes).reshape([num_classes if i == at else 1 for i in range(rank)])
    hot = _a.equal(_m.expand_dims(_checked_indices(x, "one_hot"), at), positions.astype(np.int32))
    return _e.cast(hot, dtypes.standardize_dtype(dtype))


@op(family="indexing")
def get_item(x: Spec, key) -> Spec:
    """`x[key]`: whole numbers, slices, `None`, `...`, and integer arrays.

    Args:
        x: array.
        key: an index or a tuple of them. Slices may have unknown bounds.

    Returns:
        the elements chosen.

    Raises:
        UnsupportedError: for boolean masks, whose result has no shape that can be known.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    sizes = shape_of(x)
    taken = sum(1 for k in keys if k is not None and k is not Ellipsis)
    if taken > len(sizes):
        raise ShapeError(f"{taken} indices into an array of shape {shape_text(sizes)}", f"at most {len(sizes)}")
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    fill = [_slice(None)] * (len(sizes) - taken)
    at_dots = dots[0] if dots else len(keys)
    keys[at_dots : at_dots + 1] = fill
    ranges: dict[int, tuple[Size, Size, int]] = {}
    flips: list[int] = []
    arrays: list[tuple[int, Any]] = []
    dropped: set[int] = set()
    axis = 0
    for k in keys:
        if k is None:
            continue
        size = sizes[axis]
        if isinstance(k, _slice):
            start, stop, step = _bounds(k, size)
            if step < 0:
                flips.append(axis)
            if (start, stop, step) != (0, size, 1):
                ranges[axis] = (start, stop, abs(step))
        elif (isinstance(k, (int, np.integer)) and not isinstance(k, (bool, np.bool_))) or isinstance(k, Dim):
            at = _position(k if isinstance(k, Dim) else int(k), size, axis, sizes)
            ranges[axis] = (at, at + 1, 1)
            dropped.add(axis)
        else:
            if dtype_of(k) == "bool":
                raise UnsupportedError(
                    "a boolean mask as an index", "integers or slices", "use cornu.ops.where(mask, x, 0) instead"
                )
            arrays.append((axis, k))
        axis += 1
    if ranges:
        x = _m.strided_slice(x, ranges)
    if flips:
        x = _m.flip(x, flips)
    return _with_new_axes(_by_arrays(x, arrays, dropped), keys, arrays, dropped, sizes)


def _position(k: Size, size: Size, axis: int, sizes: tuple[Size, ...]) -> Size:
    if isinstance(k, Dim):
        return k
    if not isinstance(size, Dim) and not -size <= k < size:
        raise ArgumentError(
            f"index {k} on axis {axis} of an array of shape {shape_text(sizes)}", f"from {-size} to {size - 1}"
        )
    return size + k if k < 0 else k


def _bounds(key: Any, size: Size) -> tuple[Size, Size, int]:
    """Start, stop and step of a slice over an axis; a backward one is given as its forward mirror (step negative)."""
    step = 1 if key.step is None else int(key.step)
    if not isinstance(size, Dim) and not isinstance(key.start, Dim) and not isinstance(key.stop, Dim):
        span = range(size)[_slice(key.start, key.stop, step)]
        if not span:
            return 0, 0, step
        return (span[0], span[-1] + 1, step) if step > 0 else (span[-1], span[0] + 1, step)
    if step < 0:
        if key.start is None and key.stop is None and step == -1:
            return 0, size, -1
        raise UnsupportedError("a backward slice with bounds over an unknown size", "x[::-1]", "flip first, then slice")

    def bound(given: Any, default: Size) -> Size:
        if given is None:
            return default
        if isinstance(given, Dim):
            return given
        if given < 0:
            return Dim.operation("max", size + int(given), 0) if isinstance(size, Dim) else size + int(given)
        return Dim.operation("min", size, int(given)) if given else 0

    start = bound(key.start, 0)
    stop = bound(key.stop, size)
    if stop is not size and start != 0:
        stop = Dim.operation("max", start, stop)
    return start, stop, step


def _by_arrays(x: Any, arrays: list[tuple[int, Any]], dropped: set[int]) -> Any:
    """Apply integer arrays; several are broadcast together and address a flattened run of neighbouring axes."""
    if not arrays:
        return x
    sizes = shape_of(x)
    if len(arrays) == 1:
        axis, k = arrays[0]
        return gather(x, _from_front(_checked_indices(k, "indexing"), sizes[axis]), axis=axis)
    axes = [axis for axis, _ in arrays]
    if axes != list(range(axes[0], axes[0] + len(axes))) or dropped:
        raise UnsupportedError("integer arrays on axes that are not neighbours", "neighbouring axes", "transpose first")
    position: Any = 0
    for axis, k in arrays:
        bound = _c.size_array(sizes[axis]) if isinstance(sizes[axis], Dim) else sizes[axis]
        position = _a.add(_a.multiply(position, bound), _from_front(_checked_indices(k, "indexing"), sizes[axis]))
    joined = product(sizes[a] for a in axes)
    flat = _m.reshape_to(x, shape=(*sizes[: axes[0]], joined, *sizes[axes[-1] + 1 :]))
    return gather(flat, position, axis=axes[0])


def _with_new_axes(x: Any, keys: list[Any], arrays: list[Any], dropped: set[int], sizes: Any) -> Any:
    if not dropped and not any(k is None for k in keys):
        return x
    result: list[Size] = []
    have = list(shape_of(x))
    array_rank = len(broadcast_shapes(*[shape_of(k) for _, k in arrays])) if arrays else 0
    array_axes = {axis for axis, _ in arrays}
    at = axis = 0
    for k in keys:
        if k is None:
            result.append(1)
            continue
        if axis in dropped:
            at += 1
        elif axis in array_axes:
            if axis == min(array_axes):
                result += have[at : at + array_rank]
                at += array_rank
        else:
            result.append(have[at])
            at += 1
        axis += 1
    return _m.reshape_to(x, shape=tuple(result))
