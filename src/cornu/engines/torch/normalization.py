"""Normalisations by PyTorch's own kernels."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cornu.ops._declare import operator
from cornu.ops._rules import axis_of
from cornu.ops.nn import EPSILON

__all__ = ["TABLE"]

_KINDS = (torch.float32, torch.float64)


def _batch_normalization(x: Any, mean: Any, variance: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    """One pass over the array; the body takes three."""
    given = [part for part in (mean, variance, offset, scale) if part is not None]
    if x.dtype not in _KINDS or any(part.ndim != 1 for part in given):
        return operator("batch_normalization").body(x, mean, variance, axis, offset, scale, epsilon)
    factor = torch.rsqrt(variance + epsilon)
    factor = factor if scale is None else factor * scale
    shift = -mean * factor if offset is None else offset - mean * factor
    after = x.ndim - 1 - axis_of(axis, x.ndim)
    if after:
        shift, factor = (part.view(-1, *[1] * after) for part in (shift, factor))
    return torch.addcmul(shift, x, factor)


def _normalization_by_batch(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    if x.dtype not in _KINDS or x.ndim < 2 or not -x.ndim <= axis < x.ndim or x.numel() == 0:
        return operator("normalization_by_batch").body(x, axis, offset, scale, epsilon)
    if scale is None and offset is not None and x.is_cuda:  # then PyTorch's gradient for the offset is empty
        scale = torch.ones_like(offset)
    y, mean, inverse = torch.native_batch_norm(x.movedim(axis, 1), scale, offset, None, None, True, 0.0, epsilon)
    mean, inverse = mean.detach(), inverse.detach()
    variance = torch.clamp_min(torch.reciprocal(inverse * inverse) - epsilon, 0)
    return y.movedim(1, axis), mean, variance


def _layer_normalization(x: Any, gamma: Any, beta: Any, axis: Any, epsilon: float | None, rms_scaling: bool) -> Any:
    axes = [axis] if isinstance(axis, int) else list(axis)
    last = list(range(x.ndim - len(axes), x.ndim))
    sizes = x.shape[x.ndim - len(axes) :]
    alike = all(part is None or part.shape == sizes for part in (gamma, beta))
    if rms_scaling or not alike or x.dtype not in _KINDS or not x.numel() or not _are(axes, last):
        return operator("layer_normalization").body(x, gamma, beta, axis, epsilon, rms_scaling)
    gamma, beta = (part if part is None else part.to(x.dtype) for part in (gamma, beta))
    return F.layer_norm(x, sizes, gamma, beta, EPSILON if epsilon is None else epsilon)


def _are(axes: list[int], last: list[int]) -> bool:
    """Whether these are an array's last axes, in their order."""
    return all(axis in (at, at - last[-1] - 1) for axis, at in zip(axes, last, strict=True))


TABLE: dict[str, Callable[..., Any]] = {
    "batch_normalization": _batch_normalization,
    "normalization_by_batch": _normalization_by_batch,
    "layer_normalization": _layer_normalization,
}
