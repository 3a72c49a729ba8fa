"""One table of all ops: sample arguments, what the result must be, and whether it is differentiable.

Floats are written in float64; runners cast them to the dtype they test. A reference is a function of host arrays with
the op's own arguments; left out, it is NumPy's function of that name. `keras_ops("name")` asks Keras instead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.special

__all__ = ["CASES", "COVERED_ELSEWHERE", "Case", "cast_floats", "floats_of", "keras_ops", "with_floats"]

FLOATS = (np.float16, np.float32, np.float64)


@dataclass
class Case:
    """A call of an op, and what must come of it."""

    op: str
    args: tuple[Any, ...]
    static: dict[str, Any]
    ref: Callable[..., Any] | None
    rtol: float = 1e-5
    atol: float = 1e-6
    grad: bool = True
    second: bool = True
    label: str = ""
    tags: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.op}-{self.label}" if self.label else self.op

    def expected(self, args: tuple[Any, ...]) -> Any:
        with np.errstate(all="ignore"):
            return (self.ref or getattr(np, self.op))(*args, **self.static)


def cast_floats(value: Any, dtype: Any) -> Any:
    """The arguments with float64 arrays in another dtype."""
    if isinstance(value, (list, tuple)):
        return type(value)(cast_floats(item, dtype) for item in value)
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value.astype(dtype)
    return value


def floats_of(args: Any) -> list[np.ndarray]:
    """The float arrays among arguments, left to right."""
    found = []
    for value in args:
        if isinstance(value, (list, tuple)):
            found += floats_of(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            found.append(value)
    return found


def with_floats(args: Any, floats: list[Any]) -> Any:
    """The arguments with their float arrays replaced, left to right."""
    values = iter(floats)

    def swap(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(swap(item) for item in value)
        return next(values) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value

    return swap(args)


def keras_ops(name: str) -> Callable[..., Any]:
    """Keras's op of this name as a reference."""

    def run(*args: Any, **static: Any) -> Any:
        import jax
        import keras

        function = getattr(keras.ops, name)
        return jax.tree.map(np.asarray, function(*args, **static))

    return run


CASES: list[Case] = []


def case(op: str, *args: Any, ref: Any = None, label: str = "", **given: Any) -> None:
    own = {key: given.pop(key) for key in ("rtol", "atol", "grad", "second", "tags") if key in given}
    count = sum(1 for c in CASES if c.op == op)
    CASES.append(Case(op, args, given, ref, label=label or (str(count) if count else ""), **own))


def flat(op: str, *args: Any, **given: Any) -> None:
    """A record of an op without a gradient."""
    case(op, *args, grad=False, **given)


def _draw(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    """Numbers that are all different and away from 0 and from whole numbers' halves."""
    count = math.prod(shape)
    rng = np.random.default_rng(1000 + seed + count)
    values = low + (high - low) * (rng.permutation(count) + 0.23 + 0.3 * rng.random(count)) / max(count, 1)
    return values.reshape(shape)


X = _draw(3, 4)
Y = _draw(3, 4, seed=1)
POSITIVE = _draw(3, 4, low=0.2, high=3.0, seed=2)
UNIT = _draw(3, 4, low=-0.9, high=0.9, seed=3)
ABOVE_1 = _draw(3, 4, low=1.2, high=4.0, seed=4)
ROW = _draw(4, seed=5)
COLUMN = _draw(3, 1, seed=6)
CUBE = _draw(2, 3, 4, seed=7)
VECTOR = _draw(5, seed=8)
SQUARE = _draw(3, 3, seed=9)
INTS = np.array([[3, -1, 4, 1], [-5, 9, 2, 6], [5, 3, -5, 8]], np.int32)
OTHERS = np.array([[1, 2, -3, 4], [2, -2, 2, 5], [-1, 3, 4, 7]], np.int32)
BOOLS = np.array([[True, False, True, True], [False, False, True, False], [True, True, True, True]])
MORE = np.array([[True, True, False, True], [False, True, True, False], [False, True, False, True]])
SPECIAL = np.array([0.5, np.nan, np.inf, -np.inf, -0.0, -3.0])
HOLES = np.where(BOOLS, X, np.nan)
TIES = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, -1.0, 0.0], [2.0, 2.0, 2.0, 2.0]])

# ---------------------------------------------------------------- elementwise primitives

for _name in ["exp", "expm1", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "arcsinh"]:
    case(_name, X)
for _name in ["log", "log1p", "sqrt"]:
    case(_name, POSITIVE)
for _name in ["arcsin", "arccos", "arctanh"]:
    case(_name, UNIT)
case("arccosh", ABOVE_1)
case("rsqrt", POSITIVE, ref=lambda x: 1 / np.sqrt(x))
case("erf", X, ref=scipy.special.erf)
case("erfinv", UNIT, ref=scipy.special.erfinv)
case("lgamma", POSITIVE, ref=scipy.special.gammaln, second=False, atol=1e-5)
flat("digamma", POSITIVE, ref=scipy.special.digamma, atol=1e-5)
case("sigmoid", X, ref=scipy.special.expit)
case("relu", X, ref=lambda x: np.maximum(x, 0))
for _name in ["negative", "abs", "sign", "floor", "ceil"]:
    case(_name, X)
case("round_half_even", X * 3, ref=np.round)
flat("round_half_even", np.array([0.5, 1.5, -0.5, -2.5]), ref=np.round)
for _name in ["isfinite", "isnan", "isinf"]:
    flat(_name, SPECIAL)
flat("logical_not", BOOLS)
flat("logical_not", INTS)
flat("bitwise_not", INTS)
flat("bitwise_not", BOOLS)
flat("stop_gradient", X, ref=lambda x: x)
case("as_tensor", X, ref=lambda x: x)
case("drop_mask", X, ref=lambda x: x)
case("cast_to", X, dtype="float32", ref=lambda x, dtype: x.astype(dtype), grad=False)
flat("cast_to", X * 3, dtype="int32", ref=lambda x, dtype: x.astype(dtype))
flat("cast", X, dtype="float16", ref=lambda x, dtype: x.astype(dtype))
flat("cast", INTS, dtype="bool", ref=lambda x, dtype: x.astype(dtype))
case("choose", BOOLS, X, Y, ref=np.where)
case("choose", BOOLS[:1], X, COLUMN, ref=np.where)
case("where", BOOLS, X, Y)
case("where", INTS - 1, X, 0.0, ref=np.where)

# ---------------------------------------------------------------- arithmetic

for _name in ["add", "subtract", "multiply", "maximum", "minimum", "arctan2"]:
    case(_name, X, Y)
    case(_name, COLUMN, ROW)
case("divide", X, POSITIVE)
case("divide", INTS, OTHERS, grad=False)
case("power", POSITIVE, X)
flat("power", np.abs(INTS), np.abs(OTHERS))
case("mod", X * 3, POSITIVE)
flat("mod", INTS, OTHERS)
flat("floor_divide", INTS, OTHERS)
case("floor_divide", X * 3, POSITIVE)
for _name in ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]:
    flat(_name, INTS, OTHERS)
    flat(_name, COLUMN, ROW)
for _name in ["logical_and", "logical_or", "logical_xor"]:
    flat(_name, BOOLS, MORE)
    flat(_name, INTS - 1, OTHERS)
for _name in ["bitwise_and", "bitwise_or", "bitwise_xor"]:
    flat(_name, INTS, OTHERS)
    flat(_name, BOOLS, MORE)
for _name in ["left_shift", "right_shift"]:
    flat(_name, INTS, np.abs(OTHERS))

# ---------------------------------------------------------------- reductions, cumulative functions, sorting

for _name in ["sum", "prod", "max", "min", "mean", "var", "std"]:
    case(_name, X)
    case(_name, CUBE, axis=1)
    case(_name, CUBE, axis=(0, -1), keepdims=True)
case("prod", np.where(BOOLS, X, 0.0), axis=1, second=False, label="zeros")
case("sum", np.zeros((3, 0)), axis=1, label="empty")
case("prod", np.zeros((0, 3)), axis=0, label="empty", second=False)
flat("sum", INTS, axis=0)
flat("mean", INTS, axis=0)
for _name in ["any", "all"]:
    flat(_name, BOOLS)
    flat(_name, INTS - 1, axis=1, keepdims=True)
    flat(_name, np.zeros((2, 0), bool), axis=1, label="empty")
for _name in ["argmax", "argmin"]:
    flat(_name, X)
    flat(_name, TIES, axis=1, label="ties")
    flat(_name, CUBE, axis=-2, keepdims=True)
case("logsumexp", CUBE, axis=1, ref=lambda x, axis: scipy.special.logsumexp(x, axis=axis))
case("logsumexp", X, keepdims=True, ref=lambda x, keepdims: scipy.special.logsumexp(x, keepdims=keepdims))
flat("count_nonzero", INTS - 1, axis=0)


def _along(function: Any) -> Any:
    def run(x: Any, axis: int, reverse: bool = False) -> Any:
        return np.flip(function(np.flip(x, axis), axis=axis), axis) if reverse else function(x, axis=axis)

    return run


for _name, _function in {"sum": np.cumsum, "prod": np.cumprod, "max": np.maximum.accumulate}.items():
    case(f"cumulative_{_name}", X, axis=1, ref=_along(_function))
    case(f"cumulative_{_name}", CUBE, axis=1, reverse=True, ref=_along(_function))
    case(f"cumulative_{_name}", np.zeros((2, 0)), axis=1, ref=_along(_function), grad=False, label="empty")
case("cumulative_prod", np.where(MORE, X, 0.0), axis=1, ref=_along(np.cumprod), second=False, label="zeros")
case("cumsum", CUBE)
case("cumsum", CUBE, axis=-1)
case("cumprod", CUBE, axis=0)
case("sort", CUBE, axis=1)
case("sort", X)
flat("sort", np.where(BOOLS, X, np.nan), label="nan")
flat("argsort", CUBE, axis=1)
flat("argsort", TIES, label="ties", ref=lambda x: np.argsort(x, kind="stable"))


def _top(x: Any, k: int) -> Any:
    order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(x, order, -1), order


case("top_k", CUBE, k=2, ref=_top)
flat("top_k", TIES, k=3, ref=_top, label="ties")

# ---------------------------------------------------------------- creation

case("broadcast_to_shape", COLUMN, shape=(2, 3, 4), ref=lambda x, shape: np.broadcast_to(x, shape))
case("broadcast_to", ROW, shape=(3, 4))
flat("iota", size=5, dtype="int32", ref=lambda size, dtype: np.arange(size, dtype=dtype))
flat("size_as_array", size=7, ref=lambda size: np.array(size))
flat("zeros_like", INTS)
flat("ones_like", X)
flat("full_like", X, fill_value=2.5, ref=lambda x, fill_value: np.full_like(x, fill_value))

# ---------------------------------------------------------------- movement

case("reshape_to", CUBE, shape=(4, 6), ref=lambda x, shape: x.reshape(shape))
case("reshape", CUBE, newshape=(4, -1), ref=lambda x, newshape: x.reshape(newshape))
case("permute", CUBE, axes=(2, 0, 1), ref=lambda x, axes: x.transpose(axes))
case("transpose", CUBE)
case("transpose", CUBE, axes=(1, -1, 0))
case("moveaxis", CUBE, source=0, destination=-1)
case("moveaxis", CUBE, source=(0, 1), destination=(-1, 0))
case("swapaxes", CUBE, axis1=0, axis2=-1)
case("expand_dims", X, axis=1)
case("expand_dims", X, axis=(0, -1))
case("squeeze", X[:, None, :, None])
case("squeeze", X[:, None], axis=1)
case("ravel", CUBE)
case("concatenate_all", [X, Y], axis=1, ref=lambda xs, axis: np.concatenate(xs, axis))
case("concatenate", [X, COLUMN, X[:, :0]], axis=-1)
case("stack", [X, Y], axis=1)
case("unstack", X, axis=1, ref=lambda x, axis: list(np.moveaxis(x, axis, 0)))
case("split", CUBE, indices_or_sections=2, axis=-1)
case("split", CUBE, indices_or_sections=[1, 3], axis=2)
case("flip_axes", CUBE, axes=(0, 2), ref=lambda x, axes: np.flip(x, axes))
case("flip", CUBE)
case("flip", CUBE, axis=1)
case(
    "pad_constant",
    X,
    np.array(1.5),
    widths=((1, 0), (0, 2)),
    ref=lambda x, v, widths: np.pad(x, widths, constant_values=v),
)
case("pad", X, pad_width=1)
case("pad", X, pad_width=((0, 1), (2, 0)), constant_values=2.0)
for _mode in ("reflect", "symmetric", "edge"):
    case("pad", X, pad_width=((1, 2), (0, 1)), mode=_mode, label=_mode)
case("tile", X, repeats=(2, 1, 3), ref=lambda x, repeats: np.tile(x, repeats))
case("repeat", X, repeats=2, axis=1)
case("repeat", X, repeats=[1, 0, 2], axis=0)
case("repeat", X, repeats=2)
case("roll", X, shift=1)
case("roll", X, shift=(-1, 2), axis=(0, 1))

# ---------------------------------------------------------------- indexing

case(
    "slice_static",
    CUBE,
    starts=(0, 1, 0),
    stops=(2, 3, 4),
    steps=(1, 1, 2),
    ref=lambda x, starts, stops, steps: x[tuple(map(slice, starts, stops, steps))],
)
case("slice_static", X, starts=(1, 0), stops=(3, 2), steps=(1, 1), ref=lambda x, **_: x[1:3, 0:2])
case("dynamic_slice", X, [np.int32(1), np.int32(3)], shape=(2, 2), ref=lambda x, starts, shape: x[1:3, 2:4])
case("slice", X, [1, 1], shape=(2, -1), ref=lambda x, starts, shape: x[1:3, 1:])
case("slice", X, np.array([0, 2], np.int32), shape=(2, 2), ref=lambda x, starts, shape: x[0:2, 2:])


def _replaced(x: Any, update: Any, row: int, column: int) -> Any:
    x = x.copy()
    x[row : row + update.shape[0], column : column + update.shape[1]] = update
    return x


case("dynamic_update", X, Y[:2, :2], [np.int32(2), np.int32(1)], ref=lambda x, u, starts: _replaced(x, u, 1, 1))
case("slice_update", X, [0, 2], Y[:2, :2], ref=lambda x, starts, u: _replaced(x, u, 0, 2))
PLACES = np.array([[0, 2], [1, 1], [2, 0]], np.int32)
case("gather", CUBE, PLACES, axis=1, ref=lambda x, i, axis: np.take(x, i, axis))
flat(
    "gather",
    X,
    np.array([0, 7, -1], np.int32),
    axis=0,
    ref=lambda x, i, axis: np.stack([x[0], x[0] * np.nan, x[0] * np.nan]),
    label="outside",
)
case("take", X, np.array([2, 0, -1], np.int32), axis=1)
case("take", X, PLACES)
for _places in (PLACES, PLACES[:, :1].copy()):
    case("gather_along", X, _places, axis=1, ref=lambda x, i, axis: np.take_along_axis(x, i, axis))
case("take_along_axis", CUBE, np.argsort(CUBE, 1).astype(np.int32), axis=1)

WHERE = np.array([[0], [2], [0], [5]], np.int32)
PAIRS = np.array([[0, 1], [2, 3], [0, 1], [-1, 0]], np.int32)


def _scattered(x: Any, indices: Any, updates: Any, mode: str = "add") -> Any:
    x = np.array(x)
    for place, part in zip(
        indices.reshape(-1, indices.shape[-1]), updates.reshape(-1, *x.shape[indices.shape[-1] :]), strict=True
    ):
        if all(0 <= p < size for p, size in zip(place, x.shape)):
            at = tuple(place)
            x[at] = {
                "add": lambda a, b: a + b,
                "set": lambda a, b: b,
                "mul": lambda a, b: a * b,
                "max": np.maximum,
                "min": np.minimum,
            }[mode](x[at], part)
    return x


for _mode in ("add", "set", "mul", "max", "min"):
    # jax has no gradient of a "mul" scatter with equal positions; the tape has.
    case(
        "scatter_nd",
        X,
        WHERE,
        _draw(4, 4, seed=20),
        mode=_mode,
        ref=_scattered,
        label=f"rows-{_mode}",
        tags={f"scatter-{_mode}"},
    )
    case(
        "scatter_nd",
        X,
        PAIRS,
        _draw(4, seed=21),
        mode=_mode,
        ref=_scattered,
        label=f"pairs-{_mode}",
        tags={f"scatter-{_mode}"},
    )
case("scatter", WHERE, _draw(4, 4, seed=20), shape=(3, 4), ref=lambda i, v, shape: _scattered(np.zeros(shape), i, v))
case("scatter_update", X, PAIRS, _draw(4, seed=21), ref=lambda x, i, u: _scattered(x, i, u, "set"))
case(
    "scatter_update",
    X,
    PAIRS,
    _draw(4, seed=21),
    reduction="max",
    ref=lambda x, i, u, reduction: _scattered(x, i, u, reduction),
)
EDGES = np.array([-1.0, 0.0, 0.5, 0.5, 2.0])
for _side in ("left", "right"):
    flat("searchsorted_in", EDGES, np.array([[0.5, -2.0], [2.0, 9.0]]), side=_side, ref=np.searchsorted, label=_side)
flat("searchsorted", EDGES, np.array([0.0, 0.6]), side="right")
flat("one_hot", np.array([[0, 2], [3, -1]], np.int32), num_classes=3, ref=keras_ops("one_hot"))
flat("one_hot", np.array([1, 2], np.int32), num_classes=3, axis=0, dtype="int32", ref=keras_ops("one_hot"))
for _i, _key in enumerate(
    [
        1,
        -1,
        slice(1, None),
        slice(None, None, -1),
        slice(3, None, -2),
        (slice(None), None, 2),
        (..., 0),
        (1, ..., slice(0, 2)),
        (0, 1, 2),
        None,
    ]
):
    case("get_item", CUBE, key=_key, ref=lambda x, key: x[key], label=f"key{_i}")
case("get_item", CUBE, key=(slice(None), np.array([2, 0, -1], np.int32)), ref=lambda x, key: x[key], label="array")
case(
    "get_item",
    CUBE,
    key=(np.array([1, 0], np.int32), np.array([2, -1], np.int32)),
    ref=lambda x, key: x[key],
    label="arrays",
)
case("get_item", CUBE, key=(1, np.array([[2, 0]], np.int32)), ref=lambda x, key: x[key], label="number-array")

# ---------------------------------------------------------------- contraction, convolution, windows

case("matmul", X, Y.T.copy())
case("matmul", CUBE, _draw(4, 2, seed=30))
case("matmul", CUBE, _draw(5, 1, 4, 2, seed=31))
case("matmul", X, ROW)
case("matmul", COLUMN[:, 0], X)
case("matmul", ROW, ROW * 2)
for _x, _kernel in ((X, Y.T.copy()), (CUBE, _draw(4, 2, seed=30)), (CUBE, _draw(5, 1, 4, 2, seed=31)), (ROW, Y.T.copy())):
    case("linear", _x, _kernel, _draw(_kernel.shape[-1], seed=37), ref=lambda x, kernel, bias: x @ kernel + bias)
case(
    "dot_general",
    CUBE,
    _draw(4, 2, 5, seed=32),
    contract=((2,), (0,)),
    batch=((0,), (1,)),
    ref=lambda x, y, contract, batch: np.einsum("bij,jbk->bik", x, y),
)
case(
    "dot_general",
    CUBE,
    _draw(4, 5, 3, seed=33),
    contract=((1, 2), (2, 0)),
    batch=((), ()),
    ref=lambda x, y, contract, batch: np.einsum("bij,jki->bk", x, y),
)
case("tensordot", CUBE, _draw(3, 4, 2, seed=34))
case("tensordot", CUBE, _draw(5, 3, seed=35), axes=((1,), (1,)))
case("dot", CUBE, _draw(5, 4, 2, seed=36))
case("dot", X, ROW)
case("dot", X, np.array(2.0))
case("inner", X, CUBE)
case("outer", COLUMN, ROW)
case("vdot", X, Y)
for _text, _operands in {
    "ij,jk->ik": (X, Y.T.copy()),
    "bij,bkj->bki": (CUBE, _draw(2, 5, 4, seed=37)),
    "...j,j->...": (CUBE, ROW),
    "ij->": (X,),
    "ij->ji": (X,),
    "i,j": (COLUMN[:, 0], ROW),
    "ij,ij,j->i": (X, Y, ROW),
}.items():
    case(
        "einsum_of",
        list(_operands),
        subscripts=_text,
        ref=lambda xs, subscripts: np.einsum(subscripts, *xs),
        label=_text,
    )


def _convolution(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    import jax

    with jax.enable_x64(True):
        space = "DHW"[-len(strides) :]
        numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=numbers, feature_group_count=groups
        )


def _pulled(which: int) -> Any:
    def run(a: Any, b: Any, shape: Any, **geometry: Any) -> Any:
        import jax

        g, other = (a, b) if which == 0 else (b, a)
        with jax.enable_x64(True):
            call = (
                (lambda v: _convolution(v, other, **geometry))
                if which == 0
                else (lambda v: _convolution(other, v, **geometry))
            )
            return np.asarray(jax.vjp(call, jax.numpy.zeros(shape, g.dtype))[1](jax.numpy.asarray(g))[0])

    return run


for _n, (_x, _kernel, _geometry) in enumerate(
    [
        ((2, 5, 2), (3, 2, 3), {"strides": (2,), "padding": ((1, 0),), "dilation": (1,), "groups": 1}),
        ((1, 5, 4, 2), (2, 2, 1, 4), {"strides": (1, 2), "padding": ((0, 1), (1, 1)), "dilation": (2, 1), "groups": 2}),
        ((2, 3, 2, 2), (2, 2, 2, 3), {"strides": (1, 1), "padding": ((0, 1), (1, 0)), "dilation": (1, 1), "groups": 1}),
        ((1, 3, 2, 3), (1, 1, 3, 7), {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}),
        ((0, 3, 3, 2), (2, 2, 2, 3), {"strides": (2, 1), "padding": ((0, 0), (1, 0)), "dilation": (1, 1), "groups": 1}),
    ]
):
    _image, _window = _draw(*_x, seed=40), _draw(*_kernel, seed=41)
    _out = _draw(*_convolution(_image, _window, **_geometry).shape, seed=42)
    case("convolution", _image, _window, **_geometry, ref=lambda x, k, **g: np.asarray(_convolution(x, k, **g)))
    case("convolution_input_gradient", _out, _window, shape=_x, **_geometry, ref=_pulled(0))
    case("convolution_kernel_gradient", _image, _out, shape=_kernel, **_geometry, ref=_pulled(1))


def _windows(x: Any, window: Any, strides: Any, padding: Any, fill: float) -> Any:
    """All windows of `(batch, *space, channels)`, as `(batch, *space, channels, *window)`."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    axes = tuple(range(1, x.ndim - 1))
    views = np.lib.stride_tricks.sliding_window_view(x, window, axes)
    return views[(slice(None), *(slice(None, None, s) for s in strides))]


def _window_reduce(reduce: Any, fill: float) -> Any:
    return lambda x, window, strides, padding: reduce(
        _windows(x, window, strides, padding, fill), axis=tuple(range(-len(window), 0))
    )


def _numbered(x: Any) -> Any:
    return np.arange(1.0, x.size + 1).reshape(x.shape)


def _max_places(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    views = _windows(x, window, strides, padding, -np.inf)
    places = _windows(_numbered(x), window, strides, padding, 0)
    shape = (*views.shape[: -len(window)], -1)
    best = views.reshape(shape).argmax(-1)
    return np.take_along_axis(places.reshape(shape), best[..., None], -1)[..., 0].astype(int) - 1


def _window_max_gradient(x: Any, g: Any, **geometry: Any) -> Any:
    result = np.zeros(x.size)
    np.add.at(result, _max_places(x, **geometry), g)
    return result.reshape(x.shape)


def _window_sum_gradient(g: Any, shape: Any, **geometry: Any) -> Any:
    result = np.zeros(math.prod(shape) + 1)
    places = _windows(_numbered(np.zeros(shape)), **geometry, fill=0).astype(int)
    np.add.at(result, places, g.reshape(g.shape + (1,) * (places.ndim - g.ndim)) * np.ones(places.shape))
    return result[1:].reshape(shape)


for _shape, _geometry in (
    ((2, 5, 2), {"window": (2,), "strides": (2,), "padding": ((0, 1),)}),
    ((1, 4, 5, 2), {"window": (2, 3), "strides": (1, 2), "padding": ((1, 0), (0, 0))}),
):
    _image = _draw(*_shape, seed=50)
    case("window_sum", _image, **_geometry, ref=_window_reduce(np.sum, 0))
    case("window_max", _image, **_geometry, ref=_window_reduce(np.max, -np.inf))
    _out = _draw(*_window_reduce(np.sum, 0)(_image, **_geometry).shape, seed=51)
    case("window_sum_gradient", _out, shape=_shape, **_geometry, ref=_window_sum_gradient)
    case("window_max_gradient", _image, _out, **_geometry, ref=_window_max_gradient)
    case(
        "window_max_take",
        _image,
        _image * 2 + 1,
        **_geometry,
        ref=lambda x, values, **geometry: values.reshape(-1)[_max_places(x, **geometry)],
    )

# ---------------------------------------------------------------- numeric: the everyday functions

for _name in ["square", "exp2", "cbrt", "rad2deg", "deg2rad", "sinc"]:
    case(_name, X)
case("cbrt", np.array([-27.0, -8.0, 64.0]), grad=False)
case("sinc", np.array([0.0, 1e-5, 0.5, -1.0]), second=False)
for _name in ["log2", "log10"]:
    case(_name, POSITIVE)
case("reciprocal", POSITIVE)
case("clip", X, -1.0, 0.7)
case("clip", X, COLUMN - 1, None)
flat("clip", INTS, None, 4)
case("round", X, decimals=1)
flat("round", INTS * 7, decimals=-1, ref=lambda x, decimals: np.round(x / 10.0) * 10)
flat("round", np.array([0.5, 1.5, -2.5, 3.7]))
case("trunc", X * 3)
flat("trunc", INTS)
case("fabs", X)
flat("nan_to_num", SPECIAL, nan=1.0, posinf=7.0, neginf=-7.0)
flat("nan_to_num", SPECIAL)
case("nan_to_num", X)
for _name in ["isposinf", "isneginf", "signbit"]:
    flat(_name, SPECIAL)
flat("signbit", INTS)
case("erfc", X, ref=scipy.special.erfc)
flat("erfc", np.array([-9.0, 0.0, 0.4, 0.6, 3.9, 4.1, 6.0, 9.0]), ref=scipy.special.erfc, atol=0.0, rtol=2e-5)
flat("saturate_cast", np.array([-3.0, 300.0, 7.6]), dtype="uint8", ref=keras_ops("saturate_cast"))
flat(
    "saturate_cast",
    np.array([-3e9, 3e9, 7.6]),
    dtype="int32",
    ref=lambda x, dtype: np.clip(x.astype(np.float64), -(2**31), 2**31 - 1).astype(np.int32),
)
flat("saturate_cast", INTS * 100, dtype="int8", ref=keras_ops("saturate_cast"))
case("logaddexp", X, Y)
case("logaddexp", X, X, label="ties")
flat("logaddexp", np.array([np.inf, -np.inf, 300.0, 0.0]), np.array([np.inf, -np.inf, -300.0, -20.0]), rtol=1e-5)
case("logaddexp2", X, Y)
case(
    "divide_no_nan",
    X,
    np.where(BOOLS, Y, 0.0),
    ref=lambda a, b: np.where(b == 0, 0, a / np.where(b == 0, 1, b)),
    grad=False,
)
case("divide_no_nan", X, POSITIVE, ref=np.divide)
for _name in ["fmax", "fmin"]:
    case(_name, X, Y)
    flat(_name, HOLES, np.where(MORE, Y, np.nan), label="nan")
case("fmod", X * 3, Y)
flat("fmod", INTS, OTHERS)
case("hypot", X, Y)
flat("hypot", np.array([3e25, 0.0, np.inf, np.nan]), np.array([4e25, 0.0, np.nan, 1.0]))
case("heaviside", X, Y)
flat("heaviside", SPECIAL, 0.5 * np.ones(6))
flat("ldexp", X, OTHERS)
flat("isclose", np.array([1.0, 2.0, np.inf, np.nan]), np.array([1.0 + 1e-6, 2.1, np.inf, np.nan]))
flat("allclose", X, X + 1e-9)
flat("allclose", X, Y)
flat("isin", INTS, np.array([3, -5, 9], np.int32))
flat("isin", INTS, np.array([3, -5, 9], np.int32), invert=True)
case("select", [X < -1, X > 1], [X * 2, Y], 0.5, ref=np.select)
flat("select", [INTS < 0, INTS > 5], [INTS, OTHERS], -1, ref=np.select)
case("kron", X, SQUARE)
case("kron", ROW, X)
case("cross", SQUARE, _draw(3, 3, seed=60))
case("cross", SQUARE, _draw(3, 3, seed=60), axis=0)
case("cross", _draw(4, 2, seed=61), _draw(4, 3, seed=62), ref=keras_ops("cross"))
case("cross", _draw(4, 2, seed=61), _draw(4, 2, seed=63), ref=keras_ops("cross"))
case("cdist", X, _draw(2, 4, seed=64), ref=keras_ops("cdist"))
case("average", X)
case("average", X, None, POSITIVE, ref=lambda x, axis, weights: np.average(x, axis, weights))
case("average", X, 1, ROW, ref=lambda x, axis, weights: np.average(x, axis, weights))
case("ptp", X, axis=1)
case("ptp", CUBE, axis=(0, 2), keepdims=True)
case("quantile", X, 0.3)
case("quantile", CUBE, np.array([0.1, 0.75]), axis=(0, 2), keepdims=True, tags={"first-only"})
for _method in ("lower", "higher", "nearest", "midpoint"):
    case("quantile", X, 0.4, axis=1, method=_method, label=_method)
flat("quantile", HOLES, 0.5, axis=1, label="nan")
case("percentile", X, 30.0, axis=0)
case("median", X, axis=1)
case("median", VECTOR, keepdims=True)
for _name in ["nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin"]:
    flat(_name, HOLES, axis=1)
    case(_name, X, axis=0)
case("norm", X, ref=np.linalg.norm)
for _ord in (1, 2, 3, 0, np.inf, -np.inf):
    case("norm", X, ord=_ord, axis=1, ref=np.linalg.norm, label=f"vector{_ord}")
for _ord in ("fro", 1, -1, np.inf, -np.inf):
    case("norm", CUBE, ord=_ord, axis=(0, 2), keepdims=True, ref=np.linalg.norm, label=f"matrix{_ord}")
case("trapezoid", CUBE, dx=0.5, axis=1)
case("trapezoid", X, np.cumsum(POSITIVE, 1))
for _name in ["tril", "triu"]:
    case(_name, X)
    case(_name, CUBE, k=-1)
    case(_name, CUBE, k=2)
case("diag", ROW)
case("diag", ROW, k=2)
case("diag", ROW, k=-1)
case("diag", X, k=1)
case("diagflat", X[:2, :2].copy(), k=1)
case("diagonal", CUBE)
case("diagonal", CUBE, offset=-1, axis1=2, axis2=1)
flat("diagonal", X, offset=4, label="none")
case("trace", CUBE, offset=1, axis1=1, axis2=2)
case("vander", VECTOR)
case("vander", VECTOR, N=3, increasing=True)
case("append", X, Y)
case("append", X, COLUMN, axis=1)
case("hstack", [X, Y])
case("hstack", [ROW, VECTOR])
case("vstack", [ROW, X])
case("dstack", [X, Y])
case("dstack", [ROW, ROW * 2])
case("array_split", VECTOR, indices_or_sections=3)
case("hsplit", X, indices_or_sections=2)
case("vsplit", X, indices_or_sections=[1])
case("dsplit", CUBE, indices_or_sections=2)
case("fliplr", X)
case("flipud", X)
for _k in (1, 2, 3, 4):
    case("rot90", CUBE, k=_k, axes=(0, 2))
case("diff", CUBE, n=2)
case("diff", CUBE, axis=1)
flat("diff", BOOLS, axis=0)
case("grid_of", [ROW, VECTOR], ref=lambda xs: np.meshgrid(*xs))
case(
    "grid_of", [ROW, VECTOR, COLUMN[:, 0]], indexing="ij", ref=lambda xs, indexing: np.meshgrid(*xs, indexing=indexing)
)
flat("digitize", X, np.array([-1.0, 0.0, 1.0]))
flat("digitize", X, np.array([1.0, 0.0, -1.0]))
NUMBERS = np.array([1, 3, 1, 0, 3, 3], np.int32)
flat("bincount_of", NUMBERS, length=5, ref=lambda x, length: np.bincount(x, minlength=length))
case(
    "bincount_of",
    NUMBERS,
    POSITIVE.reshape(-1)[:6].copy(),
    length=4,
    ref=lambda x, w, length: np.bincount(x, w, length),
)
flat(
    "bincount_of",
    NUMBERS.reshape(2, 3),
    length=4,
    ref=lambda x, length: np.stack([np.bincount(r, minlength=length) for r in x]),
)
IDS = np.array([2, 0, 2, 7], np.int32)
for _name, _mode, _start in (
    ("sum", "add", 0.0),
    ("prod", "mul", 1.0),
    ("max", "max", -np.inf),
    ("min", "min", np.inf),
):
    case(
        f"segment_{_name}",
        _draw(4, 2, seed=70),
        IDS % 3,
        num_segments=3,
        second=_name != "prod",
        tags={f"scatter-{_mode}"},
        ref=lambda x, i, num_segments, mode=_mode, start=_start: _scattered(
            np.full((num_segments, 2), start), i[:, None], x, mode
        ),
    )
    flat(
        f"segment_{_name}",
        _draw(4, 2, seed=70),
        IDS,
        num_segments=4,
        label="empty",
        ref=lambda x, i, num_segments, mode=_mode, start=_start: _scattered(
            np.full((num_segments, 2), start), i[:, None], x, mode
        ),
    )
flat("in_top_k", np.array([1, 3, 0], np.int32), X, k=2, ref=keras_ops("in_top_k"))
flat("unravel_index", np.array([5, 11, 0], np.int32), shape=(3, 4))

# ---------------------------------------------------------------- recurrences, normalisation by the batch


def _recurrent(x: Any, kernel: Any, recurrent: Any, state: Any, *more: Any, reverse: bool, sequences: bool) -> Any:
    """`lstm` and `gru` step by step; which of them, the shape of the kernel tells."""
    is_lstm, sigmoid = kernel.shape[1] == 4 * len(recurrent), scipy.special.expit
    carry, more = (more[0], more[1:]) if is_lstm else (None, more)
    bias = more[0] if more else np.zeros((2, kernel.shape[1]))
    given, kept = (bias, 0) if is_lstm and more else bias
    states = []
    for row in x[::-1] if reverse else x:
        a, b = row @ kernel + given, state @ recurrent + kept
        if is_lstm:
            i, f, g, o = np.split(a + b, 4, -1)
            carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(carry)
        else:
            (x_z, x_r, x_h), (h_z, h_r, h_h) = np.split(a, 3, -1), np.split(b, 3, -1)
            z = sigmoid(x_z + h_z)
            state = z * state + (1 - z) * np.tanh(x_h + sigmoid(x_r + h_r) * h_h)
        states.append(state)
    states = np.stack(states[::-1] if reverse else states)
    return (states if sequences else state, state, *([carry] if is_lstm else []))


for _rows in (2, 9):  # few rows and many: engines may project the inputs of all steps at once, or of each
    _steps, _first = _draw(3, _rows, 3, seed=80), _draw(_rows, 2, low=-1, high=1, seed=81)
    for _name, _gates, _states, _bias in (("lstm", 4, 2, (8,)), ("gru", 3, 1, (2, 6))):
        _weights = [_draw(3, 2 * _gates, low=-1, high=1, seed=82), _draw(2, 2 * _gates, low=-1, high=1, seed=83)]
        _given = [_steps, *_weights, *([_first, _first / 2][:_states])]
        for _reverse, _sequences, _biased in ((False, False, True), (True, True, True), (False, True, False)):
            case(
                _name,
                *_given,
                *([_draw(*_bias, low=-1, high=1, seed=84)] if _biased else []),
                ref=_recurrent,
                reverse=_reverse,
                sequences=_sequences,
            )


def _by_batch(x: Any, axis: int, offset: Any = 0.0, scale: Any = 1.0, epsilon: float = 1e-3) -> Any:
    x = np.moveaxis(x, axis, -1)
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    return np.moveaxis((x - mean) / np.sqrt(variance + epsilon) * scale + offset, -1, axis), mean, variance


# Nothing flows back through the statistics, which finite differences cannot know: tests/engines/test_own_kernels.py
for _shape, _axis in (((5, 3), -1), ((4, 2, 3), 2), ((2, 3, 2, 3), -1), ((2, 3, 2, 2), 1)):
    _offset, _scale = _draw(3, seed=85), _draw(3, low=0.5, high=2, seed=86)
    flat("normalization_by_batch", _draw(*_shape, seed=87), _axis, _offset, _scale, epsilon=1e-2, ref=_by_batch)
    flat("normalization_by_batch", _draw(*_shape, seed=88), _axis, ref=_by_batch)

# ---------------------------------------------------------------- updates


def _adam(value: Any, gradient: Any, mean: Any, square: Any, alpha: Any, beta_1: Any, beta_2: Any, epsilon: Any) -> Any:
    mean = beta_1 * mean + (1 - beta_1) * gradient
    square = beta_2 * square + (1 - beta_2) * gradient**2
    return value - alpha * mean / (np.sqrt(square) + epsilon), mean, square


for _shape in ((3, 4), (5,), (1,)):
    case(
        "adam_update",
        *(_draw(*_shape, seed=90 + i) for i in range(3)),
        _draw(*_shape, low=0.5, high=2, seed=93),
        np.array(0.01),
        beta_1=0.9,
        beta_2=0.99,
        epsilon=1e-4,
        ref=_adam,
    )

# Ops whose records are in files of their own: random numbers and loops.
COVERED_ELSEWHERE = {
    "cornu.graph.masks": "tests/graph/test_masks.py",
    "cornu.layers._remat": "tests/promises/test_rematerialisation.py",
    "cornu.ops.random": "tests/ops/test_random_ops.py",
    "cornu.ops.control": "tests/ops/test_control.py",
    "cornu.ops.nn": "tests/ops/test_nn.py",
}
