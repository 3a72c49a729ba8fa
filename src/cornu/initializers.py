"""First values of weights, drawn on the host: the same whatever engine is in force, before any is imported."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from cornu import ops, random
from cornu.core import context, dtypes
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.family import Family
from cornu.engines.registry import engine
from cornu.ops.random import host_bits

__all__ = [
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "IdentityInitializer",
    "Initializer", "LecunNormal", "LecunUniform", "Ones", "Orthogonal", "OrthogonalInitializer", "RandomNormal",
    "RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros", "compute_fans", "constant", "deserialize", "get",
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity", "lecun_normal", "lecun_uniform", "ones",
    "orthogonal", "random_normal", "random_uniform", "serialize", "truncated_normal", "variance_scaling", "zeros",
]  # fmt: skip


class Initializer(Configurable):
    """Base of initializers: a function of a shape and a dtype that gives an array.

    Example:
        >>> class Half(Initializer):
        ...     def __call__(self, shape, dtype=None):
        ...         return np.full(shape, 0.5, dtype)
        >>> Half()((2,), "float32").tolist()
        [0.5, 0.5]
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The first value.

        Args:
            shape: sizes, all known.
            dtype: the dtype's name, by default the default float.

        Returns:
            array of that shape and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__(shape, dtype=None)")

    def clone(self) -> Any:
        """A new initializer of the same config; one without a seed gets another seed."""
        return type(self).from_config(self.get_config())


def _cast(value: Any, dtype: Any) -> np.ndarray:
    return np.asarray(value).astype(dtypes.numpy_dtype(dtypes.standardize_dtype(dtype)), copy=False)


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in (shape if isinstance(shape, Iterable) else (shape,)))


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """Zeros of a shape."""
        return np.zeros(_shape(shape), dtypes.numpy_dtype(dtypes.standardize_dtype(dtype)))


class Ones(Initializer):
    """All ones."""

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """Ones of a shape."""
        return np.ones(_shape(shape), dtypes.numpy_dtype(dtypes.standardize_dtype(dtype)))


class Constant(Initializer):
    """One value everywhere.

    Args:
        value: a number, or an array that broadcasts to the shape.

    Example:
        >>> Constant(3)((2,)).tolist()
        [3.0, 3.0]
    """

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """The value in a shape."""
        value = _cast(ops.convert_to_numpy(self.value), dtype)
        if not value.ndim and not any(value.tobytes()):
            return Zeros()(shape, value.dtype)  # which takes no memory until it is written to
        try:
            return np.broadcast_to(value, _shape(shape)).copy()
        except ValueError:
            raise ShapeError(
                f"Constant has a value of shape {value.shape}", f"one that broadcasts to {_shape(shape)}"
            ) from None


class _Given(Constant):
    """An array given as an initializer: its shape must be the weight's."""

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """The array."""
        given = tuple(np.shape(ops.convert_to_numpy(self.value)))
        if given != _shape(shape):
            raise ShapeError(f"an array of shape {given} was given as initializer", f"shape {_shape(shape)}")
        return super().__call__(shape, dtype)


class Identity(Initializer):
    """The identity matrix, times a factor.

    Args:
        gain: the factor.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """A matrix with the factor on its diagonal.

        Raises:
            ShapeError: if the shape has not two sizes.
        """
        sizes = _shape(shape)
        if len(sizes) != 2:
            raise ShapeError(f"Identity got shape {sizes}", "two sizes")
        return _cast(self.gain * np.eye(sizes[0], sizes[1]), dtype)


# ---------------------------------------------------------------- random


class RandomInitializer(Initializer):
    """Base of random initializers.

    Args:
        seed: a whole number, or a `SeedGenerator` to give other values at each call; `None` to take a seed from the
            process's (see `cornu.random.set_random_seed`) now. With a number, or `None`, each call gives the same.

    Attributes:
        seed: the seed in use.
    """

    def __init__(self, seed: Any = None) -> None:
        if isinstance(seed, dict):
            seed = random.FAMILY.deserialize(seed)
        if seed is not None and not isinstance(seed, random.SeedGenerator):
            seed = random._checked_seed(seed)
        self._given_seed = seed
        self.seed = random.global_seed() if seed is None else seed

    def get_config(self) -> dict[str, Any]:
        """The arguments; the seed as it was given, `None` if it was not."""
        return {**super().get_config(), "seed": self._given_seed}

    def _key(self) -> np.ndarray:
        if not isinstance(self.seed, random.SeedGenerator):
            return np.array([self.seed, 0], np.uint32)
        with context.abstract(False), engine("numpy"):
            return np.asarray(ops.convert_to_numpy(self.seed.next()))

    def _uniform(self, shape: Any, minval: float, maxval: float, dtype: Any) -> np.ndarray:
        shape = _shape(shape)
        drawn = host_bits(self._key(), math.prod(shape))
        drawn >>= np.uint32(8)  # 24 bits: as many as a float32 in [0, 1) holds
        unit = drawn.astype(np.float32)
        unit *= np.float32((maxval - minval) * 2.0**-24)
        unit += np.float32(minval)
        return _cast(unit.reshape(shape), dtype)

    def _normal(self, shape: Any, mean: float, stddev: float, dtype: Any, part: float = 1.0) -> np.ndarray:
        """Normal numbers; the middle `part` of the distribution."""
        shape = _shape(shape)
        drawn = host_bits(self._key(), math.prod(shape))
        drawn >>= np.uint32(9)
        centred = drawn.astype(np.float32)
        centred += np.float32(0.5 - 2**22)
        centred *= np.float32(part * 2.0**-22)  # strictly between -part and part
        unit = _erfinv(centred)
        unit *= np.float32(stddev * math.sqrt(2))
        unit += np.float32(mean)
        return _cast(unit.reshape(shape), dtype)

    def _truncated_normal(self, shape: Any, mean: float, stddev: float, dtype: Any) -> np.ndarray:
        return self._normal(shape, mean, stddev, dtype, part=math.erf(math.sqrt(2)))


# Giles's polynomials for erfinv(x) / x, highest power first: in w - 2.5 for w = -log(1 - x * x) below 5, else in
# sqrt(w) - 3.
_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def _erfinv(x: np.ndarray) -> np.ndarray:
    """The inverse error function in float32, quickly.

    Source: M. Giles, "Approximating the erfinv function", GPU Computing Gems (Jade Edition), 2011, single precision.
    """
    w = (1 - x) * (1 + x)
    np.negative(np.log(w, out=w), out=w)
    far = np.nonzero(w >= 5)[0]
    tail = np.sqrt(w[far]) - np.float32(3)
    w -= np.float32(2.5)

    def polynomial(coefficients: tuple[float, ...], at: np.ndarray) -> np.ndarray:
        result = np.full_like(at, coefficients[0])
        for coefficient in coefficients[1:]:
            result *= at
            result += np.float32(coefficient)
        return result

    result = polynomial(_MIDDLE, w)
    result[far] = polynomial(_TAIL, tail)
    result *= x
    return result


class RandomNormal(RandomInitializer):
    """Normal random numbers.

    Args:
        mean: their mean.
        stddev: their standard deviation.
        seed: see `RandomInitializer`.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        self.mean = mean
        self.stddev = stddev
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """Random numbers of a shape."""
        return self._normal(shape, self.mean, self.stddev, dtype)


class TruncatedNormal(RandomNormal):
    """Normal random numbers within two standard deviations of the mean; arguments as for `RandomNormal`."""

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """Random numbers of a shape."""
        return self._truncated_normal(shape, self.mean, self.stddev, dtype)


class RandomUniform(RandomInitializer):
    """Random numbers, all equally likely.

    Args:
        minval: the least.
        maxval: what they stay below.
        seed: see `RandomInitializer`.
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        self.minval = minval
        self.maxval = maxval
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """Random numbers of a shape."""
        return self._uniform(shape, self.minval, self.maxval, dtype)


_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


class VarianceScaling(RandomInitializer):
    """Random numbers whose variance is `scale / n`, `n` being how many units a weight's unit takes from or gives to.

    Args:
        scale: above zero.
        mode: what `n` is: `"fan_in"`, `"fan_out"` or `"fan_avg"`.
        distribution: `"truncated_normal"` (also `"normal"`), `"untruncated_normal"` or `"uniform"`.
        seed: see `RandomInitializer`.
        input_axes: axes whose sizes multiply to fan in, where the shape's layout is unusual.
        output_axes: axes whose sizes multiply to fan out.

    Raises:
        ArgumentError: for arguments outside these limits.

    Example:
        >>> weights = VarianceScaling(scale=2.0, mode="fan_in", seed=1)((1000, 50))
        >>> abs(float(weights.std()) - (2 / 1000) ** 0.5) < 0.001
        True
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        distribution = distribution.lower()
        distribution = "truncated_normal" if distribution == "normal" else distribution
        if scale <= 0:
            raise ArgumentError(f"VarianceScaling got scale={scale!r}", "a number above zero")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ArgumentError(f"VarianceScaling got mode={mode!r}", "'fan_in', 'fan_out' or 'fan_avg'")
        if distribution not in _DISTRIBUTIONS:
            raise ArgumentError(f"VarianceScaling got distribution={distribution!r}", f"one of {_DISTRIBUTIONS}")
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.input_axes = input_axes
        self.output_axes = output_axes
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """Random numbers of a shape."""
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return self._uniform(shape, -limit, limit, dtype)
        if self.distribution == "untruncated_normal":
            return self._normal(shape, 0.0, math.sqrt(variance), dtype)
        # The standard deviation of a standard normal cut off at two.
        return self._truncated_normal(shape, 0.0, math.sqrt(variance) / 0.87962566103423978, dtype)


def compute_fans(shape: Any, input_axes: Any = None, output_axes: Any = None) -> tuple[int, int]:
    """How many units a weight of a shape takes from and gives to.

    Args:
        shape: sizes; `(*window, inputs, outputs)` if there are more than two.
        input_axes: axes whose sizes multiply to the first, in an unusual layout.
        output_axes: axes whose sizes multiply to the second.

    Returns:
        two whole numbers.

    Example:
        >>> compute_fans((3, 3, 16, 32))
        (144, 288)
    """
    sizes = _shape(shape)
    if input_axes is not None and output_axes is not None:
        return math.prod(sizes[a] for a in input_axes), math.prod(sizes[a] for a in output_axes)
    if len(sizes) < 2:
        return (sizes * 2) if sizes else (1, 1)  # type: ignore[return-value]
    window = math.prod(sizes[:-2])
    return sizes[-2] * window, sizes[-1] * window


class _Scaled(VarianceScaling):
    """Base of `VarianceScaling` with its first arguments fixed."""

    fixed: tuple[float, str, str]

    def __init__(self, seed: Any = None, input_axes: Any = None, output_axes: Any = None) -> None:
        super().__init__(*self.fixed, seed=seed, input_axes=input_axes, output_axes=output_axes)


class GlorotUniform(_Scaled):
    """Uniform, variance `2 / (fan_in + fan_out)` (Glorot and Bengio, AISTATS 2010)."""

    fixed = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal, variance `2 / (fan_in + fan_out)` (Glorot and Bengio, AISTATS 2010)."""

    fixed = (1.0, "fan_avg", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform, variance `1 / fan_in` (LeCun et al., "Efficient BackProp", 1998)."""

    fixed = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal, variance `1 / fan_in` (LeCun et al., "Efficient BackProp", 1998)."""

    fixed = (1.0, "fan_in", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform, variance `2 / fan_in` (He et al., ICCV 2015)."""

    fixed = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal, variance `2 / fan_in` (He et al., ICCV 2015)."""

    fixed = (2.0, "fan_in", "truncated_normal")


class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al., ICLR 2014).

    Axes but the last are taken together.

    Args:
        gain: a factor.
        seed: see `RandomInitializer`.

    Example:
        >>> q = Orthogonal(seed=1)((3, 5))
        >>> bool(np.allclose(q @ q.T, np.eye(3), atol=1e-5))
        True
    """

    def __init__(self, gain: float = 1.0, seed: Any = None) -> None:
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> np.ndarray:
        """An orthogonal matrix in a shape.

        Raises:
            ShapeError: if the shape has fewer than two sizes.
        """
        sizes = _shape(shape)
        if len(sizes) < 2:
            raise ShapeError(f"Orthogonal got shape {sizes}", "two sizes or more")
        rows, columns = math.prod(sizes[:-1]), sizes[-1]
        drawn = self._normal((max(rows, columns), min(rows, columns)), 0.0, 1.0, "float32")
        q, r = np.linalg.qr(drawn)
        q = q * np.where(np.diag(r) < 0, np.float32(-1), np.float32(1))  # or the signs would not be random
        return _cast(np.float32(self.gain) * (q.T if rows < columns else q).reshape(sizes), dtype)


# Keras's other names.
zeros, ones, constant, identity, orthogonal = Zeros, Ones, Constant, Identity, Orthogonal
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling, glorot_uniform, glorot_normal = VarianceScaling, GlorotUniform, GlorotNormal
he_uniform, he_normal, lecun_uniform, lecun_normal = HeUniform, HeNormal, LecunUniform, LecunNormal
OrthogonalInitializer, IdentityInitializer = Orthogonal, Identity

FAMILY = Family(
    "initializer",
    "keras.initializers",
    [
        Initializer, Zeros, Ones, Constant, Identity, RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling,
        GlorotUniform, GlorotNormal, HeUniform, HeNormal, LecunUniform, LecunNormal, Orthogonal,
    ],
    aliases={
        "zero": Zeros, "one": Ones, "normal": RandomNormal, "uniform": RandomUniform,
        "OrthogonalInitializer": Orthogonal, "IdentityInitializer": Identity,
    },
)  # fmt: skip


def get(identifier: Any) -> Any:
    """An initializer from a name, a config, a class, an array (which is then the value), a function, or `None`.

    A name gives a new object at each call, with a seed of its own.

    Raises:
        ArgumentError: if it is none of these.

    Example:
        >>> type(get("he_normal")).__name__, get(np.eye(2))((2, 2)).tolist()
        ('HeNormal', [[1.0, 0.0], [0.0, 1.0]])
    """
    if isinstance(identifier, (np.ndarray, np.generic)) or ops.is_tensor(identifier):
        return _Given(identifier)
    return FAMILY.get(identifier)


serialize, deserialize = FAMILY.serialize, FAMILY.deserialize
