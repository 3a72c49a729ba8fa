"""`Sequential`: a stack of layers, each fed by the one before."""

from typing import Any

from cornu.core import context, tree
from cornu.core.dims import keras_shape
from cornu.core.errors import ArgumentError, DtypeError, GraphError
from cornu.core.variable import structure_version
from cornu.graph.function import Function
from cornu.graph.symbolic import SymbolicTensor
from cornu.layers.base import Layer
from cornu.layers.input_layer import InputLayer
from cornu.models.model import Model
from cornu.ops._declare import dtype_of, shape_of

__all__ = ["Sequential"]


class Sequential(Model):
    """A stack of layers.

    Args:
        layers: the layers, from the first; an `Input` may lead.
        trainable: whether its weights train.
        name: the model's name.

    The graph is made as soon as the shape of the input is known: from an `Input`, from `build(shape)`, or at the
    first call.

    Example:
        >>> import cornu
        >>> model = cornu.Sequential([cornu.Input((4,)), cornu.layers.Dense(2)])
        >>> model.count_params()
        10
    """

    _stack: list[Layer]
    _names: set[str]
    _marks: list[SymbolicTensor]  # the input, and the output of each layer
    _given_input: InputLayer | None

    def __init__(self, layers: Any = None, trainable: bool = True, name: str | None = None) -> None:
        Layer.__init__(self, trainable=trainable, name=name)
        vars(self)["_stack"] = []
        vars(self)["_names"] = set()
        vars(self)["_marks"] = []
        vars(self)["_given_input"] = None
        for layer in [] if layers is None else layers if isinstance(layers, (list, tuple)) else [layers]:
            self.add(layer, rebuild=False)
        self._rebuild()

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Put a layer on top.

        Raises:
            DtypeError: if it is no layer.
            GraphError: if its name is taken.
        """
        if type(layer) is SymbolicTensor and isinstance(layer.node.operation, InputLayer):
            layer = layer.node.operation
        if not isinstance(layer, Layer):
            raise DtypeError(
                f"Sequential got {layer!r:.60} ({type(layer).__name__})", "a layer", "wrap a function in Lambda"
            )
        if layer.name in self._names:
            raise GraphError(
                f"Sequential {self.name!r} has two layers named {layer.name!r}", "a name of its own for each"
            )
        if isinstance(layer, InputLayer):
            if self._stack or self._given_input is not None:
                raise GraphError(
                    f"Sequential {self.name!r} got an Input after other layers", "at most one Input, first"
                )
            vars(self)["_given_input"] = layer
        else:
            if not self._stack and self._given_input is None and layer._batch_shape is not None:
                vars(self)["_given_input"] = InputLayer(batch_shape=layer._batch_shape)
            if rebuild and self._marks:  # the graph grows by one call
                self._marks.append(layer(self._marks[-1]))
            self._stack.append(layer)
            self._names.add(layer.name)
        if rebuild:
            self._rebuild()

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the last layer off and give it."""
        if not self._stack:
            raise ArgumentError(f"Sequential {self.name!r} has no layer to take off", "at least one layer")
        layer: Layer = self._stack.pop()
        self._names.discard(layer.name)
        del self._marks[len(self._stack) + 1 :]
        if rebuild:
            self._rebuild()
        return layer

    def _rebuild(self) -> None:
        structure_version[0] += 1
        self._function = None
        vars(self)["built"] = False
        if self._marks and self._stack:
            vars(self)["built"] = vars(self)["_waiting"] = True
        elif self._given_input is not None and self._stack:
            self._make(self._given_input)

    def _make(self, source: InputLayer) -> None:
        marks: list[Any] = [source.make()]
        with context.abstract(False):
            for layer in self._stack:
                marks.append(layer(marks[-1]))
        vars(self)["_marks"] = marks  # the input, and the output of each layer
        vars(self)["built"] = vars(self)["_waiting"] = True

    @property
    def _function(self) -> Function | None:
        """The graph; worked out when somebody asks, so that layers can be added one by one at no cost."""
        if vars(self).get("_waiting"):
            vars(self)["_waiting"] = False
            self._set_graph(self._marks[0], self._marks[-1])
        found: Function | None = vars(self).get("_made")
        return found

    @_function.setter
    def _function(self, function: Function | None) -> None:
        vars(self)["_made"] = function

    def build(self, input_shape: Any = None) -> None:
        """Make the graph for inputs of this shape (with the batch, `None` for unknown sizes)."""
        if self._function is None:
            if input_shape is None:
                raise ArgumentError(f"build of {self.name!r} got no shape", "build((None, ...))")
            self._make(InputLayer(batch_shape=tuple(input_shape)))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Run the stack."""
        if not self._stack:
            return inputs
        if self._function is not None:
            return super().call(inputs, training, mask)
        for layer in self._stack:
            inputs = layer(inputs)
        return inputs

    def _build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else next(iter(kwargs.values()), None)
        if self._stack and not isinstance(value, (list, tuple, dict)):
            shape = keras_shape(shape_of(value))
            self._make(InputLayer(batch_shape=(None, *shape[1:]), dtype=dtype_of(value)))
        vars(self)["built"] = True

    def _convert(self, argument: Any) -> Any:
        return Layer._convert(self, argument) if self._function is None else argument

    def _children(self) -> list[Any]:
        return list(self._stack)

    is_functional = False

    def _graph_layers(self) -> list[Layer] | None:
        first = [] if self._function is None else [tree.leaves(self._function.inputs)[0].node.operation]
        return [*first, *self._stack]

    @property
    def layers(self) -> list[Layer]:
        """The layers, from the first (the Input is not among them)."""
        return list(self._stack)

    def get_config(self) -> dict[str, Any]:
        """Its name and its layers, the Input among them."""
        layers: list[Any] = list(self._stack)
        if self._function is not None:
            layers = [tree.leaves(self._function.inputs)[0].node.operation, *layers]
        elif self._given_input is not None:
            layers = [self._given_input, *layers]
        found = {"name": self.name, "trainable": self._trainable, "dtype": self.dtype_policy, "layers": layers}
        shape = self.input_shape if self._function is not None else None
        return {**found, **({"build_input_shape": shape} if shape is not None else {})}

    @classmethod
    def from_config(cls, given: dict[str, Any]) -> Any:
        """A stack made from a config."""
        made = cls(name=given.get("name"))
        for layer in given["layers"]:
            made.add(layer, rebuild=False)
        made._rebuild()
        if not made.built and given.get("build_input_shape") is not None:
            made.build(tuple(given["build_input_shape"]))
        return made
