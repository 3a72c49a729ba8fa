"""The language: every operation, stated once. See `_declare` for how a call finds its interpreter."""

from cornu.core.spec import operators
from cornu.ops import (
    arithmetic,
    contraction,
    control,
    creation,
    elementwise,
    indexing,
    movement,
    nn,
    numeric,
    recurrent,
    reduction,
    updates,
)
from cornu.ops._declare import all_ops
from cornu.ops.arithmetic import *
from cornu.ops.contraction import *
from cornu.ops.control import *
from cornu.ops.creation import *
from cornu.ops.elementwise import *
from cornu.ops.indexing import *
from cornu.ops.movement import *
from cornu.ops.nn import *
from cornu.ops.numeric import *
from cornu.ops.reduction import *

operators.update(all_ops)
operators.update(convert_to_tensor=creation.convert_to_tensor, convert_to_numpy=creation.convert_to_numpy)
operators.update(
    true_divide=arithmetic.divide, remainder=arithmetic.mod, absolute=elementwise.abs, einsum=contraction.einsum
)
operators.update(
    float_power=arithmetic.power, invert=elementwise.bitwise_not, zeros_like=creation.zeros_like,
    ones_like=creation.ones_like, amax=reduction.max, amin=reduction.min,
)  # fmt: skip

__all__ = sorted(
    name
    for module in (arithmetic, contraction, control, creation, elementwise, indexing, movement, nn, numeric, reduction)
    for name in module.__all__
)
