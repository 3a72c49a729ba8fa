"""Lamb."""

from typing import Any, Unpack

from cornu import ops
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Lamb"]


class Lamb(Optimizer):
    """Adam with each weight's step scaled to the weight's norm, for large batches (You et al., ICLR 2020).

    Args:
        learning_rate: a number, a schedule, or a function.
        beta_1: the part of the mean that stays at each step.
        beta_2: the part of the mean square that stays at each step.
        epsilon: keeps the division from zero.
        options: see `Optimizer`.
    """

    slots = (("momentum", "velocity"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        m, v = slots["momentum"], slots["velocity"]
        m = ops.add(m, ops.multiply(ops.subtract(gradient, m), 1 - self.beta_1))
        v = ops.add(v, ops.multiply(ops.subtract(ops.multiply(gradient, gradient), v), 1 - self.beta_2))
        mean = ops.divide(m, ops.subtract(1.0, ops.power(self.beta_1, step)))
        spread = ops.sqrt(ops.divide(v, ops.subtract(1.0, ops.power(self.beta_2, step))))
        move = ops.divide(mean, ops.add(spread, self.epsilon))

        def norm(x: Any) -> Any:
            return ops.sqrt(ops.sum(ops.multiply(x, x)))

        size, length = norm(value), norm(move)
        both = ops.logical_and(ops.greater(size, 0.0), ops.greater(length, 0.0))
        ratio = ops.where(both, ops.divide(size, ops.where(both, length, 1.0)), 1.0)
        value = ops.subtract(value, ops.multiply(ops.multiply(ratio, learning_rate), move))
        return value, {"momentum": m, "velocity": v}
