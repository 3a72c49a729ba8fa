"""A loss or weight that leaves the finite numbers stops training: who did it is named, and the last good weights are kept."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, callbacks, layers, ops
from cornu.core.errors import DataError, NonFiniteError

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = 2 * X.sum(1, keepdims=True) + 1


class Log(layers.Layer):
    """The logarithm, of whatever comes."""

    def call(self, x):
        return ops.log(x)


class Root(layers.Layer):
    """The square root, whose slope at 0 is infinite."""

    def call(self, x):
        return ops.sqrt(ops.maximum(x, 0.0))


def model_with(layer, kernel=0.5, optimizer=None, engine="numpy", **compiled):
    x = Input((3,), name="features")
    y = layers.Dense(2, name="first", kernel_initializer=cornu.initializers.Constant(kernel))(x)
    y = y if layer is None else layer(y)
    model = Model(x, layers.Dense(1, name="last", kernel_initializer="ones")(y), name="net")
    model.compile(optimizer or cornu.optimizers.SGD(0.01), "mse", engine=engine, **compiled)
    return model


def watched_fit(model, x, y, **given):
    """What went before: the weights after each batch; and the error."""
    reached = [model.get_weights()]
    keep = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: reached.append(model.get_weights()))
    with pytest.raises(NonFiniteError) as caught:
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[keep], **given)
    return reached, str(caught.value)


def check_kept(model, reached, step):
    """The weights are those before the step that failed, and finite."""
    for weight, good in zip(model.get_weights(), reached[step], strict=True):
        assert np.isfinite(weight).all()
        np.testing.assert_array_equal(weight, good)


def test_the_layer_and_the_op_are_named(engine):
    x = np.abs(X)
    x[9] *= -1  # in the third batch
    model = model_with(Log(name="bad"), engine=engine)
    reached, text = watched_fit(model, x, Y)
    for part in ("step 2", "'bad'", "'log'", "(4, 2)", "test_guard.py", "last good weights", "clipnorm"):
        assert part in text, text
    check_kept(model, reached, 2)
    assert not np.array_equal(reached[2][0], reached[0][0])
    assert int(model.optimizer.iterations) == 2
    model.fit(np.abs(X), Y, verbose=0)  # it can go on


def test_a_rate_that_explodes(engine):
    model = model_with(None, optimizer=cornu.optimizers.SGD(1e18), engine=engine)
    reached, text = watched_fit(model, X, Y, epochs=3)
    assert "lower the learning rate" in text and "first in" in text
    step = int(text.partition("at step ")[2].partition(":")[0])
    check_kept(model, reached, step)


def test_bad_data_is_named(engine):
    for place, given in (("x", X), ("y", Y)):
        bad = given.copy()
        bad[13, 0] = np.nan if place == "x" else np.inf
        model = model_with(None, engine=engine)
        x, y = (bad, Y) if place == "x" else (X, bad)
        reached, text = watched_fit(model, x, y)
        assert f"the data: {place} holds" in text and "step 3" in text and "clean" in text
        check_kept(model, reached, 3)


def test_a_gradient_alone(engine):
    """The loss is finite, its gradient is not: nothing of it reaches the weights."""
    model = model_with(Root(name="root"), kernel=0.0, engine=engine)
    reached, text = watched_fit(model, X, Y)
    for part in ("step 0", "gradient", "root", "'sqrt'"):
        assert part in text, text
    check_kept(model, reached, 0)


@pytest.mark.parametrize("where", ["train_on_batch", "run_eagerly"])
def test_elsewhere_too(engine, where):
    model = model_with(Log(name="bad"), engine=engine, run_eagerly=where == "run_eagerly")
    before = model.get_weights()
    with pytest.raises(NonFiniteError, match="bad"):
        if where == "train_on_batch":
            model.train_on_batch(-np.abs(X), Y)
        else:
            model.fit(-np.abs(X), Y, verbose=0)
    check_kept(model, [before], 0)


@pytest.mark.parametrize("between", ["nothing", "a look", "a rate", "weights", "a metric", "data"])
def test_a_fit_that_goes_on_from_earlier_ones(engine, between):
    """The way back leads through earlier calls, whatever came between them."""
    bad = np.abs(X)
    bad[17] *= -1  # in the last batch but one

    def trained(x, upto):
        good = np.abs(X)
        model = model_with(Log(name="bad"), optimizer=cornu.optimizers.Adam(0.01), engine=engine)
        model.fit(good, Y, batch_size=4, shuffle=False, verbose=0)  # less than a window
        if between == "a look":
            model.get_weights()
        elif between == "a rate":
            model.optimizer.learning_rate = 0.02
        elif between == "weights":
            model.set_weights([weight * 1.1 for weight in model.get_weights()])
        elif between == "a metric":
            model.train_on_batch(good[:4], Y[:4])
        elif between == "data":
            good[:] = 7  # the user's own array, of which batches were views
        if upto is None:
            with pytest.raises(NonFiniteError, match="'log'"):
                model.fit(x, Y, batch_size=4, shuffle=False, verbose=0)
        else:
            model.fit(x[:upto], Y[:upto], batch_size=4, shuffle=False, verbose=0)
        return model.get_weights()

    check_kept_weights(trained(bad, None), trained(np.abs(X), 16))


def check_kept_weights(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_can_be_switched_off(engine):
    model = model_with(Log(name="bad"), engine=engine, stop_on_nonfinite=False)
    found = model.fit(-np.abs(X), Y, epochs=2, verbose=0).history
    assert np.isnan(found["loss"]).all() and len(found["loss"]) == 2
    assert np.isnan(model.get_weights()[0]).any()


def test_terminate_on_nan_stops_quietly(engine, capsys):
    model = model_with(Log(name="bad"), engine=engine)
    found = model.fit(-np.abs(X), Y, epochs=3, verbose=0, callbacks=[callbacks.TerminateOnNaN()]).history
    assert len(found["loss"]) == 1
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_layers_inside_layers_and_loops_are_named(engine):
    class Block(layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.bad = Log(name="bad")

        def call(self, x):
            return self.bad(x) * 1.0

    model = model_with(Block(), engine=engine)
    _, text = watched_fit(model, -np.abs(X), Y)
    assert "'block/bad'" in text


def test_labels_out_of_range(engine):
    """They would give a loss that is not a number; they are found before, or, if the engine holds them, after."""
    x = Input((3,))
    model = Model(x, layers.Dense(3, activation="softmax", name="scores")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", engine=engine)
    before = model.get_weights()
    for wrong in (3, -1):
        labels = np.array([0, 1, 2, wrong] * 6)
        given = [labels, labels[:, None], labels.astype("float32")]
        if engine == "jax":
            with cornu.engine("jax"):
                given.append(ops.convert_to_tensor(labels.astype("int32")))
        for y in given:
            for method in (model.fit, model.train_on_batch):
                with pytest.raises(DataError) as caught:
                    method(X, y, **({"verbose": 0, "shuffle": False} if method == model.fit else {}))
                for part in (f"label {wrong}", "row 3", "'scores'", "3 classes", "0 to 2", "test_guard.py"):
                    assert part in str(caught.value)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    with pytest.raises(DataError, match="label 7"):
        model.evaluate(X, np.full(24, 7), verbose=0)
    with pytest.raises(DataError, match=r"label 0\.5"):
        model.fit(X, np.full(24, 0.5), verbose=0)
    model.compile("sgd", cornu.losses.SparseCategoricalCrossentropy(ignore_class=-1), engine=engine)
    assert np.isfinite(model.fit(X, np.array([0, 1, 2, -1] * 6), verbose=0).history["loss"][0])
