"""PyTorch's traces leave padding with zeros to the convolutions it is for, forwards and backwards."""

import numpy as np
import pytest

import cornu
from cornu import ops

torch = pytest.importorskip("torch")

from torch_traces import ENGINE, named, nodes_of, with_gradients  # noqa: E402

from cornu.engines.torch import tracing  # noqa: E402

rng = np.random.default_rng(0)


def floats(*shape):
    return rng.normal(size=shape).astype("float32")


def padded(x, *pairs, value=0):
    return ops.pad(x, ((0, 0), *pairs, (0, 0)), constant_values=value)


LINE, PICTURE, CUBE = (floats(2, 9, 3), floats(3, 3, 4)), (floats(2, 7, 6, 3), floats(3, 3, 3, 4)), (
    floats(2, 4, 5, 4, 2), floats(2, 2, 2, 2, 3),
)  # fmt: skip
ONE = (1, 1)

# name -> (function of what is padded and a kernel, the two, paddings that stay with gradients)
CASES = {
    "a line": (lambda x, k: ops.conv(padded(x, (2, 2)), k), LINE, 0),
    "a picture": (lambda x, k: ops.conv(padded(x, ONE, ONE), k), PICTURE, 0),
    "a picture, one axis": (lambda x, k: ops.conv(padded(x, (0, 0), (2, 2)), k), PICTURE, 0),
    "a picture, strides": (lambda x, k: ops.conv(padded(x, ONE, ONE), k, strides=2), PICTURE, 0),
    "a picture, dilation": (lambda x, k: ops.conv(padded(x, ONE, ONE), k, dilation_rate=2), PICTURE, 0),
    "a cube": (lambda x, k: ops.conv(padded(x, ONE, ONE, ONE), k), CUBE, 0),
    "more padding of its own": (lambda x, k: ops.conv(padded(x, ONE, ONE), k, padding="same"), PICTURE, 0),
    "after an activation": (lambda x, k: ops.conv(padded(ops.relu(x), ONE, ONE), k), PICTURE, 0),
    "two convolutions": (lambda x, k: ops.conv(p := padded(x, ONE, ONE), k) + ops.sin(ops.conv(p, 2 * k)), PICTURE, 2),
    "one layer after the other": (
        lambda x, k: ops.conv(padded(ops.tanh(ops.conv(padded(x, ONE, ONE), k))[..., :3], (0, 0), ONE), k), PICTURE, 0,
    ),
    "each channel by itself": (lambda x, k: ops.depthwise_conv(padded(x, ONE, ONE), k[..., :2]), PICTURE, 0),
    "another who reads": (lambda x, k: ops.conv(p := padded(x, ONE, ONE), k) + ops.sum(ops.sin(p)), PICTURE, 2),
    "more at one end": (lambda x, k: ops.conv(padded(x, (0, 1), (0, 1)), k, strides=2), PICTURE, 2),
    "more along one axis": (lambda x, k: ops.conv(padded(x, (0, 1), ONE), k), PICTURE, 2),
    "another number": (lambda x, k: ops.conv(padded(x, ONE, ONE, value=1), k), PICTURE, 2),
    "channels too": (lambda x, k: ops.conv(ops.pad(x[..., :1], ((0, 0), ONE, ONE, ONE)), k), PICTURE, 2),
    "windows": (lambda x, k: ops.conv(ops.average_pool(padded(x, ONE, ONE), 2), k), PICTURE, 2),
    "the other way": (lambda x, k: ops.conv_transpose(padded(x, ONE, ONE), ops.transpose(k, (0, 1, 3, 2))), PICTURE, 2),
}  # fmt: skip


def plain(function):
    return lambda values: [function(*values)]


@pytest.fixture(autouse=True)
def on_a_cpu():
    with torch.device("cpu"):
        yield


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_padding_first(name):
    function, given, stay = CASES[name]
    values = [ENGINE.from_host(value) for value in given]
    run = with_gradients(function)
    traced = tracing._traced(run, values, 0, False)
    assert traced.eager_because is None
    for found, wanted in zip(traced(values), run(values), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=1e-5, atol=1e-5)
    assert len(named(nodes_of(run, values), "constant_pad_nd")) == stay


def test_a_gradient_that_others_see_is_cut_as_it_was():
    """The forward convolution pads by itself all the same."""

    def run(values):
        x, kernel = values

        def loss(given):
            return ops.sum(ops.sin(ops.conv(given[0], kernel))), 0

        ((_, _), (pulled,)) = ENGINE.value_and_grad(loss)([padded(x, ONE, ONE)])
        return [pulled, pulled[:, 1:-1, 1:-1]]

    values = [ENGINE.from_host(value) for value in PICTURE]
    traced = tracing._traced(run, values, 0, False)
    for found, wanted in zip(traced(values), run(values), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_widths(dtype):
    function, given, _ = CASES["a picture"]
    values = [ops.cast(ENGINE.from_host(value), dtype) for value in given]
    found = tracing._traced(plain(function), values, 0, False)(values)[0]
    wanted = function(*values)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found.double().numpy(), wanted.double().numpy(), rtol=2e-2, atol=2e-2)


def test_models_that_pad_by_a_layer_train_as_elsewhere():
    def trained(engine):
        with cornu.engine(engine):
            cornu.utils.set_random_seed(0)
            inputs = cornu.Input((8, 8, 2))
            h = cornu.layers.ZeroPadding2D(1)(inputs)
            h = cornu.layers.Conv2D(4, 3, activation="relu")(h)
            h = cornu.layers.Conv2D(4, 3, strides=2)(cornu.layers.ZeroPadding2D(((0, 1), (0, 1)))(h))
            h = cornu.layers.Conv2D(3, 3)(cornu.layers.ZeroPadding2D(1)(cornu.layers.BatchNormalization()(h)))
            model = cornu.Model(inputs, cornu.layers.GlobalAveragePooling2D()(h))
            model.compile("sgd", "mse")
            draw = np.random.default_rng(1)
            x, y = draw.normal(size=(32, 8, 8, 2)).astype("float32"), draw.normal(size=(32, 3)).astype("float32")
            losses = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
            return [*losses, *np.ravel(model.predict(x, verbose=0))]

    np.testing.assert_allclose(trained("torch"), trained("numpy"), rtol=1e-4, atol=1e-5)
