"""`Steps`: the steps of a model: their losses and metrics, what subclasses may write of them, how they are compiled."""

import functools
import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np

from cornu.autodiff import value_and_grad
from cornu.core import context, dtypes, tree
from cornu.core.errors import BuildError, CornuError, DataError, EngineError, NativeCall
from cornu.core.variable import Variable, structure_version
from cornu.engines import registry as engines
from cornu.graph import masks
from cornu.layers._native import Native, bound_engine
from cornu.layers._tracking import children
from cornu.layers.base import Layer
from cornu.layers.wrappers_core import Lambda
from cornu.metrics import Metric
from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops._declare import shape_of, to_spec
from cornu.training import every_op, watched
from cornu.training.objective import Objective
from cornu.training.step import forward_step, note_loss, several, train_step

__all__ = ["StepCache", "Steps", "unpack"]


class StepCache(dict[Any, Any]):
    """What a model has compiled and found out; a copy of the model begins without."""

    def __reduce__(self) -> tuple[Any, ...]:
        return StepCache, ()


class Steps(Layer):
    """A layer with losses, metrics and compiled steps; the base of `Trainer`."""

    optimizer: Any
    stop_training: bool
    stop_evaluating: bool
    stop_predicting: bool
    run_eagerly: bool
    history: Any
    _objective: Objective | None
    _compile_arguments: dict[str, Any] | None
    _compile_engine: str | None
    _guard: bool
    _cache: dict[Any, Any]
    _step_number: int

    def _set_trainer(self) -> None:
        own = vars(self)
        own.setdefault("optimizer", None)
        own.setdefault("stop_training", False)
        own.setdefault("stop_evaluating", False)
        own.setdefault("stop_predicting", False)
        own.setdefault("run_eagerly", False)
        own.setdefault("history", None)
        own.setdefault("_objective", None)
        own.setdefault("_compile_arguments", None)
        own.setdefault("_compile_engine", None)
        own.setdefault("_guard", True)
        own.setdefault("_cache", StepCache())
        own.setdefault("_step_number", 0)

    # ------------------------------------------------ metrics

    @property
    def metrics(self) -> list[Metric]:
        """The metrics: the loss, those of `compile`, those of layers and of the model itself."""
        return [metric for _, metric in self._found_metrics().values()]

    def _named_metrics(self) -> list[tuple[str, Metric]]:
        """The metrics with the names they are logged under, in Keras's order."""
        found = self._found_metrics()
        if type(self).metrics is Steps.metrics:
            return list(found.values())
        # A subclass says itself which are its metrics.
        return [found.get(id(metric), (metric.name, metric)) for metric in self.metrics]

    def _found_metrics(self) -> dict[int, tuple[str, Metric]]:
        """The metrics by id: the losses, those of `compile` (last for several outputs), those of layers."""
        found: dict[int, tuple[str, Metric]] = self._searched("metrics", self._search_metrics)
        return found

    def _search_metrics(self) -> dict[int, tuple[str, Metric]]:
        first, last = ([], []) if self._objective is None else self._objective.all()
        own = [(metric.name, metric) for layer in self._flatten_layers() for metric in _metrics_of(layer)]
        found: dict[int, tuple[str, Metric]] = {}
        for name, metric in (*first, *own, *last):
            found.setdefault(id(metric), (name, metric))
        return found

    @property
    def metrics_names(self) -> list[str]:
        """The names metrics are logged under."""
        return [name for name, _ in self._named_metrics()]

    @property
    def metrics_variables(self) -> list[Variable]:
        """The variables of all metrics."""
        return [variable for metric in self.metrics for variable in metric.variables]

    def reset_metrics(self) -> None:
        """Begin all metrics anew."""
        for metric, variables in self._searched("resets", self._search_resets):
            if variables is None:
                metric.reset_state()
            else:
                for variable, zero in variables:
                    variable.assign(zero)

    def _search_resets(self) -> list[tuple[Metric, list[tuple[Variable, np.ndarray]] | None]]:
        """The metrics, each with its variables and zeros for them, if that is all of its `reset_state`."""
        return [
            (metric, _zeros_for(metric) if metric.reset_state == MethodType(Metric.reset_state, metric) else None)
            for metric in self.metrics
        ]

    def get_metrics_result(self) -> dict[str, Any]:
        """The results of all metrics by name."""
        found: dict[str, Any] = {}
        for name, metric in self._named_metrics():
            result = metric.result()
            found.update(result if isinstance(result, dict) else {name: result})
        return found

    # ------------------------------------------------ what subclasses may write

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of a batch: those of the outputs and the model's penalties, added up.

        Args:
            x: the inputs.
            y: the targets.
            y_pred: the outputs.
            sample_weight: weights of the rows.
            training: whether this is a training step.

        Returns:
            a scalar.
        """
        total: Any = None
        if self._objective is not None:
            self._bind_objective(y, y_pred)
            total = self._objective.loss(y, y_pred, sample_weight)
        for penalty in self.losses:
            penalty = _e.cast(penalty, "float32")
            total = penalty if total is None else _a.add(total, penalty)
        if total is None:
            raise BuildError(
                f"model {self.name!r} has no loss",
                "a loss in compile, add_loss in a layer, or compute_loss of your own",
            )
        return total

    def _loss_of(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
        """What `compute_loss` gives, which may have been written without `training`."""
        given = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight, "training": training}
        parameters = inspect.signature(type(self).compute_loss).parameters
        if "training" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            del given["training"]
        return self.compute_loss(**given)

    def _track_loss(self, loss: Any, x: Any) -> None:
        if self._objective is not None:
            rows = next((shape_of(leaf)[0] for leaf in tree.leaves(x) if leaf is not None and shape_of(leaf)), 1)
            self._objective.loss_tracker.update_state(_e.stop_gradient(loss), sample_weight=rows)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics with a batch and give their results by name."""
        if self._objective is not None:
            self._bind_objective(y, y_pred)
            if y is not None:
                self._objective.update(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def _known_output_names(self) -> list[str] | None:
        """The names of the outputs, where the model knows them before it runs."""
        return None

    def _bind_objective(self, y: Any, y_pred: Any) -> None:
        if self._objective is not None and not self._objective.built:
            self._objective.build(y, y_pred, self._known_output_names())

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of training: forward, loss, gradient, update, metrics.

        Args:
            data: `(x, y, sample_weight)`; parts may be `None`.

        Returns:
            logs by name.
        """
        x, y, sample_weight = unpack(data)
        variables = self.trainable_variables

        def forward() -> Any:
            y_pred = self(x, training=True)
            loss = self._loss_of(x, y, y_pred, sample_weight, training=True)
            return self.optimizer.scale_loss(loss), (loss, y_pred, tree.map_structure(masks.mask_of, y_pred))

        if variables:
            (_, (loss, y_pred, found)), gradients = value_and_grad(forward, variables, has_aux=True)()
            self.optimizer.apply(gradients, variables)
        else:
            _, (loss, y_pred, found) = forward()
        note_loss(loss)
        self._track_loss(loss, x)
        tree.map_structure(masks.set_mask, y_pred, found)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of evaluation; `data` as for `train_step`."""
        x, y, sample_weight = unpack(data)
        y_pred = self(x, training=False)
        self._track_loss(self._loss_of(x, y, y_pred, sample_weight, training=False), x)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def predict_step(self, data: Any) -> Any:
        """The outputs for a batch; `data` as for `train_step`."""
        return self(unpack(data)[0], training=False)

    # ------------------------------------------------ compiled steps

    def _compiled_train(self, engine: Any, variables: list[Variable]) -> Callable[..., Any]:
        def make(collector: Any = None) -> Any:
            return train_step(self.train_step, variables, self._guard or every_op.is_on(), collector)

        return self._compiled("train", engine, variables, make, True)

    def _compiled_several(self, engine: Any, variables: list[Variable]) -> Callable[..., Any]:
        def make(collector: Any = None) -> Any:
            return several(train_step(self.train_step, variables, self._guard))

        return self._compiled("several", engine, variables, make, True)

    def _compiled_test(self, engine: Any, variables: list[Variable]) -> Callable[..., Any]:
        def make(collector: Any = None) -> Any:
            return forward_step(self.test_step, variables, collector)

        return self._compiled("test", engine, variables, make, False)

    def _compiled_predict(
        self, engine: Any, variables: list[Variable], number: int | None = None
    ) -> Callable[..., Any]:
        def make(collector: Any = None) -> Any:
            return forward_step(self.predict_step, variables, collector)

        found = self._compiled("predict", engine, variables, make, False)
        return functools.partial(found, place=number) if number is not None and every_op.is_on() else found

    def _compiled(
        self, kind: str, engine: Any, variables: list[Variable], make: Callable[..., Any], donate: bool
    ) -> Callable[..., Any]:
        layers, kept = self._structure(variables)
        mode = every_op.mode()
        key = (kind, engine.name, self.run_eagerly, self._guard, mode, tuple(map(id, variables)), layers)
        cached = self._cache.get(key)
        if cached is None:
            step = self._forgetting(make() if mode is None else make(every_op.Collector(mode)))
            thorough = bool(self._compile_arguments and self._compile_arguments["jit_compile"] is True)
            compiled = _eager(step) if self.run_eagerly else engine.compile(step, donate, thorough)
            if mode is not None:
                compiled = watched.step(kind, self, engine, compiled, self._forgetting(make()))
            # What the key knows by its id must live as long as the key.
            cached = self._cache[key] = (compiled, kept, variables)
        result: Callable[..., Any] = cached[0]
        return result

    def _step_version(self) -> tuple[Any, ...]:
        """What a step that was found for a state hangs on: while it is equal, the same step serves."""
        return structure_version[0], id(self._cache), self.run_eagerly, self._guard, every_op.mode()

    def _structure(self, variables: list[Variable]) -> tuple[Any, Any]:
        """What a compiled step has taken for granted: the layers, what of them trains, and what it is made of."""
        version = structure_version[0], tuple(map(id, variables))
        known = self._cache.get("structure")
        if known is None or known[0] != version:
            layers = self._flatten_layers()
            function = getattr(self, "_function", None)
            found = (id(function), tuple((id(layer), layer._trainable) for layer in layers))
            known = self._cache["structure"] = (version, found, (function, layers, list(variables)))
        return (known[1], tuple(variable.trainable for variable in variables)), known[2]

    def _forgetting(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step that leaves none of its values behind in the layers (penalties of `add_loss`)."""

        def run(*args: Any) -> Any:
            try:
                return step(*args)
            finally:
                self._clear_losses()

        return run

    def _all_variables(self) -> list[Variable]:
        """Everything a training step may read or change, each once."""
        known: list[Variable] = self._searched("all variables", self._search_variables)
        return [*known, *self._late()]

    def _search_variables(self) -> list[Variable]:
        found = {id(v): v for v in self.variables}
        if self.optimizer is not None:
            found.update((id(v), v) for v in self.optimizer.variables)
        for _, metric in (*self._found_metrics().values(), *self._named_metrics()):
            found.update((id(v), v) for v in metric.variables)
        late = {id(v) for v in self._late()}
        return [v for v in found.values() if id(v) not in late]

    def _searched(self, what: str, search: Callable[[], Any]) -> Any:
        """What a search through the model finds, searched once where only a graph of Cornu's own layers is searched."""
        optimizer, objective = self.optimizer, self._objective
        version = (
            structure_version[0],
            id(getattr(self, "_function", None)),
            len(vars(self)),
            None if optimizer is None else (id(optimizer), optimizer.built),
            None if objective is None else (id(objective), objective.built),
        )
        known = self._cache.get(what)
        if known is None or known[0] != version:
            known = (version, search() if self._is_plain_graph() else None)
            self._cache[what] = known
        return search() if known[1] is None else known[1]

    def _is_plain_graph(self) -> bool:
        """Whether the model is a graph of layers whose parts cannot change but by what is counted."""
        if getattr(self, "_function", None) is None or not type(self).__module__.startswith("cornu."):
            return False
        layers = self._flatten_layers()
        # A function may close over a list that grows.
        own = all(type(layer).__module__.startswith("cornu.") and not isinstance(layer, Lambda) for layer in layers)
        return own and (self.optimizer is None or type(self.optimizer).__module__.startswith("cornu."))

    def _steady_variables(self) -> list[Variable]:
        """All variables of the model."""
        found: list[Variable] = self._searched("variables", lambda: self.variables)
        return found

    def _steady_trainable_variables(self) -> list[Variable]:
        """Those that train."""
        found: list[Variable] = self._searched("trainable variables", lambda: self.trainable_variables)
        return found

    def _late(self) -> list[Variable]:
        """Variables that steps met and the model does not hold: those of a second optimizer, say."""
        late: list[Variable] = self._cache.setdefault("late", [])
        return late

    def _check_values(self, batch: Any) -> None:
        """Refuse what only the values show, if looking costs no waiting: fractions as ids, labels out of range."""
        self._check_inputs(batch)
        if self._objective is not None and self._objective.built:
            self._objective.check_targets(unpack(batch)[1])

    def _check_inputs(self, batch: Any) -> None:
        function = getattr(self, "_function", None)
        if function is not None and type(self).predict_step is Steps.predict_step and not self._own_steps():
            function.check_values(unpack(batch)[0])

    def _engine(self, name: Any) -> Any:
        """The engine for a call: the one named, `compile`'s, the `with` block's, the layers' own, or the default.

        For `"auto"` one that serves until `auto.settle` has measured.
        """
        chosen = name or self._compile_engine
        measured = engines.is_auto(chosen or engines.auto_in_force())
        chosen = None if measured else chosen
        if chosen is None and Native.count and context.chosen_engine() is None:
            chosen = bound_engine(self._flatten_layers())
        if chosen is None and measured:
            return context.chosen_engine() or engines.reference()
        return engines.get(chosen) if chosen else context.engine_in_force()

    def _prepare(self, name: Any, batch: Any, objective: bool = True) -> Any:
        """Make all variables, by running the model once on Specs of a batch; gives the engine for the call.

        A model with a step of its own need not have a `call` that fits; what is wrong will show when the step runs.
        """
        x, y, sample_weight = batch
        engine = self._engine(name)
        own = self._own_steps()
        ready = self.optimizer is None or self.optimizer.built
        if self.built and self._steady_variables() and ready and (self._objective is None or self._objective.built):
            return engine
        with context.use_engine(engine):
            try:
                with context.abstract(), context.bind([], []):
                    specs = tree.map_structure(
                        lambda leaf: None if leaf is None else to_spec(leaf), (x, y, sample_weight)
                    )
                    y_pred = self(specs[0], training=True)
                    if objective and self._objective is not None:
                        self._bind_objective(specs[1], y_pred)
                        self._objective.loss(specs[1], y_pred, specs[2])
                        self._objective.update(specs[1], y_pred, specs[2]) if specs[1] is not None else None
            except NativeCall as error:  # of a loss or metric: a layer's was met in the layer
                if error.engine != engine.name:
                    raise EngineError(
                        f"a loss or metric of model {self.name!r} calls {error.function}, and engine {engine.name!r} "
                        "is to run it",
                        f"engine={error.engine!r}",
                        f"fit(..., engine={error.engine!r}), or write it with cornu.ops to run it anywhere",
                    ) from None
            except Exception as error:
                if not own and (isinstance(error, CornuError) or not isinstance(error, (TypeError, AttributeError))):
                    raise
                if not own:
                    # Native functions of an engine do not know Specs: make the variables by a real call instead.
                    self(x, training=False)
            finally:
                self._clear_losses()
            if self.optimizer is not None and self.trainable_variables and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
        # Layers may have turned out to be bound to an engine.
        return self._engine(name)

    def _own_steps(self) -> bool:
        cls = type(self)
        return cls.train_step is not Steps.train_step or cls.compute_loss is not Steps.compute_loss


def unpack(data: Any) -> tuple[Any, Any, Any]:
    """A batch as `(x, y, sample_weight)`."""
    if not isinstance(data, tuple):
        return data, None, None
    if len(data) > 3 or not data:
        raise DataError(f"a batch of {len(data)} parts", "x, (x, y) or (x, y, sample_weight)")
    return (*data, *([None] * (3 - len(data))))  # type: ignore[return-value]


def _eager(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that runs op by op on values that can be looked at, gradients too."""

    def run(*args: Any) -> Any:
        token = context.by_tape.set(True)
        try:
            with np.errstate(all="ignore"):
                return step(*args)
        finally:
            context.by_tape.reset(token)

    return run


def _zeros_for(metric: Metric) -> list[tuple[Variable, np.ndarray]]:
    return [(v, np.zeros(v.shape, dtypes.numpy_dtype(v.dtype))) for v in metric.variables]


def _metrics_of(layer: Layer) -> list[Metric]:
    own = children(
        layer,
        (Layer, Metric, Objective),
        lambda name: name in ("_objective", "_cache", "_compile_arguments", "history"),
    )
    return [item for item in own if isinstance(item, Metric)]
