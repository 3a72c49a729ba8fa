"""State that stays in an engine between steps: nobody sees it half done, nobody's data is written to."""

import contextlib
import copy
import itertools
import pickle
import threading

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers
from cornu.core import tree
from cornu.core.errors import DataError, NonFiniteError
from cornu.engines import registry
from cornu.training.data import as_source

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = (X[:, :2] * 2).astype("float32")


def network(optimizer="adam", **options):
    cornu.utils.set_random_seed(0)
    x = Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(8, activation="relu")(x))
    model = Model(x, layers.Dense(2)(layers.Dropout(0.2)(hidden)))
    model.compile(optimizer, "mse", metrics=["mae"], **options)
    return model


def same(model, other, **tolerance):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def _apart_from_autograd(engine):
    """Where PyTorch records gradients, what is read of a variable is its `nn.Parameter`, which training writes to."""
    if engine != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


@pytest.fixture(params=[name for name in ("numpy", "jax", "tensorflow", "torch") if name in cornu.engines.available()])
def each_engine(request):
    """NumPy, and the engines that write to the memory of their state each in its own way."""
    with cornu.engine(request.param):
        yield request.param


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_calls_of_one_batch_are_an_epoch(each_engine, optimizer):
    whole, single = network(optimizer), network(optimizer)
    history = whole.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    losses = [single.train_on_batch(X[i : i + 16], Y[i : i + 16])[0] for i in range(0, 64, 16)]
    assert np.mean(losses) == pytest.approx(history.history["loss"][0], rel=1e-5)
    same(whole, single, rtol=1e-4, atol=1e-6)


def test_looking_between_calls_changes_nothing(each_engine):
    looked, not_looked = network(), network()
    for i in range(0, 64, 16):
        looked.train_on_batch(X[i : i + 16], Y[i : i + 16])
        not_looked.train_on_batch(X[i : i + 16], Y[i : i + 16])
        before = looked.get_weights()
        looked.predict(X[:4], verbose=0)
        looked(X[:4])
        looked.test_on_batch(X[:8], Y[:8])
        for a, b in zip(before, looked.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    same(looked, not_looked, rtol=1e-5, atol=1e-7)
    assert int(looked.optimizer.iterations.numpy()) == 4


def test_fit_goes_on_with_the_state_that_it_left(each_engine):
    going, looked = network(), network()
    for epoch in range(3):
        for model in (going, looked):
            model.fit(X, Y, batch_size=16, verbose=0, seed=epoch)
        before = looked.get_weights()
        if epoch == 0:
            runner = going._cache["resident"].runner
            state = list(runner.state.variables)
        assert going._cache["resident"].runner is runner and runner.state.variables == state != []
    assert runner.state.idle
    looked.set_weights(before)
    for model in (going, looked):
        model.fit(X, Y, batch_size=16, verbose=0, seed=3)
        model.train_on_batch(X[:16], Y[:16])
        model.fit(X, Y, batch_size=16, verbose=0, seed=4)
    same(going, looked, rtol=1e-5, atol=1e-7)
    assert not runner.state.variables, "whoever reads has the values back"
    assert int(going.optimizer.iterations.numpy()) == 21


def test_a_bad_fit_after_a_good_one_keeps_the_good_weights(each_engine):
    model, other = network(), network()
    bad = X.copy()
    bad[20] = np.inf
    for each in (model, other):
        each.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    other.fit(X[:16], Y[:16], batch_size=16, shuffle=False, verbose=0)
    with pytest.raises(NonFiniteError):
        model.fit(bad, Y, batch_size=16, shuffle=False, verbose=0)
    same(model, other, rtol=1e-5, atol=1e-7)


def test_values_that_were_given_out_stay_as_they_were(each_engine):
    model = network()
    model.train_on_batch(X[:16], Y[:16])
    with _apart_from_autograd(each_engine):
        kept = [variable.value for variable in model.trainable_variables]
    hosts = [np.array(cornu.ops.convert_to_numpy(value)) for value in kept]
    for _ in range(4):
        model.train_on_batch(X[:16], Y[:16])
    model.fit(X, Y, epochs=4, verbose=0)
    for value, host in zip(kept, hosts, strict=True):
        np.testing.assert_array_equal(cornu.ops.convert_to_numpy(value), host)


def test_a_value_that_was_assigned_stays_its_owners(each_engine):
    model = network()
    mine = cornu.ops.convert_to_tensor(np.full((6, 8), 0.1, "float32"))
    for _ in range(4):
        model.trainable_variables[0].assign(mine)
        model.train_on_batch(X[:16], Y[:16])
    np.testing.assert_array_equal(cornu.ops.convert_to_numpy(mine), np.full((6, 8), 0.1, "float32"))


def test_two_models_with_shared_weights_take_turns(each_engine):
    def pair():
        cornu.utils.set_random_seed(0)
        shared = layers.Dense(2)
        x = Input((6,))
        first, second = Model(x, shared(x)), Model(x, layers.Dense(2)(shared(x)))
        for model in (first, second):
            model.compile("adam", "mse")
        return first, second

    first, second = pair()
    one, other = pair()
    for _ in range(3):
        first.train_on_batch(X, Y)
        second.train_on_batch(X, Y)
        one.fit(X, Y, batch_size=64, verbose=0)
        other.fit(X, Y, batch_size=64, verbose=0)
    same(second, other, rtol=1e-5, atol=1e-7)


def test_what_a_step_logs_is_not_written_to_later(each_engine):
    class Logging(Model):
        def train_step(self, data):
            before = self.trainable_variables[0].value
            logs = super().train_step(data)
            return {**logs, "before": before, "after": self.trainable_variables[0].value}

    cornu.utils.set_random_seed(0)
    x = Input((6,))
    model = Logging(x, layers.Dense(2)(x))
    model.compile("adam", "mse")
    seen = []
    for _ in range(5):
        logs = model.train_on_batch(X, Y, return_dict=True)
        seen.append((logs["before"], logs["after"], np.array(logs["before"]), np.array(logs["after"])))
    for before, after, first, last in seen:
        np.testing.assert_array_equal(before, first)
        np.testing.assert_array_equal(after, last)
    for (_, after, _, _), (before, _, _, _) in itertools.pairwise(seen):
        np.testing.assert_array_equal(after, before)
        assert not np.array_equal(before, seen[0][0])


def test_a_buffer_that_is_filled_anew_can_be_gone_back_over(each_engine):
    """The steps since the last look are taken again on the batches as they were."""
    model, good = network("sgd"), network("sgd")
    buffer = np.empty((16, 6), "float32")
    for i in range(5):
        buffer[:] = X[8 * i : 8 * i + 16]
        model.train_on_batch(buffer, Y[:16])
        good.train_on_batch(X[8 * i : 8 * i + 16], Y[:16])
    expected = good.get_weights()
    buffer[:] = np.inf
    with pytest.raises(NonFiniteError, match="at step 5"):
        model.train_on_batch(buffer, Y[:16])
        model.get_weights()  # TensorFlow's relu makes 0 of NaN, and the loss finite
    for a, b in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_weights_that_overflow_behind_a_finite_loss_are_never_seen(each_engine):
    model = network(cornu.optimizers.SGD(1.0))
    for _ in range(3):
        model.train_on_batch(X[:16], Y[:16])
    good = model.get_weights()
    model.optimizer.learning_rate = 3e38
    model.train_on_batch(X[:16], Y[:16])  # its loss is that of the weights before
    with pytest.raises(NonFiniteError, match="at step 3: first in the optimizer"):
        model.get_weights()
    for a, b in zip(model.get_weights(), good, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_what_a_callback_writes_is_written_again_on_the_way_back(each_engine):
    class Rates(cornu.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.01 / (batch + 1)

    bad = X.copy()
    bad[41] = np.nan
    model, good = network("sgd"), network("sgd")
    with pytest.raises(NonFiniteError, match="at step 5"):
        model.fit(bad, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[Rates()])
    good.fit(X[:40], Y[:40], batch_size=8, shuffle=False, verbose=0, callbacks=[Rates()])
    same(model, good, rtol=1e-5, atol=1e-7)


def test_what_was_written_before_the_first_step_is_there_on_the_way_back(each_engine):
    class Start(cornu.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.trainable_variables[0].assign(np.full((6, 8), 0.1, "float32"))

    bad = X.copy()
    bad[20] = np.nan
    model, good = network("sgd"), network("sgd")
    with pytest.raises(NonFiniteError, match="at step 2"):
        model.fit(bad, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[Start()])
    good.fit(X[:16], Y[:16], batch_size=8, shuffle=False, verbose=0, callbacks=[Start()])
    same(model, good, rtol=1e-5, atol=1e-7)


def test_an_interrupted_fit_leaves_a_good_state(each_engine):
    class Stop(cornu.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise KeyboardInterrupt

    bad = X.copy()
    bad[34] = np.nan
    model, good = network("sgd"), network("sgd")
    with pytest.raises(KeyboardInterrupt):
        model.fit(bad, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[Stop()])
    good.fit(X[:32], Y[:32], batch_size=8, shuffle=False, verbose=0)
    same(model, good, rtol=1e-5, atol=1e-7)


def test_many_looks_apart(each_engine):
    """A bad step far behind the last look: the state is as it was before it."""
    x = np.tile(X, (8, 1))
    x[8 * 61 + 2] = np.inf
    y = np.tile(Y, (8, 1))
    model, good = network("adam"), network("adam")
    with pytest.raises(NonFiniteError, match="at step 61: first in the data: x"):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    good.fit(x[: 8 * 61], y[: 8 * 61], batch_size=8, shuffle=False, verbose=0)
    same(model, good, rtol=1e-5, atol=1e-6)
    assert int(model.optimizer.iterations.numpy()) == 61


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_by_itself(again):
    model = network()
    model.fit(X, Y, batch_size=16, verbose=0)
    model.train_on_batch(X[:16], Y[:16])
    other = again(model)
    same(model, other, rtol=0, atol=0)
    model.train_on_batch(X[:16], Y[:16])
    before = model.get_weights()
    other.train_on_batch(X[:16], Y[:16])
    same(model, other, rtol=1e-6, atol=1e-7)
    other.train_on_batch(X[16:32], Y[16:32])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_slots_that_overflow_are_noticed():
    inputs = Input((6,))
    model = Model(inputs, layers.Dense(2, activation="tanh", kernel_initializer="zeros")(inputs))
    model.compile("adam", "mse")
    x = X.copy()
    x[3] = 1e30  # its gradient is finite, the square of that is not
    with pytest.raises(NonFiniteError, match="the optimizer's update"):
        model.fit(x, Y, batch_size=64, verbose=0)


def test_threads_look_while_one_trains():
    model = network()
    model.train_on_batch(X[:16], Y[:16])
    stop, errors = threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                for variable in model.weights:
                    assert np.isfinite(variable.numpy()).all()
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        model.train_on_batch(X[:16], Y[:16])
    stop.set()
    thread.join()
    assert not errors
    assert int(model.optimizer.iterations.numpy()) == 51


def test_short_steps_come_to_be_taken_together():
    """After a thousand steps alone, and only where no callback looks between; the numbers stay the same."""
    alone, together = network(), network()
    many = np.tile(X, (40, 1)), np.tile(Y, (40, 1))
    note = cornu.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    for _ in range(9):
        first = alone.fit(*many, batch_size=16, verbose=0, callbacks=[note], engine="jax", seed=1)
        second = together.fit(*many, batch_size=16, verbose=0, engine="jax", seed=1)
    if registry.get("jax").loops:
        assert any(key[0] == "several" for key in together._cache if isinstance(key, tuple))
    assert not any(key[0] == "several" for key in alone._cache if isinstance(key, tuple))
    assert first.history["loss"][0] == pytest.approx(second.history["loss"][0], rel=1e-3)
    assert int(together.optimizer.iterations.numpy()) == int(alone.optimizer.iterations.numpy()) == 9 * 160


ROWS = {
    "float64": X[:16].astype("float64"),
    "float32": X[:16],
    "int64": np.arange(16),
    "int32": np.arange(16, dtype="int32"),
    "bool": X[:16] > 0,
    "other bytes": X[:16].astype(">f4"),
    "numbers": X[:16].tolist(),
    "several": {"b": X[:16].astype("float64"), "a": np.arange(16, dtype="int32")},
    "several as they are": [X[:16], np.arange(16, dtype="int32")],
    "none": None,
}


def test_one_batch_is_what_a_source_gives():
    """Whether arrays come as they are or have to be cast first."""
    model = network()
    for (name, x), (other, y) in itertools.product(ROWS.items(), ROWS.items()):
        if x is None:
            continue
        found = model._one_batch(x, y, None, None, "train_on_batch")
        wanted = as_source(x, y, None, batch_size=100, shuffle=False, what="train_on_batch").peek()
        assert tree.same_structure(found, wanted) and len(tree.leaves(found)[0]) == 16, (name, other)
        for a, b in zip(tree.leaves(found), tree.leaves(wanted), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype and a.dtype.isnative, (name, other)
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("x", "y"), [(X[:4], Y[:3]), (X[:0], Y[:0]), (X[0, 0], Y[:1]), (X[:2], np.array(["a", "b"]))])
def test_what_is_no_batch_is_refused(x, y):
    with pytest.raises(DataError):
        network().train_on_batch(x, y)


def test_a_list_of_numbers_is_one_batch():
    """Of all its rows."""
    as_arrays, as_lists = network(), network()
    for _ in range(2):
        wanted = as_arrays.train_on_batch(X[:16], Y[:16])
        np.testing.assert_allclose(as_lists.train_on_batch(X[:16].tolist(), Y[:16].tolist()), wanted, rtol=1e-6)
    np.testing.assert_allclose(
        as_lists.test_on_batch(X[:16].tolist(), Y[:16].tolist()), as_arrays.test_on_batch(X[:16], Y[:16]), rtol=1e-6
    )
    assert as_lists.predict_on_batch(X[:16].tolist()).shape == (16, 2)


class Remembering(layers.Layer):
    """Keeps what it was called with last."""

    def build(self, shape):
        self.last = self.add_weight(shape=(16, 6), initializer="zeros", trainable=False, name="last")

    def call(self, inputs, training=False):
        if training:
            self.last.assign(inputs)
        return inputs


@pytest.mark.parametrize("way", ["train_on_batch", "fit", "generator"])
def test_batches_that_a_step_keeps_are_still_good_to_go_back_over(each_engine, way):
    """What a variable was assigned is not the memory of a batch: neither the user's nor the one that is kept."""
    data, targets = X.copy(), Y.copy()
    batches = [(data[16 * i : 16 * i + 16], targets[16 * i : 16 * i + 16]) for i in range(4)]

    def trained():
        cornu.utils.set_random_seed(0)
        x, memory = Input((6,)), Remembering()
        model = Model(x, layers.Dense(2)(memory(x)))
        model.compile(cornu.optimizers.SGD(0.1), "mse")
        if way == "train_on_batch":
            for i, batch in enumerate(batches * 2):
                model.train_on_batch(*batch)
                memory.last.assign(np.full((16, 6), i, "float32"))
        elif way == "fit":
            model.fit(data, targets, batch_size=16, epochs=2, shuffle=False, verbose=0)
        else:
            model.fit(((a.copy(), b.copy()) for a, b in batches * 2), verbose=0)
        return model

    good, model = trained().get_weights(), trained()
    with pytest.raises(NonFiniteError):
        model.train_on_batch(np.full((16, 6), np.inf, "float32"), targets[:16])
        model.get_weights()
    for a, b in zip(model.get_weights(), good, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_array_equal(data, X)
