"""Normalisations by PyTorch's own kernels."""

from collections.abc import Callable
from typing import Any

import torch

from cornu.ops._declare import operator

__all__ = ["TABLE"]

_KINDS = (torch.float32, torch.float64)


def _normalization_by_batch(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    if x.dtype not in _KINDS or x.ndim < 2 or not -x.ndim <= axis < x.ndim or x.numel() == 0:
        return operator("normalization_by_batch").body(x, axis, offset, scale, epsilon)
    y, mean, inverse = torch.native_batch_norm(x.movedim(axis, 1), scale, offset, None, None, True, 0.0, epsilon)
    mean, inverse = mean.detach(), inverse.detach()
    variance = torch.clamp_min(torch.reciprocal(inverse * inverse) - epsilon, 0)
    return y.movedim(1, axis), mean, variance


TABLE: dict[str, Callable[..., Any]] = {"normalization_by_batch": _normalization_by_batch}
