"""Which way a convolution or a pooling window is computed on a CPU, by its shapes.

Fitted on what was measured with JAX 0.10 on two cores of an EPYC (Zen 4): XLA's own convolution runs near the
machine's arithmetic there for dense kernels of more than one element; not so for kernels of one element, for one
channel, for groups (its kernel gradient is hundreds of times too slow), and for the gradient of max pooling.
All are told by their processor time but XLA's kernel gradients, which spread over cores better than other ways do.
"""

import math
from typing import Any

from cornu.engines.installed import cores
from cornu.engines.jax import convolution, windows

__all__ = ["WAYS", "possible", "usual"]

WAYS = {**convolution.WAYS, **windows.WAYS}

# How many positions a window may have before its steps, written out one by one, take long to compile.
_MOST_SHIFTS = 49
_MOST_POSITIONS = 27
_LONGEST_LINE = 64
_FEW_CHANNELS = 8
_FEW = 1024  # rows of what is multiplied by a matrix

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_DENSE = ("positions", "columns", "turned")


def possible(op: str, shapes: list[Any], dtype: str, static: dict[str, Any]) -> list[str]:
    """The ways that give an op's result for these arguments, XLA's own first.

    Args:
        op: the primitive's name.
        shapes: of its arrays, in the order of its signature.
        dtype: of the arrays.
        static: its other arguments.
    """
    whole = [*shapes, *([static["shape"]] if "shape" in static else [])]
    free = any(not isinstance(size, int) for shape in whole for size in shape[1:])
    empty = any(isinstance(size, int) and size == 0 for shape in whole for size in shape)
    if dtype not in _FLOATS or free or empty:
        return ["xla"]
    if op.startswith("window"):
        return _possible_windows(op, static)
    kernel, channels = _kernel_and_channels(op, shapes, static)
    positions, groups = math.prod(kernel[:-2]), static["groups"]
    if groups == 1:
        return [way for way in WAYS[op] if way == "xla" or (way in _DENSE and positions <= _MOST_POSITIONS)]
    alone = groups == channels and positions <= _MOST_SHIFTS and _known_rows(op, shapes)
    return ["xla", "blocks", *(["shifts"] if alone else [])]


def _known_rows(op: str, shapes: list[Any]) -> bool:
    """Whether a loop over the rows is possible where there is one."""
    return op != "convolution_kernel_gradient" or isinstance(shapes[0][0], int)


def _kernel_and_channels(op: str, shapes: list[Any], static: dict[str, Any]) -> tuple[Any, int]:
    if op == "convolution":
        return shapes[1], shapes[0][-1]
    if op == "convolution_input_gradient":
        return shapes[1], static["shape"][-1]
    return static["shape"], shapes[0][-1]


def _possible_windows(op: str, static: dict[str, Any]) -> list[str]:
    if max(static["window"], default=1) > _LONGEST_LINE:
        return ["xla"]
    tiles = (
        "tiles" in WAYS[op]
        and static["window"] == static["strides"]
        and not any(low or high for low, high in static["padding"])
        and math.prod(static["window"]) <= _LONGEST_LINE
    )
    return ["xla", "lines", *(["tiles"] if tiles else [])]


def usual(op: str, shapes: list[Any], dtype: str, static: dict[str, Any]) -> str:
    """The way that is best for such shapes as a rule; arguments as for `possible`."""
    ways = possible(op, shapes, dtype, static)
    if len(ways) == 1:
        return "xla"
    if op.startswith("window"):
        return _usual_window(op, shapes, static, ways)
    if static["groups"] > 1:
        return ways[-1]
    way = _usual_dense(op, shapes, static)
    return way if way in ways else "xla"


def _usual_window(op: str, shapes: list[Any], static: dict[str, Any], ways: list[str]) -> str:
    if "tiles" in ways and math.prod(static["window"]) <= 9:
        return "tiles"
    # Along one axis only, XLA's own loops are as good.
    return "xla" if len(static["window"]) == 1 and op in ("window_max", "window_sum") else "lines"


def _usual_dense(op: str, shapes: list[Any], static: dict[str, Any]) -> str:
    """The way for one group."""
    kernel, channels = _kernel_and_channels(op, shapes, static)
    positions, rank = math.prod(kernel[:-2]), len(kernel) - 2
    if op == "convolution_kernel_gradient":
        return _usual_dense_kernel(shapes, kernel, static)
    space = shapes[0][1:-1]
    few = isinstance(shapes[0][0], int) and shapes[0][0] * math.prod(space) <= _FEW
    if positions == 1:
        # XLA's own is a product, too, but what comes into it is computed once, and not within each who reads it.
        return "xla" if op == "convolution" and rank == 2 and not few and cores() > 1 else "positions"
    if op == "convolution":
        if channels == 1 or (rank == 3 and (channels >= 32 or max(static["strides"]) > 1)):
            return "positions"
        return "xla"
    if rank == 2 and channels < _FEW_CHANNELS and max(static["strides"]) == 1:
        return "positions"
    # XLA turns the kernel round first, which tells where there are few rows to use it for.
    return "positions" if rank == 3 or (few and channels >= 64) else "xla"


def _usual_dense_kernel(shapes: list[Any], kernel: Any, static: dict[str, Any]) -> str:
    """The way for one group's kernel gradient."""
    *window, channels, filters = kernel
    positions, strided = math.prod(window), max(static["strides"]) > 1
    if positions == 1:
        return "turned" if 2 * channels >= filters else "positions"
    if channels == 1:
        return "columns" if positions <= 9 or len(window) == 3 else "xla"
    if len(window) == 3:
        return "positions"
    if cores() > 1:
        return "xla"  # what saves processor time does not use all cores
    batch, *space = shapes[1][:-1]
    seen = positions * channels * math.prod(space) * (batch if isinstance(batch, int) else 1)  # elements
    return "turned" if 32 <= channels < 256 and (strided or seen <= 1 << 22) else "xla"
