"""Ops for which engines have a way of their own: it agrees with the composed op, and is taken only where it may be."""

import contextlib
import functools
import gc
import itertools
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import dtypes
from cornu.core.context import engine_in_force
from cornu.engines.jax import choice, compiling
from cornu.engines.torch import parallel, recurrent, tracing
from cornu.engines.torch.in_place import in_place
from cornu.engines.torch.simplify import simplify
from cornu.layers.recurrent import whole
from cornu.ops._declare import operator
from on_gpu import near

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
    owner = engine_in_force()
    if case[0] not in owner.table:
        assert owner.name in ("numpy", "onnxruntime", "pytensor")
        return
    both_ways_agree(owner, *case)


def both_ways_agree(owner, name, arrays, static):
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
        np.testing.assert_allclose(a, b, **near(2e-5, 2e-6))


@pytest.mark.parametrize(("name", "gates", "states"), [("lstm", 4, 2), ("gru", 3, 1)])
def test_thorough_compiling_changes_nothing(engine, name, gates, states):
    """Compilers choose how intermediate arrays lie in memory; a kernel must not depend on it."""
    owner = engine_in_force()
    arrays = sequence(gates, states, "float32")
    arrays[0] = np.swapaxes(arrays[0], 0, 1).copy()
    differentiate = lambda f: owner.value_and_grad(f) or tape_value_and_grad(f)

    def function(values):
        doubled = [ops.multiply(ops.transpose(value), 2) for value in values[1:3]]
        sequences, *_ = operator(name)(
            ops.swapaxes(values[0], 0, 1), *map(ops.transpose, doubled), *values[3:], sequences=True
        )
        return ops.sum(ops.multiply(sequences, sequences)), None

    given = [owner.from_host(array) for array in arrays]
    plain = differentiate(function)(given)
    found = owner.compile(lambda values: differentiate(function)(values), thorough=True)(given)
    for a, b in zip([found[0][0], *found[1]], [plain[0][0], *plain[1]], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=2e-5, atol=2e-5)


# ---------------------------------------------------------------- TensorFlow


def tensorflow():
    """Its engine, where it is installed."""
    pytest.importorskip("tensorflow")
    return cornu.engines.registry.get("tensorflow")


def test_tensorflow_convolves_as_the_reference_however_it_is_padded():
    """Padding that TensorFlow has a name for goes to other kernels than any other."""
    owner, primitive = tensorflow(), operator
    shapes = [((2, 5, 6, 3), (3, 2, 3, 4), 1), ((2, 6, 5, 2), (2, 3, 1, 4), 2), ((2, 5, 3), (3, 3, 2), 1)]
    shapes += [((2, 4, 5, 3, 2), (3, 2, 3, 2, 2), 1)]
    for x_shape, kernel_shape, groups in shapes:
        for step in (1, 2):
            for pads in ((0, 0), (1, 1), (0, 1), (1, 0)):
                rank = len(x_shape) - 2
                how = {"strides": (step,) * rank, "padding": (pads,) + ((0, 1),) * (rank - 1)}
                how |= {"dilation": (1,) * rank, "groups": groups}
                x, kernel = floats(*x_shape), floats(*kernel_shape)

                def results(given, how=how, shapes=(x_shape, kernel_shape)):
                    x, kernel, g = given
                    return [
                        primitive("convolution")(x, kernel, **how),
                        primitive("convolution_input_gradient")(g, kernel, shape=shapes[0], **how),
                        primitive("convolution_kernel_gradient")(x, g, shape=shapes[1], **how),
                    ]

                with cornu.engine("numpy"):
                    g = np.cos(primitive("convolution")(x, kernel, **how)).astype("float32")
                    wanted = results([x, kernel, g])
                with cornu.engine(owner):
                    found = results([owner.from_host(array) for array in (x, kernel, g)])
                for a, b in zip(found, wanted, strict=True):
                    np.testing.assert_allclose(owner.to_host(a), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", ["plain", "ties", "nan", "infinite"])
def test_tensorflow_pools_as_the_reference(values):
    owner = tensorflow()
    for shape, size, step, pads in (
        ((2, 5, 4, 3), 3, 2, (1, 1)), ((2, 5, 4, 3), 2, 2, (0, 1)), ((2, 5, 3), 3, 1, (1, 1)), ((2, 5, 3), 2, 1, (1, 0))
    ):  # fmt: skip
        rank = len(shape) - 2
        how = {"window": (size,) * rank, "strides": (step,) * rank, "padding": (pads,) * rank}
        x = floats(*shape)
        if values == "ties":
            x = np.round(x)
        elif values != "plain":
            x[rng.random(shape) < 0.3] = np.nan if values == "nan" else -np.inf
        with cornu.engine("numpy"):
            largest = operator("window_max")(x, **how)
            g = np.cos(np.arange(largest.size)).reshape(largest.shape).astype("float32")
            back = operator("window_max_gradient")(x, g, **how)
        with cornu.engine(owner):
            given = [owner.from_host(x), owner.from_host(g)]
            found = owner.compile(
                lambda given, how=how: [
                    operator("window_max")(given[0], **how), operator("window_max_gradient")(*given, **how)
                ]
            )(given)  # fmt: skip
        np.testing.assert_array_equal(owner.to_host(found[0]), largest)
        np.testing.assert_allclose(owner.to_host(found[1]), back, rtol=1e-6, atol=1e-6)


BROKEN = np.array([[1, 2, 3], [np.inf, 1, 2], [-np.inf, 1, 2], [-np.inf] * 3, [np.nan, 1, 2]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x", [BROKEN[:1], BROKEN, BROKEN.reshape(1, 5, 1, 3)], ids=["finite", "broken", "more axes"])
def test_tensorflow_softmax_is_the_composed_one(x, dtype):
    """Values and gradients of both orders, also where a row has NaN or infinities: then all of it is NaN."""
    owner = tensorflow()
    with cornu.engine(owner):
        own, composed = (
            both_orders(owner, lambda values, f=f: [f(values[0], axis=-1)], [x.astype(dtype)])
            for f in (operator("softmax"), operator("softmax").body)
        )
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for a, b in zip(own, composed, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_tensorflow_leaky_relu_is_the_composed_one():
    owner = tensorflow()
    x = np.array([0, -0.0, 1e-6, -1e-6, 2, -3], "float32")
    with cornu.engine(owner):
        own, composed = (
            both_orders(owner, lambda values, f=f: [f(values[0], negative_slope=0.3)], [x])
            for f in (operator("leaky_relu"), operator("leaky_relu").body)
        )
    for a, b in zip(own, composed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_tensorflow_gradients_of_rows_begin_with_nothing_or_with_what_is_there():
    """Zeros that a graph knows of are not added; others are."""
    owner = tensorflow()
    rows, where = floats(4, 3), np.array([[1], [0], [1], [4]], "int32")
    table = floats(5, 3)
    with cornu.engine("numpy"):
        wanted = [operator("scatter_nd")(t, where, rows) for t in (np.zeros_like(table), table, np.ones_like(table))]

    def run(given):
        table, where, rows = given
        tables = [ops.zeros((5, 3)), table, ops.ones((5, 3))]
        return [operator("scatter_nd")(t, where, rows) for t in (*tables, ops.zeros_like(table))]

    with cornu.engine(owner):
        found = owner.compile(run)([owner.from_host(array) for array in (table, where, rows)])
    for a, b in zip(found, [*wanted, wanted[0]], strict=True):
        np.testing.assert_allclose(owner.to_host(a), b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 64), (2, 3, 64), (0, 64), (2, 65)])
def test_tensorflow_adds_a_row_to_rows(shape):
    owner = tensorflow()
    x, row = floats(*shape), floats(shape[-1])
    with cornu.engine(owner):
        found = both_orders(owner, lambda values: [ops.exp(ops.add(*values))], [x, row])
    with cornu.engine("numpy"):
        wanted = both_orders(engine_in_force(), lambda values: [ops.exp(ops.add(*values))], [x, row])
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


# ---------------------------------------------------------------- PyTorch's kernels


def heads(query=(2, 5, 3, 4), key=None, dtype="float32", depth=None):
    key = key or query
    return [floats(*shape).astype(dtype) for shape in (query, key, (*key[:3], depth or query[3]))]


SEEN = np.array([[True, False, True, True, False], [False] * 5])[:, None, None]
TORCH_CASES = [
    *(
        ("layer_normalization", [floats(*shape), floats(*shape[-count:]), floats(*shape[-count:])], static)
        for shape, count, static in (
            ((4, 6), 1, {}), ((2, 3, 4), 1, {"epsilon": 0.1}), ((2, 3, 4), 2, {"axis": (1, 2)}),
            ((2, 3, 4), 2, {"axis": (-2, -1)}),
        )
    ),
    ("layer_normalization", [floats(2, 3, 4), floats(3), floats(3)], {"axis": 1}),
    ("layer_normalization", [floats(2, 3, 4)], {"axis": (2, 1)}),
    ("layer_normalization", [floats(2, 3, 4).astype("float64"), floats(4)], {"rms_scaling": True}),
    *(("gelu", [3 * floats(40)], {"approximate": approximate}) for approximate in (True, False)),
    ("silu", [3 * floats(40)], {}),
    *((name, [floats(3, 4, 5)], {"axis": axis}) for name in ("softmax", "log_softmax") for axis in (-1, 1, None)),
    ("binary_crossentropy", [np.abs(floats(4, 3)) % 1, 5 * floats(4, 3)], {"from_logits": True}),
    *(
        ("dot_product_attention", arrays, static)
        for arrays, static in (
            (heads(), {}), (heads(), {"is_causal": True, "scale": 0.3}), (heads(dtype="float64"), {}),
            (heads(), {"mask": SEEN}), (heads(), {"mask": SEEN, "is_causal": True}),
            (heads(key=(2, 7, 3, 4)), {"is_causal": True}), (heads((2, 7, 3, 4), (2, 5, 3, 4)), {"is_causal": True}),
            (heads(depth=6), {"is_causal": True}), (heads((2, 5, 6, 4), (2, 7, 3, 4)), {}),
            (heads((1, 130, 1, 3)), {"is_causal": True}), (heads((1, 130, 2, 3), (1, 140, 2, 3)), {}),
            (heads((1, 130, 2, 3), depth=5), {}),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", TORCH_CASES, ids=lambda case: f"{case[0]}-{case[1][0].shape}-{'-'.join(case[2])}")
def test_torch_has_kernels_that_agree_with_the_composed_ops(case):
    name, arrays, static = case
    with cornu.engine("torch"):
        owner = engine_in_force()
        assert name in owner.table
        own = both_orders(owner, lambda values: [operator(name)(*values, **static)], arrays)
        composed = both_orders(owner, lambda values: [operator(name).body(*values, **static)], arrays)
        plain = ops.convert_to_numpy(operator(name)(*arrays, **static))  # nobody differentiates
    tolerance = 1e-9 if arrays[0].dtype == np.float64 else 2e-5
    for a, b in zip([*own, plain], [*composed, composed[0]], strict=True):
        assert a.shape == b.shape
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a / scale, b / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("static", [{"sequences": False}, {"sequences": True, "reverse": True}], ids=str)
def test_torch_computes_an_lstm_in_parts_of_its_rows(monkeypatch, static):
    counts, side_by_side = [], parallel.side_by_side
    monkeypatch.setattr(parallel, "side_by_side", lambda tasks: counts.append(len(tasks)) or side_by_side(tasks))
    monkeypatch.setattr(parallel, "thread_count", lambda: 3)
    monkeypatch.setattr(recurrent, "_ROWS", 1)
    monkeypatch.setattr(recurrent, "_PRODUCTS", 0)
    with cornu.engine("torch"), torch.device("cpu"):
        both_ways_agree(engine_in_force(), "lstm", sequence(4, 2, "float32", 8), static)  # 3, 3 and 2 rows
        assert set(counts) == {3}
        counts.clear()
        operator("lstm")(*sequence(4, 2, "float32", 2))
        assert counts == [1]  # fewer rows than threads


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's threads are asked for on Linux alone")
def test_torch_runs_tasks_side_by_side(monkeypatch):
    """Each in a thread of its own, which others wait for here; what a task raises is raised."""
    assert parallel.thread_count() == torch.get_num_threads()
    together = threading.Barrier(3, timeout=60)

    def task(number):
        together.wait()
        return number, torch.ones(4, 5).sum().item(), threading.get_ident()

    found = parallel.side_by_side([functools.partial(task, number) for number in range(3)])
    assert [part[:2] for part in found] == [(0, 20.0), (1, 20.0), (2, 20.0)]
    assert len({part[2] for part in found}) == 3

    def fails():
        raise KeyboardInterrupt("here")

    with pytest.raises(KeyboardInterrupt, match="here"):
        parallel.side_by_side([lambda: 1, fails, lambda: 3])
    assert parallel.side_by_side([lambda: 1]) == [1]
    monkeypatch.setattr(parallel, "_openmp", lambda: None)
    assert parallel.thread_count() == 1
    assert parallel.side_by_side([lambda: 1, lambda: 2]) == [1, 2]


def test_torch_attention_is_one_operator_in_a_trace():
    engine = cornu.engines.get("torch")
    with torch.device("cpu"):
        values = [engine.from_host(array) for array in heads((1, 160, 2, 4))]

    def step(values):
        attend = lambda values: (ops.sum(ops.square(ops.dot_product_attention(*values))), None)
        return engine.value_and_grad(attend)(values)[1]

    with torch.device("cpu"):
        names = [str(node.target) for node in tracing._graph(step, values, False).graph.nodes]
    assert sum("flash_attention" in name for name in names) == 2
    assert not any("softmax" in name for name in names)


def test_torch_attention_of_few_scores_makes_no_passes_for_scale_and_mask():
    engine = cornu.engines.get("torch")
    attend = lambda values: (ops.sum(ops.dot_product_attention(*values, is_causal=True)), None)
    with torch.device("cpu"):
        values = [engine.from_host(array) for array in heads()]
        graph = tracing._graph(lambda values: engine.value_and_grad(attend)(values)[1], values, False)
    simplify(graph)
    names = [str(node.target) for node in graph.graph.nodes]
    # Of the two products for the result only the first is here: nobody asks for the result.
    assert names.count("aten.baddbmm.default") == 3 and names.count("aten.bmm.default") == 2
    assert not {"aten.mul.Tensor", "aten.where.self", "aten.masked_fill.Scalar"} & set(names)


def compiled_and_eager(engine, run, values):
    """Each result of a function once it is traced, and as it is op by op."""
    with cornu.engine(engine.name):
        wanted = [ops.convert_to_numpy(part) for part in run(values)]
    compiled = engine.compile(run)
    for _ in range(4):
        found = [ops.convert_to_numpy(part) for part in compiled(values)]
    return list(zip(found, wanted, strict=True))


def test_torch_reuses_only_memory_that_nobody_reads():
    """What is computed in place gives what it gives when nothing is."""
    engine = cornu.engines.get("torch")
    arrays = [floats(64, 100), floats(100), floats(64, 100)]

    def cases(x, bias, other):
        product = ops.matmul(ops.transpose(x), other)
        moved = ops.add(product, bias)
        yield moved, ops.relu(moved), product  # read later
        yield (ops.multiply(ops.transpose(ops.add(product, 1)), ops.add(product, 1)),)  # the same memory, turned
        flat = ops.reshape(ops.exp(x), (-1,))
        yield ops.negative(flat), ops.slice(flat, (3,), (4096,))  # a view of it read later
        yield ops.relu(ops.add(x, bias)), x  # the caller's
        yield (ops.tanh(ops.add(ops.matmul(x, product), bias)),)
        yield (ops.tanh(ops.add(ops.exp(other), bias)),)
        zeros = ops.multiply(other, 0)
        yield (ops.scatter_update(zeros, [[3], [5], [3]], x[:3]),)
        first, second = ops.split(ops.exp(x), 2, axis=0)
        yield ops.add(ops.negative(first), second), ops.sqrt(second)

    run = lambda values: [part for case in cases(*values) for part in case]
    with torch.device("cpu"):  # where joining a product and a sum into one call changes no bit
        values = [engine.from_host(array) for array in arrays]
        for a, b in compiled_and_eager(engine, run, values):
            np.testing.assert_array_equal(a, b)
    for value, array in zip(values, arrays, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(value), array)
    graph = tracing._graph(run, values, False)
    simplify(graph)
    assert len(in_place(graph)) >= 4  # some are


def test_torch_products_add_their_biases():
    """Where nobody else looks at the product, and the bias is one along its last axis."""
    engine = cornu.engines.get("torch")
    arrays = [floats(*shape) for shape in ((2, 4, 4), (4, 4), (4,), (4, 1), (2, 5, 4, 4), (3, 3, 4, 4))]

    def cases(rows, square, bias, column, pictures, kernel):
        yield ops.add(ops.matmul(rows[0], square), bias)
        yield ops.add(bias, ops.matmul(rows, square))  # in another shape
        yield ops.add(ops.matmul(rows[1], square), column)
        product = ops.matmul(square, square)
        yield ops.add(product, bias)
        yield product
        yield ops.add(ops.matmul(rows[0], rows[1]), ops.matmul(rows[1], rows[0])[0])
        yield ops.add(ops.conv(pictures, kernel, padding="same"), bias)
        yield ops.add(bias, ops.conv(rows, kernel[0], padding="valid"))
        yield ops.add(ops.transpose(ops.conv(pictures[:, :4], kernel, padding="same"), (0, 3, 2, 1)), bias)  # rows

    run = lambda values: list(cases(*values))
    values = [engine.from_host(array) for array in arrays]
    for a, b in compiled_and_eager(engine, run, values):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    graph = tracing._graph(run, values, False)
    simplify(graph)
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("aten.addmm.default") == 3 and targets.count("aten.add.Tensor") == 3
    convolutions = [node for node in graph.graph.nodes if str(node.target) == "aten.convolution.default"]
    assert sorted(node.args[2] is not None for node in convolutions) == [False, True, True]


def test_torch_products_add_to_what_is_there():
    """A product of its own and a value of its shape become one call, in that value's memory if nobody else reads it."""
    engine = cornu.engines.get("torch")
    arrays = [floats(*shape) for shape in ((4, 32, 64), (64, 64), (64,), (64, 64), (128, 64))]

    def joined(rows, square, bias, other, flat):
        yield ops.add(ops.exp(rows), ops.matmul(rows, square))  # in place
        yield ops.add(ops.matmul(flat, square), ops.add(flat, 1))  # in place, a matrix
        yield ops.add(ops.matmul(square, other), square)  # the caller's
        meeting = ops.add(ops.matmul(square, square), ops.matmul(other, other))
        yield ops.add(ops.matmul(other, square), meeting)  # in place, twice

    def apart(rows, square, bias, other, flat):
        other = ops.exp(other)  # products of its own
        product = ops.matmul(square, other)
        yield ops.add(product, other), product  # read later
        yield (ops.add(ops.transpose(other), ops.matmul(other, square)),)  # lies otherwise
        yield (ops.add(rows, ops.matmul(rows[0], square)[0]),)  # broadcast

    run = lambda values: [*joined(*values), *(part for case in apart(*values) for part in case)]
    with torch.device("cpu"):
        values = [engine.from_host(array) for array in arrays]
        for a, b in compiled_and_eager(engine, run, values):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        graph = tracing._graph(run, values, False)
    for value, array in zip(values, arrays, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(value), array)
    simplify(graph)
    products = [node for node in graph.graph.nodes if str(node.target) == "aten.addmm.default"]
    assert len(products) == 5
    assert len(set(products) & set(in_place(graph))) == 4


@pytest.mark.parametrize("wrong", [False, True])
def test_torch_looks_for_positions_outside_before_it_fills(wrong):
    """Where rows are found and learnt from in a trace: as op by op, with and without positions outside the table."""
    engine = cornu.engines.get("torch")
    table, positions = floats(50, 64), rng.integers(0, 50, (4, 32)).astype("int32")
    positions[1, 3] = 50 if wrong else 0

    def run(values):
        loss = lambda given: (ops.sum(ops.square(ops.take(given[0], values[1], axis=0))), None)
        return [ops.take(values[0], values[1], axis=0), *engine.value_and_grad(loss)(values[:1])[1]]

    with torch.device("cpu"):
        values = [engine.from_host(array) for array in (table, positions)]
        for a, b in compiled_and_eager(engine, run, values):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_torch_picks_log_probabilities_without_an_array_of_zeros():
    """The gradient of a large sparse crossentropy: as op by op, also where a label names no class."""
    engine = cornu.engines.get("torch")
    labels = rng.integers(0, 1500, (3, 40)).astype("int32")
    labels[0, :3] = -1, 1500, 1499

    def run(values):
        losses = lambda logits: ops.sparse_categorical_crossentropy(values[1], logits, from_logits=True)
        seen = lambda logits: ops.sum(ops.where(ops.isnan(losses(logits)), 0.0, ops.square(losses(logits))))
        return [*engine.value_and_grad(lambda given: (seen(given[0]), None))(values[:1])[1], losses(values[0])]

    with torch.device("cpu"):
        values = [engine.from_host(array) for array in (floats(3, 40, 1500), labels)]
        pairs = compiled_and_eager(engine, run, values)
        graph = tracing._graph(run, values, False)
    for a, b in pairs:
        assert np.abs(a[np.isfinite(a)]).max() > 1
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    simplify(graph)
    targets = [str(node.target) for node in graph.graph.nodes]
    assert "aten.exp.default" in targets and "aten._log_softmax_backward_data.default" not in targets
    assert "aten.new_zeros.default" not in targets


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_torch_finds_places_in_large_arrays(name):
    """The first of equal elements, and of NaN, along each axis, as NumPy does."""
    x = rng.integers(-3, 4, (7, 30, 50)).astype("float32")
    x[3, 4, [5, 9]] = np.nan
    for array in (x, x.astype("float16"), np.nan_to_num(x).astype("int32"), np.nan_to_num(x) > 0):
        for axis in (0, 1, -1):
            with cornu.engine("torch"):
                found = ops.convert_to_numpy(getattr(ops, name)(array, axis=axis, keepdims=True))
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, getattr(np, name)(array, axis=axis, keepdims=True))


def test_torch_looks_positions_up_in_one_op():
    """In a trace too, and gives what is wrong as ever: `NaN`, in a trace as out of it."""
    engine = cornu.engines.get("torch")
    run = lambda values: [ops.take(values[0], values[1], axis=0)]
    with torch.device("cpu"):
        table = engine.from_host(floats(5, 3))
        for positions in ([0, 4, 2], [[1, 1], [3, 0]], [0, 9]):
            values = [table, engine.from_host(np.array(positions, "int32"))]
            for a, b in compiled_and_eager(engine, run, values):
                np.testing.assert_array_equal(a, b)
        targets = [str(node.target) for node in tracing._graph(run, values, False).graph.nodes]
    assert "cornu.look_up.default" in targets and not any("index_select" in target for target in targets)


def test_torch_first_steps_import_no_compiler():
    """The parts of PyTorch that take a second to import are not asked for by a step that runs op by op."""
    source = """
import sys
import numpy as np, cornu
from cornu import layers
x = cornu.Input((6, 3))
h = layers.Dropout(0.5)(layers.LSTM(4, return_sequences=True)(x))
h = layers.LayerNormalization()(layers.MultiHeadAttention(2, 2)(h, h))
model = cornu.Model(x, layers.Dense(3)(layers.GRU(4)(h)))
model.compile("adam", cornu.losses.SparseCategoricalCrossentropy(from_logits=True), engine="torch")
model.train_on_batch(np.ones((4, 6, 3), "float32"), np.array([0, 1, 2, 0]))
print(sorted({"torch._dynamo", "sympy", "numpy.ma"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ---------------------------------------------------------------- how JAX's convolutions are compiled


def test_jax_gives_convolutions_to_xlas_own_kernels(monkeypatch, request):
    """They use all cores, the ones that XLA prefers do not; matrix products stay where they are."""
    compiling.options.cache_clear()
    request.addfinalizer(compiling.options.cache_clear)
    monkeypatch.setattr(compiling, "cores", lambda: 2)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if jax.default_backend() != "cpu" or not jax.lib.__version__.startswith("0.10."):
        assert "xla_cpu_experimental_ynn_fusion_type" not in (compiling.options() or {})
        pytest.skip("XLA's options are left alone here")
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x, kernel, square = jnp.asarray(floats(4, 8, 8, 32)), jnp.asarray(floats(3, 3, 32, 32)), jnp.asarray(floats(64, 64))
    text = lambda f, *given: jax.jit(f, compiler_options=compiling.options()).lower(*given).compile().as_text()
    assert "__ynn_fusion" not in text(convolve, x, kernel)
    assert "__ynn_fusion" in text(lambda a: a @ a, square)
    compiled = compiling.jitted(convolve)
    wanted = convolve(x, kernel)
    for found in (compiled(x, kernel), jax.jit(lambda x, kernel: compiled(x, kernel))(x, kernel)):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-4)
    for flags, left in (
        ("--xla_cpu_experimental_ynn_fusion_type=", {"xla_backend_optimization_level": "2"}),
        ("--xla_cpu_experimental_ynn_fusion_type= --xla_backend_optimization_level=3", None),
    ):
        compiling.options.cache_clear()
        monkeypatch.setenv("XLA_FLAGS", flags)
        assert compiling.options() == left  # what the user sets is the user's


@pytest.mark.parametrize(("strides", "alone"), [((1, 1), "xla"), ((2, 2), "turned")])
def test_jax_kernel_gradients_use_all_cores(monkeypatch, strides, alone):
    """XLA's way does; on one core another may take less time."""
    shapes = [(64, 32, 32, 32), (64, 32 // strides[0], 32 // strides[0], 64)]
    static = {"strides": strides, "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1, "shape": (3, 3, 32, 64)}
    for cores, way in ((1, alone), (2, "xla"), (64, "xla")):
        monkeypatch.setattr(choice, "cores", lambda cores=cores: cores)
        assert choice.usual("convolution_kernel_gradient", shapes, "float32", static) == way


def test_jax_traces_hold_lax_s_own_operations():
    """And give what the functions of `jax.numpy` give to values: NaN, infinities, zeros and broadcasting included."""
    table = cornu.engines.get("jax").table
    x = jnp.asarray([[np.nan, -np.inf, np.inf, -0.0], [0.0, 1.5, -2.0, 3.0]])
    row, column, scalar = x[1], x[:, 3:], jnp.asarray(2.0)
    cases = [(name, (x,)) for name in ("exp", "sqrt", "negative", "abs", "floor", "isfinite")]
    names = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "equal", "less_equal", "greater")
    cases += [(name, pair) for name in names for pair in ((x, x), (x, row), (row, x), (column, row), (x, scalar))]
    cases += [("matmul", (x, x.T)), ("matmul", (x[None], x.T)), ("choose", (x > 0, x, -x))]
    for name, given in cases:
        run = lambda *values, name=name: table[name](*values)
        assert not {"jit", "pjit", "custom_jvp_call"} & {str(e.primitive) for e in jax.make_jaxpr(run)(*given).eqns}
        np.testing.assert_array_equal(jax.jit(run)(*given), run(*given), name)
    for name, axis, keepdims in itertools.product(("sum", "max", "min"), (None, 1, (0, -1), ()), (True, False)):
        run = functools.partial(table[name], axis=axis, keepdims=keepdims)
        np.testing.assert_array_equal(jax.jit(run)(x), run(x), name)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_tensorflow_s_eager_calls_become_a_graph(kind):
    tf = pytest.importorskip("tensorflow")
    from cornu.engines.tensorflow import recurrent

    layer = getattr(cornu.layers, kind)(5, return_sequences=True)
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 7, 4)).astype("float32"))
    found = []
    with cornu.engine("tensorflow"):
        for _ in range(recurrent._EAGER_CALLS + 3):
            with tf.GradientTape() as outer, tf.GradientTape() as inner:
                outer.watch(x), inner.watch(x)
                result = layer(x)
                total = tf.reduce_sum(result**2)
            shares = inner.gradient(total, [x, *layer.trainable_variables])
            found.append([result, *shares, outer.gradient(result, x)])
        shorter = layer(x[:, :3])
    for later in found[1:]:
        for first, again in zip(found[0], later, strict=True):
            np.testing.assert_allclose(first, again, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shorter, found[0][0][:, :3], rtol=1e-5, atol=1e-6)


def _pooled():
    return cornu.Sequential(
        [cornu.Input((8, 8, 1)), cornu.layers.Conv2D(2, 3, activation="leaky_relu"), cornu.layers.MaxPooling2D(),
         cornu.layers.Flatten(), cornu.layers.Dense(3, activation="softmax")]
    )  # fmt: skip


def test_tensorflow_lets_go_of_the_graphs_of_models_that_are_gone():
    tf = pytest.importorskip("tensorflow")
    x, y = np.ones((4, 8, 8, 1), "float32"), np.zeros((4, 3), "float32")

    def graphs():
        gc.collect()
        return sum(issubclass(type(found), tf.Graph) for found in gc.get_objects())

    def use():
        model = _pooled()
        model.compile("adam", "mse", engine="tensorflow")
        model.fit(x, y, verbose=0)
        model.predict(x, verbose=0)

    use()
    before = graphs()
    use()
    assert graphs() == before


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool", "float16", "bfloat16"])
def test_tensorflow_takes_batches_of_any_kind_without_a_second_copy(dtype):
    """A batch that nobody writes to: its elements, whether they lie as TensorFlow wants them or not."""
    engine = tensorflow()
    room = np.zeros(64 + 24, dtypes.numpy_dtype(dtype))
    start = -room.ctypes.data % 64 // room.itemsize
    aligned = room[start : start + 24].reshape(4, 6)
    aligned[:] = np.arange(24).reshape(4, 6)
    for array in (aligned, aligned.T, aligned[:0], np.array(aligned[1, 1]), aligned[:, 1:4]):
        found = engine.lend(array)
        assert found.dtype.name == dtype and tuple(found.shape) == array.shape
        np.testing.assert_array_equal(engine.to_host(found), array)
    found = engine.lend(aligned)
    if "CPU" in found.device and dtype not in ("float16", "bfloat16"):
        assert np.shares_memory(engine.to_host(found), aligned)


def test_tensorflow_steps_run_under_a_tape_of_the_user_s():
    tf = pytest.importorskip("tensorflow")
    x, y = np.ones((4, 8, 8, 1), "float32"), np.zeros((4, 3), "float32")
    losses = []
    for watched in (False, True):
        cornu.utils.set_random_seed(0)
        model = _pooled()
        model.compile("sgd", "mse", engine="tensorflow")
        with tf.GradientTape() if watched else contextlib.nullcontext():
            losses.append([model.train_on_batch(x, y) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_jax_copies_and_looks_at_many_values_at_once_where_they_are_not_on_the_host(monkeypatch):
    engine = cornu.engines.get("jax")
    values = [engine.from_host(np.full((2, 3), number, "float32")) for number in range(3)]
    values += [engine.from_host(np.ones(2)), engine.from_host(np.ones((0, 4), "float16"))]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    copies = engine.kept(values)
    for value, copy in zip(values, copies, strict=True):
        assert isinstance(copy, jax.Array)
        assert copy.dtype == value.dtype
        assert not value.size or copy.unsafe_buffer_pointer() != value.unsafe_buffer_pointer()
        np.testing.assert_array_equal(copy, value)
    assert engine.keeps_in_turn(values)
    for look in (engine.all_finite, lambda values: engine.ask_finite(values)()):
        assert look(values)
        assert look([])
        for bad in (np.nan, np.inf):
            assert not look([*values, engine.from_host(np.array([1.0, bad], "float32"))])


def test_torch_updates_of_large_tables_keep_gradients_of_zeros():
    """Memory of zeros stands for the gradient of a table of which a step reads some rows; a step that fails spoils none."""
    ids = rng.integers(0, 900, (5, 4, 3)).astype("int32")
    targets = floats(5, 4, 1)

    def trained(name, spoil=False):
        with cornu.engine(name):
            cornu.utils.set_random_seed(0)
            x = cornu.Input((3,), dtype="int32")
            tables = [cornu.layers.Embedding(7000, 20)(x), cornu.layers.Embedding(900, 200)(x)]
            made = cornu.Model(x, cornu.layers.Dense(1)(cornu.layers.Flatten()(cornu.layers.Concatenate()(tables))))
            made.compile("adam", "mse")
            for i in range(4):
                made.train_on_batch(ids[i], targets[i])
            if spoil:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(torch, "_fused_adam_", lambda *given, **rest: 1 / 0)
                    before = made.get_weights()
                    with pytest.raises(ZeroDivisionError):
                        made.train_on_batch(ids[4], targets[4])
                    made.set_weights(before)
            losses = [made.train_on_batch(ids[i], targets[i]) for i in (0, 1, 2)]
            return [*made.get_weights(), losses]

    from cornu.engines.torch import updates

    with torch.device("cpu"), pytest.MonkeyPatch.context() as patch:
        found = [trained("torch"), trained("torch", spoil=True)]
        made = []
        by_rows = updates._by_rows
        patch.setattr(updates, "_by_rows", lambda: made.append(1) or by_rows())
        trained("torch")
        assert made  # otherwise this test is of something else
        patch.setattr(updates, "_SMALL", 1 << 30)
        dense = trained("torch")
    for one in found:
        for a, b in zip(one, dense, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    for a, b in zip(found[0], trained("numpy"), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
