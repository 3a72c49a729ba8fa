"""From a function to a session of ONNX Runtime, and how sessions are set up.

Two environment variables are read when a session is made: `CORNU_ONNXRUNTIME_THREADS`, how many threads work on one
operator of a compiled function (left out, ONNX Runtime chooses; single ops always use one), and
`CORNU_ONNXRUNTIME_PROVIDERS`, execution providers with commas between (left out, `CPUExecutionProvider`).
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime

from cornu.core import dtypes
from cornu.core.errors import EngineError
from cornu.engines.onnxruntime.builder import Graph, building, model_of
from cornu.engines.onnxruntime.quirks import border_dtype
from cornu.engines.onnxruntime.value import OnnxValue

__all__ = ["Program", "providers", "threads"]

_ONLY_FATAL = 4
# The checker reads a model from a protobuf of at most this many bytes.
_LARGEST = 2**31 - 1


def providers() -> list[str]:
    """The execution providers that sessions use, in order of preference.

    Raises:
        EngineError: if one is asked for that this ONNX Runtime does not have.
    """
    asked = os.environ.get("CORNU_ONNXRUNTIME_PROVIDERS", "CPUExecutionProvider").split(",")
    known = onnxruntime.get_available_providers()
    for name in asked:
        if name not in known:
            raise EngineError(f"CORNU_ONNXRUNTIME_PROVIDERS names {name!r}", f"some of {', '.join(known)}")
    return asked


def threads() -> int:
    """How many threads work on one operator of a compiled function; 0 leaves it to ONNX Runtime.

    Raises:
        EngineError: if `CORNU_ONNXRUNTIME_THREADS` is no whole number from 0.
    """
    asked = os.environ.get("CORNU_ONNXRUNTIME_THREADS", "0")
    if not asked.isdecimal():
        raise EngineError(f"CORNU_ONNXRUNTIME_THREADS={asked!r}", "a whole number from 0")
    return int(asked)


def _options(count: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = count
    options.inter_op_num_threads = 1
    return options


class Program:
    """A function of values, as a session for arguments of these shapes and dtypes.

    Args:
        function: takes a list of stand-ins and gives a list of values.
        arguments: shape and dtype of each argument.
        single: whether it is one op, which needs no check and no threads.
    """

    def __init__(
        self,
        function: Callable[[list[OnnxValue]], list[OnnxValue]],
        arguments: list[tuple[tuple[int, ...], str]],
        single: bool = False,
    ) -> None:
        graph = Graph()
        inputs = [graph.input(shape, dtype) for shape, dtype in arguments]
        with building(graph):
            results = function(inputs)
        place = {value.name: i for i, value in enumerate(inputs)}
        self._plan: list[Any] = []
        made: dict[str, int] = {}
        for value in results:
            if value.array is not None:
                self._plan.append(value)
                continue
            value = graph.lift(value)
            name = value.name
            if name in place:
                self._plan.append((False, place[name]))
            elif name in graph.constants:
                self._plan.append(OnnxValue(value.shape, value.dtype, array=graph.constants[name]))
            else:
                if name not in made:
                    made[name] = len(made)
                    graph.outputs.append(value)
                self._plan.append((True, made[name]))
        self._session: Any = None
        if graph.outputs:
            self._start(graph, single)

    def _start(self, graph: Graph, single: bool) -> None:
        model, taken, fed = model_of(graph)
        if not single:
            if model.ByteSize() > _LARGEST:
                raise EngineError(
                    f"a graph of {model.ByteSize() / 2**30:.1f} GB", "at most 2 GB", "pass large arrays as arguments"
                )
            onnx.checker.check_model(model)
        options = _options(1 if single else threads())
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers())
        self._taken = [(i, _border_name(graph.inputs[i].name, graph.inputs[i].dtype)) for i in taken]
        self._has_wide = any(border_dtype(graph.inputs[i].dtype) != graph.inputs[i].dtype for i in taken)
        self._fed = {_border_name(name, _dtype(array)): _over_border(array) for name, array in fed.items()}
        self._names = [_border_name(value.name, value.dtype) for value in graph.outputs]
        self._specs = [(value.shape, value.dtype) for value in graph.outputs]

    def __call__(self, values: list[OnnxValue]) -> list[OnnxValue]:
        """The results for concrete arguments."""
        made: list[OnnxValue] = []
        if self._session is not None:
            feeds: dict[str, Any] = dict(self._fed)
            for i, name in self._taken:
                feeds[name] = values[i].array
            if self._has_wide:
                feeds = {name: _over_border(array) for name, array in feeds.items()}
            found = self._session.run(self._names, feeds)
            for array, (shape, dtype) in zip(found, self._specs, strict=True):
                if border_dtype(dtype) != dtype:
                    array = array.astype(dtypes.numpy_dtype(dtype))
                made.append(OnnxValue(shape, dtype, array=array))
        return [
            part if type(part) is OnnxValue else made[part[1]] if part[0] else values[part[1]] for part in self._plan
        ]


def _dtype(array: np.ndarray) -> str:
    return dtypes.standardize_dtype(array.dtype)


def _border_name(name: str, dtype: str) -> str:
    """The name under which `model_of` takes or gives an array."""
    return f"{name}_border" if border_dtype(dtype) != dtype else name


def _over_border(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
