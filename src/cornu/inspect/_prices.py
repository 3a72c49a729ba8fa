"""What each primitive costs: floating-point operations from the Specs of its arrays, one rule per family."""

import math
from collections.abc import Callable
from typing import Any

from cornu.core import dtypes, tree
from cornu.core.spec import Spec
from cornu.ops._declare import Op, to_spec

__all__ = ["FREE", "TRANSCENDENTAL", "bytes_of", "flops_of", "specs_in"]

# Ops that engines compute by a series, a table or an instruction of many cycles; counted as one each, and listed apart.
TRANSCENDENTAL = frozenset(
    "power arctan2 exp expm1 log log1p sqrt rsqrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh "
    "arctanh erf erfinv lgamma digamma sigmoid".split()
)
# Ops that give their argument's own memory under another shape or name: nothing is computed, nothing moved.
FREE = frozenset(("reshape_to", "as_tensor", "stop_gradient"))
_NOTHING_COMPUTED = FREE | {"cast_to"}

Rule = Callable[[dict[str, Any], dict[str, Any], Any], int]


def specs_in(values: Any) -> list[Spec]:
    """The Specs in a structure; numbers and host arrays as theirs."""
    return [to_spec(leaf) for leaf in tree.leaves(values) if leaf is not None and not isinstance(leaf, (str, bytes))]


def bytes_of(values: Any) -> int:
    """The bytes of all arrays in a structure."""
    return sum(int(spec.size) * dtypes.size_of(spec.dtype) for spec in specs_in(values))


def flops_of(op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> int:
    """The floating-point operations of a primitive; of whole numbers and truth values alone there are none."""
    if not any(spec.dtype in dtypes.FLOATS for spec in specs_in((list(arrays.values()), result))):
        return 0
    rule = _BY_NAME.get(op.name) or _BY_FAMILY.get(op.family or "")
    return 0 if rule is None else rule(arrays, static, result)


def _size(spec: Spec) -> int:
    return int(spec.size)


def _per_element(arrays: Any, static: Any, result: Any) -> int:
    return _size(result)


def _reduced(arrays: Any, static: Any, result: Any) -> int:
    """One for each element but the first of each result."""
    return max(_size(arrays["x"]) - _size(result), 0)


def _matmul(arrays: Any, static: Any, result: Any) -> int:
    return 2 * _size(result) * int(arrays["x1"].shape[-1])


def _dot_general(arrays: Any, static: Any, result: Any) -> int:
    return 2 * _size(result) * math.prod(int(arrays["x1"].shape[axis]) for axis in static["contract"][0])


def _convolution(output: str, kernel: str | None) -> Rule:
    """Two for each element of the convolution's output and each element of a filter; padding counts like the rest.

    Args:
        output: where the Spec in the shape of the convolution's output is.
        kernel: where the kernel is; `None` for the result itself.
    """

    def rule(arrays: Any, static: Any, result: Any) -> int:
        out = result if output == "result" else arrays[output]
        filters = result if kernel is None else arrays[kernel]
        return 2 * _size(out) * math.prod(int(size) for size in filters.shape[:-1])

    return rule


def _window(over: str) -> Rule:
    """One for each element of a window but the first."""

    def rule(arrays: Any, static: Any, result: Any) -> int:
        return _size(result if over == "result" else arrays[over]) * max(math.prod(static["window"]) - 1, 1)

    return rule


def _sorted(arrays: Any, static: Any, result: Any) -> int:
    """The comparisons of a sort, `n log2 n` along its axis."""
    x = next(iter(arrays.values()))
    length = int(x.shape[static.get("axis", -1) or -1]) if x.ndim else 1
    return _size(x) * max(math.ceil(math.log2(max(length, 1))), 0)


_BY_FAMILY: dict[str, Rule] = {
    "elementwise": _per_element,
    "random": _per_element,
    "reduction": _reduced,
    "cumulative": _per_element,
    "sorting": _sorted,
}
_BY_NAME: dict[str, Rule] = {
    **dict.fromkeys(_NOTHING_COMPUTED, lambda arrays, static, result: 0),
    "matmul": _matmul,
    "dot_general": _dot_general,
    "convolution": _convolution("result", "kernel"),
    "convolution_input_gradient": _convolution("g", "kernel"),
    "convolution_kernel_gradient": _convolution("g", None),
    "window_sum": _window("result"),
    "window_sum_gradient": _window("g"),
    "window_max": _window("result"),
    "window_max_gradient": _window("g"),
    "window_max_take": _window("result"),
    "scatter_nd": lambda arrays, static, result: _size(arrays["updates"]),
}
