"""Intersection over union of regions of classes."""

import warnings
from collections.abc import Iterable
from typing import Any

from cornu import ops
from cornu.core import dtypes
from cornu.core.config import positive_int
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, CornuWarning, ShapeError
from cornu.losses.base import matched
from cornu.metrics.base import Metric
from cornu.ops._declare import shape_of
from cornu.ops.nn import EPSILON

__all__ = ["BinaryIoU", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU"]


class _IoUBase(Metric):
    """Counts pairs of a target's and a prediction's class."""

    _direction = "up"

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name=name, dtype=dtype or "int32")
        if not positive_int(num_classes):
            raise ArgumentError(f"{self.name} got num_classes={num_classes!r}", "a whole number above zero")
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        self.sparse_y_true = sparse_y_true
        self.sparse_y_pred = sparse_y_pred
        self.axis = axis
        shape = (num_classes, num_classes)
        self.total_cm = self.add_variable(shape, "zeros", self.dtype, name="total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: class numbers, or one-hot targets; classes outside `0 .. num_classes - 1` are left out.
            y_pred: class numbers of the same shape, or scores.
            sample_weight: a scalar, or weights in the shape of the class numbers.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if not self.sparse_y_true:
            y_true = ops.argmax(y_true, axis=self.axis)
        if not self.sparse_y_pred:
            y_pred = ops.argmax(y_pred, axis=self.axis)
        y_true, y_pred = matched(ops.cast(y_true, "int32"), ops.cast(y_pred, "int32"), self.name)
        weights = self._weights(1 if sample_weight is None else sample_weight, y_true)
        inside = ops.logical_and(self._is_class(y_true), self._is_class(y_pred))
        if self.ignore_class is not None:
            inside = ops.logical_and(inside, ops.not_equal(y_true, self.ignore_class))
        pair = ops.stack([ops.where(inside, y, 0) for y in (y_true, y_pred)], axis=-1)
        weights = ops.where(inside, weights, 0)
        self.total_cm.assign_add(ops.scatter(pair, weights, (self.num_classes, self.num_classes)))

    def _is_class(self, y: Any) -> Any:
        return ops.logical_and(ops.greater_equal(y, 0), ops.less(y, self.num_classes))

    def _weights(self, sample_weight: Any, y_true: Any) -> Any:
        weights = ops.convert_to_tensor(sample_weight)
        if ops.dtype(weights) in dtypes.FLOATS and self.dtype not in dtypes.FLOATS:
            warnings.warn(
                f"{self.name} counts in {self.dtype}: fractions of sample weights are cut off. Use dtype='float32'.",
                CornuWarning,
                stacklevel=4,
            )
        shape, wanted = shape_of(weights), shape_of(y_true)
        sizes = [(a, b) for a, b in zip(wanted, shape) if not isinstance(a, Dim) and not isinstance(b, Dim)]
        if shape and (len(shape) != len(wanted) or any(b not in (a, 1) for a, b in sizes)):
            raise ShapeError(
                f"{self.name} got weights of shape {shape_text(shape)} for classes of shape {shape_text(wanted)}",
                "a scalar, or the same axes, each of the same size or 1",
            )
        return ops.broadcast_to(ops.cast(weights, self.dtype), wanted)


class IoU(_IoUBase):
    """The mean over some classes of `both / (true + predicted - both)`, counted over all positions.

    Args:
        num_classes: how many classes there are.
        target_class_ids: the classes to take the mean over.
        name: its name.
        dtype: dtype of the counts; int32 if left out.
        ignore_class: a class number in the targets whose positions do not count, or `None`.
        sparse_y_true: whether targets are class numbers rather than one-hot.
        sparse_y_pred: whether predictions are class numbers rather than scores.
        axis: the axis of one-hot targets or scores.

    Raises:
        ArgumentError: if a class is outside.

    Example:
        >>> metric = IoU(num_classes=2, target_class_ids=[0])
        >>> round(float(metric([0, 0, 1, 1], [0, 1, 0, 1])), 4)
        0.3333
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Iterable[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)
        self.target_class_ids = list(target_class_ids)
        if not self.target_class_ids or not all(0 <= i < num_classes for i in self.target_class_ids):
            raise ArgumentError(
                f"{self.name} got target_class_ids={self.target_class_ids}",
                f"class numbers from 0 to {num_classes - 1}",
            )

    def result(self) -> Any:
        """The mean so far, a float32 scalar; classes that do not occur are left out."""
        both = ops.diagonal(self.total_cm)
        union = ops.subtract(ops.add(ops.sum(self.total_cm, axis=0), ops.sum(self.total_cm, axis=1)), both)
        both, union = (ops.cast(ops.take(x, self.target_class_ids, axis=0), "float32") for x in (both, union))
        occurs = ops.greater(union, 1e-9)
        shares = ops.where(occurs, ops.divide(both, ops.add(union, EPSILON)), 0.0)
        return ops.divide(ops.sum(shares), ops.add(ops.sum(ops.cast(occurs, "float32")), EPSILON))


class BinaryIoU(IoU):
    """Intersection over union of yes-or-no predictions.

    Args:
        target_class_ids: which of 0 and 1 to take the mean over.
        threshold: predictions from it on count as 1.
        name: its name.
        dtype: dtype of the counts; int32 if left out.
    """

    def __init__(
        self,
        target_class_ids: Iterable[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets, 0 or 1.
            y_pred: predictions of the same shape.
            sample_weight: a scalar, or weights of the same shape.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        y_pred = ops.convert_to_tensor(y_pred, dtype="float32")
        super().update_state(y_true, ops.greater_equal(y_pred, self.threshold), sample_weight)


class MeanIoU(IoU):
    """The mean over all classes of intersection over union; arguments as for `IoU`, without `target_class_ids`."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        ids = range(num_classes)
        super().__init__(num_classes, ids, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)


class OneHotIoU(IoU):
    """`IoU` of one-hot targets and scores; arguments as for `IoU`, without `sparse_y_true`."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Iterable[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of one-hot targets and scores; arguments as for `MeanIoU`, without `sparse_y_true`."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
