"""`--check`: whether a ratio is worse than the recorded one by more than the noise."""

from typing import Any

__all__ = ["tolerance", "worse"]

FLOOR = 0.05  # two runs of the same code differ by so much, whatever the rounds of each say
ERRORS = 3  # standard errors


def tolerance(new: dict[str, Any], old: dict[str, Any]) -> float:
    """By which share a ratio may be worse than before: three standard errors of both, 5% at least."""
    relative = [(one["error"] / one["ratio"]) ** 2 for one in (new, old)]
    return max(FLOOR, ERRORS * sum(relative) ** 0.5)


def worse(new: dict[str, Any], old: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """What is worse than recorded.

    Args:
        new: results of this run.
        old: recorded results.

    Returns:
        `(section, what, pair)` -> a line that says by how much; ratios of under three rounds are not judged.
    """
    found = {}
    pairs = [(name, section, old["workloads"].get(name)) for name, section in new["workloads"].items()]
    if "once" in new:
        pairs.append(("once", new["once"], old.get("once")))
    for name, section, before in pairs:
        for what, by in section["ratios"].items():
            for pair, ratio in by.items():
                known = (before or {"ratios": {}})["ratios"].get(what, {}).get(pair)
                if known is None or ratio["error"] is None or known["error"] is None:
                    continue
                allowed = tolerance(ratio, known)
                if ratio["ratio"] > known["ratio"] * (1 + allowed):
                    found[name, what, pair] = (
                        f"{name}, {what}, {pair}: {ratio['ratio']:.3f}, recorded {known['ratio']:.3f} "
                        f"(noise allows {allowed:.0%})"
                    )
    return found
