"""Wrappers around layers: Keras's numbers, names, masks and gradients, on each engine."""

import functools

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.core import tree
from cornu.core.context import engine_in_force
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers import GRU, LSTM, BatchNormalization, Conv2D, Dense, Dropout, Flatten, Input, Layer
from cornu.layers.recurrent import Bidirectional, Masking, TimeDistributed, Wrapper
from on_gpu import near

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 5, 4)).astype("float32")
IMAGES = rng.normal(size=(2, 3, 5, 5, 2)).astype("float32")
WORDS = rng.normal(size=(2, 3, 4, 2)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 0, 1]], bool)
STATES = list(rng.normal(size=(4, 3, 2)).astype("float32"))

OURS = {
    "GRU": GRU, "LSTM": LSTM, "BatchNormalization": BatchNormalization, "Conv2D": Conv2D, "Dense": Dense,
    "Flatten": Flatten, "Bidirectional": Bidirectional, "TimeDistributed": TimeDistributed,
    "Sequential": cornu.Sequential,
}  # fmt: skip
THEIRS = {name: getattr(keras, name, None) or getattr(keras.layers, name) for name in OURS}
ALL = {"return_sequences": True, "return_state": True}

# a function of the library's classes, the input, arguments of the call
CASES = [
    (lambda m: m["Bidirectional"](m["LSTM"](2)), X, {}),
    (lambda m: m["Bidirectional"](m["LSTM"](2, **ALL)), X, {"mask": MASK, "initial_state": STATES}),
    (lambda m: m["Bidirectional"](m["GRU"](2, return_sequences=True), merge_mode="sum"), X, {"mask": MASK}),
    (lambda m: m["Bidirectional"](m["GRU"](2, return_sequences=True), merge_mode="ave"), X, {}),
    (lambda m: m["Bidirectional"](m["GRU"](2), merge_mode="mul"), X, {"mask": MASK}),
    (lambda m: m["Bidirectional"](m["LSTM"](2, **ALL), merge_mode=None), X, {}),
    (
        lambda m: m["Bidirectional"](m["LSTM"](2), backward_layer=m["GRU"](2, go_backwards=True, name="back")),
        X,
        {},
    ),
    (lambda m: m["TimeDistributed"](m["Dense"](3, activation="softmax")), X, {"mask": MASK}),
    (lambda m: m["TimeDistributed"](m["Conv2D"](3, 2, strides=2)), IMAGES, {}),
    (lambda m: m["TimeDistributed"](m["LSTM"](3)), WORDS, {}),
    (lambda m: m["TimeDistributed"](m["Sequential"]([m["Conv2D"](2, 3), m["Flatten"](), m["Dense"](2)])), IMAGES, {}),
    (lambda m: m["TimeDistributed"](m["BatchNormalization"]()), X, {"training": True}),
    (lambda m: m["TimeDistributed"](m["BatchNormalization"]()), X, {}),
]


@functools.cache
def judge(index):
    """Keras's layer with its first weights, what it gives, the weights after, and its shapes in a graph."""
    make, x, kwargs = CASES[index]
    layer = make(THEIRS)
    layer.build(x.shape)
    for weight in layer.weights:
        if weight.trainable:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape) * 0.5)
    first = layer.get_weights()
    with jax.disable_jit():  # no compiling: faster for few numbers
        outputs = [np.asarray(leaf) for leaf in keras.tree.flatten(layer(x, **kwargs))]
    symbolic = [t.shape for t in keras.tree.flatten(layer(keras.Input(x.shape[1:])))]
    return layer, first, outputs, layer.get_weights(), symbolic


def close(ours, theirs):
    np.testing.assert_allclose(ops.convert_to_numpy(ours), theirs, **near(2e-5, 3e-6))


def short(path):
    return [part.rstrip("_0123456789") for part in path.split("/")]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_same_numbers_names_and_shapes(index, engine):
    make, x, kwargs = CASES[index]
    theirs, first, expected, after, symbolic = judge(index)
    ours = make(OURS)
    graph = ours(Input(x.shape[1:]))
    assert [leaf.spec.keras_shape for leaf in tree.leaves(graph)] == symbolic
    assert [short(w.path) for w in ours.weights] == [short(w.path) for w in theirs.weights]
    assert set(theirs.get_config()) <= set(ours.get_config())
    layers = [ours]
    if engine_in_force().name == "numpy":
        layers.append(type(ours).from_config(ours.get_config()))
        layers[1].build(x.shape)
        assert not {id(w) for w in layers[1].weights} & {id(w) for w in ours.weights}
    for layer in layers:
        layer.set_weights(first)
        for have, want in zip(tree.leaves(layer(x, **kwargs)), expected, strict=True):
            close(have, want)
        for have, want in zip(layer.get_weights(), after, strict=True):
            close(have, want)
    unknown = ours(Input((None, *x.shape[2:])))  # an unknown number of steps
    shapes = [leaf.spec.keras_shape for leaf in tree.leaves(unknown)]
    assert [s for s in shapes if len(s) > 2] == [(s[0], None, *s[2:]) for s in symbolic if len(s) > 2]


@pytest.mark.parametrize("index", [1, 11])
def test_gradients_are_keras_s(index, engine):
    make, x, kwargs = CASES[index]
    theirs, first, *_ = judge(index)
    theirs.set_weights(first)

    def loss(values):
        others = [v.value for v in theirs.non_trainable_variables]
        outputs, _ = theirs.stateless_call(values, others, x, **kwargs)
        return sum(keras.ops.sum(keras.ops.sin(o)) for o in keras.tree.flatten(outputs))

    with jax.disable_jit():
        expected = jax.grad(loss)([v.value for v in theirs.trainable_variables])
    ours = make(OURS)
    ours.build(x.shape)
    ours.set_weights(first)

    def ours_loss():
        return sum(ops.sum(ops.sin(o)) for o in tree.leaves(ours(x, **kwargs)))

    for have, want in zip(cornu.value_and_grad(ours_loss, ours.trainable_variables)()[1], expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(have), np.asarray(want), rtol=3e-4, atol=3e-5)


def test_masks_travel_through_a_graph(engine):
    x = np.where(MASK[..., None], X, 0).astype("float32")
    i = keras.Input((None, 4))
    y = keras.layers.TimeDistributed(keras.layers.Dense(3))(keras.layers.Masking()(i))
    y = keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True))(y)
    theirs = keras.Model(i, keras.layers.Bidirectional(keras.layers.GRU(2))(y))
    i = Input((None, 4))
    y = TimeDistributed(Dense(3))(Masking()(i))
    y = Bidirectional(LSTM(2, return_sequences=True))(y)
    assert y.mask is not None
    y = Bidirectional(GRU(2))(y)
    assert y.mask is None
    ours = cornu.Model(i, y)
    ours.set_weights(theirs.get_weights())
    with jax.disable_jit():
        expected = np.asarray(theirs(x))
    close(ours(x), expected)
    values = x
    for layer in ours.layers[1:]:
        values = layer(values)
    close(values, expected)


class Masked(Layer):
    """A layer that shows the mask it gets and adds to the loss."""

    def call(self, x, mask=None):
        self.add_loss(ops.sum(x))
        return x if mask is None else ops.where(ops.expand_dims(mask, -1), x, -7.0)


def test_time_distributed_hands_over_masks_and_losses(engine):
    layer = TimeDistributed(Masked())
    close(layer(X, mask=MASK), np.where(MASK[..., None], X, -7.0))
    assert len(layer.losses) == 1
    np.testing.assert_allclose(float(layer.losses[0]), X.sum(), rtol=1e-4)


def test_time_distributed_dropout_is_the_same_on_every_engine():
    found = []
    for engine in ("numpy", "jax"):
        with cornu.engine(engine):
            layer = TimeDistributed(Dropout(0.5, seed=1, name="d"), name="t")
            found.append(ops.convert_to_numpy(layer(np.ones((4, 5, 6), "float32"), training=True)))
    assert (found[0] == found[1]).all() and (found[0] != found[0][:, :1]).any()


def test_bidirectional_states_and_weights(engine):
    layer = Bidirectional(LSTM(2, stateful=True))
    layer.build((3, 5, 4))
    assert len(layer.states) == 4 and len(layer.weights) == 6
    first = ops.convert_to_numpy(layer(X))
    assert np.abs(ops.convert_to_numpy(layer(X)) - first).max() > 1e-4
    layer.reset_state()
    close(layer(X), first)
    copy = Bidirectional(LSTM(2), weights=layer.get_weights())
    close(copy(X), first)
    kernels = Bidirectional(LSTM(2))
    kernels.build((3, 5, 4))
    assert (kernels.get_weights()[0] != kernels.get_weights()[3]).any()
    with pytest.raises(ArgumentError, match="stateful"):
        copy.reset_state()


REFUSED = [
    (lambda: Bidirectional("lstm"), ArgumentError, "a layer"),
    (lambda: Bidirectional(Dense(2)), ArgumentError, "over time"),
    (lambda: Bidirectional(LSTM(2), merge_mode="add"), ArgumentError, "merge_mode"),
    (lambda: Bidirectional(LSTM(2), backward_layer=LSTM(2)), ArgumentError, "go_backwards"),
    (
        lambda: Bidirectional(LSTM(2), backward_layer=LSTM(2, go_backwards=True, return_state=True)),
        ArgumentError,
        "return_state",
    ),
    (lambda: Bidirectional(LSTM(2))(X, initial_state=STATES[:3]), ShapeError, "even number"),
    (lambda: TimeDistributed(3), ArgumentError, "a layer"),
    (lambda: TimeDistributed(Dense(2))(X[0]), ShapeError, "3 axes"),
    (lambda: TimeDistributed(Dense(2))(X, mask=MASK[:, :2]), ShapeError, "mask"),
    (lambda: Wrapper(None), ArgumentError, "a layer"),
]


@pytest.mark.parametrize(("make_it", "error", "words"), REFUSED)
def test_refused(make_it, error, words):
    with pytest.raises(error, match=words):
        make_it()
