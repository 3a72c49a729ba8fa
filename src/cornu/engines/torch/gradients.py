"""Differentiation by PyTorch's autograd, and primitives with the language's own way back."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch

from cornu.autodiff.tape import pull_back
from cornu.core import context, tree
from cornu.ops._declare import Op

__all__ = ["by_rule", "shares", "value_and_grad"]

# How many differentiations this computation is within.
_depth: ContextVar[int] = ContextVar("cornu_torch_depth", default=0)


def value_and_grad(function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any]:
    """A function of a list of tensors that gives `((scalar, rest), gradients)` for `(scalar, rest)`.

    What is computed within another differentiation, or from tensors that a user's own autograd follows, stays
    differentiable.
    """

    def run(values: list[Any]) -> Any:
        followed = torch.is_grad_enabled()
        sources = [_source(value, followed) for value in values]
        token = _depth.set(_depth.get() + 1)
        try:
            with torch.enable_grad():
                value, rest = function(sources)
        finally:
            _depth.reset(token)
        keep = _depth.get() > 0 or (followed and _is_followed(value, values, sources))
        gradients = _gradients(value, sources, keep)
        if keep:
            return (value, rest), gradients
        return (_detached(value), tree.map_structure(_detached, rest)), gradients

    return run


def _source(value: Any, followed: bool) -> Any:
    """A tensor to differentiate for, still part of what is followed already."""
    return value.view_as(value) if followed and value.requires_grad else value.detach().requires_grad_()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) and value.requires_grad else value


def _gradients(value: Any, sources: list[Any], keep: bool) -> list[Any]:
    found: Any = [None] * len(sources)
    if sources and isinstance(value, torch.Tensor) and value.requires_grad:
        found = torch.autograd.grad(value, sources, create_graph=keep, allow_unused=True)
    # Autograd's own way to say "nothing" is a tensor without memory, which few functions take.
    return [
        torch.zeros_like(source, requires_grad=False) if gradient is None or gradient._is_zerotensor() else gradient
        for gradient, source in zip(found, sources, strict=True)
    ]


def shares(result: Any, sources: Any, needed: Any, gradients: Any, again: bool) -> list[Any]:
    """The gradients of the sources that are needed, `None` for the others.

    Args:
        result: what was computed from the sources: a tensor, or several.
        sources: tensors.
        needed: for each, whether its gradient is.
        gradients: of the result; `None` for a part that nobody looked at.
        again: whether they are to be differentiated in their turn.
    """
    wanted = [source for source, asked in zip(sources, needed, strict=True) if asked]
    if isinstance(result, (list, tuple)):
        pairs = [pair for pair in zip(result, gradients, strict=True) if pair[1] is not None]
        result, gradients = zip(*pairs, strict=True)
    found = iter(
        torch.autograd.grad(result, wanted, gradients, retain_graph=True, create_graph=again, allow_unused=True)
    )
    return [next(found) if asked else None for asked in needed]


def _is_followed(value: Any, values: list[Any], sources: list[Any]) -> bool:
    """Whether a result depends on a tensor that somebody else differentiates for: beside, or behind, the values."""
    if not isinstance(value, torch.Tensor) or value.grad_fn is None:
        return False
    if any(given.requires_grad and not given.is_leaf for given in values):
        return True
    own = {id(given) for given in (*values, *sources)}
    seen: set[Any] = set()
    pending: list[Any] = [value.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            return True
        pending.extend(before for before, _ in node.next_functions)
    return False


class _Ruled(torch.autograd.Function):
    """A primitive whose way back is the language's; differentiable again, since that way is made of ops."""

    @staticmethod
    def forward(ctx: Any, engine: Any, op: Op, static: dict[str, Any], names: tuple[str, ...], *values: Any) -> Any:
        result = engine.table[op.name](*values, **static)
        ctx.save_for_backward(*values, result)
        ctx.given = engine, op, static, names
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        engine, op, static, names = ctx.given
        *values, result = ctx.saved_tensors
        with context.use_engine(engine):
            shares = pull_back(op, dict(zip(names, values, strict=True)), static, result, gradients[0])
        return (None, None, None, None, *shares.values())


def by_rule(engine: Any, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
    """A primitive of one result on prepared arrays, with the language's gradient."""
    return _Ruled.apply(engine, op, static, tuple(arrays), *arrays.values())  # type: ignore[no-untyped-call]
