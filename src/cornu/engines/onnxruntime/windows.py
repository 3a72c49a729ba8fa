"""Pooling windows and their gradients, in ONNX: slices of the padded input, one per position in a window.

`MaxPool` loses NaN, has other padding rules and needs channels first; sums and maxima are taken one axis after the
other, so that a window of h by w takes h + w slices.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.contraction import positions, spread
from cornu.engines.onnxruntime.nodes import Value

__all__ = ["TABLE"]

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


def _padded(x: Value, padding: Pads, value: Any = 0) -> Value:
    return n.pad(x, ((0, 0), *padding, (0, 0)), value)


def _cropped(x: Value, padding: Pads) -> Value:
    return n.pad(x, ((0, 0), *((-low, -high) for low, high in padding), (0, 0)))


def _least(dtype: str) -> Any:
    if dtype in dtypes.INTEGERS:
        return int(np.iinfo(dtype).min)
    return False if dtype == "bool" else -math.inf


def _count(size: int, window: int, stride: int) -> int:
    return (size - window) // stride + 1


def _wide(x: Value) -> Value:
    return n.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x


def _slid(x: Value, window: Sizes, strides: Sizes, combine: Callable[[Value, Value], Value]) -> Value:
    """Each window of a padded array combined, axis by axis."""
    for axis, (wide, stride) in enumerate(zip(window, strides, strict=True), start=1):
        reach = (_count(x.shape[axis], wide, stride) - 1) * stride + 1
        parts = [n.slice_box(x, {axis: (at, at + reach, stride)}) for at in range(wide)]
        x = parts[0]
        for part in parts[1:]:
            x = combine(x, part)
    return x


def _window_sum(x: Value, window: Sizes, strides: Sizes, padding: Pads) -> Value:
    combine = n.or_ if x.dtype == "bool" else n.add
    return n.cast(_slid(_padded(_wide(x), padding), window, strides, combine), x.dtype)


def _window_sum_gradient(g: Value, shape: Sizes, window: Sizes, strides: Sizes, padding: Pads) -> Value:
    own, g = g.dtype, _wide(g)
    room = [low + size + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)]
    for axis, wide in enumerate(window):
        # One axis at a time: the others keep their sizes.
        def only_here(own: int, other: int, axis: int = axis) -> Sizes:
            return tuple(own if a == axis else other for a in range(len(window)))

        steps = only_here(strides[axis], 1)
        space = [room[a] if a == axis else size for a, size in enumerate(g.shape[1:-1])]
        parts = [spread(g, only_here(at, 0), steps, space) for at in range(wide)]
        g = parts[0]
        for part in parts[1:]:
            g = n.add(g, part)
    return n.cast(_cropped(g, padding), own)


def _window_max(x: Value, window: Sizes, strides: Sizes, padding: Pads) -> Value:
    combine = n.or_ if x.dtype == "bool" else n.maximum
    return n.cast(_slid(_padded(_wide(x), padding, _least(x.dtype)), window, strides, combine), x.dtype)


def _winners(x: Value, window: Sizes, strides: Sizes, padding: Pads) -> list[tuple[Sizes, dict[int, Any], Value]]:
    """For each position in a window its box, and for which windows it holds the first largest element."""
    inside = np.pad(np.ones((1, *x.shape[1:-1], 1), bool), ((0, 0), *padding, (0, 0)))
    x = _padded(_wide(x), padding, _least(x.dtype))
    best = _slid(x, window, strides, n.or_ if x.dtype == "bool" else n.maximum)
    space = best.shape[1:-1]
    rows: list[tuple[Sizes, dict[int, Any], Value]] = []
    free = n.constant(True, "bool")
    for position, box in positions(window, space, strides, (1,) * len(window)):
        here = n.slice_box(x, box)
        wins = n.equal(here, best)
        if x.dtype in dtypes.FLOATS:
            wins = n.or_(wins, n.isnan(here))
        seen = inside[tuple(slice(*box[a]) if a in box else slice(None) for a in range(inside.ndim))]
        if not seen.all():
            wins = n.and_(wins, n.constant(seen, "bool"))
        wins, free = (wins, n.not_(wins)) if not rows else (n.and_(wins, free), n.and_(free, n.not_(wins)))
        rows.append((position, box, wins))
    return rows


def _window_max_gradient(x: Value, g: Value, window: Sizes, strides: Sizes, padding: Pads) -> Value:
    own, g = g.dtype, _wide(g)
    room = [low + size + high for size, (low, high) in zip(x.shape[1:-1], padding, strict=True)]
    parts = [
        (position, n.select(wins, g, n.constant(0, g.dtype)))
        for position, _, wins in _winners(x, window, strides, padding)
    ]
    if tuple(window) == tuple(strides):
        return n.cast(_cropped(_side_by_side([part for _, part in parts], window, room), padding), own)
    total: Value | None = None
    for position, part in parts:
        part = spread(part, position, strides, room)
        total = part if total is None else n.add(total, part)
    assert total is not None
    return n.cast(_cropped(total, padding), own)


def _side_by_side(parts: list[Value], window: Sizes, room: list[int]) -> Value:
    """Windows that do not overlap, from one array per position in them; zeros where none reaches."""
    batch, *space, channels = parts[0].shape
    rank = len(window)
    joined = n.concat([n.reshape(part, (1, *part.shape)) for part in parts], 0)
    joined = n.reshape(joined, (*window, batch, *space, channels))
    order = [rank, *itertools.chain(*((rank + 1 + a, a) for a in range(rank))), 2 * rank + 1]
    sizes = [count * wide for count, wide in zip(space, window, strict=True)]
    joined = n.reshape(n.transpose(joined, order), (batch, *sizes, channels))
    return n.pad(joined, ((0, 0), *((0, size - have) for size, have in zip(room, sizes, strict=True)), (0, 0)))


def _window_max_take(x: Value, values: Value, window: Sizes, strides: Sizes, padding: Pads) -> Value:
    values = _padded(values, padding)
    result: Value | None = None
    for _, box, wins in _winners(x, window, strides, padding):
        result = n.select(wins, n.slice_box(values, box), n.constant(0, values.dtype) if result is None else result)
    assert result is not None
    return result


TABLE: dict[str, Callable[..., Any]] = {
    "window_sum": _window_sum,
    "window_sum_gradient": _window_sum_gradient,
    "window_max": _window_max,
    "window_max_gradient": _window_max_gradient,
    "window_max_take": _window_max_take,
}
