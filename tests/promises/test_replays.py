"""Eager calls of a graph take a short way from the fifth on; nobody can tell but by the clock."""

import sys

import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core import tree
from cornu.models.replays import Replays

ENGINES = ["jax", "tensorflow", "torch"]


@pytest.fixture(params=ENGINES)
def engine(request):
    pytest.importorskip(request.param)
    with cornu.engine(request.param):
        yield request.param


def perceptron():
    return cornu.Sequential([cornu.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(3)])


def pictures():
    x = cornu.Input((8, 8, 2))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="gelu", padding="same")(x))
    y = layers.MaxPooling2D()(y) + 1.5
    return cornu.Model(x, layers.Dropout(0.5)(layers.Flatten()(y)))


def encoder():
    x = cornu.Input((5,), dtype="int32")
    y = layers.Embedding(11, 8)(x)
    y = layers.LayerNormalization()(y + layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True))
    return cornu.Model(x, {"last": layers.GlobalAveragePooling1D()(y), "all": y[:, 1:]})


def shared():
    a, b = cornu.Input((6,), name="a"), cornu.Input((6,), name="b")
    dense = layers.Dense(3, activation="softmax")
    both = layers.Concatenate()([dense(a), dense(b)])
    return cornu.Model({"a": a, "b": b}, [both, ops.split(both, 2, axis=-1)[1]])


def half():
    return cornu.Sequential([cornu.Input((6,)), layers.Dense(4, dtype="mixed_bfloat16"), layers.Softmax()])


MODELS = {"perceptron": perceptron, "pictures": pictures, "encoder": encoder, "shared": shared, "half": half}


def inputs_for(model, rows=4):
    rng = np.random.default_rng(3)

    def draw(tensor):
        shape = (rows, *tensor.shape[1:])
        whole = tensor.dtype == "int32"
        return rng.integers(0, 11, shape, "int32") if whole else rng.normal(size=shape).astype("float32")

    return tree.map_structure(draw, model.input)


def host(values):
    return tree.map_structure(ops.convert_to_numpy, values)


def equal(a, b):
    for x, y in zip(tree.leaves(host(a)), tree.leaves(host(b)), strict=True):
        np.testing.assert_array_equal(x, y)


def replayed(model):
    return model._cache["replays"].replayed if "replays" in model._cache else 0


def warm(model, x):
    for _ in range(4):
        model(x)
    model._cache["replays"].replayed = 0
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_same_numbers(engine, name):
    model = MODELS[name]()
    x = inputs_for(model)
    first = model(x)
    warm(model, x)
    values = tree.map_structure(ops.convert_to_tensor, x)
    equal(model(values), first)
    equal(model(x), first)
    assert replayed(model) == 2
    other = inputs_for(model, rows=2)
    equal(model(other), model(other))
    assert replayed(model) == 2, "other shapes have a way of their own"


def test_new_weights_count(engine):
    model = perceptron()
    x = inputs_for(model)
    warm(model, x)
    before = host(model(x))
    model.layers[0].kernel.assign(np.ones((6, 8), "float32"))
    after = host(model(x))
    assert replayed(model) == 2 and not np.allclose(before, after)
    np.testing.assert_allclose(after, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_what_a_layer_holds_counts(engine):
    model = perceptron()
    x = inputs_for(model)
    warm(model, x)
    before = host(model(x))
    model.layers[0].activation = cornu.activations.get("tanh")
    after = host(model(x))
    assert not np.allclose(before, after)
    w, b, v, c = model.get_weights()
    np.testing.assert_allclose(after, np.tanh(x @ w + b) @ v + c, rtol=1e-4, atol=1e-5)


def test_users_code_runs_at_every_call(engine):
    seen = []

    class Mine(layers.Layer):
        def call(self, x):
            seen.append("layer")
            return x * 2

    def activation(x):
        seen.append("function")
        return x

    for layer in (Mine(), layers.Dense(2, activation=activation), layers.Lambda(activation)):
        model = cornu.Sequential([cornu.Input((6,)), layers.Dense(3), layer])
        seen.clear()
        for _ in range(7):
            model(np.ones((2, 6), "float32"))
        assert len(seen) == 7 and replayed(model) == 0


def test_what_is_drawn_or_kept_takes_the_ordinary_way(engine):
    model = pictures()
    x = inputs_for(model)
    moving = model.layers[2].moving_mean
    results = []
    for _ in range(7):
        before = moving.numpy()
        results.append(host(model(x, training=True)))
        assert not np.array_equal(before, moving.numpy())
    assert replayed(model) == 0
    for _ in range(5):
        model(x, training=False)
    assert replayed(model) == 1


def test_penalties_and_masks_take_the_ordinary_way(engine):
    for layer in (layers.Dense(2, activity_regularizer="l2"), layers.ActivityRegularization(0.1)):
        model = cornu.Sequential([cornu.Input((6,)), layer])
        for _ in range(7):
            model(np.ones((2, 6), "float32"))
        assert replayed(model) == 0 and len(model.losses) == 1
    model = cornu.Sequential([cornu.Input((4,), dtype="int32"), layers.Embedding(5, 3, mask_zero=True)])
    for _ in range(7):
        assert cornu.graph.masks.mask_of(model(np.ones((2, 4), "int32"))) is not None
    assert replayed(model) == 0


def test_gradients_follow(engine):
    model = perceptron()
    x = inputs_for(model)
    weights = model.trainable_variables

    def loss():
        return ops.sum(ops.square(model(x)))

    first = cornu.value_and_grad(loss, weights)()
    warm(model, x)
    value, gradients = cornu.value_and_grad(loss, weights)()
    assert replayed(model) > 0
    np.testing.assert_allclose(ops.convert_to_numpy(value), ops.convert_to_numpy(first[0]), rtol=1e-6)
    for mine, before in zip(gradients, first[1], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(mine), ops.convert_to_numpy(before), rtol=1e-5, atol=1e-6)


def test_an_engines_own_autodiff_follows():
    torch = pytest.importorskip("torch")
    tf = pytest.importorskip("tensorflow")
    x = inputs_for(perceptron())
    with cornu.engine("torch"):
        model = warm(perceptron(), torch.from_numpy(x))
        model(torch.from_numpy(x)).square().sum().backward()
        assert replayed(model) == 1
        grads = [v.home.native.grad for v in model.trainable_variables]
        assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
        weights = model.get_weights()
    with cornu.engine("tensorflow"):
        model = perceptron()
        model.set_weights(weights)
        warm(model, tf.constant(x))
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(tf.constant(x)) ** 2)
        assert replayed(model) == 1
        for mine, theirs in zip(tape.gradient(total, model.trainable_variables), grads, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_what_pytorch_s_inference_mode_recorded_serves_with_gradients():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(inputs_for(pictures()))
    with cornu.engine("torch"):
        with torch.inference_mode():
            model = warm(pictures(), x)
        result = model(x)
        result.sum().backward()
    assert replayed(model) == 1
    assert all(v.home.native.grad is not None for v in model.trainable_variables)


def test_a_debugger_sees_the_layers(engine):
    model = perceptron()
    x = inputs_for(model)
    warm(model, x)
    entered = []
    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: entered.append(frame.f_code.co_qualname))
    try:
        model(x)
    finally:
        sys.settrace(before)
    assert "Dense.call" in entered and replayed(model) == 0


def test_errors_are_the_ordinary_ones(engine):
    model = perceptron()
    warm(model, inputs_for(model))
    with pytest.raises(cornu.errors.ShapeError, match="expected"):
        model(np.ones((4, 5), "float32"))
    with pytest.raises(cornu.errors.ShapeError):
        model(np.ones((4,), "float32"))


def test_a_wrong_replay_is_not_taken(engine, monkeypatch):
    from cornu.engines.replay import Replay

    run = Replay.__call__
    monkeypatch.setattr(Replay, "__call__", lambda self, inputs: [value + 1 for value in run(self, inputs)])
    model = perceptron()
    x = inputs_for(model)
    first = host(model(x))
    for _ in range(6):
        equal(model(x), first)
    assert replayed(model) == 0


def test_a_copy_begins_anew(engine):
    import copy

    model = perceptron()
    x = inputs_for(model)
    warm(model, x)
    model(x)
    other = copy.deepcopy(model)
    other.layers[0].kernel.assign(np.zeros((6, 8), "float32"))
    assert replayed(other) == 0
    assert not np.allclose(host(other(x)), host(model(x)))
    assert isinstance(model._cache["replays"], Replays)
