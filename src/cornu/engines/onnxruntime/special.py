"""Functions that ONNX has no operator for, or ONNX Runtime no float64 kernel, written in its operators.

The coefficients that are computed are those of `cornu.engines.numpy.special`, with their sources.
"""

import math
from collections.abc import Callable

from cornu.engines.numpy import special as reference
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.nodes import Value

__all__ = [
    "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cosh", "digamma", "erf", "erfinv",
    "expm1", "lgamma", "log1p", "sigmoid", "sinh", "tan",
]  # fmt: skip


def sigmoid(x: Value) -> Value:
    """`1 / (1 + exp(-x))`, whose overflow gives 0 as it should."""
    return n.reciprocal(n.add(n.exp(n.neg(x)), 1))


def expm1(x: Value) -> Value:
    """`exp(x) - 1`: near 0 as `2t / (1 - t)` with `t = tanh(x / 2)`, which loses nothing."""
    half = n.tanh(n.mul(x, 0.5))
    near = n.div(n.mul(half, 2), n.sub(1, half))
    return n.where(n.less(n.absolute(x), 0.5), near, n.sub(n.exp(x), 1))


def log1p(x: Value) -> Value:
    """`log(1 + x)`, the rounding of `1 + x` undone.

    D. Goldberg, "What every computer scientist should know about floating-point arithmetic" (1991), theorem 4.
    """
    above = n.add(x, 1)
    moved = n.sub(above, 1)
    same = n.or_(n.equal(moved, 0), n.equal(above, math.inf))
    exact = n.mul(n.log(above), n.div(x, n.where(same, 1, moved)))
    return n.where(same, x, exact)


def _signed(size: Value, x: Value) -> Value:
    """A size with the sign of `x`; NaN and zeros of either sign stay."""
    return n.where(n.less(x, 0), n.neg(size), n.where(n.greater(x, 0), size, x))


def _narrow(x: Value) -> bool:
    return x.dtype != "float64"


def tan(x: Value) -> Value:
    """The tangent."""
    return n.tan(x) if _narrow(x) else n.div(n.sin(x), n.cos(x))


def sinh(x: Value) -> Value:
    """The hyperbolic sine."""
    if _narrow(x):
        return n.sinh(x)
    part = expm1(n.absolute(x))
    inner = n.mul(n.add(part, n.div(part, n.add(part, 1))), 0.5)
    return _signed(n.where(n.isinf(part), part, inner), x)


def cosh(x: Value) -> Value:
    """The hyperbolic cosine."""
    if _narrow(x):
        return n.cosh(x)
    part = n.exp(n.absolute(x))
    return n.mul(n.add(part, n.reciprocal(part)), 0.5)


def arcsinh(x: Value) -> Value:
    """The inverse hyperbolic sine."""
    if _narrow(x):
        return n.arcsinh(x)
    y = n.absolute(x)
    large = n.greater(y, 1e8)
    z = n.where(large, 1, y)
    square = n.mul(z, z)
    near = log1p(n.add(z, n.div(square, n.add(n.sqrt(n.add(square, 1)), 1))))
    return _signed(n.where(large, n.add(n.log(y), math.log(2)), near), x)


def arccosh(x: Value) -> Value:
    """The inverse hyperbolic cosine."""
    if _narrow(x):
        return n.arccosh(x)
    large = n.greater(x, 1e8)
    above = n.sub(n.where(large, 2, x), 1)
    near = log1p(n.add(above, n.sqrt(n.mul(above, n.add(above, 2)))))
    return n.where(large, n.add(n.log(x), math.log(2)), near)


def arctanh(x: Value) -> Value:
    """The inverse hyperbolic tangent."""
    if _narrow(x):
        return n.arctanh(x)
    y = n.absolute(x)
    return _signed(n.mul(log1p(n.div(n.mul(y, 2), n.sub(1, y))), 0.5), x)


def arctan(x: Value) -> Value:
    """The inverse tangent; in float64 by float32's answer and the angle that is left, whose cube is below rounding."""
    if _narrow(x):
        return n.arctan(x)
    y = n.absolute(x)
    large = n.greater(y, 1)
    y = n.where(large, n.reciprocal(y), y)
    start = n.cast(n.arctan(n.cast(y, "float32")), "float64")
    s, c = n.sin(start), n.cos(start)
    angle = n.add(start, n.div(n.sub(n.mul(y, c), s), n.add(c, n.mul(y, s))))
    return _signed(n.where(large, n.sub(math.pi / 2, angle), angle), x)


def arcsin(x: Value) -> Value:
    """The inverse sine."""
    if _narrow(x):
        return n.arcsin(x)
    return arctan(n.div(x, n.sqrt(n.mul(n.sub(1, x), n.add(x, 1)))))


def arccos(x: Value) -> Value:
    """The inverse cosine."""
    if _narrow(x):
        return n.arccos(x)
    return n.mul(arctan(n.sqrt(n.div(n.sub(1, x), n.add(x, 1)))), 2)


def arctan2(y: Value, x: Value) -> Value:
    """The angle of the point (`x`, `y`): by the smaller of both over the larger, then moved to its octant."""
    a, b = n.absolute(y), n.absolute(x)
    low, high = n.minimum(a, b), n.maximum(a, b)
    ratio = n.div(low, n.where(n.equal(high, 0), 1, high))
    angle = arctan(n.where(n.isinf(low), 1, ratio))
    angle = n.where(n.greater(a, b), n.sub(math.pi / 2, angle), angle)
    angle = n.where(_below(x), n.sub(math.pi, angle), angle)
    return n.where(_below(y), n.neg(angle), angle)


def _below(x: Value) -> Value:
    """Whether the sign is minus, of zeros too."""
    return n.less(n.where(n.equal(x, 0), n.reciprocal(x), x), 0)


# ---------------------------------------------------------------- error function


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Value) -> Value:
    above, below = coefficients
    return n.div(n.polynomial(above, x), n.polynomial(below, x))


def _erfc64(y: Value) -> Value:
    """`1 - erf(y)` to full relative precision, for `y` from 0.46875 to 26."""
    middle = _ratio(reference._MIDDLE, n.minimum(y, 4))
    far = n.maximum(y, 4)
    inverse = n.reciprocal(n.mul(far, far))
    large = n.div(n.sub(1 / math.sqrt(math.pi), n.mul(inverse, _ratio(reference._LARGE, inverse))), far)
    near = n.div(n.floor(n.mul(y, 16)), 16)
    shrink = n.mul(n.exp(n.neg(n.mul(near, near))), n.exp(n.neg(n.mul(n.sub(y, near), n.add(y, near)))))
    return n.mul(shrink, n.where(n.less_equal(y, 4), middle, large))


def _erf64(x: Value) -> Value:
    y = n.minimum(n.absolute(x), 6)
    small = n.mul(y, _ratio(reference._SMALL, n.mul(y, y)))
    size = n.where(n.less_equal(y, 0.46875), small, n.sub(1, _erfc64(y)))
    return _signed(size, x)


def erf(x: Value) -> Value:
    """The error function."""
    return n.erf(x) if _narrow(x) else _erf64(x)


# M. Giles, "Approximating the erfinv function", GPU Computing Gems Jade Edition (2011), single precision: in
# w = -log((1 - x) * (1 + x)), less 2.5 below 5, else in sqrt(w), less 3. Highest power first.
_GILES_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_GILES_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def erfinv(x: Value) -> Value:
    """The inverse of the error function: Giles's polynomials; in float64, two of Halley's steps from there."""
    y = n.absolute(x)
    w = n.neg(n.log(n.mul(n.sub(1, y), n.add(y, 1))))
    near = n.polynomial(_GILES_NEAR, n.sub(w, 2.5))
    far = n.polynomial(_GILES_FAR, n.sub(n.sqrt(n.maximum(w, 5)), 3))
    size = n.mul(n.where(n.less(w, 5), near, far), y)
    if not _narrow(x):
        inside = n.less(y, 1)
        z, start = n.where(inside, y, 0.5), n.where(inside, size, 0.5)
        for _ in range(2):
            tail = n.sub(n.sub(1, z), _erfc64(n.maximum(start, 0.46875)))
            excess = n.where(n.less_equal(start, 0.46875), n.sub(_erf64(start), z), tail)
            newton = n.mul(n.mul(excess, math.sqrt(math.pi) / 2), n.exp(n.mul(start, start)))
            start = n.sub(start, n.div(newton, n.add(n.mul(start, newton), 1)))
        size = n.where(inside, start, size)
    size = n.where(n.equal(y, 1), math.inf, size)
    return _signed(size, x)


# ---------------------------------------------------------------- gamma function


def _in_float64(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    return lambda x: n.cast(function(n.cast(x, "float64")), x.dtype)


def _shifted(x: Value) -> tuple[Value, list[tuple[Value, Value]]]:
    """Add 1 to positive numbers until the series is exact; also each step's number, and whether it was taken."""
    steps = []
    for _ in range(reference._FAR):
        near = n.less(x, reference._FAR)
        steps.append((x, near))
        x = n.add(x, n.cast(near, "float64"))
    return x, steps


def _lgamma_any(x: Value) -> Value:
    far, steps = _shifted(x)
    rows = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(reference._BERNOULLI, start=1)][::-1]
    series = n.div(n.polynomial(rows, n.reciprocal(n.mul(far, far))), far)
    total = n.mul(n.sub(far, 0.5), n.sub(n.log(far), 1))
    total = n.add(n.add(total, (math.log(2 * math.pi) - 1) / 2), series)
    product = n.constant(1.0, "float64")
    for number, taken in steps:
        product = n.mul(product, n.where(taken, number, 1))
    return n.sub(total, n.log(product))


def _between(x: Value, low: float, high: float) -> Value:
    return n.and_(n.greater_equal(x, low), n.less(x, high))


def _lgamma_positive(x: Value) -> Value:
    above = n.sub(x, 1)
    at_1 = n.sub(n.polynomial(reference._LGAMMA_AT_2, above), log1p(above))
    at_2 = n.polynomial(reference._LGAMMA_AT_2, n.sub(x, 2))
    return n.where(_between(x, 0.5, 1.5), at_1, n.where(_between(x, 1.5, 2.5), at_2, _lgamma_any(x)))


def _whole_part_off(x: Value) -> Value:
    return n.mul(n.sub(x, n.round_even(x)), math.pi)


@_in_float64
def lgamma(x: Value) -> Value:
    """The logarithm of the absolute value of the gamma function."""
    below = n.less(x, 0)
    size = _lgamma_positive(n.where(below, n.sub(1, x), x))
    mirrored = n.sub(n.sub(math.log(math.pi), n.log(n.absolute(n.sin(_whole_part_off(x))))), size)
    pole = n.and_(n.less_equal(x, 0), n.equal(x, n.floor(x)))
    return n.where(n.or_(pole, n.isinf(x)), math.inf, n.where(below, mirrored, size))


def _digamma_positive(x: Value) -> Value:
    far, steps = _shifted(x)
    square = n.reciprocal(n.mul(far, far))
    rows = [b / (2 * k) for k, b in enumerate(reference._BERNOULLI, start=1)][::-1]
    total = n.sub(n.log(far), n.add(n.div(0.5, far), n.mul(n.polynomial(rows, square), square)))
    for number, taken in steps:
        total = n.sub(total, n.where(taken, n.reciprocal(number), 0))
    left = n.sub(n.sub(x, reference._ROOT), reference._ROOT_REST)
    at_root = n.polynomial(reference._DIGAMMA_AT_ROOT, left)
    return n.where(n.less(n.absolute(n.sub(x, reference._ROOT)), 0.25), at_root, total)


@_in_float64
def digamma(x: Value) -> Value:
    """The derivative of `lgamma`."""
    below = n.less(x, 0)
    size = _digamma_positive(n.where(below, n.sub(1, x), x))
    angle = _whole_part_off(x)
    mirrored = n.sub(size, n.div(n.mul(n.cos(angle), math.pi), n.sin(angle)))
    pole = n.or_(n.and_(n.less_equal(x, 0), n.equal(x, n.floor(x))), n.equal(x, -math.inf))
    return n.where(pole, math.nan, n.where(n.equal(x, math.inf), math.inf, n.where(below, mirrored, size)))
