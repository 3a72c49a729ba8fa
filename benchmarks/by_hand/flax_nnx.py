"""Flax NNX: a module, `nnx.Optimizer` with Optax's Adam, a step under `nnx.jit`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.by_hand.plain_jax import LOSSES, wait
from benchmarks.contender import BETA1, BETA2, EPSILON, LEARNING_RATE, ByHand
from benchmarks.workload import Given, Workload

__all__ = ["FlaxNNX"]


def fill(module: Any, weights: Any) -> None:
    """Put weights in a module's variables, in the order in which it was written.

    Args:
        module: an `nnx.Module`.
        weights: an iterator of arrays in Keras's layouts.
    """
    if isinstance(module, nnx.OptimizedLSTMCell):
        module.dense_i.kernel[...], module.dense_h.kernel[...] = next(weights), next(weights)
        module.dense_h.bias[...] = next(weights)
    elif isinstance(module, nnx.GRUCell):
        given = [_reset_first(next(weights)) for _ in range(3)]
        module.dense_i.kernel[...], module.dense_h.kernel[...] = given[:2]
        module.dense_i.bias[...], module.dense_h.bias[...] = given[2]
    elif isinstance(module, nnx.MultiHeadAttention):
        for part in (module.query, module.key, module.value, module.out):
            part.kernel[...], part.bias[...] = next(weights), next(weights)
    else:
        names = [n for n in ("kernel", "embedding", "scale", "bias", "mean", "var") if _has(module, n)]
        for name in names:
            getattr(module, name)[...] = next(weights)
        if not names:
            parts = module if isinstance(module, (list, tuple, nnx.List)) else vars(module).values()
            for part in parts:
                if isinstance(part, (nnx.Module, nnx.List, list, tuple)):
                    fill(part, weights)


def _has(module: Any, name: str) -> bool:
    return isinstance(getattr(module, name, None), nnx.Variable)


def _reset_first(gates: np.ndarray) -> np.ndarray:
    """Keras's gates z, r, n as Flax and PyTorch have them: r, z, n."""
    z, r, n = np.split(gates, 3, -1)
    return np.concatenate([r, z, n], -1)


class FlaxNNX(ByHand):
    """A workload in Flax NNX."""

    def __init__(self, workload: Workload, given: Given) -> None:
        super().__init__(workload, given)
        score = LOSSES[workload.loss]
        self.net = workload.nnx(nnx.Rngs(0))
        weights = iter(given.weights)
        fill(self.net, weights)
        assert next(weights, None) is None, "weights are left over"
        self.optimizer = nnx.Optimizer(self.net, optax.adam(LEARNING_RATE, BETA1, BETA2, EPSILON), wrt=nnx.Param)
        self.total = jnp.zeros(2)

        @nnx.jit
        def step(net: Any, optimizer: Any, total: Any, x: Any, y: Any) -> Any:
            def objective(net: Any) -> Any:
                return score(net(x), y)

            (loss, metric), grads = nnx.value_and_grad(objective, has_aux=True)(net)
            optimizer.update(net, grads)
            return loss, total + jnp.stack([loss, metric])

        # The graph of objects is walked once, not at every step: Flax's own advice for small models.
        self.net.train()
        self._step = nnx.cached_partial(step, self.net, self.optimizer)
        self.still = nnx.view(self.net, use_running_average=True, raise_if_not_found=False)
        self._forward = nnx.cached_partial(nnx.jit(lambda net, x: net(x)), self.still)

    def run(self, x: Any, y: Any) -> Any:
        loss, self.total = self._step(self.total, x, y)
        return loss

    def forward(self, x: Any) -> np.ndarray:
        return np.asarray(self._forward(x))

    def begin(self) -> None:
        self.total = jnp.zeros(2)

    def sums(self) -> tuple[float, float]:
        loss, metric = np.asarray(self.total)
        return float(loss), float(metric)

    def native(self, x: Any) -> Any:
        return jax.tree.map(jnp.asarray, x)

    def eager(self, x: Any) -> None:
        wait(self.still(x))
