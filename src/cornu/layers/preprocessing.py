"""Layers that prepare numbers: `Rescaling`, `Normalization`, `CategoryEncoding`."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cornu import ops
from cornu.core import dtypes
from cornu.core.config import POSITIVE, one_of
from cornu.core.errors import ArgumentError, DataError, DtypeError, ShapeError, UnsupportedError
from cornu.layers.base import Layer
from cornu.ops._declare import dtype_of, interpreter_of, shape_of

__all__ = ["CategoryEncoding", "Normalization", "Rescaling"]


class Rescaling(Layer):
    """`inputs * scale + offset`, as floats.

    Args:
        scale: a number, or an array that broadcasts to the input.
        offset: a number, or an array that broadcasts to the input.

    Input and output `(batch, ...)`.

    Example:
        >>> import cornu
        >>> cornu.layers.Rescaling(0.5)([0, 51]).tolist()
        [0.0, 25.5]
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Multiply and add."""
        dtype = self.compute_dtype
        scaled = ops.multiply(ops.cast(inputs, dtype), ops.cast(self.scale, dtype))
        return ops.add(scaled, ops.cast(self.offset, dtype))


class Normalization(Layer):
    """Inputs shifted and scaled to mean 0 and variance 1: `(x - mean) / sqrt(variance)`.

    Mean and variance are given, or learned from data by `adapt`.

    Args:
        axis: the axis or axes with a mean and a variance for each index; `None` for one of each in all.
        mean: the mean, which broadcasts to the sizes of those axes; `None` to learn it.
        variance: the variance; given if and only if `mean` is.
        invert: whether to turn normalized inputs back: `x * sqrt(variance) + mean`.

    Input and output `(batch, ...)`.

    Raises:
        ArgumentError: if only one of mean and variance is given, or their shapes do not fit.
        ShapeError: if the size of a kept axis is unknown.

    Example:
        >>> import cornu, numpy as np
        >>> layer = cornu.layers.Normalization()
        >>> layer.adapt(np.array([[0.0, 7.0], [2.0, 9.0]]))
        >>> layer(np.array([[0.0, 9.0]])).tolist()
        [[-1.0, 1.0]]
    """

    def __init__(
        self, axis: Any = -1, mean: Any = None, variance: Any = None, invert: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis.__index__(),) if hasattr(axis, "__index__") else tuple(axis)
        if (mean is None) != (variance is None):
            raise ArgumentError(f"Normalization got mean={mean!r} and variance={variance!r}", "both, or neither")
        if mean is not None and (np.shape(mean) != np.shape(variance) or np.ndim(mean) > len(self.axis)):
            shapes = f"a mean of shape {np.shape(mean)} and a variance of shape {np.shape(variance)}"
            raise ArgumentError(
                f"Normalization(axis={self.axis}) got {shapes}", f"equal shapes of at most {len(self.axis)} axes"
            )
        self.input_mean = mean
        self.input_variance = variance
        self.invert = invert
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make room for the statistics, or bring those given to the input's shape."""
        rank = len(input_shape)
        if any(not -rank <= axis < rank for axis in self.axis):
            raise ArgumentError(f"Normalization(axis={self.axis}) got an input of shape {input_shape}", "axes it has")
        kept = sorted({axis % rank for axis in self.axis})
        if any(input_shape[axis] is None for axis in kept):
            raise ShapeError(
                f"Normalization(axis={self.axis}) got an input of shape {input_shape}",
                "known sizes on these axes",
                "give them in Input(shape=...), or axis=None",
            )
        self._kept_axes = tuple(kept)
        self._kept_sizes = tuple(int(input_shape[axis]) for axis in kept)
        self._broadcast = tuple(int(input_shape[axis]) if axis in kept else 1 for axis in range(rank))
        if self.input_mean is None:
            own = {"shape": self._kept_sizes, "trainable": False}
            self.adapt_mean = self.add_weight(name="mean", initializer="zeros", **own)
            self.adapt_variance = self.add_weight(name="variance", initializer="ones", **own)
            self.count = self.add_weight(name="count", shape=(), dtype="int32", initializer="zeros", trainable=False)
        else:
            self._given = [self._spread(value) for value in (self.input_mean, self.input_variance)]
        self.built = True

    def _spread(self, value: Any) -> np.ndarray:
        """A given statistic in the shape of the kept axes, 1 on the others."""
        array = np.asarray(value, dtypes.numpy_dtype(dtypes.floatx()))
        shape = [1] * len(self._broadcast)
        for axis, size in zip(reversed(self._kept_axes), reversed(array.shape), strict=False):
            shape[axis] = size
        try:
            return np.broadcast_to(array.reshape(shape), self._broadcast)
        except ValueError:
            expected = f"a shape that broadcasts to {self._kept_sizes}, the sizes of axes {self.axis}"
            raise ArgumentError(f"Normalization got a mean or variance of shape {array.shape}", expected) from None

    def _statistics(self) -> tuple[Any, Any]:
        if not self.built:
            raise ArgumentError("the statistics of a Normalization that is not built", "adapt(data), or a call, first")
        if self.input_mean is not None:
            found = self._given
        else:
            found = [ops.reshape(value, self._broadcast) for value in (self.adapt_mean, self.adapt_variance)]
        mean, variance = (ops.cast(value, self.compute_dtype) for value in found)
        return mean, variance

    @property
    def mean(self) -> Any:
        """The mean, in a shape that broadcasts to the input; `None` before `build`."""
        return self._statistics()[0] if self.built else None

    @property
    def variance(self) -> Any:
        """The variance, in a shape that broadcasts to the input; `None` before `build`."""
        return self._statistics()[1] if self.built else None

    def call(self, inputs: Any) -> Any:
        """Shift and scale."""
        inputs = ops.cast(inputs, self.compute_dtype)
        mean, variance = self._statistics()
        spread = ops.maximum(ops.sqrt(variance), 1e-7)  # Keras's default epsilon
        if self.invert:
            return ops.add(mean, ops.multiply(inputs, spread))
        return ops.divide(ops.subtract(inputs, mean), spread)

    def adapt(self, data: Any) -> None:
        """Learn mean and variance from data; what was learned before is forgotten.

        They are gathered on the host in float64, batch by batch (Chan et al., "Algorithms for computing the sample
        variance", 1983), so that large and integer data lose nothing.

        Args:
            data: an array `(batch, ...)`, or an iterable of such batches; of a batch `(x, y, ...)` the first is taken.

        Raises:
            ArgumentError: if mean and variance were given.
            DataError: if there is no data, or a batch does not fit the first.
        """
        if self.input_mean is not None:
            raise ArgumentError("adapt of a Normalization with a given mean and variance", "a layer without them")
        count, mean, total = 0, np.zeros(()), np.zeros(())
        for batch in _batches(data):
            if not self.built:
                rank = batch.ndim
                keeps_batch = any(axis % rank == 0 for axis in self.axis if -rank <= axis < rank)
                self._build_with({"inputs": batch.shape if keeps_batch else (None, *batch.shape[1:])})
            fits = batch.ndim == len(self._broadcast)
            if not fits or tuple(batch.shape[axis] for axis in self._kept_axes) != self._kept_sizes:
                expected = f"{len(self._broadcast)} axes, of sizes {self._kept_sizes} on axes {self._kept_axes}"
                raise DataError(f"adapt got a batch of shape {batch.shape}", expected)
            reduced = tuple(axis for axis in range(batch.ndim) if axis not in self._kept_axes)
            here = math.prod(batch.shape[axis] for axis in reduced)
            if not here:
                continue
            for part in _slices(batch, reduced):
                wide = np.asarray(part, np.float64)
                size = math.prod(part.shape[axis] for axis in reduced)
                part_mean = wide.mean(axis=reduced)
                difference = part_mean - mean
                total = total + wide.var(axis=reduced) * size + difference**2 * (count * size / (count + size))
                mean = mean + difference * (size / (count + size))
                count += size
        if not count:
            raise DataError("adapt got no data", "an array with elements, or an iterable of such arrays")
        self.adapt_mean.assign(mean.astype(self.variable_dtype))
        self.adapt_variance.assign((total / count).astype(self.variable_dtype))

    def get_config(self) -> dict[str, Any]:
        """The arguments; mean and variance as they were given."""
        given = {"mean": self.input_mean, "variance": self.input_variance}
        return {**super().get_config(), **{k: None if v is None else np.asarray(v).tolist() for k, v in given.items()}}


def _is_whole(data: Any) -> bool:
    return interpreter_of(data) is not None or (hasattr(data, "shape") and hasattr(data, "__array__"))


def _batches(data: Any) -> Iterator[np.ndarray]:
    """The batches of a data set, as host arrays."""
    if isinstance(data, np.ndarray) or _is_whole(data):
        yield np.asarray(ops.convert_to_numpy(data))
        return
    if not hasattr(data, "__iter__") and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        data = map(data.__getitem__, range(len(data)))
    elif not hasattr(data, "__iter__"):
        raise DtypeError(f"adapt got {data!r:.60} ({type(data).__name__})", "an array, or an iterable of arrays")
    for batch in data:
        batch = batch[0] if isinstance(batch, tuple) and batch else batch
        if not isinstance(batch, np.ndarray) and not _is_whole(batch):
            raise DtypeError(
                f"adapt got a batch {batch!r:.60} ({type(batch).__name__})",
                "batches that are arrays",
                "adapt(np.asarray(data)) for numbers in nested lists",
            )
        yield np.asarray(ops.convert_to_numpy(batch))


def _slices(batch: np.ndarray, reduced: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An array in parts of a few million elements, cut along the batch if it is reduced."""
    if 0 not in reduced:
        yield batch
        return
    step = max(1, 2**22 // max(1, batch.size // len(batch)))
    for start in range(0, len(batch), step):
        yield batch[start : start + step]


class CategoryEncoding(Layer):
    """Whole numbers as vectors of zeros and ones, or of counts.

    Args:
        num_tokens: how many numbers there are, from 0 on; others are left out.
        output_mode: `"one_hot"` for a vector per number, `"multi_hot"` for one vector per row that marks all its
            numbers, `"count"` for one that counts them.
        sparse: not supported; only `False`.

    Called with `(inputs, count_weights=None)`: weights in the inputs' shape, for `"count"`.

    Input `(batch, ...)`; output `(batch, num_tokens)`, with one more axis for `"one_hot"` (a last axis of size 1 is
    replaced).

    Raises:
        ArgumentError: if an argument is outside its limits.
        UnsupportedError: if `sparse`.

    Example:
        >>> import cornu
        >>> cornu.layers.CategoryEncoding(4, "multi_hot")([[0, 1], [1, 3]]).tolist()
        [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    """

    def __init__(
        self, num_tokens: int | None = None, output_mode: str = "multi_hot", sparse: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        POSITIVE.check("CategoryEncoding", "num_tokens", num_tokens)
        output_mode = "multi_hot" if output_mode == "binary" else output_mode  # Keras's old name
        one_of("multi_hot", "one_hot", "count").check("CategoryEncoding", "output_mode", output_mode)
        if sparse:
            raise UnsupportedError("CategoryEncoding with sparse=True", "a dense output")
        self.num_tokens = int(num_tokens or 0)
        self.output_mode = output_mode
        self.sparse = sparse
        self.autocast = False  # numbers given as floats keep their precision

    def call(self, inputs: Any, count_weights: Any = None) -> Any:
        """Encode."""
        if count_weights is not None and self.output_mode != "count":
            raise ArgumentError(f"CategoryEncoding({self.output_mode!r}) got count_weights", "output_mode='count'")
        inputs = inputs if shape_of(inputs) else ops.expand_dims(inputs, -1)
        inputs = inputs if dtype_of(inputs) in ("int32", "int64") else ops.cast(inputs, "int32")
        dtype, tokens = self.compute_dtype, self.num_tokens
        if self.output_mode == "multi_hot":
            return ops.multi_hot(inputs, tokens, dtype=dtype)
        sizes = ops.shape(inputs)
        if self.output_mode == "one_hot":
            single = len(sizes) > 1 and isinstance(sizes[-1], int) and sizes[-1] == 1
            return ops.one_hot(ops.squeeze(inputs, -1) if single else inputs, tokens, dtype=dtype)
        hot = ops.one_hot(inputs, tokens, dtype=dtype)
        if count_weights is not None:
            hot = ops.multiply(hot, ops.expand_dims(ops.cast(count_weights, dtype), -1))
        return ops.sum(hot, axis=1 if len(sizes) > 1 else 0)
