"""Dtypes by name, the default float, and promotion.

Promotion is Keras 3's: a lattice in which Python numbers are weak (they take the other side's dtype), and
an integer array meeting a float array takes the float's width. It is decided here, once; no engine promotes.
"""

import functools
from typing import Any

import numpy as np

from cornu.core.errors import ArgumentError, DtypeError

__all__ = [
    "ALL",
    "FLOATS",
    "INTEGERS",
    "LENT",
    "floatx",
    "is_float",
    "is_integer",
    "is_signed",
    "numpy_dtype",
    "promote",
    "set_floatx",
    "size_of",
    "standardize_dtype",
]

FLOATS = ("bfloat16", "float16", "float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
ALL = ("bool", *INTEGERS, *FLOATS)
# Of NumPy's own, those whose arrays an engine may be given to use where they lie.
LENT = frozenset(map(np.dtype, ("float32", "float64", "int32", "int64", "uint8", "bool")))

WEAK_INT, WEAK_FLOAT = "int", "float"

# Each dtype and the next larger ones; the join of two dtypes is their least common one.
_NEXT = {
    "bool": (WEAK_INT,),
    WEAK_INT: ("int8", "uint8"),
    "uint8": ("int16", "uint16"),
    "uint16": ("int32", "uint32"),
    "uint32": ("int64", "uint64"),
    "uint64": (WEAK_FLOAT,),
    "int8": ("int16",),
    "int16": ("int32",),
    "int32": ("int64",),
    "int64": (WEAK_FLOAT,),
    WEAK_FLOAT: ("bfloat16", "float16"),
    "bfloat16": ("float32",),
    "float16": ("float32",),
    "float32": ("float64",),
    "float64": (),
}

_floatx = "float32"


def floatx() -> str:
    """The default float dtype: `"float32"` unless `set_floatx` changed it."""
    return _floatx


def set_floatx(dtype: str) -> None:
    """Set the default float dtype.

    Args:
        dtype: `"float16"`, `"bfloat16"`, `"float32"` or `"float64"`.

    Raises:
        ArgumentError: for any other dtype.
    """
    global _floatx
    if dtype not in FLOATS:
        raise ArgumentError(f"floatx {dtype!r}", f"one of {', '.join(FLOATS)}")
    _floatx = dtype


@functools.cache
def _above(dtype: str) -> frozenset[str]:
    found, pending = {dtype}, [dtype]
    while pending:
        for larger in _NEXT[pending.pop()]:
            if larger not in found:
                found.add(larger)
                pending.append(larger)
    return frozenset(found)


@functools.cache
def _join(dtypes: frozenset[str]) -> str:
    common = frozenset.intersection(*(_above(dtype) for dtype in dtypes))
    for candidate in common:
        if common <= _above(candidate):
            return candidate
    raise DtypeError(f"dtypes {sorted(dtypes)} have no common dtype", "numbers or booleans")


def promote(*dtypes: str) -> str:
    """The dtype in which values of these dtypes meet.

    Args:
        dtypes: dtype names; `"int"` and `"float"` stand for weak Python numbers.

    Example:
        >>> promote("int32", "float16"), promote("float32", "int"), promote("uint8", "int8")
        ('float16', 'float32', 'int16')
    """
    first = dtypes[0]
    if first not in (WEAK_INT, WEAK_FLOAT) and all(dtype == first for dtype in dtypes):
        return first
    joined = _join(frozenset(dtypes))
    return {WEAK_INT: "int32", WEAK_FLOAT: _floatx}.get(joined, joined)


def is_float(dtype: str) -> bool:
    """Whether a dtype is a float."""
    return dtype in FLOATS


def is_integer(dtype: str) -> bool:
    """Whether a dtype is an integer, signed or not (booleans are not)."""
    return dtype in INTEGERS


def is_signed(dtype: str) -> bool:
    """Whether a dtype holds negative numbers."""
    return dtype in FLOATS or dtype in SIGNED


@functools.cache
def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of this name (`bfloat16` comes with the `ml_dtypes` package)."""
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


@functools.cache
def size_of(dtype: str) -> int:
    """Bytes per element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


_ALIASES: dict[object, str] = {"half": "float16", "double": "float64", int: "int32", float: "float32", bool: "bool"}


def standardize_dtype(dtype: Any) -> str:
    """The name of a dtype given as a name, a NumPy, JAX, TensorFlow or PyTorch dtype, or `None` (the default float).

    Raises:
        DtypeError: if it names no dtype that Cornu knows.

    Example:
        >>> standardize_dtype(np.int16), standardize_dtype(None)
        ('int16', 'float32')
    """
    if dtype is None:
        return _floatx
    if isinstance(dtype, str) and (dtype in _NEXT or dtype == "string"):
        return promote(dtype) if dtype in (WEAK_INT, WEAK_FLOAT) else dtype
    if isinstance(dtype, (str, type)) and dtype in _ALIASES:
        return _ALIASES[dtype]
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype).rpartition(".")[2]
    name = {"bool_": "bool", "str": "string"}.get(str(name), str(name))
    if name not in ALL and name != "string":
        raise DtypeError(f"{dtype!r} is not a dtype Cornu knows", f"one of {', '.join(ALL)}")
    return name
