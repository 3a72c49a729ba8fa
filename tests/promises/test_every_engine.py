"""One model, one seed, every engine: the same weights, the same dropout, the same losses; and loops of one's own, written once."""

import threading

import numpy as np
import pytest

import cornu
from cornu import Input, Model, callbacks, layers, ops
from cornu.engines import registry

ENGINES = registry.available()
OTHERS = [name for name in ENGINES if name != "numpy"]
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 12, (80, 6)).astype("int32")
X = RNG.normal(size=(80, 6, 4)).astype("float32")
Y = RNG.integers(0, 3, 80).astype("int32")


def network():
    """Embedding, LSTM, dropout, batch statistics."""
    cornu.utils.set_random_seed(7)
    ids, x = Input((6,), dtype="int32", name="ids"), Input((6, 4), name="x")
    y = layers.Concatenate()([layers.Embedding(12, 4)(ids), x])
    y = layers.LSTM(8)(y)
    y = layers.Dropout(0.3)(layers.BatchNormalization()(layers.Dense(16, activation="relu")(y)))
    model = Model([ids, x], layers.Dense(3, activation="softmax")(y))
    model.compile(cornu.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def curve(engine):
    """The losses of 50 steps, and the weights before and after."""
    model = network()
    first = model.get_weights()
    losses = []
    note = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    model.fit([IDS, X], Y, batch_size=16, epochs=10, verbose=0, engine=engine, callbacks=[note])
    return losses, first, model.get_weights()


@pytest.fixture(scope="module")
def reference():
    return curve("numpy")


@pytest.mark.parametrize("name", OTHERS)
def test_same_seed_same_training(name, reference):
    losses, first, last = curve(name)
    assert len(losses) == 50
    for one, other in zip(first, reference[1], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(losses, reference[0], rtol=1e-4)
    for one, other in zip(last, reference[2], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_dropout_is_the_same_bit_for_bit(name):
    """In a call of one's own, and in a step."""

    def masks(engine):
        cornu.utils.set_random_seed(3)
        layer = layers.Dropout(0.5)
        x = np.ones((16, 8), "float32")
        found = [ops.convert_to_numpy(layer(x, training=True, engine=engine)) for _ in range(2)]
        with cornu.random.at_step(5), cornu.engine(engine):
            found.append(ops.convert_to_numpy(layer(x, training=True)))
        return found

    for one, other in zip(masks(name), masks("numpy"), strict=True):
        np.testing.assert_array_equal(one, other)


def gan_losses(engine):
    """A generator and a discriminator, three rounds."""
    cornu.utils.set_random_seed(1)
    z = Input((3,))
    generator = Model(z, layers.Dense(4)(layers.Dense(8, activation="tanh")(z)))
    x = Input((4,))
    discriminator = Model(x, layers.Dense(1)(layers.LeakyReLU()(layers.Dense(8)(x))))
    loss = cornu.losses.BinaryCrossentropy(from_logits=True)
    updates = [cornu.optimizers.Adam(0.01), cornu.optimizers.Adam(0.01)]
    real = RNG_DATA["real"]
    found = []

    def judge():
        fake = generator(RNG_DATA["noise"], training=True)
        both = ops.concatenate([discriminator(real, training=True), discriminator(fake, training=True)], axis=0)
        wanted = np.concatenate([np.ones((8, 1)), np.zeros((8, 1))]).astype("float32")
        return loss(wanted, both)

    def fool():
        return loss(
            np.ones((8, 1), "float32"), discriminator(generator(RNG_DATA["noise"], training=True), training=True)
        )

    with cornu.engine(engine):
        for _ in range(3):
            for task, model, update in zip((judge, fool), (discriminator, generator), updates, strict=True):
                value, gradients = cornu.value_and_grad(task, model.trainable_variables)()
                update.apply(gradients, model.trainable_variables)
                found.append(float(ops.convert_to_numpy(value)))
    return found


def penalties(engine):
    """A critic held to slopes of 1 (Gulrajani et al., arXiv:1704.00028): a gradient within a gradient."""
    cornu.utils.set_random_seed(2)
    x = Input((4,))
    critic = Model(x, layers.Dense(1)(layers.Dense(8, activation="tanh")(x)))
    point = cornu.Variable(RNG_DATA["real"])
    update = cornu.optimizers.SGD(0.1)
    found = []

    def penalty():
        _, slope = cornu.value_and_grad(lambda: ops.sum(critic(point, training=True)), point)()
        norm = ops.sqrt(ops.sum(ops.square(slope), axis=1))
        return ops.mean(ops.square(norm - 1.0))

    with cornu.engine(engine):
        for _ in range(3):
            value, gradients = cornu.value_and_grad(penalty, critic.trainable_variables)()
            update.apply(gradients, critic.trainable_variables)
            found.append(float(ops.convert_to_numpy(value)))
    return found


RNG_DATA = {
    "real": np.random.default_rng(1).normal(size=(8, 4)).astype("float32"),
    "noise": np.random.default_rng(2).normal(size=(8, 3)).astype("float32"),
}


@pytest.mark.parametrize("task", [gan_losses, penalties])
@pytest.mark.parametrize("name", OTHERS)
def test_loops_written_once(name, task):
    np.testing.assert_allclose(task(name), task("numpy"), rtol=1e-4)


def test_two_threads_on_two_engines():
    """Training on all engines at once gives what each gives alone."""
    serial = {name: curve_of_small(name) for name in ENGINES}
    found, errors = {}, []

    def work(name):
        try:
            for _ in range(2):
                found[name] = curve_of_small(name)
        except Exception as error:
            errors.append((name, error))

    threads = [threading.Thread(target=work, args=(name,)) for name in ENGINES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for name, losses in serial.items():
        np.testing.assert_allclose(found[name], losses, rtol=1e-6, err_msg=name)


def curve_of_small(engine):
    model = cornu.Sequential([Input((4,)), layers.Dense(8, "tanh", kernel_initializer=cornu.initializers.GlorotUniform(3)),
                              layers.Dense(2, kernel_initializer=cornu.initializers.GlorotUniform(4))])  # fmt: skip
    model.compile(cornu.optimizers.SGD(0.1, momentum=0.9), "mse")
    history = model.fit(X[:, 0], X[:, 1, :2], batch_size=16, epochs=3, verbose=0, engine=engine, seed=5)
    return history.history["loss"] + model.predict(X[:4, 0], verbose=0, engine=engine).ravel().tolist()


def test_weights_follow_from_engine_to_engine():
    """Trained a little on each engine in turn, the model goes on where the last one stopped."""
    model, alone = network(), network()
    chosen = [ENGINES[i % len(ENGINES)] for i in range(6)]
    for i, name in enumerate(chosen):
        model.fit([IDS, X], Y, batch_size=40, verbose=0, engine=name, seed=i)
        alone.fit([IDS, X], Y, batch_size=40, verbose=0, engine="numpy", seed=i)
    outputs = {name: model.predict([IDS, X], verbose=0, engine=name) for name in ENGINES}
    wanted = alone.predict([IDS, X], verbose=0, engine="numpy")
    for name, output in outputs.items():
        np.testing.assert_allclose(output, wanted, rtol=1e-3, atol=1e-5, err_msg=name)


def test_values_of_two_engines_in_one_op_are_refused():
    if not {"torch", "jax"} <= set(ENGINES):
        pytest.skip("needs two engines")
    one, other = (registry.get(name).from_host(X) for name in ("torch", "jax"))
    with pytest.raises(cornu.errors.EngineError, match="'jax'.*'torch'|'torch'.*'jax'"):
        ops.add(one, other)


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_takes_and_gives_an_engines_own_values(name):
    """Without being told: the inputs say which engine."""
    model = curve_model()
    engine = registry.get(name)
    found = model(engine.from_host(X[:, 0]))
    assert engine.owns(type(found))
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), model.predict(X[:, 0], verbose=0, engine="numpy"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", OTHERS)
def test_inputs_are_brought_over(name):
    model = curve_model()
    given = registry.get("jax" if name != "jax" else "torch").from_host(X[:, 0])
    found = model(given, engine=name)
    assert registry.get(name).owns(type(found))
    with cornu.engine(name):
        assert registry.get(name).owns(type(model(given)))


def curve_model():
    return cornu.Sequential([Input((4,)), layers.Dense(8, "tanh"), layers.Dense(2)])


def test_weights_move_without_a_copy_where_nobody_can_write_to_them():
    if not {"tensorflow", "jax"} <= set(ENGINES):
        pytest.skip("needs both engines")
    jax, tensorflow = registry.get("jax"), registry.get("tensorflow")
    big = RNG.normal(size=(64, 64)).astype("float32")
    for one, other in ((jax, tensorflow), (tensorflow, jax)):
        value = one.from_host(big)
        moved = other.from_any(value)
        assert other.owns(type(moved)) and np.shares_memory(one.to_host(value), other.to_host(moved))
        np.testing.assert_array_equal(other.to_host(moved), big)
    if "torch" in ENGINES:  # which writes in place
        torch = registry.get("torch")
        value = torch.from_host(big)
        moved = jax.from_any(value)
        value += 1
        np.testing.assert_array_equal(jax.to_host(moved), big)
