"""Steps that watch every op: besides its results, such a step gives whether each op gave finite numbers.

It is on in a block of `cornu.inspect.nan_guard`; a step made outside of one knows nothing of it. Whether all was finite
is a boolean that the step carries as it carries any variable that is assigned: out of gradients too, and compiled.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.variable import Variable
from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops import reduction as _r
from cornu.ops._declare import Op, dtype_of

__all__ = ["Collector", "apart", "is_on", "mode", "watch_every_op"]

_mode: ContextVar[str | None] = ContextVar("cornu_every_op", default=None)


def mode() -> str | None:
    """What steps made here watch for: `"finite"` (NaN and infinities), `"nan"`, or `None` for nothing."""
    return _mode.get()


def is_on() -> bool:
    """Whether steps made here watch every op."""
    return _mode.get() is not None


@contextlib.contextmanager
def watch_every_op(mode: str) -> Iterator[None]:
    """Let the steps of this block watch every op, for `"finite"` or `"nan"`."""
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Run in this block without those who look at values: a compiled step has none yet."""
    watcher, back = context.watcher.set(None), context.way_back.set(None)
    calls, by_tape = context.on_call.set(None), context.by_tape.set(False)
    loops = context.unroll.set(False)
    try:
        yield
    finally:
        context.unroll.reset(loops)
        context.by_tape.reset(by_tape)
        context.on_call.reset(calls)
        context.way_back.reset(back)
        context.watcher.reset(watcher)


class Collector:
    """Watches the ops of a step.

    Args:
        mode: `"finite"` to watch for NaN and infinities, `"nan"` for NaN alone.

    Attributes:
        flag: whether every op so far gave finite numbers for finite numbers; the step binds it.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.flag = Variable(np.array(True), trainable=False, autocast=False, name="finite")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch in this block."""
        token, flag = context.watcher.set(self._see), context.flag.set(self.flag)
        try:
            yield
        finally:
            context.flag.reset(flag)
            context.watcher.reset(token)

    def good(self, result: Any) -> Any:
        """Whether every op was good, and the results of the step are."""
        good = _none(result, _e.isnan) if self.mode == "nan" else all_finite(result)
        return _a.logical_and(self.flag.value, good)

    def _see(self, op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> None:
        scope = context.bindings.get()
        if scope is None or id(self.flag) not in scope.values:
            return
        if op.family in ("creation", "movement") or not _floats(result):
            return
        token = context.watcher.set(None)
        try:
            good = _unless(_none(result, _e.isnan), _none(arrays, _e.isnan))
            if self.mode == "finite":
                good = _a.logical_and(good, _unless(all_finite(result), all_finite(arrays)))
            self.flag.assign(_a.logical_and(self.flag.value, good))
        finally:
            context.watcher.reset(token)


def _unless(good: Any, before: Any) -> Any:
    """Whether a result is good, or what it was made from was not."""
    return _a.logical_or(good, _e.logical_not(before))


def _floats(values: Any) -> list[Any]:
    leaves = (np.asarray(leaf, "float32") if type(leaf) is float else leaf for leaf in tree.leaves(values))
    return [leaf for leaf in leaves if hasattr(leaf, "dtype") and dtype_of(leaf) in ("float", *dtypes.FLOATS)]


def _none(values: Any, kind: Any) -> Any:
    """Whether no element of the floats in a structure is of a kind."""
    found: Any = np.array(False)
    for leaf in _floats(values):
        found = _a.logical_or(found, _r.any(kind(leaf)))
    return _e.logical_not(found)


def all_finite(values: Any) -> Any:
    """Whether all floats in a structure are finite."""
    good: Any = np.array(True)
    for leaf in _floats(values):
        good = _a.logical_and(good, _r.all(_e.isfinite(leaf)))
    return good
