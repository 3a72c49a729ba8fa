"""Where a traced graph may compute a result in the memory of an argument that nobody looks at afterwards."""

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

__all__ = ["in_place", "may_be_view", "writes"]

_aten = torch.ops.aten
_SHARE = 8  # elements filled by each condition, from which on it is looked at first


def _filled(value: Any, where: Any, number: Any) -> Any:
    """A few places are looked at first: those of positions outside a table, of which there are none as a rule."""
    few = type(where) is torch.Tensor and where.device.type == "cpu" and where.numel() * _SHARE <= value.numel()
    return value if few and not where.any() else value.masked_fill_(where, number)


# Operators that compute element by element: how they write to the memory of their first argument.
_WRITERS: dict[Any, tuple[Any, str | None]] = {
    _aten.relu.default: (torch.relu_, None),
    _aten.masked_fill.Scalar: (_filled, None),
    _aten.threshold_backward.default: (_aten.threshold_backward.grad_input._op, "grad_input"),
    _aten.sigmoid_backward.default: (_aten.sigmoid_backward.grad_input._op, "grad_input"),
    _aten.tanh_backward.default: (_aten.tanh_backward.grad_input._op, "grad_input"),
    _aten.gelu_backward.default: (_aten.gelu_backward.grad_input._op, "grad_input"),
    _aten.silu_backward.default: (_aten.silu_backward.grad_input._op, "grad_input"),
    **{
        getattr(_aten, name).default: (getattr(torch, name), "out")
        for name in "neg exp log sqrt rsqrt sigmoid tanh".split()
    },
    **{getattr(_aten, name).Tensor: (getattr(torch, name), "out") for name in "add sub mul div".split()},
}

# Others, whose further arguments must lie elsewhere.
_PUTTERS: dict[Any, tuple[Any, str | None]] = {
    _aten.index_add.default: (torch.Tensor.index_add_, None),
    _aten.scatter_add.default: (torch.Tensor.scatter_add_, None),
    _aten.index_copy.default: (torch.Tensor.index_copy_, None),
    _aten.addmm.default: (torch.addmm, "out"),
}
_METHODS = {_aten.relu.default, _aten.masked_fill.Scalar}
_EITHER = {_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor}
_LEAST = 1 << 12  # elements, below which memory costs less than a named argument


def writes(node: Node) -> bool:
    """Whether an operator changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def may_be_view(node: Node) -> bool:
    """Whether a result may lie in the memory of an argument."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "cornu", "mkldnn"):
        return True
    name = target._schema.name
    if name.endswith(("reshape", "contiguous", "_to_copy", "to", "_unsafe_view")):
        return True
    return any(result.alias_info is not None for result in target._schema.returns)


class _Memory:
    """Which nodes of a graph lie in the same memory: those with a root in common."""

    def __init__(self, traced: GraphModule) -> None:
        self.place = {node: i for i, node in enumerate(traced.graph.nodes)}
        self.roots: dict[Node, frozenset[Node]] = {}
        self.members: dict[Node, list[Node]] = {}

    def enter(self, node: Node, roots: frozenset[Node]) -> None:
        self.roots[node] = roots
        for root in roots:
            self.members.setdefault(root, []).append(node)

    def of(self, node: Node) -> frozenset[Node]:
        """The roots of a node's result, those of its arguments being known."""
        parents = node.all_input_nodes
        if node.op != "call_function" or not parents:
            return frozenset([node])
        if node.target is operator.getitem and isinstance(parents[0].target, torch._ops.OpOverload):
            return self.roots[parents[0]] if may_be_view(parents[0]) else frozenset([node])
        return frozenset().union(*(self.roots[p] for p in parents)) if may_be_view(node) else frozenset([node])

    def is_free(self, part: Node, node: Node) -> bool:
        """Whether an argument lies in the graph's own memory, and nobody else reads it from a node on."""
        roots = self.roots[part]
        if any(root.op != "call_function" for root in roots):
            return False
        if any(other is not part and roots & self.roots[other] for other in node.all_input_nodes):
            return False
        at = self.place[node]
        users = (user for root in roots for member in self.members[root] for user in member.users)
        return all(self.place[user] <= at for user in users)


def _alike(part: Any, result: Any) -> bool:
    """Whether a result has the place of each element where the argument has it."""
    return (
        isinstance(part, torch.Tensor)
        and (part.shape, part.dtype, part.device, part.stride())
        == (result.shape, result.dtype, result.device, result.stride())
        and all(step > 0 or size == 1 for step, size in zip(part.stride(), part.shape, strict=True))
    )


def in_place(traced: GraphModule) -> dict[Node, tuple[Any, str | None, Node]]:
    """The nodes that may be computed in the memory of an argument.

    Returns:
        for each such node the function, the name of the argument that says where to (`None`: the first), and where to.
    """
    memory = _Memory(traced)
    found: dict[Node, tuple[Any, str | None, Node]] = {}
    if any(writes(node) for node in traced.graph.nodes):
        return found
    for node in traced.graph.nodes:
        part = _lender(node, memory)
        if part is not None:
            found[node] = (*(_WRITERS.get(node.target) or _PUTTERS[node.target]), part)
        memory.enter(node, memory.of(node) if part is None else memory.roots[part])
    return found


def _lender(node: Node, memory: _Memory) -> Node | None:
    """The argument in whose memory a node may be computed."""
    puts = node.target in _PUTTERS
    if not (puts or node.target in _WRITERS):
        return None
    if node.target not in _METHODS and node.meta["val"].numel() < _LEAST:
        return None
    if puts and node.args[0] in node.args[1:]:
        return None
    for part in node.args[: 2 if node.target in _EITHER else 1]:
        if isinstance(part, Node) and _alike(part.meta.get("val"), node.meta["val"]) and memory.is_free(part, node):
            return part
    return None
