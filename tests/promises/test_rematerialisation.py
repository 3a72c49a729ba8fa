"""Rematerialisation changes what is kept for the way back, and no number: layers, functions, engines, modes."""

import contextlib
import os
import pickle

import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.core.errors import ArgumentError
from cornu.engines import registry
from cornu.layers import _remat

# Those that compute again each in a way of their own; the long sweep has all.
LONG = os.environ.get("CORNU_TEST_ENGINES") == "all"
ENGINES = [n for n in ("jax", "torch", *(("tensorflow", "numpy") if LONG else ())) if n in registry.available()]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = np.arange(24) % 3


def plain():
    return contextlib.nullcontext()


def network(scope):
    """Batch statistics, dropout, a penalty; all of it made in a scope, the model too."""
    cornu.utils.set_random_seed(7)
    with scope:
        x = h = cornu.Input((6,), name="x")
        for i in range(2):
            h = layers.Dense(16, activation="gelu", name=f"dense_{i}")(h)
            h = layers.BatchNormalization(name=f"norm_{i}")(h)
            h = layers.Dropout(0.4, name=f"drop_{i}")(h)
        h = layers.Dense(8, activity_regularizer="l2", name="penalised")(h)
        return cornu.Model(x, layers.Dense(3, activation="softmax", name="out")(h), name="net")


def fitted(engine, scope):
    model = network(scope)
    model.compile(cornu.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0, engine=engine)
    return history.history, model.get_weights()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_training(engine):
    """Masks of dropout, moving statistics, penalties, losses, weights."""
    history, weights = fitted(engine, plain())
    assert history["loss"][1] != history["loss"][0]
    for scope in (cornu.RematScope(), cornu.RematScope("activations"), cornu.RematScope("larger_than", 100)):
        again, found = fitted(engine, scope)
        np.testing.assert_allclose(again["loss"], history["loss"], rtol=2e-6)
        for one, other in zip(found, weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("engine", registry.available() if LONG else ["numpy", "jax", "tensorflow", "torch"])
def test_gradients(engine):
    """Of first and second order, through functions within functions and what they close over; compiled too."""
    x, w = RNG.normal(size=(4, 5)).astype("float32") / 2, RNG.normal(size=(5, 5)).astype("float32") / 2

    def loss(again):
        def run(values):
            x, w = values
            step = lambda v: ops.tanh(ops.matmul(v, w)) * ops.sum(v)
            one = (lambda v: ops.rematerialized([v], step)) if again else step
            both = lambda v: one(one(v))
            y = ops.rematerialized((x,), both) if again else both(x)
            return ops.sum(y * y), None

        return run

    with cornu.engine(engine) as own:

        def slope(again, differentiate):
            def run(values):
                _, (gx, gw) = differentiate(loss(again))(values)
                return ops.sum(gx * ops.sin(gx)) + ops.sum(gw * gw), None

            return run

        native = own.value_and_grad(loss(False))
        ways = [tape_value_and_grad] if native is None else [own.value_and_grad, tape_value_and_grad]
        for differentiate in ways:
            for compiled in (False, True):
                found = []
                for again in (False, True):
                    for function in (differentiate(loss(again)), differentiate(slope(again, differentiate))):
                        function = own.compile(function) if compiled else function
                        found.append(list(map(ops.convert_to_numpy, function([own.from_host(x), own.from_host(w)])[1])))
                half = len(found) // 2
                for wanted, got in zip(tree.leaves(found[:half]), tree.leaves(found[half:]), strict=True):
                    assert abs(wanted).max() > 0
                    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * abs(wanted).max())


def moved(engine, scope):
    """The gradients and moving statistics of one call outside of steps, by `value_and_grad`."""
    model = network(scope)
    drops = []
    with cornu.engine(engine):
        for _ in range(2):
            function = cornu.value_and_grad(
                lambda: ops.sum(ops.square(model(X, training=True))), model.trainable_variables
            )
            value, gradients = function()
            drops.append(float(value))
        found = [ops.convert_to_numpy(gradient) for gradient in gradients]
    assert drops[0] != drops[1]  # each call draws anew
    return [np.array(drops), *found, *(v.numpy() for v in model.non_trainable_variables)]


@pytest.mark.parametrize("engine", ENGINES)
def test_calls_outside_of_steps(engine):
    """What is drawn and assigned there is drawn and assigned once, though the function runs twice."""
    for one, other in zip(moved(engine, cornu.RematScope()), moved(engine, plain()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_backward_of_pytorch():
    """`loss.backward()` reaches the parameters; moving statistics move once; what is drawn is drawn once."""
    torch = pytest.importorskip("torch")
    found = []
    for scope in (plain(), cornu.RematScope()):
        model = network(scope)
        with cornu.engine("torch"):
            for _ in range(2):
                (model(torch.tensor(X), training=True) ** 2).sum().backward()
        parameters = [v.home.native for v in model.trainable_variables]
        found.append([p.grad.numpy() for p in parameters] + [v.numpy() for v in model.non_trainable_variables])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_tape_of_tensorflow():
    """A user's own `tf.GradientTape`, with and without a `tf.function` around it."""
    tf = pytest.importorskip("tensorflow")
    for wrap in (lambda f: f, tf.function):
        found = []
        for scope in (plain(), cornu.RematScope()):
            model = network(scope)
            model(X[:2])

            @wrap
            def gradients(x, model=model):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(model(x, training=True) ** 2)
                return tape.gradient(loss, model.trainable_variables)

            with cornu.engine("tensorflow"):
                found.append([g.numpy() for g in gradients(tf.constant(X))])
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_functions(engine):
    """`remat` of a function: it draws, reads variables, closes over values, takes structures, and gives them."""
    layer = layers.Dense(5, kernel_initializer="ones")
    layer.build((None, 6))
    count = cornu.Variable(np.float32(0), trainable=False)

    def block(x, scale, *, flip=False):
        count.assign(ops.add(count, 1.0))
        y = layer(x["x"]) * cornu.random.uniform((5,))
        return {"y": ops.negative(y) if flip else y * scale, "rows": x["x"].shape[0], "nothing": None}

    results = []
    for wrap in (lambda f: f, cornu.remat):
        cornu.utils.set_random_seed(3)
        count.assign(np.float32(0))
        scale = cornu.Variable(np.float32(2))

        def forward(wrap=wrap, scale=scale):
            outside = ops.exp(layer.kernel * 0.1)
            found = wrap(block)({"x": X}, scale.value, flip=False)
            assert found["rows"] == 24 and found["nothing"] is None
            turned = wrap(block)({"x": X}, 1.0, flip=True)
            closing = wrap(lambda x: ops.sum(ops.sin(x * outside)))(layer.kernel.value)
            return ops.sum(ops.square(found["y"])) + ops.sum(turned["y"]) + closing

        with cornu.engine(engine):
            value, gradients = cornu.value_and_grad(forward, [layer.kernel, layer.bias, scale])()
            results.append([*map(ops.convert_to_numpy, (value, *gradients)), count.numpy()])
    assert results[0][-1] == 2  # as often as it was called
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_and_loops(engine):
    """Masks reach and leave what is computed again; layers over time are computed again as they are."""
    ids = np.array([[1, 2, 3, 0], [4, 5, 0, 0], [6, 0, 0, 0]])
    y = np.arange(12, dtype="float32").reshape(3, 4, 1)

    def run(scope):
        cornu.utils.set_random_seed(1)
        with scope:
            inner = cornu.Sequential(
                [layers.Dense(4, activation="tanh"), layers.LSTM(4, return_sequences=True, dropout=0.2)]
            )
            x = cornu.Input((4,), dtype="int32")
            h = inner(layers.Embedding(8, 4, mask_zero=True)(x))
            h = layers.TimeDistributed(layers.Dense(3))(h)
            model = cornu.Model(x, layers.Dense(1)(layers.GRU(4, return_sequences=True)(h)))
        model.compile("sgd", "mse")
        losses = model.fit(ids, y, batch_size=3, epochs=2, verbose=0, engine=engine).history["loss"]
        return losses, model.get_weights()

    (losses, weights), (again, found) = run(plain()), run(cornu.RematScope())
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    for one, other in zip(found, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- memory


def deep(again):
    """A deep stack of layers, each computed again or not."""
    with cornu.RematScope("full" if again else None):
        stack = [layers.Dense(256, activation="gelu", name=f"d{i}") for i in range(12)]
    x = h = cornu.Input((256,))
    for layer in stack:
        h = layer(h)
    return cornu.Model(x, h)


def test_less_is_held_on_jax():
    """What XLA lays out for the gradient, beside arguments and results."""
    jax = pytest.importorskip("jax")
    sizes = []
    with cornu.engine("jax") as engine:
        x = engine.from_host(RNG.normal(size=(512, 256)).astype("float32"))
        for again in (False, True):
            model = deep(again)
            weights = model.trainable_variables

            def loss(values, model=model, weights=weights):
                with context.bind(weights, values):
                    return ops.mean(ops.square(model(x, training=True))), None

            values = [engine.from_host(v.numpy()) for v in weights]
            compiled = jax.jit(engine.value_and_grad(loss)).lower(values).compile()
            sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.5 * sizes[0]


def test_the_cost_is_counted():
    """`inspect.cost` counts what is computed again, and what is no longer held."""
    without, again = (cornu.inspect.cost(deep(on), batch_size=4096, training=True) for on in (False, True))
    assert 1.2 * without.flops < again.flops < 1.5 * without.flops
    assert again.peak_memory < 0.6 * without.peak_memory
    assert cornu.inspect.cost(deep(True)).flops == cornu.inspect.cost(deep(False)).flops
    assert again.layers["d3"].flops > without.layers["d3"].flops


def test_traces_and_comparisons():
    """Those who look at values see them as ever."""
    model, other = network(cornu.RematScope()), network(plain())
    found = cornu.inspect.trace(model, X, engine="jax", training=True)
    wanted = cornu.inspect.trace(other, X, engine="jax", training=True)
    assert list(found) == list(wanted)
    for path in found:
        np.testing.assert_allclose(found[path], wanted[path], rtol=1e-5, atol=1e-6)
    report = cornu.inspect.compare(model, ["numpy", "jax"], X, training=True, gradients=True)
    assert report.ok, report


def test_elsewhere_than_on_a_cpu_jax_has_its_own_way(monkeypatch):
    """Where XLA keeps barriers, `jax.checkpoint` serves; the numbers are the same."""
    jax = pytest.importorskip("jax")
    from cornu.engines.jax.again import again

    x, w = X[:4], RNG.normal(size=(6, 6)).astype("float32")

    def slope():
        call = lambda x, w: again(lambda v: jax.numpy.sum(jax.numpy.tanh(v @ w) ** 2), (x,))
        return jax.grad(call, (0, 1)), str(jax.make_jaxpr(jax.grad(call))(x, w))

    here, text = slope()
    assert "remat" not in text and "checkpoint" not in text
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there, text = slope()
    assert "remat" in text or "checkpoint" in text
    for one, other in zip(there(x, w), here(x, w), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- which layers

MODES = {
    "full": {"mode": "full"},
    "none": {"mode": None},
    "larger_than": {"mode": "larger_than", "output_size_threshold": 24 * 8},
    "list_of_layers": {"mode": "list_of_layers", "layer_names": ["narrow", "nobody"]},
    "activations": {"mode": "activations"},
}


def built(keras, arguments):
    with keras.RematScope(**arguments):
        return [
            keras.layers.Dense(4, activation="tanh", name="narrow"),
            keras.layers.Dense(16, name="wide"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(8, activation="relu", name="just"),
        ]


def called(stack, x):
    for layer in stack:
        x = layer(x, training=True) if layer.name == "drop" else layer(x)
    return x


@pytest.mark.parametrize("mode", MODES)
def test_modes_select_what_keras_selects(mode, monkeypatch):
    import keras
    import keras.src.backend.common.remat as of_keras

    def noting(names, answer):
        def note(f, *rest):
            names.append(f.__self__.name if hasattr(f, "__self__") else "a function")
            return answer(f, *rest)

        return note

    own, other = [], []
    monkeypatch.setattr(_remat, "_run", noting(own, lambda f, args, kwargs: f(*args, **kwargs)))
    monkeypatch.setattr(of_keras, "remat", noting(other, lambda f: f))
    with cornu.engine("numpy"):
        called(built(cornu, MODES[mode]), X)
    called(built(keras, MODES[mode]), X)
    assert own == other
    expected = {
        "full": ["narrow", "wide", "drop", "just"],
        "none": [],
        "larger_than": ["wide", "drop"],
        "list_of_layers": ["narrow"],
        "activations": ["a function"] * 3,
    }
    assert own == expected[mode]


def test_scopes_nest_and_end():
    with cornu.RematScope():
        outer = layers.Dense(2)
        with cornu.RematScope(None):
            none = layers.Dense(2)
        with cornu.RematScope("larger_than", 7) as scope:
            inner = layers.Dense(2)
    assert scope.mode == "larger_than" and scope.output_size_threshold == 7 and scope.layer_names == []
    assert outer._remat.mode == "full" and none._remat is None and layers.Dense(2)._remat is None
    assert inner._remat == ("larger_than", 7, ())
    with pytest.raises(ArgumentError, match="'full', 'activations'"):
        cornu.RematScope("some")
    with pytest.raises(ValueError, match="list of names"):
        cornu.RematScope("list_of_layers", layer_names="dense")


def test_layers_run_again_only_where_the_scope_says(monkeypatch):
    """How often `call` runs in a gradient, on an engine where it runs each time something is computed."""
    counts = {}

    class Counting(layers.Dense):
        def call(self, inputs):
            counts[self.name] = counts.get(self.name, 0) + 1
            return super().call(inputs)

    with cornu.RematScope("list_of_layers", layer_names=["b"]):
        stack = [Counting(3, name=name) for name in "abc"]
    with cornu.engine("numpy"):
        called(stack, X)
        counts.clear()
        weights = [v for layer in stack for v in layer.trainable_variables]
        cornu.value_and_grad(lambda: ops.sum(called(stack, X)), weights)()
    assert counts == {"a": 1, "b": 2, "c": 1}


def test_config_files_and_copies(tmp_path):
    """As in Keras a config says nothing of the scope: what is made from it takes the scope in which it is made."""
    again, other = network(cornu.RematScope()), network(plain())
    seedless = lambda model: [row for row in model.get_config()["layers"] if row["class_name"] != "Dropout"]
    assert seedless(again) == seedless(other) and len(seedless(again)) == 7
    assert cornu.Model.from_config(again.get_config()).get_layer("dense_0")._remat is None
    with cornu.RematScope():
        assert cornu.Model.from_config(other.get_config()).get_layer("dense_0")._remat.mode == "full"
    again.save(tmp_path / "model.keras")
    loaded = cornu.saving.load_model(tmp_path / "model.keras")
    assert loaded._remat is None
    np.testing.assert_allclose(loaded.predict(X, verbose=0), again.predict(X, verbose=0), rtol=1e-6)
    assert pickle.loads(pickle.dumps(again.get_layer("dense_0")))._remat.mode == "full"
    assert again.get_layer("dense_0").activation is other.get_layer("dense_0").activation


def test_an_activation_is_itself_again_after_a_failure():
    with cornu.RematScope("activations"):
        layer = layers.Dense(2, activation=lambda x: 1 // 0)
    before = layer.activation
    with pytest.raises(ZeroDivisionError), cornu.engine("numpy"):
        layer.build((None, 6))
        layer(X)
    assert layer.activation is before


def test_functions_of_symbolic_tensors():
    """`remat(f)` in a graph is a node of its own."""
    runs = []

    def f(x, power):
        runs.append(type(x).__name__)
        return x**power

    x = cornu.Input((6,))
    model = cornu.Model(x, cornu.remat(f)(x, power=3))
    np.testing.assert_allclose(model.predict(X, verbose=0, engine="numpy"), X**3, rtol=1e-5)
    assert "ndarray" in runs


def test_pytorch_draws_of_its_own_are_not_traced():
    """PyTorch's own dropout cannot be drawn again in a trace: such a step runs op by op, and says why."""
    torch = pytest.importorskip("torch")
    with cornu.engine("torch") as engine:
        x = engine.from_host(X)

        def loss(values):
            drop = lambda v: torch.nn.functional.dropout(v * v, 0.5)
            return torch.sum(ops.rematerialized((values[0],), drop) * x), None

        compiled = engine.compile(engine.value_and_grad(loss))
        for _ in range(4):
            _, (gradient,) = compiled([x])
            dropped = gradient.numpy() == 0
            assert 0.2 < dropped.mean() < 0.8
            np.testing.assert_allclose(gradient.numpy()[~dropped], (4 * X * X)[~dropped], rtol=1e-5)
