"""Recurrent layers and cells: Keras's numbers, names, masks and gradients, on each engine."""

import functools

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.core import tree
from cornu.core.context import engine_in_force
from cornu.core.errors import ArgumentError, BuildError, ShapeError, UnsupportedError
from cornu.layers import Dense, Input, Layer
from cornu.layers.recurrent import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LSTMCell,
    Masking,
    SimpleRNN,
    SimpleRNNCell,
    StackedRNNCells,
)
from on_gpu import near

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 5, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 0, 1]], bool)
H, C = rng.normal(size=(2, 3, 2)).astype("float32")

HOUSE = {
    "SimpleRNN": SimpleRNN, "LSTM": LSTM, "GRU": GRU, "SimpleRNNCell": SimpleRNNCell, "LSTMCell": LSTMCell,
    "GRUCell": GRUCell, "RNN": RNN, "StackedRNNCells": StackedRNNCells,
}  # fmt: skip
ALL = {"return_sequences": True, "return_state": True}


def stack(module):
    """Three cells of different kinds, the same in both libraries."""
    get = HOUSE.get if module is cornu else functools.partial(getattr, keras.layers)
    return [get("GRUCell")(3), get("LSTMCell")(2), get("SimpleRNNCell")(2)]


# name, arguments (a function of the library if they hold cells), mask, initial state
CASES = [
    ("SimpleRNN", {"use_bias": False}, None, None),
    ("SimpleRNN", {"go_backwards": True, "activation": "relu", **ALL}, MASK, None),
    ("SimpleRNN", {**ALL}, MASK, [H]),
    ("LSTM", {}, None, None),
    ("LSTM", {"return_sequences": True, "go_backwards": True}, None, None),
    ("LSTM", {**ALL}, MASK, None),
    ("LSTM", {"return_state": True}, MASK, [H, C]),
    ("LSTM", {"zero_output_for_mask": True, **ALL}, MASK, [H, C]),
    ("LSTM", {"zero_output_for_mask": True, "go_backwards": True}, MASK, None),
    ("LSTM", {"unroll": True, **ALL}, MASK, None),
    ("LSTM", {"unroll": True, "go_backwards": True, "implementation": 1, "use_bias": False, **ALL}, None, None),
    ("LSTM", {"recurrent_activation": "hard_sigmoid", "unit_forget_bias": False, "stateful": True}, None, None),
    ("GRU", {**ALL}, None, [H]),
    ("GRU", {"reset_after": False, **ALL}, MASK, None),
    ("GRU", {"reset_after": False, "use_bias": False, "go_backwards": True}, None, None),
    ("GRU", {"implementation": 1, "use_bias": False}, MASK, None),
    ("RNN", lambda m: {"cell": stack(m), **ALL}, MASK, None),
    ("RNN", lambda m: {"cell": stack(m)[1], "dtype": "float32"}, MASK, None),
]
IDS = [f"{i}-{case[0]}" for i, case in enumerate(CASES)]


def make(module, case):
    name, arguments, *_ = case
    cls = HOUSE[name] if module is cornu else getattr(keras.layers, name)
    if module is keras and name in ("GRU", "LSTM"):
        cls = functools.partial(cls, use_cudnn=False)  # what Keras gives on a CPU (`docs/differences.md`)
    return cls(**(arguments(module) if callable(arguments) else arguments), **({} if name == "RNN" else {"units": 2}))


@functools.cache
def judge(index):
    """Keras's layer, what it gives, its shapes in a graph, and its weights."""
    case = CASES[index]
    layer = make(keras, case)
    kwargs = {} if case[2] is None else {"mask": case[2]}
    shape = {"batch_shape": (3, 5, 4)} if getattr(layer, "unroll", 0) or layer.stateful else {"shape": (None, 4)}
    symbolic = [t.shape for t in keras.tree.flatten(layer(keras.Input(**shape)))]
    for weight in layer.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape) * 0.5)
    with jax.disable_jit():  # no compiling: faster for few numbers
        outputs = layer(X, initial_state=case[3], **kwargs)
    return layer, [np.asarray(leaf) for leaf in keras.tree.flatten(outputs)], shape, symbolic


def close(ours, theirs):
    np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), **near(2e-5, 2e-6))


def short(path):
    return [part.rstrip("_0123456789") for part in path.split("/")]


@pytest.mark.parametrize("index", range(len(CASES)), ids=IDS)
def test_same_numbers_names_and_shapes(index, engine):
    case = CASES[index]
    theirs, expected, shape, symbolic = judge(index)
    ours = make(cornu, case)
    graph = ours(Input(**shape))
    assert [leaf.spec.keras_shape for leaf in tree.leaves(graph)] == symbolic
    assert [short(w.path) for w in ours.weights] == [short(w.path) for w in theirs.weights]
    ours.set_weights(theirs.get_weights())
    kwargs = {} if case[2] is None else {"mask": case[2]}
    outputs = ours(X, initial_state=case[3], **kwargs)
    for have, want in zip(tree.leaves(outputs), expected, strict=True):
        close(have, want)
    config = ours.get_config()
    assert set(theirs.get_config()) <= set(config)
    if engine_in_force().name == "jax":
        return
    again = type(ours).from_config(config)
    again.build((3, 5, 4))
    assert again.name == ours.name and not {id(w) for w in again.weights} & {id(w) for w in ours.weights}
    again.set_weights(ours.get_weights())
    for have, want in zip(tree.leaves(again(X, initial_state=case[3], **kwargs)), expected, strict=True):
        close(have, want)


FACTORS = rng.normal(size=5).astype("float32")


def total(outputs, library):
    return sum(f * library.sum(library.sin(o)) for f, o in zip(FACTORS, tree.leaves(outputs), strict=False))


@functools.cache
def judge_gradients(index):
    layer = judge(index)[0]
    others = [v.value for v in layer.non_trainable_variables]

    def loss(values):
        outputs, _ = layer.stateless_call(values, others, X, mask=MASK)
        return total(keras.tree.flatten(outputs), keras.ops)

    with jax.disable_jit():
        return [np.asarray(g) for g in jax.grad(loss)([v.value for v in layer.trainable_variables])]


@pytest.mark.parametrize("index", [5, 13])
def test_gradients_are_keras_s(index, engine):
    case = CASES[index]
    theirs, expected = judge(index)[0], judge_gradients(index)
    ours = make(cornu, case)
    ours.build((3, 5, 4))
    ours.set_weights(theirs.get_weights())
    found = cornu.value_and_grad(lambda: total(ours(X, mask=MASK), ops), ours.trainable_variables)()[1]
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(have), want, rtol=2e-4, atol=2e-5)


# ---------------------------------------------------------------- masks, graphs, states


def test_masks_travel_through_a_graph(engine):
    def build(layers, inputs):
        x = layers["Masking"]()(inputs)
        x, *_ = layers["LSTM"](2, name="one", **ALL)(x)
        return layers["GRU"](2, name="two")(x)

    x = np.where(MASK[..., None], X, 0).astype("float32")
    i = keras.Input((None, 4))
    theirs = keras.Model(i, build({k: getattr(keras.layers, k) for k in ("Masking", "LSTM", "GRU")}, i))
    i = Input((None, 4))
    ours = cornu.Model(i, build({**HOUSE, "Masking": Masking}, i))
    ours.set_weights(theirs.get_weights())
    with jax.disable_jit():
        expected = np.asarray(theirs(x))
    close(ours(x), expected)
    layers = ours.layers[1:]
    values = x  # the same masks without a graph
    for layer in layers:
        values = layer(values)
        values = values[0] if isinstance(values, tuple) else values
    close(values, expected)

    class Inside(Layer):  # and inside a layer's call
        def __init__(self):
            super().__init__()
            self.inner = layers

        def call(self, x):
            a, b, c = self.inner
            return c(b(a(x))[0])

    i = Input((None, 4))
    close(cornu.Model(i, Inside()(i))(x), expected)


def test_encoder_decoder(engine):
    def build(module, lstm, inputs):
        source, target = inputs((None, 4)), inputs((None, 4))
        _, *states = lstm(2, return_state=True)(source)
        return module.Model([source, target], lstm(2, return_sequences=True)(target, initial_state=states))

    theirs = build(keras, keras.layers.LSTM, keras.Input)
    ours = build(cornu, LSTM, Input)
    ours.set_weights(theirs.get_weights())
    close(ours([X, X[:, ::-1]]), np.asarray(theirs([X, X[:, ::-1]])))
    assert ours.output_shape == theirs.output_shape
    positional = LSTM(2)
    assert positional(X, [H, C]).shape == (3, 2)


def test_stateful_carries_states_and_resets(engine):
    theirs = keras.layers.LSTM(2, stateful=True)
    theirs.build((3, 5, 4))
    ours = LSTM(2, stateful=True)
    ours.build((3, 5, 4))
    ours.set_weights(theirs.get_weights())
    assert len(ours.weights) == 3 and len(ours.non_trainable_variables) == 2
    assert ours.states[0].path == f"{ours.name}/rnn_state"
    first = ours(X)
    close(first, np.asarray(theirs(X)))
    close(ours(X), np.asarray(theirs(X)))
    ours.reset_state()
    close(ours(X), first)
    ours.reset_states([H, C])
    close(ours(X), np.asarray(theirs(X, initial_state=[H, C])))

    inputs = Input((5, 4), batch_size=3)
    model = cornu.Model(inputs, Dense(1)(ours(inputs)))
    model.compile("sgd", "mse")
    ours.reset_state()
    model.fit(X, np.zeros((3, 1), "float32"), batch_size=3, epochs=1, shuffle=False, verbose=0)
    after = ours.states[0].numpy()
    assert np.abs(after).sum() > 0
    model.predict(X, batch_size=3, verbose=0)
    assert not np.allclose(ours.states[0].numpy(), after)
    with pytest.raises(ShapeError, match="batches of 3 rows"):
        ours(X[:2])
    with pytest.raises(BuildError, match="batch_size"):
        LSTM(2, stateful=True)(Input((None, 4)))


# ---------------------------------------------------------------- cells


class Minimal(Layer):
    """A user's cell with nested states, one of them a counter, of another size than the output."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, {"sum": units, "steps": [1]}]
        self.output_size = 2 * units
        self.inner = Dense(units, name="inner", activity_regularizer="l2")

    def call(self, inputs, states):
        h, more = states
        new = ops.tanh(self.inner(inputs) + h)
        steps = more["steps"][0] + 1
        return ops.concatenate([new, -new], axis=-1), (new, {"sum": more["sum"] + new, "steps": [steps]})


@pytest.mark.parametrize("unroll", [False, True])
def test_a_cell_of_the_user_s(engine, unroll):
    if unroll and engine_in_force().name == "jax":
        return  # the same Python loop
    layer = RNN(Minimal(2), unroll=unroll, **ALL)
    outputs, h, more = layer(X, mask=MASK)
    assert [w.path.split("/")[-2:] for w in layer.weights] == [["inner", "kernel"], ["inner", "bias"]]
    kernel, bias = layer.get_weights()
    state, total, before, steps = (np.zeros((3, n)) for n in (2, 2, 4, 1))
    penalty, expected = 0.0, []
    for t in range(5):
        y = X[:, t] @ kernel + bias
        penalty += 0.01 * (y**2).sum()
        new, on = np.tanh(y + state), MASK[:, t, None]
        before = np.where(on, np.concatenate([new, -new], -1), before)
        total, steps, state = total + on * new, steps + on, np.where(on, new, state)
        expected.append(before)
    close(outputs, np.stack(expected, 1))
    close(h, state)
    close(more["sum"], total)
    close(more["steps"][0], steps)
    close(ops.sum(ops.stack([ops.convert_to_tensor(loss) for loss in layer.losses])), penalty / 3)
    symbolic = layer(Input((5 if unroll else None, 4)))
    assert symbolic[0].shape == (None, 5 if unroll else None, 4) and symbolic[2]["sum"].shape == (None, 2)
    loss = cornu.value_and_grad(lambda: ops.sum(layer(X)[0] ** 2) + layer.losses[0], layer.trainable_variables)
    assert all(np.isfinite(g).all() and np.abs(g).sum() > 0 for g in map(ops.convert_to_numpy, loss()[1]))
    copy = RNN.from_config(layer.get_config())
    assert copy.cell is not layer.cell and copy.cell.units == 2


class Counter(Layer):
    """A cell that assigns a variable at every step."""

    state_size = 1

    def __init__(self, trainable_count=False):
        super().__init__()
        self.trainable_count = trainable_count

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=self.trainable_count, name="count")

    def call(self, inputs, states):
        self.count.assign(self.count + 1.0)
        return states[0] + self.count, [states[0] + 1.0]


def test_what_a_cell_assigns_is_carried_from_step_to_step(engine):
    layer = RNN(Counter())
    close(layer(X), np.full((3, 1), 4.0 + 5.0))
    assert float(layer.cell.count) == 5.0
    close(layer(X), np.full((3, 1), 4.0 + 10.0))
    with pytest.raises(UnsupportedError, match="trainable"):
        RNN(Counter(True))(X)


class Plain:
    """A cell that is no layer."""

    state_size = 4

    def call(self, inputs, states):
        return inputs + states[0], [inputs + states[0]]


def test_a_cell_that_is_no_layer(engine):
    close(RNN(Plain(), return_sequences=True)(X), np.cumsum(X, 1))
    close(RNN([Plain(), Plain()])(X), np.cumsum(np.cumsum(X, 1), 1)[:, -1])


class Scaled(LSTMCell):
    """A house cell with a call of the user's own: that call counts, not the parts it replaces."""

    def call(self, inputs, states, training=False):
        return super().call(2.0 * inputs, states, training=training)


def test_a_changed_house_cell_and_single_steps(engine):
    changed, plain = RNN(Scaled(2)), LSTM(2)
    changed.build((3, 5, 4))
    plain.build((3, 5, 4))
    plain.set_weights(changed.get_weights())
    close(changed(X), plain(2 * X))
    for name, states in (("SimpleRNNCell", [H]), ("LSTMCell", [H, C]), ("GRUCell", H)):
        theirs, ours = getattr(keras.layers, name)(2), HOUSE[name](2)
        theirs.build((3, 4))
        ours.build((3, 4))
        ours.set_weights(theirs.get_weights())
        expected = keras.tree.flatten(theirs(X[:, 0], states))
        for have, want in zip(tree.leaves(ours(X[:, 0], states)), expected, strict=True):
            close(have, np.asarray(want))
        assert set(theirs.get_config()) <= set(ours.get_config())
        assert [float(v) for v in np.unique(ours.bias.numpy())] == [
            float(v) for v in np.unique(theirs.bias)
        ]  # the forget gate's ones


def test_mixed_precision(engine):
    layer = LSTM(2, dtype="mixed_float16", **ALL)
    outputs, h, _ = layer(X)
    assert ops.dtype(outputs) == ops.dtype(h) == "float16" and layer.cell.kernel.dtype == "float32"
    other = RNN(GRUCell(2, dtype="float16"), dtype="float32")
    assert ops.dtype(other(X)) == "float32"


# ---------------------------------------------------------------- dropout

NOISY = [
    ("SimpleRNN", {"recurrent_dropout": 0.5}), ("LSTM", {"dropout": 0.5, "implementation": 1}),
    ("GRU", {"recurrent_dropout": 0.5, "dropout": 0.5, "reset_after": False}), ("RNN", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), NOISY)
def test_dropout_is_the_same_on_every_engine(name, arguments):
    found = []
    for engine, unroll in (("numpy", False), ("numpy", True), ("jax", False)):
        with cornu.engine(engine):
            if name == "RNN":
                layer = RNN([GRUCell(4, dropout=0.5, seed=1), LSTMCell(4, recurrent_dropout=0.5, seed=2)], name="r")
            else:
                layer = HOUSE[name](4, seed=3, unroll=unroll, name="r", **arguments)
            layer.build((3, 5, 4))
            layer.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in layer.weights])
            found.append(ops.convert_to_numpy(layer(X, training=True)))
            if engine == "numpy":
                assert np.abs(found[-1] - layer(X)).max() > 1e-3
                assert not np.allclose(layer(X, training=True), found[-1])
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=2e-5, atol=2e-6)


def test_one_mask_holds_for_every_step(engine):
    layer = SimpleRNN(
        4, "linear", dropout=0.5, use_bias=False, kernel_initializer="identity", recurrent_initializer="zeros",
        return_sequences=True,
    )  # fmt: skip
    outputs = ops.convert_to_numpy(layer(np.ones((8, 5, 4), "float32"), training=True))
    assert set(np.unique(outputs)) == {0.0, 2.0} and (outputs == outputs[:, :1]).all()


class Dropping(Layer):
    """A cell that draws inside its call."""

    state_size = 4

    def call(self, inputs, states, training=False):
        from cornu.layers._clock import layer_key

        if training:
            inputs = cornu.random.dropout(inputs, 0.5, seed=layer_key(self, 0))
        return inputs, [inputs]


def test_a_cell_that_draws_draws_anew_at_each_step():
    found = []
    for engine in ("numpy", "jax"):
        with cornu.engine(engine):
            layer = RNN(Dropping(name="d"), return_sequences=True, name="r")
            found.append(ops.convert_to_numpy(layer(np.ones((8, 5, 4), "float32"), training=True)))
    assert (found[0] == found[1]).all() and (found[0] != found[0][:, :1]).any()


# ---------------------------------------------------------------- what is refused

REFUSED = [
    (lambda: LSTM(0), ArgumentError, "units"),
    (lambda: GRU(2, dropout=1.5), ArgumentError, "dropout"),
    (lambda: LSTM(2, use_cudnn=True), UnsupportedError, "cuDNN"),
    (lambda: LSTM(2, unit=3), ArgumentError, "unit"),
    (lambda: RNN(Dense(2)), ArgumentError, "state_size"),
    (lambda: StackedRNNCells([]), ArgumentError, "cells|one cell"),
    (lambda: LSTM(2)(X[:, :0]), ShapeError, "no time steps"),
    (lambda: LSTM(2)(X[0]), ShapeError, "3 axes"),
    (lambda: LSTM(2)(X, initial_state=[H]), ShapeError, "initial_state"),
    (lambda: LSTM(2)(X, initial_state=[H, C[:2]]), ShapeError, "initial_state"),
    (lambda: LSTM(2)(X, mask=MASK[:, :3]), ShapeError, "mask"),
    (lambda: LSTM(2, unroll=True)(Input((None, 4))), ShapeError, "unroll"),
    (lambda: LSTM(2)(Input((5, None))), ArgumentError, "last size"),
]


@pytest.mark.parametrize(("make_it", "error", "words"), REFUSED)
def test_refused(make_it, error, words):
    with pytest.raises(error, match=words):
        make_it()


def test_masking(engine):
    theirs, ours = keras.layers.Masking(2.0), Masking(2.0)
    x = X.copy()
    x[0, 2], x[1, 1:] = 2.0, 2.0
    close(ours(x), np.asarray(theirs(x)))
    assert (ops.convert_to_numpy(ours.compute_mask(x)) == np.asarray(theirs.compute_mask(x))).all()
    assert ours(Input((None, 4))).mask is not None and Masking.from_config(ours.get_config()).mask_value == 2.0
