"""Several steps handed to the engine at once: the same numbers, the same guard, callbacks told at the ends of groups."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, callbacks, layers
from cornu.core.errors import NonFiniteError

X = np.random.default_rng(0).normal(size=(32 * 9 + 5, 6)).astype("float32")
Y = X[:, :2] * 2


def network(together):
    cornu.utils.set_random_seed(0)
    x = Input((6,))
    y = layers.BatchNormalization()(layers.Dense(8, activation="relu")(x))
    model = Model(x, layers.Dense(2)(layers.Dropout(0.2)(y)))
    optimizer = cornu.optimizers.Adam(cornu.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9))
    model.compile(optimizer, "mse", metrics=["mae"], steps_per_execution=together)
    return model


def test_the_numbers_are_the_same(each_engine):
    found = []
    for together in (1, 4):
        model = network(together)
        history = model.fit(X, Y, batch_size=32, epochs=2, verbose=0, validation_data=(X[:40], Y[:40])).history
        found.append((history, model.get_weights(), int(model.optimizer.iterations.numpy())))
    (one, weights, count), (other, others, again) = found
    assert count == again == 20
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_callbacks_are_told_at_the_ends_of_groups():
    told = []
    note = callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: told.append(("begin", batch)),
        on_train_batch_end=lambda batch, logs: told.append(("end", batch)),
    )
    network(4).fit(X, Y, batch_size=32, verbose=0, callbacks=[note])
    # Nine whole batches and a ragged one: two groups of four, and two alone.
    assert told == [
        ("begin", 0),
        ("end", 3),
        ("begin", 4),
        ("end", 7),
        ("begin", 8),
        ("end", 8),
        ("begin", 9),
        ("end", 9),
    ]
    told.clear()
    network(4).fit(X, Y, batch_size=32, steps_per_epoch=6, verbose=0, callbacks=[note])
    assert told[-1] == ("end", 5)


@pytest.mark.parametrize("together", [1, 4])
def test_the_guard_names_the_step(together):
    bad = X.copy()
    bad[32 * 6 + 1] = np.nan
    model = network(together)
    with pytest.raises(NonFiniteError, match="at step 6: first in the data: x"):
        model.fit(bad, Y, batch_size=32, shuffle=False, verbose=0)
    good = network(1)
    good.fit(X[: 32 * 6], Y[: 32 * 6], batch_size=32, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), good.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_sample_weights_go_through():
    weight = np.linspace(0.1, 1, len(X)).astype("float32")
    found = [network(k).fit(X, Y, sample_weight=weight, verbose=0, batch_size=16).history["loss"] for k in (1, 3)]
    np.testing.assert_allclose(*found, rtol=1e-5)
