"""Every primitive in PyTensor, and the ops for which it has a faster way than their composition.

A function of the table computes at once, with the NumPy engine's function, where all arrays are known (as PyTensor
folds constants); otherwise it makes a graph of PyTensor's own Ops, or of ours (`operations`) where PyTensor has none.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from cornu.core import dtypes
from cornu.core.spec import Spec
from cornu.engines.pytensor.operations import Primitive, flattened, frozen, nested, nodes, reference
from cornu.engines.pytensor.values import Known, check_dtype, known, spec_of, traced
from cornu.ops._declare import ABSTRACT, operator

__all__ = ["TABLE"]

GRAPHS: dict[str, Callable[..., Any]] = {}


def _number(value: Any, dtype: str) -> Any:
    """A number as a constant of a dtype (PyTensor would choose one by `floatX`)."""
    return pt.constant(np.asarray(value).astype(dtype))


# ---------------------------------------------------------------- elementwise

for _name in (
    "exp expm1 log log1p sqrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh floor ceil abs "
    "sign sigmoid erf erfinv arctan2"
).split():
    GRAPHS[_name] = getattr(pt, _name)
GRAPHS |= {
    "negative": pt.neg,
    "lgamma": pt.gammaln,
    "digamma": pt.psi,
    "rsqrt": lambda x: pt.reciprocal(pt.sqrt(x)),
    "relu": lambda x: pt.maximum(x, _number(0, x.dtype)),
    "round_half_even": lambda x: pt.round(x, mode="half_to_even") if x.dtype in dtypes.FLOATS else x,
    "isnan": lambda x: _odd(pt.isnan, x),
    "isinf": lambda x: _odd(pt.isinf, x),
    "isfinite": lambda x: pt.invert(pt.or_(_odd(pt.isnan, x), _odd(pt.isinf, x))),
    "logical_not": pt.invert,
    "bitwise_not": pt.invert,
    "stop_gradient": lambda x: x,
    "as_tensor": lambda x: x,
    "cast_to": lambda x, dtype: _cast(x, dtype),
    "choose": pt.switch,
}


def _odd(test: Callable[..., Any], x: Any) -> Any:
    """A test for NaN or infinity, which only floats pass."""
    return test(x) if x.dtype in dtypes.FLOATS else known(np.zeros(x.type.shape, bool))


def _cast(x: Any, dtype: str) -> Any:
    check_dtype(dtype)
    if dtype == x.dtype:
        return x
    if dtype == "bool":
        return pt.neq(x, _number(0, x.dtype))
    if dtype in dtypes.INTEGERS and x.dtype in dtypes.FLOATS:
        return _saturated(pt.cast(x, "float64"), dtype)
    return pt.cast(x, dtype)


def _saturated(x: Any, dtype: str) -> Any:
    """A float64 as an integer: out of range goes to the nearest, NaN to 0."""
    limits = np.iinfo(dtype)
    top = float(limits.max)
    inside = pt.switch(pt.isnan(x), _number(0, "float64"), pt.maximum(x, _number(limits.min, "float64")))
    whole = pt.cast(pt.switch(pt.lt(inside, _number(top, "float64")), inside, _number(0, "float64")), dtype)
    return pt.switch(pt.ge(inside, _number(top, "float64")), _number(limits.max, dtype), whole)


def _logic(function: Callable[..., Any], on_bool: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x1, x2: on_bool(x1, x2) if x1.dtype == "bool" else function(x1, x2)


def _no_zero(function: Callable[..., Any]) -> Callable[..., Any]:
    """Division of whole numbers by 0 gives 0, as NumPy has it; PyTensor's C code would raise."""

    def run(x1: Any, x2: Any) -> Any:
        if x1.dtype in dtypes.FLOATS:
            return function(x1, x2)
        zero = pt.eq(x2, _number(0, x2.dtype))
        return pt.switch(zero, _number(0, x1.dtype), function(x1, pt.switch(zero, _number(1, x2.dtype), x2)))

    return run


def _power(x1: Any, x2: Any) -> Any:
    return pt.pow(x1, x2) if x1.dtype in dtypes.FLOATS else _as_primitive("power")(x1, x2)


GRAPHS |= {
    "add": _logic(pt.add, pt.or_),
    "multiply": _logic(pt.mul, pt.and_),
    "subtract": pt.sub,
    "divide": pt.true_div,
    "floor_divide": _no_zero(pt.int_div),
    "mod": _no_zero(pt.mod),
    "power": _power,
    "maximum": _logic(pt.maximum, pt.or_),
    "minimum": _logic(pt.minimum, pt.and_),
    "equal": pt.eq,
    "not_equal": pt.neq,
    "less": pt.lt,
    "less_equal": pt.le,
    "greater": pt.gt,
    "greater_equal": pt.ge,
    "logical_and": pt.and_,
    "logical_or": pt.or_,
    "logical_xor": pt.xor,
    "bitwise_and": pt.bitwise_and,
    "bitwise_or": pt.bitwise_or,
    "bitwise_xor": pt.bitwise_xor,
}

# ---------------------------------------------------------------- reductions


def _axes(axis: Any, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    return tuple(a % rank for a in ((axis,) if hasattr(axis, "__index__") else axis))


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        axes = _axes(axis, x.ndim)
        return function(x, axis=axes, keepdims=keepdims) if axes else x

    return run


def _total(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        wide = "float32" if x.dtype == "float16" else x.dtype
        return function(pt.cast(x, wide), axis=axis, keepdims=keepdims, dtype=wide, acc_dtype=wide)

    return _reduce(run)


def _first(name: str, sign: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        if x.dtype not in dtypes.FLOATS:
            return _as_primitive(name)(x, axis=axis, keepdims=keepdims)
        return pt.argmax(sign(x), axis=axis, keepdims=keepdims)

    return run


def _cumulative(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axis: int, reverse: bool) -> Any:
        if x.dtype not in ("float32", "float64"):
            return _as_primitive(name)(x, axis=axis, reverse=reverse)
        at = axis % x.ndim
        return _flip(function(_flip(x, (at,)), axis=at), (at,)) if reverse else function(x, axis=at)

    return run


def _flip(x: Any, axes: Any) -> Any:
    at = _axes(tuple(axes), x.ndim)
    key = tuple(slice(None, None, -1) if i in at else slice(None) for i in range(x.ndim))
    return TensorVariable.__getitem__(x, key) if at else x


GRAPHS |= {
    "sum": _total(pt.sum),
    "prod": _total(pt.prod),
    "max": _reduce(pt.max),
    "min": _reduce(pt.min),
    "any": _reduce(pt.any),
    "all": _reduce(pt.all),
    "argmax": _first("argmax", lambda x: x),
    "argmin": _first("argmin", pt.neg),
    "sort": lambda x, axis: pt.sort(x, axis=axis, kind="stable"),
    "argsort": lambda x, axis: pt.argsort(x, axis=axis, kind="stable"),
    "cumulative_sum": _cumulative("cumulative_sum", pt.cumsum),
    "cumulative_prod": _cumulative("cumulative_prod", pt.cumprod),
}

# ---------------------------------------------------------------- movement and indexing


def _pad(x: Any, value: Any, widths: Any) -> Any:
    shape = tuple(low + size + high for size, (low, high) in zip(x.type.shape, widths, strict=True))
    inside = tuple(slice(low, low + size) for size, (low, _) in zip(x.type.shape, widths, strict=True))
    filled: Any = pt.alloc(value, *shape)
    return pt.set_subtensor(filled[inside], x) if shape else x


def _gather(x: Any, indices: Any, axis: int) -> Any:
    size = x.type.shape[axis]
    if size == 0 or x.ndim == 0:
        return _as_primitive("gather")(x, indices, axis=axis)
    last = _number(size - 1, indices.dtype) if _fits(size, indices.dtype) else None
    if isinstance(indices, Known):
        host = indices.host()
        if not host.size or (host.min() >= 0 and host.max() < size):
            return _taken(x, indices, axis)
    outside = pt.lt(indices, _number(0, indices.dtype))
    if last is not None:
        outside = pt.or_(outside, pt.gt(indices, last))
    taken = _taken(x, pt.switch(outside, _number(0, indices.dtype), indices), axis)
    mask = pt.reshape(outside, (1,) * axis + tuple(indices.type.shape) + (1,) * (x.ndim - axis - 1))
    return pt.switch(mask, _number(np.nan if x.dtype in dtypes.FLOATS else 0, x.dtype), taken)


def _taken(x: Any, indices: Any, axis: int) -> Any:
    return TensorVariable.__getitem__(x, (slice(None),) * axis + (indices,))


def _fits(size: int, dtype: str) -> bool:
    return dtype != "bool" and size - 1 <= np.iinfo(dtype).max


GRAPHS |= {
    "broadcast_to_shape": lambda x, shape: pt.alloc(x, *shape) if tuple(shape) != x.type.shape else x,
    "reshape_to": lambda x, shape: pt.reshape(x, tuple(shape)),
    "permute": lambda x, axes: x.dimshuffle(*axes) if axes else x,
    "concatenate_all": lambda xs, axis: pt.concatenate(xs, axis) if len(xs) > 1 else xs[0],
    "flip_axes": lambda x, axes: _flip(x, axes),
    "pad_constant": _pad,
    "slice_static": lambda x, starts, stops, steps: (
        TensorVariable.__getitem__(x, tuple(map(slice, starts, stops, steps))) if starts else x
    ),
    "gather": _gather,
}

# ---------------------------------------------------------------- contraction


def _matmul(x1: Any, x2: Any) -> Any:
    if x1.dtype not in ("float32", "float64"):
        return _as_primitive("matmul")(x1, x2)
    return pt.matmul(x1, x2)


def _dot_general(x1: Any, x2: Any, contract: Any, batch: Any) -> Any:
    free_1 = [a for a in range(x1.ndim) if a not in contract[0] and a not in batch[0]]
    free_2 = [a for a in range(x2.ndim) if a not in contract[1] and a not in batch[1]]
    sizes_1, sizes_2 = x1.type.shape, x2.type.shape
    batches = [sizes_1[a] for a in batch[0]]
    inner = int(np.prod([sizes_1[a] for a in contract[0]], dtype=int))
    rows, columns = [sizes_1[a] for a in free_1], [sizes_2[a] for a in free_2]
    left = GRAPHS["permute"](x1, (*batch[0], *free_1, *contract[0]))
    right = GRAPHS["permute"](x2, (*batch[1], *contract[1], *free_2))
    product = _matmul(
        pt.reshape(left, (*batches, int(np.prod(rows, dtype=int)), inner)),
        pt.reshape(right, (*batches, inner, int(np.prod(columns, dtype=int)))),
    )
    return pt.reshape(product, (*batches, *rows, *columns))


GRAPHS |= {"matmul": _matmul, "dot_general": _dot_general}

# ---------------------------------------------------------------- what PyTensor lacks, and the table itself


def _result_specs(name: str, arrays: list[Any], static: dict[str, Any]) -> list[Spec]:
    """What the language says of a primitive's result."""
    op = operator(name)
    specs = [[spec_of(v) for v in a] if isinstance(a, list) else spec_of(a) for a in arrays]
    names = [p.name for p in op.parameters if p.name in op.arrays]
    found = ABSTRACT.apply(op, dict(zip(names, specs, strict=True)), static)
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _as_primitive(name: str) -> Callable[..., Any]:
    """An op as one Op of our own."""

    def run(*arrays: Any, **static: Any) -> Any:
        flat, singles, has_list = flattened(list(arrays))
        specs = _result_specs(name, nested([_shown(v) for v in flat], singles, has_list), static)
        types = tuple((spec.dtype, spec.shape) for spec in specs)
        pairs = tuple((key, frozen(value)) for key, value in static.items())
        made = nodes(Primitive(name, pairs, singles, has_list, types), flat)
        return tuple(made) if len(made) > 1 else made[0]

    return run


def _shown(variable: Any) -> Any:
    return variable if isinstance(variable, Known) else Spec(variable.type.shape, variable.dtype)


for _name in (
    "left_shift right_shift top_k cumulative_max dynamic_slice dynamic_update gather_along scatter_nd searchsorted_in "
    "convolution convolution_input_gradient convolution_kernel_gradient window_sum window_sum_gradient window_max "
    "window_max_gradient window_max_take threefry2x32"
).split():
    GRAPHS[_name] = _as_primitive(_name)


def _fitted(result: Any, spec: Spec) -> Any:
    """A result in the dtype and shape the language says."""
    if result.dtype != spec.dtype:
        result = pt.cast(result, spec.dtype)
    if result.type.shape != spec.shape and None in result.type.shape:
        result = pt.specify_shape(result, tuple(map(int, spec.shape)))
    return traced(result) if type(result) is TensorVariable else result


def _entry(name: str, graph: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the table: at once where all is known, as a graph otherwise."""

    def run(*arrays: Any, **static: Any) -> Any:
        flat, singles, has_list = flattened(list(arrays))
        if all(type(v) is Known for v in flat):
            with np.errstate(all="ignore"):
                found = reference(name)(*nested([v.host() for v in flat], singles, has_list), **static)
            if isinstance(found, (tuple, list)):
                return tuple(known(part) for part in found)
            return known(found)
        found = graph(*arrays, **static)
        results = found if isinstance(found, tuple) else (found,)
        specs = _result_specs(name, list(arrays), static)
        fitted = [_fitted(part, spec) for part, spec in zip(results, specs, strict=True)]
        return tuple(fitted) if isinstance(found, tuple) else fitted[0]

    return run


TABLE: dict[str, Callable[..., Any]] = {name: _entry(name, graph) for name, graph in GRAPHS.items()}
TABLE |= {
    "iota": lambda size, dtype: known(np.arange(size, dtype=dtypes.numpy_dtype(dtype))),
    "size_as_array": lambda size: known(np.asarray(size, np.int32)),
}
_cast_entry = TABLE["cast_to"]
TABLE["cast_to"] = lambda x, dtype: _cast_entry(x, dtype=dtype)
