"""`Loss`: the base of all losses; how targets are matched with predictions, and how many losses become one number."""

from collections.abc import Callable
from typing import Any

from cornu import dtype_policies, ops
from cornu.core import dtypes, registry, tree
from cornu.core.config import Configurable, one_of
from cornu.core.dims import Dim, Size, shape_text
from cornu.core.errors import ArgumentError, ShapeError, UnsupportedError
from cornu.core.names import auto_name
from cornu.graph import masks
from cornu.ops._declare import dtype_of, is_array_like, shape_of
from cornu.ops._rules import axis_of
from cornu.ops.reduction import count

__all__ = [
    "Loss", "LossFunctionWrapper", "apply_mask", "compute_dtype", "fit_weights", "function_of", "matched",
    "matched_classes", "reduce_weighted_values", "squeeze_or_expand_to_same_rank", "target_kind",
]  # fmt: skip

REDUCTION = one_of("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


class Loss(Configurable):
    """Base of all losses.

    A subclass writes `call(y_true, y_pred)`, which gives one loss per sample (or per position), and `__init__` only if
    it has arguments.

    Args:
        name: its name; made from the class's if left out.
        reduction: how losses become one number: `"sum_over_batch_size"` and `"mean"` (the sum by the number of losses),
            `"sum"`, `"mean_with_sample_weight"` (the sum by the sum of weights), `"none"` or `None` (they stay apart).
        dtype: dtype (or policy) of the computation; the default float if left out.

    Raises:
        ArgumentError: for any other reduction.

    Example:
        >>> from cornu import ops
        >>> class Cubic(Loss):
        ...     def call(self, y_true, y_pred):
        ...         return ops.mean(ops.power(ops.abs(y_true - y_pred), 3), axis=-1)
        >>> float(Cubic()([[1.0], [0.0]], [[3.0], [0.0]]))
        4.0
    """

    _base_arguments = ("name", "reduction", "dtype")
    # Whether whole numbers in `y_true` stay whole (class numbers need not fit in a half-width float).
    _class_targets = False
    name: str

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None
    ) -> None:
        REDUCTION.check(type(self).__name__, "reduction", reduction)
        self.name = name or auto_name(type(self))
        self.reduction = reduction
        self._dtype = compute_dtype(dtype)

    def _before_init(self) -> None:
        vars(self).update(name=None, reduction="sum_over_batch_size", _dtype=dtypes.floatx())

    def _after_init(self, extra: dict[str, Any]) -> None:
        if extra or self.name is None:
            Loss.__init__(self, **{"name": self.name, "reduction": self.reduction, "dtype": self._dtype, **extra})

    @property
    def dtype(self) -> str:
        """The dtype it computes in."""
        return self._dtype

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None) -> Any:
        """The loss of a batch.

        Args:
            y_true: targets: array, or structure of arrays.
            y_pred: predictions, in the same structure.
            sample_weight: weights of the losses: a scalar, or an array with the losses' axes, of equal sizes or 1.
            mask: which positions count, `(batch,)`, `(batch, time)` ...; by default the mask that travels with
                `y_pred`.

        Returns:
            a scalar, or the losses apart if `reduction` is `"none"`.

        Raises:
            ShapeError: if targets, predictions and weights do not fit.
        """
        if mask is None and not isinstance(y_pred, (list, tuple, dict)):
            mask = masks.mask_of(y_pred)
        if mask is not None:
            y_pred = tree.map_structure(ops.drop_mask, y_pred)
        y_pred = _arrays(y_pred, self.dtype, keep_whole=False)
        y_true = _arrays(y_true, self.dtype, keep_whole=self._class_targets)
        losses, found = self._call_with_mask(y_true, y_pred)
        if found is not None:
            mask = found if mask is None else ops.logical_and(mask, found)
        return reduce_weighted_values(losses, sample_weight, mask, self.reduction, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The losses, one per sample or position.

        Args:
            y_true: targets, in the loss's dtype.
            y_pred: predictions, in the loss's dtype.
        """
        raise UnsupportedError(f"{type(self).__name__} has no call", "def call(self, y_true, y_pred)")

    def _call_with_mask(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """The losses, and which of them count (`None`: all)."""
        return self.call(y_true, y_pred), None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class LossFunctionWrapper(Loss):
    """A loss made from a function.

    Targets and predictions whose ranks differ by an axis of size 1 are brought together before the function is called.

    Args:
        fn: function `(y_true, y_pred, **kwargs)` that gives the losses, or the name of one of the house.
        reduction: as for `Loss`.
        name: as for `Loss`.
        dtype: as for `Loss`.
        **kwargs: passed on to `fn`.

    Example:
        >>> from cornu import ops
        >>> loss = LossFunctionWrapper(lambda y_true, y_pred: ops.abs(y_true - y_pred))
        >>> float(loss([1.0, 2.0], [1.5, 3.5]))
        1.0
    """

    def __init__(
        self,
        fn: Callable[..., Any] | str,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn = function_of(fn)
        self._fn_kwargs = kwargs
        self._class_targets = getattr(fn, "class_targets", False)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """What the function gives."""
        return self.fn(*_same_ranks(y_true, y_pred), **self._fn_kwargs)

    def _call_with_mask(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        with_mask = getattr(self.fn, "with_mask", None)
        if with_mask is None or type(self).call is not LossFunctionWrapper.call:
            return self.call(y_true, y_pred), None
        return with_mask(*_same_ranks(y_true, y_pred), **self._fn_kwargs)


def function_of(identifier: Any) -> Callable[..., Any]:
    """A function, given itself or by the name under which the house entered it.

    Raises:
        ArgumentError: if it is neither.
    """
    found = registry.find(f"builtins>{identifier}") if isinstance(identifier, str) else identifier
    if not callable(found):
        raise ArgumentError(f"{identifier!r:.80} is no function (y_true, y_pred)", "one, or the name of a loss's")
    return found  # type: ignore[no-any-return]


def compute_dtype(dtype: Any) -> str:
    """The dtype to compute in, from a dtype, a policy, or `None` (the default float)."""
    if dtype is None:
        return dtypes.floatx()
    if isinstance(dtype, (str, dict)) and dtype not in ("int", "float"):
        return dtype_policies.get(dtype).compute_dtype
    return getattr(dtype, "compute_dtype", None) or dtypes.standardize_dtype(dtype)


def _arrays(value: Any, dtype: str, keep_whole: bool) -> Any:
    """An array or structure of arrays in a dtype; a nested list of numbers is one array."""
    if isinstance(value, (list, tuple)) and not any(
        is_array_like(leaf) and shape_of(leaf) != () for leaf in tree.leaves(value)
    ):
        value = ops.convert_to_tensor(value)

    def convert(leaf: Any) -> Any:
        leaf = ops.convert_to_tensor(leaf)
        return leaf if keep_whole and ops.dtype(leaf) in dtypes.INTEGERS else ops.cast(leaf, dtype)

    return tree.map_structure(convert, value)


def _same_ranks(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    if not tree.is_nested(y_true) and not tree.is_nested(y_pred):
        return squeeze_or_expand_to_same_rank(y_true, y_pred)
    if not tree.same_structure(y_true, y_pred):
        return y_true, y_pred
    leaves = zip(tree.leaves(y_true), tree.leaves(y_pred), strict=True)
    pairs = [squeeze_or_expand_to_same_rank(t, p) for t, p in leaves]
    return tree.pack(y_true, [t for t, _ in pairs]), tree.pack(y_pred, [p for _, p in pairs])


# ---------------------------------------------------------------- matching shapes


def _is(size: Size, number: int) -> bool:
    return not isinstance(size, Dim) and size == number


def _differ(a: Size, b: Size) -> bool:
    return not isinstance(a, Dim) and not isinstance(b, Dim) and a != b


def squeeze_or_expand_to_same_rank(x1: Any, x2: Any, expand_rank_1: bool = True) -> tuple[Any, Any]:
    """Two arrays whose ranks differ by one last axis of size 1, brought to one rank; any others as they are.

    Args:
        x1: array.
        x2: array.
        expand_rank_1: whether `(n,)` beside `(n, 1)` is expanded, rather than the other squeezed.
    """
    first, second = shape_of(x1), shape_of(x2)
    if len(first) == len(second) + 1 and _is(first[-1], 1):
        if len(second) == 1 and expand_rank_1:
            x2 = ops.expand_dims(x2, -1)
        else:
            x1 = ops.squeeze(x1, -1)
    elif len(second) == len(first) + 1 and _is(second[-1], 1):
        if len(first) == 1 and expand_rank_1:
            x1 = ops.expand_dims(x1, -1)
        else:
            x2 = ops.squeeze(x2, -1)
    return x1, x2


def as_pair(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Targets and predictions as arrays in one float dtype, that of the predictions if it is one."""
    y_pred = ops.convert_to_tensor(y_pred)
    if ops.dtype(y_pred) not in dtypes.FLOATS:
        y_pred = ops.cast(y_pred, dtypes.floatx())
    return ops.convert_to_tensor(y_true, dtype=ops.dtype(y_pred)), y_pred


def matched(y_true: Any, y_pred: Any, owner: str, fix: str | None = None) -> tuple[Any, Any]:
    """Targets and predictions of one shape; `(n,)` beside `(n, 1)` is brought together, nothing else is.

    This is the one place where shapes of targets are checked. Unknown sizes are taken to fit.

    Args:
        y_true: array.
        y_pred: array.
        owner: who asks, for the message.
        fix: how to repair it, if the usual advice does not apply.

    Raises:
        ShapeError: if the shapes differ, also where they would broadcast.
    """
    true, pred = shape_of(y_true), shape_of(y_pred)
    y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
    now_true, now_pred = shape_of(y_true), shape_of(y_pred)
    if len(now_true) == len(now_pred) and not any(map(_differ, now_true, now_pred)):
        return y_true, y_pred
    raise ShapeError(
        f"{owner} got y_true of shape {shape_text(true)} and y_pred of shape {shape_text(pred)}",
        "one target for each prediction: equal shapes, or (n,) beside (n, 1)",
        fix or _advice(true, pred),
    )


def _advice(true: tuple[Size, ...], pred: tuple[Size, ...]) -> str:
    if len(pred) > 1 and (len(true) == len(pred) - 1 or (len(true) == len(pred) and _is(true[-1], 1))):
        return (
            f"end the model with one unit, or give {shape_text(pred[-1:])} targets per sample; "
            "class numbers as targets need a sparse loss or metric"
        )
    return "reshape the targets to the shape of the model's output; nothing is broadcast here"


def matched_classes(y_true: Any, y_pred: Any, owner: str, axis: int = -1) -> Any:
    """Class numbers without an axis of size 1, checked against predictions that have an axis of classes more.

    Args:
        y_true: integers `(...)` or `(..., 1)`.
        y_pred: array `(..., classes)`.
        owner: who asks, for the message.
        axis: the axis of classes in `y_pred`.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    true, pred = shape_of(y_true), shape_of(y_pred)
    if not pred:
        raise ShapeError(f"{owner} got y_pred without an axis", "an axis of classes: (batch, classes)")
    at = axis_of(axis, len(pred))
    now = true
    if len(true) == len(pred) and _is(true[at], 1):
        y_true = ops.squeeze(y_true, at)
        now = shape_of(y_true)
    rest = pred[:at] + pred[at + 1 :]
    if len(now) == len(rest) and not any(map(_differ, now, rest)):
        return y_true
    one_hot = len(true) == len(pred) and not any(map(_differ, true, pred))
    raise ShapeError(
        f"{owner} got y_true of shape {shape_text(true)} and y_pred of shape {shape_text(pred)}",
        f"class numbers of shape {shape_text(rest)}",
        "one-hot targets go with the loss or metric without 'sparse'; cornu.ops.argmax(y_true, -1) gives class numbers"
        if one_hot
        else "give one class number for each prediction",
    )


def target_kind(y_true_shape: tuple[Size, ...], y_pred_shape: tuple[Size, ...]) -> str:
    """`"binary"`, `"sparse"` or `"categorical"`: which accuracy or cross-entropy goes with these shapes.

    Keras's rule: one unit is binary; targets with an axis less, or with a last axis of 1, are class numbers; else
    one-hot. Predictions `(batch,)` count as one unit.

    Args:
        y_true_shape: shape of the targets.
        y_pred_shape: shape of the predictions.

    Raises:
        ShapeError: if the number of units is not known and decides.
    """
    if len(y_pred_shape) <= 1 or _is(y_pred_shape[-1], 1):
        return "binary"
    if isinstance(y_pred_shape[-1], Dim):
        raise ShapeError(
            f"predictions of shape {shape_text(y_pred_shape)} have an unknown number of units",
            "a known last axis, to choose between binary, sparse and categorical",
            "name the metric or loss in full, as 'sparse_categorical_accuracy'",
        )
    sparse = len(y_true_shape) < len(y_pred_shape) or _is(y_true_shape[-1], 1)
    return "sparse" if sparse else "categorical"


# ---------------------------------------------------------------- from many to one


def fit_weights(values: Any, weights: Any, what: str, both_ways: bool = False) -> tuple[Any, Any]:
    """Values and weights of one rank, each size of the weights equal to that of the values or 1.

    Raises:
        ShapeError: if they do not fit: broadcasting a lower rank would line up the wrong axes.
    """
    shape, weight = shape_of(values), shape_of(weights)
    if not shape or not weight:
        return values, weights
    values, weights = squeeze_or_expand_to_same_rank(values, weights)
    a, b = shape_of(values), shape_of(weights)
    if len(a) == len(b) and not any(
        _differ(x, y) and not _is(y, 1) and not (both_ways and _is(x, 1)) for x, y in zip(a, b, strict=True)
    ):
        return values, weights
    fix = "reshape the weights to the shape of the losses"
    if len(weight) < len(shape):
        axes = ", ".join(["-1"] + ["1"] * (len(shape) - 1))
        fix = f"one weight per sample: sample_weight.reshape(({axes})); one per position: the full shape"
    raise ShapeError(
        f"weights of shape {shape_text(weight)} for {what} of shape {shape_text(shape)}",
        "a scalar, or the same axes, each of the same size or 1",
        fix,
    )


def apply_mask(sample_weight: Any, mask: Any, dtype: str, reduction: str | None) -> Any:
    """A mask merged into sample weights.

    For a mean over all positions, the positions that count weigh `all / valid`, so that the mean is over those.

    Args:
        sample_weight: array or `None`.
        mask: array, true where a position counts, or `None`.
        dtype: dtype of the result.
        reduction: the reduction that follows.

    Returns:
        weights, or `None` if there is neither.
    """
    if mask is None:
        return sample_weight
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    weights = ops.cast(mask, dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        share = ops.divide_no_nan(_number(count(mask, None), dtype), ops.sum(weights))
        weights = ops.multiply(weights, share)
    if sample_weight is None:
        return weights
    sample_weight = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
    weights, sample_weight = fit_weights(weights, sample_weight, "a mask", both_ways=True)
    return ops.multiply(sample_weight, weights)


def _number(size: Any, dtype: str) -> Any:
    """How many there are, to compute with: a number, or an array where it is not known yet."""
    return size if isinstance(size, int) else ops.cast(size, dtype)


def reduce_weighted_values(
    values: Any,
    sample_weight: Any = None,
    mask: Any = None,
    reduction: str | None = "sum_over_batch_size",
    dtype: Any = None,
) -> Any:
    """Losses, weighted and masked, as one number.

    Args:
        values: losses, one per sample or position.
        sample_weight: a scalar, or an array with the axes of `values`, of equal sizes or 1; or `None`.
        mask: which positions count; an axis it lacks at the end is added. Or `None`.
        reduction: as for `Loss`.
        dtype: dtype of the result; by default that of `values`.

    Returns:
        a scalar, or the weighted losses if `reduction` is `"none"` or `None`.

    Raises:
        ShapeError: if the weights do not fit.
    """
    if reduction not in ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None):
        raise ArgumentError(f"got reduction={reduction!r}", REDUCTION.words)
    values = ops.convert_to_tensor(values, dtype=dtype)
    dtype = dtype_of(values)
    if mask is not None:
        mask = ops.convert_to_tensor(mask)
        while 0 < len(shape_of(mask)) < len(shape_of(values)):
            mask = ops.expand_dims(mask, -1)
    weights = apply_mask(sample_weight, mask, dtype, reduction)
    if weights is not None:
        weights = ops.convert_to_tensor(weights, dtype=dtype)
        values, weights = fit_weights(values, weights, "losses")
        values = ops.multiply(values, weights)
    if reduction in (None, "none") or shape_of(values) == ():
        return values
    total = ops.sum(values)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and weights is not None:
        return ops.divide_no_nan(total, ops.cast(ops.sum(weights), dtype))
    number = _number(count(values, None), dtype)
    if isinstance(number, int):
        return ops.divide(total, max(number, 1))
    return ops.divide_no_nan(total, number)
