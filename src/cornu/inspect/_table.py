"""Tables of text."""

from typing import Any

__all__ = ["count_text", "number_text", "size_text", "table"]

_GAP = "  "


def table(head: list[str], rows: list[list[str]], left: tuple[int, ...] = (0,), limit: int | None = None) -> list[str]:
    """The lines of a table.

    Args:
        head: the columns' names.
        rows: cells of text.
        left: the columns to align at the left; the others are numbers.
        limit: how many rows to show; from more, those in the middle are left out.
    """
    shown: list[list[str] | None] = list(rows)
    if limit is not None and len(rows) > limit:
        last = limit // 3
        shown = [*rows[: limit - last], None, *(rows[-last:] if last else [])]
    widths = [max(len(row[i]) for row in (head, *(r for r in shown if r is not None))) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = (f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return _GAP.join(cells).rstrip()

    lines = [line(head), "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))]
    return lines + [f"... {len(rows) - limit} more rows" if row is None else line(row) for row in shown]  # type: ignore[operator]


def number_text(value: float) -> str:
    """A number in at most nine letters."""
    return "0" if value == 0 else f"{value:.3g}"


def count_text(value: Any) -> str:
    """A count with a unit: `1.50 M`."""
    value = float(value)
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.0f}" if not unit else f"{value:.2f}{unit}"
        value /= 1000
    return f"{value:.2f} T"


def size_text(count: int) -> str:
    """A number of bytes with a unit: `1.50 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
