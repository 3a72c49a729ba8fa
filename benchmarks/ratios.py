"""Medians, ratios of medians, and how sure they are."""

import itertools
import math
import statistics
from typing import Any

__all__ = ["noise", "ratio", "summary"]


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def summary(samples: list[float]) -> dict[str, Any]:
    """The median of samples, their quartiles and number."""
    low, high = _quartiles(samples)
    return {"median": statistics.median(samples), "low": low, "high": high, "samples": len(samples)}


def noise(ratio: dict[str, Any]) -> float:
    """The standard error of a ratio: of its rounds, and of the processes that they were measured in."""
    between = (ratio.get("spread") or 0.0) * ratio["ratio"] / ratio.get("sets", 1) ** 0.5
    return math.hypot(ratio["error"] or 0.0, between)


def ratio(ours: list[float], theirs: list[float], sets: list[int] | None = None) -> dict[str, Any]:
    """The ratio of two medians, and the noise of it from the ratios of each round.

    Args:
        ours: a time for each round.
        theirs: a time for the same rounds.
        sets: how many of the rounds, in order, were measured in the same processes; by default all of them.

    Returns:
        `ratio`; `low` and `high`, the quartiles of the rounds' ratios; `error`, the standard error of their median
        (from the quartiles, as for a normal distribution); `None` where there are under three rounds; `sets`, how many
        sets of processes; `spread`, the standard deviation of the sets' ratios as a share; `None` for one set.
    """
    rounds = [a / b for a, b in zip(ours, theirs)]
    low, high = _quartiles(rounds)
    error = 1.2533 * (high - low) / 1.349 / len(rounds) ** 0.5 if len(rounds) > 2 else None
    ends = list(itertools.accumulate(sets or [len(rounds)]))
    parts = [slice(start, end) for start, end in zip([0, *ends], ends) if end > start]
    each = [statistics.median(ours[part]) / statistics.median(theirs[part]) for part in parts]
    return {
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "low": low,
        "high": high,
        "error": error,
        "rounds": len(rounds),
        "sets": len(each),
        "spread": statistics.stdev(each) / statistics.mean(each) if len(each) > 1 else None,
    }
