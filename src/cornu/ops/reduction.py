"""Reductions along axes, cumulative functions, sorting."""

from typing import Any

from cornu.core import dtypes
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import movement as _m
from cornu.ops._declare import Op, op, primitive, shape_of, to_float
from cornu.ops._rules import axes_of, axis_of, product

__all__ = [
    "all", "any", "argmax", "argmin", "argsort", "count_nonzero", "cumprod", "cumsum", "cumulative_max",
    "cumulative_prod", "cumulative_sum", "logsumexp", "max", "mean", "min", "prod", "sort", "std", "sum", "top_k",
    "var",
]  # fmt: skip

_REDUCTION_ARGS = """

    Args:
        x: array.
        axis: the axis or axes to reduce; `None` for all.
        keepdims: whether reduced axes stay, with size 1.

    Returns:
        array without the reduced axes.
    """


def _widened(dtype: str) -> str:
    """The dtype of a sum: small integers are widened, as in Keras."""
    return {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "uint32", "uint16": "uint32"}.get(dtype, dtype)


def _reduction(doc: str, result: Any = None, out: str | None = None, needs_elements: bool = False) -> Any:
    def wrap(named: Any) -> Op:
        def rule(x: Spec, axis=None, keepdims=False) -> Spec:
            axes = axes_of(axis, x.ndim)
            if needs_elements and 0 in [x.shape[a] for a in axes]:
                raise ArgumentError(f"{named.__name__} over an axis of size 0", "at least one element")
            return Spec(reduced_shape(x.shape, axes, keepdims), out or x.dtype)

        rule.__name__ = rule.__qualname__ = named.__name__
        rule.__module__ = named.__module__
        rule.__doc__ = doc + _REDUCTION_ARGS
        made: Op = primitive(rule, promote=True, result=result, family="reduction")
        return made

    return wrap


def reduced_shape(shape: tuple, axes: tuple[int, ...], keepdims: bool) -> tuple:
    """A shape after a reduction over these axes."""
    return tuple(1 if i in axes else size for i, size in enumerate(shape) if keepdims or i not in axes)


@_reduction("The sum of elements along axes.", _widened)
def sum(x): ...


@_reduction("The product of elements along axes.", _widened)
def prod(x): ...


@_reduction("The largest element along axes; equal ones share the gradient.", needs_elements=True)
def max(x): ...


@_reduction("The smallest element along axes; equal ones share the gradient.", needs_elements=True)
def min(x): ...


@_reduction("Whether any element along axes is true (nonzero).", lambda dtype: "bool")
def any(x): ...


@_reduction("Whether all elements along axes are true (nonzero).", lambda dtype: "bool")
def all(x): ...


@op(promote=True, result=to_float, family="reduction")
def mean(x: Spec, axis=None, keepdims=False) -> Spec:
    """The mean of elements along axes.

    Args:
        x: array.
        axis: the axis or axes to reduce; `None` for all.
        keepdims: whether reduced axes stay, with size 1.

    Returns:
        array without the reduced axes, of a float dtype.

    Example:
        >>> import cornu
        >>> float(cornu.ops.mean([1, 2, 6]))
        3.0
    """
    # Half-width floats are summed in float32, as Keras does.
    dtype = x.dtype if isinstance(x.dtype, str) else dtypes.standardize_dtype(x.dtype)
    wide = _e.cast(x, "float32") if dtypes.size_of(dtype) == 2 else x
    total = sum(wide, axis=axis, keepdims=keepdims)
    return _e.cast(_a.divide(total, count(x, axis)), dtype)


def count(x: Any, axis: Any) -> Any:
    """How many elements a reduction over these axes takes together: a number, or an array where it is unknown."""
    shape = shape_of(x)
    total = product(shape[a] for a in axes_of(axis, len(shape)))
    return _c.size_array(total) if isinstance(total, Dim) else total


@op(promote=True, result=to_float, family="reduction")
def var(x: Spec, axis=None, keepdims=False) -> Spec:
    """The variance (not the unbiased one) of elements along axes; arguments as for `mean`."""
    dtype = dtypes.standardize_dtype(x.dtype)
    wide = _e.cast(x, "float32") if dtypes.size_of(dtype) == 2 else x
    centred = _a.subtract(wide, mean(wide, axis=axis, keepdims=True))
    return _e.cast(mean(_a.multiply(centred, centred), axis=axis, keepdims=keepdims), dtype)


@op(promote=True, result=to_float, family="reduction")
def std(x: Spec, axis=None, keepdims=False) -> Spec:
    """The standard deviation of elements along axes; arguments as for `mean`."""
    return _e.sqrt(var(x, axis=axis, keepdims=keepdims))


@op(promote=True, result=to_float, family="reduction")
def logsumexp(x: Spec, axis=None, keepdims=False) -> Spec:
    """`log(sum(exp(x)))` without overflow; arguments as for `mean`."""
    peak = max(x, axis=axis, keepdims=True)
    peak = _e.stop_gradient(_e.where(_e.isfinite(peak), peak, 0.0))
    total = _e.log(sum(_e.exp(_a.subtract(x, peak)), axis=axis, keepdims=True))
    return _squeezed(_a.add(total, peak), axis, keepdims)


def _squeezed(x: Any, axis: Any, keepdims: bool) -> Any:
    return x if keepdims else _m.squeeze(x, axis=axes_of(axis, len(shape_of(x))))


@op(family="reduction")
def count_nonzero(x: Spec, axis=None) -> Spec:
    """How many elements along axes are not zero, as int32."""
    return sum(_e.cast(_a.not_equal(x, 0), "int32"), axis=axis)


def _extreme(doc: str) -> Any:
    def wrap(named: Any) -> Op:
        def rule(x: Spec, axis=None, keepdims=False) -> Spec:
            axes = axes_of(axis, x.ndim)
            if 0 in [x.shape[a] for a in axes]:
                raise ArgumentError(f"{named.__name__} over an axis of size 0", "at least one element")
            return Spec(reduced_shape(x.shape, axes, keepdims), "int32")

        rule.__name__ = rule.__qualname__ = named.__name__
        rule.__doc__ = (
            doc + "\n\n    Args:\n        x: array.\n        axis: one axis; `None` for the flattened array.\n"
        )
        rule.__doc__ += (
            "        keepdims: whether the axis stays, with size 1.\n\n    Returns:\n        int32 indices.\n    "
        )
        rule.__module__ = named.__module__
        made: Op = primitive(rule, family="reduction")
        return made

    return wrap


@_extreme("Where the largest element is (the first of equal ones).")
def argmax(x): ...


@_extreme("Where the smallest element is (the first of equal ones).")
def argmin(x): ...


def _not_bool(dtype: str) -> str:
    return "int32" if dtype == "bool" else dtype


def _cumulative(doc: str, result: Any = None) -> Any:
    def wrap(named: Any) -> Op:
        def rule(x: Spec, axis=0, reverse=False) -> Spec:
            axis_of(axis, x.ndim)
            return Spec(x.shape, x.dtype)

        rule.__name__ = rule.__qualname__ = named.__name__
        rule.__module__ = named.__module__
        rule.__doc__ = f"{doc}; `axis` is one axis, `reverse` counts from its end."
        made: Op = primitive(rule, promote=True, result=result, family="cumulative")
        return made

    return wrap


@_cumulative("The sum of all elements up to each", _not_bool)
def cumulative_sum(x): ...


@_cumulative("The product of all elements up to each", _not_bool)
def cumulative_prod(x): ...


@_cumulative("The largest of all elements up to each")
def cumulative_max(x): ...


def _flat_first(x: Any, axis: int | None) -> tuple[Any, int]:
    return (_m.reshape(x, (-1,)), 0) if axis is None else (x, axis)


@op(family="cumulative")
def cumsum(x: Spec, axis=None, dtype=None) -> Spec:
    """The sum of all elements up to each.

    Args:
        x: array.
        axis: one axis; `None` for the flattened array.
        dtype: dtype of the result; by default the array's (int32 for booleans).

    Returns:
        array of the same shape (flat if `axis` is `None`).
    """
    x, axis = _flat_first(x if dtype is None else _e.cast(x, dtype), axis)
    return cumulative_sum(x, axis=axis)


@op(family="cumulative")
def cumprod(x: Spec, axis=None, dtype=None) -> Spec:
    """The product of all elements up to each; arguments as for `cumsum`."""
    x, axis = _flat_first(x if dtype is None else _e.cast(x, dtype), axis)
    return cumulative_prod(x, axis=axis)


@primitive(family="sorting")
def sort(x: Spec, axis=-1) -> Spec:
    """The elements in rising order along one axis; NaN last.

    Args:
        x: array.
        axis: the axis to sort along.

    Returns:
        array of the same shape.
    """
    axis_of(axis, x.ndim)
    return Spec(x.shape, x.dtype)


@primitive(family="sorting")
def argsort(x: Spec, axis=-1) -> Spec:
    """The int32 indices that sort an array along one axis; equal elements keep their order."""
    axis_of(axis, x.ndim)
    return Spec(x.shape, "int32")


@primitive(family="sorting")
def top_k(x: Spec, k, sorted=True) -> tuple[Spec, Spec]:
    """The `k` largest elements along the last axis, falling; of equal ones, the first.

    Args:
        x: array.
        k: how many.
        sorted: kept for Keras's sake; the result is always sorted.

    Returns:
        the values, and their int32 indices.

    Raises:
        ArgumentError: if the axis holds fewer than `k`.
    """
    size = x.shape[-1] if x.ndim else 0
    if isinstance(size, int) and not 0 <= k <= size:
        raise ArgumentError(f"top_k of k={k} over {size} elements", f"k from 0 to {size}")
    shape = (*x.shape[:-1], k)
    return Spec(shape, x.dtype), Spec(shape, "int32")
