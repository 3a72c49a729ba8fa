"""What is added to the part of a traced graph that is computed beforehand."""

from typing import Any

from torch.fx import GraphModule, Node

from cornu.engines.torch.nodes import call

__all__ = ["Early"]


class Early:
    """Writes into a graph what is computed beforehand.

    Args:
        traced: the graph.
        known: its nodes that are computed beforehand; new ones are added.
    """

    def __init__(self, traced: GraphModule, known: set[Node]) -> None:
        self.graph = traced.graph
        self.known = known

    def call(self, at: Node, target: Any, *args: Any, like: Any = None, **kwargs: Any) -> Node:
        """A call of an operator before another; `like` stands for its result where the operator has no stand-ins."""
        with self.graph.inserting_before(at):
            node = call(self.graph, target, *args, like=like, **kwargs)
        self.known.add(node)
        return node
