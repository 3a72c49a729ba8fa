"""PyTensor's JAX linker, contained: imported only where it is used."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytensor
from pytensor.compile.mode import Mode
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.traversal import toposort
from pytensor.link.jax.linker import JAXLinker
from pytensor.link.utils import fgraph_to_python
from pytensor.scan.op import Scan

from cornu.engines.jax.table import TABLE as JAX_TABLE
from cornu.engines.pytensor.operations import ByRule, Primitive, While, nested
from cornu.engines.pytensor.quirks import query
from cornu.engines.pytensor.values import Traced

__all__ = ["compiled", "mode"]

# Its first import turns JAX's 64 bits on (or off) for the whole process, as PyTensor's floatX says.
_before = jax.config.read("jax_enable_x64")
from pytensor.link.jax.dispatch import basic as dispatch  # noqa: E402

jax.config.update("jax_enable_x64", _before)


@dispatch.jax_funcify.register(Primitive)
def _primitive(op: Primitive, node: Any, **kwargs: Any) -> Callable[..., Any]:
    function = JAX_TABLE[op.name]

    def run(*flat: Any) -> Any:
        arrays = [jax.numpy.asarray(v, i.type.dtype) for v, i in zip(flat, node.inputs, strict=True)]
        return function(*nested(arrays, op.singles, op.has_list), **dict(op.static))

    return run


@dispatch.jax_funcify.register(ByRule)
def _by_rule(op: ByRule, **kwargs: Any) -> Callable[..., Any]:
    count = len(op.types)
    return lambda *flat: flat[:count] if count > 1 else flat[0]


@dispatch.jax_funcify.register(While)
def _while(op: While, **kwargs: Any) -> Callable[..., Any]:
    step = dispatch.jax_funcify(_Graph(op.inputs, op.results, clone=True))
    count = op.count

    def run(*flat: Any) -> Any:
        state, outer = flat[:count], flat[count:]
        after = jax.lax.while_loop(
            lambda state: step(*state, *outer)[0], lambda state: tuple(step(*state, *outer)[1:]), tuple(state)
        )
        return after if count > 1 else after[0]

    return run


class _Graph(FunctionGraph):  # type: ignore[misc]
    """The graph inside a loop, converted as the one outside is."""


def _constant(value: Any, variable: Any = None, **kwargs: Any) -> Any:
    """A constant with its dtype: the linker would make a Python number of a scalar, and XLA a float64 of that."""
    if isinstance(value, np.ndarray):
        return value if value.ndim else value[()]
    return dispatch.jax_typify(value, variable=variable, **kwargs)


def _convert(op: Any, node: Any = None, **kwargs: Any) -> Callable[..., Any]:
    """An Op as a function of JAX whose results have the dtypes of the node's."""
    inside = getattr(op, "fgraph", None)
    if type(inside) is FunctionGraph:
        inside.__class__ = _Graph
    function = dispatch.jax_funcify(op, node=node, **kwargs)
    wanted = [getattr(out.type, "dtype", None) for out in node.outputs]

    def run(*inputs: Any) -> Any:
        found = function(*inputs)
        if len(wanted) > 1:
            return [_as_dtype(part, dtype) for part, dtype in zip(found, wanted, strict=True)]
        return _as_dtype(found, wanted[0])

    return run


def _as_dtype(value: Any, dtype: str | None) -> Any:
    return value.astype(dtype) if dtype is not None and getattr(value, "dtype", dtype) != dtype else value


@dispatch.jax_funcify.register(_Graph)
def _graph(graph: _Graph, node: Any = None, fgraph_name: str = "cornu_graph", **kwargs: Any) -> Callable[..., Any]:
    return fgraph_to_python(graph, _convert, type_conversion_fn=_constant, fgraph_name=fgraph_name, **kwargs)


class _Linker(JAXLinker):  # type: ignore[misc]
    """The JAX linker, with the memory of some arguments given up.

    Args:
        lent: places of those arguments.
    """

    def __init__(self, lent: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.lent = lent

    def fgraph_convert(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """The graph as a function of JAX."""
        return fgraph_to_python(
            args[0],
            _convert,
            type_conversion_fn=_constant,
            fgraph_name="cornu_graph",
            storage_map=kwargs["storage_map"],
        )

    def jit_compile(self, fn: Callable[..., Any]) -> Any:
        """The function under `jax.jit`."""
        return jax.jit(fn, donate_argnums=self.lent)

    def clone(self, allow_gc: Any = None) -> "_Linker":
        """A linker like this one."""
        return type(self)(self.lent)


def mode(lent: tuple[int, ...] = (), loops: bool = True) -> Mode:
    """How graphs are rewritten: as little as the linker needs, for XLA does the rest; `scan` needs sizes worked out."""
    return Mode(_Linker(lent), query("fast_compile" if loops else "minimum_compile", "jax"))


def compiled(inputs: list[Traced], outputs: list[Traced], lent: list[int]) -> Callable[[list[Any]], list[Any]]:
    """A graph as one function under `jax.jit`, of and to arrays of JAX.

    Args:
        inputs: the variables that stand for the arguments.
        outputs: the results.
        lent: the arguments that may lend their memory, if a result fits there.
    """
    places = Counter((out.dtype, out.type.shape) for out in outputs)
    fitting = []
    for i in lent:
        key = (inputs[i].dtype, inputs[i].type.shape)
        if places[key] > 0:
            places[key] -= 1
            fitting.append(i)
    loops = any(isinstance(node.op, Scan) for node in toposort(outputs))
    function = pytensor.function(
        list(inputs), list(outputs), mode=mode(tuple(fitting), loops), on_unused_input="ignore"
    )
    jitted = function.vm.jit_fn

    def run(raw: list[Any]) -> list[Any]:
        with jax.enable_x64(True):
            found: list[Any] = jitted(*raw)
        return found

    return run
