"""Products that sum: matrices, general contractions, convolutions.

The language's arrays are `(batch, *space, channels)` and its kernels `(*window, channels / groups, filters)`; ONNX has
channels before space, and filters first. Half-width floats are multiplied and added up in float32.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.nodes import Value
from cornu.ops._rules import broadcast_shapes

__all__ = ["TABLE", "positions", "spread"]

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


def _matmul(x: Value, y: Value) -> Value:
    batch: Any = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return n.matmul(x, y, (*batch, *x.shape[-2:-1], *(y.shape[-1:] if y.ndim > 1 else ())))


def _dot_general(x: Value, y: Value, contract: Any, batch: Any) -> Value:
    free_x = [a for a in range(x.ndim) if a not in contract[0] and a not in batch[0]]
    free_y = [a for a in range(y.ndim) if a not in contract[1] and a not in batch[1]]
    batches = [x.shape[a] for a in batch[0]]
    inner = math.prod(x.shape[a] for a in contract[0])
    rows, columns = [x.shape[a] for a in free_x], [y.shape[a] for a in free_y]
    left = n.transpose(x, (*batch[0], *free_x, *contract[0]))
    right = n.transpose(y, (*batch[1], *contract[1], *free_y))
    # Both as matrices; but the rows of the left one need no joining where there is no batch.
    if batches or not rows:
        left = n.reshape(left, (*batches, math.prod(rows), inner))
    else:
        left = n.reshape(left, (*rows, inner))
    right = n.reshape(right, (*batches, inner, math.prod(columns)))
    product = n.matmul(left, right, (*left.shape[:-1], right.shape[-1]))
    return n.reshape(product, (*batches, *rows, *columns))


# ---------------------------------------------------------------- convolution by ONNX's operators


def _channels_first(x: Value) -> Value:
    return n.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def _channels_last(x: Value) -> Value:
    return n.transpose(x, (0, *range(2, x.ndim), 1))


def _filters_first(kernel: Value) -> Value:
    rank = kernel.ndim
    return n.transpose(kernel, (rank - 1, rank - 2, *range(rank - 2)))


def _room(space: Sizes, padding: Pads) -> list[int]:
    return [low + size + high for size, (low, high) in zip(space, padding, strict=True)]


def _out(space: Any, window: Any, strides: Any, dilation: Any) -> Sizes:
    """How many windows fit along each axis of a padded array."""
    return tuple(
        (size - (wide - 1) * apart - 1) // stride + 1
        for size, wide, stride, apart in zip(space, window, strides, dilation, strict=True)
    )


def _conv(x: Value, weights: Value, strides: Any, padding: Pads, dilation: Any, groups: int) -> Value:
    """`Conv`, both arguments in ONNX's order; padding below 0 cuts."""
    if any(low < 0 or high < 0 for low, high in padding):
        x, padding = n.pad(x, ((0, 0), (0, 0), *padding)), ((0, 0),) * len(padding)
    window = weights.shape[2:]
    space = _out(_room(x.shape[2:], padding), window, strides, dilation)
    pads = [low for low, _ in padding] + [high for _, high in padding]
    settings: dict[str, Any] = {"kernel_shape": window, "strides": strides, "pads": pads, "dilations": dilation}
    return n.node("Conv", x, weights, shape=(x.shape[0], weights.shape[0], *space), group=groups, **settings)


def _convolution(x: Value, kernel: Value, **geometry: Any) -> Value:
    return _channels_last(_conv(_channels_first(x), _filters_first(kernel), **geometry))


def _input_gradient(
    g: Value, kernel: Value, shape: Sizes, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> Value:
    """`ConvTranspose` over the whole padded input, of which the padding is cut and what no window reached is added."""
    g, weights = _channels_first(g), _filters_first(kernel)
    window = weights.shape[2:]
    full = tuple(
        (count - 1) * stride + (wide - 1) * apart + 1
        for count, stride, wide, apart in zip(g.shape[2:], strides, window, dilation, strict=True)
    )
    cuts = [(-low, low + size - long) for size, long, (low, _) in zip(shape[1:-1], full, padding, strict=True)]
    pads = [0] * (2 * len(window))
    if all(low <= 0 and high <= 0 for low, high in cuts):
        pads = [-low for low, _ in cuts] + [-high for _, high in cuts]
        full, cuts = tuple(shape[1:-1]), []
    settings: dict[str, Any] = {"kernel_shape": window, "strides": strides, "pads": pads, "dilations": dilation}
    result = n.node("ConvTranspose", g, weights, shape=(g.shape[0], shape[-1], *full), group=groups, **settings)
    if cuts:
        result = n.pad(result, ((0, 0), (0, 0), *cuts))
    return _channels_last(result)


def _kernel_gradient(
    x: Value, g: Value, shape: Sizes, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> Value:
    """`Conv` with batch and channels exchanged: the gradient is the kernel, its elements the strides apart."""
    rank, batch = x.ndim, x.shape[0]
    space, channels = x.shape[1:-1], x.shape[-1] // groups
    x = n.reshape(x, (batch, *space, groups, channels))
    x = n.transpose(x, (rank, rank - 1, 0, *range(1, rank - 1)))
    x = n.reshape(x, (channels, groups * batch, *space))
    g = n.transpose(g, (rank - 1, 0, *range(1, rank - 1)))
    found = _conv(x, g, dilation, padding, strides, groups)  # (channels, filters, *window), or somewhat larger
    found = n.slice_box(found, {a + 2: (0, size, 1) for a, size in enumerate(shape[:-2])})
    return n.transpose(found, (*range(2, rank), 0, 1))


# ---------------------------------------------------------------- convolution by position, where there is no kernel


def positions(window: Sizes, space: Sizes, strides: Sizes, dilation: Sizes) -> Iterator[tuple[Sizes, dict[int, Any]]]:
    """The positions in a window, each with the box that `space` windows see there (space from axis 1 on)."""
    for position in itertools.product(*map(range, window)):
        starts = [at * apart for at, apart in zip(position, dilation, strict=True)]
        rows = zip(starts, space, strides, strict=True)
        yield position, {a: (at, at + (count - 1) * by + 1, by) for a, (at, count, by) in enumerate(rows, start=1)}


def spread(g: Value, starts: Sizes, strides: Sizes, room: Any) -> Value:
    """Zeros of a room, with `g` put in from `starts` on, its elements `strides` apart (space from axis 1 on)."""
    counts = g.shape[1:-1]
    if any(stride > 1 for stride in strides):
        apart = [part for count in counts for part in (count, 1)]
        gaps = [pair for stride in strides for pair in ((0, 0), (0, stride - 1))]
        g = n.pad(n.reshape(g, (g.shape[0], *apart, g.shape[-1])), ((0, 0), *gaps, (0, 0)))
        g = n.reshape(g, (g.shape[0], *(c * s for c, s in zip(counts, strides, strict=True)), g.shape[-1]))
    rows = zip(starts, room, g.shape[1:-1], strict=True)
    return n.pad(g, ((0, 0), *((at, size - at - long) for at, size, long in rows), (0, 0)))


def _grouped(x: Value, groups: int) -> Value:
    """`(..., groups * channels)` as `(groups, positions, channels)`."""
    rows = math.prod(x.shape[:-1])
    return n.transpose(n.reshape(x, (rows, groups, x.shape[-1] // groups)), (1, 0, 2))


def _ungrouped(x: Value, shape: Any) -> Value:
    return n.reshape(n.transpose(x, (1, 0, 2)), shape)


def _swapped(x: Value) -> Value:
    return n.transpose(x, (0, 2, 1))


def _at(kernel: Value, position: Sizes) -> Value:
    part = n.slice_box(kernel, {a: (i, i + 1, 1) for a, i in enumerate(position)})
    return n.reshape(part, kernel.shape[-2:])


def _walk(x: Value, kernel: Value, strides: Sizes, padding: Pads, dilation: Sizes, groups: int) -> Value:
    x = n.pad(x, ((0, 0), *padding, (0, 0)))
    window = kernel.shape[:-2]
    space = _out(x.shape[1:-1], window, strides, dilation)
    total: Value | None = None
    for position, box in positions(window, space, strides, dilation):
        part = _matmul(_grouped(n.slice_box(x, box), groups), _grouped(_at(kernel, position), groups))
        total = part if total is None else n.add(total, part)
    assert total is not None
    return _ungrouped(total, (x.shape[0], *space, kernel.shape[-1]))


def _walk_input_gradient(
    g: Value, kernel: Value, shape: Sizes, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> Value:
    room = _room(shape[1:-1], padding)
    total: Value | None = None
    for position in itertools.product(*map(range, kernel.shape[:-2])):
        part = _matmul(_grouped(g, groups), _swapped(_grouped(_at(kernel, position), groups)))
        starts = tuple(at * apart for at, apart in zip(position, dilation, strict=True))
        part = spread(_ungrouped(part, (*g.shape[:-1], shape[-1])), starts, strides, room)
        total = part if total is None else n.add(total, part)
    assert total is not None
    return n.pad(total, ((0, 0), *((-low, -high) for low, high in padding), (0, 0)))


def _walk_kernel_gradient(
    x: Value, g: Value, shape: Sizes, strides: Sizes, padding: Pads, dilation: Sizes, groups: int
) -> Value:
    x = n.pad(x, ((0, 0), *padding, (0, 0)))
    rows = _grouped(g, groups)
    parts = []
    for _, box in positions(shape[:-2], g.shape[1:-1], strides, dilation):
        part = _matmul(_swapped(_grouped(n.slice_box(x, box), groups)), rows)
        parts.append(n.reshape(_ungrouped(part, shape[-2:]), (1, *shape[-2:])))
    return n.reshape(n.concat(parts, 0), shape)


def _by_kernel(convolve: Callable[..., Value], walk: Callable[..., Value]) -> Callable[..., Value]:
    """ONNX's convolutions for floats up to float32, the walk over positions for all else."""

    def run(x: Value, y: Value, **static: Any) -> Value:
        own = x.dtype
        if own not in ("float16", "bfloat16", "float32") or 0 in (*x.shape, *y.shape):
            return walk(x, y, **static)
        return n.cast(convolve(n.cast(x, "float32"), n.cast(y, "float32"), **static), own)

    return run


TABLE: dict[str, Callable[..., Any]] = {
    "matmul": _matmul,
    "dot_general": _dot_general,
    "convolution": _by_kernel(_convolution, _walk),
    "convolution_input_gradient": _by_kernel(_input_gradient, _walk_input_gradient),
    "convolution_kernel_gradient": _by_kernel(_kernel_gradient, _walk_kernel_gradient),
}
