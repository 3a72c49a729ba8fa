"""JAX as its users use it: transformations of `stateless_call`, JAX functions and Flax modules as layers."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers
from cornu.core.errors import ArgumentError, EngineError

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = np.stack([X[:, 0] * X[:, 1], X[:, 2]], axis=1)


def network():
    x = Input((4,))
    return Model(x, layers.Dense(2)(layers.Dense(8, activation="tanh")(x)))


def test_jit_grad_and_vmap_of_a_stateless_call():
    model = network()
    values = [jnp.asarray(v.numpy()) for v in model.trainable_variables]

    def call(values, x):
        return model.stateless_call(values, [], x)[0]

    outputs = jax.jit(call)(values, X)
    np.testing.assert_allclose(outputs, model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: call(values, x[None])[0])(X), outputs, rtol=1e-5, atol=1e-6)
    slopes = jax.jit(jax.grad(lambda values: jnp.mean((call(values, X) - Y) ** 2)))(values)
    with cornu.engine("numpy"):
        _, wanted = cornu.value_and_grad(
            lambda: cornu.ops.mean(cornu.ops.square(model(X) - Y)), model.trainable_variables
        )()
    for a, b in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_dropout_under_jit_needs_the_step():
    layer = layers.Dropout(0.5, seed=1)
    with pytest.raises(EngineError, match="every call would draw the same"):
        jax.jit(lambda x: layer(x, training=True))(X)

    @jax.jit
    def drop(x, step):
        with cornu.random.at_step(step):
            return layer(x, training=True)

    assert not np.array_equal(drop(X, 0), drop(X, 1))
    np.testing.assert_array_equal(drop(X, 0), drop(X, 0))


def test_what_a_jitted_function_assigns_is_refused():
    layer = layers.BatchNormalization()
    layer.build((None, 4))
    with pytest.raises(EngineError, match="stateless_call"):
        jax.jit(lambda x: layer(x, training=True))(X)


def test_a_function_of_jax_is_a_layer():
    def init(rng, inputs):
        return {"w": jax.random.normal(rng, (inputs.shape[-1], 8)) * 0.5, "v": jnp.zeros((8, 2))}, {
            "calls": jnp.zeros(())
        }

    def call(params, state, inputs, training):
        calls = state["calls"] + 1 if training else state["calls"]
        return jnp.tanh(inputs @ params["w"]) @ params["v"], {"calls": calls}

    layer = layers.JaxLayer(call, init, seed=3)
    x = Input((4,))
    model = Model(x, layer(x))
    assert model.output_shape == (None, 2)
    model.compile(cornu.optimizers.Adam(0.05), "mse")
    losses = model.fit(X, Y, batch_size=16, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    assert float(layer.state["calls"].numpy()) == 60
    with pytest.raises(EngineError, match="the function 'call'"):
        model.predict(X, verbose=0, engine="numpy")


def test_what_a_jax_layer_cannot_take():
    with pytest.raises(ArgumentError, match="arguments x"):
        layers.JaxLayer(lambda x: x)
    with pytest.raises(ArgumentError, match="takes params"):
        layers.JaxLayer(lambda params, inputs: inputs)


def test_a_module_of_flax_is_a_layer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn = pytest.importorskip("flax.linen")

    class Block(nn.Module):
        @nn.compact
        def __call__(self, inputs, training):
            x = nn.BatchNorm(use_running_average=not training, momentum=0.9)(nn.Dense(8)(inputs))
            x = nn.Dropout(0.1, deterministic=not training)(nn.tanh(x))
            return nn.Dense(2)(x)

    module = Block()
    layer = layers.FlaxLayer(module)
    x = Input((4,))
    model = Model(x, layer(x))
    assert model.output_shape == (None, 2)
    assert (len(layer.trainable_variables), len(layer.non_trainable_variables)) == (6, 2)
    before = layer.non_trainable_variables[0].numpy()
    model.compile(cornu.optimizers.Adam(0.02), "mse")
    losses = model.fit(X, Y, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    assert not np.array_equal(before, layer.non_trainable_variables[0].numpy())
    known = {"params": cornu.tree.map_structure(lambda v: v.numpy(), layer.params)}
    known |= cornu.tree.map_structure(lambda v: v.numpy(), layer.state)
    np.testing.assert_allclose(model.predict(X, verbose=0), module.apply(known, X, False), rtol=1e-5, atol=1e-6)


class Wave(layers.Layer):
    def call(self, x):
        return jnp.concatenate([jnp.sin(x), x], axis=1)[:, ::2]


def test_functions_of_jax_in_a_layer_of_a_graph():
    x = Input((None, 5))
    y = Wave(name="wave")(x)
    assert y.shape == (None, None, 5)
    model = Model(x, y)
    for time in (3, 6):
        assert model.predict(np.ones((2, time, 5), "float32"), verbose=0).shape == (2, time, 5)
    with pytest.raises(EngineError, match="'wave'.*calls a function of jax"):
        model.predict(np.ones((2, 3, 5), "float32"), verbose=0, engine="numpy")


def test_functions_of_two_engines_in_one_model_are_refused():
    torch = pytest.importorskip("torch")
    x = Input((4,))
    y = layers.Lambda(lambda t: jnp.sin(t), name="one")(x)
    with pytest.raises(EngineError, match="'one'.*'other'|'other'.*'one'"):
        Model(x, layers.Lambda(lambda t: torch.cos(t), name="other")(y))


def test_functions_of_numpy_on_symbolic_tensors_are_ops():
    x = Input((3,))
    model = Model(x, np.mean(np.concatenate([np.sin(x), np.clip(x, -1, 1), np.abs(x) ** 2], axis=-1), axis=-1))
    data = X[:, :3]
    wanted = np.mean(np.concatenate([np.sin(data), np.clip(data, -1, 1), np.abs(data) ** 2], axis=-1), axis=-1)
    for engine in cornu.engines.registry.available():
        np.testing.assert_allclose(model.predict(data, verbose=0, engine=engine), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(cornu.errors.UnsupportedError, match="NumPy's 'fft'"):
        np.fft.fft(x)
