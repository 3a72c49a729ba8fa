"""Summaries and pictures of models."""

import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

import cornu
from cornu import layers
from cornu.core.errors import ArgumentError, BuildError
from cornu.inspect import plot_model


def model():
    """A shared layer, an op, and a line that passes a row."""
    a, b = cornu.Input((4,), name="a"), cornu.Input((4,), name="b")
    shared = layers.Dense(3, name="shared")
    joined = layers.Concatenate(name="join")([shared(a) * 2.0, shared(b)])
    return cornu.Model([a, b], layers.Dense(1, name="out")(joined), name="pair")


def test_summary_counts_a_shared_layer_once():
    lines = []
    model().summary(line_length=100, print_fn=lines.append)
    text = "\n".join(lines)
    assert "Model 'pair' (Functional)" in lines[0]
    assert text.count("shared (Dense)") == 1 and "shared@1 (Dense)" in text
    assert "(batch, 6)" in text and lines[-1] == "Parameters: 22 (88 bytes), all trainable"


def test_summary_tells_frozen_weights():
    pair = model()
    pair.get_layer("shared").trainable = False
    lines = []
    pair.summary(print_fn=lines.append, show_trainable=True)
    assert lines[-1].endswith("7 trainable, 15 not") and any("[frozen]" in line for line in lines)


def test_svg_has_a_box_per_call_and_no_line_through_a_box(tmp_path):
    path = plot_model(model(), tmp_path / "pair.svg", show_dtype=True)
    root = ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in root.iter(f"{space}text")]
    assert {"a (InputLayer)", "shared (Dense)", "shared@1 (Dense)", "multiply (op)", "join (Concatenate)"} <= set(texts)
    assert "(batch, 6) float32" in texts
    boxes = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in root.iter(f"{space}rect") if r.get("x")]
    for line in root.iter(f"{space}polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert not any(bx + 2 < x < bx + w - 2 and by + 2 < y < by + h - 2 for bx, by, w, h in boxes)


def test_png_is_a_picture(tmp_path):
    with Image.open(plot_model(model(), tmp_path / "pair.png")) as picture:
        assert picture.width > 200 and len(picture.convert("RGB").getcolors(100_000)) > 5


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(BuildError, match="no graph"):
        plot_model(cornu.Sequential([layers.Dense(1)]), tmp_path / "x.svg")
    with pytest.raises(ArgumentError, match=r"\.svg or \.png"):
        plot_model(model(), tmp_path / "x.pdf")
