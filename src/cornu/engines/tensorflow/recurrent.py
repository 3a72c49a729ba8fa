"""`lstm` and `gru` in TensorFlow: in a graph each step projects its own inputs.

TensorFlow keeps, for the gradient of a loop, what each step reads; a step that reads its inputs, and not their
projection, has less to keep and to add up.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cornu.ops.recurrent import gru_by_steps, lstm_by_steps

__all__ = ["TABLE"]

# Up to this many rows one product of all steps is better than one a step.
_FEW_ROWS = 8


def _at_once(x: Any) -> bool:
    rows = x.shape[1]
    return bool(tf.executing_eagerly() or (rows is not None and rows <= _FEW_ROWS))


def _lstm(
    x: Any, kernel: Any, recurrent_kernel: Any, state: Any, carry: Any, bias: Any, reverse: bool, sequences: bool
) -> Any:
    return lstm_by_steps(x, kernel, recurrent_kernel, state, carry, bias, reverse, sequences, _at_once(x))


def _gru(x: Any, kernel: Any, recurrent_kernel: Any, state: Any, bias: Any, reverse: bool, sequences: bool) -> Any:
    return gru_by_steps(x, kernel, recurrent_kernel, state, bias, reverse, sequences, _at_once(x))


TABLE: dict[str, Callable[..., Any]] = {"lstm": _lstm, "gru": _gru}
