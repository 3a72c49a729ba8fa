"""What TensorFlow lacks or does otherwise, as tried with 2.21, and how the engine makes up for it.

- `tf.argmax` and `tf.nn.max_pool` pass over NaN, `tf.math.top_k` puts it anywhere: NaN is looked for beside them.
  `tf.nn.max_pool` gives the least finite float where all is negative infinity.
- `tf.gather` breaks off at positions outside on a CPU, and gives 0 on a GPU (it says so): they are masked.
- `tf.math.floordiv` of whole numbers breaks off at 0; shifts by more places than there are stay open (it says so).
- `tf.cast` from floats to integers that cannot hold them gives what the processor gives.
- `tf.convert_to_tensor` of a host array may share its memory: `tf.constant` copies.
- The gradients of `tf.maximum`, `tf.pow` at 0, `tf.math.cumprod` at 0 and `tf.pad`'s value are not the language's:
  `ruled` in the engine.
- TensorFlow makes `-x` of `0 - x`, for which there is no kernel of unsigned numbers.
- CPUs without oneDNN have no gradient of convolutions with groups or dilation: `windows` composes them.
- Kernels that are not there on a CPU: below.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["added_in_float32", "in_float32", "in_whole_numbers", "on_cpu"]


@functools.cache
def on_cpu() -> bool:
    """Whether there is no accelerator, whose units add half-width products in float32 by themselves."""
    return not tf.config.list_physical_devices("GPU") and not tf.config.list_physical_devices("TPU")


def in_float32(function: Callable[..., Any], always: bool = True) -> Callable[..., Any]:
    """Half-width floats computed in float32: no kernel takes them (`truncatemod`, `lgamma`), or it adds in 16 bits."""

    @functools.wraps(function)
    def run(*args: Any, **static: Any) -> Any:
        dtype = args[0].dtype
        if dtype.is_floating and dtype.size == 2 and (always or on_cpu()):
            return tf.cast(function(*(tf.cast(arg, tf.float32) for arg in args), **static), dtype)
        return function(*args, **static)

    return run


def added_in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Half-width floats added up in float32 where the processor would not do so by itself."""
    return in_float32(function, always=False)


# Products of these are computed in a wider dtype; what does not fit wraps around, as it would have.
_PRODUCTS = {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "int32", "uint16": "int32"}
_PRODUCTS |= {"uint32": "int64", "uint64": "int64"}


def in_whole_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Products of whole numbers for which there is no kernel; of booleans, whether any is true."""

    @functools.wraps(function)
    def run(x1: Any, x2: Any, **static: Any) -> Any:
        dtype = x1.dtype
        wide = _PRODUCTS.get(dtype.name)
        if wide is None:
            return function(x1, x2, **static)
        result = function(tf.cast(x1, wide), tf.cast(x2, wide), **static)
        return tf.not_equal(result, 0) if dtype == tf.bool else tf.cast(result, dtype)

    return run
