"""A model's graph as a picture: SVG by itself, PNG with Pillow."""

import itertools
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
        self.width = max(len(line) for line in lines) * _CHAR + 2 * _PAD if kind != "way" else _PAD
        self.height = len(lines) * _LINE + 2 * _PAD - 4
        self.x = self.y = 0.0


def plot_model(
    model: Any,
    to_file: Any = "model.png",
    show_shapes: bool = True,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    **ignored: Any,
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


def _layout(
    model: Any, shapes: bool, dtypes: bool, names: bool
) -> tuple[list[_Box], list[list[_Box]], tuple[int, int]]:
    """Boxes in rows by the longest way from an input, and lines through the gaps between them.

    A line that spans several rows gets a place of its own in each row it crosses, so that it runs beside the boxes.
    Within a row the places are ordered by what feeds them.
    """
    plan = model._function.plan
    nodes = sorted({id(n): n for n in (*plan.shown, *(t.node for t in plan.inputs))}.values(), key=lambda n: n.order)
    uses: dict[int, int] = {}
    for node in nodes:
        uses[id(node.operation)] = uses.get(id(node.operation), 0) + (0 if node.is_op else 1)
    row: dict[int, int] = {}
    boxes: dict[int, _Box] = {}
    lines: list[list[_Box]] = []
    rows: list[list[_Box]] = []
    fed_by: dict[int, list[_Box]] = {}
    for node in nodes:
        parents = {id(t.node): t.node for t in node.parents if id(t.node) in row}
        mine = row[id(node)] = max((row[key] + 1 for key in parents), default=0)
        box = boxes[id(node)] = _Box(_text(node, plan, shapes, dtypes, names), _kind(node, uses[id(node.operation)]))
        rows.extend([] for _ in range(mine + 1 - len(rows)))
        rows[mine].append(box)
        for key in parents:
            line = [boxes[key]]
            for crossed in range(row[key] + 1, mine):
                place = _Box([""], "way")
                fed_by[id(place)] = [line[-1]]
                rows[crossed].append(place)
                line.append(place)
            fed_by.setdefault(id(box), []).append(line[-1])
            lines.append([*line, box])
    widest = max(sum(box.width + _GAP_X for box in line) - _GAP_X for line in rows)
    y = float(_PAD)
    for line in rows:
        line.sort(key=lambda box: _centre([(other.x + other.width / 2) for other in fed_by.get(id(box), [])]))
        x = _PAD + (widest - (sum(box.width + _GAP_X for box in line) - _GAP_X)) / 2
        tallest = max(box.height for box in line)
        for box in line:
            box.x, box.y = x, y
            box.height = tallest if box.kind == "way" else box.height
            x += box.width + _GAP_X
        y += tallest + _GAP_Y
    return list(boxes.values()), lines, (int(widest + 2 * _PAD), int(y - _GAP_Y + _PAD))


def _centre(places: list[float]) -> float:
    return sum(places) / len(places) if places else 0.0


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


def _svg(boxes: list[_Box], edges: list[list[_Box]], size: tuple[int, int]) -> str:
    width, height = size
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="monospace" font-size="12">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#6b7280"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for line in edges:
        curve = " ".join(f"{x:.0f},{y:.0f}" for x, y in _path(line))
        parts.append(f'<polyline points="{curve}" fill="none" stroke="#6b7280" marker-end="url(#tip)"/>')
    for box in boxes:
        parts.append(
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width}" height="{box.height}" rx="5" '
            f'fill="{_COLORS[box.kind]}" stroke="#374151"/>'
        )
        for i, text in enumerate(box.lines):
            y = box.y + _PAD + 8 + i * _LINE
            weight = ' font-weight="bold"' if i == 0 else ' fill="#4b5563"'
            parts.append(
                f'<text x="{box.x + box.width / 2:.0f}" y="{y:.0f}" text-anchor="middle"{weight}>{escape(text)}</text>'
            )
    return "\n".join([*parts, "</svg>"])


def _path(line: list[_Box]) -> list[tuple[float, float]]:
    """The points of a line: curves from box to box, straight down beside the boxes it passes."""
    points: list[tuple[float, float]] = []
    for start, end in itertools.pairwise(line):
        x1, y1 = start.x + start.width / 2, start.y + start.height
        x2, y2 = end.x + end.width / 2, end.y - 1
        bend = (y1 + y2) / 2
        points += [_bezier(t / 20, (x1, y1), (x1, bend), (x2, bend), (x2, y2)) for t in range(21)]
    return points


def _png(boxes: list[_Box], edges: list[list[_Box]], size: tuple[int, int], path: Path) -> None:
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
    for line in edges:
        curve = [(x * scale, y * scale) for x, y in _path(line)]
        draw.line(curve, fill="#6b7280", width=scale)
        (x2, y2), tip = curve[-1], 5 * scale
        draw.polygon([(x2, y2), (x2 - tip / 1.5, y2 - tip), (x2 + tip / 1.5, y2 - tip)], fill="#6b7280")
    for box in boxes:
        corners = [v * scale for v in (box.x, box.y, box.x + box.width, box.y + box.height)]
        draw.rounded_rectangle(corners, radius=5 * scale, fill=_COLORS[box.kind], outline="#374151", width=scale)
        for i, text in enumerate(box.lines):
            place = ((box.x + box.width / 2) * scale, (box.y + _PAD + 4 + i * _LINE) * scale)
            draw.text(place, text, fill="#111827" if i == 0 else "#4b5563", font=font, anchor="mm")
    image.save(path)


def _bezier(t: float, *points: tuple[float, float]) -> tuple[float, float]:
    weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
    return (
        sum(w * p[0] for w, p in zip(weights, points, strict=True)),
        sum(w * p[1] for w, p in zip(weights, points, strict=True)),
    )
