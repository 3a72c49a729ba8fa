"""`InputSpec`: what a layer demands of its inputs, as data."""

from typing import Any

from cornu.core import tree
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import DtypeError, ShapeError
from cornu.ops._declare import dtype_of, interpreter_of, shape_of

__all__ = ["InputSpec", "check_inputs"]


class InputSpec:
    """Demands on one input.

    Args:
        dtype: its dtype, or `None`.
        shape: its shape, `None` for sizes that are free.
        ndim: its number of axes.
        max_ndim: at most so many axes.
        min_ndim: at least so many axes.
        axes: `{axis: size}` that must hold.
        allow_last_axis_squeeze: whether a last axis of 1 may be missing.
        name: the key of the input in a dict of inputs.
        optional: whether the input may be `None`.
    """

    def __init__(
        self,
        dtype: str | None = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = dtype
        self.shape = tuple(shape) if shape is not None else None
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        self.name = name
        self.optional = optional

    def __repr__(self) -> str:
        given = {key: value for key, value in vars(self).items() if value not in (None, {}, False)}
        return f"InputSpec({', '.join(f'{key}={value!r}' for key, value in given.items())})"


def check_inputs(spec: Any, inputs: Any, layer: str) -> None:
    """Check a layer's inputs against its demands.

    Args:
        spec: an InputSpec, or a list, or a dict of them.
        inputs: the layer's first argument.
        layer: the layer's name.

    Raises:
        ShapeError: if a shape does not fit.
        DtypeError: if a dtype does not fit, or an input is no array.
    """
    if isinstance(spec, dict) and isinstance(inputs, dict):
        pairs = [(spec[key], inputs.get(key)) for key in spec]
    else:
        specs, values = tree.leaves(spec), tree.leaves(inputs)
        if len(specs) != len(values):
            raise ShapeError(f"layer {layer!r} got {len(values)} inputs", f"{len(specs)} inputs")
        pairs = list(zip(specs, values, strict=True))
    for one, value in pairs:
        if one is not None and not (value is None and one.optional):
            _check(one, value, layer)


def _check(spec: InputSpec, value: Any, layer: str) -> None:
    if not hasattr(value, "shape") and interpreter_of(value) is None:
        raise DtypeError(f"layer {layer!r} got {value!r:.60} ({type(value).__name__})", "an array")
    shape = shape_of(value)

    def came() -> str:
        return f"layer {layer!r} got an input of shape {shape_text(shape)}"

    if spec.ndim is not None and len(shape) != spec.ndim:
        squeezed = spec.allow_last_axis_squeeze and abs(len(shape) - spec.ndim) == 1
        if not squeezed:
            hint = _axes_hint(len(shape), spec.ndim)
            raise ShapeError(f"{came()} with {len(shape)} axes", f"{spec.ndim} axes", hint)
    if spec.max_ndim is not None and len(shape) > spec.max_ndim:
        raise ShapeError(came(), f"at most {spec.max_ndim} axes")
    if spec.min_ndim is not None and len(shape) < spec.min_ndim:
        raise ShapeError(came(), f"at least {spec.min_ndim} axes", _axes_hint(len(shape), spec.min_ndim))
    if spec.dtype is not None and dtype_of(value) != spec.dtype:
        raise DtypeError(f"layer {layer!r} got an input of dtype {dtype_of(value)}", f"dtype {spec.dtype}")
    for axis, size in spec.axes.items():
        if size is not None and -len(shape) <= axis < len(shape):
            have = shape[axis]
            if not isinstance(have, Dim) and have != size:
                raise ShapeError(
                    came(),
                    f"size {size} on axis {axis}, as when its weights were made",
                    "use a layer of its own for inputs of another width, or bring them to this one first",
                )
    if spec.shape is not None:
        for axis, (want, have) in enumerate(zip(spec.shape, shape, strict=False)):
            if want is not None and not isinstance(have, Dim) and want != have:
                raise ShapeError(came(), f"shape {spec.shape}; axis {axis} is {have}")


def _axes_hint(have: int, want: int) -> str | None:
    if have == want - 1:
        return "add an axis: a batch of one is x[None], a channel is x[..., None]"
    return "flatten or reshape the input first" if have > want else None
