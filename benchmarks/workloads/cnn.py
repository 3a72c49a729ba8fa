"""A small convolutional net on 28x28 pictures."""

from typing import Any

from benchmarks.workload import Workload

__all__ = ["CNN"]


def data(rng: Any, rows: int) -> Any:
    """Pictures of noise and ten classes."""
    return rng.normal(size=(rows, 28, 28, 1)).astype("float32"), rng.integers(0, 10, rows).astype("int32")


def build(keras: Any) -> Any:
    """The model."""
    layers = keras.layers
    x = h = keras.Input((28, 28, 1))
    for filters in (32, 64):
        h = layers.Conv2D(filters, 3, padding="same", activation="relu")(h)
        h = layers.MaxPooling2D()(h)
    return keras.Model(x, layers.Dense(10)(layers.Flatten()(h)))


def jax(w: Any, x: Any, training: bool) -> Any:
    """By hand, in JAX."""
    from jax import lax, nn
    from jax.numpy import inf

    for kernel, bias in ((w[0], w[1]), (w[2], w[3])):
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = lax.reduce_window(nn.relu(x + bias), -inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ w[4] + w[5], []


def tensorflow(w: Any, x: Any, training: bool) -> Any:
    """By hand, in TensorFlow."""
    import tensorflow as tf

    for kernel, bias in ((w[0], w[1]), (w[2], w[3])):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    return tf.nn.bias_add(tf.matmul(tf.reshape(x, [-1, 7 * 7 * 64]), w[4]), w[5]), []


def torch() -> Any:
    """By hand, in PyTorch."""
    from torch import nn

    dense = nn.Linear(7 * 7 * 64, 10)
    dense.flattened = (7, 7, 64)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), dense,
    )  # fmt: skip


def nnx(rngs: Any) -> Any:
    """By hand, in Flax NNX."""
    from flax import nnx

    def pool(x: Any) -> Any:
        return nnx.max_pool(x, (2, 2), (2, 2))

    return nnx.Sequential(
        nnx.Conv(1, 32, (3, 3), rngs=rngs), nnx.relu, pool,
        nnx.Conv(32, 64, (3, 3), rngs=rngs), nnx.relu, pool,
        lambda x: x.reshape(len(x), -1), nnx.Linear(7 * 7 * 64, 10, rngs=rngs),
    )  # fmt: skip


CNN = Workload(
    name="cnn",
    title="28x28: conv 32, pool, conv 64, pool, dense; batch 64",
    batch=64,
    steps=20,
    loss="classes",
    multiply_adds=28 * 28 * 9 * 32 + 14 * 14 * 9 * 32 * 64 + 7 * 7 * 64 * 10,
    data=data,
    build=build,
    jax=jax,
    tensorflow=tensorflow,
    torch=torch,
    nnx=nnx,
)
