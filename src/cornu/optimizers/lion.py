"""Lion."""

from typing import Any, Unpack

from cornu import ops
from cornu.core.errors import ArgumentError
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Lion"]


class Lion(Optimizer):
    """Steps of one size, in the direction of the sign of a running mean (Chen et al., arXiv:2302.06675, 2023).

    Args:
        learning_rate: a number, a schedule, or a function; smaller than Adam's by a factor of 3 to 10.
        beta_1: the weight of the mean against the gradient in a step, above 0 and up to 1.
        beta_2: the part of the mean that stays at each step.
        options: see `Optimizer`.

    Raises:
        ArgumentError: for a `beta_1` outside its limits.
    """

    slots = ("momentum",)

    def __init__(
        self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **options: Unpack[Options]
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 < beta_1 <= 1:
            raise ArgumentError(f"Lion got beta_1={beta_1!r}", "a number above 0 and up to 1")
        self.beta_1 = beta_1
        self.beta_2 = beta_2

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        m = slots["momentum"]
        way = ops.sign(ops.add(ops.multiply(m, self.beta_1), ops.multiply(gradient, 1.0 - self.beta_1)))
        m = ops.add(ops.multiply(m, self.beta_2), ops.multiply(gradient, 1.0 - self.beta_2))
        return ops.subtract(value, ops.multiply(learning_rate, way)), {"momentum": m}
