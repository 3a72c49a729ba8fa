"""Convolutions and pooling windows over `(batch, *space, channels)`; PyTorch's are over `(batch, channels, *space)`."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cornu.engines.pointwise import is_product
from cornu.engines.torch import kernels, quirks

__all__ = ["TABLE"]


def _front(x: Any) -> Any:
    """Channels moved before the spatial axes."""
    return x.movedim(-1, 1)


def _back(x: Any) -> Any:
    """Channels moved back to the end."""
    return x.movedim(1, -1)


def _flat(padding: Any) -> list[int]:
    """Pairs of counts in the order of `constant_pad_nd`: from the last axis on."""
    return [count for pair in reversed(padding) for count in pair]


def _padded(x: Any, padding: Any, value: Any = 0) -> Any:
    """Spatial axes (the last ones) padded."""
    return torch.constant_pad_nd(x, _flat(padding), value) if any(map(any, padding)) else x


def _split(padding: Any) -> tuple[list[int], Any]:
    """Padding as what is added on both sides, and what is added beside it."""
    both = [max(0, min(pair)) for pair in padding]
    return both, [(low - add, high - add) for (low, high), add in zip(padding, both, strict=True)]


# ---------------------------------------------------------------- convolution


def _convolution(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    if is_product(x.shape, kernel.shape, strides, padding, groups) and kernels.suits(kernel, x):
        return torch.matmul(x, kernel.flatten(0, 2))
    both, rest = _split(padding)
    turned, none = kernels.front(kernel, x), [0] * len(strides)
    result = torch.convolution(_padded(_front(x), rest), turned, None, strides, both, dilation, False, none, groups)
    return _back(result)


def _backward(g: Any, x: Any, kernel: Any, strides: Any, both: Any, dilation: Any, groups: int, which: int) -> Any:
    """PyTorch's gradient of a convolution for its input (0) or its kernel (1)."""
    return torch.ops.aten.convolution_backward(
        g, x, kernel, None, strides, both, dilation, False, [0] * len(strides), groups, [which == 0, which == 1, False]
    )[which]


def _convolution_input_gradient(
    g: Any, kernel: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    both, rest = _split(padding)
    space = [size + low + high for size, (low, high) in zip(shape[1:-1], rest, strict=True)]
    reach = [(size - 1) * apart + 1 for size, apart in zip(kernel.shape, dilation, strict=False)]
    geometry = zip(space, g.shape[1:-1], strides, both, reach, strict=True)
    # What the forward convolution left over at the end.
    over = [size - ((count - 1) * stride - 2 * add + far) for size, count, stride, add, far in geometry]
    if all(0 <= left < stride for left, stride in zip(over, strides, strict=True)):
        given = (_front(g), kernels.front(kernel, g), None, strides, both, dilation, True, over, groups)
        result = torch.convolution(*given)
    else:
        like = g.new_zeros(()).expand(shape[0], shape[-1], *space)
        result = _backward(_front(g), like, kernels.front(kernel, g), strides, both, dilation, groups, 0)
    return _back(_padded(result, [(-low, -high) for low, high in rest]))


def _convolution_kernel_gradient(
    x: Any, g: Any, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    both, rest = _split(padding)
    like = g.new_zeros(()).expand(shape[-1], shape[-2], *shape[:-2])
    result = _backward(_front(g), _padded(_front(x), rest), like, strides, both, dilation, groups, 1)
    return kernels.back(result)


# ---------------------------------------------------------------- windows


def _as_image(x: Any, window: Any, strides: Any) -> tuple[Any, list[int], list[int]]:
    """One spatial axis as two: PyTorch pools over two or three."""
    if len(window) == 1:
        return x.unsqueeze(-2), [1, *window], [1, *strides]
    return x, list(window), list(strides)


def _window_sum(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    image, window_2, strides_2 = _as_image(_padded(_front(x), padding), window, strides)
    pool: Callable[..., Any] = F.avg_pool3d if len(window) == 3 else F.avg_pool2d
    result = pool(image, window_2, strides_2, divisor_override=1)
    return _back(result.squeeze(-2) if len(window) == 1 else result)


def _window_sum_gradient(g: Any, shape: Any, window: Any, strides: Any, padding: Any) -> Any:
    space = [size + low + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)]
    like = g.new_zeros(()).expand(shape[0], shape[-1], *space)
    image, window_2, strides_2 = _as_image(like, window, strides)
    aten = torch.ops.aten
    pull = aten.avg_pool3d_backward if len(window) == 3 else aten.avg_pool2d_backward
    front = _front(g).unsqueeze(-2) if len(window) == 1 else _front(g)
    none = [0] * len(window_2)
    result = pull(front, image.contiguous(), window_2, strides_2, none, False, True, 1)
    result = result.squeeze(-2) if len(window) == 1 else result
    return _back(_padded(result, [(-low, -high) for low, high in padding]))


def _largest(x: Any, window: Any, strides: Any, padding: Any) -> tuple[Any, Any, Any]:
    """The padded image, each window's largest element, and where in the flattened image it is."""
    image, window_2, strides_2 = _as_image(_padded(_front(x), padding, -torch.inf), window, strides)
    pool: Callable[..., Any] = F.max_pool3d if len(window) == 3 else F.max_pool2d
    values, places = pool(image, window_2, strides_2, return_indices=True)
    return image, values, places


def _window_max(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    _, values, _ = _largest(x, window, strides, padding)
    return _back(values.squeeze(-2) if len(window) == 1 else values)


def _places(x: Any, window: Any, strides: Any, padding: Any) -> tuple[Any, Any]:
    """The padded image, and the place of each window's first largest element in it, flattened."""
    if any(map(any, padding)):  # infinity in the padding must not win over infinity in the array
        x = x.clamp(min=torch.finfo(x.dtype).min)
    image, _, places = _largest(x.detach(), window, strides, padding)
    return image, places


def _window_max_gradient(x: Any, g: Any, window: Any, strides: Any, padding: Any) -> Any:
    image, places = _places(x, window, strides, padding)
    flat = g.new_zeros((*image.shape[:2], image[0, 0].numel()))
    front = _front(g).reshape(*places.shape[:2], -1)
    flat = torch.scatter_add(flat, -1, places.reshape(front.shape), front)
    result = flat.reshape(image.shape)
    result = result.squeeze(-2) if len(window) == 1 else result
    return _back(_padded(result, [(-low, -high) for low, high in padding]))


def _window_max_take(x: Any, values: Any, window: Any, strides: Any, padding: Any) -> Any:
    _, places = _places(x, window, strides, padding)
    flat = _padded(_front(values), padding).flatten(2)
    taken = torch.gather(flat, -1, places.flatten(2)).reshape(places.shape)
    return _back(taken.squeeze(-2) if len(window) == 1 else taken)


# ---------------------------------------------------------------- whole numbers, which PyTorch has no kernels for


def _seen(x: Any, window: Any, space: Any, strides: Any, dilation: Any) -> Any:
    """For each position in a window, what the windows at `space` see there: slices of `(batch, *space, channels)`."""
    for position in itertools.product(*map(range, window)):
        yield (
            position,
            x[
                (
                    slice(None),
                    *(
                        slice(at * apart, at * apart + (count - 1) * stride + 1, stride)
                        for at, apart, count, stride in zip(position, dilation, space, strides, strict=True)
                    ),
                )
            ],
        )


def _positions(x: Any, window: Any, strides: Any, padding: Any, value: Any, dilation: Any = None) -> Any:
    dilation = dilation or (1,) * len(window)
    x = torch.constant_pad_nd(x, [0, 0, *_flat(padding)], value)
    reach = [(size - 1) * apart + 1 for size, apart in zip(window, dilation, strict=True)]
    space = [(size - r) // s + 1 for size, r, s in zip(x.shape[1:-1], reach, strides, strict=True)]
    return _seen(x, window, space, strides, dilation)


def _whole_convolution(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    total: Any = 0
    for position, seen in _positions(x, kernel.shape[:-2], strides, padding, 0, dilation):
        left = seen.unflatten(-1, (groups, -1)).unsqueeze(-2)
        right = kernel[position].unflatten(-1, (groups, -1)).movedim(1, 0)
        total = total + torch.matmul(left, right).squeeze(-2).flatten(-2)
    return total


def _whole_sum(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    total: Any = 0
    for _, seen in _positions(x, window, strides, padding, 0):
        total = total + seen
    return total


def _whole_max(x: Any, window: Any, strides: Any, padding: Any) -> Any:
    best = None
    least = torch.iinfo(x.dtype).min
    for _, seen in _positions(x, window, strides, padding, least):
        best = seen if best is None else torch.maximum(best, seen)
    return best


def _by_kind(floats: Callable[..., Any], whole: Callable[..., Any]) -> Callable[..., Any]:
    whole = quirks.widened(whole, booleans=True)

    def run(*args: Any, **static: Any) -> Any:
        return (floats if args[0].is_floating_point() else whole)(*args, **static)

    return run


TABLE: dict[str, Callable[..., Any]] = {
    "convolution": _by_kind(quirks.in_float32(_convolution), _whole_convolution),
    "convolution_input_gradient": quirks.in_float32(_convolution_input_gradient),
    "convolution_kernel_gradient": quirks.in_float32(_convolution_kernel_gradient),
    "window_sum": _by_kind(quirks.in_float32(_window_sum), _whole_sum),
    "window_sum_gradient": quirks.in_float32(_window_sum_gradient),
    "window_max": _by_kind(_window_max, quirks.by_order(_whole_max)),
    "window_max_gradient": _window_max_gradient,
    "window_max_take": _window_max_take,
}
