"""A model's graph as a picture: SVG by itself, PNG with Pillow."""

from html import escape
from pathlib import Path
from typing import Any

from cornu.core.dims import shape_text
from cornu.core.errors import ArgumentError, BuildError, MissingEngineError

__all__ = ["plot_model"]

_CHAR, _LINE, _PAD, _GAP_X, _GAP_Y = 7, 16, 10, 28, 38
_COLORS = {"input": "#dbeafe", "op": "#f3f4f6", "layer": "#ffffff", "shared": "#fef3c7", "model": "#dcfce7"}


class _Box:
    """One call in the picture: its text, its place, its colour."""

    def __init__(self, lines: list[str], kind: str) -> None:
        self.lines = lines
        self.kind = kind
        self.width = max(len(line) for line in lines) * _CHAR + 2 * _PAD
        self.height = len(lines) * _LINE + 2 * _PAD - 4
        self.x = self.y = 0.0


def plot_model(
    model: Any, to_file: Any = "model.png", show_shapes: bool = True, show_dtype: bool = False, show_layer_names: bool = True, **ignored: Any
) -> str:
    """Draw a model's graph: one box per call, one colour per shared layer, arrows where tensors flow.

    Args:
        model: a model with a graph.
        to_file: where to; it ends in `.svg` or `.png` (PNG needs Pillow, in the extra `examples`).
        show_shapes: whether boxes tell output shapes.
        show_dtype: whether boxes tell dtypes.
        show_layer_names: whether boxes tell names besides classes.
        ignored: Keras's other arguments, which change nothing here.

    Returns:
        the path written.

    Raises:
        BuildError: if the model has no graph.
        ArgumentError: for another ending.
    """
    if getattr(model, "_function", None) is None:
        raise BuildError(f"model {model.name!r} has no graph to draw", "a Functional or built Sequential model")
    path = Path(to_file)
    if path.suffix not in (".svg", ".png"):
        raise ArgumentError(f"plot_model got to_file={str(path)!r}", "a path that ends in .svg or .png")
    boxes, edges, size = _layout(model, show_shapes, show_dtype, show_layer_names)
    if path.suffix == ".svg":
        path.write_text(_svg(boxes, edges, size), encoding="utf-8")
    else:
        _png(boxes, edges, size, path)
    return str(path)


def _layout(model: Any, shapes: bool, dtypes: bool, names: bool) -> tuple[list[_Box], list[tuple[_Box, _Box]], tuple[int, int]]:
    """Boxes in rows by the longest way from an input; within a row ordered by what feeds them."""
    plan = model._function.plan
    nodes = sorted(
        {id(n): n for n in (*plan.nodes, *(t.node for t in plan.inputs))}.values(), key=lambda node: node.order
    )
    uses: dict[int, int] = {}
    for node in nodes:
        uses[id(node.operation)] = uses.get(id(node.operation), 0) + (0 if node.is_op else 1)
    row: dict[int, int] = {}
    boxes: dict[int, _Box] = {}
    for node in nodes:
        row[id(node)] = max((row[id(t.node)] + 1 for t in node.parents if id(t.node) in row), default=0)
        boxes[id(node)] = _Box(_text(node, plan, shapes, dtypes, names), _kind(node, uses[id(node.operation)]))
    rows: list[list[Any]] = [[] for _ in range(max(row.values()) + 1)]
    for node in nodes:
        rows[row[id(node)]].append(node)
    y = float(_PAD)
    widest = max(sum(boxes[id(n)].width + _GAP_X for n in line) - _GAP_X for line in rows)
    for line in rows:
        line.sort(key=lambda node: _centre_of_parents(node, boxes))
        total = sum(boxes[id(n)].width + _GAP_X for n in line) - _GAP_X
        x = _PAD + (widest - total) / 2
        for node in line:
            box = boxes[id(node)]
            box.x, box.y = x, y
            x += box.width + _GAP_X
        y += max(boxes[id(n)].height for n in line) + _GAP_Y
    edges = [(boxes[id(t.node)], boxes[id(n)]) for n in nodes for t in n.parents if id(t.node) in boxes]
    return list(boxes.values()), edges, (int(widest + 2 * _PAD), int(y - _GAP_Y + _PAD))


def _centre_of_parents(node: Any, boxes: dict[int, _Box]) -> float:
    known = [boxes[id(t.node)] for t in node.parents if id(t.node) in boxes]
    return sum(box.x + box.width / 2 for box in known) / len(known) if known else float(node.order)


def _kind(node: Any, uses: int) -> str:
    if node.is_op:
        return "op"
    if not node.parents:
        return "input"
    if uses > 1:
        return "shared"
    return "model" if getattr(node.operation, "_function", None) is not None else "layer"


def _text(node: Any, plan: Any, shapes: bool, dtypes: bool, names: bool) -> list[str]:
    kind = "op" if node.is_op else type(node.operation).__name__
    name = plan.paths.get(id(node), node.name)
    lines = [f"{name} ({kind})" if names else kind]
    for tensor in node.outputs:
        parts = ([shape_text(tensor.shape)] if shapes else []) + ([tensor.dtype] if dtypes else [])
        if parts:
            lines.append(" ".join(parts))
    return lines


def _svg(boxes: list[_Box], edges: list[tuple[_Box, _Box]], size: tuple[int, int]) -> str:
    width, height = size
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="monospace" font-size="12">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#6b7280"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for start, end in edges:
        x1, y1, x2, y2 = _ends(start, end)
        bend = (y1 + y2) / 2
        parts.append(
            f'<path d="M{x1:.0f},{y1:.0f} C{x1:.0f},{bend:.0f} {x2:.0f},{bend:.0f} {x2:.0f},{y2:.0f}" fill="none" '
            'stroke="#6b7280" marker-end="url(#tip)"/>'
        )
    for box in boxes:
        parts.append(
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width}" height="{box.height}" rx="5" '
            f'fill="{_COLORS[box.kind]}" stroke="#374151"/>'
        )
        for i, line in enumerate(box.lines):
            y = box.y + _PAD + 8 + i * _LINE
            weight = ' font-weight="bold"' if i == 0 else ' fill="#4b5563"'
            parts.append(f'<text x="{box.x + box.width / 2:.0f}" y="{y:.0f}" text-anchor="middle"{weight}>{escape(line)}</text>')
    return "\n".join([*parts, "</svg>"])


def _ends(start: _Box, end: _Box) -> tuple[float, float, float, float]:
    return start.x + start.width / 2, start.y + start.height, end.x + end.width / 2, end.y - 1


def _png(boxes: list[_Box], edges: list[tuple[_Box, _Box]], size: tuple[int, int], path: Path) -> None:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise MissingEngineError(
            "a PNG picture needs Pillow", "it installed, or a path that ends in .svg", "pip install 'cornu[examples]'"
        ) from error
    scale = 2
    image = Image.new("RGB", (size[0] * scale, size[1] * scale), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12 * scale)
    for start, end in edges:
        x1, y1, x2, y2 = (v * scale for v in _ends(start, end))
        bend = (y1 + y2) / 2
        curve = [_bezier(t / 20, (x1, y1), (x1, bend), (x2, bend), (x2, y2)) for t in range(21)]
        draw.line(curve, fill="#6b7280", width=scale)
        tip = 5 * scale
        draw.polygon([(x2, y2), (x2 - tip / 1.5, y2 - tip), (x2 + tip / 1.5, y2 - tip)], fill="#6b7280")
    for box in boxes:
        corners = [v * scale for v in (box.x, box.y, box.x + box.width, box.y + box.height)]
        draw.rounded_rectangle(corners, radius=5 * scale, fill=_COLORS[box.kind], outline="#374151", width=scale)
        for i, line in enumerate(box.lines):
            place = ((box.x + box.width / 2) * scale, (box.y + _PAD + 4 + i * _LINE) * scale)
            draw.text(place, line, fill="#111827" if i == 0 else "#4b5563", font=font, anchor="mm")
    image.save(path)


def _bezier(t: float, *points: tuple[float, float]) -> tuple[float, float]:
    weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
    return (
        sum(w * p[0] for w, p in zip(weights, points, strict=True)),
        sum(w * p[1] for w, p in zip(weights, points, strict=True)),
    )
