"""`fit`, `evaluate` and `predict`: names, weights of rows, validation, callbacks, sources of data, and what an interruption leaves."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, callbacks, layers
from cornu.core import errors

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(20, 4)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5], [3.0]], "float32")).astype("float32")


def small(loss="mse", optimizer=None, engine="numpy", seed=3, **compiled):
    """One Dense layer on four features."""
    cornu.utils.set_random_seed(seed)
    x = Input((4,), name="features")
    model = Model(x, layers.Dense(1, name="out")(x), name="small")
    model.compile(optimizer or cornu.optimizers.SGD(0.05), loss, engine=engine, **compiled)
    return model


def pair():
    """Two inputs, two outputs, by name."""
    cornu.utils.set_random_seed(3)
    a, b = Input((4,), name="a"), Input((4,), name="b")
    one = layers.Dense(1, name="first")
    return Model({"a": a, "b": b}, {"sum": one(a) + one(b), "kind": layers.Dense(3, name="second")(a)})


PAIR = {"a": X, "b": X[::-1].copy()}, {"kind": np.arange(20) % 3, "sum": Y}
LOSSES = {"sum": "mse", "kind": cornu.losses.SparseCategoricalCrossentropy(from_logits=True)}


def _history(model, x, y, **given):
    return model.fit(x, y, verbose=0, shuffle=False, batch_size=8, **given).history


# ---------------------------------------------------------------- binding and weights


def test_the_order_of_dicts_does_not_matter():
    def turned(given):
        return dict(reversed(given.items()))

    metrics = {"sum": ["mae"], "kind": ["accuracy"]}
    found = []
    for turn in (dict, turned):
        model = pair()
        model.compile("sgd", turn(LOSSES), turn({"sum": 0.5, "kind": 2.0}), turn(metrics), engine="numpy")
        weights = {"sum": np.linspace(0, 1, 20, dtype="float32"), "kind": None}
        found.append(_history(model, turn(PAIR[0]), turn(PAIR[1]), sample_weight=turn(weights)))
    assert found[0] == found[1]
    assert list(found[0]) == ["loss", "kind_loss", "sum_loss", "kind_accuracy", "sum_mae"]
    np.testing.assert_allclose(
        found[0]["loss"][0], 0.5 * found[0]["sum_loss"][0] + 2 * found[0]["kind_loss"][0], rtol=1e-5
    )


def test_weights_of_rows_and_classes_by_output():
    """A weight of two is the row twice; class weights are the weights of their rows."""
    x, y = PAIR
    kinds = y["kind"]
    model = pair()
    model.compile("sgd", LOSSES, engine="numpy")
    by_class = _history(model, x, y, class_weight={"kind": {0: 2.0, 1: 0.0, 2: 0.5}})
    model = pair()
    model.compile("sgd", LOSSES, engine="numpy")
    by_row = _history(model, x, y, sample_weight={"kind": np.array([2.0, 0.0, 0.5])[kinds]})
    assert by_class == by_row
    model = pair()
    model.compile("sgd", LOSSES, engine="numpy")
    assert _history(model, x, y)["kind_loss"] != by_row["kind_loss"]


def test_a_metric_for_an_output_without_loss():
    model = pair()
    model.compile("sgd", {"sum": "mse"}, metrics={"kind": "accuracy"}, engine="numpy")
    assert set(_history(model, *PAIR)) == {"loss", "sum_loss", "kind_accuracy"}
    with pytest.raises(errors.BindingError, match="y has nothing for 'kind'"):
        model.fit(PAIR[0], {"sum": Y}, verbose=0)
    model.compile("sgd", {"sum": "mse"}, engine="numpy")
    assert "loss" in _history(model, PAIR[0], {"sum": Y})


# ---------------------------------------------------------------- sources and validation


class Batches(cornu.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[index * 4 : index * 4 + 4], Y[index * 4 : index * 4 + 4]


def _forever():
    while True:
        yield from ((X[i : i + 4], Y[i : i + 4]) for i in range(0, 20, 4))


def test_every_source_of_the_same_batches_trains_the_same(engine):
    sources = {
        "arrays": lambda: {"x": X, "y": Y, "batch_size": 4},
        "lists": lambda: {"x": X.tolist(), "y": Y.tolist(), "batch_size": 4},
        "generator": lambda: {"x": _forever(), "steps_per_epoch": 5},
        "iterable": lambda: {"x": list_of_batches()},
        "dataset": lambda: {"x": Batches()},
        "by name": lambda: {"x": {"features": X}, "y": {"out": Y}, "batch_size": 4},
    }

    class list_of_batches:
        def __iter__(self):
            return iter([Batches()[i] for i in range(5)])

    found = {}
    for name, make in sources.items():
        model = small(engine=engine)
        found[name] = model.fit(**make(), epochs=2, shuffle=False, verbose=0).history["loss"]
    for name, losses in found.items():
        np.testing.assert_allclose(losses, found["arrays"], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(model.evaluate(Batches(), verbose=0), model.evaluate(X, Y, verbose=0), rtol=1e-5)
    np.testing.assert_allclose(
        model.predict(Batches(), verbose=0), model.predict(X, verbose=0, batch_size=20), rtol=1e-5
    )
    np.testing.assert_allclose(
        model.predict(_forever(), steps=2, verbose=0), model.predict(X[:8], verbose=0), rtol=1e-5
    )


def test_validation():
    model = small(metrics=["mae"])
    found = _history(model, X, Y, epochs=4, validation_split=0.25, validation_freq=2)
    assert len(found["loss"]) == 4 and len(found["val_loss"]) == len(found["val_mae"]) == 2
    np.testing.assert_allclose(found["val_loss"][-1], model.evaluate(X[15:], Y[15:], verbose=0)[0], rtol=1e-5)
    found = _history(
        model,
        X,
        Y,
        epochs=5,
        validation_data=(X, Y),
        validation_freq=[1, 4],
        validation_steps=1,
        validation_batch_size=5,
    )
    assert len(found["val_loss"]) == 2
    found = _history(model, X, Y, validation_data=Batches())
    np.testing.assert_allclose(found["val_loss"][0], model.evaluate(X, Y, verbose=0)[0], rtol=1e-5)


def test_metrics_begin_anew_at_each_epoch(engine):
    model = small(engine=engine, optimizer=cornu.optimizers.SGD(0.0), metrics=["mae"])
    found = _history(model, X, Y, epochs=3, validation_data=(X[:4], Y[:4]))
    for values in found.values():
        np.testing.assert_allclose(values, values[0], rtol=1e-6)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx([found["loss"][0], found["mae"][0]], rel=1e-5)
    assert model.evaluate(X, Y, verbose=0, return_dict=True).keys() == {"loss", "mae"}
    assert model.metrics_names == ["loss", "mae"]


# ---------------------------------------------------------------- callbacks with the real trainer


def test_early_stopping_gives_the_best_weights_back(engine):
    model = small(engine=engine)
    kept = []
    stop = callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    worse = callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(model.optimizer, "learning_rate", 0.05 if epoch < 3 else -0.05),
        on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()[0]),
    )
    found = model.fit(X, Y, epochs=20, verbose=0, callbacks=[worse, stop]).history["loss"]
    best = int(np.argmin(found))
    assert len(found) == best + 3
    np.testing.assert_array_equal(model.get_weights()[0], kept[best])


def test_checkpoints_hold_the_weights_of_their_epoch(tmp_path, engine):
    model = small(engine=engine)
    path = tmp_path / "at-{epoch}.weights.h5"
    kept = []
    keep = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callbacks.ModelCheckpoint(path, save_weights_only=True), keep])
    other = small()
    other.load_weights(tmp_path / "at-1.weights.h5")
    np.testing.assert_array_equal(other.get_weights()[0], kept[0][0])
    assert not np.array_equal(kept[0][0], kept[1][0])


def test_the_learning_rate_is_heard_between_steps(engine):
    model = small(engine=engine)
    rates = callbacks.LearningRateScheduler(lambda epoch, rate: [0.05, 0.0, 0.025][epoch])
    found = _history(model, X, Y, epochs=3, callbacks=[rates])
    np.testing.assert_allclose(found["learning_rate"], [0.05, 0.0, 0.025])
    slow = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    model = small(engine=engine)
    found = _history(model, X, Y, epochs=4, callbacks=[slow])["learning_rate"]
    np.testing.assert_allclose(found, [0.05, 0.05, 0.025, 0.0125])
    model = small(engine=engine)  # at rate 0 nothing moves
    before = model.get_weights()[0]
    still = callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(model.optimizer, "learning_rate", 0.0)
    )
    model.fit(X, Y, verbose=0, callbacks=[still])
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_a_log_is_written(tmp_path):
    model = small(metrics=["mae"])
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callbacks.CSVLogger(tmp_path / "log.csv")])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss,mae") and len(lines) == 3


def test_callbacks_may_read_assign_and_freeze_between_batches(engine):
    """What a callback sees is what training has reached, and what it sets is what training goes on from."""
    cornu.utils.set_random_seed(0)
    x = Input((4,))
    inner = layers.Dense(3, name="inner")
    model = Model(x, layers.Dense(1, name="outer")(inner(x)))
    model.compile(cornu.optimizers.SGD(0.01), "mse", engine=engine)
    seen = []

    class Hand(callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                inner.kernel.assign(np.full((4, 3), 0.5, "float32"))
            if batch == 2:
                inner.trainable = False
            if batch == 4:
                inner.trainable = True
            if batch == 5:
                inner.bias.trainable = False

        def on_train_batch_end(self, batch, logs=None):
            seen.append(
                (inner.kernel.numpy(), inner.bias.numpy(), model.get_layer("outer").kernel.numpy(), float(logs["loss"]))
            )

    model.fit(
        np.tile(X, (2, 1))[:28], np.tile(Y, (2, 1))[:28], batch_size=4, verbose=0, shuffle=False, callbacks=[Hand()]
    )
    kernels = [one[0] for one in seen]
    assert np.abs(kernels[1] - 0.5).max() < 0.1 and np.abs(kernels[0] - 0.5).max() > 0.1
    np.testing.assert_array_equal(kernels[1], kernels[2])
    np.testing.assert_array_equal(kernels[1], kernels[3])
    assert not np.array_equal(seen[2][2], seen[3][2])  # the other layer went on
    assert not np.array_equal(kernels[3], kernels[4])
    np.testing.assert_array_equal(seen[4][1], seen[6][1])
    np.testing.assert_array_equal(inner.kernel.numpy(), kernels[-1])


def test_a_callback_may_evaluate_and_predict(engine):
    model = small(engine=engine)
    seen = []

    class Look(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((model.evaluate(X, Y, verbose=0), model.predict(X, verbose=0), model.get_weights()))

    plain = _history(small(engine=engine), X, Y, epochs=3)["loss"]
    assert _history(model, X, Y, epochs=3, callbacks=[Look()])["loss"] == plain
    assert seen[0][0] > seen[2][0]
    np.testing.assert_allclose(seen[1][1], X @ seen[1][2][0] + seen[1][2][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.get_weights()[0], seen[2][2][0])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_the_training_so_far(engine, interruption):
    model = small(engine=engine)
    reached = []

    def stop(batch, logs):
        reached.append(model.get_weights()[0])
        if batch == 2:
            raise interruption("enough")

    with pytest.raises(interruption, match="enough"):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callbacks.LambdaCallback(on_train_batch_end=stop)])
    np.testing.assert_array_equal(model.get_weights()[0], reached[2])
    assert not np.array_equal(reached[1], reached[2])
    assert int(model.optimizer.iterations) == 3
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, epochs=3, verbose=0)
    assert model.evaluate(X, Y, verbose=0) < before


def test_progress_is_a_line_per_epoch(capsys):
    small(metrics=["mae"]).fit(X, Y, epochs=3, batch_size=1, verbose="auto")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("loss" in line and "mae" in line for line in lines)
    small().fit(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- engines, state, compilation


def test_engines_take_turns():
    model = small(engine=None, optimizer=cornu.optimizers.Adam(0.05), metrics=["mae"])
    losses = []
    for engine in ("jax", "numpy", "jax"):
        losses += model.fit(X, Y, epochs=2, verbose=0, shuffle=False, engine=engine).history["loss"]
        np.testing.assert_allclose(
            model.predict(X, verbose=0, engine="numpy"), model.predict(X, verbose=0, engine="jax"), rtol=1e-5, atol=1e-6
        )
        scores = [model.evaluate(X, Y, verbose=0, engine=name) for name in ("jax", "numpy")]
        np.testing.assert_allclose(*scores, rtol=1e-5)
    same = small(engine="numpy", optimizer=cornu.optimizers.Adam(0.05), metrics=["mae"])
    np.testing.assert_allclose(losses, same.fit(X, Y, epochs=6, verbose=0, shuffle=False).history["loss"], rtol=1e-4)


def test_state_goes_on_through_predict(engine):
    """A layer that counts its batches keeps its count, whatever ran it."""

    class Counting(layers.Layer):
        def build(self, input_shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

        def call(self, x):
            self.count.assign(self.count + 1.0)
            return x + 0.0 * self.count

    x = Input((4,))
    counting = Counting()
    model = Model(x, layers.Dense(1)(counting(x)))
    model.compile("sgd", "mse", engine=engine)
    model.predict(X, batch_size=5, verbose=0, engine=engine)
    assert float(counting.count) == 4
    model.fit(X, Y, batch_size=5, epochs=2, verbose=0)
    assert float(counting.count) == 12
    model.evaluate(X, Y, batch_size=10, verbose=0)
    assert float(counting.count) == 14


def test_a_step_is_compiled_once_for_each_shape():
    traces = []

    class Watched(layers.Layer):
        def call(self, x):
            if not cornu.core.context.is_abstract():
                traces.append(x.shape)
            return x

    x = Input((4,))
    model = Model(x, layers.Dense(1)(Watched()(x)))
    model.compile("adam", "mse", engine="jax")
    for _ in range(2):
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X[:8], Y[:8]))
        assert sorted(traces) == [(4, 4), (8, 4), (8, 4)]  # training: 8 and the last 4; validation: 8
    cornu.Sequential([layers.Dense(1)])  # another model is no reason to compile again
    model.fit(X, Y, batch_size=8, verbose=0)
    assert len(traces) == 3
    model.predict(X[:8], verbose=0, engine="jax")
    model.predict(X[:8], verbose=0, engine="jax")
    assert len(traces) == 4


def test_run_eagerly_shows_values(engine):
    """Op by op: Python sees every step, and real numbers, in the forward pass as in the loss."""
    seen = []

    class Breakpoint(layers.Layer):
        def call(self, x):
            if not cornu.core.context.is_abstract():
                seen.append(float(cornu.ops.sum(x)))
            return x

    def build():
        cornu.utils.set_random_seed(3)
        x = Input((4,))
        return Model(x, layers.Dense(1, name="out")(Breakpoint()(layers.Dense(3)(x))))

    found = []
    for eager in (True, False):
        if not eager and cornu.engines.get(engine).traces:
            Breakpoint.call = lambda self, x: x
        model = build()
        model.compile("adam", "mse", run_eagerly=eager, engine=engine)
        found.append(_history(model, X, Y, epochs=2)["loss"])
        if eager:
            assert len(seen) == 6 and len(set(seen)) == 6
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


class _Once(cornu.callbacks.Callback):
    """Stops evaluation and prediction at the second batch, the first time."""

    def __init__(self):
        super().__init__()
        self.told = []

    def _at(self, batch, flag):
        self.told.append(batch)
        if batch == 1 and self.told.count(1) == 1:
            setattr(self.model, flag, True)

    def on_test_batch_end(self, batch, logs=None):
        self._at(batch, "stop_evaluating")

    def on_predict_batch_end(self, batch, logs=None):
        self._at(batch, "stop_predicting")


def test_evaluation_and_prediction_stop_when_told_to_and_begin_anew(engine):
    x = np.ones((8, 3), "float32")
    model = cornu.Sequential([cornu.Input((3,)), cornu.layers.Dense(1)])
    model.compile("sgd", "mse")
    for call in (
        lambda own: model.evaluate(x, x[:, :1], 2, 0, callbacks=own),
        lambda own: model.predict(x, 2, 0, callbacks=own),
    ):
        told = _Once()
        first, second = call([told]), call([told])
        assert told.told == [0, 1, 0, 1, 2, 3]
        if isinstance(first, np.ndarray):
            assert (len(first), len(second)) == (4, 8)
