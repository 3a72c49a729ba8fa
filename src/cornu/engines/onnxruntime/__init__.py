"""The engine ONNX Runtime: a compiled function is one ONNX graph, training included; the tape differentiates.

`builder` holds a graph under construction, `nodes` its operators, the modules named after families of ops the table,
`session` what runs a finished graph, `quirks` what ONNX Runtime cannot do as it should.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from cornu.core import context
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines.contract import Engine
from cornu.engines.onnxruntime.builder import Graph, building
from cornu.engines.onnxruntime.session import Program, providers, threads
from cornu.engines.onnxruntime.table import TABLE, concrete
from cornu.engines.onnxruntime.value import OnnxValue
from cornu.ops._declare import host_array, interpreter_of, interprets

__all__ = ["ENGINE", "OnnxRuntimeEngine", "OnnxValue"]


class OnnxRuntimeEngine(Engine):
    """Computes with sessions of ONNX Runtime: one for a compiled function, a small one for each op outside of one."""

    name = "onnxruntime"
    table = TABLE
    traces = True

    def owns(self, kind: type) -> bool:
        """`OnnxValue`, concrete or a stand-in."""
        return kind is OnnxValue

    def from_host(self, value: np.ndarray) -> OnnxValue:
        """The array as a concrete value, not copied."""
        return concrete(np.asarray(value))

    def to_host(self, value: OnnxValue) -> np.ndarray:
        """The elements of a concrete value.

        Raises:
            GraphError: for a stand-in.
        """
        return value.numpy()

    def own(self, value: Any, dtype: str | None = None) -> OnnxValue:
        """Anything an op takes as a value of this engine, cast if a dtype is given."""
        if isinstance(value, Variable):
            value = value.value
        if type(value) is OnnxValue:
            return value if dtype is None or value.dtype == dtype else TABLE["cast_to"](value, dtype=dtype)
        owner = interpreter_of(value)
        if owner is not None:
            value = owner.to_host(value)
        return concrete(host_array(value, dtype))

    def trace(
        self, function: Callable[[list[Any]], list[Any]], values: list[Any], donated: int, thorough: bool
    ) -> Callable[[list[Any]], list[Any]]:
        """The function as one graph, checked and made into a session; within another trace it adds to that graph."""
        program: list[Program] = []

        def run(values: list[Any]) -> list[Any]:
            if any(value.array is None for value in values):
                return function(values)
            if not program:
                program.append(Program(function, [(value.shape, value.dtype) for value in values]))
            return program[0](values)

        if not any(value.array is None for value in values):
            program.append(Program(function, [(value.shape, value.dtype) for value in values]))
        return run

    def infer(self, function: Callable[[list[Any]], list[Any]], specs: list[Spec]) -> list[Spec]:
        """Shapes and dtypes of a function's results, from a graph that is thrown away."""
        graph = Graph()
        with context.use_engine(self), building(graph):
            found = function([graph.input(spec.shape, spec.dtype) for spec in specs])  # type: ignore[arg-type]
            return [Spec(value.shape, value.dtype) for value in map(self.own, found)]

    def copy(self, value: OnnxValue) -> OnnxValue:
        """The value in memory of its own."""
        return concrete(np.array(value.numpy()))

    def is_tracing(self, value: Any) -> bool:
        """Whether a value is a stand-in."""
        return type(value) is OnnxValue and value.array is None

    def devices(self) -> list[str]:
        """The execution providers in use."""
        return providers()

    def details(self) -> dict[str, str]:
        """The providers of this ONNX Runtime, and how many threads a compiled function's operators use."""
        found = ", ".join(onnxruntime.get_available_providers())
        return {"providers": found, "threads": str(threads() or "chosen by ONNX Runtime")}


ENGINE = OnnxRuntimeEngine()
interprets(OnnxValue, lambda value: ENGINE)
