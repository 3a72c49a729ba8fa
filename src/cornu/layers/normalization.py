"""Layers that bring values to a common mean and scale: over the batch, a sample, groups of channels, a vector."""

import numbers
from typing import Any

from cornu import constraints, initializers, ops, regularizers
from cornu.core import dtypes
from cornu.core.config import POSITIVE, Field
from cornu.core.dims import shape_text
from cornu.core.errors import ArgumentError, ShapeError, UnsupportedError
from cornu.layers.base import InputSpec, Layer
from cornu.ops.nn import normalization_by_batch

__all__ = [
    "BatchNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization",
]  # fmt: skip

_NUMBER = Field(lambda v: isinstance(v, numbers.Real) and float(v) >= 0, "a number from 0 on")
_MOMENTUM = Field(lambda v: isinstance(v, numbers.Real) and 0 <= float(v) <= 1, "a number from 0 to 1")
_GROUPS = Field(lambda v: v == -1 or POSITIVE.valid(v), "a whole number above zero, or -1 (one group for each channel)")

# What Keras adds to the number of elements that a mask counts, so that none is not divided by 0.
EPSILON = 1e-7
# What Keras's UnitNormalization takes for the least norm.
LEAST_NORM = 1e-12


def _axes(owner: str, axis: Any) -> int | list[int]:
    """An axis, or a list of them.

    Raises:
        ArgumentError: for anything else.
    """
    many = axis if isinstance(axis, (list, tuple)) else (axis,)
    if not many or not all(hasattr(a, "__index__") and not isinstance(a, bool) for a in many):
        raise ArgumentError(f"{owner} got axis={axis!r}", "a whole number, or a list of them")
    return [int(a) for a in axis] if isinstance(axis, (list, tuple)) else int(axis)


def _from_front(owner: str, axis: int, input_shape: Any) -> int:
    """An axis counted from the front.

    Raises:
        ShapeError: if the input has no such axis.
    """
    rank = len(input_shape)
    if not -rank <= axis < rank:
        raise ShapeError(f"{owner} with axis={axis} got an input of shape {input_shape}", f"more than {rank} axes")
    return axis % rank


def _size(owner: str, axis: int, input_shape: Any) -> int:
    """The size of an axis of the input.

    Raises:
        ShapeError: if it is unknown.
    """
    size = input_shape[_from_front(owner, axis, input_shape)]
    if size is None:
        raise ShapeError(
            f"{owner} got an input of shape {input_shape}, whose axis {axis} is unknown",
            "a known size on every axis that has weights",
            "give it in Input(shape=...)",
        )
    return int(size)


class Scaling(Layer):
    """What normalisations share that end in a scale `gamma` and an offset `beta`."""

    def _set_scaling(
        self,
        epsilon: Any,
        center: Any,
        scale: Any,
        beta: tuple[Any, Any, Any],
        gamma: tuple[Any, Any, Any],
    ) -> None:
        """Keep the arguments; `beta` and `gamma` are initializer, regularizer and constraint."""
        _NUMBER.check(type(self).__name__, "epsilon", epsilon)
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer, self.gamma_initializer = initializers.get(beta[0]), initializers.get(gamma[0])
        self.beta_regularizer, self.gamma_regularizer = regularizers.get(beta[1]), regularizers.get(gamma[1])
        self.beta_constraint, self.gamma_constraint = constraints.get(beta[2]), constraints.get(gamma[2])
        self.gamma = self.beta = None
        self.supports_masking = True

    def _add_scaling(self, shape: tuple[int, ...], scale: bool, center: bool) -> None:
        """Make `gamma` and `beta`, as far as they are wanted."""
        for name, wanted in (("gamma", scale), ("beta", center)):
            if wanted:
                weight = self.add_weight(
                    name=name,
                    shape=shape,
                    initializer=getattr(self, f"{name}_initializer"),
                    regularizer=getattr(self, f"{name}_regularizer"),
                    constraint=getattr(self, f"{name}_constraint"),
                    autocast=False,
                )
                setattr(self, name, weight)


class BatchNormalization(Scaling):
    """Mean 0 and variance 1 of each channel over the batch, then scaled and moved (Ioffe & Szegedy, 2015).

    In training the batch's own statistics are used, and moving ones follow them: `moving = moving * momentum +
    batch * (1 - momentum)`. In inference, and while `trainable` is false, the moving ones are used and stay.
    Computed in float32 at least.

    Args:
        axis: the axis of channels.
        momentum: how slowly the moving statistics follow, by default 0.99.
        epsilon: added to the variance, by default 0.001.
        center: whether to add `beta`.
        scale: whether to multiply by `gamma`.
        beta_initializer: first values of `beta` `(channels,)`.
        gamma_initializer: first values of `gamma` `(channels,)`.
        moving_mean_initializer: first values of the moving mean `(channels,)`.
        moving_variance_initializer: first values of the moving variance `(channels,)`.
        beta_regularizer: penalty on `beta`.
        gamma_regularizer: penalty on `gamma`.
        beta_constraint: what `beta` is kept to.
        gamma_constraint: what `gamma` is kept to.
        renorm: not supported; only `False`.
        renorm_clipping: read only with `renorm`.
        renorm_momentum: read only with `renorm`.
        synchronized: not supported; only `False`.

    Input `(..., channels)` of any rank, and a mask `(...)` of the positions that count in training, or none; output of
    the same shape.

    Raises:
        UnsupportedError: for `renorm` or `synchronized`.

    Example:
        >>> import cornu
        >>> layer = cornu.layers.BatchNormalization(momentum=0.5, epsilon=0.0)
        >>> layer(cornu.ops.convert_to_tensor([[1.0], [3.0]]), training=True).tolist()
        [[-1.0], [1.0]]
        >>> layer.moving_mean.numpy().tolist()
        [1.0]
    """

    moving_mean: Any
    moving_variance: Any

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("renorm", renorm), ("synchronized", synchronized)):
            if value:
                raise UnsupportedError(f"BatchNormalization got {name}={value!r}", f"{name}=False")
        if not hasattr(axis, "__index__") or isinstance(axis, bool):
            raise ArgumentError(f"BatchNormalization got axis={axis!r}", "a whole number")
        _MOMENTUM.check("BatchNormalization", "momentum", momentum)
        self.axis = int(axis)
        self.momentum = float(momentum)
        self._set_scaling(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
        )
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.renorm, self.renorm_clipping, self.renorm_momentum = False, renorm_clipping, renorm_momentum
        self.synchronized = False

    def build(self, input_shape: Any) -> None:
        """Make `gamma`, `beta` and the moving statistics."""
        channels = _size("BatchNormalization", self.axis, input_shape)
        self._add_scaling((channels,), bool(self.scale), bool(self.center))
        for name in ("moving_mean", "moving_variance"):
            moving = self.add_weight(
                name=name,
                shape=(channels,),
                initializer=getattr(self, f"{name}_initializer"),
                trainable=False,
                autocast=False,
            )
            setattr(self, name, moving)
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise, scale, move; in training, follow the batch.

        Raises:
            ShapeError: if the mask has not one axis less than the input.
        """
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ShapeError(
                f"BatchNormalization got a mask of shape {shape_text(tuple(mask.shape))} for an input of shape "
                f"{shape_text(tuple(inputs.shape))}",
                "a mask with one axis less than the input",
            )
        wide = dtypes.promote(ops.dtype(inputs), "float32")
        x = ops.cast(inputs, wide)
        gamma, beta, mean, variance = (
            None if weight is None else ops.cast(weight, wide)
            for weight in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        scaling = {"axis": self.axis, "offset": beta, "scale": gamma, "epsilon": self.epsilon}
        if training and self.trainable:
            moving_mean, moving_variance = mean, variance
            if mask is None:
                outputs, mean, variance = normalization_by_batch(x, **scaling)
            else:
                mean, variance = self._statistics(x, mask)
                outputs = ops.batch_normalization(x, mean, variance, **scaling)
            self.moving_mean.assign(self._followed(moving_mean, mean))
            self.moving_variance.assign(self._followed(moving_variance, variance))
        else:
            outputs = ops.batch_normalization(x, mean, variance, **scaling)
        return ops.cast(outputs, self.compute_dtype)

    def _followed(self, moving: Any, batch: Any) -> Any:
        batch = ops.stop_gradient(batch)
        return ops.add(ops.multiply(moving, self.momentum), ops.multiply(batch, 1.0 - self.momentum))

    def _statistics(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """The mean and the variance of each channel, over the positions that count."""
        rank = len(x.shape)
        axes = tuple(i for i in range(rank) if i != self.axis % rank)
        counted = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), -1), ops.shape(x))
        count = ops.add(ops.sum(ops.cast(counted, ops.dtype(x)), axis=axes, keepdims=True), EPSILON)
        mean = ops.divide(ops.sum(ops.where(counted, x, 0), axis=axes, keepdims=True), count)
        centred = ops.where(counted, ops.subtract(x, mean), 0)
        variance = ops.divide(ops.sum(ops.multiply(centred, centred), axis=axes, keepdims=True), count)
        return ops.squeeze(mean, axis=axes), ops.squeeze(variance, axis=axes)


class LayerNormalization(Scaling):
    """Mean 0 and variance 1 of each sample along axes, then scaled and moved (Ba et al., 2016).

    Computed in float32 at least.

    Args:
        axis: the axis or axes to normalise, by default the last.
        epsilon: added to the variance, by default 0.001.
        center: whether to add `beta`.
        scale: whether to multiply by `gamma`.
        beta_initializer: first values of `beta`, in the shape of the axes to normalise.
        gamma_initializer: first values of `gamma`, in the same shape.
        beta_regularizer: penalty on `beta`.
        gamma_regularizer: penalty on `gamma`.
        beta_constraint: what `beta` is kept to.
        gamma_constraint: what `gamma` is kept to.
        rms_scaling: Keras's deprecated variant that divides by the standard deviation, without centring, and has no
            `beta`; `RMSNormalization` is what its name says. By default false.

    Input of any shape, output of the same shape.

    Example:
        >>> import cornu
        >>> cornu.layers.LayerNormalization(epsilon=0.0)(cornu.ops.convert_to_tensor([[1.0, 3.0]])).tolist()
        [[-1.0, 1.0]]
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        *,
        rms_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = _axes("LayerNormalization", axis)
        self.rms_scaling = rms_scaling
        self._set_scaling(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
        )
        self.autocast = False

    def build(self, input_shape: Any) -> None:
        """Make `gamma` and `beta`."""
        axes = sorted(self.axis) if isinstance(self.axis, list) else [self.axis]
        sizes = {axis: _size("LayerNormalization", axis, input_shape) for axis in axes}
        # Keras sorts axes as they are given: [1, -1] makes weights (last, first), which it reads in their own order.
        shape = tuple(sizes.values())
        self._read_as = tuple(sizes[axis] for axis in sorted(axes, key=lambda axis: axis % len(input_shape)))
        self._add_scaling(shape, bool(self.scale or self.rms_scaling), bool(self.center and not self.rms_scaling))
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Normalise, scale, move."""
        gamma, beta = (
            weight if weight is None or weight.shape == self._read_as else ops.reshape(weight, self._read_as)
            for weight in (self.gamma, self.beta)
        )
        outputs = ops.layer_normalization(
            inputs, gamma, beta, axis=self.axis, epsilon=self.epsilon, rms_scaling=self.rms_scaling
        )
        return ops.cast(outputs, self.compute_dtype)


class GroupNormalization(Scaling):
    """Mean 0 and variance 1 of each group of channels of each sample, then scaled and moved (Wu & He, 2018).

    Computed in float32 at least.

    Args:
        groups: how many groups; divides the channels. -1 for one group for each channel. By default 32.
        axis: the axis of channels.
        epsilon: added to the variance, by default 0.001.
        center: whether to add `beta`.
        scale: whether to multiply by `gamma`.
        beta_initializer: first values of `beta` `(channels,)`.
        gamma_initializer: first values of `gamma` `(channels,)`.
        beta_regularizer: penalty on `beta`.
        gamma_regularizer: penalty on `gamma`.
        beta_constraint: what `beta` is kept to.
        gamma_constraint: what `gamma` is kept to.

    Input `(batch, ..., channels)`, output of the same shape.

    Example:
        >>> import cornu
        >>> cornu.layers.GroupNormalization(groups=4)(cornu.Input((8, 8, 16))).shape
        (None, 8, 8, 16)
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _GROUPS.check("GroupNormalization", "groups", groups)
        if not hasattr(axis, "__index__") or isinstance(axis, bool) or axis == 0:
            raise ArgumentError(f"GroupNormalization got axis={axis!r}", "a whole number, not 0 (the batch)")
        self.groups = int(groups)
        self.axis = int(axis)
        self._set_scaling(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
        )
        self.autocast = False

    def build(self, input_shape: Any) -> None:
        """Make `gamma` and `beta`.

        Raises:
            ShapeError: if the groups do not divide the channels.
        """
        channels = _size("GroupNormalization", self.axis, input_shape)
        if self.groups > channels or channels % self.groups:
            raise ShapeError(
                f"GroupNormalization with groups={self.groups} got {channels} channels (axis {self.axis})",
                "a multiple of the groups",
            )
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})
        self._apart = (channels, 1) if self.groups == -1 else (self.groups, channels // self.groups)
        self._add_scaling((channels,), bool(self.scale), bool(self.center))
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Normalise, scale, move."""
        wide = dtypes.promote(ops.dtype(inputs), "float32")
        sizes = ops.shape(inputs)
        at = self.axis % len(sizes)
        apart = self._apart
        x = ops.reshape(ops.cast(inputs, wide), (*sizes[:at], *apart, *sizes[at + 1 :]))
        rank = len(x.shape)
        mean, variance = ops.moments(x, axes=tuple(i for i in range(1, rank) if i != at), keepdims=True)
        beside = tuple(apart[i - at] if i in (at, at + 1) else 1 for i in range(rank))
        gamma, beta = (
            None if weight is None else ops.reshape(ops.cast(weight, wide), beside)
            for weight in (self.gamma, self.beta)
        )
        inverse = ops.rsqrt(ops.add(variance, self.epsilon))
        outputs = ops.multiply(ops.subtract(x, mean), inverse if gamma is None else ops.multiply(inverse, gamma))
        if beta is not None:
            outputs = ops.add(outputs, beta)
        return ops.cast(ops.reshape(outputs, sizes), self.compute_dtype)


class RMSNormalization(Layer):
    """Values divided by the root of their mean square along axes, then scaled (Zhang & Sennrich, 2019).

    Computed in float32 at least.

    Args:
        axis: the axis or axes to normalise, by default the last.
        epsilon: added to the mean of squares, by default 1e-6.

    Input of any shape, output of the same shape.

    Example:
        >>> import cornu
        >>> cornu.layers.RMSNormalization(epsilon=0.0)(cornu.ops.convert_to_tensor([[3.0, 3.0]])).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, axis: Any = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _NUMBER.check("RMSNormalization", "epsilon", epsilon)
        self.axis = _axes("RMSNormalization", axis)
        self.epsilon = float(epsilon)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make the scale."""
        many = self.axis if isinstance(self.axis, list) else [self.axis]
        axes = sorted(_from_front("RMSNormalization", axis, input_shape) for axis in many)
        shape = tuple(_size("RMSNormalization", axis, input_shape) for axis in axes)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones")
        self.built = True

    def call(self, x: Any) -> Any:
        """Normalise, scale."""
        return ops.rms_normalization(x, scale=self.scale, axis=self.axis, epsilon=self.epsilon)


class UnitNormalization(Layer):
    """Values divided by their Euclidean norm along axes.

    Args:
        axis: the axis or axes along which the norm becomes 1, by default the last.

    Input of any shape, output of the same shape; what is all 0 stays 0.

    Example:
        >>> import cornu
        >>> cornu.layers.UnitNormalization()(cornu.ops.convert_to_tensor([[0.0, 2.0]])).tolist()
        [[0.0, 1.0]]
    """

    def __init__(self, axis: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = _axes("UnitNormalization", axis)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Divide by the norm."""
        return ops.normalize(inputs, axis=self.axis, order=2, epsilon=LEAST_NORM)
