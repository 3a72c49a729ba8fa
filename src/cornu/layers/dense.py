"""`Dense` and `EinsumDense`: products with a matrix of weights."""

from typing import Any

from cornu import activations, constraints, initializers, ops, regularizers
from cornu.core.config import POSITIVE
from cornu.core.errors import ArgumentError
from cornu.layers.base import InputSpec, Layer
from cornu.ops.contraction import linear

__all__ = ["Dense"]


class Dense(Layer):
    """`activation(inputs @ kernel + bias)`.

    Args:
        units: size of the output's last axis.
        activation: function of the output, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(features, units)`.
        bias_initializer: first values of the bias `(units,)`.
        kernel_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the output.
        kernel_constraint: what the kernel is kept to.
        bias_constraint: what the bias is kept to.

    Input `(batch, ..., features)`, output `(batch, ..., units)`.

    Example:
        >>> import cornu
        >>> cornu.layers.Dense(4, activation="relu")(cornu.Input((3,))).shape
        (None, 4)
    """

    def __init__(
        self,
        units: int,
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
        POSITIVE.check("Dense", "units", units)
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.input_spec = InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make the kernel, and the bias."""
        features = input_shape[-1]
        if features is None:
            raise ArgumentError(
                f"Dense got an input of shape {input_shape}, whose last size is unknown",
                "a known last size, from which the kernel is made",
                "give it in Input(shape=(..., features))",
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = InputSpec(min_ndim=2, axes={-1: features})
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Multiply, add, activate."""
        if self.bias is None:
            return self.activation(ops.matmul(inputs, self.kernel))
        return self.activation(linear(inputs, self.kernel, self.bias))
