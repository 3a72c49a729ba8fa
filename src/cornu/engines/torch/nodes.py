"""Nodes of a traced graph: read, put in, and what they give."""

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

__all__ = ["call", "learn", "only_user", "put"]


def only_user(node: Node) -> Any:
    """The node that reads another's result; `None` if that are several, or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def learn(node: Node) -> None:
    """Note what a node gives now, without elements, and what is seen of that."""
    target: Any = node.target
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda given: given.meta["val"])
    node.meta["val"] = target(*args, **kwargs)
    for user in node.users:
        if user.target in (operator.getitem, torch.ops.aten.permute.default):
            learn(user)


def call(graph: Graph, target: Any, *args: Any, like: Any = None, **kwargs: Any) -> Node:
    """A call of an operator; `like` stands for its result where the operator has no stand-ins."""
    node = graph.call_function(target, args, kwargs)
    if like is None:
        learn(node)
    else:
        node.meta["val"] = like
    return node


def put(graph: Graph, old: Node, target: Any, args: Any, source: Any = None, seen: Any = None) -> Any:
    """Another operator in the place of a node.

    Args:
        graph: the graph.
        old: the node.
        target: the operator.
        args: its arguments.
        source: another node that the operator gives what is like the result of; by default the old one.
        seen: a view of that, in which the new result is to be seen.

    Returns:
        the operator's node.
    """
    source = old if source is None else source
    with graph.inserting_before(old):
        new = shown = graph.call_function(target, tuple(args))
        new.meta["val"] = source.meta["val"]
        if seen is not None and seen is not source:
            shown = graph.call_function(seen.target, (new, *seen.args[1:]))
            shown.meta["val"] = seen.meta["val"]
    old.replace_all_uses_with(shown)
    graph.erase_node(old)
    return new
