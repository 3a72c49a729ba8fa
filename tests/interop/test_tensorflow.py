"""TensorFlow as its users use it: tensors in and out, tapes, `tf.function`, `tf.data`, `tf.Module`, functions of TensorFlow in layers."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers
from cornu.core.errors import BuildError, EngineError

tf = pytest.importorskip("tensorflow")

X = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
Y = (X @ np.random.default_rng(1).normal(size=(5, 3))).astype("float32")


def network(dropout=0.0):
    cornu.utils.set_random_seed(1)
    x = Input((5,))
    y = layers.BatchNormalization()(layers.Dense(4, activation="tanh")(x))
    return Model(x, layers.Dense(3)(layers.Dropout(dropout, seed=2)(y)))


def test_tensors_in_and_out():
    model = network()
    found = model(tf.constant(X))
    assert isinstance(found, tf.Tensor) and found.device.endswith("CPU:0")
    np.testing.assert_allclose(found.numpy(), model.predict(X, verbose=0, engine="numpy"), rtol=1e-5, atol=1e-6)
    assert isinstance(cornu.ops.matmul(tf.constant(X), tf.constant(Y[:5])), tf.Tensor)


def test_a_gradient_tape_around_a_model():
    model = network()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(tf.constant(X), training=True) - Y) ** 2)
    found = tape.gradient(loss, model.trainable_variables)
    again = network()
    with cornu.engine("numpy"):
        task = lambda: cornu.ops.mean(cornu.ops.square(again(X, training=True) - Y))
        value, wanted = cornu.value_and_grad(task, again.trainable_variables)()
    np.testing.assert_allclose(float(loss), float(value), rtol=1e-5)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=1e-4, atol=1e-6)


def fitted(engine):
    model = network()
    model.compile(cornu.optimizers.Adam(0.05), "mse")
    losses = model.fit(X, Y, batch_size=32, shuffle=False, epochs=20, verbose=0, engine=engine).history["loss"]
    return losses, model


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loop_of_ones_own_equals_fit(compiled):
    """Forward, tape, our optimizer and our metric, eagerly and under `tf.function`."""
    model = network()
    optimizer, metric = cornu.optimizers.Adam(0.05), cornu.metrics.MeanSquaredError()

    def step(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = tf.reduce_mean((outputs - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        metric.update_state(y, outputs)
        return loss, metric.result()

    run = tf.function(step) if compiled else step
    found = []
    for _ in range(20):
        metric.reset_state()
        loss, mean = run(tf.constant(X), tf.constant(Y))
        found.append(float(loss))
        np.testing.assert_allclose(float(cornu.ops.convert_to_numpy(mean)), found[-1], rtol=1e-5)
    losses, other = fitted("jax")
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    # What the loop did is there on every engine; moving averages were assigned in the graph.
    for engine in ("numpy", "jax", "tensorflow"):
        outputs = model.predict(X, verbose=0, engine=engine)
        np.testing.assert_allclose(outputs, other.predict(X, verbose=0, engine="jax"), rtol=1e-3, atol=1e-4)


def test_a_function_with_a_free_batch():
    model = network()

    @tf.function(input_signature=[tf.TensorSpec((None, 5))])
    def call(x):
        return model(x, training=False)

    for rows in (1, 7, 32):
        np.testing.assert_allclose(
            call(X[:rows]), model.predict(X[:rows], verbose=0, engine="numpy"), rtol=1e-5, atol=1e-6
        )
    model.set_weights([w * 2 for w in model.get_weights()])  # the graph reads the weights as they are
    np.testing.assert_allclose(call(X), model.predict(X, verbose=0, engine="numpy"), rtol=1e-5, atol=1e-6)


def test_dropout_in_a_function_draws_anew_at_each_call():
    layer = layers.Dropout(0.5, seed=1)
    call = tf.function(lambda x: layer(x, training=True))
    one, other = call(tf.ones((4, 8))).numpy(), call(tf.ones((4, 8))).numpy()
    assert not np.array_equal(one, other)
    generator = cornu.random.SeedGenerator(1)
    draw = tf.function(lambda: cornu.random.uniform((4,), seed=generator))
    with cornu.engine("tensorflow"):
        assert not np.array_equal(draw().numpy(), draw().numpy())


def test_a_dataset_goes_into_fit():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).prefetch(1)
    for engine in ("tensorflow", "jax"):
        one, other = network(), network()
        for model in (one, other):
            model.compile(cornu.optimizers.SGD(0.05), "mse")
        found = one.fit(data, epochs=2, verbose=0, engine=engine, validation_data=data).history
        wanted = other.fit(X, Y, batch_size=8, shuffle=False, epochs=2, verbose=0, engine="numpy").history
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-4)
        assert len(found["val_loss"]) == 2


class Own(Model):
    def train_step(self, data):
        x, y = data[:2]
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize("eager", [False, True])
def test_a_train_step_with_a_tape(eager):
    plain = network()
    model = Own(plain.input, plain.output)
    model.compile(cornu.optimizers.Adam(0.05), "mse", run_eagerly=eager)
    found = model.fit(X, Y, batch_size=32, shuffle=False, epochs=20, verbose=0, engine="tensorflow").history["loss"]
    np.testing.assert_allclose(found, fitted("numpy")[0], rtol=1e-4)


class Mixed(layers.Layer):
    def __init__(self):
        self.inner = layers.Dense(4)

    def call(self, x):
        scale = self.add_weight(shape=(4,), initializer="ones", name="scale")
        return tf.concat([tf.nn.relu(self.inner(x)) * scale, tf.math.sin(x)], axis=-1)


def test_functions_of_tensorflow_in_a_layer_of_a_graph():
    x = Input((None, 5))
    hidden = Mixed(name="mixed")(x)
    assert hidden.shape == (None, None, 9)
    model = Model(x, layers.GlobalAveragePooling1D()(hidden))
    model.compile(cornu.optimizers.Adam(0.05), loss=lambda t, p: tf.reduce_mean(tf.square(t - p), axis=-1))
    series, wanted = np.stack([X, X + 1], axis=1), np.repeat(X[:, :1], 9, axis=1)
    losses = model.fit(series, wanted, epochs=10, verbose=0).history["loss"]  # bound to TensorFlow without being told
    assert losses[-1] < losses[0]
    for time in (1, 3):
        assert model.predict(np.ones((2, time, 5), "float32"), verbose=0).shape == (2, 9)
    with pytest.raises(EngineError, match=r"'mixed' \(Mixed\) calls tensorflow's relu") as caught:
        model.predict(series, engine="jax", verbose=0)
    assert "engine='tensorflow'" in str(caught.value)


def test_a_loss_of_tensorflow_on_another_engine_says_what_to_do():
    model = network()
    model.compile("sgd", loss=lambda t, p: tf.reduce_mean(tf.square(t - p), axis=-1))
    with pytest.raises(EngineError, match="a loss or metric.*calls tensorflow's") as caught:
        model.fit(X, Y, engine="jax", verbose=0)
    assert "fit(..., engine='tensorflow')" in str(caught.value)


def test_a_model_in_a_tf_module_is_saved_with_it(tmp_path):
    from cornu.interop.tensorflow import Module

    class Net(tf.Module):
        def __init__(self, model):
            super().__init__()
            self.body = Module(model)
            self.scale = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 5))])
        def __call__(self, x):
            return self.scale * self.body(x, training=False)

    model = network()
    net = Net(model)
    assert (len(net.trainable_variables), len(net.variables)) == (7, 9)
    optimizer_step = [tf.ones_like(v) * 0.1 for v in net.body.trainable_variables]
    for variable, change in zip(net.body.trainable_variables, optimizer_step, strict=True):
        variable.assign_add(change)  # as an optimizer of TensorFlow would: the model sees it
    tf.saved_model.save(net, str(tmp_path / "net"))
    loaded = tf.saved_model.load(str(tmp_path / "net"))
    wanted = model.predict(X, verbose=0, engine="numpy")
    np.testing.assert_allclose(loaded(X), 2 * wanted, rtol=1e-4, atol=1e-5)
    tf.saved_model.save(net.body, str(tmp_path / "body"))
    served = tf.saved_model.load(str(tmp_path / "body"))
    np.testing.assert_allclose(served.serve(X[:7]), wanted[:7], rtol=1e-4, atol=1e-5)
    with pytest.raises(BuildError, match="not made yet"):
        Module(layers.Dense(3))


def test_a_home_on_two_engines_is_refused():
    """A gradient that one of them would not see must not be lost silently."""
    pytest.importorskip("torch")
    model = network()
    model(X, engine="torch")
    with tf.GradientTape(), pytest.raises(EngineError, match="lives in a Parameter of engine 'torch'") as caught:
        model(tf.constant(X))
    assert "leave_home" in str(caught.value)
    for variable in model.variables:
        variable.leave_home()
    model(tf.constant(X))
