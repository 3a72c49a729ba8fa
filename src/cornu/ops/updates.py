"""Updates of optimizers that engines have in one piece."""

from typing import Any

from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops._declare import Spec, op

__all__ = ["adam_update"]


@op
def adam_update(
    value: Spec,
    gradient: Spec,
    momentum: Spec,
    velocity: Spec,
    alpha: Spec,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> Any:
    """Adam's update of one weight, whose bias correction is in the step's length.

    Args:
        value: the weight, of any shape.
        gradient: its gradient, of the same shape and dtype, as the next two.
        momentum: the running mean of the gradient.
        velocity: the running mean of the gradient's square.
        alpha: scalar: `learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)`.
        beta_1: the part of the mean that stays.
        beta_2: the part of the mean square that stays.
        epsilon: added to the root of the mean square.

    Returns:
        the new weight, momentum and velocity.
    """
    momentum = _a.add(momentum, _a.multiply(_a.subtract(gradient, momentum), 1 - beta_1))
    velocity = _a.add(velocity, _a.multiply(_a.subtract(_a.multiply(gradient, gradient), velocity), 1 - beta_2))
    move = _a.divide(_a.multiply(momentum, alpha), _a.add(_e.sqrt(velocity), epsilon))
    return _a.subtract(value, move), momentum, velocity
