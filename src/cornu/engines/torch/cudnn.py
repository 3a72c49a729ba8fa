"""LSTM and GRU by cuDNN on NVIDIA's GPUs, as operators of the house: PyTorch's own have no gradient on stand-ins.

Source: `_cudnn_rnn` of https://github.com/pytorch/pytorch, aten/src/ATen/native/native_functions.yaml.
"""

from collections.abc import Callable
from typing import Any

import torch

from cornu.engines.torch.gradients import shares
from cornu.engines.torch.pieces import define

__all__ = ["fits", "layer"]

_LSTM, _GRU = 2, 3  # ATen's numbers of these kinds of layer
_ATEN = torch.ops.aten
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def fits(arrays: Any) -> bool:
    """Whether cuDNN takes these tensors (and `None`): on a GPU, of one dtype, neither batched nor followed forwards."""
    given = [array for array in arrays if array is not None]
    return (
        all(array.is_cuda and array.numel() > 0 for array in given)
        and len({array.dtype for array in given}) == 1
        and given[0].dtype in _FLOATS
        and torch.backends.cudnn.is_available()
        and torch.backends.cudnn.enabled
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(array) for array in given)
        and all(torch.autograd.forward_ad.unpack_dual(array).tangent is None for array in given)
    )


def _kind(carry: Any, state: Any) -> tuple[Any, ...]:
    """Kind, units, and what is the same for all of ours: no projection, one layer, time first, no dropout."""
    return _GRU if carry is None else _LSTM, state.shape[1], 0, 1, False


def _flat(x: Any, weights: list[Any], kind: tuple[Any, ...]) -> Any:
    """The weights as cuDNN keeps them, in one piece."""
    return _ATEN._cudnn_rnn_flatten_weight([weight.clone() for weight in weights], 4, x.shape[2], *kind, False)


def _dense(arrays: Any) -> list[Any]:
    return [None if array is None else array.detach().contiguous() for array in arrays]


def _computed(x: Any, weights: list[Any], state: Any, carry: Any, followed: bool) -> tuple[Any, ...]:
    """The states of all steps, the last state and carry, and what the gradient needs if the layer is `followed`."""
    x, state, carry, *weights = _dense((x, state, carry, *weights))
    kind = _kind(carry, state)
    states, last, last_carry, workspace, _ = _ATEN._cudnn_rnn(
        x, weights, 4, _flat(x, weights, kind), state[None], None if carry is None else carry[None],
        *kind, 0.0, followed, False, [], None,
    )  # fmt: skip
    return states, last[0], state.new_empty((0,)) if carry is None else last_carry[0], workspace


def _shapes(x: Any, weights: Any, state: Any, carry: Any, followed: bool) -> tuple[Any, ...]:
    last_carry = state.new_empty((0,) if carry is None else carry.shape)
    nothing = torch.empty((0,), dtype=torch.uint8, device=x.device)
    return x.new_empty((*x.shape[:2], state.shape[1])), state.new_empty(state.shape), last_carry, nothing


_layer = define(
    "cudnn_layer(Tensor x, Tensor[] weights, Tensor state, Tensor? carry, bool followed) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _computed,
    _shapes,
)


def _computed_gradient(given: Any, weights: Any, states: Any, gradients: Any, workspace: Any) -> list[Any]:
    """The gradients of the inputs, the first state, the carry if there is one, and the weights."""
    x, state, *rest = _dense(given)
    carry = rest[0] if rest else None
    weights, gradients = _dense(weights), _dense(gradients)
    kind = _kind(carry, state)
    by_x, by_state, by_carry, by_weights = _ATEN._cudnn_rnn_backward(
        x, weights, 4, _flat(x, weights, kind), state[None], None if carry is None else carry[None],
        states.detach().contiguous(), gradients[0], gradients[1][None], gradients[2][None] if rest else None,
        *kind, 0.0, True, False, [], None, workspace, [True, True, carry is not None, True],
    )  # fmt: skip
    return [by_x, by_state[0], *([by_carry[0]] if rest else []), *(part.clone() for part in by_weights)]


_layer_gradient = define(
    "cudnn_layer_gradient(Tensor[] given, Tensor[] weights, Tensor states, Tensor[] gradients, Tensor workspace) "
    "-> Tensor[]",
    _computed_gradient,
    lambda given, weights, states, gradients, workspace: [a.new_empty(a.shape) for a in (*given, *weights)],
)


class _Followed(torch.autograd.Function):
    """The layer under autograd."""

    @staticmethod
    def forward(context: Any, composed: Any, count: int, *arrays: Any) -> Any:
        given, weights = arrays[:count], list(arrays[count:])
        states, last, carry, workspace = _layer(given[0], weights, given[1], given[2] if count == 3 else None, True)
        context.composed, context.count = composed, count
        context.save_for_backward(*arrays, states, workspace)
        return (states, last, carry) if count == 3 else (states, last)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        *arrays, states, workspace = context.saved_tensors
        needed = context.needs_input_grad[2:]
        if torch.is_grad_enabled():  # to be differentiated again, which cuDNN's gradient cannot be
            return None, None, *shares(context.composed(*arrays), arrays, needed, gradients, True)
        count = context.count
        found = _layer_gradient(arrays[:count], arrays[count:], states, list(gradients), workspace)
        return None, None, *(share if wanted else None for share, wanted in zip(found, needed, strict=True))


def layer(
    composed: Callable[..., Any], x: Any, weights: list[Any], state: Any, carry: Any | None
) -> tuple[Any, Any, Any]:
    """The states of all steps, the last state, and the last carry (`None` without one).

    Args:
        composed: of the inputs, the state, the carry if there is one, and the weights, gives the same by other ops.
        x: `(time, batch, features)`.
        weights: as PyTorch has them: `(gates, features)`, `(gates, units)`, and two biases `(gates,)`.
        state: `(batch, units)`.
        carry: `(batch, units)` for an LSTM, `None` for a GRU.
    """
    given = [x, state, *([] if carry is None else [carry])]
    if torch.is_grad_enabled() and any(array.requires_grad for array in (*given, *weights)):
        states, last, *rest = _Followed.apply(composed, len(given), *given, *weights)
    else:
        states, last, *rest = _layer(x, weights, state, carry, False)
    return states, last, rest[0] if carry is not None else None
