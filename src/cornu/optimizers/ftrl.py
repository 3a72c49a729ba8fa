"""FTRL-proximal."""

from typing import Any, Unpack

from cornu import ops
from cornu.core.errors import ArgumentError
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Ftrl"]


class Ftrl(Optimizer):
    """ "Follow the regularized leader", for sparse linear models (McMahan et al., KDD 2013).

    Args:
        learning_rate: a number, a schedule, or a function.
        learning_rate_power: how the learning rate falls with the squared gradients so far: zero (not at all) or below.
        initial_accumulator_value: what the sum of squared gradients starts with, zero or above.
        l1_regularization_strength: zero or above.
        l2_regularization_strength: zero or above.
        l2_shrinkage_regularization_strength: zero or above; an L2 penalty on the gradient's side.
        beta: the paper's beta.
        options: see `Optimizer`.

    Raises:
        ArgumentError: for arguments outside these limits.
    """

    slots = (("accumulator", "linear"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        if learning_rate_power > 0:
            raise ArgumentError(f"Ftrl got learning_rate_power={learning_rate_power!r}", "zero or below")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta
        self.slot_values = {"accumulator": initial_accumulator_value}
        for name in (
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
        ):
            if getattr(self, name) < 0:
                raise ArgumentError(f"Ftrl got {name}={getattr(self, name)!r}", "zero or above")

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        total, power = slots["accumulator"], -self.learning_rate_power
        new_total = ops.add(total, ops.multiply(gradient, gradient))
        shrunk = ops.add(gradient, ops.multiply(2 * self.l2_shrinkage_regularization_strength, value))
        growth = ops.divide(ops.subtract(ops.power(new_total, power), ops.power(total, power)), learning_rate)
        linear = ops.add(slots["linear"], ops.subtract(shrunk, ops.multiply(growth, value)))
        l2 = ops.add(self.l2_regularization_strength, ops.divide(self.beta, ops.multiply(2.0, learning_rate)))
        quadratic = ops.add(ops.divide(ops.power(new_total, power), learning_rate), ops.multiply(2.0, l2))
        l1 = self.l1_regularization_strength
        clipped = ops.minimum(ops.maximum(linear, -l1), l1)
        value = ops.divide(ops.subtract(clipped, linear), quadratic)
        return value, {"accumulator": new_total, "linear": linear}
