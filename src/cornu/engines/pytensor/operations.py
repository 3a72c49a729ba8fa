"""PyTensor Ops of our own: primitives that PyTensor lacks, gradients by the language's rules, a loop without bound."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op as PytensorOp
from pytensor.graph.rewriting.basic import node_rewriter
from pytensor.tensor.rewriting.basic import register_canonicalize

from cornu.autodiff.rules import RULES
from cornu.autodiff.tape import pull_back
from cornu.core import context, dtypes
from cornu.core.errors import UnsupportedError
from cornu.engines import registry
from cornu.engines.numpy import ENGINE as NUMPY
from cornu.engines.pytensor.values import compute, settle, type_of
from cornu.ops._declare import operator

__all__ = ["ByRule", "Primitive", "While", "flattened", "frozen", "nested", "nodes", "reference"]


@functools.cache
def reference(name: str) -> Callable[..., Any]:
    """An op on host arrays, as the NumPy engine computes it."""
    found = NUMPY.table.get(name)
    if found is not None:
        return found
    body = operator(name).body

    def run(*arrays: Any, **static: Any) -> Any:
        with context.use_engine(NUMPY):
            return body(*arrays, **static)

    return run


def nested(flat: list[Any], singles: int, has_list: bool) -> list[Any]:
    """Flat inputs as an op takes them: so many arrays, then a list of the rest."""
    return [*flat[:singles], list(flat[singles:])] if has_list else list(flat)


def flattened(arrays: list[Any]) -> tuple[list[Any], int, bool]:
    """The inverse: `nested`'s arguments for an op's arrays, of which the last may be a list."""
    has_list = bool(arrays) and isinstance(arrays[-1], list)
    singles = len(arrays) - has_list
    return [*arrays[:singles], *(arrays[-1] if has_list else ())], singles, has_list


def frozen(value: Any) -> Any:
    """A static argument that can be hashed."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def nodes(op: PytensorOp, inputs: list[Any]) -> list[Any]:
    """An Op applied: all its results, in a list."""
    found: Any = op(*inputs, return_list=True)
    return list(found)


class _Ruled(PytensorOp):  # type: ignore[misc]
    """An Op whose gradient is the language's rule for a primitive (none if the primitive has no rule).

    Args:
        name: the primitive.
        static: its static arguments, as pairs.
        singles: how many of its array arguments are single arrays.
        has_list: whether a list of arrays follows.
        types: dtype and shape of each result.
    """

    __props__: tuple[str, ...] = ("name", "static", "singles", "has_list", "types")

    def __init__(self, name: str, static: Any, singles: int, has_list: bool, types: Any) -> None:
        self.name = name
        self.static = static
        self.singles = singles
        self.has_list = has_list
        self.types = types

    def _rule_of(self, position: int) -> Any:
        names = [p.name for p in operator(self.name).parameters if p.name in operator(self.name).arrays]
        return RULES.get(self.name, {}).get(names[min(position, len(names) - 1)])

    def _connects(self, position: int, variable: Any) -> bool:
        return variable.type.dtype in dtypes.FLOATS and self._rule_of(position) is not None

    def _shares(self, inputs: list[Any], outputs: list[Any], gradients: list[Any]) -> list[Any]:
        """The gradients of the flat array arguments."""
        op = operator(self.name)
        if op.name not in RULES:
            return [disconnected_type() for _ in inputs]
        many = len(self.types) > 1
        results = tuple(settle(out) for out in outputs)
        given = tuple(None if isinstance(g.type, DisconnectedType) else settle(g) for g in gradients)
        names = [p.name for p in op.parameters if p.name in op.arrays]
        arrays = dict(zip(names, nested([settle(v) for v in inputs], self.singles, self.has_list), strict=True))
        with context.use_engine(registry.get("pytensor")):
            shares = pull_back(
                op, arrays, dict(self.static), results if many else results[0], given if many else given[0]
            )
        flat = flattened(list(shares.values()))[0] if self.has_list else list(shares.values())
        if self.has_list and len(flat) != len(inputs):  # a list without gradients
            flat += [None] * (len(inputs) - len(flat))
        return [disconnected_type() if share is None else share for share in flat]


class Primitive(_Ruled):
    """A primitive as one Op, computed by the NumPy engine's function, or by the JAX engine's under the JAX linker."""

    def make_node(self, *inputs: Any) -> Apply:
        """The node: results of the types told."""
        return Apply(self, inputs, [type_of(dtype, shape)() for dtype, shape in self.types])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        """Compute on host arrays."""
        arrays = nested([np.asarray(value) for value in inputs], self.singles, self.has_list)
        found = reference(self.name)(*arrays, **dict(self.static))
        results = found if isinstance(found, (tuple, list)) else (found,)
        for cell, result, (dtype, _) in zip(output_storage, results, self.types, strict=True):
            cell[0] = np.ascontiguousarray(result, dtype).reshape(np.shape(result))

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Which results a gradient goes through to which inputs."""
        ways = [out.type.dtype in dtypes.FLOATS for out in node.outputs]
        return [[way and self._connects(i, v) for way in ways] for i, v in enumerate(node.inputs)]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """By the language's rule."""
        return self._shares(list(inputs), list(outputs), list(cotangents))

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> Any:
        """Every size is known."""
        return [out.type.shape for out in node.outputs]


class ByRule(_Ruled):
    """The results of a primitive, computed in whatever way, with the language's rule as the gradient.

    The inputs are the results, then the primitive's arrays. The node is taken out before a graph is compiled.
    """

    view_map = {0: [0]}

    def make_node(self, *inputs: Any) -> Apply:
        """The node: the results once more."""
        return Apply(self, inputs, [v.type() for v in inputs[: len(self.types)]])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        """Pass the results on."""
        for cell, value in zip(output_storage, inputs, strict=False):
            cell[0] = value

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """The results themselves are cut off; the arrays are reached by the rule."""
        count = len(self.types)
        ways = [out.type.dtype in dtypes.FLOATS for out in node.outputs]
        cut = [[False] * count for _ in range(count)]
        return cut + [[way and self._connects(i, v) for way in ways] for i, v in enumerate(node.inputs[count:])]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """By the language's rule."""
        count = len(self.types)
        shares = self._shares(list(inputs[count:]), list(outputs), list(cotangents))
        return [disconnected_type() for _ in range(count)] + shares

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Any) -> Any:
        """The results' own."""
        return shapes[: len(self.types)]


@node_rewriter([ByRule])  # type: ignore[misc]
def cornu_take_out_rules(fgraph: Any, node: Apply) -> Any:
    """Gradients have been taken when a graph is compiled: the results stand for themselves."""
    return list(node.inputs[: len(node.op.types)])


register_canonicalize(cornu_take_out_rules, "fast_compile", "minimum_compile")


class While(PytensorOp):  # type: ignore[misc]
    """A loop that runs as long as a condition on its state holds.

    Args:
        state: variables for the state in one step.
        outer: variables for what the step uses besides.
        results: the condition, then the next state, as a graph over both.
    """

    def __init__(self, state: list[Any], outer: list[Any], results: list[Any]) -> None:
        self.count = len(state)
        self.inputs = [*state, *outer]
        self.results = results

    def make_node(self, *inputs: Any) -> Apply:
        """The node: the last state."""
        return Apply(self, inputs, [v.type() for v in inputs[: self.count]])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        """Step by step on host arrays."""
        state, outer = list(inputs[: self.count]), list(inputs[self.count :])
        while True:
            holds, *after = compute(self.results, dict(zip(self.inputs, [*state, *outer], strict=True)))
            if not holds:
                break
            state = after
        for cell, value in zip(output_storage, state, strict=True):
            cell[0] = np.array(value)

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Every float is connected, so that a gradient asked for is refused and not lost."""
        return [[v.type.dtype in dtypes.FLOATS] * self.count for v in node.inputs]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Refuse.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "the gradient of a while_loop without a bound",
            "maximum_iterations",
            "while_loop(..., maximum_iterations=n)",
        )
