"""`Flatten`, `Reshape`, `Permute`, `RepeatVector` against Keras."""

import keras
import numpy as np
import pytest
from test_core import same_gradients, twin

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError, MaskWarning, ShapeError
from cornu.layers import reshaping
from cornu.layers.embedding import Embedding

CASES = [
    ("Flatten", (3, 4, 2), {}),
    ("Flatten", (3, 4, 2), {"data_format": "channels_first"}),
    ("Flatten", (3,), {"data_format": "channels_first"}),
    ("Flatten", (), {}),
    ("Reshape", (3, 4), {"target_shape": (2, -1)}),
    ("Reshape", (3, 4), {"target_shape": (12,)}),
    ("Reshape", (12,), {"target_shape": (2, 3, 2)}),
    ("Permute", (3, 4, 2), {"dims": (3, 1, 2)}),
    ("RepeatVector", (4,), {"n": 3}),
]


@pytest.mark.parametrize("name, shape, arguments", CASES)
def test_the_numbers_are_those_of_keras(engine, name, shape, arguments):
    if name != "Reshape" or -1 in arguments["target_shape"]:
        twin(reshaping, name, shape, arguments)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    ours, theirs = getattr(reshaping, name)(**arguments), getattr(keras.layers, name)(**arguments)
    np.testing.assert_array_equal(ops.convert_to_numpy(ours(x)), np.asarray(theirs(x)))
    same_gradients(ours, theirs, x)


def test_unknown_sizes(engine):
    x = cornu.Input((None, 6))
    for layer, shape in (
        (reshaping.Reshape((-1, 3)), (None, None, 3)),
        (reshaping.Reshape((None, 2, 3)), (None, None, 2, 3)),
        (reshaping.Flatten(), (None, None)),
        (reshaping.Permute((2, 1)), (None, 6, None)),
    ):
        y = layer(x)
        assert y.shape == shape
        model = cornu.Model(x, y)
        for batch, time in ((2, 5), (1, 4), (0, 3)):
            data = np.arange(batch * time * 6, dtype="float32").reshape(batch, time, 6)
            got = ops.convert_to_numpy(model(data))
            want = data.transpose(0, 2, 1) if got.shape == (batch, 6, time) else data
            np.testing.assert_array_equal(got.ravel(), want.ravel())
            assert got.shape[0] == batch
    assert ops.convert_to_numpy(reshaping.Reshape((2, -1))(np.zeros((0, 3, 4), "float32"))).shape == (0, 2, 6)
    # 2 * time * 6 elements in rows of 12: known to be whole; time * 6 in rows of 4 is seen when it runs.
    model = cornu.Model(x, reshaping.Reshape((-1, 4))(x))
    assert ops.convert_to_numpy(model(np.zeros((1, 2, 6), "float32"))).shape == (1, 3, 4)
    with pytest.raises(ShapeError):
        model(np.zeros((1, 3, 6), "float32"))


def test_wrong_arguments():
    for wrong in (
        lambda: reshaping.Flatten("channels"),
        lambda: reshaping.Reshape((-1, -1)),
        lambda: reshaping.Reshape((-2, 3)),
        lambda: reshaping.Permute((0, 1)),
        lambda: reshaping.Permute((1, 3)),
        lambda: reshaping.RepeatVector(0),
        lambda: reshaping.RepeatVector(2.5),
    ):
        with pytest.raises(ArgumentError):
            wrong()
    x = np.zeros((2, 3, 4), "float32")
    for layer in (
        reshaping.Reshape((5,)),
        reshaping.Reshape((5, -1)),
        reshaping.Permute((1,)),
        reshaping.RepeatVector(2),
    ):
        with pytest.raises(ShapeError):
            layer(x)


def test_masks():
    row = Embedding(7, 4, mask_zero=True)(cornu.Input((6,), dtype="int32"))
    assert reshaping.Reshape((6, 2, 2))(row).mask is row.mask
    with pytest.warns(MaskWarning, match="loses it"):
        assert reshaping.Flatten()(row).mask is None
