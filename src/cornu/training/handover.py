"""Steps that another thread takes while the next batch is made.

JAX comes back from a step before it is done, so that the loop reads the next batch meanwhile. Where an engine comes
back only when it is, the step is handed to a thread: one at a time, and only while that is faster by the clock. The
user's own code (generators, data sets, callbacks, layers as they are traced) stays in the user's thread, and no batch
is read before callbacks were told of the one before: whoever reads a variable or a log waits for the step.
"""

import contextlib
import contextvars
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cornu.core.variable import Variable

__all__ = ["Handover", "Pace", "UnderWay", "handing_over"]

# How many calls are looked at before anything is decided, and how many go by before the next look.
_LOOK, _REST, _LATER = 6, 256, 4
# What must be gained: so many seconds of each call, such a share of them, and that share when it was tried.
_LEAST, _SHARE, _GAINED = 5e-4, 0.1, 0.03


class Pace:
    """Whether calls of one kind are to be handed over: while they then follow each other faster.

    Args:
        clock: gives seconds.

    Attributes:
        hands: whether they are, as far as is known.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.hands = False
        self._clock = clock
        self._begun = self._ended = 0.0
        self._calls: list[float] = []  # seconds of calls, or from one to the next where they are handed over
        self._gaps: list[float] = []  # seconds between them
        self._alone = 0.0  # seconds from one call to the next without handing over
        self._unseen = 0  # how many calls go by without a look
        self._rest = _REST

    def begins(self) -> None:
        """A call begins."""
        if self._unseen:
            self._unseen -= 1
            return
        now = self._clock()
        if not self.hands:
            self._gaps.append(now - self._ended)
        elif self._begun:
            self._calls.append(now - self._begun)
            if len(self._calls) > _LOOK:
                self._judge()
        self._begun = now

    def ends(self) -> None:
        """A call ended that was not handed over."""
        if self._unseen or self.hands:
            return
        self._ended = self._clock()
        self._calls.append(self._ended - self._begun)
        if len(self._calls) > _LOOK:
            self._consider()

    def _consider(self) -> None:
        # The first of them may have compiled.
        call, gap = statistics.median(self._calls[1:]), statistics.median(self._gaps[1:])
        self._alone = call + gap
        self.hands = min(call, gap) > max(_LEAST, _SHARE * self._alone)
        self._begin_anew(0 if self.hands else _REST)

    def _judge(self) -> None:
        self.hands = statistics.median(self._calls[1:]) < (1 - _GAINED) * self._alone
        if self.hands:
            self._begin_anew(_REST)
        else:
            self._begin_anew(self._rest)
            self._rest *= _LATER

    def _begin_anew(self, unseen: int) -> None:
        self._calls, self._gaps, self._unseen, self._begun = [], [], unseen, 0.0
        self._ended = self._clock()


class UnderWay:
    """What a call that was handed over will give."""

    def __init__(self, pool: ThreadPoolExecutor, call: Callable[[], Any]) -> None:
        self._thread = 0
        self._future = pool.submit(self._run, contextvars.copy_context(), call)

    def _run(self, scope: contextvars.Context, call: Callable[[], Any]) -> Any:
        self._thread = threading.get_ident()
        return scope.run(call)

    @property
    def is_asking(self) -> bool:
        """Whether it is the call itself that asks."""
        return self._thread == threading.get_ident()

    def result(self) -> Any:
        """What it gives, once it is done; raises what it raised."""
        return self._future.result()


@contextlib.contextmanager
def handing_over(engine: Any, variables: list[Variable]) -> Iterator["Handover | None"]:
    """A thread for the calls of one loop; `None` where there is to be none: an engine goes on by itself, say.

    Args:
        engine: the engine in force.
        variables: what the calls are about.
    """
    # A debugger or a profiler looks at the thread in which it was begun. A variable's home is written to by others, who
    # do not ask.
    watched = sys.gettrace() is not None or sys.getprofile() is not None
    if watched or not engine.waits() or any(variable.home is not None for variable in variables):
        yield None
        return
    handover = Handover(engine)
    try:
        yield handover
    finally:
        handover.close()


class Handover:
    """A thread for the calls of one loop, which takes them while it is faster.

    Args:
        engine: the engine in force.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._paces: dict[str, Pace] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, kind: str, step: Callable[..., Any], *args: Any) -> Any:
        """A step's answer, or an `UnderWay`.

        Args:
            kind: what steps are compared with each other.
            step: what the engine compiled, if it did.
            args: its arguments, to which nobody writes before it is done.
        """
        if not hasattr(step, "bound"):
            return step(*args)
        pace = self._paces.get(kind)
        if pace is None:
            pace = self._paces[kind] = Pace()
        pace.begins()
        call = step.bound(*args) if pace.hands else None
        if call is not None:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="cornu-step")
            self._engine.leave()
            return UnderWay(self._pool, call)
        if not any(pace.hands for pace in self._paces.values()):
            self.close()
        result = step(*args)
        pace.ends()
        return result

    def close(self) -> None:
        """End the thread, once it is done."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
