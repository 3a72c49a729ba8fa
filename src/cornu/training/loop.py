"""The loop: it feeds batches to a compiled step, keeps the callbacks and the progress informed, and never waits for
the engine
unless somebody reads a value."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from cornu.core import tree
from cornu.core.errors import ArgumentError, BuildError
from cornu.ops._declare import dtype_of, shape_of
from cornu.ops.creation import convert_to_numpy
from cornu.ops.indexing import get_item
from cornu.ops.movement import stack
from cornu.training import every_op, guard
from cornu.training.data import Source
from cornu.training.step import Late, State

__all__ = ["Logs", "Runner", "fed", "groups", "limited"]

# How many steps may be in flight before the oldest is asked whether it was finite.
_IN_FLIGHT = 8
# How often a step may meet variables it was not given.
_TRIES = 5


class Logs(Mapping[str, Any]):
    """Logs whose values are read (and waited for) when somebody looks."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return scalar(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def read(self) -> dict[str, Any]:
        """All values as a plain dict."""
        return {name: scalar(value) for name, value in self._values.items()}

    def __repr__(self) -> str:
        return repr(self.read())


def scalar(value: Any) -> Any:
    """An engine's scalar as a Python float; anything else as a host array."""
    host = np.asarray(convert_to_numpy(value))
    return float(host) if host.ndim == 0 else host


class Runner:
    """Compiled steps over one state.

    Args:
        model: the model.
        engine: the engine in force.
        state: the variables' values.
        quiet: whether training that leaves the finite numbers just stops.
    """

    def __init__(self, model: Any, engine: Any, state: State, quiet: bool = False) -> None:
        self.model = model
        self.engine = engine
        self.state = state
        self.quiet = quiet and not every_op.is_on()
        self.alive: Any = engine.from_host(np.array(True))
        self._flight: deque[tuple[int, Any, Any]] = deque()
        self._names: list[str] | None = None
        self._found: dict[str, tuple[Any, Any]] = {}

    def train(self, number: int, batch: Any) -> dict[str, Any]:
        """One training step; its logs may still be under way."""
        self.model._check_values(batch)
        batch = fed(self.engine, batch)
        values, logs, alive = self._run(
            self.model._compiled_train, lambda step: step(self.state.values, np.int32(number), self.alive, batch)
        )
        self.state.values = values
        self.alive = alive
        self._flight.append((number, alive, batch))
        if len(self._flight) > _IN_FLIGHT:
            self._settle(1)
        return self._in_order(logs)

    def train_several(self, number: int, batches: list[Any]) -> dict[str, Any]:
        """Training steps on batches of one shape, dispatched as one; gives the logs of the last."""
        for batch in batches:
            self.model._check_values(batch)
        stacked = fed(self.engine, tree.map_structure(_stacked, *batches))
        values, logs, alives = self._run(
            self.model._compiled_several, lambda steps: steps(self.state.values, np.int32(number), self.alive, stacked)
        )
        self.state.values = values
        self.alive = get_item(alives, -1)
        self._flight.append((number, alives, batches))
        if len(self._flight) > _IN_FLIGHT:
            self._settle(1)
        return self._in_order(logs)

    def _run(self, compiled: Callable[..., Any], call: Callable[[Any], Any]) -> Any:
        """A compiled step's answer; variables that it meets late join the state, and it runs again."""
        for _ in range(_TRIES):
            try:
                return call(self._step(compiled))
            except Late as late:
                self.model._late().extend(late.variables)
                self.state.add(late.variables)
                paths = ", ".join(repr(variable.path) for variable in late.variables)
        raise BuildError(
            f"a step of model {self.model.name!r} makes the variables {paths} anew each time and keeps them",
            "variables that are made once",
            "make them in __init__ or build",
        )

    def _step(self, compiled: Callable[..., Any]) -> Any:
        """The compiled step for the state as it is, found anew only when something it hangs on has changed."""
        version = (len(self.state.variables), self.model._step_version())
        found = self._found.get(compiled.__name__)
        if found is None or found[0] != version:
            found = self._found[compiled.__name__] = (version, compiled(self.engine, list(self.state.variables)))
        return found[1]

    def _in_order(self, logs: Any) -> dict[str, Any]:
        """Logs in the order of the metrics (engines may reorder dicts)."""
        if not isinstance(logs, Mapping):
            got = type(logs).__name__
            raise ArgumentError(
                f"a step of model {self.model.name!r} gave {got}", "a dict of logs by name", "return {'loss': loss}"
            )
        if len(logs) < 2:
            return dict(logs)
        if self._names is None:
            self._names = self.model.metrics_names
        return {**{name: logs[name] for name in self._names if name in logs}, **logs}

    def _settle(self, count: int) -> None:
        """Ask the oldest steps in flight whether they were finite.

        Raises:
            NonFiniteError: if one was not.
        """
        for _ in range(count):
            number, alive, batch = self._flight.popleft()
            good = convert_to_numpy(alive)
            if not good.all():
                self._flight.clear()
                if self.quiet:
                    self.model.stop_training = True
                    return
                if good.ndim:  # of several steps, the first that was not
                    first = int(np.argmin(good))
                    number, batch = number + first, fed(self.engine, batch[first])
                raise guard.explain(self.model, self.engine, batch, number, self.model.trainable_variables)

    def settle(self) -> None:
        """Ask all steps in flight whether they were finite."""
        if self._flight:
            if convert_to_numpy(self._flight[-1][1]).all():
                self._flight.clear()
            else:
                self._settle(len(self._flight))

    def test(self, number: int, batch: Any) -> dict[str, Any]:
        """One step of evaluation."""
        self.model._check_values(batch)
        batch = fed(self.engine, batch)
        changed, logs = self._run(
            self.model._compiled_test, lambda step: step(self.state.values, np.int32(number), batch)
        )
        for place, value in changed.items():
            self.state.values[place] = value
        return self._in_order(logs)

    def evaluate(self, source: Source, steps: int | None, callbacks: Any) -> dict[str, Any]:
        """Run all batches of a source through `test`."""
        self.model.reset_metrics()
        callbacks.on_test_begin()
        logs: dict[str, Any] = {}
        for number, batch in enumerate(limited(source.epoch(0), steps)):
            callbacks.on_test_batch_begin(number)
            logs = self.test(number, batch)
            callbacks.on_test_batch_end(number, Logs(logs))
            if self.model.stop_evaluating:
                break
        read = Logs(logs).read()
        callbacks.on_test_end(read)
        return read


def fed(engine: Any, batch: Any) -> Any:
    """A batch's arrays as arguments of one of the engine's compiled functions."""

    def feed(leaf: Any) -> Any:
        return None if leaf is None else engine.feed(leaf if hasattr(leaf, "dtype") else np.asarray(leaf))

    return tree.map_structure(feed, batch)


def _stacked(*leaves: Any) -> Any:
    if leaves[0] is None:
        return None
    if all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in leaves):
        return np.stack(leaves)
    return stack(list(leaves))


def groups(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Batches in groups of a size, all of one group of the same shapes; others alone."""
    if size == 1:
        yield from ([batch] for batch in batches)
        return
    group: list[Any] = []
    shape: Any = None
    for batch in batches:
        mine = tree.map_structure(lambda leaf: None if leaf is None else (shape_of(leaf), dtype_of(leaf)), batch)
        if group and repr(mine) != shape:
            yield from ([one] for one in group)
            group = []
        shape = repr(mine)
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    yield from ([one] for one in group)


def limited(batches: Iterator[Any], steps: int | None) -> Iterator[Any]:
    """At most so many batches; `None` for all."""
    if steps is None:
        yield from batches
        return
    for _ in range(steps):
        batch = next(batches, None)
        if batch is None:
            return
        yield batch
