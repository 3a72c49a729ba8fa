"""Every op of the table on every engine: values, dtypes, shapes, compiled and not."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, COVERED_ELSEWHERE, cast_floats, floats_of, with_floats

import cornu
import cornu.ops.random
from cornu.autodiff.rules import NO_GRADIENT, RULES
from cornu.core import dtypes, tree
from cornu.ops._declare import all_ops, operator, to_spec
from on_gpu import near

by_case = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])


def host(value):
    return tree.map_structure(cornu.ops.convert_to_numpy, value)


def close(found, wanted, case, rtol=None):
    found, wanted = tree.leaves(host(found)), jax.tree.leaves(wanted)
    assert len(found) == len(wanted)
    rtol, atol = rtol or case.rtol, case.atol
    tolerances = near(rtol, atol) if case.op in ("gru", "lstm") else {"rtol": rtol, "atol": atol}
    for a, b in zip(found, wanted, strict=True):
        b = np.asarray(b)
        assert a.shape == b.shape, f"{case.name}: shape {a.shape}, expected {b.shape}"
        np.testing.assert_allclose(a.astype("float64"), b.astype("float64"), err_msg=case.name, **tolerances)


def test_every_op_has_a_record():
    known = {case.op for case in CASES}
    missing = [
        op.name for op in all_ops.values() if op.name not in known and op.body.__module__ not in COVERED_ELSEWHERE
    ]
    assert not missing, f"no record in tests/ops/cases.py for {missing}"
    assert not known - set(all_ops)


def test_every_primitive_has_a_gradient_rule_or_a_reason():
    primitives = {op.name for op in all_ops.values() if op.is_primitive}
    assert not primitives - set(RULES) - set(NO_GRADIENT)
    assert not set(RULES) & set(NO_GRADIENT)
    assert not (set(RULES) | set(NO_GRADIENT)) - primitives
    assert all(NO_GRADIENT.values())


def test_every_engine_knows_every_primitive():
    for name in ("numpy", "jax"):
        engine = cornu.engines.registry.get(name)
        assert not [op for op in all_ops.values() if op.is_primitive and op.name not in {*engine.table, *engine.gaps}]
        assert not set(engine.table) - set(all_ops)


@by_case
def test_values_on_numpy(case):
    # In float64, where the reference itself is exact; and in float32.
    with cornu.engine("numpy"):
        wide = operator(case.op)(*case.args, **case.static)
        close(wide, case.expected(case.args), case, rtol=min(case.rtol, 1e-5))
        args = cast_floats(case.args, np.float32)
        found = operator(case.op)(*args, **case.static)
        close(found, case.expected(args), case)
        assert_specs(case, args, found)


PRIMITIVES = [case for case in CASES if operator(case.op).is_primitive and not case.name[-1].isdigit()]


@pytest.mark.parametrize("case", PRIMITIVES, ids=[c.name for c in PRIMITIVES])
def test_primitives_on_jax(case):
    args = cast_floats(case.args, np.float32)
    with cornu.engine("jax"):
        found = operator(case.op)(*args, **case.static)
    close(found, case.expected(args), case)
    assert_specs(case, args, found)


CHUNKS = [CASES[i::12] for i in range(12)]


@pytest.mark.parametrize("chunk", CHUNKS, ids=range(12))
def test_compiled_on_jax(chunk):
    # Many cases are compiled as one function: XLA takes its time per function.
    # Whole numbers may be needed at once (repeats, starts): only floats are traced.
    arguments = [cast_floats(case.args, np.float32) for case in chunk]
    floats = [floats_of(args) for args in arguments]

    def call(values):
        return [
            operator(case.op)(*with_floats(args, own), **case.static)
            for case, args, own in zip(chunk, arguments, values, strict=True)
        ]

    with cornu.engine("jax") as engine:
        found = engine.compile(call)([[engine.from_host(a) for a in own] for own in floats])
    for case, args, own in zip(chunk, arguments, found, strict=True):
        close(own, case.expected(args), case)
        assert_specs(case, args, own)


def assert_specs(case, args, found):
    """The Spec rule of an op says what its result is."""
    specs = tree.map_structure(lambda a: to_spec(a) if isinstance(a, np.ndarray) else a, list(args))
    with cornu.core.context.abstract():
        said = operator(case.op)(*specs, **case.static)
    for spec, value in zip(tree.leaves(said), tree.leaves(host(found)), strict=True):
        assert (tuple(spec.shape), spec.dtype) == (value.shape, dtypes.standardize_dtype(value.dtype)), case.name


# ---------------------------------------------------------------- dtypes

UNARY = [
    "abs",
    "ceil",
    "cos",
    "exp",
    "expm1",
    "floor",
    "isfinite",
    "isnan",
    "log1p",
    "logical_not",
    "negative",
    "relu",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "tanh",
    "erf",
    "round",
    "trunc",
    "exp2",
    "arctan",
    "log2",
    "cbrt",
    "nan_to_num",
    "reciprocal",
    "signbit",
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "mod",
    "power",
    "maximum",
    "minimum",
    "arctan2",
    "equal",
    "less",
    "greater_equal",
    "logical_and",
    "logaddexp",
    "hypot",
    "fmax",
]
REDUCTIONS = [
    "sum",
    "prod",
    "max",
    "mean",
    "var",
    "std",
    "any",
    "cumsum",
    "argmax",
    "median",
    "nansum",
    "ptp",
    "logsumexp",
]
SAME_AS_INT32 = {
    "ceil",
    "cos",
    "expm1",
    "log1p",
    "sin",
    "sqrt",
    "tanh",
    "erf",
    "exp2",
    "arctan",
    "log2",
    "cbrt",
    "reciprocal",
    "isfinite",
    "var",
    "std",
    "median",
    "logsumexp",
    "arctan2",
    "logaddexp",
    "hypot",
    "less",
    "greater_equal",
    "floor",
    "nansum",
    "ptp",
    "isnan",
}
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "float16", "bfloat16", "float32"]
WIDE = ["int64", "float64"]
LOOSE = {"float16": 4e-3, "bfloat16": 3e-2}


def sample(dtype):
    values = np.array([0.0, 1.0, 2.0, 3.0, 1.0, 4.0])
    return values.astype(dtypes.numpy_dtype(dtype))


def sample_args(name, dtype):
    args = (sample(dtype), sample(dtype)[::-1].copy()) if name in BINARY else (sample(dtype),)
    if name in ("floor_divide", "mod"):  # whole numbers have no answer at 0
        args = (args[0], np.maximum(args[1], np.ones((), args[1].dtype)))
    return args


@pytest.mark.parametrize("dtype", DTYPES + WIDE)
def test_dtypes_of_elementwise_ops_and_reductions(dtype):
    import keras

    names = UNARY + REDUCTIONS + BINARY
    if dtype in ("int8", "int16", "uint8", "int64"):  # other whole numbers go the same way as int32
        names = [name for name in names if name not in SAME_AS_INT32]
    arguments = {name: sample_args(name, dtype) for name in names}

    def judge(given):
        found = {}
        for name, args in given.items():
            try:
                found[name] = getattr(keras.ops, name)(*args)
            except (TypeError, ValueError, AttributeError):
                found[name] = None  # Keras has no answer for this dtype; ours is a float's
        return found

    with cornu.engine("numpy"):
        ours = host({name: getattr(cornu.ops, name)(*args) for name, args in arguments.items()})
    # JAX without its 64-bit switch, on which Keras runs, would cut 64 bits down to 32: ours keep them.
    judges = judge if dtype in DTYPES else lambda given: {}
    with cornu.engine("jax") as engine:
        given = tree.map_structure(engine.from_host, arguments)
        # Ours and Keras's in one function: XLA compiles what they share once.
        both = engine.compile(lambda given: ({n: getattr(cornu.ops, n)(*a) for n, a in given.items()}, judges(given)))
        theirs, judged = both(given)
    theirs = host(theirs)
    for name in names:
        a, b = ours[name], theirs[name]
        assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
        rtol = LOOSE.get(a.dtype.name, 1e-5)
        np.testing.assert_allclose(a.astype("float64"), b.astype("float64"), rtol=rtol, atol=rtol, err_msg=name)
        if judged.get(name) is not None:
            assert a.dtype.name == keras.backend.standardize_dtype(judged[name].dtype), (name, dtype)
            wanted = np.asarray(judged[name]).astype("float64")
            np.testing.assert_allclose(a.astype("float64"), wanted, rtol=rtol, atol=rtol, err_msg=name)


def test_float64_on_jax_leaves_the_process_alone():
    with cornu.engine("jax") as engine:
        x = engine.from_host(np.array([1.0, 2.0]))
        y = cornu.ops.sum(cornu.ops.multiply(cornu.ops.exp(x), 2))
        assert str(x.dtype) == str(y.dtype) == "float64"
        gradient = engine.value_and_grad(lambda v: (cornu.ops.sum(cornu.ops.exp(v[0])), None))([x])[1][0]
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(np.asarray(gradient), np.exp([1.0, 2.0]), rtol=1e-14)
    assert jnp.arange(4.0).dtype == np.float32
    assert jnp.asarray(np.arange(3)).dtype == np.int32


# ---------------------------------------------------------------- extremes

EXTREMES = np.array([-300.0, -1.0, -1e-20, -0.0, 0.0, 1e-20, 1.0, 300.0, np.inf, -np.inf, np.nan], np.float32)
EXTREME_UNARY = [
    "abs",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log10",
    "log1p",
    "log2",
    "nan_to_num",
    "negative",
    "reciprocal",
    "round",
    "rsqrt",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "isposinf",
    "isneginf",
    "erfc",
]
EXTREME_BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "maximum",
    "minimum",
    "logaddexp",
    "arctan2",
    "fmax",
    "fmin",
    "hypot",
    "equal",
    "less",
    "divide_no_nan",
]


def test_extremes_equal_keras():
    import keras

    pairs = tuple(np.array(part.reshape(-1)) for part in np.meshgrid(EXTREMES, EXTREMES))
    arguments = {name: pairs if name in EXTREME_BINARY else (EXTREMES,) for name in EXTREME_UNARY + EXTREME_BINARY}
    with cornu.engine("numpy"):
        ours = host({name: getattr(cornu.ops, name)(*args) for name, args in arguments.items()})
    with cornu.engine("jax") as engine:
        given = tree.map_structure(engine.from_host, arguments)
        both = [lambda given, lib=lib: {n: getattr(lib.ops, n)(*a) for n, a in given.items()} for lib in (cornu, keras)]
        theirs, judged = engine.compile(lambda given: [one(given) for one in both])(given)
    for name, judge in judged.items():
        for found in (ours[name], theirs[name]):
            wanted = np.asarray(judge, "float64")
            np.testing.assert_allclose(np.asarray(found).astype("float64"), wanted, rtol=2e-5, atol=1e-6, err_msg=name)


# ---------------------------------------------------------------- functions that are no ops: creation, inspection

V = np.array([1.0, 2.5, -1.0], np.float32)
W = np.array([4, 0, 4, 1, 0], np.int32)
FUNCTIONS = [
    ("absolute", (V,), {}),
    ("true_divide", (W, 2), {}),
    ("amax", (V,), {}),
    ("amin", (V,), {}),
    ("bitwise_invert", (W,), {}),
    ("bitwise_left_shift", (W, 1), {}),
    ("bitwise_right_shift", (W, 1), {}),
    ("arange", (5,), {}),
    ("arange", (1.0, 2.0, 0.25), {}),
    ("arange", (5, 0, -2), {}),
    ("array", ([[1, 2]],), {}),
    ("copy", (V,), {}),
    ("eye", (3, 4), {"k": 1}),
    ("identity", (3,), {}),
    ("full", ((2, 3), 7), {}),
    ("linspace", (0, 1, 5), {}),
    ("linspace", (0, 1, 4), {"endpoint": False}),
    ("zeros", ((2, 3),), {}),
    ("linspace", (V, V + 2, 3), {"axis": -1}),
    ("logspace", (0, 2, 3), {}),
    ("logspace", (0, 3, 4), {"base": 2, "endpoint": False}),
    ("meshgrid", (V, W), {}),
    ("meshgrid", (V, W, V), {"indexing": "ij"}),
    ("tri", (3, 4), {"k": 1}),
    ("ndim", (V,), {}),
    ("size", (W,), {}),
    ("bincount", (W,), {}),
    ("bincount", (W,), {"minlength": 7}),
    ("bincount", (W,), {"weights": np.arange(5.0, dtype=np.float32)}),
    ("bincount", (W.reshape(1, 5),), {}),
    ("nonzero", (W,), {}),
    ("unique", (W,), {}),
    ("ones", (2,), {"dtype": "int32"}),
    ("unique", (W,), {"return_index": True, "return_inverse": True, "return_counts": True}),
    ("unique", (W,), {"size": 5, "fill_value": -1}),
    ("einsum", ("i,j->ji", V, V), {}),
    ("empty_like", (np.zeros((2, 2), np.int32),), {}),
]


@pytest.mark.parametrize(
    ("name", "args", "static"), FUNCTIONS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(FUNCTIONS)]
)
def test_functions_equal_keras(name, args, static, engine):
    import keras

    found, judge = getattr(cornu.ops, name)(*args, **static), getattr(keras.ops, name)(*args, **static)
    found, judge = jax.tree.leaves(host(found)), jax.tree.leaves(judge)
    assert len(found) == len(judge)
    for a, b in zip(found, judge, strict=True):
        if name not in ("ndim", "size"):
            assert dtypes.standardize_dtype(a.dtype) == keras.backend.standardize_dtype(b.dtype)
        assert np.shape(a) == np.shape(b)
        if name != "empty_like":  # what lies in new memory is anything
            np.testing.assert_allclose(a, np.asarray(b), rtol=1e-5, atol=1e-6)


def test_linspace_of_arrays_under_compile():
    with cornu.engine("jax") as engine:
        found = engine.compile(lambda a, b: cornu.ops.linspace(a, b, 5))(engine.from_host(V), engine.from_host(V * 3))
    np.testing.assert_allclose(np.asarray(found), np.linspace(V, V * 3, 5), rtol=1e-6)


# Left out: `initial` and `dtype` of reductions, free keyword arguments; `stop_gradient(variable)` is `x` here.
LEFT_OUT = {"einsum", "layer_normalization", "max", "min", "multi_hot", "amax", "amin", "prod", "stop_gradient"}


def test_argument_names_are_those_of_keras():
    import keras

    ours = set(cornu.ops.__all__)
    for name in sorted(ours & set(dir(keras.ops))):
        function = getattr(cornu.ops, name)
        wanted = list(inspect.signature(getattr(keras.ops, name)).parameters)
        found = list(getattr(function, "names", None) or inspect.signature(function).parameters)
        if name not in LEFT_OUT and getattr(function, "body", function).__module__ != "cornu.ops.nn":
            assert found[: len(wanted)] == wanted, (name, found, wanted)
