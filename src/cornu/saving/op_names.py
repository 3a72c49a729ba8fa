"""Names of op nodes in Keras's files: `keras.src.ops.<module>/<ClassName>`, and back."""

from typing import Any

from cornu import ops
from cornu.core.errors import SavingError
from cornu.core.family import deserialize_object, serialize_object
from cornu.core.names import snake_case
from cornu.ops._declare import Op, all_ops

__all__ = ["arguments_of", "is_op_config", "op_config", "op_of"]

# Where Keras keeps an op's class; all others are in `numpy`.
_MODULES = {
    "nn": (
        "adaptive_average_pool adaptive_max_pool average_pool binary_crossentropy categorical_crossentropy "
        "celu conv conv_transpose depthwise_conv dot_product_attention elu gelu glu hard_shrink hard_sigmoid "
        "hard_silu hard_tanh leaky_relu log_sigmoid log_softmax max_pool moments multi_hot normalize one_hot "
        "psnr relu relu6 selu separable_conv sigmoid silu soft_shrink softmax softplus softsign "
        "sparse_categorical_crossentropy sparse_plus sparse_sigmoid sparsemax squareplus tanh_shrink "
        "threshold"
    ),
    "core": "cast saturate_cast scatter scatter_update slice slice_update stop_gradient unstack",
    "math": "erf erfc erfinv in_top_k logsumexp rsqrt segment_max segment_min segment_prod segment_sum top_k",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
# Ours -> Keras's, where the names differ; and static arguments that Keras's classes take in the call.
_CLASSES = {"psnr": "PSNR", "einsum_of": "Einsum", "searchsorted": "SearchSorted"}
_OURS = {
    "search_sorted": "searchsorted",
    "einsum": "einsum_of",
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "true_divide": "divide",
}
_IN_CALL = {"get_item": ("key",)}
# Ops of Cornu's own, which Keras does not know.
_OWN = "cornu.ops"


def _class_name(name: str) -> str:
    return _CLASSES.get(name) or "".join(part.capitalize() for part in name.split("_"))


def op_config(op: Op, name: str, static: dict[str, Any]) -> dict[str, Any]:
    """An op node as Keras writes it.

    Args:
        op: the op.
        name: the node's name in its model.
        static: the node's static arguments.
    """
    known = op.name in _CLASSES or op.name in _MODULE_OF or _is_keras_numpy(op)
    for value in static.values():
        if callable(value):
            raise SavingError(f"the op {op.name!r} holds the function {value!r:.60}", "a layer of your own around it")
    kept = {key: serialize_object(value) for key, value in static.items() if key not in _IN_CALL.get(op.name, ())}
    class_name = _class_name(op.name)
    return {
        "module": f"keras.src.ops.{_MODULE_OF.get(op.name, 'numpy')}" if known else _OWN,
        "class_name": class_name if known else op.name,
        "config": {**kept, "name": name},
        "registered_name": class_name if known else op.name,
    }


def _is_keras_numpy(op: Op) -> bool:
    """Whether an op's module is one whose public names are Keras's (internal primitives are not)."""
    return op.name in ops.__all__ and op.name != "drop_mask"


def arguments_of(op: Op, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """An op node's arguments as Keras's call takes them (arrays by position), and its static ones."""
    positional: list[Any] = []
    for name in op.names:
        if name in op.arrays or name in _IN_CALL.get(op.name, ()):
            value = arguments[name]
            if op.name == "einsum_of":
                positional.extend(value)
            elif value is not None or positional:
                positional.append(value)
    while positional and positional[-1] is None:
        positional.pop()
    return positional, {key: value for key, value in arguments.items() if key not in op.arrays}


def is_op_config(given: dict[str, Any]) -> bool:
    """Whether a layer's config in a file is an op node."""
    module = str(given.get("module"))
    return module == _OWN or (module.startswith(("keras.src.ops.", "keras.ops")) and given["class_name"] != "Function")


def op_of(given: dict[str, Any]) -> tuple[Op, dict[str, Any]]:
    """The op of an op node's config, and its static arguments.

    Raises:
        SavingError: if there is no such op.
    """
    name = snake_case(given["class_name"])
    op = all_ops.get(_OURS.get(name, name))
    if op is None:
        raise SavingError(
            f"the file holds the op {given['class_name']!r} of {given['module']}", "an op that Cornu knows"
        )
    static = {key: deserialize_object(value) for key, value in given["config"].items() if key in op.names}
    return op, static
