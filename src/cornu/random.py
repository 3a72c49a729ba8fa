"""Random numbers as Keras draws them: from a whole number, from a `SeedGenerator`, or from the process's own generator.

Every draw is a pure function of a key (see `cornu.ops.random`), so it is the same on every engine.
A key is `[seed, counter]`.
"""

import contextlib
import math
import random as _python
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from cornu import ops
from cornu.core import context, dtypes
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError, EngineError
from cornu.core.family import Family
from cornu.core.variable import Variable
from cornu.ops import random as _r
from cornu.ops._declare import interpreter_of, shape_of

__all__ = [
    "SeedGenerator", "at_step", "beta", "binomial", "categorical", "draw_key", "dropout", "gamma", "global_generator",
    "global_seed", "normal", "randint", "set_random_seed", "shuffle", "truncated_normal", "uniform",
]  # fmt: skip

# ---------------------------------------------------------------- seeds


class _Process:
    """The seed of this process and how many seeds have been drawn from it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.seed: int | None = None
        self.drawn = 0
        self.generator: SeedGenerator | None = None

    def start(self, seed: int | None) -> None:
        """Begin anew from a seed."""
        with self.lock:
            self.seed, self.drawn, self.generator = seed, 0, None


_process = _Process()


def set_random_seed(seed: int) -> None:
    """Seed everything: Python's `random`, NumPy's global generator, and all that Cornu draws from now on.

    After it the same program makes the same weights, shuffles and dropout, on every engine.

    Args:
        seed: a whole number from 0 to 2**32 - 1.

    Raises:
        ArgumentError: for anything else.

    Example:
        >>> set_random_seed(7)
        >>> first = global_seed()
        >>> set_random_seed(7)
        >>> global_seed() == first
        True
    """
    seed = _checked_seed(seed)
    _python.seed(seed)
    np.random.seed(seed)
    _process.start(seed)


def global_seed() -> int:
    """A seed for an object that was given none: a pure function of the process's seed and of how many were drawn.

    Returns:
        a whole number from 0 to 2**31 - 1.
    """
    with _process.lock:
        if _process.seed is None:
            _process.seed = secrets.randbits(32)
        count = _process.drawn
        _process.drawn += 1
        return _mixed(_mixed(_process.seed) ^ count) >> 33


def _mixed(value: int) -> int:
    """The bits of a 64-bit number well mixed: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, (bool, np.bool_)) or not hasattr(seed, "__index__"):
        raise ArgumentError(f"a seed {seed!r:.80} of type {type(seed).__name__}", "a whole number")
    seed = seed.__index__()
    if not 0 <= seed < 2**32:
        raise ArgumentError(f"a seed {seed}", "from 0 to 2**32 - 1")
    return int(seed)


class SeedGenerator(Configurable):
    """A sequence of keys from one seed. A layer that draws random numbers keeps one.

    Args:
        seed: a whole number from 0 to 2**32 - 1; `None` to take one from the process's seed.
        name: its name, by default `"seed_generator"`.

    Attributes:
        state: variable `(2,)` of uint32: the seed and how many keys have been taken.

    Raises:
        ArgumentError: if the seed is no such number.

    Example:
        >>> import cornu
        >>> generator = SeedGenerator(1)
        >>> with cornu.engine("numpy"):
        ...     [generator.next().tolist(), generator.next().tolist()]
        [[1, 0], [1, 1]]
    """

    _shares_variables = True

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        self.seed = None if seed is None else _checked_seed(seed)
        self.name = name or "seed_generator"
        start = global_seed() if self.seed is None else self.seed
        state = np.array([start, 0], np.uint32)
        self.state = Variable(state, trainable=False, autocast=False, name="seed_generator_state")
        self.state.path = f"{self.name}/seed_generator_state"
        self.state.is_seed = True

    def next(self, ordered: bool = True) -> Any:
        """The next key, uint32 `(2,)`; the state moves on.

        Args:
            ordered: taken for Keras's sake; keys are always in order.

        Raises:
            EngineError: inside a compiled function that does not carry the state (every call would draw the same).
        """
        key = self.state.value
        following = ops.add(key, np.array([0, 1], np.uint32))
        scope = context.bindings.get()
        owner = interpreter_of(following)
        unbound = scope is None or id(self.state) not in scope.values
        if unbound and owner is not None and owner.is_tracing(following) and self.state.find_home(owner) is None:
            raise EngineError(
                f"{self.name!r} was asked for random numbers inside a compiled function that does not carry its state",
                "a SeedGenerator among the attributes of a layer or model",
                "self.seed_generator = cornu.random.SeedGenerator(seed), then pass seed=self.seed_generator",
            )
        self.state.assign(following)
        return key


@contextlib.contextmanager
def at_step(step: Any) -> Iterator[None]:
    """Say which step of training a block computes: what random layers draw in it follows from their seed and the step.

    Args:
        step: a whole number, or an int32 scalar that may be an argument of a compiled function.

    Example:
        >>> import cornu, numpy as np
        >>> layer, x = cornu.layers.Dropout(0.5, seed=1), np.ones((1, 8), "float32")
        >>> def drop(step):
        ...     with cornu.random.at_step(step):
        ...         return cornu.ops.convert_to_numpy(layer(x, training=True)).tolist()
        >>> drop(3) == drop(3), drop(3) == drop(4)
        (True, False)
    """
    token = context.step.set(np.int32(step) if isinstance(step, int) else step)
    try:
        yield
    finally:
        context.step.reset(token)


def global_generator() -> SeedGenerator:
    """The generator that serves draws without a seed; `set_random_seed` starts it anew."""
    with _process.lock:
        if _process.generator is None:
            seed = global_seed() if _process.seed is None else _process.seed
            _process.generator = SeedGenerator(seed, name="global_seed_generator")
        return _process.generator


def draw_key(seed: Any) -> Any:
    """The key of a `seed` argument.

    Args:
        seed: a whole number (the same key at every call), a `SeedGenerator` (its next key), a key, or `None` (the
            process's generator).

    Returns:
        uint32 `(2,)`.

    Raises:
        ArgumentError: for anything else.
    """
    if seed is None:
        return global_generator().next()
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if getattr(seed, "shape", None) is not None and shape_of(seed) == (2,):
        return ops.cast(seed, "uint32")
    if isinstance(seed, (bool, np.bool_)) or not hasattr(seed, "__index__"):
        raise ArgumentError(f"seed={seed!r:.80} of type {type(seed).__name__}", "a whole number or a SeedGenerator")
    return np.array([_checked_seed(seed), 0], np.uint32)


# ---------------------------------------------------------------- draws


def _float_dtype(dtype: Any, what: str) -> str:
    name = dtypes.standardize_dtype(dtype)
    if name not in dtypes.FLOATS:
        raise ArgumentError(f"random.{what} got dtype {name!r}", "a float dtype", "random.randint draws whole numbers")
    return name


def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normal random numbers.

    Args:
        shape: sizes, numbers or unknown.
        mean: their mean: a number, or an array that broadcasts.
        stddev: their standard deviation: a number, or an array that broadcasts.
        dtype: a float dtype's name, by default the default float.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of that shape.

    Example:
        >>> import cornu
        >>> x = cornu.random.normal((2, 3), seed=1)
        >>> tuple(x.shape), bool((cornu.random.normal((2, 3), seed=1) == x).all())
        ((2, 3), True)
    """
    name = _float_dtype(dtype, "normal")
    return _scaled(_r.normal_of(draw_key(seed), shape, dtype="float32"), mean, stddev, name)


def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normal random numbers within two standard deviations of their mean; arguments as for `normal`."""
    name = _float_dtype(dtype, "truncated_normal")
    return _scaled(_r.truncated_normal_of(draw_key(seed), shape, dtype="float32"), mean, stddev, name)


def _scaled(unit: Any, mean: Any, stddev: Any, dtype: str) -> Any:
    return ops.cast(ops.add(ops.multiply(unit, stddev), mean), dtype)


def uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Random numbers, all equally likely.

    Args:
        shape: sizes, numbers or unknown.
        minval: the least: a number, or an array that broadcasts.
        maxval: what they stay below: a number, or an array that broadcasts.
        dtype: a float dtype's name, by default the default float.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of that shape.
    """
    name = _float_dtype(dtype, "uniform")
    unit = _r.uniform_of(draw_key(seed), shape, dtype="float32")
    return ops.cast(ops.add(ops.multiply(unit, ops.subtract(maxval, minval)), minval), name)


def randint(shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Random whole numbers, all equally likely.

    Args:
        shape: sizes, numbers or unknown.
        minval: the least.
        maxval: one more than the largest; at most 2**31, or 2**32 for unsigned dtypes.
        dtype: an integer dtype's name.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of that shape.

    Raises:
        ArgumentError: for bounds that are no whole numbers, in the wrong order, or beyond the dtype or 32 bits.
    """
    name = dtypes.standardize_dtype(dtype)
    if name not in dtypes.INTEGERS:
        raise ArgumentError(f"random.randint got dtype {name!r}", "an integer dtype", "random.uniform draws floats")
    limits = np.iinfo(name)
    least, most = max(int(limits.min), -(2**31)), min(int(limits.max), 2**31 - 1 if name != "uint32" else 2**32 - 1)
    for bound in (minval, maxval):
        if not hasattr(bound, "__index__") and not (isinstance(bound, float) and float(bound).is_integer()):
            raise ArgumentError(f"random.randint from {minval!r} to {maxval!r}", "whole numbers")
    low, high = int(minval), int(maxval)
    if not (least <= low < high <= most + 1 and low <= 2**31 - 1 and high - low < 2**32):
        raise ArgumentError(f"random.randint from {low} to {high} in {name}", f"bounds within {least} and {most + 1}")
    return _r.uniform_of(draw_key(seed), shape, minval=low, maxval=high, dtype=name)


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Class numbers drawn by their (unnormalised) logarithms of probability.

    Args:
        logits: array `(batch, classes)`.
        num_samples: how many to draw per row.
        dtype: an integer dtype's name.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array `(batch, num_samples)`.

    Raises:
        ArgumentError: if `logits` does not have two axes.
    """
    if len(shape_of(logits)) != 2:
        raise ArgumentError(f"random.categorical got logits of shape {shape_of(logits)}", "(batch, classes)")
    return _r.categorical_of(draw_key(seed), logits, num_samples=num_samples, dtype=dtypes.standardize_dtype(dtype))


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """The inputs with some elements set to 0 and the others divided by `1 - rate`.

    Args:
        inputs: array.
        rate: the part to drop, from 0 to 1.
        noise_shape: the shape of what is drawn, which broadcasts to the inputs': 1 on an axis that is dropped or kept
            as a whole, `None` for the inputs' own size.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of the inputs' shape and dtype.

    Raises:
        ArgumentError: if the rate is outside its limits.

    Example:
        >>> import cornu
        >>> kept = cornu.random.dropout(cornu.ops.ones((4, 100)), 0.5, seed=0)
        >>> sorted(set(cornu.ops.convert_to_numpy(kept).ravel().tolist()))
        [0.0, 2.0]
    """
    if not 0 <= rate <= 1:
        raise ArgumentError(f"random.dropout got rate={rate!r}", "a number from 0 to 1")
    if rate == 0:
        return ops.convert_to_tensor(inputs)
    if rate == 1:
        return ops.zeros_like(inputs)
    sizes = shape_of(inputs)
    if noise_shape is not None:
        if len(noise_shape) != len(sizes):
            raise ArgumentError(f"random.dropout got noise_shape={noise_shape} for {len(sizes)} axes", "one per axis")
        sizes = tuple(own if size is None else size for own, size in zip(sizes, noise_shape, strict=True))
    keep = 1.0 - rate
    kept = ops.less(_r.uniform_of(draw_key(seed), sizes, dtype="float32"), np.float32(keep))
    return ops.where(kept, ops.divide(inputs, keep), ops.zeros_like(inputs))


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """The array with each vector along an axis in a random order of its own.

    Args:
        x: array.
        axis: the axis.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of the same shape and dtype.
    """
    keys = _r.split(draw_key(seed), 2)
    for i in range(2):  # twice, since equal words (few) keep their order
        drawn = _r.bits(ops.get_item(keys, i), shape_of(x))
        x = ops.take_along_axis(x, ops.argsort(drawn, axis=axis), axis=axis)
    return x


def gamma(shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Gamma random numbers of scale 1.

    Args:
        shape: sizes, numbers or unknown.
        alpha: the shape parameter, above zero: a number, or an array that broadcasts.
        dtype: a float dtype's name, by default the default float.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of that shape.
    """
    return _r.gamma_of(draw_key(seed), alpha, shape, dtype=_float_dtype(dtype, "gamma"))


def beta(shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Beta random numbers: `x / (x + y)` of two gamma numbers.

    They are taken through logarithms, so that small parameters do not underflow.

    Args:
        shape: sizes, numbers or unknown.
        alpha: the first parameter, above zero: a number, or an array that broadcasts.
        beta: the second parameter, above zero.
        dtype: a float dtype's name, by default the default float.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of that shape.
    """
    name = _float_dtype(dtype, "beta")
    keys = _r.split(draw_key(seed), 4)

    def log_gamma_number(first: int, parameter: Any) -> Any:
        # gamma(a) = gamma(a + 1) * U ** (1 / a) (Marsaglia and Tsang, section 6)
        parameter = ops.cast(parameter, "float32")
        above = _r.gamma_of(ops.get_item(keys, first), ops.add(parameter, 1.0), shape, dtype="float32")
        unit = _r._open_unit(ops.get_item(keys, first + 1), shape)
        return ops.add(ops.log(above), ops.divide(ops.log(unit), parameter))

    return ops.cast(ops.sigmoid(ops.subtract(log_gamma_number(0, alpha), log_gamma_number(2, beta))), name)


def binomial(shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Binomial random numbers: how many of `counts` trials succeed.

    Below ten expected successes by waiting times (Devroye, "Non-Uniform Random Variate Generation", 1986, X.4), from
    there on by transformed rejection (Hoermann, "The generation of binomial random variates", 1993, algorithm BTRS).

    Args:
        shape: sizes, numbers or unknown.
        counts: numbers of trials: a number, or an array that broadcasts.
        probabilities: probabilities of success, from 0 to 1: a number, or an array that broadcasts.
        dtype: a float dtype's name, by default the default float.
        seed: a whole number, a `SeedGenerator`, or `None`.

    Returns:
        array of that shape.
    """
    name = _float_dtype(dtype, "binomial")
    keys = _r.split(draw_key(seed), 2)
    trials = ops.broadcast_to(ops.cast(counts, "float32"), shape)
    chance = ops.broadcast_to(ops.cast(probabilities, "float32"), shape)
    flipped = ops.greater(chance, 0.5)
    rare = ops.where(flipped, ops.subtract(1.0, chance), chance)
    few = ops.less(ops.multiply(trials, rare), 10.0)
    waited = _by_waiting(ops.get_item(keys, 0), shape, ops.where(few, trials, 0.0), ops.where(few, rare, 0.5))
    rejected = _by_rejection(ops.get_item(keys, 1), shape, ops.where(few, 100.0, trials), ops.where(few, 0.5, rare))
    drawn = ops.where(few, waited, rejected)
    return ops.cast(ops.where(flipped, ops.subtract(trials, drawn), drawn), name)


def _by_waiting(key: Any, shape: Any, trials: Any, chance: Any) -> Any:
    """Successes counted by the (geometric) waiting times between them."""
    scale = ops.log1p(ops.negative(ops.minimum(chance, 0.5)))
    possible = ops.less(scale, 0.0)
    safe = ops.where(possible, scale, -1.0)

    def running(i: Any, passed: Any, count: Any) -> Any:
        return ops.any(ops.less_equal(passed, trials))

    def wait(i: Any, passed: Any, count: Any) -> Any:
        unit = _r._open_unit(_r.fold_in(key, i), shape)
        step = ops.where(possible, ops.divide(ops.log(unit), safe), math.inf)
        passed = ops.add(passed, ops.add(ops.floor(step), 1.0))
        return ops.add(i, 1), passed, ops.add(count, ops.cast(ops.less_equal(passed, trials), "float32"))

    start = (ops.convert_to_tensor(0, "int32"), ops.zeros(shape, "float32"), ops.zeros(shape, "float32"))
    return ops.while_loop(running, wait, start)[2]


# What Stirling's formula for log(k!) leaves out, for k from 0 to 9.
_TAIL = np.asarray(
    [math.lgamma(k + 1) - (k + 0.5) * math.log(k + 1) + k + 1 - math.log(2 * math.pi) / 2 for k in range(10)],
    np.float32,
)


def _stirling_tail(k: Any) -> Any:
    """What Stirling's formula for log(k!) leaves out, for whole numbers (its series from 10 on: DLMF 5.11.1)."""
    inverse = ops.divide(1.0, ops.add(k, 1.0))
    square = ops.multiply(inverse, inverse)
    bracket = ops.subtract(1 / 360, ops.multiply(square, 1 / 1260))
    series = ops.multiply(inverse, ops.subtract(1 / 12, ops.multiply(square, bracket)))
    small = ops.take(_TAIL, ops.cast(ops.minimum(ops.maximum(k, 0.0), 9.0), "int32"), axis=0)
    return ops.where(ops.less(k, 10.0), small, series)


def _by_rejection(key: Any, shape: Any, trials: Any, chance: Any) -> Any:
    """Hoermann's BTRS: a ratio of uniform numbers proposes, the probability function accepts."""
    add, subtract, multiply, divide, log = ops.add, ops.subtract, ops.multiply, ops.divide, ops.log
    odds = divide(chance, subtract(1.0, chance))
    mean = multiply(trials, chance)
    stddev = ops.sqrt(multiply(mean, subtract(1.0, chance)))
    b = add(1.15, multiply(2.53, stddev))
    a = add(add(-0.0873, multiply(0.0248, b)), multiply(0.01, chance))
    centre = add(mean, 0.5)
    squeeze = subtract(0.92, divide(4.2, b))
    alpha = multiply(add(2.83, divide(5.1, b)), stddev)
    mode = ops.floor(multiply(add(trials, 1.0), chance))
    failed = add(subtract(trials, mode), 1.0)
    at_mode = add(
        multiply(add(mode, 0.5), log(divide(add(mode, 1.0), multiply(odds, failed)))),
        add(_stirling_tail(mode), _stirling_tail(subtract(trials, mode))),
    )

    def log_ratio(k: Any) -> Any:
        """The logarithm of the probability of `k` over that of the mode."""
        rest = add(subtract(trials, k), 1.0)
        first = multiply(add(trials, 1.0), log(divide(failed, rest)))
        second = multiply(add(k, 0.5), log(divide(multiply(odds, rest), add(k, 1.0))))
        tails = add(_stirling_tail(k), _stirling_tail(subtract(trials, k)))
        return subtract(add(at_mode, add(first, second)), tails)

    def running(i: Any, done: Any, count: Any) -> Any:
        return ops.logical_not(ops.all(done))

    def propose(i: Any, done: Any, count: Any) -> Any:
        pair = _r.split(_r.fold_in(key, i), 2)
        u = subtract(_r._open_unit(ops.get_item(pair, 0), shape), 0.5)
        v = _r._open_unit(ops.get_item(pair, 1), shape)
        edge = subtract(0.5, ops.abs(u))
        found = ops.floor(add(multiply(add(divide(multiply(2.0, a), edge), b), u), centre))
        inside = ops.logical_and(ops.greater_equal(found, 0.0), ops.less_equal(found, trials))
        density = divide(multiply(v, alpha), add(divide(a, multiply(edge, edge)), b))
        below = ops.less_equal(log(density), log_ratio(ops.where(inside, found, mode)))
        quick = ops.logical_and(ops.greater_equal(edge, 0.07), ops.less_equal(v, squeeze))
        good = ops.logical_and(ops.logical_or(quick, below), inside)
        fresh = ops.logical_and(good, ops.logical_not(done))
        return add(i, 1), ops.logical_or(done, good), ops.where(fresh, found, count)

    start = (ops.convert_to_tensor(0, "int32"), ops.zeros(shape, "bool"), ops.zeros(shape, "float32"))
    return ops.while_loop(running, propose, start)[2]


FAMILY = Family("seed generator", "keras.random", [SeedGenerator], check=lambda value: isinstance(value, SeedGenerator))
