"""Metrics: numbers gathered over batches, for people to look at."""

from typing import Any

from cornu.core import registry
from cornu.core.config import Configurable
from cornu.core.family import Family
from cornu.losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from cornu.losses.base import Loss
from cornu.metrics import accuracy as _accuracy
from cornu.metrics import confusion, fscore, iou, means, probabilistic, regression
from cornu.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    accuracy_for,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from cornu.metrics.base import Metric
from cornu.metrics.confusion import *
from cornu.metrics.fscore import *
from cornu.metrics.iou import *
from cornu.metrics.means import *
from cornu.metrics.probabilistic import *
from cornu.metrics.regression import *

_house = {
    name: getattr(module, name)
    for module in (_accuracy, confusion, fscore, iou, means, probabilistic, regression)
    for name in module.__all__
    if name not in ("accuracy", "SensitivitySpecificityBase")
}
classes = [thing for thing in _house.values() if isinstance(thing, type)]

_SHORT = {
    "MeanSquaredError": "mse",
    "MeanAbsoluteError": "mae",
    "MeanAbsolutePercentageError": "mape",
    "MeanSquaredLogarithmicError": "msle",
    "BinaryCrossentropy": "bce",
}

for _name, _thing in _house.items():
    if not isinstance(_thing, type) and _name != "accuracy_for":
        # Keras's files name a function of its own so.
        registry.register("builtins", _name)(_thing)


def _is_metric(value: Any) -> bool:
    return isinstance(value, (Metric, Loss)) or (callable(value) and not isinstance(value, Configurable))


family = Family(
    "metric",
    "keras.metrics",
    [Metric, *classes],
    {name: _house[long] for long, short in _SHORT.items() for name in (short, short.upper())},
    check=_is_metric,
)


def get(identifier: Any) -> Any:
    """A metric from a name (`"mse"`, `"AUC"`), a config, a class, a function, a metric or loss, or `None`.

    Training takes `"accuracy"` for the accuracy that fits the shapes (`accuracy_for`); here it is `Accuracy`.

    Returns:
        a metric, or a function `(y_true, y_pred)`; `None` for `None`.

    Raises:
        ArgumentError: if it is none of these.

    Example:
        >>> get("mse")
        <MeanSquaredError name=mean_squared_error>
    """
    return family.get(identifier)


def serialize(metric: Any) -> Any:
    """A metric as a dict of plain values."""
    return family.serialize(metric)


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The metric of a serialized form or a name.

    Args:
        config: what `serialize` gives, or a name.
        custom_objects: classes and functions by name, for those that are not registered.

    Raises:
        ArgumentError: if nothing has that name.
    """
    return family.deserialize(config, custom_objects)


_FROM_LOSSES = [
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_hinge", "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_error", "mean_squared_logarithmic_error", "poisson",
    "sparse_categorical_crossentropy", "squared_hinge",
]  # fmt: skip

__all__ = ["Metric", "deserialize", "get", "serialize", *_house, *_FROM_LOSSES]
