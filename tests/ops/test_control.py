"""Loops and choices: values and gradients on both engines, and what they say of shapes."""

import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError, CornuError, GraphError, ShapeError
from cornu.core.spec import Spec

F = np.float32
XS = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 2.0]], F)
T = Dim("time")


def host(value):
    return tree.map_structure(lambda v: None if v is None else ops.convert_to_numpy(v).tolist(), value)


def test_scan(engine):
    step = lambda s, x: (ops.add(s, x), ops.multiply(s, x))
    state, ys = ops.scan(step, np.zeros(2, F), XS)
    assert host(state) == [4.5, 3.0]
    assert host(ys) == [[0.0, 0.0], [3.0, -2.0], [2.0, 2.0]]
    state, ys = ops.scan(step, np.zeros(2, F), XS, reverse=True)
    assert host(state) == [4.5, 3.0]
    assert host(ys) == [[3.5, 2.0], [1.5, -2.0], [0.0, 0.0]]
    # No xs; a structure as state; several outputs, one of them none.
    state, (count, none) = ops.scan(
        lambda s, _: ({"n": ops.add(s["n"], 1), "p": ops.multiply(s["p"], 2)}, (s["p"], None)),
        {"n": 0, "p": F(1)},
        length=4,
    )
    assert host(state) == {"n": 4, "p": 16.0} and host(count) == [1.0, 2.0, 4.0, 8.0] and none is None
    # xs as a structure, y none at all.
    state, ys = ops.scan(
        lambda s, x: (ops.add(s, ops.multiply(x["a"], x["b"])), None), F(0), {"a": XS[:, 0], "b": XS[:, 1]}
    )
    assert float(state) == 0.0 + 2.0 - 3.0 + 1.0 and ys is None
    state, ys = ops.scan(step, np.ones(2, F), XS[:0])
    assert host(state) == [1.0, 1.0] and np.shape(ys) == (0, 2)
    with pytest.raises(ArgumentError):
        ops.scan(step, F(0))
    with pytest.raises(ShapeError):
        ops.scan(lambda s, x: (s, x), F(0), (XS, XS[:2]))


def test_while_cond_fori_switch_map(engine):
    assert int(ops.while_loop(lambda i: ops.less(i, 7), lambda i: ops.multiply(i, 2), 1)) == 8
    i, total = ops.while_loop(lambda i, t: ops.less(i, 5), lambda i, t: (ops.add(i, 1), ops.add(t, i)), (0, 0))
    assert (int(i), int(total)) == (5, 10)
    assert isinstance(ops.while_loop(lambda i: False, lambda i: [i], [0]), list)
    assert int(ops.while_loop(lambda i: ops.less(i, 100), lambda i: ops.add(i, 1), 0, maximum_iterations=3)) == 3
    for flag in (True, False):
        found = ops.cond(ops.convert_to_tensor(flag), lambda: {"a": ops.add(F(1), 1)}, lambda: {"a": ops.add(F(5), 1)})
        assert host(found) == {"a": 2.0 if flag else 6.0}
    assert int(ops.fori_loop(2, 5, lambda i, s: ops.add(s, i), 0)) == 9
    assert int(ops.fori_loop(0, 0, lambda i, s: ops.add(s, i), 4)) == 4
    assert int(ops.fori_loop(0, ops.convert_to_tensor(4), lambda i, s: ops.add(s, i), 0)) == 6
    branches = [lambda x: ops.add(x, 1), lambda x: ops.multiply(x, 10), lambda x: ops.negative(x)]
    assert [float(ops.switch(i, branches, F(3))) for i in (-1, 0, 1, 2, 9)] == [4.0, 4.0, 30.0, -3.0, -3.0]
    assert host(ops.map(lambda x: ops.sum(x), XS)) == [3.0, 2.0, 2.5]
    assert host(ops.vectorized_map(lambda x: ops.multiply(x[0], x[1]), (XS[:, 0], XS[:, 1]))) == [2.0, -3.0, 1.0]


def test_rematerialized(engine):
    found = ops.rematerialized(
        [XS, {"a": XS[0]}], lambda x, d: {"sum": ops.add(x, d["a"]), "none": None, "at": ops.argmax(x)}
    )
    assert host(found) == {"sum": (XS + XS[0]).tolist(), "none": None, "at": 2}
    assert host(ops.rematerialized((), lambda: ops.ones(2))) == [1.0, 1.0]


def test_compiled_loops():
    with cornu.engine("jax") as engine:

        def loops(x):
            scanned, ys = ops.scan(lambda s, v: (ops.add(ops.multiply(s, 0.5), v), s), x[0], x, reverse=True)
            n, looped = ops.while_loop(
                lambda i, s: ops.less(ops.sum(s), 50.0), lambda i, s: (ops.add(i, 1), ops.multiply(s, 2.0)), (0, x[0])
            )
            chosen = ops.cond(ops.greater(ops.sum(x), 0), lambda: ops.multiply(x, 2.0), lambda: x)
            return scanned, ys, n, looped, chosen

        compiled = engine.compile(loops)(engine.from_host(XS))
    with cornu.engine("numpy"):
        plain = loops(XS)
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), b, rtol=1e-6)


def through_scan(x):
    state, ys = ops.scan(lambda s, v: (ops.multiply(ops.tanh(s), v), ops.multiply(s, s)), ops.get_item(x, 0), x)
    return ops.add(ops.sum(state), ops.sum(ops.multiply(ys, XS)))


def through_cond(x):
    chosen = ops.cond(ops.greater(ops.sum(x), 1.0), lambda: ops.multiply(x, x), lambda: ops.negative(x))
    other = ops.cond(ops.less(ops.sum(x), 1.0), lambda: ops.multiply(x, x), lambda: ops.multiply(x, -3.0))
    return ops.add(ops.sum(chosen), ops.sum(other))


def through_while(x):
    _, value = ops.while_loop(
        lambda i, s: ops.less(ops.sum(s), 60.0),
        lambda i, s: (ops.add(i, 1), ops.multiply(s, ops.add(ops.multiply(s, 0.1), 1.5))),
        (0, x),
        maximum_iterations=6,
    )
    return ops.sum(value)


def through_map(x):
    return ops.sum(ops.map(lambda row: ops.multiply(ops.sum(row), ops.exp(ops.get_item(row, 0))), x))


def through_rematerialized(x):
    scale = ops.exp(x)
    kept = ops.rematerialized(
        (x, {"a": x[0]}), lambda v, d: (ops.multiply(ops.tanh(v), scale), ops.argmax(d["a"]), None)
    )
    return ops.add(ops.sum(kept[0]), ops.multiply(ops.cast(kept[1], ops.dtype(x)), 2.0))


@pytest.mark.parametrize(
    "function",
    [through_scan, through_cond, through_while, through_map, through_rematerialized],
    ids=lambda f: f.__name__,
)
def test_gradients(function):
    call = lambda v: (function(v[0]), None)
    with cornu.engine("numpy"):
        x = XS.astype("float64")
        _, (wanted,) = tape_value_and_grad(call)([x])
        along = np.random.default_rng(0).normal(size=x.shape)
        ahead, behind = (float(function(x + h * along)) for h in (1e-6, -1e-6))
        assert abs((ahead - behind) / 2e-6 - np.sum(wanted * along)) < 1e-5 * (1 + abs(np.sum(wanted * along)))
    with cornu.engine("jax") as engine:
        (_, _), (found,) = engine.value_and_grad(call)([engine.from_host(XS)])
        _, (compiled,) = engine.compile(engine.value_and_grad(call))([engine.from_host(XS)])
    np.testing.assert_allclose(ops.convert_to_numpy(found), wanted, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(compiled), wanted, rtol=2e-4, atol=1e-5)


def test_specs():
    x = Spec((T, 3), "float32")
    with context.abstract():
        state, (y, none) = ops.scan(
            lambda s, v: (ops.add(s, ops.sum(v)), (ops.stack([v, v]), None)), Spec((), "float32"), x
        )
        assert state.key == ((), "float32") and y.key == ((T, 2, 3), "float32") and none is None
        found = ops.while_loop(
            lambda a, b: ops.less(a, 3), lambda a, b: (ops.add(a, 1), ops.multiply(b, 2)), (Spec((), "int32"), x)
        )
        assert [s.key for s in found] == [((), "int32"), ((T, 3), "float32")]
        assert ops.cond(Spec((), "bool"), lambda: ops.add(x, 1), lambda: x).key == x.key
        assert ops.switch(Spec((), "int32"), [lambda a: a, lambda a: ops.add(a, a)], x).key == x.key
        assert ops.map(lambda v: ops.max(v), x).key == ((T,), "float32")
        assert ops.fori_loop(0, 3, lambda i, s: ops.add(s, 1.0), x).key == x.key
        found, none = ops.rematerialized((x, x), lambda a, b: (ops.matmul(a, ops.transpose(b)), None))
        assert found.key == ((T, T), "float32") and none is None
        with pytest.raises(ShapeError, match="keep shape and dtype"):
            ops.scan(lambda s, v: (ops.concatenate([s, s]), None), Spec((2,), "float32"), x)
        with pytest.raises(ShapeError):
            ops.cond(Spec((), "bool"), lambda: ops.sum(x), lambda: x)
        with pytest.raises(GraphError):
            ops.cond(Spec((), "bool"), lambda: (x, x), lambda: x)


def test_associative_scan(engine):
    import jax

    for count in (1, 2, 3, 7, 8):
        x = np.cos(np.arange(2 * count, dtype=F)).reshape(count, 2)
        for reverse in (False, True):
            found = ops.associative_scan(lambda a, b: ops.add(a, b), x, reverse=reverse)
            wanted = np.flip(np.cumsum(np.flip(x, 0), 0), 0) if reverse else np.cumsum(x, 0)
            np.testing.assert_allclose(ops.convert_to_numpy(found), wanted, rtol=1e-5, atol=1e-6)
    # Not commutative: affine maps (m, c), composed from left to right.
    m, c = np.linspace(0.5, 1.5, 5, dtype=F), np.linspace(-1, 1, 5, dtype=F)
    compose = lambda f, g: {"m": ops.multiply(g["m"], f["m"]), "c": ops.add(ops.multiply(g["m"], f["c"]), g["c"])}
    for reverse in (False, True):
        found = ops.associative_scan(compose, {"m": m, "c": c}, reverse=reverse)
        with jax.default_matmul_precision("float32"):
            judge = jax.lax.associative_scan(
                lambda f, g: {"m": g["m"] * f["m"], "c": g["m"] * f["c"] + g["c"]}, {"m": m, "c": c}, reverse=reverse
            )
        for key in judge:
            np.testing.assert_allclose(ops.convert_to_numpy(found[key]), np.asarray(judge[key]), rtol=1e-5)
    with pytest.raises(CornuError):
        ops.associative_scan(lambda a, b: a, Spec((T,), "float32"))
