"""The config of a graph, in Keras's form: its layers and op nodes, each with the calls it makes."""

from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import tree
from cornu.core.errors import SavingError
from cornu.core.family import deserialize_object, serialize_object
from cornu.graph.symbolic import Node, SymbolicTensor
from cornu.layers.base import Layer
from cornu.layers.input_layer import InputLayer
from cornu.saving.op_names import arguments_of, is_op_config, op_config, op_of

__all__ = ["functional_config", "functional_from_config"]


def functional_config(model: Any) -> dict[str, Any]:
    """The graph of a model as Keras writes it: its layers and op nodes, each with the calls it makes."""
    outermost = _written.get() is None
    token = _written.set(_shared_layers(model)) if outermost else None
    try:
        return _config(model)
    finally:
        if token is not None:
            _written.reset(token)


# Layers that several nested graphs hold, with their numbers in the file; and those read so far, by number.
_written: ContextVar[dict[int, int] | None] = ContextVar("cornu_shared_written", default=None)
_read: ContextVar[dict[int, Any] | None] = ContextVar("cornu_shared_read", default=None)


def _shared_layers(model: Any) -> dict[int, int]:
    """A number for each layer that more than one graph in a model holds."""
    counts: dict[int, int] = {}
    for graph in model._flatten_layers():
        function = getattr(graph, "_function", None)
        for layer in [] if function is None else function.plan.operations:
            if isinstance(layer, Layer) and not isinstance(layer, InputLayer):
                counts[id(layer)] = counts.get(id(layer), 0) + 1
    return {key: number for number, key in enumerate(key for key, count in counts.items() if count > 1)}


def _config(model: Any) -> dict[str, Any]:
    function = model._graph("config")
    shared = _written.get() or {}
    plan = function.plan
    nodes = sorted(
        {id(n): n for n in (*plan.shown, *(t.node for t in plan.inputs))}.values(), key=lambda node: node.order
    )
    names = _unique_names(plan.operations)
    place: dict[int, tuple[str, int]] = {}
    calls: dict[str, int] = {}
    own: dict[int, list[Node]] = {}
    for node in nodes:
        name = names[id(node) if node.is_op else id(node.operation)]
        place[id(node)] = name, calls.get(name, 0)
        calls[name] = calls.get(name, 0) + 1
        own.setdefault(id(node) if node.is_op else id(node.operation), []).append(node)

    def history(tensor: SymbolicTensor) -> list[Any]:
        name, index = place[id(tensor.node)]
        return [name, index, tensor.index]

    def outside(tensor: SymbolicTensor) -> list[Any]:
        # Keras counts the calls of a nested Functional from 1 here, and from 0 in the nodes.
        name, index, which = history(tensor)
        nested = _is_functional(tensor.node.operation)
        return [name, index + 1 if nested else index, which]

    layers = []
    for operation in plan.operations:
        is_op = isinstance(operation, Node)
        name = names[id(operation)]
        if is_op:
            static = arguments_of(operation.operation, operation.kwargs)[1]
            given = op_config(operation.operation, name, static)
        else:
            given = serialize_object(operation)
            if id(operation) in shared:
                given["shared_object_id"] = shared[id(operation)]
        inbound = [_call_config(node, history) for node in own.get(id(operation), []) if node.given or is_op]
        layers.append({**given, "name": name, "inbound_nodes": inbound})
    return {
        "name": model.name,
        "trainable": model._trainable,
        "layers": layers,
        "input_layers": tree.map_structure(outside, function.inputs),
        "output_layers": tree.map_structure(outside, function.outputs),
    }


def _is_functional(operation: Any) -> bool:
    """Whether Keras counts an operation's calls from 1: a nested Functional, but not a Sequential."""
    return getattr(operation, "is_functional", False)


def _unique_names(operations: list[Any]) -> dict[int, str]:
    """A name for each operation: the layers' own, and op names with numbers that clash with none."""
    taken = {operation.name for operation in operations if isinstance(operation, Layer)}
    names: dict[int, str] = {}
    for operation in operations:
        name = str(operation.name)
        if isinstance(operation, Node):
            base, count = name, 0
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            taken.add(name)
        names[id(operation)] = name
    return names


def _call_config(node: Node, history: Any) -> dict[str, Any]:
    def write(leaf: Any) -> Any:
        if type(leaf) is SymbolicTensor:
            place = {"shape": list(leaf.spec.keras_shape), "dtype": leaf.dtype, "keras_history": history(leaf)}
            return {"class_name": "__keras_tensor__", "config": place}
        return serialize_object(leaf)

    if node.is_op:
        args, kwargs = arguments_of(node.operation, node.kwargs)[0], {}
        if node.operation.name == "get_item":
            args = [args[0], _key_without_lists(args[1])]
    else:
        args, kwargs = list(node.args), node.given_kwargs
    return {"args": tree.map_structure(write, args), "kwargs": tree.map_structure(write, kwargs)}


def _key_without_lists(key: Any) -> Any:
    """An index in which lists of places are arrays, so that a list in a file always stands for a tuple."""
    if isinstance(key, list):
        return np.asarray(key)
    return (
        tuple(np.asarray(part) if isinstance(part, list) else part for part in key) if isinstance(key, tuple) else key
    )


def functional_from_config(cls: type, given: dict[str, Any]) -> Any:
    """A model made from the config of a graph.

    Raises:
        SavingError: if a call names a layer or tensor that is not there.
    """
    token = _read.set({}) if _read.get() is None else None
    try:
        return _from_config(cls, given)
    finally:
        if token is not None:
            _read.reset(token)


def _from_config(cls: type, given: dict[str, Any]) -> Any:
    shared = _read.get()
    assert shared is not None
    made: dict[str, Any] = {}
    tensors: dict[tuple[str, int], Node] = {}
    pending: list[tuple[str, int, dict[str, Any]]] = []
    for layer in given["layers"]:
        name = layer["name"]
        if is_op_config(layer):
            made[name] = op_of(layer)
        else:
            number = layer.get("shared_object_id")
            made[name] = shared[number] if number in shared else deserialize_object(layer)
            if number is not None:
                shared[number] = made[name]
        if isinstance(made[name], InputLayer):
            tensors[name, 0] = made[name].make().node
        pending.extend((name, i, call) for i, call in enumerate(layer["inbound_nodes"]))
    waiting = pending
    while waiting:
        later = []
        for name, index, call in waiting:
            arguments = _read_call(call, tensors, made)
            if arguments is None:
                later.append((name, index, call))
                continue
            tensors[name, index] = _call(made[name], *arguments)
        if len(later) == len(waiting):
            name = later[0][0]
            raise SavingError(f"the file's call of {name!r} names a tensor that no layer gives", "a whole file")
        waiting = later

    def find(place: list[Any]) -> SymbolicTensor:
        name, index, which = place
        if _is_functional(made.get(name)):
            index -= 1
        node = tensors.get((name, index))
        if node is None:
            raise SavingError(f"the file names call {index} of {name!r}, which is not there", "a whole file")
        return node.outputs[which]

    inputs = _places(given["input_layers"], find)
    outputs = _places(given["output_layers"], find)
    result = cls(inputs, outputs, name=given.get("name"))
    if given.get("trainable") is False:
        result.trainable = False
    return result


def _call(made: Any, args: list[Any], kwargs: dict[str, Any]) -> Node:
    if isinstance(made, tuple):
        op, static = made
        if op.name == "einsum_of":
            args = [args]
        if op.name == "get_item" and isinstance(
            args[1], list
        ):  # files have no tuples; a list of places is an array there
            args = [args[0], tuple(args[1])]
        produced = op(*args, **kwargs, **{key: value for key, value in static.items() if key not in kwargs})
    else:
        produced = made(*args, **kwargs)
    return next(leaf for leaf in tree.leaves(produced) if type(leaf) is SymbolicTensor).node


def _read_call(call: dict[str, Any], tensors: dict[tuple[str, int], Node], made: dict[str, Any]) -> Any:
    """The arguments of a call, or `None` while a tensor among them is still to come."""
    missing: list[Any] = []

    def read(value: Any) -> Any:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            name, index, which = value["config"]["keras_history"]
            node = tensors.get((name, index))
            if node is None:
                missing.append(name)
                return None
            return node.outputs[which]
        if isinstance(value, dict) and "class_name" in value and "config" in value:
            return deserialize_object(value)
        if isinstance(value, dict):
            return {key: read(item) for key, item in value.items()}
        return type(value)(read(item) for item in value) if type(value) in (list, tuple) else value

    args, kwargs = read(call["args"]), read(call["kwargs"])
    if any(name not in made for name in missing):
        raise SavingError(f"the file's graph names the layer {missing[0]!r}, which is not in it", "a whole file")
    return None if missing else (args, kwargs)


def _places(value: Any, find: Any) -> Any:
    """Tensors in the structure in which a file names them; `[name, call, output]` stands for one."""
    if isinstance(value, dict):
        return {key: _places(item, find) for key, item in value.items()}
    if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return find(value)
    return type(value)(_places(item, find) for item in value)
