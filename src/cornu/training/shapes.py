"""A step that is compiled for ever new shapes: noticed while it is traced, at no cost to the steps themselves."""

import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from cornu.core.errors import CornuWarning
from cornu.ops._declare import shape_of
from cornu.training.columns import walk

__all__ = ["MANY", "met"]

# For more shapes than this a step should not be compiled.
MANY = 16

_lock = threading.Lock()
# model -> what step -> the shapes it was traced for, each as {argument: shape}; `None` once it has been told.
_seen: "weakref.WeakKeyDictionary[Any, dict[str, list[dict[str, tuple[int, ...]]] | None]]" = (
    weakref.WeakKeyDictionary()
)


def met(method: Callable[..., Any], batch: Any) -> None:
    """Note that a step is being traced for a batch; warn once when it has been for too many shapes.

    To be called in the traced body of a step, on engines that trace.

    Args:
        method: the model's `train_step`, `test_step` or `predict_step`.
        batch: `x`, or `(x, y, sample_weight)`.
    """
    model = getattr(method, "__self__", method)
    kind = getattr(method, "__name__", "step")
    parts = batch if isinstance(batch, tuple) and len(batch) == 3 else (batch,)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, part in zip(("x", "y", "sample_weight"), parts, strict=False):
        walk(part, name, lambda leaf, path: shapes.__setitem__(path, tuple(shape_of(leaf))))
    with _lock:
        known = _seen.setdefault(model, {}).setdefault(kind, [])
        if known is None or shapes in known:
            return
        known.append(shapes)
        if len(known) <= MANY:
            return
        _seen[model][kind] = None
    warnings.warn(_text(model, kind, known), CornuWarning, stacklevel=2)


def _text(model: Any, kind: str, known: list[dict[str, tuple[int, ...]]]) -> str:
    moving = []
    for name in known[-1]:
        sizes = [shapes[name] for shapes in known if name in shapes]
        for axis in range(min(map(len, sizes))):
            found = sorted({shape[axis] for shape in sizes})
            if len(found) > 1:
                moving.append((name, axis, found))
    listed = ", ".join(f"axis {axis} of {name} ({_few(sizes)})" for name, axis, sizes in moving)
    along_time = any(axis >= 1 for _, axis, _ in moving)
    remedy = (
        "cornu.utils.LengthBuckets (for batches: bucket_batches) pads to few lengths"
        if along_time
        else "let all batches but the last have as many rows"
    )
    name = getattr(model, "name", type(model).__name__)
    return (
        f"{kind} of model {name!r} has been compiled for {len(known)} shapes, each anew, for these sizes differ: "
        f"{listed or 'the structure of the batch'}; {remedy}"
    )


def _few(sizes: list[int]) -> str:
    shown = ", ".join(map(str, sizes[:4]))
    return shown if len(sizes) <= 4 else f"{shown} ... {sizes[-1]}"
