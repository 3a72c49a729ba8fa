"""Ways to compute a convolution and its two gradients in JAX; `choice.py` says which one where.

All take and give what the primitives of the same names do (`cornu.ops.contraction`), and each says in its first line
which convolutions it can do. "A position" is an element of the kernel's window: what all results see there is one
strided slice of the padded input, of the shape of the result.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["WAYS", "result_space"]

Sizes = Sequence[int]
Pads = Sequence[tuple[int, int]]

# Elements of a row's results up to which the loop of `_kernel_by_rows` takes a whole image at once.
_ROW = 16384


def result_space(space: Sizes, window: Sizes, strides: Sizes, padding: Pads, dilation: Sizes) -> tuple[int, ...]:
    """How many windows fit along each spatial axis."""
    return tuple(
        max(0, (size + low + high - (wide - 1) * apart - 1) // stride + 1)
        for size, wide, stride, (low, high), apart in zip(space, window, strides, padding, dilation, strict=True)
    )


def _padded(x: Any, padding: Pads) -> Any:
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))


def _seen(x: Any, window: Sizes, space: Sizes, strides: Sizes, dilation: Sizes) -> Iterator[Any]:
    """What `space` results see of a padded array at each position, in row-major order."""
    for position in np.ndindex(*window):
        starts = [int(at * apart) for at, apart in zip(position, dilation, strict=True)]
        stops = [start + (count - 1) * stride + 1 for start, count, stride in zip(starts, space, strides, strict=True)]
        yield lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *strides, 1))


def _stretched(g: Any, shape: Sizes, starts: Sizes, strides: Sizes, padding: Pads) -> Any:
    """A result's gradient at the places of an input of this `shape` that it sees at the position `starts`."""
    rows = [
        (start - low, size + low - start - (count - 1) * stride - 1, stride - 1)
        for start, size, count, stride, (low, _) in zip(
            starts, shape[1:-1], g.shape[1:-1], strides, padding, strict=True
        )
    ]
    return lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *rows, (0, 0, 0)))


def _product(x: Any, kernel: Any) -> Any:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _product_of_rows(x: Any, g: Any) -> Any:
    """The sum over all rows of their outer products: `(channels, filters)`."""
    axes = tuple(range(x.ndim - 1))
    return lax.dot_general(x, g, ((axes, axes), ((), ())))


# ---------------------------------------------------------------- XLA's own


def _xla(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """Any convolution."""
    space = "DHW"[-len(strides) :]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=numbers, feature_group_count=groups
    )


def _xla_input(g: Any, kernel: Any, shape: Any, **static: Any) -> Any:
    return jax.linear_transpose(lambda x: _xla(x, kernel, **static), jax.ShapeDtypeStruct(shape, g.dtype))(g)[0]


def _xla_kernel(x: Any, g: Any, shape: Any, **static: Any) -> Any:
    return jax.linear_transpose(lambda kernel: _xla(x, kernel, **static), jax.ShapeDtypeStruct(shape, x.dtype))(g)[0]


# ---------------------------------------------------------------- one product for each position


def _positions(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One group: the sum over positions of a matrix product."""
    window = kernel.shape[:-2]
    space = result_space(x.shape[1:-1], window, strides, padding, dilation)
    total: Any = 0
    for at, seen in zip(np.ndindex(*window), _seen(_padded(x, padding), window, space, strides, dilation), strict=True):
        total = total + _product(seen, kernel[at])
    return total


def _positions_input(g: Any, kernel: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One group: one matrix product for all positions, whose parts are added at their places."""
    window, channels = kernel.shape[:-2], kernel.shape[-2]
    parts = _product(g, jnp.reshape(kernel, (-1, kernel.shape[-1])).T)
    total: Any = 0
    for i, position in enumerate(np.ndindex(*window)):
        part = lax.slice_in_dim(parts, i * channels, (i + 1) * channels, axis=-1)
        starts = [int(at * apart) for at, apart in zip(position, dilation, strict=True)]
        total = total + _stretched(part, shape, starts, strides, padding)
    return total


def _positions_kernel(x: Any, g: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One group: a matrix product for each position."""
    x = _padded(x, padding)
    parts = [_product_of_rows(seen, g) for seen in _seen(x, shape[:-2], g.shape[1:-1], strides, dilation)]
    return jnp.reshape(jnp.stack(parts), shape)


def _turned_kernel(x: Any, g: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One group: as by positions, each product turned round, so that XLA transposes the gradient once and no input."""
    x = _padded(x, padding)
    parts = [_product_of_rows(g, seen) for seen in _seen(x, shape[:-2], g.shape[1:-1], strides, dilation)]
    return jnp.reshape(jnp.swapaxes(jnp.stack(parts), -1, -2), shape)


# ---------------------------------------------------------------- what every position sees, side by side


def _patches(x: Any, window: Sizes, space: Sizes, strides: Sizes, padding: Pads, dilation: Sizes) -> Any:
    return jnp.concatenate(list(_seen(_padded(x, padding), window, space, strides, dilation)), axis=-1)


def _columns(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One group: one matrix product, of all that is seen."""
    window = kernel.shape[:-2]
    space = result_space(x.shape[1:-1], window, strides, padding, dilation)
    seen = _patches(x, window, space, strides, padding, dilation)
    return _product(seen, jnp.reshape(kernel, (-1, kernel.shape[-1])))


def _columns_kernel(x: Any, g: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """One group: one matrix product, of all that is seen with the gradient."""
    if x.shape[-1] == 1:  # then a row for each position is as easily made, and what the product asks for
        rows = [seen[..., 0] for seen in _seen(_padded(x, padding), shape[:-2], g.shape[1:-1], strides, dilation)]
        summed = tuple(range(g.ndim - 1))
        product = lax.dot_general(jnp.stack(rows), g, ((tuple(axis + 1 for axis in summed), summed), ((), ())))
        return jnp.reshape(product, shape)
    seen = _patches(x, shape[:-2], g.shape[1:-1], strides, padding, dilation)
    return jnp.reshape(_product_of_rows(seen, g), shape)


# ---------------------------------------------------------------- each channel for itself


def _repeated(x: Any, groups: int, filters: int) -> Any:
    """Each channel once for each of its filters."""
    return x if filters == groups else jnp.repeat(x, filters // groups, axis=-1)


def _summed(x: Any, channels: int) -> Any:
    """Undo `_repeated`: the sum over the filters of each channel."""
    if x.shape[-1] == channels:
        return x
    return jnp.sum(jnp.reshape(x, (*x.shape[:-1], channels, x.shape[-1] // channels)), axis=-1)


def _shifts(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """As many groups as channels: the sum over positions of products with a number for each channel."""
    window = kernel.shape[:-2]
    space = result_space(x.shape[1:-1], window, strides, padding, dilation)
    # Without a barrier XLA computes what gave the input again at every position.
    x = lax.optimization_barrier(_padded(_repeated(x, groups, kernel.shape[-1]), padding))
    total: Any = 0
    for at, seen in zip(np.ndindex(*window), _seen(x, window, space, strides, dilation), strict=True):
        total = total + seen * kernel[at][0]
    return total


def _shifts_input(g: Any, kernel: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """As many groups as channels: `_shifts` of the gradient, `strides` apart, by the kernel turned round."""
    rank = len(strides)
    reach = [(wide - 1) * apart for wide, apart in zip(kernel.shape[:-2], dilation, strict=True)]
    room = (shape[0], *(size + wide for size, wide in zip(shape[1:-1], reach, strict=True)), g.shape[-1])
    g = _stretched(g, room, reach, strides, padding)
    turned = jnp.flip(kernel, tuple(range(rank)))
    total = _shifts(g, turned, (1,) * rank, ((0, 0),) * rank, dilation, g.shape[-1])
    return _summed(total, shape[-1])


def _shifts_kernel(x: Any, g: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """As many groups as channels: a loop over rows that adds up each position's products (XLA's sums are slow)."""
    window, space, filters = shape[:-2], g.shape[1:-1], g.shape[-1]
    x = _padded(_repeated(x, groups, filters), padding)
    whole = len(space) == 1 or math.prod(space) * filters <= _ROW  # then a "row" is all of an image
    rows = 1 if whole else space[0]
    height = space[0] if whole else 1
    reach = x.shape[1] if whole else (window[0] - 1) * dilation[0] + 1
    others = (0,) * (len(space) - 1)

    def add(i: Any, total: Any) -> Any:
        image, row = i // rows, i % rows
        own = lax.dynamic_slice(g, (image, row, *others, 0), (1, height, *g.shape[2:]))
        near = lax.dynamic_slice(x, (image, row * strides[0], *others, 0), (1, reach, *x.shape[2:]))
        seen = _seen(near, window, own.shape[1:-1], strides, dilation)
        return total + jnp.concatenate([part * own for part in seen])

    total = lax.fori_loop(
        0, g.shape[0] * rows, add, jnp.zeros((math.prod(window), height, *space[1:], filters), x.dtype)
    )
    return jnp.reshape(jnp.sum(total, axis=tuple(range(1, total.ndim - 1))), shape)


# ---------------------------------------------------------------- a few groups at a time

# A block has this many channels or more where it can; and there are no more blocks than that, for the compiler's sake.
_LEAST_CHANNELS, _MOST_BLOCKS = 32, 16


def _blocks(groups: int, channels: int) -> int:
    """In how many blocks of whole groups a convolution is cut."""
    for count in range(min(groups, _MOST_BLOCKS), 1, -1):
        if groups % count == 0 and (channels // count >= _LEAST_CHANNELS or count == groups):
            return count
    return 1


def _same_group(size: int) -> Any:
    return np.eye(size, dtype=bool)[:, None, :, None]


def _dense_kernel(kernel: Any, size: int) -> Any:
    """The kernel of `size` groups as one for a single group, with zeros between the groups."""
    *window, channels, filters = kernel.shape
    if size == 1:
        return kernel
    parts = jnp.reshape(kernel, (*window, 1, channels, size, filters // size))
    parts = jnp.where(_same_group(size), parts, jnp.zeros((), kernel.dtype))
    return jnp.reshape(parts, (*window, size * channels, filters))


def _group_kernels(kernel: Any, size: int) -> Any:
    """Undo `_dense_kernel`, whatever stands between the groups."""
    *window, channels, filters = kernel.shape
    if size == 1:
        return kernel
    parts = jnp.reshape(kernel, (*window, size, channels // size, size, filters // size))
    parts = jnp.sum(jnp.where(_same_group(size), parts, jnp.zeros((), kernel.dtype)), axis=-4)
    return jnp.reshape(parts, (*window, channels // size, filters))


def _one(ways: tuple[Callable[..., Any], Callable[..., Any]], window: Sizes) -> Callable[..., Any]:
    """The way to do a block: XLA's, or by positions."""
    return ways[math.prod(window) == 1 or len(window) == 3]


def _blocked(x: Any, kernel: Any, groups: int, **static: Any) -> Any:
    """Several groups: one group's convolution for each block of them.

    What is not finite in one group spreads to the others of its block.
    """
    count = _blocks(groups, x.shape[-1])
    function = _one((_xla, _positions), kernel.shape[:-2])
    pairs = zip(jnp.split(x, count, -1), jnp.split(kernel, count, -1), strict=True)
    parts = [function(a, _dense_kernel(b, groups // count), groups=1, **static) for a, b in pairs]
    return jnp.concatenate(parts, -1)


def _blocked_input(g: Any, kernel: Any, shape: Any, groups: int, **static: Any) -> Any:
    """Several groups: as `_blocked`."""
    count = _blocks(groups, shape[-1])
    function = _one((_xla_input, _positions_input), kernel.shape[:-2])
    shape = (*shape[:-1], shape[-1] // count)
    pairs = zip(jnp.split(g, count, -1), jnp.split(kernel, count, -1), strict=True)
    parts = [function(a, _dense_kernel(b, groups // count), shape=shape, groups=1, **static) for a, b in pairs]
    return jnp.concatenate(parts, -1)


def _blocked_kernel(x: Any, g: Any, shape: Any, groups: int, **static: Any) -> Any:
    """Several groups: as `_blocked`."""
    count = _blocks(groups, x.shape[-1])
    function = _one((_xla_kernel, _positions_kernel), shape[:-2])
    shape = (*shape[:-2], x.shape[-1] // count, shape[-1] // count)
    pairs = zip(jnp.split(x, count, -1), jnp.split(g, count, -1), strict=True)
    parts = [_group_kernels(function(a, b, shape=shape, groups=1, **static), groups // count) for a, b in pairs]
    return jnp.concatenate(parts, -1)


WAYS: dict[str, dict[str, Callable[..., Any]]] = {
    "convolution": {
        "xla": _xla,
        "positions": _positions,
        "columns": _columns,
        "shifts": _shifts,
        "blocks": _blocked,
    },
    "convolution_input_gradient": {
        "xla": _xla_input,
        "positions": _positions_input,
        "shifts": _shifts_input,
        "blocks": _blocked_input,
    },
    "convolution_kernel_gradient": {
        "xla": _xla_kernel,
        "positions": _positions_kernel,
        "turned": _turned_kernel,
        "columns": _columns_kernel,
        "shifts": _shifts_kernel,
        "blocks": _blocked_kernel,
    },
}
