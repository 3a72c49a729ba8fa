"""A class with `__init__` and `call` is a whole layer: shapes, config, files, engines and training follow.

The table holds one layer per way of writing one, Keras's own idioms among them; every promise is tested on every row.
"""

import collections
import dataclasses
import functools
import subprocess
import sys
import types
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import ArgumentError, BuildError, EngineError, SavingError
from cornu.graph import masks

X = np.linspace(-1, 1, 24).reshape(4, 6).astype("float32")

# ---------------------------------------------------------------- ways of making weights


class OnlyCall(layers.Layer):
    def call(self, x):
        return ops.sin(x) * 2


class WeightInInit(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.w = self.add_weight(shape=(6, units), initializer="glorot_uniform", name="w")

    def call(self, x):
        return x @ self.w


class WeightInBuild(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), name="w")

    def call(self, x):
        return x @ self.w


class WeightInCall(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units

    def call(self, x):
        w = self.add_weight(name="w", shape=(x.shape[-1], self.units))
        b = self.add_weight(name="b", shape=(self.units,), initializer="ones")
        return x @ w + b


class OwnVariable(layers.Layer):
    def __init__(self, start=0.5):
        self.scale = cornu.Variable(start, dtype="float32", name="scale")  # before super().__init__()
        super().__init__()

    def call(self, x):
        return x * self.scale


class NoSuper(layers.Layer):
    def __init__(self, units):  # forgets super().__init__()
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)


class Renamed(layers.Layer):
    """Keeps an argument under another name, changed."""

    def __init__(self, units=4):
        super().__init__()
        self.inner = layers.Dense(2 * units)

    def call(self, x):
        return self.inner(x)


# ---------------------------------------------------------------- ways of holding things


def half(x):
    return x * 0.5


class TakesThings(layers.Layer):
    """Callables, layers, lists, dicts and tuples as arguments."""

    def __init__(self, activation, block, blocks, named=None, sizes=(1, 2), *, function=half):
        super().__init__()
        self.activation = cornu.activations.get(activation)
        self.block = block
        self.blocks = blocks
        self.named = named or {}
        self.sizes = sizes
        self.function = function

    def call(self, x):
        x = self.activation(self.block(x))
        for block in self.blocks:
            x = self.function(block(x))
        for key in sorted(self.named):
            x = self.named[key](x)
        return x * sum(self.sizes)


class Splat(layers.Layer):
    """Any number of layers, and any keyword."""

    def __init__(self, *blocks, **kwargs):
        super().__init__(**kwargs)
        self.blocks = list(blocks)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@dataclasses.dataclass
class Pair:
    left: object
    right: object


class Plain:
    def __init__(self, layer):
        self.layer = layer


class Slotted:
    __slots__ = ("layer",)

    def __init__(self, layer):
        self.layer = layer


def _appended(layer):
    held = []
    held.append(layer)
    return held, lambda: held[0]


HOLDERS = {
    "list": lambda layer: _appended(layer),
    "dict": lambda layer: ({"a": layer}, None),
    "tuple": lambda layer: ((layer,), None),
    "set": lambda layer: ({layer}, None),
    "deque": lambda layer: (collections.deque([layer]), None),
    "nested": lambda layer: ({"a": [(1, {"b": layer})]}, None),
    "dataclass": lambda layer: (Pair(1, layer), None),
    "namespace": lambda layer: (types.SimpleNamespace(x=layer), None),
    "object": lambda layer: (Plain(layer), None),
    "slots": lambda layer: (Slotted(layer), None),
    "partial": lambda layer: (functools.partial(_use, layer), None),
    "lambda": lambda layer: ((lambda x: layer(x)), None),
    "method": lambda layer: (Bound(layer).use, None),
    "default": lambda layer: (_with_default(layer), None),
}


def _use(layer, x):
    return layer(x)


def _with_default(layer):
    def use(x, layer=layer):
        return layer(x)

    return use


class Bound:
    def __init__(self, layer):
        self.layer = layer

    def use(self, x):
        return self.layer(x)


def _found(held):
    """The callable that a holder leads to."""
    if callable(held):
        return held
    if isinstance(held, Pair):
        return held.right
    if isinstance(held, (Plain, Slotted)):
        return held.layer
    if isinstance(held, types.SimpleNamespace):
        return held.x
    if isinstance(held, dict):
        return _found(held["a"])
    first = next(iter(held))
    return first if callable(first) else _found(held[0][1]["b"])


class Holds(layers.Layer):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.held = HOLDERS[how](layers.Dense(3))[0]

    def call(self, x):
        return _found(self.held)(x)


class ListLater(layers.Layer):
    def __init__(self, count):
        super().__init__()
        self.blocks = []
        for _ in range(count):
            self.blocks.append(layers.Dense(3))

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


# ---------------------------------------------------------------- state, losses, randomness


class Counts(layers.Layer):
    """Keeps a mean of what it saw, in training."""

    def __init__(self):
        super().__init__()
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen", dtype="int32")
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            self.seen.assign_add(1)
            self.mean.assign(0.5 * self.mean + 0.5 * ops.mean(x))
        return x + self.mean


class Penalised(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        self.add_loss(self.factor * ops.mean(ops.square(x)))
        return x


class Noisy(layers.Layer):
    def __init__(self, seed=3):
        super().__init__()
        self.seed = seed
        self.generator = cornu.random.SeedGenerator(seed)

    def call(self, x, training=False):
        return x + cornu.random.normal(ops.shape(x), seed=self.generator) if training else x


class SameNoise(layers.Layer):
    def call(self, x, training=False):
        return x + cornu.random.normal(ops.shape(x), seed=11) if training else x


class Masked(layers.Layer):
    def call(self, x, mask=None, training=None):
        if mask is not None:
            x = ops.where(ops.expand_dims(mask, -1), x, 0.0)
        return ops.sum(x, axis=1) * (2.0 if training else 1.0)


# ---------------------------------------------------------------- Keras's own idioms


class KerasStyle(layers.Layer):
    def __init__(self, units=3, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.activation = cornu.activations.get(activation)

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="random_normal", trainable=True)
        self.b = self.add_weight((self.units,), "zeros", "float32", True)
        super().build(input_shape)

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.w) + self.b)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        config = super().get_config()
        config.update({"units": self.units, "activation": cornu.activations.serialize(self.activation)})
        return config


class Keras2Weight(layers.Layer):
    def __init__(self, **kwargs):
        super(Keras2Weight, self).__init__(**kwargs)  # noqa: UP008

    def build(self, input_shape):
        self.w = self.add_weight("w", shape=(int(input_shape[-1]), 2), initializer="ones")
        self.v = self.add_weight("v", (2,), initializer="zeros", trainable=True)
        self.u = self.add_weight("u", (2,), "float32", "ones")
        self.built = True

    def call(self, x):
        return ops.matmul(x, self.w) * self.u + self.v


class FromConfig(layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {**super().get_config(), "inner": cornu.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        inner = cornu.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, **config)


@cornu.saving.register_keras_serializable(package="shop", name="Twice")
class Registered(layers.Layer):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor


class Native(layers.Layer):
    """Uses one engine's own functions, and says its shape."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], 2), name="w")

    def call(self, x):
        return jnp.tanh(jnp.dot(x, jnp.asarray(self.w.value)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2)


CASES = {
    "only call": (OnlyCall, lambda: OnlyCall(), (6,), 0),
    "weight in init": (WeightInInit, lambda: WeightInInit(2), (2,), 1),
    "weight in build": (WeightInBuild, lambda: WeightInBuild(2), (2,), 1),
    "weight in call": (WeightInCall, lambda: WeightInCall(2), (2,), 2),
    "own variable": (OwnVariable, lambda: OwnVariable(0.25), (6,), 1),
    "no super": (NoSuper, lambda: NoSuper(5), (5,), 2),
    "renamed": (Renamed, lambda: Renamed(3), (6,), 2),
    "things": (
        TakesThings,
        lambda: TakesThings(
            "relu", layers.Dense(4), [layers.Dense(3), WeightInCall(2)], {"z": layers.Dense(5)}, (3, 1)
        ),
        (5,),
        8,
    ),
    "splat": (Splat, lambda: Splat(layers.Dense(4), layers.Dropout(0.1), name="splat"), (4,), 2),
    "list later": (ListLater, lambda: ListLater(2), (3,), 4),
    "counts": (Counts, lambda: Counts(), (6,), 2),
    "penalised": (Penalised, lambda: Penalised(0.1), (6,), 0),
    "noisy": (Noisy, lambda: Noisy(5), (6,), 0),
    "keras": (KerasStyle, lambda: KerasStyle(3, activation="tanh", name="own", dtype="float32"), (3,), 2),
    "keras 2": (Keras2Weight, lambda: Keras2Weight(), (2,), 3),
    "from config": (FromConfig, lambda: FromConfig(layers.Dense(3)), (3,), 2),
    "registered": (Registered, lambda: Registered(3.0), (6,), 0),
    "nested": (Splat, lambda: Splat(NoSuper(4), Splat(WeightInBuild(3), ListLater(1))), (3,), 5),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def _model(make):
    inputs = cornu.Input((6,), name="x")
    layer = make()
    return cornu.Model(inputs, layer(inputs)), layer


def test_shapes_weights_and_engines(case):
    _, make, shape, count = case
    model, layer = _model(make)
    assert model.output_shape == (None, *shape)
    assert len(layer.weights) == count
    results = []
    for name in ("numpy", "jax"):
        with cornu.engine(name):
            results.append(np.asarray(model(X)))
            assert results[-1].shape == (4, *shape)
            np.testing.assert_allclose(np.asarray(layer(X)), results[-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_eager_first(case):
    _, make, shape, count = case
    layer = make()
    with cornu.engine("numpy"):
        assert np.asarray(layer(X)).shape == (4, *shape)
    assert len(layer.weights) == count and layer.built


def test_config(case):
    cls, make, _, _ = case
    layer = make()
    with cornu.engine("numpy"):
        expected = np.asarray(layer(X))
        for made in (cls.from_config(layer.get_config()), _through_json(layer)):
            assert type(made) is cls and made.name == layer.name and made.dtype_policy.name == layer.dtype_policy.name
            made(X)
            made.set_weights(layer.get_weights())
            np.testing.assert_allclose(np.asarray(made(X)), expected, rtol=1e-6)


def _through_json(layer):
    import json

    return cornu.saving.deserialize_keras_object(json.loads(json.dumps(cornu.saving.serialize_keras_object(layer))))


def test_base_arguments_of_any_class():
    layer = WeightInCall(3, name="mine", dtype="float16", trainable=False)
    assert (layer.name, layer.dtype, layer.trainable) == ("mine", "float16", False)
    with cornu.engine("numpy"):
        assert layer(X.astype("float16")).dtype == "float16"
    assert not layer.trainable_weights and len(layer.weights) == 2
    assert WeightInCall.from_config(layer.get_config()).name == "mine"
    mixed = NoSuper(3, dtype="mixed_float16", activity_regularizer="l2")
    assert mixed.compute_dtype == "float16" and mixed.activity_regularizer is not None
    with pytest.raises((ArgumentError, TypeError), match="unit"):
        WeightInCall(units_=3)
    with pytest.raises((ArgumentError, TypeError), match="trainabel"):
        WeightInCall(3, trainabel=False)


def _train(make, engine, epochs=2):
    cornu.utils.set_random_seed(1)
    model, _ = _model(make)
    cornu.utils.set_random_seed(2)
    model.compile("sgd", "mse")
    history = model.fit(
        X, np.ones((4, model.output_shape[-1]), "float32"), batch_size=2, epochs=epochs, verbose=0, engine=engine
    )
    return history.history["loss"], [w.numpy() for w in model.variables]


@pytest.mark.parametrize(
    "name",
    [
        "weight in call",
        "no super",
        "things",
        "list later",
        "counts",
        "penalised",
        "noisy",
        "keras 2",
        "own variable",
        "splat",
    ],
)
def test_fit_is_the_same_on_every_engine(name):
    (loss, weights), (other, others) = (_train(CASES[name][1], engine) for engine in ("numpy", "jax"))
    np.testing.assert_allclose(loss, other, rtol=1e-4)
    assert len(weights) == len(others)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_state_is_carried_by_fit():
    model, layer = _model(Counts)
    model.compile("sgd", "mse")
    for engine in ("jax", "numpy"):
        before = int(layer.seen)
        model.fit(X, X, batch_size=2, epochs=3, verbose=0, engine=engine)
        assert int(layer.seen) == before + 6


def test_loss_is_added_once_per_step():
    inputs = cornu.Input((6,))
    model = cornu.Model(inputs, Penalised(0.5)(layers.Identity()(inputs)))
    model.compile("sgd", "mse")
    for engine in ("jax", "numpy"):
        loss = model.evaluate(X, X, verbose=0, engine=engine)
        np.testing.assert_allclose(loss, 0.5 * np.mean(X**2), rtol=1e-5)


@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_state_noise_and_losses_under_value_and_grad(name):
    counts, noisy, penalised, dense = Counts(), Noisy(4), Penalised(0.5), layers.Dense(6)
    with cornu.engine(name):
        dense(X)

        def loss(x):
            y = penalised(noisy(counts(dense(x), training=True), training=True))
            return ops.mean(y * y) + sum(penalised.losses)

        first, gradients = cornu.value_and_grad(loss, dense.trainable_variables)(X)
        assert int(counts.seen) == 1 and float(counts.mean) != 0
        assert all(np.isfinite(np.asarray(g)).all() and np.asarray(g).any() for g in gradients)
        second, _ = cornu.value_and_grad(loss, dense.trainable_variables)(X)
        assert int(counts.seen) == 2 and float(first) != float(second)
        assert int(noisy.generator.state.numpy()[1]) == 2
    assert len(penalised.losses) == 1


def test_training_and_mask_arrive():
    inputs = cornu.Input((3,), dtype="int32")
    x = layers.Embedding(5, 2, mask_zero=True)(inputs)
    model = cornu.Model(inputs, Masked()(x))
    rows = np.array([[1, 2, 0], [3, 0, 0]])
    table = model.layers[1].get_weights()[0]
    expected = np.stack([table[1] + table[2], table[3]])
    for name in ("numpy", "jax"):
        with cornu.engine(name):
            np.testing.assert_allclose(np.asarray(model(rows)), expected, rtol=1e-5)
            np.testing.assert_allclose(np.asarray(model(rows, training=True)), 2 * expected, rtol=1e-5)
            np.testing.assert_allclose(np.asarray(Masked()(model.layers[1](rows))), expected, rtol=1e-5)


class AddsMask(layers.Layer):
    def call(self, x):
        return x

    def compute_mask(self, x, previous_mask=None):
        return ops.any(ops.not_equal(x, 0.0), axis=-1)


def test_a_mask_does_not_stay_on_the_callers_array():
    x = X.reshape(2, 2, 6).copy()
    inputs = cornu.Input((2, 6))
    model = cornu.Model(inputs, Masked()(AddsMask()(inputs)))
    with cornu.engine("numpy"):
        assert masks.mask_of(AddsMask()(x)) is not None
        model(x)
        model.predict(x, verbose=0)
    assert masks.mask_of(x) is None


# ---------------------------------------------------------------- holding layers


@pytest.mark.parametrize("how", HOLDERS)
def test_layers_are_found_wherever_they_are_held(how):
    layer = Holds(how)
    with cornu.engine("numpy"):
        layer(X)
    assert [w.shape for w in layer.weights] == [(6, 3), (3,)]
    assert len(layer.trainable_weights) == 2
    layer.trainable = False
    assert not layer.trainable_weights


@pytest.mark.parametrize(
    "how", ["list", "dict", "tuple", "nested", "dataclass", "namespace", "object", "set", "lambda", "partial"]
)
def test_held_layers_are_saved_or_refused(how, tmp_path):
    model, _ = _model(lambda: Holds(how))
    with cornu.engine("numpy"):
        expected = np.asarray(model(X))
    try:
        model.save(tmp_path / "m.keras")
    except SavingError as error:
        assert how not in ("list", "dict", "tuple", "nested") and "dense" in str(error)
        assert list(tmp_path.iterdir()) == []
        return
    with cornu.engine("numpy"):
        np.testing.assert_allclose(np.asarray(cornu.saving.load_model(tmp_path / "m.keras")(X)), expected, rtol=1e-6)


class MadeInCall(layers.Layer):
    def call(self, x):
        return layers.Dense(3, name="lost")(x)


GLOBAL = layers.Dense(3, name="everyones")


class UsesGlobal(layers.Layer):
    def call(self, x):
        return GLOBAL(x)


class MadeDeep(layers.Layer):
    """The lost layer is made two calls further in."""

    def __init__(self):
        super().__init__()
        self.inner = MadeInCall()

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize(("make", "lost"), [(MadeInCall, "lost"), (UsesGlobal, "everyones"), (MadeDeep, "lost")])
def test_layers_not_held_are_refused(make, lost):
    for use in (lambda layer: layer(cornu.Input((6,))), lambda layer: layer(X)):
        layer = make()
        for _ in range(2):  # the second call as well as the first
            with cornu.engine("numpy"), pytest.raises(BuildError, match=lost) as caught:
                use(layer)
            assert (make is MadeDeep or layer.name in str(caught.value)) and "self." in str(caught.value)


def test_weights_made_in_call_are_checked():
    layer = WeightInCall(2)
    with cornu.engine("numpy"):
        layer(X)
        with pytest.raises(BuildError, match="same shape at every call"):
            layer(X[:, :3])


# ---------------------------------------------------------------- native functions


def test_native_call_takes_its_shape_from_compute_output_shape():
    inputs = cornu.Input((6,))
    layer = Native()
    model = cornu.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 2)
    with cornu.engine("jax"):
        np.testing.assert_allclose(np.asarray(model(X)), np.tanh(X @ layer.get_weights()[0]), rtol=1e-4, atol=1e-6)
        assert model.predict(X, verbose=0).shape == (4, 2)


class NativeWithout(Native):
    compute_output_shape = layers.Layer.compute_output_shape


def test_native_call_without_a_shape_is_inferred_by_its_engine():
    inputs = cornu.Input((6,))
    model = cornu.Model(inputs, NativeWithout()(inputs))
    assert model.output_shape == (None, 2)
    with pytest.raises(EngineError, match="engine='jax'"):
        model.predict(X, engine="numpy", verbose=0)


# ---------------------------------------------------------------- files, in a fresh process


def _saved(folder):
    for i, (_, (_, make, _, _)) in enumerate(CASES.items()):
        cornu.utils.set_random_seed(i)
        model, _ = _model(make)
        with cornu.engine("numpy"):
            outputs = np.asarray(model(X))
        model.save(Path(folder) / f"{i}.keras")
        np.save(Path(folder) / f"{i}.npy", outputs)
    return len(CASES)


def check_saved(folder):
    """What the fresh process does."""
    for path in sorted(Path(folder).glob("*.keras")):
        with cornu.engine("numpy"):
            found = np.asarray(cornu.saving.load_model(path)(X))
        np.testing.assert_allclose(found, np.load(path.with_suffix(".npy")), rtol=1e-5, atol=1e-6, err_msg=path.name)
    print("loaded", len(list(Path(folder).glob("*.keras"))))


def test_a_fresh_process_loads_what_it_has_imported(tmp_path):
    count = _saved(tmp_path)
    here, saved = str(Path(__file__).parent), str(tmp_path)
    code = f"import sys; sys.path.insert(0, {here!r}); import test_custom_layers as t; t.check_saved({saved!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"loaded {count}" in done.stdout
    code = f"import cornu; cornu.saving.load_model({str(tmp_path / '2.keras')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (
        done.returncode != 0 and "import it, or pass custom_objects" in done.stderr and "WeightInBuild" in done.stderr
    )


def test_warnings_are_errors_here():
    with pytest.raises(UserWarning):
        warnings.warn("one", UserWarning, stacklevel=1)
