"""Sizes that are not known yet: named symbols with exact integer arithmetic.

A `Dim` is a polynomial with integer coefficients over atoms. An atom is a named unknown (`batch`,
`tokens.1`) or an operation that does not reduce (`floordiv`, `mod`, `max`, `min`, `broadcast`). Equal
expressions are equal objects whatever way they were built, so `2*t - t == t`. Two different unknowns are never
taken for equal.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from cornu.core.errors import ShapeError

__all__ = ["BATCH", "Dim", "Size", "evaluate", "is_known", "keras_shape", "known", "shape_text", "substitute"]

Monomial: TypeAlias = tuple[Any, ...]


def _broadcast(a: int, b: int) -> int:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    raise ShapeError(f"sizes {a} and {b} do not broadcast", "equal sizes, or one of them 1")


def _exact_division(a: int, b: int) -> int:
    if b == 0 or a % b:
        raise ShapeError(f"a size of {a} cannot be divided into parts of {b}", f"a multiple of {b}")
    return a // b


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
    "broadcast": _broadcast,
    "exact": _exact_division,
}


class Dim:
    """An unknown size, or an integer expression over unknown sizes; shown as `None`, as Keras shows it.

    Args:
        name: the unknown's name.

    Example:
        >>> t = Dim("time")
        >>> (2 * t + 1 - t).expression
        'time + 1'
        >>> (t, 3) == (None, 3)
        True
        >>> t == Dim("other")
        False
    """

    __slots__ = ("_hash", "_terms", "_text")
    _terms: dict[Monomial, int]
    _text: str | None

    def __init__(self, name: str) -> None:
        self._terms = {(("name", name),): 1}
        self._hash = hash(frozenset(self._terms.items()))
        self._text = name

    @staticmethod
    def _of(terms: dict[Monomial, int], kind: "type[Dim] | None" = None) -> "Size":
        terms = {monomial: factor for monomial, factor in terms.items() if factor}
        if not terms:
            return 0
        if len(terms) == 1 and () in terms:
            return terms[()]
        dim = Dim.__new__(kind or Dim)
        dim._terms = terms
        dim._hash = hash(frozenset(terms.items()))
        dim._text = None
        return dim

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (list(self._terms.items()),)

    @staticmethod
    def operation(kind: str, a: "Size", b: "Size") -> "Size":
        """An operation that does not reduce to a polynomial: one of `floordiv mod max min broadcast exact`."""
        if not isinstance(a, Dim) and not isinstance(b, Dim):
            return _OPERATIONS[kind](a, b)
        if a == b and kind in ("max", "min", "broadcast"):
            return a
        if kind == "broadcast":
            if not isinstance(a, Dim) or not isinstance(b, Dim):
                number, other = (b, a) if isinstance(a, Dim) else (a, b)
                return other if number == 1 else number
            a, b = sorted((a, b), key=lambda dim: dim.expression)
        if kind in ("floordiv", "exact", "mod"):
            quotient = _divide(a, b)
            if quotient is not None:
                return 0 if kind == "mod" else quotient
        return Dim._of({((kind, a, b),): 1}, _kind(a, b))

    @property
    def expression(self) -> str:
        """The expression in words of its unknowns."""
        for dim in _innermost_first(self, lambda dim: dim._text is None):
            dim._text = _text_of(dim)
        assert self._text is not None
        return self._text

    def unknowns(self) -> set[str]:
        """The names of all unknowns in the expression."""
        names: set[str] = set()
        pending: list[Any] = [self]
        while pending:
            dim = pending.pop()
            if isinstance(dim, Dim):
                for monomial in dim._terms:
                    for atom in monomial:
                        if atom[0] == "name":
                            names.add(atom[1])
                        else:
                            pending.extend(atom[1:])
        return names

    def evaluate(self, values: Mapping[str, "Size"]) -> "Size":
        """The expression with its unknowns replaced; those without a value stay."""
        known: dict[int, Size] = {}
        for dim in _innermost_first(self, lambda dim: id(dim) not in known):
            total: Size = 0
            for monomial, factor in dim._terms.items():
                product: Size = factor
                for atom in monomial:
                    if atom[0] == "name":
                        value = values.get(atom[1])
                        product = product * (Dim(atom[1]) if value is None else value)
                    else:
                        a, b = (known[id(part)] if isinstance(part, Dim) else part for part in atom[1:])
                        product = product * Dim.operation(atom[0], a, b)
                total = total + product
            known[id(dim)] = total
        return known[id(self)]

    def __add__(self, other: "Size") -> "Size":
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        terms = dict(self._terms)
        for monomial, factor in _terms_of(other).items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return Dim._of(terms, _kind(self, other))

    def __mul__(self, other: "Size") -> "Size":
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        terms: dict[Monomial, int] = {}
        for m1, f1 in self._terms.items():
            for m2, f2 in _terms_of(other).items():
                monomial = tuple(sorted(m1 + m2, key=hash))
                terms[monomial] = terms.get(monomial, 0) + f1 * f2
        return Dim._of(terms, _kind(self, other))

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> "Size":
        return self * -1

    def __sub__(self, other: "Size") -> "Size":
        return self + other * -1

    def __rsub__(self, other: "Size") -> "Size":
        return self * -1 + other

    def __floordiv__(self, other: "Size") -> "Size":
        return Dim.operation("floordiv", self, other)

    def __rfloordiv__(self, other: "Size") -> "Size":
        return Dim.operation("floordiv", other, self)

    def __mod__(self, other: "Size") -> "Size":
        return Dim.operation("mod", self, other)

    def __rmod__(self, other: "Size") -> "Size":
        return Dim.operation("mod", other, self)

    def __eq__(self, other: object) -> bool:
        return other is None or (
            isinstance(other, Dim) and (self is other or (self._hash == other._hash and self._terms == other._terms))
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return "None"

    def _refuse(self, *_: object) -> Any:
        raise ShapeError(
            f"the size {self.expression!r} is not known while the model is being built",
            "a decision or loop that does not hang on an unknown size",
            "use cornu.ops (where, arange, scan, while_loop), or give the size in Input(shape=...)",
        )

    __lt__ = __le__ = __gt__ = __ge__ = __index__ = __int__ = __float__ = _refuse


Size: TypeAlias = int | Dim
BATCH = Dim("batch")


def to_plain(dim: Dim) -> dict[str, Any]:
    """A size as plain values, for files; the sizes inside its operations are named by their places."""
    places: dict[int, int] = {}
    rows: list[Any] = []

    def part(value: Size) -> Any:
        return {"size": places[id(value)]} if isinstance(value, Dim) else value

    for inner in _innermost_first(dim, lambda size: id(size) not in places):
        places[id(inner)] = len(rows)
        rows.append(
            [
                [factor, [list(atom) if atom[0] == "name" else [atom[0], *map(part, atom[1:])] for atom in monomial]]
                for monomial, factor in inner._terms.items()
            ]
        )
    return {"sizes": rows}


def from_plain(config: dict[str, Any]) -> Size:
    """The size that `to_plain` wrote."""
    made: list[Size] = []

    def part(value: Any) -> Size:
        return made[value["size"]] if isinstance(value, dict) else int(value)

    for row in config["sizes"]:
        total: Size = 0
        for factor, atoms in row:
            product: Size = int(factor)
            for kind, *rest in atoms:
                product = product * (Dim(rest[0]) if kind == "name" else Dim.operation(kind, *map(part, rest)))
            total = total + product
        made.append(total)
    return made[-1]


def _restored(terms: list[tuple[Monomial, int]]) -> Size:
    """A pickled size; hashes, and the order of atoms that goes by them, are those of this process."""
    return Dim._of({tuple(sorted(monomial, key=hash)): factor for monomial, factor in terms})


def _innermost_first(dim: Dim, wanted: Callable[[Dim], bool]) -> Iterator[Dim]:
    """The sizes inside a size's operations, each after those inside it, and at last itself; nothing recurses."""
    pending = [dim]
    while pending:
        last = pending[-1]
        if not wanted(last):
            pending.pop()
            continue
        inner = [
            part
            for monomial in last._terms
            for atom in monomial
            if atom[0] != "name"
            for part in atom[1:]
            if isinstance(part, Dim) and wanted(part)
        ]
        if inner:
            pending.extend(inner)
        else:
            yield pending.pop()


def _text_of(dim: Dim) -> str:
    parts = []
    for monomial, factor in dim._terms.items():
        atoms = sorted(map(_atom_text, monomial))
        product = "*".join(atoms)
        if not atoms:
            text = str(factor)
        else:
            text = product if factor == 1 else f"-{product}" if factor == -1 else f"{factor}*{product}"
        parts.append((not atoms, product, text))
    return " + ".join(text for _, _, text in sorted(parts)).replace("+ -", "- ")


def _atom_text(atom: tuple[Any, ...]) -> str:
    if atom[0] == "name":
        return str(atom[1])
    left, right = (part._text if isinstance(part, Dim) else str(part) for part in atom[1:])
    return f"{atom[0]}({left}, {right})"


def _terms_of(size: Size) -> dict[Monomial, int]:
    return size._terms if isinstance(size, Dim) else {(): int(size)}


def _kind(a: Size, b: Size) -> type[Dim] | None:
    """The type of what two sizes make: an engine may have sizes of its own, which are known when its graph runs."""
    for size in (a, b):
        if isinstance(size, Dim) and type(size) is not Dim:
            return type(size)
    return None


def _divide(a: Size, b: Size) -> Size | None:
    """`a / b` where it is exact for every value of the unknowns, else `None`."""
    if isinstance(b, Dim):
        if a == b:
            return 1
        if len(b._terms) > 1:
            return None
    elif b == 0:
        return None
    ((monomial, factor),) = _terms_of(b).items()
    quotient: dict[Monomial, int] = {}
    for term, count in _terms_of(a).items():
        rest = list(term)
        for atom in monomial:
            if atom not in rest:
                return None
            rest.remove(atom)
        if count % factor:
            return None
        quotient[tuple(rest)] = count // factor
    return Dim._of(quotient, _kind(a, b))


def is_known(size: object) -> bool:
    """Whether a size is a plain number."""
    return not isinstance(size, Dim)


def known(shape: tuple[Size, ...]) -> bool:
    """Whether all sizes of a shape are plain numbers."""
    return not any(isinstance(size, Dim) for size in shape)


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """A size with its unknowns replaced by their values."""
    return size.evaluate(values) if isinstance(size, Dim) else size


def evaluate(shape: tuple[Size, ...], values: Mapping[str, Size]) -> tuple[Size, ...]:
    """A shape with its unknowns replaced by their values.

    Example:
        >>> evaluate((BATCH, Dim("t") * 2), {"batch": 4, "t": 3})
        (4, 6)
    """
    return tuple(size.evaluate(values) if isinstance(size, Dim) else size for size in shape)


def keras_shape(shape: tuple[Size, ...]) -> tuple[int | None, ...]:
    """A shape as Keras writes it: `None` for what is not known."""
    return tuple(None if isinstance(size, Dim) else size for size in shape)


def shape_text(shape: tuple[Size, ...]) -> str:
    """A shape for a message: `(batch, 28, 28)`.

    Example:
        >>> shape_text((BATCH, 28))
        '(batch, 28)'
    """
    inner = ", ".join(size.expression if isinstance(size, Dim) else str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
