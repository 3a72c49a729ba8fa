"""Convolutions and pooling windows in TensorFlow, for one to three spatial axes.

One spatial axis is computed as two, the first of size 1. What TensorFlow's kernels do not take on every processor
(dilation, groups) is composed of what they do, and differentiates as the composition does.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from cornu.engines.pointwise import is_product
from cornu.engines.tensorflow import quirks
from cornu.engines.tensorflow.indexing import TABLE as MOVES
from cornu.engines.tensorflow.sizes import resolve, shape_vector, sizes_of

__all__ = ["TABLE"]

_pad = MOVES["pad_constant"]


def _in_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """Whole numbers in float64 (exact up to 2**53), half-width floats in float32 where the processor needs it."""

    @functools.wraps(function)
    def run(*args: Any, **static: Any) -> Any:
        dtype = args[0].dtype
        if not dtype.is_floating:
            wide = function(*(tf.cast(arg, tf.float64) for arg in args), **static)
            return tf.cast(tf.cast(tf.round(wide), tf.int64), dtype)  # what does not fit wraps around
        return half(*args, **static)

    half = quirks.added_in_float32(function)
    return run


def _padded(x: Any, padding: Any, value: float = 0) -> Any:
    if all(type(size) is int and size == 0 for pair in padding for size in pair):
        return x
    return _pad(x, tf.constant(value, x.dtype), ((0, 0), *padding, (0, 0)))


def _room(shape: Any, padding: Any) -> Any:
    """The shape of a padded array."""
    return (shape[0], *(size + lo + hi for size, (lo, hi) in zip(shape[1:-1], padding, strict=True)), shape[-1])


def _cropped(x: Any, padding: Any, shape: Any) -> Any:
    """The array without its padding."""
    begin = [0, *(lo for lo, _ in padding), 0]
    return tf.slice(x, shape_vector(begin), shape_vector(shape))


# ---------------------------------------------------------------- convolution


def _plain(x: Any, kernel: Any, how: dict[str, Any]) -> Any:
    """Without dilation and groups."""
    function = tf.raw_ops.Conv3D if len(how["strides"]) == 5 else tf.raw_ops.Conv2D
    return function(input=x, filter=kernel, **how)


def _depthwise(x: Any, kernel: Any, how: dict[str, Any]) -> Any:
    """Each channel by itself, on two axes."""
    height, width, _, filters = kernel.shape
    channels = x.shape[-1]
    kernel = tf.reshape(kernel, (height, width, channels, filters // channels))
    _, *strides, _ = how["strides"]
    if strides[0] == strides[1]:
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **how)
    result = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="VALID")
    return result[:, :: strides[0], :: strides[1]]


def _grouped(x: Any, kernel: Any, how: dict[str, Any], groups: int) -> Any:
    if groups == 1:
        return _plain(x, kernel, how)
    if kernel.shape[-2] == 1 and len(how["strides"]) == 4:
        return _depthwise(x, kernel, how)
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([_plain(part, own, how) for part, own in parts], -1)


def _dilated(x: Any, kernel: Any, strides: Any, dilation: Any, groups: int) -> Any:
    if all(apart == 1 for apart in dilation):
        return _grouped(x, kernel, _valid(strides), groups)
    if any(stride != 1 for stride in strides):
        return _grouped(x, _with_gaps(kernel, dilation), _valid(strides), groups)
    # Elements a dilation apart are brought together, as `tf.nn.convolution` does.
    fill = [(0, -size % apart) for size, apart in zip(sizes_of(x)[1:-1], dilation, strict=True)]
    ends = tf.stack([shape_vector(pair) for pair in fill])
    together = tf.space_to_batch(x, list(dilation), ends)
    return tf.raw_ops.BatchToSpaceND(
        input=_grouped(together, kernel, _valid(strides), groups), block_shape=list(dilation), crops=ends
    )


def _with_gaps(kernel: Any, dilation: Any) -> Any:
    """The kernel with zeros between its elements."""
    window = kernel.shape[: len(dilation)]
    shape = [(size - 1) * apart + 1 for size, apart in zip(window, dilation, strict=True)]
    return _put_back(kernel, [*shape, *kernel.shape[-2:]], [0] * len(kernel.shape), [*dilation, 1, 1])


def _convolve(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    if len(strides) == 1:
        steps = strides * 2 if groups > 1 else (1, *strides)  # equal ones suit the kernel for channels by themselves
        wide, own = x[:, tf.newaxis], kernel[tf.newaxis]
        return _convolve(wide, own, steps, ((0, 0), *padding), (1, *dilation), groups)[:, 0]
    even = groups == 1 or len(set(strides)) == 1
    if even and all(apart == 1 for apart in dilation) and _is_same(sizes_of(x), kernel.shape, strides, padding):
        return _grouped(x, kernel, {"strides": [1, *strides, 1], "padding": "SAME"}, groups)
    return _dilated(_padded(x, padding), kernel, strides, dilation, groups)


def _is_simple(strides: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether one of TensorFlow's own gradient kernels serves."""
    known = all(type(size) is int for pair in padding for size in pair)
    return known and groups == 1 and len(strides) < 3 and all(apart == 1 for apart in dilation)


def _valid(strides: Any) -> dict[str, Any]:
    return {"strides": [1, *strides, 1], "padding": "VALID"}


def _is_same(shape: Any, kernel_shape: Any, strides: Any, padding: Any) -> bool:
    """Whether padding is what TensorFlow calls `SAME`."""
    rows = zip(shape[1:-1], kernel_shape[:-2], strides, padding, strict=True)
    return all(type(n) is int and type(k) is int and tuple(pair) == _same(n, k, step) for n, k, step, pair in rows)


def _same(size: int, wide: int, step: int) -> tuple[int, int]:
    total = max((size - 1) // step * step + wide - size, 0)
    return total // 2, total - total // 2


def _how(shape: Any, kernel_shape: Any, strides: Any, padding: Any) -> dict[str, Any]:
    """Strides and padding of a kernel for two axes, by name where there is one: oneDNN's gradients know names only."""
    is_same = _is_same(shape, kernel_shape, strides, padding)
    if len(strides) == 1:
        strides, padding = (1, *strides), ((0, 0), *padding)
    pads = [0, 0, *itertools.chain(*padding), 0, 0]
    if not any(pads):
        return _valid(strides)
    if is_same:
        return {"strides": [1, *strides, 1], "padding": "SAME"}
    return {"strides": [1, *strides, 1], "padding": "EXPLICIT", "explicit_paddings": pads}


def _pull(function: Callable[[Any], Any], at: Any, g: Any) -> Any:
    """The gradient of a linear function."""
    with tf.GradientTape() as tape:
        tape.watch(at)
        result = function(at)
    return tape.gradient(result, at, output_gradients=g)


def _also_without_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """A row of zeros in the place of none, for which oneDNN's convolutions (TensorFlow 2.21) give the wrong shape."""

    @functools.wraps(function)
    def run(x: Any, other: Any, **static: Any) -> Any:
        if x.shape[0] != 0:
            return function(x, other, **static)
        both = other.shape[0] == 0  # the kernel's gradient
        if "shape" in static and not both:
            static["shape"] = (1, *static["shape"][1:])
        result = function(_one_more(x), _one_more(other) if both else other, **static)
        return result if both else result[:0]

    return run


def _one_more(x: Any) -> Any:
    return tf.pad(x, [[0, 1], *[[0, 0]] * (x.shape.rank - 1)])


@_also_without_rows
@_in_floats
def convolution(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    if not _is_simple(strides, padding, dilation, groups):
        return _convolve(x, kernel, strides, padding, dilation, groups)
    if is_product(x.shape, kernel.shape, strides, padding, groups):
        rows = tf.reshape(x, (math.prod(x.shape[:-1]), kernel.shape[-2])) @ tf.reshape(kernel, kernel.shape[-2:])
        return tf.reshape(rows, (*x.shape[:-1], kernel.shape[-1]))
    how = _how(sizes_of(x), kernel.shape, strides, padding)
    if len(strides) == 2:
        return tf.raw_ops.Conv2D(input=x, filter=kernel, **how)
    return tf.raw_ops.Conv2D(input=x[:, tf.newaxis], filter=kernel[tf.newaxis], **how)[:, 0]


@_also_without_rows
@_in_floats
def convolution_input_gradient(g: Any, kernel: Any, shape: Any, **static: Any) -> Any:
    if not _is_simple(**static):
        return _pull(lambda x: _convolve(x, kernel, **static), tf.zeros(shape_vector(shape), g.dtype), g)
    how = _how(shape, kernel.shape, static["strides"], static["padding"])
    back = tf.raw_ops.Conv2DBackpropInput
    if len(static["strides"]) == 2:
        return back(input_sizes=shape_vector(shape), filter=kernel, out_backprop=g, **how)
    sizes = shape_vector((shape[0], 1, *shape[1:]))
    return back(input_sizes=sizes, filter=kernel[tf.newaxis], out_backprop=g[:, tf.newaxis], **how)[:, 0]


@_also_without_rows
@_in_floats
def convolution_kernel_gradient(x: Any, g: Any, shape: Any, **static: Any) -> Any:
    if not _is_simple(**static):
        return _pull(lambda kernel: _convolve(x, kernel, **static), tf.zeros(shape_vector(shape), g.dtype), g)
    how = _how(sizes_of(x), shape, static["strides"], static["padding"])
    back = tf.raw_ops.Conv2DBackpropFilter
    if len(static["strides"]) == 2:
        return back(input=x, filter_sizes=shape_vector(shape), out_backprop=g, **how)
    sizes = shape_vector((1, *shape))
    return back(input=x[:, tf.newaxis], filter_sizes=sizes, out_backprop=g[:, tf.newaxis], **how)[0]


# ---------------------------------------------------------------- windows, position by position


def _seen(x: Any, window: Any, strides: Any) -> Iterator[tuple[list[int], Any]]:
    """For each position in a window: where it is in the first one, and what all windows see there."""
    sizes = sizes_of(x)[1:-1]
    counts = [(size - wide) // step + 1 for size, wide, step in zip(sizes, window, strides, strict=True)]
    for position in itertools.product(*map(range, window)):
        stops = [at + (count - 1) * step + 1 for at, count, step in zip(position, counts, strides, strict=True)]
        rows = [slice(at, resolve(stop), step) for at, stop, step in zip(position, stops, strides, strict=True)]
        yield [0, *position, 0], x[(slice(None), *rows)]


def _put_back(part: Any, shape: Any, begin: Any, steps: Any) -> Any:
    """Zeros of a shape with a part put in: the transpose of a strided slice."""
    sizes = sizes_of(part)
    ends = [at + (count - 1) * step + 1 for at, count, step in zip(begin, sizes, steps, strict=True)]
    vectors = (tf.cast(shape_vector(row), tf.int32) for row in (shape, begin, ends, steps))
    whole, starts, stops, strides = vectors
    return tf.raw_ops.StridedSliceGrad(shape=whole, begin=starts, end=stops, strides=strides, dy=part)


def _least(dtype: Any) -> Any:
    return -np.inf if dtype.is_floating else False if dtype == tf.bool else dtype.min


def _first_largest(x: Any, window: Any, strides: Any, padding: Any) -> tuple[Any, Any]:
    """Each window's largest element, and which of its positions has it first (-1: it has padding only)."""
    inside = _padded(tf.fill(tf.concat([[1], tf.shape(x)[1:-1], [1]], 0), 1), padding)
    padded = _padded(x, padding, _least(x.dtype))
    best: Any = None
    found: Any = None
    rows = zip(_seen(padded, window, strides), _seen(inside, window, strides), strict=True)
    for count, ((_, here), (_, real)) in enumerate(rows):
        real = tf.equal(real, 1)
        if best is None:
            best, found = here, tf.where(real, tf.zeros(tf.shape(here), tf.int32), -1)
            continue
        larger = (here > best) | (found < 0)
        if x.dtype.is_floating:
            larger |= tf.math.is_nan(here) & ~tf.math.is_nan(best)
        better = larger & real
        best, found = tf.where(better, here, best), tf.where(better, count, found)
    return best, found


# ---------------------------------------------------------------- sums


def _has_kernel(x: Any, window: Any) -> bool:
    return len(window) < 3 or x.dtype == tf.float32


def _two_axes(window: Any, strides: Any) -> dict[str, Any]:
    front = (1,) * (2 - len(window))
    return {"ksize": [1, *front, *window, 1], "strides": [1, *front, *strides, 1], "padding": "VALID"}


def _average(x: Any, window: Any, strides: Any) -> Any:
    how = _two_axes(window, strides)
    if len(window) == 1:
        return tf.raw_ops.AvgPool(value=x[:, tf.newaxis], **how)[:, 0]
    return tf.raw_ops.AvgPool(value=x, **how) if len(window) == 2 else tf.raw_ops.AvgPool3D(input=x, **how)


@_in_floats
def window_sum(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    x = _padded(x, padding)
    if _has_kernel(x, window):
        return _average(x, window, strides) * math.prod(window)
    return tf.add_n([part for _, part in _seen(x, window, strides)])


@_in_floats
def window_sum_gradient(g: Any, shape: Any, window: Any, strides: Any, padding: Any) -> Any:
    room = _room(shape, padding)
    if not _has_kernel(g, window):
        places = itertools.product(*map(range, window))
        parts = [_put_back(g, room, [0, *at, 0], [1, *strides, 1]) for at in places]
        return _cropped(tf.add_n(parts), padding, shape)
    how = _two_axes(window, strides)
    if len(window) == 3:
        back = tf.raw_ops.AvgPool3DGrad(orig_input_shape=shape_vector(room), grad=g, **how)
    elif len(window) == 2:
        back = tf.raw_ops.AvgPoolGrad(orig_input_shape=shape_vector(room), grad=g, **how)
    else:
        wide = shape_vector((room[0], 1, *room[1:]))
        back = tf.raw_ops.AvgPoolGrad(orig_input_shape=wide, grad=g[:, tf.newaxis], **how)[:, 0]
    return _cropped(back * math.prod(window), padding, shape)


# ---------------------------------------------------------------- maxima


def _in_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Half-width floats in float32, which holds them exactly; booleans that are compared as numbers."""

    @functools.wraps(function)
    def run(x: Any, *others: Any, **static: Any) -> Any:
        dtype = x.dtype
        if dtype.is_floating and dtype.size == 2:
            wide = function(tf.cast(x, tf.float32), *(tf.cast(other, tf.float32) for other in others), **static)
            return tf.cast(wide, dtype)
        return function(tf.cast(x, tf.uint8) if dtype == tf.bool else x, *others, **static)

    return run


def _has_max_kernel(x: Any, window: Any, padding: Any) -> bool:
    small = all(type(size) is int and size < wide for wide, pair in zip(window, padding, strict=True) for size in pair)
    return bool(small and x.dtype.is_floating and len(window) < 3)


def _is_plain(x: Any) -> Any:
    """Whether there is neither NaN nor negative infinity, over which TensorFlow's kernels trip."""
    return tf.reduce_min(x) > tf.constant(-np.inf, x.dtype)


def _max_how(x: Any, window: Any, strides: Any, padding: Any) -> tuple[Any, dict[str, Any]]:
    """What TensorFlow's kernels are given: the array, padded unless they pad so themselves, on two axes, and how."""
    how = _two_axes(window, strides)
    if _is_same(sizes_of(x), (*window, 1, 1), strides, padding):
        how["padding"] = "SAME"
    else:
        x = _padded(x, padding, -np.inf)
    return (x[:, tf.newaxis] if len(window) == 1 else x), how


def _max_pool(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    x, how = _max_how(x, window, strides, padding)
    result = tf.raw_ops.MaxPool(input=x, **how)
    return result[:, 0] if len(window) == 1 else result


def _max_pool_gradient(x: Any, g: Any, window: Any, strides: Any, padding: Any) -> Any:
    shape = sizes_of(x)
    x, how = _max_how(x, window, strides, padding)
    largest = tf.raw_ops.MaxPool(input=x, **how)
    g = g[:, tf.newaxis] if len(window) == 1 else g
    result = tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=largest, grad=g, **how)
    result = result[:, 0] if len(window) == 1 else result
    return result if how["padding"] == "SAME" else _cropped(result, padding, shape)


def _max_by_position(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    parts = (part for _, part in _seen(_padded(x, padding, _least(x.dtype)), window, strides))
    return functools.reduce(tf.maximum, parts)


def window_max(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    if x.dtype == tf.bool:
        return tf.cast(window_max(tf.cast(x, tf.uint8), window, strides, padding), tf.bool)
    return _window_max(x, window=window, strides=strides, padding=padding)


@_in_numbers
def _window_max(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    if not _has_max_kernel(x, window, padding):
        return _max_by_position(x, window, strides, padding)
    return tf.cond(
        _is_plain(x),
        lambda: _max_pool(x, window, strides, padding),
        lambda: _max_by_position(x, window, strides, padding),
    )


@_in_numbers
def window_max_gradient(x: Any, g: Any, window: Any, strides: Any, padding: Any) -> Any:
    if not _has_max_kernel(x, window, padding):
        return _max_gradient_by_position(x, g, window, strides, padding)
    return tf.cond(
        _is_plain(x),
        lambda: _max_pool_gradient(x, g, window, strides, padding),
        lambda: _max_gradient_by_position(x, g, window, strides, padding),
    )


def _max_gradient_by_position(x: Any, g: Any, window: Any, strides: Any, padding: Any) -> Any:
    _, found = _first_largest(x, window, strides, padding)
    shape = sizes_of(x)
    room = _room(shape, padding)
    parts = [
        _put_back(tf.where(tf.equal(found, count), g, tf.zeros((), g.dtype)), room, [0, *at, 0], [1, *strides, 1])
        for count, at in enumerate(itertools.product(*map(range, window)))
    ]
    return _cropped(_total(parts), padding, shape)


def _total(parts: list[Any]) -> Any:
    return functools.reduce(tf.logical_or, parts) if parts[0].dtype == tf.bool else tf.add_n(parts)


@_in_numbers
def window_max_take(x: Any, values: Any, window: Any, strides: Any, padding: Any) -> Any:
    _, found = _first_largest(x, window, strides, padding)
    result = tf.zeros(tf.shape(found), values.dtype)
    for count, (_, here) in enumerate(_seen(_padded(values, padding), window, strides)):
        result = tf.where(tf.equal(found, count), here, result)
    return result


TABLE: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        convolution, convolution_input_gradient, convolution_kernel_gradient, window_sum, window_sum_gradient,
        window_max, window_max_gradient, window_max_take,
    )
}  # fmt: skip
