"""One record per public layer class: how to make one, and a value to call it on. `check_layer` is run on all of them."""

from typing import Any, NamedTuple

import numpy as np

from cornu import layers
from cornu.saving import register_keras_serializable

__all__ = ["ABSTRACT", "FOREIGN", "SAMPLES", "Sample", "public_layers"]

# Wrappers of other libraries' functions, which run on one engine only: tests/interop has them.
FOREIGN = {"FlaxLayer", "JaxLayer", "TorchModuleWrapper"}

# Classes that are no layers by themselves.
ABSTRACT = {"Layer", "InputLayer", "Merge", "Wrapper"}


class Sample(NamedTuple):
    """A layer, and what to call it on.

    Attributes:
        make: gives the layer.
        value: an array or a structure of arrays, the first axis being the batch.
        arguments: further arguments of the call.
    """

    make: Any
    value: Any
    arguments: dict[str, Any] = {}


def _floats(*shape: int) -> np.ndarray:
    """Numbers with no ties and none at a kink."""
    size = int(np.prod(shape))
    order = np.random.default_rng(size).permutation(size)
    return ((order + 0.37) / size * 2 - 1).reshape(shape).astype("float32")


def _whole(high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(high).integers(0, high, shape).astype("int32")


@register_keras_serializable("samples")
def double(x: Any) -> Any:
    """A function for `Lambda`."""
    return x * 2.0


FLAT, SERIES, IMAGE, VOLUME = _floats(3, 4), _floats(3, 5, 4), _floats(2, 6, 5, 2), _floats(2, 5, 4, 4, 2)
IDS = _whole(7, 3, 5)
TWO = [_floats(3, 4), _floats(4, 3).T.copy()]

SAMPLES: dict[str, Sample] = {
    "Activation": Sample(lambda: layers.Activation("tanh"), SERIES),
    "ActivityRegularization": Sample(lambda: layers.ActivityRegularization(l2=0.1), SERIES),
    "Add": Sample(lambda: layers.Add(), TWO),
    "AdditiveAttention": Sample(lambda: layers.AdditiveAttention(), [SERIES, SERIES[:, :3] * 0.5]),
    "AlphaDropout": Sample(lambda: layers.AlphaDropout(0.3), SERIES),
    "Attention": Sample(lambda: layers.Attention(), [SERIES, SERIES[:, :3] * 0.5]),
    "Average": Sample(lambda: layers.Average(), TWO),
    "AveragePooling1D": Sample(lambda: layers.AveragePooling1D(2), SERIES),
    "AveragePooling2D": Sample(lambda: layers.AveragePooling2D(2, padding="same"), IMAGE),
    "AveragePooling3D": Sample(lambda: layers.AveragePooling3D(2), VOLUME),
    "BatchNormalization": Sample(lambda: layers.BatchNormalization(), SERIES),
    "Bidirectional": Sample(lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True)), SERIES),
    "CategoryEncoding": Sample(lambda: layers.CategoryEncoding(7, output_mode="multi_hot"), IDS),
    "Concatenate": Sample(lambda: layers.Concatenate(), TWO),
    "Conv1D": Sample(lambda: layers.Conv1D(3, 2, padding="causal", activation="tanh"), SERIES),
    "Conv1DTranspose": Sample(lambda: layers.Conv1DTranspose(3, 2, strides=2), SERIES),
    "Conv2D": Sample(lambda: layers.Conv2D(3, (2, 3), padding="same"), IMAGE),
    "Conv2DTranspose": Sample(lambda: layers.Conv2DTranspose(3, 2, strides=2, padding="same"), IMAGE),
    "Conv3D": Sample(lambda: layers.Conv3D(2, 2), VOLUME),
    "Conv3DTranspose": Sample(lambda: layers.Conv3DTranspose(2, 2), VOLUME[:, :2, :2, :2]),
    "Cropping1D": Sample(lambda: layers.Cropping1D((1, 0)), SERIES),
    "Cropping2D": Sample(lambda: layers.Cropping2D(1), IMAGE),
    "Cropping3D": Sample(lambda: layers.Cropping3D(1), VOLUME),
    "Dense": Sample(lambda: layers.Dense(3, activation="tanh"), SERIES),
    "DepthwiseConv1D": Sample(lambda: layers.DepthwiseConv1D(2), SERIES),
    "DepthwiseConv2D": Sample(lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), IMAGE),
    "Dot": Sample(lambda: layers.Dot(axes=1), TWO),
    "Dropout": Sample(lambda: layers.Dropout(0.3), SERIES),
    "ELU": Sample(lambda: layers.ELU(), SERIES),
    "EinsumDense": Sample(lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d"), SERIES),
    "Embedding": Sample(lambda: layers.Embedding(7, 3, mask_zero=True), IDS),
    "Flatten": Sample(lambda: layers.Flatten(), SERIES),
    "GRU": Sample(lambda: layers.GRU(3), SERIES),
    "GRUCell": Sample(lambda: layers.GRUCell(3), FLAT, {"states": [_floats(3, 3)]}),
    "GaussianDropout": Sample(lambda: layers.GaussianDropout(0.3), SERIES),
    "GaussianNoise": Sample(lambda: layers.GaussianNoise(0.3), SERIES),
    "GlobalAveragePooling1D": Sample(lambda: layers.GlobalAveragePooling1D(), SERIES),
    "GlobalAveragePooling2D": Sample(lambda: layers.GlobalAveragePooling2D(), IMAGE),
    "GlobalAveragePooling3D": Sample(lambda: layers.GlobalAveragePooling3D(keepdims=True), VOLUME),
    "GlobalMaxPooling1D": Sample(lambda: layers.GlobalMaxPooling1D(), SERIES),
    "GlobalMaxPooling2D": Sample(lambda: layers.GlobalMaxPooling2D(), IMAGE),
    "GlobalMaxPooling3D": Sample(lambda: layers.GlobalMaxPooling3D(), VOLUME),
    "GroupNormalization": Sample(lambda: layers.GroupNormalization(2), SERIES),
    "GroupedQueryAttention": Sample(lambda: layers.GroupedQueryAttention(3, 2, 1), SERIES, {"value": SERIES}),
    "Identity": Sample(lambda: layers.Identity(), SERIES),
    "LSTM": Sample(lambda: layers.LSTM(3, return_sequences=True), SERIES),
    "LSTMCell": Sample(lambda: layers.LSTMCell(3), FLAT, {"states": [_floats(3, 3), _floats(3, 3) * 0.5]}),
    "Lambda": Sample(lambda: layers.Lambda(double), SERIES),
    "LayerNormalization": Sample(lambda: layers.LayerNormalization(), SERIES),
    "LeakyReLU": Sample(lambda: layers.LeakyReLU(), SERIES),
    "Masking": Sample(lambda: layers.Masking(), SERIES),
    "MaxPooling1D": Sample(lambda: layers.MaxPooling1D(2), SERIES),
    "MaxPooling2D": Sample(lambda: layers.MaxPooling2D(2, padding="same"), IMAGE),
    "MaxPooling3D": Sample(lambda: layers.MaxPooling3D(2), VOLUME),
    "Maximum": Sample(lambda: layers.Maximum(), TWO),
    "Minimum": Sample(lambda: layers.Minimum(), TWO),
    "MultiHeadAttention": Sample(lambda: layers.MultiHeadAttention(2, 3), SERIES, {"value": SERIES}),
    "Multiply": Sample(lambda: layers.Multiply(), TWO),
    "Normalization": Sample(
        lambda: layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]), SERIES
    ),
    "PReLU": Sample(lambda: layers.PReLU(shared_axes=[1]), SERIES),
    "Permute": Sample(lambda: layers.Permute((2, 1)), SERIES),
    "RMSNormalization": Sample(lambda: layers.RMSNormalization(), SERIES),
    "RNN": Sample(lambda: layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(2)]), SERIES),
    "ReLU": Sample(lambda: layers.ReLU(max_value=0.7), SERIES),
    "RepeatVector": Sample(lambda: layers.RepeatVector(3), FLAT),
    "Rescaling": Sample(lambda: layers.Rescaling(0.5, offset=1.0), SERIES),
    "Reshape": Sample(lambda: layers.Reshape((2, -1)), SERIES),
    "SeparableConv1D": Sample(lambda: layers.SeparableConv1D(3, 2), SERIES),
    "SeparableConv2D": Sample(lambda: layers.SeparableConv2D(3, 2), IMAGE),
    "SimpleRNN": Sample(lambda: layers.SimpleRNN(3, return_state=True), SERIES),
    "SimpleRNNCell": Sample(lambda: layers.SimpleRNNCell(3), FLAT, {"states": [_floats(3, 3)]}),
    "Softmax": Sample(lambda: layers.Softmax(), FLAT),
    "SpatialDropout1D": Sample(lambda: layers.SpatialDropout1D(0.3), SERIES),
    "SpatialDropout2D": Sample(lambda: layers.SpatialDropout2D(0.3), IMAGE),
    "SpatialDropout3D": Sample(lambda: layers.SpatialDropout3D(0.3), VOLUME),
    "StackedRNNCells": Sample(
        lambda: layers.StackedRNNCells([layers.GRUCell(3), layers.SimpleRNNCell(2)]),
        FLAT,
        {"states": [_floats(3, 3), _floats(3, 2)]},
    ),
    "Subtract": Sample(lambda: layers.Subtract(), TWO),
    "TimeDistributed": Sample(lambda: layers.TimeDistributed(layers.Dense(3)), SERIES),
    "UnitNormalization": Sample(lambda: layers.UnitNormalization(), SERIES),
    "UpSampling1D": Sample(lambda: layers.UpSampling1D(2), SERIES),
    "UpSampling2D": Sample(lambda: layers.UpSampling2D((2, 1), interpolation="bilinear"), IMAGE),
    "UpSampling3D": Sample(lambda: layers.UpSampling3D(2), VOLUME),
    "ZeroPadding1D": Sample(lambda: layers.ZeroPadding1D(1), SERIES),
    "ZeroPadding2D": Sample(lambda: layers.ZeroPadding2D(1), IMAGE),
    "ZeroPadding3D": Sample(lambda: layers.ZeroPadding3D(1), VOLUME),
}


def public_layers() -> dict[str, type]:
    """The public layer classes by their own names (other names of the same class are left out)."""
    found = (getattr(layers, name) for name in layers.__all__)
    return {cls.__name__: cls for cls in found if isinstance(cls, type) and issubclass(cls, layers.Layer)}
