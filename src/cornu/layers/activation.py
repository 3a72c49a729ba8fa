"""`Activation` and the activations that are layers of their own: `ReLU`, `LeakyReLU`, `PReLU`, `ELU`, `Softmax`."""

import warnings
from typing import Any

from cornu import activations, constraints, initializers, ops, regularizers
from cornu.core.config import Field
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, CornuWarning, ShapeError
from cornu.layers.base import InputSpec, Layer
from cornu.ops._declare import dtype_of, shape_of

__all__ = ["ELU", "Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax", "masked_softmax"]

_NOT_NEGATIVE = Field(lambda v: isinstance(v, (int, float)) and v >= 0, "a number from 0 on")
_LIMIT = Field(lambda v: v is None or (isinstance(v, (int, float)) and v >= 0), "a number from 0 on, or None")


class Activation(Layer):
    """A function applied to each element.

    Args:
        activation: a function, or the name of one in `cornu.activations`.

    Input and output `(batch, ...)`.

    Example:
        >>> import cornu
        >>> cornu.layers.Activation("relu")([-1.0, 2.0]).tolist()
        [0.0, 2.0]
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Apply the function."""
        return self.activation(inputs)


class ReLU(Layer):
    """`max(x, 0)`, and its relatives.

    Args:
        max_value: the largest value of the output, or `None`.
        negative_slope: the slope below the threshold.
        threshold: below it the output is `negative_slope * (x - threshold)`.

    Input and output `(batch, ...)`.

    Raises:
        ArgumentError: if one of them is below zero.

    Example:
        >>> import cornu
        >>> cornu.layers.ReLU(max_value=6.0)([-3.0, 2.0, 8.0]).tolist()
        [0.0, 2.0, 6.0]
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _LIMIT.check("ReLU", "max_value", max_value)
        _NOT_NEGATIVE.check("ReLU", "negative_slope", negative_slope)
        _NOT_NEGATIVE.check("ReLU", "threshold", threshold)
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Apply the function."""
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Layer):
    """`x` from 0 on, `negative_slope * x` below.

    Args:
        negative_slope: the slope below 0 (Keras 2's name, `alpha`, is understood too).

    Input and output `(batch, ...)`.

    Raises:
        ArgumentError: if the slope is below zero.
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        if "alpha" in kwargs:
            negative_slope = kwargs.pop("alpha")
            warnings.warn("LeakyReLU got `alpha`, which is now called `negative_slope`", CornuWarning, stacklevel=3)
        super().__init__(**kwargs)
        _NOT_NEGATIVE.check("LeakyReLU", "negative_slope", negative_slope)
        self.negative_slope = negative_slope
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Apply the function."""
        return activations.leaky_relu(inputs, self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        """The arguments by their present names."""
        return {key: value for key, value in super().get_config().items() if key != "alpha"}


class PReLU(Layer):
    """`x` from 0 on, `alpha * x` below, with a learned `alpha` (He et al., ICCV 2015).

    Args:
        alpha_initializer: first values of `alpha`.
        alpha_regularizer: penalty on `alpha`.
        alpha_constraint: what `alpha` is kept to.
        shared_axes: axes of the input (the batch is axis 0) along which one value is shared, e.g. `[1, 2]` for images.

    Input and output `(batch, ...)`; `alpha` has the input's sizes without the batch, 1 on shared axes.

    Raises:
        ArgumentError: if a shared axis does not exist.
        ShapeError: if an axis that is not shared has an unknown size.
    """

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        axes = shared_axes if isinstance(shared_axes, (list, tuple)) or shared_axes is None else [shared_axes]
        self.shared_axes = None if axes is None else list(axes)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make `alpha`."""
        shared = self.shared_axes or []
        for axis in shared:
            if not 1 <= axis < len(input_shape):
                raise ArgumentError(
                    f"PReLU got the shared axis {axis} and an input of shape {input_shape}",
                    f"axes from 1 to {len(input_shape) - 1}",
                )
        sizes = [1 if axis in shared else size for axis, size in enumerate(input_shape)][1:]
        if None in sizes:
            raise ShapeError(
                f"PReLU got an input of shape {input_shape}",
                "known sizes on axes that are not shared",
                f"shared_axes={[*shared, sizes.index(None) + 1]}",
            )
        self.alpha = self.add_weight(
            name="alpha",
            shape=tuple(sizes),
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )
        axes = {axis: size for axis, size in enumerate(input_shape) if axis and axis not in shared}
        self.input_spec = InputSpec(ndim=len(input_shape), axes=axes)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Apply the function."""
        below = ops.multiply(ops.negative(self.alpha), ops.relu(ops.negative(inputs)))
        return ops.add(ops.relu(inputs), below)


class ELU(Layer):
    """`x` above 0, `alpha * (exp(x) - 1)` below (Clevert et al., ICLR 2016).

    Args:
        alpha: minus the limit far below 0.

    Input and output `(batch, ...)`.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Apply the function."""
        return activations.elu(inputs, self.alpha)


class Softmax(Layer):
    """`exp(x) / sum(exp(x))` along an axis.

    Args:
        axis: the axis or axes that sum to 1.

    Called with `(inputs, mask=None)`: a mask that broadcasts to the inputs is true (above 0.5) where an element takes
    part; the others give 0, and so does all of an axis where none takes part.

    Input and output `(batch, ...)`.

    Raises:
        ShapeError: if the mask does not broadcast to the inputs.

    Example:
        >>> import cornu
        >>> cornu.layers.Softmax()([[1.0, 1.0, 5.0]], mask=[[True, True, False]]).tolist()
        [[0.5, 0.5, 0.0]]
    """

    def __init__(self, axis: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Apply the function where the mask holds."""
        return masked_softmax(inputs, mask, self.axis)


def masked_softmax(inputs: Any, mask: Any, axis: Any) -> Any:
    """A softmax among the elements where a mask holds; the others give 0.

    Args:
        inputs: float array.
        mask: array that broadcasts to it, boolean or taken as `mask > 0.5`; `None` for all.
        axis: the axis or axes that sum to 1.

    Returns:
        array of the shape of `inputs`.

    Raises:
        ShapeError: if the mask does not broadcast to the inputs.
    """
    if mask is None:
        return ops.softmax(inputs, axis=axis)
    _check_mask(shape_of(inputs), shape_of(mask))
    if dtype_of(mask) != "bool":
        mask = ops.greater(mask, 0.5)
    # Far below every logit, yet finite: an axis that is masked throughout gives numbers, which are set to 0 below.
    far_below = -3e4 if dtype_of(inputs) == "float16" else -1e9
    return ops.where(mask, ops.softmax(ops.where(mask, inputs, far_below), axis=axis), 0.0)


def _check_mask(inputs: Any, mask: Any) -> None:
    pairs = zip(reversed(mask), reversed(inputs), strict=False)
    known = [(m, i) for m, i in pairs if not isinstance(m, Dim) and not isinstance(i, Dim)]
    if len(mask) > len(inputs) or any(m not in (1, i) for m, i in known):
        raise ShapeError(
            f"a softmax of inputs {shape_text(inputs)} got a mask {shape_text(mask)}",
            "a mask that broadcasts to the inputs: each size 1 or that of the inputs, counted from the last axis",
            "give the mask its missing axes (cornu.ops.expand_dims), or call on cornu.ops.drop_mask(x)",
        )
