"""Keras's activation functions by name: plain functions, written with `cornu.ops`.

A layer takes one as `activation="relu"` or `activation=cornu.activations.relu`; a file holds its name.
"""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from cornu import ops
from cornu.core import registry
from cornu.core.errors import ArgumentError, SavingError, near_miss
from cornu.ops._declare import Op

__all__ = [
    "celu", "deserialize", "elu", "exponential", "gelu", "get", "glu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu",
    "serialize", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink", "threshold",
]  # fmt: skip

Activation = Callable[..., Any]


def linear(x: Any) -> Any:
    """`x` itself."""
    return x


def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:
    """`max(x, 0)`, and its relatives.

    Args:
        x: array.
        negative_slope: the slope below the threshold: `negative_slope * (x - threshold)`; by default 0.
        max_value: the largest value of the result, or `None`.
        threshold: below it the slope is `negative_slope`; by default 0.

    Returns:
        array of the same shape.

    Example:
        >>> relu([-10.0, 2.0, 8.0], negative_slope=0.5, max_value=5.0).tolist()
        [-5.0, 2.0, 5.0]
    """
    if negative_slope != 0 and max_value is None and threshold == 0:
        return ops.leaky_relu(x, negative_slope=negative_slope)
    if threshold != 0:
        y = ops.where(ops.less_equal(x, threshold), 0, x)
        if max_value is not None:
            y = ops.minimum(ops.maximum(y, 0), max_value)
    elif max_value == 6:
        y = ops.relu6(x)
    else:
        y = ops.relu(x)
        if max_value is not None:
            y = ops.minimum(y, max_value)
    if negative_slope != 0:
        below = ops.relu(ops.subtract(threshold, x))
        y = ops.subtract(y, ops.multiply(below, negative_slope))
    return y


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """`x` from 0 on, `negative_slope * x` below; see `ops.leaky_relu`."""
    return ops.leaky_relu(x, negative_slope=negative_slope)


def relu6(x: Any) -> Any:
    """`min(max(x, 0), 6)`; see `ops.relu6`."""
    return ops.relu6(x)


def softmax(x: Any, axis: Any = -1) -> Any:
    """`exp(x) / sum(exp(x))` along an axis; see `ops.softmax`."""
    return ops.softmax(x, axis=axis)


def log_softmax(x: Any, axis: Any = -1) -> Any:
    """The logarithm of `softmax`; see `ops.log_softmax`."""
    return ops.log_softmax(x, axis=axis)


def sparsemax(x: Any, axis: int = -1) -> Any:
    """A softmax with exact zeros; see `ops.sparsemax`."""
    return ops.sparsemax(x, axis=axis)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """`x` above 0, `alpha * (exp(x) - 1)` below; see `ops.elu`."""
    return ops.elu(x, alpha=alpha)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """`elu` whose slope at 0 is 1 for every `alpha`; see `ops.celu`."""
    return ops.celu(x, alpha=alpha)


def selu(x: Any) -> Any:
    """`elu` scaled to keep mean 0 and variance 1; see `ops.selu`."""
    return ops.selu(x)


def softplus(x: Any) -> Any:
    """`log(1 + exp(x))`; see `ops.softplus`."""
    return ops.softplus(x)


def softsign(x: Any) -> Any:
    """`x / (|x| + 1)`; see `ops.softsign`."""
    return ops.softsign(x)


def squareplus(x: Any, b: float = 4) -> Any:
    """`(x + sqrt(x * x + b)) / 2`; see `ops.squareplus`."""
    return ops.squareplus(x, b=b)


def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """`x` moved towards 0 by `threshold`; see `ops.soft_shrink`."""
    return ops.soft_shrink(x, threshold=threshold)


def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """`x` where `|x| > threshold`, else 0; see `ops.hard_shrink`."""
    return ops.hard_shrink(x, threshold=threshold)


def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """`x` where `x > threshold`, else `default_value`; see `ops.threshold`."""
    return ops.threshold(x, threshold, default_value)


def sparse_plus(x: Any) -> Any:
    """0 up to -1, `x` from 1 on, a parabola in between; see `ops.sparse_plus`."""
    return ops.sparse_plus(x)


def silu(x: Any) -> Any:
    """`x * sigmoid(x)`, also called swish; see `ops.silu`."""
    return ops.silu(x)


def gelu(x: Any, approximate: bool = False) -> Any:
    """`x` times the normal distribution function, exact unless `approximate`; see `ops.gelu`."""
    return ops.gelu(x, approximate=approximate)


def glu(x: Any, axis: int = -1) -> Any:
    """The first half along an axis, times the sigmoid of the second half; see `ops.glu`."""
    return ops.glu(x, axis=axis)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return ops.tanh(x)


def tanh_shrink(x: Any) -> Any:
    """`x - tanh(x)`."""
    return ops.tanh_shrink(x)


def hard_tanh(x: Any) -> Any:
    """`x` from -1 to 1, and the nearer of both outside."""
    return ops.hard_tanh(x)


def sigmoid(x: Any) -> Any:
    """`1 / (1 + exp(-x))`."""
    return ops.sigmoid(x)


def log_sigmoid(x: Any) -> Any:
    """The logarithm of `sigmoid`; see `ops.log_sigmoid`."""
    return ops.log_sigmoid(x)


def sparse_sigmoid(x: Any) -> Any:
    """0 up to -1, 1 from 1 on, a straight line in between; see `ops.sparse_sigmoid`."""
    return ops.sparse_sigmoid(x)


def hard_sigmoid(x: Any) -> Any:
    """`relu6(x + 3) / 6`; see `ops.hard_sigmoid`."""
    return ops.hard_sigmoid(x)


def hard_silu(x: Any) -> Any:
    """`x * hard_sigmoid(x)`, also called hard swish; see `ops.hard_silu`."""
    return ops.hard_silu(x)


def exponential(x: Any) -> Any:
    """e to the power `x`."""
    return ops.exp(x)


def mish(x: Any) -> Any:
    """`x * tanh(softplus(x))` (Misra, 2019)."""
    return ops.multiply(x, ops.tanh(ops.softplus(x)))


swish, hard_swish = silu, hard_silu

# Those above: `get`, `serialize` and `deserialize` are not defined yet.
_BY_NAME: dict[str, Activation] = {name: globals()[name] for name in __all__ if name in globals()}


def get(identifier: Any) -> Activation:
    """The activation function of a name.

    Args:
        identifier: a name of this module or of a registered function, a config (see `serialize`), a callable (given
            back as it is), or `None` for `linear`.

    Returns:
        function of an array.

    Raises:
        ArgumentError: if it names no activation.

    Example:
        >>> get("relu") is relu, get(None) is linear
        (True, True)
    """
    if identifier is None:
        return linear
    if isinstance(identifier, (str, dict)):
        return deserialize(identifier)
    if callable(identifier):
        function: Activation = identifier
        return function
    raise ArgumentError(f"activation {identifier!r:.80}", "a name, a callable or None")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Activation:
    """The activation of a config that `serialize` (or Keras's) gave.

    Args:
        config: a name, or a dict with `class_name` and `config`.
        custom_objects: functions and classes by name, beside those that are registered.

    Returns:
        function of an array, or an object that is called like one.

    Raises:
        ArgumentError: if nothing of that name is known.
    """
    if isinstance(config, str):
        return _named(config, custom_objects)
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ArgumentError(f"the activation's config {config!r:.80}", "a name, or a dict with class_name and config")
    if config["class_name"] == "function":
        return _named(config.get("config"), custom_objects)
    name = config["class_name"]
    inner = config.get("config") or {}
    for key in (config.get("registered_name"), f"{config.get('module')}>{name}", f"Custom>{name}"):
        cls = registry.find(key, custom_objects) if key else None
        if cls is not None and hasattr(cls, "from_config"):
            made: Activation = cls.from_config(inner)
            return made
    raise ArgumentError(f"the activation's class {name!r} is not known", "a registered class", _REMEDY)


_REMEDY = "import the module that defines it, or pass custom_objects={name: object}"


def _named(name: Any, custom_objects: dict[str, Any] | None) -> Activation:
    found = (custom_objects or {}).get(name) or _BY_NAME.get(name) if isinstance(name, str) else None
    if found is None and isinstance(name, str):
        found = registry.find(name, custom_objects) or registry.find(f"Custom>{name}", custom_objects)
    if not callable(found) or isinstance(found, type):
        hint = near_miss(name, _BY_NAME)
        raise ArgumentError(f"activation {name!r} is not known{hint}", f"one of {', '.join(sorted(_BY_NAME))}", _REMEDY)
    function: Activation = found
    return function


def serialize(activation: Any) -> Any:
    """The config of an activation, for a file: its name, or a dict in Keras's form for one of your own.

    Args:
        activation: function, or an object with `get_config` (a layer, for example).

    Returns:
        the name, or a dict that `deserialize` takes. A function that is not registered is named in it, and has to be
        given in `custom_objects` when the file is read.

    Raises:
        SavingError: for a lambda, and for an op whose defaults are not those of the activation of that name.

    Example:
        >>> serialize(relu)
        'relu'
    """
    name = getattr(activation, "__name__", None)
    if isinstance(activation, Op):
        return _name_of_op(activation)
    if name is not None and _BY_NAME.get(name) is activation:
        return name
    if isinstance(activation, FunctionType):
        if name == "<lambda>":
            raise SavingError("a lambda as an activation has no name to save", "a function with a name", "use def")
        key = registry.registered_name(activation)
        known = key if registry.find(key) is activation else name
        return {"module": "builtins", "class_name": "function", "config": known, "registered_name": "function"}
    if not hasattr(activation, "get_config"):
        raise SavingError(
            f"the activation {activation!r:.80} cannot be saved", "a function with a name, or an object with get_config"
        )
    cls = type(activation)
    return {
        "module": cls.__module__,
        "class_name": cls.__name__,
        "config": activation.get_config(),
        "registered_name": registry.registered_name(cls),
    }


def _name_of_op(op: Op) -> str:
    """The name of the activation that does just what an op does.

    Raises:
        SavingError: if there is none.
    """
    match = _BY_NAME.get(op.name)
    if match is not None:
        known = {p.name: p.default for p in inspect.signature(match).parameters.values() if p.default is not p.empty}
        if all(known.get(key, default) == default for key, default in op.defaults.items()):
            return op.name
    raise SavingError(
        f"the op {op.name!r} as an activation has no name to save",
        "a function of cornu.activations, or one of your own",
        f"write def my_activation(x): return cornu.ops.{op.name}(x)",
    )
