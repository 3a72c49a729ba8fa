"""Random layers that keep a model from learning by heart: they act in training, and pass their input through otherwise.

A layer's `seed` is a whole number, a `SeedGenerator`, or `None` to draw a number now (the config then holds it). What
is drawn follows from the seed, the layer's place among those that draw, the step of training and the draw's number: it
is the same on every engine.
"""

import math
from typing import Any

from cornu import ops, random, regularizers
from cornu.core.config import FRACTION, Field, one_of
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers._clock import layer_key
from cornu.layers.base import InputSpec, Layer

__all__ = [
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "draw_key", "seed_of",
]  # fmt: skip

_RATE = Field(lambda v: isinstance(v, (int, float)) and 0 <= v <= 1, "a number from 0 to 1")
_DATA_FORMAT = one_of("channels_last", "channels_first")


def seed_of(owner: str, seed: Any) -> Any:
    """The seed a random layer keeps.

    Args:
        owner: the layer's class, for the message.
        seed: a whole number from 0 to 2**32 - 1, a `SeedGenerator`, or `None` to draw a number now.

    Returns:
        a whole number or the `SeedGenerator`.

    Raises:
        ArgumentError: for anything else.
    """
    if seed is None:
        return random.global_seed()
    if isinstance(seed, random.SeedGenerator):
        return seed
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 2**32:
        expected = "a whole number from 0 to 2**32 - 1, a SeedGenerator, or None"
        raise ArgumentError(f"{owner} got seed={seed!r}", expected)
    return seed.__index__()


def draw_key(layer: Layer, seed: Any) -> Any:
    """The key of a layer's next draw, from a seed that `seed_of` gave."""
    return seed.next() if isinstance(seed, random.SeedGenerator) else layer_key(layer, seed)


def _noise_shape(owner: str, noise_shape: Any) -> Any:
    """A noise shape as a tuple of whole numbers above zero and `None`."""
    if noise_shape is None:
        return None
    sizes = tuple(noise_shape) if isinstance(noise_shape, (list, tuple)) else None
    if sizes is None or any(
        size is not None and (isinstance(size, bool) or not hasattr(size, "__index__") or size <= 0) for size in sizes
    ):
        expected = "a size for each axis: None (the input's), or 1 to drop or keep the axis as a whole"
        raise ArgumentError(f"{owner} got noise_shape={noise_shape!r}", expected, "noise_shape=(None, 1, None)")
    return sizes


def _full_noise_shape(owner: str, noise_shape: Any, inputs: Any) -> Any:
    """A noise shape with the input's sizes filled in.

    Raises:
        ShapeError: if it does not broadcast to the input's shape.
    """
    sizes = ops.shape(inputs)
    if noise_shape is None:
        return sizes
    known = [(n, s) for n, s in zip(noise_shape, sizes, strict=False) if n is not None and not isinstance(s, Dim)]
    if len(noise_shape) != len(sizes) or any(n not in (1, s) for n, s in known):
        raise ShapeError(
            f"{owner} got an input {shape_text(sizes)} and noise_shape={noise_shape}",
            "a size for each axis of the input: its own, 1 or None",
        )
    return tuple(s if n is None else n for n, s in zip(noise_shape, sizes, strict=True))


class Dropout(Layer):
    """In training, elements set to 0 at random, and the others divided by `1 - rate` (Srivastava et al., JMLR 2014).

    Args:
        rate: the part of elements to drop, from 0 to 1.
        noise_shape: what is drawn together, as a shape that broadcasts to the input's: 1 on an axis that is dropped or
            kept as a whole, `None` for the input's own size.
        seed: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Input and output `(batch, ...)`.

    Raises:
        ArgumentError: if an argument is outside these limits.

    Example:
        >>> import cornu
        >>> cornu.layers.Dropout(0.5)([1.0, 2.0], training=False).tolist()
        [1.0, 2.0]
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        _RATE.check(owner, "rate", rate)
        self.rate = rate
        self.noise_shape = _noise_shape(owner, noise_shape)
        self.seed = seed_of(owner, seed)
        self.supports_masking = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop, in training."""
        if not training or self.rate == 0:
            return inputs
        shape = _full_noise_shape(type(self).__name__, self.noise_shape, inputs)
        return random.dropout(inputs, self.rate, noise_shape=shape, seed=draw_key(self, self.seed))


class _SpatialDropout(Layer):
    """Base of the layers that drop whole channels (Tompson et al., CVPR 2015)."""

    spatial: int
    data_format = "channels_last"

    def _set(self, rate: float, seed: Any) -> None:
        owner = type(self).__name__
        _RATE.check(owner, "rate", rate)
        self.rate = rate
        self.seed = seed_of(owner, seed)
        self.supports_masking = True
        self.input_spec = InputSpec(ndim=self.spatial + 2)

    def _set_format(self, data_format: str | None) -> None:
        self.data_format = data_format or "channels_last"
        _DATA_FORMAT.check(type(self).__name__, "data_format", self.data_format)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop channels, in training."""
        if not training or self.rate == 0:
            return inputs
        batch, *rest = ops.shape(inputs)
        ones = (1,) * self.spatial
        shape = (batch, rest[0], *ones) if self.data_format == "channels_first" else (batch, *ones, rest[-1])
        return random.dropout(inputs, self.rate, noise_shape=shape, seed=draw_key(self, self.seed))


class SpatialDropout1D(_SpatialDropout):
    """`Dropout` of whole channels of sequences.

    Args:
        rate: the part of channels to drop, from 0 to 1.
        seed: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Input and output `(batch, time, channels)`.
    """

    spatial = 1

    def __init__(self, rate: float, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set(rate, seed)


class SpatialDropout2D(_SpatialDropout):
    """`Dropout` of whole channels of images.

    Args:
        rate: the part of channels to drop, from 0 to 1.
        data_format: `"channels_last"` (the default) or `"channels_first"`.
        seed: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Input and output `(batch, rows, columns, channels)`, or `(batch, channels, rows, columns)`.
    """

    spatial = 2

    def __init__(self, rate: float, data_format: str | None = None, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set(rate, seed)
        self._set_format(data_format)


class SpatialDropout3D(_SpatialDropout):
    """`Dropout` of whole channels of volumes; arguments as for `SpatialDropout2D`.

    Input and output `(batch, d1, d2, d3, channels)`, or `(batch, channels, d1, d2, d3)`.
    """

    spatial = 3

    def __init__(self, rate: float, data_format: str | None = None, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set(rate, seed)
        self._set_format(data_format)


class GaussianNoise(Layer):
    """In training, normal random numbers added to the input.

    Args:
        stddev: their standard deviation, from 0 to 1.
        seed: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Input and output `(batch, ...)`.
    """

    def __init__(self, stddev: float, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _RATE.check("GaussianNoise", "stddev", stddev)
        self.stddev = stddev
        self.seed = seed_of("GaussianNoise", seed)
        self.supports_masking = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Add noise, in training."""
        if not training or self.stddev == 0:
            return inputs
        key = draw_key(self, self.seed)
        return ops.add(inputs, random.normal(ops.shape(inputs), 0.0, self.stddev, dtype=self.compute_dtype, seed=key))


class GaussianDropout(Layer):
    """In training, the input times normal random numbers of mean 1 (Srivastava et al., JMLR 2014, section 10).

    Args:
        rate: as in `Dropout`, but below 1: the numbers' standard deviation is `sqrt(rate / (1 - rate))`.
        seed: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Input and output `(batch, ...)`.
    """

    def __init__(self, rate: float, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        FRACTION.check("GaussianDropout", "rate", rate)
        self.rate = rate
        self.seed = seed_of("GaussianDropout", seed)
        self.supports_masking = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Multiply, in training."""
        if not training or self.rate == 0:
            return inputs
        stddev = math.sqrt(self.rate / (1.0 - self.rate))
        key = draw_key(self, self.seed)
        return ops.multiply(inputs, random.normal(ops.shape(inputs), 1.0, stddev, dtype=self.compute_dtype, seed=key))


# Minus the limit of `selu` far below 0: its alpha times its scale (Klambauer et al., NeurIPS 2017).
_SELU_LIMIT = 1.6732632423543772848170429916717 * 1.0507009873554804934193349852946


class AlphaDropout(Layer):
    """Dropout for `selu`: in training elements are set to selu's lower limit, and mean and variance are then restored.

    From Klambauer et al., "Self-Normalizing Neural Networks", NeurIPS 2017.

    Args:
        rate: the part of elements to drop, from 0 up to (not including) 1.
        noise_shape: as in `Dropout`.
        seed: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Input and output `(batch, ...)`.
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        FRACTION.check("AlphaDropout", "rate", rate)
        self.rate = rate
        self.noise_shape = _noise_shape("AlphaDropout", noise_shape)
        self.seed = seed_of("AlphaDropout", seed)
        self.supports_masking = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop and restore, in training."""
        if not training or self.rate == 0:
            return inputs
        shape = _full_noise_shape("AlphaDropout", self.noise_shape, inputs)
        kept = ops.greater_equal(random.uniform(shape, seed=draw_key(self, self.seed)), self.rate)
        scale = ((1 - self.rate) * (1 + self.rate * _SELU_LIMIT**2)) ** -0.5
        shift = scale * _SELU_LIMIT * self.rate
        return ops.add(ops.multiply(ops.where(kept, inputs, -_SELU_LIMIT), scale), shift)


class ActivityRegularization(Layer):
    """Its input, with a penalty on it.

    Args:
        l1: weight of the sum of absolute values.
        l2: weight of the sum of squares.

    Input and output `(batch, ...)`.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.l1 = l1
        self.l2 = l2
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The input."""
        return inputs

    def get_config(self) -> dict[str, Any]:
        """The arguments; the penalty follows from them."""
        return {key: value for key, value in super().get_config().items() if key != "activity_regularizer"}
