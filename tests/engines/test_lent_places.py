"""Training on PyTorch begins in the memory of the variables' own arrays, and writes to none of them."""

import gc

import numpy as np
import pytest

import cornu
from cornu import layers

torch = pytest.importorskip("torch")

from cornu.engines.torch import arrays, tracing  # noqa: E402
from cornu.training.state import State  # noqa: E402

ENGINE = cornu.engines.get("torch")
SIZE = arrays._LARGE  # numbers: more bytes than an array that is lent must have


@pytest.fixture(autouse=True)
def on_a_cpu():
    with torch.device("cpu"):
        yield


def large(value):
    return np.full(SIZE, value, "float32")


def test_large_arrays_are_lent_and_forgotten():
    array = large(1)
    place = ENGINE.place_host(array)
    assert np.shares_memory(place.numpy(), array) and id(place) in arrays._lent
    for other in (np.ones(3, "float32"), np.asfortranarray(np.ones((600, 600), "float32"))[:, ::2], large(1)[::-1]):
        assert not np.shares_memory(ENGINE.place_host(other).numpy(), other)
    fixed = large(1)
    fixed.flags.writeable = False
    assert not np.shares_memory(ENGINE.place_host(fixed).numpy(), fixed)
    del place
    gc.collect()
    assert not arrays._lent


def test_what_writes_in_place_leaves_lent_memory_first():
    def step(state, gradient):
        moved = cornu.ops.negative(cornu.ops.exp(cornu.ops.multiply(state[0], gradient)))
        return [moved, state[1]]

    compiled = ENGINE.compile(step, donate=True)
    lent = [large(0.5), large(2)]
    gradient = torch.full((SIZE,), 0.1)
    wanted = -np.exp(0.05)
    for _ in range(5):  # op by op, then traced; a state that begins anew lends again
        found = compiled([ENGINE.place_host(array) for array in lent], gradient)
        np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-6)
        np.testing.assert_array_equal(found[1].numpy(), 2)
    assert isinstance(next(iter(compiled._made.values()))[0].run, tracing.Traced)
    assert not np.shares_memory(found[1].numpy(), lent[1])  # its place may be written to next
    np.testing.assert_array_equal(lent[0], 0.5)
    np.testing.assert_array_equal(lent[1], 2)


def test_the_way_back_is_untouched():
    """The state as it was taken over is what training goes back to, from traced steps too."""
    cornu.utils.set_random_seed(0)
    with cornu.engine("torch"):
        made = cornu.Sequential([cornu.Input((512,)), layers.Dense(512), layers.Dense(1)])
        made.compile(optimizer="adam", loss="mse")
        x, y = np.random.default_rng(0).normal(size=(2, 512)).astype("float32"), np.ones((2, 1), "float32")
        made.fit(x, y, epochs=4, verbose=0)
        kept = made.get_weights()
        made.set_weights(kept)  # host arrays again, which the next steps, traced already, take over
        assert type(made.layers[0].kernel.stored()) is np.ndarray
        bad = y.copy()
        bad[0] = np.nan
        with pytest.raises(cornu.errors.NonFiniteError):
            made.fit(x, bad, verbose=0)
        for before, after in zip(kept, made.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)


def test_the_state_takes_over_arrays_without_copying():
    variable = cornu.Variable(large(3))
    held = variable.stored()
    with State([variable], ENGINE, reused=True).held() as state:
        assert np.shares_memory(state.values[0].numpy(), held)
    np.testing.assert_array_equal(variable.numpy(), 3)
