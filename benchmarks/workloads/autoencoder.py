"""A convolutional autoencoder of 28x28 pictures."""

from typing import Any

from benchmarks.workload import Workload

__all__ = ["AUTOENCODER"]


def data(rng: Any, rows: int) -> Any:
    """Pictures of noise, to be given back."""
    x = rng.uniform(size=(rows, 28, 28, 1)).astype("float32")
    return x, x


def build(keras: Any) -> Any:
    """The model."""
    layers = keras.layers
    x = h = keras.Input((28, 28, 1))
    for filters in (16, 32):
        h = layers.Conv2D(filters, 4, strides=2, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(16, 4, strides=2, padding="same", activation="relu")(h)
    return keras.Model(x, layers.Conv2DTranspose(1, 4, strides=2, padding="same")(h))


def jax(w: Any, x: Any, training: bool) -> Any:
    """By hand, in JAX."""
    from jax import lax
    from jax.nn import relu

    shapes = ("NHWC", "HWIO", "NHWC")
    for kernel, bias in ((w[0], w[1]), (w[2], w[3])):
        x = relu(lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=shapes) + bias)
    x = relu(lax.conv_transpose(x, w[4], (2, 2), "SAME", dimension_numbers=shapes, transpose_kernel=True) + w[5])
    return lax.conv_transpose(x, w[6], (2, 2), "SAME", dimension_numbers=shapes, transpose_kernel=True) + w[7], []


def tensorflow(w: Any, x: Any, training: bool) -> Any:
    """By hand, in TensorFlow."""
    import tensorflow as tf

    rows = tf.shape(x)[0]
    for kernel, bias in ((w[0], w[1]), (w[2], w[3])):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 2, "SAME"), bias))
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d_transpose(x, w[4], [rows, 14, 14, 16], 2, "SAME"), w[5]))
    return tf.nn.bias_add(tf.nn.conv2d_transpose(x, w[6], [rows, 28, 28, 1], 2, "SAME"), w[7]), []


def torch() -> Any:
    """By hand, in PyTorch."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
    )  # fmt: skip


def nnx(rngs: Any) -> Any:
    """By hand, in Flax NNX."""
    from flax import nnx

    four = {"kernel_size": (4, 4), "strides": (2, 2), "rngs": rngs}
    return nnx.Sequential(
        nnx.Conv(1, 16, **four), nnx.relu, nnx.Conv(16, 32, **four), nnx.relu,
        nnx.ConvTranspose(32, 16, transpose_kernel=True, **four), nnx.relu,
        nnx.ConvTranspose(16, 1, transpose_kernel=True, **four),
    )  # fmt: skip


AUTOENCODER = Workload(
    name="autoencoder",
    title="28x28: conv 16, conv 32, and back by transposed convolutions; batch 64",
    batch=64,
    steps=20,
    loss="squares",
    multiply_adds=2 * (14 * 14 * 16 * 16 + 7 * 7 * 16 * 16 * 32),
    data=data,
    build=build,
    jax=jax,
    tensorflow=tensorflow,
    torch=torch,
    nnx=nnx,
)
