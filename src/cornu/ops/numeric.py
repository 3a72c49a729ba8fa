"""The everyday functions of NumPy that Keras offers, written in the ops of the other families."""

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes, tree
from cornu.core.dims import Dim, Size, shape_text
from cornu.core.errors import ArgumentError, DtypeError, ShapeError, UnsupportedError
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import creation as _c
from cornu.ops import elementwise as _e
from cornu.ops import indexing as _i
from cornu.ops import movement as _m
from cornu.ops import reduction as _r
from cornu.ops._declare import ENGINE_RANK, RECORDER_RANK, SPEC_RANK, interpreter_of, op, shape_of, to_float
from cornu.ops._rules import axes_of, axis_of, product

__all__ = [
    "absolute", "allclose", "amax", "amin", "append", "array", "array_split", "associative_scan", "average", "bincount",
    "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "cbrt", "cdist", "clip", "copy", "cross", "deg2rad",
    "diag", "diagflat", "diagonal", "diff", "digitize", "divide_no_nan", "dsplit", "dstack", "empty", "empty_like",
    "erfc", "exp2", "fabs", "fliplr", "flipud", "fmax", "fmin", "fmod", "heaviside", "hsplit", "hstack", "hypot",
    "identity",
    "in_top_k", "isclose", "isin", "isneginf", "isposinf", "kron", "ldexp", "log10", "log2", "logaddexp", "logaddexp2",
    "logspace", "median", "meshgrid", "nan_to_num", "nanmax", "nanmean", "nanmin", "nanprod", "nanstd", "nansum",
    "nanvar", "ndim", "nonzero", "norm", "percentile", "ptp", "quantile", "rad2deg", "reciprocal", "rot90", "round",
    "saturate_cast", "segment_max", "segment_min", "segment_prod", "segment_sum", "select", "signbit", "sinc", "size",
    "square", "trace", "trapezoid", "tri", "tril", "triu", "true_divide", "trunc", "unique", "unravel_index", "vander",
    "vsplit", "vstack",
]  # fmt: skip

# The same op under NumPy's other name.
absolute = _e.abs
true_divide = _a.divide
amax = _r.max
amin = _r.min
bitwise_invert = _e.bitwise_not
bitwise_left_shift = _a.left_shift
bitwise_right_shift = _a.right_shift

LN_2, LN_10 = float(np.log(2.0)), float(np.log(10.0))


def _counted(size: Size) -> Any:
    """A size as something to compute with: the number, or an int32 scalar where it is unknown."""
    return _c.size_array(size) if isinstance(size, Dim) else size


def _limits(dtype: str) -> tuple[Any, Any]:
    """The least and the largest finite number of a dtype."""
    if dtype == "bool":
        return 0, 1
    if dtype in dtypes.INTEGERS:
        whole = np.iinfo(dtype)
        return int(whole.min), int(whole.max)
    if dtype == "bfloat16":
        import ml_dtypes

        return float(ml_dtypes.finfo("bfloat16").min), float(ml_dtypes.finfo("bfloat16").max)
    return float(np.finfo(dtype).min), float(np.finfo(dtype).max)


def _scalar(value: Any, dtype: str) -> np.ndarray:
    """A host number in a dtype, so that it neither widens nor narrows its partner."""
    return np.asarray(value).astype(dtypes.numpy_dtype(dtype))


def _visible(x: Any) -> np.ndarray | None:
    """The values as a host array where they are there to be seen (not in a graph, a trace or a Spec)."""
    owner = interpreter_of(x)
    while owner is not None and SPEC_RANK < owner.rank < RECORDER_RANK:
        x = owner.plain(x)
        owner = interpreter_of(x)
    if owner is None or (owner.rank == ENGINE_RANK and not owner.is_tracing(x)):
        return _c.convert_to_numpy(x)
    return None


# ---------------------------------------------------------------- functions of one array


@op(family="elementwise")
def square(x: Spec) -> Spec:
    """`x * x` (int32 for booleans).

    Args:
        x: array.

    Returns:
        array of the same shape.
    """
    x = _e.cast(x, "int32") if _c.dtype(x) == "bool" else x
    return _a.multiply(x, x)


@op(promote=True, result=to_float, family="elementwise")
def reciprocal(x: Spec) -> Spec:
    """`1 / x`, a float whatever the dtype."""
    return _a.divide(1, x)


@op(family="elementwise")
def clip(x: Spec, x_min: Spec | None, x_max: Spec | None) -> Spec:
    """The elements moved into an interval.

    Args:
        x: array.
        x_min: the least value, an array that broadcasts; `None` for no bound.
        x_max: the largest value, likewise.

    Returns:
        array of the broadcast shape.

    Example:
        >>> import cornu
        >>> cornu.ops.clip([-1, 2, 9], 0, 5).tolist()
        [0, 2, 5]
    """
    if _c.dtype(x) == "bool":
        x = _e.cast(x, "int32")
    if x_min is not None:
        x = _a.maximum(x_min, x)
    return x if x_max is None else _a.minimum(x_max, x)


@op(promote=True, result=to_float, family="elementwise")
def log2(x: Spec) -> Spec:
    """The logarithm to base 2."""
    return _a.divide(_e.log(x), LN_2)


@op(promote=True, result=to_float, family="elementwise")
def log10(x: Spec) -> Spec:
    """The logarithm to base 10."""
    return _a.divide(_e.log(x), LN_10)


@op(promote=True, result=to_float, family="elementwise")
def exp2(x: Spec) -> Spec:
    """2 to the power `x`."""
    return _a.power(2, x)


@op(promote=True, result=to_float, family="elementwise")
def cbrt(x: Spec) -> Spec:
    """The cube root, also of negative numbers. Its gradient at 0 is infinite, as the root's slope is."""
    side = _e.choose(_a.less(x, 0), _c.full_like(x, -1), _c.ones_like(x))
    return _a.multiply(side, _a.power(_a.multiply(side, x), 1 / 3))


@op(family="elementwise")
def round(x: Spec, decimals=0) -> Spec:
    """The nearest number with so many decimals; a half goes to the even one.

    Args:
        x: array.
        decimals: digits after the point; below zero, digits before it.

    Returns:
        array of the same shape and dtype (int32 for booleans).
    """
    dtype = _c.dtype(x)
    if not decimals or (dtype not in dtypes.FLOATS and decimals > 0):
        return _e.round_half_even(x)
    # Half-width floats and integers are scaled in float32.
    wide = dtype if dtype in ("float32", "float64") else "float32"
    scaled = _e.cast(x, wide)
    if decimals > 0:
        scaled = _a.divide(_e.round_half_even(_a.multiply(scaled, 10.0**decimals)), 10.0**decimals)
    else:
        scaled = _a.multiply(_e.round_half_even(_a.divide(scaled, 10.0**-decimals)), 10.0**-decimals)
    return _e.cast(scaled, "int32" if dtype == "bool" else dtype)


@op(family="elementwise")
def trunc(x: Spec) -> Spec:
    """The whole number next to `x` on the side of 0."""
    if _c.dtype(x) not in dtypes.FLOATS:
        return _c.as_tensor(x)
    return _e.choose(_a.less(x, 0), _e.ceil(x), _e.floor(x))


@op(promote=True, result=to_float, family="elementwise")
def fabs(x: Spec) -> Spec:
    """The absolute value as a float."""
    return _e.abs(x)


@op(family="elementwise")
def nan_to_num(x: Spec, nan=0.0, posinf=None, neginf=None) -> Spec:
    """The array with NaN and infinities replaced.

    Args:
        x: array.
        nan: number instead of NaN.
        posinf: number instead of plus infinity; by default the dtype's largest.
        neginf: number instead of minus infinity; by default the dtype's least.

    Returns:
        array of the same shape and dtype.
    """
    dtype = _c.dtype(x)
    if dtype not in dtypes.FLOATS:
        return _c.as_tensor(x)
    least, largest = _limits(dtype)
    x = _e.where(_e.isnan(x), _scalar(nan, dtype), x)
    x = _e.where(_a.equal(x, np.inf), _scalar(largest if posinf is None else posinf, dtype), x)
    return _e.where(_a.equal(x, -np.inf), _scalar(least if neginf is None else neginf, dtype), x)


@op(family="elementwise")
def isposinf(x: Spec) -> Spec:
    """Whether `x` is plus infinity."""
    return _a.logical_and(_e.isinf(x), _a.greater(x, 0))


@op(family="elementwise")
def isneginf(x: Spec) -> Spec:
    """Whether `x` is minus infinity."""
    return _a.logical_and(_e.isinf(x), _a.less(x, 0))


@op(family="elementwise")
def signbit(x: Spec) -> Spec:
    """Whether `x` is below zero, minus zero included; NaN counts as not."""
    if _c.dtype(x) not in dtypes.FLOATS:
        return _a.less(x, 0)
    return _a.logical_or(_a.less(x, 0), _a.logical_and(_a.equal(x, 0), _a.less(_a.divide(1, x), 0)))


@op(promote=True, result=to_float, family="elementwise")
def rad2deg(x: Spec) -> Spec:
    """An angle in radians as degrees."""
    return _a.multiply(x, 180 / np.pi)


@op(promote=True, result=to_float, family="elementwise")
def deg2rad(x: Spec) -> Spec:
    """An angle in degrees as radians."""
    return _a.multiply(x, np.pi / 180)


@op(promote=True, result=to_float, family="elementwise")
def sinc(x: Spec) -> Spec:
    """`sin(pi x) / (pi x)`, 1 at 0; smooth to the second order there."""
    angle = _a.multiply(x, np.pi)
    near = _a.less(_e.abs(angle), 1e-3)
    safe = _e.choose(near, _c.ones_like(angle), angle)
    angle = _e.choose(near, angle, _c.zeros_like(angle))
    squared = _a.multiply(angle, angle)
    series = _a.add(1, _a.multiply(squared, _a.add(-1 / 6, _a.multiply(squared, 1 / 120))))
    return _e.choose(near, series, _a.divide(_e.sin(safe), safe))


# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969): exp(y**2) * erfc(y)
# in y from 0.46875 to 4, and from there on a correction to 1 / (y * sqrt(pi)) in 1 / y**2; highest power first.
_ERFC_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
_ERFC_LARGE = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)  # fmt: skip


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    total: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        total = _a.add(_a.multiply(total, x), coefficient)
    return total


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Any) -> Any:
    return _a.divide(_polynomial(coefficients[0], x), _polynomial(coefficients[1], x))


@op(promote=True, result=to_float, family="elementwise")
def erfc(x: Spec) -> Spec:
    """`1 - erf(x)`, exact also where it is tiny (rational approximations by Cody, 1969)."""
    dtype = _c.dtype(x)
    x = _e.cast(x, "float32") if dtypes.size_of(dtype) == 2 else x
    tail = _a.greater(x, 0.5)
    y = _e.choose(tail, x, _c.ones_like(x))
    y = _a.minimum(y, 30.0)  # from 27 on, 0 is the nearest float64
    far = _a.greater(y, 4.0)
    middle = _e.choose(far, _c.full_like(y, 4), y)
    large = _e.choose(far, y, _c.full_like(y, 4))
    inverse = _a.divide(1, _a.multiply(large, large))
    scaled = _e.choose(
        far,
        _a.divide(_a.subtract(float(np.pi**-0.5), _a.multiply(inverse, _ratio(_ERFC_LARGE, inverse))), large),
        _ratio(_ERFC_MIDDLE, middle),
    )
    # `near ** 2` is exact, so the exponential loses nothing to rounding.
    near = _e.stop_gradient(_a.divide(_e.floor(_a.multiply(y, 16.0)), 16.0))
    falling = _a.multiply(
        _e.exp(_e.negative(_a.multiply(near, near))),
        _e.exp(_e.negative(_a.multiply(_a.subtract(y, near), _a.add(y, near)))),
    )
    body = _a.subtract(1, _e.erf(_e.choose(tail, _c.zeros_like(x), x)))
    return _e.cast(_e.choose(tail, _a.multiply(falling, scaled), body), dtype)


@op(family="elementwise")
def saturate_cast(x: Spec, dtype=None) -> Spec:
    """The array in another dtype, values outside its range moved to the nearest end.

    Args:
        x: array.
        dtype: the dtype's name.

    Returns:
        array of the same shape.

    Example:
        >>> import cornu
        >>> cornu.ops.saturate_cast([-3.0, 300.0], "uint8").tolist()
        [0, 255]
    """
    dtype = dtypes.standardize_dtype(dtype)
    own = _c.dtype(x)
    if own == "bool" or own == dtype:
        return _e.cast(x, dtype)
    (own_least, own_largest), (least, largest) = _limits(own), _limits(dtype)
    if least > own_least:
        bound = _scalar(least, own)
        x = _e.where(_a.less(x, bound), bound, x)
    if largest < own_largest:
        bound = _scalar(largest, own)
        if own in dtypes.FLOATS and float(bound) > largest:  # rounded up: the next below still fits
            bound = np.nextafter(bound, _scalar(0, own)) if own != "bfloat16" else _scalar(largest * (1 - 2.0**-8), own)
            top = _scalar(largest, dtype)
            return _e.where(_a.greater(x, bound), top, _e.cast(_a.minimum(x, bound), dtype))
        x = _e.where(_a.greater(x, bound), bound, x)
    return _e.cast(x, dtype)


# ---------------------------------------------------------------- functions of two arrays


@op(promote=True, result=to_float, family="elementwise")
def logaddexp(x1: Spec, x2: Spec) -> Spec:
    """`log(exp(x1) + exp(x2))` without overflow; every derivative is exact, also where both are equal."""
    first = _a.greater_equal(x1, x2)
    high, low = _e.choose(first, x1, x2), _e.choose(first, x2, x1)
    both = _a.logical_and(_a.equal(x1, x2), _e.isinf(x1))
    gap = _a.subtract(_e.where(both, 0, low), _e.where(both, 0, high))
    return _a.add(high, _e.log1p(_e.exp(gap)))


@op(promote=True, result=to_float, family="elementwise")
def logaddexp2(x1: Spec, x2: Spec) -> Spec:
    """`log2(2 ** x1 + 2 ** x2)` without overflow."""
    return _a.divide(logaddexp(_a.multiply(x1, LN_2), _a.multiply(x2, LN_2)), LN_2)


@op(promote=True, result=to_float, family="elementwise")
def divide_no_nan(x1: Spec, x2: Spec) -> Spec:
    """`x1 / x2`, and 0 where `x2` is 0; the gradient is 0 there too."""
    empty = _a.equal(x2, 0)
    share = _a.divide(x1, _e.where(empty, 1, x2))
    return _e.where(empty, 0, share)


@op(promote=True, family="elementwise")
def fmax(x1: Spec, x2: Spec) -> Spec:
    """The larger of two; a number rather than NaN."""
    return _e.choose(_e.isnan(x1), x2, _e.choose(_e.isnan(x2), x1, _a.maximum(x1, x2)))


@op(promote=True, family="elementwise")
def fmin(x1: Spec, x2: Spec) -> Spec:
    """The smaller of two; a number rather than NaN."""
    return _e.choose(_e.isnan(x1), x2, _e.choose(_e.isnan(x2), x1, _a.minimum(x1, x2)))


@op(promote=True, family="elementwise")
def fmod(x1: Spec, x2: Spec) -> Spec:
    """The rest of `x1 / x2`, with the sign of `x1`."""
    rest = _a.mod(x1, x2)
    other = _a.logical_and(_a.not_equal(rest, 0), _a.not_equal(_a.less(x1, 0), _a.less(x2, 0)))
    return _e.choose(other, _a.subtract(rest, x2), rest)


@op(promote=True, result=to_float, family="elementwise")
def hypot(x1: Spec, x2: Spec) -> Spec:
    """`sqrt(x1 ** 2 + x2 ** 2)` without overflow; its gradient at 0 is 0."""
    a, b = _e.abs(x1), _e.abs(x2)
    first = _a.greater_equal(a, b)
    high, low = _e.choose(first, a, b), _e.choose(first, b, a)
    plain = _a.logical_and(_a.not_equal(high, 0), _e.isfinite(high))
    share = _a.divide(_e.where(plain, low, 0), _e.where(plain, high, 1))
    length = _a.multiply(high, _e.sqrt(_a.add(1, _a.multiply(share, share))))
    endless = _a.logical_or(_e.isinf(a), _e.isinf(b))
    return _e.where(endless, np.inf, _e.where(_a.logical_or(_e.isnan(a), _e.isnan(b)), np.nan, length))


@op(promote=True, result=to_float, family="elementwise")
def heaviside(x1: Spec, x2: Spec) -> Spec:
    """0 where `x1` is below 0, 1 where it is above, `x2` where it is 0."""
    step = _e.where(_a.less(x1, 0), 0, _e.where(_a.greater(x1, 0), 1, x2))
    return _e.choose(_e.isnan(x1), x1, step)


@op(family="elementwise")
def ldexp(x1: Spec, x2: Spec) -> Spec:
    """`x1 * 2 ** x2`, for whole numbers `x2`."""
    if _c.dtype(x2) in dtypes.FLOATS:
        raise DtypeError(f"ldexp got exponents of dtype {_c.dtype(x2)}", "integers", "cornu.ops.cast(x2, 'int32')")
    dtype = to_float(_c.dtype(x1))
    # In two halves, so that the power itself does not leave the range before the product does.
    half = _a.floor_divide(x2, 2)
    first, second = (_a.power(_scalar(2, dtype), _e.cast(part, dtype)) for part in (half, _a.subtract(x2, half)))
    return _a.multiply(_a.multiply(_e.cast(x1, dtype), first), second)


@op(promote=True, family="elementwise")
def isclose(x1: Spec, x2: Spec, rtol=1e-5, atol=1e-8, equal_nan=False) -> Spec:
    """Whether two are equal but for `atol + rtol * abs(x2)`.

    Args:
        x1: array.
        x2: array that broadcasts with `x1`.
        rtol: tolerance beside `x2`.
        atol: tolerance beside 0.
        equal_nan: whether NaN equals NaN.

    Returns:
        boolean array of the broadcast shape.
    """
    if _c.dtype(x1) not in dtypes.FLOATS and _c.dtype(x2) not in dtypes.FLOATS:
        x1, x2 = _e.cast(x1, to_float(_c.dtype(x1))), _e.cast(x2, to_float(_c.dtype(x2)))
    near = _a.less_equal(_e.abs(_a.subtract(x1, x2)), _a.add(atol, _a.multiply(rtol, _e.abs(x2))))
    near = _a.logical_and(near, _e.isfinite(x2))
    near = _a.logical_or(near, _a.equal(x1, x2))
    return _a.logical_or(near, _a.logical_and(_e.isnan(x1), _e.isnan(x2))) if equal_nan else near


@op(family="reduction")
def allclose(x1: Spec, x2: Spec, rtol=1e-5, atol=1e-8, equal_nan=False) -> Spec:
    """Whether all elements are close, as a boolean scalar; arguments as for `isclose`."""
    return _r.all(isclose(x1, x2, rtol=rtol, atol=atol, equal_nan=equal_nan))


@op(family="indexing")
def isin(x1: Spec, x2: Spec, assume_unique=False, invert=False) -> Spec:
    """Whether each element of `x1` is among those of `x2`.

    Args:
        x1: array.
        x2: array, taken flat.
        assume_unique: kept for Keras's sake.
        invert: whether to ask the opposite.

    Returns:
        boolean array in the shape of `x1`.
    """
    found = _r.any(_a.equal(_m.expand_dims(x1, -1), _m.ravel(x2)), axis=-1)
    return _e.logical_not(found) if invert else found


@op(family="indexing")
def select(condlist: list[Spec], choicelist: list[Spec], default: Spec | None = 0) -> Any:  # type: ignore[assignment]
    """For each element, the choice whose condition is the first to hold.

    Args:
        condlist: boolean arrays.
        choicelist: an array for each condition.
        default: what is taken where no condition holds.

    Returns:
        array of the shape to which all broadcast, in the common dtype.

    Raises:
        ArgumentError: if there are not as many choices as conditions.

    Example:
        >>> import cornu
        >>> x = cornu.ops.arange(4)
        >>> cornu.ops.select([x < 1, x > 2], [x + 10, x * 10], -1).tolist()
        [10, -1, -1, 30]
    """
    if len(condlist) != len(choicelist) or not condlist:
        raise ArgumentError(
            f"select got {len(condlist)} conditions and {len(choicelist)} choices", "as many of each, at least one"
        )
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = _e.where(condition, choice, result)
    return result


@op(family="contraction")
def kron(x1: Spec, x2: Spec) -> Spec:
    """Kronecker's product: each element of `x1` replaced by its product with all of `x2`."""
    sizes_1, sizes_2 = list(shape_of(x1)), list(shape_of(x2))
    rank = builtins.max(len(sizes_1), len(sizes_2))
    sizes_1, sizes_2 = [1] * (rank - len(sizes_1)) + sizes_1, [1] * (rank - len(sizes_2)) + sizes_2
    left = _m.reshape_to(x1, shape=tuple(s for size in sizes_1 for s in (size, 1)))
    right = _m.reshape_to(x2, shape=tuple(s for size in sizes_2 for s in (1, size)))
    joined = tuple(a * b for a, b in zip(sizes_1, sizes_2, strict=True))
    return _m.reshape_to(_a.multiply(left, right), shape=joined)


@op(promote=True, family="contraction")
def cross(x1: Spec, x2: Spec, axisa=-1, axisb=-1, axisc=-1, axis=None) -> Spec:
    """The cross product of vectors of 2 or 3 components.

    Args:
        x1: array with components on `axisa`.
        x2: array with components on `axisb`.
        axisa: an axis.
        axisb: an axis.
        axisc: the axis of the result's components.
        axis: one axis instead of all three.

    Returns:
        array with 3 components; without their axis if both arguments have 2.

    Raises:
        ShapeError: for other numbers of components.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    x1, x2 = _m.moveaxis(x1, axisa, -1), _m.moveaxis(x2, axisb, -1)
    counts = shape_of(x1)[-1], shape_of(x2)[-1]
    if any(isinstance(n, Dim) or n not in (2, 3) for n in counts):
        raise ShapeError(f"cross of vectors of {shape_text(counts)} components", "2 or 3")
    a, b = ([_i.get_item(x, (Ellipsis, i)) for i in range(n)] for x, n in zip((x1, x2), counts, strict=True))

    def minor(i: int, j: int) -> Any:
        # a[i] * b[j] - a[j] * b[i], components that are not there being 0
        if i < len(a) and j < len(b) and j < len(a) and i < len(b):
            return _a.subtract(_a.multiply(a[i], b[j]), _a.multiply(a[j], b[i]))
        if i < len(a) and j < len(b):
            return _a.multiply(a[i], b[j])
        return _e.negative(_a.multiply(a[j], b[i]))

    if counts == (2, 2):
        return minor(0, 1)
    return _m.moveaxis(_m.stack([minor(1, 2), minor(2, 0), minor(0, 1)], axis=-1), -1, axisc)


@op(promote=True, result=to_float, family="contraction")
def cdist(x: Spec, y: Spec) -> Spec:
    """The distances of all vectors of `x` `(..., n, k)` to all of `y` `(..., m, k)`, as `(..., n, m)`."""
    if len(shape_of(x)) < 2 or len(shape_of(y)) < 2:
        raise ShapeError(f"cdist of {shape_text(shape_of(x))} and {shape_text(shape_of(y))}", "at least two axes each")
    return norm(_a.subtract(_m.expand_dims(x, -2), _m.expand_dims(y, -3)), axis=-1)


# ---------------------------------------------------------------- reductions


@op(promote=True, result=to_float, family="reduction")
def average(x: Spec, axis=None, weights: Spec | None = None) -> Spec:
    """The weighted mean along axes.

    Args:
        x: array.
        axis: the axis or axes; `None` for all.
        weights: array of the shape of `x`, or of one axis's size; `None` for equal ones.

    Returns:
        array without those axes.
    """
    if weights is None:
        return _r.mean(x, axis=axis)
    sizes, given = shape_of(x), shape_of(weights)
    if len(given) != len(sizes):
        if len(given) != 1 or axis is None or not hasattr(axis, "__index__"):
            raise ShapeError(
                f"average of {shape_text(sizes)} with weights {shape_text(given)}",
                "weights of the same shape, or of one axis's size with axis given",
            )
        at = axis_of(axis, len(sizes))
        weights = _m.reshape_to(weights, shape=tuple(given[0] if i == at else 1 for i in range(len(sizes))))
    weights = _m.broadcast_to(weights, sizes)
    return _a.divide(_r.sum(_a.multiply(x, weights), axis=axis), _r.sum(weights, axis=axis))


@op(family="reduction")
def ptp(x: Spec, axis=None, keepdims=False) -> Spec:
    """The largest less the smallest element along axes."""
    return _a.subtract(_r.max(x, axis=axis, keepdims=keepdims), _r.min(x, axis=axis, keepdims=keepdims))


_METHODS = ("linear", "lower", "higher", "nearest", "midpoint")


@op(promote=("x",), result=to_float, family="reduction")
def quantile(x: Spec, q: Spec, axis=None, method="linear", keepdims=False) -> Spec:
    """The values below which given shares of the elements lie.

    Args:
        x: array.
        q: shares from 0 to 1, a scalar or an array `(n,)`.
        axis: the axis or axes; `None` for all.
        method: what to do between two elements: `"linear"`, `"lower"`, `"higher"`, `"nearest"` or `"midpoint"`.
        keepdims: whether reduced axes stay, with size 1.

    Returns:
        array without the reduced axes; with the axis of `q`, if it has one, in front. NaN where an element is NaN.

    Example:
        >>> import cornu
        >>> float(cornu.ops.quantile([1.0, 2.0, 3.0, 4.0], 0.5))
        2.5
    """
    if method not in _METHODS:
        raise ArgumentError(f"quantile got method={method!r}", f"one of {', '.join(_METHODS)}")
    if len(shape_of(q)) > 1:
        raise ShapeError(f"quantile got q of shape {shape_text(shape_of(q))}", "a scalar or one axis")
    sizes = shape_of(x)
    axes = axes_of(axis, len(sizes))
    kept = tuple(i for i in range(len(sizes)) if i not in axes)
    count = product(sizes[i] for i in axes)
    if not isinstance(count, Dim) and count == 0:
        raise ArgumentError("quantile over an axis of size 0", "at least one element")
    rest = tuple(sizes[i] for i in kept)
    ordered = _r.sort(_m.reshape_to(_m.permute(x, axes=kept + axes), shape=(*rest, count)), axis=-1)
    dtype = _c.dtype(x)
    wide = "float64" if dtype == "float64" else "float32"
    place = _a.multiply(_e.cast(q, wide), _e.cast(_a.subtract(_counted(count), 1), wide))
    low, high = _e.floor(place), _e.ceil(place)
    if method == "nearest":
        low = high = _e.round_half_even(place)
    elif method == "lower":
        high = low
    elif method == "higher":
        low = high
    at = len(kept)
    below = _i.take(ordered, _e.cast(low, "int32"), axis=at)
    if method in ("lower", "higher", "nearest"):
        found = below
    else:
        above = _i.take(ordered, _e.cast(high, "int32"), axis=at)
        weight = _e.cast(_a.subtract(place, low), dtype) if method == "linear" else _scalar(0.5, dtype)
        found = _a.add(_a.multiply(below, _a.subtract(1, weight)), _a.multiply(above, weight))
    spoilt = _r.any(_e.isnan(ordered), axis=-1)
    if shape_of(q):
        found, spoilt = _m.moveaxis(found, -1, 0), _m.expand_dims(spoilt, 0)
    found = _e.where(spoilt, np.nan, found)
    if keepdims:
        shape = tuple(1 if i in axes else size for i, size in enumerate(sizes))
        found = _m.reshape_to(found, shape=(*shape_of(q), *shape))
    return found


@op(family="reduction")
def percentile(x: Spec, q: Spec, axis=None, method="linear", keepdims=False) -> Spec:
    """`quantile` with shares from 0 to 100."""
    return quantile(x, _a.divide(q, 100), axis=axis, method=method, keepdims=keepdims)


@op(family="reduction")
def median(x: Spec, axis=None, keepdims=False) -> Spec:
    """The middle element along axes; between the middle two of an even number."""
    return quantile(x, 0.5, axis=axis, method="midpoint", keepdims=keepdims)


@op(family="reduction")
def nansum(x: Spec, axis=None, keepdims=False) -> Spec:
    """The sum of elements along axes, NaN left out."""
    return _r.sum(_e.choose(_e.isnan(x), _c.zeros_like(x), x), axis=axis, keepdims=keepdims)


@op(family="reduction")
def nanprod(x: Spec, axis=None, keepdims=False) -> Spec:
    """The product of elements along axes, NaN left out."""
    return _r.prod(_e.choose(_e.isnan(x), _c.ones_like(x), x), axis=axis, keepdims=keepdims)


@op(promote=True, result=to_float, family="reduction")
def nanmean(x: Spec, axis=None, keepdims=False) -> Spec:
    """The mean of elements along axes, NaN left out; NaN where nothing is left."""
    dtype = _c.dtype(x)
    wide = _e.cast(x, "float32") if dtypes.size_of(dtype) == 2 else x
    there = _e.cast(_e.logical_not(_e.isnan(x)), _c.dtype(wide))
    count = _r.sum(there, axis=axis, keepdims=keepdims)
    return _e.cast(_a.divide(nansum(wide, axis=axis, keepdims=keepdims), count), dtype)


@op(promote=True, result=to_float, family="reduction")
def nanvar(x: Spec, axis=None, keepdims=False) -> Spec:
    """The variance of elements along axes, NaN left out; NaN where nothing is left."""
    dtype = _c.dtype(x)
    wide = _e.cast(x, "float32") if dtypes.size_of(dtype) == 2 else x
    centred = _a.subtract(wide, nanmean(wide, axis=axis, keepdims=True))
    return _e.cast(nanmean(_a.multiply(centred, centred), axis=axis, keepdims=keepdims), dtype)


@op(promote=True, result=to_float, family="reduction")
def nanstd(x: Spec, axis=None, keepdims=False) -> Spec:
    """The standard deviation of elements along axes, NaN left out; NaN where nothing is left."""
    return _e.sqrt(nanvar(x, axis=axis, keepdims=keepdims))


def _nan_extreme(x: Any, axis: Any, keepdims: bool, reduce: Any, loser: float) -> Any:
    if _c.dtype(x) not in dtypes.FLOATS:
        return reduce(x, axis=axis, keepdims=keepdims)
    gone = _e.isnan(x)
    found = reduce(_e.where(gone, loser, x), axis=axis, keepdims=keepdims)
    return _e.where(_r.all(gone, axis=axis, keepdims=keepdims), np.nan, found)


@op(family="reduction")
def nanmax(x: Spec, axis=None, keepdims=False) -> Spec:
    """The largest element along axes, NaN left out; NaN where nothing is left."""
    return _nan_extreme(x, axis, keepdims, _r.max, -np.inf)


@op(family="reduction")
def nanmin(x: Spec, axis=None, keepdims=False) -> Spec:
    """The smallest element along axes, NaN left out; NaN where nothing is left."""
    return _nan_extreme(x, axis, keepdims, _r.min, np.inf)


@op(promote=True, result=to_float, family="reduction")
def norm(x: Spec, ord=None, axis=None, keepdims=False) -> Spec:
    """The norm of vectors or matrices; its gradient at 0 is 0.

    Args:
        x: array.
        ord: for vectors (one axis): `None` or 2 (Euclid's), 1, `inf`, `-inf`, 0 (how many are not 0), or any number;
            for matrices (two axes): `None` or `"fro"`, 1, -1, `inf`, `-inf`.
        axis: one axis, or a pair; `None` for all of a vector or matrix, and for any array if `ord` is `None`.
        keepdims: whether reduced axes stay, with size 1.

    Returns:
        array without the axes.

    Raises:
        UnsupportedError: for norms of matrices that need singular values.

    Example:
        >>> import cornu
        >>> float(cornu.ops.norm([3.0, 4.0]))
        5.0
    """
    rank = len(shape_of(x))
    if axis is None and ord is None:
        return _root(_r.sum(_a.multiply(x, x), axis=None, keepdims=keepdims))
    axes = tuple(range(rank)) if axis is None else (axis,) if hasattr(axis, "__index__") else tuple(axis)
    axes = tuple(axis_of(a, rank) for a in axes)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes[0], keepdims)
    if len(axes) != 2:
        raise ArgumentError(f"norm over {len(axes)} axes with ord={ord!r}", "one axis or two")
    if ord in (None, "fro"):
        return _root(_r.sum(_a.multiply(x, x), axis=axes, keepdims=keepdims))
    if ord in (1, -1, np.inf, -np.inf):
        rows, columns = axes
        along, over = (rows, columns) if ord in (1, -1) else (columns, rows)
        reduce = _r.max if ord > 0 else _r.min
        found = reduce(_r.sum(_e.abs(x), axis=along, keepdims=True), axis=over, keepdims=True)
        return found if keepdims else _m.squeeze(found, axes)
    if ord in (2, -2, "nuc"):
        raise UnsupportedError(
            f"norm of matrices with ord={ord!r}, which needs singular values", "'fro', 1, -1, inf, -inf"
        )
    raise ArgumentError(f"norm of matrices with ord={ord!r}", "None, 'fro', 1, -1, inf or -inf")


def _root(x: Any, exponent: float | None = None) -> Any:
    """The square root (or a power), whose gradient at 0 is 0."""
    empty = _a.equal(x, 0)
    safe = _e.where(empty, 1, x)
    return _e.where(empty, 0, _e.sqrt(safe) if exponent is None else _a.power(safe, exponent))


def _vector_norm(x: Any, ord: Any, axis: int, keepdims: bool) -> Any:
    if ord in (None, 2):
        return _root(_r.sum(_a.multiply(x, x), axis=axis, keepdims=keepdims))
    if isinstance(ord, str):
        raise ArgumentError(f"norm of vectors with ord={ord!r}", "a number or None")
    size = _e.abs(x)
    if ord == np.inf:
        return _r.max(size, axis=axis, keepdims=keepdims)
    if ord == -np.inf:
        return _r.min(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return _r.sum(_e.cast(_a.not_equal(x, 0), _c.dtype(x)), axis=axis, keepdims=keepdims)
    if ord == 1:
        return _r.sum(size, axis=axis, keepdims=keepdims)
    powers = _root(size, ord) if ord > 0 else _a.power(size, ord)
    return _root(_r.sum(powers, axis=axis, keepdims=keepdims), 1 / ord)


@op(family="reduction")
def trapezoid(y: Spec, x: Spec | None = None, dx=1.0, axis=-1) -> Spec:
    """The integral along an axis by the trapezoidal rule, over places `x` or steps `dx`."""
    y = _e.cast(y, to_float(_c.dtype(y)))
    at = axis_of(axis, len(shape_of(y)))
    y = _m.moveaxis(y, at, -1)
    if x is None:
        steps: Any = dx
    else:
        steps = diff(_m.moveaxis(x, at, -1) if len(shape_of(x)) > 1 else x, axis=-1)
    heights = _a.add(_i.get_item(y, (Ellipsis, slice(1, None))), _i.get_item(y, (Ellipsis, slice(None, -1))))
    return _a.multiply(_r.sum(_a.multiply(heights, steps), axis=-1), 0.5)


# ---------------------------------------------------------------- matrices and their diagonals


def _offsets(rows: Size, columns: Size) -> Any:
    """For each place of a matrix, its column less its row."""
    return _a.subtract(_m.expand_dims(_c.arange(columns), 0), _m.expand_dims(_c.arange(rows), 1))


def _two_axes(x: Any, name: str) -> None:
    if len(shape_of(x)) < 2:
        raise ShapeError(f"{name} of an array of shape {shape_text(shape_of(x))}", "at least two axes")


@op(family="movement")
def tril(x: Spec, k=0) -> Spec:
    """Matrices with zeros above their `k`-th diagonal."""
    _two_axes(x, "tril")
    return _e.choose(_a.less_equal(_offsets(*shape_of(x)[-2:]), k), x, _c.zeros_like(x))


@op(family="movement")
def triu(x: Spec, k=0) -> Spec:
    """Matrices with zeros below their `k`-th diagonal."""
    _two_axes(x, "triu")
    return _e.choose(_a.greater_equal(_offsets(*shape_of(x)[-2:]), k), x, _c.zeros_like(x))


def tri(N: Size, M: Size | None = None, k: int = 0, dtype: Any = None) -> Any:
    """A matrix `(N, M)` with ones at and below its `k`-th diagonal."""
    return _e.cast(_a.less_equal(_offsets(N, N if M is None else M), k), dtypes.standardize_dtype(dtype))


def identity(n: int, dtype: Any = None) -> Any:
    """The identity matrix `(n, n)`."""
    return _c.eye(n, dtype=dtype)


@op(family="movement")
def diagonal(x: Spec, offset=0, axis1=0, axis2=1) -> Spec:
    """The diagonals of matrices.

    Args:
        x: array.
        offset: which diagonal; above 0, above the main one.
        axis1: the axis of the rows.
        axis2: the axis of the columns.

    Returns:
        array without the two axes, the diagonal's elements last.
    """
    _two_axes(x, "diagonal")
    rank = len(shape_of(x))
    first, second = axis_of(axis1, rank), axis_of(axis2, rank)
    if first == second:
        raise ArgumentError(f"diagonal of axes {axis1} and {axis2}", "two different axes")
    x = _m.moveaxis(x, (first, second), (-2, -1))
    *rest, rows, columns = shape_of(x)
    down, right = builtins.max(-offset, 0), builtins.max(offset, 0)
    count = Dim.operation("max", Dim.operation("min", rows - down, columns - right), 0)
    flat = _m.reshape_to(x, shape=(*rest, rows * columns))
    places = _a.multiply(_c.arange(count), _counted(columns + 1))
    places = _a.add(places, _a.add(_a.multiply(_counted(columns), down), right))
    return _i.gather(flat, _e.cast(places, "int32"), axis=rank - 2)


@op(family="movement")
def diag(x: Spec, k=0) -> Spec:
    """A vector as the `k`-th diagonal of a square matrix of zeros, or the `k`-th diagonal of a matrix."""
    sizes = shape_of(x)
    if len(sizes) == 2:
        return diagonal(x, offset=k)
    if len(sizes) != 1:
        raise ShapeError(f"diag of an array of shape {shape_text(sizes)}", "one axis or two")
    size = sizes[0] + builtins.abs(k)
    padded = _m.expand_dims(_m.pad(x, ((0, builtins.abs(k)),)), 1 if k >= 0 else 0)
    spread = _c.broadcast_to_shape(padded, shape=(size, size))
    return _e.choose(_a.equal(_offsets(size, size), k), spread, _c.zeros_like(spread))


@op(family="movement")
def diagflat(x: Spec, k=0) -> Spec:
    """All elements as the `k`-th diagonal of a square matrix of zeros."""
    return diag(_m.ravel(x), k=k)


@op(family="reduction")
def trace(x: Spec, offset=0, axis1=0, axis2=1) -> Spec:
    """The sum of the elements of a diagonal; arguments as for `diagonal`."""
    return _r.sum(diagonal(x, offset=offset, axis1=axis1, axis2=axis2), axis=-1)


@op(family="movement")
def vander(x: Spec, N=None, increasing=False) -> Spec:
    """Vandermonde's matrix `(n, N)`: the powers of a vector's elements, falling unless `increasing`."""
    if len(shape_of(x)) != 1:
        raise ShapeError(f"vander of an array of shape {shape_text(shape_of(x))}", "one axis")
    count = shape_of(x)[0] if N is None else N
    powers = _e.cast(_c.arange(count), _c.dtype(x))
    return _a.power(_m.expand_dims(x, 1), powers if increasing else _m.flip(powers, 0))


# ---------------------------------------------------------------- joining, cutting, turning


@op(family="movement")
def append(x1: Spec, x2: Spec, axis=None) -> Spec:
    """`x2` put after `x1` along an axis (`None`: both flat)."""
    return _m.concatenate([_m.ravel(x1), _m.ravel(x2)]) if axis is None else _m.concatenate([x1, x2], axis=axis)


def _at_least(x: Any, rank: int) -> Any:
    sizes = shape_of(x)
    if len(sizes) >= rank:
        return x
    shape = {1: (1, *sizes), 2: (1, *sizes)[-2:] if sizes else (1, 1)}.get(rank)
    if shape is None:  # three axes: a vector lies along the second
        shape = (1, 1, 1) if not sizes else (1, *sizes, 1) if len(sizes) == 1 else (*sizes, 1)
    return _m.reshape_to(x, shape=shape)


@op(family="movement")
def hstack(xs: list[Spec]) -> Spec:
    """Arrays joined along their second axis (vectors: along their only one)."""
    parts = [_at_least(x, 1) for x in xs]
    if not parts:
        raise ArgumentError("hstack got an empty list", "at least one array")
    return _m.concatenate(parts, axis=0 if len(shape_of(parts[0])) == 1 else 1)


@op(family="movement")
def vstack(xs: list[Spec]) -> Spec:
    """Arrays joined along their first axis; vectors are rows."""
    return _m.concatenate([_at_least(x, 2) for x in xs], axis=0)


@op(family="movement")
def dstack(xs: list[Spec]) -> Spec:
    """Arrays joined along their third axis; vectors `(n,)` count as `(1, n, 1)`."""
    return _m.concatenate([_at_least(x, 3) for x in xs], axis=2)


@op(family="movement")
def array_split(x: Spec, indices_or_sections=1, axis=0) -> list:
    """The array cut along an axis into sections whose sizes differ by one at most, or before given indices."""
    if not hasattr(indices_or_sections, "__index__"):
        return _m.split(x, indices_or_sections, axis=axis)
    size, parts = shape_of(x)[axis_of(axis, len(shape_of(x)))], int(indices_or_sections)
    if isinstance(size, Dim):
        raise UnsupportedError(
            "array_split of an axis of unknown size", "a known size", "ops.split cuts into equal parts"
        )
    if parts < 1:
        raise ArgumentError(f"array_split into {parts} sections", "at least one")
    each, more = divmod(size, parts)
    return _m.split(x, list(np.cumsum([each + 1] * more + [each] * (parts - more))[:-1].tolist()), axis=axis)


@op(family="movement")
def hsplit(x: Spec, indices_or_sections=1) -> list:
    """The array cut along its second axis (a vector: along its only one); arguments as for `split`."""
    return _m.split(x, indices_or_sections, axis=0 if len(shape_of(x)) == 1 else 1)


@op(family="movement")
def vsplit(x: Spec, indices_or_sections=1) -> list:
    """The array cut along its first axis; arguments as for `split`."""
    return _m.split(x, indices_or_sections, axis=0)


@op(family="movement")
def dsplit(x: Spec, indices_or_sections=1) -> list:
    """The array cut along its third axis; arguments as for `split`."""
    return _m.split(x, indices_or_sections, axis=2)


@op(family="movement")
def fliplr(x: Spec) -> Spec:
    """The elements in reverse order along the second axis."""
    _two_axes(x, "fliplr")
    return _m.flip(x, 1)


@op(family="movement")
def flipud(x: Spec) -> Spec:
    """The elements in reverse order along the first axis."""
    return _m.flip(x, 0)


@op(family="movement")
def rot90(array: Spec, k=1, axes=(0, 1)) -> Spec:
    """The array turned by `k` quarters in the plane of two axes, from the first towards the second."""
    _two_axes(array, "rot90")
    first, second = (axis_of(a, len(shape_of(array))) for a in axes)
    if first == second:
        raise ArgumentError(f"rot90 in the plane of axes {axes}", "two different axes")
    if k % 4 == 0:
        return _c.as_tensor(array)
    if k % 4 == 2:
        return _m.flip(array, (first, second))
    if k % 4 == 1:
        return _m.swapaxes(_m.flip(array, second), first, second)
    return _m.flip(_m.swapaxes(array, first, second), second)


@op(family="movement")
def diff(a: Spec, n=1, axis=-1) -> Spec:
    """The differences of neighbours along an axis, `n` times over (of booleans: whether they differ)."""
    if n < 0:
        raise ArgumentError(f"diff of order {n}", "0 or more")
    at = axis_of(axis, len(shape_of(a)))
    minus = _a.not_equal if _c.dtype(a) == "bool" else _a.subtract
    before = (slice(None),) * at
    a = _c.as_tensor(a)
    for _ in range(n):
        a = minus(_i.get_item(a, (*before, slice(1, None))), _i.get_item(a, (*before, slice(None, -1))))
    return a


def meshgrid(*x: Any, indexing: str = "xy") -> list[Any]:
    """Vectors spread over the grid of all their combinations.

    Args:
        x: vectors.
        indexing: `"xy"` (the first two axes exchanged) or `"ij"`.

    Returns:
        one array for each vector, all of the grid's shape.
    """
    return grid_of(list(x), indexing=indexing)


@op(family="movement")
def grid_of(xs: list[Spec], indexing="xy") -> list:
    """`meshgrid` with its vectors in a list."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid got indexing={indexing!r}", "'xy' or 'ij'")
    vectors = [_m.ravel(x) for x in xs]
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    sizes = [shape_of(v)[0] for v in vectors]
    grid = tuple(sizes[i] for i in order)
    lines = [tuple(sizes[i] if i == n else 1 for i in order) for n in range(len(vectors))]
    return [
        _c.broadcast_to_shape(_m.reshape_to(v, shape=line), shape=grid) for v, line in zip(vectors, lines, strict=True)
    ]


# ---------------------------------------------------------------- counting, segments, places


@op(family="indexing")
def digitize(x: Spec, bins: Spec) -> Spec:
    """The number of the bin in which each element lies.

    Args:
        x: array.
        bins: edges `(n,)`, rising or falling.

    Returns:
        int32 array in the shape of `x`, from 0 to `n`.
    """
    if len(shape_of(bins)) != 1:
        raise ShapeError(f"digitize with bins of shape {shape_text(shape_of(bins))}", "one axis")
    count = shape_of(bins)[0]
    if not isinstance(count, Dim) and count == 0:
        return _c.zeros(shape_of(x), "int32")
    rising = _i.searchsorted(bins, x, side="right")
    falling = _a.subtract(_counted(count), _i.searchsorted(_m.flip(bins, 0), x, side="left"))
    return _e.where(_a.less_equal(_i.get_item(bins, 0), _i.get_item(bins, -1)), rising, falling)


def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """How often each whole number occurs.

    Args:
        x: integers from 0 on, `(n,)` or `(batch, n)`.
        weights: what each occurrence counts, in the shape of `x`; by default 1.
        minlength: the least length of the result.
        sparse: must be false.

    Returns:
        counts (int32, or the weights' dtype), `(length,)` or `(batch, length)`. The length reaches to the largest
        number in `x`; where the numbers cannot be seen (in a graph or a compiled function) it is `minlength`, and
        larger numbers are not counted.

    Raises:
        UnsupportedError: if the numbers cannot be seen and `minlength` is not given.
    """
    if sparse:
        raise UnsupportedError("bincount with sparse=True", "a dense array")
    seen = _visible(x)
    length = int(minlength)
    if seen is not None:
        if seen.dtype.kind not in "biu":
            raise DtypeError(f"bincount of dtype {seen.dtype}", "integers")
        length = builtins.max(length, int(seen.max()) + 1 if seen.size else 0)
    elif not length:
        raise UnsupportedError(
            "bincount of numbers that are not known yet",
            "minlength",
            "bincount(x, minlength=...) gives the result a size",
        )
    return bincount_of(x, weights, length=length)


@op(family="indexing")
def bincount_of(x: Spec, weights: Spec | None = None, length=0) -> Spec:
    """`bincount` into a result of a given length."""
    sizes = shape_of(x)
    if len(sizes) not in (1, 2):
        raise ShapeError(f"bincount of an array of shape {shape_text(sizes)}", "one axis or two")
    worth = _c.ones(sizes, "int32") if weights is None else _c.as_tensor(weights)
    if len(sizes) == 1:
        return _i.scatter(_m.expand_dims(x, -1), worth, (length,))
    rows = _m.broadcast_to(_m.expand_dims(_c.arange(sizes[0]), 1), sizes)
    return _i.scatter(_m.stack([rows, _e.cast(x, "int32")], axis=-1), worth, (sizes[0], length))


def _segments(data: Any, segment_ids: Any, num_segments: Any, mode: str, start: Any) -> Any:
    if num_segments is None:
        raise ArgumentError(f"segment_{mode} without num_segments", "the number of segments", "num_segments=...")
    dtype = _c.dtype(data)
    ids = shape_of(segment_ids)
    if len(ids) != 1:
        raise ShapeError(f"segment ids of shape {shape_text(ids)}", "one axis")
    empty = _c.full((num_segments, *shape_of(data)[1:]), _scalar(start, dtype), dtype)
    return _i.scatter_nd(empty, _m.expand_dims(segment_ids, -1), data, mode=mode)


@op(family="indexing")
def segment_sum(data: Spec, segment_ids: Spec, num_segments=None, sorted=False) -> Spec:
    """The sums of those parts of an array that belong to one segment.

    Args:
        data: array `(n, ...)`.
        segment_ids: integers `(n,)`, the segment of each part; parts outside `0 .. num_segments - 1` are left out.
        num_segments: how many segments.
        sorted: whether the ids rise (a hint).

    Returns:
        array `(num_segments, ...)`; 0 for empty segments.
    """
    return _segments(data, segment_ids, num_segments, "add", 0)


@op(family="indexing")
def segment_prod(data: Spec, segment_ids: Spec, num_segments=None, sorted=False) -> Spec:
    """The products of the parts of each segment; 1 for empty ones. Arguments as for `segment_sum`."""
    return _segments(data, segment_ids, num_segments, "mul", 1)


@op(family="indexing")
def segment_max(data: Spec, segment_ids: Spec, num_segments=None, sorted=False) -> Spec:
    """The largest of the parts of each segment; the dtype's least value (minus infinity) for empty ones."""
    dtype = _c.dtype(data)
    return _segments(data, segment_ids, num_segments, "max", -np.inf if dtype in dtypes.FLOATS else _limits(dtype)[0])


@op(family="indexing")
def segment_min(data: Spec, segment_ids: Spec, num_segments=None, sorted=False) -> Spec:
    """The smallest of the parts of each segment; the dtype's largest value (infinity) for empty ones."""
    dtype = _c.dtype(data)
    return _segments(data, segment_ids, num_segments, "min", np.inf if dtype in dtypes.FLOATS else _limits(dtype)[1])


@op(family="indexing")
def in_top_k(targets: Spec, predictions: Spec, k) -> Spec:
    """Whether the prediction for each target is among the `k` largest.

    Args:
        targets: class numbers `(batch,)`.
        predictions: scores `(batch, classes)`.
        k: how many.

    Returns:
        booleans `(batch,)`; equal scores all count as within.
    """
    own = _i.take_along_axis(predictions, _m.expand_dims(targets, -1), axis=-1)
    own = _e.where(_e.isnan(own), -np.inf, own)
    above = _r.sum(_e.cast(_a.greater(predictions, own), "int32"), axis=-1)
    return _a.less(above, k)


@op(family="indexing")
def unravel_index(indices: Spec, shape=()) -> tuple:
    """Places in a flattened array as places on each axis.

    Args:
        indices: integers.
        shape: the array's shape.

    Returns:
        a tuple of integer arrays, one per axis.
    """
    found = []
    for size in reversed(_c._sizes(shape)):
        found.append(_a.mod(indices, _counted(size)))
        indices = _a.floor_divide(indices, _counted(size))
    return tuple(reversed(found))


def _seen_or_refused(x: Any, name: str) -> np.ndarray:
    seen = _visible(x)
    if seen is None:
        raise UnsupportedError(
            f"{name} of values that are not known yet: its result has no shape that can be known",
            "values",
            "call it outside the model, or use cornu.ops.where(mask, x, 0)",
        )
    return seen


def nonzero(x: Any) -> tuple[Any, ...]:
    """Where the elements are not zero: one int32 array per axis (of known values only)."""
    return tuple(_c.convert_to_tensor(places, "int32") for places in np.nonzero(_seen_or_refused(x, "nonzero")))


def unique(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The different elements, rising (of known values only).

    Args:
        x: array.
        sorted: kept for Keras's sake; the result is always sorted.
        return_index: whether to give where each occurs first.
        return_inverse: whether to give, for each element of `x`, its place in the result.
        return_counts: whether to give how often each occurs.
        axis: the axis whose parts are compared; `None` for single elements.
        size: how many to give; the rest is cut off, or filled up with `fill_value`.
        fill_value: by default the smallest element.

    Returns:
        the elements, or a tuple of them and what else was asked for (int32).
    """
    seen = _seen_or_refused(x, "unique")
    values, first, inverse, counts = np.unique(
        seen, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    at = 0 if axis is None else axis_of(axis, seen.ndim)
    inverse = inverse.reshape(seen.shape if axis is None else -1)
    if size is not None:
        missing = size - values.shape[at]
        keep = np.arange(builtins.min(size, values.shape[at]))
        values, first, counts = np.take(values, keep, at), first[keep], counts[keep]
        if missing > 0:
            filler = np.take(values, np.zeros(missing, int), at)
            filler = filler if fill_value is None else np.full_like(filler, fill_value)
            values = np.concatenate([values, filler], at)
            first = np.concatenate([first, np.full(missing, first[0])])
            counts = np.concatenate([counts, np.zeros(missing, int)])
    more = [
        _c.convert_to_tensor(part, "int32")
        for part, asked in ((first, return_index), (inverse, return_inverse), (counts, return_counts))
        if asked
    ]
    values = _c.convert_to_tensor(values)
    return (values, *more) if more else values


# ---------------------------------------------------------------- creation and inspection


def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` numbers from `base ** start` to `base ** stop` whose logarithms are evenly spaced.

    Args:
        start: the first exponent, a number or an array.
        stop: the last exponent.
        num: how many.
        endpoint: whether `stop` is among them.
        base: the base.
        dtype: the dtype's name; by default the default float.
        axis: where the new axis goes, if the exponents are arrays.

    Returns:
        array `(num,)`, or with one more axis than the exponents.
    """
    wanted = dtypes.standardize_dtype(dtype)
    powers = _c.linspace(
        start, stop, num, endpoint=endpoint, dtype=wanted if wanted in dtypes.FLOATS else None, axis=axis
    )
    return _e.cast(_a.power(base, powers), wanted)


def empty(shape: Any, dtype: Any = None) -> Any:
    """An array whose elements are to be replaced; here zeros."""
    return _c.zeros(shape, dtype)


def empty_like(x: Any, dtype: Any = None) -> Any:
    """An array in the shape and dtype of `x` whose elements are to be replaced; here zeros."""
    return _c.zeros_like(x, dtype=dtype)


def array(x: Any, dtype: Any = None) -> Any:
    """A value as an array of the engine in force (`convert_to_tensor`)."""
    return _c.convert_to_tensor(x, dtype)


def copy(x: Any) -> Any:
    """The array; no op changes its arguments, so a copy is the array itself."""
    return _c.convert_to_tensor(x)


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(shape_of(x))


def size(x: Any) -> Size:
    """The number of elements; an unknown one is a symbol that can be computed with."""
    return product(shape_of(x))


# ---------------------------------------------------------------- associative scan


def associative_scan(f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All partial results of an associative function along an axis, in a logarithmic number of steps.

    Args:
        f: associative function of two structures of arrays, applied to whole stretches of the axis.
        elems: structure of arrays of one size along `axis`.
        reverse: whether to start from the end (`f` gets the part nearer to the end first).
        axis: the axis.

    Returns:
        structure like `elems`: `[a, f(a, b), f(f(a, b), c), ...]`.

    Raises:
        UnsupportedError: if the axis has an unknown size.

    The odd-even recursion of Blelloch, "Prefix sums and their applications" (1990).
    """
    parts = tree.leaves(elems)
    if not parts:
        raise ArgumentError("associative_scan of an empty structure", "at least one array")
    at = axis_of(axis, len(shape_of(parts[0])))
    count = shape_of(parts[0])[at]
    if isinstance(count, Dim):
        raise UnsupportedError("associative_scan over an axis of unknown size", "a known size", "use cornu.ops.scan")
    if any(shape_of(part)[at] != count for part in parts):
        raise ShapeError("associative_scan got arrays of different sizes along the axis", f"size {count} for all")

    def cut(values: list[Any], start: int, stop: int, step: int = 1) -> list[Any]:
        return [_m.strided_slice(v, {at: (start, builtins.max(stop, start), step)}) for v in values]

    def combine(first: list[Any], second: list[Any]) -> list[Any]:
        return tree.leaves(f(tree.pack(elems, first), tree.pack(elems, second)))

    def run(values: list[Any], n: int) -> list[Any]:
        if n < 2:
            return values
        pairs = combine(cut(values, 0, n - 1, 2), cut(values, 1, n, 2))
        odd = run(pairs, n // 2)
        later = combine(cut(odd, 0, (n - 1) // 2), cut(values, 2, n, 2)) if n > 2 else cut(values, 0, 0)
        even = [_m.concatenate([a, b], axis=at) for a, b in zip(cut(values, 0, 1), later, strict=True)]
        return [_woven(a, b, at, n) for a, b in zip(even, odd, strict=True)]

    values = [_m.flip(part, at) if reverse else _c.as_tensor(part) for part in parts]
    values = run(values, count)
    return tree.pack(elems, [_m.flip(value, at) if reverse else value for value in values])


def _woven(even: Any, odd: Any, axis: int, count: int) -> Any:
    """Two arrays element by element in turn along an axis."""
    half = count // 2
    head = _m.strided_slice(even, {axis: (0, half, 1)})
    sizes = shape_of(odd)
    joined = _m.reshape_to(_m.stack([head, odd], axis=axis + 1), shape=(*sizes[:axis], 2 * half, *sizes[axis + 1 :]))
    if count % 2 == 0:
        return joined
    return _m.concatenate([joined, _m.strided_slice(even, {axis: (half, half + 1, 1)})], axis=axis)
