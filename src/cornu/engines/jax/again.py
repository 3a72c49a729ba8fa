"""A function computed again on the way back: `jax.checkpoint`, and what does on a CPU what it promises."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["again"]


def again(f: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """`f(*operands)`, of which nothing but the operands, and what `f` closes over, is kept for the way back.

    On a CPU XLA drops the barriers of `jax.checkpoint`, and then computes all such functions again as soon as it can:
    the peak of memory stays what it was. There they are made to depend on the gradients that arrive.
    """
    if jax.default_backend() != "cpu":
        return jax.checkpoint(f)(*operands)
    converted, closed = jax.closure_convert(f, *operands)
    count = len(operands)

    @jax.custom_vjp
    def call(*values: Any) -> Any:
        return converted(*values)

    def back(values: Any, gradients: Any) -> Any:
        mark = _mark(gradients)
        fresh = jax.tree.map(lambda x: _after(mark, x), values[:count])
        return jax.vjp(converted, *fresh, *values[count:])[1](gradients)

    call.defvjp(lambda *values: (call(*values), values), back)
    return call(*operands, *closed)


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))


def _mark(gradients: Any) -> Any:
    """A boolean that is true, and not to be known before the gradients are."""
    for gradient in jax.tree.leaves(gradients):
        if _is_float(gradient) and gradient.size:
            first = lax.convert_element_type(jnp.ravel(gradient)[0], jnp.float32)
            # No computation makes this NaN, which XLA does not know.
            return lax.bitcast_convert_type(first, jnp.uint32) != jnp.uint32(0xFFFFFFFF)
    return None


def _after(mark: Any, x: Any) -> Any:
    """The value, not to be had before the mark."""
    return x if mark is None or not _is_float(x) else jnp.where(mark, x, jnp.full((), jnp.nan, x.dtype))
