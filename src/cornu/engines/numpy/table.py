"""Every primitive in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

import cornu.engines.numpy.windows as windows
from cornu.core import dtypes
from cornu.engines.numpy import special
from cornu.ops import control

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Any]] = {}


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """NaN and infinity are answers here, not warnings."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return run


def _same_dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(function(x)).astype(x.dtype, copy=False)

    return run


def _sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


for _name in (
    "exp expm1 log log1p sqrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh "
    "negative sign floor ceil abs"
).split():
    TABLE[_name] = _same_dtype(getattr(np, _name))
for _name in ("erf", "erfinv", "lgamma", "digamma"):
    TABLE[_name] = _same_dtype(getattr(special, _name))
TABLE |= {
    "rsqrt": _same_dtype(lambda x: 1 / np.sqrt(x)),
    "sigmoid": _same_dtype(_sigmoid),
    "relu": lambda x: np.maximum(x, np.zeros((), x.dtype)),
    "round_half_even": _same_dtype(np.round),
    "isfinite": np.isfinite,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "logical_not": np.logical_not,
    "bitwise_not": np.bitwise_not,
    "stop_gradient": lambda x: x,
    "as_tensor": lambda x: x,
    "cast_to": _quiet(lambda x, dtype: _cast(x, dtype)),
    "choose": lambda condition, x1, x2: np.where(condition, x1, x2),
}


def _cast(x: Any, dtype: str) -> Any:
    if dtype != "bool" and x.dtype.kind == "f" and dtype in dtypes.INTEGERS:
        limits = np.iinfo(dtype)
        # As XLA and the processors' saturating casts do: out of range goes to the nearest, NaN to 0.
        inside = np.clip(
            np.nan_to_num(x.astype("float64"), nan=0.0, posinf=np.inf, neginf=-np.inf), limits.min, limits.max
        )
        whole = np.where(inside >= float(limits.max), limits.max, 0).astype(dtype)
        return np.where(inside >= float(limits.max), whole, np.where(inside < limits.max, inside, 0).astype(dtype))
    return x.astype(dtypes.numpy_dtype(dtype), copy=False)


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x1: Any, x2: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(x1, x2)

    return run


for _name in (
    "add subtract multiply divide floor_divide mod power maximum minimum arctan2 equal not_equal less less_equal "
    "greater greater_equal logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor"
).split():
    TABLE[_name] = _binary(getattr(np, _name))
# NumPy gives int8 for booleans.
TABLE["left_shift"] = _binary(lambda x1, x2: np.left_shift(x1, x2).astype(x1.dtype))
TABLE["right_shift"] = _binary(lambda x1, x2: np.right_shift(x1, x2).astype(x1.dtype))


def _axis(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _reduce(function: Callable[..., Any], wide: bool = False) -> Callable[..., Any]:
    def run(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        with np.errstate(all="ignore"):
            if wide and dtypes.size_of(x.dtype.name) == 2 and x.dtype.kind not in "iu":
                return np.asarray(function(x.astype("float32"), axis=_axis(axis), keepdims=keepdims)).astype(x.dtype)
            if x.dtype.kind in "iu" and wide:
                return np.asarray(function(x, axis=_axis(axis), keepdims=keepdims, dtype=x.dtype))
            return np.asarray(function(x, axis=_axis(axis), keepdims=keepdims))

    return run


TABLE |= {
    "sum": _reduce(np.sum, wide=True),
    "prod": _reduce(np.prod, wide=True),
    "max": _reduce(np.max),
    "min": _reduce(np.min),
    "any": _reduce(np.any),
    "all": _reduce(np.all),
    "argmax": lambda x, axis, keepdims: np.asarray(np.argmax(x, axis=axis, keepdims=keepdims), np.int32),
    "argmin": lambda x, axis, keepdims: np.asarray(np.argmin(x, axis=axis, keepdims=keepdims), np.int32),
    "sort": lambda x, axis: np.sort(x, axis=axis, kind="stable"),
    "argsort": lambda x, axis: np.argsort(x, axis=axis, kind="stable").astype(np.int32),
}


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axis: int, reverse: bool) -> Any:
        with np.errstate(all="ignore"):
            if reverse:
                return np.flip(function(np.flip(x, axis), axis=axis), axis).astype(x.dtype, copy=False)
            return function(x, axis=axis).astype(x.dtype, copy=False)

    return run


TABLE["cumulative_sum"] = _cumulative(np.cumsum)
TABLE["cumulative_prod"] = _cumulative(np.cumprod)
TABLE["cumulative_max"] = _cumulative(np.maximum.accumulate)


def _top_k(x: Any, k: int, sorted: bool) -> Any:
    order = np.flip(x.shape[-1] - 1 - np.argsort(np.flip(x, -1), axis=-1, kind="stable"), -1)[..., :k]
    return np.take_along_axis(x, order, -1), order.astype(np.int32)


def _pad(x: Any, value: Any, widths: Any) -> Any:
    return np.pad(x, widths, constant_values=value)


TABLE |= {
    "top_k": _top_k,
    "broadcast_to_shape": lambda x, shape: np.broadcast_to(x, shape),
    "iota": lambda size, dtype: np.arange(size, dtype=dtypes.numpy_dtype(dtype)),
    "size_as_array": lambda size: np.asarray(size, np.int32),
    "reshape_to": lambda x, shape: np.reshape(x, shape),
    "permute": lambda x, axes: np.transpose(x, axes),
    "concatenate_all": lambda xs, axis: np.concatenate(xs, axis),
    "flip_axes": lambda x, axes: np.flip(x, axes),
    "pad_constant": _pad,
}


# ---------------------------------------------------------------- indexing


def _dynamic_starts(x: Any, starts: list[Any], shape: Any) -> Any:
    return tuple(
        slice(start, start + want)
        for start, want in (
            (int(np.clip(start, 0, size - want)), want)
            for start, size, want in zip(starts, x.shape, shape, strict=True)
        )
    )


def _dynamic_update(x: Any, update: Any, starts: list[Any]) -> Any:
    result = np.array(x)
    result[_dynamic_starts(x, starts, update.shape)] = update
    return result


def outside_value(dtype: Any) -> Any:
    """What a position outside an array gives: NaN, or 0 for whole numbers."""
    return np.asarray(np.nan if dtype.kind == "f" or dtype.name == "bfloat16" else 0).astype(dtype)


def _gather(x: Any, indices: Any, axis: int) -> Any:
    size = x.shape[axis]
    inside = (indices >= 0) & (indices < size)
    if inside.all():
        return np.take(x, indices, axis=axis)
    shape = (1,) * axis + indices.shape + (1,) * (x.ndim - axis - 1)
    if size == 0:
        return np.full(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], outside_value(x.dtype), x.dtype)
    return np.where(inside.reshape(shape), np.take(x, np.where(inside, indices, 0), axis=axis), outside_value(x.dtype))


def _gather_along(x: Any, indices: Any, axis: int) -> Any:
    inside = (indices >= 0) & (indices < x.shape[axis])
    shape = np.broadcast_shapes(*[s[:axis] + (1,) + s[axis + 1 :] for s in (x.shape, indices.shape)])
    wide = np.broadcast_to(x, shape[:axis] + (x.shape[axis],) + shape[axis + 1 :])
    where = np.broadcast_to(indices, shape[:axis] + (indices.shape[axis],) + shape[axis + 1 :])
    taken = np.take_along_axis(wide, np.where(np.broadcast_to(inside, where.shape), where, 0), axis)
    return np.where(inside, taken, outside_value(x.dtype))


_SCATTER = {"add": np.add.at, "max": np.maximum.at, "min": np.minimum.at, "mul": np.multiply.at}


def _scatter_nd(x: Any, indices: Any, updates: Any, mode: str) -> Any:
    depth = indices.shape[-1]
    rest = x.shape[depth:]
    rows = np.reshape(indices, (-1, depth))
    values = np.reshape(np.broadcast_to(updates, indices.shape[:-1] + rest), (len(rows), *rest))
    inside = np.all((rows >= 0) & (rows < np.array(x.shape[:depth], np.int64)), axis=1)
    where = tuple(rows[inside].T)
    result = np.array(x)
    if mode == "set":
        result[where] = values[inside]
    else:
        _SCATTER[mode](result, where, values[inside])
    return result


TABLE |= {
    "slice_static": lambda x, starts, stops, steps: x[tuple(map(slice, starts, stops, steps))],
    "dynamic_slice": lambda x, starts, shape: x[_dynamic_starts(x, starts, shape)],
    "dynamic_update": _dynamic_update,
    "gather": _gather,
    "gather_along": _gather_along,
    "scatter_nd": _scatter_nd,
    "searchsorted_in": lambda sorted_sequence, values, side: np.searchsorted(sorted_sequence, values, side).astype(
        np.int32
    ),
}


# ---------------------------------------------------------------- contraction


def _wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """Half-width floats are multiplied in float32, as every processor does."""

    def run(x1: Any, x2: Any, **static: Any) -> Any:
        with np.errstate(all="ignore"):
            if dtypes.size_of(x1.dtype.name) == 2 and x1.dtype.kind not in "iu":
                return np.asarray(function(x1.astype("float32"), x2.astype("float32"), **static)).astype(x1.dtype)
            return np.asarray(function(x1, x2, **static))

    return run


def _dot_general(x1: Any, x2: Any, contract: Any, batch: Any) -> Any:
    free_1 = [a for a in range(x1.ndim) if a not in contract[0] and a not in batch[0]]
    free_2 = [a for a in range(x2.ndim) if a not in contract[1] and a not in batch[1]]
    left = np.transpose(x1, (*batch[0], *free_1, *contract[0]))
    right = np.transpose(x2, (*batch[1], *contract[1], *free_2))
    batches = [x1.shape[a] for a in batch[0]]
    inner = int(np.prod([x1.shape[a] for a in contract[0]], dtype=int))
    rows, columns = [x1.shape[a] for a in free_1], [x2.shape[a] for a in free_2]
    product = np.matmul(
        left.reshape((*batches, int(np.prod(rows, dtype=int)), inner)),
        right.reshape((*batches, inner, int(np.prod(columns, dtype=int)))),
    )
    return product.reshape((*batches, *rows, *columns))


TABLE |= {"matmul": _wide(np.matmul), "dot_general": _wide(_dot_general)}
for _name in (
    "convolution convolution_input_gradient convolution_kernel_gradient "
    "window_sum window_sum_gradient window_max window_max_gradient window_max_take"
).split():
    TABLE[_name] = _quiet(getattr(windows, _name))


def _as_array(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy gives scalars where an array with no axes is meant; a float64 scalar would count as a Python number."""

    def run(*args: Any, **static: Any) -> Any:
        result = function(*args, **static)
        return np.asarray(result) if isinstance(result, np.generic) else result

    return run


for _name, _function in TABLE.items():
    TABLE[_name] = _as_array(_function)
TABLE |= control.UNROLLED
