"""The graph a model is: symbolic tensors, nodes, the plan that runs them, and the masks that travel along."""

from cornu.graph.symbolic import Node, SymbolicTensor, user_tensors

__all__ = ["Node", "SymbolicTensor", "user_tensors"]
