"""Where PyTorch's own functions are not there, or say something else than the language. Seen with PyTorch 2.13.

- uint16, uint32 and uint64 have few kernels (https://github.com/pytorch/pytorch/issues/58734): they are computed as
  signed numbers of the same bits, or in int64.
- `torch.sign` of NaN is 0 (https://github.com/pytorch/pytorch/issues/41245).
- `torch.digamma` is infinite at 0, where the language says NaN, as at the other poles
  (https://docs.pytorch.org/docs/2.13/special.html#torch.special.digamma).
- `abs`, `round` and others have no kernels for booleans; the language passes booleans through.
- A cast of a float outside an integer dtype's range is undefined
  (https://docs.pytorch.org/docs/2.13/generated/torch.Tensor.to.html); the language takes the nearest number.
- `floor_divide` has no gradient; the language's is 0.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = [
    "by_bits",
    "by_order",
    "cast",
    "digamma",
    "for_floats",
    "in_float32",
    "not_bool",
    "sign",
    "unsigned_division",
    "widened",
]

# The signed dtype of the same width.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_HALF = (torch.float16, torch.bfloat16)


def _signed(value: Any) -> Any:
    if isinstance(value, list):
        return [_signed(item) for item in value]
    if isinstance(value, torch.Tensor) and value.dtype in _SIGNED:
        return value.view(_SIGNED[value.dtype])
    return value


def _ordered(value: Any) -> Any:
    """An unsigned array as a signed one whose elements are in the same order."""
    if not isinstance(value, torch.Tensor) or value.dtype not in _SIGNED:
        return value
    dtype = _SIGNED[value.dtype]
    return value.view(dtype) ^ torch.iinfo(dtype).min


def _dtype_in(args: Any) -> torch.dtype | None:
    """The unsigned dtype among arguments that PyTorch has few kernels for."""
    for value in args:
        if isinstance(value, list):
            found = _dtype_in(value)
            if found is not None:
                return found
        elif isinstance(value, torch.Tensor) and value.dtype in _SIGNED:
            return value.dtype
    return None


def _or(run: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The first function, which does the same as the second for float32 and float64."""
    run.on_floats = function  # type: ignore[attr-defined]
    return run


def for_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a function of the table does for float32 and float64, without looking for dtypes that want another way."""
    while hasattr(function, "on_floats"):
        function = function.on_floats
    return function


def by_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives the same bits for unsigned numbers as for signed ones (moves elements, adds)."""

    def run(*args: Any, **static: Any) -> Any:
        dtype = _dtype_in(args)
        if dtype is None:
            return function(*args, **static)
        return function(*(_signed(value) for value in args), **static).view(dtype)

    return _or(run, function)


def by_order(function: Callable[..., Any], elements: bool = True) -> Callable[..., Any]:
    """A function that compares elements; `elements` says whether it gives some of them."""

    def back(value: Any, signed: torch.dtype, dtype: torch.dtype) -> Any:
        return (value ^ torch.iinfo(signed).min).view(dtype) if value.dtype == signed else value

    def run(*args: Any, **static: Any) -> Any:
        dtype = _dtype_in(args)
        if dtype is None:
            return function(*args, **static)
        result = function(*(_ordered(value) for value in args), **static)
        if not elements:
            return result
        if isinstance(result, tuple):
            return (back(result[0], _SIGNED[dtype], dtype), *result[1:])
        return back(result, _SIGNED[dtype], dtype)

    return _or(run, function)


def widened(function: Callable[..., Any], booleans: bool = False) -> Callable[..., Any]:
    """A function computed in int64 for unsigned numbers (and in uint8 for booleans), in the dtype that came in."""

    def run(*args: Any, **static: Any) -> Any:
        dtype = _dtype_in(args)
        wide = torch.int64
        if dtype is None:
            if not booleans or args[0].dtype != torch.bool:
                return function(*args, **static)
            dtype, wide = torch.bool, torch.uint8
        return function(*(v.to(wide) if isinstance(v, torch.Tensor) else v for v in args), **static).to(dtype)

    return _or(run, function)


def not_bool(function: Callable[..., Any], result: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function of one array that is the identity (or `result`) on whole numbers it has no kernel for."""

    def run(x: Any) -> Any:
        if x.dtype == torch.bool or x.dtype in _SIGNED:
            return x if result is None else result(x)
        return function(x)

    return _or(run, function)


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function computed in float32 for half-width floats on a CPU, where some kernels add up in half width."""

    def run(*args: Any, **static: Any) -> Any:
        dtype = args[0].dtype
        if dtype not in _HALF or args[0].device.type != "cpu":
            return function(*args, **static)
        return function(*(value.to(torch.float32) for value in args), **static).to(dtype)

    return _or(run, function)


def _unsigned_quotient(x: Any, y: Any) -> tuple[Any, Any]:
    """Quotient and rest of uint64 numbers given as int64 of the same bits (Hacker's Delight, section 9-3)."""
    least = torch.iinfo(torch.int64).min
    large = y < 0
    divisor = torch.where(large, 1, y)
    half = torch.bitwise_right_shift(x, 1) & torch.iinfo(torch.int64).max
    quotient = torch.div(half, divisor, rounding_mode="trunc") << 1
    rest = x - quotient * divisor
    more = (rest ^ least) >= (divisor ^ least)
    fits = (x ^ least) >= (y ^ least)
    quotient = torch.where(large, fits.to(torch.int64), quotient + more.to(torch.int64))
    return quotient, x - quotient * y


def unsigned_division(function: Callable[..., Any], which: int) -> Callable[..., Any]:
    """A quotient (0) or rest (1) that is right for unsigned numbers too."""
    narrow = widened(function)

    def run(x1: Any, x2: Any) -> Any:
        if x1.dtype == torch.uint64:
            return _unsigned_quotient(x1.view(torch.int64), x2.view(torch.int64))[which].view(torch.uint64)
        return narrow(x1, x2)

    return run


def right_shift(x: Any, y: Any) -> Any:
    """`x >> y`, with zeros coming in at the top of unsigned numbers."""
    if x.dtype == torch.uint64:
        x, y = x.view(torch.int64), y.view(torch.int64)
        rest = torch.iinfo(torch.int64).max >> (y - 1).clamp(0, 63)
        return torch.where(y == 0, x, (x >> y) & rest).view(torch.uint64)
    return widened(torch.bitwise_right_shift)(x, y)


def sign(x: Any) -> Any:
    """-1, 0 or 1; NaN for NaN."""
    if x.is_floating_point():
        return torch.where(torch.isnan(x), x.detach(), torch.sign(x))
    return (x != 0).to(x.dtype) if x.dtype in _SIGNED else torch.sign(x)


def digamma(x: Any) -> Any:
    """The derivative of `lgamma`, NaN at 0."""
    return torch.where(x == 0, torch.nan, torch.digamma(x))


def cast(x: Any, dtype: torch.dtype) -> Any:
    """The array in another dtype; a float outside an integer dtype's range goes to the nearest, NaN to 0."""
    if x.dtype == dtype:
        return x
    if dtype == torch.bool or dtype.is_floating_point or not x.is_floating_point():
        return x.to(dtype)
    least, largest = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    wide = x.detach().to(torch.float64).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    if dtype not in (torch.int64, torch.uint64):
        return wide.clamp(least, largest).to(dtype)
    beyond = wide >= float(largest)
    inside = torch.where(beyond, 0.0, wide.clamp(min=float(least))).to(dtype)
    if dtype == torch.int64:
        return torch.where(beyond, largest, inside)
    return torch.where(beyond, -1, inside.view(torch.int64)).view(dtype)
