"""What was found out about the engines on one step of one model, and the choice that follows from it."""

import math
from pathlib import Path
from typing import Any

from cornu.engines import cache

__all__ = ["EVER", "Report"]

EVER = 10**9  # steps of which nobody sees the end

# Engines whose totals differ by less are equal: the first in order is kept, so that noise does not decide. There is
# less of it between engines that were timed in turns.
_EQUAL, _EQUAL_IN_TURNS = 1.1, 1.02


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


class Report:
    """Times of engines on one step.

    Args:
        names: the engines to choose from, in order of preference.
        budget: seconds that measuring may take.

    Attributes:
        times: engine -> seconds to compile, seconds per step.
        samples: engine -> the single measurements of this process.
        failed: engine -> why it could not do the step.
        slower: engine -> seconds after which it was given up, being slower than another.
        in_turns: the engines whose steps were timed in turns.
        warm: the engines that have compiled the step in this process.
        path: the file in which it is remembered.
        problem: why it is not remembered.
    """

    def __init__(self, names: list[str], budget: float) -> None:
        self.names = names
        self.budget = budget
        self.times: dict[str, tuple[float, float]] = {}
        self.samples: dict[str, list[float]] = {}
        self.failed: dict[str, str] = {}
        self.slower: dict[str, float] = {}
        self.in_turns: set[str] = set()
        self.warm: set[str] = set()
        self.path: Path | None = None
        self.problem: str | None = None
        self._measured_here = True
        self._told: str | None = None
        self._steps = 0

    @property
    def not_reached(self) -> list[str]:
        """The engines for which there was no time left."""
        return [name for name in self.names if name not in {*self.times, *self.failed, *self.slower}]

    def wants_more(self, budget: float) -> bool:
        """Whether a larger budget would reach more engines."""
        return bool(self.not_reached) and budget > self.budget

    # ------------------------------------------------ the choice

    def total(self, name: str, steps: int, traces: int = 1) -> float:
        """Seconds a call would take: what is still to be compiled, and its steps."""
        compiled, step = self.times[name]
        return compiled * (traces - (name in self.warm)) + steps * step

    def best_total(self, steps: int) -> float:
        """The least total so far, infinite if there is none."""
        return min((self.total(name, steps) for name in self.times), default=math.inf)

    def best_step(self) -> float:
        """The shortest step so far, infinite if there is none."""
        return min((step for _, step in self.times.values()), default=math.inf)

    def choose(self, steps: int, traces: int = 1) -> str:
        """The engine with the least total; of equals the first.

        Args:
            steps: how many steps are to come.
            traces: how often it compiles (a last, smaller batch is compiled again).
        """
        # Who has come this far may be expected to go as far again: what was too short to pay for a compiler at first
        # does in the end, if it is called often enough.
        steps += self._steps
        totals = {name: self.total(name, steps, traces) for name in self.names if name in self.times}
        best = min(totals, key=lambda name: totals[name])
        for name, seconds in totals.items():
            equal = _EQUAL_IN_TURNS if {name, best} <= self.in_turns else _EQUAL
            if seconds <= equal * totals[best]:
                break
        return name

    def stays(self, chosen: str, steps: int) -> float:
        """For how many more calls of so many steps an engine stays the best; those are then counted as done."""
        if self.choose(EVER) == chosen:
            return math.inf
        calls = max(self._steps // steps, 1)
        while calls and self.choose(calls * steps) != chosen:
            calls //= 2
        self._steps += calls * steps
        return calls

    # ------------------------------------------------ in words

    def tell(self, chosen: str, steps: int) -> None:
        """Note that an engine takes so many steps; print the findings in one line, once for each choice."""
        self._steps += steps
        self.warm.add(chosen)
        if self._told == chosen:
            return
        print(self.line(chosen, steps, first=self._told is None), flush=True)
        self._told = chosen

    def line(self, chosen: str, steps: int, first: bool = True) -> str:
        """The findings in one line."""
        parts = []
        for name in sorted(self.times, key=lambda name: self.times[name][1]):
            compiled, step = self.times[name]
            parts.append(f"{name} {_milliseconds(step)}" + (f" (compile {compiled:.1f} s)" if compiled > 0.05 else ""))
        parts += [f"{name} over {_milliseconds(seconds)}" for name, seconds in self.slower.items()]
        parts += [f"{name} failed ({reason})" for name, reason in self.failed.items()]
        if self.not_reached:
            parts.append(f"not reached in {self.budget:g} s: {' '.join(self.not_reached)}")
        steps_text = f"{steps:,} step{'s' if steps > 1 else ''}"
        return f"engine auto: {', '.join(parts)}; chosen: {chosen} for {steps_text}{self._origin() if first else ''}"

    def _origin(self) -> str:
        if self.problem is not None:
            return f"; not remembered ({self.problem})"
        if self.path is None:
            return ""
        return f"; {'remembered in' if self._measured_here else 'as remembered in'} {_short(self.path)}"

    # ------------------------------------------------ in a file

    def remember(self, key: str, what: dict[str, Any]) -> None:
        """Write it to the cache.

        Args:
            key: its key.
            what: what was measured, for people who look.
        """
        record = {
            **what,
            "budget": self.budget,
            "times": {name: list(times) for name, times in self.times.items()},
            "failed": self.failed,
            "slower": self.slower,
            "in_turns": sorted(self.in_turns),
        }
        try:
            self.path = cache.write(key, record)
        except OSError as error:  # a home that cannot be written to: said in the line
            self.problem = f"{type(error).__name__}: {error.strerror}"

    @classmethod
    def from_record(cls, record: dict[str, Any] | None, names: list[str]) -> "Report | None":
        """The report of a record; `None` if it is no record of these engines."""
        if record is None:
            return None
        times, failed, slower = (record.get(part) for part in ("times", "failed", "slower"))
        if not (isinstance(times, dict) and isinstance(failed, dict) and isinstance(slower, dict) and times):
            return None
        if not {*times, *failed, *slower} <= set(names) or not _is_time(record.get("budget")):
            return None
        pairs = all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_time, pair)) for pair in times.values())
        if not pairs or not all(map(_is_time, slower.values())):
            return None
        report = cls(names, record["budget"])
        report.times = {name: (compiled, step) for name, (compiled, step) in times.items()}
        report.failed = {name: " ".join(str(reason).split())[:150] for name, reason in failed.items()}
        report.slower = dict(slower)
        in_turns = record.get("in_turns")
        report.in_turns = set(in_turns) & set(times) if isinstance(in_turns, list) else set()
        report._measured_here = False
        return report


def _milliseconds(seconds: float) -> str:
    """Seconds as `1.62 ms`, with three digits."""
    return f"{float(f'{seconds * 1000:.3g}'):g} ms"


def _short(path: Path) -> str:
    """A path, from the home directory where it lies there."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):  # elsewhere; or there is no home
        return str(path)
