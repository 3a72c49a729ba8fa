"""Ways to compute pooling windows and their gradients in JAX; `choice.py` says which one where.

A window's largest element, and its first, can be found one axis after the other: along the last axis first, each
step's result is what the next one looks at, and their gradients are undone in the opposite order. So a window of
3 x 3 costs six looks and not nine.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["WAYS"]

Pad = tuple[int, int]
Window = tuple[int, int, int, Pad]  # axis, size, stride, padding


# ---------------------------------------------------------------- XLA's own


def _window(x: Any, start: Any, function: Any, window: Any, strides: Any, padding: Any) -> Any:
    pads = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, start, function, (1, *window, 1), (1, *strides, 1), pads)


def _xla_sum(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    return _window(x, np.zeros((), x.dtype), lax.add, window, strides, padding)


def _xla_sum_gradient(g: Any, shape: Any, **static: Any) -> Any:
    return jax.linear_transpose(lambda x: _xla_sum(x, **static), jax.ShapeDtypeStruct(shape, g.dtype))(g)[0]


def _xla_max(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    return _window(x, np.asarray(_least(x)).astype(x.dtype), lax.max, window, strides, padding)


def _xla_max_gradient(x: Any, g: Any, **static: Any) -> Any:
    _, pull = jax.vjp(lambda x: _xla_max(x, **static), x)
    return pull(g)[0]


def _xla_max_take(x: Any, values: Any, **static: Any) -> Any:
    g = jax.eval_shape(lambda x: _xla_max(x, **static), x)
    return jax.linear_transpose(lambda g: _xla_max_gradient(x, g, **static), g)(values)[0]


# ---------------------------------------------------------------- along one axis


def _least(x: Any) -> Any:
    return -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min


def _lines(window: Any, strides: Any, padding: Any) -> list[Window]:
    """The window's axes, the last first, without those along which it does nothing."""
    rows = enumerate(zip(window, strides, padding, strict=True), 1)
    return [(axis, *row) for axis, row in rows if row != (1, 1, (0, 0))][::-1]


def _padded(x: Any, axis: int, low: int, high: int, value: Any = 0) -> Any:
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (low, high, 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), widths)


def _count(size: int, line: Window) -> int:
    _, wide, stride, (low, high) = line
    return max(0, (size + low + high - wide) // stride + 1)


def _seen(x: Any, line: Window, value: Any) -> list[Any]:
    """What all windows see at each of their positions along an axis."""
    axis, wide, stride, (low, high) = line
    count = _count(x.shape[axis], line)
    x = _padded(x, axis, low, high, value)
    return [lax.slice_in_dim(x, i, i + (count - 1) * stride + 1, stride, axis) for i in range(wide)]


def _along(axis: int, flags: Any, rank: int) -> Any:
    """A boolean for each place along an axis, to be broadcast."""
    return np.reshape(flags, [-1 if i == axis else 1 for i in range(rank)])


def _larger(here: Any, best: Any) -> Any:
    """Whether an element beats the best so far: NaN beats all numbers."""
    if jnp.issubdtype(here.dtype, jnp.floating):
        return ~(here <= best) & (best == best)
    return here > best


def _first(x: Any, line: Window) -> tuple[Any, Any]:
    """Each window's largest element along an axis, and the first position that has it; -1 if it sees padding only."""
    axis, wide, stride, (low, _) = line
    size = x.shape[axis]
    best, *others = _seen(x, line, _least(x))
    places = np.arange(_count(size, line)) * stride - low
    inside = [(places + i >= 0) & (places + i < size) for i in range(wide)]
    found = inside[0]
    where = jnp.broadcast_to(jnp.asarray(_along(axis, np.where(found, 0, -1).astype(np.int8), x.ndim)), best.shape)
    for i, here in enumerate(others, 1):
        larger = _larger(here, best)
        if not found.all():
            larger = larger | _along(axis, ~found, x.ndim)
        if not inside[i].all():
            larger = larger & _along(axis, inside[i], x.ndim)
        found = found | inside[i]
        best, where = jnp.where(larger, here, best), jnp.where(larger, np.int8(i), where)
    return best, where


def _put(parts: Callable[[int, int, int], Any], size: int, line: Window, count: int) -> Any:
    """The sum of what windows give to the elements they see along an axis.

    Args:
        parts: of a position, and of a start and a length (of windows, counted from `_before(line)` windows before the
            first), gives what those windows give to the element at that position.
        size: of the axis.
        line: the axis and the window.
        count: how many windows there are.
    """
    axis, wide, stride, (low, _) = line
    back = _before(line)
    length = count + back
    phases = []
    for phase in range(min(stride, wide)):
        steps = range((wide - phase - 1) // stride + 1)
        terms = [parts(step * stride + phase, back - step, length) for step in steps]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        phases.append(total)
    phases += [jnp.zeros_like(phases[0])] * (stride - len(phases))
    if stride == 1:
        together = phases[0]
    else:
        shape = phases[0].shape
        together = jnp.reshape(jnp.stack(phases, axis + 1), (*shape[:axis], length * stride, *shape[axis + 1 :]))
    return _padded(together, axis, -low, size + low - length * stride)


def _before(line: Window) -> int:
    """How many windows before one may see an element that it sees."""
    _, wide, stride, _ = line
    return -(-wide // stride) - 1


def _roomy(x: Any, line: Window, value: Any) -> Any:
    """An array of windows with as many more on both sides as `_put` asks for."""
    return _padded(x, line[0], _before(line), _before(line), value)


def _given(where: Any, g: Any, size: int, line: Window) -> Any:
    """Each window's gradient at the element that was its first largest along an axis."""
    axis, count = line[0], where.shape[line[0]]
    where, g = lax.optimization_barrier((_roomy(where, line, -1), _roomy(g, line, 0)))

    def part(position: int, start: int, length: int) -> Any:
        mine = lax.slice_in_dim(where, start, start + length, axis=axis) == position
        return jnp.where(mine, lax.slice_in_dim(g, start, start + length, axis=axis), jnp.zeros((), g.dtype))

    return _put(part, size, line, count)


# ---------------------------------------------------------------- one axis after the other


def _max(x: Any, **static: Any) -> Any:
    for line in _lines(**static):
        first, *others = _seen(x, line, _least(x))
        for here in others:
            first = jnp.maximum(first, here)
        x = first
    return x


def _max_gradient(x: Any, g: Any, **static: Any) -> Any:
    done = []
    for line in _lines(**static):
        # Without barriers XLA computes these again wherever they are used.
        best, where = lax.optimization_barrier(_first(x, line))
        done.append((where, x.shape[line[0]], line))
        x = best
    for where, size, line in reversed(done):
        g = _given(where, g, size, line)
    return g


def _max_take(x: Any, values: Any, **static: Any) -> Any:
    for line in _lines(**static):
        best, where = lax.optimization_barrier(_first(x, line))
        taken = jnp.zeros(where.shape, values.dtype)
        for i, here in enumerate(_seen(values, line, 0)):
            taken = jnp.where(where == i, here, taken)
        x, values = best, taken
    return values


def _sum(x: Any, **static: Any) -> Any:
    for line in _lines(**static):
        total, *others = _seen(x, line, 0)
        for here in others:
            total = total + here
        x = total
    return x


def _sum_gradient(g: Any, shape: Any, **static: Any) -> Any:
    for line in reversed(_lines(**static)):
        axis, count = line[0], g.shape[line[0]]
        wide = _roomy(g, line, 0)
        g = _put(
            lambda _, start, length, g=wide, axis=axis: lax.slice_in_dim(g, start, start + length, axis=axis),  # type: ignore[misc]
            shape[axis],
            line,
            count,
        )
    return g


# ---------------------------------------------------------------- windows side by side


def _tiles(x: Any, window: Any, count: Any, value: Any) -> Any:
    """`(batch, *space, channels)` as `(batch, n1, w1, n2, w2, ..., channels)`, cut or filled up to whole windows."""
    rows = [(0, n * wide - size, 0) for size, n, wide in zip(x.shape[1:-1], count, window, strict=True)]
    x = lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), *rows, (0, 0, 0)))
    return jnp.reshape(x, (x.shape[0], *(part for pair in zip(count, window, strict=True) for part in pair), -1))


def _tiled_max_gradient(x: Any, g: Any, window: Any, strides: Any, padding: Any) -> Any:
    """Windows that stand side by side without padding."""
    count, rank = g.shape[1:-1], len(window)
    tiles = _tiles(x, window, count, 0)
    inner = [slice(None)] * tiles.ndim
    best: Any = None
    for i, position in enumerate(np.ndindex(*window)):
        here = tiles[tuple(inner[:1] + [part for at in position for part in (slice(None), at)])]
        if best is None:
            best, where = here, jnp.zeros(here.shape, jnp.int16)
        else:
            larger = _larger(here, best)
            best, where = jnp.where(larger, here, best), jnp.where(larger, np.int16(i), where)
    axes = tuple(2 + 2 * i for i in range(rank))
    order = np.arange(math.prod(window), dtype=np.int16).reshape(
        [1, *(part for wide in window for part in (1, wide)), 1]
    )
    result = jnp.where(jnp.expand_dims(where, axes) == order, jnp.expand_dims(g, axes), jnp.zeros((), g.dtype))
    result = jnp.reshape(result, (x.shape[0], *(n * wide for n, wide in zip(count, window, strict=True)), x.shape[-1]))
    rest = [(0, size - had, 0) for size, had in zip(x.shape[1:-1], result.shape[1:-1], strict=True)]
    return lax.pad(result, jnp.zeros((), g.dtype), ((0, 0, 0), *rest, (0, 0, 0)))


WAYS: dict[str, dict[str, Callable[..., Any]]] = {
    "window_sum": {"xla": _xla_sum, "lines": _sum},
    "window_sum_gradient": {"xla": _xla_sum_gradient, "lines": _sum_gradient},
    "window_max": {"xla": _xla_max, "lines": _max},
    "window_max_gradient": {"xla": _xla_max_gradient, "lines": _max_gradient, "tiles": _tiled_max_gradient},
    "window_max_take": {"xla": _xla_max_take, "lines": _max_take},
}
