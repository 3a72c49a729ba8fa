"""Elementwise primitives, casts, reductions and sorting in TensorFlow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cornu.core import dtypes
from cornu.engines.tensorflow import quirks
from cornu.engines.tensorflow.sizes import resolve, shape_vector, sizes_of

__all__ = ["TABLE", "last", "restored", "sort_keys"]

TABLE: dict[str, Callable[..., Any]] = {}

# ---------------------------------------------------------------- one array

for _name, _function in {
    "arcsin": tf.asin, "arccos": tf.acos, "arctan": tf.atan, "arcsinh": tf.asinh, "arccosh": tf.acosh,
    "arctanh": tf.atanh, "round_half_even": tf.round, "relu": tf.nn.relu, "stop_gradient": tf.stop_gradient,
    "as_tensor": tf.convert_to_tensor,
}.items():  # fmt: skip
    TABLE[_name] = _function
for _name in "exp expm1 log log1p sqrt rsqrt sin cos tan sinh cosh tanh floor ceil erf sigmoid".split():
    TABLE[_name] = getattr(tf.math, _name)


def _unsigned(x: Any) -> bool:
    return x.dtype.is_unsigned or x.dtype == tf.bool


def _of_floats(function: Callable[..., Any], otherwise: bool) -> Callable[..., Any]:
    """A question about floats; whole numbers have one answer."""
    return lambda x: function(x) if x.dtype.is_floating else tf.fill(tf.shape(x), otherwise)


def _erfinv(x: Any) -> Any:
    """In float64: TensorFlow's way by the normal distribution loses what is near 0, where a series serves."""
    wide = tf.cast(x, tf.float64)
    square = wide * wide
    series = wide * (1 + square * (np.pi / 12 + square * (7 * np.pi**2 / 480))) * (np.pi**0.5 / 2)
    return tf.cast(tf.where(tf.abs(wide) < 0.01, series, tf.math.erfinv(wide)), x.dtype)


TABLE |= {
    "abs": lambda x: x if _unsigned(x) else tf.abs(x),
    # Not `0 - x`: TensorFlow makes of it the negation that has no kernel.
    "negative": lambda x: tf.bitwise.invert(x) + tf.ones((), x.dtype) if _unsigned(x) else tf.negative(x),
    "sign": lambda x: tf.cast(tf.not_equal(x, tf.zeros((), x.dtype)), x.dtype) if _unsigned(x) else tf.sign(x),
    "lgamma": quirks.in_float32(tf.math.lgamma),
    "digamma": quirks.in_float32(tf.math.digamma),
    "erfinv": _erfinv,
    "isfinite": _of_floats(tf.math.is_finite, True),
    "isnan": _of_floats(tf.math.is_nan, False),
    "isinf": _of_floats(tf.math.is_inf, False),
    "logical_not": tf.logical_not,
    "bitwise_not": lambda x: tf.logical_not(x) if x.dtype == tf.bool else tf.bitwise.invert(x),
    "choose": lambda condition, x1, x2: tf.where(condition, x1, x2),
}


def _cast(x: Any, dtype: str) -> Any:
    if not x.dtype.is_floating or dtype not in dtypes.INTEGERS:
        return tf.cast(x, dtype)
    # Out of range goes to the nearest, NaN to 0, as on the other engines; `tf.cast` leaves it to the processor.
    limits = np.iinfo(dtype)
    wide = tf.cast(tf.where(tf.math.is_nan(x), tf.zeros((), x.dtype), x), tf.float64)
    if limits.bits < 64:
        return tf.cast(tf.clip_by_value(wide, float(limits.min), float(limits.max)), dtype)
    beyond = wide >= float(limits.max)
    inside = tf.cast(tf.where(beyond, tf.zeros((), tf.float64), tf.maximum(wide, float(limits.min))), dtype)
    return tf.where(beyond, tf.constant(limits.max, dtype), inside)


TABLE["cast_to"] = _cast

# ---------------------------------------------------------------- two arrays

# From how many elements in a row on it is worth while.
_WIDE = 64


def _or_logic(function: Callable[..., Any], logic: Callable[..., Any]) -> Callable[..., Any]:
    """Arithmetic, and what it is on booleans."""
    return lambda x1, x2: logic(x1, x2) if x1.dtype == tf.bool else function(x1, x2)


def _comparison(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x1: Any, x2: Any) -> Any:
        if x1.dtype == tf.bool:
            x1, x2 = tf.cast(x1, tf.uint8), tf.cast(x2, tf.uint8)
        return function(x1, x2)

    return run


def _without_zeros(function: Callable[..., Any]) -> Callable[..., Any]:
    """Division of whole numbers, which TensorFlow breaks off at 0; NumPy's answer there is 0."""

    def run(x1: Any, x2: Any) -> Any:
        zero, none = tf.zeros((), x1.dtype), tf.equal(x2, 0)
        return tf.where(none, zero, function(x1, tf.where(none, tf.ones((), x2.dtype), x2)))

    return run


_floor_divide_whole = _without_zeros(tf.math.floordiv)
_mod_whole = _without_zeros(tf.math.floormod)


@quirks.in_float32
def _floor_divide(x1: Any, x2: Any) -> Any:
    """NumPy's steps, by the exact rest: `1.0 // 0.1` is 9."""
    rest = tf.truncatemod(x1, x2)
    quotient = (x1 - rest) / x2
    quotient = tf.where((rest != 0) & ((rest < 0) != (x2 < 0)), quotient - 1, quotient)
    whole = tf.floor(quotient)
    whole = tf.where(quotient - whole > 0.5, whole + 1, whole)
    return tf.stop_gradient(tf.where(tf.equal(x2, 0), x1 / x2, whole))


def _power(x1: Any, x2: Any) -> Any:
    if not x1.dtype.is_unsigned:
        return tf.pow(x1, x2)
    return tf.cast(tf.pow(tf.cast(x1, tf.int64), tf.cast(x2, tf.int64)), x1.dtype)


def _bits(function: Callable[..., Any], logic: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: logic(x, y) if x.dtype == tf.bool else function(x, y)


def _shift(function: Callable[..., Any], empty: Callable[..., Any]) -> Callable[..., Any]:
    """A shift, also by more places than there are, which TensorFlow leaves open."""

    def run(x: Any, y: Any) -> Any:
        bits = 8 * x.dtype.size
        places = tf.get_static_value(y)
        if places is not None and np.all((places >= 0) & (places < bits)):
            return function(x, y)
        inside = (y >= 0) & (y < bits) if not y.dtype.is_unsigned else y < bits
        return tf.where(inside, function(x, tf.where(inside, y, tf.zeros((), y.dtype))), empty(x))

    return run


def _sum(x1: Any, x2: Any) -> Any:
    """Rows and one row for all of them by the operator whose gradient adds up rows fastest.

    After a convolution of pictures TensorFlow makes one operator of that gradient and the kernel's.
    """
    rows = x1.dtype == tf.float32 and x1.shape.rank in (2, 3, 4) and x2.shape.rank == 1
    size = x2.shape[0] if rows else None
    if size and x1.shape[-1] == size and (size >= _WIDE or x1.shape.rank == 4):
        return tf.raw_ops.BiasAdd(value=x1, bias=x2)
    return tf.add(x1, x2)


TABLE |= {
    "add": _or_logic(_sum, tf.logical_or),
    "subtract": tf.subtract,
    "multiply": _or_logic(tf.multiply, tf.logical_and),
    "divide": tf.realdiv,
    "floor_divide": lambda x1, x2: (_floor_divide if x1.dtype.is_floating else _floor_divide_whole)(x1, x2),
    "mod": lambda x1, x2: (tf.math.floormod if x1.dtype.is_floating else _mod_whole)(x1, x2),
    "power": _power,
    "maximum": _or_logic(tf.maximum, tf.logical_or),
    "minimum": _or_logic(tf.minimum, tf.logical_and),
    "arctan2": tf.atan2,
    "equal": tf.equal,
    "not_equal": tf.not_equal,
    "logical_and": tf.logical_and,
    "logical_or": tf.logical_or,
    "logical_xor": tf.not_equal,
    "bitwise_and": _bits(tf.bitwise.bitwise_and, tf.logical_and),
    "bitwise_or": _bits(tf.bitwise.bitwise_or, tf.logical_or),
    "bitwise_xor": _bits(tf.bitwise.bitwise_xor, tf.not_equal),
    "left_shift": _shift(tf.bitwise.left_shift, tf.zeros_like),
    "right_shift": _shift(
        tf.bitwise.right_shift,
        lambda x: tf.zeros_like(x) if _unsigned(x) else tf.cast(-tf.cast(x < 0, tf.int32), x.dtype),
    ),
}
for _name in "less less_equal greater greater_equal".split():
    TABLE[_name] = _comparison(getattr(tf, _name))

# ---------------------------------------------------------------- reductions


def _axes(axis: Any) -> Any:
    return list(axis) if isinstance(axis, (tuple, list)) else axis


def _reduce(function: Callable[..., Any], logic: Any = None) -> Callable[..., Any]:
    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        reduce = logic if x.dtype == tf.bool else function
        return reduce(x, axis=_axes(axis), keepdims=keepdims)

    return run


def _first_missing(missing: Any, found: Any, axis: int) -> Any:
    first = tf.argmax(tf.cast(missing, tf.int8), axis, output_type=tf.int32)
    return tf.where(tf.reduce_any(missing, axis), first, found)


def _where_extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.argmax` passes over NaN; the first NaN is the answer."""

    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        rank, along, flat = len(x.shape), axis, x
        if axis is None:
            along, flat = 0, tf.reshape(x, [-1])
        found = function(flat, along, output_type=tf.int32)
        if x.dtype.is_floating:
            missing = tf.math.is_nan(flat)
            found = tf.cond(tf.reduce_any(missing), lambda: _first_missing(missing, found, along), lambda: found)
        if not keepdims:
            return found
        return tf.reshape(found, [1] * rank) if axis is None else tf.expand_dims(found, axis)

    return run


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    return quirks.in_float32(lambda x, axis, reverse: function(x, axis=axis, reverse=reverse))


def _cumulative_max(x: Any, axis: int, reverse: bool) -> Any:
    """By doubling: each round looks twice as far back."""
    if x.dtype == tf.bool:
        return tf.cast(_cumulative_max(tf.cast(x, tf.uint8), axis, reverse), tf.bool)
    axis %= len(x.shape)
    best = tf.reverse(x, [axis]) if reverse else x
    front: Any = [slice(None)] * axis
    size = resolve(sizes_of(x)[axis])

    def further(reach: Any, best: Any) -> tuple[Any, Any]:
        head, tail, before = best[(*front, slice(0, reach))], best[(*front, slice(reach, None))], size - reach
        joined = tf.concat([head, tf.maximum(tail, best[(*front, slice(0, before))])], axis)
        joined.set_shape(x.shape)
        return reach * 2, joined

    reach: Any = 1
    if isinstance(size, int):
        while reach < size:
            reach, best = further(reach, best)
    else:
        _, best = tf.while_loop(lambda reach, best: reach < size, further, (tf.constant(1), best))
    return tf.reverse(best, [axis]) if reverse else best


TABLE |= {
    "sum": quirks.added_in_float32(_reduce(tf.reduce_sum)),
    "prod": quirks.in_float32(_reduce(tf.reduce_prod)),
    "max": _reduce(tf.reduce_max, tf.reduce_any),
    "min": _reduce(tf.reduce_min, tf.reduce_all),
    "any": _reduce(tf.reduce_any, tf.reduce_any),
    "all": _reduce(tf.reduce_all, tf.reduce_all),
    "argmax": _where_extreme(tf.argmax),
    "argmin": _where_extreme(tf.argmin),
    "cumulative_sum": _cumulative(tf.cumsum),
    "cumulative_prod": _cumulative(tf.math.cumprod),
    "cumulative_max": _cumulative_max,
}

# ---------------------------------------------------------------- sorting


def sort_keys(x: Any) -> Any:
    """Whole numbers in the order of the elements: NaN last, -0 and 0 equal."""
    if x.dtype.is_floating:
        if x.dtype.size == 2:
            x = tf.cast(x, tf.float32)
        x = tf.where(tf.equal(x, 0), tf.zeros((), x.dtype), x)
        x = tf.where(tf.math.is_nan(x), tf.constant(np.nan, x.dtype), x)
        bits = tf.bitcast(x, tf.int32 if x.dtype.size == 4 else tf.int64)
        return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, bits.dtype.max), bits)
    if x.dtype == tf.uint64:
        return tf.bitwise.bitwise_xor(tf.bitcast(x, tf.int64), tf.constant(tf.int64.min, tf.int64))
    if x.dtype in (tf.int32, tf.int64):
        return x
    return tf.cast(x, tf.int64 if x.dtype == tf.uint32 else tf.int32)


def last(x: Any, axis: int) -> Any:
    """The array with one axis moved to the end."""
    rank = len(x.shape)
    order = [a for a in range(rank) if a != axis % rank] + [axis % rank]
    return x if order == sorted(order) else tf.transpose(x, order)


def restored(x: Any, axis: int) -> Any:
    """The last axis moved back to its place."""
    rank = len(x.shape)
    order = list(range(rank - 1))
    order.insert(axis % rank, rank - 1)
    return x if order == sorted(order) else tf.transpose(x, order)


def _order(x: Any) -> Any:
    """What sorts the last axis; `top_k` puts the first of equal elements first."""
    return tf.math.top_k(tf.bitwise.invert(sort_keys(x)), k=tf.shape(x)[-1]).indices


def _sort(x: Any, axis: int) -> Any:
    turned = last(x, axis)
    sorted_ = restored(tf.gather(turned, _order(turned), batch_dims=len(x.shape) - 1), axis)
    return tf.ensure_shape(sorted_, x.shape)


def _top_k(x: Any, k: int, sorted: bool) -> Any:
    indices = tf.math.top_k(sort_keys(x), k=k).indices
    return tf.gather(x, indices, batch_dims=len(x.shape) - 1), indices


TABLE |= {
    "sort": _sort,
    "argsort": lambda x, axis: tf.ensure_shape(restored(_order(last(x, axis)), axis), x.shape),
    "top_k": _top_k,
}

# ---------------------------------------------------------------- creation


def _iota(size: Any, dtype: str) -> Any:
    wide = tf.int64 if dtypes.size_of(dtype) == 8 else tf.int32
    return tf.cast(tf.range(tf.cast(resolve(size), wide), dtype=wide), dtype)


def _broadcast_to(x: Any, shape: Any) -> Any:
    return (
        x if x.shape.is_fully_defined() and tuple(x.shape) == tuple(shape) else tf.broadcast_to(x, shape_vector(shape))
    )


TABLE |= {
    "iota": _iota,
    "size_as_array": lambda size: tf.cast(resolve(size), tf.int32),
    "broadcast_to_shape": _broadcast_to,
}
