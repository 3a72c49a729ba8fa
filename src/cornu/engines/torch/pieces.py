"""Operators of our own, and whether a trace has them in one piece or written out for a compiler that joins them."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch

__all__ = ["define", "is_written_out", "kernel_of", "written_out"]

_open: ContextVar[bool] = ContextVar("cornu_torch_written_out", default=False)
# Not `torch.library.custom_op`: the first call of one imports `torch._dynamo`, which takes a second.
_library = torch.library.Library("cornu", "FRAGMENT")
_kernels: dict[Any, Callable[..., Any]] = {}


def define(
    schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any] | None = None, direct: bool = True
) -> Any:
    """An operator of our own, which autograd does not follow.

    Args:
        schema: its name, arguments and results, as PyTorch writes them.
        kernel: computes it.
        shapes: of stand-ins, gives stand-ins; without it the kernel serves them too.
        direct: whether a traced graph may call the kernel itself; not one that reads elements on the host, which who
            watches operators must not see.

    Returns:
        the operator.
    """
    name = _library.define(schema)
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    if shapes is not None:
        torch.library.register_fake(f"cornu::{name}", shapes, lib=_library)
    found = getattr(torch.ops.cornu, name).default
    if direct:
        _kernels[found] = kernel
    return found


def kernel_of(target: Any) -> Callable[..., Any] | None:
    """What computes an operator of our own, which is called faster than the operator; `None` for others."""
    return _kernels.get(target)


@contextlib.contextmanager
def written_out(on: bool) -> Iterator[None]:
    """Write our own operators out in PyTorch's within the block."""
    token = _open.set(on)
    try:
        yield
    finally:
        _open.reset(token)


def is_written_out() -> bool:
    """Whether they are to be written out here and now."""
    return _open.get()
