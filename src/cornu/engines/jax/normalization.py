"""Batch normalisation in JAX, with a rule for its derivative.

What XLA derives passes over the activations once for each use of a statistic. The rule has two sums over them, those
that are the gradients of offset and scale, and one pass to put them to use.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cornu.ops._declare import operator

__all__ = ["TABLE"]


def _beside(value: Any, rank: int, axis: int) -> Any:
    """An array `(n,)` to be broadcast along the other axes."""
    return value.reshape([-1 if i == axis else 1 for i in range(rank)])


def _normalized(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    """The result, and what its derivative needs: the centred array, the standard deviation's inverse, the factor."""
    axes = tuple(i for i in range(x.ndim) if i != axis)
    mean = jnp.mean(x, axes)
    centred = x - _beside(mean, x.ndim, axis)
    variance = jnp.mean(centred * centred, axes)
    inverse = lax.rsqrt(variance + epsilon)
    factor = inverse * scale
    y = centred * _beside(factor, x.ndim, axis) + _beside(offset, x.ndim, axis)
    return (y, mean, variance), centred, inverse, factor


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _by_batch(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    return _normalized(x, offset, scale, axis, epsilon)[0]


@_by_batch.defjvp
def _rule(axis: int, epsilon: float, primals: Any, tangents: Any) -> Any:
    x, offset, scale = primals
    dx, doffset, dscale = tangents
    result, centred, inverse, factor = _normalized(x, offset, scale, axis, epsilon)
    axes = tuple(i for i in range(x.ndim) if i != axis)

    def beside(value: Any) -> Any:
        return _beside(value, x.ndim, axis)

    along = (dscale - factor * inverse * jnp.mean(centred * dx, axes)) * inverse
    dy = beside(factor) * dx + centred * beside(along) + beside(doffset - factor * jnp.mean(dx, axes))
    return result, (dy, jnp.zeros_like(result[1]), jnp.zeros_like(result[2]))


@functools.partial(jax.jit, static_argnames=("axis", "epsilon"), inline=True)
def _compute(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    channels = (x.shape[axis],)
    offset = jnp.zeros(channels, x.dtype) if offset is None else offset
    scale = jnp.ones(channels, x.dtype) if scale is None else scale
    return _by_batch(x, offset, scale, axis % x.ndim, epsilon)


def _normalization_by_batch(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    if x.dtype not in (jnp.float32, jnp.float64) or not -x.ndim <= axis < x.ndim:
        return operator("normalization_by_batch").body(x, axis, offset, scale, epsilon)
    return _compute(x, offset, scale, axis, epsilon)


TABLE: dict[str, Callable[..., Any]] = {"normalization_by_batch": _normalization_by_batch}
