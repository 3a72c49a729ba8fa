"""Functions of one array, element by element; casts; choice between two arrays."""

from typing import Any

from cornu.core import dtypes
from cornu.core.spec import Spec
from cornu.ops._declare import Op, op, primitive, to_float
from cornu.ops._rules import broadcast_shapes
from cornu.ops.arithmetic import _whole

__all__ = [
    "abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "bitwise_not", "cast", "ceil", "cos", "cosh",
    "digamma", "erf", "erfinv", "exp", "expm1", "floor", "isfinite", "isinf", "isnan", "lgamma", "log", "log1p",
    "logical_not", "negative", "relu", "round_half_even", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt",
    "stop_gradient", "tan", "tanh", "where",
]  # fmt: skip


def _unary(doc: str, result: Any = None, out: str | None = None) -> Any:
    """Declare an elementwise primitive; the function below the decorator gives its name only."""

    def wrap(named: Any) -> Op:
        def rule(x: Spec) -> Spec:
            return Spec(x.shape, out or x.dtype)

        rule.__name__ = rule.__qualname__ = named.__name__
        rule.__module__ = named.__module__
        rule.__doc__ = f"{doc}\n\n    Args:\n        x: array.\n\n    Returns:\n        array of the same shape.\n    "
        made: Op = primitive(rule, promote=True, result=result, family="elementwise")
        return made

    return wrap


def _float_or_whole(dtype: str) -> str:
    return "int32" if dtype == "bool" else dtype


@_unary("e to the power `x`.", to_float)
def exp(x): ...


@_unary("`exp(x) - 1`, exact near 0.", to_float)
def expm1(x): ...


@_unary("The natural logarithm.", to_float)
def log(x): ...


@_unary("`log(1 + x)`, exact near 0.", to_float)
def log1p(x): ...


@_unary("The square root.", to_float)
def sqrt(x): ...


@_unary("One over the square root.", to_float)
def rsqrt(x): ...


@_unary("The sine of an angle in radians.", to_float)
def sin(x): ...


@_unary("The cosine of an angle in radians.", to_float)
def cos(x): ...


@_unary("The tangent of an angle in radians.", to_float)
def tan(x): ...


@_unary("The angle, in radians, whose sine is `x`.", to_float)
def arcsin(x): ...


@_unary("The angle, in radians, whose cosine is `x`.", to_float)
def arccos(x): ...


@_unary("The angle, in radians, whose tangent is `x`.", to_float)
def arctan(x): ...


@_unary("The hyperbolic sine.", to_float)
def sinh(x): ...


@_unary("The hyperbolic cosine.", to_float)
def cosh(x): ...


@_unary("The hyperbolic tangent.", to_float)
def tanh(x): ...


@_unary("The inverse hyperbolic sine.", to_float)
def arcsinh(x): ...


@_unary("The inverse hyperbolic cosine.", to_float)
def arccosh(x): ...


@_unary("The inverse hyperbolic tangent.", to_float)
def arctanh(x): ...


@_unary("The error function.", to_float)
def erf(x): ...


@_unary("The inverse of the error function.", to_float)
def erfinv(x): ...


@_unary("The logarithm of the absolute value of the gamma function.", to_float)
def lgamma(x): ...


@_unary("The derivative of `lgamma`.", to_float)
def digamma(x): ...


@_unary("`1 / (1 + exp(-x))`, without overflow.", to_float)
def sigmoid(x): ...


@_unary("`max(x, 0)`; its gradient at 0 is 0.", _float_or_whole)
def relu(x): ...


@_unary("`-x`.", _float_or_whole)
def negative(x): ...


@_unary("The absolute value.")
def abs(x): ...


@_unary("-1, 0 or 1, as `x` is below, at or above 0.", _float_or_whole)
def sign(x): ...


@_unary("The largest whole number not above `x`.", to_float)
def floor(x): ...


@_unary("The smallest whole number not below `x`.", to_float)
def ceil(x): ...


@_unary("The nearest whole number; a half goes to the even one.", _float_or_whole)
def round_half_even(x): ...


@_unary("Whether `x` is neither infinite nor NaN.", out="bool")
def isfinite(x): ...


@_unary("Whether `x` is NaN.", out="bool")
def isnan(x): ...


@_unary("Whether `x` is infinite.", out="bool")
def isinf(x): ...


@_unary("Whether `x` is false (zero).", lambda dtype: "bool")
def logical_not(x): ...


@_unary("Bit by bit, the opposite.", _whole)
def bitwise_not(x): ...


@_unary("`x` itself, through which no gradient flows.")
def stop_gradient(x): ...


@primitive(family="elementwise")
def cast_to(x: Spec, dtype: str = "float32") -> Spec:
    """The array in another dtype (`cast` with the name of a dtype that is checked)."""
    return Spec(x.shape, dtype)


@op(family="elementwise")
def cast(x: Spec, dtype=None) -> Spec:
    """The array in another dtype.

    Args:
        x: array.
        dtype: the dtype's name; `None` for the default float.

    Returns:
        array of the same shape.

    Example:
        >>> import cornu
        >>> cornu.ops.cast([0.0, 2.7], "int32").tolist()
        [0, 2]
    """
    return cast_to(x, dtype=dtypes.standardize_dtype(dtype))


@primitive(promote=("x1", "x2"), family="elementwise")
def choose(condition: Spec, x1: Spec, x2: Spec) -> Spec:
    """`x1` where `condition` holds, `x2` elsewhere; `condition` is boolean (`where` takes any)."""
    return Spec(broadcast_shapes(condition.shape, x1.shape, x2.shape), x1.dtype)


@op(family="elementwise")
def where(condition: Spec, x1: Spec, x2: Spec) -> Spec:
    """`x1` where `condition` is true (nonzero), `x2` elsewhere.

    Args:
        condition: array, boolean or taken as `condition != 0`.
        x1: array.
        x2: array; all three broadcast together.

    Returns:
        array of the broadcast shape, in the common dtype of `x1` and `x2`.

    Example:
        >>> import cornu
        >>> cornu.ops.where([True, False], [1, 2], [10, 20]).tolist()
        [1, 20]
    """
    return choose(cast_to(condition, dtype="bool"), x1, x2)
