"""Where each variable of a model lies in a file: Keras's tree of attribute names.

A layer's own variables are `<path>/vars/0, 1, ...`; the layers it holds lie under the names of the attributes that
hold them, those in a list or dict under their class's name with a counter. A graph's layers lie under `layers`.
"""

import functools
from collections.abc import Iterator
from typing import Any

from cornu.core.errors import CornuError, SavingError
from cornu.core.names import snake_case
from cornu.layers.base import Layer
from cornu.metrics import Metric
from cornu.optimizers import Optimizer
from cornu.training.trainer import Trainer

__all__ = ["walk"]

_SAVEABLE = (Layer, Optimizer, Metric)
_NEVER = {
    "_layers",
    "_stack",
    "_marks",
    "_made",
    "_given_input",
    "_function",
    "_objective",
    "_cache",
    "_compile_arguments",
    "history",
    "metrics",
    "loss",
}


@functools.cache
def _base_names(base: type) -> frozenset[str]:
    """What every object of a kind has, and no subclass adds."""
    return frozenset(set(dir(base)) | (set(vars(Layer())) if base is Layer else set()) | _NEVER)


def _skipped(owner: Any) -> frozenset[str]:
    base = next(kind for kind in _SAVEABLE if isinstance(owner, kind))
    names = _base_names(base)
    return names | _base_names(Trainer) if isinstance(owner, Trainer) else names


def _attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds under a name: a graph's layers first, then by name, private names last."""
    graph_layers = owner._graph_layers() if isinstance(owner, Layer) else None
    if graph_layers is not None:
        yield "layers", graph_layers
    skipped = _skipped(owner)
    names = {
        name for name in vars(owner) if name not in skipped or (name == "optimizer" and isinstance(owner, Trainer))
    }
    names |= {
        name
        for cls in type(owner).__mro__
        for name, value in vars(cls).items()
        if isinstance(value, property) and name not in skipped and not name.startswith("_")
    }
    for name in sorted(names, key=lambda name: f"~{name}" if name.startswith("_") else name):
        try:
            value = getattr(owner, name)
        except (CornuError, AttributeError):
            continue
        yield name, value


def walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Every object with variables of its own, each once, with its path in a file."""
    seen: dict[int, Any] = {}  # kept, since an object made for one look may lie where the last one's lay
    pending: list[tuple[str, Any]] = [("", root)]
    while pending:
        path, item = pending.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, _SAVEABLE):
            yield path, item
            children = [(f"{path}/{name}" if path else name, value) for name, value in _attributes(item)]
        else:
            children = _contained(path, item)
        pending.extend(
            (where, value)
            for where, value in reversed(children)
            if isinstance(value, (*_SAVEABLE, list, tuple, dict, set))
        )


def _contained(path: str, container: Any) -> list[tuple[str, Any]]:
    values = list(container.values()) if isinstance(container, dict) else list(container)
    used: dict[str, int] = {}
    found = []
    for value in values:
        if isinstance(value, _SAVEABLE):
            base = snake_case(type(value).__name__)
        elif isinstance(value, (list, tuple, dict)):
            base = "container"
        else:
            continue
        count = used.get(base, 0)
        used[base] = count + 1
        found.append((f"{path}/{base if count == 0 else f'{base}_{count}'}", value))
    return found


def own_variables(item: Any) -> list[Any]:
    """The variables that are an object's own, in the order in which files number them."""
    if isinstance(item, Layer):
        trainable, frozen, _ = item._own()
        return [v for v in (*trainable, *frozen) if not v.is_seed]
    return list(item.variables)


def check_complete(root: Any, found: list[tuple[str, Any]]) -> None:
    """Refuse a model of which some weights have no place in the file.

    Raises:
        SavingError: naming the weights, and how to hold them.
    """
    placed = {id(v) for _, item in found for v in own_variables(item)}
    lost = [v.path for v in root.weights if id(v) not in placed]
    if lost:
        raise SavingError(
            f"the weights {', '.join(map(repr, lost[:5]))} have no place in the file: their layers are held "
            "neither by an attribute, nor by a list "
            "or dict in one",
            "layers in attributes, lists or dicts",
            "keep them in a list or dict attribute of the layer that uses them",
        )
