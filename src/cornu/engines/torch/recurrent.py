"""`lstm` and `gru` as PyTorch runs them fastest: by cuDNN; on CPUs an LSTM in float32 by oneDNN, a GRU by a loop.

ATen's own loop over a GRU's steps takes eleven ops for each and is no kernel: a trace writes it out, and autograd goes
back through every op. The loop here takes six, and its gradient ten.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from cornu.engines.torch import cudnn, parallel
from cornu.engines.torch.gradients import shares
from cornu.engines.torch.pieces import define
from cornu.ops._declare import operator

__all__ = ["TABLE"]

_LSTM = 2  # ATen's number of this kind of layer
_ATEN = torch.ops.aten
_TANH_BACK, _SIGMOID_BACK = _ATEN.tanh_backward.grad_input, _ATEN.sigmoid_backward.grad_input


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


def _is_followed(arrays: Any) -> bool:
    return torch.is_grad_enabled() and any(array is not None and array.requires_grad for array in arrays)


def _plain(*arrays: Any) -> list[Any]:
    """Tensors that autograd does not follow."""
    return [None if array is None else array.detach() for array in arrays]


def _turned(x: Any, reverse: bool) -> Any:
    return x.flip(0) if reverse else x


# ---------------------------------------------------------------- LSTM


# As operators of the house, which compilers leave alone: oneDNN's takes no notice of gaps in memory, and leaves out
# what its gradient needs where gradients are off, as in a trace. A batch of many rows is computed in parts, one in each
# thread: oneDNN's threads would wait for each other in every step.

_ROWS = 32  # of a part, at least
_UNITS = 4  # for each row of a part, at most: every thread reads all weights
_PRODUCTS = 100_000_000  # of a layer, at least: what it takes to hand parts to threads is some 0.1 ms


def _part_count(x: Any, units: int) -> int:
    """In how many parts of its rows a layer of PyTorch's is computed: one, or as many as there are threads."""
    steps, rows, features = x.shape
    threads = parallel.thread_count()
    worth = rows >= threads * max(_ROWS, units // _UNITS) and steps * rows * 4 * units * (features + units) > _PRODUCTS
    return threads if worth else 1


def _split(array: Any, axis: int, count: int) -> list[Any]:
    return [part.contiguous() for part in (array.tensor_split(count, axis) if count > 1 else [array])]


def _joined(parts: Sequence[Any], axis: int) -> Any:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), axis)


def _by_kind(parts: Iterable[Iterable[Any]]) -> list[Any]:
    """The first of what each part has, then the second of each, and so on."""
    return [array for kind in zip(*parts, strict=True) for array in kind]


def _kinds(arrays: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Of arrays by kind, those of each kind."""
    return [arrays[start : start + count] for start in range(0, len(arrays), count)]


def _by_part(arrays: Sequence[Any], count: int) -> list[tuple[Any, ...]]:
    """Of arrays by kind, those of each part."""
    return list(zip(*_kinds(arrays, count), strict=True))


def _computed(xs: Any, states: Any, carries: Any, weights: Any, followed: bool) -> list[Any]:
    """By kind: the states of all steps, the last state and carry, and what the gradient needs if it is `followed`."""
    weights = [array.detach().contiguous() for array in weights]

    def part(*arrays: Any) -> Any:
        x, state, carry = (array.detach().contiguous() for array in arrays)
        static: Any = (False, [], _LSTM, state.shape[1], 1, True, False, False, followed)
        with torch.set_grad_enabled(followed):
            found = _ATEN.mkldnn_rnn_layer(x, *weights, state, carry, *static)
        return [*(array.detach() for array in found[:3]), found[3].detach() if followed else _nothing(x)]

    return _by_kind(
        parallel.side_by_side([functools.partial(part, *given) for given in zip(xs, states, carries, strict=True)])
    )


def _nothing(x: Any) -> Any:
    return torch.empty((0,), dtype=torch.uint8, device=x.device)


def _shapes(xs: Any, states: Any, carries: Any, *_: Any) -> list[Any]:
    return _by_kind(
        [
            x.new_empty((*x.shape[:2], state.shape[1])),
            x.new_empty(state.shape),
            x.new_empty(carry.shape),
            _nothing(x),
        ]
        for x, state, carry in zip(xs, states, carries, strict=True)
    )


_layer = define(
    "lstm_layer(Tensor[] xs, Tensor[] states, Tensor[] carries, Tensor[] weights, bool followed) -> Tensor[]",
    _computed,
    _shapes,
)


def _computed_gradient(given: Any, weights: Any, result: Any, gradients: Any, workspaces: Any) -> list[Any]:
    """The gradients of all that is given, by kind, and those of the weights."""
    count = len(workspaces)
    weights = [array.detach().contiguous() for array in weights]

    def part(*arrays: Any) -> Any:
        x, state, carry, *others = (array.detach().contiguous() for array in arrays)
        static: Any = (False, _LSTM, state.shape[1], 1, True, True, False, [], False)
        found = _ATEN.mkldnn_rnn_layer_backward(x, *weights, state, carry, *others[:-1], *static, others[-1])
        return [found[0], *found[5:7], *found[1:4]]

    parts = _by_part([*given, *result, *gradients, *workspaces], count)
    found = _by_kind(parallel.side_by_side([functools.partial(part, *arrays) for arrays in parts]))
    kernel, recurrent_kernel, bias = (functools.reduce(torch.add, kind) for kind in _kinds(found[3 * count :], count))
    return [*found[: 3 * count], kernel, recurrent_kernel, bias, bias.clone()]


_layer_gradient = define(
    "lstm_layer_gradient(Tensor[] given, Tensor[] weights, Tensor[] result, Tensor[] gradients, Tensor[] workspaces) "
    "-> Tensor[]",
    _computed_gradient,
    lambda given, weights, *_: [array.new_empty(array.shape) for array in (*given, *weights)],
)


class _Followed(torch.autograd.Function):
    """The layer under autograd: of `count` parts the inputs, states and carries, then the weights."""

    @staticmethod
    def forward(context: Any, count: int, *arrays: Any) -> Any:
        given, weights = arrays[: 3 * count], arrays[3 * count :]
        found = _layer(*_kinds(given, count), weights, True)
        context.count = count
        context.save_for_backward(*arrays, *found)
        return tuple(found[: 3 * count])

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        count, saved = context.count, context.saved_tensors
        arrays, found = saved[: 3 * count + 4], saved[3 * count + 4 :]
        given, weights = arrays[: 3 * count], arrays[3 * count :]
        needed = context.needs_input_grad[1:]
        if torch.is_grad_enabled():  # to be differentiated again, which oneDNN's gradient cannot be
            composed = _by_kind(_composed_lstm(*part, *weights) for part in _by_part(given, count))
            return (None, *shares(composed, arrays, needed, gradients, True))
        found = _layer_gradient(given, weights, found[: 3 * count], list(gradients), found[3 * count :])
        return (None, *(share if wanted else None for share, wanted in zip(found, needed, strict=True)))


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
    # Without gaps, as the kernel and its gradient want it, once for both.
    zeros = x.new_zeros(kernel.shape[1])
    weights = [kernel.t().contiguous(), recurrent_kernel.t().contiguous(), zeros if bias is None else bias, zeros]
    x = _turned(x, reverse)
    count = _part_count(x, state.shape[1])
    given = [_split(array, axis, count) for array, axis in ((x, 1), (state, 0), (carry, 0))]
    if _is_followed(arrays):
        found = _Followed.apply(count, *(array for kind in given for array in kind), *weights)
    else:
        found = _layer(*given, weights, False)
    states, lasts, carries = _kinds(found, count)[:3]
    state, carry = _joined(lasts, 0), _joined(carries, 0)
    return (_turned(_joined(states, 1), reverse) if sequences else state), state, carry


# ---------------------------------------------------------------- GRU


def _by_reset(columns: Any) -> Any:
    """Columns `z, r, candidate` in PyTorch's order, `r, z, candidate`."""
    z, r, candidate = columns.chunk(3, -1)
    return torch.cat([r, z, candidate], -1)


def _computed_gru(
    x: Any, kernel: Any, recurrent_kernel: Any, bias: Any, state: Any, followed: bool
) -> tuple[Any, Any, Any]:
    """The states of all steps, and what the gradient needs if the layer is `followed`: of each step `z`, `r` and the
    state's product for the candidate, side by side, and the candidate."""
    x, kernel, recurrent_kernel, bias, state = _plain(x, kernel, recurrent_kernel, bias, state)
    (steps, rows), units = x.shape[:2], state.shape[1]
    with torch.no_grad():
        inputs = x.reshape(steps * rows, -1)
        projected = inputs @ kernel if bias is None else torch.addmm(bias[0], inputs, kernel)
        states = x.new_empty((steps, rows, units))
        kept = x.new_empty((steps if followed else 1, rows, 3 * units))
        candidates = x.new_empty((len(kept), rows, units))
        parts = [kept, kept[..., : 2 * units], *kept.split(units, -1), candidates]
        parts = [part.unbind(0) if followed else [part[0]] * steps for part in parts]
        columns = projected.view(steps, rows, -1).split((2 * units, units), -1)
        places = zip(states.unbind(0), *(part.unbind(0) for part in columns), *parts, strict=True)
        for after, for_gates, for_candidate, carried, gates, z, r, product, candidate in places:
            if bias is None:
                torch.mm(state, recurrent_kernel, out=carried)
            else:
                torch.addmm(bias[1], state, recurrent_kernel, out=carried)
            gates.add_(for_gates).sigmoid_()
            torch.addcmul(for_candidate, r, product, out=candidate).tanh_()
            state = torch.lerp(candidate, state, z, out=after)
    return (states, kept, candidates) if followed else (states, _nothing(x), _nothing(x))


_gru_layer = define(
    "gru_layer(Tensor x, Tensor kernel, Tensor recurrent_kernel, Tensor? bias, Tensor state, bool followed) "
    "-> (Tensor, Tensor, Tensor)",
    _computed_gru,
    lambda x, kernel, recurrent_kernel, bias, state, followed: (
        x.new_empty((x.shape[0], *state.shape)),
        x.new_empty((*x.shape[:2], recurrent_kernel.shape[1])) if followed else _nothing(x),
        x.new_empty((x.shape[0], *state.shape)) if followed else _nothing(x),
    ),
)


def _computed_gru_gradient(given: Any, bias: Any, result: Any, over_states: Any, over_last: Any) -> list[Any]:
    """The gradients of all that is given, the bias last, for those of the states and of the last state."""
    x, kernel, recurrent_kernel, state, states, kept, candidates = _plain(*given, *result)
    over_states, over_last = _plain(over_states, over_last)
    steps, rows, units = states.shape
    with torch.no_grad():
        # Over all products: of the state with the candidate's columns, for z, for r; of the input with the candidate's.
        over = x.new_empty((steps, rows, 4 * units))
        back = recurrent_kernel.roll(units, 1).t()
        before = torch.cat([state[None], states[:-1]])
        raw = x.new_empty((rows, 2 * units))
        for_z, for_r = raw.split(units, -1)
        views = [*kept.split(units, -1), kept[..., : 2 * units], candidates, before]
        views += [over[..., : 3 * units], over[..., :units], over[..., units : 3 * units], over[..., 3 * units :]]
        places = list(zip(*(view.unbind(0) for view in views), strict=True))
        later = torch.zeros_like(state) if over_last is None else over_last
        for step in reversed(range(steps)):
            z, r, product, gates, candidate, earlier, carried, of_product, of_gates, of_candidate = places[step]
            here = later if over_states is None else later + over_states[step]
            through = here * z
            _TANH_BACK(here - through, candidate, grad_input=of_candidate)
            torch.mul(of_candidate, product, out=for_r)
            torch.mul(here, earlier - candidate, out=for_z)
            _SIGMOID_BACK(raw, gates, grad_input=of_gates)
            torch.mul(of_candidate, r, out=of_product)
            later = torch.addmm(through, carried, back)
        over = over.view(steps * rows, -1)
        of_inputs, of_states = over[:, units:], over[:, : 3 * units]
        shares = [
            (of_inputs @ kernel.t()).view(x.shape),
            x.reshape(steps * rows, -1).t() @ of_inputs,
            (before.view(steps * rows, -1).t() @ of_states).roll(-units, 1),
            later,
        ]
        if bias is not None:
            sums = over.sum(0)
            shares.append(torch.stack([sums[units:], sums[: 3 * units].roll(-units, 0)]))
    return shares


_gru_layer_gradient = define(
    "gru_layer_gradient(Tensor[] given, Tensor? bias, Tensor[] result, Tensor? over_states, Tensor? over_last) "
    "-> Tensor[]",
    _computed_gru_gradient,
    lambda given, bias, *_: [array.new_empty(array.shape) for array in (*given, *([] if bias is None else [bias]))],
)


class _FollowedGru(torch.autograd.Function):
    """The layer under autograd: the states, and the last one."""

    @staticmethod
    def forward(context: Any, *given: Any) -> Any:
        states, *kept = _gru_layer(*given, True)
        context.save_for_backward(*given, states, *kept)
        context.set_materialize_grads(False)
        return states, states[-1].clone()

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        (x, kernel, recurrent_kernel, bias, state), kept = context.saved_tensors[:5], context.saved_tensors[5:]
        needed = context.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again
            result = operator("gru").body(x, kernel, recurrent_kernel, state, bias, reverse=False, sequences=True)
            return tuple(shares(result, (x, kernel, recurrent_kernel, bias, state), needed, gradients, True))
        found = _gru_layer_gradient([x, kernel, recurrent_kernel, state], bias, kept, *gradients)
        found = [*found[:3], None if bias is None else found[4], found[3]]
        return tuple(share if wanted else None for share, wanted in zip(found, needed, strict=True))


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
    given = (_turned(x, reverse), kernel, recurrent_kernel, bias, state)
    if _is_followed(arrays):
        states, last = _FollowedGru.apply(*given)
    else:
        states, *_ = _gru_layer(*given, False)
        last = states[-1]
    return (_turned(states, reverse) if sequences else last), last


TABLE: dict[str, Callable[..., Any]] = {"lstm": _lstm, "gru": _gru}
