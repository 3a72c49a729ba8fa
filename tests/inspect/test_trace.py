"""Every intermediate value of a run, by path."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers, ops
from cornu.core.errors import ArgumentError, BindingError

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")


def graph_model():
    """A shared layer, an op, a nested model and a recurrent layer."""
    x = Input((5, 4), name="x")
    encoder = layers.Dense(4, name="encoder", activation="relu")
    a = encoder(x)
    total = a + encoder(a)
    inner = Input((5, 4), name="inside")
    block = Model(inner, layers.LayerNormalization(name="norm")(layers.Dense(3, name="dense")(inner)), name="block")
    y = layers.LSTM(2, name="lstm")(block(total))
    return Model(x, [layers.Dense(1, name="out")(y), y], name="net")


class Pair(layers.Layer):
    """One layer called twice."""

    def __init__(self, name):
        super().__init__(name=name)
        self.dense = layers.Dense(4, name="dense")
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, x):
        return self.drop(self.dense(self.dense(x)))


class Net(cornu.Model):
    """A model without a graph, with two outputs."""

    def __init__(self):
        super().__init__(name="net")
        self.first, self.second = Pair("pair"), Pair("pair_1")
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x):
        return {"y": self.second(self.first(x)), "z": self.norm(x)}


def test_paths_are_those_of_tensors(engine):
    model = graph_model()
    found = cornu.inspect.trace(model, X)
    assert set(model.tensors()) <= set(found)
    assert list(found)[:5] == ["x", "encoder", "encoder@1", "add", "block/dense"]
    assert found.kinds["add"] == "op" and found.kinds["block"] == "Functional" and found.kinds["x"] == "input"
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_allclose(found["add"], found["encoder"] + found["encoder@1"], rtol=1e-6)
    for path in ("encoder@1", "block", "lstm"):
        part = Model(model.input, model.get_tensor(path))
        np.testing.assert_allclose(found[path], ops.convert_to_numpy(part(X)), rtol=1e-5, atol=1e-6)
    whole = model(X)
    np.testing.assert_allclose(found.outputs[0], ops.convert_to_numpy(whole[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["out"], found.outputs[0])


def test_single_ops(engine):
    found = cornu.inspect.trace(graph_model(), X, ops=True)
    # PyTorch multiplies and adds the bias in one operation.
    product, biased = ("linear", "linear") if engine == "torch" else ("matmul", "add")
    expected = {f"encoder/{product}", f"encoder/{biased}", "encoder/relu", "encoder@1/relu", f"block/dense/{product}"}
    assert {*expected, "add"} <= set(found)
    np.testing.assert_array_equal(found["encoder/relu"], found["encoder"])
    np.testing.assert_array_equal(found["encoder/relu"], np.maximum(found[f"encoder/{biased}"], 0))
    # In one piece where the engine has it so; else the inputs' product at once, and one of each step.
    assert (
        any(path.startswith("lstm/lstm") for path in found)
        or sum(path.startswith("lstm/matmul") for path in found) == 1 + 5
    )


def test_a_model_without_a_graph(engine):
    model = Net()
    model(X)
    before = model.get_weights()
    found = cornu.inspect.trace(model, X, training=True, step=3)
    assert list(found) == [
        "pair/dense", "pair/dense@1", "pair/drop", "pair", "pair_1/dense", "pair_1/dense@1", "pair_1/drop", "pair_1", "norm",
    ]  # fmt: skip
    assert 0.2 < (found["pair/drop"] == 0).mean() < 0.8
    np.testing.assert_array_equal(found.outputs["y"], found["pair_1"])
    again = cornu.inspect.trace(model, X, training=True, step=3)
    np.testing.assert_array_equal(found["pair_1"], again["pair_1"])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not (cornu.inspect.trace(model, X)["pair/drop"] == 0).any()


def test_engines_agree_and_are_chosen():
    model = graph_model()
    ours, theirs = (cornu.inspect.trace(model, X, engine=name) for name in ("numpy", "jax"))
    assert list(ours) == list(theirs) and theirs.name == "net on jax"
    for path in ours:
        assert type(theirs[path]) is np.ndarray
        np.testing.assert_allclose(ours[path], theirs[path], rtol=1e-4, atol=1e-5)


def test_every_step_of_a_cell():
    """A loop runs step by step, so that each call of a cell is seen."""

    class Cell(layers.Layer):
        state_size = output_size = 4

        def call(self, x, states):
            total = states[0] + x
            return total, [total]

    model = cornu.Sequential([layers.RNN(Cell(name="cell"), name="rnn")])
    for name in ("numpy", "jax"):
        found = cornu.inspect.trace(model, X, engine=name)
        assert [path for path in found if "cell" in path] == [
            f"rnn/cell{n}:{i}" for n in ("", "@1", "@2", "@3", "@4") for i in (0, 1)
        ]
        np.testing.assert_allclose(found["rnn/cell@4:0"], found["rnn"], rtol=1e-6)


def test_as_a_table():
    x = Input((3,), name="x")
    model = Model(x, layers.Lambda(ops.log, name="logs")(x), name="net")
    found = cornu.inspect.trace(model, np.array([[1.0, 0.0, -1.0], [1.0, 1.0, 1.0]], "float32"), engine="numpy")
    assert str(found).splitlines() == [
        "net on numpy: 2 values",
        "path  class   shape   dtype    mean    std  min  max  zeros  non-finite",
        "-----------------------------------------------------------------------",
        "x     input   (2, 3)  float32   0.5  0.764   -1    1  16.7%           0",
        "logs  Lambda  (2, 3)  float32     0      0    0    0  66.7%           2",
    ]
    long = cornu.inspect.trace(graph_model(), X, ops=True, engine="numpy")
    assert "more rows" in repr(long) and len(repr(long).splitlines()) == 60 + 4
    assert len(long.table().splitlines()) == len(long) + 3


def test_errors():
    found = cornu.inspect.trace(graph_model(), X, engine="numpy")
    with pytest.raises(BindingError, match="did you mean 'encoder@1'"):
        found["encoder@2"]
    assert "encoder@2" not in found
    with pytest.raises(ArgumentError, match="got .*list"):
        cornu.inspect.trace([], X)
