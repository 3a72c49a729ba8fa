"""`Input`: where a graph begins."""

from typing import Any

from cornu.core import dtypes
from cornu.core.dims import BATCH, Dim
from cornu.core.errors import ArgumentError, UnsupportedError
from cornu.core.spec import Spec
from cornu.graph.symbolic import SymbolicTensor, record
from cornu.layers.base import Layer

__all__ = ["Input", "InputLayer"]


class InputLayer(Layer):
    """The layer behind an `Input`; it computes nothing.

    Args:
        shape: sizes without the batch; `None` for an unknown one, a text to name it.
        batch_size: the batch's size, if it is fixed.
        dtype: dtype of the values.
        sparse: not supported.
        ragged: not supported.
        batch_shape: sizes with the batch, instead of `shape`.
        input_tensor: not supported.
        optional: whether the value may be `None`.
        name: its name, by which data is bound to it.

    Raises:
        ArgumentError: if neither or both of `shape` and `batch_shape` are given.
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if sparse or ragged or input_tensor is not None:
            raise UnsupportedError(
                "Input with sparse, ragged or tensor", "a dense input", "pad the rows and use a mask"
            )
        if (shape is None) == (batch_shape is None):
            raise ArgumentError("Input got both or neither of shape and batch_shape", "Input(shape=(28, 28, 1))")
        if isinstance(shape, int):
            raise ArgumentError(f"Input got shape={shape}", "a tuple", f"Input(shape=({shape},))")
        self.batch_shape = tuple(batch_shape) if batch_shape is not None else (batch_size, *shape)
        self.optional = optional
        self.sparse = bool(sparse)
        self.ragged = bool(ragged)
        self._values_dtype = dtypes.standardize_dtype(dtype)
        self.built = True

    @property
    def dtype(self) -> str:
        """The dtype of its values."""
        return self._values_dtype

    def call(self) -> Any:
        """There is nothing to compute."""

    def make(self) -> SymbolicTensor:
        """The symbolic tensor of the input."""
        sizes = []
        for axis, size in enumerate(self.batch_shape):
            if isinstance(size, str):
                size = Dim(size)
            elif size is None:
                size = BATCH if axis == 0 else Dim(f"{self.name}.{axis}")
            elif not isinstance(size, Dim) and (not hasattr(size, "__index__") or size < 0):
                raise ArgumentError(
                    f"Input got the size {size!r}", "a whole number, None, or a text that names an unknown"
                )
            sizes.append(size)
        spec = Spec(tuple(sizes), self._values_dtype)
        return record(self, (), {}, spec, []).outputs[0]

    def get_config(self) -> dict[str, Any]:
        """Its shape, dtype and name, as Keras writes them."""
        plain = [BATCH, *(Dim(f"{self.name}.{axis}") for axis in range(1, len(self.batch_shape)))]
        shape = tuple(
            None if isinstance(size, Dim) and size == own else size
            for size, own in zip(self.batch_shape, plain, strict=True)
        )
        found = {"batch_shape": shape, "dtype": self._values_dtype, "sparse": False, "ragged": False}
        return {**found, "name": self.name, **({"optional": True} if self.optional else {})}


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
) -> SymbolicTensor:
    """A symbolic tensor that stands for data.

    Args:
        shape: sizes without the batch; `None` for an unknown one, or a text that names it (two inputs may share the
            name).
        batch_size: the batch's size, if it is fixed.
        dtype: dtype of the data, by default the default float.
        sparse: not supported.
        ragged: not supported.
        batch_shape: sizes with the batch, instead of `shape`.
        name: its name, by which data is bound to it.
        tensor: not supported.
        optional: whether the data may be `None`.

    Returns:
        the symbolic tensor `(batch, *shape)`.

    Example:
        >>> import cornu
        >>> cornu.Input((None, 16), name="words").shape
        (None, None, 16)
    """
    return InputLayer(shape, batch_size, dtype, sparse, ragged, batch_shape, tensor, optional, name=name).make()
