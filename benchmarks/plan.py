"""How much is measured, and the processes in which."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import process_time
from typing import Any

from benchmarks.contender import engine_of
from benchmarks.machine import Busy
from benchmarks.pages import Scraps
from benchmarks.pool import Clock, Failed, Process, Setting
from benchmarks.ratios import ratio

__all__ = ["Plan", "ratios_of", "watched"]


@dataclass
class Plan:
    """How much is measured.

    Attributes:
        contenders: their names.
        whats: what is timed, keys of `turns.WHATS`.
        rounds: turns that each contender takes, in all its processes together.
        block: seconds of a block.
        patience: seconds after which no further round of one thing begins, once there are three.
        starts: how many fresh processes each contender has, one after the other: what is the same in a process, such
            as where its memory lies, is noise too.
        shared: whether a contender's process serves all workloads, which is faster; memory is then not told.
        full: whether curves and tasks have their full sizes.
        clock: when all must end.
        setting: what all processes have alike.
        say: where progress goes.
    """

    contenders: tuple[str, ...]
    whats: tuple[str, ...]
    rounds: int
    block: float
    patience: float
    starts: int
    shared: bool
    full: bool
    clock: Clock
    setting: Setting
    say: Callable[[str], None] = print
    _kept: dict[str, Process] = field(default_factory=dict)
    _scraps: Scraps = field(default_factory=Scraps)

    def process(self, name: str) -> Process:
        """The contender's process: a new one, or the one that serves all workloads."""
        if not self.shared:
            return Process(name, self.setting)
        if name not in self._kept:
            self._kept[name] = Process(name, self.setting)
        return self._kept[name]

    def prepare(self) -> None:
        """Use up scattered memory, and start those processes that serve all workloads.

        They start all at once: importing takes them seconds.
        """
        # The first step in memory that no process has had yet may be slow: a virtual machine's host gives it late.
        if not self.shared and set(self.whats) != {"first"}:
            self._scraps.hold()
        new = [self.process(name) for name in self.contenders if self.shared and name not in self._kept]
        for process in new:
            process.send("prepare")
        for process in new:
            try:
                process.answer("prepare", self.clock.left())
            except Failed as failure:
                self.say(f"  {process.name}: {failure}")

    def drop(self, process: Process) -> None:
        """End a process, which may be a kept one."""
        process.end()
        if self._kept.get(process.name) is process:
            del self._kept[process.name]

    def close(self) -> None:
        """End the kept processes."""
        for process in list(self._kept.values()):
            self.drop(process)
        self._scraps.let_go()

    def libraries(self) -> list[str]:
        """Cornu and Keras on the engines that Keras has; in a quick run on the first of them."""
        engines = [engine for engine in ("jax", "tensorflow", "torch") if f"keras/{engine}" in self.contenders]
        engines = engines if self.full else engines[:1]
        return [f"{library}/{engine}" for engine in engines for library in ("cornu", "keras")]


@contextmanager
def watched(found: dict[str, Any], processes: list[Process]) -> Iterator[None]:
    """Note in `found["others"]` what share of the machine's processor time others used meanwhile.

    Args:
        found: a section's results.
        processes: ours; more may be added meanwhile.
    """
    busy, own = Busy(), process_time()
    before = {id(process): process.processor_seconds() for process in processes}
    yield
    used = sum(process.processor_seconds() - before.get(id(process), 0.0) for process in processes)
    found["others"] = round(busy.others(used + process_time() - own), 2)


def ratios_of(by: dict[str, list[float]], sets: list[int] | None = None) -> dict[str, Any]:
    """Cornu to all others on its engine; where it chose the engine itself, to all others.

    Args:
        by: contender -> times of the same rounds.
        sets: how many of the rounds, in order, were measured in the same processes; by default all of them.

    Returns:
        `"ours : theirs"` -> ratio.
    """
    found = {}
    for ours in (name for name in by if name.startswith("cornu/")):
        for theirs in (name for name in by if not name.startswith("cornu/")):
            if ours == "cornu/auto" or engine_of(theirs) == engine_of(ours):
                found[f"{ours} : {theirs}"] = ratio(by[ours], by[theirs], sets)
    return found
