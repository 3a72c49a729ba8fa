"""Ops for which engines have a way of their own: it agrees with the composed op, and is taken only where it may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core.context import engine_in_force
from cornu.layers.recurrent import whole
from cornu.ops._declare import operator

rng = np.random.default_rng(0)


def floats(*shape):
    return rng.normal(size=shape).astype("float32")


def weighed(results):
    """A scalar that weighs every element of float results differently."""
    total = 0.0
    for part in results:
        weights = np.cos(np.arange(int(np.prod(ops.shape(part))))).reshape(ops.shape(part)).astype(ops.dtype(part))
        total = ops.add(total, ops.sum(ops.multiply(part, weights)))
    return total


def both_orders(engine, function, arrays):
    """A function's results, its gradients, and gradients of its gradients."""
    differentiate = lambda f: engine.value_and_grad(f) or tape_value_and_grad(f)
    first = lambda values: (weighed(function(values)), None)

    def second(values):
        return weighed(differentiate(first)(values)[1]), None

    def run(values):
        return list(function(values)), differentiate(first)(values)[1], differentiate(second)(values)[1]

    compiled = engine.compile(run)
    given = [engine.from_host(array) for array in arrays]
    for _ in range(4):  # engines may compile only what is called again
        found = compiled(given)
    return [ops.convert_to_numpy(leaf).astype("float64") for part in found for leaf in part]


ROWS, STEPS, SIZE, UNITS = 9, 4, 3, 2


def sequence(gates, states, dtype, rows=ROWS):
    bias = (4 * UNITS,) if gates == 4 else (2, 3 * UNITS)
    shapes = (STEPS, rows, SIZE), (SIZE, gates * UNITS), (UNITS, gates * UNITS), *((rows, UNITS),) * states, bias
    return [floats(*shape).astype(dtype) for shape in shapes]


RECURRENCES = [
    (name, sequence(gates, states, dtype, rows), {"reverse": reverse, "sequences": sequences})
    for name, gates, states in (("lstm", 4, 2), ("gru", 3, 1))
    for dtype, rows, reverse, sequences in (
        ("float32", ROWS, False, False), ("float32", 1, True, True), ("float64", ROWS, False, True),
    )
]  # fmt: skip
NORMALISATIONS = [
    ("normalization_by_batch", [floats(*shape).astype(dtype), floats(3).astype(dtype), floats(3).astype(dtype)],
     {"axis": axis})
    for shape, axis, dtype in (
        ((5, 3), -1, "float32"), ((2, 4, 3), 2, "float32"), ((2, 3, 2, 3), -1, "float32"), ((2, 3, 2, 2), 1, "float32"),
        ((3, 4), 0, "float32"), ((2, 3, 2, 3), -1, "float64"), ((1, 3), -1, "float32"),
    )
]  # fmt: skip


@pytest.mark.parametrize("case", RECURRENCES + NORMALISATIONS, ids=lambda case: f"{case[0]}-{case[1][0].shape}")
def test_own_way_and_composed_one_agree(engine, case):
    """Values and gradients of both orders; nothing flows back through the statistics of a batch."""
    name, arrays, static = case
    owner = engine_in_force()
    if name not in owner.table:
        assert owner.name in ("numpy", "onnxruntime", "pytensor")
        return

    def call(function):
        if name == "normalization_by_batch":
            return lambda values: function(x=values[0], offset=values[1], scale=values[2], **static)
        # As a layer gives it: swapped, with gaps in memory.
        return lambda values: function(ops.swapaxes(values[0], 0, 1), *values[1:], **static)

    if name != "normalization_by_batch":
        arrays = [np.swapaxes(arrays[0], 0, 1).copy(), *arrays[1:]]
    own = both_orders(owner, call(operator(name)), arrays)
    composed = both_orders(owner, call(operator(name).body), arrays)
    tolerance = 1e-9 if arrays[0].dtype == np.float64 else 2e-5
    for a, b in zip(own, composed, strict=True):
        assert a.shape == b.shape
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a / scale, b / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_widths(engine, dtype):
    if engine == "pytensor":
        pytest.skip("PyTensor has no bfloat16, and float16 by the same way as float32")
    for name, gates, states in (("lstm", 4, 2), ("gru", 3, 1)):
        arrays = sequence(gates, states, "float32")
        with cornu.engine("numpy"):
            wanted = operator(name)(*arrays)
        found = operator(name)(*[ops.cast(array, dtype) for array in arrays])
        for a, b in zip(found, wanted, strict=True):
            assert ops.dtype(a) == dtype
            tolerance = 0.05 if dtype == "bfloat16" else 0.01
            np.testing.assert_allclose(ops.convert_to_numpy(a).astype("float32"), b, rtol=tolerance, atol=tolerance)


def test_jax_differentiates_forwards_and_by_rows():
    arrays = [jnp.asarray(array) for array in sequence(4, 2, "float32")]
    directions = [jnp.cos(array) for array in arrays]
    own = lambda *values: operator("lstm")(*values, sequences=True)
    composed = lambda *values: operator("lstm").body(*values, sequences=True)
    with cornu.engine("jax"):
        for transform in (
            lambda f: jax.jvp(f, arrays, directions),
            lambda f: jax.vmap(f, in_axes=(None, 0, *(None,) * 4))(arrays[0], jnp.stack([arrays[1]] * 2), *arrays[2:]),
            lambda f: jax.jacfwd(jax.grad(lambda h: f(*arrays[:3], h, *arrays[4:])[1].sum()))(arrays[3]),
        ):
            for a, b in zip(jax.tree.leaves(transform(own)), jax.tree.leaves(transform(composed)), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


# ---------------------------------------------------------------- which layers go which way


class Louder(cornu.layers.LSTMCell):
    def advance(self, projected, states, noise=(None, None)):
        output, states = super().advance(projected, states, noise)
        return ops.multiply(output, 2), states


MASK = np.array([[1, 1, 1, 0], [1, 0, 1, 1]], bool)
# a layer, whether it goes over the sequence as one op, how it is called
WAYS = [
    (lambda: cornu.layers.LSTM(2), True, {}),
    (lambda: cornu.layers.GRU(2, return_sequences=True, go_backwards=True), True, {}),
    (lambda: cornu.layers.RNN(cornu.layers.LSTMCell(2)), True, {}),
    (lambda: cornu.layers.LSTM(2, use_bias=False, dropout=0.5), True, {"training": True}),
    (lambda: cornu.layers.LSTM(2, recurrent_dropout=0.5), True, {"training": False}),
    (lambda: cornu.layers.LSTM(2, recurrent_dropout=0.5), False, {"training": True}),
    (lambda: cornu.layers.LSTM(2, dropout=0.5, implementation=1), False, {"training": True}),
    (lambda: cornu.layers.LSTM(2), False, {"mask": MASK}),
    (lambda: cornu.layers.GRU(2, unroll=True), False, {}),
    (lambda: cornu.layers.LSTM(2, activation="relu"), False, {}),
    (lambda: cornu.layers.GRU(2, recurrent_activation="hard_sigmoid"), False, {}),
    (lambda: cornu.layers.GRU(2, reset_after=False), False, {}),
    (lambda: cornu.layers.SimpleRNN(2), False, {}),
    (lambda: cornu.layers.RNN(Louder(2)), False, {}),
    (lambda: cornu.layers.RNN([cornu.layers.LSTMCell(2), cornu.layers.GRUCell(2)]), False, {}),
]


@pytest.mark.parametrize("index", range(len(WAYS)))
def test_which_layers_are_one_op(monkeypatch, index):
    make, expected, kwargs = WAYS[index]
    seen = []
    for name in ("lstm", "gru"):
        own = getattr(whole, name)
        monkeypatch.setattr(whole, name, lambda *a, own=own, **k: seen.append(own) or own(*a, **k))
    layer, x = make(), floats(2, 4, 3)
    layer.build(x.shape)
    seen.clear()
    with cornu.engine("numpy"):
        layer(x, **kwargs)
    assert bool(seen) == expected


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_dropout_and_backwards_are_those_of_the_loop(monkeypatch, engine, name):
    """The same layer both ways: outputs, states and gradients."""
    x = floats(2, 4, 3)

    def run():
        layer = getattr(cornu.layers, name)(
            2, dropout=0.4, go_backwards=True, return_sequences=True, return_state=True, seed=3, name="r"
        )
        layer.build(x.shape)
        layer.set_weights([np.cos(np.arange(w.size)).reshape(w.shape) for w in layer.get_weights()])

        def loss():
            outputs = layer(x, training=True)
            return weighed(outputs), outputs

        (_, outputs), gradients = value_and_grad(loss, layer.weights, has_aux=True)()
        return [ops.convert_to_numpy(leaf) for leaf in (*outputs, *gradients)]

    as_one = run()
    monkeypatch.setattr(cornu.layers.recurrent.base, "is_standard", lambda *given: False)
    for a, b in zip(as_one, run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_thorough_compiling_changes_nothing(engine):
    """Compilers choose how intermediate arrays lie in memory; a kernel must not depend on it."""
    owner = engine_in_force()
    arrays = sequence(4, 2, "float32")
    arrays[0] = np.swapaxes(arrays[0], 0, 1).copy()
    differentiate = lambda f: owner.value_and_grad(f) or tape_value_and_grad(f)

    def function(values):
        doubled = [ops.multiply(ops.transpose(value), 2) for value in values[1:3]]
        sequences, *_ = operator("lstm")(
            ops.swapaxes(values[0], 0, 1), *map(ops.transpose, doubled), *values[3:], sequences=True
        )
        return ops.sum(ops.multiply(sequences, sequences)), None

    given = [owner.from_host(array) for array in arrays]
    plain = differentiate(function)(given)
    found = owner.compile(lambda values: differentiate(function)(values), thorough=True)(given)
    for a, b in zip([found[0][0], *found[1]], [plain[0][0], *plain[1]], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=2e-5, atol=2e-5)
