"""Functions of one array, arithmetic, comparison, logic and bits, in ONNX."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.core.errors import ArgumentError
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime import special
from cornu.engines.onnxruntime.nodes import Value
from cornu.ops._rules import broadcast_shapes

__all__ = ["TABLE", "cast_to"]

TABLE: dict[str, Callable[..., Any]] = {
    "exp": n.exp, "log": n.log, "sqrt": n.sqrt, "sin": n.sin, "cos": n.cos, "tanh": n.tanh, "floor": n.floor,
    "ceil": n.ceil, "negative": n.neg, "logical_not": n.not_,
    "tan": special.tan, "arcsin": special.arcsin, "arccos": special.arccos, "arctan": special.arctan,
    "sinh": special.sinh, "cosh": special.cosh, "arcsinh": special.arcsinh, "arccosh": special.arccosh,
    "arctanh": special.arctanh, "expm1": special.expm1, "log1p": special.log1p, "erf": special.erf,
    "erfinv": special.erfinv, "lgamma": special.lgamma, "digamma": special.digamma, "sigmoid": special.sigmoid,
    "arctan2": special.arctan2, "divide": n.div, "choose": n.select, "less": n.less, "less_equal": n.less_equal,
    "greater": n.greater, "greater_equal": n.greater_equal, "equal": n.equal, "logical_and": n.and_,
    "logical_or": n.or_, "logical_xor": n.xor,
}  # fmt: skip


def _is_float(x: Value) -> bool:
    return x.dtype in dtypes.FLOATS


def _wide(function: Callable[..., Value]) -> Callable[..., Value]:
    """Half-width floats through the whole of a composition in float32."""

    def run(*xs: Value) -> Value:
        own = xs[0].dtype
        if own not in ("float16", "bfloat16"):
            return function(*xs)
        return n.cast(function(*(n.cast(x, "float32") for x in xs)), own)

    return run


for _name in "arctan2 arcsinh arccosh arctanh erfinv expm1 log1p sigmoid".split():
    TABLE[_name] = _wide(TABLE[_name])

TABLE |= {
    "rsqrt": _wide(lambda x: n.reciprocal(n.sqrt(x))),
    "relu": lambda x: n.maximum(x, 0),
    "abs": lambda x: x if x.dtype == "bool" else n.absolute(x),
    "sign": lambda x: n.where(n.isnan(x), x, n.sign(x)) if _is_float(x) else n.sign(x),
    "round_half_even": lambda x: n.round_even(x) if _is_float(x) else x,
    "not_equal": lambda x, y: n.not_(n.equal(x, y)),
    "bitwise_not": lambda x: n.not_(x) if x.dtype == "bool" else n.bitwise_not(x),
    "stop_gradient": lambda x: x,
    "as_tensor": lambda x: x,
}


def _everywhere(x: Value, answer: bool) -> Value:
    return n.expand(n.constant(answer, "bool"), x.shape)


TABLE |= {
    "isnan": lambda x: n.isnan(x) if _is_float(x) else _everywhere(x, False),
    "isinf": lambda x: n.isinf(x) if _is_float(x) else _everywhere(x, False),
    "isfinite": lambda x: n.less(n.absolute(x), math.inf) if _is_float(x) else _everywhere(x, True),
}


def _on_bool(whole: Callable[..., Value], logical: Callable[..., Value]) -> Callable[..., Value]:
    return lambda x, y: logical(x, y) if x.dtype == "bool" else whole(x, y)


TABLE |= {
    "add": _on_bool(n.add, n.or_),
    "subtract": n.sub,
    "multiply": _on_bool(n.mul, n.and_),
    "maximum": _on_bool(n.maximum, n.or_),
    "minimum": _on_bool(n.minimum, n.and_),
    "bitwise_and": _on_bool(n.bitwise_and, n.and_),
    "bitwise_or": _on_bool(n.bitwise_or, n.or_),
    "bitwise_xor": _on_bool(n.bitwise_xor, n.xor),
}
for _name in "less less_equal greater greater_equal".split():
    # ONNX Runtime compares no booleans.
    TABLE[_name] = lambda x, y, own=TABLE[_name]: (
        own(n.cast(x, "uint8"), n.cast(y, "uint8")) if x.dtype == "bool" else own(x, y)
    )


# ---------------------------------------------------------------- casts


def cast_to(x: Value, dtype: str) -> Value:
    """A cast in which floats out of range go to the nearest whole number, and NaN to 0."""
    if not _is_float(x) or dtype not in dtypes.INTEGERS:
        return n.cast(x, dtype)
    limits = np.iinfo(dtype)
    wide = n.cast(x, "float64" if limits.bits > 16 else "float32") if x.dtype != "float64" else x
    wide = n.where(n.isnan(wide), 0, wide)
    if limits.bits < 64:
        return n.cast(n.minimum(n.maximum(wide, float(limits.min)), float(limits.max)), dtype)
    beyond = n.greater_equal(wide, float(limits.max))  # which rounds up to a power of 2 that is out of range
    inside = n.cast(n.maximum(n.where(beyond, 0, wide), float(limits.min)), dtype)
    return n.where(beyond, int(limits.max), inside)


TABLE["cast_to"] = cast_to


# ---------------------------------------------------------------- division


def _without(divisor: Value, *numbers: int) -> Value:
    """A divisor with 1 in place of some numbers (0 would end the process; so would the least number by -1)."""
    known = divisor.array
    if known is not None and not np.isin(known, numbers).any():
        return divisor
    bad = n.equal(divisor, numbers[0])
    for number in numbers[1:]:
        bad = n.or_(bad, n.equal(divisor, number))
    return n.where(bad, 1, divisor)


def _unless_zero(divisor: Value, result: Value) -> Value:
    known = divisor.array
    if known is not None and known.all():
        return result
    return n.where(n.equal(divisor, 0), 0, result)


def _mod_whole(x: Value, y: Value) -> Value:
    """The rest with the sign of `y`; 0 where `y` is 0, as NumPy has it."""
    minus = (-1,) if dtypes.is_signed(y.dtype) else ()
    return _unless_zero(y, n.mod(x, _without(y, 0, *minus)))


def _floor_divide_whole(x: Value, y: Value) -> Value:
    if not dtypes.is_signed(y.dtype):
        return _unless_zero(y, n.div(x, _without(y, 0)))
    divisor = _without(y, 0, -1)
    rest = n.mod(x, divisor)  # of the sign of the divisor; not 0 where `Div`, which cuts, has to go down by 1
    below = n.and_(n.not_(n.equal(rest, 0)), n.xor(n.less(x, 0), n.less(divisor, 0)))
    whole = n.sub(n.div(x, divisor), n.cast(below, x.dtype))
    known = y.array
    if known is None or (known == -1).any():
        whole = n.where(n.equal(y, -1), n.neg(x), whole)
    return _unless_zero(y, whole)


def _apart(rest: Value, y: Value) -> Value:
    """Whether a rest of the sign of the dividend is not 0 and not of the sign of the divisor."""
    return n.and_(n.not_(n.equal(rest, 0)), n.xor(n.less(rest, 0), n.less(y, 0)))


def _mod_float(x: Value, y: Value) -> Value:
    rest = n.fmod(x, y)
    moved = n.where(_apart(rest, y), n.add(rest, y), rest)
    return n.where(n.equal(rest, 0), n.where(n.less(y, 0), n.constant(-0.0, x.dtype), 0.0), moved)


def _floor_divide_float(x: Value, y: Value) -> Value:
    """NumPy's: the dividend less the rest, over the divisor, to the nearest whole number."""
    rest = n.fmod(x, y)
    whole = n.div(n.sub(x, rest), y)
    whole = n.where(_apart(rest, y), n.sub(whole, 1), whole)
    near = n.floor(whole)
    near = n.where(n.greater(n.sub(whole, near), 0.5), n.add(near, 1), near)
    return n.where(n.equal(y, 0), n.div(x, y), near)


TABLE |= {
    "mod": _wide(lambda x, y: _mod_float(x, y) if _is_float(x) else _mod_whole(x, y)),
    "floor_divide": _wide(lambda x, y: _floor_divide_float(x, y) if _is_float(x) else _floor_divide_whole(x, y)),
}


# ---------------------------------------------------------------- powers and shifts


def _power(x: Value, y: Value) -> Value:
    if _is_float(x):
        return _power_float(x, y)
    # By repeated squaring, exact and with the wrapping of whole numbers; ONNX Runtime would go by way of float64.
    if y.array is not None and (y.array < 0).any():
        raise ArgumentError("whole numbers to a power below 0", "powers from 0", "cast to floats first")
    top = int(y.array.max(initial=0)) if y.array is not None else np.iinfo(y.dtype).max
    result, square = n.constant(1, x.dtype), x
    for bit in range(top.bit_length()):
        odd = n.not_(n.equal(n.bitwise_and(y, 1 << bit), 0))
        result = n.mul(result, n.where(odd, square, 1))
        square = n.mul(square, square)
    shape: Any = broadcast_shapes(x.shape, y.shape)
    return n.expand(result, shape)


def _power_float(x: Value, y: Value) -> Value:
    known = y.array
    if known is not None and known.size == 1 and y.ndim <= x.ndim:
        exponent = float(known.reshape(()))
        if exponent == 2.0:
            return n.mul(x, x)
        if exponent == 1.0:
            return x
    return n.power(x, y)


_UNSIGNED = {"int8": "uint8", "int16": "uint16", "int32": "uint32", "int64": "uint64"}


def _places(x: Value, y: Value) -> tuple[Value, Value | None]:
    """How far to move within the width of a number, and where it would be further (`None`: nowhere)."""
    bits = np.iinfo(x.dtype).bits
    unsigned = _UNSIGNED.get(y.dtype, y.dtype)
    if y.array is not None and ((y.array >= 0) & (y.array < bits)).all():
        return n.cast(y, unsigned), None
    places = n.cast(y, unsigned)
    return n.minimum(places, bits - 1), n.greater_equal(places, bits)


def _left_shift(x: Value, y: Value) -> Value:
    if x.dtype == "bool":
        return n.cast(_left_shift(n.cast(x, "int32"), n.cast(y, "int32")), "bool")
    places, beyond = _places(x, y)
    moved = n.cast(n.shift_left(n.cast(x, places.dtype), places), x.dtype)
    return moved if beyond is None else n.where(beyond, 0, moved)


def _right_shift(x: Value, y: Value) -> Value:
    if x.dtype == "bool":
        return n.cast(_right_shift(n.cast(x, "int32"), n.cast(y, "int32")), "bool")
    places, beyond = _places(x, y)
    if x.dtype not in _UNSIGNED:
        moved = n.shift_right(x, places)
        return moved if beyond is None else n.where(beyond, 0, moved)
    # A number below 0 is moved as its opposite bit by bit; past its width, all bits are the sign.
    signs = n.neg(n.cast(n.less(x, 0), x.dtype))
    moved = n.cast(n.shift_right(n.cast(n.bitwise_xor(x, signs), places.dtype), places), x.dtype)
    return n.bitwise_xor(moved if beyond is None else n.where(beyond, 0, moved), signs)


TABLE |= {"power": _power, "left_shift": _left_shift, "right_shift": _right_shift}
