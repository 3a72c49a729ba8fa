"""Steps that another thread takes while the next batch is made: nobody can tell, but by the clock."""

import contextlib
import sys
import threading

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers
from cornu.core.errors import NonFiniteError
from cornu.training import handover
from cornu.training.handover import Handover, Pace, UnderWay

WAITING = [name for name in ("tensorflow", "torch") if name in cornu.engines.available()]
ROWS, STEPS = 8, 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(STEPS, ROWS, 6)).astype("float32")
Y = X[:, :, :2] * 2


@pytest.fixture(params=WAITING)
def waiting(request):
    """Each engine that comes back from a step only when it is done."""
    with cornu.engine(request.param):
        yield request.param


@pytest.fixture
def handed(monkeypatch):
    """Hands every step over that can be; gives a list with an entry for each that was."""
    steps = []

    class Always(Pace):
        def begins(self):
            self.hands = True

    class Counted(UnderWay):
        def __init__(self, *given):
            steps.append(threading.get_ident())
            super().__init__(*given)

    monkeypatch.setattr(handover, "Pace", Always)
    for module in ("handover", "loop", "forward"):
        monkeypatch.setattr(sys.modules[f"cornu.training.{module}"], "UnderWay", Counted)
    return steps


@contextlib.contextmanager
def alone(monkeypatch):
    """Nothing is handed over."""
    with monkeypatch.context() as patch:
        patch.setattr(Handover, "__call__", lambda self, kind, step, *args: step(*args))
        yield


@pytest.fixture
def both(handed, monkeypatch):
    """Runs something without handing steps over, and with it; gives both answers."""

    def twice(run):
        with alone(monkeypatch):
            expected = run()
        assert not handed
        found = run()
        assert handed
        return expected, found

    return twice


def network(**options):
    cornu.utils.set_random_seed(0)
    x = Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(8, activation="relu")(x))
    model = Model(x, layers.Dense(2)(layers.Dropout(0.2)(hidden)))
    model.compile("adam", "mse", metrics=["mae"], **options)
    return model


def batches(steps=STEPS):
    for i in range(steps):
        yield X[i % STEPS], Y[i % STEPS]


class Loader:
    """The batches, again with each pass."""

    def __iter__(self):
        return batches()


def equal(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- nobody can tell


def test_numbers_are_the_same(waiting, handed, both):
    def run():
        model = network()
        history = model.fit(batches(3 * STEPS), steps_per_epoch=STEPS, epochs=3, validation_data=Loader(), verbose=0)
        return model, history.history, model.evaluate(Loader(), verbose=0), model.predict(iter(X), verbose=0)

    expected, found = both(run)
    # All steps but those that run op by op first; evaluation, and prediction, of which each has STEPS in a pass.
    assert len(handed) > 3 * STEPS + 3 * STEPS + 2 * STEPS - 10
    equal(found[0], expected[0])
    assert found[1:3] == expected[1:3]
    np.testing.assert_array_equal(found[3], expected[3])


def test_the_next_batch_is_made_while_a_step_is_under_way(waiting, handed, monkeypatch):
    made, met = threading.Event(), []

    def slowly(step):
        bound = step.bound

        def until_made(*args):
            call = bound(*args)

            def run():
                met.append(made.wait(20))
                made.clear()
                return call()

            return call and run

        return until_made

    taken = Handover.__call__

    def patched(self, kind, step, *args):
        if not hasattr(step, "slow"):
            step.slow, step.bound = True, slowly(step)
        return taken(self, kind, step, *args)

    monkeypatch.setattr(Handover, "__call__", patched)

    def telling():
        for batch in batches():
            made.set()
            yield batch
        made.set()

    network().fit(telling(), verbose=0)
    assert len(met) >= STEPS - 3 and all(met)


def test_the_users_code_stays_in_its_thread(waiting, handed):
    here, threads = threading.get_ident(), set()

    class Watching(layers.Layer):
        def call(self, x):
            threads.add(threading.get_ident())
            return x * 2.0

    def lengths():
        for i in range(STEPS):
            threads.add(threading.get_ident())
            size = ROWS - i % 3  # shapes that are met late
            yield X[i, :size], Y[i, :size]

    class Told(cornu.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            threads.add(threading.get_ident())

    x = Input((6,))
    model = Model(x, layers.Dense(2)(Watching()(x)))
    model.compile("sgd", "mse")
    model.fit(lengths(), callbacks=[Told()], verbose=0)
    model.evaluate(lengths(), verbose=0)
    model.predict((x for x, _ in lengths()), verbose=0)
    assert handed
    assert threads == {here}


def test_a_generator_that_looks_at_the_model_sees_the_last_step(waiting, both):
    def run():
        model, seen = network(), []

        def looking():
            for batch in batches():
                seen.append([model.get_weights(), int(model.optimizer.iterations.numpy())])
                yield batch

        model.fit(looking(), verbose=0)
        return seen

    expected, found = both(run)
    assert [count for _, count in found] == [count for _, count in expected] == [*range(STEPS)]
    for (a, _), (b, _) in zip(found, expected, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_generator_may_predict_and_write(waiting, both):
    def run():
        model = network()
        copy = network()

        def bootstrapped():
            for x, y in batches():
                copy.set_weights(model.get_weights())
                model.optimizer.learning_rate.assign(float(model.optimizer.learning_rate.numpy()) * 0.9)
                yield x, y + 0.1 * copy.predict(x, verbose=0)

        model.fit(bootstrapped(), verbose=0)
        return model

    expected, found = both(run)
    equal(found, expected)


def test_callbacks_see_the_logs_of_their_batch(waiting, both):
    class Told(cornu.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append((batch, dict(logs)))

        def on_test_batch_end(self, batch, logs=None):
            self.seen.append((batch, dict(logs)))

        def on_predict_batch_end(self, batch, logs=None):
            self.seen.append((batch, cornu.ops.convert_to_numpy(logs["outputs"])))

    def run():
        told, model = Told(), network()
        model.fit(batches(), validation_data=Loader(), callbacks=[told], verbose=0)
        trained, told.seen = told.seen, []
        model.predict(iter(X), callbacks=[told], verbose=0)
        return trained, told.seen

    expected, found = both(run)
    assert found[0] == expected[0] and len(found[0]) == 2 * STEPS
    for (i, a), (j, b) in zip(found[1], expected[1], strict=True):
        assert i == j
        np.testing.assert_array_equal(a, b)


def test_nothing_is_read_that_is_not_trained_on(waiting, handed):
    class Enough(cornu.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 5

    source = batches()
    network().fit(source, callbacks=[Enough()], verbose=0)
    assert handed
    np.testing.assert_array_equal(next(source)[0], X[6])
    source = batches()
    network().fit(source, steps_per_epoch=4, epochs=2, verbose=0)
    np.testing.assert_array_equal(next(source)[0], X[8])


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_generator_may_use_its_memory_again(waiting, both, kind, guard):
    if kind == "torch" and "torch" not in cornu.engines.available():
        pytest.skip("needs PyTorch")

    def reusing():
        x, y = np.empty_like(X[0]), np.empty_like(Y[0])
        if kind == "torch":
            import torch

            lent = torch.from_numpy(x), torch.from_numpy(y)
        else:
            lent = x, y
        for i in range(STEPS):
            x[:], y[:] = X[i], Y[i]
            yield lent
            x[:] = y[:] = np.nan

    def run():
        model = network(stop_on_nonfinite=guard)
        history = model.fit(reusing(), verbose=0).history
        return model, history, model.evaluate(reusing(), verbose=0), model.predict((x for x, _ in reusing()), verbose=0)

    expected, found = both(run)
    equal(found[0], expected[0])
    assert found[1:3] == expected[1:3]
    np.testing.assert_array_equal(found[3], expected[3])


# ---------------------------------------------------------------- what goes wrong


def test_an_error_in_a_batch_comes_after_the_steps_before_it(waiting, both):
    def failing():
        yield from batches(7)
        raise RuntimeError("the disk is gone")

    def run():
        model = network()
        with pytest.raises(RuntimeError, match="the disk is gone"):
            model.fit(failing(), verbose=0)
        return model

    expected, found = both(run)
    assert int(found.optimizer.iterations.numpy()) == 7
    equal(found, expected)


def test_what_prediction_assigned_is_there_when_a_batch_fails(waiting, handed):
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x * 2.0

    def failing():
        yield from X[:7]
        raise RuntimeError("the disk is gone")

    counting = Counting()
    x = Input((6,))
    model = Model(x, counting(x))
    with pytest.raises(RuntimeError, match="the disk is gone"):
        model.predict(failing(), verbose=0)
    assert handed
    assert float(counting.count.numpy()) == 7.0


def test_an_interruption_leaves_a_good_state(waiting, handed):
    def interrupted():
        yield from batches(7)
        raise KeyboardInterrupt

    model, other = network(), network()
    with pytest.raises(KeyboardInterrupt):
        model.fit(interrupted(), verbose=0)
    other.fit(batches(7), verbose=0)
    equal(model, other)


def test_what_is_not_finite_is_named(waiting, handed):
    def bad():
        yield from batches(7)
        yield X[7], Y[7] * np.float32(1e30)
        yield from batches(3)

    model, other = network(), network()
    with pytest.raises(NonFiniteError):
        model.fit(bad(), verbose=0)
    other.fit(batches(7), verbose=0)
    assert handed
    equal(model, other)


def test_an_error_of_a_step_comes_out_once_and_for_whoever_asks(waiting, handed, monkeypatch):
    taken = Handover.__call__
    count = iter(range(100))

    class Failing:
        def __init__(self, step):
            self.step = step

        def __call__(self, *args):
            return self.step(*args)

        def bound(self, *args):
            call = self.step.bound(*args)
            if call is None or next(count) != 4:
                return call
            return self.fail

        def fail(self):
            raise MemoryError("no memory for this step")

    monkeypatch.setattr(Handover, "__call__", lambda self, kind, step, *args: taken(self, kind, Failing(step), *args))
    model = network(stop_on_nonfinite=False)
    with pytest.raises(MemoryError, match="no memory for this step"):
        model.fit(batches(), verbose=0)
    before = int(model.optimizer.iterations.numpy())
    assert 0 < before < STEPS
    model.fit(batches(), verbose=0)
    assert int(model.optimizer.iterations.numpy()) == before + STEPS


def test_no_thread_is_left(waiting, handed):
    model = network()
    before = threading.active_count()
    model.fit(batches(), verbose=0)
    model.evaluate(batches(), verbose=0)
    model.predict(iter(X), verbose=0)
    assert handed
    assert threading.active_count() == before


# ---------------------------------------------------------------- where nothing is handed over


@pytest.mark.skipif("torch" not in WAITING, reason="needs PyTorch")
def test_not_under_what_holds_in_one_thread(handed):
    import torch

    model = network()
    with cornu.engine("torch"):
        for scope in (torch.autocast("cpu"), torch.device("cpu"), torch.profiler.profile()):
            with scope:
                model.fit(batches(), verbose=0)
        model.run_eagerly = True
        model.fit(batches(), verbose=0)
        model.predict(iter(X), verbose=0)
        assert not handed
        model.run_eagerly = False
        sys.setprofile(lambda *_: None)
        try:
            model.fit(batches(4), verbose=0)
        finally:
            sys.setprofile(None)
        assert not handed
        model.fit(batches(), verbose=0)
        assert handed


@pytest.mark.skipif("tensorflow" not in WAITING, reason="needs TensorFlow")
def test_not_on_a_device_of_one_thread(handed):
    import tensorflow as tf

    model = network()
    with cornu.engine("tensorflow"):
        with tf.device("/CPU:0"):
            model.fit(batches(), verbose=0)
        assert not handed
        model.fit(batches(), verbose=0)
        assert handed


@pytest.mark.skipif("torch" not in WAITING, reason="needs PyTorch")
def test_not_with_variables_that_live_in_a_users_module(handed):
    import torch

    with cornu.engine("torch"):
        x = Input((6,))
        model = Model(x, layers.TorchModuleWrapper(torch.nn.Linear(6, 2))(x))
        model.compile("sgd", "mse")
        model.fit(batches(), verbose=0)
        model.evaluate(batches(), verbose=0)
        model.predict(iter(X), verbose=0)
    assert not handed


@pytest.mark.parametrize("engine", [name for name in cornu.engines.available() if name not in WAITING])
def test_not_where_an_engine_goes_on_or_lets_nobody_else(engine, handed):
    if cornu.engines.get(engine).waits():
        pytest.fail(f"{engine} is missing in WAITING")
    with cornu.engine(engine):
        network().predict(iter(X), verbose=0)
    assert not handed


# ---------------------------------------------------------------- by the clock


class Day:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1.0

    def __call__(self):
        return self.now


def hours(pace, day, count, call, gap, together):
    """Seconds that pass with calls and gaps of these lengths; which of them were handed over."""
    told = []
    for _ in range(count):
        pace.begins()
        told.append(pace.hands)
        day.now += together if pace.hands else call
        if not pace.hands:
            pace.ends()
            day.now += gap
    return told


def test_slow_batches_are_made_meanwhile():
    day = Day()
    told = hours(Pace(day), day, 2000, call=0.01, gap=0.008, together=0.011)
    assert not any(told[:5]) and all(told[10:])


@pytest.mark.parametrize(("call", "gap"), [(0.01, 1e-4), (1e-4, 0.01), (2e-4, 2e-4), (0.01, 0.0)])
def test_not_what_would_gain_little(call, gap):
    day = Day()
    assert not any(hours(Pace(day), day, 2000, call, gap, together=0.0))


def test_not_for_long_where_it_is_no_faster():
    day = Day()
    told = hours(Pace(day), day, 20_000, call=0.01, gap=0.008, together=0.03)
    assert any(told[:20]) and sum(told[:256]) < 10 and sum(told) < 50


def test_batches_that_become_slow_are_noticed():
    day = Day()
    pace = Pace(day)
    assert not any(hours(pace, day, 500, call=0.01, gap=1e-5, together=0.01))
    assert all(hours(pace, day, 1000, call=0.01, gap=0.01, together=0.01)[300:])
