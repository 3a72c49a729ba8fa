"""Shapes with unknown sizes: what a Spec says with its unknowns replaced is what the op gives."""

import numpy as np
import pytest
from cases import CASES, cast_floats

import cornu
from cornu import ops
from cornu.core import context, dims, tree
from cornu.core.dims import BATCH, Dim
from cornu.core.errors import CornuError, ShapeError
from cornu.core.spec import Spec
from cornu.ops._declare import operator, to_spec
from cornu.ops._rules import constraints

T, U = Dim("time"), Dim("units")


def abstract(function, *args):
    """The Spec of a function, and the sizes that must prove equal."""
    noted = []
    token = constraints.set(noted)
    try:
        with context.abstract():
            return function(*args), noted
    finally:
        constraints.reset(token)


def unknown_sizes(args, static):
    """The arguments as Specs in which each size above 1 is an unknown named after its number."""
    values = {}

    def size(n):
        if n <= 1:
            return n
        values[f"n{n}"] = n
        return Dim(f"n{n}")

    def spec(value):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
            return Spec(tuple(map(size, value.shape)), to_spec(value).dtype)
        return value

    return tree.map_structure(spec, list(args)), values


# Ops that need a size to be a number, and say so.
NEEDS_NUMBERS = {
    "array_split",
    "convolution",
    "convolution_input_gradient",
    "convolution_kernel_gradient",
    "cross",
    "get_item",
    "gru",
    "lstm",
    "repeat",
    "unstack",
    "window_sum",
    "window_max",
}


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_unknown_sizes_come_out_right(case):
    args = cast_floats(case.args, np.float32)
    specs, values = unknown_sizes(args, case.static)
    if not values:
        return
    try:
        said, noted = abstract(lambda: operator(case.op)(*specs, **case.static))
    except CornuError:
        assert case.op in NEEDS_NUMBERS, case.name
        return
    with cornu.engine("numpy"):
        found = operator(case.op)(*args, **case.static)
    for spec, value in zip(tree.leaves(said), tree.leaves(found), strict=True):
        assert dims.evaluate(spec.shape, values) == value.shape, f"{case.name}: {spec!r}"
        assert spec.dtype == ops.dtype(value)
    for a, b, what in noted:
        assert dims.substitute(a, values) == dims.substitute(b, values), what


X = Spec((BATCH, T, 4), "float32")
FUNCTIONS = {
    "reshape with the sizes' own arithmetic": lambda x: ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] * 2, -1)),
    "reshape merges axes": lambda x: ops.reshape(x, (-1, 4)),
    "reshape and back": lambda x: ops.reshape(ops.reshape(x, (-1, 4)), (ops.shape(x)[0], -1, 4)),
    "last step": lambda x: x[:, -1],
    "all but the last": lambda x: x[:, :-1],
    "all but the first two": lambda x: x[:, 2:],
    "first two": lambda x: x[:, :2],
    "last three": lambda x: x[:, -3:],
    "every other": lambda x: x[:, ::2],
    "every third from one": lambda x: x[:, 1::3],
    "inner": lambda x: x[:, 1:-1],
    "backwards": lambda x: x[:, ::-1],
    "half": lambda x: x[:, : ops.shape(x)[1] // 2],
    "second half": lambda x: x[:, ops.shape(x)[1] // 2 :],
    "new axis": lambda x: x[:, None, :, 0],
    "joined with itself": lambda x: ops.concatenate([x, x[:, :1]], axis=1),
    "neighbours": lambda x: x[:, 1:] - x[:, :-1],
    "positions": lambda x: x + ops.cast(ops.expand_dims(ops.arange(ops.shape(x)[1]), -1), "float32"),
    "causal mask": lambda x: ops.tril(ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
    "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "mean over time": lambda x: ops.mean(x, axis=1),
    "variance over all": lambda x: ops.var(x),
    "median over time": lambda x: ops.median(x, axis=1),
    "padded": lambda x: ops.pad(x, ((0, 0), (2, 1), (0, 0))),
    "tiled": lambda x: ops.tile(x, (1, 2, 1)),
    "repeated": lambda x: ops.repeat(x, 3, axis=1),
    "rolled": lambda x: ops.roll(x, 1, axis=1),
    "sums": lambda x: ops.cumsum(x, axis=1),
    "flattened sums": lambda x: ops.cumsum(x),
    "zeros": lambda x: ops.zeros((ops.shape(x)[1], ops.shape(x)[0])),
    "einsum": lambda x: ops.einsum("btc,bsc->bts", x, x),
    "two mirrors": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect"),
    "scan over time": lambda x: ops.scan(lambda s, v: (s + v, s * 2), x[:, 0], ops.transpose(x, (1, 0, 2)))[1],
    "kron": lambda x: ops.kron(x[0], x[0]),
    "split": lambda x: ops.split(ops.concatenate([x, x], axis=1), 2, axis=1)[1],
    "segments": lambda x: ops.segment_sum(x[0], ops.mod(ops.arange(ops.shape(x)[1]), 3), 3),
    "triangle": lambda x: ops.tri(ops.shape(x)[1], ops.shape(x)[0]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_unknown_sizes(name):
    function = FUNCTIONS[name]
    said, noted = abstract(function, X)
    for batch, time in ((2, 5), (1, 4), (3, 8), (4, 4)):
        values = {"batch": batch, "time": time}
        data = np.arange(batch * time * 4, dtype="float32").reshape(batch, time, 4)
        with cornu.engine("numpy"):
            found = function(_Array(data))
        assert dims.evaluate(said.shape, values) == found.shape, f"{name}: {said!r} with {values}"
        assert said.dtype == found.dtype.name
        for a, b, what in noted:
            assert dims.substitute(a, values) == dims.substitute(b, values), what


def _Array(data):
    return data


@pytest.mark.parametrize("time", range(5))
def test_slices_of_short_axes(time):
    bounds = (None, 0, 1, 2, 3, -1, -2, -3)
    for start in bounds:
        for stop in bounds:
            for step in (None, 1, 2, 3):
                key = (slice(None), slice(start, stop, step))
                said, _ = abstract(lambda key=key: ops.get_item(Spec((2, T), "float32"), key))
                wanted = np.zeros((2, time))[key].shape
                assert dims.evaluate(said.shape, {"time": time}) == wanted, (key, time, said)


def test_sizes_must_agree():
    assert abstract(lambda: ops.add(Spec((BATCH, T), "float32"), Spec((T,), "float32")))[0].shape == (BATCH, T)
    with pytest.raises(ShapeError, match="do not broadcast"):
        ops.add(Spec((3,), "float32"), Spec((4,), "float32"))
    with pytest.raises(ShapeError, match="inner sizes"):
        ops.matmul(Spec((BATCH, 3), "float32"), Spec((4, 2), "float32"))
    _, noted = abstract(lambda: ops.matmul(Spec((BATCH, T), "float32"), Spec((U, 2), "float32")))
    assert [(a, b) for a, b, _ in noted] == [(T, U)]
    with pytest.raises(ShapeError, match="cannot be reshaped"):
        ops.reshape(Spec((3, 4), "float32"), (5, -1))


def test_values_are_refused_while_shapes_are_inferred():
    with pytest.raises(CornuError, match="no value"):
        bool(ops.sum(Spec((2,), "float32")) > 0)
    with pytest.raises(CornuError):
        ops.nonzero(Spec((2,), "float32"))
    with pytest.raises(CornuError):
        ops.unique(Spec((2,), "float32"))
    with pytest.raises(CornuError, match="minlength"):
        ops.bincount(Spec((2,), "int32"))
    assert ops.bincount(Spec((2,), "int32"), minlength=4).shape == (4,)
