"""Unknown sizes: arithmetic, equality, division, evaluation."""

import os
import pickle
import random
import subprocess
import sys

import pytest

from cornu.core.dims import BATCH, Dim, evaluate, keras_shape, shape_text, substitute
from cornu.core.errors import ShapeError

T, U = Dim("t"), Dim("u")


def test_equal_expressions_are_equal_and_hash_alike():
    pairs = [
        (2 * T - T, T),
        (T + U, U + T),
        (T * U, U * T),
        ((T + 1) * (T - 1), T * T - 1),
        (T - T, 0),
        (T * 0, 0),
        (1 + T - 1, T),
        (-1 * -T, T),
        (3 - T, -T + 3),
        (Dim("t"), T),
        ((2 * T) // 2, T),
        ((T * U) // U, T),
        ((4 * T) % 2, 0),
        (Dim.operation("max", T, T), T),
        (Dim.operation("broadcast", 1, T), T),
        (Dim.operation("broadcast", T, 5), 5),
        ((T // 2) * (U // 2), (U // 2) * (T // 2)),
        (T // 2 + U % 3, U % 3 + T // 2),
        (Dim.operation("broadcast", T, U), Dim.operation("broadcast", U, T)),
        (Dim.operation("exact", 6 * T, 2 * T), 3),
    ]
    for a, b in pairs:
        assert a == b, (a, b)
        assert hash(a) == hash(b)
    assert isinstance(T - T, int) and isinstance((T + 3) - T, int)


def test_two_unknowns_are_never_taken_for_equal():
    assert T != U and (T == U) is False
    assert T != T + 1 and T != 2 * T and T != 5
    assert T // 2 != U // 2
    assert (T, 3) == (None, 3)  # as Keras writes what is not known
    assert len({T, U, Dim("t")}) == 2


def test_evaluation_is_pythons_arithmetic():
    expressions = [
        lambda t, u: 2 * t + u - 1,
        lambda t, u: t * u - u * u,
        lambda t, u: (t + 3) // 2,
        lambda t, u: (t * 4) // 2 + u,
        lambda t, u: t % 3 + u // t,
        lambda t, u: 7 // t,
        lambda t, u: 7 % t,
        lambda t, u: (t // 2) * (t // 2) - u % 2,
        lambda t, u: -t + 10,
        lambda t, u: (t + u) * (t - u) * 3,
        lambda t, u: ((t + 1) // 2 + 1) // 2,
    ]
    for expression in expressions:
        symbolic = expression(T, U)
        for t, u in [(1, 1), (2, 5), (7, 3), (10, 10)]:
            assert substitute(symbolic, {"t": t, "u": u}) == expression(t, u)
            # One after the other gives the same.
            assert substitute(substitute(symbolic, {"t": t}), {"u": u}) == expression(t, u)


def test_random_expressions():
    rng = random.Random(0)
    for _ in range(100):
        values = {"t": rng.randint(1, 9), "u": rng.randint(1, 9)}
        symbolic, number = T, values["t"]
        for _ in range(6):
            kind = rng.choice("+-*/%m")
            other, n = rng.choice([(U, values["u"]), (T, values["t"]), (k := rng.randint(1, 4), k)])
            if kind == "+":
                symbolic, number = symbolic + other, number + n
            elif kind == "-":
                symbolic, number = symbolic - other, number - n
            elif kind == "*":
                symbolic, number = symbolic * other, number * n
            elif kind == "/":
                symbolic, number = symbolic // other, number // n
            elif kind == "%":
                symbolic, number = symbolic % other, number % n
            else:
                symbolic, number = Dim.operation("max", symbolic, other), max(number, n)
        assert substitute(symbolic, values) == number


def test_exact_division_complains_when_the_model_runs():
    part = Dim.operation("exact", T, 3)
    assert part.evaluate({"t": 12}) == 4
    with pytest.raises(ShapeError, match="multiple of 3"):
        part.evaluate({"t": 10})
    assert Dim.operation("exact", T * 6, 3) == T * 2
    with pytest.raises(ShapeError):
        Dim.operation("exact", 10, 3)
    with pytest.raises(ShapeError, match="broadcast"):
        Dim.operation("broadcast", T, U).evaluate({"t": 2, "u": 3})


def test_an_unknown_decides_nothing():
    for act in (int, float, range, lambda d: d < 3, lambda d: d >= 3, lambda d: [0, 1][d]):
        with pytest.raises(ShapeError, match="not known"):
            act(T)
    assert T.unknowns() == {"t"}
    assert ((T + U) // 3 + 1).unknowns() == {"t", "u"}


def test_how_it_is_shown():
    assert repr((T, 3)) == "(None, 3)"
    assert shape_text((BATCH, T * 2 + 1, 3)) == "(batch, 2*t + 1, 3)"
    assert shape_text((T // 2,)) == "(floordiv(t, 2),)"
    assert keras_shape((BATCH, 3)) == (None, 3)
    assert evaluate((BATCH, T * 2, 3), {"batch": 4, "t": 3}) == (4, 6, 3)
    assert evaluate((BATCH, T), {"t": 3}) == (BATCH, 3)


def test_long_and_deep_expressions():
    total = T
    for i in range(3000):
        total = total + Dim(f"x{i % 7}") * (i % 5)
    assert total.unknowns() == {"t", *(f"x{i}" for i in range(7))}
    deep = T
    for _ in range(3000):
        deep = (deep + 1) // 2
    assert deep.evaluate({"t": 10**6}) == 1 or deep.evaluate({"t": 10**6}) == 2
    assert deep.expression.count("floordiv") == 3000


def test_it_travels_to_other_processes():
    size = (T + U) // 2 * (U // 3) + T
    assert pickle.loads(pickle.dumps(size)) == size
    # Text hashes differ there, so the hash must be made anew.
    program = (
        "import pickle; from cornu.core.dims import Dim; t, u = Dim('t'), Dim('u'); "
        f"size = pickle.loads({pickle.dumps(size)!r}); own = (t + u) // 2 * (u // 3) + t; "
        "assert size == own and hash(size) == hash(own) and len({size, own}) == 1"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, timeout=60)
