"""F-scores: precision and recall in one number."""

from typing import Any

from cornu import ops
from cornu.core.config import one_of
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.losses.base import fit_weights, matched
from cornu.metrics.base import Metric
from cornu.ops._declare import shape_of
from cornu.ops.nn import EPSILON

__all__ = ["F1Score", "FBetaScore"]


class FBetaScore(Metric):
    """The weighted harmonic mean of precision and recall.

    Args:
        average: `None` (a score for each class), `"micro"` (all classes counted together), `"macro"` (the mean over
            classes), or `"weighted"` (the mean weighted by how often a class occurs).
        beta: above 0; the larger, the more recall counts.
        threshold: above 0, up to 1: predictions above it count as 1. `None`: the largest of each sample does.
        name: its name.
        dtype: dtype of the result.

    Raises:
        ArgumentError: for arguments outside.

    Example:
        >>> metric = FBetaScore(beta=2.0, threshold=0.5)
        >>> y_true, y_pred = [[1, 1, 1], [1, 0, 0], [1, 1, 0]], [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0]]
        >>> [round(float(x), 4) for x in metric(y_true, y_pred)]
        [0.3846, 0.9091, 0.8333]
    """

    _direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        one_of(None, "micro", "macro", "weighted").check(type(self).__name__, "average", average)
        if isinstance(beta, bool) or not isinstance(beta, (int, float)) or beta <= 0:
            raise ArgumentError(f"{type(self).__name__} got beta={beta!r}", "a number above 0")
        if threshold is not None and (not isinstance(threshold, (int, float)) or not 0 < threshold <= 1):
            raise ArgumentError(f"{type(self).__name__} got threshold={threshold!r}", "above 0, up to 1; or None")
        self.average = average
        self.beta = beta
        self.threshold = threshold
        self._axis = None if average == "micro" else 0
        self._built = False

    def _build(self, y_true_shape: tuple[Any, ...], y_pred_shape: tuple[Any, ...]) -> None:
        if len(y_pred_shape) != 2 or isinstance(y_pred_shape[1], Dim):
            raise ShapeError(
                f"{self.name} got y_pred of shape {shape_text(y_pred_shape)}",
                "(batch, classes), the number of classes known",
                "give both an axis of classes: y.reshape((-1, 1))" if len(y_pred_shape) == 1 else None,
            )
        size = () if self.average == "micro" else (y_pred_shape[1],)
        self.true_positives = self.add_variable(size, "zeros", self.dtype, name="true_positives")
        self.false_positives = self.add_variable(size, "zeros", self.dtype, name="false_positives")
        self.false_negatives = self.add_variable(size, "zeros", self.dtype, name="false_negatives")
        self.intermediate_weights = self.add_variable(size, "zeros", self.dtype, name="intermediate_weights")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets `(batch, classes)`, 0 or 1.
            y_pred: predictions `(batch, classes)`.
            sample_weight: a scalar, or `(batch,)`.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        y_true = ops.convert_to_tensor(y_true, self.dtype)
        y_pred = ops.convert_to_tensor(y_pred, self.dtype)
        fix = "class numbers as targets need cornu.ops.one_hot(y_true, classes)"
        y_true, y_pred = matched(y_true, y_pred, self.name, fix)
        if not self._built:
            self._build(shape_of(y_true), shape_of(y_pred))
        if self.threshold is None:
            largest = ops.greater_equal(y_pred, ops.max(y_pred, axis=-1, keepdims=True))
            chosen = ops.logical_and(largest, ops.greater(ops.abs(y_pred), 1e-9))
        else:
            chosen = ops.greater(y_pred, self.threshold)
        chosen = ops.cast(chosen, self.dtype)
        weight = self._weight(sample_weight, y_true)

        def total(x: Any) -> Any:
            return ops.sum(x if weight is None else ops.multiply(x, weight), axis=self._axis)

        self.true_positives.assign_add(total(ops.multiply(chosen, y_true)))
        self.false_positives.assign_add(total(ops.multiply(chosen, ops.subtract(1, y_true))))
        self.false_negatives.assign_add(total(ops.multiply(ops.subtract(1, chosen), y_true)))
        self.intermediate_weights.assign_add(total(y_true))

    def _weight(self, sample_weight: Any, y_true: Any) -> Any:
        if sample_weight is None:
            return None
        weight = ops.convert_to_tensor(sample_weight, dtype=self.dtype)
        shape = shape_of(weight)
        if len(shape) == 1:
            weight = ops.expand_dims(weight, 1)
        elif len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            raise ShapeError(f"{self.name} got weights of shape {shape_text(shape)}", "a scalar, or (batch,)")
        return ops.broadcast_to(fit_weights(y_true, weight, "targets")[1], shape_of(y_true))

    def result(self) -> Any:
        """The score so far: a scalar, or `(classes,)` without an average."""
        if not self._built:
            raise ArgumentError(f"{self.name} has no result yet", "update_state before result")
        tp = self.true_positives
        precision = ops.divide(tp, ops.add(ops.add(tp, self.false_positives), EPSILON))
        recall = ops.divide(tp, ops.add(ops.add(tp, self.false_negatives), EPSILON))
        square = self.beta**2
        below = ops.add(ops.add(ops.multiply(precision, square), recall), EPSILON)
        score = ops.multiply(ops.divide(ops.multiply(precision, recall), below), 1 + square)
        if self.average == "weighted":
            weights = self.intermediate_weights
            score = ops.sum(ops.multiply(score, ops.divide(weights, ops.add(ops.sum(weights), EPSILON))))
        elif self.average is not None:
            score = ops.mean(score)
        return score


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall.

    Args:
        average: as for `FBetaScore`.
        threshold: as for `FBetaScore`.
        name: its name.
        dtype: dtype of the result.
    """

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str = "f1_score", dtype: Any = None
    ) -> None:
        super().__init__(average=average, beta=1.0, threshold=threshold, name=name, dtype=dtype)
