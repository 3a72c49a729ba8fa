"""Convolutions with kernels of one element: each position's channels by one matrix."""

import math
from typing import Any

__all__ = ["is_product"]


def is_product(shape: Any, kernel: Any, strides: Any, padding: Any, groups: int) -> bool:
    """Whether a convolution is a product of matrices, and as such faster on a CPU.

    There the matrix has at least as many numbers as what it meets, or as what comes out: a convolution brings it into
    an order of its own before it begins, for fewer positions than that pays for (measured with oneDNN, by PyTorch and
    TensorFlow).

    Args:
        shape: `(batch, *space, channels)`; `None` for a size that is not known.
        kernel: `(*window, channels, filters)`, the kernel's shape.
        strides: one for each axis of space.
        padding: how many zeros are added before and after, for each axis of space.
        groups: how many groups of channels are kept apart.
    """
    sizes = (*shape, *kernel)
    if groups != 1 or any(map(any, padding)) or not all(isinstance(size, int) for size in sizes):
        return False
    is_one = set(kernel[:-2]) | set(strides) == {1}
    return is_one and 0 < math.prod(shape[:-1]) <= max(kernel[-2:])
