"""Padding, cropping and upsampling against Keras."""

import numpy as np
import pytest
from test_conv import FIRST, same_gradients, twin

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers import spatial

CASES = [
    ("ZeroPadding1D", (5, 3), {}),
    ("ZeroPadding1D", (3, 5), {"padding": (2, 0), **FIRST}),
    ("ZeroPadding2D", (5, 4, 3), {"padding": (1, 2)}),
    ("ZeroPadding2D", (3, 5, 4), {"padding": ((1, 0), (2, 3)), **FIRST}),
    ("ZeroPadding3D", (3, 2, 4, 2), {}),
    ("Cropping1D", (5, 3), {}),
    ("Cropping1D", (5, 3), {"cropping": [0, 2]}),
    ("Cropping2D", (5, 4, 3), {}),
    ("Cropping2D", (3, 5, 4), {"cropping": ((1, 0), (2, 1)), **FIRST}),
    ("Cropping2D", (5, 4, 3), {"cropping": 1}),
    ("Cropping3D", (5, 4, 6, 2), {"cropping": (1, 0, 2)}),
    ("UpSampling1D", (5, 3), {"size": 3}),
    ("UpSampling2D", (5, 4, 3), {}),
    ("UpSampling2D", (5, 4, 3), {"size": (2, 3), "interpolation": "bilinear"}),
    ("UpSampling2D", (3, 5, 1), {"size": (4, 2), "interpolation": "bilinear", **FIRST}),
    ("UpSampling2D", (5, 4, 3), {"size": (3, 2), "interpolation": "bicubic"}),
    ("UpSampling2D", (9, 2, 3), {"size": (2, 1), "interpolation": "lanczos3"}),
    ("UpSampling2D", (12, 4, 3), {"size": (3, 5), "interpolation": "lanczos5"}),
    ("UpSampling3D", (2, 3, 4, 2), {"size": (1, 2, 3)}),
    ("UpSampling3D", (2, 2, 3, 4), FIRST),
]  # fmt: skip


@pytest.mark.parametrize("name, shape, arguments", CASES)
def test_spatial_layers_are_those_of_keras(engine, name, shape, arguments):
    twin(spatial, name, shape, arguments)


@pytest.mark.parametrize("at", [3, 8, 13])
def test_gradients_are_those_of_keras(engine, at):
    same_gradients(*twin(spatial, *CASES[at], checked=False))


def test_whole_numbers(engine):
    twin(spatial, "UpSampling2D", (3, 2, 1), {"interpolation": "nearest"}, dtype="int32")
    twin(spatial, "UpSampling2D", (3, 2, 1), {"interpolation": "bicubic"}, dtype="uint8")
    twin(spatial, "Cropping1D", (5, 2), {}, dtype="int32")


def test_unknown_space_runs(engine):
    image = cornu.Input((None, None, 2))
    enlarged = spatial.UpSampling2D((2, 3), interpolation="bilinear")(image)
    padded = spatial.ZeroPadding2D(1)(spatial.Cropping2D(1)(enlarged))
    model = cornu.Model(image, padded - enlarged)
    assert model.output_shape == (None, None, None, 2)
    assert ops.convert_to_numpy(model(np.ones((1, 3, 4, 2), "float32"))).sum() == -2 * (2 * 12 + 2 * 4)
    with pytest.raises(ShapeError, match="more than 8"):
        cornu.Model(image, spatial.Cropping2D(4)(image))(np.ones((1, 9, 8, 2), "float32"))


def test_wrong_arguments_and_inputs():
    for make in (lambda: spatial.ZeroPadding1D(-1), lambda: spatial.ZeroPadding2D((1, 2, 3)),
                 lambda: spatial.Cropping2D(((1, 2, 3), 1)), lambda: spatial.Cropping3D(1.5),
                 lambda: spatial.UpSampling1D(0), lambda: spatial.UpSampling2D((2, 2, 2)),
                 lambda: spatial.UpSampling2D(interpolation="area")):  # fmt: skip
        with pytest.raises(ArgumentError):
            make()
    with pytest.raises(ShapeError, match="more than 5"):
        spatial.Cropping1D((3, 2))(cornu.Input((5, 2)))
