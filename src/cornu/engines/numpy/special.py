"""Special functions that NumPy lacks, computed in float64 and returned in the dtype that came in.

Sources, cited again where they are used:

- Cody: W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969).
- Winitzki: S. Winitzki, "A handy approximation for the error function and its inverse" (2008).
- DLMF: NIST Digital Library of Mathematical Functions, chapters 5 (gamma) and 25 (zeta).
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["digamma", "erf", "erfinv", "lgamma"]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]


def _in_float64(function: Function) -> Callable[[np.ndarray], np.ndarray]:
    """Flatten, compute in float64 without warnings, restore the shape and the dtype."""

    @functools.wraps(function)
    def run(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        with np.errstate(all="ignore"):
            return function(x.astype(np.float64).reshape(-1)).reshape(x.shape).astype(x.dtype)

    return run


def _polynomial(coefficients: Sequence[float], x: Floats) -> Floats:
    """Horner's scheme, highest power first."""
    result = np.zeros_like(x)
    for coefficient in coefficients:
        result = result * x + coefficient
    return result


# ---------------------------------------------------------------- error function

# Cody's coefficients, highest power first: erf(y) / y in y**2 up to 0.46875, exp(y**2) * erfc(y) in y up to 4,
# and a correction to the asymptotic 1 / (y * sqrt(pi)) in 1 / y**2 from there on.
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (
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
_LARGE = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)  # fmt: skip


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Floats) -> Floats:
    above, below = coefficients
    return _polynomial(above, x) / _polynomial(below, x)


def _erfc_large(y: Floats) -> Floats:
    inverse = 1 / (y * y)
    return (1 / math.sqrt(math.pi) - inverse * _ratio(_LARGE, inverse)) / y


def _erfc(y: Floats) -> Floats:
    """`1 - erf(y)` to full relative precision, for `y` from 0.46875 to 26."""
    scaled = np.piecewise(y, [y <= 4, y > 4], [lambda y: _ratio(_MIDDLE, y), _erfc_large, np.nan])
    near = np.trunc(y * 16) / 16  # `near**2` is exact, so the exponential loses nothing to rounding
    result: Floats = np.exp(-near * near) * np.exp(-(y - near) * (y + near)) * scaled
    return result


def _erf(x: Floats) -> Floats:
    y = np.minimum(np.abs(x), 6)  # from 6 on, 1 is the nearest float64
    small = y <= 0.46875
    size = np.piecewise(y, [small, ~small], [lambda y: y * _ratio(_SMALL, y * y), lambda y: 1 - _erfc(y)])
    result: Floats = np.copysign(size, x)
    return result


@_in_float64
def erf(x: Floats) -> Floats:
    """The error function.

    The rational approximations and their coefficients are Cody's, as in CALERF of netlib's specfun.

    Args:
        x: float array.

    Returns:
        array of the same shape and dtype.
    """
    return _erf(x)


def _halley(y: Floats, excess: Function) -> Floats:
    """Solve `erf(y) = x` from a start within a few percent; `excess(y)` is `erf(y) - x`.

    The second derivative is `-2 * y` times the first, which makes Halley's step as cheap as Newton's.
    """
    for _ in range(3):
        newton = excess(y) * (math.sqrt(math.pi) / 2) * np.exp(y * y)
        y = y - newton / (1 + y * newton)
    return y


def _erfinv_middle(x: Floats) -> Floats:
    """For `x` up to 0.5; the start is the first two terms of the Taylor series."""
    start = math.sqrt(math.pi) / 2 * x * (1 + math.pi / 12 * x * x)
    return _halley(start, lambda y: _erf(y) - x)


def _erfinv_tail(x: Floats) -> Floats:
    """For `x` from 0.5 to 1, by way of `1 - x`, which is exact; the start and its 0.147 are Winitzki's."""
    rest = 1 - x
    log = np.log(rest) + np.log1p(x)
    half = 2 / (math.pi * 0.147) + log / 2
    start = np.sqrt(np.sqrt(half * half - log / 0.147) - half)
    return _halley(start, lambda y: rest - _erfc(y))


@_in_float64
def erfinv(x: Floats) -> Floats:
    """The inverse of the error function.

    A simple start (the Taylor series below 0.5, Winitzki's formula above), then Halley's method on `erf`.

    Args:
        x: float array.

    Returns:
        array of the same shape and dtype; infinite at -1 and 1, NaN outside.
    """
    y = np.abs(x)
    size = np.piecewise(y, [y <= 0.5, (y > 0.5) & (y < 1), y == 1], [_erfinv_middle, _erfinv_tail, np.inf, np.nan])
    result: Floats = np.copysign(size, x)
    return result


# ---------------------------------------------------------------- gamma function

# The Bernoulli numbers B2, B4, ..., B16 (DLMF 24.2).
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)

# From here on the asymptotic series with the numbers above reach float64's precision.
_FAR = 10

# Euler's constant (DLMF 5.2.3), and digamma's positive root (DLMF table 5.4.1): its float64, and what is left of it.
_EULER = 0.57721566490153286061
_ROOT, _ROOT_REST = 1.4616321449683622, 9.549995429965697e-17


def _zeta(s: int, a: float) -> float:
    """Hurwitz's zeta function, the sum of `(a + n) ** -s` over `n`, by Euler and Maclaurin (DLMF 25.11.7)."""
    end = a + 20
    total = math.fsum((a + n) ** -s for n in range(20)) + end ** (1 - s) / (s - 1) + end**-s / 2
    for k, number in enumerate(_BERNOULLI, start=1):
        total += number / math.factorial(2 * k) * math.prod(range(s, s + 2 * k - 1)) * end ** (1 - s - 2 * k)
    return total


# Taylor series, highest power first and constant 0: lgamma around 2 (DLMF 5.7.3), digamma around its root
# (DLMF 5.15.1).
_LGAMMA_AT_2 = (*((-1) ** k * _zeta(k, 2.0) / k for k in range(30, 1, -1)), 1 - _EULER, 0.0)
_DIGAMMA_AT_ROOT = (*((-1) ** (k + 1) * _zeta(k + 1, _ROOT) for k in range(24, 0, -1)), 0.0)


def _shifted(x: Floats, idle: float) -> tuple[Floats, list[Floats]]:
    """Add 1 to positive numbers until `_FAR` is reached; also each step's number, or `idle` where there is no step."""
    steps = []
    for _ in range(_FAR):
        near = x < _FAR
        steps.append(np.where(near, x, idle))
        x = x + near
    return x, steps


def _lgamma_any(x: Floats) -> Floats:
    """Stirling's series (DLMF 5.11.1) after shifting `x > 0` (DLMF 5.5.1)."""
    far, steps = _shifted(x, idle=1.0)
    series = _polynomial([b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, start=1)][::-1], far**-2) / far
    stirling = (far - 0.5) * (np.log(far) - 1) + (math.log(2 * math.pi) - 1) / 2 + series
    result: Floats = stirling - np.log(np.prod(steps, axis=0))
    return result


def _lgamma_positive(x: Floats) -> Floats:
    """For `x > 0`; near the roots 1 and 2 by series that vanish there."""
    return np.piecewise(
        x,
        [(x >= 0.5) & (x < 1.5), (x >= 1.5) & (x < 2.5)],
        [
            lambda x: _polynomial(_LGAMMA_AT_2, x - 1) - np.log1p(x - 1),
            lambda x: _polynomial(_LGAMMA_AT_2, x - 2),
            _lgamma_any,
        ],
    )


def _lgamma_negative(x: Floats) -> Floats:
    """By reflection (DLMF 5.5.3)."""
    return math.log(math.pi) - np.log(np.abs(np.sin(math.pi * (x - np.round(x))))) - _lgamma_positive(1 - x)


@_in_float64
def lgamma(x: Floats) -> Floats:
    """The logarithm of the absolute value of the gamma function.

    Stirling's series with Bernoulli numbers, reached by recurrence; Taylor's series with values of the zeta function
    around 1 and 2; reflection below 0 (formulas and constants: DLMF 5 and 25). Near its roots below 0 the
    error is small beside 1, not beside the result.

    Args:
        x: float array.

    Returns:
        array of the same shape and dtype; infinite at 0, at the negative integers and at both infinities.
    """
    pole = (x <= 0) & (x == np.floor(x))
    return np.piecewise(
        x,
        [pole | np.isinf(x), (x > 0) & (x < np.inf), (x < 0) & ~pole],
        [np.inf, _lgamma_positive, _lgamma_negative, np.nan],
    )


def _digamma_any(x: Floats) -> Floats:
    """The asymptotic series (DLMF 5.11.2) after shifting `x > 0` (DLMF 5.5.2)."""
    far, steps = _shifted(x, idle=np.inf)
    square = far**-2
    series = _polynomial([b / (2 * k) for k, b in enumerate(_BERNOULLI, start=1)][::-1], square) * square
    result: Floats = np.log(far) - 0.5 / far - series - np.sum(1 / np.array(steps), axis=0)
    return result


def _digamma_positive(x: Floats) -> Floats:
    """For `x > 0`; near the root by the series that vanishes there."""
    return np.piecewise(
        x,
        [np.abs(x - _ROOT) < 0.25],
        [lambda x: _polynomial(_DIGAMMA_AT_ROOT, (x - _ROOT) - _ROOT_REST), _digamma_any],
    )


def _digamma_negative(x: Floats) -> Floats:
    """By reflection (DLMF 5.5.4)."""
    return _digamma_positive(1 - x) - math.pi / np.tan(math.pi * (x - np.round(x)))


@_in_float64
def digamma(x: Floats) -> Floats:
    """The derivative of `lgamma`.

    The asymptotic series with Bernoulli numbers, reached by recurrence; Taylor's series with values of Hurwitz's zeta
    function around the positive root; reflection below 0 (formulas and constants: DLMF 5 and 25). Near its roots
    below 0 the error is small beside 1, not beside the result.

    Args:
        x: float array.

    Returns:
        array of the same shape and dtype; NaN at the poles (0 and the negative integers) and at minus infinity.
    """
    return np.piecewise(
        x,
        [x == np.inf, (x > 0) & (x < np.inf), (x < 0) & (x != np.floor(x))],
        [np.inf, _digamma_positive, _digamma_negative, np.nan],
    )
