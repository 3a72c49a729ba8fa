"""Nadam."""

from collections.abc import Sequence
from typing import Any, Unpack

from cornu import initializers, ops
from cornu.core import dtypes
from cornu.core.variable import Variable
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Nadam"]


class Nadam(Optimizer):
    """Adam with Nesterov momentum (Dozat, ICLR 2016 workshop).

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

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the variables: the slots, and the product of all momenta so far."""
        if self.built:
            return
        super().build(variables)
        dtype = variables[0].dtype if len(variables) else dtypes.floatx()
        self._u_product = self.add_variable((), initializers.Ones(), dtype, name="u_product")

    def _momentum(self, step: Any) -> Any:
        """The momentum of a step, which warms up; 0.96 is the paper's."""
        return ops.multiply(self.beta_1, ops.subtract(1.0, ops.multiply(0.5, ops.power(0.96, step))))

    def before_updates(self) -> None:
        """Move the product of momenta on."""
        step = ops.cast(ops.add(self.iterations, 1), self._u_product.dtype)
        self._u_product.assign(ops.multiply(self._u_product.value, self._momentum(step)))

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        now, following = self._momentum(step), self._momentum(ops.add(step, 1.0))
        product = ops.cast(self._u_product.value, ops.dtype(value))
        m, v = slots["momentum"], slots["velocity"]
        m = ops.add(m, ops.multiply(ops.subtract(gradient, m), 1 - self.beta_1))
        v = ops.add(v, ops.multiply(ops.subtract(ops.multiply(gradient, gradient), v), 1 - self.beta_2))
        ahead = ops.divide(ops.multiply(following, m), ops.subtract(1.0, ops.multiply(product, following)))
        fresh = ops.divide(ops.multiply(ops.subtract(1.0, now), gradient), ops.subtract(1.0, product))
        spread = ops.sqrt(ops.divide(v, ops.subtract(1.0, ops.power(self.beta_2, step))))
        move = ops.divide(ops.multiply(ops.add(ahead, fresh), learning_rate), ops.add(spread, self.epsilon))
        return ops.subtract(value, move), {"momentum": m, "velocity": v}
