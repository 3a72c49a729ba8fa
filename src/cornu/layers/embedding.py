"""`Embedding`: a row of weights for each whole number."""

import warnings
from typing import Any

from cornu import constraints, initializers, ops, regularizers
from cornu.core import dtypes
from cornu.core.config import POSITIVE
from cornu.core.errors import CornuWarning
from cornu.layers.base import Layer
from cornu.ops._declare import dtype_of
from cornu.ops.indexing import gather

__all__ = ["Embedding"]


class Embedding(Layer):
    """A row of weights for each whole number (a word, a user, a class).

    Args:
        input_dim: how many rows: one more than the largest number.
        output_dim: size of a row.
        embeddings_initializer: first values of the rows `(input_dim, output_dim)`.
        embeddings_regularizer: penalty on the rows.
        embeddings_constraint: what the rows are kept to.
        mask_zero: whether 0 stands for padding: then the output has a mask that is false there.
        weights: the rows' first values, an array `(input_dim, output_dim)` (or a list of that one), instead of drawn
            ones.
        activity_regularizer: penalty on the output.

    Input: whole numbers `(batch, ...)` from 0 to `input_dim - 1` (floats lose their fraction). Output
    `(batch, ..., output_dim)`. A number outside these limits gives a row of NaN, on every engine, and never the row of
    another number.

    Example:
        >>> import cornu
        >>> cornu.layers.Embedding(1000, 64, mask_zero=True)(cornu.Input((None,), dtype="int32")).shape
        (None, None, 64)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        *,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("input_length", None) is not None:
            warnings.warn("Embedding does not need `input_length`; leave it out", CornuWarning, stacklevel=3)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        POSITIVE.check("Embedding", "input_dim", input_dim)
        POSITIVE.check("Embedding", "output_dim", output_dim)
        self.input_dim = int(input_dim)
        self.output_dim = int(output_dim)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = mask_zero
        self.supports_masking = bool(mask_zero)
        self.autocast = False  # numbers given as floats keep their precision; rows are cast after they are taken
        if weights is not None:
            self.build(None)
            self.set_weights(weights if isinstance(weights, list) and len(weights) == 1 else [weights])

    def build(self, input_shape: Any) -> None:
        """Make the rows."""
        if self.built:
            return
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Take the rows."""
        return ops.cast(gather(self.embeddings, self._positions(inputs), axis=0), self.compute_dtype)

    def _positions(self, inputs: Any) -> Any:
        """The inputs as int32; what no int32 holds becomes -1, which no row has."""
        kind = dtype_of(inputs)
        if kind in dtypes.FLOATS or kind in ("float", "int64", "uint32", "uint64"):
            inside = ops.less(inputs, self.input_dim)
            if not kind.startswith("u"):
                inside = ops.logical_and(inside, ops.greater(inputs, -1))  # not so for NaN
            return ops.where(inside, ops.cast(ops.where(inside, inputs, 0), "int32"), -1)
        return inputs if kind == "int32" else ops.cast(inputs, "int32")

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """False where the input is 0, if `mask_zero`."""
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def get_config(self) -> dict[str, Any]:
        """The arguments, without first values."""
        return {key: value for key, value in super().get_config().items() if key not in ("weights", "input_length")}
