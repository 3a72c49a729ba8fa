"""`engine="auto"`: measure the engines on this model, batch and machine, and keep the fastest.

Each engine takes a few real steps (compiled, fed and run as in `fit`) on copies of the model's values; nothing the
user can see changes. What was found is kept for the process and, in a file, for others; the choice is made from it
anew for each call, since a compiler that pays for a thousand steps does not for ten; but in the process that has
measured, the engine of the fastest step has compiled it.
"""

import contextlib
import gc
import math
import platform
import random as _python
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from cornu import random
from cornu.core import tree
from cornu.engines import cache
from cornu.engines import registry as engines
from cornu.engines.auto import Auto
from cornu.engines.installed import engine_versions, machine, threads
from cornu.engines.versions import version_of
from cornu.layers._native import Native, bound_engine
from cornu.training.data import Source
from cornu.training.fingerprint import batch_of, fingerprint, key_of
from cornu.training.report import EVER, Report
from cornu.training.trial import OutOfTime, Trial, Work, variables_of

__all__ = ["calls_to_come", "is_asked", "settle"]

# How many steps a call is taken to have where nobody knows.
_USUAL_STEPS = 1000
# For how long the steady steps of an engine are timed at least, in seconds, if they are short.
_WINDOW = 0.3
# How many times as long as the fastest an engine may take to be given turns, and to go on after the second.
_MAY_WIN, _CLOSE = 1.7, 1.2
# How many turns, and how often an engine is timed in one.
_TURNS, _IN_TURN = 5, 3
# One thing is measured at a time.
_lock = threading.Lock()


def settle(model: Any, name: Any, engine: Any, kind: str, batch: Any, source: Source | None, epochs: int = 1) -> Any:
    """The engine for a call of a model: the one found so far, unless it is to be measured.

    Args:
        model: the model, whose variables are made.
        name: what the call names as engine.
        engine: the engine found so far.
        kind: the step: `"train"`, `"test"` or `"predict"`.
        batch: the first batch, `(x, y, sample_weight)`.
        source: where the batches come from; `None` for a call of one batch.
        epochs: how often they come.

    Raises:
        Exception: the first engine's, if none can do the step.
    """
    auto = _wanted(model, name)
    if auto is None:
        return engine
    work = Work(model, kind, batch, source is None and kind != "predict")
    if source is not None:
        return engines.get(_settled(work, auto, source, epochs)[0])
    # Calls of one batch are many, and short.
    arrays = tuple([None if leaf is None else (leaf.shape, leaf.dtype) for leaf in tree.leaves(batch)])
    key = ("settled", kind, model._step_version(), auto.budget, auto.engines and tuple(auto.engines), arrays)
    known = model._cache.get(key)
    if known is None or not known[1]:
        chosen, report = _settled(work, auto, None, epochs)
        known = [engines.get(chosen), math.inf if report is None else report.stays(chosen, _USUAL_STEPS)]
        model._cache[key] = known
    else:
        known[1] -= 1
    return known[0]


def _settled(work: Work, auto: Auto, source: Source | None, epochs: int) -> tuple[str, Report | None]:
    """The name of the engine for a call, and the report that it was chosen by, if there was a choice."""
    names = auto.candidates()
    if len(names) == 1:
        return names[0], None
    per_epoch = None if source is None else source.num_batches
    steps = _USUAL_STEPS if per_epoch is None else max(1, per_epoch * epochs)
    rows, size = (None, None) if source is None else (source.num_rows, source.batch_size)
    ragged = bool(rows and size and rows > size and rows % size)
    report = _report_for(work, auto, names, steps)
    chosen = report.choose(steps, 2 if ragged else 1)
    report.tell(chosen, steps)
    return chosen, report


def calls_to_come(model: Any, name: Any, engine: Any, kind: str, source: Source) -> float:
    """For how many more calls like one that was settled its engine stays the best; arguments as for `settle`.

    They count as done.
    """
    auto = _wanted(model, name)
    if auto is None or len(names := auto.candidates()) == 1:
        return math.inf
    work = Work(model, kind, source.peek(), False)
    return _report_for(work, auto, names, EVER).stays(engine.name, source.num_batches or 1)


def is_asked(model: Any, name: Any) -> bool:
    """Whether a call that names this (or no) engine is to measure."""
    return _wanted(model, name) is not None


def _wanted(model: Any, name: Any) -> Auto | None:
    """The `Auto` that a call asks for; `None` if it has an engine, or its layers allow one alone."""
    asked = name or model._compile_engine or engines.auto_in_force()
    if not engines.is_auto(asked) or (Native.count and bound_engine(model._flatten_layers()) is not None):
        return None
    if any(variable.holder is not None and not variable.holder.idle for variable in model._all_variables()[:1]):
        return None  # a callback's call, within a loop that has its engine
    return asked if isinstance(asked, Auto) else Auto()


def _report_for(work: Work, auto: Auto, names: list[str], steps: int) -> Report:
    """What is known of the engines on this step: kept by the model, remembered in a file, or measured now."""
    model, kind = work.model, work.kind
    shapes = batch_of(work.batch)
    structure, kept = model._structure(variables_of(model, kind))
    known = ("auto", kind, work.prompt, model.run_eagerly, model._guard, key_of([shapes, names, threads()]), structure)
    found = model._cache.get(known)
    if found is not None and not found[0].wants_more(auto.budget):
        report: Report = found[0]
        return report
    what = {"batch": shapes, "prompt": work.prompt, "engines": names, "versions": _versions(), "machine": machine()}
    key = key_of([what, fingerprint(model, kind), threads()])
    remembered = Report.from_record(cache.read(key), names)
    if remembered is None or remembered.wants_more(auto.budget):
        with _lock:
            remembered = _measure(work, auto, names, steps)
        remembered.remember(key, {"kind": kind, **what})
    else:
        remembered.path = cache.path_of(key)
    model._cache[known] = (remembered, kept)
    return remembered


def _versions() -> dict[str, str | None]:
    others = {name: version_of(name) for name in ("cornu", "jaxlib")}
    return {"python": platform.python_version(), **others, **engine_versions()}


def _measure(work: Work, auto: Auto, names: list[str], steps: int) -> Report:
    """Time all engines, as far as the budget goes."""
    model = work.model
    report = Report(names, auto.budget)
    end = time.monotonic() + auto.budget
    before = set(model._cache)
    errors: list[Exception] = []
    with _undisturbed(model):
        for name in names:
            if time.monotonic() < end or not report.times:
                _quiet()
                try:
                    with np.errstate(all="ignore"):
                        _time(work, engines.get(name), steps, end, report)
                except OutOfTime as late:
                    report.slower[name] = late.seconds
                except Exception as error:
                    report.failed[name] = _in_short(error)
                    errors.append(error)
        if not report.times:
            raise errors[0]
        _in_turns(work, end, report)
    chosen = report.choose(EVER)  # here and now all have compiled
    for key in set(model._cache) - before:
        # The steps of the others are not needed again; "late" and "structure" are no steps.
        if isinstance(key, tuple) and key[0] == work.kind and key[1] != chosen:
            del model._cache[key]
    report.warm = {chosen}
    return report


def _time(work: Work, engine: Any, steps: int, end: float, report: Report) -> None:
    """Time one engine: its first step, then steady ones, fewer if it cannot win."""
    best = report.best_total(steps)
    trial = Trial(work, engine)
    compiles = engine.traces and not work.model.run_eagerly
    # What has nothing to compile, and takes longer for one step than another for compiling and one step, never wins.
    patience = math.inf if compiles else 2 * report.best_total(1) + 0.1
    now = time.monotonic()
    first = trial.first(min(now + patience, max(end, now + 1.0)) if report.times else math.inf)
    # PyTorch runs a step twice op by op and traces it at the third call.
    more = [trial.timed(1), trial.timed(1)] if compiles else [trial.timed(1)]
    count = trial.count(min(more))
    samples: list[float] = []
    start = time.monotonic()
    while len(samples) < 5 or (len(samples) < 25 and time.monotonic() - start < _WINDOW):
        samples.append(trial.timed(count))
        hopeless = first + min(samples) * steps > 1.5 * best and min(samples) > 1.5 * report.best_step()
        # The first step after a trace may still prepare what later ones keep.
        if (hopeless and len(samples) > compiles) or (time.monotonic() > end and len(samples) > 2):
            break
    step = statistics.median(samples)
    report.times[engine.name] = (max(0.0, first + sum(more) - 3 * step) if compiles else 0.0, step)
    report.samples[engine.name] = samples


def _in_turns(work: Work, end: float, report: Report) -> None:
    """Time the engines that may be the fastest in turns, so that what disturbs one disturbs all.

    What disturbs makes steps longer, for seconds at times: each turn counts by its shortest time, and an engine by
    what most of its turns are above.
    """
    best = min(map(min, report.samples.values()))
    names = [name for name in report.names if min(report.samples.get(name, [math.inf])) <= _MAY_WIN * best]
    turns: dict[str, list[float]] = {name: [] for name in names}
    while len(names) > 1 and max(map(len, turns.values())) < _TURNS and time.monotonic() < end:
        for name in names:
            _quiet()
            trial = Trial(work, engines.get(name))
            count = trial.count(trial.timed(1))
            taken = [trial.timed(count) for _ in range(_IN_TURN)]
            report.samples[name] += taken
            turns[name].append(min(taken))
        if len(turns[names[0]]) > 1:
            best = min(map(min, turns.values()))
            names = [name for name in names if min(turns[name]) <= _CLOSE * best]
        names = [*names[1:], names[0]]
    for name, shortest in turns.items():
        if len(shortest) > 1:
            report.times[name] = report.times[name][0], sorted(shortest)[len(shortest) // 4]
            report.in_turns.add(name)


def _quiet() -> None:
    """Wait until no engine's threads are at work: some pools spin for a while when they have nothing to do."""
    gc.collect()
    for _ in range(20):
        used = time.process_time()
        time.sleep(0.02)
        if time.process_time() - used < 0.004:
            return


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Leave every generator of random numbers, and the model's own flags, as they were."""
    flags = {name: vars(model)[name] for name in ("stop_training", "stop_evaluating", "stop_predicting")}
    python, host, drawn = _python.getstate(), np.random.get_state(), random._process.drawn
    try:
        yield
    finally:
        _python.setstate(python)
        np.random.set_state(host)
        random._process.drawn = drawn
        vars(model).update(flags)


def _in_short(error: Exception) -> str:
    """An error in one short line."""
    lines = str(error).strip().splitlines()
    text = " ".join(lines[0].split()) if lines else ""
    return f"{type(error).__name__}: {text[:100]}{'...' if len(text) > 100 else ''}".removesuffix(": ")
