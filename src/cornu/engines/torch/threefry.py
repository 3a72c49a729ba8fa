"""Threefry 2x32 as one operator: in NumPy on a CPU, a block at a time; in tensor operations elsewhere.

Composed of ops it would be 120 calls, for keys too, which are two numbers.
"""

from typing import Any

import numpy as np
import torch

from cornu.engines.torch.arrays import broadcast_shape
from cornu.engines.torch.pieces import define, is_written_out
from cornu.ops.random import _PARITY, _ROTATIONS, BLOCK, host_rounds

__all__ = ["threefry2x32"]

_MASK = 0xFFFFFFFF


def _rounds(k1: Any, k2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
    """Twenty rounds on int64 tensors or Python's numbers."""
    keys = (k1, k2, k1 ^ k2 ^ _PARITY)
    x1, x2 = (x1 + keys[0]) & _MASK, (x2 + keys[1]) & _MASK
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x1 = (x1 + x2) & _MASK
            x2 = (((x2 << rotation) & _MASK) | (x2 >> (32 - rotation))) ^ x1
        x1 = (x1 + keys[(group + 1) % 3]) & _MASK
        x2 = (x2 + keys[(group + 2) % 3] + group + 1) & _MASK
    return x1, x2


def _on_host(k1: int, k2: int, x1: np.ndarray, x2: np.ndarray) -> None:
    spare = np.empty(min(BLOCK, x1.size), np.uint32)
    with np.errstate(over="ignore"):
        for start in range(0, x1.size, BLOCK):
            a, b = x1[start : start + BLOCK], x2[start : start + BLOCK]
            host_rounds(np.uint32(k1), np.uint32(k2), a, b, spare[: len(a)])


def _in_tensors(k1: Any, k2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
    a, b = _rounds(*(part.to(torch.int64) for part in (k1, k2, x1, x2)))
    return a.to(torch.uint32), b.to(torch.uint32)


def _whole_numbers(k1: Any, k2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
    """The operator's CPU kernel; all four have one shape, or the keys have none."""
    if k1.ndim or k1.device.type != "cpu" or x1.device.type != "cpu":
        return _in_tensors(k1, k2, x1, x2)
    if x1.numel() == 1:
        a, b = _rounds(k1.item(), k2.item(), x1.item(), x2.item())
        return torch.full(x1.shape, a, dtype=torch.uint32), torch.full(x1.shape, b, dtype=torch.uint32)
    a, b = (part.clone(memory_format=torch.contiguous_format) for part in (x1, x2))
    _on_host(k1.item(), k2.item(), a.numpy().reshape(-1), b.numpy().reshape(-1))
    return a, b


def _shapes(k1: Any, k2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
    return x1.new_empty(x1.shape), x2.new_empty(x1.shape)


_operator: Any = define(
    "threefry2x32(Tensor k1, Tensor k2, Tensor x1, Tensor x2) -> (Tensor, Tensor)",
    _whole_numbers,
    _shapes,
    direct=False,
)


def threefry2x32(k1: Any, k2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
    """Twenty rounds of Threefry 2x32 on counters, under a key; all uint32."""
    shape = broadcast_shape(k1.shape, k2.shape, x1.shape, x2.shape)
    if is_written_out():
        return _in_tensors(k1, k2, x1.expand(shape), x2.expand(shape))
    return _operator(k1, k2, x1.expand(shape), x2.expand(shape))
