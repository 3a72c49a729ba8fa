"""What ONNX Runtime's CPU kernels lack or do otherwise (found by trying 1.32), and the detours.

- Kernels are missing for dtypes: `KERNELS` names those that are there, `widened` gives the dtype to compute in.
- `ReduceMax`, `ReduceMin`, `ArgMax` and `ArgMin` lose NaN depending on where it stands, `TopK` orders it anyhow, `Sign`
  gives 1 for it (https://github.com/microsoft/onnxruntime/issues/10514): see `reductions` and `elementwise`.
- `Sigmoid` has an absolute error of 1e-7, which is all of the result below -16: it is composed of `Exp`.
- `Where` takes 4 to 10 ns an element (https://github.com/microsoft/onnxruntime/issues/5896), which made it a third of a
  training step: see `nodes.select`.
- `ScatterND` writes from several threads without order, so that equal positions race (its source, `scatter_nd.cc`,
  calls `TryParallelFor`): `ScatterElements` is used, which goes through them in order.
- `Div` and `Mod` of whole numbers end the process at a divisor of 0: see `arithmetic`.
- `ReduceSum` and `ReduceProd` of whole numbers go by way of floats, wrong past 2**53 and where they should wrap: see
  `reductions`.
- `Cast` from floats to whole numbers leaves numbers out of range to the processor: see `elementwise.cast_to`.
- NumPy has no bfloat16, so that `InferenceSession.run` cannot take or give it: it crosses the border as float32.
"""

from cornu.core.errors import UnsupportedError

__all__ = ["KERNELS", "POSITIONAL", "border_dtype", "widened"]

_ALL = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64"
_FLOAT = "float32 float64"
_WHOLE = "int8 int16 int32 int64 uint8 uint16 uint32 uint64"


def _rows(text: str) -> dict[str, frozenset[str]]:
    rows = {}
    for line in text.strip().splitlines():
        names, _, found = line.partition(":")
        for name in names.split():
            rows[name] = frozenset(found.split())
    return rows


# Operator -> the dtypes (of its data) that it has kernels for. float16 is widened for arithmetic where this table says
# so: ONNX Runtime would do it by itself, at places of its own choosing. Operators not named here have them all.
KERNELS = _rows(f"""
Exp Log Sqrt Sin Cos Tanh Floor Ceil Round Reciprocal: {_FLOAT}
Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Erf Conv ConvTranspose AveragePool: float32
Neg: int8 int16 int32 int64 {_FLOAT}
Sign Abs: {_WHOLE} {_FLOAT}
BitwiseNot BitwiseAnd BitwiseOr BitwiseXor: {_WHOLE}
Not And Or Xor: bool
IsNaN IsInf: float16 bfloat16 {_FLOAT}
Add Sub Mul Div Mod: {_WHOLE} {_FLOAT}
Pow: {_FLOAT}
Max Min: int8 int32 int64 uint8 uint32 uint64 {_FLOAT}
BitShift: uint8 uint16 uint32 uint64
Equal: bool {_WHOLE} {_FLOAT}
Less LessOrEqual Greater GreaterOrEqual: {_WHOLE} {_FLOAT}
Where: int8 int32 int64 uint8 uint32 float16 {_FLOAT}
ReduceSum ReduceProd CumSum: int32 int64 {_FLOAT}
ReduceMax ReduceMin: bool int8 int32 int64 uint8 {_FLOAT}
ArgMax ArgMin: int8 int32 int64 uint8 {_FLOAT}
TopK: int8 int16 int32 int64 uint8 {_FLOAT}
Expand Tile: {_ALL.replace("bfloat16 ", "")}
Pad: bool int8 int32 int64 uint8 uint32 uint64 float16 bfloat16 {_FLOAT}
MatMul: int32 int64 uint32 uint64 {_FLOAT}
ScatterElements: {_WHOLE} {_FLOAT}
""")

# Operators of which only some inputs hold the data whose dtype counts.
POSITIONAL: dict[str, tuple[int, ...]] = {
    "Where": (1, 2),
    "ScatterElements": (0, 2),
    "Pad": (0, 2),
    **dict.fromkeys("ReduceSum ReduceProd ReduceMax ReduceMin CumSum TopK Expand Tile".split(), (0,)),
}

# The dtypes to compute in instead, nearest first. 64-bit integers keep their bits in a cast between signed and
# unsigned, which is right for all that does not compare or divide; `reductions.ordered` sees to the rest.
_WIDER = {
    "bool": ("uint8", "int32"),
    "int8": ("int32",),
    "int16": ("int32",),
    "uint8": ("int32",),
    "uint16": ("int32", "uint32"),
    "uint32": ("int64",),
    "uint64": ("int64",),
    "int32": ("int64",),
    "float16": ("float32",),
    "bfloat16": ("float32",),
}


def widened(operator: str, dtype: str) -> str:
    """The dtype in which an operator computes for data of a dtype: its own where there is a kernel.

    Raises:
        UnsupportedError: if there is no kernel for any that holds it.
    """
    kernels = KERNELS.get(operator)
    if kernels is None or dtype in kernels:
        return dtype
    for wider in _WIDER.get(dtype, ()):
        if wider in kernels:
            return wider
    raise UnsupportedError(f"ONNX Runtime has no kernel of {operator} for {dtype}", f"one of {', '.join(kernels)}")


def border_dtype(dtype: str) -> str:
    """The dtype in which an array of a dtype goes into a session and comes out of it."""
    return "float32" if dtype == "bfloat16" else dtype
