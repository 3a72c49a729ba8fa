"""JAX's convolutions and pooling windows: every way to compute them against the NumPy engine, whichever is chosen."""

import functools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType, PartitionSpec
from test_numpy_windows import CONVOLUTIONS, POOLS, Conv, Pool

import cornu
from cornu import ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.engines import cache, registry
from cornu.engines.jax import choice, measured, windows
from cornu.engines.jax.primitives import TABLE
from cornu.engines.jax.table import TABLE as WHOLE
from cornu.engines.numpy import windows as reference

CONVS = {
    **CONVOLUTIONS,
    "2d-one-channel": Conv((3, 7, 6, 1), (3, 2, 1, 4), (1, 2), ((1, 0), (0, 1)), (1, 1)),
    "2d-pointwise-strided": Conv((2, 7, 6, 3), (1, 1, 3, 4), (3, 2), ((0, 0), (1, 0)), (1, 1)),
    "2d-few-rows": Conv((1, 4, 4, 64), (3, 3, 64, 8), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "2d-depthwise-rows": Conv((2, 12, 15, 100), (3, 3, 1, 100), (2, 1), ((1, 0), (0, 2)), (2, 1), groups=100),
    "2d-many-groups": Conv((1, 4, 3, 48), (2, 2, 2, 72), (1, 1), ((1, 0), (0, 1)), (1, 1), groups=24),
    "2d-grouped-pointwise": Conv((2, 4, 3, 6), (1, 1, 2, 9), (2, 1), ((0, 0), (0, 1)), (1, 1), groups=3),
    "3d-depthwise": Conv((2, 4, 4, 3, 3), (2, 3, 2, 1, 3), (1, 2, 1), ((0, 1), (1, 1), (0, 0)), (2, 1, 1), groups=3),
}
POOLINGS = {
    **POOLS,
    "1d-long": Pool((2, 90, 3), (40,), (7,), ((3, 39),)),
    "2d-tiles": Pool((2, 6, 8, 3), (2, 4), (2, 4), ((0, 0), (0, 0))),
    "2d-tiles-remainder": Pool((2, 7, 8, 3), (2, 3), (2, 3), ((0, 0), (0, 0))),
    "2d-padding-only": Pool((1, 3, 4, 2), (2, 2), (2, 1), ((2, 3), (0, 2))),
    "2d-beyond": Pool((2, 5, 6, 1), (2, 1), (3, 2), ((0, 0), (1, 0))),
}
# XLA gives the gradient to no first largest element where there is NaN or where padding equals it (-inf).
FINITE_ONLY = {("window_max_gradient", "xla"), ("window_max_take", "xla")}


def conv_arguments(case, dtype="float32"):
    """For each of the three ops its arrays and static arguments."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal(case.shape).astype(dtype), rng.standard_normal(case.kernel).astype(dtype)
    g = rng.standard_normal(reference.convolution(x[:1], kernel, **case.static).shape[1:])
    g = np.stack([g, *[g + i for i in range(1, case.shape[0])]]).astype(dtype)
    return {
        "convolution": ((x, kernel), case.static),
        "convolution_input_gradient": ((g, kernel), {"shape": x.shape, **case.static}),
        "convolution_kernel_gradient": ((x, g), {"shape": kernel.shape, **case.static}),
    }


def pool_arguments(case, kind, dtype="float32"):
    """For each of the five ops its arrays and static arguments."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(case.shape).astype(dtype)
    plain = x
    if kind == "ties":
        x = rng.integers(0, 3, case.shape).astype(dtype)
    if kind == "nan":
        x = np.where(rng.random(case.shape) < 0.2, np.nan, rng.integers(0, 3, case.shape)).astype(dtype)
    if kind == "infinite":
        x = np.where(rng.random(case.shape) < 0.8, -np.inf, x).astype(dtype)
    g = rng.standard_normal(reference.window_max(x, **case.static).shape).astype(dtype)
    return {
        "window_max": ((x,), case.static),
        "window_max_gradient": ((x, g), case.static),
        "window_max_take": ((x, plain), case.static),
        "window_sum": ((plain,), case.static),
        "window_sum_gradient": ((g,), {"shape": x.shape, **case.static}),
    }


def ways(op, arrays, static):
    return choice.possible(op, [a.shape for a in arrays], arrays[0].dtype.name, static)


def check(found, wanted, tolerance, message):
    assert found.dtype == wanted.dtype, message
    assert found.shape == wanted.shape, message
    found, wanted = np.asarray(found, "float64"), np.asarray(wanted, "float64")
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, err_msg=message)


def check_all(arguments, tolerance, skip=()):
    """Every possible way and the table's own, alone and compiled."""
    for op, (arrays, static) in arguments.items():
        wanted = getattr(reference, op)(*arrays, **static)
        given = [jnp.asarray(a) for a in arrays]
        for way in ways(op, arrays, static):
            if (op, way) not in skip:
                found = compiled(choice.WAYS[op][way], tuple(static.items()))(*given)
                check(found, wanted, tolerance, f"{op} by {way}")
        check(TABLE[op](*given, **static), wanted, tolerance, op)
        check(compiled(TABLE[op], tuple(static.items()))(*given), wanted, tolerance, f"{op} compiled")


@functools.cache
def compiled(function, static):
    """A function compiled once for all its numbers."""
    return jax.jit(lambda *arrays: function(*arrays, **dict(static)))


@pytest.mark.parametrize("case", CONVS.values(), ids=CONVS)
def test_every_way_of_a_convolution(case):
    check_all(conv_arguments(case), 2e-4)


@pytest.mark.parametrize("case", POOLINGS.values(), ids=POOLINGS)
def test_every_way_of_a_window(case):
    for kind in ("any", "ties", "nan", "infinite"):
        skip = FINITE_ONLY if kind in ("nan", "infinite") or _sees_only_padding(case) else ()
        check_all(pool_arguments(case, kind), 1e-5, skip)


def _sees_only_padding(case):
    return any(low >= wide or high >= wide for wide, (low, high) in zip(case.window, case.padding, strict=True))


def test_every_way_is_in_the_cases():
    met = set()
    for case in CONVS.values():
        met |= {(op, way) for op, (arrays, static) in conv_arguments(case).items() for way in ways(op, arrays, static)}
    for case in POOLINGS.values():
        for op, (arrays, static) in pool_arguments(case, "any").items():
            met |= {(op, way) for way in ways(op, arrays, static)}
    assert met == {(op, way) for op, named in choice.WAYS.items() for way in named}
    assert set(choice.WAYS) == set(TABLE) <= set(WHOLE)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ["2d", "2d-pointwise", "2d-depthwise", "2d-grouped", "3d", "2d-one-channel"])
def test_half_width_convolutions(name, dtype):
    for op, (arrays, static) in conv_arguments(CONVS[name], dtype).items():
        wanted = getattr(reference, op)(*arrays, **static)
        check(TABLE[op](*arrays, **static), wanted, 0.02 if dtype is np.float16 else 0.1, op)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ["2d-overlap", "2d-tiles", "1d"])
def test_half_width_windows_round_once(name, dtype):
    for op, (arrays, static) in pool_arguments(POOLINGS[name], "ties", dtype).items():
        wanted = getattr(reference, op)(*arrays, **static)
        check(TABLE[op](*arrays, **static), wanted, 1e-3 if dtype is np.float16 else 1e-2, op)


def test_many_half_width_numbers_are_added_in_full_width():
    x = jnp.ones((1, 1000, 1), jnp.bfloat16)
    found = TABLE["window_sum"](x, window=(1000,), strides=(1,), padding=((0, 0),))
    assert float(found[0, 0, 0]) == 1000


@pytest.mark.parametrize("name", ["2d", "2d-depthwise", "2d-grouped", "3d"])
def test_float64(name):
    with jax.enable_x64(True):
        check_all(conv_arguments(CONVS[name], "float64"), 1e-12)


def test_whole_numbers_go_xlas_way():
    x = np.random.default_rng(0).integers(-5, 5, (2, 6, 6, 2)).astype(np.int32)
    static = POOLINGS["2d-overlap"].static
    assert ways("window_max", [x], static) == ["xla"]
    np.testing.assert_array_equal(TABLE["window_max"](x, **static), reference.window_max(x, **static))


@pytest.mark.parametrize("case", [CONVS["2d"], CONVS["2d-depthwise"], CONVS["2d-grouped"]])
def test_convolutions_without_rows(case):
    arguments = conv_arguments(case)
    (x, kernel), static = arguments["convolution"]
    g = arguments["convolution_input_gradient"][0][0]
    assert TABLE["convolution"](x[:0], kernel, **static).shape == (0, *g.shape[1:])
    assert TABLE["convolution_input_gradient"](g[:0], kernel, shape=(0, *x.shape[1:]), **static).shape[0] == 0
    gradient = TABLE["convolution_kernel_gradient"](x[:0], g[:0], shape=kernel.shape, **static)
    np.testing.assert_array_equal(gradient, np.zeros(kernel.shape))


def test_windows_without_rows():
    x, static = np.zeros((0, 6, 8, 3), np.float32), POOLINGS["2d-tiles"].static
    g = TABLE["window_max"](x, **static)
    assert g.shape == (0, 3, 2, 3)
    assert TABLE["window_max_gradient"](x, g, **static).shape == x.shape


# ---------------------------------------------------------------- differentiation and the rest of JAX


def network(x, kernel, case, pool):
    """A scalar of a convolution, a largest and a sum over windows."""
    y = ops.contraction.convolution(x, kernel, **case.static)
    y = ops.contraction.window_max(ops.tanh(y), **pool.static)
    y = ops.contraction.window_sum(y, **replace(pool, strides=(1,) * len(pool.window)).static)
    return ops.sum(ops.square(y))


NETWORKS = {
    "2d": (CONVS["2d"], Pool((), (2, 2), (2, 2), ((0, 0), (0, 0)))),
    "2d-overlap": (CONVS["2d-one-channel"], Pool((), (3, 2), (2, 1), ((1, 1), (0, 0)))),
    "2d-depthwise": (CONVS["2d-depthwise"], Pool((), (2, 2), (1, 2), ((0, 1), (0, 0)))),
    "2d-grouped": (CONVS["2d-grouped"], Pool((), (2, 2), (2, 2), ((0, 0), (0, 0)))),
    "1d-causal-dilated": (CONVS["1d-causal-dilated"], Pool((), (3,), (2,), ((1, 1),))),
    "3d": (CONVS["3d"], Pool((), (1, 2, 1), (1, 2, 1), ((0, 0), (0, 0), (0, 0)))),
}


def by_xla(monkeypatch):
    """From here on everything is computed XLA's own way, and differentiated by JAX."""
    own = {op: named["xla"] for op, named in choice.WAYS.items()}
    monkeypatch.setattr(registry.get("jax"), "table", {**WHOLE, **own})


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_first_and_second_order(name, monkeypatch):
    case, pool = NETWORKS[name]
    x, kernel = conv_arguments(case)["convolution"][0]

    def slope(values, differentiate):
        _, gradients = differentiate(lambda v: (network(*v, case, pool), None))(values)
        total = sum(ops.sum(ops.multiply(ops.sin(gradient), gradient)) for gradient in gradients)
        return total, None

    def both(differentiate):
        first = differentiate(lambda v: (network(*v, case, pool), None))([x, kernel])[1]
        second = differentiate(lambda v: slope(v, differentiate))([x, kernel])[1]
        return [np.asarray(value, "float64") for value in (*first, *second)]

    with cornu.engine("jax") as engine:
        found = both(lambda f: engine.value_and_grad(lambda v: f([jnp.asarray(part) for part in v])))
    with cornu.engine("numpy"):
        wanted = both(tape_value_and_grad)
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, other, rtol=2e-3, atol=2e-3 * np.abs(other).max())


@pytest.mark.parametrize("name", ["2d-depthwise", "2d-grouped", "1d-causal-dilated"])
def test_what_else_jax_does_with_functions(name, monkeypatch):
    """Forward mode, forward over reverse, `vmap` over either argument or both, `checkpoint`."""
    case, pool = NETWORKS[name]
    x, kernel = map(jnp.asarray, conv_arguments(case)["convolution"][0])
    xs, kernels = jnp.stack([x, x + 1, -x]), jnp.stack([kernel, kernel - 1, -kernel], 1)

    def run():
        def f(x, kernel):
            with cornu.engine("jax"):
                return network(x, kernel, case, pool)

        gradient = jax.grad(f, (0, 1))

        @jax.jit  # op by op it would be compiled a hundred times
        def all_of(x, kernel, xs, kernels):
            return {
                "forward": jax.jvp(f, (x, kernel), (jnp.cos(x), jnp.sin(kernel))),
                "forward over reverse": jax.jvp(gradient, (x, kernel), (jnp.cos(x), jnp.sin(kernel))),
                "vmap of x": jax.vmap(gradient, (0, None))(xs, kernel),
                "vmap of kernel": jax.vmap(gradient, (None, 1))(x, kernels),
                "vmap of both": jax.vmap(gradient, (0, 1))(xs, kernels),
                "checkpoint": jax.grad(jax.checkpoint(f), (0, 1))(x, kernel),
            }

        return all_of(x, kernel, xs, kernels)

    found = run()
    by_xla(monkeypatch)
    for (what, own), other in zip(found.items(), run().values(), strict=True):
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * float(jnp.abs(b).max()), err_msg=what)


@pytest.mark.parametrize("name", NETWORKS)
def test_export_with_a_free_batch_for_two_platforms(name):
    case, pool = NETWORKS[name]
    x, kernel = map(jnp.asarray, conv_arguments(case)["convolution"][0])

    def f(x, kernel):
        with cornu.engine("jax"):
            return network(x, kernel, case, pool)

    gradient = jax.jit(jax.grad(f, (0, 1)))
    (batch,) = export.symbolic_shape("batch")
    specs = [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)]
    exported = export.export(gradient, platforms=("cpu", "cuda"))(*specs)
    for own, other in zip(exported.call(x, kernel), gradient(x, kernel), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-3 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("axis", [AxisType.Auto, AxisType.Explicit])
def test_shard_map_and_meshes(axis):
    x, kernel = conv_arguments(CONVS["2d"])["convolution"][0]
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(axis,))
    rows, whole = PartitionSpec("batch"), PartitionSpec()
    x = jax.device_put(x, jax.NamedSharding(mesh, rows))
    kernel = jax.device_put(kernel, jax.NamedSharding(mesh, whole))

    def f(x, kernel):
        return TABLE["window_max"](
            TABLE["convolution"](x, kernel, **CONVS["2d"].static), **POOLINGS["2d-overlap"].static
        )

    mapped = jax.shard_map(f, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    found, wanted = (jax.jit(jax.grad(lambda *a, g=g: (g(*a) ** 2).sum(), (0, 1)))(x, kernel) for g in (mapped, f))
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- what is chosen


def count_of(op, case, arguments):
    arrays, static = arguments(case)[op]
    lowered = jax.jit(lambda *a: TABLE[op](*a, **static)).lower(*arrays)
    return len([line for line in lowered.as_text().splitlines() if " = " in line])


@pytest.mark.parametrize("op", ["convolution", "convolution_input_gradient", "convolution_kernel_gradient"])
@pytest.mark.parametrize(
    "case",
    [
        Conv((1, 16, 16, 64), (7, 7, 1, 64), (1, 1), ((3, 3), (3, 3)), (1, 1), groups=64),
        Conv((1, 16, 16, 64), (31, 31, 1, 64), (1, 1), ((15, 15), (15, 15)), (1, 1), groups=64),
        Conv((1, 16, 16, 512), (3, 3, 1, 1024), (1, 1), ((1, 1), (1, 1)), (1, 1), groups=512),
        Conv((1, 16, 16, 256), (3, 3, 2, 256), (1, 1), ((1, 1), (1, 1)), (1, 1), groups=128),
        Conv((1, 16, 16, 3), (7, 7, 3, 8), (2, 2), ((3, 3), (3, 3)), (1, 1)),
        Conv((1, 9, 9, 9, 4), (3, 3, 3, 4, 8), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    ],
    ids=["7x7 depthwise", "31x31 depthwise", "512 channels", "128 groups", "7x7", "3x3x3"],
)
def test_programs_stay_small(op, case):
    assert count_of(op, case, conv_arguments) < 450


@pytest.mark.parametrize("op", ["window_max", "window_max_gradient", "window_max_take", "window_sum_gradient"])
@pytest.mark.parametrize("window", [(3, 3), (14, 14), (64, 1), (100, 1)])
def test_programs_of_windows_stay_small(op, window):
    case = Pool((1, 100, 28, 4), window, (2, 2), ((0, 0), (0, 0)))
    assert count_of(op, case, lambda case: pool_arguments(case, "any")) < 1200


def test_other_platforms_keep_xlas_own():
    arrays, static = pool_arguments(POOLINGS["2d-tiles"], "any")["window_max_gradient"]
    traced = jax.jit(lambda *a: TABLE["window_max_gradient"](*a, **static)).trace(*arrays)
    assert "select_and_scatter" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "select_and_scatter" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("CORNU_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(measured, "_known", {})
    monkeypatch.setattr(measured, "_spent", [0.0])
    return tmp_path / "auto"


def test_measured_once_and_remembered(fresh, monkeypatch):
    arrays, static = pool_arguments(POOLINGS["2d-tiles"], "any")["window_max_gradient"]
    wanted = reference.window_max_gradient(*arrays, **static)
    calls = []
    times = measured._times
    monkeypatch.setattr(measured, "_times", lambda *args: calls.append(args) or times(*args))

    def step(x, g):
        return WHOLE["window_max_gradient"](x, g, **static)

    def compiled():
        return registry.get("jax").compile(lambda x, g: step(x, g), thorough=True)(*map(jnp.asarray, arrays))

    check(compiled(), wanted, 1e-6, "first")
    (path,) = fresh.glob("*.json")
    record = json.loads(path.read_text())
    assert set(record["seconds"]) == {"xla", "lines", "tiles"} and record["way"] in record["seconds"]
    check(compiled(), wanted, 1e-6, "again")
    measured._known.clear()
    check(compiled(), wanted, 1e-6, "from the file")
    assert len(calls) == 1
    cache.write(record["key"], {"way": "no such way"})
    measured._known.clear()
    check(compiled(), wanted, 1e-6, "from a file that names none of the ways")
    assert len(calls) == 2


def test_the_measured_way_is_taken(fresh, monkeypatch):
    arrays, static = pool_arguments(POOLINGS["2d-tiles"], "any")["window_max_gradient"]
    shapes = [a.shape for a in arrays]
    assert measured.way("window_max_gradient", shapes, "float32", static) == "tiles"
    monkeypatch.setattr(measured, "_times", lambda *args: {"xla": 3.0, "lines": 1.0, "tiles": 2.0})
    with measured.measuring():
        assert measured.way("window_max_gradient", shapes, "float32", static) == "lines"
    assert measured.way("window_max_gradient", shapes, "float32", static) == "tiles"


def test_no_time_left_to_measure(fresh, monkeypatch):
    monkeypatch.setattr(measured, "_times", lambda *args: pytest.fail("measured"))
    monkeypatch.setattr(measured, "_spent", [1e9])
    monkeypatch.setenv("CORNU_JAX_MEASURE", "1")
    arrays, static = pool_arguments(POOLINGS["2d-tiles"], "any")["window_max_gradient"]
    assert measured.way("window_max_gradient", [a.shape for a in arrays], "float32", static) == "tiles"


def test_an_error_while_measuring_is_raised(fresh, monkeypatch):
    monkeypatch.setitem(windows.WAYS["window_max"], "lines", lambda *a, **s: lax.add(1, "x"))
    arrays, static = pool_arguments(POOLINGS["2d-tiles"], "any")["window_max"]
    with measured.measuring(), pytest.raises(TypeError):
        measured.way("window_max", [a.shape for a in arrays], "float32", static)
