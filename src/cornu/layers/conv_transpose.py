"""Transposed convolutions, which enlarge space as strided convolutions shrink it."""

from typing import Any

from cornu import constraints, initializers, ops, regularizers
from cornu.core.config import POSITIVE
from cornu.core.errors import ArgumentError
from cornu.layers.conv import Convolving, padding_of, per_axis

__all__ = [
    "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "Convolution1DTranspose",
    "Convolution2DTranspose", "Convolution3DTranspose",
]  # fmt: skip


class BaseConvTranspose(Convolving):
    """What the transposed convolutions share, whatever the number of spatial axes."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        owner = type(self).__name__
        POSITIVE.check(owner, "filters", filters)
        self.filters = int(filters)
        self._set_window(kernel_size, strides, padding_of(owner, padding), data_format, dilation_rate)
        self._refuse_strides_with_dilation()
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = per_axis(owner, "output_padding", output_padding, self._rank, least=0)
            if any(more >= stride for more, stride in zip(self.output_padding, self.strides, strict=True)):
                raise ArgumentError(
                    f"{owner} got output_padding={self.output_padding} and strides={self.strides}",
                    "an output_padding below the stride on each axis",
                )
        self._set_output(activation, use_bias, bias_initializer, bias_regularizer, bias_constraint)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def build(self, input_shape: Any) -> None:
        """Make the kernel, and the bias."""
        channels = self._channels_of(input_shape)
        self.kernel = self._add_kernel("kernel", (*self.kernel_size, self.filters, channels), "kernel")
        self._add_bias(self.filters)

    def call(self, inputs: Any) -> Any:
        """Convolve, add, activate."""
        geometry = self._geometry()
        return self._finish(ops.conv_transpose(inputs, self.kernel, output_padding=self.output_padding, **geometry))


class Conv1DTranspose(BaseConvTranspose):
    """The transposed convolution over time `(batch, time, channels)`; arguments as for `Conv2DTranspose`."""

    _rank = 1


class Conv2DTranspose(BaseConvTranspose):
    """The transposed convolution over images `(batch, height, width, channels)`.

    Args:
        filters: channels of the output.
        kernel_size: the window: a number, or one for each spatial axis.
        strides: how far apart the inputs are put: a number, or one for each spatial axis; by default 1.
        padding: `"valid"` (default): size `(size - 1) * stride + max(reach, stride)`, where `reach` is the window's
            extent, `(kernel_size - 1) * dilation_rate + 1`; `"same"`: `size * stride`.
        output_padding: elements more at the end, below the strides: a number, or one for each spatial axis, counted
            from the size `(size - 1) * stride + reach` (`"valid"`) or `(size - 1) * stride + reach % 2` (`"same"`);
            `None` (default) for the sizes above.
        data_format: `"channels_last"` (default) or `"channels_first"`.
        dilation_rate: distance between the window's elements: a number, or one for each spatial axis; by default 1.
        activation: function of the output, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(*kernel_size, filters, channels)`.
        bias_initializer: first values of the bias `(filters,)`.
        kernel_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the output.
        kernel_constraint: what the kernel is kept to.
        bias_constraint: what the bias is kept to.

    Input `(batch, *space, channels)`, output `(batch, *space', filters)`; with `channels_first` the channels are
    axis 1 of both.

    Raises:
        ArgumentError: for numbers out of their limits, or strides together with a dilation.

    Example:
        >>> import cornu
        >>> cornu.layers.Conv2DTranspose(8, 3, strides=2, padding="same")(cornu.Input((7, 7, 16))).shape
        (None, 14, 14, 8)
    """

    _rank = 2


class Conv3DTranspose(BaseConvTranspose):
    """The transposed convolution over volumes `(batch, depth, height, width, channels)`; as `Conv2DTranspose`."""

    _rank = 3


# Keras's other names
Convolution1DTranspose, Convolution2DTranspose = Conv1DTranspose, Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
