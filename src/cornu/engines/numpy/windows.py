"""Convolutions and pooling windows, for any number of spatial axes.

Every function here walks over the positions in a window (or kernel). At a position, the elements that all windows
see there are one strided slice of the padded input, with the shape of the result.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = [
    "convolution",
    "convolution_input_gradient",
    "convolution_kernel_gradient",
    "window_max",
    "window_max_gradient",
    "window_max_take",
    "window_sum",
    "window_sum_gradient",
]

Sizes = Sequence[int]
Pads = Sequence[tuple[int, int]]
Position = tuple[int, ...]
Slices = tuple[slice, ...]


def _wide(x: np.ndarray) -> np.ndarray:
    """Half-width floats in float32, in which they are added up; other arrays as they are."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x


def _padded(x: np.ndarray, padding: Pads, value: float = 0) -> np.ndarray:
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def _room(shape: Sizes, padding: Pads) -> tuple[int, ...]:
    """The shape of a padded array."""
    return (shape[0], *(size + low + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)), shape[-1])


def _cropped(x: np.ndarray, padding: Pads) -> np.ndarray:
    """The array without its padding."""
    return x[:, *(slice(low, size - high) for size, (low, high) in zip(x.shape[1:-1], padding, strict=True))]


def _result_space(space: Sizes, window: Sizes, strides: Sizes, dilation: Sizes) -> tuple[int, ...]:
    """How many windows fit along each axis of a padded array."""
    return tuple(
        max(0, (size - (wide - 1) * apart - 1) // stride + 1)
        for size, wide, stride, apart in zip(space, window, strides, dilation, strict=True)
    )


def _positions(window: Sizes, space: Sizes, strides: Sizes, dilation: Sizes) -> Iterator[tuple[Position, Slices]]:
    """The positions in a window, in row-major order, each with the slices of what `space` windows see there."""
    for position in np.ndindex(*window):
        starts = [at * apart for at, apart in zip(position, dilation, strict=True)]
        yield (
            position,
            (
                slice(None),
                *(
                    slice(start, start + count * stride, stride)
                    for start, count, stride in zip(starts, space, strides, strict=True)
                ),
            ),
        )


# ---------------------------------------------------------------- convolution


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """`(..., groups * channels)` as `(groups, positions, channels)`."""
    rows = math.prod(x.shape[:-1])
    return x.reshape(rows, groups, x.shape[-1] // groups).swapaxes(0, 1)


def _ungrouped(x: np.ndarray, shape: Sizes) -> np.ndarray:
    """Undo `_grouped`."""
    return x.swapaxes(0, 1).reshape(shape)


def convolution(
    x: np.ndarray, kernel: np.ndarray, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> np.ndarray:
    """The convolution (cross-correlation) of `x` with `kernel`.

    Args:
        x: array `(batch, *space, channels)`.
        kernel: array `(*window, channels / groups, filters)`; the filters of a group stand together.
        strides: steps per spatial axis.
        padding: zeros added before and after, a pair per spatial axis.
        dilation: distance between the kernel's elements, per spatial axis.
        groups: how many groups channels and filters are divided into.

    Returns:
        array `(batch, *space', filters)` in the dtype of `x`.
    """
    dtype, x, kernel = x.dtype, _padded(_wide(x), padding), _wide(kernel)
    window = kernel.shape[:-2]
    space = _result_space(x.shape[1:-1], window, strides, dilation)
    shape = (x.shape[0], *space, kernel.shape[-1])
    result = np.zeros(shape, x.dtype)
    for position, seen in _positions(window, space, strides, dilation):
        result += _ungrouped(_grouped(x[seen], groups) @ _grouped(kernel[position], groups), shape)
    return result.astype(dtype, copy=False)


def convolution_input_gradient(
    g: np.ndarray, kernel: np.ndarray, shape: Sizes, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> np.ndarray:
    """The gradient of `convolution` for its input.

    Args:
        g: array `(batch, *space', filters)`, the gradient for the result.
        kernel: array `(*window, channels / groups, filters)`.
        shape: the input's shape.
        strides: as for `convolution`.
        padding: as for `convolution`.
        dilation: as for `convolution`.
        groups: as for `convolution`.

    Returns:
        array `(batch, *space, channels)` in the dtype of `g`.
    """
    dtype, g, kernel = g.dtype, _wide(g), _wide(kernel)
    space = g.shape[1:-1]
    result = np.zeros(_room(shape, padding), g.dtype)
    rows = _grouped(g, groups)
    for position, seen in _positions(kernel.shape[:-2], space, strides, dilation):
        part = rows @ _grouped(kernel[position], groups).swapaxes(1, 2)
        result[seen] += _ungrouped(part, (*g.shape[:-1], shape[-1]))
    return _cropped(result, padding).astype(dtype, copy=False)


def convolution_kernel_gradient(
    x: np.ndarray, g: np.ndarray, shape: Sizes, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> np.ndarray:
    """The gradient of `convolution` for its kernel.

    Args:
        x: array `(batch, *space, channels)`.
        g: array `(batch, *space', filters)`, the gradient for the result.
        shape: the kernel's shape, `(*window, channels / groups, filters)`.
        strides: as for `convolution`.
        padding: as for `convolution`.
        dilation: as for `convolution`.
        groups: as for `convolution`.

    Returns:
        array of the kernel's shape in the dtype of `x`.
    """
    dtype, x, g = x.dtype, _padded(_wide(x), padding), _wide(g)
    result = np.zeros(shape, x.dtype)
    rows = _grouped(g, groups)
    for position, seen in _positions(shape[:-2], g.shape[1:-1], strides, dilation):
        result[position] = _ungrouped(_grouped(x[seen], groups).swapaxes(1, 2) @ rows, shape[-2:])
    return result.astype(dtype, copy=False)


# ---------------------------------------------------------------- windows


def window_sum(x: np.ndarray, window: Sizes, strides: Sizes, padding: Pads) -> np.ndarray:
    """The sum over windows.

    Args:
        x: array `(batch, *space, channels)`.
        window: sizes per spatial axis.
        strides: steps per spatial axis.
        padding: zeros added before and after, a pair per spatial axis.

    Returns:
        array `(batch, *space', channels)` in the dtype of `x`.
    """
    dtype, x = x.dtype, _padded(_wide(x), padding)
    together = (1,) * len(window)
    space = _result_space(x.shape[1:-1], window, strides, together)
    result = np.zeros((x.shape[0], *space, x.shape[-1]), x.dtype)
    for _, seen in _positions(window, space, strides, together):
        result += x[seen]
    return result.astype(dtype, copy=False)


def window_sum_gradient(g: np.ndarray, shape: Sizes, window: Sizes, strides: Sizes, padding: Pads) -> np.ndarray:
    """The gradient of `window_sum` for its input.

    Args:
        g: array `(batch, *space', channels)`, the gradient for the result.
        shape: the input's shape.
        window: as for `window_sum`.
        strides: as for `window_sum`.
        padding: as for `window_sum`.

    Returns:
        array `(batch, *space, channels)` in the dtype of `g`.
    """
    dtype, g = g.dtype, _wide(g)
    result = np.zeros(_room(shape, padding), g.dtype)
    for _, seen in _positions(window, g.shape[1:-1], strides, (1,) * len(window)):
        result[seen] += g
    return _cropped(result, padding).astype(dtype, copy=False)


def _least(dtype: np.dtype) -> float:
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min)
    return False if dtype.kind == "b" else -np.inf


def _largest(x: np.ndarray, window: Sizes, strides: Sizes, padding: Pads) -> tuple[np.ndarray, np.ndarray]:
    """Each window's largest element, and which of its positions, counted in row-major order, has it first.

    NaN is larger than any number. The count is -1 where a window has padding only, and the element the dtype's least.
    """
    inside = _padded(np.ones((1, *x.shape[1:-1], 1), bool), padding)
    x = _padded(x, padding, _least(x.dtype))
    together = (1,) * len(window)
    space = _result_space(x.shape[1:-1], window, strides, together)
    best = np.full((x.shape[0], *space, x.shape[-1]), _least(x.dtype), x.dtype)
    found = np.full(best.shape, -1)
    for count, (_, seen) in enumerate(_positions(window, space, strides, together)):
        here = x[seen]
        larger = (here > best) | (np.isnan(here) & ~np.isnan(best)) | (found < 0)
        better = larger & inside[seen]
        best = np.where(better, here, best)
        found = np.where(better, count, found)
    return best, found


def window_max(x: np.ndarray, window: Sizes, strides: Sizes, padding: Pads) -> np.ndarray:
    """The largest over windows; padding never wins, NaN always does.

    Args:
        x: array `(batch, *space, channels)`.
        window: sizes per spatial axis.
        strides: steps per spatial axis.
        padding: places added before and after, a pair per spatial axis.

    Returns:
        array `(batch, *space', channels)` in the dtype of `x`; the dtype's least where a window has padding only.
    """
    return _largest(_wide(x), window, strides, padding)[0].astype(x.dtype, copy=False)


def window_max_gradient(x: np.ndarray, g: np.ndarray, window: Sizes, strides: Sizes, padding: Pads) -> np.ndarray:
    """The gradient of `window_max`: each window's gradient goes to its first largest element.

    Args:
        x: array `(batch, *space, channels)`.
        g: array `(batch, *space', channels)`, the gradient for the result.
        window: as for `window_max`.
        strides: as for `window_max`.
        padding: as for `window_max`.

    Returns:
        array of the shape and dtype of `x`.
    """
    _, found = _largest(_wide(x), window, strides, padding)
    g = _wide(g)
    result = np.zeros(_room(x.shape, padding), g.dtype)
    for count, (_, seen) in enumerate(_positions(window, g.shape[1:-1], strides, (1,) * len(window))):
        result[seen] += np.where(found == count, g, np.zeros((), g.dtype))
    return _cropped(result, padding).astype(x.dtype, copy=False)


def window_max_take(x: np.ndarray, values: np.ndarray, window: Sizes, strides: Sizes, padding: Pads) -> np.ndarray:
    """From `values`, what stands where each window of `x` has its first largest element.

    Args:
        x: array `(batch, *space, channels)`.
        values: array of the shape of `x`.
        window: as for `window_max`.
        strides: as for `window_max`.
        padding: as for `window_max`.

    Returns:
        array `(batch, *space', channels)` in the dtype of `x`; 0 where a window has padding only.
    """
    _, found = _largest(_wide(x), window, strides, padding)
    values = _padded(values, padding)
    result = np.zeros(found.shape, values.dtype)
    for count, (_, seen) in enumerate(_positions(window, found.shape[1:-1], strides, (1,) * len(window))):
        result = np.where(found == count, values[seen], result)
    return result.astype(x.dtype, copy=False)
