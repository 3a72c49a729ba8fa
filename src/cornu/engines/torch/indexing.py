"""Choosing elements by position, and putting elements at positions."""

from collections.abc import Callable
from typing import Any

import torch

from cornu.engines.torch import quirks
from cornu.engines.torch.arrays import broadcast_shape, in_trace
from cornu.engines.torch.pieces import define, is_written_out
from cornu.ops._declare import operator

__all__ = ["TABLE"]

_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_LARGEST_INT32 = (1 << 31) - 1


def _outside(x: Any) -> Any:
    """What a position outside an array gives."""
    return torch.nan if x.is_floating_point() else 0


def _whole(indices: Any) -> Any:
    return indices.to(torch.int64)


def _signed(indices: Any) -> Any:
    """Indices in a dtype that PyTorch selects by."""
    return indices if indices.dtype == torch.int32 else _whole(indices)


def _is_at_hand(indices: Any) -> bool:
    """Whether positions are known here and now, on a CPU, in a dtype that PyTorch selects by."""
    return (
        type(indices) is torch.Tensor
        and indices.device.type == "cpu"
        and indices.dtype in (torch.int32, torch.int64)
        and not in_trace()
        and not torch.compiler.is_compiling()
        and not _is_wrapped(indices)
    )


def _gather(x: Any, indices: Any, axis: int) -> Any:
    if x.shape[axis] > _LARGEST_INT32:
        indices = _whole(indices)
    if x.shape[axis] == 0:
        return x.new_full(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], _outside(x))
    if x.device.type == "cpu":
        if _is_at_hand(indices):
            return _looked_up(x, indices, axis)
        followed = torch.is_grad_enabled() and x.requires_grad
        if in_trace() and not followed and not is_written_out() and not _is_wrapped(x) and not _is_wrapped(indices):
            return _look_up(x, indices, axis)
    return _taken(x, indices, axis)


def _taken(x: Any, indices: Any, axis: int) -> Any:
    inside = indices.clamp(0, x.shape[axis] - 1)
    wrong = torch.ne(indices, inside)
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    taken = torch.index_select(x, axis, inside.reshape(-1)).reshape(shape)
    wrong = wrong.reshape((1,) * axis + indices.shape + (1,) * (x.ndim - axis - 1))
    return taken.masked_fill(wrong, _outside(x))


def _looked_up(x: Any, indices: Any, axis: int) -> Any:
    """On a CPU, where PyTorch looks at every position itself."""
    try:
        if axis == 0 and x.ndim == 2:
            return torch.embedding(x, indices)
        if indices.ndim == 1:
            return torch.index_select(x, axis, indices)
        shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
        return torch.index_select(x, axis, indices.reshape(-1)).reshape(shape)
    except (IndexError, RuntimeError):
        return _taken(x, indices, axis)


# In a trace one op for six, where nobody differentiates.
_look_up = define(
    "look_up(Tensor x, Tensor indices, int axis) -> Tensor",
    _looked_up,
    lambda x, indices, axis: x.new_empty((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),
)


def _gather_along(x: Any, indices: Any, axis: int) -> Any:
    size = x.shape[axis]
    indices = _whole(indices)
    shape = list(broadcast_shape(*[s[:axis] + (1,) + s[axis + 1 :] for s in (x.shape, indices.shape)]))
    shape[axis] = indices.shape[axis]
    indices = indices.expand(shape)
    if size == 0:
        return x.new_full(shape, _outside(x))
    wide = x.expand([*shape[:axis], size, *shape[axis + 1 :]])
    inside = indices.clamp(0, size - 1)
    return torch.gather(wide, axis, inside).masked_fill(torch.ne(indices, inside), _outside(x))


def _slice(x: Any, starts: Any, stops: Any, steps: Any) -> Any:
    return x[tuple(map(slice, starts, stops, steps))]


def _places(x: Any, starts: list[Any], shape: Any) -> list[Any]:
    """The positions of a box on each axis, moved inwards where it would stick out."""
    return [
        torch.arange(want, device=x.device) + _whole(start).clamp(0, size - want)
        for start, size, want in zip(starts, x.shape, shape, strict=True)
    ]


def _dynamic_slice(x: Any, starts: list[Any], shape: Any) -> Any:
    for axis, (places, want) in enumerate(zip(_places(x, starts, shape), shape, strict=True)):
        if want != x.shape[axis]:
            x = torch.index_select(x, axis, places)
    return x


def _dynamic_update(x: Any, update: Any, starts: list[Any]) -> Any:
    if not x.ndim:
        return update
    rank = x.ndim
    where = [
        places.reshape([-1 if i == axis else 1 for i in range(rank)])
        for axis, places in enumerate(_places(x, starts, update.shape))
    ]
    return torch.index_put(x, where, update)


# ---------------------------------------------------------------- scatter


def _rows(x: Any, indices: Any) -> tuple[Any, int]:
    """Positions on several axes as positions on one, and the first position past its end, where the others go."""
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    count = 1
    for i in range(indices.shape[-1]):
        position = indices[..., i]
        flat = flat * x.shape[i] + position
        inside = inside & (position >= 0) & (position < x.shape[i])
        count *= x.shape[i]
    return torch.where(inside, flat, count).reshape(-1), count


def _last_of_equal(flat: Any, count: int) -> Any:
    """Positions with all but the last of equal ones moved past the end."""
    order = torch.arange(flat.shape[0], device=flat.device)
    last = torch.full((count + 1,), -1, dtype=torch.int64, device=flat.device)
    last = torch.scatter_reduce(last, 0, flat, order, "amax")
    return torch.where(last[flat] == order, flat, count)


def _scatter_nd(x: Any, indices: Any, updates: Any, mode: str) -> Any:
    indices = _whole(indices)
    rest = x.shape[indices.shape[-1] :]
    flat, count = _rows(x, indices)
    updates = updates.expand(indices.shape[:-1] + rest).reshape(flat.shape[0], *rest)
    # One more row takes what is put outside.
    table = torch.cat([x.reshape(count, *rest), x.new_zeros((1, *rest))])
    if mode == "add":
        table = torch.index_add(table, 0, flat, updates)
    elif mode == "set":
        table = torch.index_copy(table, 0, _last_of_equal(flat, count), updates)
    else:
        where = flat.reshape(-1, *(1 for _ in rest)).expand(updates.shape)
        table = torch.scatter_reduce(table, 0, where, updates, {"max": "amax", "min": "amin", "mul": "prod"}[mode])
    return table[:count].reshape(x.shape)


def _by_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """Unsigned numbers are put in by their bits, but compared in their order."""
    bits, order = quirks.by_bits(function), quirks.by_order(function)

    def run(x: Any, indices: Any, updates: Any, mode: str) -> Any:
        if x.dtype == torch.bool:
            return function(x.to(torch.uint8), indices, updates.to(torch.uint8), mode=mode).to(torch.bool)
        return (order if mode in ("max", "min") else bits)(x, _whole(indices), updates, mode=mode)

    return run


def _searchsorted(sorted_sequence: Any, values: Any, side: str) -> Any:
    if values.dtype == torch.bool:
        sorted_sequence, values = sorted_sequence.to(torch.uint8), values.to(torch.uint8)
    right = side == "right"
    return torch.searchsorted(sorted_sequence.contiguous(), values.contiguous(), right=right).to(torch.int32)


def _by_bits_but_indices(function: Callable[..., Any]) -> Callable[..., Any]:
    bits = quirks.by_bits(function)
    return lambda x, indices, axis: bits(x, _signed(indices), axis=axis)


def _split(x: Any, indices_or_sections: Any, axis: int) -> list[Any]:
    """Equal parts as one operator, whose gradient is one too; others as composed."""
    if isinstance(indices_or_sections, int) and -x.ndim <= axis < x.ndim:
        size = x.shape[axis]
        if indices_or_sections > 0 and size > 0 and size % indices_or_sections == 0:
            return list(torch.split(x, size // indices_or_sections, axis))
    return list(operator("split").body(x, indices_or_sections, axis))


TABLE: dict[str, Callable[..., Any]] = {
    "split": _split,
    "gather": _by_bits_but_indices(_gather),
    "gather_along": _by_bits_but_indices(_gather_along),
    "slice_static": _slice,
    "dynamic_slice": quirks.by_bits(_dynamic_slice),
    "dynamic_update": quirks.by_bits(_dynamic_update),
    "scatter_nd": _by_mode(_scatter_nd),
    "searchsorted_in": quirks.by_order(_searchsorted, elements=False),
}
