"""Gradient rules, first and second order: against finite differences in float64 on the tape, and against JAX's own."""

import sys
from pathlib import Path

import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff.rules import RULES
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.ops._declare import operator

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from cases import CASES, cast_floats, floats_of, with_floats

# In an order that puts cases with many equal shapes together.
DIFFERENTIABLE = [case for case in CASES if case.grad]
by_case = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=[c.name for c in DIFFERENTIABLE])


def scalar(case, args=None):
    """The case as a function of its float arrays: a scalar that weighs every element of the result differently."""
    args = case.args if args is None else args

    def function(values):
        result = operator(case.op)(*with_floats(args, values), **case.static)
        total = 0.0
        for part in tree.leaves(result):
            if ops.dtype(part).startswith("float"):
                shape = ops.shape(part)
                weights = np.cos(np.arange(1, 1 + int(np.prod(shape)))).reshape(shape).astype(ops.dtype(part))
                total = ops.add(total, ops.sum(ops.multiply(part, weights)))
        return total, None

    return function


def directional(function, values, gradients, name, step=1e-5, rtol=1e-5):
    """Compare gradients with central differences along two directions."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        along = [rng.normal(size=v.shape) for v in values]
        ahead = float(function([v + step * d for v, d in zip(values, along, strict=True)]))
        behind = float(function([v - step * d for v, d in zip(values, along, strict=True)]))
        wanted = (ahead - behind) / (2 * step)
        found = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(gradients, along, strict=True))
        assert abs(found - wanted) <= rtol * (1 + abs(wanted)), f"{name}: {found}, finite differences {wanted}"


@by_case
def test_first_and_second_order_against_finite_differences(case):
    values = floats_of(case.args)
    with cornu.engine("numpy"):
        function = scalar(case)
        (_, _), gradients = tape_value_and_grad(function)(values)
        assert [(g.shape, g.dtype) for g in map(np.asarray, gradients)] == [(v.shape, v.dtype) for v in values]
        directional(lambda v: function(v)[0], values, gradients, case.name)
        if not case.second:
            return
        rng = np.random.default_rng(7)
        directions = [rng.normal(size=v.shape) for v in values]

        def slope(values):
            _, gradients = tape_value_and_grad(function)(values)
            total = 0.0
            for gradient, direction in zip(gradients, directions, strict=True):
                total = ops.add(total, ops.sum(ops.multiply(gradient, direction)))
            return total, None

        _, seconds = tape_value_and_grad(slope)(values)
        directional(lambda v: slope(v)[0], values, seconds, f"{case.name}, second order", rtol=1e-4)


def test_every_rule_is_tested():
    tested = {case.op for case in DIFFERENTIABLE}
    # A cast changes nothing in float64: `test_gradients_pass_casts` has it.
    assert not set(RULES) - tested - {"cast_to"}


# JAX has no gradient of a "mul" scatter, and shares ties of "max" and "min" otherwise.
NOT_IN_JAX = {"scatter-mul", "scatter-max", "scatter-min"}
ON_JAX = [case for case in DIFFERENTIABLE if operator(case.op).is_primitive and not case.tags & NOT_IN_JAX]


@pytest.mark.parametrize("part", range(6))
def test_equal_to_gradients_of_jax(part):
    # Many cases in one compiled function: XLA takes its time per function.
    chunk = ON_JAX[part::6]
    arguments = [cast_floats(case.args, np.float32) for case in chunk]
    functions = [scalar(case, args) for case, args in zip(chunk, arguments, strict=True)]
    with cornu.engine("jax") as engine:
        inputs = [[engine.from_host(v) for v in floats_of(args)] for args in arguments]

        def native(inputs):
            return [engine.value_and_grad(f)(v)[1] for f, v in zip(functions, inputs, strict=True)]

        found = engine.compile(native)(inputs)
    with cornu.engine("numpy"):
        for case, own in zip(chunk, found, strict=True):
            _, wanted = tape_value_and_grad(scalar(case))(floats_of(case.args))
            for a, b in zip(own, wanted, strict=True):
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-4, atol=2e-5, err_msg=case.name)


def test_float64_gradients_of_jax(recwarn):
    x = np.array([0.3, -1.2, 2.0])
    with cornu.engine("jax") as engine:
        function = lambda v: (ops.sum(ops.multiply(ops.tanh(v[0]), ops.exp(ops.multiply(v[0], 2)))), None)
        (value, _), (gradient,) = engine.value_and_grad(function)([engine.from_host(x)])
        # The tape serves on JAX too, compiled.
        _, (taped,) = engine.compile(lambda v: tape_value_and_grad(function)(v))([engine.from_host(x)])
    wanted = (1 - np.tanh(x) ** 2) * np.exp(2 * x) + 2 * np.tanh(x) * np.exp(2 * x)
    assert value.dtype == gradient.dtype == np.float64
    np.testing.assert_allclose(np.asarray(gradient), wanted, rtol=1e-13)
    np.testing.assert_allclose(np.asarray(taped), wanted, rtol=1e-13)


def gradient_of(function, *values):
    engine = context.engine_in_force()
    taped = tape_value_and_grad(lambda v: (ops.sum(function(*v)), None))
    gradients = engine.compile(lambda v: taped(v)[1])([engine.from_host(v) for v in values])
    return [np.asarray(g) for g in gradients]


def test_scalars_keep_float64():
    with cornu.engine("numpy"):
        x = np.array(0.1234567890123)
        for function, slope in (
            (ops.erf, 2 / np.pi**0.5 * np.exp(-x * x)),
            (ops.sin, np.cos(x)),
            (ops.tanh, 1 - np.tanh(x) ** 2),
        ):
            (found,) = gradient_of(function, x)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, slope, rtol=1e-14)


def test_ties_zeros_and_ends(engine):
    f = np.float32
    (g,) = gradient_of(ops.max, np.array([1, 3, 3, 2], f))
    np.testing.assert_allclose(g, [0, 0.5, 0.5, 0])
    a, b = gradient_of(ops.maximum, np.array([1, 2], f), np.array([1, 1], f))
    np.testing.assert_allclose([a, b], [[0.5, 1], [0.5, 0]])
    (g,) = gradient_of(ops.relu, np.array([-1, 0, 1], f))
    np.testing.assert_allclose(g, [0, 0, 1])
    (g,) = gradient_of(ops.abs, np.array([-2, 0, 2], f))
    np.testing.assert_allclose(g, [-1, 0, 1])
    (g,) = gradient_of(ops.norm, np.zeros(3, f))
    np.testing.assert_allclose(g, [0, 0, 0])
    for ord in (1, 2, 3):
        (g,) = gradient_of(lambda x, ord=ord: ops.norm(x, ord=ord, axis=0), np.zeros(3, f))
        np.testing.assert_allclose(g, [0, 0, 0])
    a, b = gradient_of(ops.hypot, np.zeros(1, f), np.zeros(1, f))
    np.testing.assert_allclose([a, b], [[0], [0]])
    a, b = gradient_of(ops.power, np.array([0, 2], f), np.array([2, 0], f))
    np.testing.assert_allclose([a, b], [[0, 0], [0, np.log(2)]], rtol=1e-6)
    (g,) = gradient_of(lambda x: ops.where(x > 0, ops.log(ops.where(x > 0, x, 1.0)), 0.0), np.array([0, 2], f))
    np.testing.assert_allclose(g, [0, 0.5])
    (g,) = gradient_of(ops.logsumexp, np.array([300, 300], f))
    np.testing.assert_allclose(g, [0.5, 0.5])
    (g,) = gradient_of(ops.sigmoid, np.array([-300, 0, 300], f))
    np.testing.assert_allclose(g, [0, 0.25, 0], atol=1e-30)
    (g,) = gradient_of(lambda x: ops.prod(x, axis=0), np.array([0, 2, 3], f))
    np.testing.assert_allclose(g, [6, 0, 0])
    (g,) = gradient_of(lambda x: ops.divide_no_nan(1.0, x), np.array([0, 2], f))
    np.testing.assert_allclose(g, [0, -0.25])


def test_gradients_pass_casts(engine):
    x = np.array([0.5, 2.0], np.float32)
    for dtype in ("float16", "bfloat16", "float32"):
        (g,) = gradient_of(lambda v, dtype=dtype: ops.cast(ops.square(ops.cast(v, dtype)), "float32"), x)
        assert g.dtype == np.float32
        np.testing.assert_allclose(g, [1, 4])


def test_what_no_gradient_reaches_is_zero(engine):
    x = np.array([1.0, 2.0], np.float32)
    for function in (ops.floor, ops.sign, ops.stop_gradient, lambda v: ops.cast(ops.argmax(v), "float32")):
        (g,) = gradient_of(function, x)
        np.testing.assert_allclose(g, [0, 0])


def test_value_and_grad_of_variables_nests(engine):
    w = cornu.Variable(np.array([0.5, -1.0], "float32"))

    def outer():
        _, gradient = cornu.autodiff.gradients.value_and_grad(lambda: ops.sum(ops.power(w, 3)), w)()
        return ops.sum(ops.multiply(gradient, gradient))  # (3 w^2)^2, slope 36 w^3

    _, gradient = cornu.autodiff.gradients.value_and_grad(outer, w)()
    np.testing.assert_allclose(np.asarray(gradient), 36 * np.array([0.5, -1.0]) ** 3, rtol=1e-5)
