"""Layers that enlarge or cut space: zeros around it, borders off it, elements repeated or interpolated."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu import ops
from cornu.core import dtypes
from cornu.core.config import one_of
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers.base import InputSpec, Layer
from cornu.layers.conv import LAST, data_format_of, per_axis
from cornu.ops.movement import strided_slice

__all__ = [
    "Cropping1D", "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D",
    "ZeroPadding2D", "ZeroPadding3D",
]  # fmt: skip


class Spatial(Layer):
    """What they share: how many spatial axes there are, and where."""

    _rank = 0

    def _set_space(self, data_format: Any = None) -> None:
        self.data_format = data_format_of(type(self).__name__, data_format)
        self.input_spec = InputSpec(ndim=self._rank + 2)

    @property
    def _space(self) -> range:
        """The spatial axes."""
        first = 1 if self.data_format == LAST else 2
        return range(first, first + self._rank)

    def _borders(self, name: str, value: Any) -> Any:
        """Counts at the beginning and the end: a pair for one spatial axis, a tuple with a pair for each of several.

        Raises:
            ArgumentError: if the counts are not as the layer's arguments say.
        """
        owner = type(self).__name__
        if self._rank == 1:
            return per_axis(owner, name, value, 2, least=0)
        if hasattr(value, "__index__"):
            value = (value,) * self._rank
        if not isinstance(value, (list, tuple)) or len(value) != self._rank:
            expected = f"a whole number, {self._rank} of them, or {self._rank} pairs (before, after)"
            raise ArgumentError(f"{owner} got {name}={value!r}", expected)
        return tuple(per_axis(owner, name, pair, 2, least=0) for pair in value)

    def _pairs(self, borders: Any) -> tuple[tuple[int, int], ...]:
        """What `_borders` gave as a pair for each spatial axis."""
        return (borders,) if self._rank == 1 else borders


# ---------------------------------------------------------------- zeros around


class ZeroPadding(Spatial):
    """What the layers share that put zeros around, whatever the number of spatial axes."""

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = self._borders("padding", padding)
        self._set_space(data_format)

    def call(self, inputs: Any) -> Any:
        """Add the zeros."""
        widths = [(0, 0)] * (self._rank + 2)
        for axis, pair in zip(self._space, self._pairs(self.padding), strict=True):
            widths[axis] = pair
        return ops.pad(inputs, widths)


class ZeroPadding1D(ZeroPadding):
    """Zeros before and after a sequence.

    Args:
        padding: how many at both ends, or a pair `(before, after)`; by default 1.
        data_format: `"channels_last"` (default) or `"channels_first"`.

    Input `(batch, time, channels)`, output `(batch, time + before + after, channels)`.
    """

    _rank = 1


class ZeroPadding2D(ZeroPadding):
    """Zeros around an image.

    Args:
        padding: a number for all borders, one for each axis, or a pair `(before, after)` for each; by default 1.
        data_format: `"channels_last"` (default) or `"channels_first"`.

    Input `(batch, height, width, channels)`, output with more elements on the spatial axes.

    Example:
        >>> import cornu
        >>> cornu.layers.ZeroPadding2D(((1, 0), (2, 2)))(cornu.Input((8, 8, 3))).shape
        (None, 9, 12, 3)
    """

    _rank = 2


class ZeroPadding3D(ZeroPadding):
    """Zeros around a volume `(batch, depth, height, width, channels)`; arguments as for `ZeroPadding2D`."""

    _rank = 3


# ---------------------------------------------------------------- borders off


class Cropping(Spatial):
    """What the layers share that cut borders off, whatever the number of spatial axes."""

    cropping: Any

    def call(self, inputs: Any) -> Any:
        """Cut the borders off.

        Raises:
            ShapeError: if nothing would be left.
        """
        sizes = ops.shape(inputs)
        ranges: dict[int, Any] = {}
        for axis, (before, after) in zip(self._space, self._pairs(self.cropping), strict=True):
            size = sizes[axis]
            if not isinstance(size, Dim) and size <= before + after:
                raise ShapeError(
                    f"{type(self).__name__} with cropping={self.cropping} got an input of shape {shape_text(sizes)}",
                    f"more than {before + after} elements on axis {axis}",
                )
            ranges[axis] = (before, size - after, 1)
        return strided_slice(inputs, ranges)


class Cropping1D(Cropping):
    """A sequence without its ends.

    Args:
        cropping: how many steps to cut off at both ends, or a pair `(before, after)`; by default 1.

    Input `(batch, time, channels)`, output `(batch, time - before - after, channels)`.
    """

    _rank = 1

    def __init__(self, cropping: Any = (1, 1), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cropping = self._borders("cropping", cropping)
        self._set_space()


class Cropping2D(Cropping):
    """An image without its borders.

    Args:
        cropping: a number for all borders, one for each axis, or a pair `(before, after)` for each; by default 0.
        data_format: `"channels_last"` (default) or `"channels_first"`.

    Input `(batch, height, width, channels)`, output with fewer elements on the spatial axes.

    Example:
        >>> import cornu
        >>> cornu.layers.Cropping2D(((1, 0), (2, 2)))(cornu.Input((8, 8, 3))).shape
        (None, 7, 4, 3)
    """

    _rank = 2

    def __init__(self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cropping = self._borders("cropping", cropping)
        self._set_space(data_format)


class Cropping3D(Cropping):
    """A volume `(batch, depth, height, width, channels)` without its borders, by default 1 each; as `Cropping2D`."""

    _rank = 3

    def __init__(self, cropping: Any = ((1, 1),) * 3, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cropping = self._borders("cropping", cropping)
        self._set_space(data_format)


# ---------------------------------------------------------------- more elements


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - x)


def _cubic(x: float) -> float:
    """Keys's cubic (1981) with the parameter -0.5."""
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _lanczos(radius: int) -> Callable[[float], float]:
    def kernel(x: float) -> float:
        if x > radius:
            return 0.0
        return math.sin(math.pi * x) * math.sin(math.pi * x / radius) * radius / (math.pi * x) ** 2 if x > 1e-3 else 1.0

    return kernel


# name -> (how far it reaches, the weight of an element at a distance)
_KERNELS: dict[str, tuple[int, Callable[[float], float]]] = {
    "bilinear": (1, _triangle),
    "bicubic": (2, _cubic),
    "lanczos3": (3, _lanczos(3)),
    "lanczos5": (5, _lanczos(5)),
}
_INTERPOLATION = one_of("nearest", *_KERNELS)


def _interpolated(x: Any, axis: int, factor: int, name: str) -> Any:
    """An axis with `factor` times as many elements, interpolated.

    New element `i` stands at `(i + 0.5) / factor - 0.5` of the old ones (centres of pixels, as in Keras), so that the
    weights repeat every `factor` elements, and need no known size. At a border the elements that are missing have
    weight 0, and the others are scaled to sum 1.
    """
    reach, kernel = _KERNELS[name]
    size = ops.shape(x)[axis]
    rank = len(x.shape)
    widths = [(reach, reach) if i == axis else (0, 0) for i in range(rank)]
    line = tuple(size if i == axis else 1 for i in range(rank))
    around, present = ops.pad(x, widths), ops.pad(ops.ones(line, ops.dtype(x)), widths)
    places = [(phase + 0.5) / factor - 0.5 for phase in range(factor)]
    total: Any = 0
    weight: Any = 0
    for shift in range(-reach, reach + 1):
        weights = np.asarray([kernel(abs(shift - place)) for place in places])
        if not weights.any():
            continue
        column = ops.cast(weights.reshape([factor if i == axis + 1 else 1 for i in range(rank + 1)]), ops.dtype(x))
        window: dict[int, Any] = {axis: (reach + shift, reach + shift + size, 1)}
        total = ops.add(total, ops.multiply(ops.expand_dims(strided_slice(around, window), axis + 1), column))
        weight = ops.add(weight, ops.multiply(ops.expand_dims(strided_slice(present, window), axis + 1), column))
    sizes = [extent * factor if i == axis else extent for i, extent in enumerate(ops.shape(x))]
    return ops.reshape(ops.divide(total, weight), sizes)


class UpSampling(Spatial):
    """What the layers share that repeat elements, whatever the number of spatial axes."""

    size: Any

    def call(self, inputs: Any) -> Any:
        """Repeat each element."""
        factors = (self.size,) if self._rank == 1 else self.size
        for axis, factor in zip(self._space, factors, strict=True):
            inputs = ops.repeat(inputs, factor, axis=axis)
        return inputs


class UpSampling1D(UpSampling):
    """Each step of a sequence repeated.

    Args:
        size: how often, by default 2.

    Input `(batch, time, channels)`, output `(batch, time * size, channels)`.
    """

    _rank = 1

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = per_axis("UpSampling1D", "size", size, 1)[0]
        self._set_space()


class UpSampling2D(UpSampling):
    """An image with more rows and columns, repeated or interpolated.

    Args:
        size: the factor: a number, or one for each spatial axis; by default 2.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        interpolation: `"nearest"` (default) to repeat, `"bilinear"`, `"bicubic"` (Keys, 1981), `"lanczos3"` or
            `"lanczos5"`.

    Input `(batch, height, width, channels)`, output `(batch, height * size[0], width * size[1], channels)`, of the
    same dtype: whole numbers are rounded, and kept within their range.

    Raises:
        ArgumentError: for another interpolation.

    Example:
        >>> import cornu
        >>> cornu.layers.UpSampling2D(3, interpolation="bilinear")(cornu.Input((8, 8, 3))).shape
        (None, 24, 24, 3)
    """

    _rank = 2

    def __init__(
        self, size: Any = (2, 2), data_format: str | None = None, interpolation: str = "nearest", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = per_axis("UpSampling2D", "size", size, 2)
        self.interpolation = interpolation.lower() if isinstance(interpolation, str) else interpolation
        _INTERPOLATION.check("UpSampling2D", "interpolation", self.interpolation)
        self._set_space(data_format)

    def call(self, inputs: Any) -> Any:
        """Repeat or interpolate."""
        if self.interpolation == "nearest":
            return super().call(inputs)
        name = ops.dtype(inputs)
        x = inputs if name in dtypes.FLOATS else ops.cast(inputs, None)
        for axis, factor in zip(self._space, self.size, strict=True):
            x = _interpolated(x, axis, factor, self.interpolation)
        return x if name in dtypes.FLOATS else ops.saturate_cast(ops.round(x), name)


class UpSampling3D(UpSampling):
    """A volume `(batch, depth, height, width, channels)` with each element repeated; as `UpSampling2D`."""

    _rank = 3

    def __init__(self, size: Any = (2, 2, 2), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = per_axis("UpSampling3D", "size", size, 3)
        self._set_space(data_format)
