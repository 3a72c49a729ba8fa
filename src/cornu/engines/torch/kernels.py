"""Kernels of convolutions, `(*window, channels, filters)`, in the order that PyTorch's convolutions read them.

Those of a CPU (oneDNN) copy a kernel that lies otherwise each time that they are called, forwards and backwards.
"""

from typing import Any

import torch

from cornu.engines.torch.arrays import in_trace

__all__ = ["back", "front", "suits"]

# Elements from which on a transposition of a matrix (1 thread) takes less time than a copy by PyTorch (all of them).
_LARGE = 300_000


def front(kernel: Any, beside: Any) -> Any:
    """A kernel as `(filters, channels, *window)`.

    Args:
        kernel: the kernel.
        beside: the array that it meets, `(batch, *space, channels)`.

    Returns:
        a view of it; for oneDNN, a copy that lies with channels last, as the array does. A trace without gradients has
        the view: what is computed beforehand there lies in yet another order.
    """
    is_followed = torch.is_grad_enabled() and kernel.requires_grad
    if not suits(kernel, beside) or (in_trace() and not is_followed):
        rank = kernel.ndim - 2
        return kernel.permute(rank + 1, rank, *range(rank))
    if kernel.numel() < _LARGE:
        return kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    # Flat first: the gradient then comes back flat, transposed as a matrix again.
    rows = kernel.reshape(-1).view(-1, kernel.shape[-1]).t().contiguous()
    return rows.view(kernel.shape[-1], *kernel.shape[:-1]).permute(0, 3, 1, 2)


def back(kernel: Any) -> Any:
    """Undo `front`."""
    return kernel.permute(*range(2, kernel.ndim), 1, 0)


def suits(kernel: Any, beside: Any) -> bool:
    """Whether oneDNN reads a kernel, and the array that it meets, with channels last."""
    fits = kernel.ndim == 4 and kernel.numel() > 0 and (kernel.dtype, kernel.device.type) == (torch.float32, "cpu")
    return bool(fits and kernel.is_contiguous() and beside.is_contiguous() and torch.backends.mkldnn.is_available())
