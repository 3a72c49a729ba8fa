"""Layers that give the elements another shape or order: `Flatten`, `Reshape`, `Permute`, `RepeatVector`."""

import math
from typing import Any

from cornu import ops
from cornu.core.config import POSITIVE, one_of
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError
from cornu.layers.base import InputSpec, Layer
from cornu.ops.movement import full_shape

__all__ = ["Flatten", "Permute", "RepeatVector", "Reshape"]

_DATA_FORMAT = one_of("channels_last", "channels_first")


class Flatten(Layer):
    """All axes after the batch as one.

    Args:
        data_format: `"channels_last"` (the default), or `"channels_first"`: then channels come last in the output too,
            so that both formats give the same order.

    Input `(batch, ...)`, output `(batch, features)`; `(batch, 1)` for `(batch,)`.

    Example:
        >>> import cornu
        >>> cornu.layers.Flatten()(cornu.Input((4, 5))).shape
        (None, 20)
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format or "channels_last"
        _DATA_FORMAT.check("Flatten", "data_format", self.data_format)
        self.input_spec = InputSpec(min_ndim=1)

    def call(self, inputs: Any) -> Any:
        """Join the axes."""
        sizes = ops.shape(inputs)
        rank = len(sizes)
        if self.data_format == "channels_first" and rank > 2:
            inputs = ops.transpose(inputs, (0, *range(2, rank), 1))
        return ops.reshape(inputs, (sizes[0], math.prod(sizes[1:])))


class Reshape(Layer):
    """The elements in another shape, the batch apart.

    Args:
        target_shape: sizes without the batch; one may be -1, for what is left.

    Input `(batch, ...)`, output `(batch, *target_shape)`.

    Raises:
        ArgumentError: for sizes below -1, or more than one -1.
        ShapeError: if the number of elements differs.

    Example:
        >>> import cornu
        >>> cornu.layers.Reshape((-1, 2))(cornu.Input((3, 4))).shape
        (None, 6, 2)
    """

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = (target_shape,) if hasattr(target_shape, "__index__") else tuple(target_shape)
        self.target_shape = tuple(size if isinstance(size, Dim) or size is None else int(size) for size in sizes)
        numbers = [size for size in self.target_shape if isinstance(size, int)]
        if any(size < -1 for size in numbers) or numbers.count(-1) > 1:
            raise ArgumentError(f"Reshape got target_shape={sizes}", "sizes from 0 on, and at most one -1")

    def call(self, inputs: Any) -> Any:
        """Give the elements their new shape."""
        sizes = ops.shape(inputs)
        return ops.reshape(inputs, (sizes[0], *full_shape(sizes[1:], self.target_shape)))


class Permute(Layer):
    """The axes after the batch in another order.

    Args:
        dims: for each axis of the output after the batch, the axis of the input it is, counted from 1.

    Raises:
        ArgumentError: if `dims` is not an order of 1, 2, ...

    Example:
        >>> import cornu
        >>> cornu.layers.Permute((2, 1))(cornu.Input((10, 64))).shape
        (None, 64, 10)
    """

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(f"Permute got dims={self.dims}", f"each of 1 to {len(self.dims)} once")
        self.input_spec = InputSpec(ndim=len(self.dims) + 1)

    def call(self, inputs: Any) -> Any:
        """Put the axes in order."""
        return ops.transpose(inputs, (0, *self.dims))


class RepeatVector(Layer):
    """Each vector `n` times over, along a new axis.

    Args:
        n: how often.

    Input `(batch, features)`, output `(batch, n, features)`.

    Raises:
        ArgumentError: if `n` is no whole number above zero.
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        POSITIVE.check("RepeatVector", "n", n)
        self.n = int(n)
        self.input_spec = InputSpec(ndim=2)

    def call(self, inputs: Any) -> Any:
        """Repeat the vectors."""
        batch, features = ops.shape(inputs)
        return ops.broadcast_to(ops.expand_dims(inputs, 1), (batch, self.n, features))
