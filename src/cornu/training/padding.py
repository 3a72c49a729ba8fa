"""Rows of unequal length as arrays of few lengths: reading, choosing the lengths, padding."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from cornu.core.errors import ArgumentError, DataError, near_miss
from cornu.training.columns import standard, to_host

__all__ = [
    "Column", "by_name", "check_even", "check_lengths", "fitting", "kind_of", "label", "names_of", "pad_batch",
    "powers_of_two", "rebuilt", "stepwise", "value_for",
]  # fmt: skip

SHORTEST = 8  # the first bucket, where none are given


def powers_of_two(longest: int) -> list[int]:
    """8, 16, 32 ... below the longest length, and that."""
    found = []
    size = SHORTEST
    while size < longest:
        found.append(size)
        size *= 2
    return [*found, longest]


def check_lengths(lengths: Iterable[int], what: str) -> list[int]:
    """Bucket sizes as a rising list.

    Raises:
        ArgumentError: if they are not whole numbers above zero.
    """
    found = list(lengths) if isinstance(lengths, Iterable) and not isinstance(lengths, (str, bytes)) else []
    if not found or not all(
        isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size > 0 for size in found
    ):
        raise ArgumentError(f"{what} got lengths={lengths!r:.80}", "whole numbers above zero", "lengths=[16, 32, 64]")
    return sorted({int(size) for size in found})


def fitting(length: int, lengths: list[int] | None, what: str) -> int:
    """The smallest bucket that holds a length; with no lengths given, the next power of two.

    Raises:
        DataError: if the length is above the largest bucket.
    """
    if lengths is None:
        return max(SHORTEST, 1 << max(length - 1, 0).bit_length())
    for size in lengths:
        if length <= size:
            return size
    raise DataError(
        f"{what} got a sequence of length {length}",
        f"at most {lengths[-1]}, the largest of lengths",
        f"lengths=[..., {length}], or cut the sequence",
    )


# ---------------------------------------------------------------- structures: one array, a dict or a tuple


def by_name(value: Any, what: str, name: str) -> dict[Any, Any]:
    """The parts of inputs, targets or weights by name or place; a single one has the name `None`.

    Raises:
        DataError: if parts hold parts.
    """
    parts: dict[Any, Any] = (
        dict(value) if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, tuple) else {}
    )
    if not parts:
        return {} if value is None else {None: value}
    for key, part in parts.items():
        if isinstance(part, (Mapping, tuple)):
            raise DataError(f"{what} got a structure within a structure: {name}[{key!r}]", "a dict or tuple of arrays")
    return parts


def rebuilt(like: Any, parts: dict[Any, Any]) -> Any:
    """Parts by name as the structure they came in."""
    if isinstance(like, Mapping):
        return parts
    return tuple(parts.values()) if isinstance(like, tuple) else parts.get(None)


def kind_of(value: Any) -> Any:
    """An empty structure of a value's kind, for `rebuilt`."""
    return {} if isinstance(value, Mapping) else () if isinstance(value, tuple) else None


def label(name: str, key: Any) -> str:
    """What to call a part in messages."""
    return name if key is None else f"{name}[{key!r}]"


def names_of(given: Any, known: Iterable[Any], what: str, argument: str) -> set[Any]:
    """What an argument names, as a set of names or places; `True` stands for all.

    Raises:
        ArgumentError: for a name that is not there.
    """
    known = list(known)
    if given is True:
        return set(known)
    chosen = [] if given is False else [given] if isinstance(given, (str, int)) else list(given)
    for name in chosen:
        if name not in known:
            raise ArgumentError(
                f"{what} got {argument}={given!r}{near_miss(str(name), map(str, known))}",
                f"names among {', '.join(map(repr, known))}" if known != [None] else "True or False for a single array",
            )
    return set(chosen)


# ---------------------------------------------------------------- rows


class Column:
    """One input, target or weight of all rows, sequences or not.

    Args:
        value: an array `(rows, ...)`, or a list of rows.
        name: what to call it in messages.
        what: who asks.
        is_weight: whether it comes as floats.
        sequences: whether each row is a sequence `(time, ...)`; `None` to see for itself.
    """

    def __init__(
        self, value: Any, name: str, what: str, is_weight: bool = False, sequences: bool | None = None
    ) -> None:
        self.name, self.what, self.is_weight = name, what, is_weight
        in_rows = isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object)
        rows = [self._row(row, place) for place, row in enumerate(value)] if in_rows or sequences else None
        self.lengths: np.ndarray | None = None
        if rows and (sequences or (sequences is None and all(row.ndim for row in rows))):
            self.rows: Any = rows
            self.lengths = self._checked(rows)
            self.dtype = _dtype_of(rows, is_weight)
        else:
            whole = value if rows is None else self._stacked(rows)
            self.rows = standard(np.asarray(to_host(whole, name, what)), is_weight)
            self.dtype = self.rows.dtype

    def _row(self, row: Any, place: int) -> np.ndarray:
        if np.ndim(row) == 0 and isinstance(row, (int, float, bool, np.generic)):
            return np.asarray(row)
        return np.asarray(to_host(row, f"{self.name}[{place}]", self.what))

    def _stacked(self, rows: list[np.ndarray]) -> np.ndarray:
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise DataError(
                f"{self.what} got rows of shapes {', '.join(map(str, sorted(shapes)[:3]))} as {self.name}",
                "rows of one shape, or sequences named as such",
            )
        return np.stack(rows) if rows else np.zeros(0)

    def _checked(self, rows: list[np.ndarray]) -> np.ndarray:
        first = rows[0] if rows else None
        for place, row in enumerate(rows):
            where = f"{self.name}[{place}]"
            if row.ndim == 0:
                raise DataError(
                    f"{self.what} got a single number as {where}", "a sequence (time, ...) for each row",
                    "a list with one sequence per row; numbers of one row go into a list of their own",
                )  # fmt: skip
            if row.shape[0] == 0:
                raise DataError(f"{self.what} got an empty sequence: {where}", "at least one step", "leave the row out")
            if row.shape[1:] != first.shape[1:]:  # type: ignore[union-attr]
                raise DataError(
                    f"{self.what} got rows that differ in more than time: {self.name}[0] has shape "
                    f"{first.shape}, {where} has {row.shape}",  # type: ignore[union-attr]
                    "(time, ...) with equal sizes after the first axis",
                    "the first axis of each row is time: turn rows of (features, time) round",
                )
        return np.array([len(row) for row in rows], np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def is_as_long_as(self, other: "Column") -> bool:
        """Whether the sequences have the lengths of another's, row by row."""
        return self.lengths is not None and other.lengths is not None and np.array_equal(self.lengths, other.lengths)

    def take(self, places: np.ndarray, length: int, value: Any) -> np.ndarray:
        """Some rows, sequences filled up with a value to one length."""
        if self.lengths is None:
            taken: np.ndarray = self.rows[places]
            return taken
        made = np.full((len(places), length, *self.rows[0].shape[1:]), value, self.dtype)
        for i, place in enumerate(places):
            made[i, : self.lengths[place]] = self.rows[place]
        return made

    def steps_equal_to(self, value: Any) -> int:
        """How many steps hold the value throughout."""
        equal = (row == value for row in self.rows)
        return sum(int(same.reshape(len(same), -1).all(axis=1).sum()) for same in equal)


def check_even(columns: Iterable[Column], what: str) -> None:
    """Refuse columns of different numbers of rows."""
    rows = {column.name: len(column) for column in columns}
    if len(set(rows.values())) > 1:
        raise DataError(
            f"{what} got parts of different numbers of rows: "
            + ", ".join(f"{name} has {count} rows" for name, count in rows.items()),
            "the same number of rows in all",
            "pass the targets and weights of exactly the rows in x",
        )


def _dtype_of(rows: list[np.ndarray], is_weight: bool) -> np.dtype[Any]:
    """The dtype all rows come in: as `standard` has it for one array of them all."""
    found = np.result_type(*{row.dtype for row in rows})
    if found == np.int64:
        return np.dtype(np.int64 if any(standard(row, False).dtype == np.int64 for row in rows) else np.int32)
    return standard(np.zeros(0, found), is_weight).dtype


def value_for(value: Any, key: Any, dtype: np.dtype[Any], what: str) -> Any:
    """The padding value of an input, which its dtype must be able to hold.

    Raises:
        ArgumentError: if there is none, or it cannot.
    """
    if isinstance(value, Mapping):
        if key not in value:
            raise ArgumentError(f"{what} got value={value!r}", f"a value for the sequences {key!r} too")
        value = value[key]
    held = np.asarray(value)
    if held.ndim or held.dtype.kind not in "biuf" or held != held:
        raise ArgumentError(f"{what} got value={value!r}", "a number")
    with np.errstate(all="ignore"):
        kept = held.astype(dtype)
    slack = 0.0 if dtype.kind in "biu" else 1e-6 if dtype.itemsize >= 4 else 1e-2
    if not abs(float(kept) - float(held)) <= slack * abs(float(held)):
        raise ArgumentError(f"{what} got value={value!r} for sequences of dtype {dtype}", "a value of that dtype")
    return kept[()]


# ---------------------------------------------------------------- batches


def pad_batch(array: np.ndarray, length: int, value: Any) -> np.ndarray:
    """A batch `(batch, time, ...)` filled up with a value to a length."""
    missing = length - array.shape[1]
    if missing == 0:
        return array
    widths = [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array, widths, constant_values=value)


def stepwise(
    given: np.ndarray | None, valid: Callable[[], np.ndarray], length: int, name: str, what: str
) -> np.ndarray:
    """Weights `(batch, time)` that are 0 at padded steps.

    Args:
        given: the user's: per row `(batch,)`, `(batch, 1)`, per step `(batch, time)`, or `None`.
        valid: gives 1 for each step of a sequence and 0 for padding, `(batch, time)`.
        length: the padded length.
        name: what to call them in messages.
        what: who asks.
    """
    ones = valid()
    if given is None:
        return ones
    if given.ndim == 1 or (given.ndim == 2 and given.shape[1] == 1):
        return np.asarray(ones * given.reshape(-1, 1), ones.dtype)
    if given.ndim != 2 or given.shape[1] > length:
        raise DataError(
            f"{what} got {name} of shape {given.shape} for targets with steps",
            "a weight per row (rows,) or per step (rows, time)",
        )
    return np.asarray(ones * pad_batch(given, length, 0), ones.dtype)
