"""LSTM and GRU over 64 steps."""

from typing import Any

from benchmarks.workload import Workload

__all__ = ["GRU", "LSTM"]

TIME, FEATURES, UNITS, CLASSES = 64, 32, 128, 10


def data(rng: Any, rows: int) -> Any:
    """Sequences of noise and ten classes."""
    return rng.normal(size=(rows, TIME, FEATURES)).astype("float32"), rng.integers(0, CLASSES, rows).astype("int32")


def lstm_step(split: Any, sigmoid: Any, tanh: Any, state: Any, gates: Any) -> Any:
    """The new state of an LSTM."""
    c = state[1]
    i, f, g, o = split(gates)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru_step(split: Any, sigmoid: Any, tanh: Any, h: Any, given: Any, recurrent: Any) -> Any:
    """The new state of a GRU."""
    (z, r, n), (hz, hr, hn) = split(given), split(recurrent)
    z = sigmoid(z + hz)
    return z * h + (1 - z) * tanh(n + sigmoid(r + hr) * hn)


def _build(name: str) -> Any:
    def build(keras: Any) -> Any:
        x = keras.Input((TIME, FEATURES))
        return keras.Model(x, keras.layers.Dense(CLASSES)(getattr(keras.layers, name)(UNITS)(x)))

    return build


def _jax(name: str) -> Any:
    def forward(w: Any, x: Any, training: bool) -> Any:
        import jax.numpy as jnp
        from jax import lax
        from jax.nn import sigmoid

        def split(gates: Any) -> Any:
            return jnp.split(gates, gates.shape[-1] // UNITS, -1)

        kernel, recurrent, bias, dense, last = w
        zeros = jnp.zeros((len(x), UNITS))
        if name == "LSTM":

            def step(state: Any, given: Any) -> Any:
                return lstm_step(split, sigmoid, jnp.tanh, state, given + state[0] @ recurrent), None

            state, _ = lax.scan(step, (zeros, zeros), (x @ kernel + bias).swapaxes(0, 1))
            return state[0] @ dense + last, []

        def step(h: Any, given: Any) -> Any:  # type: ignore[no-redef]
            return gru_step(split, sigmoid, jnp.tanh, h, given, h @ recurrent + bias[1]), None

        h, _ = lax.scan(step, zeros, (x @ kernel + bias[0]).swapaxes(0, 1))
        return h @ dense + last, []

    return forward


def _tensorflow(name: str) -> Any:
    def forward(w: Any, x: Any, training: bool) -> Any:
        import tensorflow as tf

        def split(gates: Any) -> Any:
            return tf.split(gates, gates.shape[-1] // UNITS, -1)

        kernel, recurrent, bias, dense, last = w
        given = tf.tensordot(x, kernel, 1) + (bias if name == "LSTM" else bias[0])
        h = c = tf.zeros((tf.shape(x)[0], UNITS))
        for now in tf.unstack(given, TIME, 1):
            if name == "LSTM":
                h, c = lstm_step(split, tf.sigmoid, tf.tanh, (h, c), now + tf.matmul(h, recurrent))
            else:
                h = gru_step(split, tf.sigmoid, tf.tanh, h, now, tf.matmul(h, recurrent) + bias[1])
        return tf.matmul(h, dense) + last, []

    return forward


def _torch(name: str) -> Any:
    def make() -> Any:
        from torch import nn

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.recurrent = getattr(nn, name)(FEATURES, UNITS, batch_first=True)
                self.dense = nn.Linear(UNITS, CLASSES)

            def forward(self, x: Any) -> Any:
                return self.dense(self.recurrent(x)[0][:, -1])

        return Net()

    return make


def _nnx(name: str) -> Any:
    def make(rngs: Any) -> Any:
        from flax import nnx

        class Net(nnx.Module):
            def __init__(self) -> None:
                if name == "LSTM":
                    cell: Any = nnx.OptimizedLSTMCell(FEATURES, UNITS, rngs=rngs)
                else:
                    cell = nnx.GRUCell(FEATURES, UNITS, rngs=rngs)
                    cell.dense_h = nnx.Linear(UNITS, 3 * UNITS, rngs=rngs)  # with a bias, as Keras and PyTorch
                self.recurrent = nnx.RNN(cell)
                self.dense = nnx.Linear(UNITS, CLASSES, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                return self.dense(self.recurrent(x)[:, -1])

        return Net()

    return make


def _workload(name: str, gates: int) -> Workload:
    return Workload(
        name=name.lower(),
        title=f"{name} {UNITS} over {TIME} steps of {FEATURES}, dense; batch 64",
        batch=64,
        steps=10,
        loss="classes",
        multiply_adds=TIME * gates * UNITS * (FEATURES + UNITS) + UNITS * CLASSES,
        data=data,
        build=_build(name),
        jax=_jax(name),
        tensorflow=_tensorflow(name),
        torch=_torch(name),
        nnx=_nnx(name),
    )


LSTM = _workload("LSTM", 4)
GRU = _workload("GRU", 3)
