"""Recurrences over whole sequences, `lstm` and `gru`: what an engine may have a kernel of its own for."""

from typing import Any

from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import contraction as _t
from cornu.ops import elementwise as _e
from cornu.ops import indexing as _i
from cornu.ops import movement as _m
from cornu.ops._declare import op, shape_of, to_float
from cornu.ops.control import scan

__all__ = ["gru", "gru_by_steps", "gru_step", "lstm", "lstm_by_steps", "lstm_step"]


def lstm_step(gates: Any, carry: Any, activation: Any = _e.tanh, gate: Any = _e.sigmoid) -> Any:
    """One step of an LSTM, from what its gates depend on.

    Args:
        gates: an array `(batch, units)` for each of `i, f, candidate, o`: of the input and of the state, added up.
        carry: array `(batch, units)`.
        activation: function of the candidate and of the carry.
        gate: function of `i`, `f` and `o`.

    Returns:
        the next state and the next carry.
    """
    i, f, candidate, o = gates
    carry = _a.add(_a.multiply(gate(f), carry), _a.multiply(gate(i), activation(candidate)))
    return _a.multiply(gate(o), activation(carry)), carry


def gru_step(projected: Any, carried: Any, state: Any, activation: Any = _e.tanh, gate: Any = _e.sigmoid) -> Any:
    """One step of a GRU whose reset gate acts after the product.

    Args:
        projected: an array `(batch, units)` for each of `z, r, candidate`, of the input.
        carried: the same, of the state.
        state: array `(batch, units)`.
        activation: function of the candidate.
        gate: function of `z` and `r`.

    Returns:
        the next state.
    """
    (x_z, x_r, x_h), (h_z, h_r, h_h) = projected, carried
    z, r = gate(_a.add(x_z, h_z)), gate(_a.add(x_r, h_r))
    candidate = activation(_a.add(x_h, _a.multiply(r, h_h)))
    return _a.add(_a.multiply(z, state), _a.multiply(_a.subtract(1, z), candidate))


def _product(x: Any, kernel: Any, bias: Any) -> Any:
    """`x @ kernel + bias`; the leading axes of `x` are one in the product."""
    leading = shape_of(x)[:-1]
    product = _t.matmul(_m.reshape(x, (-1, shape_of(x)[-1])) if len(leading) > 1 else x, kernel)
    product = product if bias is None else _a.add(product, bias)
    return _m.reshape(product, (*leading, shape_of(product)[-1])) if len(leading) > 1 else product


def lstm_by_steps(
    x: Any,
    kernel: Any,
    recurrent_kernel: Any,
    state: Any,
    carry: Any,
    bias: Any,
    reverse: bool,
    sequences: bool,
    at_once: bool = True,
) -> Any:
    """`lstm` as a loop of ops; `at_once` is whether the inputs are projected before it, in one product."""

    def step(states: Any, x: Any) -> Any:
        carried = _t.matmul(states[0], recurrent_kernel)
        if at_once:
            gates = [_a.add(a, b) for a, b in zip(x, _m.split(carried, 4, axis=-1), strict=True)]
        else:
            gates = _m.split(_a.add(_product(x, kernel, bias), carried), 4, axis=-1)
        after = lstm_step(gates, states[1])
        return after, after[0] if sequences else ()

    xs = _m.split(_product(x, kernel, bias), 4, axis=-1) if at_once else x
    (state, carry), states = scan(step, (state, carry), xs, shape_of(x)[0], reverse)
    return (states if sequences else state), state, carry


def gru_by_steps(
    x: Any,
    kernel: Any,
    recurrent_kernel: Any,
    state: Any,
    bias: Any,
    reverse: bool,
    sequences: bool,
    at_once: bool = True,
) -> Any:
    """`gru` as a loop of ops; `at_once` is whether the inputs are projected before it, in one product."""
    given, kept = (None, None) if bias is None else (_i.get_item(bias, 0), _i.get_item(bias, 1))

    def step(state: Any, x: Any) -> Any:
        projected = x if at_once else _m.split(_product(x, kernel, given), 3, axis=-1)
        after = gru_step(projected, _m.split(_product(state, recurrent_kernel, kept), 3, axis=-1), state)
        return after, after if sequences else ()

    xs = _m.split(_product(x, kernel, given), 3, axis=-1) if at_once else x
    state, states = scan(step, state, xs, shape_of(x)[0], reverse)
    return (states if sequences else state), state


@op(promote=True, result=to_float)
def lstm(
    x: Spec,
    kernel: Spec,
    recurrent_kernel: Spec,
    state: Spec,
    carry: Spec,
    bias: Spec | None = None,
    reverse=False,
    sequences=False,
) -> Any:
    """An LSTM over a sequence: gates by `sigmoid`, candidate and carry by `tanh` (Hochreiter & Schmidhuber, 1997).

    Args:
        x: array `(time, batch, features)`.
        kernel: array `(features, 4 * units)`, in its columns `i, f, candidate, o`.
        recurrent_kernel: array `(units, 4 * units)`.
        state: the first state, `(batch, units)`.
        carry: the first carry, `(batch, units)`.
        bias: array `(4 * units,)`, or `None` for 0.
        reverse: whether to walk from the end.
        sequences: whether to give the states after all steps, in the order of time.

    Returns:
        the states `(time, batch, units)`, or the last state if not `sequences`; the last state; the last carry.
    """

    return lstm_by_steps(x, kernel, recurrent_kernel, state, carry, bias, reverse, sequences)


@op(promote=True, result=to_float)
def gru(
    x: Spec,
    kernel: Spec,
    recurrent_kernel: Spec,
    state: Spec,
    bias: Spec | None = None,
    reverse=False,
    sequences=False,
) -> Any:
    """A GRU over a sequence: gates by `sigmoid`, the candidate by `tanh`, reset after the product (arXiv 1406.1078v1).

    Args:
        x: array `(time, batch, features)`.
        kernel: array `(features, 3 * units)`, in its columns `z, r, candidate`.
        recurrent_kernel: array `(units, 3 * units)`.
        state: the first state, `(batch, units)`.
        bias: array `(2, 3 * units)`, of the products with the kernel and with the recurrent kernel; `None` for 0.
        reverse: whether to walk from the end.
        sequences: whether to give the states after all steps, in the order of time.

    Returns:
        the states `(time, batch, units)`, or the last state if not `sequences`; the last state.
    """
    return gru_by_steps(x, kernel, recurrent_kernel, state, bias, reverse, sequences)
