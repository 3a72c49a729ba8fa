"""`engine="auto"`: which engines are measured, in which order, and for how long. `training/auto.py` measures."""

import math
import os
from collections.abc import Iterable
from typing import Any

from cornu.core.errors import ArgumentError
from cornu.engines import registry

__all__ = ["Auto", "default_budget", "set_auto_budget"]

# Those that compile fast come first, so that a small budget reaches many; a plain interpreter is best stopped early
# once another's time is known; and C compilers come last.
_ORDER = ("jax", "onnxruntime", "tensorflow", "torch", "numpy", "pytensor")
_DEFAULT_BUDGET = 30.0
_budget: list[float | None] = [None]


def _seconds(value: Any, where: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (0 < seconds < math.inf):
        raise ArgumentError(f"{where} got {value!r:.40}", "seconds above zero", "cornu.set_auto_budget(30)")
    return seconds


def set_auto_budget(seconds: float | None) -> None:
    """Say how long `engine="auto"` may measure.

    An engine that is at work when the time is up finishes what it does (a compiler cannot be interrupted); those not
    reached are named.

    Args:
        seconds: above zero; `None` for the environment variable `CORNU_AUTO_BUDGET`, or 30.

    Raises:
        ArgumentError: for anything else.
    """
    _budget[0] = None if seconds is None else _seconds(seconds, "set_auto_budget")


def default_budget() -> float | None:
    """What `set_auto_budget` was given last."""
    return _budget[0]


class Auto:
    """The engine that is fastest on the model, batch and machine at hand: `"auto"`, with settings.

    Args:
        budget: seconds that measuring may take; by default what `set_auto_budget` says.
        engines: names of the engines to choose from; by default all that are installed.

    Raises:
        ArgumentError: if the budget is no number above zero, or no engine is named.

    Example:
        >>> Auto(budget=10, engines=["numpy"]).candidates()
        ['numpy']
    """

    def __init__(self, budget: float | None = None, engines: Iterable[str] | None = None) -> None:
        self._budget = None if budget is None else _seconds(budget, "Auto")
        self.engines = None if engines is None else [registry.standard_name(name) for name in engines]
        if self.engines is not None and not self.engines:
            raise ArgumentError("Auto got no engines", f"some of {', '.join(registry.engines())}")

    @property
    def budget(self) -> float:
        """Seconds that measuring may take."""
        if self._budget is not None:
            return self._budget
        if (asked := default_budget()) is not None:
            return asked
        given = os.environ.get("CORNU_AUTO_BUDGET")
        return _seconds(given, "CORNU_AUTO_BUDGET") if given else _DEFAULT_BUDGET

    def candidates(self) -> list[str]:
        """The engines to measure, in order: the default one first, then those that compile fast."""
        names = registry.available() if self.engines is None else list(dict.fromkeys(self.engines))
        rank = {name: place for place, name in enumerate((registry.fallback_name(), *_ORDER))}
        rank |= {registry.fallback_name(): -1}
        return sorted(names, key=lambda name: rank.get(name, len(rank)))

    def __repr__(self) -> str:
        return "Auto()" if self._budget is None else f"Auto(budget={self._budget:g})"
