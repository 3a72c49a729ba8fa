"""Pooling against Keras."""

import keras
import numpy as np
import pytest
from test_conv import FIRST, same_gradients, twin

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers import pooling

CASES = [
    ("MaxPooling1D", (9, 3), {}),
    ("MaxPooling1D", (3, 9), {"pool_size": 3, "strides": 2, "padding": "same", **FIRST}),
    ("MaxPooling2D", (8, 7, 3), {}),
    ("MaxPooling2D", (8, 7, 3), {"pool_size": (2, 3), "strides": (1, 2), "padding": "same"}),
    ("MaxPooling3D", (5, 4, 6, 2), {"pool_size": 2, "strides": 1}),
    ("AveragePooling1D", (9, 3), {"pool_size": 2, "padding": "same"}),
    ("AveragePooling2D", (8, 7, 3), {"pool_size": 3, "strides": 2, "padding": "same"}),
    ("AveragePooling2D", (3, 8, 7), {"pool_size": (2, 3), **FIRST}),
    ("AveragePooling3D", (5, 4, 6, 2), {"pool_size": (1, 2, 3)}),
    *(
        (f"Global{kind}Pooling{rank}D", (5, 4, 6, 2)[-rank - 1 :], options)
        for kind in ("Max", "Average")
        for rank, options in ((1, {}), (1, {"keepdims": True, **FIRST}), (2, {"keepdims": True}), (2, FIRST), (3, {}))
    ),
]  # fmt: skip


@pytest.mark.parametrize("name, shape, arguments", CASES)
def test_pooling_is_that_of_keras(engine, name, shape, arguments):
    twin(pooling, name, shape, arguments)


@pytest.mark.parametrize("at", [3, 6, 14])
def test_gradients_are_those_of_keras(engine, at):
    same_gradients(*twin(pooling, *CASES[at], checked=False))


def test_names():
    for name in pooling.__all__:
        assert getattr(pooling, name).__name__ == getattr(keras.layers, name).__name__
    assert {name for name in dir(keras.layers) if "Pool" in name and "Adaptive" not in name} == set(pooling.__all__)


@pytest.mark.parametrize("options", [{}, {"keepdims": True}, FIRST])
def test_mean_over_time_counts_what_a_mask_counts(engine, options):
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    mask = np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool)
    if options.get("data_format"):
        x = np.ascontiguousarray(x.swapaxes(1, 2))
    want = np.asarray(keras.layers.GlobalAveragePooling1D(**options)(x, mask=mask))
    layer = pooling.GlobalAveragePooling1D(**options)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x, mask=mask)), want, rtol=1e-5)
    rows = cornu.Input((3, None) if "data_format" in options else (None, 3))
    seen = cornu.Input((None,), dtype="bool")
    pooled = layer(rows, mask=seen)
    assert pooled.mask is None
    np.testing.assert_allclose(ops.convert_to_numpy(cornu.Model([rows, seen], pooled)([x, mask])), want, rtol=1e-5)


def test_wrong_arguments_and_inputs():
    for make in (lambda: pooling.MaxPooling2D(0), lambda: pooling.MaxPooling2D((2, 2, 2)),
                 lambda: pooling.AveragePooling1D(2, strides=0), lambda: pooling.MaxPooling2D(padding="causal"),
                 lambda: pooling.GlobalMaxPooling1D("first")):  # fmt: skip
        with pytest.raises(ArgumentError):
            make()
    with pytest.raises(ShapeError):
        pooling.MaxPooling2D(9)(cornu.Input((8, 8, 3)))
    with pytest.raises(ShapeError, match="4 axes"):
        pooling.MaxPooling2D()(cornu.Input((8, 3)))
