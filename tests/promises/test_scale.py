"""Promise: a model may be 10,000 layers deep or wide; building it costs the same per layer, and nothing recurses."""

import gc
import sys
import time

import numpy as np
import pytest

import cornu
from cornu import layers

DEEP = 10_000


class PlusOne(layers.Layer):
    """Adds one."""

    def call(self, x):
        return x + 1.0


@pytest.fixture
def shallow_stack():
    """A stack of calls with little room: whatever recursed over the layers would fail."""
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 250)
    yield
    sys.setrecursionlimit(limit)


def chain(count, shared=None):
    x = cornu.Input((2,))
    y = x
    for _ in range(count):
        y = (shared or PlusOne())(y)
    return cornu.Model(x, y)


def fan(count):
    x = cornu.Input((2,))
    return cornu.Model(x, layers.Add()([PlusOne()(x) for _ in range(count)]))


def ops_chain(count):
    x = cornu.Input((2,))
    y = x
    for _ in range(count):
        y = y + 1.0
    return cornu.Model(x, y)


ONES = np.ones((3, 2), "float32")


@pytest.mark.parametrize(
    ("make", "wanted"), [(chain, 1.0 + DEEP), (fan, 2.0 * DEEP), (ops_chain, 1.0 + DEEP)], ids=["deep", "wide", "ops"]
)
def test_ten_thousand_layers(make, wanted, shallow_stack):
    with cornu.engine("numpy"):
        model = make(DEEP)
        np.testing.assert_allclose(model(ONES), wanted * ONES)
        assert len(model.operations) >= DEEP and model.weights == []


def test_files_and_cuts_of_many(shallow_stack):
    model = chain(3000)
    again = cornu.Model.from_config(model.get_config())
    assert len(again.operations) == len(model.operations)
    half = cornu.Model(model.input, model.get_tensor(list(model.tensors())[1500]))
    assert len(half.operations) == 1501


def test_sequential_and_clone_of_many(shallow_stack):
    with cornu.engine("numpy"):
        model = cornu.Sequential([cornu.Input((2,))])
        for _ in range(2000):
            model.add(PlusOne())
        np.testing.assert_allclose(cornu.models.clone_model(model)(ONES), 2001 * ONES)
        shared = chain(2000, PlusOne())
        np.testing.assert_allclose(cornu.models.clone_model(shared)(ONES), 2001 * ONES)
        assert list(shared.tensors())[-1].endswith("@1999")


def test_a_thousand_layers_compiled():
    model = chain(1000)
    np.testing.assert_allclose(model.predict(ONES, engine="jax", verbose=0), 1001 * ONES)


@pytest.mark.parametrize("make", [chain, fan, ops_chain])
def test_building_costs_the_same_per_layer(make):
    def cost(count):
        gc.collect()
        gc.disable()  # a full collection falls where it will
        begun = time.process_time()
        make(count)
        spent = (time.process_time() - begun) / count
        gc.enable()
        return spent

    cost(200)
    gc.freeze()  # what other tests have left is not collected again and again
    small, large = min(cost(500) for _ in range(3)), min(cost(4000) for _ in range(2))
    gc.unfreeze()
    assert large < 2.5 * small, (small, large)
