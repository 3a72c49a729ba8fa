"""`tf.custom_gradient` that does not keep graphs for ever.

In a graph TensorFlow enters the gradient under a name in a registry of the process, where it holds the whole graph
(seen with TensorFlow 2.21, `python/ops/custom_gradient.py`). For what Cornu itself traces, the names are taken out
again with the traced function.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from cornu.core import tree

__all__ = ["custom_gradient", "entering", "forget", "forget_with"]

_entered: ContextVar[list[str] | None] = ContextVar("cornu_tensorflow_gradients", default=None)


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.custom_gradient`."""
    decorated = tf.custom_gradient(function)

    def run(*values: Any) -> Any:
        result = decorated(*values)
        entered = _entered.get()
        if entered is not None and not tf.executing_eagerly():
            entered.append(tf.compat.as_str(tree.leaves(result)[0].op.get_attr("_gradient_op_type")))
        return result

    return run


@contextlib.contextmanager
def entering(names: list[str]) -> Iterator[None]:
    """Note in a list the names under which gradients are entered in this block."""
    token = _entered.set(names)
    try:
        yield
    finally:
        _entered.reset(token)


def forget(names: list[str]) -> None:
    """Take names out of the registry."""
    for name in names:
        ops.gradient_registry._registry.pop(name, None)


def forget_with(owner: Any, names: list[str]) -> None:
    """Take names out of the registry when an object is gone."""
    if names:
        weakref.finalize(owner, forget, names).atexit = False
