"""Losses: how far predictions are from targets, as a number to make small."""

from typing import Any

from cornu.core import registry
from cornu.core.config import Configurable
from cornu.core.dims import Size
from cornu.core.family import Family
from cornu.losses import margin, overlap, probabilistic, regression
from cornu.losses.base import Loss, LossFunctionWrapper, target_kind
from cornu.losses.margin import *
from cornu.losses.overlap import *
from cornu.losses.probabilistic import *
from cornu.losses.regression import *

_house = {
    name: getattr(module, name) for module in (margin, overlap, probabilistic, regression) for name in module.__all__
}
classes = [thing for thing in _house.values() if isinstance(thing, type)]
functions = {name: thing for name, thing in _house.items() if not isinstance(thing, type)}

_SHORT = {
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "mean_absolute_percentage_error": "mape",
    "mean_squared_logarithmic_error": "msle",
    "binary_crossentropy": "bce",
    "kl_divergence": "kld",
}

# Keras's files name a function of its own so.
for _name, _function in functions.items():
    registry.register("builtins", _name)(_function)


def _is_loss(value: Any) -> bool:
    return isinstance(value, Loss) or (callable(value) and not isinstance(value, Configurable))


family = Family("loss", "keras.losses", [Loss, LossFunctionWrapper, *classes], check=_is_loss)
# A name in small letters is the function, as in Keras.
family.names.update(functions)  # type: ignore[arg-type]
for _name, _alias in _SHORT.items():
    family.names.update({_alias: functions[_name], _alias.upper(): functions[_name]})


def get(identifier: Any) -> Any:
    """A loss from a name (`"mse"`, `"MeanSquaredError"`), a config, a class, a function, a loss, or `None`.

    Returns:
        a loss or a function `(y_true, y_pred)`; `None` for `None`.

    Raises:
        ArgumentError: if it is none of these.

    Example:
        >>> get("mse").__name__
        'mean_squared_error'
    """
    return family.get(identifier)


def serialize(loss: Any) -> Any:
    """A loss as a dict of plain values."""
    return family.serialize(loss)


def deserialize(name: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The loss of a serialized form or a name.

    Args:
        name: what `serialize` gives, or a name.
        custom_objects: classes and functions by name, for those that are not registered.

    Raises:
        ArgumentError: if nothing has that name.
    """
    return family.deserialize(name, custom_objects)


def crossentropy_for(y_true_shape: tuple[Size, ...], y_pred_shape: tuple[Size, ...]) -> Any:
    """The cross-entropy that `"crossentropy"` stands for: binary, categorical or sparse, by the shapes.

    Args:
        y_true_shape: shape of the targets.
        y_pred_shape: shape of the predictions.

    Returns:
        the function.

    Raises:
        ShapeError: if the number of units is not known and decides.
    """
    kind = target_kind(y_true_shape, y_pred_shape)
    return functions[{"sparse": "sparse_categorical_crossentropy"}.get(kind, f"{kind}_crossentropy")]


__all__ = [
    "Loss",
    "LossFunctionWrapper",
    "crossentropy_for",
    "deserialize",
    "get",
    "serialize",
    *_house,
]
