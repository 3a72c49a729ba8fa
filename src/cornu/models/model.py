"""`Model`: a layer that can be trained, saved and looked into.

Three ways to make one: `Model(inputs, outputs)` from symbolic tensors (a `Functional`), `Sequential([...])`, or a
subclass with `call`. A subclass may also be made from a graph: `MyModel(inputs, outputs)`, or
`super().__init__(inputs, outputs)`.
"""

import warnings
from typing import Any

from cornu import saving
from cornu.core import config, tree
from cornu.core.errors import ArgumentError, BuildError, GraphError, MaskWarning, UnsupportedError, near_miss
from cornu.core.family import deserialize_object
from cornu.core.names import auto_name
from cornu.graph.function import Function
from cornu.graph.symbolic import Node, SymbolicTensor, aside
from cornu.layers._arguments import shapes_to_specs
from cornu.layers._native import bound_engine
from cornu.layers._tracking import children
from cornu.layers._weights import internal
from cornu.layers.base import Layer
from cornu.layers.input_layer import InputLayer
from cornu.models.graph_config import functional_config, functional_from_config
from cornu.models.replays import MISSING, Replays
from cornu.models.summary import print_summary
from cornu.training.trainer import Trainer

__all__ = ["Functional", "Model"]


_TRAINING = {"training"}


class Model(Trainer):
    """A layer with `compile`, `fit`, `evaluate`, `predict`, `save` and `summary`.

    Args:
        inputs: a symbolic tensor, or a list, tuple, dict or nesting of them.
        outputs: a symbolic tensor or a structure of them that follows from the inputs.
        name: the model's name.
        trainable: whether its weights train.

    Raises:
        GraphError: if an output does not follow from the inputs.

    Example:
        >>> import cornu
        >>> a, b = cornu.Input((3,), name="a"), cornu.Input((3,), name="b")
        >>> shared = cornu.layers.Dense(2)
        >>> model = cornu.Model({"a": a, "b": b}, shared(a) - shared(b))
        >>> model.output_shape
        (None, 2)
    """

    _function: Function | None
    _layers: list[Layer]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Model and _is_graph(args, kwargs):
            return Layer.__new__(Functional)
        return Layer.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _is_graph(args, kwargs):
            inputs = kwargs.pop("inputs", None) if not args else args[0]
            outputs = kwargs.pop("outputs", None) if len(args) < 2 else args[1]
            Layer.__init__(self, **_named(kwargs, args[2:]))
            self._set_graph(inputs, outputs)
        else:
            Layer.__init__(self, *args, **kwargs)

    def _set_base(self, **given: Any) -> None:  # type: ignore[override]
        super()._set_base(**given)
        if type(self).compute_mask is Model.compute_mask:
            vars(self)["supports_masking"] = False
        vars(self).setdefault("_function", None)
        self._set_trainer()

    def _set_graph(self, inputs: Any, outputs: Any) -> None:
        """Take a graph as what `call` computes."""
        if self._name is None:
            vars(self)["_name"] = auto_name(type(self))
        self._function = _from_inputs(Function(inputs, outputs, self.name))
        names: dict[str, Layer] = {}
        for operation in self._function.plan.operations:
            if isinstance(operation, Layer):
                if names.setdefault(operation.name, operation) is not operation:
                    raise GraphError(
                        f"model {self.name!r} has two layers named {operation.name!r}",
                        "a name of its own for each layer",
                        "give one another name: Layer(..., name=...)",
                    )
        vars(self)["_layers"] = list(names.values())
        bound_engine(self._flatten_layers(include_self=False))
        vars(self)["built"] = True
        if not self._trainable:
            self.trainable = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Run the graph; a subclass without a graph writes its own."""
        if self._function is None:
            raise UnsupportedError(
                f"model {type(self).__name__} has no `call` and no graph",
                "call(self, inputs), or Model(inputs, outputs)",
            )
        return self._function(inputs, self._keep, mask)

    _keep = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, or record it if an argument is symbolic (arguments as for a layer)."""
        if self._function is not None and len(args) == 1 and (not kwargs or kwargs.keys() == _TRAINING):
            replays = self._cache.get("replays")
            if replays is None or not replays.serves(self):
                replays = self._cache["replays"] = Replays(self)
            found = replays.call(self, args[0], kwargs, super().__call__)
            if found is not MISSING:
                return found
        return super().__call__(*args, **kwargs)

    def _convert(self, argument: Any) -> Any:
        # A graph's inputs have dtypes of their own; the graph's layers cast.
        if self._function is not None:
            return argument
        return super()._convert(argument)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The masks of the outputs: those made in the graph, and those that come with the inputs and last."""
        return previous_mask if self._function is None else self._function.masks(inputs, previous_mask)

    def _has_mask_rule(self) -> bool:
        return type(self).compute_mask is not Model.compute_mask or self._function is not None

    def _mask_outputs(self, signature: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        # A graph gives its outputs their masks itself.
        if self._function is None or type(self).compute_mask is not Model.compute_mask:
            super()._mask_outputs(signature, args, kwargs, outputs)

    # ------------------------------------------------ looking inside

    def _children(self) -> list[Any]:
        if self._function is None:
            return super()._children()
        own = children(self, (Layer,), lambda name: name in ("_function", "_layers") or internal(name))
        held = {id(layer) for layer in self._layers}
        return [*self._layers, *(item for item in own if id(item) not in held)]

    def _graph_layers(self) -> list[Layer] | None:
        return None if self._function is None else list(self._layers)

    @property
    def layers(self) -> list[Layer]:
        """The layers it holds directly, in Keras's order."""
        return [item for item in self._children() if isinstance(item, Layer)]

    @property
    def operations(self) -> list[Any]:
        """The layers and op nodes of its graph, in Keras's order."""
        return list(self._graph("operations").plan.operations)

    def _graph(self, what: str) -> Function:
        if self._function is None:
            raise BuildError(
                f"model {self.name!r} has no graph, so its {what} is not defined",
                "a Functional or built Sequential model",
            )
        return self._function

    @property
    def is_functional(self) -> bool:
        """Whether it was made from symbolic inputs and outputs."""
        return self._function is not None

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs, as a list."""
        return list(self._graph("inputs").flat_inputs)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs, as a list."""
        return list(self._graph("outputs").flat_outputs)

    @property
    def input(self) -> Any:
        """The symbolic inputs, in their structure."""
        return self._graph("input").inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs, in their structure."""
        return self._graph("output").outputs

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs."""
        return list(self._graph("input_names").input_names)

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs: the keys of a dict of outputs, else the names of the layers they come from."""
        function = self._graph("output_names")
        if isinstance(function.outputs, dict):
            return [str(path[-1]) for path, _ in tree.flatten_with_path(function.outputs)]
        return [tensor.node.name for tensor in function.flat_outputs]

    def _known_output_names(self) -> list[str] | None:
        return None if self._function is None else self.output_names

    @property
    def input_shape(self) -> Any:
        """The shapes of the inputs in Keras's form."""
        return tree.map_structure(lambda t: t.spec.keras_shape, self.input)

    @property
    def output_shape(self) -> Any:
        """The shapes of the outputs in Keras's form."""
        return tree.map_structure(lambda t: t.spec.keras_shape, self.output)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name or by its place in `layers`.

        Raises:
            ArgumentError: if there is none, with the nearest name.
        """
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ArgumentError(f"layer number {index} of {self.name!r}", f"from 0 to {len(layers) - 1}")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in layers]
        raise ArgumentError(
            f"{self.name!r} has no layer {name!r}{near_miss(str(name), names)}", f"one of {', '.join(names)}"
        )

    def tensors(self) -> dict[str, Any]:
        """Every symbolic tensor of the graph by path; later calls of a shared layer have `@1`, `@2`, ...

        behind its name.
        """
        plan = self._graph("tensors").plan
        found: dict[str, Any] = {}
        for tensor in plan.inputs:
            found[tensor.node.name] = tensor
        for node in plan.nodes:
            _enter(found, plan.paths[id(node)], node)
        return found

    def get_tensor(self, path: str) -> SymbolicTensor:
        """The symbolic tensor of a path, to cut the model at it: `Model(m.input, m.get_tensor("encoder@1"))`.

        Raises:
            ArgumentError: if there is none, with the nearest path.
        """
        known = self.tensors()
        if path not in known:
            raise ArgumentError(
                f"{self.name!r} has no tensor {path!r}{near_miss(path, known)}", f"one of {', '.join(known)}"
            )
        found: SymbolicTensor = known[path]
        return found

    def build(self, input_shape: Any) -> None:
        """Make all weights, by running `call` on Specs of this shape (Keras's form, or a structure of shapes)."""
        if self.built and self.variables:
            return
        try:
            self.compute_output_spec(shapes_to_specs(input_shape, self.compute_dtype))
        finally:
            vars(self)["built"] = bool(self.variables)
        vars(self)["built"] = True

    def _build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._function is None:  # a graph's layers are built already
            super()._build(args, kwargs)
        vars(self)["built"] = True

    def _builds_by_calling(self) -> bool:
        return type(self).build is Model.build and self._function is None

    @classmethod
    def from_config(cls, given: dict[str, Any]) -> Any:
        """A model made from a config: a graph's, or the arguments of `__init__`."""
        if "layers" in given and "output_layers" in given:
            return functional_from_config(Functional if cls is Model else cls, given)
        return super().from_config({key: deserialize_object(value) for key, value in given.items()})

    # Its graph is read from the config as it was written.
    from_config.__func__.raw_config = True  # type: ignore[attr-defined]

    def get_config(self) -> dict[str, Any]:
        """The graph, or the arguments of `__init__`."""
        if self._function is not None and _takes_graph(type(self)):
            return functional_config(self)
        return super().get_config()

    # ------------------------------------------------ files and pictures

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save architecture, weights and training state in one `.keras` file (`cornu.saving.save_model`)."""
        saving.save_model(self, filepath, overwrite=overwrite, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Save the weights in a `.weights.h5` file."""
        saving.save_weights(self, filepath, overwrite=overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Load the weights of a `.weights.h5` or `.keras` file."""
        saving.load_weights(self, filepath, skip_mismatch=skip_mismatch)

    def to_json(self, **kwargs: Any) -> str:
        """The architecture as JSON text."""
        return saving.model_to_json(self, **kwargs)

    def summary(
        self, line_length: int | None = None, print_fn: Any = None, expand_nested: bool = False, **kwargs: Any
    ) -> None:
        """Print a table of the layers: names, output shapes, numbers of parameters."""
        print_summary(self, line_length=line_length, print_fn=print_fn, expand_nested=expand_nested, **kwargs)


class Functional(Model):
    """A model that is a graph; `Model(inputs, outputs)` makes one.

    Args:
        inputs: a structure of symbolic tensors.
        outputs: a structure of symbolic tensors.
        name: the model's name.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)


def _from_inputs(function: Function) -> Function:
    """A function that begins at `Input`s; one that begins inside a graph is made once more behind new ones."""
    if all(isinstance(tensor.node.operation, InputLayer) for tensor in function.flat_inputs):
        return function
    taken = {node.operation.name for node in function.plan.shown}
    inputs = []
    for tensor in function.flat_inputs:
        if isinstance(tensor.node.operation, InputLayer):
            inputs.append(tensor)
            continue
        if tensor.mask is not None:
            warnings.warn(
                f"the model {function.owner!r} begins at {tensor.name!r}, which has a mask; the mask is not part "
                "of it: "
                "call it on values that carry one, or give it: model(x, mask=mask)",
                MaskWarning,
                stacklevel=4,
            )
        name = tensor.path if tensor.path not in taken else f"{tensor.name}_input"
        inputs.append(InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype, name=name.replace(":", "_")).make())
    with aside():
        outputs = function.plan.replay(inputs)
    return Function(tree.pack(function.inputs, inputs), tree.pack(function.outputs, outputs), function.owner)


def _enter(found: dict[str, Any], path: str, node: Node) -> None:
    if len(node.outputs) == 1:
        found[path] = node.outputs[0]
    else:
        found.update({f"{path}:{i}": tensor for i, tensor in enumerate(node.outputs)})


def _is_graph(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) >= 2 or ("outputs" in kwargs and (len(args) == 1 or "inputs" in kwargs))


def _named(kwargs: dict[str, Any], rest: tuple[Any, ...]) -> dict[str, Any]:
    return {**kwargs, **dict(zip(("name", "trainable"), rest, strict=False))}


def _takes_graph(cls: type) -> bool:
    """Whether a class is made from a graph: its `__init__` is Model's, or hands everything on."""
    names, variadic = config.init_parameters(cls)
    return cls.__init__ is Model.__init__ or (variadic and not names) or names[:2] == ("inputs", "outputs")  # type: ignore[misc]
