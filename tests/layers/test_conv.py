"""Convolutions against Keras; and `twin`, which compares any layer with its twin in Keras."""

import ast
import functools
from unittest import mock

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.core import context
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers import conv, conv_depthwise, conv_transpose

MODULES = (conv, conv_depthwise, conv_transpose)
LEFT_OUT = {"quantization_config", "lora_rank", "lora_alpha"}


def _no_draw(self, shape, dtype=None):
    return np.zeros(shape, dtype)  # the weights are replaced; drawing them would be compiled for each shape


@functools.cache
def _judge(name, shape, arguments, dtype):
    """Keras's layer, an input, its output, and output shapes; made once for both engines."""
    theirs = getattr(keras.layers, name)(**ast.literal_eval(arguments))
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2, *shape)) if "int" not in dtype else rng.integers(0, 250, (2, *shape))).astype(dtype)
    with mock.patch.object(keras.initializers.GlorotUniform, "__call__", _no_draw):
        theirs.build(x.shape)
    theirs.set_weights([0.5 + rng.random(w.shape).astype("float32") for w in theirs.get_weights()])
    sizes = [shape] if theirs.weights else [shape, (None,) * len(shape)]
    inputs = [keras.Input(one, dtype=dtype) for one in sizes]
    shapes = {one: keras.Model(value, theirs(value)).output_shape for one, value in zip(sizes, inputs, strict=True)}
    values = [[v.value for v in part] for part in (theirs.trainable_variables, theirs.non_trainable_variables)]
    return theirs, x, np.asarray(jax.jit(theirs.stateless_call)(*values, x)[0]), shapes, theirs.get_weights()


def twin(module, name, shape, arguments, dtype="float32", checked=True):
    """A layer and Keras's, with the same weights, and an input: outputs, shapes, names and config agree."""
    cls = getattr(module, name)
    theirs, x, want, shapes, weights = _judge(name, shape, repr(arguments), dtype)
    theirs.set_weights(weights)
    ours = cls(**arguments)
    if not checked:
        ours.build(x.shape)
        ours.set_weights(weights)
        return ours, theirs, x
    for sizes, expected in shapes.items():
        inputs = cornu.Input(sizes, dtype=dtype)
        assert cornu.Model(inputs, ours(inputs)).output_shape == expected
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    ours.set_weights(weights)
    got = ops.convert_to_numpy(run(ours, x))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)
    assert got.dtype == want.dtype
    assert set(ours.get_config()) >= set(theirs.get_config()) - LEFT_OUT
    again = cls.from_config(ours.get_config())
    assert again.get_config() == ours.get_config()
    return ours, theirs, x


def run(function, *args):
    """A function's result, compiled where the engine compiles."""
    return jax.jit(function)(*args) if context.engine_in_force().name == "jax" else function(*args)


def same_gradients(ours, theirs, x, **kwargs):
    """The gradients of a function of the output agree, for the input and all trainable weights."""
    value = cornu.Variable(x)
    watched = [value, *ours.trainable_variables]
    slopes = value_and_grad(lambda: ops.sum(ops.sin(ours(value, **kwargs))), watched)

    def bound(values):
        with context.bind([*watched, *ours.non_trainable_variables], values):
            return slopes()[1]

    mine = run(bound, [v.value for v in (*watched, *ours.non_trainable_variables)])
    rest = [v.value for v in theirs.non_trainable_variables]

    def loss(x, weights):
        return jax.numpy.sum(jax.numpy.sin(theirs.stateless_call(weights, rest, x, **kwargs)[0]))

    dx, weights = jax.jit(jax.grad(loss, (0, 1)))(x, [v.value for v in theirs.trainable_variables])
    for got, want in zip(mine, [dx, *weights], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), np.asarray(want), rtol=2e-4, atol=2e-4)


FIRST = {"data_format": "channels_first"}
CASES = [
    ("Conv1D", (9, 4), {"filters": 6, "kernel_size": 3}),
    ("Conv1D", (9, 4), {"filters": 6, "kernel_size": [3], "padding": "Causal", "dilation_rate": 2}),
    ("Conv1D", (4, 9), {"filters": 6, "kernel_size": 3, "padding": "causal", "strides": 2, "groups": 2, **FIRST}),
    ("Conv2D", (8, 7, 4), {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}),
    ("Conv2D", (8, 7, 4), {"filters": 6, "kernel_size": (3, 2), "groups": 2, "dilation_rate": (1, 2)}),
    ("Conv2D", (4, 8, 7), {"filters": 6, "kernel_size": (2, 3), "strides": (2, 1), **FIRST}),
    ("Conv3D", (5, 4, 6, 2), {"filters": 3, "kernel_size": 2, "strides": (1, 2, 1), "padding": "same"}),
    ("DepthwiseConv1D", (9, 4), {"kernel_size": 3, "strides": 2, "depth_multiplier": 2, "padding": "same"}),
    ("DepthwiseConv2D", (8, 7, 4), {"kernel_size": (3, 2), "depth_multiplier": 2, "activation": "relu"}),
    ("DepthwiseConv2D", (4, 8, 7), {"kernel_size": 2, "dilation_rate": 2, "depth_multiplier": 3, **FIRST}),
    ("SeparableConv1D", (9, 4), {"filters": 5, "kernel_size": 3, "depth_multiplier": 2}),
    ("SeparableConv2D", (8, 7, 4), {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("SeparableConv2D", (4, 8, 7), {"filters": 5, "kernel_size": 3, "use_bias": False, **FIRST}),
    ("Conv1DTranspose", (5, 4), {"filters": 3, "kernel_size": 3, "strides": 2}),
    ("Conv1DTranspose", (4, 5), {"filters": 3, "kernel_size": 3, "dilation_rate": 2, "padding": "same", **FIRST}),
    ("Conv2DTranspose", (4, 5, 2), {"filters": 3, "kernel_size": (3, 2), "strides": (2, 3), "activation": "tanh"}),
    ("Conv2DTranspose", (4, 5, 2), {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("Conv2DTranspose", (4, 5, 2), {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same",
                                    "output_padding": 1}),
    ("Conv2DTranspose", (4, 5, 2), {"filters": 3, "kernel_size": 2, "strides": 3, "output_padding": (0, 2)}),
    ("Conv3DTranspose", (3, 2, 4, 2), {"filters": 3, "kernel_size": 2, "strides": 2, "use_bias": False}),
]  # fmt: skip


def named(name):
    return next(module for module in MODULES if name in module.__all__)


@pytest.mark.parametrize("name, shape, arguments", CASES)
def test_convolutions_are_those_of_keras(engine, name, shape, arguments):
    twin(named(name), name, shape, arguments)


@pytest.mark.parametrize("at", [1, 4, 8, 12, 16])
def test_gradients_are_those_of_keras(engine, at):
    name, shape, arguments = CASES[at]
    same_gradients(*twin(named(name), name, shape, arguments, checked=False))


@pytest.mark.parametrize("name, arguments", [
    ("Conv2D", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("Conv2D", {"filters": 3, "kernel_size": 2}),
    ("SeparableConv2D", {"filters": 3, "kernel_size": 2}),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2}),
])  # fmt: skip
def test_unknown_space(engine, name, arguments):
    layer = getattr(named(name), name)(**arguments)
    image = cornu.Input((None, None, 2))
    model = cornu.Model(image, layer(image))
    assert model.output_shape == (None, None, None, 3)
    for shape in ((1, 5, 6, 2), (2, 8, 4, 2)):
        x = np.random.default_rng(1).normal(size=shape).astype("float32")
        np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), ops.convert_to_numpy(layer(x)))


def test_half_width_arithmetic_on_wide_weights():
    layer = conv.Conv2D(3, 2, dtype="mixed_bfloat16")
    y = layer(np.ones((1, 4, 4, 2), "float32"))
    assert str(y.dtype) == "bfloat16" and layer.kernel.dtype == "float32"


@pytest.mark.parametrize("make", [
    lambda: conv.Conv2D(0, 3), lambda: conv.Conv2D(3, 0), lambda: conv.Conv2D(3, (3, 3, 3)),
    lambda: conv.Conv2D(3, 3, strides=(2, 0)), lambda: conv.Conv2D(3, 3, strides=2, dilation_rate=2),
    lambda: conv.Conv2D(3, 3, padding="causal"), lambda: conv.Conv2D(3, 3, data_format="last"),
    lambda: conv.Conv2D(3, 3, groups=2), lambda: conv.Conv2D(3, 2.5), lambda: conv.Conv2D(3, True),
    lambda: conv_depthwise.DepthwiseConv2D(3, depth_multiplier=0), lambda: conv_depthwise.SeparableConv1D(-1, 3),
    lambda: conv_transpose.Conv2DTranspose(3, 3, strides=2, output_padding=2),
])  # fmt: skip
def test_wrong_arguments(make):
    with pytest.raises(ArgumentError):
        make()


def test_wrong_inputs():
    with pytest.raises(ShapeError, match="unknown"):
        conv.Conv2D(3, 3)(cornu.Input((8, 8, None)))
    with pytest.raises(ShapeError, match="multiple of the groups"):
        conv.Conv2D(4, 3, groups=2)(cornu.Input((8, 8, 3)))
    with pytest.raises(ShapeError):
        conv.Conv2D(4, 9)(cornu.Input((8, 8, 3)))
    with pytest.raises(ShapeError):
        conv.Conv1D(4, 3)(cornu.Input((8, 8, 3)))
    layer = conv.Conv2D(4, 3)
    layer(cornu.Input((8, 8, 3)))
    with pytest.raises(ShapeError, match="size 3 on axis -1"):
        layer(cornu.Input((8, 8, 4)))
