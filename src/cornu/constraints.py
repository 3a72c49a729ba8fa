"""Limits on weights: functions that bring a value back to the nearest permitted one after each update."""

from typing import Any

from cornu import ops
from cornu.core.config import Configurable
from cornu.core.family import Family

__all__ = [
    "Constraint", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm", "deserialize", "get", "max_norm", "min_max_norm",
    "non_neg", "serialize", "unit_norm",
]  # fmt: skip

_EPSILON = 1e-7  # Keras's fuzz factor, which keeps a norm of 0 from dividing


class Constraint(Configurable):
    """Base of constraints: a function of a weight's value that gives a permitted one, of the same shape.

    Example:
        >>> class AtMostOne(Constraint):
        ...     def __call__(self, w):
        ...         return ops.minimum(w, 1.0)
        >>> AtMostOne()(ops.convert_to_tensor([0.5, 3.0])).tolist()
        [0.5, 1.0]
    """

    def __call__(self, w: Any) -> Any:
        """The permitted value."""
        return w


def _norms(w: Any, axis: Any) -> Any:
    return ops.sqrt(ops.sum(ops.multiply(w, w), axis=axis, keepdims=True))


class MaxNorm(Constraint):
    """Each vector along some axes has at most a given length.

    Args:
        max_value: the largest length.
        axis: the axis or axes along which lengths are taken: 0 for the weights into each unit of a `Dense`,
            `[0, 1, 2]` for those of a `Conv2D`.
    """

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        """The permitted value."""
        norms = _norms(w, self.axis)
        wanted = ops.minimum(ops.maximum(norms, 0.0), self.max_value)
        return ops.multiply(w, ops.divide(wanted, ops.add(norms, _EPSILON)))


class NonNeg(Constraint):
    """No element is below zero."""

    def __call__(self, w: Any) -> Any:
        """The permitted value."""
        return ops.maximum(w, 0.0)


class UnitNorm(Constraint):
    """Each vector along some axes has length 1.

    Args:
        axis: as for `MaxNorm`.
    """

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        """The permitted value."""
        return ops.divide(w, ops.add(_norms(w, self.axis), _EPSILON))


class MinMaxNorm(Constraint):
    """Each vector along some axes has a length within limits, or is moved part of the way there.

    Args:
        min_value: the smallest length.
        max_value: the largest length.
        rate: the part of the way, from 0 to 1.
        axis: as for `MaxNorm`.
    """

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0) -> None:
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        """The permitted value."""
        norms = _norms(w, self.axis)
        within = ops.minimum(ops.maximum(norms, self.min_value), self.max_value)
        wanted = ops.add(ops.multiply(self.rate, within), ops.multiply(1 - self.rate, norms))
        return ops.multiply(w, ops.divide(wanted, ops.add(norms, _EPSILON)))


# Keras's other names.
max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm

FAMILY = Family("constraint", "keras.constraints", [Constraint, MaxNorm, NonNeg, UnitNorm, MinMaxNorm])
get, serialize, deserialize = FAMILY.get, FAMILY.serialize, FAMILY.deserialize
