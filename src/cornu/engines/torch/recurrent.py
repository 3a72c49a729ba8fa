"""`lstm` and `gru` by PyTorch's own kernels: cuDNN's; on CPUs oneDNN's for an LSTM in float32, ATen's for a GRU."""

from collections.abc import Callable
from typing import Any

import torch

from cornu.engines.torch import cudnn
from cornu.engines.torch.gradients import shares
from cornu.engines.torch.pieces import define
from cornu.ops._declare import operator

__all__ = ["TABLE"]

_LSTM = 2  # ATen's number of this kind of layer
_ATEN = torch.ops.aten


def _has_kernel(arrays: Any, *kinds: torch.dtype) -> bool:
    """Whether PyTorch's kernels take these tensors: on a CPU, of such dtypes, not followed forwards or batched."""
    return all(
        array is None
        or (
            array.device.type == "cpu"
            and array.dtype in kinds
            and array.numel() > 0
            and not torch._C._functorch.is_functorch_wrapped_tensor(array)
            and torch.autograd.forward_ad.unpack_dual(array).tangent is None
        )
        for array in arrays
    )


def _turned(x: Any, reverse: bool) -> Any:
    return x.flip(0) if reverse else x


# ---------------------------------------------------------------- LSTM


# As operators of the house, which compilers leave alone: oneDNN's takes no notice of gaps in memory, and leaves out
# what its gradient needs where gradients are off, as in a trace.


def _computed(
    x: Any, kernel: Any, recurrent_kernel: Any, bias: Any, zeros: Any, state: Any, carry: Any, followed: bool
) -> tuple[Any, Any, Any, Any]:
    """The states of all steps, the last state and carry, and what the gradient needs if the layer is `followed`."""
    given = [array.detach().contiguous() for array in (x, kernel, recurrent_kernel, bias, zeros, state, carry)]
    with torch.set_grad_enabled(followed):
        found = _ATEN.mkldnn_rnn_layer(*given, False, [], _LSTM, state.shape[1], 1, True, False, False, followed)
    states, last, carry = (array.detach() for array in found[:3])
    return states, last, carry, found[3].detach() if followed else _nothing(x)


def _nothing(x: Any) -> Any:
    return torch.empty((0,), dtype=torch.uint8, device=x.device)


def _shapes(x: Any, kernel: Any, recurrent_kernel: Any, bias: Any, zeros: Any, state: Any, carry: Any, _: Any) -> Any:
    states = x.new_empty((*x.shape[:2], state.shape[1]))
    return states, states.new_empty(state.shape), states.new_empty(carry.shape), _nothing(x)


_layer = define(
    "lstm_layer(Tensor x, Tensor kernel, Tensor recurrent_kernel, Tensor bias, Tensor zeros, Tensor state, "
    "Tensor carry, bool followed) -> (Tensor, Tensor, Tensor, Tensor)",
    _computed,
    _shapes,
)


def _computed_gradient(given: Any, result: Any, gradients: Any, workspace: Any) -> list[Any]:
    """The gradients of all that is given."""
    dense = [array.detach().contiguous() for array in (*given, *result, *gradients)]
    static: Any = (False, _LSTM, given[-1].shape[1], 1, True, True, False, [], False)
    x, kernel, recurrent_kernel, bias, _, *states = _ATEN.mkldnn_rnn_layer_backward(*dense, *static, workspace)
    return [x, kernel, recurrent_kernel, bias, bias.clone(), *states]


_layer_gradient = define(
    "lstm_layer_gradient(Tensor[] given, Tensor[] result, Tensor[] gradients, Tensor workspace) -> Tensor[]",
    _computed_gradient,
    lambda given, result, gradients, workspace: [array.new_empty(array.shape) for array in given],
)


class _Followed(torch.autograd.Function):
    """The layer under autograd."""

    @staticmethod
    def forward(context: Any, *given: Any) -> Any:
        *result, workspace = _layer(*given, True)
        context.save_for_backward(*given, *result, workspace)
        return tuple(result)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        *arrays, workspace = context.saved_tensors
        given, result = arrays[:7], arrays[7:]
        if torch.is_grad_enabled():  # to be differentiated again, which oneDNN's gradient cannot be
            x, *weights, state, carry = given
            composed = _composed_lstm(x, state, carry, *weights)
            return tuple(shares(composed, given, context.needs_input_grad, gradients, True))
        found = _layer_gradient(given, result, list(gradients), workspace)
        return tuple(share if wanted else None for share, wanted in zip(found, context.needs_input_grad, strict=True))


def _composed_lstm(x: Any, state: Any, carry: Any, kernel: Any, recurrent_kernel: Any, bias: Any, zeros: Any) -> Any:
    arrays = (x, kernel.t(), recurrent_kernel.t(), state, carry, bias + zeros)
    return operator("lstm").body(*arrays, reverse=False, sequences=True)


def _lstm(
    x: Any, kernel: Any, recurrent_kernel: Any, state: Any, carry: Any, bias: Any, reverse: bool, sequences: bool
) -> Any:
    arrays = (x, kernel, recurrent_kernel, state, carry, bias)
    if cudnn.fits(arrays):
        zeros = x.new_zeros(kernel.shape[1])
        weights = [kernel.t(), recurrent_kernel.t(), zeros if bias is None else bias, zeros]
        states, state, carry = cudnn.layer(_composed_lstm, _turned(x, reverse), weights, state, carry)
        return (_turned(states, reverse) if sequences else state), state, carry
    if not torch.backends.mkldnn.is_available() or not _has_kernel(arrays, torch.float32):
        return operator("lstm").body(*arrays, reverse=reverse, sequences=sequences)
    zeros = x.new_zeros(kernel.shape[1])
    weights = [kernel.t(), recurrent_kernel.t(), zeros if bias is None else bias, zeros]
    x = _turned(x, reverse)
    if torch.is_grad_enabled() and any(array is not None and array.requires_grad for array in arrays):
        states, state, carry = _Followed.apply(x, *weights, state, carry)
    else:
        states, state, carry, _ = _layer(x, *weights, state, carry, False)
    return (_turned(states, reverse) if sequences else state), state, carry


# ---------------------------------------------------------------- GRU


def _by_reset(columns: Any) -> Any:
    """Columns `z, r, candidate` in PyTorch's order, `r, z, candidate`."""
    z, r, candidate = columns.chunk(3, -1)
    return torch.cat([r, z, candidate], -1)


def _composed_gru(x: Any, state: Any, kernel: Any, recurrent_kernel: Any, bias: Any, recurrent_bias: Any) -> Any:
    weights = (_by_reset(kernel.t()), _by_reset(recurrent_kernel.t()))
    biases = torch.stack([_by_reset(bias), _by_reset(recurrent_bias)])
    return operator("gru").body(x, *weights, state, biases, reverse=False, sequences=True)


def _gru(x: Any, kernel: Any, recurrent_kernel: Any, state: Any, bias: Any, reverse: bool, sequences: bool) -> Any:
    arrays = (x, kernel, recurrent_kernel, state, bias)
    if cudnn.fits(arrays):
        zeros = x.new_zeros(kernel.shape[1])
        weights = [_by_reset(kernel).t(), _by_reset(recurrent_kernel).t()]
        weights += [zeros, zeros] if bias is None else list(_by_reset(bias))
        states, last, _ = cudnn.layer(_composed_gru, _turned(x, reverse), weights, state, None)
        return (_turned(states, reverse) if sequences else last), last
    if not _has_kernel(arrays, torch.float32, torch.float64):
        return operator("gru").body(*arrays, reverse=reverse, sequences=sequences)
    followed = torch.is_grad_enabled() and any(array is not None and array.requires_grad for array in arrays)
    weights = [_by_reset(kernel).t(), _by_reset(recurrent_kernel).t()]
    weights += [] if bias is None else list(_by_reset(bias))
    x = _turned(x, reverse)
    states, last = torch.gru(x, state[None], weights, bias is not None, 1, 0.0, followed, False, False)
    return (_turned(states, reverse) if sequences else last[0]), last[0]


TABLE: dict[str, Callable[..., Any]] = {"lstm": _lstm, "gru": _gru}
