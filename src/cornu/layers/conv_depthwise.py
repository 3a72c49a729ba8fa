"""Convolutions of each channel alone, and those followed by one over the channels of each position."""

from typing import Any

from cornu import constraints, initializers, ops, regularizers
from cornu.core.config import POSITIVE
from cornu.layers.conv import Convolving, padding_of

__all__ = [
    "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D",
    "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D",
]  # fmt: skip


class ChannelByChannel(Convolving):
    """What depthwise and separable convolutions share: the kernel of each channel."""

    def _set_depthwise(self, depth_multiplier: Any, initializer: Any, regularizer: Any, constraint: Any) -> None:
        POSITIVE.check(type(self).__name__, "depth_multiplier", depth_multiplier)
        self.depth_multiplier = int(depth_multiplier)
        self.depthwise_initializer = initializers.get(initializer)
        self.depthwise_regularizer = regularizers.get(regularizer)
        self.depthwise_constraint = constraints.get(constraint)

    def _add_depthwise(self, name: str, channels: int) -> Any:
        return self._add_kernel(name, (*self.kernel_size, channels, self.depth_multiplier), "depthwise")


class BaseDepthwiseConv(ChannelByChannel):
    """What the depthwise convolutions share, whatever the number of spatial axes."""

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        padding = padding_of(type(self).__name__, padding)
        self._set_window(kernel_size, strides, padding, data_format, dilation_rate)
        self._set_depthwise(depth_multiplier, depthwise_initializer, depthwise_regularizer, depthwise_constraint)
        self._set_output(activation, use_bias, bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape: Any) -> None:
        """Make the kernel, and the bias."""
        channels = self._channels_of(input_shape)
        self.kernel = self._add_depthwise("kernel", channels)
        self._add_bias(channels * self.depth_multiplier)

    def call(self, inputs: Any) -> Any:
        """Convolve each channel, add, activate."""
        return self._finish(ops.depthwise_conv(inputs, self.kernel, **self._geometry()))


class DepthwiseConv1D(BaseDepthwiseConv):
    """The depthwise convolution over time `(batch, time, channels)`; arguments as for `DepthwiseConv2D`."""

    _rank = 1


class DepthwiseConv2D(BaseDepthwiseConv):
    """The depthwise convolution over images `(batch, height, width, channels)`.

    Args:
        kernel_size: the window: a number, or one for each spatial axis.
        strides: steps: a number, or one for each spatial axis; by default 1.
        padding: `"valid"` (default) or `"same"`.
        depth_multiplier: how many kernels each channel has; by default 1.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        dilation_rate: distance between the window's elements: a number, or one for each spatial axis; by default 1.
        activation: function of the output, or its name.
        use_bias: whether there is a bias.
        depthwise_initializer: first values of the kernel `(*kernel_size, channels, depth_multiplier)`.
        bias_initializer: first values of the bias `(channels * depth_multiplier,)`.
        depthwise_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the output.
        depthwise_constraint: what the kernel is kept to.
        bias_constraint: what the bias is kept to.

    Input `(batch, *space, channels)`, output `(batch, *space', channels * depth_multiplier)`; with `channels_first`
    the channels are axis 1 of both. The outputs of a channel stand together.

    Example:
        >>> import cornu
        >>> cornu.layers.DepthwiseConv2D(3, depth_multiplier=2)(cornu.Input((8, 8, 3))).shape
        (None, 6, 6, 6)
    """

    _rank = 2


class BaseSeparableConv(ChannelByChannel):
    """What the separable convolutions share, whatever the number of spatial axes."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        owner = type(self).__name__
        POSITIVE.check(owner, "filters", filters)
        self.filters = int(filters)
        self._set_window(kernel_size, strides, padding_of(owner, padding), data_format, dilation_rate)
        self._set_depthwise(depth_multiplier, depthwise_initializer, depthwise_regularizer, depthwise_constraint)
        self._set_output(activation, use_bias, bias_initializer, bias_regularizer, bias_constraint)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.pointwise_constraint = constraints.get(pointwise_constraint)

    def build(self, input_shape: Any) -> None:
        """Make both kernels, and the bias."""
        channels = self._channels_of(input_shape)
        self.depthwise_kernel = self._add_depthwise("depthwise_kernel", channels)
        shape = (*(1,) * self._rank, channels * self.depth_multiplier, self.filters)
        self.pointwise_kernel = self._add_kernel("pointwise_kernel", shape, "pointwise")
        self._add_bias(self.filters)

    def call(self, inputs: Any) -> Any:
        """Convolve each channel, then the channels; add, activate."""
        outputs = ops.separable_conv(inputs, self.depthwise_kernel, self.pointwise_kernel, **self._geometry())
        return self._finish(outputs)


class SeparableConv1D(BaseSeparableConv):
    """The separable convolution over time `(batch, time, channels)`; arguments as for `SeparableConv2D`."""

    _rank = 1


class SeparableConv2D(BaseSeparableConv):
    """The separable convolution over images `(batch, height, width, channels)`.

    Args:
        filters: channels of the output.
        kernel_size: the window of the depthwise convolution: a number, or one for each spatial axis.
        strides: steps: a number, or one for each spatial axis; by default 1.
        padding: `"valid"` (default) or `"same"`.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        dilation_rate: distance between the window's elements: a number, or one for each spatial axis; by default 1.
        depth_multiplier: how many depthwise kernels each channel has; by default 1.
        activation: function of the output, or its name.
        use_bias: whether there is a bias.
        depthwise_initializer: first values of the depthwise kernel `(*kernel_size, channels, depth_multiplier)`.
        pointwise_initializer: first values of the kernel `(1, ..., 1, channels * depth_multiplier, filters)`.
        bias_initializer: first values of the bias `(filters,)`.
        depthwise_regularizer: penalty on the depthwise kernel.
        pointwise_regularizer: penalty on the pointwise kernel.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the output.
        depthwise_constraint: what the depthwise kernel is kept to.
        pointwise_constraint: what the pointwise kernel is kept to.
        bias_constraint: what the bias is kept to.

    Input `(batch, *space, channels)`, output `(batch, *space', filters)`; with `channels_first` the channels are
    axis 1 of both.

    Example:
        >>> import cornu
        >>> cornu.layers.SeparableConv2D(16, 3, padding="same")(cornu.Input((8, 8, 3))).shape
        (None, 8, 8, 16)
    """

    _rank = 2


SeparableConvolution1D, SeparableConvolution2D = SeparableConv1D, SeparableConv2D  # Keras's other names
