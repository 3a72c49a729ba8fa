"""Moving elements without changing them: shapes, axes, joining, splitting, padding."""

import itertools
from typing import Any

import numpy as np

from cornu.core.dims import Dim, Size, known, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.spec import Spec
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops._declare import all_ops, op, primitive, shape_of, size_of
from cornu.ops._rules import axes_of, axis_of, product, require_equal

__all__ = [
    "broadcast_to", "concatenate", "expand_dims", "flip", "moveaxis", "pad", "permute", "ravel", "repeat", "reshape",
    "roll", "split", "squeeze", "stack", "swapaxes", "tile", "transpose", "unstack",
]  # fmt: skip


@primitive(family="movement")
def reshape_to(x: Spec, shape=()) -> Spec:
    """The elements in another shape (`reshape` with every size worked out)."""
    return Spec(shape, x.dtype)


@op(family="movement")
def reshape(x: Spec, newshape=()) -> Spec:
    """The same elements, in the same order, in another shape.

    Args:
        x: array.
        newshape: sizes, numbers or unknown (`ops.shape(x)[1] * 2`); one may be -1, for what is left.

    Returns:
        array of that shape.

    Raises:
        ShapeError: if the number of elements differs.

    Example:
        >>> import cornu
        >>> cornu.ops.reshape([1, 2, 3, 4], (2, -1)).tolist()
        [[1, 2], [3, 4]]
    """
    return reshape_to(x, shape=full_shape(shape_of(x), newshape))


def full_shape(old: tuple[Size, ...], new: Any) -> tuple[Size, ...]:
    """A new shape with its -1 (or `None`) worked out.

    Raises:
        ShapeError: if the number of elements differs.
    """
    new = (new,) if isinstance(new, (int, Dim)) else tuple(new)
    sizes: list[Size] = [-1 if size is None else size_of(size) for size in new]
    free = [i for i, size in enumerate(sizes) if not isinstance(size, Dim) and size == -1]
    if len(free) > 1:
        raise ShapeError(f"reshape to {new} leaves {len(free)} sizes open", "at most one -1")
    total = product(old)
    fixed = product(size for i, size in enumerate(sizes) if i not in free)
    if free:
        if not isinstance(total, Dim) and not isinstance(fixed, Dim) and (fixed == 0 or total % fixed):
            if fixed == 0 and total == 0:
                sizes[free[0]] = 0
                return tuple(sizes)
            raise ShapeError(
                f"an array of shape {_c_text(old)} ({total} elements) cannot be reshaped to {_c_text(new)}",
                f"a number of elements that {fixed} divides",
            )
        sizes[free[0]] = Dim.operation("exact", total, fixed)
    elif total != fixed:
        if not isinstance(total, Dim) and not isinstance(fixed, Dim):
            raise ShapeError(
                f"an array of shape {_c_text(old)} ({total} elements) cannot be reshaped to {_c_text(new)}",
                f"{total} elements, not {fixed}",
            )
        require_equal(total, fixed, f"elements before and after reshape to {_c_text(tuple(sizes))}")
    return tuple(sizes)


def _c_text(shape: Any) -> str:
    return shape_text(tuple(shape))


@primitive(family="movement")
def permute(x: Spec, axes=()) -> Spec:
    """The axes in another order (`transpose` with the order written out)."""
    return Spec(tuple(x.shape[a] for a in axes), x.dtype)


@op(family="movement")
def transpose(x: Spec, axes=None) -> Spec:
    """The axes in another order, by default reversed.

    Args:
        x: array.
        axes: for each axis of the result, the axis of `x` it is.

    Returns:
        array with the axes in that order.
    """
    rank = len(shape_of(x))
    order = tuple(reversed(range(rank))) if axes is None else tuple(axis_of(a, rank) for a in axes)
    if sorted(order) != list(range(rank)):
        raise ArgumentError(f"transpose of {rank} axes to the order {axes}", "each axis once")
    return permute(x, axes=order)


@op(family="movement")
def moveaxis(x: Spec, source=0, destination=0) -> Spec:
    """Axes moved from their places (`source`) to others (`destination`)."""
    rank = len(shape_of(x))
    sources = [axis_of(a, rank) for a in ([source] if isinstance(source, int) else source)]
    targets = [axis_of(a, rank) for a in ([destination] if isinstance(destination, int) else destination)]
    order = [a for a in range(rank) if a not in sources]
    for target, a in sorted(zip(targets, sources, strict=True)):
        order.insert(target, a)
    return permute(x, axes=tuple(order))


@op(family="movement")
def swapaxes(x: Spec, axis1=0, axis2=0) -> Spec:
    """Two axes exchanged."""
    rank = len(shape_of(x))
    order = list(range(rank))
    a, b = axis_of(axis1, rank), axis_of(axis2, rank)
    order[a], order[b] = b, a
    return permute(x, axes=tuple(order))


@op(family="movement")
def expand_dims(x: Spec, axis=0) -> Spec:
    """The array with an axis (or several) of size 1 inserted at `axis` of the result."""
    axes = [axis] if hasattr(axis, "__index__") else list(axis)
    sizes = list(shape_of(x))
    rank = len(sizes) + len(axes)
    for a in sorted(axis_of(a, rank) for a in axes):
        sizes.insert(a, 1)
    return reshape_to(x, shape=tuple(sizes))


@op(family="movement")
def squeeze(x: Spec, axis=None) -> Spec:
    """The array without its axes of size 1, or without those named in `axis`."""
    sizes = shape_of(x)
    if axis is None:
        axes = tuple(i for i, size in enumerate(sizes) if not isinstance(size, Dim) and size == 1)
    else:
        axes = axes_of(axis, len(sizes))
        for a in axes:
            require_equal(sizes[a], 1, f"size of axis {a} to squeeze from {_c_text(sizes)}")
    return reshape_to(x, shape=tuple(size for i, size in enumerate(sizes) if i not in axes))


@op(family="movement")
def ravel(x: Spec) -> Spec:
    """The elements as one axis."""
    return reshape(x, (-1,))


@op(family="movement")
def broadcast_to(x: Spec, shape=()) -> Spec:
    """The array repeated to a shape it broadcasts to.

    Raises:
        ShapeError: if it does not.
    """
    return _c.broadcast_to_shape(x, shape=_c._sizes(shape))


@primitive(family="indexing")
def slice_static(x: Spec, starts=(), stops=(), steps=()) -> Spec:
    """A box of elements: for each axis where it starts, where it stops, and a step above zero."""
    sizes = []
    for start, stop, step in zip(starts, stops, steps, strict=True):
        sizes.append(stop - start if step == 1 else (stop - start + step - 1) // step)
    return Spec(tuple(sizes), x.dtype)


def strided_slice(x: Any, ranges: dict[int, tuple[Size, Size, int]]) -> Any:
    """A box of elements, from `{axis: (start, stop, step)}`; other axes stay whole."""
    sizes = shape_of(x)
    rows = [ranges.get(i, (0, size, 1)) for i, size in enumerate(sizes)]
    starts, stops, steps = zip(*rows, strict=True) if rows else ((), (), ())
    return slice_static(x, starts=starts, stops=stops, steps=steps)


@primitive(promote=True, family="movement")
def concatenate_all(xs: list[Spec], axis=0) -> Spec:
    """Arrays joined along one axis (`concatenate` with the axis counted from the front)."""
    first = xs[0]
    sizes = list(first.shape)
    for other in xs[1:]:
        if other.ndim != first.ndim:
            raise ShapeError(
                "concatenate got arrays of shapes " + ", ".join(_c_text(x.shape) for x in xs), "the same number of axes"
            )
        for a in range(first.ndim):
            if a == axis:
                sizes[a] = sizes[a] + other.shape[a]
                continue
            if known((sizes[a], other.shape[a])) and sizes[a] != other.shape[a]:
                raise ShapeError(
                    "concatenate got arrays of shapes " + ", ".join(_c_text(x.shape) for x in xs),
                    f"equal sizes on every axis but axis {axis}; {sizes[a]} and {other.shape[a]} differ on axis {a}",
                )
            sizes[a] = require_equal(sizes[a], other.shape[a], f"sizes on axis {a} of arrays to concatenate")
    return Spec(tuple(sizes), first.dtype)


@op(family="movement")
def concatenate(xs: list[Spec], axis=0) -> Spec:
    """Arrays joined along an axis they have.

    Args:
        xs: a list of arrays whose other axes agree.
        axis: the axis to join along.

    Returns:
        array, in the common dtype.

    Raises:
        ShapeError: if the other axes disagree.
    """
    xs = list(xs)
    if not xs:
        raise ArgumentError("concatenate got an empty list", "at least one array")
    return concatenate_all(xs, axis=axis_of(axis, len(shape_of(xs[0]))))


@op(family="movement")
def stack(x: list[Spec], axis=0) -> Spec:
    """Arrays of one shape joined along a new axis."""
    parts = list(x)
    if not parts:
        raise ArgumentError("stack got an empty list", "at least one array")
    rank = len(shape_of(parts[0])) + 1
    at = axis_of(axis, rank)
    return concatenate_all([expand_dims(part, at) for part in parts], axis=at)


@op(family="movement")
def unstack(x: Spec, num=None, axis=0) -> list:
    """The parts of an array along one axis, as a list."""
    sizes = shape_of(x)
    at = axis_of(axis, len(sizes))
    count = sizes[at] if num is None else num
    rest = tuple(size for i, size in enumerate(sizes) if i != at)
    return [reshape_to(strided_slice(x, {at: (i, i + 1, 1)}), shape=rest) for i in range(int(count))]


@op(family="movement")
def split(x: Spec, indices_or_sections=1, axis=0) -> list:
    """The array cut along an axis: into equal sections (a number), or before the given indices (a list)."""
    sizes = shape_of(x)
    at = axis_of(axis, len(sizes))
    size = sizes[at]
    if hasattr(indices_or_sections, "__index__"):
        parts = int(indices_or_sections)
        if not isinstance(size, Dim) and size % parts:
            raise ArgumentError(f"split of {size} into {parts} equal sections", f"a number that divides {size}")
        each = Dim.operation("exact", size, parts)
        bounds: list[Size] = [each * i for i in range(parts + 1)]
    else:
        bounds = [0, *(i if not isinstance(i, int) or i >= 0 else size + i for i in indices_or_sections), size]
    return [strided_slice(x, {at: (a, b, 1)}) for a, b in itertools.pairwise(bounds)]


@primitive(family="movement")
def flip_axes(x: Spec, axes=()) -> Spec:
    """The elements in reverse order along axes."""
    return Spec(x.shape, x.dtype)


@op(family="movement")
def flip(x: Spec, axis=None) -> Spec:
    """The elements in reverse order along an axis or axes (`None`: all)."""
    return flip_axes(x, axes=axes_of(axis, len(shape_of(x))))


@primitive(promote=True, family="movement")
def pad_constant(x: Spec, value: Spec, widths=()) -> Spec:
    """The array with one value added before and after along each axis; `widths` is a pair of counts per axis."""
    return Spec(tuple(a + size + b for size, (a, b) in zip(x.shape, widths, strict=True)), x.dtype)


@op(family="movement")
def pad(x: Spec, pad_width=0, mode="constant", constant_values=None) -> Spec:
    """The array with elements added at its borders.

    Args:
        x: array.
        pad_width: a count, a pair (before, after), or one pair per axis.
        mode: `"constant"`, `"reflect"`, `"symmetric"` or `"edge"`.
        constant_values: what to add in mode `"constant"`; by default 0.

    Returns:
        the larger array.
    """
    rank = len(shape_of(x))
    widths = _pairs(pad_width, rank)
    if mode == "constant":
        value = 0 if constant_values is None else constant_values
        return pad_constant(x, _e.cast(value, _c.dtype(x)), widths=widths)
    if constant_values is not None:
        raise ArgumentError(f"pad got constant_values in mode {mode!r}", "mode='constant'")
    if mode not in ("reflect", "symmetric", "edge"):
        raise ArgumentError(f"pad got mode {mode!r}", "'constant', 'reflect', 'symmetric' or 'edge'")
    for axis, (before, after) in enumerate(widths):
        x = _mirrored(x, axis, before, after, mode)
    return x


def _mirrored(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    size = shape_of(x)[axis]
    skip = 1 if mode == "reflect" else 0
    if mode != "edge" and isinstance(size, int) and max(before, after) > size - skip:
        raise ArgumentError(
            f"pad of {max(before, after)} in mode {mode!r} on an axis of {size}", f"at most {size - skip}"
        )
    parts = [x]
    if before:
        head = strided_slice(x, {axis: (0, 1, 1) if mode == "edge" else (skip, skip + before, 1)})
        parts.insert(0, repeat(head, before, axis) if mode == "edge" else flip(head, axis))
    if after:
        bounds = (size - 1, size, 1) if mode == "edge" else (size - skip - after, size - skip, 1)
        tail = strided_slice(x, {axis: bounds})
        parts.append(repeat(tail, after, axis) if mode == "edge" else flip(tail, axis))
    return concatenate_all(parts, axis=axis) if len(parts) > 1 else x


def _pairs(width: Any, rank: int) -> tuple[tuple[int, int], ...]:
    if hasattr(width, "__index__"):
        return ((int(width), int(width)),) * rank
    width = [tuple(w) if not hasattr(w, "__index__") else w for w in width]
    if len(width) == 2 and all(hasattr(w, "__index__") for w in width):
        return (tuple(width),) * rank  # type: ignore[return-value]
    if len(width) == 1:
        return ((width[0] * 2 if len(width[0]) == 1 else width[0]),) * rank
    if len(width) != rank:
        raise ArgumentError(f"pad got {len(width)} pairs for an array with {rank} axes", "one pair per axis")
    return tuple(w * 2 if len(w) == 1 else w for w in width)


@op(family="movement")
def tile(x: Spec, repeats=1) -> Spec:
    """The whole array repeated along each axis."""
    counts = [repeats] if hasattr(repeats, "__index__") else list(repeats)
    sizes = shape_of(x)
    rank = max(len(sizes), len(counts))
    sizes = (1,) * (rank - len(sizes)) + tuple(sizes)
    counts = [1] * (rank - len(counts)) + counts
    apart = tuple(part for count, size in zip(counts, sizes, strict=True) for part in (1, size))
    wide = tuple(part for count, size in zip(counts, sizes, strict=True) for part in (count, size))
    joined = tuple(size * count for count, size in zip(counts, sizes, strict=True))
    return reshape_to(_c.broadcast_to_shape(reshape_to(x, shape=apart), shape=wide), shape=joined)


@op(family="movement")
def repeat(x: Spec, repeats=1, axis=None) -> Spec:
    """Each element repeated along an axis (`None`: flattened); `repeats` is a number, or one per element."""
    if axis is None:
        x, axis = ravel(x), 0
    sizes = shape_of(x)
    at = axis_of(axis, len(sizes))
    if not hasattr(repeats, "__index__") and not isinstance(repeats, Dim):
        counts = np.asarray(repeats)
        if counts.size > 1:
            return all_ops["take"](x, np.repeat(np.arange(counts.size), counts), axis=at)
        repeats = int(counts.reshape(()))
    apart = (*sizes[: at + 1], 1, *sizes[at + 1 :])
    wide = (*sizes[: at + 1], repeats, *sizes[at + 1 :])
    joined = (*sizes[:at], sizes[at] * repeats, *sizes[at + 1 :])
    return reshape_to(_c.broadcast_to_shape(reshape_to(x, shape=apart), shape=wide), shape=joined)


@op(family="movement")
def roll(x: Spec, shift=0, axis=None) -> Spec:
    """The elements moved along an axis (or axes), those that fall off coming in at the other end."""
    if axis is None:
        return reshape_to(roll(ravel(x), shift, 0), shape=shape_of(x))
    shifts = [shift] if hasattr(shift, "__index__") else list(shift)
    axes = [axis] if hasattr(axis, "__index__") else list(axis)
    for by, a in zip(shifts, axes, strict=True):
        size = shape_of(x)[axis_of(a, len(shape_of(x)))]
        at = axis_of(a, len(shape_of(x)))
        if isinstance(size, int) and size == 0:
            continue
        cut = (size - by) % size if isinstance(size, int) else size - by if by >= 0 else -by
        x = concatenate_all([strided_slice(x, {at: (cut, size, 1)}), strided_slice(x, {at: (0, cut, 1)})], axis=at)
    return x
