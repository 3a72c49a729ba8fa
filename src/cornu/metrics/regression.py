"""Errors and correlations of numbers."""

import warnings
from typing import Any

from cornu import losses, ops
from cornu.core.config import one_of
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, CornuWarning, ShapeError
from cornu.losses.base import as_pair, fit_weights, matched
from cornu.metrics.base import Metric
from cornu.metrics.means import Mean, MeanMetricWrapper
from cornu.ops._declare import ENGINE_RANK, interpreter_of, shape_of
from cornu.ops.nn import EPSILON
from cornu.ops.reduction import count

__all__ = [
    "ConcordanceCorrelation", "CosineSimilarity", "LogCoshError", "MeanAbsoluteError", "MeanAbsolutePercentageError",
    "MeanSquaredError", "MeanSquaredLogarithmicError", "PearsonCorrelation", "R2Score", "RootMeanSquaredError",
    "concordance_correlation", "pearson_correlation",
]  # fmt: skip


class MeanSquaredError(MeanMetricWrapper):
    """The mean of squared errors.

    Args:
        name: its name.
        dtype: dtype of the result.

    Example:
        >>> float(MeanSquaredError()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]))
        0.25
    """

    _direction = "down"

    def __init__(self, name: str = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_squared_error, name, dtype)


class MeanAbsoluteError(MeanMetricWrapper):
    """The mean of absolute errors; arguments as for `MeanSquaredError`."""

    _direction = "down"

    def __init__(self, name: str = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(MeanMetricWrapper):
    """The mean of absolute errors in percent of the targets; arguments as for `MeanSquaredError`."""

    _direction = "down"

    def __init__(self, name: str = "mean_absolute_percentage_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(MeanMetricWrapper):
    """The mean of squared differences of logarithms; arguments as for `MeanSquaredError`."""

    _direction = "down"

    def __init__(self, name: str = "mean_squared_logarithmic_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class RootMeanSquaredError(Mean):
    """The root of the mean of squared errors; arguments as for `MeanSquaredError`."""

    _direction = "down"

    def __init__(self, name: str = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add a batch.

        Args:
            y_true: targets.
            y_pred: predictions of the same shape.
            sample_weight: a scalar, or an array with the first axes of the predictions.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        y_true = ops.convert_to_tensor(y_true, self.dtype)
        y_true, y_pred = matched(y_true, ops.convert_to_tensor(y_pred, self.dtype), self.name)
        super().update_state(ops.square(ops.subtract(y_pred, y_true)), sample_weight)

    def result(self) -> Any:
        """The root so far, a scalar."""
        return ops.sqrt(super().result())


def _cosine(y_true: Any, y_pred: Any, axis: Any = -1) -> Any:
    """The cosine of the angle between targets and predictions (the loss is minus this)."""
    return ops.negative(losses.cosine_similarity(y_true, y_pred, axis=axis))


class CosineSimilarity(MeanMetricWrapper):
    """The mean cosine of the angle between targets and predictions: 1 is alike, -1 opposite.

    Args:
        name: its name.
        dtype: dtype of the result.
        axis: the axis of the vectors.
    """

    _direction = "up"

    def __init__(self, name: str = "cosine_similarity", dtype: Any = None, axis: Any = -1) -> None:
        super().__init__(_cosine, name, dtype, axis=axis)
        self.axis = axis


class LogCoshError(MeanMetricWrapper):
    """The mean of `log(cosh(error))`; arguments as for `MeanSquaredError`."""

    _direction = "down"

    def __init__(self, name: str = "logcosh", dtype: Any = None) -> None:
        super().__init__(losses.log_cosh, name, dtype)


def pearson_correlation(y_true: Any, y_pred: Any, axis: Any = -1) -> Any:
    """Pearson's correlation of targets and predictions along an axis, from -1 to 1; NaN where either is constant.

    Args:
        y_true: targets.
        y_pred: predictions of the same shape.
        axis: the axis to correlate along.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "pearson_correlation")
    scaled = []
    for y in (y_true, y_pred):
        centred = ops.subtract(y, ops.mean(y, axis=axis, keepdims=True))
        scaled.append(ops.divide(centred, ops.std(centred, axis=axis, keepdims=True)))
    return ops.mean(ops.multiply(*scaled), axis=axis)


def concordance_correlation(y_true: Any, y_pred: Any, axis: Any = -1) -> Any:
    """Lin's concordance of targets and predictions along an axis: correlation that also asks for equal mean and spread.

    Source: Lin 1989, https://doi.org/10.2307/2532051

    Args:
        y_true: targets.
        y_pred: predictions of the same shape.
        axis: the axis to correlate along.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "concordance_correlation")
    mean_true, mean_pred = (ops.mean(y, axis=axis, keepdims=True) for y in (y_true, y_pred))
    spread = ops.add(ops.var(y_true, axis=axis, keepdims=True), ops.var(y_pred, axis=axis, keepdims=True))
    norm = ops.add(ops.add(spread, ops.square(ops.subtract(mean_true, mean_pred))), EPSILON)
    product = ops.multiply(ops.subtract(y_true, mean_pred), ops.subtract(y_pred, mean_pred))
    return ops.mean(ops.divide(ops.multiply(product, 2.0), norm), axis=axis)


class PearsonCorrelation(MeanMetricWrapper):
    """The mean of Pearson's correlation (see `pearson_correlation`).

    Args:
        name: its name.
        dtype: dtype of the result.
        axis: the axis to correlate along.
    """

    _direction = "up"

    def __init__(self, name: str = "pearson_correlation", dtype: Any = None, axis: Any = -1) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)
        self.axis = axis


class ConcordanceCorrelation(MeanMetricWrapper):
    """The mean of Lin's concordance (see `concordance_correlation`); arguments as for `PearsonCorrelation`."""

    _direction = "up"

    def __init__(self, name: str = "concordance_correlation", dtype: Any = None, axis: Any = -1) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)
        self.axis = axis


class R2Score(Metric):
    """The share of the targets' variance that predictions explain: 1 is perfect, 0 no better than the mean.

    Args:
        class_aggregation: `"uniform_average"` (of the outputs), `"variance_weighted_average"`, or `None` (each apart).
        num_regressors: number of regressors, for the adjusted score; 0 for the plain one. With no more than that many
            targets the adjusted score is not defined, and the plain one is given.
        name: its name.
        dtype: dtype of the result.

    Raises:
        ArgumentError: for any other aggregation, or a negative number.

    Example:
        >>> metric = R2Score()
        >>> round(float(metric([[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]])), 4)
        0.5714
    """

    _direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str = "r2_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        choices = one_of(None, "uniform_average", "variance_weighted_average")
        choices.check("R2Score", "class_aggregation", class_aggregation)
        if num_regressors < 0:
            raise ArgumentError(f"R2Score got num_regressors={num_regressors}", "a whole number from 0 on")
        self.class_aggregation = class_aggregation
        self.num_regressors = num_regressors
        self.num_samples = self.add_variable((), "zeros", name="num_samples")
        self._built = False

    def _build(self, y_true_shape: tuple[Any, ...], y_pred_shape: tuple[Any, ...]) -> None:
        if len(y_pred_shape) != 2 or isinstance(y_pred_shape[1], Dim):
            raise ShapeError(
                f"{self.name} got y_pred of shape {shape_text(y_pred_shape)}",
                "(batch, units), the number of units known",
                "give both an axis of units: y.reshape((-1, 1))" if len(y_pred_shape) == 1 else None,
            )
        size = (y_pred_shape[1],)
        self.squared_sum = self.add_variable(size, "zeros", name="squared_sum")
        self.sum = self.add_variable(size, "zeros", name="sum")
        self.total_mse = self.add_variable(size, "zeros", name="residual")
        self.count = self.add_variable(size, "zeros", name="count")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets `(batch, units)`.
            y_pred: predictions `(batch, units)`.
            sample_weight: a scalar, `(batch,)`, or `(batch, units)`.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        y_true = ops.convert_to_tensor(y_true, self.dtype)
        y_true, y_pred = matched(y_true, ops.convert_to_tensor(y_pred, self.dtype), self.name)
        if not self._built:
            self._build(shape_of(y_true), shape_of(y_pred))
        weight = ops.convert_to_tensor(1 if sample_weight is None else sample_weight, dtype=self.dtype)
        if len(shape_of(weight)) == 1:
            weight = ops.expand_dims(weight, 1)
        weight = ops.broadcast_to(fit_weights(y_true, weight, "targets")[1], shape_of(y_true))
        weighted = ops.multiply(y_true, weight)
        self.sum.assign_add(ops.sum(weighted, axis=0))
        self.squared_sum.assign_add(ops.sum(ops.multiply(y_true, weighted), axis=0))
        error = ops.square(ops.subtract(y_true, y_pred))
        self.total_mse.assign_add(ops.sum(ops.multiply(error, weight), axis=0))
        self.count.assign_add(ops.sum(weight, axis=0))
        self.num_samples.assign_add(count(y_true, None))

    def result(self) -> Any:
        """The score so far: a scalar, or `(units,)` without aggregation."""
        if not self._built:
            raise ArgumentError(f"{self.name} has no result yet", "update_state before result")
        total = ops.subtract(self.squared_sum, ops.multiply(self.sum, ops.divide(self.sum, self.count)))
        score = ops.subtract(1, ops.divide(self.total_mse, total))
        score = ops.where(ops.isinf(score), 0.0, score)
        if self.class_aggregation == "uniform_average":
            score = ops.mean(score)
        elif self.class_aggregation == "variance_weighted_average":
            score = ops.divide(ops.sum(ops.multiply(total, score)), ops.sum(total))
        if self.num_regressors:
            rest = ops.subtract(self.num_samples, self.num_regressors + 1)
            usable = ops.greater(rest, 0)
            self._warn_if_not(usable)
            share = ops.divide(ops.subtract(self.num_samples, 1.0), ops.where(usable, rest, 1.0))
            adjusted = ops.subtract(1.0, ops.multiply(ops.subtract(1.0, score), share))
            score = ops.where(usable, adjusted, score)
        return score

    def _warn_if_not(self, usable: Any) -> None:
        """Say that the adjusted score is not defined, where that can be known now (not inside a compiled step)."""
        owner = interpreter_of(usable)
        if owner is None or (owner.rank == ENGINE_RANK and not owner.is_tracing(usable)):
            if not bool(ops.convert_to_numpy(usable)):
                warnings.warn(
                    f"{self.name} has no more targets than num_regressors={self.num_regressors} + 1: "
                    "the adjusted score is not defined, the plain one is given",
                    CornuWarning,
                    stacklevel=3,
                )
