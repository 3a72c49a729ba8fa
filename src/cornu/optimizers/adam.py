"""Adam, and Adam with decoupled weight decay."""

from typing import Any, Unpack

from cornu import ops
from cornu.core.errors import ArgumentError
from cornu.ops.updates import adam_update
from cornu.optimizers.base import Optimizer, Options

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and its square (Kingma and Ba, ICLR 2015).

    Args:
        learning_rate: a number, a schedule, or a function.
        beta_1: the part of the mean that stays at each step.
        beta_2: the part of the mean square that stays at each step.
        epsilon: keeps the division from zero ("epsilon hat" in the paper).
        amsgrad: whether to divide by the largest mean square so far (Reddi et al., ICLR 2018).
        options: see `Optimizer`.

    Example:
        >>> import cornu, numpy as np
        >>> w = cornu.Variable(np.array([1.0], "float32"))
        >>> Adam(0.25).apply([np.array([8.0], "float32")], [w])
        >>> round(float(w.numpy()[0]), 4)
        0.75
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad
        self.slots = (("momentum", "velocity"), "velocity_hat") if amsgrad else (("momentum", "velocity"),)

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        # Both means start at 0; this undoes the bias.
        spread = ops.sqrt(ops.subtract(1.0, ops.power(self.beta_2, step)))
        alpha = ops.divide(ops.multiply(learning_rate, spread), ops.subtract(1.0, ops.power(self.beta_1, step)))
        momentum, velocity = slots["momentum"], slots["velocity"]
        if not self.amsgrad:
            value, momentum, velocity = adam_update(
                value, gradient, momentum, velocity, alpha, self.beta_1, self.beta_2, self.epsilon
            )
            return value, {"momentum": momentum, "velocity": velocity}
        momentum = ops.add(momentum, ops.multiply(ops.subtract(gradient, momentum), 1 - self.beta_1))
        square = ops.multiply(gradient, gradient)
        velocity = ops.add(velocity, ops.multiply(ops.subtract(square, velocity), 1 - self.beta_2))
        largest = ops.maximum(slots["velocity_hat"], velocity)
        move = ops.divide(ops.multiply(momentum, alpha), ops.add(ops.sqrt(largest), self.epsilon))
        return ops.subtract(value, move), {"momentum": momentum, "velocity": velocity, "velocity_hat": largest}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019).

    Args:
        learning_rate: a number, a schedule, or a function.
        weight_decay: the part of each weight, times the learning rate, that is taken away at each step.
        beta_1: as for `Adam`.
        beta_2: as for `Adam`.
        epsilon: as for `Adam`.
        amsgrad: as for `Adam`.
        options: see `Optimizer`.

    Raises:
        ArgumentError: if `weight_decay` is `None`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        if weight_decay is None:
            raise ArgumentError("AdamW got weight_decay=None", "a number", "use Adam")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)
