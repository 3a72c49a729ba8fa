"""Sums and means over batches, and metrics that are the mean of a function."""

from collections.abc import Callable
from typing import Any

from cornu import ops
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ShapeError
from cornu.graph import masks
from cornu.losses.base import Loss, apply_mask, function_of, squeeze_or_expand_to_same_rank
from cornu.metrics.base import Metric
from cornu.ops._declare import shape_of

__all__ = ["Mean", "MeanMetricWrapper", "Sum"]

_LOSSES = "cornu.losses."


def samplewise(values: Any, sample_weight: Any, reduce: Callable[..., Any], dtype: str) -> tuple[Any, Any]:
    """One value and one weight per sample.

    Weights are lined up with the first axes of the values; axes the weights lack are reduced first.

    Args:
        values: array.
        sample_weight: a scalar, an array with the first axes of `values` (of equal sizes or 1), or `None`.
        reduce: `ops.mean` or `ops.sum`.
        dtype: dtype of both.

    Returns:
        the weighted values `(batch,)` (a scalar if `values` is one), and the weights, or `None`.

    Raises:
        ShapeError: if the weights do not fit.
    """
    values = ops.cast(ops.convert_to_tensor(values), dtype)
    if sample_weight is None:
        return _per_sample(values, reduce), None
    weights = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
    shape, weight = shape_of(values), shape_of(weights)
    values, weights = squeeze_or_expand_to_same_rank(values, weights)
    have, rank = shape_of(values), len(shape_of(weights))
    unequal = [
        b for a, b in zip(have, shape_of(weights), strict=False) if not isinstance(a, Dim) and not isinstance(b, Dim)
        and b not in (a, 1)
    ]  # fmt: skip
    if rank > len(have) or unequal:
        raise ShapeError(
            f"weights of shape {shape_text(weight)} for values of shape {shape_text(shape)}",
            "a scalar, or the first axes of the values, each of the same size or 1",
        )
    if len(have) > rank:
        values = reduce(values, axis=tuple(range(rank, len(have))))
    weights = ops.broadcast_to(weights, shape_of(values))
    values = ops.multiply(values, weights)
    return _per_sample(values, reduce), _per_sample(weights, reduce)


def _per_sample(x: Any, reduce: Callable[..., Any]) -> Any:
    rank = len(shape_of(x))
    return reduce(x, axis=tuple(range(1, rank))) if rank > 1 else x


class Sum(Metric):
    """The weighted sum of values.

    Args:
        name: its name.
        dtype: dtype of the result.

    Example:
        >>> metric = Sum()
        >>> metric.update_state([1, 3, 5, 7])
        >>> float(metric([10.0], sample_weight=[0.5]))
        21.0
    """

    def __init__(self, name: str = "sum", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", self.dtype, name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add values.

        Args:
            values: array.
            sample_weight: a scalar, or an array with the first axes of `values`.
        """
        values, _ = samplewise(values, sample_weight, ops.sum, self.dtype)
        self.total.assign_add(ops.sum(values))

    def result(self) -> Any:
        """The sum so far, a scalar."""
        return ops.cast(self.total, self.dtype)


class Mean(Metric):
    """The weighted mean of values.

    Args:
        name: its name.
        dtype: dtype of the result.

    Example:
        >>> metric = Mean()
        >>> metric.update_state([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
        >>> float(metric.result())
        2.0
    """

    def __init__(self, name: str = "mean", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", self.dtype, name="total")
        self.count = self.add_variable((), "zeros", self.dtype, name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add values.

        Args:
            values: array; each sample counts with its own mean.
            sample_weight: a scalar, or an array with the first axes of `values`.
        """
        values, weights = samplewise(values, sample_weight, ops.mean, self.dtype)
        self.total.assign_add(ops.sum(values))
        if weights is not None:
            self.count.assign_add(ops.sum(weights))
        else:
            size = shape_of(values)[0] if shape_of(values) else 1
            self.count.assign_add(ops.size_array(size) if isinstance(size, Dim) else size)

    def result(self) -> Any:
        """The mean so far, a scalar; 0 before the first value."""
        return ops.divide_no_nan(self.total, self.count)


class MeanMetricWrapper(Mean):
    """The mean of a function of targets and predictions.

    Args:
        fn: function `(y_true, y_pred, **kwargs)` that gives a value per sample, or more; or the name of one of the
            house.
        name: its name; made from the class's if left out.
        dtype: dtype of the result.
        **kwargs: passed on to `fn`.

    Example:
        >>> from cornu import ops
        >>> metric = MeanMetricWrapper(lambda y_true, y_pred: ops.abs(y_true - y_pred), name="error")
        >>> float(metric(ops.convert_to_tensor([1.0, 2.0]), ops.convert_to_tensor([1.0, 4.0])))
        1.0
    """

    def __init__(self, fn: Callable[..., Any] | str, name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(name=name, dtype=dtype)  # type: ignore[arg-type]
        self.fn = fn = function_of(fn)
        self._fn_kwargs = kwargs
        if self._direction is None and (isinstance(fn, Loss) or getattr(fn, "__module__", "").startswith(_LOSSES)):
            self._direction = "down"

    def update_state(  # type: ignore[override]
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None
    ) -> None:
        """Add a batch.

        Args:
            y_true: targets.
            y_pred: predictions.
            sample_weight: a scalar, or an array with the first axes of what the function gives.
            mask: which positions count, `(batch,)`, `(batch, time)` ...; by default the mask that travels with
                `y_pred`.
        """
        if mask is None and not isinstance(y_pred, (list, tuple, dict)):
            mask = masks.mask_of(y_pred)
            y_pred = y_pred if mask is None else ops.drop_mask(y_pred)
        weights = apply_mask(sample_weight, mask, self.dtype, "sum")
        with_mask = getattr(self.fn, "with_mask", None)
        if with_mask is None:
            values = self.fn(y_true, y_pred, **self._fn_kwargs)
        else:
            values, found = with_mask(y_true, y_pred, **self._fn_kwargs)
            # Keras leaves what is ignored out of the mean only where there are weights.
            weights = weights if weights is None else apply_mask(weights, found, self.dtype, "sum")
        super().update_state(values, weights)
