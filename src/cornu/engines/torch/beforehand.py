"""A traced graph in two: what follows from its first arguments alone, and the rest.

While a model predicts, its variables stay as they are: what only they go into (views, casts, kernels in another order)
is computed once.
"""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from cornu.engines.torch.in_place import writes

__all__ = ["split"]

_aten = torch.ops.aten
_LARGEST = 1 << 25  # bytes that are kept at most
_WORK = 10_000_000  # multiplications in a product from which on oneDNN's of a packed matrix takes less time
_NARROW = 4  # times as many rows as columns has a matrix that one row is multiplied by faster column by column


def split(traced: GraphModule, count: int) -> tuple[GraphModule, GraphModule]:
    """A graph in two.

    Args:
        traced: the graph.
        count: how many of its first arguments are given beforehand.

    Returns:
        the graph of those arguments, and the one of its results followed by the other arguments.
    """
    nodes = list(traced.graph.nodes)
    given = [node for node in nodes if node.op == "placeholder"][:count]
    early = set(given) if any(map(writes, nodes)) else _early(traced, given)
    edge = list(_edge(traced, early))
    first, second = Graph(), Graph()
    before: dict[Node, Node] = {}
    after: dict[Node, Node] = {}
    for node in edge:
        after[node] = second.placeholder(node.name)
        after[node].meta = dict(node.meta)
    for node in traced.graph.nodes:
        if node.op == "get_attr" or node in early:
            before[node] = first.node_copy(node, before.__getitem__)
        if node.op == "get_attr" or (node not in early and node.op != "output"):
            after[node] = second.node_copy(node, after.__getitem__)
        elif node.op == "output":
            second.output(torch.fx.map_arg(node.args[0], after.__getitem__))
    first.output([before[node] for node in edge])
    parts = GraphModule(traced, first), GraphModule(traced, second)
    for part in parts:
        part.graph.eliminate_dead_code()
    return parts


def _early(traced: GraphModule, given: list[Node]) -> set[Node]:
    """What follows from the given arguments, without what would take too much memory to keep."""
    known = set(given)
    for node in traced.graph.nodes:
        if node.op == "get_attr" or (_is_same_again(node) and all(p in known for p in node.all_input_nodes)):
            known.add(node)
    _turn_kernels(traced, known)
    known = {node for node in known if node.op != "get_attr"}
    free = {storage for node in given for storage, _ in _memory(node)}
    while True:
        kept = {node: dict(_memory(node)) for node in _edge(traced, known)}
        sizes = {storage: size for by in kept.values() for storage, size in by.items() if storage not in free}
        room = _LARGEST - sum(sizes.values())
        if room >= 0:
            _lay_matrices(traced, known, room)
            return known
        most = max(sizes, key=lambda storage: sizes[storage])
        later = {node for node in known if any(storage == most for storage, _ in _memory(node))}
        for node in traced.graph.nodes:
            if node in known and any(parent in later for parent in node.all_input_nodes):
                later.add(node)
        known -= later


def _is_same_again(node: Node) -> bool:
    """Whether a node gives the same whenever its arguments are the same."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return True
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in node.target.tags


def _edge(traced: GraphModule, early: set[Node]) -> Iterator[Node]:
    """The nodes that others than these use."""
    for node in traced.graph.nodes:
        if node in early and any(user not in early for user in node.users):
            yield node


def _memory(node: Node) -> Iterator[tuple[int, int]]:
    """The storages that a node's results lie in, and their bytes."""
    for value in torch.utils._pytree.tree_leaves(node.meta.get("val")):
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            yield storage._cdata, storage.nbytes()


def _turn_kernels(traced: GraphModule, known: set[Node]) -> None:
    """Have the kernels of convolutions in the order in which PyTorch's own (oneDNN) takes them beside channels last."""
    for node in list(traced.graph.nodes):
        if node.target is not _aten.convolution.default:
            continue
        kernel = node.args[1]
        like = kernel.meta["val"]
        if kernel not in known or kernel.op != "call_function" or like.ndim != 4 or like.device.type != "cpu":
            continue
        # Such kernels give results with channels last, which what comes after must have been traced for.
        if not all(part.meta["val"].is_contiguous(memory_format=torch.channels_last) for part in (node.args[0], node)):
            continue
        with traced.graph.inserting_before(node):
            order: dict[str, Any] = {"memory_format": torch.channels_last}
            turned = _known_call(traced, known, _aten.clone.default, (kernel,), like.clone(**order), order)
        node.update_arg(1, turned)


def _lay_matrices(traced: GraphModule, known: set[Node], room: int) -> None:
    """Have the matrices of products as they are read fastest, if that takes no more than so many bytes.

    Those of large products are packed as oneDNN has them; those of one row with few columns lie column by column.
    """
    packed_product: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    packs = packed_product is not None and torch.backends.mkldnn.is_available()
    for node in list(traced.graph.nodes):
        bias: Any
        if node.target is _aten.addmm.default and not node.kwargs:
            bias, x, matrix = node.args
        elif node.target is _aten.mm.default:
            bias, (x, matrix) = None, node.args
        else:
            continue
        rows, like = x.meta["val"], matrix.meta["val"]
        fits = (like.dtype, like.device.type) == (torch.float32, "cpu") and rows.is_contiguous()
        if not fits or matrix not in known or x in known or (bias is not None and bias.meta["val"].ndim != 1):
            continue
        is_large = packs and len(rows) * like.numel() >= _WORK
        is_narrow = len(rows) == 1 and len(like) >= _NARROW * like.shape[1] and like.is_contiguous()
        if not (is_large or is_narrow) or like.nbytes > room:
            continue
        room -= like.nbytes
        with traced.graph.inserting_before(node):
            columns = _known_call(traced, known, _aten.t.default, (matrix,), like.t())
            columns = _known_call(traced, known, _aten.contiguous.default, (columns,), like.t().contiguous())
            if is_large:
                reorder = torch.ops.mkldnn._reorder_linear_weight.default
                packed = _known_call(traced, known, reorder, (columns, len(rows)), like.t().contiguous())
                new = traced.graph.call_function(packed_product.default, (x, packed, bias, "none", [], ""))
            else:
                turned = _known_call(traced, known, _aten.t.default, (columns,), like.t().contiguous().t())
                new = traced.graph.call_function(node.target, (*node.args[:-1], turned))
        new.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(new)
        traced.graph.erase_node(node)


def _known_call(
    traced: GraphModule, known: set[Node], target: Any, args: tuple[Any, ...], value: Any, kwargs: Any = None
) -> Node:
    """A new node that is computed beforehand."""
    node = traced.graph.call_function(target, args, kwargs)
    node.meta["val"] = value
    known.add(node)
    return node
