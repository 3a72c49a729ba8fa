"""Looks that are not waited for: an engine that goes on by itself is asked, and answers when the next look is due."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, callbacks, layers
from cornu.core.errors import NonFiniteError
from cornu.training import loop
from cornu.training.window import Window

LOOK, STEPS, ROWS = 4, 22, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(STEPS, ROWS, 6)).astype("float32")
Y = X[:, :, :2] * 2


@pytest.fixture(autouse=True)
def goes_on(monkeypatch):
    """JAX, with looks after every few steps."""
    monkeypatch.setattr(loop, "FIRST", LOOK)
    with cornu.engine("jax"):
        yield


@pytest.fixture
def looks(monkeypatch):
    """The windows that were followed by another without a look, in their order."""
    found = []
    followed = Window.followed

    def counted(self, *given):
        following = followed(self, *given)
        if following is not None:
            following.most = LOOK
            found.append(self)
        return following

    monkeypatch.setattr(Window, "followed", counted)
    return found


def network(width=512, optimizer="adam", between=None, **options):
    """A model whose variables are large enough to be copied by JAX itself."""
    cornu.utils.set_random_seed(0)
    x = Input((6,))
    hidden = layers.Dropout(0.2)(layers.Dense(width, activation="relu")(x))
    hidden = layers.Dense(width, activation="relu")(hidden)
    hidden = hidden if between is None else between(hidden)
    model = Model(x, layers.Dense(2)(hidden))
    model.compile(optimizer, "mse", **options)
    return model


def batches(bad=None, steps=STEPS):
    for i in range(steps):
        yield X[i], (np.full_like(Y[i], np.inf) if i == bad else Y[i])


def equal(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [0, 3, 4, 7, 8, 14, 21])
def test_the_way_back_leads_over_two_looks(looks, bad):
    """Whatever window the bad step was in: the weights are those before it, bit by bit."""
    expected = network()
    expected.fit(batches(steps=max(bad, 1)), verbose=0)
    model = network()
    start = model.get_weights()
    with pytest.raises(NonFiniteError, match=f"at step {bad}: .*the data: y holds"):
        model.fit(batches(bad), verbose=0)
    assert looks
    if bad:
        equal(model, expected)
    else:
        for found, before in zip(model.get_weights(), start, strict=True):
            np.testing.assert_array_equal(found, before)
    assert int(model.optimizer.iterations) == bad


def test_nothing_changes_where_all_is_good(looks):
    guarded, free = network(), network(stop_on_nonfinite=False)
    histories = [model.fit(batches(), verbose=0).history for model in (guarded, free)]
    assert histories[0] == histories[1]
    assert len(looks) == STEPS // LOOK
    equal(guarded, free)


def test_an_answer_is_read_when_the_next_look_is_due(monkeypatch):
    """Nobody waits in between: steps go on to be asked for. (JAX itself waits for steps that call Python.)"""
    told = []

    def telling(owner, name, word):
        method = getattr(owner, name)

        def wrapped(self, *given):
            told.append(word)
            return method(self, *given)

        monkeypatch.setattr(owner, name, wrapped)

    telling(loop.Runner, "_train", "step")
    telling(Window, "followed", "asked")
    telling(Window, "was_good", "read")
    telling(loop.Runner, "_is_good", "waited")
    monkeypatch.setattr(Window, "grown", lambda self: self.most)
    network().fit(batches(steps=2 * LOOK + 1), verbose=0)
    steps = ["step"] * LOOK
    assert told == [*steps, "asked", *steps, "read", "asked", "step", "read", "waited"]


@pytest.mark.parametrize("bad", [5, 9, 13])
def test_what_was_written_between_is_written_again(looks, bad):
    """A rate, which is kept, and weights, for which the guard looks at once."""

    class Writing(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch in (2, LOOK - 1, LOOK, 2 * LOOK - 1, 10):
                self.model.optimizer.learning_rate.assign(0.001 * (batch + 1))
            if batch == 8:
                large = self.model.trainable_variables[2]
                large.assign(large.numpy() * 0.5)

    expected, model = network(), network()
    expected.fit(batches(steps=bad), verbose=0, callbacks=[Writing()])
    with pytest.raises(NonFiniteError, match=f"at step {bad}"):
        model.fit(batches(bad), verbose=0, callbacks=[Writing()])
    assert looks
    equal(model, expected)
    assert float(model.optimizer.learning_rate) == float(expected.optimizer.learning_rate)


def test_weights_alone_may_be_bad(looks):
    """A loss that stays finite says nothing of a weight that nobody reads any more."""

    class Spoiled(layers.Layer):
        def build(self, shape):
            self.large = self.add_weight(shape=(256, 256), initializer="zeros")
            self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x, training=False):
            if training:
                self.steps.assign_add(1.0)
                self.large.assign(cornu.ops.where(self.steps == 6.0, np.inf, self.large + 0.0))
            return x

    model = network(between=Spoiled(name="spoiled"), optimizer="sgd")
    with pytest.raises(NonFiniteError, match="at step 5"):
        model.fit(batches(), verbose=0)
    assert looks
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert float(model.get_layer("spoiled").steps.numpy()) == 5.0


def test_variables_that_join_late(looks):
    """Variables that steps of another shape meet, after a look, become part of both windows."""

    class Growing(layers.Layer):
        extra = None

        def call(self, x):
            if x.shape[0] == 5:
                if self.extra is None:
                    self.extra = cornu.Variable(np.zeros((256, 256), "float32"), trainable=False)
                self.extra.assign_add(np.ones((256, 256), "float32"))
            return x

    def growing():
        for i, (x, y) in enumerate(batches(bad=9)):
            yield (x, y) if i < 6 else (x[:5], y[:5])

    layer = Growing()
    with pytest.raises(NonFiniteError, match="at step 9"):
        network(between=layer).fit(growing(), verbose=0)
    assert looks
    assert (layer.extra.numpy() == 3.0).all()


def test_two_windows_keep_as_many_batches_as_one(looks):
    """Each has half the room: here 8 MB of the 16 that little state has."""
    x, y = np.zeros((1024, 1024), "float32"), np.zeros((1024, 1), "float32")
    inputs = Input((1024,))
    model = Model(inputs, layers.Dense(1)(layers.Dense(100)(inputs)))
    model.compile("sgd", "mse")
    model.fit(((x, y) for _ in range(8)), verbose=0)
    assert len(looks) == 4


def test_a_large_state_is_not_kept_once_more(looks, monkeypatch):
    monkeypatch.setattr("cornu.training.window._TWICE", 1 << 20)
    network().fit(batches(), verbose=0)
    assert not looks
