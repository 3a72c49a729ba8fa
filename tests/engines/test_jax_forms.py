"""Programs on JAX that need much memory have it in pieces, which stay with the process."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import cornu
from cornu.engines.jax import compiling, forms, stored

ENGINE = cornu.engines.get("jax")


@pytest.fixture(autouse=True)
def not_stored():
    """Without the store that all tests share."""
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    assert not jax.config.jax_compilation_cache_dir
    stored.use(Path(folder).parents[1])
    stored._before.clear()


@pytest.fixture
def small(monkeypatch):
    """What needs more than 1,000 bytes needs much, pieces are of 2,000 bytes, and 9,000 may be kept."""
    monkeypatch.setattr(forms, "_HEAP", 1000)
    monkeypatch.setattr(forms, "PIECE", 2000)
    monkeypatch.setattr(forms, "KEPT", 9000)
    monkeypatch.setattr(forms, "cores", lambda: 1)


def formed(function, **given):
    return forms.Formed(function, True, **given)


def steps(x):
    """Holds three arrays at once."""
    h = jnp.sin(x)
    return jnp.cos(h) @ h.T @ jnp.tanh(h)


def needs(function, *shapes):
    given = [jnp.zeros(shape) for shape in shapes]
    return forms._needs(jax.make_jaxpr(function)(*given).jaxpr)


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda x: x, [(10,)], (0, 0)),
        (lambda x: jnp.sin(jnp.cos(x)), [(10,)], (80, 40)),
        (lambda x: (jnp.sin(x), jnp.cos(x), jnp.tan(x)), [(10,)], (120, 40)),
        (lambda x: jnp.sin(x)[:, None] * x, [(10,)], (480, 400)),  # with the rows that are multiplied
        (lambda x: jax.jit(lambda y: jnp.sin(jnp.cos(y)))(x), [(10,)], (120, 40)),  # inside, and what comes out
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(jnp.cos(y)), x), [(10,)], (128, 40)),
    ],
)
def test_what_a_program_needs(function, shapes, expected):
    most, largest = needs(function, *shapes)
    assert largest == expected[1]
    assert expected[0] <= most <= expected[0] + 100


def test_results_are_the_same_in_every_form(small):
    for rows in (2, 20, 100):
        x = jnp.linspace(0, 1, rows * 4).reshape(rows, 4)
        np.testing.assert_allclose(formed(steps).call(x), steps(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "in_pieces"), [(7, False), (18, True), (24, False), (40, False)],
    ids=["needs little", "much", "an array larger than a piece", "more than may be kept, too"],
)  # fmt: skip
def test_which_programs_have_pieces(small, size, in_pieces):
    assert forms._has_pieces(jax.jit(steps).trace(jnp.ones((size, size)))) == in_pieces


def test_no_more_than_may_be_kept_if_each_thread_does(small, monkeypatch):
    traced = jax.jit(steps).trace(jnp.ones((18, 18)))
    assert forms._has_pieces(traced)
    monkeypatch.setattr(forms, "cores", lambda: 16)
    assert not forms._has_pieces(traced)


def test_what_is_stored_is_whole(small, tmp_path):
    """XLA cannot store what has pieces."""
    traced = jax.jit(steps).trace(jnp.ones((18, 18)))
    assert forms._has_pieces(traced)
    stored.use(tmp_path)
    try:
        assert not forms._has_pieces(traced)
    finally:
        stored.use(None)


def test_arguments_of_another_kind_may_have_another_form(small, capfd):
    """Not the first kind's: XLA would tell the user of each array that is larger than a piece."""
    options = dict(compiling.options() or {}, xla_multiheap_size_constraint_per_heap="2000")
    traces = []

    def function(x):
        traces.append(x.shape)
        return steps(x)

    run = formed(function)
    run._pieces = jax.jit(run._pieces.__wrapped__, compiler_options=options)
    kinds = [jnp.ones((18, 18)), jnp.ones((19, 18)), jnp.ones((40, 40)), jnp.ones((18, 18))]
    for x in kinds:
        for _ in range(2):
            np.testing.assert_allclose(run.call(x), steps(x), rtol=1e-5)
    assert [form is run._pieces for form in run._forms.values()] == [True, False, True]
    assert list(dict.fromkeys(traces)) == [(18, 18), (19, 18), (40, 40)]
    assert len(traces) <= 4  # the first of another kind twice
    assert "per-heap" not in capfd.readouterr().err


def test_inside_another_trace_it_is_whole(small):
    run, x = formed(steps), jnp.ones((18, 18))
    np.testing.assert_allclose(jax.jit(run.call)(x), steps(x), rtol=1e-5)
    run.call(x)
    y = jnp.ones((19, 18))
    np.testing.assert_allclose(jax.jit(lambda y: run.call(y))(y), steps(y), rtol=1e-5)
    np.testing.assert_allclose(run.call(y), steps(y), rtol=1e-5)
    np.testing.assert_allclose(run.call(x), steps(x), rtol=1e-5)


def test_memory_that_is_given_up_is_reused(small):
    run = formed(lambda x: x + steps(x), donate_argnums=(0,))
    for _ in range(3):
        x = jnp.ones((18, 18))
        run.call(x)
        assert x.is_deleted()


def test_errors_come_as_ever(small):
    run = formed(steps)
    run.call(jnp.ones((18, 18)))
    with pytest.raises(ValueError, match="Incompatible types"):
        run.call(jnp.ones((2, 18, 17)))


PROGRAM = """
import resource, sys, cornu, jax.numpy as jnp
engine = cornu.engines.get("jax")
def function(x):
    held = [jnp.sin(x * i) @ jnp.ones((64, 64)) for i in range(1, 17)]
    return sum(jnp.sum(part * held[0]) for part in held)
x = jnp.ones((16384, 64))
run = engine.compile(function)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        run(x).block_until_ready()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5
print(min(faults() for _ in range(10)))  # the first ones of each thread bring their pieces
"""


@pytest.mark.skipif(not ENGINE.keeps_memory, reason="the process does not keep freed memory")
def test_pages_of_pieces_stay():
    def faults(**more):
        run = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(run, env=dict(os.environ, **more), capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert resource.getpagesize() <= 1 << 16
    few, many = faults(), faults(CORNU_KEEP_MEMORY="0")
    assert few < 1000 < many
