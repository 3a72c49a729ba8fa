"""Every primitive in JAX, and the ops for which JAX has a faster way than their composition."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import threefry2x32_p

from cornu.core import dtypes, tree
from cornu.engines.jax import activations, normalization, primitives, recurrent
from cornu.engines.jax.again import again
from cornu.engines.jax.direct import direct
from cornu.ops import control
from cornu.ops._declare import host_array

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Any]] = {}

for _name in (
    "exp expm1 log log1p sqrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh "
    "negative sign floor ceil abs isfinite isnan isinf logical_not bitwise_not "
    "add subtract multiply divide floor_divide mod power maximum minimum arctan2 equal not_equal less less_equal "
    "greater greater_equal logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor left_shift right_shift"
).split():
    TABLE[_name] = getattr(jnp, _name)
TABLE |= {
    "rsqrt": lambda x: lax.rsqrt(jnp.asarray(x)),
    "erf": lambda x: lax.erf(jnp.asarray(x)),
    "erfinv": lambda x: lax.erf_inv(jnp.asarray(x)),
    "lgamma": lambda x: lax.lgamma(jnp.asarray(x)),
    "digamma": lambda x: lax.digamma(jnp.asarray(x)),
    "sigmoid": lambda x: jax.nn.sigmoid(jnp.asarray(x)),
    "relu": activations.relu,
    "round_half_even": jnp.round,
    "stop_gradient": lax.stop_gradient,
    "as_tensor": jnp.asarray,
    "cast_to": lambda x, dtype: jnp.asarray(x).astype(dtypes.numpy_dtype(dtype)),
    "choose": lambda condition, x1, x2: jnp.where(condition, x1, x2),
}


def _axis(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _reduce(function: Callable[..., Any], keep_dtype: bool = False) -> Callable[..., Any]:
    if keep_dtype:
        return lambda x, axis, keepdims: function(x, axis=_axis(axis), keepdims=keepdims, dtype=x.dtype)
    return lambda x, axis, keepdims: function(x, axis=_axis(axis), keepdims=keepdims)


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis, reverse: function(jnp.asarray(x), axis % x.ndim, reverse=reverse)


TABLE |= {
    "sum": _reduce(jnp.sum, keep_dtype=True),
    "prod": _reduce(jnp.prod, keep_dtype=True),
    "max": _reduce(jnp.max),
    "min": _reduce(jnp.min),
    "any": _reduce(jnp.any),
    "all": _reduce(jnp.all),
    "argmax": lambda x, axis, keepdims: jnp.argmax(x, axis=axis, keepdims=keepdims).astype(jnp.int32),
    "argmin": lambda x, axis, keepdims: jnp.argmin(x, axis=axis, keepdims=keepdims).astype(jnp.int32),
    "sort": lambda x, axis: jnp.sort(x, axis=axis, stable=True),
    "argsort": lambda x, axis: jnp.argsort(x, axis=axis, stable=True).astype(jnp.int32),
    "top_k": lambda x, k, sorted: lax.top_k(jnp.asarray(x), k),
    "cumulative_sum": _cumulative(lax.cumsum),
    "cumulative_prod": _cumulative(lax.cumprod),
    "cumulative_max": _cumulative(lax.cummax),
    "broadcast_to_shape": lambda x, shape: jnp.broadcast_to(x, shape),
    "iota": lambda size, dtype: lax.iota(dtypes.numpy_dtype(dtype), size),
    "size_as_array": lambda size: jnp.asarray(size, jnp.int32),
    "reshape_to": lambda x, shape: jnp.reshape(x, shape),
    "permute": lambda x, axes: jnp.transpose(x, axes),
    "concatenate_all": lambda xs, axis: jnp.concatenate(xs, axis),
    "flip_axes": lambda x, axes: jnp.flip(x, axes),
    "pad_constant": lambda x, value, widths: jnp.pad(x, widths, constant_values=value),
    "slice_static": lambda x, starts, stops, steps: lax.slice(jnp.asarray(x), starts, stops, steps),
    "dynamic_slice": lambda x, starts, shape: lax.dynamic_slice(x, starts, shape),
    "dynamic_update": lambda x, update, starts: lax.dynamic_update_slice(x, update, starts),
    "searchsorted_in": lambda sorted_sequence, values, side: jnp.searchsorted(sorted_sequence, values, side).astype(
        jnp.int32
    ),
    "matmul": jnp.matmul,
    "dot_general": lambda x1, x2, contract, batch: lax.dot_general(x1, x2, (contract, batch)),
    "threefry2x32": lambda k1, k2, x1, x2: _threefry(k1, k2, x1, x2),
}


TABLE |= direct(TABLE)


def _threefry(k1: Any, k2: Any, x1: Any, x2: Any) -> Any:
    shape = jnp.broadcast_shapes(*map(jnp.shape, (k1, k2, x1, x2)))
    parts = (jnp.ravel(jnp.broadcast_to(jnp.asarray(part, jnp.uint32), shape)) for part in (k1, k2, x1, x2))
    a, b = threefry2x32_p.bind(*parts)
    return a.reshape(shape), b.reshape(shape)


# ---------------------------------------------------------------- indexing


def _outside(x: Any) -> Any:
    return jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0


def _beyond(indices: Any, size: int) -> Any:
    """Positions below 0 moved past the end: JAX would count them from there."""
    return jnp.where(indices < 0, size, indices)


def _gather(x: Any, indices: Any, axis: int) -> Any:
    return jnp.take(x, _beyond(indices, x.shape[axis]), axis=axis, mode="fill", fill_value=_outside(x))


def _gather_along(x: Any, indices: Any, axis: int) -> Any:
    if indices.shape[axis] == 1 and isinstance(x, jax.core.Tracer) and jnp.issubdtype(x.dtype, jnp.floating):
        return _pick(x, indices, axis)
    where = _beyond(indices, x.shape[axis])
    shape = jnp.broadcast_shapes(*[s[:axis] + (1,) + s[axis + 1 :] for s in (x.shape, indices.shape)])
    where = jnp.broadcast_to(where, shape[:axis] + (where.shape[axis],) + shape[axis + 1 :])
    x = jnp.broadcast_to(x, shape[:axis] + (x.shape[axis],) + shape[axis + 1 :])
    return jnp.take_along_axis(x, where, axis, mode="fill", fill_value=_outside(x))


def _pick(x: Any, indices: Any, axis: int) -> Any:
    """One element of each row, compiled: compared and summed, in one pass with what is around.

    A gather's gradient would be a scatter, five functions to compile, of which XLA runs one on a single core.
    """
    size = x.shape[axis]
    here = lax.broadcasted_iota(jnp.int32, [size if i == axis else 1 for i in range(x.ndim)], axis) == indices
    found = jnp.sum(jnp.where(here, x, jnp.zeros((), x.dtype)), axis, keepdims=True, dtype=x.dtype)
    return jnp.where((indices >= 0) & (indices < size), found, jnp.nan)


def _scatter_nd(x: Any, indices: Any, updates: Any, mode: str) -> Any:
    depth = indices.shape[-1]
    where = tuple(_beyond(indices[..., i], x.shape[i]) for i in range(depth))
    updates = jnp.broadcast_to(updates, indices.shape[:-1] + x.shape[depth:])
    if mode == "set":  # XLA leaves open which of equal positions wins; the last one does here.
        return _scatter_last(x, where, updates)
    at = jnp.asarray(x).at[where]
    method: Any = {"add": at.add, "max": at.max, "min": at.min, "mul": at.multiply}[mode]
    return method(updates, mode="drop")


def _scatter_last(x: Any, where: tuple[Any, ...], updates: Any) -> Any:
    if not where:
        return jnp.broadcast_to(updates, x.shape).astype(x.dtype)
    flat = jnp.zeros((), jnp.int32)
    count = 1
    inside = jnp.ones((), bool)
    for i, position in enumerate(where):
        flat = flat * x.shape[i] + position.astype(jnp.int32)
        inside = inside & (position < x.shape[i])
        count *= x.shape[i]
    flat = jnp.where(inside, flat, count).reshape(-1)
    order = jnp.arange(flat.shape[0], dtype=jnp.int32)
    last = jnp.full((count,), -1, jnp.int32).at[flat].max(order, mode="drop")
    winner = jnp.where(order == jnp.take(last, flat, mode="fill", fill_value=-1), flat, count)
    rest = x.shape[len(where) :]
    table = jnp.asarray(x).reshape(count, *rest).at[winner].set(updates.reshape(flat.shape[0], *rest), mode="drop")
    return table.reshape(x.shape)


TABLE |= {"gather": _gather, "gather_along": _gather_along, "scatter_nd": _scatter_nd}


# ---------------------------------------------------------------- convolution and windows

TABLE |= primitives.TABLE


# ---------------------------------------------------------------- recurrence and normalisation

TABLE |= {**recurrent.TABLE, **normalization.TABLE}


# ---------------------------------------------------------------- control


def _arrays(values: Any) -> Any:
    return tree.map_structure(
        lambda v: None if v is None else jnp.asarray(getattr(v, "value", v) if hasattr(v, "dtype") else host_array(v)),
        values,
    )


def _scan(f: Any, init: Any, xs: Any, length: Any, reverse: bool, unroll: Any) -> Any:
    def step(state: Any, x: Any) -> Any:
        state, y = f(state, x)
        return _arrays(state), _arrays(y)

    return lax.scan(step, _arrays(init), _arrays(xs), control.scan_length(xs, length), reverse, unroll)


def _while_loop(cond: Any, body: Any, loop_vars: Any, maximum_iterations: Any) -> Any:
    many = isinstance(loop_vars, (list, tuple))

    def flat_body(state: Any) -> Any:
        after = body(*state)
        return _arrays(tuple(after) if isinstance(after, (list, tuple)) else (after,))

    def holds(state: Any) -> Any:
        return jnp.reshape(jnp.asarray(cond(*state)), ())

    state = _arrays(tuple(loop_vars) if many else (loop_vars,))
    if maximum_iterations is None:
        state = lax.while_loop(holds, flat_body, state)
    else:  # a scan of conditional steps, which JAX can differentiate

        def step(state: Any, _: Any) -> Any:
            return lax.cond(holds(state), flat_body, lambda s: s, state), None

        state, _ = lax.scan(step, state, None, maximum_iterations)
    return (list(state) if isinstance(loop_vars, list) else state) if many else state[0]


def _cond(pred: Any, true_fn: Any, false_fn: Any, operands: Any) -> Any:
    return lax.cond(
        jnp.reshape(jnp.asarray(pred), ()).astype(bool),
        lambda o: _arrays(true_fn(*o)),
        lambda o: _arrays(false_fn(*o)),
        operands or (),
    )


def _rematerialized(operands: Any, f: Any) -> Any:
    return again(lambda *values: _arrays(f(*values)), tuple(operands))


TABLE |= {"scan": _scan, "while_loop": _while_loop, "cond_of": _cond, "rematerialized": _rematerialized}
