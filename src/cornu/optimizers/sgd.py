"""Gradient descent, with momentum."""

from typing import Any, Unpack

from cornu import ops
from cornu.core.errors import ArgumentError
from cornu.optimizers.base import Optimizer, Options

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent: `w -= learning_rate * g`, or with momentum `m = momentum * m - learning_rate * g; w += m`.

    Args:
        learning_rate: a number, a schedule, or a function.
        momentum: the part of the last step that is repeated, from 0 to 1.
        nesterov: whether to look ahead along the momentum (Sutskever et al., ICML 2013).
        options: see `Optimizer`.

    Raises:
        ArgumentError: for a momentum outside its limits.

    Example:
        >>> import cornu, numpy as np
        >>> w = cornu.Variable(np.array([1.0], "float32"))
        >>> SGD(0.5).apply([np.array([1.0], "float32")], [w])
        >>> w.numpy().tolist()
        [0.5]
    """

    def __init__(
        self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Unpack[Options]
    ) -> None:
        super().__init__(learning_rate, **options)
        if not isinstance(momentum, (int, float)) or not 0 <= momentum <= 1:
            raise ArgumentError(f"SGD got momentum={momentum!r}", "a number from 0 to 1")
        self.momentum = momentum
        self.nesterov = nesterov
        self.slots = ("momentum",) if momentum else ()

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule."""
        move = ops.multiply(gradient, learning_rate)
        if not self.momentum:
            return ops.subtract(value, move), {}
        m = ops.subtract(ops.multiply(slots["momentum"], self.momentum), move)
        ahead = ops.subtract(ops.multiply(m, self.momentum), move) if self.nesterov else m
        return ops.add(value, ahead), {"momentum": m}
