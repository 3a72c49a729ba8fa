"""Steps of one's own: `train_step`, `test_step`, `compute_loss`, and loops by hand, as Keras's guides write them, on every engine."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, Sequential, layers, losses, metrics, ops, optimizers
from cornu.core.errors import ArgumentError, NonFiniteError

ENGINES = ("numpy", "jax")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(20, 4)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2] + 0.5


def graph():
    cornu.utils.set_random_seed(5)
    x = Input((4,))
    return x, layers.Dense(1, name="out")(layers.Dense(6, activation="tanh", name="hidden")(x))


def on_each_engine(run):
    """The numbers a function of the engine's name gives, which are the same on every engine."""
    found = [run(engine) for engine in ENGINES]
    for one, other in zip(found[0], found[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)
    return found[0]


class ByGuide(Model):
    """Keras's guide: a `train_step` and a `test_step` over the compiled loss and metrics."""

    def train_step(self, data):
        x, y = data[:2]
        variables = self.trainable_variables

        def forward():
            y_pred = self(x, training=True)
            return self.compute_loss(y=y, y_pred=y_pred), y_pred

        (loss, y_pred), gradients = cornu.value_and_grad(forward, variables, has_aux=True)()
        self.optimizer.apply(gradients, variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data):
        x, y = data[:2]
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name != "loss":
                metric.update_state(y, y_pred)
            else:
                metric.update_state(loss)
        return {metric.name: metric.result() for metric in self.metrics}


class OwnTrackers(Model):
    """The guide's lowest level: no loss in `compile`, metrics as attributes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = metrics.Mean(name="loss")
        self.mae = metrics.MeanAbsoluteError(name="mae")

    def train_step(self, data):
        x, y, _ = data

        def forward():
            y_pred = self(x, training=True)
            return ops.mean(losses.mean_squared_error(y, y_pred)), y_pred

        (loss, y_pred), gradients = cornu.value_and_grad(forward, self.trainable_variables, has_aux=True)()
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.tracker.update_state(loss)
        self.mae.update_state(y, y_pred)
        return {"loss": self.tracker.result(), "mae": self.mae.result()}

    @property
    def metrics(self):
        return [self.tracker, self.mae]


class OwnLoss(Model):
    """Only `compute_loss`, without `training`, as written before Keras 3.3."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return ops.mean(ops.square(y - y_pred))


@pytest.mark.parametrize("kind", [ByGuide, OwnTrackers, OwnLoss])
def test_each_way_to_write_a_step_trains_as_the_house_s_own(kind):
    def run(engine, kind=kind):
        model = kind(*graph())
        given = (
            {"loss": "mse", "metrics": ["mae"]}
            if kind in (ByGuide, Model)
            else {"metrics": ["mae"]}
            if kind is OwnLoss
            else {}
        )
        model.compile(optimizers.Adam(0.02), **given, engine=engine)
        found = model.fit(X, Y, batch_size=5, epochs=3, verbose=0, shuffle=False).history
        assert set(found) == {"loss", "mae"}
        scores = model.evaluate(X, Y, batch_size=5, verbose=0, return_dict=True) if kind is not OwnTrackers else {}
        return [found["loss"], found["mae"], *model.get_weights(), *scores.values()]

    mine = on_each_engine(run)
    for one, other in zip(mine, run("numpy", Model), strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


class GAN(Model):
    """Two networks and two optimizers, a gradient penalty (a gradient of a gradient), noise, metrics of its own."""

    def __init__(self, discriminator, generator):
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.seeds = cornu.random.SeedGenerator(3)
        self.d_metric, self.g_metric = metrics.Mean(name="d_loss"), metrics.Mean(name="g_loss")

    def compile(self, d_optimizer, g_optimizer, engine):
        super().compile(engine=engine)
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    @property
    def metrics(self):
        return [self.d_metric, self.g_metric]

    def penalty(self, x):
        point = cornu.Variable(np.zeros((5, 4), "float32"))
        slope = cornu.value_and_grad(lambda: ops.sum(self.discriminator(x + point)), point)()[1]
        return ops.mean((ops.sqrt(ops.sum(slope * slope, axis=-1) + 1e-6) - 1.0) ** 2)

    def train_step(self, data):
        real = data[0]
        noise = cornu.random.normal((5, 2), seed=self.seeds)

        def d_forward():
            fake = ops.stop_gradient(self.generator(noise))
            return ops.mean(self.discriminator(fake)) - ops.mean(self.discriminator(real)) + 10.0 * self.penalty(real)

        d_loss, gradients = cornu.value_and_grad(d_forward, self.discriminator.trainable_variables)()
        self.d_optimizer.apply(gradients, self.discriminator.trainable_variables)

        def g_forward():
            return -ops.mean(self.discriminator(self.generator(noise)))

        g_loss, gradients = cornu.value_and_grad(g_forward, self.generator.trainable_variables)()
        self.g_optimizer.apply(gradients, self.generator.trainable_variables)
        self.d_metric.update_state(d_loss)
        self.g_metric.update_state(g_loss)
        return {"d_loss": self.d_metric.result(), "g_loss": self.g_metric.result()}


def test_a_gan_with_two_optimizers():
    def run(engine):
        cornu.utils.set_random_seed(2)
        discriminator = Sequential([Input((4,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
        generator = Sequential([Input((2,)), layers.Dense(8, activation="tanh"), layers.Dense(4)])
        gan = GAN(discriminator, generator)
        gan.compile(optimizers.Adam(0.01), optimizers.SGD(0.05, momentum=0.9), engine)
        found = gan.fit(X, batch_size=5, epochs=3, verbose=0, shuffle=False).history
        assert set(found) == {"d_loss", "g_loss"}
        assert int(gan.d_optimizer.iterations) == int(gan.g_optimizer.iterations) == 12
        slots = [v.numpy() for v in (*gan.d_optimizer.variables, *gan.g_optimizer.variables)]
        assert sum(np.abs(slot).max() > 0 for slot in slots) >= len(slots) - 2
        assert len(gan.trainable_variables) == 8
        return [found["d_loss"], found["g_loss"], *gan.get_weights(), *slots[1:]]

    found = on_each_engine(run)
    assert found[0][0] != found[0][2]


def test_a_loop_by_hand_is_fit():
    """`value_and_grad`, an optimizer and a metric, without `compile`; and what `fit` makes of the same."""

    def run(engine):
        with cornu.engine(engine):
            model = Model(*graph())
            optimizer, mean = optimizers.Adam(0.02), metrics.Mean()
            seen = []
            for _ in range(3):
                mean.reset_state()
                for start in range(0, 20, 5):
                    x, y = X[start : start + 5], Y[start : start + 5]

                    def loss(x=x, y=y):
                        return ops.mean(losses.mean_squared_error(y, model(x, training=True)))

                    value, gradients = cornu.value_and_grad(loss, model.trainable_variables)()
                    optimizer.apply(gradients, model.trainable_variables)
                    mean.update_state(value)
                seen.append(float(mean.result()))
            return [seen, *model.get_weights()]

    by_hand = on_each_engine(run)
    model = Model(*graph())
    model.compile(optimizers.Adam(0.02), "mse", engine="numpy")
    found = model.fit(X, Y, batch_size=5, epochs=3, verbose=0, shuffle=False).history["loss"]
    np.testing.assert_allclose(by_hand[0], found, rtol=1e-5)
    np.testing.assert_allclose(by_hand[1], model.get_weights()[0], rtol=1e-4)


def test_what_a_step_holds_outside_the_model_trains_too(engine):
    """A variable in a closure, and an optimizer in a dict: their state goes on from step to step, and callbacks can set it."""
    scale = cornu.Variable(np.float32(1.0), name="scale")
    held = {"optimizer": optimizers.SGD(0.001, momentum=0.5)}

    class Odd(Model):
        def train_step(self, data):
            def forward():
                return ops.mean((scale * self(data[0]) - data[1]) ** 2)

            loss, gradients = cornu.value_and_grad(forward, [scale])()
            held["optimizer"].apply(gradients, [scale])
            return {"loss": loss, "scale": scale.value}

    cornu.utils.set_random_seed(0)
    x = Input((4,))
    model = Odd(x, layers.Dense(1, kernel_initializer="ones")(x))
    model.compile("sgd", engine=engine)
    scales = []

    def hand(batch, logs):
        scales.append(logs["scale"])
        if batch == 3:
            scale.assign(7.0)

    found = model.fit(
        X, Y, batch_size=4, verbose=0, callbacks=[cornu.callbacks.LambdaCallback(on_train_batch_end=hand)]
    )
    assert len(set(scales)) == 5 and int(held["optimizer"].iterations) == 5
    assert scales[4] > 3 and float(scale) == pytest.approx(found.history["scale"][0])
    model.fit(X, Y, batch_size=4, verbose=0)
    assert int(held["optimizer"].iterations) == 10


def test_a_model_without_a_call_of_its_own_trains(engine):
    """A variational autoencoder, as in Keras's example: no `call`, weights made before the first step."""

    class VAE(Model):
        def __init__(self):
            super().__init__()
            self.encoder = Sequential([Input((4,)), layers.Dense(4)])
            self.decoder = Sequential([Input((2,)), layers.Dense(4)])
            self.seeds = cornu.random.SeedGenerator(1)
            self.total = metrics.Mean(name="total_loss")

        @property
        def metrics(self):
            return [self.total]

        def train_step(self, data):
            def forward():
                found = self.encoder(data[0])
                mean, spread = found[:, :2], found[:, 2:]
                z = mean + ops.exp(0.5 * spread) * cornu.random.normal(ops.shape(mean), seed=self.seeds)
                kl = -0.5 * (1 + spread - ops.square(mean) - ops.exp(spread))
                return ops.mean(ops.sum((data[0] - self.decoder(z)) ** 2, axis=-1)) + ops.mean(ops.sum(kl, axis=1))

            loss, gradients = cornu.value_and_grad(forward, self.trainable_weights)()
            self.optimizer.apply(gradients, self.trainable_weights)
            self.total.update_state(loss)
            return {"total_loss": self.total.result()}

    cornu.utils.set_random_seed(0)
    model = VAE()
    model.compile(optimizers.Adam(0.03), engine=engine)
    found = model.fit(X, batch_size=10, epochs=15, verbose=0).history["total_loss"]
    assert found[-1] < 0.8 * found[0]


def test_the_guard_watches_own_steps(engine):
    class Bad(layers.Layer):
        def call(self, x):
            return ops.log(x)

    x = Input((4,))
    model = OwnTrackers(x, layers.Dense(1)(Bad(name="bad")(x)))
    model.compile("sgd", engine=engine)
    before = model.get_weights()
    with pytest.raises(NonFiniteError, match=r"layer '.*bad', op 'log'"):
        model.fit(-np.abs(X), Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_own_predict_step_and_wrong_logs(engine):
    class Doubled(Model):
        def predict_step(self, data):
            return {"twice": 2 * self(data[0]), "once": self(data[0])}

        def train_step(self, data):
            return 3

    model = Doubled(*graph())
    found = model.predict(X, verbose=0, batch_size=8, engine=engine)
    np.testing.assert_allclose(found["twice"], 2 * found["once"], rtol=1e-6)
    assert found["once"].shape == (20, 1)
    model.compile("sgd", engine=engine)
    with pytest.raises(ArgumentError, match="a dict of logs"):
        model.fit(X, Y, verbose=0)
