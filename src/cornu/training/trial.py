"""A few steps of one engine on copies of a model's values, timed."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.variable import Variable
from cornu.training.forward import NUMBER, direct
from cornu.training.loop import Runner, fed
from cornu.training.state import State

__all__ = ["OutOfTime", "Trial", "Work", "variables_of"]

# Steps that are taken at a stretch at most.
_MOST = 8


class Work(NamedTuple):
    """What is timed.

    Attributes:
        model: the model, whose variables are made.
        kind: the step: `"train"`, `"test"` or `"predict"`.
        batch: the batch for all steps.
        prompt: whether the logs of a step are read before the next begins, as by calls of one batch.
    """

    model: Any
    kind: str
    batch: Any
    prompt: bool


class OutOfTime(BaseException):
    """A step ran past its deadline. No `Exception`, for engines fall back to other ways on those.

    Attributes:
        seconds: how long it ran.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.3f} s")
        self.seconds = seconds


class _Copies(State):
    """Values of variables that the variables themselves do not know of."""

    def add(self, variables: list[Variable]) -> list[Any]:
        """Take in copies of more variables."""
        with context.use_engine(self.engine):
            for variable in variables:
                self.values.append(self.own(_stand_in(variable)))
                self.index[id(variable)] = len(self.variables)
                self.variables.append(variable)
        return self.values[-len(variables) :]


def _stand_in(variable: Variable) -> Any:
    """A variable's value, or one like it where nobody has looked yet and it is still to be drawn."""
    if variable.initialized or variable.holder is not None or variable.home is not None:
        return variable.stored()
    value = np.zeros(variable.shape, dtypes.numpy_dtype(variable.dtype))
    if variable.trainable and variable.ndim > 1 and variable.dtype in dtypes.FLOATS:
        drawn = np.random.default_rng(0).standard_normal(variable.shape, "float32")
        value = (drawn / np.sqrt(max(1, variable.size // variable.shape[-1]))).astype(value.dtype)
    return value


def variables_of(model: Any, kind: str) -> list[Variable]:
    """The variables that a step of a kind is given."""
    return [*model._steady_variables(), *model._late()] if kind == "predict" else model._all_variables()


class Trial:
    """One engine at work on copies of a model's values.

    Args:
        work: the step.
        engine: the engine.
    """

    def __init__(self, work: Work, engine: Any) -> None:
        self.work = work
        self.engine = engine
        self.state = _Copies([], engine, reused=True)
        with context.use_engine(engine):
            self.state.add(variables_of(work.model, work.kind))
            self.runner = Runner(work.model, engine, self.state, guarded=False)
        self._direct: Callable[[Any], Any] | None = None

    def _step(self) -> Any:
        """One step, as the loop takes it; its results may still be under way."""
        model, kind, batch, prompt = self.work
        if kind == "predict":
            return tree.map_structure(self.engine.to_host, self._predict())
        logs = self.runner.train(model._step_number, batch) if kind == "train" else self.runner.test(0, batch)
        return logs.read() if prompt else logs.unread, self.state.values[-1:]

    def _predict(self) -> Any:
        """The outputs: from the second step on in the way in which `predict` answers what it has met before."""
        if self._direct is not None:
            return self._direct(tree.map_structure(self.engine.lend, self.work.batch[0]))
        batch = fed(self.engine, self.work.batch)
        found: list[Any] = []

        def call(step: Any) -> Any:
            found[:] = [step]
            return step(self.state.values, NUMBER, batch)

        changed, outputs = self.runner._run(self.work.model._compiled_predict, call)
        if not changed:
            self._direct = direct(found[0], self.state.values, batch)(self.state.values)
        return outputs

    def timed(self, count: int) -> float:
        """Seconds per step, over so many steps at a stretch (at most 8)."""
        with context.use_engine(self.engine):
            start = time.perf_counter()
            for _ in range(count):
                result = self._step()
            for leaf in tree.leaves(result):
                if self.engine.owns(type(leaf)):
                    self.engine.wait(leaf)
            seconds = (time.perf_counter() - start) / count
        return seconds

    def first(self, deadline: float) -> float:
        """Seconds of the first step, which compiles.

        Args:
            deadline: when (of `time.monotonic`) it is given up; looked at after each op only.

        Raises:
            OutOfTime: if it was given up.
        """
        start = time.monotonic()

        def watch(*_: Any) -> None:
            now = time.monotonic()
            if now > deadline:
                raise OutOfTime(now - start)

        token = context.watcher.set(watch)
        try:
            return self.timed(1)
        finally:
            context.watcher.reset(token)

    @staticmethod
    def count(seconds: float) -> int:
        """How many steps of this length to take at a stretch, so that the clock's grain does not count."""
        return max(1, min(_MOST, int(0.05 / max(seconds, 1e-6))))
