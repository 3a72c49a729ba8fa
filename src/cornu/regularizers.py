"""Penalties on the values of weights or outputs, added to the loss."""

import math
from typing import Any

from cornu import ops
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.family import Family

__all__ = [
    "L1", "L1L2", "L2", "OrthogonalRegularizer", "Regularizer", "deserialize", "get", "l1", "l1_l2", "l2",
    "orthogonal_regularizer", "serialize",
]  # fmt: skip


class Regularizer(Configurable):
    """Base of regularizers: a function of a value that gives a penalty, a scalar.

    Example:
        >>> class Largest(Regularizer):
        ...     def __call__(self, x):
        ...         return ops.max(ops.abs(x))
        >>> float(Largest()(ops.convert_to_tensor([1.0, -3.0])))
        3.0
    """

    def __call__(self, x: Any) -> Any:
        """The penalty."""
        return 0.0


def _factor(value: Any, name: str) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ArgumentError(f"a regularizer got {name}={value!r}", "a finite number, zero or above")
    return float(value)


def _absolute(factor: float, x: Any) -> Any:
    return ops.multiply(ops.cast(factor, ops.dtype(x)), ops.sum(ops.abs(x)))


def _squared(factor: float, x: Any) -> Any:
    return ops.multiply(ops.cast(factor, ops.dtype(x)), ops.sum(ops.multiply(x, x)))


class L1(Regularizer):
    """`l1 * sum(abs(x))`.

    Args:
        l1: the factor, zero or above.
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _factor(0.01 if l1 is None else l1, "l1")

    def __call__(self, x: Any) -> Any:
        """The penalty."""
        return _absolute(self.l1, x)


class L2(Regularizer):
    """`l2 * sum(x * x)`.

    Args:
        l2: the factor, zero or above.

    Example:
        >>> float(L2(0.5)(ops.convert_to_tensor([1.0, 3.0])))
        5.0
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _factor(0.01 if l2 is None else l2, "l2")

    def __call__(self, x: Any) -> Any:
        """The penalty."""
        return _squared(self.l2, x)


class L1L2(Regularizer):
    """`l1 * sum(abs(x)) + l2 * sum(x * x)`.

    Args:
        l1: the first factor, zero or above.
        l2: the second factor.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = _factor(0.0 if l1 is None else l1, "l1")
        self.l2 = _factor(0.0 if l2 is None else l2, "l2")

    def __call__(self, x: Any) -> Any:
        """The penalty."""
        return ops.add(_absolute(self.l1, x), _squared(self.l2, x))


class OrthogonalRegularizer(Regularizer):
    """The mean absolute cosine between the rows (or columns) of a matrix, times a factor.

    Args:
        factor: the factor, zero or above.
        mode: `"rows"` or `"columns"`.

    Raises:
        ArgumentError: for arguments outside these limits.
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise ArgumentError(f"OrthogonalRegularizer got mode={mode!r}", "'rows' or 'columns'")
        self.factor = _factor(factor, "factor")
        self.mode = mode

    def __call__(self, x: Any) -> Any:
        """The penalty of a matrix.

        Raises:
            ShapeError: if `x` does not have two axes.
        """
        if len(ops.shape(x)) != 2:
            raise ShapeError(f"OrthogonalRegularizer got shape {ops.shape(x)}", "a matrix")
        axis = 1 if self.mode == "rows" else 0
        size = ops.shape(x)[1 - axis]
        norms = ops.sqrt(ops.sum(ops.multiply(x, x), axis=axis, keepdims=True))
        unit = ops.divide(x, ops.maximum(norms, 1e-7))  # Keras's fuzz factor
        other = ops.transpose(unit)
        cosines = ops.matmul(unit, other) if axis == 1 else ops.matmul(other, unit)
        apart = ops.not_equal(ops.expand_dims(ops.arange(size), 1), ops.arange(size))
        total = ops.sum(ops.where(apart, ops.abs(cosines), ops.zeros_like(cosines)))
        count = ops.cast(ops.size_array(size), ops.dtype(x))
        return ops.divide(ops.multiply(self.factor, total), ops.multiply(count, ops.subtract(count, 1.0)))


# Keras's other names.
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer

FAMILY = Family(
    "regularizer",
    "keras.regularizers",
    [Regularizer, L1, L2, L1L2, OrthogonalRegularizer],
    aliases={"l1l2": L1L2},
)
get, serialize, deserialize = FAMILY.get, FAMILY.serialize, FAMILY.deserialize
