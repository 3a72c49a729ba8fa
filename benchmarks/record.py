"""`results.json`: what was measured last of everything, and in which run."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["empty", "merge", "read", "write"]


def empty() -> dict[str, Any]:
    """Results with nothing in them."""
    return {"runs": {}, "workloads": {}, "curves": {}}


def read(path: Path) -> dict[str, Any]:
    """The results in a file; empty ones if there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else empty()
    return found


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old results with those of a new run put in their place.

    A workload or curve of which the new run has a part only keeps the rest; its `run` then names both.
    """
    found = {**old, **{key: value for key, value in new.items() if key not in ("runs", "workloads", "curves")}}
    found["workloads"] = dict(old["workloads"])
    for name, section in new["workloads"].items():
        found["workloads"][name] = _section(old["workloads"].get(name), section)
    found["curves"] = dict(old["curves"])
    for name, curve in new["curves"].items():
        found["curves"][name] = _curve(old["curves"].get(name), curve)
    used = json.dumps([value for key, value in found.items() if key != "runs"])
    found["runs"] = {when: run for when, run in {**old["runs"], **new["runs"]}.items() if when in used}
    return found


def _section(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    if old is None:
        return new
    found = dict(new)
    for key in ("figures", "ratios"):
        whats = {**old[key], **new[key]}
        found[key] = {what: {**old[key].get(what, {}), **new[key].get(what, {})} for what in whats}
    found["memory"] = {**old["memory"], **new["memory"]}
    seen = {name for by in new["figures"].values() for name in by}
    for key in ("failed", "disagree"):
        found[key] = {**{name: why for name, why in old[key].items() if name not in seen}, **new[key]}
    kept = [
        name for what, by in old["figures"].items() for name in by if name not in new["figures"].get(what, {})
    ]  # fmt: skip
    return found if not kept else {**found, "run": _both_runs(old, new)}


def _curve(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    if old is None:
        return new
    seen = {*new["points"], *new["failed"]}
    keys = ("points", "rounds", "failed")
    kept = {key: {name: row for name, row in old.get(key, {}).items() if name not in seen} for key in keys}
    found = {**new, **{key: {**rows, **new.get(key, {})} for key, rows in kept.items()}}
    return found if not any(kept.values()) else {**found, "run": _both_runs(old, new)}


def _both_runs(old: dict[str, Any], new: dict[str, Any]) -> str:
    return new["run"] if old["run"] == new["run"] else f"{new['run']}, and in part {old['run']}"


def write(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)
