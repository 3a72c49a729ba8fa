"""Plain JAX: one jitted step with Adam, its state donated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contender import BETA1, BETA2, EPSILON, LEARNING_RATE, ByHand
from benchmarks.workload import Given, Workload

__all__ = ["LOSSES", "PlainJax", "wait"]


def _classes(out: Any, y: Any) -> Any:
    logs = jax.nn.log_softmax(out)
    return -jnp.take_along_axis(logs, y[..., None], -1).mean(), (out.argmax(-1) == y).mean()


def _yes_no(out: Any, y: Any) -> Any:
    loss = jnp.maximum(out, 0) - out * y + jnp.log1p(jnp.exp(-jnp.abs(out)))
    return loss.mean(), ((out > 0) == (y > 0.5)).mean()


def _squares(out: Any, y: Any) -> Any:
    return ((out - y) ** 2).mean(), jnp.abs(out - y).mean()


# name -> function of outputs and targets that gives loss and metric
LOSSES = {"classes": _classes, "yes_no": _yes_no, "squares": _squares}


def wait(value: Any) -> None:
    """Return once it is computed."""
    jax.block_until_ready(value)


class PlainJax(ByHand):
    """A workload in plain JAX."""

    def __init__(self, workload: Workload, given: Given) -> None:
        super().__init__(workload, given)
        score, net, trained = LOSSES[workload.loss], workload.jax, given.trained

        def whole(params: Any, still: Any) -> Any:
            p, s = iter(params), iter(still)
            return [next(p) if trains else next(s) for trains in trained]

        def step(state: Any, x: Any, y: Any) -> Any:
            params, still, m, v, t, sums = state

            def objective(params: Any) -> Any:
                out, moved = net(whole(params, still), x, True)
                loss, metric = score(out, y)
                return loss, (moved, jnp.stack([loss, metric]))

            (loss, (moved, seen)), grads = jax.value_and_grad(objective, has_aux=True)(params)
            t = t + 1
            rate = LEARNING_RATE * jnp.sqrt(1 - BETA2**t) / (1 - BETA1**t)
            m = [BETA1 * a + (1 - BETA1) * g for a, g in zip(m, grads)]
            v = [BETA2 * a + (1 - BETA2) * g * g for a, g in zip(v, grads)]
            params = [p - rate * a / (jnp.sqrt(b) + EPSILON) for p, a, b in zip(params, m, v)]
            return (params, moved, m, v, t, sums + seen), loss

        weights = [jnp.array(w) for w in given.weights]
        params = [w for w, trains in zip(weights, trained) if trains]
        still = [w for w, trains in zip(weights, trained) if not trains]
        zeros = [[jnp.zeros_like(p) for p in params] for _ in range(2)]
        self.state = (params, still, *zeros, jnp.zeros(()), jnp.zeros(2))
        self._step = jax.jit(step, donate_argnums=0)
        self._forward = jax.jit(lambda params, still, x: net(whole(params, still), x, False)[0])
        self._eager = lambda x: net(whole(*self.state[:2]), x, False)[0]

    def run(self, x: Any, y: Any) -> Any:
        self.state, loss = self._step(self.state, x, y)
        return loss

    def forward(self, x: Any) -> np.ndarray:
        return np.asarray(self._forward(self.state[0], self.state[1], x))

    def begin(self) -> None:
        self.state = (*self.state[:5], jnp.zeros(2))

    def sums(self) -> tuple[float, float]:
        loss, metric = np.asarray(self.state[5])
        return float(loss), float(metric)

    def native(self, x: Any) -> Any:
        return jax.tree.map(jnp.asarray, x)

    def eager(self, x: Any) -> None:
        wait(self._eager(x))
