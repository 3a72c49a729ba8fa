"""Random numbers: JAX's bits for the same keys, the same on every engine, and the right distributions."""

import jax
import numpy as np
import pytest
from scipy import stats

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError
from cornu.ops import random
from cornu.ops._declare import operator

SEEDS = [0, 7, 2**31 + 5, 2**40 + 3]
SHAPES = [(), (1,), (5,), (3, 4), (2, 3, 5), (0,), (1000,)]


def jax_key(seed):
    return jax.random.wrap_key_data(ops.convert_to_numpy(random.key(seed)), impl="threefry2x32")


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_split_and_fold_in_are_those_of_jax(seed, engine):
    key = random.key(seed)
    for shape in SHAPES:
        wanted = np.asarray(jax.random.bits(jax_key(seed), shape))
        np.testing.assert_array_equal(ops.convert_to_numpy(random.bits(key, shape)), wanted)
    for num in (1, 2, 5):
        wanted = np.asarray(jax.random.key_data(jax.random.split(jax_key(seed), num)))
        np.testing.assert_array_equal(ops.convert_to_numpy(random.split(key, num)), wanted)
    for data in (0, 1, 12345):
        wanted = np.asarray(jax.random.key_data(jax.random.fold_in(jax_key(seed), data)))
        np.testing.assert_array_equal(ops.convert_to_numpy(random.fold_in(key, data)), wanted)


DRAWS = {
    "uniform": lambda key: random.uniform_of(key, (64,), -1.0, 2.0),
    "whole": lambda key: random.uniform_of(key, (64,), 3, 9, dtype="int32"),
    "normal": lambda key: random.normal_of(key, (64,)),
    "truncated": lambda key: random.truncated_normal_of(key, (64,)),
    "gamma": lambda key: random.gamma_of(key, 0.7, (64,)),
    "categorical": lambda key: random.categorical_of(key, np.zeros((2, 5), "float32"), 8),
    "permutation": lambda key: random.permutation_of(key, 17),
    "bits": lambda key: random.bits(key, (9,)),
}


def test_the_same_numbers_plain_on_numpy_and_compiled_on_jax():
    key = random.key(42)
    with cornu.engine("numpy"):
        plain = {name: ops.convert_to_numpy(draw(key)) for name, draw in DRAWS.items()}
    with cornu.engine("jax") as engine:
        compiled = engine.compile(lambda key: {name: draw(key) for name, draw in DRAWS.items()})(engine.from_host(key))
    for name, wanted in plain.items():
        found = ops.convert_to_numpy(compiled[name])
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6, err_msg=name)
    for name in ("bits", "whole", "permutation"):
        np.testing.assert_array_equal(ops.convert_to_numpy(compiled[name]), plain[name])


N = (20_000,)


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lambda key: random.uniform_of(key, N, -1.0, 3.0), stats.uniform(-1, 4)),
        (lambda key: random.normal_of(key, N, 1.0, 2.0), stats.norm(1, 2)),
        (lambda key: random.truncated_normal_of(key, N, 1.0, 0.5), stats.truncnorm(-2, 2, 1, 0.5)),
        (lambda key: random.gamma_of(key, 2.5, N), stats.gamma(2.5)),
        (lambda key: random.gamma_of(key, 0.4, N), stats.gamma(0.4)),
    ],
    ids=["uniform", "normal", "truncated", "gamma", "gamma-small"],
)
def test_distributions(draw, law):
    with cornu.engine("numpy"):
        found = ops.convert_to_numpy(draw(random.key(11))).astype(np.float64)
    assert np.isfinite(found).all()
    assert stats.kstest(found, law.cdf).pvalue > 1e-3
    assert abs(found.mean() - law.mean()) < 5 * law.std() / len(found) ** 0.5
    low, high = law.support()
    assert found.min() >= low and found.max() <= high


def test_whole_numbers_choices_and_orders():
    with cornu.engine("numpy"):
        whole = random.uniform_of(random.key(1), N, -2, 3, dtype="int32")
        assert set(np.unique(whole)) == {-2, -1, 0, 1, 2}
        assert stats.chisquare(np.unique(whole, return_counts=True)[1]).pvalue > 1e-3
        shares = np.array([0.1, 0.2, 0.7])
        drawn = random.categorical_of(random.key(2), np.log(shares)[None].astype("float32"), 20_000)
        assert drawn.shape == (1, 20_000) and drawn.dtype == np.int32
        assert stats.chisquare(np.bincount(drawn[0]), shares * 20_000).pvalue > 1e-3
        orders = np.stack([random.permutation_of(random.key(seed), 5) for seed in range(400)])
        assert (np.sort(orders, 1) == np.arange(5)).all()
        assert stats.chisquare(np.bincount(orders[:, 0])).pvalue > 1e-3
        assert random.uniform_of(random.key(3), (4,), dtype="bfloat16").dtype.name == "bfloat16"
        with pytest.raises(ArgumentError):
            random.uniform_of(random.key(0), (2,), 3, 3, dtype="int32")


def test_names_do_not_collide():
    assert operator("split") is ops.split
    assert operator("split_key") is random.split


def test_host_bits_are_the_same():
    for count in (0, 1, 5, 20_000):
        with cornu.engine("numpy"):
            np.testing.assert_array_equal(random.host_bits(random.key(9), count), random.bits(random.key(9), (count,)))
