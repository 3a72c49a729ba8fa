"""Kernels and matrices that are known beforehand, laid out as they are read fastest.

A normalisation of known numbers that follows, as a batch normalisation's while a model predicts, becomes part of them.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.early import Early
from cornu.engines.torch.nodes import call, only_user, put
from cornu.engines.torch.products import is_by_channel, source_of

__all__ = ["lay"]

_aten = torch.ops.aten
_mkldnn: Any = torch.ops.mkldnn
# Multiplications from which on oneDNN takes less time with a packed matrix, or kernel.
_WORK, _KERNEL_WORK = 10_000_000, 8_000_000
_NARROW = 4  # times as many rows as columns has a matrix that one row is multiplied by faster column by column


def lay(traced: GraphModule, known: set[Node], room: int) -> None:
    """Lay kernels and matrices out for what reads them.

    Args:
        traced: a graph.
        known: its nodes that are computed beforehand; new ones are added.
        room: how many bytes what is laid out anew may take.
    """
    for node in list(traced.graph.nodes):
        if node.target is _aten.convolution.default:
            kernel, lay_out = node.args[1], _lay_kernel
        elif node.target in (_aten.mm.default, _aten.addmm.default) and not node.kwargs:
            kernel, lay_out = node.args[-1], _lay_matrix
        else:
            continue
        if kernel not in known or node in known:
            continue
        size = kernel.meta["val"].nbytes
        if size > room:
            continue
        early = Early(traced, known)
        scaled = _scaled(early, node)
        if lay_out(early, scaled) or scaled is not node:
            room -= size
    traced.graph.eliminate_dead_code()


def _shows(seen: Any, node: Node) -> bool:
    """Whether a node is a product, or a view of it, that nobody else looks at."""
    return source_of(seen, biased=True) is node


# ---------------------------------------------------------------- numbers


def _scaled(early: Early, node: Any) -> Node:
    """A convolution, or a product, of which known factors and sums for each channel that come after it are part."""
    seen = node
    user = only_user(node)
    if _shows(user, node):
        seen, user = user, only_user(user)
    if getattr(user, "target", None) is not _aten.addcmul.default or user.kwargs:
        return node
    shift, *factors = user.args
    if not _shows(seen, node) or seen not in factors:
        return node
    scale = factors[1 - factors.index(seen)]
    if not all(part in early.known and is_by_channel(part, seen, node) for part in (shift, scale)):
        return node
    is_convolution = node.target is _aten.convolution.default
    if is_convolution:
        x, kernel, bias, *sizes = node.args
        is_transposed = sizes[3]
    else:
        *added, x, kernel = node.args
        bias = added[0] if added else None
        is_transposed = False
    if is_transposed or (bias is not None and (bias not in early.known or bias.meta["val"].ndim != 1)):
        return node
    shift, scale = (early.call(user, _aten.view.default, part, [-1]) for part in (shift, scale))
    if bias is not None:
        shift = early.call(user, _aten.addcmul.default, shift, bias, scale)
    if is_convolution:
        scale = early.call(user, _aten.view.default, scale, [-1] + [1] * (node.meta["val"].ndim - 1))
    kernel = early.call(user, _aten.mul.Tensor, kernel, scale)
    if is_convolution:
        return put(early.graph, user, node.target, (x, kernel, shift, *sizes), node, seen)
    return put(early.graph, user, _aten.addmm.default, (shift, x, kernel), node, seen)


# ---------------------------------------------------------------- layouts


def _lay_kernel(early: Early, node: Any) -> bool:
    """Have the kernel of a convolution as PyTorch's own (oneDNN) takes it: packed, or beside channels last."""
    x, kernel, bias, strides, padding, dilation, is_transposed, _, groups = node.args
    like = kernel.meta["val"]
    if kernel.op != "call_function" or like.ndim != 4 or like.device.type != "cpu":
        return False
    # Such kernels give results with channels last, which what comes after must have been traced for.
    if not all(part.meta["val"].is_contiguous(memory_format=torch.channels_last) for part in (x, node)):
        return False
    work = node.meta["val"].numel() * like.numel() // len(like)
    if is_transposed or not _packs("_convolution_pointwise") or like.dtype != torch.float32 or work < _KERNEL_WORK:
        order: dict[str, Any] = {"memory_format": torch.channels_last}
        node.update_arg(1, early.call(node, _aten.clone.default, kernel, **order))
        return True
    sizes = padding, strides, dilation, groups
    reorder = _mkldnn._reorder_convolution_weight.default
    packed = early.call(node, reorder, kernel, *sizes, list(x.meta["val"].shape), like=like.contiguous())
    # Not with ReLU, of which oneDNN's gives 0 for NaN.
    seen: Any = only_user(node)
    add: Any = only_user(seen) if _shows(seen, node) else None
    other = _beside(early, add, seen)
    if other is None:
        put(early.graph, node, _mkldnn._convolution_pointwise.default, (x, packed, bias, *sizes, "none", [], ""))
    else:
        given: Any = x, other, packed, bias, *sizes, "add", None, None, [], None
        put(early.graph, add, _mkldnn._convolution_pointwise.binary, given, node, seen)
    return True


def _beside(early: Early, add: Any, seen: Any) -> Any:
    """What is added to a convolution's result, in its order of axes and memory; `None` if nothing of the kind is."""
    if getattr(add, "target", None) is not _aten.add.Tensor or add.kwargs or seen not in add.args:
        return None
    other = add.args[1 - add.args.index(seen)]
    meta, like = other.meta.get("val") if isinstance(other, Node) else None, seen.meta["val"]
    if not isinstance(meta, torch.Tensor) or (meta.shape, meta.dtype) != (like.shape, like.dtype):
        return None
    if other is seen or not (meta.is_contiguous() and like.is_contiguous()):
        return None
    if other.target is seen.target and other.args[1] == seen.args[1]:
        return other.args[0]
    with early.graph.inserting_before(add):
        return call(early.graph, _aten.permute.default, other, [0, 3, 1, 2])


def _packs(name: str) -> bool:
    """Whether oneDNN is there, with an operator."""
    return torch.backends.mkldnn.is_available() and hasattr(_mkldnn, name)


def _lay_matrix(early: Early, node: Any) -> bool:
    """Have the matrix of a product as it is read fastest.

    That of a large product is packed as oneDNN has it; that of one row with few columns lies column by column.
    """
    *added, x, matrix = node.args
    bias = added[0] if added else None
    rows, like = x.meta["val"], matrix.meta["val"]
    fits = (like.dtype, like.device.type) == (torch.float32, "cpu") and rows.is_contiguous()
    if not fits or (bias is not None and bias.meta["val"].ndim != 1):
        return False
    is_large = _packs("_linear_pointwise") and len(rows) * like.numel() >= _WORK
    is_narrow = len(rows) == 1 and len(like) >= _NARROW * like.shape[1] and like.is_contiguous()
    if not (is_large or is_narrow):
        return False
    columns = early.call(node, _aten.contiguous.default, early.call(node, _aten.t.default, matrix))
    if is_large:
        packed = early.call(node, _mkldnn._reorder_linear_weight.default, columns, len(rows), like=columns.meta["val"])
        put(early.graph, node, _mkldnn._linear_pointwise.default, (x, packed, bias, "none", [], ""))
    else:
        node.args = (*added, x, early.call(node, _aten.t.default, columns))
    return True
