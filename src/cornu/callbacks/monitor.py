"""`MonitorCallback`: what callbacks share that watch one of the logs and ask whether it got better."""

import math
from collections.abc import Mapping
from typing import Any

from cornu.callbacks.base import Callback, python_value
from cornu.core.errors import ArgumentError, BindingError, near_miss

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """Base of callbacks that watch one of the logs.

    Args:
        monitor: the name of what is watched.
        mode: `"min"` if less is better, `"max"` if more is; `"auto"` to ask the metric (losses: less).
        baseline: a first best value to beat.
        min_delta: by how much a value must be better to count.

    Raises:
        ArgumentError: for another mode, or (when it is first needed) if the metric does not say what is better.
        BindingError: (at the end of the first epoch) if no such value is logged.
    """

    def __init__(
        self, monitor: str = "val_loss", mode: str = "auto", baseline: float | None = None, min_delta: float = 0
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(f"{type(self).__name__} got mode={mode!r}", "'auto', 'min' or 'max'")
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = baseline
        self.min_delta = abs(min_delta)
        self._direction: str | None = None

    # ------------------------------------------------ which way is better

    @property
    def direction(self) -> str:
        """`"min"` or `"max"`."""
        if self._direction is None:
            self._direction = self._find_direction() if self.mode == "auto" else self.mode
        return self._direction

    def _find_direction(self) -> str:
        name = self.monitor.removeprefix("val_")
        exact, ending = set(), set()
        for metric in _all_metrics(getattr(self.model, "metrics", None) or []):
            direction = getattr(metric, "direction", None) or getattr(metric, "_direction", None)
            own = getattr(metric, "name", None)
            if direction is None or not own:
                continue
            way = "max" if str(direction) in ("up", "max") else "min"
            if own == name:
                exact.add(way)
            elif name.endswith(f"_{own}"):  # the metric of one of several outputs
                ending.add(way)
        for found in (exact, ending):
            if len(found) == 1:
                return found.pop()
        if name == "loss" or name.endswith("_loss"):
            return "min"
        raise ArgumentError(
            f"{type(self).__name__} watches {self.monitor!r} and cannot tell whether more or less of it is better",
            "mode='max' or mode='min'",
            f"{type(self).__name__}(monitor={self.monitor!r}, mode=...)",
        )

    def _is_improvement(self, value: float, reference: float | None) -> bool:
        """Whether a value is better than another by more than `min_delta`; NaN never is."""
        direction = self.direction
        if math.isnan(value):
            return False
        if reference is None or math.isnan(reference):
            return True
        if direction == "max":
            return value - self.min_delta > reference
        return value + self.min_delta < reference

    # ------------------------------------------------ the value

    def _current(self, logs: Mapping[str, Any] | None) -> float | None:
        """The watched value at the end of an epoch; `None` if this epoch was not to be validated.

        Raises:
            BindingError: if it is not among the logs.
        """
        logs = {} if logs is None else logs
        if self.monitor not in logs:
            if self.monitor.startswith("val_") and self._validates_seldom():
                if not any(name.startswith("val_") for name in logs):
                    return None
            raise self._missing(logs)
        value = python_value(logs[self.monitor])
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"{type(self).__name__} watches {self.monitor!r}, whose value is {value!r:.60}", "a single number"
            ) from None

    def _validates_seldom(self) -> bool:
        frequency = (self.params or {}).get("validation_freq", 1)
        return frequency is not None and frequency != 1

    def _missing(self, logs: Mapping[str, Any], when: str = "at the end of the epoch") -> BindingError:
        validated = any(name.startswith("val_") for name in logs)
        fix = "compile the model with that metric, or watch another"
        if self.monitor.startswith("val_") and not validated:
            fix = "pass validation_data or validation_split to fit, or watch a value of training"
        return BindingError(
            f"{type(self).__name__} watches {self.monitor!r}, not logged {when}{near_miss(self.monitor, logs)}",
            f"one of {', '.join(map(str, logs)) or 'nothing: there are no logs'}",
            fix,
        )


def _all_metrics(metrics: Any) -> list[Any]:
    """Metrics, and those within containers of metrics."""
    found = []
    for metric in metrics:
        found.append(metric)
        inner = getattr(metric, "metrics", None)
        if isinstance(inner, (list, tuple)):
            found.extend(_all_metrics(inner))
    return found
