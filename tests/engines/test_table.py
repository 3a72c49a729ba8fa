"""Every op of the table on every engine: values, dtypes, compiled, first and second gradients.

`tests/ops/test_cases.py` and `tests/autodiff/test_rules.py` hold the reference itself (NumPy, the tape) to the truth; here every
other engine is held to the table and to the reference.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import tree
from cornu.engines import registry
from cornu.ops._declare import all_ops, operator

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
sys.path.insert(0, str(Path(__file__).parents[1] / "autodiff"))
from cases import CASES, cast_floats, floats_of, with_floats
from known import CRASHES, KNOWN
from test_cases import BINARY, DTYPES, LOOSE, REDUCTIONS, SAME_AS_INT32, UNARY, WIDE, close, host, sample_args
from test_rules import DIFFERENTIABLE, scalar

OTHERS = [name for name in registry.available() if name != "numpy"]
SIZE = 8


def known(request, engine, name):
    """Expect a failure that is on the list."""
    reason = KNOWN.get((engine, name))
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def unsupported(engine, case):
    """Whether the engine says that it cannot do what a case needs."""
    return case.op in registry.get(engine).gaps


def is_own(engine, case):
    """Whether an op is an engine's own, not composed of others that are; in the long sweep all are told so."""
    return os.environ.get("CORNU_TEST_ENGINES") == "all" or case.op in registry.get(engine).table


def in_chunks(cases, what, fits=lambda engine, case: True):
    """Each engine with each handful of cases that fit it, and alone those that are known to fail there."""
    rows = []
    for engine in OTHERS:
        alone = [case for case in cases if (engine, f"{what}:{case.name}") in KNOWN]
        rest = [case for case in cases if case not in alone and fits(engine, case)]
        count = -(-len(rest) // SIZE)
        rows += [pytest.param(engine, rest[i::count], id=f"{engine}-{i}") for i in range(count)]
        for case in alone:
            mark = pytest.mark.xfail(reason=KNOWN[engine, f"{what}:{case.name}"], strict=True)
            rows.append(pytest.param(engine, [case], id=f"{engine}-{case.name}", marks=mark))
    return pytest.mark.parametrize(("name", "chunk"), rows)


@pytest.mark.parametrize("name", registry.available())
def test_every_engine_knows_every_primitive(name):
    engine = registry.get(name)
    assert not [op for op in all_ops.values() if op.is_primitive and op.name not in {*engine.table, *engine.gaps}]
    assert not set(engine.table) - set(all_ops)
    assert not set(engine.table) & set(engine.gaps)
    assert all(engine.gaps.values())


# JAX compiles each op that is called by itself.
@in_chunks(CASES, "values", lambda engine, case: engine != "jax" or is_own(engine, case))
def test_values(name, chunk):
    """Op by op, in float32; the result is the engine's own, of the dtype the reference gives."""
    for case in chunk:
        args = cast_floats(case.args, np.float32)
        with cornu.engine(name) as engine:
            if unsupported(name, case):
                with pytest.raises(cornu.errors.UnsupportedError):
                    operator(case.op)(*args, **case.static)
                continue
            found = operator(case.op)(*args, **case.static)
            assert all(engine.owns(type(leaf)) for leaf in tree.leaves(found)), (case.name, found)
        close(found, case.expected(args), case)
        same_dtypes(found, case, args)


def same_dtypes(found, case, args):
    """Results have the dtypes that the reference gives."""
    with cornu.engine("numpy"):
        wanted = operator(case.op)(*args, **case.static)
    assert list(map(ops.dtype, tree.leaves(found))) == list(map(ops.dtype, tree.leaves(wanted))), case.name


@in_chunks(CASES, "compiled")
def test_compiled(name, chunk):
    """Several cases in one compiled function; whole numbers may be needed at once (repeats, starts): only floats are traced."""
    chunk = [case for case in chunk if not unsupported(name, case)]
    arguments = [cast_floats(case.args, np.float32) for case in chunk]
    floats = [floats_of(args) for args in arguments]

    def call(values):
        return [
            operator(case.op)(*with_floats(args, own), **case.static)
            for case, args, own in zip(chunk, arguments, values, strict=True)
        ]

    with cornu.engine(name) as engine:
        compiled = engine.compile(call)
        given = [[engine.from_host(a) for a in own] for own in floats]
        compiled(given)
        found = compiled(given)
    for case, args, own in zip(chunk, arguments, found, strict=True):
        close(own, case.expected(args), case)
        same_dtypes(own, case, args)


def slopes(functions, inputs, differentiate):
    return [differentiate(f)(v)[1] for f, v in zip(functions, inputs, strict=True)]


def second(function, differentiate):
    """The gradient along a direction, as a function to differentiate again."""

    def slope(values):
        _, gradients = differentiate(function)(values)
        total = 0.0
        for i, gradient in enumerate(gradients):
            direction = np.sin(np.arange(1, 1 + int(np.prod(ops.shape(gradient))))).reshape(ops.shape(gradient))
            total = ops.add(total, ops.sum(ops.multiply(gradient, direction.astype("float32") + i)))
        return total, None

    return slope


# Composed ops are differentiated as what they are composed of: in the everyday run on the default engine alone.
@pytest.mark.parametrize("order", ["first", "second"])
@in_chunks(DIFFERENTIABLE, "gradient", lambda engine, case: engine == "jax" or is_own(engine, case))
def test_gradients_equal_the_reference(name, chunk, order):
    """The engine's own differentiation (the tape where it has none), compiled, against the tape on NumPy.

    The second order is that of what an op is composed of, and `test_rules.py` has it for every op.
    """
    chunk = [case for case in chunk if not unsupported(name, case)]
    chunk = [case for case in chunk if order == "first" or (case.second and is_own(name, case))]
    chunk = [case for case in chunk if (name, f"{order}:{case.op}") not in CRASHES]
    arguments = [cast_floats(case.args, np.float32) for case in chunk]
    functions = [scalar(case, args) for case, args in zip(chunk, arguments, strict=True)]
    with cornu.engine(name) as engine:
        own = lambda f: engine.value_and_grad(f) or tape_value_and_grad(f)
        tasks = functions if order == "first" else [second(f, own) for f in functions]
        inputs = [[engine.from_host(v) for v in floats_of(args)] for args in arguments]
        found = engine.compile(lambda given: slopes(tasks, given, own))(inputs)
        found = host(found)
    with cornu.engine("numpy"):
        tasks = functions if order == "first" else [second(f, tape_value_and_grad) for f in functions]
        for case, task, own, args in zip(chunk, tasks, found, arguments, strict=True):
            _, wanted = tape_value_and_grad(task)(floats_of(args))
            for a, b in zip(own, wanted, strict=True):
                assert a.dtype == np.float32, case.name
                scale = max(1.0, float(np.abs(b).max(initial=0)))
                np.testing.assert_allclose(a / scale, np.asarray(b) / scale, rtol=5e-4, atol=5e-5, err_msg=case.name)


@pytest.mark.parametrize("dtype", DTYPES + WIDE)
@pytest.mark.parametrize("name", OTHERS)
def test_dtypes(request, name, dtype):
    """Elementwise ops and reductions in every dtype: the same result dtypes and values as on NumPy."""
    known(request, name, f"dtypes:{dtype}")
    names = [n for n in UNARY + REDUCTIONS + BINARY if n not in registry.get(name).gaps]
    if dtype in ("int8", "int16", "uint8", "int64"):  # other whole numbers go the same way as int32
        names = [n for n in names if n not in SAME_AS_INT32]
    arguments = {n: sample_args(n, dtype) for n in names}
    with cornu.engine("numpy"):
        wanted = host({n: getattr(cornu.ops, n)(*args) for n, args in arguments.items()})
    with cornu.engine(name) as engine:
        given = tree.map_structure(engine.from_host, arguments)
        found = host(
            engine.compile(lambda given: {n: getattr(cornu.ops, n)(*args) for n, args in given.items()})(given)
        )
    for n in names:
        a, b = found[n], wanted[n]
        assert a.dtype == b.dtype, (n, a.dtype, b.dtype)
        rtol = LOOSE.get(a.dtype.name, 1e-5)
        np.testing.assert_allclose(a.astype("float64"), b.astype("float64"), rtol=rtol, atol=rtol, err_msg=n)
