"""Loops and choices: Python's own where the decision is known."""

import contextlib
import contextvars
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from cornu.core import tree
from cornu.engines.torch.arrays import NeedsValue, in_trace, is_known_number, is_stand_in
from cornu.engines.torch.pieces import define, is_written_out
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


# A value once more, under another number for each time that a function is computed again: in a traced graph what is
# computed from it is then no repetition of what was computed on the way forward, which would be kept and shared.
_again = define("again(Tensor(a) x, int number) -> Tensor(a)", lambda x, number: x.view(x.shape))
# TorchInductor takes no operator of others whose result lies in the memory of its argument.
_again_copied = define("again_copied(Tensor x, int number) -> Tensor", lambda x, number: x.clone())
_numbers = itertools.count()


class _NoDraws(TorchDispatchMode):
    """Refuses PyTorch's own random numbers in a trace, which would be other ones when they are drawn again."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NeedsValue(
                f"{func} draws random numbers in a function that is computed again on the way back",
                "random numbers of cornu.random, which are the same each time",
                "draw with cornu.random, or outside of the rematerialised layer",
            )
        return func(*args, **(kwargs or {}))


def _rematerialized(operands: Any, f: Callable[..., Any]) -> Any:
    if not torch.is_grad_enabled():
        return f(*operands)
    leaves, pack = tree.flatten(tuple(operands))
    around = contextvars.copy_context()
    traced = in_trace()
    runs: list[int] = []

    def run(*values: Any) -> Any:
        with _NoDraws() if traced else contextlib.nullcontext():
            if not runs:
                runs.append(0)
                return f(*pack(values))
            # On the way back, perhaps in another thread, what was in force around the call is so no longer.
            return around.copy().run(f, *pack(_once_more(values)))

    return checkpoint(run, *leaves, use_reentrant=False, preserve_rng_state=not traced)


def _once_more(values: tuple[Any, ...]) -> list[Any]:
    number = next(_numbers)
    again = _again_copied if is_written_out() else _again

    def fresh(value: Any) -> Any:
        with torch.no_grad():
            made = again(value, number)
        return made.requires_grad_() if value.requires_grad else made

    return [value if value is None else fresh(value) for value in values]


CONTROL: dict[str, Callable[..., Any]] = {
    **control.UNROLLED,
    "while_loop": _while_loop,
    "cond_of": _cond_of,
    "rematerialized": _rematerialized,
}
