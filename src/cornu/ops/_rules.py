"""Parts that several Spec rules share: broadcasting, axes, and sizes that must be equal."""

from collections.abc import Iterable
from contextvars import ContextVar

from cornu.core.dims import Dim, Size, shape_text
from cornu.core.errors import ArgumentError, ShapeError

__all__ = ["Constraint", "axes_of", "axis_of", "broadcast_shapes", "constraints", "product", "require_equal"]

# (one size, the other, what they are): sizes that must prove equal when the model runs.
Constraint = tuple[Size, Size, str]
constraints: ContextVar[list[Constraint] | None] = ContextVar("cornu_constraints", default=None)
# What sizes are of which one may be 1 instead.
BROADCAST = "sizes that are broadcast"


def require_equal(a: Size, b: Size, what: str) -> Size:
    """Demand that two sizes are equal: now if both are known, when the model runs if not.

    Returns:
        the size, the known one if there is one.

    Raises:
        ShapeError: if both are known and differ.
    """
    unknown = isinstance(a, Dim) or isinstance(b, Dim)
    if unknown:
        noted = constraints.get()
        if noted is not None and a != b:
            noted.append((a, b, what))
        return b if isinstance(a, Dim) else a
    if a != b:
        raise ShapeError(f"{what}: {a} and {b} differ", "equal sizes")
    return a


def broadcast_shapes(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape to which shapes broadcast, by NumPy's rule.

    Raises:
        ShapeError: if they do not.
    """
    rank = max(len(shape) for shape in shapes)
    result: list[Size] = []
    for i in range(rank):
        size: Size = 1
        for shape in shapes:
            at = i - rank + len(shape)
            if at >= 0:
                mine = shape[at]
                if not isinstance(size, Dim) and not isinstance(mine, Dim) and size != mine and 1 not in (size, mine):
                    raise ShapeError(
                        "shapes " + " and ".join(map(shape_text, shapes)) + " do not broadcast",
                        f"sizes that are equal or 1, counted from the last axis; {size} and {mine} are neither",
                    )
                noted = constraints.get()
                if noted is not None and size != mine and 1 not in (size, mine):
                    noted.append((size, mine, BROADCAST))
                size = Dim.operation("broadcast", size, mine)
        result.append(size)
    return tuple(result)


def axis_of(axis: int, rank: int, what: str = "axis") -> int:
    """An axis counted from the front.

    Raises:
        ArgumentError: if there is no such axis.
    """
    if not -rank <= axis < rank:
        raise ArgumentError(f"{what} {axis} of an array with {rank} axes", f"from {-rank} to {rank - 1}")
    return axis % rank


def axes_of(axis: int | Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """Axes as a sorted tuple counted from the front; `None` means all.

    Raises:
        ArgumentError: if there is no such axis, or one is named twice.
    """
    if axis is None:
        return tuple(range(rank))
    axes = tuple(sorted(axis_of(a, rank) for a in ((axis,) if hasattr(axis, "__index__") else axis)))  # type: ignore
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"axis {axis!r} names an axis twice", "each axis once")
    return axes


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total
