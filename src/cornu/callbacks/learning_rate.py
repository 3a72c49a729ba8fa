"""Callbacks that set the learning rate: `LearningRateScheduler`, `ReduceLROnPlateau`."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.callbacks.base import Callback, python_value
from cornu.callbacks.monitor import MonitorCallback
from cornu.callbacks.progress import say
from cornu.core.errors import ArgumentError
from cornu.ops.creation import convert_to_numpy

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau"]


def _optimizers(model: Any) -> list[tuple[str, Any]]:
    """The model's optimizer, or those within it, with what their names add to the log's key."""
    optimizer = model.optimizer
    several = getattr(optimizer, "optimizers", None)
    if several is None:
        return [("", optimizer)]
    return [(f"_{one.name}", one) for one in several]


def _rate(optimizer: Any) -> float:
    rate = optimizer.learning_rate
    return float(rate if isinstance(rate, (int, float)) else convert_to_numpy(rate))


def _log_rates(model: Any, logs: Any) -> None:
    if logs is not None:
        for suffix, optimizer in _optimizers(model):
            logs[f"learning_rate{suffix}"] = _rate(optimizer)


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of each epoch.

    Args:
        schedule: a function of the epoch (from 0) and the learning rate, or of the epoch alone, that gives the new one.
        verbose: 1 to say it.

    Raises:
        ArgumentError: (when an epoch begins) if the schedule gives no finite number.

    Example:
        >>> halve = LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch else rate)
    """

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise ArgumentError(
                f"LearningRateScheduler got schedule={schedule!r:.60}", "a function of the epoch and rate"
            )
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for suffix, optimizer in _optimizers(self.model):
            given = self.schedule(epoch, _rate(optimizer)) if _takes_two(self.schedule) else self.schedule(epoch)
            rate = python_value(given)
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not math.isfinite(rate):
                raise ArgumentError(
                    f"the schedule of LearningRateScheduler gave {given!r:.60} for epoch {epoch}", "a finite number"
                )
            optimizer.learning_rate = float(rate)
            if self.verbose > 0:
                name = f" of {suffix[1:]}" if suffix else ""
                say(f"Epoch {epoch + 1}: LearningRateScheduler sets the learning rate{name} to {rate:g}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        _log_rates(self.model, logs)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # a built-in without a signature
        return True
    return True


class ReduceLROnPlateau(MonitorCallback):
    """Reduce the learning rate when a value has stopped getting better.

    Args:
        monitor: the name of what is watched.
        factor: by what to multiply the learning rate; below 1.
        patience: how many epochs without getting better to wait for.
        verbose: 1 to say it.
        mode: `"min"`, `"max"`, or `"auto"` to ask the metric.
        min_delta: by how much a value must be better to count.
        cooldown: how many epochs to rest after the learning rate was reduced.
        min_lr: the least learning rate.

    Raises:
        ArgumentError: for a factor from 1 on.
        BindingError: (at the end of the first epoch) if no such value is logged.

    Example:
        >>> reduce = ReduceLROnPlateau(monitor="val_loss", factor=0.2, patience=5, min_lr=1e-5)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ArgumentError(f"ReduceLROnPlateau got factor={factor}", "a number below 1")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def in_cooldown(self) -> bool:
        """Whether it rests."""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        _log_rates(self.model, logs)
        current = self._current(logs)
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience:
                reduced = [self._reduce(optimizer, epoch, suffix) for suffix, optimizer in _optimizers(self.model)]
                if any(reduced):
                    self.cooldown_counter = self.cooldown
                    self.wait = 0

    def _reduce(self, optimizer: Any, epoch: int, suffix: str) -> bool:
        rate = _rate(optimizer)
        if rate <= np.float32(self.min_lr):  # rates are kept as float32
            return False
        optimizer.learning_rate = lower = max(rate * self.factor, self.min_lr)
        if self.verbose > 0:
            name = f" of {suffix[1:]}" if suffix else ""
            say(f"Epoch {epoch + 1}: ReduceLROnPlateau reduces the learning rate{name} to {lower:g}")
        return True
