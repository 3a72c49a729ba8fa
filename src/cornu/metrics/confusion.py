"""Counts of right and wrong yes-or-no predictions at thresholds, and what follows from them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cornu import ops
from cornu.core.config import Field, one_of, positive_int
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.variable import Variable
from cornu.losses.base import fit_weights, matched, squeeze_or_expand_to_same_rank
from cornu.metrics.base import Metric
from cornu.ops._declare import shape_of
from cornu.ops.nn import EPSILON

__all__ = [
    "AUC", "FalseNegatives", "FalsePositives", "Precision", "PrecisionAtRecall", "Recall", "RecallAtPrecision",
    "SensitivityAtSpecificity", "SensitivitySpecificityBase", "SpecificityAtSensitivity", "TrueNegatives",
    "TruePositives",
]  # fmt: skip

# What a prediction outside the top k is set to.
NEVER = -1e10
SHARE = Field(lambda value: isinstance(value, (int, float)) and 0 <= value <= 1, "a number from 0 to 1")


def _thresholds(thresholds: Any, default: float, owner: str) -> list[float]:
    if thresholds is None:
        return [default]
    found = [float(t) for t in thresholds] if isinstance(thresholds, Iterable) else [float(thresholds)]
    if not found or not all(0 <= t <= 1 for t in found):
        raise ArgumentError(f"{owner} got thresholds={thresholds!r}", "a number from 0 to 1, or a list of them")
    return found


def _even(thresholds: list[float]) -> bool:
    """Whether thresholds go from 0 to 1 in equal steps, so that counting can be done by bucket."""
    if len(thresholds) < 3:
        return False
    return bool(np.allclose(thresholds, np.arange(len(thresholds)) / (len(thresholds) - 1), atol=EPSILON))


def count_confusion(
    variables: dict[str, Variable],
    y_true: Any,
    y_pred: Any,
    thresholds: list[float],
    sample_weight: Any = None,
    top_k: int | None = None,
    class_id: int | None = None,
    multi_label: bool = False,
    label_weights: Any = None,
    owner: str = "metric",
) -> None:
    """Add a batch to counts of right and wrong predictions.

    With thresholds in equal steps predictions are sorted into buckets, in time and space linear in their number; with
    others each is compared with each.

    Args:
        variables: what to add to, by `"tp"`, `"fp"`, `"tn"`, `"fn"`: `(thresholds,)`, or `(thresholds, labels)`.
        y_true: targets; what is not 0 counts as 1.
        y_pred: predictions of the same shape.
        thresholds: a prediction above counts as 1.
        sample_weight: a scalar, or an array with the first axes of the predictions.
        top_k: only the `k` largest predictions of a sample may count as 1, or `None`.
        class_id: the class on the last axis to look at, or `None` for all.
        multi_label: whether each label (on the last of two axes) is counted apart.
        label_weights: weights for the last axis, or `None`.
        owner: who asks, for messages.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    dtype = next(iter(variables.values())).dtype
    y_true, y_pred = ops.cast(ops.convert_to_tensor(y_true), dtype), ops.cast(ops.convert_to_tensor(y_pred), dtype)
    y_true, y_pred = matched(y_true, y_pred, owner)
    weights = None
    if sample_weight is not None:
        weights = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
        if shape_of(weights) and len(shape_of(weights)) == len(shape_of(y_pred)) - 1:
            weights = ops.expand_dims(weights, -1)
        elif len(shape_of(weights)) == len(shape_of(y_pred)) + 1:
            weights = squeeze_or_expand_to_same_rank(y_pred, weights, expand_rank_1=False)[1]
        weights = fit_weights(y_pred, weights, "predictions")[1]
    if top_k is not None:
        y_pred = _only_top(y_pred, top_k)
    if class_id is not None:
        if len(shape_of(y_pred)) < 2:
            raise ShapeError(
                f"{owner} with class_id={class_id} got predictions of shape {shape_text(shape_of(y_pred))}",
                "an axis of classes: (batch, classes)",
            )
        y_true = ops.get_item(y_true, (..., slice(class_id, class_id + 1)))
        y_pred = ops.get_item(y_pred, (..., slice(class_id, class_id + 1)))
        _check_class(y_pred, class_id, owner)
    shape = shape_of(y_pred)
    weights = ops.ones_like(y_pred) if weights is None else ops.broadcast_to(weights, shape)
    if label_weights is not None:
        weights = ops.multiply(weights, ops.convert_to_tensor(label_weights, dtype=dtype))
    positive = ops.cast(ops.not_equal(y_true, 0), dtype)
    labels = shape[-1] if multi_label else 1
    y_pred, positive, weights = (ops.reshape(x, (-1, labels)) for x in (y_pred, positive, weights))
    true = ops.multiply(positive, weights)
    false = ops.multiply(ops.subtract(1.0, positive), weights)
    count = _by_bucket if _even(thresholds) else _by_comparison
    tp, fp = count(y_pred, true, false, thresholds, dtype)
    found = {
        "tp": tp,
        "fp": fp,
        "tn": ops.subtract(ops.sum(false, axis=0), fp),
        "fn": ops.subtract(ops.sum(true, axis=0), tp),
    }
    for key, variable in variables.items():
        variable.assign_add(ops.reshape(found[key], variable.shape))


def _check_class(y_pred: Any, class_id: int, owner: str) -> None:
    if shape_of(y_pred)[-1] == 0 and not isinstance(shape_of(y_pred)[-1], Dim):
        raise ArgumentError(f"{owner} got class_id={class_id}", "a class the predictions have")


def _by_bucket(y_pred: Any, true: Any, false: Any, thresholds: list[float], dtype: str) -> tuple[Any, Any]:
    """Weights of true and false predictions above each of evenly spaced thresholds, `(thresholds, labels)` each."""
    size = len(thresholds)
    labels = shape_of(y_pred)[-1]
    # Bucket i holds what is above threshold i and not above the next; 0 is for what is above none.
    bucket = ops.ceil(ops.multiply(ops.clip(y_pred, 0.0, 1.0), float(size - 1)))
    if thresholds[0] < 0:
        bucket = ops.maximum(bucket, 1.0)
    label = ops.broadcast_to(ops.arange(labels), shape_of(y_pred))
    at = ops.stack([ops.cast(bucket, "int32"), label], axis=-1)
    totals = []
    for weights in (true, false):
        sums = ops.scatter(at, weights, (size + 1, labels))
        above = ops.flip(ops.cumsum(ops.flip(sums, axis=0), axis=0), axis=0)
        totals.append(ops.get_item(above, slice(1, None)))
    return totals[0], totals[1]


def _by_comparison(y_pred: Any, true: Any, false: Any, thresholds: list[float], dtype: str) -> tuple[Any, Any]:
    """Weights of true and false predictions above each threshold, `(thresholds, labels)` each."""
    limits = np.asarray(thresholds, "float64").reshape(-1, 1, 1)
    above = ops.greater(ops.expand_dims(y_pred, 0), ops.convert_to_tensor(limits, dtype=dtype))
    return tuple(ops.sum(ops.where(above, ops.expand_dims(w, 0), 0.0), axis=1) for w in (true, false))  # type: ignore


def _only_top(x: Any, k: int) -> Any:
    """The array with all but the `k` largest on its last axis set to a very low number."""
    _, indices = ops.top_k(x, k)
    within = ops.any(ops.equal(ops.expand_dims(indices, -1), ops.arange(shape_of(x)[-1])), axis=-2)
    return ops.where(within, x, NEVER)


class _Count(Metric):
    """Counts one kind of prediction at thresholds."""

    _kind: str

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = thresholds
        self.thresholds = _thresholds(thresholds, 0.5, type(self).__name__)
        self.accumulator = self.add_variable((len(self.thresholds),), "zeros", name="accumulator")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets; what is not 0 counts as 1.
            y_pred: predictions of the same shape, from 0 to 1.
            sample_weight: a scalar, or an array with the first axes of the predictions.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        count_confusion({self._kind: self.accumulator}, y_true, y_pred, self.thresholds, sample_weight, owner=self.name)

    def result(self) -> Any:
        """The count: a scalar, or `(thresholds,)` if there are several."""
        return _one_or_all(self.accumulator, self.thresholds)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, the thresholds as they were given."""
        return {**super().get_config(), "thresholds": self.init_thresholds}


def _one_or_all(values: Any, thresholds: list[float]) -> Any:
    return ops.get_item(values, 0) if len(thresholds) == 1 else ops.convert_to_tensor(values)


class TruePositives(_Count):
    """How many predictions are above a threshold, and rightly.

    Args:
        thresholds: a number from 0 to 1, or a list of them; 0.5 if left out.
        name: its name.
        dtype: dtype of the computation.

    Example:
        >>> float(TruePositives()([0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0]))
        2.0
    """

    _kind = "tp"


class FalsePositives(_Count):
    """How many predictions are above a threshold, and wrongly; arguments as for `TruePositives`."""

    _kind = "fp"


class TrueNegatives(_Count):
    """How many predictions are not above a threshold, and rightly; arguments as for `TruePositives`."""

    _kind = "tn"


class FalseNegatives(_Count):
    """How many predictions are not above a threshold, and wrongly; arguments as for `TruePositives`."""

    _kind = "fn"


class _Ratio(Metric):
    """The share of true positives among them and one kind of mistake."""

    _direction = "up"
    _other: tuple[str, str]

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if top_k is not None and not positive_int(top_k):
            raise ArgumentError(f"{self.name} got top_k={top_k!r}", "a whole number above zero, or None")
        if class_id is not None and (not hasattr(class_id, "__index__") or class_id < 0):
            raise ArgumentError(f"{self.name} got class_id={class_id!r}", "a whole number from 0 on, or None")
        self.init_thresholds = thresholds
        self.top_k = top_k
        self.class_id = class_id
        self.thresholds = _thresholds(thresholds, 0.5 if top_k is None else NEVER, type(self).__name__)
        self.true_positives = self.add_variable((len(self.thresholds),), "zeros", name="true_positives")
        setattr(self, self._other[1], self.add_variable((len(self.thresholds),), "zeros", name=self._other[1]))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets; what is not 0 counts as 1.
            y_pred: predictions of the same shape, from 0 to 1.
            sample_weight: a scalar, or an array with the first axes of the predictions.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        count_confusion(
            {"tp": self.true_positives, self._other[0]: getattr(self, self._other[1])},
            y_true,
            y_pred,
            self.thresholds,
            sample_weight,
            self.top_k,
            self.class_id,
            owner=self.name,
        )

    def result(self) -> Any:
        """The share: a scalar, or `(thresholds,)` if there are several; 0 where nothing counts."""
        return _one_or_all(_share(self.true_positives, getattr(self, self._other[1])), self.thresholds)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, the thresholds as they were given."""
        return {**super().get_config(), "thresholds": self.init_thresholds}


def _share(part: Any, rest: Any) -> Any:
    return ops.divide_no_nan(part, ops.add(part, rest))


class Precision(_Ratio):
    """The share of right ones among predictions above a threshold.

    Args:
        thresholds: a number from 0 to 1, or a list of them; 0.5 if left out (with `top_k`: none).
        top_k: only the `k` largest predictions of a sample may count as 1.
        class_id: the class on the last axis to look at; all if left out.
        name: its name.
        dtype: dtype of the computation.

    Example:
        >>> round(float(Precision()([0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0])), 4)
        0.6667
    """

    _other = ("fp", "false_positives")


class Recall(_Ratio):
    """The share of targets 1 whose prediction is above a threshold; arguments as for `Precision`."""

    _other = ("fn", "false_negatives")


_FOUR = {"tp": "true_positives", "fp": "false_positives", "tn": "true_negatives", "fn": "false_negatives"}


class SensitivitySpecificityBase(Metric):
    """The best of one ratio at thresholds where another ratio is large enough.

    Args:
        value: what the other ratio must reach.
        num_thresholds: how many thresholds to try.
        class_id: the class on the last axis to look at; all if left out.
        name: its name.
        dtype: dtype of the computation.

    Raises:
        ArgumentError: if the number of thresholds is not above 0.
    """

    _direction = "up"

    def __init__(
        self,
        value: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if not positive_int(num_thresholds):
            raise ArgumentError(f"{self.name} got num_thresholds={num_thresholds!r}", "a whole number above zero")
        self.value = value
        self.num_thresholds = num_thresholds
        self.class_id = class_id
        steps = num_thresholds - 1
        self.thresholds = [i / steps for i in range(num_thresholds)] if steps else [0.5]
        for counted in _FOUR.values():
            setattr(self, counted, self.add_variable((num_thresholds,), "zeros", name=counted))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets; what is not 0 counts as 1.
            y_pred: predictions of the same shape, from 0 to 1.
            sample_weight: a scalar, or an array with the first axes of the predictions.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        variables = {key: getattr(self, counted) for key, counted in _FOUR.items()}
        count_confusion(
            variables, y_true, y_pred, self.thresholds, sample_weight, class_id=self.class_id, owner=self.name
        )

    def _find_max_under_constraint(self, constrained: Any, dependent: Any, predicate: Callable[..., Any]) -> Any:
        return ops.max(ops.where(predicate(constrained, self.value), dependent, 0.0))

    def _best(self, dependent: Any, constrained: Any) -> Any:
        return self._find_max_under_constraint(constrained, dependent, ops.greater_equal)

    def _ratios(self) -> dict[str, Any]:
        tp, fp, tn, fn = (getattr(self, counted) for counted in _FOUR.values())
        return {"sensitivity": _share(tp, fn), "specificity": _share(tn, fp), "precision": _share(tp, fp)}


class SensitivityAtSpecificity(SensitivitySpecificityBase):
    """The largest share of targets 1 found, where at least a share of targets 0 is left alone.

    Args:
        specificity: that share, from 0 to 1.
        num_thresholds: how many thresholds to try.
        class_id: the class on the last axis to look at; all if left out.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        SHARE.check("SensitivityAtSpecificity", "specificity", specificity)
        super().__init__(specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity

    def result(self) -> Any:
        """The share, a scalar; 0 if no threshold will do."""
        ratios = self._ratios()
        return self._best(ratios["sensitivity"], ratios["specificity"])


class SpecificityAtSensitivity(SensitivitySpecificityBase):
    """The largest share of targets 0 left alone, where at least a share of targets 1 is found.

    Args:
        sensitivity: that share, from 0 to 1.
        num_thresholds: how many thresholds to try.
        class_id: the class on the last axis to look at; all if left out.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        SHARE.check("SpecificityAtSensitivity", "sensitivity", sensitivity)
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity

    def result(self) -> Any:
        """The share, a scalar; 0 if no threshold will do."""
        ratios = self._ratios()
        return self._best(ratios["specificity"], ratios["sensitivity"])


class PrecisionAtRecall(SensitivitySpecificityBase):
    """The largest precision, where recall is at least a given one.

    Args:
        recall: the recall, from 0 to 1.
        num_thresholds: how many thresholds to try.
        class_id: the class on the last axis to look at; all if left out.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        SHARE.check("PrecisionAtRecall", "recall", recall)
        super().__init__(recall, num_thresholds, class_id, name, dtype)
        self.recall = recall

    def result(self) -> Any:
        """The precision, a scalar; 0 if no threshold will do."""
        ratios = self._ratios()
        return self._best(ratios["precision"], ratios["sensitivity"])


class RecallAtPrecision(SensitivitySpecificityBase):
    """The largest recall, where precision is at least a given one.

    Args:
        precision: the precision, from 0 to 1.
        num_thresholds: how many thresholds to try.
        class_id: the class on the last axis to look at; all if left out.
        name: its name.
        dtype: dtype of the computation.
    """

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        SHARE.check("RecallAtPrecision", "precision", precision)
        super().__init__(precision, num_thresholds, class_id, name, dtype)
        self.precision = precision

    def result(self) -> Any:
        """The recall, a scalar; 0 if no threshold will do."""
        ratios = self._ratios()
        return self._best(ratios["sensitivity"], ratios["precision"])


class AUC(Metric):
    """The area under a curve that thresholds trace, as a Riemann sum.

    Sources: Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874 (interpolation of precision and recall);
    Flach and Kull 2015, "Precision-Recall-Gain Curves" (PRGAIN).

    Args:
        num_thresholds: how many thresholds; more are more exact.
        curve: `"ROC"`, `"PR"` or `"PRGAIN"`.
        summation_method: `"interpolation"`, `"minoring"` (from below) or `"majoring"` (from above).
        name: its name.
        dtype: dtype of the computation.
        thresholds: the thresholds, from 0 to 1, instead of evenly spaced ones; one below 0 and one above 1 are added.
        multi_label: whether labels on the last axis have curves of their own, whose areas are averaged.
        num_labels: how many labels; read from the predictions if left out.
        label_weights: one weight per label.
        from_logits: whether predictions are logits.

    Raises:
        ArgumentError: for any other curve or method, or fewer than two thresholds.

    Example:
        >>> metric = AUC(num_thresholds=3)
        >>> float(metric([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9]))
        0.75
    """

    _direction = "up"
    true_positives: Variable
    false_positives: Variable
    true_negatives: Variable
    false_negatives: Variable

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.curve = str(getattr(curve, "value", curve)).upper()
        self.summation_method = str(getattr(summation_method, "value", summation_method)).lower()
        one_of("ROC", "PR", "PRGAIN").check("AUC", "curve", self.curve)
        one_of("interpolation", "minoring", "majoring").check("AUC", "summation_method", self.summation_method)
        if num_labels and not multi_label:
            raise ArgumentError(f"AUC got num_labels={num_labels} without multi_label", "multi_label=True with it")
        self._given: list[float] | None = None
        if thresholds is not None:
            self._given = sorted(_thresholds(thresholds, 0.5, "AUC"))
            inner = self._given
        else:
            if not positive_int(num_thresholds) or num_thresholds < 2:
                raise ArgumentError(f"AUC got num_thresholds={num_thresholds!r}", "a whole number above 1")
            inner = [i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)]
        self.num_thresholds = len(inner) + 2
        self._limits = [-EPSILON, *inner, 1.0 + EPSILON]
        self.multi_label = multi_label
        self.num_labels = num_labels
        self.label_weights = label_weights
        self.from_logits = from_logits
        self._built = False
        if not multi_label:
            self._build(None)
        elif num_labels:
            self._build((None, num_labels))

    @property
    def thresholds(self) -> list[float]:
        """All thresholds, the two at the ends too."""
        return list(self._limits)

    def _build(self, y_pred_shape: tuple[Any, ...] | None) -> None:
        shape: tuple[int, ...] = (self.num_thresholds,)
        if y_pred_shape is not None:
            if len(y_pred_shape) != 2 or isinstance(y_pred_shape[1], Dim):
                raise ShapeError(
                    f"{self.name} with multi_label got predictions of shape {shape_text(y_pred_shape)}",
                    "(batch, labels), the number of labels known",
                )
            shape = (self.num_thresholds, y_pred_shape[1])
        for counted in ("true_positives", "false_positives", "true_negatives", "false_negatives"):
            setattr(self, counted, self.add_variable(shape, "zeros", name=counted))
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: targets; what is not 0 counts as 1.
            y_pred: predictions of the same shape, from 0 to 1 (or logits).
            sample_weight: a scalar, or an array with the first axes of the predictions.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        y_pred = ops.convert_to_tensor(y_pred)
        if not self._built:
            self._build(shape_of(y_pred))
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred)
        if self.multi_label and len(shape_of(y_pred)) != 2:
            self._build(shape_of(y_pred))
        count_confusion(
            {key: getattr(self, counted) for key, counted in _FOUR.items()},
            y_true,
            y_pred,
            self._limits,
            sample_weight,
            multi_label=self.multi_label,
            label_weights=None if self.multi_label else self.label_weights,
            owner=self.name,
        )

    def result(self) -> Any:
        """The area so far, a scalar."""
        if not self._built:
            raise ArgumentError(f"{self.name} has no result yet", "update_state before result, or num_labels=...")
        tp, fp, tn, fn = (getattr(self, counted) for counted in _FOUR.values())
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._averaged(self._interpolated())
        recall = _share(tp, fn)
        if self.curve == "ROC":
            x, y = _share(fp, tn), recall
        elif self.curve == "PR":
            x, y = recall, _share(tp, fp)
        else:
            odds = ops.divide_no_nan(ops.add(tp, fn), ops.add(tn, fp))
            none = ops.equal(tp, 0.0)
            recall_gain = ops.subtract(1.0, ops.multiply(odds, ops.divide_no_nan(fn, tp)))
            precision_gain = ops.subtract(1.0, ops.multiply(odds, ops.divide_no_nan(fp, tp)))
            x = ops.maximum(ops.where(none, 0.0, recall_gain), 0.0)
            y = ops.where(none, 1.0, precision_gain)
        (x0, x1), (y0, y1) = _neighbours(x), _neighbours(y)
        if self.summation_method == "interpolation":
            heights = ops.divide(ops.add(y0, y1), 2.0)
        else:
            heights = (ops.minimum if self.summation_method == "minoring" else ops.maximum)(y0, y1)
        return self._averaged(ops.multiply(ops.subtract(x0, x1), heights))

    def _interpolated(self) -> Any:
        """Areas under the precision-recall curve between neighbouring thresholds.

        Between two thresholds true positives are taken to be linear in all positives (with slope `s`), which makes
        precision `(intercept + s * p) / p`, and its integral a logarithm.
        """
        tp0, tp1 = _neighbours(self.true_positives)
        p0, p1 = _neighbours(ops.add(self.true_positives, self.false_positives))
        fn1 = _neighbours(self.false_negatives)[1]
        gained = ops.subtract(tp0, tp1)
        slope = ops.divide_no_nan(gained, ops.maximum(ops.subtract(p0, p1), 0.0))
        intercept = ops.subtract(tp1, ops.multiply(slope, p1))
        both = ops.logical_and(ops.greater(p0, 0.0), ops.greater(p1, 0.0))
        ratio = ops.where(both, ops.divide_no_nan(p0, ops.maximum(p1, 0.0)), 1.0)
        area = ops.multiply(slope, ops.add(gained, ops.multiply(intercept, ops.log(ratio))))
        return ops.divide_no_nan(area, ops.maximum(ops.add(tp1, fn1), 0.0))

    def _averaged(self, areas: Any) -> Any:
        if not self.multi_label:
            return ops.sum(areas)
        by_label = ops.sum(areas, axis=0)
        if self.label_weights is None:
            return ops.mean(by_label)
        weights = ops.convert_to_tensor(self.label_weights, dtype=self.dtype)
        return ops.divide_no_nan(ops.sum(ops.multiply(by_label, weights)), ops.sum(weights))

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, the thresholds as they were given."""
        return {**super().get_config(), "thresholds": self._given}


def _neighbours(x: Any) -> tuple[Any, Any]:
    """All but the last, and all but the first, along axis 0."""
    return ops.get_item(x, slice(None, -1)), ops.get_item(x, slice(1, None))
