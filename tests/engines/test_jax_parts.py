"""Promise: what JAX compiles in parts, because it is very long, gives the numbers and keeps the promises of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cornu
from cornu import layers
from cornu.engines.jax import ENGINE, parts

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is compiled in parts")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """What has ten equations is long, and has parts of six."""
    monkeypatch.setattr(parts, "PART", 6)
    monkeypatch.setattr(parts, "_LONG", 10)


@pytest.fixture
def programs(monkeypatch):
    """The programs that were compiled in parts."""
    found = []
    build = parts._Program.__init__

    def note(self, traced):
        build(self, traced)
        found.append(self)

    monkeypatch.setattr(parts._Program, "__init__", note)
    return found


def compiled(function, *args, donate=False):
    return ENGINE.compile(function, donate)(*args)


def distinct(program):
    return len({id(part.call) for part in program.parts})


def full(shape, value):
    return jnp.asarray(np.full(shape, value, "float32"))  # `jnp.full` would be of a weak type


def model():
    cornu.utils.set_random_seed(3)
    x = cornu.Input((6,))
    y = layers.Dense(8, "relu", kernel_regularizer="l2")(x)
    y = layers.Dropout(0.3)(layers.BatchNormalization()(y))
    y = layers.Add()([y, layers.Dense(8, use_bias=False)(y)])
    return cornu.Model(x, layers.Dense(3, "softmax")(y))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "clipped"])
def test_training_is_the_same(optimizer, programs, monkeypatch):
    def trained():
        made = model()
        chosen = (
            cornu.optimizers.Adam(1e-2, global_clipnorm=0.1, weight_decay=1e-3) if optimizer == "clipped" else optimizer
        )
        made.compile(chosen, "sparse_categorical_crossentropy", metrics=["accuracy"])
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)
        history = made.fit(x, y, batch_size=16, epochs=3, verbose=0, engine="jax").history  # the last batch is smaller
        return history, made.get_weights(), made.predict(x, verbose=0, engine="jax")

    cut = trained()
    assert len(programs) >= 2 and all(len(program.parts) > 3 for program in programs)
    monkeypatch.setattr(parts, "_LONG", 1 << 40)
    count = len(programs)
    whole = trained()
    assert len(programs) == count
    for found, wanted in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_equal_parts_are_compiled_once(programs):
    def chain(x, weights):
        for weight in weights:
            x = jnp.tanh(x @ weight)  # two equations: six are three layers
        return x

    x, weights = jnp.ones((2, 4)), [full((4, 4), 0.01 * i) for i in range(30)]
    np.testing.assert_allclose(compiled(chain, x, weights), chain(x, weights), rtol=1e-6)
    # The first takes the caller's x, whose memory it must leave; the others take what no one else reads.
    assert len(programs[0].parts) == 10 and distinct(programs[0]) == 2


@pytest.mark.parametrize(
    "step",
    [
        lambda x, number: x * (1.0 + number // 6),
        lambda x, number: jnp.where(x > 0, x, jnp.float32(-0.0 if number // 6 % 2 else 0.0)) - 0.25,
        lambda x, number: jnp.flip(x, number // 6 % 2),
        lambda x, number: jax.lax.select(x > 0, x, x * number),
    ],
    ids=["literal", "sign of zero", "static", "select"],
)
def test_parts_that_differ_are_not_taken_for_one_another(step, programs):
    def function(x):
        for number in range(36):
            x = step(x, number)
        return x

    x = jnp.asarray([[1.0, -2.0], [0.0, 3.0]])
    found, wanted = compiled(function, x), jax.jit(function)(x)
    assert programs and distinct(programs[0]) > 1
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


def test_results_of_every_kind(programs):
    """Results that are constants, arguments, given twice, and in structures whose order is kept."""

    def function(x, y):
        z = x
        for _ in range(20):
            z = jnp.sin(z) + y
        return {"z": z, "a": (z, x, 2.0, [y]), "none": None, "b": jnp.float32(1.0)}

    x, y = jnp.arange(3.0), np.float32(0.5)
    found, wanted = compiled(function, x, y), function(x, y)
    assert programs and list(found) == list(wanted) and found["none"] is None
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_memory_that_is_given_up_is_reused(programs):
    """State passes through in its own memory; what is not given up stays."""

    def step(state, x):
        new = []
        for value in state:
            x = jnp.sin(x) * value
            new.append(value + x)
        return new, x

    state, x = [full(256, 1.0 + i) for i in range(12)], jnp.ones((256,))
    wanted, places = step(state, x), {value.unsafe_buffer_pointer() for value in state}
    found = compiled(step, state, x, donate=True)
    assert all(value.is_deleted() for value in state) and not x.is_deleted()
    kept = places & {value.unsafe_buffer_pointer() for value in found[0]}
    assert len(kept) >= len(state) - 1  # one may have changed places with what is handed on
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_gradient_is_used_where_it_is_made(programs):
    """The order of an update's equations is that of the way back: no part hands on a gradient for it."""

    def step(weights, x):
        def loss(weights):
            y = x
            for weight in weights:
                y = jnp.tanh(y @ weight)
            return (y * y).sum()

        gradients = jax.grad(loss)(weights)
        return [weight - 0.1 * gradient for weight, gradient in zip(weights, gradients, strict=True)]

    weights, x = [full((5, 5), 0.02 * i) for i in range(24)], jnp.ones((3, 5))
    wanted = step(weights, x)
    for one, other in zip(compiled(step, weights, x, donate=True), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    program = programs[0]
    results = {place for place, _ in program._results}
    crossing = [place for part in program.parts for place in part.writes if place not in results]
    # For each layer its output, what tanh keeps, and a gradient of an output for each cut: no kernel's gradient.
    assert len(crossing) <= 2 * 24 + 2 * len(program.parts)


def test_inside_a_function_that_is_traced_it_is_one(programs):
    def function(x):
        for _ in range(20):
            x = jnp.sin(x)
        return x

    x = jnp.ones(3)
    jitted = ENGINE.compile(function)
    wanted = jitted(x)
    assert len(programs) == 1
    np.testing.assert_allclose(jax.jit(lambda x: jitted(x) * 2)(x), 2 * wanted)
    np.testing.assert_allclose(
        jax.grad(lambda x: jitted(x).sum())(x), jax.grad(lambda x: function(x).sum())(x), rtol=1e-6
    )
    assert len(programs) == 1


def test_kinds_of_arguments_are_kept_apart(programs):
    def function(x, y):
        for _ in range(20):
            x = x * 2 + y
        return x

    jitted = ENGINE.compile(function)
    for dtype, length in (("float32", 3), ("float32", 4), ("int32", 3), ("float64", 3), ("float32", 3)):
        x = np.arange(length).astype(dtype)
        found = jitted(ENGINE.from_host(x), x)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, function(x, x))
    assert len(programs) == 4


def test_what_talks_to_the_host_stays_whole(programs):
    said = []

    def function(x):
        for _ in range(20):
            x = jnp.sin(x)
        jax.debug.callback(lambda value: said.append(float(value)), x.sum())
        return x

    found = compiled(function, jnp.ones(3))
    jax.effects_barrier()
    assert not programs and said == [pytest.approx(float(found.sum()))]


def test_errors_come_as_ever():
    """A step that fails while it is traced fails again, and works when it can."""
    fails = [True]

    def function(x):
        if fails[0]:
            raise ValueError("not now")
        for _ in range(20):
            x = jnp.sin(x)
        return x

    jitted = ENGINE.compile(function)
    for _ in range(2):
        with pytest.raises(ValueError, match="not now"):
            jitted(jnp.ones(3))
    fails[0] = False
    np.testing.assert_allclose(jitted(jnp.ones(3)), function(jnp.ones(3)), rtol=1e-6)
