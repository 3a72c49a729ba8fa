"""`lstm` and `gru` over whole sequences in JAX, with rules for their derivatives.

Differentiated step by step, a loop adds up the gradients of its weights at every step and keeps all that a step has
computed. The rules here keep a step's slopes only; the derivative's own loop is linear in them, and what does not
depend on the loop is one product before it. Transposed (for gradients) that is one product after it, for each weight.
As rules of forward mode they serve both modes and derivatives of any order.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

__all__ = ["TABLE"]

# From this many rows on, a CPU is as fast when each step projects its own inputs, and needs less memory.
_MANY_ROWS = 8


def _projected(x: Any, kernel: Any, bias: Any, gates: int) -> tuple[Any, Callable[[Any], list[Any]]]:
    """What to walk over, and how a step makes of it the part of each gate that depends on the input."""

    def project(x: Any) -> list[Any]:
        product = _product(x, kernel)
        return jnp.split(product if bias is None else product + bias, gates, -1)

    if jax.default_backend() == "cpu" and isinstance(x.shape[1], int) and x.shape[1] >= _MANY_ROWS:
        return x, project
    # As an array for each gate: XLA is slow at cutting a part of an array within a loop.
    return project(x), lambda gates: gates


def _product(x: Any, kernel: Any) -> Any:
    """`x @ kernel` with the leading axes of `x` as one: XLA is slow at sums over two, which its gradient else has."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def _sum_of(*products: tuple[Any, Any]) -> Any:
    """The sum of products, without those with a factor that is known to be 0; 0 if none is left."""
    zero = SymbolicZero
    return sum(_product(a, b) for a, b in products if not isinstance(a, zero) and not isinstance(b, zero))


def _wide(given: Any, x: Any, size: int) -> Any:
    """A sum of `_sum_of` for each step and row of `x`."""
    return jnp.broadcast_to(given, (*x.shape[:2], size)).astype(x.dtype)


def _columns(kernel: Any, where: slice) -> Any:
    return kernel if isinstance(kernel, SymbolicZero) else kernel[:, where]


def _filled(tangent: Any) -> Any:
    return jnp.zeros(tangent.shape, tangent.dtype) if isinstance(tangent, SymbolicZero) else tangent


# ---------------------------------------------------------------- LSTM


def _lstm_steps(arrays: Any, reverse: bool, sequences: bool, slopes: bool) -> Any:
    """The result of `lstm`, and its steps' states and slopes."""
    x, kernel, recurrent_kernel, state, carry, bias = arrays
    given, project = _projected(x, kernel, bias, 4)

    def step(states: Any, given: Any) -> Any:
        h, c = states
        i, f, g, o = (a + b for a, b in zip(project(given), jnp.split(h @ recurrent_kernel, 4, -1), strict=True))
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        after = f * c + i * g
        t = jnp.tanh(after)
        kept = (g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), t * o * (1 - o), o * (1 - t * t), f)
        return (o * t, after), (o * t if sequences else (), (h, kept) if slopes else ())

    (state, carry), (states, kept) = lax.scan(step, (state, carry), given, reverse=reverse)
    return (states if sequences else state, state, carry), kept


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _lstm(arrays: Any, reverse: bool, sequences: bool) -> Any:
    return _lstm_steps(arrays, reverse, sequences, False)[0]


def _lstm_rule(reverse: bool, sequences: bool, primals: Any, tangents: Any) -> Any:
    (arrays,), (tangents,) = primals, tangents
    result, (before, slopes) = _lstm_steps(arrays, reverse, sequences, True)
    x, kernel, recurrent_kernel, *_ = arrays
    dx, dkernel, drecurrent, dstate, dcarry, dbias = tangents
    given = _sum_of((x, dkernel), (dx, kernel), (before, drecurrent))
    if dbias is not None and not isinstance(dbias, SymbolicZero):
        given = given + dbias
    given = _wide(given, x, recurrent_kernel.shape[1])

    def step(states: Any, xs: Any) -> Any:
        (dh, dc), (given, (a_i, a_f, a_g, a_o, a_c, f)) = states, xs
        i, df, g, o = jnp.split(given + dh @ recurrent_kernel, 4, -1)
        dc = f * dc + a_i * i + a_f * df + a_g * g
        dh = a_o * o + a_c * dc
        return (dh, dc), dh if sequences else ()

    (dh, dc), dstates = lax.scan(step, (_filled(dstate), _filled(dcarry)), (given, slopes), reverse=reverse)
    return result, (dstates if sequences else dh, dh, dc)


_lstm.defjvp(_lstm_rule, symbolic_zeros=True)


# ---------------------------------------------------------------- GRU


def _gru_steps(arrays: Any, reverse: bool, sequences: bool, slopes: bool) -> Any:
    """The result of `gru`, and its steps' states and slopes."""
    x, kernel, recurrent_kernel, state, bias = arrays
    given, project = _projected(x, kernel, None if bias is None else bias[0], 3)

    def step(h: Any, given: Any) -> Any:
        carried = h @ recurrent_kernel
        h_z, h_r, h_n = jnp.split(carried if bias is None else carried + bias[1], 3, -1)
        x_z, x_r, x_n = project(given)
        z, r = jax.nn.sigmoid(x_z + h_z), jax.nn.sigmoid(x_r + h_r)
        n = jnp.tanh(x_n + r * h_n)
        after = z * h + (1 - z) * n
        a_n = (1 - z) * (1 - n * n)
        kept = (z, z * (1 - z) * (h - n), a_n * h_n * r * (1 - r), a_n, a_n * r)
        return after, (after if sequences else (), (h, kept) if slopes else ())

    state, (states, kept) = lax.scan(step, state, given, reverse=reverse)
    return (states if sequences else state, state), kept


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _gru(arrays: Any, reverse: bool, sequences: bool) -> Any:
    return _gru_steps(arrays, reverse, sequences, False)[0]


def _gru_rule(reverse: bool, sequences: bool, primals: Any, tangents: Any) -> Any:
    (arrays,), (tangents,) = primals, tangents
    result, (before, slopes) = _gru_steps(arrays, reverse, sequences, True)
    x, kernel, recurrent_kernel, *_ = arrays
    dx, dkernel, drecurrent, dstate, dbias = tangents
    units = recurrent_kernel.shape[0]
    # The gates z and r get the sum of both products; the candidate's two parts differ.
    gates, last = slice(None, 2 * units), slice(2 * units, None)
    both = _sum_of((x, _columns(dkernel, gates)), (dx, kernel[:, gates]), (before, _columns(drecurrent, gates)))
    given = _sum_of((x, _columns(dkernel, last)), (dx, kernel[:, last]))
    kept = _sum_of((before, _columns(drecurrent, last)))
    if dbias is not None and not isinstance(dbias, SymbolicZero):
        both = both + dbias[0, gates] + dbias[1, gates]
        given, kept = given + dbias[0, last], kept + dbias[1, last]
    both = _wide(both, x, 2 * units)
    given, kept = _wide(given, x, units), _wide(kept, x, units)

    def step(dh: Any, xs: Any) -> Any:
        both, given, kept, (z, a_z, a_r, a_n, a_h) = xs
        carried = jnp.split(dh @ recurrent_kernel, 3, -1)
        d_z, d_r = (a + b for a, b in zip(jnp.split(both, 2, -1), carried[:2], strict=True))
        dh = z * dh + a_z * d_z + a_r * d_r + a_n * given + a_h * (kept + carried[2])
        return dh, dh if sequences else ()

    dh, dstates = lax.scan(step, _filled(dstate), (both, given, kept, slopes), reverse=reverse)
    return result, (dstates if sequences else dh, dh)


_gru.defjvp(_gru_rule, symbolic_zeros=True)


# ---------------------------------------------------------------- the table's entries


@functools.partial(jax.jit, static_argnames=("reverse", "sequences"), inline=True)
def _lstm_op(
    x: Any, kernel: Any, recurrent_kernel: Any, state: Any, carry: Any, bias: Any, reverse: bool, sequences: bool
) -> Any:
    return _lstm((x, kernel, recurrent_kernel, state, carry, bias), reverse, sequences)


@functools.partial(jax.jit, static_argnames=("reverse", "sequences"), inline=True)
def _gru_op(x: Any, kernel: Any, recurrent_kernel: Any, state: Any, bias: Any, reverse: bool, sequences: bool) -> Any:
    return _gru((x, kernel, recurrent_kernel, state, bias), reverse, sequences)


TABLE: dict[str, Callable[..., Any]] = {"lstm": _lstm_op, "gru": _gru_op}
