"""Dense layers: one so small that only overhead counts, one of the usual size."""

import itertools
from typing import Any

from benchmarks.workload import Workload

__all__ = ["MLP", "TINY"]


def _workload(name: str, sizes: tuple[int, ...], loss: str, batch: int, steps: int) -> Workload:
    last = len(sizes) - 2

    def data(rng: Any, rows: int) -> Any:
        x = rng.normal(size=(rows, sizes[0])).astype("float32")
        if loss == "squares":
            return x, x[:, :1] ** 2
        return x, rng.integers(0, sizes[-1], rows).astype("int32")

    def build(keras: Any) -> Any:
        x = h = keras.Input((sizes[0],))
        for number, size in enumerate(sizes[1:]):
            h = keras.layers.Dense(size, activation=None if number == last else "relu")(h)
        return keras.Model(x, h)

    def jax(w: Any, x: Any, training: bool) -> Any:
        from jax.nn import relu

        for number in range(last + 1):
            x = x @ w[2 * number] + w[2 * number + 1]
            x = x if number == last else relu(x)
        return x, []

    def tensorflow(w: Any, x: Any, training: bool) -> Any:
        import tensorflow as tf

        for number in range(last + 1):
            x = tf.nn.bias_add(tf.matmul(x, w[2 * number]), w[2 * number + 1])
            x = x if number == last else tf.nn.relu(x)
        return x, []

    def torch() -> Any:
        from torch import nn

        layers: list[Any] = []
        for before, size in itertools.pairwise(sizes):
            layers += [nn.Linear(before, size), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def nnx(rngs: Any) -> Any:
        from flax import nnx

        layers: list[Any] = []
        for before, size in itertools.pairwise(sizes):
            layers += [nnx.Linear(before, size, rngs=rngs), nnx.relu]
        return nnx.Sequential(*layers[:-1])

    return Workload(
        name=name,
        title=f"Dense {'-'.join(map(str, sizes))}, batch {batch}",
        batch=batch,
        steps=steps,
        loss=loss,
        multiply_adds=sum(a * b for a, b in itertools.pairwise(sizes)),
        data=data,
        build=build,
        jax=jax,
        tensorflow=tensorflow,
        torch=torch,
        nnx=nnx,
    )


TINY = _workload("tiny_mlp", (10, 16, 1), "squares", batch=32, steps=200)
MLP = _workload("mlp", (784, 512, 512, 10), "classes", batch=128, steps=50)
