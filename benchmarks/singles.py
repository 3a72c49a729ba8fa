"""Measuring what is no workload: what a process does once, the curves, the roofline."""

import statistics
import time
from typing import Any

from benchmarks.contender import engine_of
from benchmarks.curves import CURVES, IN_TURNS
from benchmarks.once import TASKS
from benchmarks.plan import Plan, ratios_of, watched
from benchmarks.pool import Failed, Process
from benchmarks.ratios import summary
from benchmarks.roofline import LIBRARIES
from benchmarks.turns import SETTLE, line

__all__ = ["curve", "once", "roofline"]

BLOCKS = 3  # of each contender at each size, where they take turns


def once(plan: Plan) -> dict[str, Any]:
    """Measure what a process does once, in fresh processes that take turns.

    Returns:
        `failed`, `figures`, `ratios` and `others` as for a workload, by task.
    """
    found: dict[str, Any] = {"failed": {}, "figures": {}, "ratios": {}}
    times: dict[str, dict[str, list[float]]] = {task: {} for task in TASKS}
    processes: list[Process] = []
    with watched(found, processes):
        for number in range(7 if plan.full else 3):
            for name in plan.libraries():
                if name in found["failed"] or (number and plan.clock.left() < 30):
                    continue
                processes.append(Process(name, plan.setting))
                try:
                    for task in TASKS:
                        answer = processes[-1].ask("once", plan.clock.left(), task=task)
                        times[task].setdefault(name, []).append(answer["seconds"])
                except Failed as failure:
                    found["failed"][name] = str(failure)
                    plan.say(f"  {name} failed: {failure}")
                finally:
                    processes[-1].end()
    for task, by in times.items():
        found["figures"][task] = {name: summary(taken) for name, taken in by.items()}
        found["ratios"][task] = ratios_of(by)
        plan.say(f"  {task}: {line(by)}")
    return found


def curve(plan: Plan, which: str) -> dict[str, Any]:
    """Measure a curve; a contender that was slow at one size is spared larger ones.

    Returns:
        `rounds`: contender -> size -> values; `points`: their medians; `failed`: contender -> why.
    """
    rounds: dict[str, dict[str, list[float]]] = {}
    failed: dict[str, str] = {}
    for start in range(plan.starts if which in IN_TURNS else 1):
        names = [name for name in plan.libraries() if name not in failed]
        if which not in IN_TURNS:
            for name in names:
                _points(plan, which, [name], rounds, failed)
            continue
        plan.prepare()
        # Whoever comes first is given other memory than whoever comes last.
        _points(plan, which, names[:: -1 if start % 2 else 1], rounds, failed, BLOCKS)
    rounds = {name: rounds[name] for name in plan.libraries() if name in rounds}
    points = {name: {size: statistics.median(taken) for size, taken in by.items()} for name, by in rounds.items()}
    for name in {**rounds, **failed}:
        plan.say(f"  {name}: {points.get(name, {})} {failed.get(name, '')}")
    return {"points": points, "rounds": rounds, "failed": failed}


def _points(
    plan: Plan, which: str, names: list[str],
    rounds: dict[str, dict[str, list[float]]], failed: dict[str, str], blocks: int = 0,
) -> None:  # fmt: skip
    """Add a value for each contender and size, from fresh processes that take turns.

    Args:
        plan: how much is measured.
        which: the curve.
        names: the contenders.
        rounds: contender -> size -> values, added to.
        failed: contender -> why, added to.
        blocks: how many blocks a value is the median of, after one that is not counted; 0: a single one, which counts.
    """
    processes: dict[str, Process] = {}
    try:
        for name in names:
            processes[name] = Process(name, plan.setting)
            try:
                processes[name].ask("memory")  # it is up, so that it does not start while another is timed
            except Failed as failure:
                failed[name] = str(failure)
        going = [name for name in names if name not in failed]
        for size in CURVES[which][3 if plan.full else 2]:
            taken: dict[str, list[float]] = {}
            for _ in range(1 + blocks):
                going.reverse()  # who comes first in a pair is at a disadvantage
                for name in list(going):
                    time.sleep(SETTLE)
                    begin = time.monotonic()
                    try:
                        answer = processes[name].ask("curve", min(600.0, plan.clock.left()), curve=which, size=size)
                        taken.setdefault(name, []).append(answer["value"])
                    except Failed as failure:
                        failed[name] = str(failure)
                    if name in failed or time.monotonic() - begin > 60:
                        going.remove(name)
            for name, values in taken.items():
                if name not in failed:
                    value = statistics.median(values[1:] or values)
                    rounds.setdefault(name, {}).setdefault(str(size), []).append(value)
    finally:
        for process in processes.values():
            process.end()


def roofline(plan: Plan) -> dict[str, Any]:
    """The most that any library gets out of the machine.

    Returns:
        `flops` and `bandwidth` per second, and `by` library.
    """
    engines = {"numpy", *(engine_of(name) for name in plan.contenders)}
    found = {}
    for library, name in LIBRARIES.items():
        if engine_of(name) in engines:
            process = Process(name, plan.setting)
            try:
                found[library] = process.ask("roofline", plan.clock.left(), library=library)
            finally:
                process.end()
    best = {what: max(one[what] for one in found.values()) for what in ("flops", "bandwidth")}
    return {**best, "by": found}
