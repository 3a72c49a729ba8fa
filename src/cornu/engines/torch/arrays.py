"""Tensors from host arrays and back, dtypes, and what tells a stand-in from a tensor with elements."""

import contextlib
import functools
import weakref
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from cornu.core import dtypes
from cornu.core.errors import UnsupportedError

__all__ = [
    "DTYPES", "NeedsValue", "broadcast_shape", "can_be_lent", "constant_of", "device", "from_host", "in_trace",
    "is_known_number", "is_stand_in", "lent_place", "outside_traces", "own_places", "to_host", "together",
]  # fmt: skip

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in dtypes.ALL}

_LARGE = 1 << 18  # bytes from which on a copy is shared between threads
_lent: dict[int, Any] = {}  # by their ids, weak references to the places that lie in somebody else's memory
_BFLOAT16 = dtypes.numpy_dtype("bfloat16")


class NeedsValue(UnsupportedError):
    """Something asked for the elements of a value that is not known yet."""


def is_stand_in(value: Any) -> bool:
    """Whether a tensor has a shape and a dtype, but no elements."""
    return isinstance(value, FakeTensor) or value.device.type == "meta"


def is_known_number(value: Any) -> bool:
    """Whether something is one number that is known, and that nobody differentiates for."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.requires_grad and not is_stand_in(value)
    if isinstance(value, (list, tuple)):
        return all(map(is_known_number, value))
    return isinstance(value, (bool, int, float, np.generic)) or (isinstance(value, np.ndarray) and value.size == 1)


def in_trace() -> bool:
    """Whether what is computed here and now goes into a trace."""
    return _get_current_dispatch_mode() is not None


def outside_traces() -> Any:
    """A block whose operations are computed at once, also while a function is being traced."""
    return _disable_current_modes() if in_trace() else contextlib.nullcontext()


def constant_of(value: Any) -> Any:
    """The number in a tensor without axes, or `None` if it is not known yet or has a gradient."""
    if is_stand_in(value) or value.requires_grad:
        return None
    with outside_traces():
        return value.item()


def broadcast_shape(*shapes: Any) -> tuple[Any, ...]:
    """The shape that arrays of these shapes have together."""
    if all(type(size) is int for shape in shapes for size in shape):
        return np.broadcast_shapes(*shapes)
    return torch.broadcast_shapes(*shapes)  # imports `sympy`, which takes half a second


@functools.cache
def _best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device() -> torch.device:
    """Where values live: on what `torch.set_default_device` says, else on a GPU that CUDA sees, as in Keras."""
    if torch._C._len_torch_function_stack():  # to look into it takes long
        for mode in reversed(_get_current_function_mode_stack()):
            if isinstance(mode, DeviceContext):
                return mode.device
    return _best_device()


def together(values: Any) -> Any:
    """A structure of values with the tensors of the CPU brought to where values live."""
    place = device()
    return values if place.type == "cpu" else _brought(values, place)


def _brought(values: Any, place: torch.device) -> Any:
    if isinstance(values, torch.Tensor):
        return values.to(place) if values.device.type == "cpu" else values
    if isinstance(values, dict):
        return {name: _brought(value, place) for name, value in values.items()}
    return [_brought(value, place) for value in values] if isinstance(values, (list, tuple)) else values


def from_host(value: np.ndarray) -> Any:
    """A host array as a tensor where new values live, in memory of its own."""
    # Always a copy: whoever holds the array, or one it is a view of, may write to it.
    host = _copied(value)
    if not host.dtype.isnative:
        host = host.astype(host.dtype.newbyteorder("="))
    if torch.is_inference_mode_enabled():
        # A variable keeps what it gets, for when gradients are wanted too.
        with torch.inference_mode(False), outside_traces():
            return _placed(host)
    if in_trace():
        with outside_traces():
            return _placed(host)
    return _placed(host)


def can_be_lent(value: Any) -> bool:
    """Whether something is a host array whose memory can be read as a tensor where new values live."""
    if type(value) is not np.ndarray or value.dtype not in dtypes.LENT:
        return False
    flags = value.flags
    return flags.c_contiguous and flags.writeable and device().type == "cpu" and not in_trace()


def lent_place(value: np.ndarray) -> Any:
    """A host array that can be lent, as a tensor that `own_places` copies before it is written to."""
    if value.nbytes < _LARGE:
        return from_host(value)
    place = torch.from_numpy(value)
    number = id(place)
    _lent[number] = weakref.ref(place, lambda _: _lent.pop(number, None))
    return place


def own_places(places: list[Any], count: int) -> list[Any]:
    """Tensors of which the first ones may be written to: lent memory is copied."""
    if not _lent:
        return places
    return [place.clone() if i < count and id(place) in _lent else place for i, place in enumerate(places)]


def _copied(value: np.ndarray) -> np.ndarray:
    """A host array again, `"C"` in order; large ones are copied by all of PyTorch's threads."""
    shared = value.nbytes >= _LARGE and value.dtype == np.float32
    if not (shared and value.flags.writeable and value.flags.c_contiguous):
        return np.array(value, order="C")
    host = np.empty(value.shape, value.dtype)
    with outside_traces():
        torch.from_numpy(host).copy_(torch.from_numpy(value))
    return host


def _placed(host: np.ndarray) -> Any:
    """A host array's memory as a tensor, brought to where new values live."""
    if host.dtype == _BFLOAT16:
        tensor = torch.from_numpy(host.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(host)
    place = device()
    return tensor if place.type == "cpu" else tensor.to(place)


def to_host(value: Any) -> np.ndarray:
    """A tensor's elements as a host array of its own.

    Raises:
        NeedsValue: for a stand-in.
    """
    # The tensor may be written to later, by an optimizer say; the array must not change then, nor the tensor with it.
    return np.array(in_host(value))


def in_host(value: Any) -> np.ndarray:
    """A tensor's elements as a host array, which shares its memory on a CPU.

    Raises:
        NeedsValue: for a stand-in.
    """
    if is_stand_in(value):
        raise NeedsValue(
            f"a tensor of shape {tuple(value.shape)} was asked for its elements while a function was being traced",
            "operations of cornu.ops or of torch on it",
            "fit(..., run_eagerly=True) to look at values",
        )
    with outside_traces():
        if value.dtype == torch.bfloat16:
            return value.detach().view(torch.int16).numpy(force=True).view(_BFLOAT16)
        host: np.ndarray = value.numpy(force=True)
        return host
