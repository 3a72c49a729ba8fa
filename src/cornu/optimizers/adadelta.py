"""Adadelta."""

from typing import Any, Unpack

from cornu import ops
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Adadelta"]


class Adadelta(Optimizer):
    """Steps in the ratio of two running root mean squares, of past steps and of gradients.

    Source: Zeiler, arXiv:1212.5701, 2012.

    Args:
        learning_rate: a number, a schedule, or a function; 1.0 in the paper.
        rho: the part of the mean squares that stays at each step.
        epsilon: keeps the roots from zero.
        options: see `Optimizer`.
    """

    slots = (("accumulated_grad", "accumulated_delta_var"),)

    def __init__(
        self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **options: Unpack[Options]
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = rho
        self.epsilon = epsilon

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""

        def mean_square(old: Any, fresh: Any) -> Any:
            return ops.add(ops.multiply(self.rho, old), ops.multiply(1 - self.rho, ops.multiply(fresh, fresh)))

        def root(x: Any) -> Any:
            return ops.sqrt(ops.add(x, self.epsilon))

        grads = mean_square(slots["accumulated_grad"], gradient)
        move = ops.divide(ops.multiply(root(slots["accumulated_delta_var"]), gradient), root(grads))
        moves = mean_square(slots["accumulated_delta_var"], move)
        value = ops.subtract(value, ops.multiply(learning_rate, move))
        return value, {"accumulated_grad": grads, "accumulated_delta_var": moves}
