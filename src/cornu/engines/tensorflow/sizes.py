"""Sizes that are known only when a graph runs: those of a user's own `tf.function` with `None` in its signature."""

from typing import Any

import tensorflow as tf

from cornu.core.dims import Dim, Size
from cornu.core.errors import ShapeError

__all__ = ["TensorSize", "resolve", "shape_vector", "sizes_of"]


class _Source(str):
    """The name of an unknown size, and where it is read: an axis of a tensor, or a scalar tensor."""

    tensor: Any
    axis: int | None


class TensorSize(Dim):
    """A size that can be computed with, and that becomes a scalar tensor where TensorFlow needs it."""

    __slots__ = ()

    @staticmethod
    def of(tensor: Any, axis: int | None = None) -> "TensorSize":
        """The size of an axis of a graph's tensor, or the size that a scalar tensor holds."""
        source = _Source(f"{tensor.name}[{'' if axis is None else axis}]@{id(tensor.graph):x}")
        source.tensor, source.axis = tensor, axis
        return TensorSize(source)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return tf.cast(resolve(self), dtype or tf.int32)


def sizes_of(value: Any) -> tuple[Size, ...]:
    """The shape of a tensor: numbers, and `TensorSize` for what is not known.

    Raises:
        ShapeError: if the number of axes is not known.
    """
    shape = value.shape
    if shape.rank is None:
        raise ShapeError(
            f"a tensor {value.name!r} of unknown rank", "a known number of axes", "tf.ensure_shape(x, ...)"
        )
    sizes = shape.as_list()
    if None not in sizes:
        return tuple(sizes)
    return tuple(TensorSize.of(value, axis) if size is None else size for axis, size in enumerate(sizes))


def resolve(size: Any) -> Any:
    """A size as a number, or as an int32 scalar tensor where it is not known yet.

    Raises:
        ShapeError: if it is an unknown of a Functional model, which no tensor gives.
    """
    if not isinstance(size, Dim):
        return size
    total: Any = 0
    for monomial, factor in size._terms.items():
        product: Any = factor
        for kind, *parts in monomial:
            value = _read(parts[0]) if kind == "name" else _OPERATIONS[kind](*map(resolve, parts))
            product = product * value
        total = total + product
    return total


def _read(source: Any) -> Any:
    if not isinstance(source, _Source):
        raise ShapeError(f"the size {source!r} has no value in a TensorFlow graph", "a size of one of its tensors")
    if source.axis is None:
        return tf.cast(source.tensor, tf.int32)
    return tf.shape(source.tensor)[source.axis]


_OPERATIONS = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": lambda a, b: tf.maximum(a, b),
    "min": lambda a, b: tf.minimum(a, b),
    "broadcast": lambda a, b: tf.where(tf.equal(a, 1), b, a),
    "exact": lambda a, b: a // b,
}


def shape_vector(shape: Any) -> Any:
    """A shape as TensorFlow takes it: numbers if all are known, else an int32 vector."""
    if not any(isinstance(size, Dim) for size in shape):
        return tuple(shape)
    return tf.stack([tf.cast(resolve(size), tf.int32) for size in shape])
