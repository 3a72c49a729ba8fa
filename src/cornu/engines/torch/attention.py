"""Attention by PyTorch's fused kernels, which keep no scores; where these are few, by matrix products."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cornu.engines.torch.arrays import in_trace
from cornu.engines.torch.gradients import shares
from cornu.ops._declare import operator

__all__ = ["TABLE"]

_ATEN = torch.ops.aten
# So many scores a head are learnt from faster by matrix products; measured on a CPU.
_FEW = 128 * 128
# The language's product for what a query may not see.
_UNSEEN = -0.7 * 3.4028234663852886e38


def _has_kernel(arrays: Any) -> bool:
    """Whether the kernels take these tensors: on a CPU of full width, neither followed forwards nor batched."""
    return all(
        array.ndim == 4
        and array.numel() > 0
        and (array.dtype in (torch.float32, torch.float64) if array.device.type == "cpu" else array.is_cuda)
        and not torch._C._functorch.is_functorch_wrapped_tensor(array)
        and torch.autograd.forward_ad.unpack_dual(array).tangent is None
        for array in arrays
    )


def _fused(query: Any, key: Any, value: Any, scale: float, causal: bool) -> Any:
    query, key, value = (array.transpose(1, 2) for array in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale).transpose(1, 2)


class _Followed(torch.autograd.Function):
    """The fused attention under autograd; its gradient, to be differentiated again, is that of the matrix products."""

    @staticmethod
    def forward(context: Any, query: Any, key: Any, value: Any, scale: float, causal: bool) -> Any:
        given = (query, key, value)
        context.static = scale, causal
        if query.device.type == "cpu":
            turned = [array.transpose(1, 2) for array in given]
            result, sums = _ATEN._scaled_dot_product_flash_attention_for_cpu(*turned, 0.0, causal, scale=scale)
            context.save_for_backward(*given, result, sums)
            return result.transpose(1, 2)
        # Which kernel serves is PyTorch's choice; so is its gradient.
        with torch.enable_grad():
            context.inside = inside = [array.detach().requires_grad_() for array in given]
            context.result = _fused(inside[0], inside[1], inside[2], scale, causal)
        context.save_for_backward(*given)
        return context.result.detach()

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        if gradient.device.type == "cpu":
            return _gradients(context, gradient, _cpu_gradient)
        needed = context.needs_input_grad[:3]
        return _gradients(context, gradient, lambda *_: shares(context.result, context.inside, needed, gradient, False))


def _cpu_gradient(context: Any, gradient: Any) -> list[Any]:
    *given, result, sums = context.saved_tensors
    scale, causal = context.static
    turned = [array.transpose(1, 2) for array in (gradient, *given)]
    found = _ATEN._scaled_dot_product_flash_attention_for_cpu_backward(*turned, result, sums, 0.0, causal, scale=scale)
    return [share.transpose(1, 2) for share in found]


def _in_rows(array: Any) -> Any:
    """A matrix `(time, size)` for each head of each element of a batch."""
    return array.transpose(1, 2).reshape(-1, array.shape[1], array.shape[3])


def _in_heads(rows: Any, like: Any) -> Any:
    """The way back from `_in_rows`, with the batch and the heads of an array."""
    return rows.view(like.shape[0], like.shape[2], *rows.shape[1:]).transpose(1, 2).contiguous()


class _Learnt(torch.autograd.Function):
    """Attention by matrix products under autograd: those that its gradient needs, which scale in passing."""

    @staticmethod
    def forward(context: Any, query: Any, key: Any, value: Any, scale: float, causal: bool) -> Any:
        given = (query, key, value)
        rows = q, k, v = [_in_rows(array) for array in given]
        context.static = scale, causal
        unseen = q.new_zeros((1, 1, 1))
        if causal:  # each query sees one key at least, so that nothing flows back through the others
            unseen = unseen.masked_fill(_seen(query, key, None, True).logical_not(), _UNSEEN)
        logits = torch.baddbmm(unseen, q, k.transpose(1, 2), beta=int(causal), alpha=scale)
        weights = torch.softmax(logits, -1)
        context.save_for_backward(*given, *rows, weights)
        return _in_heads(torch.bmm(weights, v), query)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        return _gradients(context, gradient, _learnt_gradient)


def _learnt_gradient(context: Any, gradient: Any) -> list[Any]:
    query, _, _, q, k, v, weights = context.saved_tensors
    scale, _ = context.static
    over = _in_rows(gradient)
    back = torch.bmm(over, v.transpose(1, 2))
    back = _ATEN._softmax_backward_data(back, weights, -1, back.dtype)
    nothing = back.new_zeros((1, 1, 1))
    rows = (
        torch.baddbmm(nothing, back, k, beta=0, alpha=scale),
        torch.baddbmm(nothing, back.transpose(1, 2), q, beta=0, alpha=scale),
        torch.bmm(weights.transpose(1, 2), over),
    )
    return [_in_heads(share, query) for share in rows]


def _gradients(context: Any, gradient: Any, once: Callable[[Any, Any], list[Any]]) -> Any:
    """Those that are needed, as autograd takes them: to be differentiated again, those of the matrix products."""
    query, key, value = given = context.saved_tensors[:3]
    needed = context.needs_input_grad[:3]
    if torch.is_grad_enabled():
        scale, causal = context.static
        result = _by_products(query, key, value, _seen(query, key, None, causal), scale)
        found = shares(result, given, needed, gradient, True)
    else:
        found = once(context, gradient)
    return *(share if wanted else None for share, wanted in zip(found, needed, strict=True)), None, None


def _by_products(query: Any, key: Any, value: Any, seen: Any, scale: float) -> Any:
    logits = torch.matmul((query * scale).transpose(1, 2), key.permute(0, 2, 3, 1))
    if seen is not None:
        logits = torch.where(seen, logits, _UNSEEN)
    return torch.matmul(torch.softmax(logits, -1), value.transpose(1, 2)).transpose(1, 2)


def _seen(query: Any, key: Any, mask: Any, causal: bool) -> Any:
    """Where a query may see, or `None`."""
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(torch.bool)
    if not causal:
        return mask
    past = torch.ones((query.shape[1], key.shape[1]), dtype=torch.bool, device=query.device).tril()
    return past if mask is None else torch.logical_and(mask, past)


def _dot_product_attention(
    query: Any, key: Any, value: Any, bias: Any, mask: Any, scale: Any, is_causal: Any, **rest: Any
) -> Any:
    arrays = (query, key, value)
    plain = bias is None and not any(rest.values()) and (mask is None or not mask.is_floating_point())
    if not plain or not isinstance(scale, float | None) or not _has_kernel(arrays) or key.shape[2] != query.shape[2]:
        composed = operator("dot_product_attention").body
        return composed(*arrays, bias, mask, scale=scale, is_causal=is_causal, **rest)
    scale = query.shape[3] ** -0.5 if scale is None else scale
    causal = bool(is_causal)
    followed = torch.is_grad_enabled() and any(array.requires_grad for array in arrays)
    few = followed and in_trace() and query.shape[1] * key.shape[1] < _FEW
    fits = query.device.type != "cpu" or (value.shape[3] == query.shape[3] and not few)
    if few and mask is None and query.device.type == "cpu":
        return _Learnt.apply(*arrays, scale, causal)
    if mask is not None or not fits:
        return _by_products(*arrays, _seen(query, key, mask, causal), scale)
    return _Followed.apply(*arrays, scale, causal) if followed else _fused(*arrays, scale, causal)


TABLE: dict[str, Callable[..., Any]] = {"dot_product_attention": _dot_product_attention}
