"""A house cell over a whole sequence as one op, where the cell is of the kind that engines have kernels for."""

from typing import Any

from cornu import activations, ops
from cornu.layers.recurrent.cells import GRUCell, LSTMCell, Noise
from cornu.ops._declare import dtype_of
from cornu.ops.recurrent import gru, lstm

__all__ = ["is_standard", "over_sequence"]


def is_standard(cell: Any, noise: Noise, xs: Any, states: Any) -> bool:
    """Whether `over_sequence` does what the cell does step by step.

    Args:
        cell: a house cell whose call is not overridden.
        noise: dropout's factors: one array at most for the inputs, none for the state.
        xs: array `(time, batch, features)`.
        states: the first states.
    """
    if type(cell) not in (LSTMCell, GRUCell) or noise[1] is not None or len(noise[0] or ()) > 1:
        return False
    if cell.activation is not activations.tanh or cell.recurrent_activation is not activations.sigmoid:
        return False
    if not getattr(cell, "reset_after", True):
        return False
    return all(dtype_of(array) == cell.compute_dtype for array in (xs, *states))


def over_sequence(
    cell: Any, noise: Noise, xs: Any, states: list[Any], reverse: bool, sequences: bool
) -> tuple[Any, list[Any]]:
    """A standard cell over a sequence.

    Args:
        cell: the cell, built.
        noise: dropout's factors.
        xs: array `(time, batch, features)`.
        states: the first states, each `(batch, units)`.
        reverse: whether to walk from the end.
        sequences: whether the output is that of all steps, in the order of time, or of the last one.

    Returns:
        the output and the last states.
    """
    xs = ops.multiply(xs, noise[0][0]) if noise[0] else xs
    op = lstm if type(cell) is LSTMCell else gru
    output, *states = op(
        xs, cell.kernel, cell.recurrent_kernel, *states, bias=cell.bias, reverse=reverse, sequences=sequences
    )
    return output, states
