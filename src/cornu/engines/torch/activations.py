"""Activations, and losses of them, that PyTorch computes in one pass."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cornu.ops._declare import operator

__all__ = ["TABLE"]

_KINDS = (torch.float32, torch.float64)


def _along(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one axis; over several it is composed."""
    op = operator(name)

    def run(x: Any, axis: Any) -> Any:
        if x.dtype not in _KINDS or type(axis) is not int or not -x.ndim <= axis < x.ndim or not x.numel():
            return op.body(x, axis)
        return function(x, axis)

    return run


def _gelu(x: Any, approximate: Any) -> Any:
    if x.dtype not in _KINDS:
        return operator("gelu").body(x, approximate)
    return F.gelu(x, approximate="tanh" if approximate else "none")


def _silu(x: Any) -> Any:
    return F.silu(x) if x.dtype in _KINDS else operator("silu").body(x)


def _binary_crossentropy(target: Any, output: Any, from_logits: Any) -> Any:
    if not from_logits or output.dtype not in _KINDS or target.shape != output.shape:
        return operator("binary_crossentropy").body(target, output, from_logits)
    return F.binary_cross_entropy_with_logits(output, target, reduction="none")


TABLE: dict[str, Callable[..., Any]] = {
    "binary_crossentropy": _binary_crossentropy,
    "gelu": _gelu,
    "silu": _silu,
    "softmax": _along("softmax", torch.softmax),
    "log_softmax": _along("log_softmax", torch.log_softmax),
}
