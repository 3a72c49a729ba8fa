"""Adam's update as PyTorch's fused kernel; in a trace, one call for all weights, in the memory of the old values."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.arrays import in_trace
from cornu.engines.torch.in_place import may_be_view
from cornu.engines.torch.pieces import define, is_written_out
from cornu.ops.updates import adam_update as _op

__all__ = ["TABLE", "reuse"]

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# The kernel corrects the bias for this many steps, after which there is none; the correction is in alpha.
_LATE = 1e9
# Bytes of a gradient that is kept as memory of zeros.
_SMALL, _LARGE = 1 << 19, 1 << 26


@functools.cache
def _late(device: torch.device) -> torch.Tensor:
    return torch.tensor(_LATE, device=device)


def _in_place(
    values: list[Any],
    gradients: list[Any],
    momenta: list[Any],
    velocities: list[Any],
    alpha: Any,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> None:
    """Update tensors without gaps in memory, all of one dtype and device."""
    late = [_late(values[0].device)] * len(values)
    torch._fused_adam_(
        values, gradients, momenta, velocities, [], late,
        lr=alpha.item() if alpha.device.type == "cpu" else alpha,
        beta1=beta_1, beta2=beta_2, weight_decay=0.0, eps=epsilon, amsgrad=False, maximize=False,
    )  # fmt: skip


def _updated(
    value: Any, gradient: Any, momentum: Any, velocity: Any, alpha: Any, beta_1: float, beta_2: float, epsilon: float
) -> tuple[Any, Any, Any]:
    new = [part.clone(memory_format=torch.contiguous_format) for part in (value, momentum, velocity)]
    _in_place([new[0]], [gradient.contiguous()], [new[1]], [new[2]], alpha, beta_1, beta_2, epsilon)
    return new[0], new[1], new[2]


def _shapes(value: Any, gradient: Any, momentum: Any, velocity: Any, *rest: Any) -> tuple[Any, Any, Any]:
    new = (torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in (value, momentum, velocity))
    return tuple(new)  # type: ignore[return-value]


_operator: Any = define(
    "adam_update(Tensor value, Tensor gradient, Tensor momentum, Tensor velocity, Tensor alpha, float beta_1, "
    "float beta_2, float epsilon) -> (Tensor, Tensor, Tensor)",
    _updated,
    _shapes,
)


def _adam_update(
    value: Any, gradient: Any, momentum: Any, velocity: Any, alpha: Any, beta_1: float, beta_2: float, epsilon: float
) -> Any:
    parts = value, gradient, momentum, velocity
    alike = len({(part.dtype, part.shape, part.device) for part in parts}) == 1 and value.dtype in _FLOATS
    followed = torch.is_grad_enabled() and any(part.requires_grad for part in (*parts, alpha))
    if is_written_out() or followed or not alike or alpha.ndim or not value.numel():
        return _op.body(*parts, alpha, beta_1, beta_2, epsilon)
    run = _operator if in_trace() else _updated
    return run(*parts, alpha, float(beta_1), float(beta_2), float(epsilon))


TABLE: dict[str, Callable[..., Any]] = {"adam_update": _adam_update}

# ---------------------------------------------------------------- in a trace


def reuse(traced: GraphModule, donated: int) -> None:
    """Let updates write to the memory of old values that nobody needs afterwards.

    Args:
        traced: a graph.
        donated: how many of its first inputs may be written to; its first results take their place.
    """
    place = {node: i for i, node in enumerate(traced.graph.nodes)}
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"][:donated]
    groups: dict[Any, list[Node]] = {}
    for node in traced.graph.nodes:
        if node.target is torch.ops.cornu.adam_update.default:
            meta = node.args[0].meta["val"]
            groups.setdefault((node.args[4:], meta.dtype, meta.device), []).append(node)
    for nodes in groups.values():
        if _may_join(nodes, place):
            _join(traced, nodes, place, set(inputs), donated)
        else:
            for node in nodes:
                _join(traced, [node], place, set(inputs), donated)


def _may_join(nodes: list[Node], place: dict[Node, int]) -> bool:
    """Whether all updates can be made at the place of the last: nobody looks at a result before."""
    last = max(place[node] for node in nodes)
    return all(place[user] > last for node in nodes for part in node.users for user in part.users)


def _join(traced: GraphModule, nodes: list[Node], place: dict[Node, int], inputs: set[Node], donated: int) -> None:
    """One call for some updates, where the last of them stands."""
    graph, last = traced.graph, max(nodes, key=lambda node: place[node])
    own: list[list[Node]] = []
    with graph.inserting_before(last):
        for node in nodes:
            kept: list[Any] = [node.args[i] for i in (0, 2, 3)]
            own.append([part if _is_free(part, node, place, inputs) else _copied(graph, part) for part in kept])
        call, unused = _one_call(graph, nodes, [list(column) for column in zip(*own, strict=True)])
    for node, parts in zip(nodes, own, strict=True):
        for user in list(node.users):
            # Named again after the call, so that whatever uses the new value comes after it.
            user.replace_all_uses_with(parts[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
        graph.erase_node(node)
    for node in unused:
        graph.erase_node(node)
    assert not call.users
    _keep_apart(traced, {part for parts in own for part in parts}, donated)


def _one_call(graph: Any, nodes: list[Node], columns: list[list[Node]]) -> tuple[Node, list[Node]]:
    """One call for some updates of values, momenta and velocities, and the nodes that are not needed any more."""
    gradients: list[Any] = [node.args[1] for node in nodes]
    by_rows = {i: found for i, gradient in enumerate(gradients) if (found := _rows_of(gradient)) is not None}
    dense = [None if i in by_rows else _contiguous(graph, gradient) for i, gradient in enumerate(gradients)]
    given = (columns[0], dense, columns[1], columns[2], *nodes[-1].args[4:])
    if not by_rows:
        return graph.call_function(_in_place, given), []
    places, rows = (list(column) for column in zip(*by_rows.values(), strict=True))
    unused = [node for i in by_rows for node in (gradients[i], gradients[i].args[0])]
    return graph.call_function(_by_rows(), ([*by_rows], places, rows, *given)), unused


def _rows_of(gradient: Any) -> tuple[Node, Node] | None:
    """The places and rows that a gradient of zeros was given, if it is large and nobody else looks at it."""
    aten, like = torch.ops.aten, gradient.meta["val"]
    if gradient.target is not aten.index_add.default or len(gradient.args) != 4 or gradient.kwargs:
        return None
    zeros, axis, places, rows = gradient.args
    if zeros.target is not aten.new_zeros.default or any(len(node.users) > 1 for node in (zeros, gradient)):
        return None
    size = like.numel() * like.itemsize
    return (places, rows) if not axis and like.device.type == "cpu" and _SMALL < size <= _LARGE else None


def _by_rows() -> Callable[..., None]:
    """`_in_place` of a trace where gradients are zero but for some rows: their memory is kept, with zeros in it.

    To fill a large table's gradient with zeros takes a quarter as long as its update.
    """
    kept: dict[int, Any] = {}

    def adam_by_rows(
        which: list[int], places: list[Any], rows: list[Any], values: list[Any], gradients: list[Any], *rest: Any
    ) -> None:
        taken = [kept.pop(i, None) for i in which]  # whatever fails, only zeros are put back
        gradients = list(gradients)
        for i, zeros, at, part in zip(which, taken, places, rows, strict=True):
            zeros = torch.zeros_like(values[i]) if zeros is None else zeros
            gradients[i] = zeros.index_add_(0, at, part)
        _in_place(values, gradients, *rest)
        for i, at in zip(which, places, strict=True):
            kept[i] = gradients[i].index_fill_(0, at.long(), 0)

    return adam_by_rows


def _is_free(part: Node, update: Node, place: dict[Node, int], inputs: set[Node]) -> bool:
    """Whether an input, or a view of it, is not looked at after an update."""
    if part not in inputs:
        return False
    pending, seen = [part], {part}
    while pending:
        for user in pending.pop().users:
            if user is not update and place.get(user, len(place)) > place[update]:
                return False
            if user not in seen and user is not update and may_be_view(user):
                seen.add(user)
                pending.append(user)
    return True


def _copied(graph: Any, part: Node) -> Node:
    made: Node = graph.call_function(torch.ops.aten.clone.default, (part,), {"memory_format": torch.contiguous_format})
    made.meta = dict(part.meta)
    return made


def _contiguous(graph: Any, part: Node) -> Node:
    if part.meta["val"].is_contiguous():
        return part
    made: Node = graph.call_function(torch.Tensor.contiguous, (part,))
    made.meta = dict(part.meta)
    return made


def _keep_apart(traced: GraphModule, reused: set[Node], donated: int) -> None:
    """Give results beside the state memory of their own, if they lie in what the next call may write to."""
    graph = traced.graph
    output = next(iter(reversed(graph.nodes)))
    results = list(output.args[0])
    for i in range(donated, len(results)):
        if _lies_in(results[i], reused):
            with graph.inserting_before(output):
                results[i] = _copied(graph, results[i])
    output.args = (results,)


def _lies_in(node: Any, reused: set[Node]) -> bool:
    while isinstance(node, Node):
        if node in reused:
            return True
        if node.op != "call_function" or not may_be_view(node) or not node.all_input_nodes:
            return False
        node = node.all_input_nodes[0]
    return False
