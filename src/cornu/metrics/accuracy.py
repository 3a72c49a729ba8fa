"""How often predictions are right."""

from typing import Any

from cornu import ops
from cornu.core import dtypes
from cornu.core.config import positive_int
from cornu.core.errors import ArgumentError
from cornu.losses.base import matched, matched_classes, target_kind
from cornu.metrics.means import MeanMetricWrapper
from cornu.ops._declare import shape_of

__all__ = [
    "Accuracy", "BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy", "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy", "accuracy", "accuracy_for", "binary_accuracy", "categorical_accuracy",
    "sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy", "top_k_categorical_accuracy",
]  # fmt: skip

_CLASSES = "class numbers as targets need the sparse metric"


def _matches(y_true: Any, y_pred: Any) -> Any:
    return ops.cast(ops.equal(y_true, y_pred), dtypes.floatx())


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where targets and predictions are equal, else 0.

    Args:
        y_true: targets.
        y_pred: predictions of the same shape.

    Returns:
        array of that shape, in the default float dtype.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred), "accuracy")
    return _matches(y_true, y_pred)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """1 where a prediction is on its target's side of a threshold, else 0.

    Args:
        y_true: targets, 0 or 1.
        y_pred: predictions of the same shape.
        threshold: a prediction above it counts as 1.

    Returns:
        array of that shape, in the default float dtype.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        >>> binary_accuracy([1, 0, 1], [0.7, 0.2, 0.4]).tolist()
        [1.0, 1.0, 0.0]
    """
    y_true, y_pred = matched(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred), "binary_accuracy")
    return _matches(y_true, ops.cast(ops.greater(y_pred, threshold), ops.dtype(y_true)))


def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where the largest score is that of the target's class, else 0.

    Args:
        y_true: one-hot targets `(..., classes)`.
        y_pred: scores `(..., classes)`.

    Returns:
        array `(...)`, in the default float dtype.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    y_true, y_pred = matched(y_true, y_pred, "categorical_accuracy", _CLASSES)
    return _matches(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1))


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where the largest score is that of the target's class, else 0, for class numbers as targets.

    Args:
        y_true: class numbers `(...)` or `(..., 1)`.
        y_pred: scores `(..., classes)`.

    Returns:
        array `(...)`, in the default float dtype.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    y_true = matched_classes(y_true, y_pred, "sparse_categorical_accuracy")
    found = _matches(y_true, ops.argmax(y_pred, axis=-1))
    sizes = shape_of(found)
    return ops.squeeze(found, -1) if len(sizes) > 1 and sizes[-1:] == (1,) else found


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """1 where the score of the target's class is among the `k` largest, else 0.

    Args:
        y_true: one-hot targets `(..., classes)`.
        y_pred: scores `(..., classes)`.
        k: how many.

    Returns:
        array `(...)`, in the default float dtype.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    y_true, y_pred = matched(y_true, y_pred, "top_k_categorical_accuracy", _CLASSES)
    return _within(ops.argmax(y_true, axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Any:
    """1 where the score of the target's class is among the `k` largest, else 0, for class numbers as targets.

    Args:
        y_true: class numbers `(...)` or `(..., 1)`.
        y_pred: scores `(..., classes)`; or class numbers from the best on, if `from_sorted_ids`.
        k: how many.
        from_sorted_ids: whether `y_pred` holds class numbers.

    Returns:
        array in the shape of `y_true`, in the default float dtype.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    shape = shape_of(y_true)
    y_true = matched_classes(y_true, y_pred, "sparse_top_k_categorical_accuracy")
    if from_sorted_ids:
        _check_k(k)
        first = ops.get_item(y_pred, (..., slice(None, k)))
        found = ops.cast(ops.any(ops.equal(ops.expand_dims(y_true, -1), first), axis=-1), dtypes.floatx())
    else:
        found = _within(y_true, y_pred, k)
    return ops.reshape(found, shape)


def _check_k(k: Any) -> None:
    if not positive_int(k):
        raise ArgumentError(f"top-k accuracy got k={k!r}", "a whole number above zero")


def _within(labels: Any, scores: Any, k: int) -> Any:
    """1 where fewer than `k` scores are above that of the label; a label that names no class is never within."""
    _check_k(k)
    is_label = ops.equal(ops.expand_dims(labels, -1), ops.arange(shape_of(scores)[-1]))
    usable = ops.logical_and(is_label, ops.logical_not(ops.isnan(scores)))
    own = ops.max(ops.where(usable, scores, float("-inf")), axis=-1, keepdims=True)
    above = ops.sum(ops.cast(ops.greater(scores, own), "int32"), axis=-1)
    return ops.cast(ops.logical_and(ops.less(above, k), ops.any(is_label, axis=-1)), dtypes.floatx())


class Accuracy(MeanMetricWrapper):
    """How often predictions equal targets.

    Args:
        name: its name.
        dtype: dtype of the result.

    Example:
        >>> float(Accuracy()([1, 2, 3, 4], [0, 2, 3, 4]))
        0.75
    """

    _direction = "up"

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often predictions are on their target's side of a threshold.

    Args:
        name: its name.
        dtype: dtype of the result.
        threshold: a prediction above it counts as 1; from 0 to 1 for probabilities, 0 for logits.
    """

    _direction = "up"

    def __init__(self, name: str = "binary_accuracy", dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)
        self.threshold = threshold


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the largest score is that of the target's class, for one-hot targets.

    Args:
        name: its name.
        dtype: dtype of the result.
    """

    _direction = "up"

    def __init__(self, name: str = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the largest score is that of the target's class, for class numbers as targets.

    Args:
        name: its name.
        dtype: dtype of the result.
    """

    _direction = "up"

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the target's class is among the `k` with the largest scores, for one-hot targets.

    Args:
        k: how many.
        name: its name.
        dtype: dtype of the result.
    """

    _direction = "up"

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)
        self.k = k


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the target's class is among the `k` with the largest scores, for class numbers as targets.

    Args:
        k: how many.
        name: its name.
        dtype: dtype of the result.
        from_sorted_ids: whether predictions are class numbers from the best on, rather than scores.
    """

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)
        self.k, self.from_sorted_ids = k, from_sorted_ids


def accuracy_for(
    y_true_shape: tuple[Any, ...], y_pred_shape: tuple[Any, ...], name: str = "accuracy"
) -> MeanMetricWrapper:
    """The metric that `"accuracy"` stands for: binary, categorical or sparse, by the shapes.

    Args:
        y_true_shape: shape of the targets.
        y_pred_shape: shape of the predictions.
        name: the metric's name.

    Raises:
        ShapeError: if the number of units is not known and decides.
    """
    kinds = {"binary": BinaryAccuracy, "sparse": SparseCategoricalAccuracy, "categorical": CategoricalAccuracy}
    return kinds[target_kind(y_true_shape, y_pred_shape)](name=name)
