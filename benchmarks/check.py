"""`--check`: whether a ratio is worse than the recorded one by more than the noise."""

import math
import statistics
from typing import Any

from benchmarks.curves import IN_TURNS
from benchmarks.ratios import noise
from benchmarks.targets import curve_ratios

__all__ = ["elsewhere", "tolerance", "worse"]

FLOOR = 0.05  # two runs of the same code differ by so much, whatever the rounds of each say
ERRORS = 3  # standard errors


def tolerance(new: dict[str, Any], old: dict[str, Any], usual: float = 0.0) -> float:
    """By which share a ratio may be worse than before: three standard errors of both, 5% at least.

    Args:
        new: the ratio.
        old: the recorded one.
        usual: how much ratios differ from process to process, as a share, where neither says more.
    """
    spread = max(usual, *(one.get("spread") or 0.0 for one in (new, old)))
    return max(FLOOR, ERRORS * math.hypot(*(noise({**one, "spread": spread}) / one["ratio"] for one in (new, old))))


def _usual(results: dict[str, Any]) -> float:
    """How much the ratios of workloads differ from process to process: the median, as a share."""
    ratios = [
        ratio
        for section in results["workloads"].values()
        for by in section["ratios"].values()
        for ratio in by.values()
    ]  # fmt: skip
    return statistics.median([ratio["spread"] for ratio in ratios if ratio.get("spread") is not None] or [0.0])


def worse(new: dict[str, Any], old: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """What is worse than recorded.

    Args:
        new: results of this run.
        old: recorded results.

    Returns:
        `(section, what, pair)` -> a line that says by how much; ratios of under three rounds are not judged.
    """
    found = {}
    usual = max(_usual(new), _usual(old))
    pairs = [(name, section, old["workloads"].get(name), usual) for name, section in new["workloads"].items()]
    if "once" in new:  # each round of which has processes of its own
        pairs.append(("once", new["once"], old.get("once"), 0.0))
    for name in IN_TURNS:  # each value of which comes from processes of its own
        if name in new["curves"] and name in old["curves"]:
            section, before = ({"ratios": curve_ratios(one["curves"][name])} for one in (new, old))
            pairs.append((name, section, before, 0.0))
    for name, section, before, spread in pairs:
        for what, by in section["ratios"].items():
            for pair, ratio in by.items():
                known = (before or {"ratios": {}})["ratios"].get(what, {}).get(pair)
                if known is None or ratio["error"] is None or known["error"] is None:
                    continue
                allowed = tolerance(ratio, known, spread)
                if ratio["ratio"] > known["ratio"] * (1 + allowed):
                    found[name, what, pair] = (
                        f"{name}, {what}, {pair}: {ratio['ratio']:.3f}, recorded {known['ratio']:.3f} "
                        f"(noise allows {allowed:.0%})"
                    )
    return found


def elsewhere(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """The processors, other than this machine's, on which figures were recorded that this run measured again."""
    here = {run["machine"]["processor"] for run in new["runs"].values()}
    before = [old[kind][name] for kind in ("workloads", "curves") for name in new[kind] if name in old[kind]]
    before += [old["once"]] if "once" in new and "once" in old else []
    known = {
        run["machine"]["processor"]
        for when, run in old["runs"].items()
        if any(when in section["run"] for section in before)
    }
    return sorted(known - here)
