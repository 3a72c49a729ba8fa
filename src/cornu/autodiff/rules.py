"""One rule per differentiable primitive: the way back, written in ops.

A rule is a function `(g, y, a)` of the gradient of the result, the result, and the arguments by name; it gives the
gradient of one argument, which the tape then sums over broadcast axes. `NO_GRADIENT` lists the primitives that have
none, and why.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.ops import arithmetic as _a
from cornu.ops import contraction as _t
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import indexing as _i
from cornu.ops import movement as _m
from cornu.ops import reduction as _r
from cornu.ops._declare import shape_of
from cornu.ops._rules import axes_of

__all__ = ["NO_GRADIENT", "RULES"]

Rule = Callable[[Any, Any, Any], Any]
RULES: dict[str, dict[str, Rule]] = {}

_WHOLE = "its result is not a float"
_STEP = "it is flat wherever it is smooth"
NO_GRADIENT: dict[str, str] = {
    **dict.fromkeys("equal not_equal less less_equal greater greater_equal isfinite isnan isinf".split(), _WHOLE),
    **dict.fromkeys("logical_and logical_or logical_xor logical_not any all argmax argmin argsort".split(), _WHOLE),
    **dict.fromkeys("bitwise_and bitwise_or bitwise_xor bitwise_not left_shift right_shift".split(), _WHOLE),
    **dict.fromkeys("searchsorted_in iota size_as_array".split(), _WHOLE),
    "stop_gradient": "that is its purpose",
    **dict.fromkeys("scan while_loop cond_of".split(), "the tape follows their steps"),
    "rematerialized": "the tape runs its function again",
    "digamma": "the trigamma function is not in the language",
}


def rule(name: str, **by_argument: Rule) -> None:
    """State the rule of a primitive, one function for each differentiable argument."""
    RULES[name] = by_argument


# ---------------------------------------------------------------- elementwise

rule("exp", x=lambda g, y, a: g * y)
rule("expm1", x=lambda g, y, a: g * (y + 1))
rule("log", x=lambda g, y, a: g / a.x)
rule("log1p", x=lambda g, y, a: g / (a.x + 1))
rule("sqrt", x=lambda g, y, a: g / (y * 2))
rule("rsqrt", x=lambda g, y, a: g * (y / a.x) * -0.5)
rule("sin", x=lambda g, y, a: g * _e.cos(a.x))
rule("cos", x=lambda g, y, a: g * -_e.sin(a.x))
rule("tan", x=lambda g, y, a: g * (y * y + 1))
rule("arcsin", x=lambda g, y, a: g * _e.rsqrt(1 - a.x * a.x))
rule("arccos", x=lambda g, y, a: g * -_e.rsqrt(1 - a.x * a.x))
rule("arctan", x=lambda g, y, a: g / (a.x * a.x + 1))
rule("sinh", x=lambda g, y, a: g * _e.cosh(a.x))
rule("cosh", x=lambda g, y, a: g * _e.sinh(a.x))
rule("tanh", x=lambda g, y, a: g * (1 - y * y))
rule("arcsinh", x=lambda g, y, a: g * _e.rsqrt(a.x * a.x + 1))
rule("arccosh", x=lambda g, y, a: g * _e.rsqrt((a.x - 1) * (a.x + 1)))
rule("arctanh", x=lambda g, y, a: g / (1 - a.x * a.x))
rule("erf", x=lambda g, y, a: g * (_e.exp(-(a.x * a.x)) * (2 / np.pi**0.5)))
rule("erfinv", x=lambda g, y, a: g * (_e.exp(y * y) * (np.pi**0.5 / 2)))
rule("lgamma", x=lambda g, y, a: g * _e.digamma(a.x))
rule("sigmoid", x=lambda g, y, a: g * (y * (1 - y)))
rule("relu", x=lambda g, y, a: _e.choose(_a.greater(a.x, 0), g, _c.zeros_like(g)))
rule("negative", x=lambda g, y, a: -g)
rule("abs", x=lambda g, y, a: g * _e.sign(a.x))
for _name in "sign floor ceil round_half_even".split():
    rule(_name, x=lambda g, y, a: _c.zeros_like(g))
    NO_GRADIENT.pop(_name, None)
rule("cast_to", x=lambda g, y, a: g)
rule("as_tensor", x=lambda g, y, a: g)
rule(
    "choose",
    x1=lambda g, y, a: _e.choose(a.condition, g, _c.zeros_like(g)),
    x2=lambda g, y, a: _e.choose(a.condition, _c.zeros_like(g), g),
)

# ---------------------------------------------------------------- arithmetic


def _tie(own: Any, other: Any, wins: Any) -> Any:
    """1 where an argument wins, 0 where it loses, a half where both are equal."""
    dtype = _c.dtype(own)
    return _e.cast_to(wins(own, other), dtype=dtype) + _e.cast_to(_a.equal(own, other), dtype=dtype) * 0.5


def _power_base(g: Any, y: Any, a: Any) -> Any:
    exponent = _e.choose(_a.equal(a.x2, 0), _c.ones_like(a.x2), a.x2)
    slope = a.x2 * _a.power(a.x1, exponent - 1)
    return g * _e.choose(_a.equal(a.x2, 0), _c.zeros_like(slope), slope)


def _power_exponent(g: Any, y: Any, a: Any) -> Any:
    at_zero = _a.equal(a.x1, 0)
    logarithm = _e.log(_e.choose(at_zero, _c.ones_like(a.x1), a.x1))
    return g * y * _e.choose(at_zero, _c.zeros_like(logarithm), logarithm)


rule("add", x1=lambda g, y, a: g, x2=lambda g, y, a: g)
rule("subtract", x1=lambda g, y, a: g, x2=lambda g, y, a: -g)
rule("multiply", x1=lambda g, y, a: g * a.x2, x2=lambda g, y, a: g * a.x1)
rule("divide", x1=lambda g, y, a: g / a.x2, x2=lambda g, y, a: -(g * (a.x1 / a.x2) / a.x2))
rule("mod", x1=lambda g, y, a: g, x2=lambda g, y, a: g * -_a.floor_divide(a.x1, a.x2))
rule("floor_divide", x1=lambda g, y, a: _c.zeros_like(g), x2=lambda g, y, a: _c.zeros_like(g))
rule("power", x1=_power_base, x2=_power_exponent)
rule(
    "maximum",
    x1=lambda g, y, a: g * _tie(a.x1, a.x2, _a.greater),
    x2=lambda g, y, a: g * _tie(a.x2, a.x1, _a.greater),
)
rule("minimum", x1=lambda g, y, a: g * _tie(a.x1, a.x2, _a.less), x2=lambda g, y, a: g * _tie(a.x2, a.x1, _a.less))
rule(
    "arctan2",
    x1=lambda g, y, a: g * (a.x2 / (a.x1 * a.x1 + a.x2 * a.x2)),
    x2=lambda g, y, a: g * (-a.x1 / (a.x1 * a.x1 + a.x2 * a.x2)),
)

# ---------------------------------------------------------------- reductions


def _spread(value: Any, a: Any) -> Any:
    """A reduced value back in the shape before the reduction."""
    shape = shape_of(a.x)
    axes = axes_of(a.axis, len(shape))
    kept = tuple(1 if i in axes else size for i, size in enumerate(shape))
    return _c.broadcast_to_shape(_m.reshape_to(value, shape=kept), shape=shape)


def _extreme(g: Any, y: Any, a: Any) -> Any:
    """Elements that equal the extreme share its gradient."""
    winners = _e.cast_to(_a.equal(a.x, _spread(y, a)), dtype=_c.dtype(g))
    return _spread(g, a) * (winners / _r.sum(winners, axis=a.axis, keepdims=True))


def _prod(g: Any, y: Any, a: Any) -> Any:
    """The product of all other elements, from products up to each from both ends: right where elements are 0."""
    shape = shape_of(a.x)
    axes = axes_of(a.axis, len(shape))
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    flat = _m.reshape(_m.transpose(a.x, kept + axes), (*(shape[i] for i in kept), -1))
    one = _c.ones_like(_i.get_item(flat, (Ellipsis, slice(0, 1))))
    before = _r.cumulative_prod(
        _m.concatenate([one, _i.get_item(flat, (Ellipsis, slice(None, -1)))], -1), axis=len(kept)
    )
    after = _r.cumulative_prod(
        _m.concatenate([_i.get_item(flat, (Ellipsis, slice(1, None))), one], -1), axis=len(kept), reverse=True
    )
    others = _m.reshape(before * after, tuple(shape[i] for i in kept + axes))
    return _spread(g, a) * _m.transpose(others, tuple(np.argsort(kept + axes)))


def _cumulative_prod(g: Any, y: Any, a: Any) -> Any:
    """The chain through all products that hold an element: an exact sum of products, also where elements are 0."""
    size = shape_of(a.x)[a.axis]
    x, g = _m.moveaxis(a.x, a.axis, -1), _m.moveaxis(g, a.axis, -1)
    if a.reverse:
        x, g = _m.flip(x, -1), _m.flip(g, -1)
    # table[i, j] = x[j] for j <= i with j's own factor left out one k at a time
    i, j, k = np.ogrid[:size, :size, :size]
    use = (j <= i) & (j != k)
    factors = _e.where(use, _m.reshape(x, (*shape_of(x)[:-1], 1, size, 1)), 1.0)
    products = _r.prod(factors, axis=-2) * (k[:, 0] <= i[:, 0]).astype(np.float32)
    total = _r.sum(_m.expand_dims(g, -1) * _e.cast(products, _c.dtype(g)), axis=-2)
    return _m.moveaxis(_m.flip(total, -1) if a.reverse else total, -1, a.axis)


def _cumulative_max(g: Any, y: Any, a: Any) -> Any:
    """Each maximum's gradient goes to the element that set it: the latest that equals it."""
    size = shape_of(a.x)[a.axis]
    shape = [1] * len(shape_of(a.x))
    shape[a.axis] = size
    places = np.arange(size, dtype=np.int32).reshape(shape)
    if a.reverse:
        places = size - 1 - places
    setter = _r.cumulative_max(_e.where(_a.equal(a.x, y), places, -1), axis=a.axis, reverse=a.reverse)
    setter = size - 1 - setter if a.reverse else setter
    return _scatter_along(_c.zeros_like(a.x), setter, g, a.axis)


def _scatter_along(zeros: Any, indices: Any, values: Any, axis: int) -> Any:
    """Values added at indices along one axis: the transpose of `take_along_axis`."""
    shape = shape_of(indices)
    columns = []
    for i, size in enumerate(shape):
        if i == axis:
            columns.append(_e.cast(indices, "int32"))
        else:
            line = _m.reshape_to(_c.arange(size), shape=tuple(size if n == i else 1 for n in range(len(shape))))
            columns.append(_c.broadcast_to_shape(line, shape=shape))
    return _i.scatter_nd(zeros, _m.stack(columns, axis=-1), values, mode="add")


rule("sum", x=lambda g, y, a: _spread(g, a))
rule("prod", x=_prod)
rule("max", x=_extreme)
rule("min", x=_extreme)
rule("cumulative_sum", x=lambda g, y, a: _r.cumulative_sum(g, axis=a.axis, reverse=not a.reverse))
rule("cumulative_prod", x=_cumulative_prod)
rule("cumulative_max", x=_cumulative_max)
rule("sort", x=lambda g, y, a: _unsorted(g, _r.argsort(a.x, axis=a.axis), a.axis))
rule("top_k", x=lambda g, y, a: None if g[0] is None else _unsorted_top(g[0], y[1], a.x))


def _unsorted(g: Any, order: Any, axis: int) -> Any:
    return _i.take_along_axis(g, _r.argsort(order, axis=axis), axis=axis)


def _unsorted_top(g: Any, indices: Any, x: Any) -> Any:
    return _scatter_along(_c.zeros_like(x), indices, g, len(shape_of(x)) - 1)


# ---------------------------------------------------------------- movement


def _cut(g: Any, y: Any, a: Any) -> Any:
    """The gradient of a concatenation, cut at the joints."""
    parts, at = [], 0
    for x in a.xs:
        size = shape_of(x)[a.axis]
        parts.append(_m.strided_slice(g, {a.axis: (at, at + size, 1)}))
        at = at + size
    return parts


def _inside(g: Any, y: Any, a: Any) -> Any:
    bounds = {i: (lo, lo + size, 1) for i, (size, (lo, _)) in enumerate(zip(shape_of(a.x), a.widths, strict=True))}
    return _m.strided_slice(g, bounds)


def _slice_back(g: Any, y: Any, a: Any) -> Any:
    sizes = shape_of(a.x)
    if all(step == 1 for step in a.steps):
        widths = tuple((start, size - stop) for size, start, stop in zip(sizes, a.starts, a.stops, strict=True))
        return _m.pad_constant(g, _c.zeros((), _c.dtype(g)), widths=widths)
    where = [np.arange(*row, dtype=np.int32) for row in zip(a.starts, a.stops, a.steps, strict=True)]
    indices = np.stack(np.meshgrid(*where, indexing="ij"), -1)
    return _i.scatter_nd(_c.zeros_like(a.x), indices, g, mode="add")


rule("reshape_to", x=lambda g, y, a: _m.reshape_to(g, shape=shape_of(a.x)))
rule("broadcast_to_shape", x=lambda g, y, a: g)
rule("permute", x=lambda g, y, a: _m.permute(g, axes=tuple(int(i) for i in np.argsort(a.axes))))
rule("concatenate_all", xs=_cut)
rule("flip_axes", x=lambda g, y, a: _m.flip_axes(g, axes=a.axes))
rule("pad_constant", x=_inside, value=lambda g, y, a: _r.sum(g) - _r.sum(_inside(g, y, a)))
rule("slice_static", x=_slice_back)
rule("dynamic_slice", x=lambda g, y, a: _i.dynamic_update(_c.zeros_like(a.x), g, a.starts))
rule(
    "dynamic_update",
    x=lambda g, y, a: _i.dynamic_update(g, _c.zeros_like(a.update), a.starts),
    update=lambda g, y, a: _i.dynamic_slice(g, a.starts, shape=shape_of(a.update)),
)

# ---------------------------------------------------------------- gather and scatter


def _gather_back(g: Any, y: Any, a: Any) -> Any:
    """Gradients added up at the places they were taken from."""
    rank, taken = len(shape_of(a.x)), len(shape_of(a.indices))
    order = (*range(a.axis, a.axis + taken), *range(a.axis), *range(a.axis + taken, rank + taken - 1))
    first = (a.axis, *range(a.axis), *range(a.axis + 1, rank))
    zeros = _m.permute(_c.zeros_like(a.x), axes=first)
    total = _i.scatter_nd(zeros, _m.expand_dims(a.indices, -1), _m.permute(g, axes=order), mode="add")
    return _m.permute(total, axes=tuple(int(i) for i in np.argsort(first)))


def _gather_along_back(g: Any, y: Any, a: Any) -> Any:
    shape = shape_of(g)
    wide = (*shape[: a.axis], shape_of(a.x)[a.axis], *shape[a.axis + 1 :])
    indices = _c.broadcast_to_shape(a.indices, shape=shape)
    return _scatter_along(_c.zeros(wide, _c.dtype(g)), indices, g, a.axis)


def _gather_nd(x: Any, indices: Any) -> Any:
    """The parts of `x` at positions on its first axes; positions outside give 0."""
    depth = shape_of(indices)[-1]
    sizes = shape_of(x)
    flat: Any = 0
    inside: Any = True
    for i in range(depth):
        at = _i.get_item(indices, (Ellipsis, i))
        inside = _a.logical_and(inside, _a.logical_and(_a.greater_equal(at, 0), _a.less(at, sizes[i])))
        flat = flat * sizes[i] + at
    flat = _e.where(inside, flat, 0)
    parts = _i.gather(_m.reshape(x, (-1, *sizes[depth:])), flat, axis=0)
    shape = (*shape_of(flat), *(1 for _ in sizes[depth:]))
    return _e.where(_m.reshape(inside, shape), parts, 0)


def _scatter_winners(y: Any, a: Any) -> Any:
    """For each update of a "set" whether it is the one that stayed (the last of equal positions)."""
    count = int(np.prod(shape_of(a.indices)[:-1], dtype=int))
    order = _m.reshape(_c.arange(1, count + 1), shape_of(a.indices)[:-1])
    depth = shape_of(a.indices)[-1]
    last = _i.scatter_nd(_c.zeros(shape_of(a.x)[:depth], "int32"), a.indices, order, mode="max")
    won = _a.equal(_gather_nd(last, a.indices), order)
    return _m.reshape(won, (*shape_of(won), *(1 for _ in shape_of(a.x)[depth:])))


def _hit(a: Any) -> Any:
    """Whether an element of `x` was replaced."""
    depth = shape_of(a.indices)[-1]
    ones = _c.ones(shape_of(a.indices)[:-1], "int32")
    hit = _i.scatter_nd(_c.zeros(shape_of(a.x)[:depth], "int32"), a.indices, ones, mode="add")
    return _m.reshape(_a.greater(hit, 0), (*shape_of(hit), *(1 for _ in shape_of(a.x)[depth:])))


def _scatter_x(g: Any, y: Any, a: Any) -> Any:
    if a.mode == "add":
        return g
    if a.mode == "set":
        return _e.where(_hit(a), 0, g)
    if a.mode == "mul":
        factors = _i.scatter_nd(_c.ones_like(a.x), a.indices, a.updates, mode="mul")
        return g * factors
    return g * _share(y, a) * _e.cast_to(_a.equal(a.x, y), dtype=_c.dtype(g))


def _scatter_updates(g: Any, y: Any, a: Any) -> Any:
    taken = _gather_nd(g, a.indices)
    if a.mode == "add":
        return taken
    if a.mode == "set":
        return _e.where(_scatter_winners(y, a), taken, 0)
    if a.mode == "mul":
        return _gather_nd(g * y, a.indices) / a.updates
    return _gather_nd(g * _share(y, a), a.indices) * _e.cast_to(
        _a.equal(a.updates, _gather_nd(y, a.indices)), dtype=_c.dtype(g)
    )


def _share(y: Any, a: Any) -> Any:
    """One over how many elements reach the extreme of a "max" or "min" scatter."""
    won = _e.cast(_a.equal(a.updates, _gather_nd(y, a.indices)), _c.dtype(y))
    own = _e.cast(_a.equal(a.x, y), _c.dtype(y))
    return 1 / _a.maximum(_i.scatter_nd(own, a.indices, won, mode="add"), 1)


rule("gather", x=_gather_back)
rule("gather_along", x=_gather_along_back)
rule("scatter_nd", x=_scatter_x, updates=_scatter_updates)

# ---------------------------------------------------------------- contraction


def _swap(x: Any) -> Any:
    return _m.swapaxes(x, -1, -2)


def _matmul_1(g: Any, y: Any, a: Any) -> Any:
    rank_1, rank_2 = len(shape_of(a.x1)), len(shape_of(a.x2))
    if rank_2 == 1:
        return _m.expand_dims(g, -1) * a.x2 if rank_1 > 1 else g * a.x2
    if rank_1 == 1:
        return _m.squeeze(_t.matmul(_m.expand_dims(g, -2), _swap(a.x2)), -2)
    return _t.matmul(g, _swap(a.x2))


def _matmul_2(g: Any, y: Any, a: Any) -> Any:
    rank_1, rank_2 = len(shape_of(a.x1)), len(shape_of(a.x2))
    if rank_1 == 1:
        return _m.expand_dims(a.x1, -1) * _m.expand_dims(g, -2) if rank_2 > 1 else g * a.x1
    if rank_2 == 1:
        return _m.squeeze(_t.matmul(_swap(a.x1), _m.expand_dims(g, -1)), -1)
    return _t.matmul(_swap(a.x1), g)


def _dot_general_side(g: Any, a: Any, side: int) -> Any:
    """The product of the gradient with the other argument, its axes put back in order."""
    own, other = (a.x1, a.x2) if side == 0 else (a.x2, a.x1)
    rank, other_rank = len(shape_of(own)), len(shape_of(other))
    batch, other_batch = a.batch[side], a.batch[1 - side]
    contract, other_contract = a.contract[side], a.contract[1 - side]
    free = [i for i in range(rank) if i not in batch and i not in contract]
    other_free = [i for i in range(other_rank) if i not in other_batch and i not in other_contract]
    count = len(batch)
    start = count + (len(free) if side == 0 else 0)
    in_g = tuple(range(start, start + len(other_free)))
    product = _t.dot_general(
        g, other, contract=(in_g, tuple(other_free)), batch=(tuple(range(count)), tuple(other_batch))
    )
    # The product's axes: batch, own free, then the other's summed axes in rising order.
    summed = [contract[other_contract.index(i)] for i in sorted(other_contract)]
    names = [*batch, *free, *summed]
    return _m.permute(product, axes=tuple(names.index(i) for i in range(rank)))


rule("matmul", x1=_matmul_1, x2=_matmul_2)
rule(
    "dot_general",
    x1=lambda g, y, a: _dot_general_side(g, a, 0),
    x2=lambda g, y, a: _dot_general_side(g, a, 1),
)


def _geometry(a: Any) -> dict[str, Any]:
    return {"strides": a.strides, "padding": a.padding, "dilation": a.dilation, "groups": a.groups}


def _input(g: Any, kernel: Any, x: Any, a: Any) -> Any:
    return _t.convolution_input_gradient(g, kernel, shape=shape_of(x), **_geometry(a))


def _kernel(x: Any, g: Any, kernel: Any, a: Any) -> Any:
    return _t.convolution_kernel_gradient(x, g, shape=shape_of(kernel), **_geometry(a))


rule(
    "convolution",
    x=lambda g, y, a: _input(g, a.kernel, a.x, a),
    kernel=lambda g, y, a: _kernel(a.x, g, a.kernel, a),
)
rule(
    "convolution_input_gradient",
    g=lambda g, y, a: _t.convolution(g, a.kernel, **_geometry(a)),
    kernel=lambda g, y, a: _kernel(g, a.g, a.kernel, a),
)
rule(
    "convolution_kernel_gradient",
    x=lambda g, y, a: _input(a.g, g, a.x, a),
    g=lambda g, y, a: _t.convolution(a.x, g, **_geometry(a)),
)


def _windows(a: Any) -> dict[str, Any]:
    return {"window": a.window, "strides": a.strides, "padding": a.padding}


rule("window_sum", x=lambda g, y, a: _t.window_sum_gradient(g, shape=shape_of(a.x), **_windows(a)))
rule("window_sum_gradient", g=lambda g, y, a: _t.window_sum(g, **_windows(a)))
rule("window_max", x=lambda g, y, a: _t.window_max_gradient(a.x, g, **_windows(a)))
rule("window_max_gradient", g=lambda g, y, a: _t.window_max_take(a.x, g, **_windows(a)))
rule("window_max_take", values=lambda g, y, a: _t.window_max_gradient(a.x, g, **_windows(a)))
