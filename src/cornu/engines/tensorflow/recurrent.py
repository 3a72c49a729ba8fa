"""`lstm` and `gru` in TensorFlow: in a graph each step projects its own inputs.

TensorFlow keeps, for the gradient of a loop, what each step reads; a step that reads its inputs, and not their
projection, has less to keep and to add up.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cornu.engines.tensorflow import sequences as own
from cornu.engines.tensorflow.loops import under_xla
from cornu.ops.recurrent import gru_by_steps, lstm_by_steps

__all__ = ["TABLE"]

# Up to this many rows one product of all steps is better than one a step.
_FEW_ROWS = 8


def _at_once(x: Any) -> bool:
    rows = x.shape[1]
    return bool(tf.executing_eagerly() or (rows is not None and rows <= _FEW_ROWS))


def _has_own(x: Any) -> bool:
    """Whether the loops with a way back of their own serve."""
    wide = x.dtype in (tf.float32, tf.float64) and not under_xla.get()
    return bool(wide and not tf.executing_eagerly() and x.shape[0] != 0 and x.shape[2])


def _lstm(
    x: Any, kernel: Any, recurrent_kernel: Any, state: Any, carry: Any, bias: Any, reverse: bool, sequences: bool
) -> Any:
    arrays = (x, kernel, recurrent_kernel, state, carry)
    if not _has_own(x):
        return lstm_by_steps(*arrays, bias, reverse, sequences, _at_once(x))
    bias = tf.zeros(kernel.shape[1], x.dtype) if bias is None else bias
    composed = lambda *arrays: lstm_by_steps(*arrays, reverse, sequences, _at_once(x))
    return tuple(own.lstm(reverse, sequences, composed)(*arrays, bias))


def _gru(x: Any, kernel: Any, recurrent_kernel: Any, state: Any, bias: Any, reverse: bool, sequences: bool) -> Any:
    return gru_by_steps(x, kernel, recurrent_kernel, state, bias, reverse, sequences, _at_once(x))


TABLE: dict[str, Callable[..., Any]] = {"lstm": _lstm, "gru": _gru}
