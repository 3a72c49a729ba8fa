"""Pooling: one element for each window, or for the whole of space."""

from collections.abc import Callable
from typing import Any

from cornu import ops
from cornu.layers.base import InputSpec, Layer
from cornu.layers.conv import LAST, data_format_of, padding_of, per_axis

__all__ = [
    "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "AvgPool1D", "AvgPool2D", "AvgPool3D",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalAvgPool1D", "GlobalAvgPool2D",
    "GlobalAvgPool3D", "GlobalMaxPool1D", "GlobalMaxPool2D", "GlobalMaxPool3D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalMaxPooling3D", "MaxPool1D", "MaxPool2D", "MaxPool3D", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D",
]  # fmt: skip


# ---------------------------------------------------------------- windows


class BasePooling(Layer):
    """What the poolings by windows share; a subclass says which op and how many spatial axes."""

    _rank = 0
    _pool: Callable[..., Any]

    def __init__(
        self,
        pool_size: Any,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        owner = type(self).__name__
        self.pool_size = per_axis(owner, "pool_size", pool_size, self._rank)
        self.strides = self.pool_size if strides is None else per_axis(owner, "strides", strides, self._rank)
        self.padding = padding_of(owner, padding)
        self.data_format = data_format_of(owner, data_format)
        self.input_spec = InputSpec(ndim=self._rank + 2)

    def call(self, inputs: Any) -> Any:
        """Pool."""
        return type(self)._pool(
            inputs, self.pool_size, strides=self.strides, padding=self.padding, data_format=self.data_format
        )


class MaxPooling(BasePooling):
    """What the max poolings share, whatever the number of spatial axes."""

    _pool = ops.max_pool

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, name, **kwargs)


class MaxPooling1D(MaxPooling):
    """The largest element of each window over time `(batch, time, channels)`; arguments as for `MaxPooling2D`."""

    _rank = 1


class MaxPooling2D(MaxPooling):
    """The largest element of each window over images `(batch, height, width, channels)`.

    Args:
        pool_size: the window: a number, or one for each spatial axis; by default 2.
        strides: steps: a number, or one for each spatial axis; by default the window.
        padding: `"valid"` (default), or `"same"` to let windows reach over the border; what is outside never wins.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        name: its name.

    Input `(batch, *space, channels)`, output with fewer elements on the spatial axes.

    Example:
        >>> import cornu
        >>> cornu.layers.MaxPooling2D()(cornu.Input((28, 28, 8))).shape
        (None, 14, 14, 8)
    """

    _rank = 2


class MaxPooling3D(MaxPooling):
    """The largest element of each window over volumes `(batch, depth, height, width, channels)`, as `MaxPooling2D`."""

    _rank = 3


class AveragePooling(BasePooling):
    """What the average poolings share, whatever the number of spatial axes."""

    _pool = ops.average_pool


class AveragePooling1D(AveragePooling):
    """The mean of each window over time `(batch, time, channels)`; arguments as for `AveragePooling2D`."""

    _rank = 1


class AveragePooling2D(AveragePooling):
    """The mean of each window over images `(batch, height, width, channels)`.

    Args:
        pool_size: the window: a number, or one for each spatial axis.
        strides: steps: a number, or one for each spatial axis; by default the window.
        padding: `"valid"` (default), or `"same"` to let windows reach over the border; what is outside is not counted.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        name: its name.

    Input `(batch, *space, channels)`, output with fewer elements on the spatial axes, of a float dtype.
    """

    _rank = 2


class AveragePooling3D(AveragePooling):
    """The mean of each window over volumes `(batch, depth, height, width, channels)`; as `AveragePooling2D`."""

    _rank = 3


# ---------------------------------------------------------------- the whole of space


class BaseGlobalPooling(Layer):
    """What the poolings over the whole of space share; a subclass says which reduction and how many spatial axes."""

    _rank = 0
    _reduce: Callable[..., Any]

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(type(self).__name__, data_format)
        self.keepdims = keepdims
        self.input_spec = InputSpec(ndim=self._rank + 2)

    @property
    def _space(self) -> tuple[int, ...]:
        """The spatial axes."""
        first = 1 if self.data_format == LAST else 2
        return tuple(range(first, first + self._rank))

    def call(self, inputs: Any) -> Any:
        """Reduce the spatial axes."""
        return type(self)._reduce(inputs, axis=self._space, keepdims=self.keepdims)


class GlobalMaxPooling1D(BaseGlobalPooling):
    """The largest element of each channel over time; arguments as for `GlobalMaxPooling2D`."""

    _rank, _reduce = 1, ops.max


class GlobalMaxPooling2D(BaseGlobalPooling):
    """The largest element of each channel of an image.

    Args:
        data_format: `"channels_last"` (default) or `"channels_first"`.
        keepdims: whether the spatial axes stay, with size 1.

    Input `(batch, height, width, channels)`, output `(batch, channels)`.

    Example:
        >>> import cornu
        >>> cornu.layers.GlobalMaxPooling2D()(cornu.Input((7, 7, 64))).shape
        (None, 64)
    """

    _rank, _reduce = 2, ops.max


class GlobalMaxPooling3D(BaseGlobalPooling):
    """The largest element of each channel of a volume; arguments as for `GlobalMaxPooling2D`."""

    _rank, _reduce = 3, ops.max


class GlobalAveragePooling1D(BaseGlobalPooling):
    """The mean of each channel over time, of the steps that a mask counts if there is one.

    Args:
        data_format: `"channels_last"` (default) or `"channels_first"`.
        keepdims: whether the axis of time stays, with size 1.

    Input `(batch, time, channels)` and a mask `(batch, time)` or none, output `(batch, channels)`. A row whose steps
    are all masked has no mean: it gives NaN, as in Keras.

    Example:
        >>> import cornu
        >>> x = cornu.ops.reshape([1.0, 2.0, 6.0], (1, 3, 1))
        >>> cornu.layers.GlobalAveragePooling1D()(x, mask=cornu.ops.convert_to_tensor([[True, True, False]])).tolist()
        [[1.5]]
    """

    _rank, _reduce = 1, ops.mean

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Average over time."""
        if mask is None:
            return super().call(inputs)
        counted = ops.expand_dims(ops.cast(mask, "bool"), 2 if self.data_format == LAST else 1)
        total = ops.sum(ops.where(counted, inputs, 0), axis=self._space, keepdims=self.keepdims)
        count = ops.sum(ops.cast(counted, ops.dtype(inputs)), axis=self._space, keepdims=self.keepdims)
        return ops.divide(total, count)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """None: the masked axis is gone."""


class GlobalAveragePooling2D(BaseGlobalPooling):
    """The mean of each channel of an image; arguments as for `GlobalMaxPooling2D`."""

    _rank, _reduce = 2, ops.mean


class GlobalAveragePooling3D(BaseGlobalPooling):
    """The mean of each channel of a volume; arguments as for `GlobalMaxPooling2D`."""

    _rank, _reduce = 3, ops.mean


# Keras's other names
MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalAvgPool3D = GlobalAveragePooling3D
