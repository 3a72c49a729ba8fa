"""A traced graph in two: what follows from its first arguments alone, and the rest.

While a model predicts, its variables stay as they are: what only they go into (views, casts, kernels in another order)
is computed once.
"""

import operator
from collections.abc import Iterator

import torch
from torch.fx import Graph, GraphModule, Node

from cornu.engines.torch.in_place import writes
from cornu.engines.torch.joined import join
from cornu.engines.torch.laid import lay

__all__ = ["split"]

_LARGEST = 1 << 27  # bytes that are kept at most


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
    known = {node for node in known if node.op != "get_attr"}
    free = {storage for node in given for storage, _ in _memory(node)}
    while True:
        kept = {node: dict(_memory(node)) for node in _edge(traced, known)}
        sizes = {storage: size for by in kept.values() for storage, size in by.items() if storage not in free}
        room = _LARGEST - sum(sizes.values())
        if room >= 0:
            lay(traced, known, join(traced, known, room))
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
