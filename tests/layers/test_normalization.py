"""Normalisations against Keras."""

import keras
import numpy as np
import pytest
from test_conv import same_gradients, twin

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError, ShapeError, UnsupportedError
from cornu.layers import normalization

CASES = [
    ("BatchNormalization", (4, 3), {}),
    ("BatchNormalization", (4, 3), {"axis": 1, "momentum": 0.7, "epsilon": 0.01, "center": False}),
    ("BatchNormalization", (3, 2, 4, 3), {"scale": False}),
    ("LayerNormalization", (4, 3), {}),
    ("LayerNormalization", (4, 3, 2), {"axis": [1, 2], "epsilon": 0.1}),
    ("LayerNormalization", (4, 3, 2), {"axis": (1, 3), "center": False}),
    ("LayerNormalization", (4, 3, 2), {"axis": [1, -1]}),
    ("LayerNormalization", (4, 3, 2), {"axis": 1, "scale": False}),
    ("LayerNormalization", (4, 3), {"rms_scaling": True}),
    ("GroupNormalization", (4, 2, 6), {"groups": 3}),
    ("GroupNormalization", (6, 4, 2), {"groups": -1, "axis": 1, "scale": False}),
    ("GroupNormalization", (4, 6, 2), {"groups": 2, "axis": -2, "center": False}),
    ("RMSNormalization", (4, 3), {}),
    ("RMSNormalization", (4, 3), {"axis": [1, 2], "epsilon": 0.1}),
    ("UnitNormalization", (4, 3), {}),
    ("UnitNormalization", (4, 3), {"axis": [1, 2]}),
]


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("name, shape, arguments", CASES)
def test_normalisations_are_those_of_keras(engine, name, shape, arguments):
    twin(normalization, name, shape, arguments)


@pytest.mark.parametrize("at", [0, 4, 6, 9, 13, 14])
def test_gradients_are_those_of_keras(engine, at):
    same_gradients(*twin(normalization, *CASES[at], checked=False))


def moving(layer):
    return [np.asarray(w) for w in (layer.moving_mean, layer.moving_variance)]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_batch_statistics_in_training(engine, at):
    ours, theirs, x = twin(normalization, *CASES[at], checked=False)
    same_gradients(ours, theirs, x, training=True)
    before = theirs.get_weights()
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours(x, training=True)), np.asarray(theirs(x, training=True)), rtol=1e-4, atol=1e-4
    )
    for got, want in zip(moving(ours), moving(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    ours.set_weights(before)
    step = cornu.value_and_grad(lambda: ops.sum(ours(x, training=True)), ours.trainable_variables)
    step()
    np.testing.assert_allclose(moving(ours)[0], moving(theirs)[0], rtol=1e-5)
    ours.trainable = False
    frozen = moving(ours)
    np.testing.assert_array_equal(ops.convert_to_numpy(ours(x, training=True)), ops.convert_to_numpy(ours(x)))
    np.testing.assert_array_equal(moving(ours), frozen)


def test_a_mask_says_what_batch_statistics_count(engine):
    ours, theirs, x = twin(normalization, "BatchNormalization", (4, 3), {"momentum": 0.5}, checked=False)
    mask = np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool)
    got, want = ours(x, training=True, mask=mask), theirs(x, training=True, mask=mask)
    np.testing.assert_allclose(ops.convert_to_numpy(got), np.asarray(want), rtol=1e-4, atol=1e-4)
    for mine, other in zip(moving(ours), moving(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5)
    with pytest.raises(ShapeError, match="one axis less"):
        ours(x, mask=mask[0])


def test_one_channel_with_a_mask(engine):
    layer = normalization.BatchNormalization(momentum=0.0, epsilon=0.0)
    layer(np.array([[[1.0], [3.0], [99.0]]], "float32"), training=True, mask=np.array([[True, True, False]]))
    np.testing.assert_allclose(moving(layer), [[2.0], [1.0]], rtol=1e-5)


def test_fit_moves_the_statistics(engine):
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(32, 4)).astype("float32")
    inputs = cornu.Input((4,))
    layer = normalization.BatchNormalization(momentum=0.5)
    model = cornu.Model(inputs, cornu.layers.Dense(1)(layer(inputs)))
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=32, epochs=1, verbose=0, shuffle=False)
    np.testing.assert_allclose(moving(layer)[0], x.mean(0) / 2, rtol=1e-5)
    np.testing.assert_allclose(moving(layer)[1], x.var(0) / 2 + 0.5, rtol=1e-5)


@pytest.mark.parametrize("policy, name, arguments", [
    ("mixed_float16", "BatchNormalization", {}), ("mixed_float16", "LayerNormalization", {}),
    ("mixed_float16", "GroupNormalization", {"groups": 1}), ("mixed_float16", "RMSNormalization", {}),
    ("mixed_bfloat16", "BatchNormalization", {}), ("float16", "BatchNormalization", {}),
])  # fmt: skip
def test_half_widths_are_computed_in_float32(engine, policy, name, arguments):
    x = np.random.default_rng(0).normal(300.0, 200.0, size=(4, 5, 2)).astype("float32")  # squares overflow float16
    ours = getattr(normalization, name)(dtype=policy, **arguments)
    theirs = getattr(keras.layers, name)(dtype=policy, **arguments)
    training = {"training": True} if name == "BatchNormalization" else {}
    got, want = ours(x, **training), theirs(x, **training)
    assert ops.dtype(got) == str(want.dtype) == policy.removeprefix("mixed_")
    rtol = 2e-2 if "b" in policy else 2e-3
    np.testing.assert_allclose(
        ops.convert_to_numpy(got).astype("float32"), np.asarray(want).astype("float32"), rtol=rtol, atol=rtol
    )
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine.astype("float32"), other.astype("float32"), rtol=rtol)


@pytest.mark.parametrize("name", normalization.__all__)
def test_unknown_sizes_and_masks(engine, name):
    rows, seen = cornu.Input((None, 4)), cornu.Input((None,), dtype="bool")
    layer = getattr(normalization, name)(**({"groups": 2} if name.startswith("Group") else {}))
    rows.mask = seen
    normal = layer(rows)
    assert normal.mask is seen and normal.shape == (None, None, 4)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    model = cornu.Model([rows, seen], normal)
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model([x, mask])), ops.convert_to_numpy(layer(x)), rtol=1e-5, atol=1e-6
    )


def test_wrong_arguments_and_inputs():
    batch, layer_, group = (getattr(normalization, f"{name}Normalization") for name in ("Batch", "Layer", "Group"))
    for make in (lambda: batch(axis=[1]), lambda: batch(momentum=2), lambda: group(groups=0), lambda: group(axis=0),
                 lambda: layer_(axis="last"), lambda: layer_(epsilon=-1), lambda: layer_(axis=[]),
                 lambda: normalization.UnitNormalization(axis=1.5)):  # fmt: skip
        with pytest.raises(ArgumentError):
            make()
    for wrong in ("renorm", "synchronized"):
        with pytest.raises(UnsupportedError):
            batch(**{wrong: True})
    with pytest.raises(ShapeError, match="multiple of the groups"):
        group(4)(cornu.Input((8, 6)))
    for layer in (batch(), layer_(), normalization.RMSNormalization()):
        with pytest.raises(ShapeError, match="unknown"):
            layer(cornu.Input((8, None)))
    with pytest.raises(ShapeError):
        layer_(axis=5)(cornu.Input((8, 6)))
