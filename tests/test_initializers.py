"""`cornu.initializers`: Keras's distributions, names and configs; the same values on every engine."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import stats

import cornu
from cornu import initializers, random
from cornu.core import context
from cornu.core.errors import ArgumentError, ShapeError
from cornu.engines.numpy import special
from cornu.ops import random as pure

SHAPE = (3, 3, 32, 64)
RANDOM = {
    "random_normal": {"mean": 0.5, "stddev": 2.0},
    "truncated_normal": {"mean": 0.5, "stddev": 2.0},
    "random_uniform": {"minval": -1.0, "maxval": 3.0},
    "glorot_uniform": {},
    "glorot_normal": {},
    "he_uniform": {},
    "he_normal": {},
    "lecun_uniform": {},
    "lecun_normal": {},
    "variance_scaling": {"scale": 3.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}


@pytest.mark.parametrize("name", RANDOM)
def test_distribution_is_that_of_keras(name):
    ours = initializers.deserialize({"class_name": name, "config": {**RANDOM[name], "seed": 3}})(SHAPE)
    theirs = np.asarray(getattr(keras.initializers, name)(**RANDOM[name], seed=5)(SHAPE))
    assert ours.shape == SHAPE and ours.dtype == np.float32 and type(ours) is np.ndarray
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3


def test_axes_of_an_unusual_layout():
    options = {"mode": "fan_in", "input_axes": [0], "output_axes": [1, 2], "seed": 1}
    ours = initializers.VarianceScaling(**options)((64, 8, 32))
    assert ours.std() == pytest.approx(math.sqrt(1 / 64), rel=0.02)
    assert initializers.compute_fans((5,)) == (5, 5) and initializers.compute_fans(()) == (1, 1)


def test_values_are_those_of_the_ops():
    key = np.array([3, 0], np.uint32)
    with cornu.engine("numpy"):
        uniform = pure.uniform_of(key, (50, 7), -0.5, 2.0)
        normal = pure.normal_of(key, (50, 7), 0.5, 2.0)
        truncated = pure.truncated_normal_of(key, (50, 7), 0.5, 2.0)
    shape = (50, 7)
    np.testing.assert_allclose(initializers.RandomUniform(-0.5, 2.0, seed=3)(shape), uniform, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(initializers.RandomNormal(0.5, 2.0, seed=3)(shape), normal, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(initializers.TruncatedNormal(0.5, 2.0, seed=3)(shape), truncated, rtol=1e-5, atol=1e-5)


def test_quick_erfinv():
    x = np.linspace(-1 + 2**-23, 1 - 2**-23, 20_001, dtype=np.float32)
    np.testing.assert_allclose(initializers._erfinv(x), special.erfinv(x), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (3, 3, 4, 8)])
def test_orthogonal(shape):
    drawn = initializers.Orthogonal(gain=2.0, seed=1)(shape).reshape(-1, shape[-1])
    product = drawn @ drawn.T if drawn.shape[0] < drawn.shape[1] else drawn.T @ drawn
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int32", None])
def test_constants(dtype):
    for ours, theirs in (
        (initializers.Zeros(), keras.initializers.Zeros()),
        (initializers.Ones(), keras.initializers.Ones()),
        (initializers.Constant(2.5), keras.initializers.Constant(2.5)),
        (initializers.Identity(2.0), keras.initializers.Identity(2.0)),
    ):
        found = ours((3, 4), dtype)
        assert found.dtype.name == (dtype or "float32")
        expected = np.asarray(theirs((3, 4))).astype(found.dtype)
        np.testing.assert_array_equal(found.astype("float32"), expected.astype("float32"))
    assert initializers.Constant([1, 2])((3, 2)).tolist() == [[1, 2]] * 3
    assert initializers.HeNormal(seed=1)((4, 4), "bfloat16").dtype.name == "bfloat16"


def test_seeds():
    shape = (4, 5)
    same = initializers.GlorotUniform(seed=1)
    np.testing.assert_array_equal(same(shape), same(shape))
    np.testing.assert_array_equal(same(shape), same.clone()(shape))
    unseeded = initializers.get("glorot_uniform")
    np.testing.assert_array_equal(unseeded(shape), unseeded(shape))
    assert (unseeded(shape) != initializers.get("glorot_uniform")(shape)).any()
    assert (unseeded(shape) != unseeded.clone()(shape)).any()
    moving = initializers.HeNormal(seed=random.SeedGenerator(1))
    assert (moving(shape) != moving(shape)).any()
    random.set_random_seed(0)
    first = initializers.get("he_normal")(shape)
    random.set_random_seed(0)
    np.testing.assert_array_equal(first, initializers.get("he_normal")(shape))
    with context.abstract():
        np.testing.assert_array_equal(same(shape), initializers.GlorotUniform(seed=1)(shape))
        assert isinstance(moving(shape), np.ndarray)


def test_no_engine_is_imported():
    code = (
        "import sys, cornu.initializers as i\n"
        "[i.get(n)((3, 4)) for n in ('zeros', 'ones', 'he_normal', 'glorot_uniform', 'orthogonal', 'identity')]\n"
        "i.HeNormal(seed=i.random.SeedGenerator(1))((2,)), i.Constant(1.0)((2,))\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Mine(initializers.Initializer):
    def __init__(self, value):
        self.value = value

    def __call__(self, shape, dtype=None):
        return np.full(shape, self.value, dtype)


def test_get():
    for name in sorted(initializers.FAMILY.names):
        if name.lower() not in ("initializer", "constant"):
            made = initializers.get(name)
            assert made is not initializers.get(name)
            theirs = keras.initializers.get(name if name != "IdentityInitializer" else "identity")
            assert type(theirs).__name__ == type(made).__name__
    assert initializers.get(None) is None
    assert isinstance(initializers.get(initializers.HeNormal), initializers.HeNormal)
    mine = Mine(2)
    assert initializers.get(mine) is mine
    assert initializers.get(len) is len
    assert initializers.get(np.eye(2))((2, 2), "float16").dtype == "float16"
    with pytest.raises(ShapeError, match="given as initializer"):
        initializers.get(np.eye(2))((2,))
    with pytest.raises(ArgumentError, match="did you mean 'glorot_uniform'"):
        initializers.get("glorot_unifrom")
    with pytest.raises(ArgumentError, match="is no initializer"):
        initializers.get(3)


def test_configs_are_those_of_keras():
    for name, options in [*RANDOM.items(), ("zeros", {}), ("orthogonal", {"gain": 2.0})]:
        seed = {"seed": 4} if name != "zeros" else {}
        ours = initializers.FAMILY.names[name](**options, **seed)
        theirs = keras.initializers.serialize(getattr(keras.initializers, name)(**options, **seed))
        assert initializers.serialize(ours) == theirs
        again = initializers.deserialize(theirs)
        np.testing.assert_array_equal(again((3, 3)), ours((3, 3)))
    theirs = keras.initializers.serialize(keras.initializers.HeNormal(keras.random.SeedGenerator(3, name="s")))
    assert initializers.serialize(initializers.deserialize(theirs)) == theirs
    assert initializers.HeNormal().get_config()["seed"] is None
    again = initializers.deserialize(initializers.serialize(Mine(7)))
    assert isinstance(again, Mine) and again.value == 7
    given = initializers.deserialize(initializers.serialize(initializers.get(np.eye(2, dtype="float32"))))
    np.testing.assert_array_equal(given((2, 2)), np.eye(2))


def test_wrong_arguments():
    for wrong in ({"scale": 0}, {"mode": "fan"}, {"distribution": "beta"}, {"seed": "x"}):
        with pytest.raises(ArgumentError):
            initializers.VarianceScaling(**wrong)
    for wrong in (initializers.Identity(), initializers.Orthogonal(), initializers.Constant([1, 2])):
        with pytest.raises(ShapeError):
            wrong((3,))
