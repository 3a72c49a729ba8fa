"""Where a variable lives while users differentiate with `loss.backward()`: an `nn.Parameter`."""

import sys
import weakref
from types import SimpleNamespace
from typing import Any

import torch

from cornu.core import dtypes
from cornu.core.variable import Variable

__all__ = ["TorchHome", "home_of"]


def _holders(home: Any) -> tuple[int, int]:
    """How many hold a home's tensor, and how many its memory; whoever counts is among them."""
    native = home.native
    return sys.getrefcount(native), torch._C._storage_Use_Count(native.untyped_storage()._cdata)


_ALONE = _holders(SimpleNamespace(native=torch.empty(1)))


class TorchHome:
    """An `nn.Parameter` that holds a variable's value.

    Args:
        engine: the PyTorch engine.
        native: the parameter, or a buffer.
    """

    def __init__(self, engine: Any, native: torch.Tensor) -> None:
        self.engine = engine
        self.native = native

    def read(self, variable: Variable) -> Any:
        """The value now, which later updates in place do not change."""
        return self.native.detach().clone()

    def look(self, variable: Variable) -> Any:
        """The value in its own memory."""
        return self.native.detach()

    def write(self, variable: Variable, value: Any) -> None:
        """Copy a value into the parameter, which optimizers of PyTorch may hold."""
        with torch.no_grad():
            self.native.copy_(self.engine.from_any(value))

    def tracked(self) -> Any:
        """The parameter, whose gradient `backward` adds to."""
        return self.native

    def is_shared(self) -> bool:
        """Whether anybody may hold the parameter, as graphs of autograd do, or its memory; or has left things in it."""
        if _holders(self) != _ALONE:
            return True
        native = self.native
        return (
            native.grad is not None
            or bool(native.__dict__ or native._backward_hooks or native._post_accumulate_grad_hooks)
            or weakref.getweakrefcount(native) > 0
        )


def home_of(engine: Any, variable: Variable, always: bool) -> TorchHome | None:
    """A home for a variable read here and now: for what trains while PyTorch records gradients."""
    if variable.home is not None and variable.home.engine is engine:
        return variable.home  # type: ignore[return-value]
    trains = variable.trainable and variable.dtype in dtypes.FLOATS
    if not always and not (trains and torch.is_grad_enabled()):
        return None
    value = engine.from_any(variable.stored()).detach().clone()
    return TorchHome(engine, torch.nn.Parameter(value, requires_grad=trains))
