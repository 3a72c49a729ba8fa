"""`cornu.random`: the same numbers on every engine, the right distributions, seeds that mean what they say."""

import math

import jax
import numpy as np
import pytest
from scipy import stats

import cornu
from cornu import ops, random
from cornu.core import context
from cornu.core.errors import ArgumentError, EngineError
from cornu.core.spec import Spec
from cornu.ops import random as pure

N = (5_000,)
DRAWS = {
    "normal": (lambda seed: random.normal(N, 1.0, 2.0, seed=seed), stats.norm(1, 2)),
    "uniform": (lambda seed: random.uniform(N, -1.0, 3.0, seed=seed), stats.uniform(-1, 4)),
    "truncated_normal": (lambda seed: random.truncated_normal(N, 1.0, 0.5, seed=seed), stats.truncnorm(-2, 2, 1, 0.5)),
    "gamma": (lambda seed: random.gamma(N, 2.5, seed=seed), stats.gamma(2.5)),
    "gamma_small": (lambda seed: random.gamma(N, 0.4, seed=seed), stats.gamma(0.4)),
    "beta": (lambda seed: random.beta(N, 0.7, 2.0, seed=seed), stats.beta(0.7, 2.0)),
}
WHOLE = {
    "randint": (lambda seed: random.randint(N, -3, 4, seed=seed), stats.randint(-3, 4)),
    "binomial_few": (lambda seed: random.binomial(N, 12, 0.3, seed=seed), stats.binom(12, 0.3)),
    "binomial_many": (lambda seed: random.binomial(N, 200, 0.8, seed=seed), stats.binom(200, 0.8)),
    "categorical": (
        lambda seed: random.categorical([[0.0, math.log(3.0)]], N[0], seed=seed)[0],
        stats.bernoulli(0.75),
    ),
}


def drawn_on_both(draw):
    """What a draw gives with NumPy, and with JAX (compiled: quicker than op by op)."""
    with cornu.engine("numpy"):
        first = np.asarray(draw(5))
    with cornu.engine("jax") as engine:
        return first, np.asarray(engine.compile(lambda key: draw(key))(np.array([5, 0], np.uint32)))


@pytest.mark.parametrize("name", DRAWS)
def test_distribution(name):
    draw, law = DRAWS[name]
    first, second = drawn_on_both(draw)
    assert first.dtype == second.dtype == np.float32
    assert np.isclose(first, second, rtol=1e-4, atol=1e-5).mean() > 0.999
    assert stats.kstest(first, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", WHOLE)
def test_distribution_of_whole_numbers(name):
    draw, law = WHOLE[name]
    drawn, second = drawn_on_both(draw)
    assert (drawn != second).mean() < 1e-3
    values, counts = np.unique(drawn, return_counts=True)
    expected = law.pmf(values) * len(drawn)
    common = expected > 5
    assert law.pmf(values[common]).sum() > 0.99
    share = counts[common].sum() / expected[common].sum()
    assert stats.chisquare(counts[common], expected[common] * share).pvalue > 1e-3


def test_binomial_edges():
    with cornu.engine("numpy"):
        drawn = random.binomial((2, 3), [[5.0], [1e6]], [0.0, 1.0, 0.5], seed=1)
    assert drawn[:, 0].tolist() == [0, 0] and drawn[:, 1].tolist() == [5, 1e6]
    assert 0 <= drawn[0, 2] <= 5 and abs(drawn[1, 2] - 5e5) < 3000


def test_beta_of_small_parameters_is_finite():
    with cornu.engine("numpy"):
        drawn = random.beta((500,), 0.01, 0.01, seed=1)
    assert np.isfinite(drawn).all() and 0.35 < drawn.mean() < 0.65


def test_host_bits_are_the_ops_bits():
    key = np.array([7, 0xFFFFFFF0], np.uint32)
    with cornu.engine("jax"):
        expected = np.asarray(pure.bits(key, (40_000,)))
    np.testing.assert_array_equal(pure.host_bits(key, 40_000), expected)
    np.testing.assert_array_equal(expected, np.asarray(jax.random.bits(jax.numpy.asarray(key), (40_000,))))


def test_seed_arguments(engine):
    def draw(seed):
        return ops.convert_to_numpy(random.uniform((3,), seed=seed)).tolist()

    assert draw(3) == draw(3) != draw(4)
    generator = random.SeedGenerator(3)
    first, second = draw(generator), draw(generator)
    assert first == draw(3) and second != first
    assert generator.state.numpy().tolist() == [3, 2]
    random.set_random_seed(1)
    unseeded = [draw(None), draw(None)]
    assert unseeded[0] != unseeded[1]
    random.set_random_seed(1)
    assert unseeded == [draw(None), draw(None)]
    assert draw(np.array([3, 0], np.uint32)) == draw(3)
    for wrong in (True, "a", 1.5, -1, 2**32):
        with pytest.raises(ArgumentError):
            draw(wrong)


def test_global_seed_follows_the_process_seed():
    random.set_random_seed(2)
    first = [random.global_seed() for _ in range(50)]
    random.set_random_seed(2)
    assert first == [random.global_seed() for _ in range(50)]
    assert len(set(first)) == 50 and all(0 <= seed < 2**31 for seed in first)
    random.set_random_seed(3)
    assert first[0] != random.global_seed()


def test_generator_in_a_compiled_step():
    generator = random.SeedGenerator(4)
    with cornu.engine("jax") as engine:

        def step(state):
            with context.bind([generator.state], [state]) as scope:
                drawn = random.normal((2,), seed=generator)
                return drawn, scope.values[id(generator.state)]

        compiled = engine.compile(step)
        one, state = compiled(generator.state.value)
        two, state = compiled(state)
        assert np.asarray(state).tolist() == [4, 2]
        np.testing.assert_allclose(one, random.normal((2,), seed=generator), rtol=1e-6)
        np.testing.assert_allclose(two, random.normal((2,), seed=generator), rtol=1e-6)
        for seed in (None, random.SeedGenerator(1)):
            with pytest.raises(EngineError, match="does not carry its state"):
                engine.compile(lambda x, seed=seed: x + random.normal((2,), seed=seed))(one)


def test_generator_config():
    generator = random.SeedGenerator.from_config(random.SeedGenerator(11, name="mine").get_config())
    assert generator.get_config() == {"seed": 11, "name": "mine"}
    unseeded = random.SeedGenerator()
    assert unseeded.get_config()["seed"] is None and unseeded.state.shape == (2,)


def test_dropout(engine):
    x = np.arange(1, 4001, dtype="float32").reshape(40, 100)
    kept = ops.convert_to_numpy(random.dropout(x, 0.25, seed=1))
    assert set(np.unique(np.round(kept / x, 5))) == {0.0, np.float32(1.33333)}
    assert abs((kept == 0).mean() - 0.25) < 0.03
    rows = ops.convert_to_numpy(random.dropout(x, 0.5, noise_shape=(None, 1), seed=1)) == 0
    assert (rows == rows[:, :1]).all() and 0 < rows.mean() < 1
    assert (ops.convert_to_numpy(random.dropout(x, 0.0)) == x).all()
    assert (ops.convert_to_numpy(random.dropout(x, 1.0)) == 0).all()
    assert cornu.ops.dtype(random.dropout(x.astype("float16"), 0.5, seed=1)) == "float16"


def test_shuffle(engine):
    x = np.arange(60).reshape(3, 20)
    for axis in (0, 1):
        shuffled = ops.convert_to_numpy(random.shuffle(x, axis=axis, seed=3))
        assert (np.sort(shuffled, axis=axis) == x).all() and (shuffled != x).any()


def test_randint_limits(engine):
    drawn = ops.convert_to_numpy(random.randint((1000,), 2**31 - 1, 2**32 - 1, dtype="uint32", seed=1))
    assert drawn.dtype == np.uint32 and drawn.min() >= 2**31 - 1 and drawn.max() > 3 * 2**30
    wide = ops.convert_to_numpy(random.randint((1000,), -(2**31), 2**31 - 1, seed=1))
    assert wide.min() < -(2**30) and wide.max() > 2**30
    for arguments in ((5, 5, "int32"), (0, 300, "uint8"), (0, 2**33, "int64"), (0.5, 2, "int32"), (0, 2, "float32")):
        with pytest.raises(ArgumentError):
            random.randint((2,), *arguments[:2], dtype=arguments[2])


def test_specs():
    with context.abstract():
        generator = random.SeedGenerator(1)
        for draw, _ in (DRAWS | WHOLE).values():
            assert tuple(draw(generator).shape) == N
        x = Spec((4, 5), "float32")
        assert random.dropout(x, 0.5, seed=generator).key == x.key == random.shuffle(x, seed=generator).key


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="float dtype"):
        random.uniform((2,), dtype="int32")
    with pytest.raises(ArgumentError, match="batch, classes"):
        random.categorical(np.zeros(3, "float32"), 2)
    with pytest.raises(ArgumentError, match="rate"):
        random.dropout(np.zeros(3, "float32"), 1.5)


def test_an_order_on_the_host_is_a_pure_function_of_its_arguments():
    assert pure.host_order(7, 1, 2, 8).tolist() == [4, 6, 0, 2, 1, 7, 5, 3]  # as it was at first, for all time
    orders = [
        pure.host_order(*given, 1000) for given in [(7, 1, 2), (8, 1, 2), (7, 2, 2), (7, 1, 3), (7 + 2**32, 1, 2)]
    ]
    assert len({order.tobytes() for order in orders}) == len(orders)
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert not len(pure.host_order(7, 1, 2, 0))


def test_an_order_on_the_host_is_that_of_its_bits():
    start = pure.host_bits(pure.key(7), 2) ^ np.array([1, 2], np.uint32)
    expected = np.argsort(pure.host_bits(start, 100_000), kind="stable")  # some of so many bits are equal
    np.testing.assert_array_equal(pure.host_order(7, 1, 2, 100_000), expected)
