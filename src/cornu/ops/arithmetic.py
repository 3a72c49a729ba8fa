"""Arithmetic, comparison, logic and bits, on two arrays that broadcast."""

from typing import Any

from cornu.core import dtypes
from cornu.core.errors import DtypeError
from cornu.core.spec import Spec
from cornu.ops._declare import Op, primitive, to_float
from cornu.ops._rules import broadcast_shapes

__all__ = [
    "add", "arctan2", "bitwise_and", "bitwise_or", "bitwise_xor", "divide", "equal", "floor_divide", "greater",
    "greater_equal", "left_shift", "less", "less_equal", "logical_and", "logical_or", "logical_xor", "maximum",
    "minimum", "mod", "multiply", "not_equal", "power", "right_shift", "subtract",
]  # fmt: skip


def _not_bool(dtype: str) -> str:
    return "int32" if dtype == "bool" else dtype


def _whole(dtype: str) -> str:
    if dtype in dtypes.FLOATS:
        raise DtypeError(
            f"a bitwise op got dtype {dtype}", "integers or booleans", "cast first: cornu.ops.cast(x, 'int32')"
        )
    return dtype


def _binary(doc: str, result: Any = None, out: str | None = None) -> Any:
    """Declare a broadcasting primitive; the function below the decorator gives its name only."""

    def wrap(named: Any) -> Op:
        def rule(x1: Spec, x2: Spec) -> Spec:
            return Spec(broadcast_shapes(x1.shape, x2.shape), out or x1.dtype)

        rule.__name__ = rule.__qualname__ = named.__name__
        rule.__module__ = named.__module__
        rule.__doc__ = doc + _ARGS
        made: Op = primitive(rule, promote=True, result=result, family="elementwise")
        return made

    return wrap


_ARGS = """

    Args:
        x1: array.
        x2: array that broadcasts with `x1`.

    Returns:
        array of the broadcast shape.
    """


@_binary("`x1 + x2`; on booleans, logical or.")
def add(x1, x2): ...


@_binary("`x1 - x2`.", _not_bool)
def subtract(x1, x2): ...


@_binary("`x1 * x2`; on booleans, logical and.")
def multiply(x1, x2): ...


@_binary("`x1 / x2`, a float whatever the dtypes.", to_float)
def divide(x1, x2): ...


@_binary("The largest whole number not above `x1 / x2`.", _not_bool)
def floor_divide(x1, x2): ...


@_binary("The rest of `x1 / x2`, with the sign of `x2`.", _not_bool)
def mod(x1, x2): ...


@_binary("`x1` to the power `x2`.", _not_bool)
def power(x1, x2): ...


@_binary("The larger of two, element by element; NaN if either is.")
def maximum(x1, x2): ...


@_binary("The smaller of two, element by element; NaN if either is.")
def minimum(x1, x2): ...


@_binary("The angle of the point (`x2`, `x1`), in radians from -pi to pi.", to_float)
def arctan2(x1, x2): ...


@_binary("Whether `x1 == x2`.", out="bool")
def equal(x1, x2): ...


@_binary("Whether `x1 != x2`.", out="bool")
def not_equal(x1, x2): ...


@_binary("Whether `x1 < x2`.", out="bool")
def less(x1, x2): ...


@_binary("Whether `x1 <= x2`.", out="bool")
def less_equal(x1, x2): ...


@_binary("Whether `x1 > x2`.", out="bool")
def greater(x1, x2): ...


@_binary("Whether `x1 >= x2`.", out="bool")
def greater_equal(x1, x2): ...


def _truth(dtype: str) -> str:
    return "bool"


@_binary("Whether both are true (nonzero).", _truth)
def logical_and(x1, x2): ...


@_binary("Whether either is true (nonzero).", _truth)
def logical_or(x1, x2): ...


@_binary("Whether one of two, not both, is true (nonzero).", _truth)
def logical_xor(x1, x2): ...


def _bits(doc: str) -> Any:
    """Declare a broadcasting primitive on bits; Keras calls its arguments `x` and `y`."""

    def wrap(named: Any) -> Op:
        def rule(x: Spec, y: Spec) -> Spec:
            return Spec(broadcast_shapes(x.shape, y.shape), x.dtype)

        rule.__name__ = rule.__qualname__ = named.__name__
        rule.__module__ = named.__module__
        rule.__doc__ = doc + _ARGS.replace("x1", "x").replace("x2", "y")
        made: Op = primitive(rule, promote=True, result=_whole, family="elementwise")
        return made

    return wrap


@_bits("Bit by bit, and.")
def bitwise_and(x, y): ...


@_bits("Bit by bit, or.")
def bitwise_or(x, y): ...


@_bits("Bit by bit, exclusive or.")
def bitwise_xor(x, y): ...


@_bits("The bits of `x` moved `y` places up.")
def left_shift(x, y): ...


@_bits("The bits of `x` moved `y` places down; the sign is kept.")
def right_shift(x, y): ...
