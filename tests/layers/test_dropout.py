"""Random layers: what they keep in expectation, that draws agree between engines, configs and limits."""

import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError, ShapeError
from cornu.graph.masks import mask_of, set_mask
from cornu.layers import dropout
from cornu.random import at_step as clock

CASES = [
    ("Dropout", (30, 40), {"rate": 0.3}),
    ("Dropout", (30, 40), {"rate": 0.3, "noise_shape": (None, 1, None)}),
    ("SpatialDropout1D", (30, 40), {"rate": 0.3}),
    ("SpatialDropout2D", (6, 5, 40), {"rate": 0.3}),
    ("SpatialDropout2D", (40, 6, 5), {"rate": 0.3, "data_format": "channels_first"}),
    ("SpatialDropout3D", (3, 2, 5, 40), {"rate": 0.3}),
    ("SpatialDropout3D", (40, 3, 2, 5), {"rate": 0.3, "data_format": "channels_first"}),
    ("GaussianNoise", (30, 40), {"stddev": 0.3}),
    ("GaussianDropout", (30, 40), {"rate": 0.3}),
    ("AlphaDropout", (30, 40), {"rate": 0.3}),
    ("AlphaDropout", (30, 40), {"rate": 0.3, "noise_shape": [None, 1, None]}),
]


def drawn(engine, kind, arguments, x, step=5, **kwargs):
    """The output of a layer in one step of training."""
    layer = getattr(dropout, kind)(**{"seed": 3, **arguments, **kwargs})
    with cornu.engine(engine), clock(np.int32(step)):
        return ops.convert_to_numpy(layer(x, training=True))


@pytest.mark.parametrize("name, shape, arguments", CASES)
def test_layers(name, shape, arguments):
    x = np.random.default_rng(0).normal(0.5, 1, size=(20, *shape)).astype("float32")
    y = drawn("numpy", name, arguments, x)
    # The same on both engines; another draw for another step or seed.
    np.testing.assert_allclose(drawn("jax", name, arguments, x), y, rtol=1e-5, atol=1e-5)
    for other in ({"step": 6}, {"seed": 4}):
        assert np.abs(drawn("numpy", name, arguments, x, **other) - y).max() > 0.1
    # Inference changes nothing.
    layer, theirs = getattr(dropout, name)(**arguments), getattr(keras.layers, name)(**arguments)
    for kwargs in ({}, {"training": False}):
        assert ops.convert_to_numpy(layer(x, **kwargs)) is not None
        np.testing.assert_array_equal(ops.convert_to_numpy(layer(x, **kwargs)), x)
    # Shapes, configs.
    unknown = cornu.Input((None,) * len(shape))
    assert cornu.Model(unknown, layer(unknown, training=True)).output_shape == (None,) * (len(shape) + 1)
    assert set(layer.get_config()) >= set(theirs.get_config())
    assert isinstance(layer.seed, int) and layer.get_config()["seed"] == layer.seed
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert not layer.weights and layer.supports_masking


@pytest.mark.parametrize("name, shape, arguments", CASES[:7])
def test_dropped_elements(name, shape, arguments):
    x = np.ones((20, *shape), "float32")
    y = drawn("numpy", name, arguments, x)
    assert set(np.unique(y).tolist()) == {0.0, np.float32(1 / (1.0 - 0.3))}
    shared = {"Dropout": (1,) if "noise_shape" in arguments else (), "SpatialDropout1D": (1,)}.get(name)
    if shared is None:
        shared = tuple(range(2, len(shape) + 1)) if "data_format" in arguments else tuple(range(1, len(shape)))
    assert not shared or (y.max(axis=shared) == y.min(axis=shared)).all()
    units = y.max(axis=shared) > 0 if shared else y > 0
    assert abs(units.mean() - 0.7) < 4 * np.sqrt(0.21 / units.size)


def test_mean_and_variance_are_kept():
    x = np.random.default_rng(0).normal(size=(400, 500)).astype("float32")
    noise = drawn("numpy", "GaussianNoise", {"stddev": 0.5}, x) - x
    assert abs(noise.mean()) < 0.005 and abs(noise.std() - 0.5) < 0.005
    factor = drawn("numpy", "GaussianDropout", {"rate": 0.2}, np.ones_like(x))
    assert abs(factor.mean() - 1) < 0.005 and abs(factor.std() - 0.5) < 0.005
    selu = drawn("numpy", "AlphaDropout", {"rate": 0.2}, x)
    assert abs(selu.mean()) < 0.01 and abs(selu.std() - 1) < 0.01


def test_rates_of_none_and_all(engine):
    x = np.ones((2, 3), "float32")
    for rate in (0, 0.0, 1, 1.0):
        want = np.asarray(keras.layers.Dropout(rate)(x, training=True))
        np.testing.assert_array_equal(ops.convert_to_numpy(dropout.Dropout(rate)(x, training=True)), want)


def test_draws_in_a_model(engine):
    x = np.ones((8, 50), "float32")
    given = cornu.Input((50,))
    first, second = dropout.Dropout(0.5, seed=1), dropout.Dropout(0.5, seed=1)
    model = cornu.Model(given, [first(given), second(given), first(given)])
    with clock(np.int32(0)):
        a, b, c = (ops.convert_to_numpy(y) for y in model(x, training=True))
        again = ops.convert_to_numpy(model(x, training=True)[0])
    assert (a != b).any() and (a != c).any() and (a == again).all()
    assert all((ops.convert_to_numpy(y) == 1).all() for y in model(x))
    # Outside a step, each call draws anew.
    once, twice = (ops.convert_to_numpy(first(x, training=True)) for _ in range(2))
    assert (once != twice).any()


def test_seeds(engine):
    cornu.random.set_random_seed(3)
    one = dropout.Dropout(0.5).seed
    cornu.random.set_random_seed(3)
    layers = [dropout.Dropout(0.5), dropout.Dropout(0.5)]
    assert layers[0].seed == one != layers[1].seed
    generator = cornu.random.SeedGenerator(7)
    x = np.ones((50,), "float32")
    layer = dropout.Dropout(0.5, seed=generator)
    first, second = (ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    assert (first != second).any()
    assert generator.state.numpy().tolist() == [7, 2]
    assert layer.get_config()["seed"] is generator


def test_mixed_precision_and_masks(engine):
    x = ops.convert_to_tensor(np.ones((4, 6, 3), "float32"))
    set_mask(x, np.ones((4, 6), bool))
    for layer in (
        dropout.Dropout(0.5, dtype="mixed_bfloat16"),
        dropout.GaussianNoise(0.5, dtype="mixed_bfloat16"),
        dropout.GaussianDropout(0.5, dtype="mixed_bfloat16"),
        dropout.AlphaDropout(0.5, dtype="mixed_bfloat16"),
    ):
        assert cornu.core.dtypes.standardize_dtype(layer(x, training=True).dtype) == "bfloat16"
    assert mask_of(dropout.Dropout(0.5)(x, training=True)) is not None


def test_activity_regularization(engine):
    x = np.array([[1.0, -2.0]], "float32")
    ours, theirs = dropout.ActivityRegularization(0.1, 0.01), keras.layers.ActivityRegularization(0.1, 0.01)
    np.testing.assert_array_equal(ops.convert_to_numpy(ours(x)), np.asarray(theirs(x)))
    np.testing.assert_allclose(float(ours.losses[0]), float(theirs.losses[0]), rtol=1e-6)
    assert set(ours.get_config()) == set(theirs.get_config())
    assert dropout.ActivityRegularization.from_config(ours.get_config()).get_config() == ours.get_config()


def test_wrong_arguments():
    for wrong in (
        lambda: dropout.Dropout(1.5),
        lambda: dropout.Dropout("0.5"),
        lambda: dropout.Dropout(0.5, noise_shape="2"),
        lambda: dropout.Dropout(0.5, noise_shape=(0, 1)),
        lambda: dropout.Dropout(0.5, seed=-1),
        lambda: dropout.Dropout(0.5, seed=0.5),
        lambda: dropout.GaussianNoise(-0.1),
        lambda: dropout.GaussianDropout(1.0),
        lambda: dropout.AlphaDropout(1.0),
        lambda: dropout.SpatialDropout2D(0.5, "last"),
    ):
        with pytest.raises(ArgumentError):
            wrong()
    x = np.ones((4, 3), "float32")
    for wrong in (
        lambda: dropout.Dropout(0.5, noise_shape=(2, 1))(x, training=True),
        lambda: dropout.Dropout(0.5, noise_shape=(1,))(x, training=True),
        lambda: dropout.SpatialDropout1D(0.5)(x),
    ):
        with pytest.raises(ShapeError):
            wrong()
