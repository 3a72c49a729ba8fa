"""RMSprop."""

from typing import Any, Unpack

from cornu import ops
from cornu.optimizers.base import Optimizer, Options

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """Steps divided by the root of a running mean square of the gradient.

    Source: Tieleman and Hinton, Coursera lecture 6.5, 2012.

    Args:
        learning_rate: a number, a schedule, or a function.
        rho: the part of the mean square that stays at each step.
        momentum: the part of the last step that is repeated.
        epsilon: keeps the division from zero.
        centered: whether to take the gradient's variance rather than its mean square.
        options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered
        self.slots = ("velocity",) + ("momentum",) * (momentum > 0) + ("average_gradient",) * bool(centered)

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""

        def mean(old: Any, fresh: Any) -> Any:
            return ops.add(ops.multiply(self.rho, old), ops.multiply(1 - self.rho, fresh))

        new = {"velocity": mean(slots["velocity"], ops.multiply(gradient, gradient))}
        spread = new["velocity"]
        if self.centered:
            average = new["average_gradient"] = mean(slots["average_gradient"], gradient)
            spread = ops.subtract(spread, ops.multiply(average, average))
        move = ops.divide(ops.multiply(learning_rate, gradient), ops.sqrt(ops.add(spread, self.epsilon)))
        if self.momentum > 0:
            move = new["momentum"] = ops.add(ops.multiply(self.momentum, slots["momentum"]), move)
        return ops.subtract(value, move), new
