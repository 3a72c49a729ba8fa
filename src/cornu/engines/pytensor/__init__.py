"""PyTensor, Theano's living successor: symbolic variables, compiled by its JAX, C or Numba linker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pytensor.gradient import grad
from pytensor.tensor.variable import TensorVariable

from cornu.autodiff.rules import RULES
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context
from cornu.core.errors import ShapeError
from cornu.core.spec import Spec
from cornu.engines.contract import Engine
from cornu.engines.pytensor import linkers
from cornu.engines.pytensor.loops import LOOPS
from cornu.engines.pytensor.operations import ByRule, Primitive, flattened, frozen, nodes
from cornu.engines.pytensor.table import TABLE
from cornu.engines.pytensor.values import Known, Traced, compute, is_traced, known, settle, stand_in, traced, tracing
from cornu.ops._declare import Op, interpreter_of, operator

__all__ = ["ENGINE"]

# Primitives of which PyTensor's own gradient is the language's: smooth, and free of `floatX`.
_NATIVE = frozenset("exp log sqrt sin cos tanh sigmoid add subtract multiply divide negative cast_to".split())


class PytensorEngine(Engine):
    """Values are PyTensor's variables; what depends on no argument of a traced function is computed at once.

    The environment variable `CORNU_PYTENSOR_LINKER` chooses the linker: `jax`, `c`, `numba` or `py`; by default the
    first of them that is there.
    """

    name = "pytensor"
    table = TABLE | LOOPS
    traces = True
    reuses = True
    ruled = {name: (lambda static: True) for name in {*RULES, "stop_gradient"} - _NATIVE}
    gaps: dict[str, str] = {}

    def __init__(self) -> None:
        self._own_types: dict[type, bool] = {Known: True, Traced: True}

    def owns(self, kind: type) -> bool:
        """PyTensor's tensor variables and constants."""
        found = self._own_types.get(kind)
        if found is None:
            found = self._own_types[kind] = issubclass(kind, TensorVariable)
        return found

    def sizes(self, value: Any) -> tuple[int, ...]:
        """The shape of a variable that PyTensor's own functions made."""
        shape: tuple[int, ...] = settle(value).shape
        return shape

    def from_host(self, value: np.ndarray) -> Known:
        """The array as a constant; it is not copied."""
        return known(value)

    def to_host(self, value: Any) -> np.ndarray:
        """A constant's elements.

        Raises:
            GraphError: for a value that is not known yet.
        """
        value = settle(value)
        return value.host() if type(value) is Known else np.asarray(value)

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Anything an op takes as one of our values, cast if a dtype is given."""
        if type(value) is not Known and type(value) is not Traced and isinstance(value, TensorVariable):
            value = settle(value)
        return super().own(value, dtype)

    def trace(
        self, function: Callable[[list[Any]], list[Any]], values: list[Any], donated: int, thorough: bool
    ) -> Callable[[list[Any]], list[Any]]:
        """The function's graph, compiled by the linker in force."""
        inputs = [stand_in(value.dtype, value.shape) for value in values]
        token = tracing.set(True)
        try:
            outputs = [settle(out) for out in function(list(inputs))]
        finally:
            tracing.reset(token)
        return linkers.build(inputs, outputs, donated)

    def value_and_grad(self, function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any]:
        """PyTensor's own differentiation in a traced function; the tape where all values are known."""
        taped = tape_value_and_grad(function)

        def run(values: list[Any]) -> Any:
            known_here = not tracing.get() and not any(type(value) is Traced for value in values)
            if known_here or any(interpreter_of(value) not in (None, self) for value in values):
                return taped(values)
            values = [self.own(value) for value in values]
            # Each a variable of its own: what else hangs together with it is held fixed.
            sources = [_with_rule(operator("as_tensor"), [value], {}, value) for value in values]
            output, rest = function(list(sources))
            output = self.own(output)
            if output.shape != ():
                raise ShapeError(f"the gradient of a value of shape {output.shape}", "a scalar", "ops.mean")
            if type(output) is Known:
                return (output, rest), [known(np.zeros(v.shape, v.dtype)) for v in values]
            found: Any = grad(output, sources, disconnected_inputs="ignore", return_disconnected="zero")
            return (output, rest), [self.own(traced(g), v.dtype) for g, v in zip(found, values, strict=True)]

        return run

    def by_rule(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A primitive with the language's rule as the gradient PyTensor takes."""
        values = list(arrays.values())
        result = self.table[op.name](*values, **static)
        first = result[0] if isinstance(result, tuple) else result
        if type(first) is Known or (first.owner is not None and isinstance(first.owner.op, Primitive)):
            return result
        return _with_rule(op, values, static, result)

    def infer(self, function: Callable[[list[Any]], list[Any]], specs: list[Spec]) -> list[Spec]:
        """Shapes and dtypes of a function's results, as PyTensor's types have them."""
        with context.use_engine(self):
            found = [
                settle(out) for out in function([stand_in(spec.dtype, tuple(map(int, spec.shape))) for spec in specs])
            ]
        return [Spec(out.shape, out.dtype) for out in found]

    def is_tracing(self, value: Any) -> bool:
        """Whether a value stands for one that is not known yet."""
        return type(value) is Traced or (type(value) is not Known and is_traced(value))

    def copy(self, value: Any) -> Known:
        """The constant again, in memory of its own."""
        return Known(np.array(self.to_host(value)))

    def details(self) -> dict[str, str]:
        """The linker in force."""
        return {"linker": linkers.chosen()}

    def use_compile_cache(self, directory: Path | None) -> str | None:
        """Keep what the JAX linker compiles; the C and Numba linkers keep theirs in PyTensor's own directory anyway."""
        return linkers.use_compile_cache(directory)

    def wait(self, value: Any) -> None:
        """Return once the value is computed (JAX's arrays may be on their way)."""
        if type(value) is Known and hasattr(value.raw, "block_until_ready"):
            value.raw.block_until_ready()


def _with_rule(op: Op, values: list[Any], static: dict[str, Any], result: Any) -> Any:
    """The result (or results) once more, as a node whose gradient is the language's rule."""
    flat, singles, has_list = flattened(values)
    results = list(result) if isinstance(result, tuple) else [result]
    types = tuple((part.dtype, part.shape) for part in results)
    pairs = tuple((key, frozen(value)) for key, value in static.items())
    made = [traced(out) for out in nodes(ByRule(op.name, pairs, singles, has_list, types), [*results, *flat])]
    return tuple(made) if isinstance(result, tuple) else made[0]


ENGINE = PytensorEngine()
