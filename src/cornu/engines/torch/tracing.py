"""A function traced once into a flat graph of PyTorch's operators, which then runs without the library."""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from cornu.core.errors import EngineError
from cornu.engines.compiled import Compiled
from cornu.engines.torch import inductor
from cornu.engines.torch.arrays import NeedsValue, is_stand_in, own_places
from cornu.engines.torch.beforehand import split
from cornu.engines.torch.launches import launched
from cornu.engines.torch.pieces import written_out
from cornu.engines.torch.program import program
from cornu.engines.torch.simplify import simplify
from cornu.engines.torch.updates import reuse

__all__ = ["Eager", "TorchCompiled", "Traced", "Warming", "trace"]

Flat = Callable[[list[Any]], list[Any]]

# How often a function runs op by op before it is traced.
_EAGER_CALLS = 2
# `torch.fx` replaces methods of `torch.nn.Module` while it traces: one trace at a time.
_lock = threading.RLock()
_NEEDS_VALUE = (NeedsValue, DataDependentOutputException, DynamicOutputShapeException)
_OPTIONS: dict[str, Any] = {
    name: value
    for name, value in {"_error_on_data_dependent_ops": False, "_disable_torch_fn_metadata_mode": True}.items()
    if name in inspect.signature(make_fx).parameters
}


class Eager:
    """A function that runs op by op, because its steps depend on values.

    Args:
        function: of a list of tensors, gives a list of them.
        because: what made it so.

    Attributes:
        eager_because: what made it so, `None` if it is traced.
    """

    def __init__(self, function: Flat, because: str) -> None:
        self.function = function
        self.eager_because: str | None = because

    def __call__(self, values: list[Any]) -> list[Any]:
        with torch.no_grad():
            return self.function(values)


class Traced:
    """A traced function.

    Args:
        body: the graph as a Python function of a list of tensors without gaps in memory.
        graph: the graph, if some of its arguments may be given beforehand.
        donated: to how many of the first tensors it may write.

    Attributes:
        eager_because: `None`.
    """

    eager_because: str | None = None

    def __init__(self, body: Flat, graph: GraphModule | None = None, donated: int = 0) -> None:
        self.body = body
        self.graph = graph
        self.donated = donated
        self._split: dict[int, tuple[Flat, Flat]] = {}  # by how many arguments are given beforehand

    def __call__(self, values: list[Any]) -> list[Any]:
        before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            return self.body(_without_gaps(own_places(values, self.donated) if self.donated else values))
        finally:
            torch._C._set_grad_enabled(before)

    def given(self, first: list[Any]) -> Flat:
        """The function of the later values; what follows from the first ones is computed here and now."""
        if self.graph is None:
            return lambda rest: self([*first, *rest])
        count = len(first)
        if count not in self._split:
            with _lock:
                before, after = split(self.graph, count)
                self._split[count] = program(before), program(after)
        early, late = self._split[count]
        with torch.no_grad():
            ready = early(_without_gaps([value.detach() for value in first]))
        return lambda rest: late([*ready, *_without_gaps(rest)])


def _without_gaps(values: list[Any]) -> list[Any]:
    """Tensors in the memory that a graph was traced for."""
    return [value if value.is_contiguous() else value.contiguous() for value in values]


class TorchCompiled(Compiled):
    """A compiled function whose arguments are told apart by what PyTorch itself says of a tensor."""

    def is_traced(self, run: Flat) -> bool:
        return isinstance(run.run if isinstance(run, Warming) else run, Traced)

    def _key(self, value: Any, arrays: list[Any]) -> Any:
        kind = type(value)
        if kind is torch.Tensor:
            arrays.append(value)
            return value.shape, value.dtype, value.device
        if kind is list or kind is tuple:
            found: list[Any] = [kind]
            for item in value:
                if type(item) is torch.Tensor:
                    arrays.append(item)
                    found.append((item.shape, item.dtype, item.device))
                else:
                    found.append(self._key(item, arrays))
            return tuple(found)
        return super()._key(value, arrays)


class _Within:
    """A function compiled while another is being traced: part of that one, and traced itself when values come."""

    def __init__(self, function: Flat, thorough: bool) -> None:
        self.function = function
        self.thorough = thorough
        self.run: Any = None

    def __call__(self, values: list[Any]) -> list[Any]:
        if any(is_stand_in(value) for value in values):
            return self.function(values)
        if self.run is None:
            self.run = trace(self.function, values, 0, self.thorough)
        result: list[Any] = self.run(values)
        return result


class Warming:
    """A function that runs op by op at first: many are called once or twice, for which a trace would take too long.

    Args:
        function: of a list of tensors, gives a list of them.
        donated: how many of the first tensors it may write to.

    Attributes:
        eager_because: what keeps it from being traced, `None` if nothing does or nobody has tried yet.
    """

    def __init__(self, function: Flat, donated: int) -> None:
        self.function = function
        self.donated = donated
        self.calls = 0
        self.run: Any = None

    @property
    def eager_because(self) -> str | None:
        """What keeps it from being traced."""
        found: str | None = getattr(self.run, "eager_because", None)
        return found

    def __call__(self, values: list[Any]) -> list[Any]:
        if self.run is None:
            self.calls += 1
            if self.calls <= _EAGER_CALLS:
                with torch.no_grad():
                    return [value.contiguous() for value in self.function(values)]
            self.run = _traced(self.function, values, self.donated, thorough=False)
        result: list[Any] = self.run(values)
        return result

    def given(self, first: list[Any]) -> Flat:
        """The function of the later values; from when it is traced on, what follows from the first ones is kept."""
        ready: Flat | None = None

        def run(rest: list[Any]) -> list[Any]:
            nonlocal ready
            if ready is None:
                if not isinstance(self.run, Traced):
                    return self([*first, *rest])
                ready = self.run.given(first)
            return ready(rest)

        return run


def trace(function: Flat, values: list[Any], donated: int, thorough: bool) -> Any:
    """A pure function, made fast for tensors of these shapes and dtypes.

    Args:
        function: takes a list of tensors or stand-ins for them, and gives such a list.
        values: tensors of the shapes and dtypes it will get.
        donated: how many of the first of them it may write to; the first results take their place.
        thorough: whether TorchInductor compiles it, if a compiler for it is there.

    Returns:
        function of a list of tensors; its attribute `eager_because` says why it was not traced, if so.
    """
    if any(is_stand_in(value) for value in values):
        return _Within(function, thorough)
    thorough = thorough and inductor.available({value.device.type for value in values})
    return _traced(function, values, donated, True) if thorough else Warming(function, donated)


def _traced(function: Flat, values: list[Any], donated: int, thorough: bool) -> Any:
    with _lock:
        try:
            graph_module = _graph(function, values, thorough)
        except _NEEDS_VALUE as error:
            return Eager(function, f"{type(error).__name__}: {error}")
        simplify(graph_module)
        reuse(graph_module, donated)
        body = inductor.compiled(graph_module, values) if thorough else program(graph_module)
        run = launched(body, values, donated)
        return Traced(run, graph_module if run is body and not thorough and not donated else None, donated)


def _graph(function: Flat, values: list[Any], thorough: bool) -> Any:
    def settled(*stand_ins: Any) -> list[Any]:
        return [v if v.is_contiguous() else v.contiguous() for v in function(list(stand_ins))]

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        torch.autograd.set_multithreading_enabled(False),
        written_out(thorough),
    ):
        stand_ins = [torch.empty(value.shape, dtype=value.dtype, device=value.device) for value in values]
        traced = make_fx(settled, **_OPTIONS)(*stand_ins)
    _replace_zero_tensors(traced)
    return traced


def _replace_zero_tensors(traced: Any) -> None:
    """Give memory to what autograd made to say "nothing": it passes by the tracer, which keeps a stand-in.

    Raises:
        EngineError: if any other stand-in was kept, which has no elements to compute with.
    """
    for name, value in list(vars(traced).items()):
        if isinstance(value, FakeTensor):
            if not value._is_zerotensor():
                raise EngineError(
                    f"a traced function kept the stand-in of another trace, of shape {tuple(value.shape)}",
                    "values that belong to this trace or have elements",
                    "do not keep tensors of a compiled function in an attribute",
                )
            setattr(traced, name, torch.zeros(value.shape, dtype=value.dtype, device=value.device))
