"""Random numbers as pure functions of a key, the same bits on every engine.

The generator is Threefry 2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
counted as `jax.random.bits` counts. A key is an array of two uint32; `key(seed)` makes one.
"""

import functools
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import control as _control
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import indexing as _i
from cornu.ops import movement as _m
from cornu.ops import reduction as _r
from cornu.ops._declare import op, shape_of
from cornu.ops._rules import product

__all__ = [
    "bits", "categorical_of", "fold_in", "gamma_of", "host_bits", "host_order", "key", "normal_of",
    "permutation_of", "split", "truncated_normal_of", "uniform_of",
]  # fmt: skip

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def key(seed: int) -> np.ndarray:
    """The key of a seed: its upper and lower 32 bits.

    Example:
        >>> key(7).tolist()
        [0, 7]
    """
    seed = int(seed)
    return np.array([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def _counts(count: Any) -> Any:
    return _c.iota(size=count, dtype="uint32")


@op
def threefry2x32(k1: Spec, k2: Spec, x1: Spec, x2: Spec) -> tuple:
    """Twenty rounds of Threefry 2x32 on the counters `x1`, `x2` (uint32), under the key `k1`, `k2` (uint32 scalars)."""
    keys = [k1, k2, _a.bitwise_xor(_a.bitwise_xor(k1, k2), np.uint32(_PARITY))]
    x1, x2 = _a.add(x1, keys[0]), _a.add(x2, keys[1])
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x1 = _a.add(x1, x2)
            up = _a.left_shift(x2, np.uint32(rotation))
            x2 = _a.bitwise_xor(_a.bitwise_or(up, _a.right_shift(x2, np.uint32(32 - rotation))), x1)
        x1 = _a.add(x1, keys[(group + 1) % 3])
        x2 = _a.add(_a.add(x2, keys[(group + 2) % 3]), np.uint32(group + 1))
    return x1, x2


@op(family="random")
def bits(key: Spec, shape=()) -> Spec:
    """Uniform uint32 bits of a shape: those of `jax.random.bits` for the same key.

    Args:
        key: two uint32.
        shape: sizes, numbers or unknown.

    Returns:
        uint32 array of that shape.
    """
    shape = _c._sizes(shape)
    count = product(shape)
    low = _counts(count)
    a, b = threefry2x32(_i.get_item(key, 0), _i.get_item(key, 1), _c.zeros_like(low), low)
    return _m.reshape_to(_a.bitwise_xor(a, b), shape=shape)


@op(family="random")
def split_key(key: Spec, num=2) -> Spec:
    """`num` new keys, as `(num, 2)`: those of `jax.random.split`."""
    low = _counts(num)
    a, b = threefry2x32(_i.get_item(key, 0), _i.get_item(key, 1), _c.zeros_like(low), low)
    return _m.stack([a, b], axis=1)


# Two ops cannot share a name: `ops.split` cuts arrays.
split = split_key


@op(family="random")
def fold_in(key: Spec, data: Spec) -> Spec:
    """A new key from a key and a whole number: that of `jax.random.fold_in`."""
    low = _e.cast(data, "uint32")
    a, b = threefry2x32(_i.get_item(key, 0), _i.get_item(key, 1), _c.zeros_like(low), low)
    return _m.stack([a, b])


@op(family="random")
def uniform_of(key: Spec, shape=(), minval=0.0, maxval=1.0, dtype=None) -> Spec:
    """Uniform numbers from `minval` up to (not including) `maxval`: whole numbers if `dtype` is an integer."""
    dtype = dtypes.standardize_dtype(dtype)
    drawn = bits(key, shape)
    if dtype in dtypes.INTEGERS:
        span = int(maxval) - int(minval)
        if span <= 0:
            raise ArgumentError(f"uniform whole numbers from {minval} to {maxval}", "minval < maxval")
        return _e.cast(_a.add(_e.cast(_a.mod(drawn, np.uint32(span)), "int32"), int(minval)), dtype)
    # 24 of the 32 bits: as many as a float32 in [0, 1) holds.
    unit = _a.multiply(_e.cast(_a.right_shift(drawn, np.uint32(8)), "float32"), np.float32(2.0**-24))
    return _e.cast(_a.add(_a.multiply(unit, np.float32(maxval - minval)), np.float32(minval)), dtype)


def _open_unit(key: Any, shape: Any) -> Any:
    """Uniform float32 strictly between 0 and 1."""
    whole = _e.cast(_a.right_shift(bits(key, shape), np.uint32(9)), "float32")
    return _a.multiply(_a.add(whole, np.float32(0.5)), np.float32(2.0**-23))


@op(family="random")
def normal_of(key: Spec, shape=(), mean=0.0, stddev=1.0, dtype=None) -> Spec:
    """Normal numbers, by the inverse of the distribution function."""
    dtype = dtypes.standardize_dtype(dtype)
    centred = _a.subtract(_a.multiply(_open_unit(key, shape), np.float32(2)), np.float32(1))
    unit = _a.multiply(_e.erfinv(centred), np.float32(np.sqrt(2)))
    return _e.cast(_a.add(_a.multiply(unit, np.float32(stddev)), np.float32(mean)), dtype)


@op(family="random")
def truncated_normal_of(key: Spec, shape=(), mean=0.0, stddev=1.0, dtype=None) -> Spec:
    """Normal numbers within two standard deviations of the mean."""
    dtype = dtypes.standardize_dtype(dtype)
    edge = np.float32(0.9544997361036416)  # erf(2 / sqrt(2))
    centred = _a.multiply(_a.subtract(_a.multiply(_open_unit(key, shape), np.float32(2)), np.float32(1)), edge)
    unit = _a.multiply(_e.erfinv(centred), np.float32(np.sqrt(2)))
    return _e.cast(_a.add(_a.multiply(unit, np.float32(stddev)), np.float32(mean)), dtype)


@op(family="random")
def categorical_of(key: Spec, logits: Spec, num_samples=1, dtype="int32") -> Spec:
    """Class numbers drawn by their logits `(batch, classes)`, as `(batch, num_samples)` (the Gumbel-max trick)."""
    rows, classes = shape_of(logits)
    noise = _e.negative(_e.log(_e.negative(_e.log(_open_unit(key, (rows, num_samples, classes))))))
    return _e.cast(_r.argmax(_a.add(_m.expand_dims(logits, 1), noise), axis=-1), dtype)


@op(family="random")
def permutation_of(key: Spec, size=0) -> Spec:
    """The whole numbers below `size` in random order, as int32."""
    if isinstance(size, Dim):
        raise ArgumentError("permutation of an unknown size", "a number")
    # Two independent words per position: a collision that would bias the order has odds of n^2 / 2^65.
    keys = split(key, 2)
    order = _r.argsort(bits(_i.get_item(keys, 0), (size,)))
    return _i.take(order, _r.argsort(_i.take(bits(_i.get_item(keys, 1), (size,)), order, axis=0)), axis=0)


@op(family="random")
def gamma_of(key: Spec, alpha: Spec, shape=(), dtype=None) -> Spec:
    """Gamma numbers of shape parameter `alpha` and scale 1 (Marsaglia and Tsang, ACM TOMS 26(3), 2000).

    Args:
        key: two uint32.
        alpha: the shape parameter, above zero; broadcasts to `shape`.
        shape: sizes.
        dtype: dtype of the result.
    """
    shape = _c._sizes(shape)
    alpha = _m.broadcast_to(_e.cast(alpha, "float32"), shape)
    boosted = _e.where(_a.less(alpha, 1.0), _a.add(alpha, 1.0), alpha)
    d = _a.subtract(boosted, np.float32(1 / 3))
    c = _a.divide(np.float32(1 / 3), _e.sqrt(d))
    keys = split(key, 2)

    def undecided(i: Any, done: Any, value: Any) -> Any:
        return _a.logical_and(_a.less(i, 64), _e.logical_not(_r.all(done)))

    def attempt(i: Any, done: Any, value: Any) -> Any:
        pair = split(fold_in(_i.get_item(keys, 0), i), 2)
        x = normal_of(_i.get_item(pair, 0), shape, dtype="float32")
        u = _open_unit(_i.get_item(pair, 1), shape)
        root = _a.add(np.float32(1), _a.multiply(c, x))
        v = _a.multiply(root, _a.multiply(root, root))
        safe = _e.where(_a.greater(v, 0.0), v, 1.0)
        rest = _a.multiply(d, _a.add(_a.subtract(1.0, v), _e.log(safe)))
        bound = _a.add(_a.multiply(np.float32(0.5), _a.multiply(x, x)), rest)
        good = _a.logical_and(_a.greater(v, 0.0), _a.less(_e.log(u), bound))
        fresh = _a.logical_and(good, _e.logical_not(done))
        return _a.add(i, 1), _a.logical_or(done, good), _e.where(fresh, _a.multiply(d, v), value)

    start = (_c.convert_to_tensor(0, "int32"), _c.zeros(shape, "bool"), d)
    _, _, value = _control.while_loop(undecided, attempt, start)
    boost = _a.power(_open_unit(_i.get_item(keys, 1), shape), _a.divide(1.0, alpha))
    return _e.cast(_e.where(_a.less(alpha, 1.0), _a.multiply(value, boost), value), dtypes.standardize_dtype(dtype))


# ---------------------------------------------------------------- on the host


def host_bits(key: Any, count: int) -> np.ndarray:
    """`bits(key, (count,))` computed at once in NumPy, for what is drawn on the host (initial weights, seeds).

    Args:
        key: two uint32.
        count: how many.

    Returns:
        uint32 array `(count,)`.
    """
    low, high = np.asarray(key, np.uint32)
    drawn = np.empty(count, np.uint32)
    other, spare = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    with np.errstate(over="ignore"):
        for start in range(0, count, BLOCK):
            x1 = drawn[start : start + BLOCK]
            x2 = other[: len(x1)]
            x1[:] = 0
            x2[:] = np.arange(start, start + len(x1), dtype=np.uint64)  # the counter's lower word; the upper one is 0
            host_rounds(low, high, x1, x2, spare[: len(x1)])
            x1 ^= x2
    return drawn


# How many counters, with their two helpers, stay in the processor's nearest cache.
BLOCK = 1 << 14


def host_order(seed: int, stream: int, number: int, count: int) -> np.ndarray:
    """The whole numbers below `count` in random order, computed at once in NumPy.

    Args:
        seed: the seed.
        stream: 32 bits that tell this use of the seed from others.
        number: which order: an epoch, say.
        count: how many.

    Returns:
        int64 array `(count,)`, a pure function of the arguments.
    """
    start = _host_start(seed) ^ np.array([stream, number & 0xFFFFFFFF], np.uint32)
    # Sorted with their positions behind them: what a stable argsort gives, in a fraction of its time.
    drawn = host_bits(start, count).astype(np.uint64) << np.uint64(32) | np.arange(count, dtype=np.uint64)
    drawn.sort()
    return (drawn & np.uint64(0xFFFFFFFF)).astype(np.int64)


@functools.lru_cache(maxsize=8)
def _host_start(seed: int) -> np.ndarray:
    return host_bits(key(seed), 2)


def host_rounds(k1: Any, k2: Any, x1: np.ndarray, x2: np.ndarray, spare: np.ndarray) -> None:
    """Threefry's twenty rounds on host arrays, in place.

    Args:
        k1: the key's first word, a NumPy uint32.
        k2: its second word.
        x1: the counters' first words, uint32 `(n,)`.
        x2: their second words.
        spare: memory to use, uint32 `(n,)`.
    """
    keys = (k1, k2, k1 ^ k2 ^ np.uint32(_PARITY))
    x1 += k1
    x2 += k2
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x1 += x2
            np.left_shift(x2, np.uint32(rotation), out=spare)
            np.right_shift(x2, np.uint32(32 - rotation), out=x2)
            x2 |= spare
            x2 ^= x1
        x1 += keys[(group + 1) % 3]
        x2 += keys[(group + 2) % 3] + np.uint32(group + 1)
