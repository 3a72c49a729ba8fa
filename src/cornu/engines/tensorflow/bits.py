"""Random bits: Threefry's rounds as one kernel where many are drawn."""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cornu.ops._declare import operator

__all__ = ["TABLE"]

# From this many on, XLA's one kernel takes a fifth of the time of a hundred of TensorFlow's (64k: 0.26 against 1.3 ms).
_MANY = 1 << 14


@functools.cache
def _fused() -> Callable[..., Any]:
    """The composition under XLA, for a key of two scalars and counters in a row."""
    scalar, row = tf.TensorSpec((), tf.uint32), tf.TensorSpec((None,), tf.uint32)
    body = operator("threefry2x32").body
    return tf.function(body, input_signature=[scalar, scalar, row, row], autograph=False, jit_compile=True)


def _threefry(k1: Any, k2: Any, x1: Any, x2: Any) -> Any:
    size = x1.shape[0] if len(x1.shape) == 1 else None
    if size is None or math.prod(x1.shape) < _MANY or x1.shape != x2.shape or len(k1.shape) or len(k2.shape):
        return operator("threefry2x32").body(k1, k2, x1, x2)
    return tuple(tf.ensure_shape(part, x1.shape) for part in _fused()(k1, k2, x1, x2))


TABLE: dict[str, Callable[..., Any]] = {"threefry2x32": _threefry}
