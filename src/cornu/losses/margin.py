"""Losses that ask for a margin: hinges, and the circle loss for embeddings."""

from typing import Any

from cornu import ops
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ShapeError
from cornu.losses.base import LossFunctionWrapper, as_pair, matched
from cornu.ops._declare import shape_of

__all__ = [
    "CategoricalHinge", "Circle", "Hinge", "SquaredHinge", "categorical_hinge", "circle", "hinge", "squared_hinge",
]  # fmt: skip


def hinge(y_true: Any, y_pred: Any) -> Any:
    """The mean of `max(1 - y_true * y_pred, 0)` over the last axis.

    Args:
        y_true: targets `(..., units)`, -1 or 1; if all are 0 or 1, 0 is taken for -1.
        y_pred: predictions `(..., units)`.

    Returns:
        array `(...)`.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "hinge")
    return ops.mean(_shortfall(y_true, y_pred), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """The mean of `max(1 - y_true * y_pred, 0)**2` over the last axis; arguments as for `hinge`."""
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "squared_hinge")
    return ops.mean(ops.square(_shortfall(y_true, y_pred)), axis=-1)


def _shortfall(y_true: Any, y_pred: Any) -> Any:
    """`max(1 - y_true * y_pred, 0)`, targets 0 and 1 taken for -1 and 1."""
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    y_true = ops.where(binary, ops.subtract(ops.multiply(y_true, 2.0), 1.0), y_true)
    return ops.maximum(ops.subtract(1.0, ops.multiply(y_true, y_pred)), 0.0)


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """`max(wrong - right + 1, 0)`: the score of the true class, and the largest of the others.

    Args:
        y_true: one-hot targets `(..., classes)`.
        y_pred: scores `(..., classes)`.

    Returns:
        array `(...)`.

    Raises:
        ShapeError: if the shapes differ.
    """
    fix = "class numbers as targets need cornu.ops.one_hot(y_true, classes)"
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "categorical_hinge", fix)
    right = ops.sum(ops.multiply(y_true, y_pred), axis=-1)
    wrong = ops.max(ops.multiply(ops.subtract(1.0, y_true), y_pred), axis=-1)
    return ops.maximum(ops.add(ops.subtract(wrong, right), 1.0), 0.0)


def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
) -> Any:
    """The circle loss: embeddings of one class shall be near, of different classes far.

    Source: Sun et al. 2020, https://arxiv.org/abs/2002.10857

    Args:
        y_true: class numbers `(batch,)` or `(batch, 1)`.
        y_pred: embeddings `(batch, units)` of length 1.
        ref_labels: class numbers `(references,)` to compare with; by default `y_true`.
        ref_embeddings: embeddings `(references, units)` to compare with; by default `y_pred`.
        remove_diagonal: whether the i-th embedding is not compared with the i-th reference.
        gamma: the scale.
        margin: how far apart classes shall be.

    Returns:
        array `(batch,)`.

    Raises:
        ShapeError: if there is not one class number for each embedding.
    """
    return _circle_with_mask(y_true, y_pred, ref_labels, ref_embeddings, remove_diagonal, gamma, margin)[0]


def _circle_with_mask(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
) -> tuple[Any, Any]:
    """The losses, and which are above 0 (a `Loss` takes its mean over those)."""
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = _labels(y_true, y_pred)
    references = y_pred if ref_embeddings is None else ops.convert_to_tensor(ref_embeddings)
    others = y_true if ref_labels is None else _labels(ref_labels, references)
    distance = ops.maximum(ops.subtract(1.0, ops.matmul(y_pred, ops.transpose(references))), 0.0)
    alike = ops.equal(ops.expand_dims(y_true, 1), ops.expand_dims(others, 0))
    unlike = ops.logical_not(alike)
    if remove_diagonal:
        rows, columns = ops.arange(shape_of(y_true)[0]), ops.arange(shape_of(others)[0])
        alike = ops.logical_and(alike, ops.not_equal(ops.expand_dims(rows, 1), ops.expand_dims(columns, 0)))
    near = ops.multiply(ops.add(distance, margin), ops.subtract(margin, distance))
    far = ops.multiply(ops.maximum(ops.subtract(1 + margin, distance), 0.0), ops.subtract(1 - margin, distance))
    # A pair that does not count gets a number so low that exp gives 0, not -inf, whose gradient would be NaN.
    never = -3e4 if ops.dtype(distance) == "float16" else -1e9
    positive = ops.logsumexp(ops.where(alike, ops.multiply(near, -gamma), never), axis=1)
    negative = ops.logsumexp(ops.where(unlike, ops.multiply(far, gamma), never), axis=1)
    losses = ops.softplus(ops.add(positive, negative))
    return losses, ops.greater(losses, 0)


circle.with_mask = _circle_with_mask  # type: ignore[attr-defined]
circle.class_targets = True  # type: ignore[attr-defined]


def _labels(labels: Any, embeddings: Any) -> Any:
    """Class numbers `(batch,)` for embeddings `(batch, units)`."""
    labels = ops.cast(ops.convert_to_tensor(labels), "int32")
    shape, beside = shape_of(labels), shape_of(embeddings)
    if len(shape) == 2 and shape[1:] == (1,):
        labels = ops.squeeze(labels, 1)
    sizes = {size for size in (*shape[:1], *beside[:1]) if not isinstance(size, Dim)}
    if len(shape_of(labels)) != 1 or len(beside) != 2 or len(sizes) > 1:
        raise ShapeError(
            f"circle got labels of shape {shape_text(shape)} and embeddings of shape {shape_text(beside)}",
            "labels (batch,) and embeddings (batch, units)",
        )
    return labels


class Hinge(LossFunctionWrapper):
    """The mean of `max(1 - y_true * y_pred, 0)` (see `hinge`).

    Args:
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "hinge", dtype: Any = None) -> None:
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(LossFunctionWrapper):
    """The mean of `max(1 - y_true * y_pred, 0)**2`; arguments as for `Hinge`."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "squared_hinge", dtype: Any = None
    ) -> None:
        super().__init__(squared_hinge, reduction, name, dtype)


class CategoricalHinge(LossFunctionWrapper):
    """The hinge of scores over classes (see `categorical_hinge`); arguments as for `Hinge`."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "categorical_hinge", dtype: Any = None
    ) -> None:
        super().__init__(categorical_hinge, reduction, name, dtype)


class Circle(LossFunctionWrapper):
    """The circle loss for embeddings (see `circle`).

    Args:
        gamma: the scale.
        margin: how far apart classes shall be.
        remove_diagonal: whether an embedding is not compared with itself.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "circle",
        dtype: Any = None,
    ) -> None:
        options = {"gamma": gamma, "margin": margin, "remove_diagonal": remove_diagonal}
        super().__init__(circle, reduction, name, dtype, **options)
        self.gamma, self.margin, self.remove_diagonal = gamma, margin, remove_diagonal
