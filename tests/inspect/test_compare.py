"""Where engines part, op by op. An engine is made wrong on purpose: the op must be found, and nothing else."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers, ops
from cornu.core.errors import ArgumentError
from cornu.engines import registry

X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")


def model_of(activation="tanh"):
    x = Input((6, 4), name="x")
    y = layers.Dense(5, activation=activation, name="first")(x)
    y = layers.LSTM(3, return_sequences=True, name="lstm")(layers.LayerNormalization(name="norm")(y))
    return Model(x, layers.Dense(2, activation="softmax", name="last")(layers.Dropout(0.5)(y)), name="net")


@pytest.fixture
def wrong(monkeypatch):
    """Makes an op of an engine wrong."""

    def make(engine, op, change):
        table = registry.get(engine).table
        right = table[op]
        monkeypatch.setitem(table, op, lambda *args, **kwargs: change(right(*args, **kwargs)))

    return make


def test_they_agree():
    report = cornu.inspect.compare(model_of(), ["numpy", "jax"], X)
    assert report.ok and bool(report) and report.first is None
    assert [row.engine for row in report.whole] == ["numpy", "jax"]
    names = [row.name for row in report.rows if row.layer == "first"]
    assert names == ["matmul", "add", "tanh"]
    assert "lstm" in [row.name for row in report.rows if row.layer == "lstm"]
    assert max(row.absolute for row in report.rows) < 1e-5
    assert "they agree" in str(report) and "net: jax against numpy" in str(report)


def test_the_op_is_found_and_not_what_follows(wrong):
    wrong("jax", "rsqrt", lambda value: value * 1.01)
    report = cornu.inspect.compare(model_of(), ["numpy", "jax"], X)
    first = report.first
    assert not report.ok
    assert (first.name, first.layer, first.engine) == ("rsqrt", "norm", "jax")
    assert 0.009 < first.relative < 0.011 and first.shape == (3, 6, 1)
    a, b = first.values
    assert b == pytest.approx(1.01 * a, rel=1e-5) and len(first.where) == 3
    assert [row.name for row in report.rows if row.parts] == ["rsqrt"]  # what follows inherits, but is right by itself
    after = report.rows[first.place + 1]
    assert after.absolute < 1e-5 < 1e-3 < after.added_absolute
    for part in ("'rsqrt' in 'norm' on jax", "parts at (", "on numpy and"):
        assert part in str(report), str(report)


def test_the_reference_is_chosen(wrong):
    wrong("numpy", "tanh", lambda value: value + 0.125)
    report = cornu.inspect.compare(model_of(), ["numpy", "jax"], X, reference="jax")
    assert report.reference == "jax" and report.engines == ["numpy"]
    assert report.first.name == "tanh" and report.first.absolute == pytest.approx(0.125, rel=1e-5)


def test_an_engines_own_loop(wrong):
    """Step by step all is right; the engine's own loop is not."""
    wrong("jax", "scan", lambda found: (found[0], (found[1][0] * 1.01, *found[1][1:])))
    x = Input((None, 4))
    model = Model(x, layers.SimpleRNN(3, return_sequences=True, name="loop")(x))
    report = cornu.inspect.compare(model, ["numpy", "jax"], X)
    assert (report.first.name, report.first.layer) == ("scan", "loop")


def test_a_gradient(wrong):
    model = model_of()
    assert cornu.inspect.compare(model, ["numpy", "jax"], X, gradients=True, training=True).ok
    wrong("jax", "permute", lambda value: value * 1.5)
    report = cornu.inspect.compare(model, ["numpy", "jax"], X, gradients=True)
    assert report.first.name == "permute"


def test_what_only_adds_up(wrong):
    wrong("jax", "add", lambda value: value * 1.00005)
    x = h = Input((4,))
    for i in range(8):
        h = layers.Dense(4, kernel_initializer="identity", name=f"d{i}")(h)
    report = cornu.inspect.compare(Model(x, h), ["numpy", "jax"], X[0], compiled=False)
    assert not report.ok and not report.first.parts and report.first.drifts
    assert report.first.layer in ("d1", "d2", "d3") and "differences add up" in str(report)
    assert cornu.inspect.compare(Model(x, h), ["numpy", "jax"], X[0], rtol=1e-2).ok


def test_the_model_compiled_whole(monkeypatch):
    """Op by op all is right; what the engine makes of the whole is not."""
    engine = registry.get("jax")
    plain = engine.compile

    def compiled(function, *args, **kwargs):
        run = plain(function, *args, **kwargs)
        return lambda *given: run(*given) * 1.01

    monkeypatch.setattr(engine, "compile", compiled)
    report = cornu.inspect.compare(model_of(), ["numpy", "jax"], X)
    assert not report.ok and report.first in report.whole and report.first.engine == "jax"
    assert "compiled whole parts on jax" in str(report)


def test_training_draws_the_same():
    model = model_of()
    report = cornu.inspect.compare(model, ["numpy", "jax"], X, training=True, step=5)
    assert report.ok, str(report)
    assert any(row.layer.startswith("dropout") for row in report.rows)


def test_a_model_without_a_graph():
    class Net(cornu.Model):
        def __init__(self):
            super().__init__(name="net")
            self.dense = layers.Dense(4, name="dense")
            self.norm = layers.BatchNormalization(name="norm")

        def call(self, data):
            inner = self.norm(self.dense(data["p"])) + self.dense(data["p"])
            return {"y": inner, "n": ops.argmax(data["q"][0], axis=-1)}

    model = Net()
    data = {"p": X, "q": [X]}
    model(data)
    before = model.get_weights()
    report = cornu.inspect.compare(model, ["numpy", "jax"], data, training=True)
    assert report.ok, str(report)
    assert {row.layer for row in report.rows} == {"", "dense", "norm", "dense@1"}
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for variable in model.variables:  # nothing of the comparison stays
        assert not [name for name in variable._converted if name.startswith("side by side")]
    for name in ("numpy", "jax"):
        with cornu.engine(name):
            assert np.isfinite(ops.convert_to_numpy(model(data)["y"])).all()


def test_unbuilt_sequential_and_whole_numbers():
    model = cornu.Sequential([layers.Embedding(7, 3, name="words"), layers.GlobalAveragePooling1D()], name="bag")
    report = cornu.inspect.compare(model, ["jax", "numpy"], np.array([[1, 2], [3, 6]]))
    assert report.ok and report.model == "bag"


def test_not_a_number_is_equal_to_itself():
    x = Input((4,))
    report = cornu.inspect.compare(
        Model(x, ops.log(x)), ["numpy", "jax"], np.array([[-1.0, 0.0, 1.0, np.inf]], "float32")
    )
    assert report.ok


def test_errors():
    model = model_of()
    with pytest.raises(ArgumentError, match="two or more engines"):
        cornu.inspect.compare(model, ["jax"], X)
    with pytest.raises(ArgumentError, match="got .*list"):
        cornu.inspect.compare([], ["jax", "numpy"], X)
    with pytest.raises(ArgumentError, match="rtol=-1"):
        cornu.inspect.compare(model, ["jax", "numpy"], X, rtol=-1)
