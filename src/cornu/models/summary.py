"""A model's layers as a table of text."""

import shutil
from collections.abc import Callable
from typing import Any

from cornu.core.dims import shape_text
from cornu.core.dtypes import size_of
from cornu.graph.symbolic import Node

__all__ = ["print_summary"]


def print_summary(
    model: Any,
    line_length: int | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    **ignored: Any,
) -> None:
    """Print a table of a model's layers: name and class, output shape, number of parameters, what feeds it.

    Args:
        model: the model.
        line_length: width of the table; by default the terminal's, at most 110.
        print_fn: called with each line; by default `print`.
        expand_nested: whether the layers of nested models get lines of their own.
        show_trainable: whether to say which layers train.
        ignored: Keras's other arguments, which change nothing here.

    Example:
        >>> import cornu
        >>> model = cornu.Sequential([cornu.Input((4,)), cornu.layers.Dense(2, name="out")], name="tiny")
        >>> model.summary(line_length=70)  # doctest: +ELLIPSIS
        Model 'tiny' (Sequential)
        ...
        Parameters: 10 (40 bytes), all trainable
    """
    write = print_fn or print
    width = line_length or min(shutil.get_terminal_size((100, 24)).columns, 110)
    rows = _rows(model, "", expand_nested, show_trainable)
    head = ["Layer (class)", "Output shape", "Parameters", "Fed by"]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    spare = width - sum(widths[:3]) - 9
    widths[3] = max(min(widths[3], spare), 8)
    write(f"Model {model.name!r} ({type(model).__name__})")
    for number, row in enumerate([head, *rows]):
        fed = row[3] if len(row[3]) <= widths[3] else row[3][: widths[3] - 3] + "..."
        line = f"{row[0]:<{widths[0]}}   {row[1]:<{widths[1]}}   {row[2]:>{widths[2]}}   {fed}"
        write(line.rstrip())
        if number == 0:
            write("-" * min(width, sum(widths) + 9))
    total, frozen = _count(model.weights), _count(model.non_trainable_weights)
    size = _bytes_text(sum(v.size * size_of(v.dtype) for v in model.weights))
    parts = "all trainable" if not frozen else f"{total - frozen:,} trainable, {frozen:,} not"
    write(f"Parameters: {total:,} ({size}), {parts}")


def _rows(model: Any, indent: str, expand: bool, show_trainable: bool) -> list[list[str]]:
    function = getattr(model, "_function", None)
    if function is None:
        return [
            [f"{indent}{layer.name} ({type(layer).__name__})", "?", f"{_count(layer.weights):,}", ""]
            for layer in model._sublayers()
        ]
    nodes = sorted(
        {id(n): n for n in (*function.plan.shown, *(t.node for t in function.plan.inputs))}.values(), key=_order
    )
    rows = []
    counted: set[int] = set()
    for node in nodes:
        kind = "op" if node.is_op else type(node.operation).__name__
        name = function.plan.paths.get(id(node), node.name)
        fed = ", ".join(function.plan.paths.get(id(t.node), t.node.name) for t in node.parents)
        shapes = ", ".join(shape_text(t.shape) for t in node.outputs)
        count = "-" if node.is_op else f"{_count(node.operation.weights):,}"
        if not node.is_op and id(node.operation) in counted:
            count = "shared"
        counted.add(id(node.operation))
        mark = " [frozen]" if show_trainable and not node.is_op and not node.operation.trainable else ""
        rows.append([f"{indent}{name} ({kind}){mark}", shapes, count, fed])
        if expand and not node.is_op and getattr(node.operation, "_function", None) is not None:
            rows += _rows(node.operation, indent + "  ", expand, show_trainable)
    return rows


def _order(node: Node) -> int:
    return node.order


def _count(variables: list[Any]) -> int:
    return sum(v.size for v in variables)


def _bytes_text(count: int) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count} bytes" if unit == "bytes" else f"{count:.2f} {unit}"
        count = count / 1024  # type: ignore[assignment]
    return ""
