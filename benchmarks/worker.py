"""A contender's process: reads one JSON object a line, does what it says, answers with one line.

Started by `pool.py` as `python -m benchmarks.worker NAME`. An error is an answer too.
"""

import gc
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import contender, curves, once, roofline
from benchmarks.workload import load, rows_of, take
from benchmarks.workloads import WORKLOADS

__all__ = ["Worker", "main"]

AGREEMENT_STEPS = 3


class Worker:
    """Does what a line asks for.

    Args:
        name: the contender, such as `"keras/jax"`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: Any = None
        self.calls: dict[str, Any] = {}

    def prepare(self) -> dict[str, Any]:
        """Import what the contender needs."""
        contender.prepare(self.name)
        return {}

    def open(self, workload: str, given: str) -> dict[str, Any]:
        """Build a workload's model with the given weights; its first step comes with `first`."""
        self.held = self.calls = None  # type: ignore[assignment]
        gc.collect()
        self.held = held = contender.make(self.name, WORKLOADS[workload], load(Path(given)))
        x, y = held.given.x, held.given.y
        batch = held.workload.batch
        some, one = slice(0, batch), slice(0, 1)
        first, target, row = take(x, some), y[some], take(x, one)
        many = take(x, slice(0, min(rows_of(x), 8 * batch)))
        native = held.native(first)
        self.calls = {
            "step": lambda: held.step(first, target),
            "fit": held.fit,
            "predict_one": lambda: held.predict(row),
            "predict_many": lambda: held.predict(many),
            "eager": lambda: held.eager(native),
        }
        return {"rows": rows_of(many)}

    def first(self) -> dict[str, Any]:
        """The first step, with what it compiles, and the losses of the first few."""
        x, y, batch = self.held.given.x, self.held.given.y, self.held.workload.batch
        losses = []
        begin = time.perf_counter()
        for number in range(AGREEMENT_STEPS):
            at = slice(number * batch, (number + 1) * batch)
            losses.append(self.held.step(take(x, at), y[at]))
            if number == 0:
                seconds = time.perf_counter() - begin
        return {"seconds": seconds, "losses": losses}

    def warm(self, what: str, block: float) -> dict[str, Any]:
        """Call until nothing is compiled any more; gives how many calls fill a block of so many seconds."""
        call = self.calls[what]
        begin = time.perf_counter()
        call()
        first = time.perf_counter() - begin
        seconds = min(_timed(call, 1) for _ in range(1 if first > 5 * block else 3))
        for _ in range(2):  # what is short may only now come to its own pace
            calls = int(block / max(seconds, 1e-7) / 2)
            seconds = min(seconds, _timed(call, calls) / calls) if calls > 1 else seconds
        return {"calls": max(1, int(block / max(seconds, 1e-7))), "seconds": seconds}

    def time(self, what: str, calls: int) -> dict[str, Any]:
        """Seconds per call (per step for `fit`, which has many), over so many calls after one that warms the caches."""
        if what != "fit":
            self.calls[what]()
        seconds = _timed(self.calls[what], calls) / calls
        return {"seconds": seconds / self.held.workload.steps if what == "fit" else seconds}

    def memory(self) -> dict[str, Any]:
        """The most memory this process has held, in MB."""
        return {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def once(self, **asked: Any) -> dict[str, Any]:
        """One of the things a process does once (`once.py`)."""
        return once.run(self.name, **asked)

    def curve(self, **asked: Any) -> dict[str, Any]:
        """A point of a curve (`curves.py`)."""
        return curves.run(self.name, **asked)

    def roofline(self, library: str) -> dict[str, Any]:
        """What the machine can do at most (`roofline.py`)."""
        return roofline.measure(library)


def _timed(call: Any, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - begin


def main() -> None:
    """Answer until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = getattr(worker, asked.pop("do"))(**asked)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {lines[0][:200]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
