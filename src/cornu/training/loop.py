"""The loop: it feeds batches to a compiled step, keeps the callbacks and the progress informed, and never waits for the
engine unless somebody reads a value."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from cornu.core import dtypes, tree
from cornu.core.errors import ArgumentError, BuildError
from cornu.ops._declare import interpreter_of
from cornu.ops.creation import convert_to_numpy
from cornu.training import every_op, guard
from cornu.training.data import Source
from cornu.training.groups import limited, merged
from cornu.training.handover import Handover, UnderWay, handing_over
from cornu.training.state import State
from cornu.training.step import Late
from cornu.training.window import FIRST, SMALL, Window

__all__ = ["Logs", "Resident", "Runner", "fed", "scalar"]

# How often a step may meet variables it was not given.
_TRIES = 5


class Logs(Mapping[str, Any]):
    """Logs whose values are read (and waited for) when somebody looks.

    Args:
        found: the values, or what gives them.
    """

    def __init__(self, found: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        self._found = found

    @property
    def unread(self) -> dict[str, Any]:
        """The values as the engine gives them."""
        if callable(self._found):
            self._found = self._found()
        return self._found

    def __getitem__(self, name: str) -> Any:
        return scalar(self.unread[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.unread)

    def __len__(self) -> int:
        return len(self.unread)

    def __contains__(self, name: object) -> bool:
        return name in self.unread

    def read(self) -> dict[str, Any]:
        """All values as a plain dict."""
        return {name: scalar(value) for name, value in self.unread.items()}

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
        guarded: whether to watch over training at all.

    Attributes:
        quiet: whether training that leaves the finite numbers just stops.
    """

    def __init__(self, model: Any, engine: Any, state: State, guarded: bool = True) -> None:
        self.model = model
        self.engine = engine
        self.state = state
        # Whoever watches every op wants to be told at once, and where.
        self.prompt = every_op.is_on() or model.run_eagerly
        self.quiet = False
        self.guarded = guarded and (model._guard or every_op.is_on())
        self._alive: Any = engine.from_host(np.array(True))
        self._most = 1 if self.prompt else FIRST
        self._window: Window | None = None
        self._before: Window | None = None  # whose end is yet to be looked at
        self._names: list[str] | None = None
        self._found: dict[str, tuple[Any, Any]] = {}
        self._places: tuple[Any, list[int]] | None = None
        self._handover: Handover | None = None
        state.on_read, state.on_write = self.settle, self._written

    @contextlib.contextmanager
    def handing_over(self) -> Iterator[None]:
        """Let steps be under way while the next batch is made, where the engine would wait for them."""
        with handing_over(self.engine, self.state.variables) as self._handover:
            try:
                yield
            finally:
                self._handover = None

    def train(self, number: int, batch: Any, count: int = 1, shared: bool = False) -> Logs:
        """Training steps that are handed over at once; gives the logs of the last, which may still be under way.

        Args:
            number: the number of the first.
            batch: `(x, y, sample_weight)`, or the group of so many.
            count: how many steps.
            shared: whether others may write to the batch later.
        """
        self.model._check_values(batch if count == 1 else merged(batch))
        if self.guarded and self._window is None:
            self._window = Window(self.state, self._most)
        if shared and (self.guarded or self._handover is not None):
            batch, shared = tree.map_structure(_own, batch), False
        logs = self._train(number, batch, count, not shared)
        if self.guarded:
            self._note(number, batch, count)
        return logs

    def _train(self, number: int, batch: Any, count: int, kept: bool = False) -> Logs:
        batch = fed(self.engine, batch, kept)
        compiled = self.model._compiled_train if count == 1 else self.model._compiled_several
        state = self.state
        _ = state.values  # the last step's
        with state.lock:
            found = self._begun(compiled, np.int32(number), self._alive, batch)
            if type(found) is not UnderWay:
                state.values, logs, self._alive = found
                return Logs(self._in_order(logs))
        return self._later(found, self._trained)

    def _trained(self, found: Any) -> Any:
        self.state.values, logs, self._alive = found
        return logs

    def _begun(self, compiled: Callable[..., Any], *rest: Any) -> Any:
        """A step's answer, or the step under way."""
        handover, state = self._handover, self.state
        if handover is None:
            return self._run(compiled, lambda step: step(state.values, *rest))
        return self._run(compiled, lambda step: handover(compiled.__name__, step, state.values, *rest))

    def _later(self, step: UnderWay, arrived: Callable[[Any], Any]) -> Logs:
        """The logs of a step under way, which whoever looks waits for."""
        state = self.state
        logs: list[Any] = []
        state.depart(step, lambda found: logs.append(arrived(found)))

        def read() -> dict[str, Any]:
            step.result()  # raises again what the step raised
            _ = state.values
            return self._in_order(logs[0])

        return Logs(read)

    # ------------------------------------------------ the way back

    def _note(self, number: int, batch: Any, count: int) -> None:
        window = self._window
        assert window is not None
        window.note(number, batch, count)
        if window.is_full:
            self._look(window)

    def _look(self, window: Window) -> None:
        """Make sure that the state was good at the last look, and have it looked at as it is now."""
        self._before = self._suspect()
        following = None
        if self._before is None and not self.prompt:
            following = window.followed(self._alive, self._watched())
        if following is None:
            self.settle()
        else:
            self._before, self._window = window, following

    def _suspect(self) -> Window | None:
        """The window before the last look, if the state was not good then; it is held here no more."""
        before, self._before = self._before, None
        return None if before is None or before.was_good() else before

    def _written(self, place: int, value: Any) -> None:
        """Somebody is writing a value between steps."""
        if self._window is None or (self._window.is_empty and self._before is None):
            self._window = None
        elif self.state.variables[place].size <= SMALL:
            self._window.note_write(place, value if type(value) is np.ndarray else convert_to_numpy(value))
        else:
            self.settle()

    def settle(self, going_on: bool = False) -> None:
        """Make sure that the state is good.

        Args:
            going_on: whether more steps are likely to follow, so that the way back is kept if it takes little memory.

        Raises:
            NonFiniteError: if it was not; it is then as it was before the first bad step.
        """
        window, self._window = self._window, None
        suspect = self._suspect()
        if window is None or (window.is_empty and suspect is None):
            return
        if suspect is None and self._is_good():
            if going_on and window.is_small:
                window.own_batches()
                self._window = window
            else:
                self._most = 1 if self.prompt else window.grown()
            return
        if suspect is not None:
            suspect.join(window)
            window = suspect
        self._alive = self.engine.from_host(np.array(True))
        for number, batch in window.again():
            before = self.state.copies()
            self._train(number, batch, 1)
            if not self._is_good():
                self.state.values[:] = [self.state.own(value) for value in before]
                self._alive = self.engine.from_host(np.array(True))
                if self.quiet:
                    self.model.stop_training = True
                    return
                raise guard.explain(
                    self.model, self.engine, fed(self.engine, batch), number, self.model.trainable_variables
                )

    def _is_good(self) -> bool:
        """Whether losses were, and weights and what the optimizer keeps of them are, finite."""
        values = self.state.values  # first: a step under way says with its values whether it was good
        if not bool(convert_to_numpy(self._alive)):
            return False
        return bool(self.engine.all_finite([values[place] for place in self._watched()]))

    def _watched(self) -> list[int]:
        """The places of the weights that train and of what the optimizer keeps of them."""
        model, index = self.model, self.state.index
        version = (len(index), model._step_version(), id(model.optimizer))
        if self._places is None or self._places[0] != version:
            own = type(model.optimizer).__module__.startswith("cornu.")
            slots = [v for v in model.optimizer.variables if v.shape] if own else []
            found = [v for v in (*model.trainable_variables, *slots) if v.dtype in dtypes.FLOATS and id(v) in index]
            self._places = (version, [index[id(v)] for v in found])
        return self._places[1]

    # ------------------------------------------------ steps of all kinds

    def _run(self, compiled: Callable[..., Any], call: Callable[[Any], Any]) -> Any:
        """A compiled step's answer; variables that it meets late join the state, and it runs again."""
        for _ in range(_TRIES):
            try:
                return call(self._step(compiled))
            except Late as late:
                self.model._late().extend(late.variables)
                held = self.state.add(late.variables)
                for window in (self._before, self._window):
                    if window is not None:
                        window.joined(held)
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

    def test(self, number: int, batch: Any, shared: bool = False) -> Logs:
        """One step of evaluation; gives its logs, which may still be under way.

        Args:
            number: its number.
            batch: `(x, y, sample_weight)`.
            shared: whether others may write to the batch later.
        """
        self.model._check_values(batch)
        batch = fed(self.engine, batch, later=shared and self._handover is not None)
        found = self._begun(self.model._compiled_test, np.int32(number), batch)
        return (
            self._later(found, self._tested) if type(found) is UnderWay else Logs(self._in_order(self._tested(found)))
        )

    def _tested(self, found: Any) -> Any:
        changed, logs = found
        for place, value in changed.items():
            self.state.put(place, value)
        return logs

    def evaluate(self, source: Source, steps: int | None, callbacks: Any) -> dict[str, Any]:
        """Run all batches of a source through `test`."""
        self.model.reset_metrics()
        vars(self.model)["stop_evaluating"] = False
        callbacks.on_test_begin()
        logs = Logs({})
        for number, batch in enumerate(limited(source.epoch(0), steps)):
            callbacks.on_test_batch_begin(number)
            logs = self.test(number, batch, source.lends)
            callbacks.on_test_batch_end(number, logs)
            if self.model.stop_evaluating:
                break
        read = logs.read()
        callbacks.on_test_end(read)
        return read


class Resident:
    """Steps whose state stays where it is between calls.

    Attributes:
        version: what they hang on.
        runner: the steps.
    """

    def __init__(self, version: Any = None, runner: Runner | None = None) -> None:
        self.version = version
        self.runner = runner

    def resumed(self, version: Any, variables: list[Any]) -> Runner | None:
        """The steps, if they are as they would be made now and nobody else uses them."""
        runner = self.runner
        if runner is None:
            return None
        same = self.version == version and [*map(id, variables)] == [*map(id, runner.state.variables)]
        if same and runner.state.resume():
            return runner
        runner.state.leave()
        return None


def fed(engine: Any, batch: Any, kept: bool = False, later: bool = False) -> Any:
    """A batch's arrays as arguments of one of the engine's compiled functions.

    Args:
        engine: the engine.
        batch: arrays of the host or the engine.
        kept: whether nobody will write to arrays that have memory of their own, so that the engine need not copy them.
        later: whether others may write to arrays before the function has read them: an engine's array may not be fed as
            it is then (one of the host is copied).
    """

    def feed(leaf: Any) -> Any:
        if later and not isinstance(leaf, np.ndarray):
            leaf = _own(leaf)
        if kept and type(leaf) is np.ndarray and leaf.flags.owndata:
            return engine.lend(leaf)
        return None if leaf is None else engine.feed(leaf if hasattr(leaf, "dtype") else np.asarray(leaf))

    return tree.map_structure(feed, batch)


def _own(leaf: Any) -> Any:
    """A batch's array that nobody else can write to."""
    owner = interpreter_of(leaf)
    if owner is not None:
        return leaf if getattr(owner, "immutable", False) else owner.copy(leaf)
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf
