"""Small helpers on arrays of labels and features."""

from typing import Any

import numpy as np

from cornu import ops
from cornu.core.errors import ArgumentError
from cornu.ops._declare import interpreter_of

__all__ = ["normalize", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class numbers as one-hot rows.

    Args:
        x: class numbers from 0 on, `(...)` or `(..., 1)`.
        num_classes: how many classes there are; by default the largest number and one more (host data only).

    Returns:
        `(..., num_classes)`: a float64 NumPy array for host data; for an engine's array the engine's own, in the
        default float.

    Raises:
        ArgumentError: for numbers that are not whole or outside the classes.

    Example:
        >>> to_categorical([0, 2, 1], num_classes=3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    if interpreter_of(x) is not None:
        if num_classes is None:
            raise ArgumentError("to_categorical got an engine's array and no num_classes", "num_classes")
        size = ops.shape(x)
        if len(size) > 1 and size[-1] == 1:
            x = ops.reshape(x, size[:-1])
        return ops.one_hot(x, num_classes)
    labels = np.asarray(x)
    if labels.dtype.kind not in "biuf":
        raise ArgumentError(f"to_categorical got labels of dtype {labels.dtype}", "whole numbers from 0 on")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    whole = labels.astype(np.int64)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        raise ArgumentError("to_categorical got labels that are not whole numbers", "whole numbers from 0 on")
    if not whole.size and not num_classes:
        raise ArgumentError("to_categorical got no labels and no num_classes", "num_classes")
    count = int(num_classes) if num_classes else int(whole.max()) + 1
    if whole.size and (whole.min() < 0 or whole.max() >= count):
        raise ArgumentError(
            f"to_categorical got labels from {whole.min()} to {whole.max()} for {count} classes",
            f"labels from 0 to {count - 1}",
        )
    rows = np.zeros((whole.size, count))
    rows[np.arange(whole.size), whole.reshape(-1)] = 1
    return rows.reshape(*whole.shape, count)


def normalize(x: Any, axis: int = -1, order: int = 2) -> Any:
    """An array divided by its norms along an axis; norms of zero count as one.

    Args:
        x: array.
        axis: the axis to take norms along.
        order: the exponent of the norm, 2 by default.

    Returns:
        array of the same shape: a NumPy array for a NumPy array, else the engine's own.

    Example:
        >>> import numpy as np
        >>> normalize(np.array([[3.0, 4.0]])).tolist()
        [[0.6, 0.8]]
    """
    if not isinstance(x, np.ndarray):
        return ops.normalize(x, axis=axis, order=order)
    norm = np.linalg.norm(np.atleast_1d(x), order, axis, keepdims=True)
    return x / np.where(norm == 0, 1, norm)
