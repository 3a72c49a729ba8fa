"""ReLU in the form that XLA fuses best on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["relu"]


@jax.custom_jvp
def _relu(x: Any) -> Any:
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)  # NaN stays NaN


@_relu.defjvp
def _(given: Any, changes: Any) -> Any:
    (x,), (change,) = given, changes
    y = _relu(x)
    return y, jnp.where(y > 0, change, jnp.zeros((), change.dtype))


# Not `jax.nn.relu`, a maximum: that has one large operand, so XLA computes it again wherever it is read, within slow
# transpositions for kernel gradients too, and for sums it writes out a whole array of zeros. Its gradient asks what
# came in, which for a residual block is a sum to be computed again; here it asks what came out.
# Compiled, as eagerly the rule of its gradient alone would cost more than it does.
relu = jax.jit(_relu, inline=True)
