"""A graph under construction: nodes are added once each, and what no output needs is left out of the model."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from cornu.core import dtypes
from cornu.core.errors import GraphError
from cornu.engines.onnxruntime.quirks import border_dtype
from cornu.engines.onnxruntime.value import OnnxValue

__all__ = ["ELEMENT_TYPES", "Graph", "building", "choose", "current", "emit", "finish", "model_of"]

OPSET = 21
IR_VERSION = 10

ELEMENT_TYPES: dict[str, int] = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}

# Constants up to this many bytes are shared by their elements, larger ones by identity.
_SHARED_BY_VALUE = 1024
# Larger constants are fed at each run instead of stored in the model, which may not exceed 2 GB.
_STORED = 1 << 20


class Node:
    """One operator at work: its inputs, outputs, attributes and (for control) graphs."""

    __slots__ = ("attributes", "graphs", "inputs", "operator", "outputs")

    def __init__(
        self,
        operator: str,
        inputs: list[OnnxValue | None],
        outputs: list[OnnxValue],
        attributes: dict[str, Any],
        graphs: "dict[str, Graph]",
    ) -> None:
        self.operator = operator
        self.inputs = inputs
        self.outputs = outputs
        self.attributes = attributes
        self.graphs = graphs


class Graph:
    """Nodes in order, and what goes in and comes out.

    Args:
        outer: the graph whose values can be used here, for the body of a loop or a branch.
        hoists: whether a node that uses nothing made here is put into the outer graph.

    Attributes:
        inputs: its stand-ins for arguments.
        outputs: its results, set when it is finished.
        constants: name -> array (of the outermost graph).
        notes: name of a value -> what is known of how it was made (of the outermost graph).
    """

    def __init__(self, outer: "Graph | None" = None, hoists: bool = False) -> None:
        self.outer = outer
        self.hoists = hoists
        self.root: Graph = self if outer is None else outer.root
        self.nodes: list[Node] = []
        self.inputs: list[OnnxValue] = []
        self.outputs: list[OnnxValue] = []
        self.constants: dict[str, np.ndarray] = {}
        self.notes: dict[str, Any] = {}
        self._known: dict[Any, list[OnnxValue]] = {}
        self._lifted: dict[Any, tuple[Any, OnnxValue]] = {}
        self._count = 0

    def name(self, prefix: str) -> str:
        """A name that nothing else has."""
        self.root._count += 1
        return f"{prefix}_{self.root._count}"

    def input(self, shape: tuple[int, ...], dtype: str) -> OnnxValue:
        """A stand-in for an argument."""
        value = OnnxValue(shape, dtype, name=self.name("input"), graph=self)
        self.inputs.append(value)
        return value

    def sees(self, value: OnnxValue) -> bool:
        """Whether a stand-in belongs to this graph or to one around it."""
        graph: Graph | None = self
        while graph is not None:
            if value.graph is graph:
                return True
            graph = graph.outer
        return False

    def lift(self, value: OnnxValue) -> OnnxValue:
        """A value as one of this graph's: a concrete one becomes a constant."""
        if value.array is not None:
            return self.root._constant(value.array, value.dtype)
        if not self.sees(value):
            raise GraphError(
                f"{value!r} belongs to a graph that is finished, or to another one",
                "values that this computation was given or made",
                "pass it in and out: keep no tensors of a traced function in attributes",
            )
        return value

    def _constant(self, array: np.ndarray, dtype: str) -> OnnxValue:
        small = array.nbytes <= _SHARED_BY_VALUE
        key = (dtype, array.shape, array.tobytes()) if small else id(array)
        found = self._lifted.get(key)
        if found is None:
            found = self._lifted[key] = (array, self._make_constant(array, dtype))
        return found[1]

    def _make_constant(self, array: np.ndarray, dtype: str) -> OnnxValue:
        """A constant; an array that repeats elements along an axis is stored without the repetition."""
        repeats = any(stride == 0 and size > 1 for size, stride in zip(array.shape, array.strides, strict=True))
        if array.nbytes > _SHARED_BY_VALUE and repeats:
            small = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
            with building(self):
                sizes = OnnxValue((array.ndim,), "int64", array=np.array(array.shape, np.int64))
                plain = OnnxValue(small.shape, dtype, array=np.ascontiguousarray(small))
                if dtype == "bfloat16":  # Expand has no kernel for it
                    wide = emit("Cast", [plain], [(small.shape, "float32")], to=TensorProto.FLOAT)[0]
                    wide = emit("Expand", [wide, sizes], [(array.shape, "float32")])[0]
                    return emit("Cast", [wide], [(array.shape, dtype)], to=TensorProto.BFLOAT16)[0]
                return emit("Expand", [plain, sizes], [(array.shape, dtype)])[0]
        value = OnnxValue(array.shape, dtype, name=self.name("constant"), graph=self)
        self.constants[value.name] = array
        return value

    def add(self, node: Node, key: Any) -> list[OnnxValue]:
        """Append a node, unless its like is here or in a graph around."""
        graph: Graph | None = self
        while graph is not None:
            found = graph._known.get(key)
            if found is not None:
                return found
            graph = graph.outer
        self.nodes.append(node)
        self._known[key] = node.outputs
        return node.outputs


_current: ContextVar[Graph | None] = ContextVar("cornu_onnx_graph", default=None)


def current() -> Graph | None:
    """The graph under construction, the innermost one, or `None`."""
    return _current.get()


@contextlib.contextmanager
def building(graph: Graph) -> Iterator[Graph]:
    """Add the nodes of this block to a graph."""
    token = _current.set(graph)
    try:
        yield graph
    finally:
        _current.reset(token)


def emit(
    operator: str,
    inputs: Sequence[OnnxValue | None],
    outputs: Sequence[tuple[tuple[int, ...], str]],
    graphs: dict[str, Graph] | None = None,
    shared: bool = True,
    **attributes: Any,
) -> list[OnnxValue]:
    """Add a node to the graph under construction.

    Args:
        operator: ONNX's name.
        inputs: values, concrete or not; `None` leaves one out.
        outputs: shape and dtype of each.
        graphs: bodies and branches by attribute.
        shared: whether it may be an equal node instead, or one of an outer graph.
        attributes: numbers, text, or sequences of whole numbers.

    Returns:
        the outputs; those of an equal node if there is one.
    """
    graph = _current.get()
    if graph is None:
        raise GraphError("a node outside of any graph", "a graph under construction")
    given = [None if value is None else graph.lift(value) for value in inputs]
    if graphs or not shared:
        key: Any = object()
    else:
        while graph.hoists and graph.outer is not None and all(v is None or v.graph is not graph for v in given):
            graph = graph.outer
        settings = tuple((name, tuple(v) if isinstance(v, (list, tuple)) else v) for name, v in attributes.items())
        key = (operator, tuple(None if v is None else v.name for v in given), settings, len(outputs))
    made = [OnnxValue(tuple(shape), dtype, name=graph.name(operator), graph=graph) for shape, dtype in outputs]
    return graph.add(Node(operator, given, made, attributes, graphs or {}), key)


def finish(graph: Graph, values: Sequence[OnnxValue]) -> None:
    """Make values the outputs of a body or a branch: each made in it, and there once."""
    with building(graph):
        for value in values:
            value = graph.lift(value)
            if value.graph is not graph or any(value is other for other in (*graph.inputs, *graph.outputs)):
                value = emit("Identity", [value], [(value.shape, value.dtype)], shared=False)[0]
            graph.outputs.append(value)


def choose(condition: OnnxValue, then: Callable[[], OnnxValue], other: Callable[[], OnnxValue]) -> OnnxValue:
    """One of two values of one shape and dtype, of which only that one is computed (`If`)."""
    graphs = {}
    for name, function in (("then_branch", then), ("else_branch", other)):
        graphs[name] = Graph(current())
        with building(graphs[name]):
            value = function()
        finish(graphs[name], [value])
    return emit("If", [condition], [(value.shape, value.dtype)], graphs=graphs)[0]


# ---------------------------------------------------------------- the model


def _needed(graph: Graph) -> tuple[list[Node], set[str]]:
    """The nodes that the outputs need, and the names that they (or the outputs) use."""
    used = {value.name for value in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if not any(out.name in used for out in node.outputs):
            continue
        kept.append(node)
        used.update(value.name for value in node.inputs if value is not None)
        for inner in node.graphs.values():
            used |= _needed(inner)[1]
    return kept[::-1], used


def _node_proto(node: Node) -> NodeProto:
    attributes = dict(node.attributes)
    for name, inner in node.graphs.items():
        attributes[name] = _inner_proto(inner, name)
    inputs = ["" if value is None else value.name for value in node.inputs]
    return helper.make_node(node.operator, inputs, [value.name for value in node.outputs], **attributes)


def _inner_proto(graph: Graph, name: str) -> GraphProto:
    nodes, _ = _needed(graph)
    info = [helper.make_tensor_value_info(v.name, ELEMENT_TYPES[v.dtype], v.shape) for v in graph.inputs]
    out = [helper.make_tensor_value_info(v.name, ELEMENT_TYPES[v.dtype], v.shape) for v in graph.outputs]
    return helper.make_graph([_node_proto(node) for node in nodes], name, info, out)


def _tensor(name: str, array: np.ndarray, dtype: str) -> TensorProto:
    return TensorProto(name=name, dims=array.shape, data_type=ELEMENT_TYPES[dtype], raw_data=array.tobytes())


def model_of(graph: Graph) -> tuple[ModelProto, list[int], dict[str, np.ndarray]]:
    """The model of a finished graph whose outputs are all made by its nodes.

    Returns:
        the model; which of the graph's inputs it takes, by number; constants to feed at each run. Arrays that
        NumPy has no dtype for go in and out as `border_dtype` says, under their names with `_border` behind.
    """
    nodes, used = _needed(graph)
    before, after, inputs, outputs, stored = [], [], [], [], []
    taken = [i for i, value in enumerate(graph.inputs) if value.name in used]
    fed = {n: a for n, a in graph.constants.items() if n in used and a.nbytes > _STORED}
    named = [(v.name, v.shape, v.dtype) for v in (graph.inputs[i] for i in taken)]
    named += [(name, array.shape, dtypes.standardize_dtype(array.dtype)) for name, array in fed.items()]
    for name, shape, dtype in named:
        border = border_dtype(dtype)
        if border != dtype:
            before.append(helper.make_node("Cast", [f"{name}_border"], [name], to=ELEMENT_TYPES[dtype]))
            name = f"{name}_border"
        inputs.append(helper.make_tensor_value_info(name, ELEMENT_TYPES[border], shape))
    for value in graph.outputs:
        name, border = value.name, border_dtype(value.dtype)
        if border != value.dtype:
            after.append(helper.make_node("Cast", [name], [f"{name}_border"], to=ELEMENT_TYPES[border]))
            name = f"{name}_border"
        outputs.append(helper.make_tensor_value_info(name, ELEMENT_TYPES[border], value.shape))
    for name, array in graph.constants.items():
        if name in used and name not in fed:
            stored.append(_tensor(name, array, dtypes.standardize_dtype(array.dtype)))
    body = [*before, *map(_node_proto, nodes), *after]
    proto = helper.make_graph(body, "cornu", inputs, outputs, stored)
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cornu"
    )
    return model, taken, fed
