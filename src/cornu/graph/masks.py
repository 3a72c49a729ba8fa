"""Masks that travel with values, explicitly.

In a graph a mask is a symbolic tensor beside the tensor it belongs to, computed by ordinary nodes. While shapes are
inferred it is a `Tag` on a Spec, which every primitive carries on or loses by the rule below. For an engine's own
values it is kept beside them in a table, for as long as the value lives; there it goes from layer to layer (a value's
own arithmetic knows nothing of it, and a layer that would have needed it says so while shapes are inferred).

A mask `(batch, time)` says of each `(batch, time, ...)` position whether it counts.
"""

import weakref
from contextvars import ContextVar
from typing import Any

from cornu.core.spec import Spec
from cornu.ops import _declare
from cornu.ops._declare import Op, op, operator
from cornu.ops._rules import axes_of

__all__ = ["Tag", "carried_mask", "carries", "combined", "mask_of", "set_mask"]


class Tag:
    """What is known of the mask of a Spec.

    Args:
        sources: the masks (symbolic tensors or Specs) that hold for the value, all of them together.
        lost: the op in which the alignment was lost, or `None`.
        through: the last op that the value went through since it got the mask from a layer, or `None`.
    """

    __slots__ = ("lost", "sources", "through")

    def __init__(self, sources: tuple[Any, ...], lost: str | None = None, through: str | None = None) -> None:
        self.sources = sources
        self.lost = lost
        self.through = through


def combined(sources: tuple[Any, ...]) -> Any:
    """One mask from several that all hold."""
    result = sources[0]
    for other in sources[1:]:
        if other is not result:
            result = operator("logical_and")(result, other)
    return result


# The type of symbolic tensors, which hold their mask themselves; set by `cornu.graph.symbolic`.
symbolic: list[Any] = [None]
# Engine values that have a mask: id -> (the value, held weakly if it can be, and its mask).
_table: dict[int, tuple[Any, Any]] = _declare.value_masks
# Values that cannot be held weakly, kept until the outermost layer call ends.
_kept: ContextVar[list[Any] | None] = ContextVar("cornu_masks", default=None)


def mask_of(value: Any) -> Any:
    """The mask that travels with a value, or `None`."""
    kind = type(value)
    if kind is Spec:
        tag = value.mask
        if tag is None or tag.lost is not None:
            return None
        source = tag.sources[0]
        if type(source) is Spec and len(tag.sources) == 1:
            return source
        return Spec(source.shape, source.dtype, Tag(tag.sources))
    if kind is symbolic[0]:
        return value.mask
    found = _table.get(id(value))
    return None if found is None else found[1]


def set_mask(value: Any, mask: Any) -> None:
    """Let a mask travel with a value (a Spec or an engine's own)."""
    if mask is None:
        return
    if type(value) is Spec:
        # The tag of what stands for another mask, or of what the mask is made from.
        tag = mask.mask if type(mask) is Spec else None
        value.mask = Tag(tag.sources if tag is not None and tag.lost is None and tag.through is None else (mask,))
        return
    key = id(value)
    try:
        reference: Any = weakref.ref(value, lambda _: _table.pop(key, None))
    except TypeError:
        reference = value
        kept = _kept.get()
        if kept is None:
            return
        kept.append(key)
    _table[key] = (reference, mask)


@op
def carried_mask(x: Spec) -> Any:
    """The mask that a value carries as the model runs."""
    return mask_of(x)


def forget(keys: list[int]) -> None:
    """Drop values that could not be held weakly."""
    for key in keys:
        _table.pop(key, None)


_SAFE = ("elementwise", "cumulative", "random")


def carries(op: Op, name: str, value: Spec, static: dict[str, Any], output: Spec, rank: int = 2) -> bool:
    """Whether positions on the first `rank` axes of an argument are the same positions of the result.

    Args:
        op: a primitive.
        name: the argument's name.
        value: the argument's Spec.
        static: the primitive's static arguments.
        output: the result's Spec.
        rank: how many leading axes the mask has.
    """
    if value.ndim < rank or output.ndim < rank:
        return False
    family = op.family
    if family in _SAFE or op.name in ("broadcast_to_shape", "pad_constant", "scatter_nd", "dynamic_update"):
        return value.ndim == output.ndim and _same_leading(value, output, rank)
    if family == "reduction":
        return all(a >= rank for a in axes_of(static["axis"], value.ndim))
    if family == "sorting":
        axis = static.get("axis", -1)
        return axis % value.ndim >= rank
    if op.name == "permute":
        return tuple(static["axes"][:rank]) == tuple(range(rank))
    if op.name == "flip_axes":
        return all(a >= rank for a in static["axes"])
    if op.name in ("concatenate_all", "gather", "gather_along"):
        return static["axis"] >= rank and name != "indices"
    if op.name == "reshape_to":
        return _same_leading(value, output, rank)
    if op.name in ("slice_static", "dynamic_slice"):
        return _same_leading(value, output, rank)
    if op.name == "matmul":
        return name == "x1" and value.ndim > rank and value.ndim == output.ndim and _same_leading(value, output, rank)
    if op.name == "dot_general":
        side = 0 if name == "x1" else 1
        used = (*static["contract"][side], *static["batch"][side])
        if tuple(static["batch"][side][:rank]) == tuple(range(rank)):
            return True
        return side == 0 and not static["batch"][0] and all(a >= rank for a in used)
    return False


def _same_leading(value: Spec, output: Spec, rank: int) -> bool:
    return all(a == b for a, b in zip(value.shape[:rank], output.shape[:rank], strict=True))


def _watch(op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> None:
    """Carry tags through a primitive of the abstract interpreter."""
    sources: list[Any] = []
    lost: str | None = None
    for name, value in arrays.items():
        for spec in value if isinstance(value, list) else (value,):
            tag = getattr(spec, "mask", None)
            if tag is None:
                continue
            rank = len(tag.sources[0].shape)
            outputs = [part for part in (result if isinstance(result, tuple) else (result,)) if isinstance(part, Spec)]
            if tag.lost is None and all(carries(op, name, spec, static, output, rank) for output in outputs):
                sources += [source for source in tag.sources if not any(source is s for s in sources)]
            elif tag.lost is not None or op.family != "creation":
                lost = tag.lost or op.name
                sources += [source for source in tag.sources if not any(source is s for s in sources)]
    if sources:
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, Spec):
                part.mask = Tag(tuple(sources), lost, op.name)


_declare.abstract_watcher[0] = _watch
