"""Products of the same rows with matrices that are known beforehand, computed as one.

So are what attention asks, what it is asked by and what it gives: one product of three matrices side by side takes less
time than three, of which the kernel of attention reads each where it lies.
"""

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.early import Early
from cornu.engines.torch.nodes import call, only_user

__all__ = ["join"]

_aten = torch.ops.aten
_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu.default


def join(traced: GraphModule, known: set[Node], room: int) -> int:
    """Let products of the same rows that attention reads be one.

    Args:
        traced: a graph.
        known: its nodes that are computed beforehand; new ones are added.
        room: how many bytes matrices side by side may take.

    Returns:
        how many bytes are left.
    """
    early = Early(traced, known)
    place = {node: i for i, node in enumerate(traced.graph.nodes)}
    groups: dict[Any, list[Node]] = {}
    for node in traced.graph.nodes:
        view = _heads(node) if _is_of_known(node, known) else None
        if view is not None:
            *lead, _, size = view.meta["val"].shape
            groups.setdefault((node.args[-2], *lead, size, node.meta["val"].dtype), []).append(node)
    for nodes in groups.values():
        taken = sum(node.args[-1].meta["val"].nbytes for node in nodes)  # type: ignore[union-attr]
        readers = [reader for node in nodes for reader in only_user(node).users]
        if len(nodes) == 1 or taken > room or min(map(place.__getitem__, readers)) < place[nodes[-1]]:
            continue
        room -= taken
        _join(early, nodes)
    return room


def _is_of_known(node: Node, known: set[Node]) -> bool:
    """Whether a node is the product of rows with a matrix, and perhaps a bias, that are known."""
    if node.target not in (_aten.mm.default, _aten.addmm.default) or node.kwargs or node in known:
        return False
    *added, _, matrix = node.args
    return matrix in known and all(bias in known and bias.meta["val"].ndim == 1 for bias in added)  # type: ignore[union-attr]


def _heads(node: Node) -> Any:
    """The view `(batch, time, heads, size)` of a product, if nobody but attention reads it; else `None`."""
    view = only_user(node)
    if getattr(view, "target", None) is not _aten.view.default or view.meta["val"].ndim != 4:
        return None
    heads, size = view.meta["val"].shape[2:]
    turned = [user for user in view.users if user.target is _aten.transpose.int and user.args[1:] == (1, 2)]
    readers = [reader for user in turned for reader in user.users]
    alone = len(turned) == len(view.users) and all(reader.target is _ATTENTION for reader in readers)
    return view if alone and readers and heads * size == node.meta["val"].shape[1] else None


def _join(early: Early, nodes: list[Any]) -> None:
    """One product in the place of the last of some; its columns are the heads of one after those of the other."""
    graph, last = early.graph, nodes[-1]
    matrix = early.call(last, _aten.cat.default, [node.args[-1] for node in nodes], 1)
    args: tuple[Any, ...] = last.args[-2], matrix
    if any(len(node.args) == 3 for node in nodes):
        args = early.call(last, _aten.cat.default, [_bias(early, last, node) for node in nodes]), *args
    views = [only_user(node) for node in nodes]
    heads = [view.meta["val"].shape[2] for view in views]
    *lead, _, size = views[0].meta["val"].shape
    with graph.inserting_before(last):
        product = call(graph, _aten.mm.default if len(args) == 2 else _aten.addmm.default, *args)
        whole = call(graph, _aten.view.default, product, [*lead, sum(heads), size])
        parts = call(graph, _aten.split_with_sizes.default, whole, heads, 2)
        for i, view in enumerate(views):
            view.replace_all_uses_with(call(graph, operator.getitem, parts, i))
    for node, view in zip(nodes, views, strict=True):
        graph.erase_node(view)
        graph.erase_node(node)


def _bias(early: Early, at: Node, node: Any) -> Node:
    """What a product adds, with zeros for nothing."""
    if len(node.args) == 3:
        return node.args[0]  # type: ignore[no-any-return]
    matrix = node.args[-1]
    like = matrix.meta["val"]
    return early.call(at, _aten.new_zeros.default, matrix, [like.shape[1]])
