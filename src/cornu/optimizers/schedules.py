"""Learning rates that depend on the step."""

import math
from collections.abc import Sequence
from typing import Any

from cornu import ops
from cornu.core import dtypes
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError
from cornu.core.family import Family

__all__ = [
    "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay", "LearningRateSchedule",
    "PiecewiseConstantDecay", "PolynomialDecay", "deserialize", "serialize",
]  # fmt: skip


class LearningRateSchedule(Configurable):
    """Base of schedules: a function of the step that gives a learning rate.

    Example:
        >>> class Halving(LearningRateSchedule):
        ...     def __call__(self, step):
        ...         return ops.power(0.5, ops.cast(step, "float32"))
        >>> float(Halving()(2))
        0.25
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate.

        Args:
            step: whole number, a scalar: 0 at the first update.

        Returns:
            scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__(step)")


def _check_steps(owner: Any, **steps: Any) -> None:
    for name, value in steps.items():
        if value <= 0:
            raise ArgumentError(f"{type(owner).__name__} got {name}={value!r}", "a number above zero")


def _number(step: Any) -> Any:
    return ops.cast(step, dtypes.floatx())


class ExponentialDecay(LearningRateSchedule):
    """`initial_learning_rate * decay_rate ** (step / decay_steps)`.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: above zero.
        decay_rate: the factor.
        staircase: whether `step / decay_steps` is rounded down.
        name: its name.

    Raises:
        ArgumentError: if `decay_steps` is not above zero.

    Example:
        >>> round(float(ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20)), 6)
        0.025
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        _check_steps(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate."""
        periods = ops.divide(_number(step), self.decay_steps)
        periods = ops.floor(periods) if self.staircase else periods
        return ops.multiply(self.initial_learning_rate, ops.power(self.decay_rate, periods))


class InverseTimeDecay(LearningRateSchedule):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: above zero.
        decay_rate: the factor.
        staircase: whether `step / decay_steps` is rounded down.
        name: its name.

    Raises:
        ArgumentError: if `decay_steps` is not above zero.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        _check_steps(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate."""
        periods = ops.divide(_number(step), self.decay_steps)
        periods = ops.floor(periods) if self.staircase else periods
        return ops.divide(self.initial_learning_rate, ops.add(1.0, ops.multiply(self.decay_rate, periods)))


class PiecewiseConstantDecay(LearningRateSchedule):
    """One rate up to a step, another from there on, and so forth.

    Args:
        boundaries: steps, rising; each is the last of its rate.
        values: rates, one more than boundaries.
        name: its name.

    Raises:
        ArgumentError: if there are too many or too few rates, or the steps do not rise.

    Example:
        >>> schedule = PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.25])
        >>> [float(schedule(step)) for step in (0, 10, 11, 21)]
        [1.0, 1.0, 0.5, 0.25]
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1:
            raise ArgumentError(
                f"PiecewiseConstantDecay got {len(boundaries)} boundaries and {len(values)} values",
                "one value more than boundaries",
            )
        if list(boundaries) != sorted(boundaries):
            raise ArgumentError(f"PiecewiseConstantDecay got boundaries={boundaries}", "rising steps")
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate."""
        step = ops.convert_to_tensor(step)
        rate = ops.convert_to_tensor(float(self.values[0]))
        for boundary, value in zip(self.boundaries, self.values[1:], strict=True):
            rate = ops.where(ops.greater(step, ops.cast(boundary, ops.dtype(step))), float(value), rate)
        return rate


class PolynomialDecay(LearningRateSchedule):
    """From a first rate to a last one along a power of the part of the way that is left.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: how many steps it takes, above zero.
        end_learning_rate: the last rate.
        power: the power; 1 is a straight line.
        cycle: whether, once there, to start again with twice, three times ... the steps.
        name: its name.

    Raises:
        ArgumentError: if `decay_steps` is not above zero.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _check_steps(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate."""
        step = _number(step)
        if self.cycle:
            rounds = ops.where(ops.equal(step, 0), 1.0, ops.ceil(ops.divide(step, self.decay_steps)))
            steps = ops.multiply(float(self.decay_steps), rounds)
        else:
            steps = float(self.decay_steps)
            step = ops.minimum(step, steps)
        left = ops.power(ops.subtract(1.0, ops.divide(step, steps)), self.power)
        span = self.initial_learning_rate - self.end_learning_rate
        return ops.add(ops.multiply(span, left), self.end_learning_rate)


class CosineDecay(LearningRateSchedule):
    """Half a cosine wave from a first rate down, after a straight warm-up if one is asked for.

    Source: Loshchilov and Hutter, ICLR 2017.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: how many steps the wave takes, above zero.
        alpha: the last rate, as a part of the rate the wave starts from.
        name: its name.
        warmup_target: the rate at the end of the warm-up; `None` for no warm-up.
        warmup_steps: how many steps the warm-up takes.

    Raises:
        ArgumentError: if `decay_steps` is not above zero.

    Example:
        >>> schedule = CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10)
        >>> [round(float(schedule(step)), 6) for step in (5, 10, 60, 110)]
        [0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        _check_steps(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def _wave(self, step: Any, start: float) -> Any:
        done = ops.divide(ops.minimum(step, float(self.decay_steps)), self.decay_steps)
        height = ops.multiply(0.5, ops.add(1.0, ops.cos(ops.multiply(math.pi, done))))
        return ops.multiply(start, ops.add(ops.multiply(1 - self.alpha, height), self.alpha))

    def __call__(self, step: Any) -> Any:
        """The learning rate."""
        step = _number(step)
        if self.warmup_target is None:
            return self._wave(step, self.initial_learning_rate)
        wave = self._wave(ops.subtract(step, float(self.warmup_steps)), self.warmup_target)
        if not self.warmup_steps:
            return wave
        rise = (self.warmup_target - self.initial_learning_rate) / self.warmup_steps
        line = ops.add(ops.multiply(rise, step), self.initial_learning_rate)
        return ops.where(ops.less(step, float(self.warmup_steps)), line, wave)


class CosineDecayRestarts(LearningRateSchedule):
    """Half cosine waves, one after the other, each longer and lower than the last (Loshchilov and Hutter, ICLR 2017).

    Args:
        initial_learning_rate: the first rate.
        first_decay_steps: how many steps the first wave takes, above zero.
        t_mul: the factor from the length of a wave to the next.
        m_mul: the factor from the height of a wave to the next.
        alpha: the lowest rate, as a part of the first.
        name: its name.

    Raises:
        ArgumentError: if `first_decay_steps` is not above zero.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _check_steps(self, first_decay_steps=first_decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate."""
        done = ops.divide(_number(step), self.first_decay_steps)
        if self.t_mul == 1:
            wave = ops.floor(done)
            done = ops.subtract(done, wave)
        else:
            # The waves before the n-th take (1 - t ** n) / (1 - t) of the first one's length.
            grown = ops.log(ops.subtract(1.0, ops.multiply(done, 1.0 - self.t_mul)))
            wave = ops.floor(ops.divide(grown, ops.log(ops.cast(self.t_mul, dtypes.floatx()))))
            length = ops.power(self.t_mul, wave)
            before = ops.divide(ops.subtract(1.0, length), 1.0 - self.t_mul)
            done = ops.divide(ops.subtract(done, before), length)
        height = ops.multiply(0.5, ops.add(1.0, ops.cos(ops.multiply(math.pi, done))))
        height = ops.multiply(ops.power(self.m_mul, wave), height)
        return ops.multiply(self.initial_learning_rate, ops.add(ops.multiply(1 - self.alpha, height), self.alpha))


FAMILY = Family(
    "learning-rate schedule",
    "keras.optimizers.schedules",
    [
        LearningRateSchedule, ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay, PolynomialDecay, CosineDecay,
        CosineDecayRestarts,
    ],
)  # fmt: skip
serialize, deserialize = FAMILY.serialize, FAMILY.deserialize
