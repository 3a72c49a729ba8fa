"""PyTorch's traces pool before ReLU: the same numbers, and only where nobody else reads what ReLU gave."""

import numpy as np
import pytest

import cornu
from cornu import ops

torch = pytest.importorskip("torch")

from torch_traces import ENGINE, named, nodes_of, with_gradients  # noqa: E402

from cornu.engines.torch import tracing  # noqa: E402

rng = np.random.default_rng(0)


def ties(*shape):
    """Numbers many of which are equal, about zero."""
    return rng.integers(-2, 3, shape).astype("float32")


X, KERNEL = ties(2, 8, 8, 3), ties(3, 3, 3, 4)
CUBES, CUBE = ties(2, 6, 6, 6, 2), ties(2, 2, 2, 2, 3)


def cut(x, kernel):
    return ops.relu(ops.conv(x, kernel, padding="same"))


def pooled(size, **given):
    return lambda x, kernel: ops.max_pool(cut(x, kernel), size, **given)


# name -> (function of a picture and a kernel, the two, ReLUs that stay before a pooling in a trace with gradients)
CASES = {
    "windows side by side": (pooled(2), (X, KERNEL), 0),
    "windows that overlap": (pooled(3, strides=2), (X, KERNEL), 0),
    "windows with gaps": (pooled(2, strides=3), (X, KERNEL), 0),
    "channels first": (
        lambda x, kernel: ops.max_pool(ops.transpose(cut(x, kernel), (0, 3, 1, 2)), 2, data_format="channels_first"),
        (X, KERNEL), 0,
    ),
    "cubes": (pooled(2), (CUBES, CUBE), 0),
    "twice": (lambda x, kernel: ops.max_pool(ops.relu(ops.max_pool(cut(x, kernel), 2)), 2), (X, KERNEL), 0),
    "padding between them": (pooled(3, strides=2, padding="same"), (X, KERNEL), 1),
    "another who reads": (lambda x, kernel: ops.sum(ops.max_pool(h := cut(x, kernel), 2)) + ops.sin(h), (X, KERNEL), 1),
    "two poolings": (lambda x, kernel: ops.max_pool(h := cut(x, kernel), 2)[:, :3, :3] + ops.max_pool(h, 3, 2), (X, KERNEL), 1),
    "another activation": (lambda x, kernel: ops.max_pool(ops.relu6(ops.conv(x, kernel)), 2), (X, KERNEL), 0),
}  # fmt: skip


def before_poolings(nodes):
    """How many ReLUs cut all that a convolution gave."""
    (convolved,) = named(nodes, "aten.convolution.default")
    return sum(node.meta["val"].numel() == convolved.meta["val"].numel() for node in named(nodes, "relu"))


@pytest.mark.parametrize("case", CASES)
def test_numbers_and_gradients_are_those_of_op_by_op(case):
    function, arrays, _ = CASES[case]
    with torch.device("cpu"), cornu.engine("torch"):
        values = [ENGINE.from_host(array) for array in arrays]
        for run in (with_gradients(function), lambda given: [function(*given)]):
            wanted = [ops.convert_to_numpy(part) for part in run(values)]
            compiled = ENGINE.compile(run)
            for _ in range(4):
                found = [ops.convert_to_numpy(part) for part in compiled(values)]
            for a, b in zip(found, wanted, strict=True):
                assert np.abs(b).max() > 0
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_pooling_comes_first_where_nobody_else_reads(case):
    function, arrays, stay = CASES[case]
    with torch.device("cpu"), cornu.engine("torch"):
        values = [ENGINE.from_host(array) for array in arrays]
        nodes = nodes_of(with_gradients(function), values)
        assert (before_poolings(nodes) > 0) == (stay > 0)
        nodes = nodes_of(lambda given: [function(*given)], values)
        assert (before_poolings(nodes) > 0) == (stay > 0)
        if case == "windows side by side":
            relu, back = named(nodes, "relu")[0], named(nodes_of(with_gradients(function), values), "threshold")[0]
            assert relu.meta["val"].shape == (2, 4, 4, 4) == back.meta["val"].shape


def test_nan_goes_the_same_way():
    x = X.copy()
    x[0, 3, 3, 1] = np.nan
    run = with_gradients(lambda x: ops.max_pool(ops.relu(ops.multiply(x, 2)), 2))
    with torch.device("cpu"), cornu.engine("torch"):
        values = [ENGINE.from_host(x)]
        wanted = [ops.convert_to_numpy(part) for part in run(values)]
        compiled = ENGINE.compile(run)
        for _ in range(4):
            found = [ops.convert_to_numpy(part) for part in compiled(values)]
    assert np.isnan(wanted[0]).sum() == 1
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


# name -> (function of pictures, the shape of these, whether they are pooled by halves)
HALVES = {
    "two by two": (lambda x: ops.max_pool(x, 2), (8, 32, 32, 32), True),
    "after ReLU": (lambda x: ops.max_pool(ops.relu(x), 2), (8, 32, 32, 32), True),
    "not square": (lambda x: ops.max_pool(x, 2), (8, 16, 64, 32), True),
    "few": (lambda x: ops.max_pool(x, 2), (1, 32, 32, 32), False),
    "a row left over": (lambda x: ops.max_pool(x, 2), (8, 33, 32, 32), False),
    "padding before it": (lambda x: ops.max_pool(x, 2, padding="same"), (8, 32, 33, 32), True),
    "windows that overlap": (lambda x: ops.max_pool(x, 2, strides=1), (8, 32, 32, 32), False),
    "larger windows": (lambda x: ops.max_pool(x, 4), (8, 32, 32, 32), False),
    "channels first": (lambda x: ops.max_pool(x, 2, data_format="channels_first"), (8, 32, 32, 32), False),
}


@pytest.mark.parametrize("name", HALVES)
def test_large_pictures_are_pooled_by_halves_where_nobody_reads_places(name):
    function, shape, by_halves = HALVES[name]
    x = rng.normal(size=shape).astype("float32")
    x[0, 4, 5, 6], x[0, 9, 9, 9] = np.nan, -np.inf
    with torch.device("cpu"), cornu.engine("torch"):
        values = [ENGINE.from_host(x)]
        run = lambda given: [function(*given)]
        wanted = ops.convert_to_numpy(run(values)[0])
        found = tracing._traced(run, values, 0, False)(values)[0]
        assert bool(named(nodes_of(run, values), "maximum")) == by_halves
        assert not named(nodes_of(with_gradients(function), values), "maximum")
    assert np.isnan(wanted).sum() >= 1
    np.testing.assert_array_equal(found.numpy(), wanted)
