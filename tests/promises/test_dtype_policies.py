"""Promise: dtype policies mean what Keras means, on every engine; 64-bit models leave other code at 32 bits."""

import jax.numpy as jnp
import keras
import numpy as np
import pytest

import cornu

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = X[:, :1] - X[:, 1:2]


def _net(k, policy):
    x = k.Input((6,))
    hidden = k.layers.LayerNormalization(dtype=policy)(k.layers.Dense(8, "tanh", dtype=policy)(x))
    return k.Model(x, k.layers.Dense(1, dtype="float64" if policy == "float64" else "float32")(hidden))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16"])
def test_half_width_layers_give_keras_s_numbers(policy, engine):
    judge, ours = _net(keras, policy), _net(cornu, policy)
    ours.set_weights(judge.get_weights())
    assert [w.dtype for w in ours.weights] == [w.dtype for w in judge.weights]
    assert [layer.compute_dtype for layer in ours.layers] == [layer.compute_dtype for layer in judge.layers]
    np.testing.assert_allclose(ours.predict(X, verbose=0), judge.predict(X, verbose=0), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy, engine):
    """The weights stay float32, and training lowers the loss; `mixed_float16` scales it by itself."""
    cornu.mixed_precision.set_dtype_policy(policy)
    try:
        model = cornu.Sequential([cornu.Input((6,)), cornu.layers.Dense(16, "relu"), cornu.layers.Dense(1)])
        model.compile(cornu.optimizers.Adam(0.02), "mse")
    finally:
        cornu.mixed_precision.set_dtype_policy(None)
    assert (type(model.optimizer).__name__ == "LossScaleOptimizer") == (policy == "mixed_float16")
    losses = model.fit(X, Y, epochs=30, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0] and {w.dtype for w in model.weights} == {"float32"}


def test_a_float64_model_is_float64_and_leaves_jax_alone():
    before = jnp.arange(4.0).dtype
    model = _net(cornu, "float64")
    model.compile("sgd", "mse")
    history = {}
    start = model.get_weights()
    for engine in ("jax", "numpy"):
        model.set_weights(start)
        model.fit(X, Y, epochs=3, verbose=0, shuffle=False, engine=engine)
        assert {w.dtype for w in model.weights} == {"float64"}
        history[engine] = model.predict(X, verbose=0, engine=engine)
        assert history[engine].dtype == np.float64
    np.testing.assert_allclose(history["jax"], history["numpy"], rtol=1e-10)
    assert jnp.arange(4.0).dtype == before


def test_the_default_float_is_that_of_new_layers():
    cornu.config.set_floatx("float64")
    try:
        assert cornu.layers.Dense(2).dtype == "float64" and cornu.Input((2,)).dtype == "float64"
        assert cornu.ops.zeros(2).dtype == "float64"
    finally:
        cornu.config.set_floatx("float32")
    assert cornu.layers.Dense(2).dtype == "float32"
