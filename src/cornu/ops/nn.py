"""Functions of neural networks: activations, pooling, convolutions, normalisations, losses, attention.

All are composed of other ops, so an engine need not know any of them and may have its own of any of them. Their
gradients are finite wherever their values are: a branch that is not chosen never sees a value it cannot bear.
"""

import math
from collections.abc import Callable
from typing import Any

from cornu.core import dtypes
from cornu.core.dims import Dim, Size, shape_text
from cornu.core.errors import ArgumentError, DtypeError, ShapeError, UnsupportedError, near_miss
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import contraction as _t
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import indexing as _i
from cornu.ops import movement as _m
from cornu.ops import reduction as _r
from cornu.ops._declare import op, shape_of, to_float
from cornu.ops._rules import axes_of, axis_of, product, require_equal

__all__ = [
    "adaptive_average_pool", "adaptive_max_pool", "average_pool", "batch_normalization", "binary_crossentropy",
    "categorical_crossentropy", "celu", "conv", "conv_transpose", "depthwise_conv", "dot_product_attention", "elu",
    "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "layer_normalization",
    "leaky_relu", "log_sigmoid", "log_softmax", "max_pool", "moments", "multi_hot", "normalize", "psnr", "relu6",
    "rms_normalization", "selu", "separable_conv", "silu", "soft_shrink", "softmax", "softplus", "softsign",
    "sparse_categorical_crossentropy", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "swish",
    "tanh_shrink", "threshold",
]  # fmt: skip

relu, sigmoid, tanh, one_hot = _e.relu, _e.sigmoid, _e.tanh, _i.one_hot  # Keras's `ops.nn` holds them too

# Keras's default epsilon: the least probability a crossentropy takes a logarithm of, the least norm to divide by.
EPSILON = 1e-7

# ---------------------------------------------------------------- activations


@op(promote=True, result=to_float, family="elementwise")
def relu6(x: Spec) -> Spec:
    """`min(max(x, 0), 6)`; the gradient at 0 and at 6 is 0.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    slope = _a.logical_and(_a.greater(x, 0), _a.less(x, 6))
    return _e.where(slope, x, _e.stop_gradient(_a.minimum(_a.maximum(x, 0), 6)))


@op(promote=True, result=to_float, family="elementwise")
def softplus(x: Spec) -> Spec:
    """`log(1 + exp(x))`, without overflow.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    # The chosen branch has the right slope at 0 too, and so have its derivatives.
    below = _e.where(_a.greater(x, 0), _e.negative(x), x)
    return _a.add(_e.relu(x), _e.log1p(_e.exp(below)))


@op(promote=True, result=to_float, family="elementwise")
def log_sigmoid(x: Spec) -> Spec:
    """`log(1 / (1 + exp(-x)))`, without overflow.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _e.negative(softplus(_e.negative(x)))


@op(promote=True, result=to_float, family="elementwise")
def softsign(x: Spec) -> Spec:
    """`x / (|x| + 1)`.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _a.divide(x, _a.add(_e.abs(x), 1))


@op(promote=True, result=to_float, family="elementwise")
def silu(x: Spec) -> Spec:
    """`x * sigmoid(x)`, also called swish.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _a.multiply(x, _e.sigmoid(x))


swish = silu


@op(promote=True, result=to_float, family="elementwise")
def leaky_relu(x: Spec, negative_slope=0.2) -> Spec:
    """`x` from 0 on, `negative_slope * x` below.

    Args:
        x: array.
        negative_slope: the slope below 0, by default 0.2.

    Returns:
        float array of the same shape.
    """
    return _e.where(_a.greater_equal(x, 0), x, _a.multiply(x, negative_slope))


@op(promote=True, result=to_float, family="elementwise")
def hard_sigmoid(x: Spec) -> Spec:
    """`relu6(x + 3) / 6`: straight lines in place of a sigmoid.

    Args:
        x: array.

    Returns:
        float array of the same shape, from 0 to 1.
    """
    return _a.divide(relu6(_a.add(x, 3)), 6)


@op(promote=True, result=to_float, family="elementwise")
def hard_silu(x: Spec) -> Spec:
    """`x * hard_sigmoid(x)`, also called hard swish.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _a.multiply(x, hard_sigmoid(x))


hard_swish = hard_silu


def _not_above(x: Any) -> Any:
    """`x` up to 0, and 0 above, where nothing flows back; what is kept has its full slope at 0."""
    return _e.where(_a.greater(x, 0), 0, x)


@op(promote=True, result=to_float, family="elementwise")
def elu(x: Spec, alpha=1.0) -> Spec:
    """`x` above 0, `alpha * (exp(x) - 1)` below.

    Args:
        x: array.
        alpha: minus the limit on the left, by default 1.

    Returns:
        float array of the same shape.
    """
    return _e.where(_a.greater(x, 0), x, _a.multiply(_e.expm1(_not_above(x)), alpha))


@op(promote=True, result=to_float, family="elementwise")
def selu(x: Spec) -> Spec:
    """`elu` scaled so that layers keep mean 0 and variance 1 (Klambauer et al., 2017, whose two constants these are).

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _a.multiply(elu(x, alpha=1.6732632423543772), 1.0507009873554805)


@op(promote=True, result=to_float, family="elementwise")
def celu(x: Spec, alpha=1.0) -> Spec:
    """`max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)`: `elu` whose slope at 0 is 1 for every `alpha`.

    Args:
        x: array.
        alpha: minus the limit on the left, not 0; by default 1.

    Returns:
        float array of the same shape.

    Raises:
        ArgumentError: if `alpha` is 0.
    """
    if alpha == 0:
        raise ArgumentError("celu got alpha=0", "a number other than 0", "relu is its limit at 0")
    return _a.add(_e.relu(x), _a.multiply(_e.expm1(_a.divide(_not_above(x), alpha)), alpha))


@op(promote=True, result=to_float, family="elementwise")
def gelu(x: Spec, approximate=True) -> Spec:
    """`x` times the probability that a standard normal number is below it (Hendrycks & Gimpel, 2016).

    Args:
        x: array.
        approximate: whether to use the approximation by `tanh`, or the error function.

    Returns:
        float array of the same shape.

    Example:
        >>> import cornu
        >>> cornu.ops.gelu([0.0, 100.0]).tolist()
        [0.0, 100.0]
    """
    if not approximate:
        return _a.multiply(_a.multiply(x, 0.5), _a.add(_e.erf(_a.multiply(x, math.sqrt(0.5))), 1))
    # Beyond 20 the tanh is 1 in every float; its cube would overflow in the half-width ones.
    near = _a.maximum(_a.minimum(x, 20), -20)
    cubic = _a.add(near, _a.multiply(_a.multiply(_a.multiply(near, near), near), 0.044715))
    return _a.multiply(_a.multiply(x, 0.5), _a.add(_e.tanh(_a.multiply(cubic, math.sqrt(2 / math.pi))), 1))


@op(promote=True, result=to_float)
def glu(x: Spec, axis=-1) -> Spec:
    """The first half along an axis, times the sigmoid of the second half.

    Args:
        x: array.
        axis: the axis to halve.

    Returns:
        float array with half as many elements on that axis.

    Raises:
        ArgumentError: if the axis cannot be halved.
    """
    values, gates = _m.split(x, 2, axis=axis)
    return _a.multiply(values, _e.sigmoid(gates))


@op(promote=True, result=to_float, family="elementwise")
def hard_tanh(x: Spec) -> Spec:
    """`x` from -1 to 1, and the nearer of both outside.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _e.where(_a.greater(x, 1), 1, _e.where(_a.less(x, -1), -1, x))


@op(promote=True, result=to_float, family="elementwise")
def tanh_shrink(x: Spec) -> Spec:
    """`x - tanh(x)`.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _a.subtract(x, _e.tanh(x))


@op(promote=True, result=to_float, family="elementwise")
def soft_shrink(x: Spec, threshold=0.5) -> Spec:
    """`x` moved towards 0 by `threshold`, and 0 where it would cross over.

    Args:
        x: array.
        threshold: the distance, by default 0.5.

    Returns:
        float array of the same shape; NaN stays NaN.
    """
    moved = _a.subtract(x, _a.multiply(_e.sign(x), threshold))
    return _e.where(_a.less_equal(_e.abs(x), threshold), 0, moved)


@op(promote=True, result=to_float, family="elementwise")
def hard_shrink(x: Spec, threshold=0.5) -> Spec:
    """`x` where `|x| > threshold`, else 0.

    Args:
        x: array.
        threshold: by default 0.5.

    Returns:
        float array of the same shape; NaN stays NaN.
    """
    return _e.where(_a.less_equal(_e.abs(x), threshold), 0, x)


@op(promote=True, family="elementwise")
def threshold(x: Spec, threshold, default_value) -> Spec:
    """`x` where `x > threshold`, else `default_value`.

    Args:
        x: array.
        threshold: a number.
        default_value: a number.

    Returns:
        array of the same shape; NaN stays NaN.
    """
    return _e.where(_a.less_equal(x, threshold), default_value, x)


@op(promote=True, result=to_float, family="elementwise")
def squareplus(x: Spec, b=4) -> Spec:
    """`(x + sqrt(x * x + b)) / 2`: a smooth `relu` (Barron, 2021); with `b=0` it is `relu`.

    Args:
        x: array.
        b: how smooth, by default 4.

    Returns:
        float array of the same shape.
    """
    if b == 0:
        return _e.relu(x)
    return _a.divide(_a.add(x, _e.sqrt(_a.add(_a.multiply(x, x), b))), 2)


@op(promote=True, result=to_float, family="elementwise")
def sparse_plus(x: Spec) -> Spec:
    """0 up to -1, `x` from 1 on, and the parabola `(x + 1)**2 / 4` in between.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    outside = _a.greater_equal(_e.abs(x), 1)
    between = _a.add(_e.where(outside, 0, x), 1)
    return _e.where(outside, _e.relu(x), _a.divide(_a.multiply(between, between), 4))


@op(promote=True, result=to_float, family="elementwise")
def sparse_sigmoid(x: Spec) -> Spec:
    """0 up to -1, 1 from 1 on, and a straight line in between.

    Args:
        x: array.

    Returns:
        float array of the same shape.
    """
    return _a.multiply(_a.minimum(_a.maximum(_a.add(x, 1), 0), 2), 0.5)


def _from_peak(x: Any, axis: Any) -> Any:
    """Elements less the largest along axes, through which nothing flows back."""
    return _a.subtract(x, _e.stop_gradient(_r.max(x, axis=axis, keepdims=True)))


@op(promote=True, result=to_float)
def softmax(x: Spec, axis=-1) -> Spec:
    """`exp(x) / sum(exp(x))` along an axis, without overflow.

    Args:
        x: array.
        axis: the axis or axes that sum to 1; `None` for all.

    Returns:
        float array of the same shape, positive, whose sum along the axis is 1.

    Example:
        >>> import cornu
        >>> cornu.ops.softmax([0.0, 0.0]).tolist()
        [0.5, 0.5]
    """
    e = _e.exp(_from_peak(x, axis))
    return _a.divide(e, _r.sum(e, axis=axis, keepdims=True))


@op(promote=True, result=to_float)
def log_softmax(x: Spec, axis=-1) -> Spec:
    """The logarithm of `softmax`, without underflow; arguments as for `softmax`."""
    shifted = _from_peak(x, axis)
    return _a.subtract(shifted, _e.log(_r.sum(_e.exp(shifted), axis=axis, keepdims=True)))


@op(promote=True, result=to_float)
def sparsemax(x: Spec, axis=-1) -> Spec:
    """The nearest point of the probability simplex (Martins & Astudillo, 2016): a softmax with exact zeros.

    Args:
        x: array.
        axis: the axis that sums to 1.

    Returns:
        float array of the same shape, from 0 to 1.
    """
    shifted = _from_peak(x, axis)
    # Which elements stay above 0 follows from the sorted ones, and does not change under a small step.
    falling = _m.flip(_r.sort(_e.stop_gradient(shifted), axis=axis), axis=axis)
    total = _r.cumulative_sum(falling, axis=axis)
    rank = _r.cumulative_sum(_c.ones_like(falling), axis=axis)
    inside = _a.greater(_a.multiply(falling, rank), _a.subtract(total, 1))
    among = _a.greater_equal(shifted, _r.min(_e.where(inside, falling, 0), axis=axis, keepdims=True))
    kept = _r.sum(_e.cast(among, _c.dtype(x)), axis=axis, keepdims=True)
    tau = _a.divide(_a.subtract(_r.sum(_e.where(among, shifted, 0), axis=axis, keepdims=True), 1), kept)
    return _e.relu(_a.subtract(shifted, tau))


# ---------------------------------------------------------------- geometry of pooling and convolution


def _channels_last(data_format: Any) -> bool:
    """Whether channels are the last axis; `None` is `"channels_last"`.

    Raises:
        ArgumentError: for any other word.
    """
    if data_format not in (None, "channels_last", "channels_first"):
        hint = near_miss(data_format, ("channels_last", "channels_first"))
        raise ArgumentError(f"data_format {data_format!r}{hint}", "'channels_last' or 'channels_first'")
    return bool(data_format != "channels_first")


def _spatial_rank(x: Any, what: str) -> int:
    shape = shape_of(x)
    if len(shape) < 3:
        raise ShapeError(f"{what} of an array {shape_text(shape)}", "a batch, spatial axes (one at least), channels")
    return len(shape) - 2


def _per_axis(value: Any, rank: int, what: str, least: int = 1) -> tuple[int, ...]:
    """A whole number for each spatial axis, from one number or one for each.

    Raises:
        ArgumentError: if the count is wrong, or a number is too small.
    """
    many = (value,) * rank if hasattr(value, "__index__") else tuple(value)
    if len(many) != rank or not all(hasattr(n, "__index__") and int(n) >= least for n in many):
        expected = f"one whole number from {least} on, or {rank} of them"
        raise ArgumentError(f"{what}={value!r} for {rank} spatial axes", expected)
    return tuple(int(n) for n in many)


def _padding(padding: Any) -> str:
    name = padding.lower() if isinstance(padding, str) else padding
    if name not in ("valid", "same"):
        raise ArgumentError(f"padding {padding!r}{near_miss(padding, ('valid', 'same'))}", "'valid' or 'same'")
    return str(name)


def _pads(space: Any, window: Any, strides: Any, dilation: Any, padding: Any, what: str) -> Any:
    """The padding before and after each spatial axis; `"same"` as TensorFlow computes it, the odd one after.

    Raises:
        ShapeError: if a window does not fit.
    """
    same = _padding(padding) == "same"
    pads: list[tuple[Size, Size]] = []
    for size, wide, stride, apart in zip(space, window, strides, dilation, strict=True):
        reach = (wide - 1) * apart + 1
        if same:
            short = (size - 1) // stride * stride + reach - size
            if reach == 1:
                short = 0
            elif reach < stride:
                short = Dim.operation("max", short, 0)
            # Else it is never negative, and unknown sizes come out as plain `(size - 1) // stride + 1`.
            low = short // 2
            pads.append((low, short - low))
            continue
        if not isinstance(size, Dim) and size < reach:
            raise ShapeError(
                f"{what}: a window of {reach} over an axis of {size}", f"at least {reach} elements", "padding='same'"
            )
        pads.append((0, 0))
    return tuple(pads)


def _channels_to_back(x: Any, last: bool) -> Any:
    return x if last else _m.moveaxis(x, 1, -1)


def _channels_back_to_place(x: Any, last: bool) -> Any:
    return x if last else _m.moveaxis(x, -1, 1)


# ---------------------------------------------------------------- pooling


def _windows(inputs: Any, pool_size: Any, strides: Any, padding: Any, what: str) -> dict[str, Any]:
    rank = _spatial_rank(inputs, what)
    window = _per_axis(pool_size, rank, "pool_size")
    steps = window if strides is None else _per_axis(strides, rank, "strides")
    pads = _pads(shape_of(inputs)[1:-1], window, steps, (1,) * rank, padding, what)
    return {"window": window, "strides": steps, "padding": pads}


@op(promote=True, family="pooling")
def max_pool(inputs: Spec, pool_size, strides=None, padding="valid", data_format=None) -> Spec:
    """The largest element of each window.

    Args:
        inputs: array `(batch, *space, channels)`, or `(batch, channels, *space)` if channels come first.
        pool_size: the window: a number, or one for each spatial axis.
        strides: steps; by default the window.
        padding: `"valid"` (default), or `"same"` to pad as TensorFlow does.
        data_format: `"channels_last"` (default) or `"channels_first"`.

    Returns:
        array with fewer elements on the spatial axes.

    Raises:
        ShapeError: if a window does not fit.

    Example:
        >>> import cornu
        >>> cornu.ops.max_pool([[[1.0], [3.0], [2.0]]], 2, padding="same").tolist()
        [[[3.0], [2.0]]]
    """
    last = _channels_last(data_format)
    x = _channels_to_back(inputs, last)
    return _channels_back_to_place(_t.window_max(x, **_windows(x, pool_size, strides, padding, "max_pool")), last)


@op(promote=True, result=to_float, family="pooling")
def average_pool(inputs: Spec, pool_size, strides=None, padding="valid", data_format=None) -> Spec:
    """The mean of each window, in which padding is not counted; arguments as for `max_pool`."""
    last = _channels_last(data_format)
    x = _channels_to_back(inputs, last)
    windows = _windows(x, pool_size, strides, padding, "average_pool")
    total = _t.window_sum(x, **windows)
    count: Any = product(windows["window"])
    if any(isinstance(pad, Dim) or pad for pair in windows["padding"] for pad in pair):
        count = _t.window_sum(_c.ones((1, *shape_of(x)[1:-1], 1), _c.dtype(x)), **windows)
    return _channels_back_to_place(_a.divide(total, count), last)


def _bins(size: Size, count: int) -> Any:
    """Which elements of an axis fall in which of `count` bins, as `(count, size)`.

    Bin `i` reaches from `floor(i * size / count)` up to `ceil((i + 1) * size / count)`, as in PyTorch and Keras.
    """
    total = _c.size_array(size) if isinstance(size, Dim) else size
    at = _m.expand_dims(_c.arange(size), 0)
    bins = _m.expand_dims(_c.arange(count), 1)
    start = _a.floor_divide(_a.multiply(bins, total), count)
    stop = _a.floor_divide(_a.add(_a.multiply(_a.add(bins, 1), total), count - 1), count)
    return _a.logical_and(_a.greater_equal(at, start), _a.less(at, stop))


def _adaptive(inputs: Any, output_size: Any, data_format: Any, what: str, combine: Callable[..., Any]) -> Any:
    """Pool each spatial axis into bins; `combine(x, inside, axis)` joins the elements of an axis that are inside."""
    last = _channels_last(data_format)
    x = _channels_to_back(inputs, last)
    rank = _spatial_rank(x, what)
    for axis, count in enumerate(_per_axis(output_size, rank, "output_size"), start=1):
        size = shape_of(x)[axis]
        if not isinstance(size, Dim) and size == 0:
            raise ShapeError(f"{what} over an axis of size 0", "at least one element")
        inside = _m.reshape_to(_bins(size, count), shape=(count, size) + (1,) * (rank + 1 - axis))
        x = combine(_m.expand_dims(x, axis), inside, axis + 1)
    return _channels_back_to_place(x, last)


@op(promote=True, result=to_float, family="pooling")
def adaptive_average_pool(inputs: Spec, output_size, data_format=None) -> Spec:
    """The mean of each of a fixed number of bins.

    Args:
        inputs: array `(batch, *space, channels)`, or `(batch, channels, *space)` if channels come first.
        output_size: bins per spatial axis: a number, or one for each.
        data_format: `"channels_last"` (default) or `"channels_first"`.

    Returns:
        float array with `output_size` elements on the spatial axes, whatever the input's size.
    """

    def mean(x: Any, inside: Any, axis: int) -> Any:
        count = _r.sum(_e.cast(inside, _c.dtype(x)), axis=1)
        return _a.divide(_r.sum(_e.where(inside, x, 0), axis=axis), count)

    return _adaptive(inputs, output_size, data_format, "adaptive_average_pool", mean)


@op(promote=True, result=to_float, family="pooling")
def adaptive_max_pool(inputs: Spec, output_size, data_format=None) -> Spec:
    """The largest element of each of a fixed number of bins; arguments as for `adaptive_average_pool`."""

    def largest(x: Any, inside: Any, axis: int) -> Any:
        return _r.max(_e.where(inside, x, -math.inf), axis=axis)

    return _adaptive(inputs, output_size, data_format, "adaptive_max_pool", largest)


# ---------------------------------------------------------------- convolution


def _geometry(x: Any, kernel: Any, strides: Any, padding: Any, dilation_rate: Any, what: str) -> dict[str, Any]:
    rank = _spatial_rank(x, what)
    window = shape_of(kernel)[:-2]
    if len(window) != rank:
        raise ShapeError(
            f"{what} of an array {shape_text(shape_of(x))} with a kernel {shape_text(shape_of(kernel))}",
            f"a kernel with {rank + 2} axes",
        )
    steps = _per_axis(strides, rank, "strides")
    dilation = _per_axis(dilation_rate, rank, "dilation_rate")
    pads = _pads(shape_of(x)[1:-1], window, steps, dilation, padding, what)
    return {"strides": steps, "padding": pads, "dilation": dilation}


def _channels(x: Any, kernel: Any, what: str, taken: int = -2) -> tuple[int, int]:
    """The channels of an array (last axis), and those a kernel takes.

    Raises:
        ShapeError: if the number of channels is not known.
    """
    channels = shape_of(x)[-1]
    if isinstance(channels, Dim):
        raise ShapeError(f"{what} of an array of shape {shape_text(shape_of(x))}", "a known number of channels")
    return channels, shape_of(kernel)[taken]


def _require_channels(x: Any, kernel: Any, what: str, taken: int = -2) -> int:
    channels, wanted = _channels(x, kernel, what, taken)
    if channels != wanted:
        raise ShapeError(
            f"{what} got {channels} channels (data_format tells which axis they are) and a kernel of shape "
            f"{shape_text(shape_of(kernel))}",
            f"{wanted} channels",
        )
    return channels


@op(promote=True, result=to_float, family="convolution")
def conv(inputs: Spec, kernel: Spec, strides=1, padding="valid", data_format=None, dilation_rate=1) -> Spec:
    """The convolution (cross-correlation) over any number of spatial axes.

    Args:
        inputs: array `(batch, *space, channels)`, or `(batch, channels, *space)` if channels come first.
        kernel: array `(*window, channels / groups, filters)`; the number of groups follows from it.
        strides: steps: a number, or one for each spatial axis; by default 1.
        padding: `"valid"` (default), or `"same"` to pad as TensorFlow does.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        dilation_rate: distance between the kernel's elements: a number, or one for each spatial axis; by default 1.

    Returns:
        array `(batch, *space', filters)`, or `(batch, filters, *space')` if channels come first.

    Raises:
        ShapeError: if the kernel does not fit the channels or the space.

    Example:
        >>> import cornu
        >>> cornu.ops.conv(cornu.ops.ones((1, 5, 1)), cornu.ops.ones((3, 1, 1))).tolist()
        [[[3.0], [3.0], [3.0]]]
    """
    last = _channels_last(data_format)
    x = _channels_to_back(inputs, last)
    geometry = _geometry(x, kernel, strides, padding, dilation_rate, "conv")
    channels, taken = _channels(x, kernel, "conv")
    if channels % taken or shape_of(kernel)[-1] % (channels // taken):
        raise ShapeError(
            f"conv of {channels} channels with a kernel of shape {shape_text(shape_of(kernel))}",
            f"a multiple of {taken} channels, and a number of filters that the number of groups divides",
        )
    return _channels_back_to_place(_t.convolution(x, kernel, groups=channels // taken, **geometry), last)


@op(promote=True, result=to_float, family="convolution")
def depthwise_conv(inputs: Spec, kernel: Spec, strides=1, padding="valid", data_format=None, dilation_rate=1) -> Spec:
    """The convolution of each channel with kernels of its own.

    Args:
        inputs: as for `conv`.
        kernel: array `(*window, channels, multiplier)`.
        strides: as for `conv`.
        padding: as for `conv`.
        data_format: as for `conv`.
        dilation_rate: as for `conv`.

    Returns:
        array as from `conv`, with `channels * multiplier` filters; those of a channel stand together.

    Raises:
        ShapeError: if the kernel does not fit the channels or the space.
    """
    last = _channels_last(data_format)
    x = _channels_to_back(inputs, last)
    geometry = _geometry(x, kernel, strides, padding, dilation_rate, "depthwise_conv")
    channels = _require_channels(x, kernel, "depthwise_conv")
    sizes = shape_of(kernel)
    each = _m.reshape_to(kernel, shape=(*sizes[:-2], 1, channels * sizes[-1]))
    return _channels_back_to_place(_t.convolution(x, each, groups=channels, **geometry), last)


@op(promote=True, result=to_float, family="convolution")
def separable_conv(
    inputs: Spec,
    depthwise_kernel: Spec,
    pointwise_kernel: Spec,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
) -> Spec:
    """A convolution of each channel alone, then one over the channels of each position.

    Args:
        inputs: as for `conv`.
        depthwise_kernel: array `(*window, channels, multiplier)`.
        pointwise_kernel: array `(1, ..., 1, channels * multiplier, filters)`.
        strides: as for `conv`.
        padding: as for `conv`.
        data_format: as for `conv`.
        dilation_rate: as for `conv`.

    Returns:
        array as from `conv`.

    Raises:
        ShapeError: if a kernel does not fit.
    """
    apart = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(apart, pointwise_kernel, data_format=data_format)


@op(promote=True, result=to_float, family="convolution")
def conv_transpose(
    inputs: Spec,
    kernel: Spec,
    strides=1,
    padding="valid",
    output_padding=None,
    data_format=None,
    dilation_rate=1,
) -> Spec:
    """The transposed convolution: what the gradient of `conv` does to its input.

    Args:
        inputs: array `(batch, *space, channels)`, or `(batch, channels, *space)` if channels come first.
        kernel: array `(*window, filters, channels)`.
        strides: how far apart the inputs are put: a number, or one for each spatial axis; by default 1.
        padding: `"valid"` (default): size `(size - 1) * stride + max(reach, stride)`; `"same"`: `size * stride`.
        output_padding: elements more at the end, a number or one for each spatial axis, counted from the size
            `(size - 1) * stride + reach` (`"valid"`) or `(size - 1) * stride + reach % 2` (`"same"`); `None` for
            the sizes above.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        dilation_rate: distance between the kernel's elements: a number, or one for each spatial axis; by default 1.

    Returns:
        array `(batch, *space', filters)`, or `(batch, filters, *space')` if channels come first.

    Raises:
        ShapeError: if the kernel does not fit the channels.
    """
    last = _channels_last(data_format)
    x = _channels_to_back(inputs, last)
    geometry = _geometry(x, kernel, strides, "same", dilation_rate, "conv_transpose")
    _require_channels(x, kernel, "conv_transpose", taken=-1)
    same = _padding(padding) == "same"
    rank = len(geometry["strides"])
    more = (None,) * rank if output_padding is None else _per_axis(output_padding, rank, "output_padding", least=0)
    rows = zip(shape_of(x)[1:-1], shape_of(kernel)[:-2], geometry["strides"], geometry["dilation"], more, strict=True)
    space, pads, tails = [], [], []
    for size, wide, stride, apart, extra in rows:
        low, cut, tail = _transposed_pads((wide - 1) * apart + 1, stride, same, extra)
        space.append((size - 1) * stride + (wide - 1) * apart + 1 - low - cut)
        pads.append((low, cut))
        tails.append((0, tail))
    sizes = (shape_of(x)[0], *space, shape_of(kernel)[-2])
    geometry["padding"] = tuple(pads)
    y = _t.convolution_input_gradient(x, kernel, shape=sizes, groups=1, **geometry)
    if any(tail for _, tail in tails):
        y = _m.pad(y, ((0, 0), *tails, (0, 0)))
    return _channels_back_to_place(y, last)


def _transposed_pads(reach: int, stride: int, same: bool, extra: int | None) -> tuple[int, int, int]:
    """What to cut off a full transposed convolution (`(size - 1) * stride + reach`) before and after; zeros to add."""
    if same:
        total = reach - stride if extra is None else reach - reach % 2 - extra
        # Of what is cut, the odd one goes after; nothing is added in front.
        kept = 2 * reach - 2 - total
        low = reach - 1 - min(kept // 2 + kept % 2, reach - 1)
    else:
        total = min(reach - stride, 0) if extra is None else -extra
        low = 0
    high = total - low
    return low, max(high, 0), max(-high, 0)


# ---------------------------------------------------------------- normalisation


def _widened(x: Any) -> tuple[Any, str]:
    """An array in float32 if it is narrower, and the dtype it had."""
    name = _c.dtype(x)
    return (_e.cast_to(x, dtype="float32") if dtypes.size_of(name) == 2 else x), name


@op(promote=True, result=to_float, family="reduction")
def moments(x: Spec, axes, keepdims=False, synchronized=False) -> Any:
    """The mean and the variance along axes.

    Args:
        x: array.
        axes: the axis or axes to reduce; `None` for all.
        keepdims: whether reduced axes stay, with size 1.
        synchronized: not supported; only `False`.

    Returns:
        the mean and the variance, of a float dtype; those of float16 are kept within its range.

    Raises:
        UnsupportedError: if `synchronized`.
    """
    if synchronized:
        raise UnsupportedError("moments with synchronized=True", "synchronized=False")
    wide, name = _widened(x)
    results = []
    for statistic in (_r.mean, _r.var):
        result = statistic(wide, axis=axes, keepdims=keepdims)
        if name == "float16":
            result = _a.maximum(_a.minimum(result, 65504.0), -65504.0)
        results.append(_e.cast_to(result, dtype=name) if name != _c.dtype(result) else result)
    return results[0], results[1]


def _beside(value: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """A parameter with one axis for each of `axes`, reshaped to stand beside `x`; others as they are."""
    if value is None:
        return None
    sizes, shape = shape_of(value), shape_of(x)
    if len(sizes) == len(shape) or len(sizes) != len(axes) or axes == tuple(range(len(shape) - len(axes), len(shape))):
        return value
    place = dict(zip(axes, sizes, strict=True))
    return _m.reshape_to(value, shape=tuple(place.get(i, 1) for i in range(len(shape))))


@op(promote=True, result=to_float)
def batch_normalization(
    x: Spec, mean: Spec, variance: Spec, axis, offset: Spec | None = None, scale: Spec | None = None, epsilon=1e-3
) -> Spec:
    """`(x - mean) / sqrt(variance + epsilon) * scale + offset`, with parameters along one axis.

    Args:
        x: array.
        mean: array `(n,)`.
        variance: array `(n,)`.
        axis: the axis of `x` that has size `n`.
        offset: array `(n,)`, or `None` for 0.
        scale: array `(n,)`, or `None` for 1.
        epsilon: added to the variance, by default 0.001.

    Returns:
        float array of the shape of `x`.
    """
    at = (axis_of(axis, len(shape_of(x))),)
    inverse = _e.rsqrt(_a.add(variance, epsilon))
    if scale is not None:
        inverse = _a.multiply(inverse, scale)
    y = _a.multiply(_a.subtract(x, _beside(mean, x, at)), _beside(inverse, x, at))
    return y if offset is None else _a.add(y, _beside(offset, x, at))


@op(promote=True, result=to_float)
def normalization_by_batch(x: Spec, axis, offset: Spec | None = None, scale: Spec | None = None, epsilon=1e-3) -> Any:
    """`batch_normalization` by the mean and the variance of the array itself, along all axes but one.

    Args:
        x: array.
        axis: the axis of `x` that has size `n`.
        offset: array `(n,)`, or `None` for 0.
        scale: array `(n,)`, or `None` for 1.
        epsilon: added to the variance, by default 0.001.

    Returns:
        float array of the shape of `x`; the mean and the variance, `(n,)`, through which nothing flows back.
    """
    rank = len(shape_of(x))
    mean, variance = moments(x, axes=tuple(i for i in range(rank) if i != axis_of(axis, rank)))
    y = batch_normalization(x, mean, variance, axis, offset, scale, epsilon)
    return y, _e.stop_gradient(mean), _e.stop_gradient(variance)


def _parameter(value: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return None if value is None else _beside(_e.cast_to(value, dtype=_c.dtype(x)), x, axes)


@op(promote=("x",), result=to_float)
def layer_normalization(
    x: Spec, gamma: Spec | None = None, beta: Spec | None = None, axis=-1, epsilon=None, rms_scaling=False
) -> Spec:
    """Mean 0 and variance 1 along axes, then scaled and moved (Ba et al., 2016). Computed in float32 at least.

    Args:
        x: array.
        gamma: what to multiply by, with one axis for each of `axis`, or `None` for 1.
        beta: what to add, with one axis for each of `axis`, or `None` for 0.
        axis: the axis or axes to normalise.
        epsilon: added to the variance, by default 1e-7.
        rms_scaling: Keras's deprecated variant that divides by the standard deviation, without centring, and without
            `beta`; `rms_normalization` is what its name says.

    Returns:
        float array of the shape of `x`.

    Raises:
        ArgumentError: if `beta` is given with `rms_scaling`.
    """
    axes = axes_of(axis, len(shape_of(x)))
    wide, name = _widened(x)
    gamma, beta = _parameter(gamma, wide, axes), _parameter(beta, wide, axes)
    if rms_scaling and beta is not None:
        raise ArgumentError("layer_normalization got beta with rms_scaling=True", "beta=None")
    centre = _r.mean(wide, axis=axes, keepdims=True)
    centred = _a.subtract(wide, centre)
    variance = _r.mean(_a.multiply(centred, centred), axis=axes, keepdims=True)
    inverse = _e.rsqrt(_a.add(variance, EPSILON if epsilon is None else epsilon))
    y = _a.multiply(wide if rms_scaling else centred, inverse)
    if gamma is not None:
        y = _a.multiply(y, gamma)
    if beta is not None:
        y = _a.add(y, beta)
    return y if wide is x else _e.cast_to(y, dtype=name)


@op(promote=("x",), result=to_float)
def rms_normalization(x: Spec, scale: Spec | None = None, axis=-1, epsilon=None) -> Spec:
    """`x / sqrt(mean(x * x) + epsilon) * scale` along axes (Zhang & Sennrich, 2019). Computed in float32 at least.

    Args:
        x: array.
        scale: what to multiply by, with one axis for each of `axis`, or `None` for 1.
        axis: the axis or axes to normalise.
        epsilon: added to the mean of squares, by default 1e-7.

    Returns:
        float array of the shape of `x`.
    """
    x = x if shape_of(x) else _m.expand_dims(x, 0)
    axes = axes_of(axis, len(shape_of(x)))
    wide, name = _widened(x)
    square = _r.mean(_a.multiply(wide, wide), axis=axes, keepdims=True)
    y = _a.multiply(wide, _e.rsqrt(_a.add(square, EPSILON if epsilon is None else epsilon)))
    if scale is not None:
        y = _a.multiply(y, _parameter(scale, wide, axes))
    return y if wide is x else _e.cast_to(y, dtype=name)


@op(promote=True, result=to_float)
def normalize(x: Spec, axis=-1, order=2, epsilon=None) -> Spec:
    """`x / max(norm(x), epsilon)`.

    Args:
        x: array.
        axis: the axis to take norms along; for `order=2` also several.
        order: the exponent of the norm, a whole number from 1 on; by default 2.
        epsilon: the least norm, by default 1e-7.

    Returns:
        float array of the shape of `x`.

    Raises:
        ArgumentError: if `order` is no whole number from 1 on.
        UnsupportedError: for several axes with another order than 2.
    """
    if not hasattr(order, "__index__") or isinstance(order, bool) or order < 1:
        raise ArgumentError(f"normalize got order={order!r}", "a whole number from 1 on")
    x = x if shape_of(x) else _m.expand_dims(x, 0)
    axes = axes_of(axis, len(shape_of(x)))
    least = EPSILON if epsilon is None else epsilon
    wide, name = _widened(x)
    if order == 2:
        square = _r.sum(_a.multiply(wide, wide), axis=axes, keepdims=True)
        y = _a.multiply(wide, _e.rsqrt(_a.maximum(square, least * least)))
        return y if wide is x else _e.cast_to(y, dtype=name)
    if len(axes) > 1:
        raise UnsupportedError(f"normalize of order {order} along {len(axes)} axes", "one axis, or order=2")
    size = _e.abs(wide)
    if order == 1:
        norm = _r.sum(size, axis=axes, keepdims=True)
    else:
        total = _r.sum(_a.power(size, int(order)), axis=axes, keepdims=True)
        empty = _a.less_equal(total, 0)
        norm = _e.where(empty, 0, _a.power(_e.where(empty, 1, total), 1 / order))
    y = _a.divide(wide, _a.maximum(norm, least))
    return y if wide is x else _e.cast_to(y, dtype=name)


# ---------------------------------------------------------------- labels and losses


@op
def multi_hot(inputs: Spec, num_classes=None, axis=-1, dtype=None, sparse=False) -> Spec:
    """1 at each of several positions that whole numbers name, 0 elsewhere.

    Args:
        inputs: integers `(n,)` or `(batch, n, ...)`; those outside `0 .. num_classes - 1` are left out.
        num_classes: how many positions.
        axis: where the new axis goes, before that of the labels is reduced; by default last.
        dtype: dtype of the result; by default the default float.
        sparse: not supported; only `False`.

    Returns:
        array `(num_classes,)` or `(batch, ..., num_classes)`.

    Raises:
        ArgumentError: without `num_classes`.
        UnsupportedError: if `sparse`.

    Example:
        >>> import cornu
        >>> cornu.ops.multi_hot([0, 2], num_classes=4).tolist()
        [1.0, 0.0, 1.0, 0.0]
    """
    if sparse:
        raise UnsupportedError("multi_hot with sparse=True", "a dense array")
    if num_classes is None:
        raise ArgumentError("multi_hot got no num_classes", "a whole number")
    rank = len(shape_of(inputs))
    if not rank:
        raise ShapeError("multi_hot of a scalar", "an axis of labels", "ops.one_hot(x, num_classes)")
    at = axis_of(axis, rank + 1)
    labels = 1 if rank > 1 else 0
    hot = _i.one_hot(_e.cast_to(inputs, dtype="int32"), num_classes, axis=at, dtype="bool")
    return _e.cast(_r.any(hot, axis=labels + (at <= labels)), dtype)


def _require_sizes(have: tuple[Size, ...], want: tuple[Size, ...], what: str, fix: str | None = None) -> None:
    """Demand that two shapes are equal: now where sizes are known, when the model runs where not."""
    pairs = list(zip(have, want, strict=False))
    clash = any(a != b and not isinstance(a, Dim) and not isinstance(b, Dim) for a, b in pairs)
    if len(have) != len(want) or clash:
        raise ShapeError(f"{what} got an array of shape {shape_text(have)}", f"shape {shape_text(want)}", fix)
    for a, b in pairs:
        require_equal(a, b, f"sizes of the arrays of {what}")


def _within(probability: Any) -> Any:
    """A probability moved off 0 and 1, as Keras does."""
    return _a.minimum(_a.maximum(probability, EPSILON), 1 - EPSILON)


@op(promote=True, result=to_float)
def binary_crossentropy(target: Spec, output: Spec, from_logits=False) -> Spec:
    """`-target * log(output) - (1 - target) * log(1 - output)`. Computed in float32 at least.

    Args:
        target: array, from 0 to 1.
        output: array of the same shape: probabilities, kept 1e-7 off 0 and 1, or logits.
        from_logits: whether `output` holds logits.

    Returns:
        float array of the same shape.

    Raises:
        ShapeError: if the shapes differ.
    """
    _require_sizes(shape_of(target), shape_of(output), "binary_crossentropy")
    (target, name), (output, _) = _widened(target), _widened(output)
    if from_logits:
        log_yes, log_no = log_sigmoid(output), log_sigmoid(_e.negative(output))
    else:
        inside = _within(output)
        log_yes, log_no = _e.log(inside), _e.log(_a.subtract(1, inside))
    loss = _e.negative(_a.add(_a.multiply(target, log_yes), _a.multiply(_a.subtract(1, target), log_no)))
    return loss if _c.dtype(loss) == name else _e.cast_to(loss, dtype=name)


def _log_probabilities(output: Any, from_logits: bool, axis: int) -> Any:
    if from_logits:
        return log_softmax(output, axis=axis)
    return _e.log(_within(_a.divide(output, _r.sum(output, axis=axis, keepdims=True))))


@op(promote=True, result=to_float)
def categorical_crossentropy(target: Spec, output: Spec, from_logits=False, axis=-1) -> Spec:
    """`-sum(target * log(output))` along the axis of classes. Computed in float32 at least.

    Args:
        target: array of probabilities (one-hot, for example).
        output: array of the same shape: probabilities, scaled to sum 1 and kept 1e-7 off 0 and 1, or logits.
        from_logits: whether `output` holds logits.
        axis: the axis of classes.

    Returns:
        float array without that axis.

    Raises:
        ShapeError: if the shapes differ.
    """
    _require_sizes(shape_of(target), shape_of(output), "categorical_crossentropy")
    at = axis_of(axis, len(shape_of(output)))
    (target, name), (output, _) = _widened(target), _widened(output)
    loss = _e.negative(_r.sum(_a.multiply(target, _log_probabilities(output, from_logits, at)), axis=at))
    return loss if _c.dtype(loss) == name else _e.cast_to(loss, dtype=name)


@op(promote=("output",), result=to_float)
def sparse_categorical_crossentropy(target: Spec, output: Spec, from_logits=False, axis=-1) -> Spec:
    """`-log(output)` of the class that a label names. Computed in float32 at least.

    Args:
        target: whole numbers, in the shape of `output` without the axis of classes, or with that axis of size 1.
        output: array: probabilities, scaled to sum 1 and kept 1e-7 off 0 and 1, or logits.
        from_logits: whether `output` holds logits.
        axis: the axis of classes.

    Returns:
        float array without that axis; NaN where a label names no class.

    Raises:
        ShapeError: if the shapes do not fit.

    Example:
        >>> import cornu
        >>> cornu.ops.sparse_categorical_crossentropy([1, 7], [[0.5, 0.5], [0.5, 0.5]]).tolist()
        [0.6931471824645996, nan]
    """
    sizes = shape_of(output)
    at = axis_of(axis, len(sizes))
    if len(shape_of(target)) == len(sizes) and shape_of(target)[at] == 1:
        target = _m.squeeze(target, axis=at)
    what = "sparse_categorical_crossentropy"
    fix = "categorical_crossentropy takes one-hot labels"
    _require_sizes(shape_of(target), sizes[:at] + sizes[at + 1 :], what, fix)
    output, name = _widened(output)
    position = _m.expand_dims(_whole_labels(target, sizes[at]), at)
    chosen = _i.gather_along(_log_probabilities(output, from_logits, at), position, axis=at)
    loss = _e.negative(_m.squeeze(chosen, axis=at))
    return loss if _c.dtype(loss) == name else _e.cast_to(loss, dtype=name)


def _whole_labels(target: Any, classes: Size) -> Any:
    """Labels as int32; what int32 cannot hold, and what is not whole, becomes -1."""
    name = _c.dtype(target)
    if name not in (*dtypes.FLOATS, "int64", "uint32", "uint64"):
        return target if name == "int32" else _e.cast_to(target, dtype="int32")
    bound = _c.size_array(classes) if isinstance(classes, Dim) else classes
    inside = _a.logical_and(_a.greater_equal(target, 0), _a.less(target, bound))
    if name in dtypes.FLOATS:
        inside = _a.logical_and(inside, _a.equal(target, _e.floor(target)))
    return _e.where(inside, _e.cast_to(_e.where(inside, target, 0), dtype="int32"), -1)


@op(promote=True, result=to_float)
def psnr(x1: Spec, x2: Spec, max_val: Spec) -> Spec:
    """The peak signal-to-noise ratio of two arrays in decibels, `10 * log10(max_val**2 / mean((x1 - x2)**2))`.

    Args:
        x1: array.
        x2: array of the same shape.
        max_val: the largest value a signal can have.

    Returns:
        float scalar.

    Raises:
        ShapeError: if the shapes differ.
    """
    _require_sizes(shape_of(x1), shape_of(x2), "psnr")
    difference = _a.subtract(x1, x2)
    error = _e.log(_r.mean(_a.multiply(difference, difference)))
    decibel = 10 / math.log(10)
    return _a.subtract(_a.multiply(_e.log(max_val), 2 * decibel), _a.multiply(error, decibel))


# ---------------------------------------------------------------- attention


@op(promote=("query", "key", "value"), result=to_float)
def dot_product_attention(
    query: Spec,
    key: Spec,
    value: Spec,
    bias: Spec | None = None,
    mask: Spec | None = None,
    scale=None,
    is_causal=False,
    flash_attention=None,
    attn_logits_soft_cap=None,
) -> Spec:
    """`softmax(query @ key * scale + bias) @ value`, for each head (Vaswani et al., 2017).

    The softmax is computed in float32 at least. A query that may see nothing sees everything alike, as in Keras.

    Args:
        query: array `(batch, time, heads, depth)`.
        key: array `(batch, source, heads, depth)`; its heads may be fewer, each shared by a group of query heads.
        value: array `(batch, source, heads, depth')`, with the heads of `key`.
        bias: array that broadcasts to `(batch, heads, time, source)`, added to the scaled products.
        mask: boolean or integer array that broadcasts to `(batch, heads, time, source)`: true where a query may see.
        scale: factor; by default `1 / sqrt(depth)`.
        is_causal: whether a query sees only sources up to its own place.
        flash_attention: `None` or `False`; an engine chooses its own way.
        attn_logits_soft_cap: not supported; only `None`.

    Returns:
        array `(batch, time, heads, depth')`.

    Raises:
        ShapeError: if ranks or heads do not fit.
        DtypeError: for a mask of floats.
        UnsupportedError: if flash attention or a soft cap is demanded.
    """
    if flash_attention:
        raise UnsupportedError("flash_attention=True", "None or False", "leave it out; the engine chooses")
    if attn_logits_soft_cap is not None:
        raise UnsupportedError(f"attn_logits_soft_cap={attn_logits_soft_cap!r}", "None")
    shapes = [shape_of(x) for x in (query, key, value)]
    if any(len(shape) != 4 for shape in shapes):
        raise ShapeError(
            "dot_product_attention got shapes " + ", ".join(map(shape_text, shapes)), "(batch, time, heads, depth) each"
        )
    heads, shared, depth = shapes[0][2], shapes[1][2], shapes[0][3]
    if heads != shared and not isinstance(heads, Dim) and not isinstance(shared, Dim):
        if heads % shared:
            got = f"dot_product_attention of {heads} query heads with {shared} key heads"
            raise ShapeError(got, f"a multiple of {shared} query heads")
        key, value = (_m.repeat(x, heads // shared, axis=2) for x in (key, value))
    if mask is not None and _c.dtype(mask) in dtypes.FLOATS:
        raise DtypeError("dot_product_attention got a mask of floats", "booleans", "pass what is to be added as bias")
    name = _c.dtype(value)
    logits = _t.einsum("btnh,bsnh->bnts", _widened(query)[0], _widened(key)[0])
    if scale is None:
        scale = _e.rsqrt(_e.cast(_c.size_array(depth), _c.dtype(logits))) if isinstance(depth, Dim) else depth**-0.5
    logits = _a.multiply(logits, scale)
    if bias is not None:
        logits = _a.add(logits, _e.cast_to(bias, dtype=_c.dtype(logits)))
    logits = _masked(logits, mask, is_causal)
    return _t.einsum("bnts,bsnh->btnh", _e.cast_to(softmax(logits, axis=-1), dtype=name), value)


def _masked(logits: Any, mask: Any, is_causal: bool) -> Any:
    """Products with a very large negative number where a query may not see."""
    seen = None if mask is None else _e.cast_to(mask, dtype="bool")
    if is_causal:
        time, source = shape_of(logits)[-2:]
        past = _a.greater_equal(_m.expand_dims(_c.arange(time), 1), _m.expand_dims(_c.arange(source), 0))
        seen = past if seen is None else _a.logical_and(seen, past)
    # Keras's number: far below every logit, yet finite, so that no row becomes NaN.
    return logits if seen is None else _e.where(seen, logits, -0.7 * 3.4028234663852886e38)
