"""A traced graph without the nodes that do nothing or repeat others, with what is known computed beforehand, gradients
of picked log probabilities computed in their place, and as few views as will do. Products add and convolutions pad by
themselves, and windows are pooled before ReLU."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.arrays import to_host
from cornu.engines.torch.in_place import writes
from cornu.engines.torch.padding import pad_within
from cornu.engines.torch.pooled import cut_later, pool_by_halves
from cornu.engines.torch.products import FLOATS, VIEWS, add_in_products

__all__ = ["simplify"]

_aten = torch.ops.aten
_SAME = {_aten.detach.default, _aten.alias.default, _aten.lift_fresh_copy.default, _aten.lift_fresh.default}
_RESHAPES = {_aten.view.default, _aten._unsafe_view.default}
_TURNS = {*_RESHAPES, _aten.permute.default}
_FILLED = {
    _aten.ones_like.default: lambda args: 1,
    _aten.zeros_like.default: lambda args: 0,
    _aten.full_like.default: lambda args: args[1],
    _aten.new_zeros.default: lambda args: 0,
    _aten.new_ones.default: lambda args: 1,
    _aten.new_full.default: lambda args: args[2],
}
_BY_ELEMENT = {
    getattr(_aten, name).default
    for name in "abs elu exp gelu hardsigmoid hardswish leaky_relu log neg relu sigmoid silu softplus sqrt tanh".split()
}
_LARGEST = 1 << 16  # elements of a result that is worth keeping


def simplify(traced: GraphModule) -> None:
    """Drop what does nothing or is known, compute what is the same once, add biases in products, join views."""
    nodes = traced.graph.nodes
    if not any(writes(node) for node in nodes):
        for node in list(nodes):
            if node.target in _SAME or (node.target in VIEWS and _is_whole(node)):
                node.replace_all_uses_with(node.args[0])
                traced.graph.erase_node(node)
        traced.graph.eliminate_dead_code()
        _fold(traced)
        _share(traced)
        add_in_products(traced)
        _pick_directly(traced)
        pad_within(traced)
        traced.graph.eliminate_dead_code()
        _look_less(traced)
        traced.graph.eliminate_dead_code()
        cut_later(traced)
        pool_by_halves(traced)
    traced.graph.eliminate_dead_code()


def _is_whole(node: Node) -> bool:
    """Whether a view shows each element where it was."""
    seen, source = node.meta["val"], node.args[0].meta["val"]  # type: ignore[union-attr]
    return bool(seen.shape == source.shape and seen.stride() == source.stride())


def _fold(traced: GraphModule) -> None:
    known: dict[Node, Any] = {}
    for node in list(traced.graph.nodes):
        if node.op == "get_attr":
            known[node] = node.meta["val"] = getattr(traced, str(node.target))
        elif node.op == "call_function":
            value = _value(node, known)
            if isinstance(value, torch.Tensor):
                known[node] = value
    for i, (node, value) in enumerate(known.items()):
        if node.op == "call_function" and any(user not in known for user in node.users):
            name = f"_known{i}"
            traced.register_buffer(name, value, persistent=False)
            with traced.graph.inserting_before(node):
                kept = traced.graph.get_attr(name)
            kept.meta["val"] = value
            node.replace_all_uses_with(kept)


def _value(node: Node, known: dict[Node, Any]) -> Any:
    """What a node gives whatever the arguments are, or `None`."""
    meta = node.meta.get("val")
    if not isinstance(meta, torch.Tensor) or meta.untyped_storage().nbytes() > 8 * _LARGEST:
        return None
    if node.target in _FILLED:
        fill = _FILLED[node.target](node.args)
        return torch.full(meta.shape, fill, dtype=meta.dtype, device=meta.device)
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in node.target.tags:
        return None
    if any(parent not in known for parent in node.all_input_nodes):
        return None
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda parent: known[parent])
    return node.target(*args, **kwargs)


def _share(traced: GraphModule) -> None:
    """Let nodes that compute the same from the same be one."""
    known: dict[Any, Node] = {}
    for node in list(traced.graph.nodes):
        key = _key(traced, node)
        if key is None:
            continue
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            traced.graph.erase_node(node)


def _key(traced: GraphModule, node: Node) -> Any:
    """What tells a node from others that give something else; `None` if it gives something new each time."""
    if node.op == "get_attr":
        value = getattr(traced, str(node.target))
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            return None
        return "number", tuple(value.shape), value.dtype, value.device, to_host(value).tobytes()
    if node.op != "call_function":
        return None
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags:
        return None
    # The types stand beside the values, since 1, 1.0 and True are equal.
    return target, _frozen(node.args), _frozen(node.kwargs)


def _frozen(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple((name, _frozen(part)) for name, part in value.items())
    return type(value), repr(value) if isinstance(value, float) else value


def _look_less(traced: GraphModule) -> None:
    """Let one view stand for a view of a view, or none; between two may be what is computed element by element."""
    for node in list(traced.graph.nodes):
        source: Any = node.args[0] if node.args else None
        if not isinstance(source, Node) or source.target not in _TURNS:
            continue
        inner: Any = source.args[0]
        with traced.graph.inserting_before(node):
            if node.target in _BY_ELEMENT and len(source.users) == 1 and _is_dense(inner):
                new = traced.graph.call_function(node.target, (inner, *node.args[1:]), node.kwargs)
                new.meta["val"] = torch.empty_like(inner.meta["val"], dtype=node.meta["val"].dtype)
                new = traced.graph.call_function(source.target, (new, source.args[1]))
            else:
                new = _once(traced, node, source)
        if new is not None:
            new.meta.setdefault("val", node.meta["val"])
            node.replace_all_uses_with(new)
            traced.graph.erase_node(node)


def _once(traced: GraphModule, node: Any, source: Any) -> Any:
    """The node that a view of a view comes down to; `None` if it stays one."""
    inner = source.args[0]
    if node.target is source.target is _aten.permute.default:
        order = [source.args[1][axis] for axis in node.args[1]]
        if order == list(range(len(order))):
            return inner
        return traced.graph.call_function(node.target, (inner, order))
    if node.target in _RESHAPES and source.target in _RESHAPES and inner.meta["val"].is_contiguous():
        shape = list(node.meta["val"].shape)
        if shape == list(inner.meta["val"].shape):
            return inner
        return traced.graph.call_function(_aten.view.default, (inner, shape))
    return None


def _is_dense(node: Node) -> bool:
    """Whether what is computed of a value element by element lies in memory as the value does."""
    value = node.meta["val"]
    order = sorted(range(value.ndim), key=value.stride, reverse=True)
    return bool(value.permute(order).is_contiguous())


def _pick_directly(traced: GraphModule) -> None:
    """Compute the gradient of one element of each log softmax, `g * (one_hot - softmax)`, without an array of zeros."""
    graph = traced.graph
    for node in list(graph.nodes):
        if node.target is not _aten._log_softmax_backward_data.default:
            continue
        spread, found, axis, dtype = node.args
        if spread.target is not _aten.scatter_add.default or len(spread.users) > 1 or spread.args[1] != axis:
            continue
        zeros, _, places, given = spread.args
        like, one = found.meta["val"], list(found.meta["val"].shape)
        one[axis] = 1
        alike = list(places.meta["val"].shape) == list(given.meta["val"].shape) == one
        if zeros.target is not _aten.new_zeros.default or not alike or dtype != like.dtype or dtype not in FLOATS:
            continue
        with graph.inserting_before(node):
            new = graph.call_function(_aten.exp.default, (found,))
            new.meta["val"] = torch.empty_like(like)
            minus = graph.call_function(_aten.neg.default, (given,))
            minus.meta["val"] = torch.empty_like(given.meta["val"])
            for target, rest in ((_aten.mul.Tensor, (minus,)), (_aten.scatter_add.default, (axis, places, given))):
                new = graph.call_function(target, (new, *rest))
                new.meta["val"] = torch.empty_like(like)
        node.replace_all_uses_with(new)
