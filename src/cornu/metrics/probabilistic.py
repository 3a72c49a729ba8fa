"""Means of cross-entropies, divergences and hinges."""

from typing import Any

from cornu.losses.margin import categorical_hinge, hinge, squared_hinge
from cornu.losses.probabilistic import (
    binary_crossentropy,
    categorical_crossentropy,
    kl_divergence,
    poisson,
    sparse_categorical_crossentropy,
)
from cornu.metrics.means import MeanMetricWrapper

__all__ = [
    "BinaryCrossentropy", "CategoricalCrossentropy", "CategoricalHinge", "Hinge", "KLDivergence", "Poisson",
    "SparseCategoricalCrossentropy", "SquaredHinge",
]  # fmt: skip


class BinaryCrossentropy(MeanMetricWrapper):
    """The mean of `losses.binary_crossentropy`.

    Args:
        name: its name.
        dtype: dtype of the result.
        from_logits: whether predictions are logits.
        label_smoothing: how far targets are moved from 0 and 1 towards 1/2, from 0 to 1.
    """

    _direction = "down"

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing}
        super().__init__(binary_crossentropy, name, dtype, **options)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


class CategoricalCrossentropy(MeanMetricWrapper):
    """The mean of `losses.categorical_crossentropy`, for one-hot targets.

    Args:
        name: its name.
        dtype: dtype of the result.
        from_logits: whether predictions are logits.
        label_smoothing: how far targets are moved towards `1 / classes`, from 0 to 1.
        axis: the axis of classes.
    """

    _direction = "down"

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, name, dtype, **options)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """The mean of `losses.sparse_categorical_crossentropy`, for class numbers as targets.

    As in Keras, positions of `ignore_class` have loss 0, and are left out of the mean only where there are sample
    weights.

    Args:
        name: its name.
        dtype: dtype of the result.
        from_logits: whether predictions are logits.
        ignore_class: a class number whose positions have loss 0, or `None`.
        axis: the axis of classes.
    """

    _direction = "down"

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, name, dtype, **options)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis


class KLDivergence(MeanMetricWrapper):
    """The mean of `losses.kl_divergence`.

    Args:
        name: its name.
        dtype: dtype of the result.
    """

    def __init__(self, name: str = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(kl_divergence, name, dtype)


class Poisson(MeanMetricWrapper):
    """The mean of `losses.poisson`; arguments as for `KLDivergence`."""

    def __init__(self, name: str = "poisson", dtype: Any = None) -> None:
        super().__init__(poisson, name, dtype)


class Hinge(MeanMetricWrapper):
    """The mean of `losses.hinge`; arguments as for `KLDivergence`."""

    _direction = "down"

    def __init__(self, name: str = "hinge", dtype: Any = None) -> None:
        super().__init__(hinge, name, dtype)


class SquaredHinge(MeanMetricWrapper):
    """The mean of `losses.squared_hinge`; arguments as for `KLDivergence`."""

    _direction = "down"

    def __init__(self, name: str = "squared_hinge", dtype: Any = None) -> None:
        super().__init__(squared_hinge, name, dtype)


class CategoricalHinge(MeanMetricWrapper):
    """The mean of `losses.categorical_hinge`; arguments as for `KLDivergence`."""

    _direction = "down"

    def __init__(self, name: str = "categorical_hinge", dtype: Any = None) -> None:
        super().__init__(categorical_hinge, name, dtype)
