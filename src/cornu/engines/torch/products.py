"""Products and convolutions in a traced graph, and what comes after them that they can do by themselves."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.nodes import put

__all__ = ["FLOATS", "VIEWS", "add_in_products", "is_by_channel", "source_of"]

_aten = torch.ops.aten
VIEWS = {_aten.view.default, _aten._unsafe_view.default, _aten.permute.default, _aten.expand.default}
FLOATS = (torch.float32, torch.float64)


def add_in_products(traced: GraphModule) -> None:
    """Let a product or a convolution add what comes after it: one pass over memory less.

    That is a bias or, for a product, what has its shape, as gradients that meet: in its memory where nobody else reads.
    """
    for node in list(traced.graph.nodes):
        if node.target is not _aten.add.Tensor or node.kwargs:
            continue
        for seen, other in (node.args, node.args[::-1]):
            source = source_of(seen)
            if source is None:
                continue
            like, is_bias = source.meta["val"], is_by_channel(other, seen, source)
            is_product = source.target is _aten.mm.default
            if not is_bias and not (is_product and _may_be_added(other, seen)):
                continue
            if is_product:
                with traced.graph.inserting_before(node):
                    flat = _reshaped(traced, other, like.shape[1:] if is_bias else like.shape)
                put(traced.graph, node, _aten.addmm.default, (flat, *source.args), source, seen)
            else:
                given = *source.args[:2], other, *source.args[3:]
                put(traced.graph, node, _aten.convolution.default, given, source, seen)
            break


def _may_be_added(value: Any, seen: Any) -> bool:
    """Whether a value has a number for each of a product, which another node shows, at the same place in memory."""
    meta, like = value.meta.get("val") if isinstance(value, Node) else None, seen.meta["val"]
    return (
        isinstance(meta, torch.Tensor)
        and (meta.shape, meta.dtype, meta.device) == (like.shape, like.dtype, like.device)
        and like.dtype in FLOATS
        and meta.is_contiguous()
        and like.is_contiguous()
    )


def _reshaped(traced: GraphModule, node: Node, shape: Any) -> Node:
    like = node.meta["val"]
    if like.shape == shape:
        return node
    found = traced.graph.call_function(_aten.view.default, (node, list(shape)))
    found.meta["val"] = like.view(shape)
    return found


def source_of(seen: Any, biased: bool = False) -> Node | None:
    """The product, or the convolution with its channels last, that a node shows, if nobody else looks at it.

    Args:
        seen: the node: it, or a view of it.
        biased: whether it may add a bias already.
    """
    if not isinstance(seen, Node) or len(seen.users) > 1:
        return None
    products = {_aten.mm.default, _aten.addmm.default} if biased else {_aten.mm.default}
    if seen.target in products:
        return seen
    source = seen.args[0] if seen.target in VIEWS else None
    if not isinstance(source, Node) or len(source.users) > 1:
        return None
    if source.target in products:
        return source if seen.target is not _aten.permute.default else None
    if source.target is _aten.convolution.default and (biased or source.args[2] is None):
        channels_last = [0, *range(2, source.meta["val"].ndim), 1]
        is_turned = seen.target is _aten.permute.default
        return source if is_turned and seen.args[1] == channels_last else None
    return None


def is_by_channel(value: Any, seen: Node, source: Node) -> bool:
    """Whether a value has a number for each column of a product, or each channel of a convolution."""
    meta = value.meta.get("val") if isinstance(value, Node) else None
    like = source.meta["val"]
    if not isinstance(meta, torch.Tensor) or not meta.ndim or like.dtype not in FLOATS:
        return False
    if meta.dtype != like.dtype or meta.device != like.device or meta.numel() != like.shape[1]:
        return False
    return meta.is_contiguous() and meta.shape == seen.meta["val"].shape[-meta.ndim :]
