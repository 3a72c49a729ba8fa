"""A workload's contenders take turns in short blocks, in another order each round, so that noise meets all alike: also
that of the one before, whose threads may still be awake."""

import math
import random
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan, ratios_of, watched
from benchmarks.pool import Failed, Process
from benchmarks.ratios import summary
from benchmarks.workload import Workload, draw

__all__ = ["WHATS", "measure"]

# what is timed -> what the tables call it
WHATS = {
    "first": "first step (compile)",
    "step": "train step",
    "fit": "fit, per step",
    "predict_one": "predict, one row",
    "predict_many": "predict, many rows",
    "eager": "model(x), eager",
}
SETTLE = 0.01  # seconds between blocks, for thread pools to go to sleep
TOLERANCE = 2e-3  # of the losses of the first steps


def measure(plan: Plan, workload: Workload) -> dict[str, Any]:
    """Measure a workload with all contenders.

    Returns:
        `failed`: contender -> why; `disagree`: contender -> how; `memory`: contender -> MB; `figures`: what ->
        contender -> summary (seconds); `ratios`: what -> `"ours : theirs"` -> ratio; `others`: share of the machine
        that other processes used meanwhile.
    """
    turns = _Turns(plan, workload)
    whats = [what for what in plan.whats if what != "first"]
    found: dict[str, Any] = {"failed": turns.failed, "disagree": {}, "memory": {}}
    times: dict[str, dict[str, list[float]]] = {what: {} for what in whats}
    sets: dict[str, list[int]] = {what: [] for what in whats}
    with watched(found, turns.processes):
        for number in range(plan.starts):
            turns.start(number)
            if not number:
                found["disagree"] = differing(turns.losses)
                for name, difference in found["disagree"].items():
                    plan.say(f"  {name} disagrees: {difference}")
            turns.warm(whats)
            found["memory"] = found["memory"] or ({} if plan.shared else turns.memory())
            for what in whats:
                taken = turns.rounds(what, -(-plan.rounds // plan.starts))
                sets[what].append(max(map(len, taken.values()), default=0))
                for name, seconds in taken.items():
                    times[what].setdefault(name, []).extend(seconds)
            turns.end()
    whole = {what: {name: by[name] for name in by if name not in turns.failed} for what, by in times.items()}
    for what, by in whole.items():
        plan.say(f"  {what}: {line(by)}")
    if "first" in plan.whats:
        whole = {"first": turns.firsts, **whole}
    found["figures"] = {what: {name: summary(taken) for name, taken in by.items()} for what, by in whole.items()}
    found["ratios"] = {what: ratios_of(by, sets.get(what)) for what, by in whole.items()}
    return found


class _Turns:
    """The running contenders of a workload.

    Attributes:
        failed: contender -> why; it takes no further part.
        firsts: contender -> seconds of its first steps.
        losses: contender -> losses of its first few steps.
        running: contender -> its process.
        processes: all there have been.
    """

    def __init__(self, plan: Plan, workload: Workload) -> None:
        self.plan = plan
        self.workload = workload
        self.path = plan.setting.folder / f"{workload.name}.npz"
        self.failed: dict[str, str] = {}
        self.firsts: dict[str, list[float]] = {}
        self.losses: dict[str, list[float]] = {}
        self.running: dict[str, Process] = {}
        self.processes: list[Process] = []
        self._calls: dict[tuple[str, str], int] = {}  # (what, contender) -> calls in a block
        draw(workload, self.path)

    def _ask(self, name: str, do: str, **asked: Any) -> dict[str, Any] | None:
        """A contender's answer; `None` if it failed, which is noted."""
        try:
            return self.running[name].ask(do, self.plan.clock.left(), **asked)
        except Failed as failure:
            self.failed[name] = "out of time" if self.plan.clock.left() < 1 else str(failure)
            self.plan.say(f"  {name} failed: {self.failed[name]}")
            self.plan.drop(self.running.pop(name))
            return None

    def start(self, number: int) -> None:
        """Build the model and take the first steps, in processes of their own: the set of that number."""
        self.plan.prepare()
        names = list(self.plan.contenders)
        # Whoever comes first is given other memory than whoever comes last.
        random.Random(f"{self.workload.name} {number}").shuffle(names)
        for name in names:
            if name not in self.failed:
                self.running[name] = self.plan.process(name)
                self.processes.append(self.running[name])
                self._first(name, Path(self.path))

    def _first(self, name: str, given: Path) -> None:
        if self._ask(name, "open", workload=self.workload.name, given=str(given)) is None:
            return
        answer = self._ask(name, "first")
        if answer is not None:
            self.firsts.setdefault(name, []).append(answer["seconds"])
            self.losses[name] = answer["losses"]

    def warm(self, whats: list[str]) -> None:
        """Do each thing until it is compiled, and find how many calls fill a block."""
        for what in whats:
            for name in list(self.running):
                if what == "eager" and name.startswith("compiled/"):
                    continue
                answer = self._ask(name, "warm", what=what, block=self.plan.block)
                if answer is not None:
                    self._calls[what, name] = answer["calls"]

    def memory(self) -> dict[str, float]:
        """The most memory that each process has held, in MB: all have done the same things."""
        answers = {name: self._ask(name, "memory") for name in list(self.running)}
        return {name: round(answer["megabytes"], 1) for name, answer in answers.items() if answer is not None}

    def rounds(self, what: str, count: int) -> dict[str, list[float]]:
        """Seconds per contender, one for each round; all contenders have the same rounds."""
        taken: dict[str, list[float]] = {name: [] for name in self.running if (what, name) in self._calls}
        begin = time.monotonic()
        patience = self.plan.patience / self.plan.starts
        for number in range(count):
            if (number >= 3 and time.monotonic() - begin > patience) or self.plan.clock.left() < 1:
                break
            names = [name for name in taken if name in self.running]
            random.Random(number).shuffle(names)
            for name in names:
                time.sleep(SETTLE)
                answer = self._ask(name, "time", what=what, calls=self._calls[what, name])
                if answer is not None:
                    taken[name].append(answer["seconds"])
        return {name: seconds for name, seconds in taken.items() if name in self.running and seconds}

    def end(self) -> None:
        """End the processes, unless they serve other workloads."""
        if not self.plan.shared:
            for process in self.running.values():
                process.end()
            self.running.clear()


def line(by: dict[str, list[float]]) -> str:
    """Medians in one line."""
    return ", ".join(f"{name} {1e3 * statistics.median(taken):.3g} ms" for name, taken in by.items() if taken)


def differing(losses: dict[str, list[float]]) -> dict[str, str]:
    """Who computes something else than most do.

    Args:
        losses: contender -> losses of its first steps.
    """
    found: dict[str, str] = {}
    middle = [
        statistics.median_low([loss for loss in step if math.isfinite(loss)] or [math.nan])
        for step in zip(*losses.values())
    ]
    for name, taken in losses.items():
        for number, (loss, usual) in enumerate(zip(taken, middle)):
            if not abs(loss - usual) <= TOLERANCE * max(abs(usual), 1e-3):
                found[name] = f"loss {loss:.5g} at step {number}, others {usual:.5g}"
                break
    return found
