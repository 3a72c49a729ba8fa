"""Loops and choices: Python's own where the decision is known."""

from collections.abc import Callable
from typing import Any

import torch

from cornu.core import tree
from cornu.engines.torch.arrays import NeedsValue, in_trace, is_known_number, is_stand_in
from cornu.ops import control
from cornu.ops._declare import operator

__all__ = ["CONTROL"]


def _cond_of(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any) -> Any:
    if not is_stand_in(pred):
        return control.unrolled_cond_of(pred, true_fn, false_fn, operands)
    given = operands or ()
    chosen, other = true_fn(*given), false_fn(*given)
    if any(getattr(leaf, "requires_grad", False) for leaf in (*tree.leaves(chosen), *tree.leaves(other))):
        # What is not finite in the branch not taken would get into the gradients of the other.
        raise NeedsValue("the gradient of cond, whose predicate is not known while tracing", "a known predicate")
    condition = pred.reshape(()).to(torch.bool)
    pairs = zip(tree.leaves(chosen), tree.leaves(other), strict=True)
    return tree.pack(chosen, [a if a is None else operator("choose")(condition, a, b) for a, b in pairs])


def _while_loop(cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: Any) -> Any:
    if in_trace():
        loop_vars = tree.map_structure(_counted, loop_vars)
    return control.unrolled_while_loop(cond, body, loop_vars, maximum_iterations)


def _counted(value: Any) -> Any:
    """A known number as a stand-in whose value the tracer follows through operators of `torch` too."""
    return torch.ops.aten.lift_fresh_copy(value) if value is not None and is_known_number(value) else value


CONTROL: dict[str, Callable[..., Any]] = {**control.UNROLLED, "while_loop": _while_loop, "cond_of": _cond_of}
