"""Arrays from nothing, and from host data."""

from typing import Any

import numpy as np

from cornu.core import context, dtypes
from cornu.core.dims import Dim, Size
from cornu.core.errors import ArgumentError, ShapeError, UnsupportedError
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops._declare import (
    all_ops,
    dtype_of,
    host_array,
    interpreter_of,
    op,
    operator,
    primitive,
    shape_of,
    size_of,
    value_masks,
)

__all__ = [
    "arange", "convert_to_numpy", "convert_to_tensor", "drop_mask", "dtype", "eye", "full", "full_like", "is_tensor",
    "linspace", "ones", "ones_like", "shape", "size_array", "zeros", "zeros_like",
]  # fmt: skip


def _sizes(shape: Any) -> tuple[Size, ...]:
    if isinstance(shape, (int, Dim)) or hasattr(shape, "__index__"):
        shape = (shape,)
    return tuple(size_of(size) for size in shape)


@primitive(family="creation")
def broadcast_to_shape(x: Spec, shape=()) -> Spec:
    """The array repeated to a shape it broadcasts to (`broadcast_to` with a shape that is checked)."""
    if len(x.shape) > len(shape):
        raise ShapeError(f"{x!r} cannot be broadcast to rank {len(shape)}", f"a shape of at least {len(x.shape)} axes")
    for have, want in zip(reversed(x.shape), reversed(shape), strict=False):
        if have != 1 and have != want and not isinstance(have, Dim) and not isinstance(want, Dim):
            raise ShapeError(f"{x!r} cannot be broadcast to {shape}", "sizes that are equal, or 1")
    return Spec(shape, x.dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array filled with one value.

    Args:
        shape: sizes, numbers or unknown (`ops.shape(x)[1]`).
        fill_value: a number, or an array that broadcasts.
        dtype: the dtype's name; by default the default float, as in Keras.

    Returns:
        array of that shape.
    """
    name = dtypes.standardize_dtype(dtype)
    plain = isinstance(fill_value, (int, float, bool, np.generic))
    fill_value = host_array(fill_value, name) if plain else _e.cast(fill_value, name)
    return all_ops["broadcast_to_shape"](fill_value, shape=_sizes(shape))


def zeros(shape: Any, dtype: Any = None) -> Any:
    """An array of zeros; `dtype` is the default float unless given."""
    return full(shape, 0, dtypes.standardize_dtype(dtype))


def ones(shape: Any, dtype: Any = None) -> Any:
    """An array of ones; `dtype` is the default float unless given."""
    return full(shape, 1, dtypes.standardize_dtype(dtype))


@op(family="elementwise")
def zeros_like(x: Spec, dtype=None) -> Spec:
    """Zeros in the shape and dtype of `x`, or in another dtype."""
    return zeros(shape_of(x), _own_dtype(x, dtype))


@op(family="elementwise")
def ones_like(x: Spec, dtype=None) -> Spec:
    """Ones in the shape and dtype of `x`, or in another dtype."""
    return ones(shape_of(x), _own_dtype(x, dtype))


@op(family="elementwise")
def full_like(x: Spec, fill_value, dtype=None) -> Spec:
    """One value in the shape and dtype of `x`, or in another dtype."""
    return full(shape_of(x), fill_value, _own_dtype(x, dtype))


def _own_dtype(x: Any, asked: Any) -> str:
    return dtype(x) if asked is None else dtypes.standardize_dtype(asked)


@primitive(family="creation")
def iota(size=0, dtype="int32") -> Spec:
    """The whole numbers from 0 up to (not including) `size`, which may be unknown."""
    return Spec((size,), dtype)


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """Evenly spaced numbers from `start` up to (not including) `stop`.

    Args:
        start: the first number; if it is alone, where to stop.
        stop: where to stop.
        step: the distance, by default 1.
        dtype: the dtype's name; by default int32 for whole numbers, else the default float.

    Returns:
        array `(count,)`. Bounds may be unknown sizes: `arange(ops.shape(x)[1])`.

    Example:
        >>> import cornu
        >>> cornu.ops.arange(1, 7, 2).tolist()
        [1, 3, 5]
    """
    start, stop = (0, start) if stop is None else (start, stop)
    step = 1 if step is None else step
    if isinstance(start, Dim) or isinstance(stop, Dim) or isinstance(step, Dim):
        if isinstance(step, Dim) or not hasattr(step, "__index__"):
            raise ArgumentError(f"arange over unknown sizes with step {step!r}", "a whole number")
        count = (stop - start + step - 1) // step if step != 1 else stop - start
        counted = all_ops["iota"](size=count, dtype=dtypes.standardize_dtype(dtype or "int32"))
        if step == 1 and not isinstance(start, Dim) and start == 0:
            return counted
        return _a.add(_a.multiply(counted, step), size_array(start) if isinstance(start, Dim) else start)
    if any(interpreter_of(bound) is not None for bound in (start, stop, step)):
        raise ArgumentError("arange got a bound that is an array", "numbers or sizes", "ops.shape(x)[i] is a size")
    values = np.arange(start, stop, step)
    if dtype is None:
        dtype = dtypes.floatx() if values.dtype.kind == "f" else "int32"
    return convert_to_tensor(values, dtype)


@primitive(family="creation")
def size_as_array(size=0) -> Spec:
    """A size that may be unknown, as an int32 scalar."""
    return Spec((), "int32")


def size_array(size: Size) -> Any:
    """A size that may be unknown, as an int32 scalar to compute with."""
    return all_ops["size_as_array"](size=size)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` evenly spaced numbers from `start` to `stop`.

    Args:
        start: the first number, or an array of them.
        stop: the last number, or an array of them.
        num: how many.
        endpoint: whether `stop` is among them.
        retstep: whether to give the distance too.
        dtype: the dtype's name; by default the default float.
        axis: where the new axis goes, if `start` or `stop` is an array.

    Returns:
        array `(num,)`, or with one more axis than `start` and `stop`; with `retstep`, a pair of it and the distance.
    """
    if num < 0:
        raise ArgumentError(f"linspace of {num} numbers", "0 or more")
    name = dtypes.standardize_dtype(dtype)
    gaps = num - 1 if endpoint else num
    if interpreter_of(start) is None and interpreter_of(stop) is None and not context.is_abstract():
        values, step = np.linspace(start, stop, num, endpoint=endpoint, retstep=True, axis=axis)
        values = convert_to_tensor(values, name)
        return (values, convert_to_tensor(step, name if name in dtypes.FLOATS else None)) if retstep else values
    wide = name if name in dtypes.FLOATS else dtypes.floatx()
    start, stop = _e.cast(start, wide), _e.cast(stop, wide)
    step = _a.divide(_a.subtract(stop, start), gaps) if gaps > 0 else _a.multiply(_a.subtract(stop, start), np.nan)
    shares = np.arange(num) / max(gaps, 1)
    # Both ends are met exactly: (1 - share) * start + share * stop.
    rank = len(shape_of(step))
    shares = shares.reshape((num,) + (1,) * rank).astype(dtypes.numpy_dtype(wide))
    values = _a.add(_a.multiply(start, 1 - shares), _a.multiply(stop, shares))
    values = _e.cast(all_ops["moveaxis"](values, 0, axis) if rank else values, name)
    return (values, step) if retstep else values


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """A matrix `(N, M)` with ones on its `k`-th diagonal."""
    return convert_to_tensor(np.eye(N, M, k), dtypes.standardize_dtype(dtype))


@primitive(family="elementwise")
def as_tensor(x: Spec) -> Spec:
    """The value as the interpreter's own array."""
    return Spec(x.shape, x.dtype)


@op(family="elementwise")
def drop_mask(x: Spec) -> Spec:
    """The value itself, without the mask that travels with it."""
    result = as_tensor(x)
    if isinstance(result, Spec):
        result.mask = None
    elif id(result) in value_masks:  # another object, for this one keeps its mask
        result = operator("choose")(True, result, result)
    return result


def convert_to_tensor(x: Any, dtype: Any = None, sparse: bool | None = None, ragged: bool | None = None) -> Any:
    """A value as an array of the engine in force.

    Args:
        x: array, variable, number or nested list of numbers.
        dtype: the dtype's name; by default the value's own (floats in lists: the default float).

    Returns:
        the engine's array.

    Raises:
        DtypeError: for text, objects and ragged lists.
        UnsupportedError: if sparse or ragged values are asked for.
    """
    if sparse or ragged:
        raise UnsupportedError("sparse and ragged tensors", "a dense array", "pad the rows and use a mask")
    if interpreter_of(x) is None and not context.is_abstract():
        x = host_array(x, None if dtype is None else dtypes.standardize_dtype(dtype))
    elif isinstance(x, (list, tuple)) and interpreter_of(x) is None and _outer_symbols(x):
        x = all_ops["stack"](list(x))
    x = all_ops["as_tensor"](x)
    return x if dtype is None else _e.cast(x, dtype)


def _outer_symbols(items: Any) -> bool:
    return any(interpreter_of(item) is not None for item in items)


def convert_to_numpy(x: Any) -> np.ndarray:
    """A value as a NumPy array.

    Args:
        x: an array of any engine, a variable, or host data.

    Returns:
        a NumPy array of the same shape and dtype.
    """
    if type(x) is np.ndarray and x.dtype.kind in "biuf":
        return x
    if isinstance(x, Variable):
        return x.numpy()
    owner = interpreter_of(x)
    if owner is None:
        return host_array(x)
    told = context.on_look.get()
    if told is not None:
        told()
    return owner.to_host(x)


def is_tensor(x: Any) -> bool:
    """Whether a value is an array of an engine, or stands for one."""
    return isinstance(x, np.ndarray) or interpreter_of(x) is not None


def shape(x: Any) -> tuple[Size, ...]:
    """The shape as a tuple; an unknown size is a symbol that can be computed with.

    Args:
        x: array.

    Example:
        >>> import cornu
        >>> x = cornu.Input((None, 8), name="x")
        >>> rows, time, _ = cornu.ops.shape(x)
        >>> cornu.ops.reshape(x, (rows, time * 2, -1)).shape
        (None, None, 4)
    """
    return shape_of(x)


def dtype(x: Any) -> str:
    """The name of an array's dtype."""
    return dtypes.promote(dtype_of(x))
