"""A recommender that is mostly embeddings: users, items and some numbers."""

from typing import Any

from benchmarks.workload import Workload

__all__ = ["RECOMMENDER"]

USERS, ITEMS, WIDTH, NUMBERS = 50_000, 20_000, 32, 16


def data(rng: Any, rows: int) -> Any:
    """Who, what, how; and whether they liked it."""
    x = {
        "user": rng.integers(0, USERS, rows).astype("int32"),
        "item": rng.integers(0, ITEMS, rows).astype("int32"),
        "numbers": rng.normal(size=(rows, NUMBERS)).astype("float32"),
    }
    return x, rng.integers(0, 2, (rows, 1)).astype("float32")


def build(keras: Any) -> Any:
    """The model."""
    layers = keras.layers
    user = keras.Input((), dtype="int32", name="user")
    item = keras.Input((), dtype="int32", name="item")
    numbers = keras.Input((NUMBERS,), name="numbers")
    h = layers.Concatenate()([layers.Embedding(USERS, WIDTH)(user), layers.Embedding(ITEMS, WIDTH)(item), numbers])
    h = layers.Dense(64, activation="relu")(h)
    h = layers.Dense(32, activation="relu")(h)
    return keras.Model({"user": user, "item": item, "numbers": numbers}, layers.Dense(1)(h))


def jax(w: Any, x: Any, training: bool) -> Any:
    """By hand, in JAX."""
    import jax.numpy as jnp
    from jax.nn import relu

    h = jnp.concatenate([w[0][x["user"]], w[1][x["item"]], x["numbers"]], 1)
    return relu(relu(h @ w[2] + w[3]) @ w[4] + w[5]) @ w[6] + w[7], []


def tensorflow(w: Any, x: Any, training: bool) -> Any:
    """By hand, in TensorFlow."""
    import tensorflow as tf

    h = tf.concat([tf.gather(w[0], x["user"]), tf.gather(w[1], x["item"]), x["numbers"]], 1)
    h = tf.nn.relu(tf.matmul(h, w[2]) + w[3])
    return tf.matmul(tf.nn.relu(tf.matmul(h, w[4]) + w[5]), w[6]) + w[7], []


def torch() -> Any:
    """By hand, in PyTorch."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user, self.item = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)
            self.top = nn.Sequential(
                nn.Linear(2 * WIDTH + NUMBERS, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
            )

        def forward(self, x: Any) -> Any:
            return self.top(torch.cat([self.user(x["user"]), self.item(x["item"]), x["numbers"]], 1))

    return Net()


def nnx(rngs: Any) -> Any:
    """By hand, in Flax NNX."""
    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.user, self.item = nnx.Embed(USERS, WIDTH, rngs=rngs), nnx.Embed(ITEMS, WIDTH, rngs=rngs)
            self.top = nnx.Sequential(
                nnx.Linear(2 * WIDTH + NUMBERS, 64, rngs=rngs), nnx.relu,
                nnx.Linear(64, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 1, rngs=rngs),
            )  # fmt: skip

        def __call__(self, x: Any) -> Any:
            return self.top(jnp.concatenate([self.user(x["user"]), self.item(x["item"]), x["numbers"]], 1))

    return Net()


RECOMMENDER = Workload(
    name="recommender",
    title=f"embeddings of {USERS} users and {ITEMS} items, 3 dense; batch 256",
    batch=256,
    steps=20,
    loss="yes_no",
    multiply_adds=(2 * WIDTH + NUMBERS) * 64 + 64 * 32 + 32,
    data=data,
    build=build,
    jax=jax,
    tensorflow=tensorflow,
    torch=torch,
    nnx=nnx,
)
