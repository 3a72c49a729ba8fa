"""Adamax."""

from typing import Any, Unpack

from cornu import ops
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Adamax"]


class Adamax(Optimizer):
    """Adam with the largest recent gradient in place of the mean square (Kingma and Ba, ICLR 2015, section 7.1).

    Args:
        learning_rate: a number, a schedule, or a function.
        beta_1: the part of the mean that stays at each step.
        beta_2: the part of the largest gradient that stays at each step.
        epsilon: keeps the division from zero.
        options: see `Optimizer`.
    """

    slots = (("momentum", "norm"),)

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
        m = ops.add(slots["momentum"], ops.multiply(ops.subtract(gradient, slots["momentum"]), 1 - self.beta_1))
        u = ops.maximum(ops.multiply(self.beta_2, slots["norm"]), ops.abs(gradient))
        bias = ops.subtract(1.0, ops.power(self.beta_1, step))
        move = ops.divide(ops.multiply(learning_rate, m), ops.multiply(bias, ops.add(u, self.epsilon)))
        return ops.subtract(value, move), {"momentum": m, "norm": u}
