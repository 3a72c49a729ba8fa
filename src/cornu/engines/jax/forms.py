"""The form that a function is compiled in: whole, in parts if it is very long, or with memory in pieces.

What a program needs while it runs is one piece of memory. Of more than 64 MB, all that glibc keeps for a thread that is
not the first (`engines/memory.py`), it comes from the system and goes back to it with each call, each page to be made
anew: a fifth of a ResNet's step, a third of one with larger pictures. In smaller pieces it is kept.
"""

import functools
import math
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any

import jax
from jax.extend import core

from cornu.engines.installed import cores
from cornu.engines.jax import stored
from cornu.engines.jax.compiling import PIECE, is_outermost, jitted
from cornu.engines.jax.parts import InParts, is_long, kind_of
from cornu.engines.memory import KEPT

__all__ = ["Formed"]

_HEAP = 64 << 20  # bytes that glibc keeps for a thread at most
# The function that is being called, of which only arguments of a known kind are expected.
_expected: ContextVar[Any] = ContextVar("cornu_jax_expected", default=None)


class _NewKind(Exception):
    """Arguments are of another kind than those before."""


class Formed:
    """A function under `jax.jit`, in the form that its arguments suggest.

    Args:
        function: of arrays.
        keeps: whether the process keeps memory that is freed.
        given: arguments of `jax.jit`.

    Attributes:
        call: the function; a new one may take its place with each call.
    """

    def __init__(self, function: Callable[..., Any], keeps: bool, **given: Any) -> None:
        def traced(*args: Any) -> Any:
            if _expected.get() is self:
                raise _NewKind
            return function(*args)

        self._traced = traced
        self._given = given
        self._whole = jitted(traced, **given)
        self._keeps = keeps
        self._forms: dict[Hashable, Callable[..., Any]] = {}
        self.call: Callable[..., Any] = self._first

    @functools.cached_property
    def _pieces(self) -> Callable[..., Any]:
        """With memory in pieces; few functions ever need that."""
        form: Callable[..., Any] = jitted(self._traced, in_pieces=True, **self._given)
        return form

    def _first(self, *args: Any) -> Any:
        """The first call."""
        if not is_outermost():
            return self._whole(*args)
        program = self._whole.trace(*args)
        if is_long(program):
            self.call = InParts(self._whole)
        elif self._keeps and _has_pieces(program):
            self.call = self._as_before
            return self._pieces(*args)
        else:
            self.call = self._whole
        return self.call(*args)

    def _as_before(self, *args: Any) -> Any:
        """With memory in pieces, while arguments are of the first kind."""
        token = _expected.set(self)
        try:
            return self._pieces(*args)
        except _NewKind:
            self.call = self._by_kind
        finally:
            _expected.reset(token)
        return self._by_kind(*args)

    def _by_kind(self, *args: Any) -> Any:
        """Each kind of arguments in the form that suits it."""
        if not is_outermost():
            return self._whole(*args)
        kind = kind_of(*jax.tree.flatten(args))
        form = self._forms.get(kind)
        if form is None:
            form = self._forms[kind] = self._pieces if _has_pieces(self._whole.trace(*args)) else self._whole
        return form(*args)


def _has_pieces(traced: Any) -> bool:
    """Whether a program's memory is better in pieces.

    It is where more is needed than glibc keeps for a thread, and no more than the process may keep if each thread does.
    No array is larger than a piece: of each that is, XLA would tell the user. And what is compiled is not stored: XLA
    (jaxlib 0.10) cannot, what has pieces.

    Args:
        traced: what `jax.jit(...).trace(...)` gave.
    """
    if jax.default_backend() != "cpu" or stored.is_on():
        return False
    most, largest = _needs(traced.jaxpr.jaxpr)
    return _HEAP < most <= KEPT // cores() and largest <= PIECE


def _needs(program: Any) -> tuple[int, int]:
    """Bytes that are held at once, by an estimate, and those of the largest array.

    Between half and twice of what XLA finds, which does not make some arrays.
    """
    lasts = {var: number for number, equation in enumerate(program.eqns) for var in equation.invars if _is_made(var)}
    lasts |= {var: len(program.eqns) for var in program.outvars if _is_made(var)}
    held = most = largest = 0
    sizes: dict[Any, int] = {}
    for number, equation in enumerate(program.eqns):
        inner = [_needs(part) for part in core.jaxprs_in_params(equation.params)]
        sizes |= {var: _size(var.aval) for var in equation.outvars}
        held += sum(sizes[var] for var in equation.outvars)
        most = max(most, held + max((part for part, _ in inner), default=0))
        largest = max([largest, *(sizes[var] for var in equation.outvars), *(part for _, part in inner)])
        for var in {var for var in (*equation.invars, *equation.outvars) if _is_made(var)}:
            if lasts.get(var, number) == number:
                held -= sizes.pop(var, 0)
    return most, largest


def _is_made(var: Any) -> bool:
    return not isinstance(var, core.Literal)


def _size(aval: Any) -> int:
    """Bytes of an array; 0 where they depend on arguments."""
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    if dtype is None or not all(isinstance(size, int) for size in shape):
        return 0
    return math.prod(shape) * int(dtype.itemsize)
