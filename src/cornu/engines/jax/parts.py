"""Very long programs on a CPU, compiled in parts.

XLA compares each kernel of a program with each other, to find out what may run at once: a training step of 2,000 small
layers takes fourteen times as long to compile as one of 500, and one of 10,000 had not been compiled after ten minutes.
In parts it takes as long as the parts do, and parts that are equal, as in a chain of equal layers, are compiled once.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import Any

import jax
import numpy as np
from jax.extend import core

from cornu.engines.jax.compiling import is_outermost, options

__all__ = ["InParts", "is_long", "kind_of"]

# Equations. Divided by every number to ten, so that chains of equal layers are cut at equal places.
PART = 2_520
_LONG = 20_000
# Results that an equation of an update leads to: a variable, and what an optimizer remembers of it.
_FEW = 4


def is_long(traced: Any) -> bool:
    """Whether a program is better compiled in parts.

    Args:
        traced: what `jax.jit(...).trace(...)` gave.
    """
    program = traced.jaxpr
    return jax.default_backend() == "cpu" and len(program.eqns) > _LONG and not program.effects


def kind_of(values: list[Any], structure: Any) -> Hashable:
    """What tells arguments, as leaves and structure, from others that are compiled for anew."""
    return structure, tuple([getattr(value, "aval", None) or jax.typeof(value) for value in values])


class InParts:
    """A function that is compiled in parts, for each kind of arguments.

    Args:
        whole: the function under `jax.jit`, or what serves as that, with its `trace`.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._programs: dict[Hashable, _Program] = {}

    def __call__(self, *args: Any) -> Any:
        if not is_outermost():
            return self._whole(*args)
        values, structure = jax.tree.flatten(args)
        key = kind_of(values, structure)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = _Program(self._whole.trace(*args))
        return program(values)


class _Part:
    """Some equations of a program as a function.

    Attributes:
        call: the function, compiled.
        reads: places of what it takes.
        writes: places of what it gives.
        drops: places of what nobody reads after it.
    """

    def __init__(self, call: Callable[..., Any], reads: list[int], writes: list[int], drops: list[int]) -> None:
        self.call = call
        self.reads = reads
        self.writes = writes
        self.drops = drops


class _Program:
    """A program in parts; its values lie in one list.

    Args:
        traced: the program.
    """

    def __init__(self, traced: Any) -> None:
        program = traced.jaxpr
        inner = program.jaxpr
        equations = _in_order(inner)
        cuts = [equations[start : start + PART] for start in range(0, len(equations), PART)]
        given = [*inner.constvars, *inner.invars]
        places = dict(zip(given, count(), strict=False))
        lasts = _last_reads(cuts, inner.outvars)
        gone = [False] * len(inner.constvars) + [leaf.donated for leaf in jax.tree.leaves(traced.args_info)]
        kept = {var for var, is_gone in zip(given, gone, strict=True) if not is_gone}
        known: dict[Hashable, Callable[..., Any]] = {}
        self.parts: list[_Part] = []
        for number, cut in enumerate(cuts):
            reads, writes = _ends(cut, number, lasts)
            drops = [var for var in reads if lasts[var] == number and var not in kept]
            spent = _spent(drops, writes)
            first = set(spent)
            reads = [*spent, *(var for var in reads if var not in first)]
            key = _key(cut, reads, writes, len(spent))
            call = known.get(key)
            if call is None:
                part = inner.replace(constvars=[], invars=reads, outvars=writes, eqns=cut)
                call = known[key] = _compiled(core.ClosedJaxpr(part, []), len(spent))
            for var in writes:
                places[var] = len(places)
            self.parts.append(_Part(call, *([places[var] for var in some] for some in (reads, writes, drops))))
        self._constants = list(program.consts)
        self._size = len(places)
        # The place of each result, or the constant that it is.
        self._results = [
            (None, jax.numpy.asarray(var.val, getattr(var.aval, "dtype", None)))
            if isinstance(var, core.Literal)
            else (places[var], None)
            for var in inner.outvars
        ]
        self._structure = jax.tree.structure(traced.out_info)

    def __call__(self, values: list[Any]) -> Any:
        """The program's results for the leaves of its arguments."""
        held = [*self._constants, *values]
        held += [None] * (self._size - len(held))
        values.clear()
        for part in self.parts:
            taken = [held[place] for place in part.reads]
            for place in part.drops:
                held[place] = None
            for place, made in zip(part.writes, part.call(*taken), strict=True):
                held[place] = made
        found = [constant if place is None else held[place] for place, constant in self._results]
        return jax.tree.unflatten(self._structure, found)


def _compiled(part: Any, spent: int) -> Callable[..., Any]:
    return jax.jit(core.jaxpr_as_fun(part), donate_argnums=tuple(range(spent)), compiler_options=options())


def _in_order(program: Any) -> list[Any]:
    """The equations that count, those of few results (a variable's update) where what they need has been made.

    A gradient then is used in the part that makes it, and not handed on to another.
    """
    equations = program.eqns
    makers = {var: number for number, equation in enumerate(equations) for var in equation.outvars}
    needs = [[makers[var] for var in _variables(equation.invars) if var in makers] for equation in equations]
    # Which results an equation leads to; `None`: many.
    leads: list[set[int] | None] = [set() for _ in equations]
    for number, var in enumerate(program.outvars):
        if not isinstance(var, core.Literal) and var in makers:
            _lead(leads, makers[var], {number})
    for number in reversed(range(len(equations))):
        for maker in needs[number]:
            _lead(leads, maker, leads[number])
    places = list(range(len(equations)))
    for number, found in enumerate(leads):
        if found is not None:
            places[number] = max((places[maker] for maker in needs[number]), default=-1)
    users: list[int] = [len(equations)] * len(equations)
    for number in reversed(range(len(equations))):
        if places[number] < 0:  # of arguments alone: where it is used
            places[number] = users[number]
        if leads[number] != set():
            for maker in needs[number]:
                users[maker] = min(users[maker], places[number])
    counts = [number for number, found in enumerate(leads) if found != set()]
    return [equations[number] for number in sorted(counts, key=lambda number: (places[number], number))]


def _lead(leads: list[set[int] | None], maker: int, more: set[int] | None) -> None:
    known = leads[maker]
    if known is not None and more is not None:
        known = known | more
    leads[maker] = None if known is None or more is None or len(known) > _FEW else known


def _variables(operands: Sequence[Any]) -> list[Any]:
    return [var for var in operands if not isinstance(var, core.Literal)]


def _last_reads(cuts: Sequence[Any], results: Sequence[Any]) -> dict[Any, int]:
    """The number of the last part that reads a variable; that after the last for the program's results."""
    found: dict[Any, int] = {}
    for number, equations in enumerate(cuts):
        for equation in equations:
            found.update((var, number) for var in _variables(equation.invars))
    found.update((var, len(cuts)) for var in _variables(results))
    return found


def _ends(equations: Sequence[Any], number: int, lasts: dict[Any, int]) -> tuple[list[Any], list[Any]]:
    """What a part takes, in the order in which it is read, and what it makes for others."""
    made: set[Any] = set()
    reads: dict[Any, None] = {}
    for equation in equations:
        reads.update((var, None) for var in _variables(equation.invars) if var not in made)
        made.update(equation.outvars)
    writes = [var for equation in equations for var in equation.outvars if lasts.get(var, -1) > number]
    return list(reads), writes


def _spent(drops: list[Any], writes: list[Any]) -> list[Any]:
    """Those of the values that nobody reads any more whose memory a result can take."""
    room = Counter((var.aval.shape, var.aval.dtype) for var in writes)
    found = []
    for var in drops:
        kind = var.aval.shape, var.aval.dtype
        if room[kind] > 0:
            room[kind] -= 1
            found.append(var)
    return found


def _key(equations: Sequence[Any], reads: list[Any], writes: list[Any], spent: int) -> Hashable:
    """Equal for parts that compute the same: variables are named in the order in which they come."""
    names = dict(zip(reads, count(), strict=False))
    found: list[Hashable] = []
    for equation in equations:
        operands = tuple([_operand(var, names) for var in equation.invars])
        for var in equation.outvars:
            names[var] = len(names)
        found.append((equation.primitive, _static(equation), equation.ctx, operands))
    return spent, tuple(var.aval for var in reads), tuple(found), tuple(names[var] for var in writes)


def _operand(var: Any, names: dict[Any, int]) -> Hashable:
    # By bytes: zero is equal to minus zero.
    return (var.aval, np.asarray(var.val).tobytes()) if isinstance(var, core.Literal) else names[var]


def _static(equation: Any) -> Hashable:
    """What an equation says besides operands; itself, which is equal to no other, where that cannot be compared."""
    params = equation.params
    # Floats by what they say: zero is equal to minus zero.
    found = tuple(
        [(name, repr(params[name]) if type(params[name]) is float else params[name]) for name in sorted(params)]
    )
    try:
        hash(found)
    except TypeError:
        return equation
    return found
