"""What `call` takes, and what it is given: signatures, arrays, shapes."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import tree
from cornu.core.dims import Dim
from cornu.core.spec import Spec
from cornu.ops._declare import interpreter_of

__all__ = [
    "Signature",
    "is_array",
    "is_structure_of_arrays",
    "shapes_to_specs",
    "signature_of",
    "to_tuples",
    "with_sizes_of",
]


class Signature:
    """What `call` of a class takes."""

    __slots__ = ("mask_for", "names", "required", "takes_mask", "takes_training", "training_default", "variadic")

    def __init__(self, call: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(call).parameters.values())[1:]
        self.names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.variadic = any(p.kind is p.VAR_KEYWORD for p in parameters)
        everything = [*self.names, *keywords]
        self.takes_training = "training" in everything
        self.training_default = next((p.default for p in parameters if p.name == "training"), None)
        self.takes_mask = "mask" in everything
        # parameter -> the parameter that takes its mask
        self.mask_for = {name: f"{name}_mask" for name in everything if f"{name}_mask" in everything}
        if self.takes_mask and everything:
            first = next((name for name in everything if name not in ("mask", "training")), None)
            if first is not None:
                self.mask_for.setdefault(first, "mask")
        self.required = [p.name for p in parameters if p.default is p.empty and p.name in self.names]


_signatures: dict[Any, Signature] = {}


def signature_of(cls: type) -> Signature:
    """What `call` of a layer class takes."""
    found = _signatures.get(cls)
    if found is None:
        found = _signatures[cls] = Signature(cls.call)  # type: ignore[attr-defined]
    return found


def is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or interpreter_of(value) is not None


def is_structure_of_arrays(value: Any) -> bool:
    leaves = tree.leaves(value)
    return (
        bool(leaves)
        and all(leaf is None or is_array(leaf) for leaf in leaves)
        and not all(leaf is None for leaf in leaves)
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(size is None or isinstance(size, (int, Dim)) for size in value)


def to_tuples(shape: Any) -> Any:
    """A shape, or structure of shapes, from a file: lists become tuples."""
    if _is_shape(shape):
        return tuple(shape)
    if isinstance(shape, dict):
        return {key: to_tuples(part) for key, part in shape.items()}
    return [to_tuples(part) for part in shape] if isinstance(shape, (list, tuple)) else shape


_unknown_names = iter(range(10**9))


def shapes_to_specs(shape: Any, dtype: str) -> Any:
    """Specs for shapes in Keras's form: the first unknown size is the batch, each other one a new name."""
    if shape is None:
        return None
    if _is_shape(shape):
        sizes = []
        for i, size in enumerate(shape):
            if size is None:
                size = Dim("batch") if i == 0 else Dim(f"axis{i}.{next(_unknown_names)}")
            sizes.append(size)
        return Spec(tuple(sizes), dtype)
    if isinstance(shape, dict):
        return {key: shapes_to_specs(part, dtype) for key, part in shape.items()}
    return [shapes_to_specs(part, dtype) for part in shape]


def with_sizes_of(stated: tuple[Any, ...], known: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A stated shape, in which an unknown size is that of the inputs on the same axis if that is unknown too."""
    sizes = []
    for axis, size in enumerate(stated):
        if isinstance(size, Dim):
            same = [shape[axis] for shape in known if axis < len(shape) and isinstance(shape[axis], Dim)]
            size = same[0] if same else size
        sizes.append(size)
    return tuple(sizes)
