"""The engine ONNX Runtime: its graphs, its borders, and where its kernels would say something else than NumPy."""

import subprocess
import sys
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers, ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import tree
from cornu.core.errors import EngineError, GraphError, UnsupportedError
from cornu.core.spec import Spec
from cornu.engines import registry
from cornu.engines.onnxruntime import OnnxValue, quirks, session
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.builder import Graph, building, model_of
from cornu.ops._declare import operator

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from test_cases import EXTREME_BINARY, EXTREME_UNARY, EXTREMES

F = np.float32
ENGINE = registry.get("onnxruntime")


@pytest.fixture(autouse=True)
def in_force():
    with cornu.engine("onnxruntime"):
        yield


def host(value):
    return tree.map_structure(ops.convert_to_numpy, value)


def check(name, *args, rtol=2e-5, atol=1e-6, **static):
    """An op as on NumPy, alone and compiled (where what is known of its arguments may make another graph)."""
    with cornu.engine("numpy"), np.errstate(all="ignore"):
        wanted = host(operator(name)(*args, **static))
    given = tree.map_structure(lambda a: ENGINE.from_host(a) if isinstance(a, np.ndarray) else a, list(args))
    call = operator(name)
    first = ENGINE.compile(lambda a, rest: call(a, *rest, **static))
    for found in (call(*given, **static), first(given[0], args[1:])):
        for a, b in zip(tree.leaves(host(found)), tree.leaves(wanted), strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            if a.dtype.kind in "biu":
                np.testing.assert_array_equal(a, b, err_msg=name)
            else:
                close = {"rtol": rtol, "atol": atol, "err_msg": name}
                np.testing.assert_allclose(a.astype("float64"), b.astype("float64"), **close)


def operators(function, *arrays):
    """The operators of the graph that a function becomes, those of bodies and branches in brackets."""
    graph = Graph()
    with building(graph):
        found = function(*(graph.input(a.shape, ops.dtype(a)) for a in arrays))
    graph.outputs = [leaf for leaf in tree.leaves(found) if leaf.array is None]

    def names(nodes):
        rows = []
        for node in nodes:
            inner = [names(a.g.node) for a in node.attribute if a.HasField("g")]
            rows.append(node.op_type if not inner else (node.op_type, *inner))
        return rows

    return names(model_of(graph)[0].graph.node)


# ---------------------------------------------------------------- numbers

MORE = "power floor_divide mod not_equal greater greater_equal less_equal logical_or".split()


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-5), ("float64", 1e-12), ("float16", 4e-3)])
def test_extremes(dtype, rtol):
    pairs = [np.array(part.reshape(-1)).astype(dtype) for part in np.meshgrid(EXTREMES, EXTREMES)]
    for name in EXTREME_UNARY:
        check(name, EXTREMES.astype(dtype), rtol=rtol)
    for name in EXTREME_BINARY + MORE:
        check(name, *pairs, rtol=rtol)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_counts_as_on_numpy(dtype):
    rows = np.array([[1, np.nan, 3, -np.inf], [np.inf, 2, np.nan, np.nan], [0, -0.0, 5, 5], [np.nan, *[np.inf] * 3]])
    rows = rows.astype(dtype)
    for name in "max min argmax argmin sort argsort cumulative_max relu sign".split():
        given = [{}] if name in ("relu", "sign") else [{"axis": 0}, {"axis": 1}]
        for static in given:
            check(name, rows, **static)
    for k in (1, 2, 4):
        check("top_k", rows, k=k)
    places = np.array([[0], [2], [2], [7], [-1], [3], [0]], np.int32)
    values = np.array([5, np.nan, 2, 1, 1, 9, -3], dtype)
    for mode in ("add", "set", "mul", "max", "min"):
        check("scatter_nd", np.array([1, np.nan, 3, 4], dtype), places, values, mode=mode)
    for side in ("left", "right"):
        check("searchsorted_in", np.array([1, 2, 2, 3, np.nan], dtype), np.array([0, 2, 9, np.nan], dtype), side=side)
    image = np.resize(rows, (1, 4, 4, 1))
    windows = {"window": (2, 2), "strides": (1, 2), "padding": ((1, 0), (0, 0))}
    check("window_max", image, **windows)
    check("window_max_gradient", image, np.ones((1, 4, 2, 1), dtype), **windows)


WHOLE = "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()


def whole_numbers(dtype):
    """Two arrays of all sizes of numbers, with the ends of the range, zeros and small divisors among them."""
    limits, rng = np.iinfo(dtype), np.random.default_rng(0)
    a, b = (rng.integers(limits.min, limits.max, (3, 20), dtype, endpoint=True) for _ in range(2))
    a[0, :4] = [limits.min, limits.max, 0, 1]
    b[0, :6] = [-1 if limits.min else 1, limits.min, 0, 1, 2, 3]
    b[1] = b[1] % np.array(5, dtype) + np.array(1, dtype)
    return a, b


@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_wrap_divide_and_compare_as_on_numpy(dtype):
    a, b = whole_numbers(dtype)
    places = (np.abs(b.astype("float64")) % (np.iinfo(dtype).bits + 1)).astype(dtype)
    for name in "add subtract multiply floor_divide mod maximum minimum less greater_equal bitwise_xor".split():
        check(name, a, b)
    check("left_shift", a, np.minimum(places, np.iinfo(dtype).bits - 1).astype(dtype))
    check("right_shift", a, places)
    check("power", a, (places % 6).astype(dtype))
    for name in "abs negative sign relu bitwise_not".split():
        check(name, a)
    for name in "sum prod max min argmax cumulative_sum cumulative_prod cumulative_max sort argsort".split():
        check(name, a, axis=1)
    check("top_k", a, k=5)
    check("matmul", a, b.T.copy())
    check("gather", a, np.array([0, 50, -1, 3]), axis=1)
    check("window_sum", np.resize(a, (1, 4, 5, 2)), window=(2, 3), strides=(2, 1), padding=((1, 0), (0, 1)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_casts_to_whole_numbers_go_to_the_nearest(dtype):
    x = np.array([0.5, -0.5, 2.7, -2.7, 300, -300, 7e4, 3e9, -3e9, 1e19, 2e19, -1e19, np.inf, -np.inf, np.nan])
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    for whole in [*WHOLE, "bool"]:
        check("cast_to", x, dtype=whole)


def test_where_drops_what_is_not_chosen_from_large_arrays_too():
    rng = np.random.default_rng(0)
    mask = rng.random((70, 80)) > 0.5
    x, y = rng.normal(size=(2, 70, 80)).astype(F)
    for left, right in [(np.where(mask, x, np.nan), y), (x, np.where(mask, np.inf, y)), (x, F(0)), (F(0), y)]:
        check("where", mask, left, right)
    check("where", mask, np.where(mask, x, np.nan), F(0))
    check("where", np.array(False), np.where(mask, x, np.nan), y)
    assert "Where" not in operators(lambda c, a, b: ops.where(c, a, b), mask, x, y)


def test_convolutions_of_all_geometries():
    rng = np.random.default_rng(1)
    for trial in range(14):
        rank, groups, channels, filters = (int(i) for i in rng.integers(1, 4, 4))
        space, window = rng.integers(4, 8, rank), rng.integers(1, 4, rank)
        strides, dilation = tuple(rng.integers(1, 4, rank).tolist()), tuple(rng.integers(1, 3, rank).tolist())
        padding = tuple(map(tuple, rng.integers(0, 3, (rank, 2)).tolist()))
        if any((w - 1) * d + 1 > s + sum(p) for s, w, d, p in zip(space, window, dilation, padding, strict=True)):
            continue
        dtype, tolerance = ("float64", 1e-10) if trial % 3 == 0 else ("float32", 1e-4)
        x = rng.normal(size=(2, *space, channels * groups)).astype(dtype)
        kernel = rng.normal(size=(*window, channels, filters * groups)).astype(dtype)
        geometry = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
        near = {"rtol": tolerance, "atol": tolerance}
        check("convolution", x, kernel, **geometry, **near)
        with cornu.engine("numpy"):
            g = rng.normal(size=operator("convolution")(x, kernel, **geometry).shape).astype(dtype)
        check("convolution_input_gradient", g, kernel, shape=x.shape, **geometry, **near)
        check("convolution_kernel_gradient", x, g, shape=kernel.shape, **geometry, **near)


TWO_INPUTS = """
    Add Sub Mul Div Mod Pow Max Min And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual BitwiseAnd BitwiseOr
    BitwiseXor BitShift MatMul Conv ConvTranspose
""".split()
SIZES = {"CumSum": [0], "Expand": [2, 2, 2], "Tile": [1, 1, 1], "Pad": [0] * 6, "TopK": [2]}
SIZES |= {name: [1] for name in ("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin")}


def node_of(name, dtype):
    """The results of one node of an operator, for data of a dtype."""
    graph, shape = Graph(), (2, 2, 2)
    with building(graph):
        values = [graph.input(shape, dtype) for _ in range(2 if name in TWO_INPUTS else 1)]
        if name == "Where":
            values = [graph.input(shape, "bool"), *values * 2]
        if name == "ScatterElements":
            values = [values[0], graph.input(shape, "int64"), values[0]]
        values += [n.shape_tensor(SIZES[name])] if name in SIZES else []
        attributes = {"BitShift": {"direction": "LEFT"}, "AveragePool": {"kernel_shape": (2,)}}.get(name, {})
        attributes |= {"fmod": int("float" in dtype)} if name == "Mod" else {}
        made = "bool" if name.startswith(("Is", "Equal", "Less", "Greater")) else dtype
        outs = [(shape, "int64" if name.startswith("Arg") else made), *([(shape, "int64")] if name == "TopK" else [])]
        graph.outputs = n.emit(name, values, outs, **attributes)
    model = model_of(graph)[0]
    for info in model.graph.output:  # shapes are not what is tested
        info.type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("name", quirks.KERNELS)
def test_kernels_are_where_the_table_says(name):
    for dtype in quirks.KERNELS[name]:
        session.onnxruntime.InferenceSession(node_of(name, dtype).SerializeToString(), session._options(1))


def test_no_kernel_and_no_wider_dtype_is_refused():
    with pytest.raises(UnsupportedError, match="no kernel of Erf for float64"):
        quirks.widened("Erf", "float64")
    assert quirks.widened("Add", "bfloat16") == "float32"


# ---------------------------------------------------------------- graphs


def test_equal_nodes_are_one_and_what_nobody_needs_is_left_out():
    def function(x):
        ops.exp(x)
        return ops.add(ops.sin(x), ops.multiply(ops.sin(x), 2.0))

    assert operators(function, np.ones(3, F)) == ["Sin", "Mul", "Add"]


def test_loops_and_choices_are_operators_of_onnx():
    x = np.arange(6, dtype=F).reshape(3, 2)

    def loop(x):
        slope = ops.exp(x[0])  # made once, outside of the loop
        return ops.scan(lambda s, row: (s + row * ops.negative(slope), s), ops.zeros(2), x, reverse=True)

    assert ("Scan", ["Mul", "Add", "Identity"]) in operators(loop, x)
    found = ENGINE.compile(loop)(ENGINE.from_host(x))
    np.testing.assert_allclose(host(found[0]), -(x * np.exp(x[0])).sum(0), rtol=1e-6)
    count = lambda x: ops.while_loop(lambda i, s: ops.sum(s) < 100, lambda i, s: (i + 1, s * 2), (0, x))[0]
    assert operators(count, x)[-1][0] == "Loop" and int(ENGINE.compile(count)(ENGINE.from_host(x))) == 3
    choice = lambda x: ops.cond(ops.sum(x) > 0, lambda: ops.sqrt(x), lambda: x)
    assert operators(choice, x)[-1] == ("If", ["Identity"], ["Sqrt"])  # the other branch comes first
    for sign in (1, -1):
        wanted = np.sqrt(x) if sign > 0 else -x
        np.testing.assert_allclose(host(ENGINE.compile(choice)(ENGINE.from_host(sign * x))), wanted, rtol=1e-6)


def test_loops_within_loops_see_what_is_around_them():
    def function(x):
        outer = lambda s, row: (s + ops.scan(lambda t, v: (t + v * x[0, 0] + s, t), 0.0, row)[0], s * 2)
        return ops.scan(outer, ops.sum(x), x)

    x = np.array([[2.0, 1.0], [3.0, 4.0]], F)
    with cornu.engine("numpy"):
        wanted = function(x)
    for a, b in zip(host(ENGINE.compile(function)(ENGINE.from_host(x))), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_gradients_of_slices_are_joined_and_not_added_up():
    x = np.arange(12, dtype=F).reshape(6, 2)
    weights = lambda x: (sum(ops.sum(ops.square(x[0][i]) * float(i + 1)) for i in range(6)), None)
    slope = lambda x: tape_value_and_grad(weights)([x])[1][0]
    assert "Pad" not in operators(slope, x) and operators(slope, x).count("Concat") == 1
    np.testing.assert_allclose(host(ENGINE.compile(slope)(ENGINE.from_host(x))), 2 * x * np.arange(1, 7)[:, None])


def test_values_of_a_trace_have_none_and_do_not_leave_it():
    kept = []
    for look in (bool, float, int, np.asarray, lambda v: v.tolist()):
        with pytest.raises(GraphError, match=r"cornu\.ops\.where"):
            ENGINE.compile(lambda x, look=look: look(ops.sum(x)))(ENGINE.from_host(np.ones(3, F)))
    ENGINE.compile(lambda x: kept.append(ops.exp(x)) or x)(ENGINE.from_host(np.ones(3, F)))
    with pytest.raises(GraphError, match="finished"):
        ENGINE.compile(lambda x: x + kept[0])(ENGINE.from_host(np.ones(3, F)))
    assert ENGINE.is_tracing(kept[0]) and not ENGINE.is_tracing(ENGINE.from_host(np.ones(3, F)))


def test_results_that_are_arguments_or_constants_need_no_node():
    x, fixed = ENGINE.from_host(np.ones(3, F)), ENGINE.from_host(np.arange(3))
    found = ENGINE.compile(lambda x: {"x": x, "twice": [x, ops.exp(x), ops.exp(x)], "fixed": fixed})(x)
    assert found["x"] is x and found["twice"][0] is x and found["twice"][1] is found["twice"][2]
    assert found["fixed"] is fixed


def test_a_compiled_function_within_another_joins_its_graph():
    inner = ENGINE.compile(lambda x: ops.exp(x) * 2.0)
    x = ENGINE.from_host(np.zeros(3, F))
    assert host(inner(x)).tolist() == [2.0] * 3
    outer = ENGINE.compile(lambda x: inner(x) + 1.0)
    assert host(outer(x)).tolist() == [3.0] * 3 and host(inner(x)).tolist() == [2.0] * 3


def test_shapes_are_inferred_without_running():
    specs = ENGINE.infer(
        lambda v: [ops.matmul(v[0], v[1]), ops.argmax(v[0], axis=1)], [Spec((2, 3), "float32"), Spec((3, 4), "float32")]
    )
    assert [spec.key for spec in specs] == [((2, 4), "float32"), ((2,), "int32")]


# ---------------------------------------------------------------- borders


def test_bfloat16_goes_in_and_out():
    x = np.array([1.0, 2.5, -3.0, np.nan], ml_dtypes.bfloat16)
    value = ENGINE.from_host(x)
    for found in (value * 2, ENGINE.compile(lambda v: v * 2)(value), ENGINE.compile(lambda v: v + value)(value)):
        assert found.dtype == "bfloat16" and host(found).dtype == x.dtype
        np.testing.assert_array_equal(host(found).astype(F), x.astype(F) * 2)


def test_large_constants_are_fed_and_repeated_ones_stored_once():
    large = np.random.default_rng(0).normal(size=(600, 600)).astype(F)
    graph = Graph()
    with building(graph):
        x = graph.input((600, 600), "float32")
        graph.outputs = [x + large + ops.full((600, 600), 2.5)]
    model, taken, fed = model_of(graph)
    assert taken == [0] and len(fed) == 1 and next(iter(fed.values())) is large
    assert model.ByteSize() < 2000
    found = ENGINE.compile(lambda x: x + large + ops.full((600, 600), 2.5))(ENGINE.from_host(large))
    np.testing.assert_allclose(host(found), large * 2 + 2.5, rtol=1e-6)


def test_operators_and_numpy_functions_on_values():
    x = ENGINE.from_host(np.array([[1.0, 2.0], [3.0, 4.0]], F))
    assert isinstance(x @ x, OnnxValue) and isinstance(np.exp(x), OnnxValue)
    assert np.shape(x) == (2, 2) and len(x) == 2 and [float(v) for v in x[0]] == [1.0, 2.0] and x[1, 1].item() == 4
    assert np.linalg.matrix_rank(x) == 2
    assert "float32" in repr(x) and ENGINE.compile(lambda v: [ops.ones(np.shape(v)), repr(v)])(x)[1].startswith("<Onnx")


@pytest.mark.parametrize(
    ("variable", "given", "match"),
    [("CORNU_ONNXRUNTIME_THREADS", "many", "whole number"), ("CORNU_ONNXRUNTIME_PROVIDERS", "NoProvider", "some of")],
)
def test_settings_are_checked(monkeypatch, variable, given, match):
    monkeypatch.setenv(variable, given)
    with pytest.raises(EngineError, match=match):
        ENGINE.compile(lambda x: ops.exp(x))(ENGINE.from_host(np.ones(3, F)))


def test_settings_are_shown(monkeypatch):
    assert ENGINE.devices() == ["CPUExecutionProvider"]
    monkeypatch.setenv("CORNU_ONNXRUNTIME_THREADS", "1")
    assert ENGINE.details()["threads"] == "1" and "CPUExecutionProvider" in ENGINE.details()["providers"]


def test_two_threads_at_once():
    x = np.random.default_rng(0).normal(size=(5, 8, 4)).astype(F)
    results = {}

    def work(name):
        with cornu.engine("onnxruntime"):
            for step in range(6):
                compiled = ENGINE.compile(lambda v: ops.scan(lambda s, row: (s * 0.5 + row, s), ops.zeros((8, 4)), v))
                results[name, step] = host([compiled(ENGINE.from_host(x + step))[0], ops.softmax(x + step)])

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in range(6):
        for a, b in zip(results[0, step], results[1, step], strict=True):
            np.testing.assert_array_equal(a, b)


def test_nothing_is_written_and_nothing_changed_by_importing():
    code = """
import numpy as np, sys, os, warnings
before = dict(os.environ), np.geterr(), list(warnings.filters)
import onnxruntime, cornu
after_library = dict(os.environ), np.geterr(), list(warnings.filters)
with cornu.engine("onnxruntime") as engine:
    assert (dict(os.environ), np.geterr(), list(warnings.filters)) == after_library
    x = engine.from_host(np.array([-1.0, 0.0, 2.0], "float32"))
    cornu.ops.log(x), engine.compile(lambda v: cornu.ops.divide(1.0, v))(x)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------- models


def _series():
    cornu.utils.set_random_seed(1)
    ids, numbers = Input((6,), dtype="int32"), Input((4,))
    h = layers.Concatenate()([layers.LSTM(5)(layers.Embedding(9, 3)(ids)), layers.Dense(4, activation="gelu")(numbers)])
    return Model([ids, numbers], layers.Dense(1)(layers.Dropout(0.3)(layers.BatchNormalization()(h))))


def _image():
    cornu.utils.set_random_seed(1)
    x = Input((8, 8, 2))
    h = layers.MaxPooling2D()(layers.Conv2D(3, 3, activation="relu", padding="same")(x))
    return Model(x, layers.Dense(1)(layers.Flatten()(layers.Conv2D(4, 2, strides=2)(h))))


@pytest.mark.parametrize("build", [_series, _image])
def test_training_is_that_of_the_reference(build):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(24, 1)).astype(F)
    x = [rng.integers(0, 9, (24, 6)).astype("int32"), rng.normal(size=(24, 4)).astype(F)]
    x = x if build is _series else rng.normal(size=(24, 8, 8, 2)).astype(F)
    losses, predictions = [], []
    for engine in ("numpy", "onnxruntime"):
        model = build()
        model.compile("adam", "mse", engine=engine)
        losses.append(model.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"])
        predictions.append(model.predict(x, verbose=0))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-3, atol=1e-4)
