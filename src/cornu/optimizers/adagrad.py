"""Adagrad."""

from typing import Any, Unpack

from cornu import ops
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients (Duchi et al., JMLR 2011).

    Args:
        learning_rate: a number, a schedule, or a function.
        initial_accumulator_value: what the sum starts with.
        epsilon: keeps the division from zero.
        options: see `Optimizer`.
    """

    slots = ("accumulator",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon
        self.slot_values = {"accumulator": initial_accumulator_value}

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        total = ops.add(slots["accumulator"], ops.multiply(gradient, gradient))
        move = ops.divide(ops.multiply(learning_rate, gradient), ops.sqrt(ops.add(total, self.epsilon)))
        return ops.subtract(value, move), {"accumulator": total}
