"""Binding by name: inputs, targets, losses and weights; arguments given in the graph hold; `trainable` is obeyed."""

import numpy as np
import pytest

import cornu
from cornu import layers
from cornu.core.errors import BindingError, ShapeError

ONE, TWO = np.ones((4, 3), "float32"), 2 * np.ones((4, 3), "float32")


class Record(layers.Layer):
    """Ten times its input when it trains."""

    def call(self, x, training=False):
        return x * 10.0 if training else x


def two():
    a, b = cornu.Input((3,), name="image"), cornu.Input((3,), name="text")
    return a, b


def difference(structure):
    a, b = two()
    return cornu.Model(structure(a, b), a - 10 * b)


def by_dict(a, b):
    return {"image": a, "text": b}


def by_reversed_dict(a, b):
    return {"text": b, "image": a}


def by_list(a, b):
    return [a, b]


@pytest.mark.parametrize("structure", [by_dict, by_reversed_dict, by_list])
def test_inputs_by_name(structure, engine):
    model = difference(structure)
    for given in ({"image": ONE, "text": TWO}, {"text": TWO, "image": ONE}):
        np.testing.assert_allclose(model(given), -19 * ONE)
        np.testing.assert_allclose(model.predict(given, verbose=0), -19 * ONE)


@pytest.mark.parametrize("structure", [by_dict, by_list])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": ONE, "txet": TWO}, "'txet'.*did you mean 'text'"),
        ({"image": ONE}, "without 'text'"),
        ({"image": ONE, "text": TWO, "extra": ONE}, "'extra'"),
    ],
)
def test_wrong_keys(structure, given, message):
    model = difference(structure)
    with pytest.raises(BindingError, match=message):
        model(given)
    with pytest.raises(BindingError, match=message):
        model.predict(given, verbose=0)


def test_an_extra_key_that_keras_takes_for_an_input():
    # Keras 3.15.1 sorts the keys and takes the first two: its answer here is 300 instead of 3.
    a, b = cornu.Input((1,), name="b"), cornu.Input((1,), name="c")
    model = cornu.Model({"b": a, "c": b}, a + b)
    with pytest.raises(BindingError, match="'a'"):
        model({"a": np.array([[299.0]]), "b": np.array([[1.0]]), "c": np.array([[2.0]])})
    np.testing.assert_allclose(model({"c": np.array([[2.0]]), "b": np.array([[1.0]])}), [[3.0]])


def test_wrong_structures():
    model = difference(by_list)
    for given in ([ONE], ONE, [ONE, TWO, ONE]):
        with pytest.raises(BindingError, match="list of 2"):
            model(given)
    with pytest.raises(BindingError, match="dict with the keys"):
        difference(by_dict)([ONE, TWO])
    with pytest.raises(ShapeError, match=r"'image'.*"):
        model([np.ones((4, 5)), TWO])


def outputs():
    a, b = two()
    model = cornu.Model([a, b], {"small": layers.Dense(1, name="d1")(a), "large": layers.Dense(2, name="d2")(b)})
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    return model


SMALL, LARGE = np.ones((4, 1), "float32"), 2 * np.ones((4, 2), "float32")


def test_targets_losses_and_weights_by_name(engine):
    results = []
    for order in (list, lambda items: list(reversed(list(items)))):

        def ordered(given, order=order):
            return dict(order(given.items()))

        model = outputs()
        model.compile(
            "sgd", ordered({"small": "mse", "large": "mae"}), loss_weights=ordered({"small": 10.0, "large": 100.0})
        )
        y = ordered({"small": SMALL, "large": LARGE})
        weight = ordered({"small": np.full(4, 1.0), "large": np.full(4, 0.5)})
        results.append(model.evaluate([ONE, TWO], y, sample_weight=weight, return_dict=True, verbose=0))
        history = model.fit({"text": TWO, "image": ONE}, y, sample_weight=weight, verbose=0)
        np.testing.assert_allclose(history.history["loss"], [10 * 1 + 100 * 2 * 0.5], rtol=1e-5)
    assert results[0] == pytest.approx(results[1]) and results[0]["loss"] == pytest.approx(110.0)
    assert results[0]["small_loss"] == pytest.approx(1.0) and results[0]["large_loss"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"loss": {"smal": "mse", "large": "mae"}}, "'smal'.*did you mean 'small'"),
        ({"loss": "mse", "loss_weights": {"small": 1.0, "lage": 1.0}}, "'lage'.*did you mean 'large'"),
        ({"loss": "mse", "metrics": {"smalll": "mae"}}, "'smalll'.*did you mean 'small'"),
        ({"loss": "mse", "y": {"small": SMALL, "lagre": LARGE}}, "lagre"),
        ({"loss": "mse", "y": {"small": SMALL}}, "large"),
        ({"loss": "mse", "y": {"small": SMALL, "large": LARGE, "more": LARGE}}, "more"),
        ({"loss": "mse", "sample_weight": {"small": np.ones(4), "larg": np.ones(4)}}, "larg"),
    ],
)
def test_misspelt_names_in_training(what, message):
    model = outputs()
    y = what.pop("y", {"small": SMALL, "large": LARGE})
    weight = what.pop("sample_weight", None)
    model.compile("sgd", **what)
    with pytest.raises(BindingError, match=message):
        model.fit([ONE, TWO], y, sample_weight=weight, verbose=0)


def test_training_given_in_the_graph_holds(engine):
    x = cornu.Input((3,))
    inner_x = cornu.Input((3,))
    base = cornu.Model(
        inner_x, layers.Dropout(0.9)(layers.BatchNormalization(name="bn")(Record()(inner_x))), name="base"
    )
    model = cornu.Model(x, layers.Dense(1, name="head")(base(x, training=False)))
    model.compile("sgd", "mse")
    data = np.random.default_rng(0).normal(3.0, 2.0, (8, 3)).astype("float32")
    moving = base.get_layer("bn").moving_mean
    model.fit(data, data[:, :1], epochs=2, verbose=0)
    np.testing.assert_array_equal(moving.numpy(), np.zeros(3))
    part = cornu.Model(model.input, model.get_tensor("base"))
    np.testing.assert_allclose(part(data, training=True), base(data, training=False), rtol=1e-6)
    again = cornu.Model.from_config(model.get_config())
    again.compile("sgd", "mse")
    again.fit(data, data[:, :1], verbose=0)
    np.testing.assert_array_equal(again.get_layer("base").get_layer("bn").moving_mean.numpy(), np.zeros(3))
    free = cornu.Model(x, base(x))
    free.compile("sgd", "mse")
    free.fit(data, data, verbose=0)
    assert np.abs(moving.numpy()).max() > 0
    always = cornu.Model(x, base(x, training=True))
    assert not np.allclose(always.predict(data, verbose=0), base(data, training=False))


def changes(model, x, y, step):
    before = [v.numpy().copy() for v in model.weights]
    step(x, y)
    return {v.path for v, old in zip(model.weights, before, strict=True) if np.abs(v.numpy() - old).max() > 0}


def test_trainable_is_obeyed_by_the_next_step(engine):
    x = cornu.Input((3,))
    inner_x = cornu.Input((3,))
    inner = cornu.Model(inner_x, layers.Dense(3, name="deep")(inner_x), name="inner")
    model = cornu.Model(x, layers.Dense(1, name="head")(inner(x)))
    model.compile(cornu.optimizers.Adam(0.1), "mse")
    data = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")

    def changed():
        return changes(model, data, data[:, :1], model.train_on_batch)

    deep, head = {v.path for v in inner.weights}, {v.path for v in model.get_layer("head").weights}
    assert changed() == deep | head
    inner.trainable = False
    assert changed() == head and not inner.get_layer("deep").trainable
    inner.get_layer("deep").trainable = True
    assert changed() == deep | head
    model.get_layer("head").kernel.trainable = False
    assert changed() == deep | {v.path for v in model.get_layer("head").weights if v.name == "bias"}


class Freeze(cornu.callbacks.Callback):
    """Sets `trainable` of a layer in the middle of fit."""

    def __init__(self, layer, at, to):
        super().__init__()
        self.layer, self.at, self.to, self.seen = layer, at, to, []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.at:
            self.layer.trainable = self.to

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.layer.kernel.numpy().copy())


@pytest.mark.parametrize("to", [False, True])
def test_trainable_set_in_a_callback(to, engine):
    x = cornu.Input((3,))
    layer = layers.Dense(3, name="layer", trainable=not to)
    model = cornu.Model(x, layers.Dense(1)(layer(x)))
    model.compile(cornu.optimizers.Adam(0.1), "mse")
    data = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    watch = Freeze(layer, 3, to)
    start = layer.kernel.numpy().copy()
    model.fit(data, data[:, :1], batch_size=2, callbacks=[watch], verbose=0)
    moved = [np.abs(b - a).max() > 0 for a, b in zip([start, *watch.seen], watch.seen, strict=False)]
    assert moved == [not to] * 3 + [to] * 3
