"""Padding with zeros before convolutions, in a traced graph, left to the convolutions.

They pad as they read: there is no padded copy to fill and to read again, and nothing to cut off on the way back.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.nodes import call, learn

__all__ = ["pad_within"]

_aten = torch.ops.aten
# Of convolutions and their gradients, where the arguments are: the array, and its padding.
_PLACES = {_aten.convolution.default: (0, 4), _aten.convolution_backward.default: (1, 5)}


def pad_within(traced: GraphModule) -> None:
    """Let convolutions, and their gradients, pad by themselves where as many zeros are added before and after."""
    bare: dict[Node, Node] = {}
    for node in list(traced.graph.nodes):
        array, padding = _PLACES.get(node.target, (0, 0))
        added = _added(node.args[array]) if padding else None
        if added is None or node.args[padding + 2] or not all("val" in part.meta for part in node.all_input_nodes):
            continue
        cuts = _cuts(node, added)
        if cuts is None:
            continue
        padded: Any = node.args[array]
        if padded not in bare:
            bare[padded] = _bare(traced, padded)
        given: list[Any] = list(node.args)
        given[array] = bare[padded]
        given[padding] = [own + more for own, more in zip(given[padding], added, strict=True)]
        node.args = tuple(given)
        for cut, seen in cuts:
            cut.replace_all_uses_with(seen)
        learn(node)


def _added(padded: Any) -> list[int] | None:
    """How many zeros are added on each side along the axes of `(batch, channels, *space)`; `None` if not as many."""
    order = None
    if getattr(padded, "target", None) is _aten.permute.default:
        padded, order = padded.args
    if getattr(padded, "target", None) is not _aten.constant_pad_nd.default or any(padded.args[2:]):
        return None
    pairs = _pairs(padded, order)
    if any(low != high or low < 0 for low, high in pairs) or any(map(any, pairs[:2])):
        return None
    return [low for low, _ in pairs[2:]]


def _pairs(padded: Any, order: Any) -> list[tuple[int, int]]:
    """What is added before and after each axis, after they are put in another order if one is given."""
    counts = padded.args[1]
    pairs = list(zip(counts[::2], counts[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (padded.meta["val"].ndim - len(pairs)) + pairs
    return pairs if order is None else [pairs[axis] for axis in order]


def _bare(traced: GraphModule, padded: Any) -> Any:
    """What is padded, its axes in the same order."""
    if padded.target is _aten.constant_pad_nd.default:
        return padded.args[0]
    with traced.graph.inserting_after(padded):
        return call(traced.graph, _aten.permute.default, padded.args[0].args[0], padded.args[1])


def _cuts(node: Node, added: list[int]) -> list[tuple[Node, Node]] | None:
    """Where what was added is cut off a gradient, and what it is cut off from; `None` if others see that gradient."""
    around = [(0, 0), (0, 0), *((-count, -count) for count in added)]
    found = []
    for given in node.users if node.target is _aten.convolution_backward.default else ():
        if given.args[1] != 0:
            continue
        for user in given.users:
            is_turned = user.target is _aten.permute.default
            order: Any = user.args[1] if is_turned else None
            expected = around if order is None else [around[axis] for axis in order]
            for cut in user.users if is_turned else [user]:
                if cut.target is not _aten.constant_pad_nd.default or _pairs(cut, None) != expected:
                    return None
                found.append((cut, user if is_turned else given))
    return found
