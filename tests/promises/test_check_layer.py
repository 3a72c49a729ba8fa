"""`check_layer` names the promise that a layer breaks, and the line to mend: one deliberately broken layer per promise."""

import inspect
import re

import numpy as np
import pytest

import cornu
from cornu import layers, ops

X = np.linspace(-1, 1, 24).reshape(3, 4, 2).astype("float32")
ENGINES = ["numpy", "jax"]


class Good(layers.Layer):
    def __init__(self, units=3):
        super().__init__()
        self.units = units
        self.dense = layers.Dense(units, activation="tanh")

    def call(self, x):
        w = self.add_weight(name="w", shape=(self.units,), initializer="ones")
        return self.dense(x) * w


class WrongConfig(layers.Layer):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config


class WrongWeights(layers.Layer):
    """Makes other weights from its config than it was made with."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def call(self, x):
        return x @ self.add_weight(name="w", shape=(2, self.units))

    def get_config(self):
        return {**super().get_config(), "units": self.units + 1}


class MixesRows(layers.Layer):
    def call(self, x):
        return x - ops.mean(x, axis=0, keepdims=True)


class Restless(layers.Layer):
    def call(self, x):
        return x + cornu.random.normal(ops.shape(x), seed=None)


class ByEngine(layers.Layer):
    """Does something else to NumPy's arrays."""

    def call(self, x):
        if isinstance(x, np.ndarray):
            return x * 1.5
        return x * 2.0


class StoppedGradient(layers.Layer):
    def call(self, x):
        return x * ops.stop_gradient(ops.tanh(x))


class NotFinite(layers.Layer):
    def call(self, x):
        return ops.where(x > 0, ops.sqrt(x), 0.0)


class IgnoresMask(layers.Layer):
    def call(self, x, mask=None):
        return ops.sum(x, axis=1)


class LosesMask(layers.Layer):
    """Says that it carries masks, and gives one that does not fit."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, x):
        return ops.mean(x, axis=1)


class WrongShape(layers.Layer):
    """Looks whether there is a value, and gives less if there is."""

    def call(self, x):
        return x[:, :2] if hasattr(x, "tobytes") or hasattr(x, "at") else x


class WrongStatedShape(layers.Layer):
    def call(self, x):
        return ops.concatenate([x, x], axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape


class Unsaveable(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


class HiddenLayers(layers.Layer):
    """Holds a layer where a file has no place for it."""

    def __init__(self):
        super().__init__()
        self.held = {"a": (lambda layer: lambda x: layer(x))(layers.Dense(2))}

    def call(self, x):
        return self.held["a"](x)


class FixedBatch(layers.Layer):
    def call(self, x):
        return ops.reshape(x, (3, -1))


class CountsRows(layers.Layer):
    def call(self, x):
        return ops.stack([x[i] for i in range(int(x.shape[0]))])


class FlipsWhenCompiled(layers.Layer):
    """Asks whether it is being compiled."""

    def call(self, x):
        return -x if "Tracer" in type(x).__name__ else x


class EngineNoise(layers.Layer):
    def call(self, x, training=False):
        return x + np.random.default_rng().normal(size=X.shape).astype("float32") if training else x


class TrainsItself(layers.Layer):
    def __init__(self):
        super().__init__()
        self.w = self.add_weight(name="w", shape=(), initializer="ones")

    def call(self, x, training=False):
        if training:
            self.w.assign(self.w * 0.5)
        return x * self.w


class Raises(layers.Layer):
    def call(self, x):
        return x + undefined_name  # noqa: F821


BROKEN = {
    "wrong config": (lambda: WrongConfig(2.0), "config", "get_config", "numbers differ"),
    "wrong weights": (lambda: WrongWeights(2), "config", "get_config", r"made again it has the weights w \(2, 3\)"),
    "mixes rows": (MixesRows, "batch", "call", "the first row alone"),
    "restless": (Restless, "inference", "call", "two calls"),
    "by engine": (ByEngine, "engines", "call", "engine 'numpy' against 'jax'"),
    "stopped gradient": (StoppedGradient, "gradient", "call", "finite differences say"),
    "not finite": (NotFinite, "gradient", "call", "not finite"),
    "ignores mask": (IgnoresMask, "mask", "call", "hides changes the result"),
    "loses mask": (LosesMask, "mask", "call", "has a mask of shape"),
    "wrong shape": (WrongShape, "shape", "call", "inferred"),
    "wrong stated shape": (WrongStatedShape, "shape", "call", "compute_output_shape says"),
    "unsaveable": (lambda: Unsaveable(lambda x: x * 2), "file", "__init__", "has no name"),
    "hidden layers": (HiddenLayers, "file", "__init__", "have no place in the file"),
    "fixed batch": (FixedBatch, "unknown sizes", "call", "a number of elements that 3 divides"),
    "counts rows": (CountsRows, "unknown sizes", "call", "is not known"),
    "compiled": (FlipsWhenCompiled, "compiled", "call", "compiled on 'jax'"),
    "engine noise": (EngineNoise, "training", "call", "in training, engine"),
    "trains itself": (TrainsItself, "training", "call", "changes the trainable weight"),
    "raises": (Raises, "inference", "call", "NameError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(name):
    make, promise, method, words = BROKEN[name]
    layer = make()
    report = cornu.check_layer(layer, X, engines=ENGINES)
    assert not report and promise in report.broken, str(report)
    others = set(report.broken) - {promise}
    # An unrepeatable layer breaks in training as well; nothing else is blamed for what one promise explains.
    assert others <= ({"training"} if promise == "inference" else set()), str(report)
    detail = report.broken[promise]
    assert re.search(words, detail), detail
    lines, start = inspect.getsourcelines(getattr(type(layer), method))
    place = detail[detail.index("to mend: ") :].split(":")
    assert place[1].strip() == __file__, detail
    number = int("".join(c for c in place[2] if c.isdigit()))
    assert start <= number < start + len(lines), detail
    assert promise in str(report) and "to mend" in str(report)


def test_a_good_layer_keeps_all_and_is_left_as_it_was():
    layer = Good()
    with cornu.engine("numpy"):
        layer(X)
    before = layer.get_weights()
    report = cornu.check_layer(layer, X, engines=ENGINES)
    assert report and report.ok and not report.broken, str(report)
    assert {status for _, status, _ in report.rows} <= {"kept"}, str(report)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert str(report).endswith("all promises kept") and __file__ in str(report)


def test_state_is_put_back():
    layer = layers.BatchNormalization()
    with cornu.engine("numpy"):
        layer(X)
    before = layer.get_weights()
    assert cornu.check_layer(layer, X, engines=ENGINES).ok
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_array_arguments_and_structures():
    class Gated(layers.Layer):
        def call(self, x, gate, scale=1.0):
            return x["a"] * ops.expand_dims(gate, -1) * scale + x["b"]

    report = cornu.check_layer(Gated(), {"a": X, "b": X + 1}, engines=ENGINES, gate=X[..., 0], scale=2.0)
    assert report.broken.keys() == {"file"} and "inside a function" in report.broken["file"], str(report)
