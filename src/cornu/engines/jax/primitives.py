"""Convolutions and pooling windows as primitives of JAX: XLA's own way, and on CPUs the way that `choice.py` names.

As primitives, and not functions with a rule for one direction, they take part in all that JAX does with functions:
both modes of differentiation to any order, `vmap`, `jit`, export for several platforms at once. Which way is taken
is decided when a computation is lowered for a platform, by then with all shapes known.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cornu.engines.jax import measured
from cornu.engines.jax.choice import WAYS
from cornu.engines.jax.compiling import jitted
from cornu.engines.jax.convolution import result_space
from cornu.engines.jax.placed import is_placed

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Any]] = {}
_HALF = ("float16", "bfloat16")
# Largest and smallest are found in any width; sums of half-width floats are made in float32.
_EXACT = ("window_max", "window_max_take")


def _compute(name: str, way: str, *arrays: Any, **static: Any) -> Any:
    dtype = arrays[0].dtype
    if name in _EXACT or dtype.name not in _HALF or (way == "xla" and name != "window_sum"):
        return WAYS[name][way](*arrays, **static)
    return WAYS[name][way](*(array.astype(jnp.float32) for array in arrays), **static).astype(dtype)


def _by_xla(name: str, *arrays: Any, **static: Any) -> Any:
    return _compute(name, "xla", *arrays, **static)


def _on_cpu(name: str, *arrays: Any, **static: Any) -> Any:
    way = measured.way(name, [array.shape for array in arrays], arrays[0].dtype.name, static)
    return _compute(name, way, *arrays, **static)


def _fixed(value: Any) -> Any:
    """A static argument that can be hashed."""
    return tuple(_fixed(part) for part in value) if isinstance(value, (tuple, list)) else value


def _primitive(name: str, shape: Callable[..., Any]) -> Primitive:
    """A primitive and its entry in the table.

    Args:
        name: the language's.
        shape: of the arguments' shapes and the static arguments, gives the result's.
    """
    primitive = Primitive(f"cornu_{name}")

    def abstract(*arrays: Any, **static: Any) -> Any:
        return ShapedArray(shape(*(array.shape for array in arrays), **static), arrays[0].dtype)

    def compiled(static: tuple[tuple[str, Any], ...], *arrays: Any) -> Any:
        return primitive.bind(*arrays, **dict(static))

    @functools.cache  # made with the first call, which is when JAX may look for devices
    def eager() -> Callable[..., Any]:
        return jitted(compiled, static_argnums=0)

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(lambda *arrays, **static: eager()(tuple(static.items()), *arrays))
    mlir.register_lowering(primitive, mlir.lower_fun(functools.partial(_by_xla, name), multiple_results=False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(functools.partial(_on_cpu, name), multiple_results=False), platform="cpu"
    )

    def call(*values: Any, **static: Any) -> Any:
        arrays = [jnp.asarray(value) for value in values]
        if any(map(is_placed, arrays)):
            return _by_xla(name, *arrays, **static)
        return primitive.bind(*arrays, **{key: _fixed(value) for key, value in static.items()})

    TABLE[name] = call
    return primitive


# ---------------------------------------------------------------- shapes


def _convolved(x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    return (x[0], *result_space(x[1:-1], kernel[:-2], strides, padding, dilation), kernel[-1])


def _pooled(x: Any, *others: Any, window: Any, strides: Any, padding: Any) -> Any:
    return (x[0], *result_space(x[1:-1], window, strides, padding, (1,) * len(window)), x[-1])


convolution = _primitive("convolution", _convolved)
convolution_input_gradient = _primitive("convolution_input_gradient", lambda *shapes, shape, **static: shape)
convolution_kernel_gradient = _primitive("convolution_kernel_gradient", lambda *shapes, shape, **static: shape)
window_sum = _primitive("window_sum", _pooled)
window_sum_gradient = _primitive("window_sum_gradient", lambda *shapes, shape, **static: shape)
window_max = _primitive("window_max", _pooled)
window_max_gradient = _primitive("window_max_gradient", lambda x, g, **static: x)
window_max_take = _primitive("window_max_take", _pooled)


# ---------------------------------------------------------------- differentiation

# A convolution and its gradients are linear in each argument; each one's transposes are the other two.


def _without_shape(static: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in static.items() if key != "shape"}


def _shape(undefined: Any) -> Any:
    return undefined.aval.shape


ad.defbilinear(
    convolution,
    lambda g, x, kernel, **static: convolution_input_gradient.bind(g, kernel, shape=_shape(x), **static),
    lambda g, x, kernel, **static: convolution_kernel_gradient.bind(x, g, shape=_shape(kernel), **static),
)
ad.defbilinear(
    convolution_input_gradient,
    lambda t, g, kernel, **static: convolution.bind(t, kernel, **_without_shape(static)),
    lambda t, g, kernel, **static: convolution_kernel_gradient.bind(
        t, g, **_without_shape(static), shape=_shape(kernel)
    ),
)
ad.defbilinear(
    convolution_kernel_gradient,
    lambda t, x, g, **static: convolution_input_gradient.bind(g, t, **_without_shape(static), shape=_shape(x)),
    lambda t, x, g, **static: convolution.bind(x, t, **_without_shape(static)),
)
ad.deflinear2(window_sum, lambda g, x, **static: [window_sum_gradient.bind(g, shape=_shape(x), **static)])
ad.deflinear2(window_sum_gradient, lambda t, g, **static: [window_sum.bind(t, **_without_shape(static))])


# Which element is largest does not change by a small step: max pooling is linear in what it takes.


def _linear_in_second(primitive: Primitive, transposed: Primitive) -> None:
    def forward(primals: Any, tangents: Any, **static: Any) -> Any:
        result = primitive.bind(*primals, **static)
        if type(tangents[1]) is ad.Zero:
            return result, ad.Zero(jax.typeof(result).to_tangent_aval())
        return result, primitive.bind(primals[0], tangents[1], **static)

    def back(cotangent: Any, x: Any, values: Any, **static: Any) -> Any:
        if type(cotangent) is ad.Zero:
            return None, ad.Zero(values.aval)
        return None, transposed.bind(x, cotangent, **static)

    ad.primitive_jvps[primitive] = forward
    ad.primitive_transposes[primitive] = back


def _max_forward(primals: Any, tangents: Any, **static: Any) -> Any:
    result = window_max.bind(*primals, **static)
    if type(tangents[0]) is ad.Zero:
        return result, ad.Zero(jax.typeof(result).to_tangent_aval())
    return result, window_max_take.bind(*primals, *tangents, **static)


ad.primitive_jvps[window_max] = _max_forward
_linear_in_second(window_max_gradient, window_max_take)
_linear_in_second(window_max_take, window_max_gradient)


# ---------------------------------------------------------------- vmap


def _merged(primitive: Primitive, mapped: list[Any], others: list[Any], static: dict[str, Any]) -> tuple[Any, int]:
    """Arrays whose first axis is mapped, with that axis as part of the batch."""
    count, rows = mapped[0].shape[:2]
    if "shape" in static:
        static = {**static, "shape": (count * rows, *static["shape"][1:])}
    whole = [jnp.reshape(array, (count * rows, *array.shape[2:])) for array in mapped]
    result = primitive.bind(*whole, *others, **static)
    return jnp.reshape(result, (count, rows, *result.shape[1:])), 0


def _first(array: Any, axis: Any) -> Any:
    return array if axis is None else jnp.moveaxis(array, axis, 0)


def _map_windows(primitive: Primitive) -> None:
    def rule(arrays: Any, axes: Any, **static: Any) -> Any:
        count = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
        mapped = [
            jnp.broadcast_to(array, (count, *array.shape)) if axis is None else _first(array, axis)
            for array, axis in zip(arrays, axes, strict=True)
        ]
        return _merged(primitive, mapped, [], static)

    batching.primitive_batchers[primitive] = rule


def _map_convolution(name: str, primitive: Primitive, first_is_batched: bool) -> None:
    """A mapped first argument joins the batch; what XLA does when the kernel is mapped, a CPU does in a loop."""

    def rule(arrays: Any, axes: Any, **static: Any) -> Any:
        whole = [_first(array, axis) for array, axis in zip(arrays, axes, strict=True)]
        if first_is_batched and axes[1] is None:
            return _merged(primitive, whole[:1], whole[1:], static)
        places = [None if axis is None else 0 for axis in axes]

        def one_by_one(*arrays: Any) -> Any:
            def one(i: Any) -> Any:
                given = [a if place is None else a[i] for a, place in zip(arrays, places, strict=True)]
                return primitive.bind(*given, **static)

            count = next(a.shape[0] for a, place in zip(arrays, places, strict=True) if place == 0)
            return lax.map(one, jnp.arange(count))

        def at_once(*arrays: Any) -> Any:
            return jax.vmap(functools.partial(_by_xla, name, **static), in_axes=places)(*arrays)

        return lax.platform_dependent(*whole, cpu=one_by_one, default=at_once), 0

    batching.primitive_batchers[primitive] = rule


for _window in (window_sum, window_sum_gradient, window_max, window_max_gradient, window_max_take):
    _map_windows(_window)
_map_convolution("convolution", convolution, True)
_map_convolution("convolution_input_gradient", convolution_input_gradient, True)
_map_convolution("convolution_kernel_gradient", convolution_kernel_gradient, False)
