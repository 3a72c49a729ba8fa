"""What XLA is told when it compiles for a CPU.

YNNPACK, to which jaxlib 0.10 gives convolutions of two axes, computes each of them on one core. Eigen's, which are
XLA's own, take about as much processor time and use all cores. And LLVM optimises at its second level: steps of eight
workloads of the benchmarks were as fast as at the third, and compiling takes 5 to 10% less.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

from cornu.engines.installed import cores

__all__ = ["PIECE", "is_outermost", "jitted", "options"]

# What YNNPACK is given by jaxlib 0.10, without convolutions (https://github.com/openxla/xla, debug_options_flags.cc).
_OPTION = "xla_cpu_experimental_ynn_fusion_type"
_KINDS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
_KNOWN = "0.10."
_LEVEL = "xla_backend_optimization_level"
_PIECES, PIECE = "xla_multiheap_size_constraint_per_heap", 48 << 20  # bytes


@functools.cache
def options(in_pieces: bool = False) -> dict[str, str] | None:
    """`compiler_options` for `jax.jit`, with memory in pieces if asked for; `None` to leave all to XLA."""
    if jax.default_backend() != "cpu":
        return None
    found = {_LEVEL: "2"}
    if cores() > 1 and jaxlib.__version__.startswith(_KNOWN):
        found[_OPTION] = _KINDS
    if in_pieces:
        found[_PIECES] = str(PIECE)
    asked = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in found.items() if name not in asked} or None


def is_outermost() -> bool:
    """Whether nothing is being traced; false too where JAX's insides have changed, which alone know."""
    ask = getattr(sys.modules.get("jax._src.core"), "trace_state_clean", None)
    return ask is not None and ask()


def jitted(function: Callable[..., Any], in_pieces: bool = False, **given: Any) -> Any:
    """`jax.jit` with `options`, which JAX does not take inside another `jax.jit`.

    Args:
        function: of arrays.
        in_pieces: whether the memory that is needed comes in pieces (`forms.py`).
        given: arguments of `jax.jit`.

    Returns:
        the function compiled, with its `trace`.
    """
    inside = jax.jit(function, **given)
    if options() is None:
        return inside
    outermost = jax.jit(function, compiler_options=options(in_pieces), **given)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return outermost(*args) if is_outermost() else inside(*args)

    call.trace = outermost.trace  # type: ignore[attr-defined]
    return call
