"""FLOPs, bytes, parameters and memory from Specs, checked by hand and against an engine's own count."""

import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers, ops
from cornu.core import context
from cornu.core.errors import ArgumentError
from cornu.core.variable import read_all
from cornu.engines import registry

F = 4  # bytes of a float32


def by_xla(model, data, gradients=False):
    """What XLA says of a model compiled for a CPU: FLOPs, its transcendentals among them.

    A ReLU is one (a maximum), as in Cornu's count; the engine's own form of it is two, a comparison and a choice.
    """
    variables = model.trainable_variables if gradients else model.variables
    with context.use_engine(registry.get("jax")):
        values = read_all(variables)

        def forward(values, data):
            with context.bind(variables, values):
                return model(data, training=gradients)

        function = jax.grad(lambda values, data: ops.sum(forward(values, data))) if gradients else forward
        with mock.patch.dict(registry.get("jax").table, relu=jax.nn.relu):
            found = jax.jit(function).lower(values, data).compile().cost_analysis()
    return found["flops"] + found.get("transcendentals", 0)


def mlp():
    x = Input((64,), name="x")
    h = layers.Dense(48, activation="relu", name="first")(x)
    h = layers.Dense(32, activation="tanh", name="second")(h)
    return Model(x, layers.Dense(10, activation="softmax", name="last")(h), name="mlp")


def cnn(padding="valid"):
    x = Input((20, 20, 3), name="x")
    h = layers.Conv2D(8, 3, activation="relu", padding=padding, name="conv")(x)
    h = layers.MaxPooling2D(name="pool")(h)
    h = layers.Conv2D(16, 3, strides=2, padding=padding, name="conv2")(h)
    return Model(x, layers.Dense(10, name="last")(layers.Flatten(name="flat")(h)), name="cnn")


def test_an_mlp_by_hand():
    found = cornu.inspect.cost(mlp(), batch_size=5)
    first = 5 * (2 * 64 * 48 + 2 * 48)
    second = 5 * (2 * 48 * 32 + 2 * 32)
    softmax = 5 * ((10 - 1) + 10 + 10 + (10 - 1) + 10)  # largest, difference, exponential, sum, quotient
    assert found.layers["first"].flops == first and found.layers["second"].flops == second
    assert found.flops == first + second + 5 * (2 * 32 * 10 + 10) + softmax
    assert found.transcendentals == 5 * (32 + 10)
    weights = 64 * 48 + 48 + 48 * 32 + 32 + 32 * 10 + 10
    assert found.parameters == weights == sum(layer.parameters for layer in found.layers.values())
    assert found.parameter_bytes == F * weights
    # matmul reads x and the kernel, writes; the bias is added; relu reads and writes
    rows = 5 * 48 * F
    assert found.layers["first"].bytes == (5 * 64 + 64 * 48) * F + rows + (rows + 48 * F + rows) + 2 * rows
    assert found.layers["first"].output_bytes == rows and found.layers["first"].shapes == [(5, 48)]
    assert found.peak_memory == 5 * 64 * F + rows  # x and the first product
    assert found.sizes == {"batch": 5}
    assert cornu.inspect.cost(mlp(), batch_size=10).flops == 2 * found.flops


@pytest.mark.parametrize("make", [mlp, cnn])
def test_against_xla(make):
    """XLA counts what it compiled: it may fold a scalar op or two away."""
    model = make()
    data = np.ones((4, *model.input_shape[1:]), "float32")
    ours = cornu.inspect.cost(model, batch_size=4).flops
    assert ours == pytest.approx(by_xla(model, data), rel=0.002)
    both = cornu.inspect.cost(model, batch_size=4, training=True).flops
    assert both == pytest.approx(by_xla(model, data, gradients=True), rel=0.05)
    assert 2 < both / ours < 3.2  # the first layer needs no gradient of its input


def test_padding_counts():
    """Against XLA, which leaves out products with padding, the difference is exactly those."""
    model = cnn("same")
    ours = cornu.inspect.cost(model, batch_size=4).flops
    taps = lambda size: 3 * size - 2  # a window of 3 over `size` with one zero at both ends: without the two outside
    first = 4 * 2 * 8 * 3 * (9 * 20 * 20 - taps(20) ** 2)
    second = 4 * 2 * 16 * 8 * (9 * 5 * 5 - (3 * 5 - 1) ** 2)  # strides of 2: one zero, at the end
    assert ours - first - second == pytest.approx(by_xla(model, np.ones((4, 20, 20, 3), "float32")), rel=0.002)


def test_a_loop_counts_every_step():
    x = Input(("time", 3), name="x")
    model = Model(x, layers.LSTM(4, name="lstm")(x))
    few, many = (cornu.inspect.cost(model, sizes={"time": time}).flops for time in (5, 10))
    step = 2 * 4 * 16 + 4 * 4 + 5 * 4 + 4 * 4  # a product, sums, sigmoids and tanhs, products and a sum
    each = 2 * 3 * 16 + 16 + step
    assert few == 5 * each and many == 10 * each
    nested = lambda v: ops.scan(lambda s, a: (ops.scan(lambda t, b: (t * b, None), s, a)[0], None), ops.sum(v) * 0, v)[
        0
    ]
    assert cornu.inspect.cost(layers.Lambda(nested), (6, 7)).flops == 6 * 7 + (6 * 7 - 1) + 1
    trained = cornu.inspect.cost(model, sizes={"time": 10}, training=True)
    assert 2 < trained.flops / many < 4


def test_memory():
    x = Input((1000,), name="x")
    h = x
    for i in range(6):
        h = layers.Activation("tanh", name=f"a{i}")(h)
    chain = Model(x, h)
    found = cornu.inspect.cost(chain, batch_size=2)
    assert found.peak_memory == 2 * 2 * 1000 * F  # a value and the next
    assert found.activations == 7 * 2 * 1000 * F
    skipped = Model(x, h + x)
    assert cornu.inspect.cost(skipped, batch_size=2).peak_memory == 3 * 2 * 1000 * F  # x stays
    reshaped = Model(x, layers.Reshape((10, 100))(layers.Reshape((100, 10))(x)))
    assert cornu.inspect.cost(reshaped).peak_memory == 1000 * F  # the same memory under other shapes
    deep = mlp()
    forward, training = (cornu.inspect.cost(deep, batch_size=512, training=train) for train in (False, True))
    outputs = sum(layer.output_bytes for layer in forward.layers.values())
    assert forward.peak_memory == 512 * (64 + 48) * F
    assert training.peak_memory > forward.peak_memory and training.peak_memory > outputs


def test_shared_and_nested_layers():
    x = Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    inner = Input((4,))
    block = Model(inner, layers.Dense(8, name="wide")(shared(inner)), name="block")
    found = cornu.inspect.cost(Model(x, block(shared(x)) * 2.0))
    assert list(found.layers) == ["shared", "block", "block/shared", "block/wide"]
    assert found.layers["shared"].parameters == 20 and found.layers["block/shared"].parameters == 0
    assert found.parameters == 20 + 40
    assert found.layers["block"].flops == (32 + 4) + (64 + 8)
    assert found.flops == 2 * (32 + 4) + (64 + 8) + 8
    assert "block/wide" in found.table(2) and "block/wide" not in found.table()
    assert "outside of layers" in found.table()


def test_a_model_without_a_graph():
    class Net(cornu.Model):
        def __init__(self):
            super().__init__(name="net")
            self.dense = layers.Dense(3, name="dense")

        def call(self, data):
            return self.dense(data["a"]) + self.dense(data["b"])

    model = Net()
    with pytest.raises(ArgumentError, match="the shape of its input"):
        cornu.inspect.cost(model)
    found = cornu.inspect.cost(model, {"a": (None, 5), "b": (None, 5)}, batch_size=7)
    assert found.flops == 7 * (2 * (2 * 5 * 3 + 3) + 3)
    assert list(found.layers) == ["dense", "dense@1"]
    assert cornu.inspect.cost(model, {"a": np.ones((2, 5)), "b": cornu.Spec((2, 5), "float32")}).flops == 2 * 69
    stack = cornu.Sequential([layers.Conv1D(2, 3)])
    assert cornu.inspect.cost(stack, (None, None, 4), sizes={"axis1": 10}).flops == 2 * 8 * 2 * 3 * 4 + 16


def test_whole_numbers_are_no_flops():
    model = Model(x := Input((6,), dtype="int32", name="x"), layers.Embedding(9, 4, name="words")(x + 1))
    found = cornu.inspect.cost(model)
    assert found.flops == 0 and found.bytes > 0


def test_sizes_that_are_missing_or_too_many():
    model = Model(x := Input(("time", 3), name="x"), layers.Dense(2)(x))
    with pytest.raises(ArgumentError, match=r"needs the sizes 'time'[\s\S]*sizes=\{'time': 128\}"):
        cornu.inspect.cost(model)
    with pytest.raises(ArgumentError, match="did you mean 'time'"):
        cornu.inspect.cost(model, sizes={"time": 3, "tme": 4})
    with pytest.raises(ArgumentError, match="got .*list"):
        cornu.inspect.cost([])


def test_nothing_is_computed_and_no_engine_loaded():
    code = (
        "import sys, cornu\n"
        "x = cornu.Input((100_000,))\n"
        "m = cornu.Model(x, cornu.layers.Dense(100_000)(x))\n"
        "found = cornu.inspect.cost(m, batch_size=1000, training=True)\n"
        "assert found.flops > 4e13, found.flops\n"
        "print([name for name in ('jax', 'torch', 'tensorflow') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_building_is_not_disturbed():
    """Nobody listens outside of a call of `cost`."""
    cornu.inspect.cost(mlp())
    assert context.on_spec.get() is None and context.on_call.get() is None and context.way_back.get() is None
