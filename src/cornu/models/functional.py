"""`Functional`: a model that is a graph, and its config in Keras's form."""

from typing import Any

from cornu.core import registry, tree
from cornu.core.errors import SavingError
from cornu.graph.symbolic import Node, SymbolicTensor
from cornu.layers.base import Layer
from cornu.models.model import Model

__all__ = ["Functional", "functional_config", "functional_from_config"]


class Functional(Model):
    """A model made from symbolic inputs and outputs; `Model(inputs, outputs)` makes one.

    Args:
        inputs: a structure of symbolic tensors.
        outputs: a structure of symbolic tensors.
        name: the model's name.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
