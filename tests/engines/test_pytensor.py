"""What is PyTensor's own: its linkers give one answer, and leave JAX, `floatX` and non-finite numbers alone."""

import shutil
import threading

import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.engines import registry

pytensor = pytest.importorskip("pytensor")
if "pytensor" not in registry.available():
    pytest.skip("PyTensor is not among the engines here", allow_module_level=True)

F = np.float32


@pytest.fixture(params=["jax", "c", "py"])
def linker(request, monkeypatch):
    """Each linker in turn, in force during the test."""
    if request.param == "c" and not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    if request.param == "jax":
        pytest.importorskip("jax")
    monkeypatch.setenv("CORNU_PYTENSOR_LINKER", request.param)
    return request.param


@pytest.fixture
def engine():
    with cornu.engine("pytensor") as found:
        yield found


def small_model():
    cornu.utils.set_random_seed(3)
    inputs = cornu.Input((6,))
    x = layers.Dense(5, activation="tanh")(inputs)
    x = layers.Dropout(0.2)(x)
    model = cornu.Model(inputs, layers.Dense(2)(x))
    model.compile(optimizer=cornu.optimizers.SGD(0.1), loss="mse")
    return model


def test_a_model_trains_the_same_under_every_linker(linker):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6)).astype(F), rng.normal(size=(24, 2)).astype(F)
    losses = {
        name: small_model().fit(x, y, batch_size=8, epochs=3, verbose=0, engine=name).history["loss"]
        for name in ("numpy", "pytensor")
    }
    np.testing.assert_allclose(losses["pytensor"], losses["numpy"], rtol=1e-5)


def test_nan_infinity_and_division_by_zero_survive_the_rewrites(linker, engine):
    def function(x, whole, z):
        later, _ = ops.scan(lambda s, i: (s * z, None), x, length=3)
        return x * z, x - x, ops.equal(x, x), ops.divide(z, x * z), whole // (whole - whole), ops.mod(whole, 0), later

    arguments = np.array([1, np.nan, np.inf], F), np.array([3, -1, 0], np.int32), np.zeros(3, F)
    found = engine.compile(lambda *values: function(values[0], values[1], 0.0 * values[2]))(*arguments)
    with cornu.engine("numpy"), np.errstate(all="ignore"):
        wanted = function(*arguments)
    for a, b in zip(found, wanted, strict=True):
        assert str(a.dtype) == str(b.dtype)
        np.testing.assert_array_equal(np.asarray(a), b)


def test_its_jax_linker_leaves_jax_as_it_was(monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setenv("CORNU_PYTENSOR_LINKER", "jax")
    before = jax.config.jax_enable_x64
    with cornu.engine("pytensor") as engine:
        run = engine.compile(lambda x, n: (ops.sum(x) * 0.1, ops.cast(n, "int64") * 2**40))
        total, wide = run(np.ones((2, 3), F), np.arange(3, dtype=np.int32))
    assert (total.dtype, wide.dtype) == ("float32", "int64")
    np.testing.assert_array_equal(wide, np.arange(3) * 2**40)
    assert jax.config.jax_enable_x64 == before
    assert jax.numpy.arange(4.0).dtype == F
    with cornu.engine("jax") as engine:
        assert ops.dtype(ops.arange(3.0)) == "float32"
        assert ops.dtype(engine.compile(lambda x: ops.sum(x) * 0.1)(np.ones(3, F))) == "float32"


def test_dtypes_do_not_hang_on_floatx(engine):
    before = pytensor.config.floatX
    x = engine.from_host(np.ones(3, F))
    for function in (lambda x: x * 0.1, lambda x: 1 / x, lambda x: x**2, lambda x: ops.ceil(x) + np.pi):
        assert function(x).dtype == engine.compile(function)(x).dtype == "float32"
    assert pytensor.config.floatX == before


def test_values_that_are_known_and_values_that_are_not(engine):
    x = engine.from_host(np.array([1.5, 2.0], F))
    assert float(ops.sum(x)) == 3.5
    assert bool(ops.all(x > 1))
    assert int(ops.argmax(x)) == 1
    assert np.asarray(x[1]) == 2
    assert not engine.is_tracing(x)

    def branching(x):
        assert engine.is_tracing(x)
        return x if ops.all(x > 1) else x * 2

    with pytest.raises(cornu.errors.GraphError, match=r"asked for while a function is traced"):
        engine.compile(branching)(x)
    with pytest.raises(cornu.errors.GraphError, match="asked for"):
        engine.compile(lambda x: x * float(x[0]))(x)


def test_bfloat16_is_refused(engine):
    with pytest.raises(cornu.errors.DtypeError, match="bfloat16"):
        ops.cast(engine.from_host(np.ones(2, F)), "bfloat16")
    with pytest.raises(cornu.errors.DtypeError, match="bfloat16"):
        engine.compile(lambda x: ops.cast(x, "bfloat16"))(np.ones(2, F))


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_through_scan_and_what_it_closes_over(engine, reverse):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s).astype(F) for s in [(5, 2, 3), (3, 3), (2, 3)]]

    def function(v):
        xs, w, start = v
        scale = ops.exp(ops.max(w, axis=0))  # made outside the loop, from what is differentiated

        def step(state, x):
            state = ops.relu(ops.matmul(state, w) * scale + x)
            return state, ops.max(state, axis=-1)

        last, peaks = ops.scan(step, start, xs, reverse=reverse)
        return ops.sum(last) + ops.sum(peaks * ops.arange(5.0)[:, None]), peaks

    given = [engine.from_host(v) for v in values]
    (value, peaks), found = engine.compile(lambda v: engine.value_and_grad(function)(v))(given)
    with cornu.engine("numpy"):
        (wanted, rows), gradients = tape_value_and_grad(function)(values)
    np.testing.assert_allclose(float(value), wanted, rtol=1e-4)
    np.testing.assert_allclose(np.asarray(peaks), rows, rtol=1e-4)
    for a, b in zip(found, gradients, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-3, atol=1e-3)


def test_a_value_held_fixed_gets_no_gradient_by_a_way_around(engine):
    def function(v):
        doubled = v[0] * 2  # not a function of the second value, though that was made from the first
        return engine.value_and_grad(lambda w: (ops.sum(w[0] * w[1]), None))([v[0], doubled])[1]

    x = np.array([1, 2], F)
    first, second = engine.compile(function)([x])
    np.testing.assert_array_equal(first, 2 * x)
    np.testing.assert_array_equal(second, x)


def test_loops_without_bound(linker, engine):
    def function(x, limit):
        return ops.while_loop(lambda n, y: ops.sum(y) < limit, lambda n, y: (n + 1, y * 2), (np.int32(0), x))

    count, last = engine.compile(function)(np.ones(2, F), np.float32(50))
    assert int(count) == 5
    np.testing.assert_array_equal(last, [32, 32])
    with pytest.raises(cornu.errors.UnsupportedError, match="without a bound"):
        engine.compile(lambda x: engine.value_and_grad(lambda v: (ops.sum(function(v[0], 9.0)[1]), None))([x]))(
            np.ones(2, F)
        )


def test_a_bounded_loop_has_a_gradient(engine):
    def function(v):
        last = ops.while_loop(lambda y: ops.sum(y) < 50, lambda y: (y * 2,), (v[0],), maximum_iterations=9)
        return ops.sum(last[0]), None

    _, (found,) = engine.compile(lambda x: engine.value_and_grad(function)([x]))(np.ones(2, F))
    np.testing.assert_array_equal(found, [32, 32])


def test_the_same_random_bits(linker, engine):
    key = np.array([7, 11], np.uint32)
    found = engine.compile(lambda key: cornu.ops.random.bits(key, (5,)))(key)
    with cornu.engine("numpy"):
        wanted = cornu.ops.random.bits(key, (5,))
    assert found.dtype == "uint32"
    np.testing.assert_array_equal(found, wanted)


def test_its_own_functions_in_a_layer(engine):
    class Softly(layers.Layer):
        def call(self, x):
            return pytensor.tensor.softplus(x) + pytensor.tensor.ones_like(x)

    x = np.array([[0.5, -1.0]], F)
    wanted = np.log1p(np.exp(x)) + 1
    np.testing.assert_allclose(ops.convert_to_numpy(Softly()(x)), wanted, rtol=1e-6)
    run = engine.compile(lambda x: engine.value_and_grad(lambda v: (ops.sum(Softly()(v[0])), None))([x])[1][0])
    np.testing.assert_allclose(run(x), 1 / (1 + np.exp(-x)), rtol=1e-5)


def test_two_threads_at_once():
    answers = {}

    def work(n):
        with cornu.engine("pytensor") as engine:
            run = engine.compile(lambda x: ops.softmax(ops.matmul(x, ops.transpose(x)) * n))
            answers[n] = np.asarray(run(np.eye(3, dtype=F)))

    threads = [threading.Thread(target=work, args=(n,)) for n in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, found in answers.items():
        rows = np.exp(np.eye(3) * n)
        np.testing.assert_allclose(found, rows / rows.sum(-1, keepdims=True), rtol=1e-5)
    assert len(answers) == 2


def test_an_unknown_linker_is_named(monkeypatch, engine):
    monkeypatch.setenv("CORNU_PYTENSOR_LINKER", "fortran")
    with pytest.raises(cornu.errors.ArgumentError, match="CORNU_PYTENSOR_LINKER='fortran'"):
        engine.compile(lambda x: x + 1)(np.ones(2, F))
