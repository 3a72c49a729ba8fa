"""`Objective`: losses and metrics bound to a model's outputs, by name."""

from typing import Any

from cornu import losses as _losses
from cornu import metrics as _metrics
from cornu.core import tree
from cornu.core.errors import ArgumentError, BindingError, near_miss
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
        self.built = False
        self.names: list[str] = []
        self.losses: list[Any] = []
        self.weights: list[float | None] = []
        self.metrics: list[list[tuple[str, Any, bool]]] = []
        self.loss_tracker = _metrics.Mean(name="loss")
        self.output_trackers: list[Any] = []

    def build(self, y: Any, y_pred: Any, names: list[str] | None) -> None:
        """Bind to outputs.

        Raises:
            BindingError: for a key that names no output, or the wrong number of losses.
        """
        outputs = tree.leaves(y_pred)
        self.names = flat_names(y_pred, names)
        self.losses = [
            None if one is None else _losses.get(one) for one in self._spread(self.given_loss, "loss", broadcast=True)
        ]
        self.weights = self._spread(self.given_weights, "loss_weights", broadcast=False)
        targets = self.targets(y, y_pred) if y is not None else [None] * len(outputs)
        self.metrics = [[] for _ in outputs]
        for given, weighted in ((self.given_metrics, False), (self.given_weighted, True)):
            for i, found in enumerate(self._spread(given, "metrics", broadcast=False, lists=True)):
                for one in found if isinstance(found, (list, tuple)) else [found] if found is not None else []:
                    metric = _metric(one, self.losses[i], targets[i], outputs[i])
                    name = metric.name if len(outputs) == 1 else f"{self.names[i]}_{metric.name}"
                    self.metrics[i].append((name, metric, weighted))
        if len(outputs) > 1:
            self.output_trackers = [
                _metrics.Mean(name=f"{name}_loss") if one is not None else None
                for name, one in zip(self.names, self.losses, strict=True)
            ]
        self.built = True

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
                raise BindingError(f"compile got one value as {what} for {count} outputs", f"a dict with keys {self.names}")
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
            missing = [n for n, loss in zip(self.names, self.losses, strict=True) if loss is not None and y.get(n) is None]
            if missing and what == "y":
                raise BindingError(f"y has nothing for {', '.join(map(repr, missing))}", "a target for every output with a loss")
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
            raise BindingError(f"{what} holds {len(leaves)} arrays for {count} outputs", f"one for each of {', '.join(self.names)}")
        return leaves

    def sample_weights(self, sample_weight: Any, y_pred: Any) -> list[Any]:
        """A sample weight (or `None`) per output; one array alone goes to all."""
        if sample_weight is None or not isinstance(sample_weight, (dict, list, tuple)):
            return [sample_weight] * len(self.names)
        return self.targets(sample_weight, y_pred, "sample_weight")

    def loss(self, y: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, list[Any]]:
        """The weighted sum of the outputs' losses, and each one (`None` where an output has none).

        Raises:
            ArgumentError: if no output has a loss.
        """
        outputs = tree.leaves(y_pred)
        targets = self.targets(y, y_pred)
        weights = self.sample_weights(sample_weight, y_pred)
        each: list[Any] = []
        total: Any = None
        rows = zip(self.losses, targets, outputs, weights, self.weights, strict=True)
        for function, target, output, row_weight, factor in rows:
            if function is None or (target is None and y is not None):
                each.append(None)
                continue
            mask = masks.mask_of(output)
            value = _apply(function, target, output, row_weight, mask)
            each.append(value)
            value = value if factor is None else _a.multiply(value, factor)
            total = value if total is None else _a.add(total, value)
        return total, each

    def track(self, total: Any, each: list[Any], rows: Any) -> None:
        """Note the losses of a batch of so many rows."""
        self.loss_tracker.update_state(total, sample_weight=rows)
        for tracker, value in zip(self.output_trackers, each, strict=False):
            if tracker is not None and value is not None:
                tracker.update_state(value, sample_weight=rows)

    def update(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Update the metrics with a batch."""
        outputs = tree.leaves(y_pred)
        targets = self.targets(y, y_pred)
        weights = self.sample_weights(sample_weight, y_pred)
        for found, target, output, weight in zip(self.metrics, targets, outputs, weights, strict=True):
            for _, metric, weighted in found:
                row_weight = _masked(weight if weighted else None, output)
                metric.update_state(target, output, sample_weight=row_weight)

    def all(self) -> list[tuple[str, Any]]:
        """Every metric with the name it is logged under: the loss first."""
        found = [("loss", self.loss_tracker)]
        found += [(tracker.name, tracker) for tracker in self.output_trackers if tracker is not None]
        return found + [(name, metric) for group in self.metrics for name, metric, _ in group]


def _apply(function: Any, target: Any, output: Any, weight: Any, mask: Any) -> Any:
    if isinstance(function, _losses.Loss):
        return function(target, output, sample_weight=weight, mask=mask)
    wrapped = _losses.LossFunctionWrapper(function, name=getattr(function, "__name__", "loss"))
    return wrapped(target, output, sample_weight=weight, mask=mask)


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
        kind = made if isinstance(made, type) else type(made)
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
        made = _metrics.MeanMetricWrapper(made, name=given if isinstance(given, str) else getattr(given, "__name__", "metric"))
    elif isinstance(given, str) and given.islower():
        made.name = given
    return made
