"""`clone_model`: the same architecture with layers and weights of its own."""

from collections.abc import Callable
from typing import Any

from cornu.core import tree
from cornu.core.errors import ArgumentError, UnsupportedError
from cornu.graph.symbolic import SymbolicTensor
from cornu.layers.base import Layer
from cornu.layers.input_layer import InputLayer
from cornu.models.model import Functional, Model, _takes_graph
from cornu.models.sequential import Sequential

__all__ = ["clone_model"]


def clone_model(
    model: Model,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
) -> Model:
    """A model of the same architecture, with new layers and newly drawn weights.

    What is shared in the model is shared in the clone: a layer called twice is one layer called twice, and a layer
    that a nested model holds too is cloned once.

    Args:
        model: a Functional or Sequential model; a compiled one is compiled again, with a new optimizer.
        input_tensors: symbolic tensors to build upon, in the structure of `model.input`; by default new inputs.
        clone_function: function `(layer) -> layer` that clones each layer but the inputs; by default by its config.
        call_function: function `(operation, *args, **kwargs)` that makes each call of a graph; by default
            `operation(...)`.
        recursive: whether `clone_function` and `call_function` go into nested models, instead of the former getting
            them whole.

    Raises:
        UnsupportedError: for a subclassed model with a `call` of its own.
        ArgumentError: if `input_tensors` have another structure than the model's inputs.

    Example:
        >>> import cornu
        >>> x = cornu.Input((3,))
        >>> copy = clone_model(cornu.Model(x, cornu.layers.Dense(2, name="out")(x)))
        >>> [layer.name for layer in copy.layers][1:]
        ['out']
    """
    if not isinstance(model, Model) or not _is_open(model):
        raise UnsupportedError(
            f"clone_model got {model!r:.80}, whose `call` is its own",
            "a Functional or Sequential model",
            "type(model).from_config(model.get_config())",
        )
    if call_function is not None and isinstance(model, Sequential):
        raise ArgumentError("clone_model got a call_function for a Sequential model", "a Functional model")
    return _Cloner(clone_function, call_function, recursive).model(model, input_tensors)


def _is_open(model: Any) -> bool:
    """Whether a model is nothing but its graph or its stack."""
    if isinstance(model, Sequential):
        return True
    return isinstance(model, Model) and model.is_functional and type(model).call is Model.call


class _Cloner:
    """Clones layers, each once.

    Args:
        clone: clones a layer; `None` for the default.
        call: makes a call in a graph; `None` for the default.
        recursive: whether `clone` and `call` go into nested models.
    """

    def __init__(
        self, clone: Callable[[Layer], Layer] | None, call: Callable[..., Any] | None, recursive: bool
    ) -> None:
        self.clone = clone
        self.call = call
        self.recursive = recursive
        self.known: dict[int, Layer] = {}

    def layer(self, layer: Any) -> Any:
        """The clone of a layer; an op is its own."""
        if not isinstance(layer, Layer):
            return layer
        if id(layer) not in self.known:
            self.known[id(layer)] = self._new(layer)
        return self.known[id(layer)]

    def _new(self, layer: Layer) -> Layer:
        if _is_open(layer) and (self.clone is None or self.recursive):
            return self.model(layer, None)
        if self.clone is None:
            made: Layer = type(layer).from_config(layer.get_config())
            return made
        made = self.clone(layer)
        if not isinstance(made, Layer):
            raise ArgumentError(f"clone_function gave {made!r:.60} for the layer {layer.name!r}", "a layer")
        return made

    def model(self, model: Any, input_tensors: Any) -> Model:
        """The clone of a model that is a graph or a stack."""
        made = self._stack(model, input_tensors) if isinstance(model, Sequential) else self._graph(model, input_tensors)
        if not model.trainable:
            vars(made)["_trainable"] = False
        arguments = model.get_compile_config()
        if arguments is not None:
            made.compile(**{name: tree.map_structure(_copy, value) for name, value in arguments.items()})
        return made

    def _stack(self, model: Sequential, given: Any) -> Model:
        source = model._given_input
        if source is None and model._function is not None:
            source = model._function.flat_inputs[0].node.operation
        if given is not None:
            leaves = tree.leaves(given)
            if len(leaves) != 1:
                raise ArgumentError(
                    f"clone_model got {len(leaves)} tensors for the Sequential {model.name!r}", "one tensor"
                )
            source = leaves[0]
            if type(source) is SymbolicTensor and not isinstance(source.node.operation, InputLayer):
                source = InputLayer(batch_shape=source.shape, dtype=source.dtype)
        elif source is not None:
            source = type(source).from_config(source.get_config())
        layers = [self.layer(layer) for layer in model._stack]
        return type(model)([*([source] if source is not None else []), *layers], name=model.name)

    def _graph(self, model: Model, given: Any) -> Model:
        function = model._graph("clone")
        if given is None:
            inputs = [
                type(t.node.operation).from_config(t.node.operation.get_config()).make() for t in function.flat_inputs
            ]
            given = tree.pack(function.inputs, inputs)
        else:
            given = _fitting(given, function.inputs)
        inputs = tree.leaves(given)
        for tensor, new in zip(function.flat_inputs, inputs, strict=True):
            if type(new) is not SymbolicTensor:
                raise ArgumentError(
                    f"clone_model got {new!r:.60} ({type(new).__name__}) for the input {tensor.name!r}",
                    "a symbolic tensor",
                )

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            made = self.layer(operation)
            return made(*args, **kwargs) if self.call is None else self.call(made, *args, **kwargs)

        outputs = tree.pack(function.outputs, function.plan.replay(inputs, call))
        return (type(model) if _takes_graph(type(model)) else Functional)(given, outputs, name=model.name)


def _fitting(given: Any, structure: Any) -> Any:
    """Tensors in the structure of a model's inputs."""
    if not tree.is_nested(structure) and isinstance(given, (list, tuple)) and len(given) == 1:
        return given[0]
    if not tree.same_structure(given, structure):
        raise ArgumentError(
            f"clone_model got input_tensors in the structure {tree.structure(given)!r}",
            f"the model's own: {tree.structure(structure)!r}",
        )
    return given


def _copy(value: Any) -> Any:
    """A new object of the same config (an optimizer, a metric); anything else is itself."""
    return type(value).from_config(value.get_config()) if hasattr(value, "get_config") else value
