"""Losses for numbers as targets."""

from typing import Any

from cornu import ops
from cornu.losses.base import LossFunctionWrapper, as_pair, matched
from cornu.ops.nn import EPSILON

__all__ = [
    "CosineSimilarity", "Huber", "LogCosh", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError",
    "MeanSquaredLogarithmicError", "cosine_similarity", "huber", "log_cosh", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_error", "mean_squared_logarithmic_error",
]  # fmt: skip

LOG_2 = 0.6931471805599453


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of `(y_true - y_pred)**2` over the last axis.

    Args:
        y_true: targets `(..., units)`.
        y_pred: predictions `(..., units)`.

    Returns:
        array `(...)`, in the dtype of `y_pred`.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        >>> float(mean_squared_error([1.0, 2.0], [1.0, 4.0]))
        2.0
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "mean_squared_error")
    return ops.mean(ops.square(ops.subtract(y_true, y_pred)), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of `|y_true - y_pred|` over the last axis; arguments as for `mean_squared_error`."""
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "mean_absolute_error")
    return ops.mean(ops.abs(ops.subtract(y_true, y_pred)), axis=-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 times the mean of `|y_true - y_pred| / |y_true|` over the last axis; see `mean_squared_error`."""
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "mean_absolute_percentage_error")
    scale = ops.maximum(ops.abs(y_true), EPSILON)
    return ops.multiply(ops.mean(ops.abs(ops.divide(ops.subtract(y_true, y_pred), scale)), axis=-1), 100.0)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of `(log(y_true + 1) - log(y_pred + 1))**2` over the last axis, of values not below 0.

    Arguments as for `mean_squared_error`.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "mean_squared_logarithmic_error")
    logs = [ops.log(ops.add(ops.maximum(y, EPSILON), 1.0)) for y in (y_pred, y_true)]
    return ops.mean(ops.square(ops.subtract(*logs)), axis=-1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: Any = -1) -> Any:
    """Minus the cosine of the angle between targets and predictions: -1 is alike, 1 is opposite.

    Args:
        y_true: targets `(..., units)`.
        y_pred: predictions `(..., units)`.
        axis: the axis of the vectors.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "cosine_similarity")
    y_pred, y_true = ops.normalize(y_pred, axis=axis), ops.normalize(y_true, axis=axis)
    return ops.negative(ops.sum(ops.multiply(y_true, y_pred), axis=axis))


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """The mean over the last axis of `error**2 / 2`; of `delta * |error| - delta**2 / 2` where `|error| > delta`.

    Source: Huber 1964, https://doi.org/10.1214/aoms/1177703732

    Args:
        y_true: targets `(..., units)`.
        y_pred: predictions `(..., units)`.
        delta: where the parabola goes over into lines.

    Returns:
        array `(...)`.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "huber")
    error = ops.subtract(y_pred, y_true)
    size = ops.abs(error)
    line = ops.subtract(ops.multiply(size, delta), 0.5 * delta * delta)
    return ops.mean(ops.where(ops.less_equal(size, delta), ops.multiply(ops.square(error), 0.5), line), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """The mean of `log(cosh(y_pred - y_true))` over the last axis; arguments as for `mean_squared_error`."""
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "log_cosh")
    x = ops.subtract(y_pred, y_true)
    return ops.mean(ops.subtract(ops.add(x, ops.softplus(ops.multiply(x, -2.0))), LOG_2), axis=-1)


class MeanSquaredError(LossFunctionWrapper):
    """The mean of squared errors.

    Args:
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.

    Example:
        >>> float(MeanSquaredError()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]))
        0.5
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "mean_squared_error", dtype: Any = None
    ) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(LossFunctionWrapper):
    """The mean of absolute errors; arguments as for `MeanSquaredError`."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "mean_absolute_error", dtype: Any = None
    ) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(LossFunctionWrapper):
    """The mean of absolute errors in percent of the targets; arguments as for `MeanSquaredError`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_absolute_percentage_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """The mean of squared differences of logarithms; arguments as for `MeanSquaredError`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_squared_logarithmic_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine of the angle between targets and predictions.

    Args:
        axis: the axis of the vectors.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: Any = None,
    ) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)
        self.axis = axis


class Huber(LossFunctionWrapper):
    """Squared errors where they are small, absolute errors where they are large (see `huber`).

    Args:
        delta: where the one goes over into the other.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)
        self.delta = delta


class LogCosh(LossFunctionWrapper):
    """The mean of `log(cosh(error))`; arguments as for `MeanSquaredError`."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "log_cosh", dtype: Any = None
    ) -> None:
        super().__init__(log_cosh, reduction, name, dtype)
