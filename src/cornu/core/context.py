"""What is in force around a computation: the engine, the values variables are bound to, the compute dtype.

All are context variables: each thread and each `with` block has its own.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["abstract", "autocast", "bind", "engine_in_force", "is_abstract", "use_engine"]

_engine: ContextVar[Any] = ContextVar("cornu_engine", default=None)
_abstract: ContextVar[bool] = ContextVar("cornu_abstract", default=False)
autocast_dtype: ContextVar[str | None] = ContextVar("cornu_autocast", default=None)
# Whether loops run as Python loops (a tape records them; a watcher sees every step).
unroll: ContextVar[bool] = ContextVar("cornu_unroll", default=False)
# Whether gradients are taken by the tape, whose values can be looked at, even where the engine has its own way.
by_tape: ContextVar[bool] = ContextVar("cornu_by_tape", default=False)
# Told of every op an engine computes: (op, arrays, static, result); of what happens in an engine's own loop, nothing.
watcher: ContextVar[Callable[[Any, Any, Any, Any], None] | None] = ContextVar("cornu_watcher", default=None)
# Told of every primitive on Specs: (op, arrays, static, result).
on_spec: ContextVar[Callable[[Any, Any, Any, Any], None] | None] = ContextVar("cornu_on_spec", default=None)
# Told of every call of a layer that ends: (call, outputs).
on_call: ContextVar[Callable[[Any, Any], None] | None] = ContextVar("cornu_on_call", default=None)
# Told of every node of a graph that has run: (plan, node, result).
on_node: ContextVar[Callable[[Any, Any, Any], None] | None] = ContextVar("cornu_on_node", default=None)
# The innermost tape that records, which a function that is computed again on the way back is to be noted by.
tape: ContextVar[Any] = ContextVar("cornu_tape", default=None)
# A variable in which the watcher keeps what it knows; a layer's loop carries it on, so that it may watch in there.
flag: ContextVar[Any] = ContextVar("cornu_flag", default=None)
# Told of every primitive a tape goes back through: (op, result, the result's gradient, an argument's gradient).
way_back: ContextVar[Callable[[Any, Any, Any, Any], None] | None] = ContextVar("cornu_way_back", default=None)
# Told when the elements of an engine's value are looked at on the host.
on_look: ContextVar[Callable[[], None] | None] = ContextVar("cornu_on_look", default=None)
# Told of every trainable variable that is read while bound to a value (for an engine's own autodiff).
on_read: ContextVar[Callable[[Any], None] | None] = ContextVar("cornu_on_read", default=None)
# Which step of training is computed (an int32 scalar, which may be traced); `None` outside of one.
step: ContextVar[Any] = ContextVar("cornu_step", default=None)
bindings: ContextVar["Bindings | None"] = ContextVar("cornu_bindings", default=None)

# Finds the default engine when none is in force, and an engine by name; set by `cornu.engines`.
default_engine: Callable[[], Any] = lambda: None
find_engine: Callable[[str], Any] = lambda name: None


def engine_in_force() -> Any:
    """The engine that computes host data and creates arrays here and now."""
    return _engine.get() or default_engine()


def chosen_engine() -> Any:
    """The engine that a block put in force here, or `None`."""
    return _engine.get()


class Block:
    """A block in which a context variable has a value; half the time of a generator's, which ops feel."""

    __slots__ = ("token", "value", "variable")

    def __init__(self, variable: ContextVar[Any], value: Any) -> None:
        self.variable = variable
        self.value = value

    def __enter__(self) -> Any:
        self.token = self.variable.set(self.value)
        return self.value

    def __exit__(self, *error: object) -> None:
        self.variable.reset(self.token)


def use_engine(engine: Any) -> Block:
    """Put an engine (the object) in force for a block."""
    return Block(_engine, engine)


def watched_by(told: Callable[[Any, Any, Any, Any], None] | None) -> Block:
    """Let ops of a block be told to this watcher (`None`: to nobody)."""
    return Block(watcher, told)


def is_abstract() -> bool:
    """Whether shapes are being inferred: ops without array arguments give Specs."""
    return _abstract.get()


def abstract(on: bool = True) -> Block:
    """Infer shapes in this block: variables read as Specs, ops without arguments give Specs."""
    return Block(_abstract, on)


def autocast(dtype: str | None) -> Block:
    """Read float variables in this dtype within the block (`None`: as they are)."""
    return Block(autocast_dtype, dtype)


class Bindings:
    """Values that stand for variables within a block; what is assigned in the block lands here.

    Attributes:
        values: id of a variable -> its value in this block.
        assigned: the variables written to, in order.
        missed: the variables read that are bound to nothing, in order; blocks inside share it.
    """

    __slots__ = ("assigned", "missed", "values")

    def __init__(self, values: dict[int, Any], missed: dict[int, Any] | None = None) -> None:
        self.values = values
        self.assigned: dict[int, Any] = {}
        self.missed: dict[int, Any] = {} if missed is None else missed


@contextlib.contextmanager
def bind(variables: list[Any], values: list[Any]) -> Iterator[Bindings]:
    """Bind variables to values for a block, on top of what is bound already.

    Args:
        variables: the variables.
        values: one engine value (or Spec) for each.
    """
    outer = bindings.get()
    merged = dict(outer.values) if outer is not None else {}
    merged.update((id(variable), value) for variable, value in zip(variables, values, strict=True))
    scope = Bindings(merged, outer.missed if outer is not None else None)
    token = bindings.set(scope)
    try:
        yield scope
    finally:
        bindings.reset(token)
