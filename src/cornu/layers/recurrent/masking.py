"""`Masking`: a mask from the values themselves."""

from typing import Any

from cornu import ops
from cornu.layers.base import Layer

__all__ = ["Masking"]


class Masking(Layer):
    """Masks the time steps at which all features are equal to a value, and sets them to 0.

    Args:
        mask_value: the value.

    Input and output `(batch, time, features)`; the output's mask is `(batch, time)`, true where a step counts.

    Example:
        >>> import cornu, numpy as np
        >>> x = np.array([[[1.0, 2.0], [9.0, 9.0]]], "float32")
        >>> layer = Masking(9.0)
        >>> np.asarray(layer(x)).tolist(), np.asarray(layer.compute_mask(x)).tolist()
        ([[[1.0, 2.0], [0.0, 0.0]]], [[True, False]])
    """

    def __init__(self, mask_value: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value
        self.supports_masking = True

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Where any feature differs from the value; a mask the input has already is replaced."""
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def call(self, inputs: Any) -> Any:
        """Set masked steps to 0."""
        inputs = ops.drop_mask(inputs)
        kept = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        return ops.where(kept, inputs, ops.zeros_like(inputs))
