"""Functional models: structures, sharing, nesting, cutting, cloning, configs; names and order as in Keras."""

import json

import keras
import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import ArgumentError, BuildError, GraphError, UnsupportedError
from cornu.models import clone_model

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


class MaybeAdd(layers.Layer):
    """The sum, or the first alone."""

    def call(self, x, y=None):
        return x if y is None else x + y


class Halves(layers.Layer):
    """Two outputs by name."""

    def call(self, x):
        return {"low": x[:, :2], "high": x[:, 2:]}


class Twice(cornu.Model):
    """A subclass with a call of its own."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(self.dense(x))


def inputs(*names, shape=(4,)):
    return [cornu.Input(shape, name=name) for name in names]


def structured():
    a, b, c = inputs("a", "b", "c")
    return cornu.Model({"p": [a, (b,)], "q": c}, {"s": a + b, "t": [c * 2, (a - b,)]}), {"q": X * 3, "p": [X, (X * 2,)]}


def shared():
    (x,) = inputs("x")
    dense = layers.Dense(4, name="shared")
    return cornu.Model(x, dense(dense(x) * 2) + np.sin(x)), X


def nested():
    x, y = inputs("x", "y")
    dense = layers.Dense(4, name="both")
    inner = cornu.Model(x, dense(ops.tanh(x)), name="inner")
    return cornu.Model([x, y], [inner(y) + dense(x), inner(x)], name="outer"), [X, X + 1]


def named_outputs():
    (x,) = inputs("x")
    parts = Halves(name="halves")(x)
    return cornu.Model(x, {"high": layers.Dense(2, name="d")(parts["high"]), "low": parts["low"]}), X


def listed():
    (x,) = inputs("x")
    y = ops.concatenate([x, ops.mean(x, axis=1, keepdims=True), ops.split(x, 2, axis=1)[1]], axis=-1)
    return cornu.Model([x], [ops.expand_dims(y, 1)[:, 0, 1:], MaybeAdd()(x, y=x)]), [X]


MODELS = [structured, shared, nested, named_outputs, listed]


def equal(found, wanted):
    assert cornu.tree.same_structure(found, wanted)
    for a, b in zip(cornu.tree.leaves(found), cornu.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", MODELS)
def test_config_round_trip_and_clone(make):
    model, x = make()
    wanted = model.predict(x, engine="numpy", verbose=0)
    equal(model.predict(x, engine="jax", verbose=0), wanted)
    for given in (model.get_config(), json.loads(json.dumps(model.get_config()))):
        again = cornu.Model.from_config(given)
        again.set_weights(model.get_weights())
        found = again.predict(x, engine="numpy", verbose=0)
        equal(cornu.tree.leaves(found), cornu.tree.leaves(wanted))
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    copy = clone_model(model)
    assert len(copy.weights) == len(model.weights) and not {id(v) for v in copy.weights} & {
        id(v) for v in model.weights
    }
    copy.set_weights(model.get_weights())
    equal(copy.predict(x, engine="numpy", verbose=0), wanted)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]


def test_structures():
    model, x = structured()
    found = model(x)
    equal(found, {"s": X * 3, "t": [X * 6, (-X,)]})
    assert model.output_shape == {"s": (None, 4), "t": [(None, 4), ((None, 4),)]}


def test_both_calls_of_a_shared_layer_and_any_op_can_be_cut():
    model, x = shared()
    kernel, bias = model.get_weights()
    first = X @ kernel + bias
    for path, wanted in {
        "shared": first,
        "multiply": first * 2,
        "shared@1": first * 2 @ kernel + bias,
        "sin": np.sin(X),
    }.items():
        part = cornu.Model(model.input, model.get_tensor(path))
        np.testing.assert_allclose(part.predict(x, verbose=0), wanted, rtol=1e-5, atol=1e-5)
        assert not part.weights or part.weights[0] is model.weights[0]
    with pytest.raises(BuildError, match="called 2 times"):
        _ = model.get_layer("shared").output
    with pytest.raises(ArgumentError, match="did you mean 'shared@1'"):
        model.get_tensor("shard@1")


def test_head_and_tail():
    (x,) = inputs("x")
    h = layers.Dense(3, name="h")(x)
    model = cornu.Model(x, layers.Dense(2, name="out")(ops.relu(h)))
    head = cornu.Model(model.input, model.get_layer("h").output)
    tail = cornu.Model(h, model.output)
    np.testing.assert_allclose(
        tail.predict(head.predict(X, verbose=0), verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert [layer.name for layer in tail.layers] == ["h", "out"] and len(tail.weights) == 2
    assert model.get_layer("out").output is model.output  # cutting told the layers nothing
    again = cornu.Model.from_config(tail.get_config())
    again.set_weights(tail.get_weights())
    np.testing.assert_allclose(again(np.ones((2, 3))), tail(np.ones((2, 3))), rtol=1e-6)


def test_a_layer_shared_with_a_nested_model_is_trained_and_cloned_once():
    model, x = nested()
    assert len(model.weights) == 2
    copy = clone_model(model)
    assert len(copy.weights) == 2 and copy.get_layer("inner").get_layer("both") is copy.get_layer("both")
    model.compile("sgd", "mse")
    before = model.get_weights()[0]
    model.fit(x, [X, X], verbose=0)
    assert np.abs(model.get_weights()[0] - before).max() > 0


def test_clone_functions():
    model, x = shared()
    model.compile("adam", "mse", metrics=["mae"])
    seen = []

    def call(operation, *args, **kwargs):
        seen.append(operation.name)
        return operation(*args, **kwargs)

    copy = clone_model(
        model, cornu.Input((4,), name="other"), lambda layer: layers.Dense(4, use_bias=False, name=layer.name), call
    )
    assert len(copy.weights) == 1 and copy.input_names == ["other"] and seen.count("shared") == 2
    assert copy.compiled and copy.optimizer is not model.optimizer
    stack = cornu.Sequential([cornu.Input((4,)), layers.Dense(2), layers.Dense(1)])
    assert clone_model(stack).count_params() == stack.count_params()
    with pytest.raises(UnsupportedError, match="Functional or Sequential"):
        clone_model(Twice())
    with pytest.raises(ArgumentError, match="structure"):
        clone_model(nested()[0], cornu.Input((4,)))


def test_optional_input(engine):
    a, b = cornu.Input((4,), name="a"), cornu.Input((4,), name="b", optional=True)
    model = cornu.Model([a, b], MaybeAdd()(a, b))
    for given in ([X, None], {"a": X}, {"a": X, "b": None}):
        np.testing.assert_allclose(model(given), X)
        np.testing.assert_allclose(model.predict(given, verbose=0), X)
    np.testing.assert_allclose(model([X, X]), 2 * X)
    again = cornu.Model.from_config(model.get_config())
    np.testing.assert_allclose(again([X, None]), X)


def test_numpy_functions_become_ops():
    (x,) = inputs("x")
    y = np.concatenate(
        [np.sin(x), np.add(1, x), np.maximum(x, 0.0), np.sum(x, axis=1, keepdims=True), np.exp(x) + np.float32(2)],
        axis=-1,
    )
    wanted = [np.sin(X), X + 1, np.maximum(X, 0), X.sum(1, keepdims=True), np.exp(X) + 2]
    np.testing.assert_allclose(cornu.Model(x, y)(X), np.concatenate(wanted, -1), rtol=1e-5, atol=1e-6)


def test_subclasses(engine):
    model = Twice()
    x = cornu.Input((4,))
    outer = cornu.Model(x, model(x) + 1)
    np.testing.assert_allclose(outer(X), np.asarray(model(X)) + 1, rtol=1e-6)
    assert len(outer.weights) == 2
    again = cornu.Model.from_config(outer.get_config())
    again.set_weights(outer.get_weights())
    np.testing.assert_allclose(again(X), outer(X), rtol=1e-6)


def test_what_cannot_be_a_model():
    x, y = inputs("x", "y")
    with pytest.raises(GraphError, match="'y'"):
        cornu.Model(x, x + y)
    with pytest.raises(GraphError, match="two layers named 'd'"):
        cornu.Model(x, layers.Dense(2, name="d")(layers.Dense(2, name="d")(x)))
    with pytest.raises(GraphError, match="outputs"):
        cornu.Model(x, 3)
    with pytest.raises(GraphError, match="same tensor"):
        cornu.Model([x, x], x + 1)


def test_sequential_grows_call_by_call():
    model = cornu.Sequential([cornu.Input((4,))])
    for i in range(4):
        model.add(layers.Dense(3, name=f"d{i}"))
    part = cornu.Model(model.input, model.get_layer("d1").output)
    assert model.pop().name == "d3" and model.output_shape == (None, 3) and len(part.weights) == 4
    model.add(layers.Dense(7, name="d3"))
    assert model.output_shape == (None, 7) and model.predict(X, verbose=0).shape == (5, 7)


# ---------------------------------------------------------------- Keras's order


def order_branches(k):
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    d = k.layers.Dense(4, name="d")
    x = k.layers.Dense(4, name="first")(b)
    y = k.layers.Dense(4, name="second")(d(a))
    z = k.layers.Dense(4, name="third")(y)
    return k.Model([b, a], [k.layers.Dense(1, name="out")(x + z), d(x)])


def order_skips(k):
    a = k.Input((4,), name="a")
    x = a
    for i in range(3):
        y = k.layers.Dense(4, name=f"up{i}")(x)
        x = k.layers.Add(name=f"add{i}")([x, k.layers.Dense(4, name=f"down{i}")(y)])
    late = k.layers.Dense(2, name="late")(a)
    return k.Model(a, {"z": x, "b": late})


def order_nested(k):
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    shared = k.layers.Dense(4, name="shared")
    inner = k.Model([a, b], k.ops.multiply(shared(b), k.layers.Dense(4, name="own")(a)), name="inner")
    c, d = k.Input((4,), name="x"), k.Input((4,), name="y")
    return k.Model({"y": d, "x": c}, k.layers.Dense(1, name="out")(shared(inner([d, shared(c)]))), name="outer")


def order_same_depth(k):
    ins = [k.Input((4,), name=f"i{i}") for i in range(3)]
    outs = [k.layers.Dense(2, name=f"o{i}")(x) for i, x in reversed(list(enumerate(ins)))]
    return k.Model(ins, k.layers.Concatenate(name="c")([outs[1], outs[0], k.layers.Dense(2, name="deep")(outs[2])]))


@pytest.mark.parametrize("make", [order_branches, order_skips, order_nested, order_same_depth])
def test_order_is_that_of_keras(make):
    ours, theirs = make(cornu), make(keras)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    assert [tuple(v.shape) for v in ours.weights] == [tuple(v.shape) for v in theirs.weights]
    assert [v.path for v in ours.weights] == [v.path for v in theirs.weights]
    assert ours.input_names == [t._keras_history.operation.name for t in theirs.inputs]
    names = [layer["name"] for layer in ours.get_config()["layers"]]
    assert [n for n in names if n in {layer.name for layer in ours.layers}] == [layer.name for layer in theirs.layers]
