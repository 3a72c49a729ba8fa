"""Convolutions, and what all layers with windows over space share: the checks of their arguments."""

from typing import Any

from cornu import activations, constraints, initializers, ops, regularizers
from cornu.core.config import POSITIVE, Field, one_of
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers.base import InputSpec, Layer

__all__ = ["Conv1D", "Conv2D", "Conv3D", "Convolution1D", "Convolution2D", "Convolution3D"]

LAST, FIRST = "channels_last", "channels_first"
_DATA_FORMAT = one_of(LAST, FIRST)


# ---------------------------------------------------------------- arguments


def per_axis(owner: str, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """One whole number for each of `rank` axes, from one number or one for each.

    Args:
        owner: the layer's class, for the message.
        name: the argument's name.
        value: a number, or a list or tuple of `rank` numbers.
        rank: how many axes.
        least: the smallest number that is valid.

    Returns:
        tuple of `rank` numbers.

    Raises:
        ArgumentError: for another count, a number below `least`, or what is no whole number.
    """
    many = tuple(value) if isinstance(value, (list, tuple)) else (value,) * rank
    limits = Field(
        lambda numbers: len(numbers) == rank and all(_whole(n) and n.__index__() >= least for n in numbers),
        f"a whole number from {least} on" + (f", or {rank} of them" if rank > 1 else ""),
    )
    if not limits.valid(many):
        raise ArgumentError(f"{owner} got {name}={value!r}", limits.words)
    return tuple(int(n) for n in many)


def _whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def data_format_of(owner: str, value: Any) -> str:
    """Where channels are: `"channels_last"` (also for `None`) or `"channels_first"`.

    Raises:
        ArgumentError: for anything else.
    """
    name = LAST if value is None else value.lower() if isinstance(value, str) else value
    _DATA_FORMAT.check(owner, "data_format", name)
    return str(name)


def padding_of(owner: str, value: Any, causal: bool = False) -> str:
    """`"valid"` or `"same"`, or `"causal"` where there is a direction of time.

    Raises:
        ArgumentError: for anything else.
    """
    name = value.lower() if isinstance(value, str) else value
    one_of("valid", "same", *(("causal",) if causal else ())).check(owner, "padding", name)
    return str(name)


# ---------------------------------------------------------------- what all convolutions share


class Convolving(Layer):
    """A layer with a window that moves over space, a bias and an activation; its subclasses say what they compute."""

    # How many spatial axes.
    _rank = 0

    def _set_window(self, kernel_size: Any, strides: Any, padding: Any, data_format: Any, dilation_rate: Any) -> None:
        owner = type(self).__name__
        self.kernel_size = per_axis(owner, "kernel_size", kernel_size, self._rank)
        self.strides = per_axis(owner, "strides", strides, self._rank)
        self.padding = padding
        self.data_format = data_format_of(owner, data_format)
        self.dilation_rate = per_axis(owner, "dilation_rate", dilation_rate, self._rank)
        self.input_spec = InputSpec(min_ndim=self._rank + 2)

    def _refuse_strides_with_dilation(self) -> None:
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                f"{type(self).__name__} got strides={self.strides} and dilation_rate={self.dilation_rate}",
                "one of them 1 (Keras's rule)",
            )

    def _set_output(
        self, activation: Any, use_bias: Any, bias_initializer: Any, bias_regularizer: Any, bias_constraint: Any
    ) -> None:
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias_constraint = constraints.get(bias_constraint)

    def _channels_of(self, input_shape: Any) -> int:
        """The number of channels of the input, which every later input must have."""
        axis = -1 if self.data_format == LAST else 1
        channels = input_shape[axis]
        if channels is None:
            raise ShapeError(
                f"{type(self).__name__} got an input of shape {input_shape}, whose channels (axis {axis}) are unknown",
                "a known number of channels",
                "give it in Input(shape=...)",
            )
        self.input_spec = InputSpec(min_ndim=self._rank + 2, axes={axis: channels})
        return int(channels)

    def _add_kernel(self, name: str, shape: tuple[int, ...], kind: str) -> Any:
        """A kernel, with the initializer, regularizer and constraint of the arguments that begin with `kind`."""
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=getattr(self, f"{kind}_initializer"),
            regularizer=getattr(self, f"{kind}_regularizer"),
            constraint=getattr(self, f"{kind}_constraint"),
        )

    def _add_bias(self, size: int) -> None:
        self.bias = self._add_kernel("bias", (size,), "bias") if self.use_bias else None
        self.built = True

    def _geometry(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
        }

    def _finish(self, outputs: Any) -> Any:
        """Add the bias, activate."""
        if self.bias is not None:
            bias = self.bias
            if self.data_format == FIRST:
                bias = ops.reshape(bias, (*bias.shape, *(1,) * self._rank))
            outputs = ops.add(outputs, bias)
        return self.activation(outputs)


# ---------------------------------------------------------------- convolutions


class BaseConv(Convolving):
    """What the convolutions share, whatever the number of spatial axes."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
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
        POSITIVE.check(owner, "groups", groups)
        if filters % groups:
            raise ArgumentError(f"{owner} got filters={filters} and groups={groups}", "groups that divide the filters")
        self.filters = int(filters)
        self.groups = int(groups)
        padding = padding_of(owner, padding, causal=self._rank == 1)
        self._set_window(kernel_size, strides, padding, data_format, dilation_rate)
        self._refuse_strides_with_dilation()
        self._set_output(activation, use_bias, bias_initializer, bias_regularizer, bias_constraint)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def build(self, input_shape: Any) -> None:
        """Make the kernel, and the bias.

        Raises:
            ShapeError: if the number of channels is unknown, or the groups do not divide it.
        """
        channels = self._channels_of(input_shape)
        if channels % self.groups:
            raise ShapeError(
                f"{type(self).__name__} with groups={self.groups} got {channels} channels", "a multiple of the groups"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self._add_kernel("kernel", shape, "kernel")
        self._add_bias(self.filters)

    def call(self, inputs: Any) -> Any:
        """Convolve, add, activate."""
        geometry = self._geometry()
        if self.padding == "causal":
            before = ((self.kernel_size[0] - 1) * self.dilation_rate[0], 0)
            widths = ((0, 0), before, (0, 0)) if self.data_format == LAST else ((0, 0), (0, 0), before)
            inputs = ops.pad(inputs, widths)
            geometry["padding"] = "valid"
        return self._finish(ops.conv(inputs, self.kernel, **geometry))


class Conv1D(BaseConv):
    """The convolution over time `(batch, time, channels)`; arguments as for `Conv2D`.

    Example:
        >>> import cornu
        >>> cornu.layers.Conv1D(8, 3, padding="causal")(cornu.Input((10, 4))).shape
        (None, 10, 8)
    """

    _rank = 1


class Conv2D(BaseConv):
    """The convolution over images `(batch, height, width, channels)`.

    Args:
        filters: channels of the output.
        kernel_size: the window: a number, or one for each spatial axis.
        strides: steps: a number, or one for each spatial axis; by default 1.
        padding: `"valid"` (default), `"same"` (zeros around, as TensorFlow puts them) or, over time (`Conv1D`),
            `"causal"` (zeros before, so that no output sees what comes after it).
        data_format: `"channels_last"` (default) or `"channels_first"`.
        dilation_rate: distance between the window's elements: a number, or one for each spatial axis; by default 1.
        groups: in how many groups channels are convolved apart; divides the channels and the filters. By default 1.
        activation: function of the output, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(*kernel_size, channels / groups, filters)`.
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
        >>> cornu.layers.Conv2D(16, 3, strides=2, activation="relu")(cornu.Input((28, 28, 1))).shape
        (None, 13, 13, 16)
    """

    _rank = 2


class Conv3D(BaseConv):
    """The convolution over volumes `(batch, depth, height, width, channels)`; arguments as for `Conv2D`."""

    _rank = 3


Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D  # Keras's other names
