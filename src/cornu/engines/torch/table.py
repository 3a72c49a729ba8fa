"""Every primitive in PyTorch, and the ops for which PyTorch has a faster way than their composition."""

from collections.abc import Callable
from typing import Any

import torch

from cornu.engines.torch import activations, attention, indexing, normalization, quirks, recurrent, updates, windows
from cornu.engines.torch.arrays import DTYPES, constant_of, device
from cornu.engines.torch.control import CONTROL
from cornu.engines.torch.threefry import threefry2x32

__all__ = ["TABLE", "flat_linear", "linear"]

TABLE: dict[str, Callable[..., Any]] = {"threefry2x32": threefry2x32}

# ---------------------------------------------------------------- elementwise

for _name in (
    "exp expm1 log log1p sqrt rsqrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh "
    "erf erfinv lgamma sigmoid arctan2 logical_not logical_and logical_or logical_xor"
).split():
    TABLE[_name] = getattr(torch, _name)
for _name in "add multiply bitwise_and bitwise_or bitwise_xor bitwise_not left_shift negative equal not_equal".split():
    TABLE[_name] = getattr(torch, {"equal": "eq", "left_shift": "bitwise_left_shift"}.get(_name, _name))
for _name in "maximum minimum".split():
    TABLE[_name] = quirks.by_order(getattr(torch, _name))
for _name in "less less_equal greater greater_equal".split():
    TABLE[_name] = quirks.by_order(getattr(torch, _name), elements=False)
for _name in "add subtract multiply bitwise_and bitwise_or bitwise_xor bitwise_not left_shift negative".split():
    TABLE[_name] = quirks.by_bits(getattr(torch, {"left_shift": "bitwise_left_shift"}.get(_name, _name)))
TABLE |= {
    "digamma": quirks.digamma,
    "relu": quirks.not_bool(torch.relu),
    "abs": quirks.not_bool(torch.abs),
    "sign": quirks.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_half_even": quirks.not_bool(torch.round),
    # Two operators, where `torch.isfinite` is four in a traced graph.
    "isfinite": lambda x: torch.eq(x - x, 0) if x.is_floating_point() else torch.isfinite(x),
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "divide": torch.true_divide,
    "floor_divide": quirks.unsigned_division(lambda x1, x2: torch.floor_divide(x1.detach(), x2.detach()), 0),
    "mod": quirks.unsigned_division(torch.remainder, 1),
    "power": quirks.widened(torch.pow),
    "right_shift": quirks.right_shift,
    "stop_gradient": torch.Tensor.detach,
    "as_tensor": lambda x: x,
    "cast_to": lambda x, dtype: quirks.cast(x, DTYPES[dtype]),
    "choose": quirks.by_bits(torch.where),
}

# ---------------------------------------------------------------- reductions


def _axes(x: Any, axis: Any) -> list[int]:
    if axis is None:
        return list(range(x.ndim))
    return [axis] if isinstance(axis, int) else list(axis)


def _reduce(function: Callable[..., Any], **kind: Any) -> Callable[..., Any]:
    """A function of axes in a list; over none, the array itself."""

    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        axes = _axes(x, axis)
        return function(x, axes, keepdims, **kind) if axes else x

    return run


def _prod(x: Any, axes: list[int], keepdims: bool) -> Any:
    axes = [axis % x.ndim for axis in axes]
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in rest]
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    result = torch.prod(x.permute([*rest, *axes]).reshape([*shape, count]), -1, dtype=x.dtype)
    if not keepdims:
        return result
    return result.reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)])


def _sum(x: Any, axes: list[int], keepdims: bool) -> Any:
    if x.is_floating_point():
        return torch.sum(x, axes, keepdims)
    return torch.sum(x, axes, keepdims, dtype=x.dtype)


def _truth(function: Callable[..., Any]) -> Callable[..., Any]:
    run = _reduce(function)
    return lambda x, axis, keepdims: run(x.to(torch.bool), axis, keepdims)


_LARGE = 1024  # elements


def _place(function: Callable[..., Any], with_extreme: Callable[..., Any]) -> Callable[..., Any]:
    """The position of an extreme, in the flattened array if `axis` is `None`.

    Args:
        function: finds it.
        with_extreme: finds both; along an axis of a large array on a CPU in half the time, or a quarter.
    """

    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        x = x.to(torch.uint8) if x.dtype == torch.bool else x
        if axis is None:
            place = function(x.reshape(-1), 0).to(torch.int32)
            return place.reshape([1] * x.ndim) if keepdims else place
        if x.is_cpu and x.numel() > _LARGE:
            return with_extreme(x.detach(), axis, keepdims)[1].to(torch.int32)
        return function(x, axis, keepdims).to(torch.int32)

    return quirks.by_order(run, elements=False)


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axis: int, reverse: bool) -> Any:
        return function(x.flip(axis), axis).flip(axis) if reverse else function(x, axis)

    return run


def _top_k(x: Any, k: int, sorted: bool) -> Any:
    # `torch.topk` leaves open which of equal elements comes first.
    values, places = torch.sort(x, dim=-1, descending=True, stable=True)
    return values[..., :k], places[..., :k].to(torch.int32)


TABLE |= {
    "sum": quirks.widened(_reduce(_sum)),
    "prod": quirks.in_float32(quirks.widened(_reduce(_prod))),
    "max": quirks.by_order(_reduce(torch.amax)),
    "min": quirks.by_order(_reduce(torch.amin)),
    "any": _truth(torch.any),
    "all": _truth(torch.all),
    "argmax": _place(torch.argmax, torch.max),
    "argmin": _place(torch.argmin, torch.min),
    "cumulative_sum": quirks.widened(_cumulative(lambda x, axis: torch.cumsum(x, axis, dtype=x.dtype))),
    "cumulative_prod": quirks.widened(_cumulative(lambda x, axis: torch.cumprod(x, axis, dtype=x.dtype))),
    "cumulative_max": quirks.by_order(_cumulative(lambda x, axis: torch.cummax(x, axis)[0])),
    "sort": quirks.by_order(lambda x, axis: torch.sort(x, dim=axis, stable=True)[0]),
    "argsort": quirks.by_order(lambda x, axis: torch.sort(x, dim=axis, stable=True)[1].to(torch.int32), elements=False),
    "top_k": quirks.by_order(_top_k),
}

# ---------------------------------------------------------------- movement


def _iota(size: int, dtype: str) -> Any:
    if "uint" in dtype:
        return torch.arange(size, dtype=torch.int64, device=device()).to(DTYPES[dtype])
    return torch.arange(size, dtype=DTYPES[dtype], device=device())


def _pad(x: Any, value: Any, widths: Any) -> Any:
    flat = [count for pair in reversed(widths) for count in pair]
    known = constant_of(value)
    if known is not None:
        return torch.constant_pad_nd(x, flat, known)
    inside = torch.constant_pad_nd(torch.ones(x.shape, dtype=torch.bool, device=x.device), flat, False)
    return torch.where(inside, torch.constant_pad_nd(x, flat, 0), value)


TABLE |= {
    "broadcast_to_shape": lambda x, shape: x.expand(shape),
    "iota": _iota,
    "size_as_array": lambda size: torch.full((), size, dtype=torch.int32, device=device()),
    "reshape_to": lambda x, shape: x.reshape(shape),
    "permute": lambda x, axes: x.permute(axes),
    "concatenate_all": quirks.by_bits(lambda xs, axis: torch.cat(xs, axis)),
    "flip_axes": quirks.by_bits(lambda x, axes: x.flip(axes)),
    "pad_constant": quirks.by_bits(_pad),
}

# ---------------------------------------------------------------- contraction


def _exact(function: Callable[..., Any]) -> Callable[..., Any]:
    return quirks.in_float32(quirks.widened(function, booleans=True))


def _matmul(x1: Any, x2: Any) -> Any:
    return torch.matmul(x1, x2)


def linear(x: Any, kernel: Any, bias: Any) -> Any:
    """`x @ kernel + bias`."""
    if x.dtype not in (torch.float32, torch.float64) or x.ndim < 2 or (kernel.ndim, bias.ndim) != (2, 1):
        return TABLE["add"](TABLE["matmul"](x, kernel), bias)
    if x.ndim == 2:
        return torch.addmm(bias, x, kernel)
    return torch.addmm(bias, x.reshape(-1, x.shape[-1]), kernel).view(*x.shape[:-1], kernel.shape[1])


def flat_linear(x: Any, kernel: Any, bias: Any) -> Any:
    """`linear` of matrices of floats."""
    return torch.addmm(bias, x, kernel)


def _dot_general(x1: Any, x2: Any, contract: Any, batch: Any) -> Any:
    free_1 = [a for a in range(x1.ndim) if a not in contract[0] and a not in batch[0]]
    free_2 = [a for a in range(x2.ndim) if a not in contract[1] and a not in batch[1]]
    batches = [x1.shape[a] for a in batch[0]]
    rows, columns = [x1.shape[a] for a in free_1], [x2.shape[a] for a in free_2]
    inner = _product(x1.shape[a] for a in contract[0])
    left = x1.permute([*batch[0], *free_1, *contract[0]]).reshape([*batches, _product(rows), inner])
    right = x2.permute([*batch[1], *contract[1], *free_2]).reshape([*batches, inner, _product(columns)])
    return torch.matmul(left, right).reshape([*batches, *rows, *columns])


def _product(sizes: Any) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


TABLE |= {
    "matmul": _exact(_matmul),
    "linear": linear,
    "dot_general": _exact(_dot_general),
    **indexing.TABLE,
    **updates.TABLE,
    **windows.TABLE,
    **recurrent.TABLE,
    **normalization.TABLE,
    **activations.TABLE,
    **attention.TABLE,
    **CONTROL,
}
