"""The PyTorch engine: eager tensors, functions traced once, TorchInductor where a compiler is there."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cornu.core import context
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines.contract import Engine
from cornu.engines.memory import GLIBC_LIMIT, keep_freed
from cornu.engines.torch import gradients, inductor, quirks
from cornu.engines.torch.arrays import (
    DTYPES,
    can_be_lent,
    device,
    from_host,
    in_host,
    in_trace,
    is_known_number,
    is_stand_in,
    lent_place,
    outside_traces,
    to_host,
    together,
)
from cornu.engines.torch.home import TorchHome, home_of
from cornu.engines.torch.table import TABLE, flat_linear, linear
from cornu.engines.torch.team import leave_team
from cornu.engines.torch.tracing import TorchCompiled, trace
from cornu.ops._declare import Op, dtype_of

__all__ = ["ENGINE", "TorchEngine"]


class TorchEngine(Engine):
    """Computes with `torch`, traces with `make_fx`, differentiates with autograd.

    Values live on the device of `torch.set_default_device`; without one on a GPU, if CUDA sees one. What comes to an
    op from the CPU is brought there.
    """

    name = "torch"
    table = TABLE
    traces = True
    reuses = True

    def __init__(self) -> None:
        self.keeps_memory = keep_freed(GLIBC_LIMIT)

    def owns(self, kind: type) -> bool:
        """PyTorch's tensors and their subclasses."""
        return issubclass(kind, torch.Tensor)

    def from_host(self, value: np.ndarray) -> Any:
        """The array copied to where new values live; never a stand-in, since a variable keeps what it gets."""
        return from_host(value)

    def from_any(self, value: Any) -> Any:
        """Anything as a tensor where new values live."""
        return together(value if isinstance(value, torch.Tensor) else super().from_any(value))

    def to_host(self, value: Any) -> np.ndarray:
        """The tensor's elements in an array of their own."""
        return to_host(value)

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op; in a trace, one on known numbers at once, so that a loop may count with them."""
        if in_trace() and arrays and op.is_primitive and op.family != "control":
            if all(map(is_known_number, arrays.values())):
                return self._at_once(op, arrays, static)
        return super().apply(op, together(arrays), static)

    def _at_once(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op outside of the trace; who watches ops goes on in it, with values of its own."""
        watcher = context.watcher.get()
        with context.watched_by(None), outside_traces():
            result = super().apply(op, arrays, static)
        if watcher is not None:
            watcher(op, arrays, static, result)
        return result

    def fitted(self, function: Callable[..., Any], dtypes: list[str], ranks: list[int]) -> Callable[..., Any]:
        """The function itself; for floats what it comes down to."""
        if not set(dtypes) <= {"float32", "float64"}:
            return function
        return flat_linear if function is linear and ranks == [2, 2, 1] else quirks.for_floats(function)

    def plain(self, value: Any) -> Any:
        """The value itself; in a trace, the elements of one that is known."""
        return to_host(value) if in_trace() and not is_stand_in(value) else value

    def trace(
        self, function: Callable[[list[Any]], list[Any]], values: list[Any], donated: int, thorough: bool
    ) -> Callable[[list[Any]], list[Any]]:
        """The function as one flat graph, from its third call on.

        The attribute `eager_because` of the result says why it is none, where the function depends on values.
        """
        run: Callable[[list[Any]], list[Any]] = trace(function, values, donated, thorough)
        return run

    def compile(self, function: Callable[..., Any], donate: bool = False, thorough: bool = False) -> Callable[..., Any]:
        """The function, traced once per shapes, dtypes and structure of its arguments."""
        return TorchCompiled(self, function, donate, thorough)

    def value_and_grad(self, function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any]:
        """PyTorch's own reverse-mode differentiation."""
        return gradients.value_and_grad(function)

    def by_rule(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A primitive as an `autograd.Function` with the language's way back."""
        return gradients.by_rule(self, op, arrays, static)

    def home(self, variable: Variable, always: bool = False) -> TorchHome | None:
        """An `nn.Parameter`, for what trains."""
        return home_of(self, variable, always)

    def adopt(self, native: Any) -> TorchHome:
        """A home in a module's own parameter or buffer."""
        return TorchHome(self, native)

    def infer(self, function: Callable[[list[Any]], list[Any]], specs: list[Spec]) -> list[Spec]:
        """Shapes and dtypes of a function's results, on PyTorch's fake tensors."""
        with context.use_engine(self), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            found = function(
                [torch.empty(list(map(int, spec.shape)), dtype=DTYPES[spec.dtype], device=device()) for spec in specs]
            )
        return [Spec(tuple(leaf.shape), dtype_of(leaf)) for leaf in found]

    def copy(self, value: Any) -> Any:
        """The tensor again, in memory of its own, apart from autograd."""
        with outside_traces():
            return value.detach().clone(memory_format=torch.contiguous_format)

    def feed(self, value: Any) -> Any:
        """An array or tensor as an argument of a traced function."""
        value = self.from_any(value)
        return value.detach() if value.requires_grad else value

    def lend(self, value: Any) -> Any:
        """A host array's own memory as a tensor, on a CPU."""
        return torch.from_numpy(value) if can_be_lent(value) else self.feed(value)

    def place_host(self, value: np.ndarray) -> Any:
        """A tensor; a large one in the array's memory, which a traced function that writes leaves first."""
        return lent_place(value) if can_be_lent(value) else from_host(value)

    def peek(self, value: Any) -> np.ndarray:
        """The tensor's own memory, on a CPU."""
        return in_host(value)

    def all_finite(self, values: list[Any]) -> bool:
        """Whether all elements are finite: no sum is finite of what is not, but one may overflow by itself."""
        with torch.no_grad():
            sums = [value.sum() if value.itemsize > 2 else value.float().sum() for value in values]
            if sums and all(total.is_cuda for total in sums):  # waits for the GPU once
                totals = torch.stack([total.float() for total in sums]).tolist()
            else:
                totals = [total.item() for total in sums]
            suspects = [value for value, total in zip(values, totals, strict=True) if not math.isfinite(total)]
            return all(bool(torch.isfinite(value).all()) for value in suspects)

    def is_tracing(self, value: Any) -> bool:
        """Whether a tensor is a stand-in."""
        return is_stand_in(value)

    def wait(self, value: Any) -> None:
        """Return once the tensor is computed."""
        if value.device.type in ("cuda", "mps", "xpu"):
            getattr(torch, value.device.type).synchronize()

    def waits(self) -> bool:
        """On a CPU, without modes that hold in this thread only (autocast, devices, who watches ops, profilers)."""
        return device().type == "cpu" and not (
            torch._C._len_torch_function_stack()
            or torch._C._len_torch_dispatch_stack()
            or torch.is_autocast_enabled("cpu")
            or torch.autograd._profiler_enabled()
        )

    def leave(self) -> None:
        """End this thread's team."""
        leave_team()

    def devices(self) -> list[str]:
        """`"cpu"`, and the GPUs PyTorch sees."""
        found = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        return [*found, "mps"] if torch.backends.mps.is_available() else found

    def use_compile_cache(self, directory: Path | None) -> str | None:
        """Keep what TorchInductor compiles (`compile(jit_compile=True)`, and the user's own `torch.compile`)."""
        folder = inductor.use_folder(directory)
        return None if folder is None else f"TorchInductor's code in {folder}"


ENGINE = TorchEngine()
