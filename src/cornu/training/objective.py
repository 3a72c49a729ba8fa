"""`Objective`: losses and metrics bound to a model's outputs, by name."""

import inspect
from typing import Any

import numpy as np

from cornu import losses as _losses
from cornu import metrics as _metrics
from cornu.core import tree
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError, BindingError, CornuError, DataError, near_miss
from cornu.core.names import snake_case
from cornu.graph import masks
from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops import movement as _m
from cornu.ops._declare import shape_of

__all__ = ["Objective", "flat_names"]


def flat_names(outputs: Any, names: list[str] | None) -> list[str]:
    """A name for each leaf of a structure of outputs: dict keys, the model's own names, or `output_0`, ..."""
    leaves = tree.flatten_with_path(outputs)
    if isinstance(outputs, dict):
        return ["_".join(map(str, path)) for path, _ in leaves]
    if names is not None and len(names) == len(leaves):
        return _distinct(list(names))
    return [f"output_{i}" for i in range(len(leaves))]


def _distinct(names: list[str]) -> list[str]:
    """Names made different by a number where one occurs twice (two calls of one layer)."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(name if count == 0 else f"{name}_{count}")
    return result


class Objective:
    """What `compile` was given, bound to outputs when the first batch shows them.

    Args:
        loss: a loss, or a list, or a dict by output name.
        loss_weights: a number for each output, in the same form.
        metrics: metrics, in the same form.
        weighted_metrics: metrics to which sample weights apply.
    """

    def __init__(self, loss: Any, loss_weights: Any, metrics: Any, weighted_metrics: Any) -> None:
        self.given_loss = loss
        self.given_weights = loss_weights
        self.given_metrics = metrics
        self.given_weighted = weighted_metrics
        for given, get in ((loss, _losses.get), (metrics, _metrics.get), (weighted_metrics, _metrics.get)):
            for name in tree.leaves(given):  # what cannot be meant is an error in the line that says it
                if isinstance(name, str) and name.lower() not in ("accuracy", "acc", "crossentropy", "ce"):
                    get(name)
                elif name is not None and not isinstance(name, (str, dict)) and not callable(name):
                    what = "loss" if given is loss else "metrics"
                    raise ArgumentError(
                        f"compile got {name!r:.60} as one of {what}",
                        "a name, an object, or a function (y_true, y_pred)",
                    )
        self.built = False
        self.names: list[str] = []
        self.losses: list[Any] = []
        self.weights: list[float | None] = []
        self.metrics: list[list[tuple[str, Any, bool]]] = []
        self.loss_tracker = _metrics.Mean(name="loss")
        self.output_trackers: list[Any] = []
        # For each output whose targets are class numbers: how many classes there are, and which number is ignored.
        self.classes: list[tuple[int, int | None] | None] = []
        self.structure: Any = None

    def build(self, y: Any, y_pred: Any, names: list[str] | None) -> None:
        """Bind to outputs.

        Raises:
            BindingError: for a key that names no output, or the wrong number of losses.
        """
        outputs = tree.leaves(y_pred)
        self.names = flat_names(y_pred, names)
        self.structure = tree.structure(y_pred)
        given_losses = self._spread(self.given_loss, "loss", broadcast=True)
        self.losses = given_losses  # so that it is known which outputs need targets
        self.metrics = [[] for _ in outputs]
        targets = self.targets(y, y_pred) if y is not None else [None] * len(outputs)
        self.losses = [_loss(*row) for row in zip(given_losses, targets, outputs, strict=True)]
        self.classes = [_classes(*row) for row in zip(self.losses, outputs, strict=True)]
        self.weights = self._spread(self.given_weights, "loss_weights", broadcast=False)
        for given, weighted in ((self.given_metrics, False), (self.given_weighted, True)):
            for i, found in enumerate(self._spread(given, "metrics", broadcast=False, lists=True)):
                for one in found if isinstance(found, (list, tuple)) else [found] if found is not None else []:
                    metric = _metric(one, self.losses[i], targets[i], outputs[i])
                    prefix = "" if len(outputs) == 1 else f"{self.names[i]}_"
                    self.metrics[i].append((self._free_name(prefix, metric.name, weighted), metric, weighted))
        if len(outputs) > 1:
            self.output_trackers = [
                _metrics.Mean(name=f"{name}_loss") if one is not None else None
                for name, one in zip(self.names, self.losses, strict=True)
            ]
        self.built = True

    def _free_name(self, prefix: str, name: str, weighted: bool) -> str:
        """The name a metric is logged under: Keras's, where another has it already."""
        taken = {known for group in self.metrics for known, _, _ in group}
        found = prefix + name
        if found in taken and weighted:
            found = f"{prefix}weighted_{name}"
        base, count = found, 0
        while found in taken:
            count += 1
            found = f"{base}_{count}"
        return found

    def _spread(self, given: Any, what: str, broadcast: bool, lists: bool = False) -> list[Any]:
        """One item per output, from a dict by name, a list, or a single item."""
        count = len(self.names)
        if given is None:
            return [None] * count
        if isinstance(given, dict):
            for key in given:
                if key not in self.names:
                    raise BindingError(
                        f"compile got {what} for {key!r}{near_miss(str(key), self.names)}",
                        f"names of outputs: {', '.join(self.names)}",
                        f"rename {key!r} to the output it is meant for",
                    )
            return [given.get(name) for name in self.names]
        if isinstance(given, (list, tuple)):
            if count == 1 and lists:
                return [given]
            if count == 1 and len(given) == 1:
                return list(given)
            if len(given) != count:
                raise BindingError(
                    f"compile got {len(given)} {what} for {count} outputs", f"one for each of {', '.join(self.names)}"
                )
            return list(given)
        if count > 1 and not broadcast:
            if not lists:
                raise BindingError(
                    f"compile got one value as {what} for {count} outputs", f"a dict with keys {self.names}"
                )
            raise BindingError(
                f"compile got {what} {given!r} for {count} outputs", f"a dict with keys among {', '.join(self.names)}"
            )
        return [given] * count

    def targets(self, y: Any, y_pred: Any, what: str = "y") -> list[Any]:
        """The leaves of `y` in the order of the outputs, bound by name.

        Raises:
            BindingError: if a key names no output, or the structure differs.
        """
        count = len(self.names)
        if y is None:
            return [None] * count
        if isinstance(y, dict):
            if isinstance(y_pred, dict) and any(isinstance(v, (dict, list, tuple)) for v in y_pred.values()):
                y = {"_".join(map(str, path)): leaf for path, leaf in tree.flatten_with_path(y)}
            for key in y:
                if key not in self.names:
                    raise BindingError(
                        f"{what} has the key {key!r}{near_miss(str(key), self.names)}",
                        f"names of outputs: {', '.join(self.names)}",
                    )
            needed = zip(self.names, self.losses, self.metrics, strict=True)
            missing = [n for n, loss, found in needed if (loss is not None or found) and y.get(n) is None]
            if missing and what == "y":
                raise BindingError(
                    f"y has nothing for {', '.join(map(repr, missing))}",
                    "a target for every output with a loss or metric",
                    f"y={{{missing[0]!r}: ...}}, or leave {missing[0]!r} out of loss and metrics",
                )
            return [y.get(name) for name in self.names]
        if count == 1:
            leaves = tree.leaves(y)
            if len(leaves) != 1:
                raise BindingError(f"{what} holds {len(leaves)} arrays for one output", "one array")
            return leaves
        if isinstance(y_pred, dict):
            raise BindingError(
                f"{what} is a {type(y).__name__}, and the outputs have names",
                f"a dict with the keys {', '.join(self.names)}",
            )
        leaves = tree.leaves(y) if isinstance(y, (list, tuple)) else [y]
        if len(leaves) != count:
            raise BindingError(
                f"{what} holds {len(leaves)} arrays for {count} outputs", f"one for each of {', '.join(self.names)}"
            )
        return leaves

    def sample_weights(self, sample_weight: Any, y_pred: Any) -> list[Any]:
        """A sample weight (or `None`) per output; one array alone goes to all."""
        if sample_weight is None or not isinstance(sample_weight, (dict, list, tuple)):
            return [sample_weight] * len(self.names)
        return self.targets(sample_weight, y_pred, "sample_weight")

    def loss(self, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        """The weighted sum of the outputs' losses, `None` if no output has one. Each output's own is noted."""
        if y is None and any(one is not None for one in self.losses):
            raise BindingError(
                "there is a loss and no y",
                "targets, for the loss given to compile",
                "fit(x, y), or compile without a loss",
            )
        outputs = tree.leaves(y_pred)
        targets = self.targets(y, y_pred)
        weights = self.sample_weights(sample_weight, y_pred)
        trackers = self.output_trackers or [None] * len(outputs)
        total: Any = None
        rows = zip(self.names, self.losses, targets, outputs, weights, self.weights, trackers, strict=True)
        for name, function, target, output, row_weight, factor, tracker in rows:
            if function is None or target is None:
                continue
            try:
                value = function(target, output, sample_weight=row_weight, mask=masks.mask_of(output))
            except CornuError as error:
                error.locate(layer=f"the loss of output {name!r}")
                raise
            if tracker is not None:
                size = shape_of(output)[0] if shape_of(output) else 1
                tracker.update_state(_e.stop_gradient(value), sample_weight=size)
            value = value if factor is None else _a.multiply(value, factor)
            total = value if total is None else _a.add(total, value)
        return total

    def check_targets(self, y: Any) -> None:
        """Refuse targets that name no class; those on a host only, for nobody should wait for others.

        Raises:
            DataError: if a label is out of range or not whole.
        """
        if y is None or not any(self.classes):
            return
        for i, (name, target, limits) in enumerate(
            zip(self.names, self.targets(y, self.structure), self.classes, strict=True)
        ):
            if (
                limits is None
                or not isinstance(target, np.ndarray)
                or target.dtype.kind not in "iuf"
                or not target.size
            ):
                continue
            count, ignored = limits
            wrong = (target < 0) | (target >= count)
            if ignored is not None:
                wrong &= target != ignored
            if target.dtype.kind == "f":
                wrong |= np.isfinite(target) & (target != np.trunc(target))
            if wrong.any():
                row = int(np.argwhere(wrong)[0][0])
                place = "y" if len(self.names) == 1 else f"y[{name!r}]" if isinstance(y, dict) else f"y[{i}]"
                raise DataError(
                    f"{place} holds the label {target[wrong][0]} (row {row} of the batch), which is out of range "
                    "for the output "
                    f"{name!r} with {count} classes",
                    f"whole numbers from 0 to {count - 1}",
                    "count labels from 0, give the last layer a unit per class, or "
                    f"loss=SparseCategoricalCrossentropy(ignore_class={target[wrong][0]})",
                )

    def update(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Update the metrics with a batch."""
        outputs = tree.leaves(y_pred)
        targets = self.targets(y, y_pred)
        weights = self.sample_weights(sample_weight, y_pred)
        for found, target, output, weight in zip(self.metrics, targets, outputs, weights, strict=True):
            for _, metric, weighted in found:
                row_weight = _masked(weight if weighted else None, output)
                metric.update_state(target, output, sample_weight=row_weight)

    def all(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Every metric with the name it is logged under: those before the model's own, those after (Keras's order)."""
        first = [("loss", self.loss_tracker)]
        first += [(tracker.name, tracker) for tracker in self.output_trackers if tracker is not None]
        given = [(name, metric) for group in self.metrics for name, metric, _ in group]
        return (first, sorted(given, key=lambda row: row[0])) if len(self.names) > 1 else (first + given, [])


def _loss(given: Any, target: Any, output: Any) -> Any:
    """A loss from what `compile` was given for an output, `None` if nothing."""
    if given is None:
        return None
    if isinstance(given, str) and given.lower() in ("crossentropy", "ce"):
        found = _losses.crossentropy_for(shape_of(target if target is not None else output), shape_of(output))
    else:
        found = _losses.get(given)
    if isinstance(found, _losses.Loss):
        return found
    return _losses.LossFunctionWrapper(found, name=getattr(found, "__name__", "loss"))


def _classes(loss: Any, output: Any) -> tuple[int, int | None] | None:
    """How many classes the targets of a sparse cross-entropy name, and which number it ignores."""
    function = getattr(loss, "fn", None)
    if function not in (_losses.sparse_categorical_crossentropy, _losses.categorical_generalized_cross_entropy):
        return None
    given = {name: p.default for name, p in inspect.signature(function).parameters.items()} | loss._fn_kwargs
    shape = shape_of(output)
    count = shape[given.get("axis", -1)] if shape else None
    return None if count is None or isinstance(count, Dim) else (int(count), given.get("ignore_class"))


def _masked(weight: Any, output: Any) -> Any:
    """A sample weight with masked positions at 0."""
    mask = masks.mask_of(output)
    if mask is None:
        return weight
    mask = _e.cast(mask, "float32")
    if weight is None:
        return mask
    while len(shape_of(weight)) < len(shape_of(mask)):
        weight = _m.expand_dims(weight, -1)
    return _a.multiply(weight, mask)


_CROSSENTROPIES = {
    "BinaryAccuracy": _metrics.BinaryCrossentropy,
    "CategoricalAccuracy": _metrics.CategoricalCrossentropy,
    "SparseCategoricalAccuracy": _metrics.SparseCategoricalCrossentropy,
}


def _metric(given: Any, loss: Any, target: Any, output: Any) -> Any:
    """A metric from what `compile` was given for an output."""
    if isinstance(given, str) and given.lower() in ("accuracy", "acc", "crossentropy", "ce"):
        shape = shape_of(target) if target is not None else shape_of(output)
        made = _metrics.accuracy_for(shape, shape_of(output))
        kind: Any = made if isinstance(made, type) else type(made)
        if given.lower() in ("crossentropy", "ce"):
            kind = _CROSSENTROPIES[kind.__name__]
            made = kind(from_logits=getattr(loss, "from_logits", False))
        else:
            made = kind()
        made.name = given
        return made
    made = _metrics.get(given)
    if not isinstance(made, _metrics.Metric):
        if not callable(made):
            raise ArgumentError(f"compile got the metric {given!r}", "a metric, a function, or a name")
        name = getattr(made, "name", None) or snake_case(getattr(made, "__name__", type(made).__name__))
        made = _metrics.MeanMetricWrapper(made, name=given if isinstance(given, str) else name)
    elif isinstance(given, str):
        made.name = given
    return made
