"""Where the values of variables live while steps run over them."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cornu.core import context, dtypes
from cornu.core.variable import Variable
from cornu.ops.creation import convert_to_numpy
from cornu.training.handover import UnderWay

__all__ = ["State"]

_lock = threading.RLock()


class State:
    """The values of variables as an engine's, taken over from the variables for as long as steps run.

    A state may stay between calls: it is then *idle*, and gives all values back as soon as anybody else reads or
    writes one of them.

    Args:
        variables: the variables, each once.
        engine: the engine in force.
        reused: whether steps may reuse the memory of the values.

    Attributes:
        values: a value for each variable; if their memory is reused, a place of the engine's that nobody else holds.
        first: what each variable held when it was taken over, or what was written to it since; `None` once somebody has
            taken that (`take_first`).
        on_read: called before somebody else reads what steps have made.
        on_write: called with the place and the value that somebody else writes.
        idle: whether no step runs over it.
        lock: held while a step replaces the values.
    """

    def __init__(self, variables: list[Variable], engine: Any, reused: bool = False) -> None:
        self.variables: list[Variable] = []
        self.engine = engine
        self.reused = reused and engine.reuses
        self.index: dict[int, int] = {}
        self._values: list[Any] = []
        self._under_way: tuple[UnderWay, Callable[[Any], None]] | None = None
        self.first: list[Any] | None = []
        self.on_read: Callable[[], None] | None = None
        self.on_write: Callable[[int, Any], None] | None = None
        self.idle = False
        self.lock = threading.RLock()
        self._thread = threading.get_ident()
        self._given = variables
        self._before: list[Any] = []

    @property
    def values(self) -> list[Any]:
        """The values; where a step is under way that replaces them, it is waited for."""
        if self._under_way is not None:
            self._arrive(*self._under_way)
        return self._values

    @values.setter
    def values(self, values: list[Any]) -> None:
        self._values = values

    def depart(self, step: UnderWay, arrived: Callable[[Any], None]) -> None:
        """Note that a step is under way, and what to do with what it gives, once."""
        self._under_way = step, arrived

    def _arrive(self, step: UnderWay, arrived: Callable[[Any], None]) -> None:
        if step.is_asking:
            return  # an op that calls Python sees what the step was given
        try:
            result = step.result()
        except Exception:
            with self.lock:
                self._under_way = None
            raise
        with self.lock:
            if self._under_way is not None and self._under_way[0] is step:
                self._under_way = None
                arrived(result)

    def add(self, variables: list[Variable]) -> list[Any]:
        """Take over more variables; gives what they held."""
        found = []
        with context.use_engine(self.engine):
            for variable in variables:
                variable.leave_empty_home()
                held = variable.stored()
                self.values.append(self.own(held))
                found.append(held)
                if self.first is not None:
                    self.first.append(held)
                self.index[id(variable)] = len(self.variables)
                self.variables.append(variable)
                self._before.append(variable.holder)
                variable.hold(self)
        return found

    def own(self, value: Any) -> Any:
        """A value as one that may stand in `values`."""
        if not self.reused:
            return self.engine.from_any(value)
        if type(value) is np.ndarray:
            return self.engine.place_host(value)
        return self.engine.place(self.engine.from_any(value))

    def copies(self) -> list[Any]:
        """The values as they are now, which later steps leave alone."""
        return self.engine.kept(self.values) if self.reused else list(self.values)

    def copies_in_turn(self) -> bool:
        """Whether `copies` does not wait for steps that are under way."""
        return bool(self.reused and self.engine.keeps_in_turn(self.values))

    def take_first(self) -> list[Any] | None:
        """What the variables held when they were taken over; given once, so that its memory can be freed."""
        first, self.first = self.first, None
        return first

    def read(self, variable: Variable) -> Any:
        """The variable's current value, as a host copy."""
        if self.leave():
            return variable.stored()
        # Numbers may be looked at between steps: counters, rates, sums of metrics. Other threads look when they will.
        looks = variable.shape and variable.dtype in dtypes.FLOATS and self._thread == threading.get_ident()
        if looks and self.on_read is not None:
            self.on_read()
        _ = self.values  # waits without the lock, which an op that calls Python may need
        with self.lock:
            return np.array(self.engine.to_host(self.values[self.index[id(variable)]]))

    def write(self, variable: Variable, value: Any) -> None:
        """Replace the variable's value (a host array must be nobody else's)."""
        if self.leave():
            variable.set_value(value)
            return
        place = self.index[id(variable)]
        if self.on_write is not None:
            self.on_write(place, value)
        if type(value) is not np.ndarray:
            with context.use_engine(self.engine):
                own = self.engine.own(value, variable.dtype)
                value = self.engine.copy(own) if own is value and self.reused else own
        if self.first is not None:
            self.first[place] = np.array(convert_to_numpy(value))
        self.put(place, value)

    def put(self, place: int, value: Any) -> None:
        """Replace a value by another that is nobody else's: the engine's, or a host array."""
        self.values[place] = self.engine.put(self.values[place], value) if self.reused else self.engine.feed(value)

    @contextlib.contextmanager
    def held(self) -> Iterator["State"]:
        """Take the variables' values over for a block, and give them back at its end, whatever happens."""
        try:
            self.add(self._given)
            with context.use_engine(self.engine):
                yield self
        except BaseException:
            self.abandon()
            raise
        self.release()

    def resume(self) -> bool:
        """Use an idle state again; `False` if somebody else uses it, or it has given its values back."""
        with _lock:
            found, self.idle = self.idle, False
            self._thread = threading.get_ident()
        return found

    def leave(self) -> bool:
        """Give the values back if the state is idle; whether it was."""
        with _lock:
            found = self.idle
            if found:
                self.release()
        return found

    def release(self) -> None:
        """Give all values back to the variables, good as they are when steps are watched over.

        Raises:
            NonFiniteError: if the state was not good; what is given back is then the last good state.
        """
        try:
            if self.on_read is not None:
                self.on_read()
        finally:
            self._give_back()

    def abandon(self) -> None:
        """Give all values back because of an error, which is not to be hidden by what else may be wrong."""
        with contextlib.suppress(Exception):
            self.release()

    def _give_back(self) -> None:
        self.idle = False
        self.on_read = self.on_write = None
        with context.use_engine(self.engine):
            for variable, value, before in zip(self.variables, self.values, self._before, strict=True):
                value = self.engine.lift(value) if self.reused else value
                variable.holder = before
                if before is None:
                    variable.set_value(value)
                else:  # a loop within a loop: a callback that evaluates
                    before.write(variable, value)
        self.variables, self._values, self._before, self.index, self.first = [], [], [], {}, None
