"""Losses on the overlap of regions: Dice and Tversky."""

from typing import Any

from cornu import ops
from cornu.losses.base import LossFunctionWrapper, as_pair, matched
from cornu.ops.nn import EPSILON

__all__ = ["Dice", "Tversky", "dice", "tversky"]


def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """`1 - 2 * both / (true + predicted)`, the sums taken over some axes.

    Source: Milletari et al. 2016, https://arxiv.org/abs/1606.04797

    Args:
        y_true: targets, 0 or 1.
        y_pred: probabilities of the same shape.
        axis: the axes to sum over; `None` for all, the batch too.

    Returns:
        array without those axes.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "dice")
    both = ops.sum(ops.multiply(y_true, y_pred), axis=axis)
    total = ops.add(ops.add(ops.sum(y_true, axis=axis), ops.sum(y_pred, axis=axis)), EPSILON)
    return ops.subtract(1.0, ops.divide(ops.multiply(both, 2.0), total))


def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None) -> Any:
    """`1 - both / (both + alpha * missed + beta * wrong)`, the sums taken over some axes.

    `missed` is what is true and not predicted, `wrong` what is predicted and not true: Keras's reading of `alpha` and
    `beta`.

    Source: Salehi et al. 2017, https://arxiv.org/abs/1706.05721

    Args:
        y_true: targets, 0 or 1.
        y_pred: probabilities of the same shape.
        alpha: the weight of what is missed.
        beta: the weight of what is wrongly found.
        axis: the axes to sum over; `None` for all, the batch too.

    Returns:
        array without those axes.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "tversky")
    both = ops.sum(ops.multiply(y_true, y_pred), axis=axis)
    missed = ops.sum(ops.multiply(ops.subtract(1.0, y_pred), y_true), axis=axis)
    wrong = ops.sum(ops.multiply(y_pred, ops.subtract(1.0, y_true)), axis=axis)
    total = ops.add(ops.add(both, ops.multiply(missed, alpha)), ops.add(ops.multiply(wrong, beta), EPSILON))
    return ops.subtract(1.0, ops.divide(both, total))


class Dice(LossFunctionWrapper):
    """The Dice loss (see `dice`).

    Args:
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        axis: the axes to sum over; `None` for all, the batch too.
        dtype: dtype of the computation.
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "dice", axis: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(dice, reduction, name, dtype, axis=axis)
        self.axis = axis


class Tversky(LossFunctionWrapper):
    """The Tversky loss (see `tversky`).

    Args:
        alpha: the weight of what is missed.
        beta: the weight of what is wrongly found.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        axis: the axes to sum over; `None` for all, the batch too.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tversky",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)
        self.alpha, self.beta, self.axis = alpha, beta, axis
