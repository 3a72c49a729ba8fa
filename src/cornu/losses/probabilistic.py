"""Losses for probabilities: cross-entropies and their kin."""

import warnings
from typing import Any

from cornu import ops
from cornu.core import dtypes
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.losses.base import LossFunctionWrapper, as_pair, matched, matched_classes
from cornu.ops._declare import shape_of
from cornu.ops.nn import EPSILON

__all__ = [
    "BinaryCrossentropy", "BinaryFocalCrossentropy", "CTC", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy", "KLDivergence", "Poisson", "SparseCategoricalCrossentropy",
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy", "ctc", "kl_divergence", "poisson", "sparse_categorical_crossentropy",
]  # fmt: skip

_CLASSES = "class numbers as targets need the sparse loss; or cornu.ops.one_hot(y_true, classes)"


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: Any = -1
) -> Any:
    """The mean over an axis of the cross-entropy of yes-or-no predictions.

    Args:
        y_true: targets `(..., units)`, 0 or 1.
        y_pred: probabilities of 1 `(..., units)`, or logits.
        from_logits: whether `y_pred` holds logits.
        label_smoothing: how far targets are moved from 0 and 1 towards 1/2, from 0 to 1.
        axis: the axis to take the mean over.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        >>> round(float(binary_crossentropy([1.0, 0.0], [0.5, 0.5])), 4)
        0.6931
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "binary_crossentropy")
    y_true = _smoothed(y_true, label_smoothing, 2)
    return ops.mean(ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits), axis=axis)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: Any = -1,
) -> Any:
    """`binary_crossentropy` that counts easy predictions less: times `(1 - p)**gamma`, `p` that of the truth.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002

    Args:
        y_true: targets `(..., units)`, 0 or 1.
        y_pred: probabilities of 1 `(..., units)`, or logits.
        apply_class_balancing: whether to weigh targets 1 by `alpha` and targets 0 by `1 - alpha`.
        alpha: the weight of targets 1.
        gamma: how much easy predictions are discounted.
        from_logits: whether `y_pred` holds logits.
        label_smoothing: how far targets are moved from 0 and 1 towards 1/2.
        axis: the axis to take the mean over.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "binary_focal_crossentropy")
    y_true = _smoothed(y_true, label_smoothing, 2)
    if from_logits:
        y_pred = ops.sigmoid(y_pred)
    loss = ops.binary_crossentropy(y_true, y_pred)
    no = ops.subtract(1.0, y_true)
    of_truth = ops.add(ops.multiply(y_true, y_pred), ops.multiply(no, ops.subtract(1.0, y_pred)))
    loss = ops.multiply(ops.power(ops.subtract(1.0, of_truth), gamma), loss)
    if apply_class_balancing:
        loss = ops.multiply(ops.add(ops.multiply(y_true, alpha), ops.multiply(no, 1.0 - alpha)), loss)
    return ops.mean(loss, axis=axis)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """The cross-entropy of predictions over classes, for one-hot targets.

    Args:
        y_true: targets `(..., classes)`: one-hot, or any probabilities.
        y_pred: probabilities `(..., classes)`, or logits.
        from_logits: whether `y_pred` holds logits.
        label_smoothing: how far targets are moved towards `1 / classes`, from 0 to 1.
        axis: the axis of classes.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        >>> [round(float(x), 4) for x in categorical_crossentropy([[0.0, 1.0]], [[0.75, 0.25]])]
        [1.3863]
    """
    y_true, y_pred = _categorical(y_true, y_pred, label_smoothing, axis, "categorical_crossentropy")
    return ops.categorical_crossentropy(y_true, y_pred, from_logits=from_logits, axis=axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`categorical_crossentropy` that counts easy predictions less: times `alpha * (1 - p)**gamma`.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002

    Args:
        y_true: one-hot targets `(..., classes)`.
        y_pred: probabilities `(..., classes)`, or logits.
        alpha: a weight, or one for each class.
        gamma: how much easy predictions are discounted.
        from_logits: whether `y_pred` holds logits.
        label_smoothing: how far targets are moved towards `1 / classes`.
        axis: the axis of classes.

    Returns:
        array without that axis.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = _categorical(y_true, y_pred, label_smoothing, axis, "categorical_focal_crossentropy")
    if from_logits:
        y_pred = ops.softmax(y_pred, axis=axis)
    p = ops.clip(ops.divide(y_pred, ops.sum(y_pred, axis=axis, keepdims=True)), EPSILON, 1.0 - EPSILON)
    weight = ops.multiply(ops.power(ops.subtract(1.0, p), gamma), ops.convert_to_tensor(alpha, dtype=ops.dtype(p)))
    return ops.negative(ops.sum(ops.multiply(weight, ops.multiply(y_true, ops.log(p))), axis=axis))


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Any:
    """The cross-entropy of predictions over classes, for class numbers as targets.

    Args:
        y_true: class numbers `(...)` or `(..., 1)`.
        y_pred: probabilities `(..., classes)`, or logits.
        from_logits: whether `y_pred` holds logits.
        ignore_class: a class number whose positions have loss 0 (and do not count in a `Loss`'s mean), or `None`.
        axis: the axis of classes.

    Returns:
        array in the shape of `y_pred` without the axis of classes; NaN where a target names no class.

    Raises:
        ShapeError: if the shapes do not fit.

    Example:
        >>> [round(float(x), 4) for x in sparse_categorical_crossentropy([1], [[0.75, 0.25]])]
        [1.3863]
    """
    return _sparse_with_mask(y_true, y_pred, from_logits, ignore_class, axis)[0]


def _sparse_with_mask(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> tuple[Any, Any]:
    """The losses, and which positions are not ignored (`None`: all are counted)."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    _check_classes(y_pred, axis, "sparse_categorical_crossentropy")
    y_true = matched_classes(y_true, y_pred, "sparse_categorical_crossentropy", axis)
    if ignore_class is None:
        return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits, axis=axis), None
    if ops.dtype(y_true) in ("bool", "uint8", "uint16"):
        y_true = ops.cast(y_true, "int32")  # ignore_class may be -1
    valid = ops.not_equal(y_true, ignore_class)
    y_true = ops.where(valid, y_true, 0)
    # Predictions that are ignored are set to ones, so that neither their loss nor its gradient can be NaN.
    y_pred = ops.where(ops.expand_dims(valid, axis), y_pred, 1)
    losses = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits, axis=axis)
    return ops.where(valid, losses, 0), valid


# What a loss or metric made from the function asks it: does it tell which positions count, do its targets stay whole?
sparse_categorical_crossentropy.with_mask = _sparse_with_mask  # type: ignore[attr-defined]
sparse_categorical_crossentropy.class_targets = True  # type: ignore[attr-defined]


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Any:
    """`(1 - p**q) / q`, `p` the probability of the true class: between cross-entropy (q to 0) and absolute error (1).

    Source: Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836

    Args:
        y_true: class numbers `(...)` or `(..., 1)`.
        y_pred: probabilities `(..., classes)`.
        q: from 0 to 1; the larger, the less wrong labels harm.

    Returns:
        array `(...)`.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    name = "categorical_generalized_cross_entropy"
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    y_true = ops.cast(matched_classes(y_true, y_pred, name), "int32")
    hot = ops.one_hot(y_true, shape_of(y_pred)[-1], dtype=ops.dtype(y_pred))
    p = ops.sum(ops.multiply(y_pred, hot), axis=-1)
    return ops.divide(ops.subtract(1.0, ops.power(p, q)), q)


categorical_generalized_cross_entropy.class_targets = True  # type: ignore[attr-defined]


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """The sum of `y_true * log(y_true / y_pred)` over the last axis.

    Args:
        y_true: probabilities `(..., classes)`.
        y_pred: probabilities `(..., classes)`.

    Returns:
        array `(...)`.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "kl_divergence", _CLASSES)
    y_true, y_pred = ops.clip(y_true, EPSILON, 1), ops.clip(y_pred, EPSILON, 1)
    return ops.sum(ops.multiply(y_true, ops.log(ops.divide(y_true, y_pred))), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """The mean of `y_pred - y_true * log(y_pred)` over the last axis: counts, and their predicted rates.

    Args:
        y_true: counts `(..., units)`.
        y_pred: rates `(..., units)`, above 0.

    Returns:
        array `(...)`.

    Raises:
        ShapeError: if the shapes differ.
    """
    y_true, y_pred = matched(*as_pair(y_true, y_pred), "poisson")
    return ops.mean(ops.subtract(y_pred, ops.multiply(y_true, ops.log(ops.add(y_pred, EPSILON)))), axis=-1)


def ctc(y_true: Any, y_pred: Any) -> Any:
    """Connectionist temporal classification: how improbable labels are, however they are spread over the steps.

    The forward algorithm, on logarithms. Source: Graves et al. 2006, https://doi.org/10.1145/1143844.1143891

    Args:
        y_true: labels `(batch, max_label_length)`, whole numbers, filled up with 0, which is the blank.
        y_pred: logits `(batch, max_length, classes)`.

    Returns:
        losses `(batch,)`, of float32 at least.

    Raises:
        ShapeError: if the ranks or batch sizes do not fit.
    """
    y_true = ops.cast(ops.convert_to_tensor(y_true), "int32")
    y_pred = ops.convert_to_tensor(y_pred)
    true, pred = shape_of(y_true), shape_of(y_pred)
    sizes = {size for size in (*true[:1], *pred[:1]) if not isinstance(size, Dim)}
    if len(true) != 2 or len(pred) != 3 or len(sizes) > 1:
        raise ShapeError(
            f"ctc got y_true of shape {shape_text(true)} and y_pred of shape {shape_text(pred)}",
            "labels (batch, max_label_length) and logits (batch, max_length, classes)",
        )
    dtype = dtypes.promote(ops.dtype(y_pred), "float32")
    logs = ops.log_softmax(ops.cast(y_pred, dtype), axis=-1)
    # The states: a blank before, between and after labels. Keras and optax let a path that cannot be weigh exp(-1e5).
    blank = ops.zeros_like(y_true)
    ends = ops.zeros((true[0], 1), "int32")
    states = ops.concatenate([ops.reshape(ops.stack([blank, y_true], axis=-1), (true[0], true[1] * 2)), ends], axis=1)
    one_hot = ops.one_hot(states, pred[-1], dtype=dtype)
    emitted = ops.einsum("btk,bsk->tbs", logs, one_hot)
    is_label = ops.equal(ops.mod(ops.arange(true[1] * 2 + 1), 2), 1)
    two_back = ops.get_item(states, (slice(None), slice(None, -2)))
    before = ops.concatenate([ops.zeros((true[0], 2), "int32"), two_back], axis=1)
    may_skip = ops.logical_and(is_label, ops.not_equal(states, before))
    start, never = ops.full((true[0], 1), _NEVER, dtype), ops.full((true[0], 2), _NEVER, dtype)
    skipped = ops.where(may_skip, 0.0, _NEVER)

    def step(alpha: Any, log: Any) -> tuple[Any, None]:
        one = ops.concatenate([start, ops.get_item(alpha, (slice(None), slice(None, -1)))], axis=1)
        two = ops.add(ops.concatenate([never, ops.get_item(alpha, (slice(None), slice(None, -2)))], axis=1), skipped)
        return ops.add(ops.logsumexp(ops.stack([alpha, one, two], axis=0), axis=0), log), None

    first = ops.where(ops.equal(ops.arange(true[1] * 2 + 1), 0), ops.zeros((true[0], true[1] * 2 + 1), dtype), _NEVER)
    alpha, _ = ops.scan(step, first, emitted)
    lengths = ops.sum(ops.cast(ops.not_equal(y_true, 0), "int32"), axis=-1)
    last = ops.multiply(lengths, 2)
    ends_at = ops.stack([last, ops.maximum(ops.subtract(last, 1), 0)], axis=-1)
    final = ops.take_along_axis(alpha, ends_at, axis=1)
    empty = ops.expand_dims(ops.equal(lengths, 0), -1)
    final = ops.where(ops.logical_and(empty, ops.equal(ops.arange(2), 1)), _NEVER, final)
    return ops.negative(ops.logsumexp(final, axis=-1))


_NEVER = -1e5
ctc.class_targets = True  # type: ignore[attr-defined]


def _smoothed(y_true: Any, smoothing: float, classes: Any) -> Any:
    if not smoothing:
        return y_true
    if isinstance(classes, Dim):
        share = ops.divide(smoothing, ops.cast(ops.size_array(classes), ops.dtype(y_true)))
    else:
        share = smoothing / classes
    return ops.add(ops.multiply(y_true, 1.0 - smoothing), share)


def _check_classes(y_pred: Any, axis: int, owner: str) -> None:
    if isinstance(axis, bool):
        raise ArgumentError(f"{owner} got axis={axis}", "a whole number", "pass from_logits by name")
    sizes = shape_of(y_pred)
    if sizes and not isinstance(sizes[-1], Dim) and sizes[-1] == 1:
        warnings.warn(
            f"{owner} got predictions of shape {shape_text(sizes)}: with one class the loss says nothing. "
            "For two classes use one unit with binary_crossentropy, or two units.",
            SyntaxWarning,
            stacklevel=4,
        )


def _categorical(y_true: Any, y_pred: Any, label_smoothing: float, axis: int, owner: str) -> tuple[Any, Any]:
    y_true, y_pred = as_pair(y_true, y_pred)
    _check_classes(y_pred, axis, owner)
    y_true, y_pred = matched(y_true, y_pred, owner, _CLASSES)
    return _smoothed(y_true, label_smoothing, shape_of(y_true)[axis]), y_pred


class BinaryCrossentropy(LossFunctionWrapper):
    """The cross-entropy of yes-or-no predictions (see `binary_crossentropy`).

    Args:
        from_logits: whether predictions are logits.
        label_smoothing: how far targets are moved from 0 and 1 towards 1/2, from 0 to 1.
        axis: the axis to take the mean over.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.

    Example:
        >>> round(float(BinaryCrossentropy(from_logits=True)([[1.0], [0.0]], [[0.0], [0.0]])), 4)
        0.6931
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **options)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class BinaryFocalCrossentropy(LossFunctionWrapper):
    """Binary cross-entropy that counts easy predictions less (see `binary_focal_crossentropy`).

    Args:
        apply_class_balancing: whether to weigh targets 1 by `alpha` and targets 0 by `1 - alpha`.
        alpha: the weight of targets 1.
        gamma: how much easy predictions are discounted.
        from_logits: whether predictions are logits.
        label_smoothing: how far targets are moved from 0 and 1 towards 1/2, from 0 to 1.
        axis: the axis to take the mean over.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        balance = {"apply_class_balancing": apply_class_balancing, "alpha": alpha, "gamma": gamma}
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **balance, **options)
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class CategoricalCrossentropy(LossFunctionWrapper):
    """The cross-entropy of predictions over classes, for one-hot targets (see `categorical_crossentropy`).

    Args:
        from_logits: whether predictions are logits.
        label_smoothing: how far targets are moved towards `1 / classes`, from 0 to 1.
        axis: the axis of classes.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **options)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """Categorical cross-entropy that counts easy predictions less (see `categorical_focal_crossentropy`).

    Args:
        alpha: a weight, or one for each class.
        gamma: how much easy predictions are discounted.
        from_logits: whether predictions are logits.
        label_smoothing: how far targets are moved towards `1 / classes`, from 0 to 1.
        axis: the axis of classes.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, alpha=alpha, gamma=gamma, **options)
        self.alpha, self.gamma = alpha, gamma
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """The cross-entropy of predictions over classes, for class numbers (see `sparse_categorical_crossentropy`).

    Args:
        from_logits: whether predictions are logits.
        ignore_class: a class number whose positions do not count, or `None`.
        reduction: how losses become one number, as for `Loss`.
        axis: the axis of classes.
        name: its name.
        dtype: dtype of the computation.

    Example:
        >>> loss = SparseCategoricalCrossentropy(ignore_class=-1)
        >>> round(float(loss([1, -1], [[0.75, 0.25], [0.5, 0.5]])), 4)
        1.3863
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **options)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis


class CategoricalGeneralizedCrossEntropy(LossFunctionWrapper):
    """A cross-entropy that bears wrong labels (see `categorical_generalized_cross_entropy`).

    Args:
        q: above 0 and below 1; the larger, the less wrong labels harm.
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.

    Raises:
        ArgumentError: if `q` is outside.
    """

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0 < q < 1:
            raise ArgumentError(f"CategoricalGeneralizedCrossEntropy got q={q!r}", "a number above 0 and below 1")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)
        self.q = q


class KLDivergence(LossFunctionWrapper):
    """How far predicted probabilities are from given ones (see `kl_divergence`).

    Args:
        reduction: how losses become one number, as for `Loss`.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "kl_divergence", dtype: Any = None
    ) -> None:
        super().__init__(kl_divergence, reduction, name, dtype)


class Poisson(LossFunctionWrapper):
    """For counts and their predicted rates (see `poisson`); arguments as for `KLDivergence`."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "poisson", dtype: Any = None) -> None:
        super().__init__(poisson, reduction, name, dtype)


class CTC(LossFunctionWrapper):
    """Connectionist temporal classification (see `ctc`); arguments as for `KLDivergence`."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "ctc", dtype: Any = None) -> None:
        super().__init__(ctc, reduction, name, dtype)
