"""Pooling of largest elements in a traced graph: before a ReLU, and by halves.

The largest of what ReLU leaves is what ReLU leaves of the largest: the same numbers, of which there are fewer. The way
back is the same too: a window's gradient goes to its first largest element, and to none if that is not above zero.
Where nobody asks where the largest were, two rows are compared, then two columns: less is written.
"""

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.nodes import call, only_user

__all__ = ["cut_later", "pool_by_halves"]

_aten = torch.ops.aten
_POOLS = {
    _aten.max_pool2d_with_indices.default: _aten.max_pool2d_with_indices_backward.default,
    _aten.max_pool3d_with_indices.default: _aten.max_pool3d_with_indices_backward.default,
}


_LEAST = 1 << 18  # elements of an array that is pooled by halves


def pool_by_halves(traced: GraphModule) -> None:
    """Let the largest of two by two elements be found without their places where nobody reads these."""
    graph = traced.graph
    for pool in list(graph.nodes):
        largest: Any = only_user(pool) if pool.target is _aten.max_pool2d_with_indices.default else None
        if largest is None or largest.args[1] != 0 or [list(part) for part in pool.args[1:]] != [[2, 2], [2, 2]]:
            continue
        like = pool.args[0].meta["val"]
        is_turned = like.device.type == "cpu" and like.is_contiguous(memory_format=torch.channels_last)
        batch, channels, rows, columns = like.shape
        if not is_turned or like.numel() < _LEAST or rows % 2 or columns % 2:
            continue
        halves = [batch, rows // 2, 2, columns * channels], [batch, rows // 2, columns // 2, 2, channels]
        with graph.inserting_before(largest):
            node = call(graph, _aten.permute.default, pool.args[0], [0, 2, 3, 1])
            for axis, shape in zip((2, 3), halves, strict=True):
                seen = call(graph, _aten.view.default, node, shape)
                pair = [call(graph, _aten.select.int, seen, axis, place) for place in (0, 1)]
                node = call(graph, _aten.maximum.default, *pair)
            node = call(graph, _aten.permute.default, node, [0, 3, 1, 2])
        largest.replace_all_uses_with(node)


def cut_later(traced: GraphModule) -> None:
    """Let windows be pooled before ReLU where nobody else reads what it gave."""
    graph = traced.graph
    for pool in list(graph.nodes):
        cut: Any = pool.args[0] if pool.target in _POOLS else None
        if getattr(cut, "target", None) is not _aten.relu.default:
            continue
        if any(user.target is not operator.getitem for user in pool.users):
            continue
        largest = [user for user in pool.users if user.args[1] == 0]
        ways = _ways_back(pool, cut)
        if len(largest) != 1 or ways is None:
            continue
        pool.replace_input_with(cut, cut.args[0])
        with graph.inserting_after(largest[0]):
            new = graph.call_function(_aten.relu.default, (largest[0],))
        new.meta["val"] = largest[0].meta["val"]
        largest[0].replace_all_uses_with(new, lambda user, new=new: user is not new)  # type: ignore[misc]
        for pull, shown, gate in ways:
            with graph.inserting_before(pull):
                given = graph.call_function(_aten.threshold_backward.default, (pull.args[0], new, 0))
            given.meta["val"] = pull.args[0].meta.get("val", new.meta["val"])
            pull.args = (given, cut.args[0], *pull.args[2:])
            gate.replace_all_uses_with(shown)


def _ways_back(pool: Node, cut: Node) -> list[tuple[Any, Any, Node]] | None:
    """Where gradients go back through a pooling and the ReLU before it; `None` if others read what the ReLU gave.

    Returns:
        for each the pooling's gradient, the view of it that goes on, and the gradient of the ReLU.
    """
    ways = []
    for pull in cut.users:
        if pull.target is _POOLS[pool.target] and pull.args[1] is cut:  # type: ignore[index]
            shown = only_user(pull)
            shown, gate = (shown, only_user(shown)) if _is_turn(shown) else (pull, shown)
            if gate is None or gate.target is not _aten.threshold_backward.default or gate.args[0] is not shown:
                return None
            if gate.args[2] != 0 or not _is_shown_alike(gate.args[1], cut, shown, pull):
                return None
            ways.append((pull, shown, gate))
    pulls, gates = {pull for pull, _, _ in ways}, {gate for _, _, gate in ways}
    readers = {reader for user in cut.users for reader in (user.users if _is_turn(user) else [user])}
    places = {reader for user in pool.users if user.args[1] == 1 for reader in user.users}
    return ways if readers <= {pool, *pulls, *gates} and places == pulls else None


def _is_turn(node: Node | None) -> bool:
    return node is not None and node.target is _aten.permute.default


def _is_shown_alike(value: Any, cut: Node, shown: Any, pull: Node) -> bool:
    """Whether a value is what the ReLU gave, in the view in which the pooling's gradient is shown."""
    if shown is pull:
        return value is cut
    return _is_turn(value) and value.args[0] is cut and value.args[1] == shown.args[1]
