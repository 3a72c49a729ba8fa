"""`Trainer`: what every model can do with data: compile, fit, evaluate, predict, and the steps they are made of."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu import optimizers, random
from cornu.autodiff import value_and_grad
from cornu.callbacks import CallbackList, TerminateOnNaN
from cornu.core import context, tree
from cornu.core.errors import ArgumentError, BuildError, CornuError, DataError, EngineError, NativeCall
from cornu.core.variable import Variable, read_all, structure_version
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
from cornu.training import auto, every_op, watched
from cornu.training.data import Source, as_source
from cornu.training.loop import Logs, Runner, fed, groups, limited, scalar
from cornu.training.objective import Objective
from cornu.training.step import Late, State, forward_step, note_loss, several, train_step

__all__ = ["Trainer"]


class Trainer(Layer):
    """A layer that can be trained; the base of `Model`."""

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
        own.setdefault("_cache", {})
        own.setdefault("_step_number", 0)

    # ------------------------------------------------ compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        engine: str | None = None,
        stop_on_nonfinite: bool = True,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: an optimizer or its name.
            loss: a loss, or a list or dict by output name.
            loss_weights: numbers by which the losses are weighted, a list or dict by output name.
            metrics: a list of metrics; for several outputs a list of lists, or a dict by output name.
            weighted_metrics: metrics to which sample weights apply.
            run_eagerly: whether steps run uncompiled, op by op, so that a debugger can stop in them.
            steps_per_execution: how many steps are handed at once to an engine that compiles: less is lost between
                short steps. The numbers are the same; callbacks are told of the batches at the ends of groups.
            jit_compile: whether the engine compiles for long, for faster steps (TorchInductor on PyTorch, XLA on
                TensorFlow).
            auto_scale_loss: whether the loss is scaled under `mixed_float16`.
            engine: the engine for `fit`, `evaluate` and `predict`, unless they name one; `"auto"` measures.
            stop_on_nonfinite: whether training stops, on the last good weights, when the loss or a weight is not
                finite.
        """
        optimizer = optimizers.get(optimizer)
        if auto_scale_loss and self.dtype_policy.name == "mixed_float16":
            if not isinstance(optimizer, optimizers.LossScaleOptimizer):
                optimizer = optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
        if not isinstance(steps_per_execution, int) or steps_per_execution < 1:
            raise ArgumentError(f"compile got steps_per_execution={steps_per_execution!r}", "a whole number above zero")
        if engine is not None and not engines.is_auto(engine):
            engines.get(engine)
        own = vars(self)
        own["optimizer"] = optimizer
        own["_objective"] = Objective(loss, loss_weights, metrics, weighted_metrics)
        own["run_eagerly"] = run_eagerly
        own["_compile_engine"] = engine
        own["_guard"] = stop_on_nonfinite
        own["_compile_arguments"] = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        own["_cache"] = {}

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return vars(self)["_objective"] is not None

    @property
    def loss(self) -> Any:
        """What `compile` was given as loss."""
        return None if self._compile_arguments is None else self._compile_arguments["loss"]

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile` was given, as objects."""
        return None if self._compile_arguments is None else dict(self._compile_arguments)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a file says."""
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def _need_compiled(self, what: str) -> None:
        if not self.compiled:
            raise BuildError(
                f"{what} of model {self.name!r}, which is not compiled",
                "a compiled model",
                "model.compile(optimizer='adam', loss=..., metrics=[...]) first",
            )

    # ------------------------------------------------ metrics

    @property
    def metrics(self) -> list[Metric]:
        """The metrics: the loss, those of `compile`, those of layers and of the model itself."""
        return [metric for _, metric in self._found_metrics().values()]

    def _named_metrics(self) -> list[tuple[str, Metric]]:
        """The metrics with the names they are logged under, in Keras's order."""
        found = self._found_metrics()
        if type(self).metrics is Trainer.metrics:
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
        for metric in self.metrics:
            metric.reset_state()

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
            guarded = self.trainable_variables if self._guard or every_op.is_on() else None
            return train_step(self.train_step, variables, guarded, collector)

        return self._compiled("train", engine, variables, make, True)

    def _compiled_several(self, engine: Any, variables: list[Variable]) -> Callable[..., Any]:
        def make(collector: Any = None) -> Any:
            return several(train_step(self.train_step, variables, self.trainable_variables if self._guard else None))

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
        if function is not None and type(self).predict_step is Trainer.predict_step and not self._own_steps():
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
        return cls.train_step is not Trainer.train_step or cls.compute_loss is not Trainer.compute_loss

    # ------------------------------------------------ fit, evaluate, predict

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: Any = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        *,
        engine: Any = None,
        seed: int | None = None,
    ) -> Any:
        """Train.

        Args:
            x: inputs: arrays in the structure of the model's inputs, or a source of batches (`PyDataset`, generator,
                loader).
            y: targets, by output name where there are several.
            batch_size: rows per step, 32 by default.
            epochs: passes over the data.
            verbose: 0 silent, 1 or "auto" a bar on a terminal and a line per epoch elsewhere, 2 a line per epoch.
            callbacks: a list of callbacks.
            validation_split: fraction of the rows, from the end, kept for validation.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a source of batches.
            shuffle: whether rows are shuffled at each epoch.
            class_weight: `{class: weight}`, or that by output name.
            sample_weight: weights of the rows, by output name where there are several.
            initial_epoch: the epoch to begin with.
            steps_per_epoch: batches per epoch.
            validation_steps: batches per validation.
            validation_batch_size: rows per step of validation.
            validation_freq: validate every so many epochs, or at the epochs listed.
            engine: the engine, for this call; `"auto"` measures which one is fastest and remembers it.
            seed: seed of the shuffling; by default one drawn from the global seed.

        Returns:
            a `History`, whose `history` maps names to values per epoch.

        Raises:
            DataError: if the data does not fit or runs dry.
            NonFiniteError: if the loss or a weight leaves the finite numbers; the last good weights are kept.
        """
        self._need_compiled("fit")
        seed = random.global_seed() if seed is None else int(seed)
        source = as_source(
            x, y, sample_weight, batch_size=batch_size, steps=steps_per_epoch, shuffle=shuffle, seed=seed,
            class_weight=class_weight, what="fit", output_names=self._known_output_names(),
        )  # fmt: skip
        validation: Source | None = None
        if validation_split:
            source, validation = source.split(validation_split, validation_batch_size, validation_steps)
        if validation_data is not None:
            # Data that is no tuple of arrays may make its own batches.
            size = validation_batch_size or (batch_size if isinstance(validation_data, tuple) else None)
            validation = _validation_source(validation_data, size, validation_steps)
        batch = source.peek()
        chosen = self._prepare(engine, batch)
        chosen = auto.settle(self, engine, chosen, "train", batch, source, max(1, epochs - initial_epoch))
        vars(self)["stop_training"] = False
        state = State(self._all_variables(), chosen)
        steps = steps_per_epoch or source.num_batches
        hooks = CallbackList(
            callbacks, model=self, add_history=True, add_progbar=verbose != 0,
            verbose=1 if verbose == "auto" else verbose,
            epochs=epochs, steps=steps, validation_freq=None if validation is None else validation_freq,
        )  # fmt: skip
        quiet = any(isinstance(callback, TerminateOnNaN) for callback in hooks.callbacks)
        with state.held():
            runner = Runner(self, chosen, state, quiet)
            hooks.on_train_begin()
            logs: dict[str, Any] = {}
            for epoch in range(initial_epoch, epochs):
                self.reset_metrics()
                hooks.on_epoch_begin(epoch)
                logs = self._train_epoch(runner, source, epoch, steps_per_epoch, hooks)
                due = (
                    epoch + 1 in validation_freq
                    if isinstance(validation_freq, (list, tuple))
                    else ((epoch + 1) % validation_freq == 0)
                )
                if validation is not None and due:
                    found = runner.evaluate(validation, validation_steps, hooks)
                    logs.update((f"val_{name}", value) for name, value in found.items())
                hooks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
            if isinstance(self.optimizer, optimizers.Optimizer) and self.optimizer.built:
                self.optimizer.finalize_variable_values(self.trainable_variables)
            hooks.on_train_end(logs)
        return self.history

    def _steps_at_once(self, engine: Any) -> int:
        """How many training steps are dispatched as one."""
        if not engine.traces or self.run_eagerly or every_op.is_on() or self._compile_arguments is None:
            return 1
        return int(self._compile_arguments["steps_per_execution"])

    def _train_epoch(self, runner: Runner, source: Source, epoch: int, steps: int | None, hooks: Any) -> dict[str, Any]:
        logs: dict[str, Any] = {}
        count = 0
        for group in groups(limited(source.epoch(epoch), steps), self._steps_at_once(runner.engine)):
            hooks.on_train_batch_begin(count)
            if len(group) == 1:
                logs = runner.train(self._step_number, group[0])
            else:
                logs = runner.train_several(self._step_number, group)
            vars(self)["_step_number"] += len(group)
            count += len(group)
            hooks.on_train_batch_end(count - 1, Logs(logs))
            if self.stop_training:
                break
        if count == 0:
            raise DataError(f"epoch {epoch + 1} of fit had no batches", "at least one batch per epoch")
        source.on_epoch_end()
        runner.settle()
        return Logs(logs).read()

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        engine: Any = None,
    ) -> Any:
        """Loss and metrics on data; arguments as for `fit`.

        Returns:
            a number, a list in the order of `metrics_names`, or a dict if `return_dict`.
        """
        self._need_compiled("evaluate")
        source = as_source(x, y, sample_weight, batch_size=batch_size, steps=steps, shuffle=False, what="evaluate")
        batch = source.peek()
        chosen = auto.settle(self, engine, self._prepare(engine, batch), "test", batch, source)
        state = State(self._all_variables(), chosen)
        total = steps or source.num_batches
        shown = 1 if verbose == "auto" else verbose
        hooks = CallbackList(
            callbacks, model=self, add_history=False, add_progbar=shown != 0, verbose=shown, epochs=1, steps=total
        )
        with state.held():
            logs = Runner(self, chosen, state).evaluate(source, steps, hooks)
        if not logs:
            raise DataError("evaluate got no batches", "at least one batch")
        if return_dict:
            return logs
        values = list(logs.values())
        return values[0] if len(values) == 1 else values

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        engine: Any = None,
    ) -> Any:
        """The outputs for data, as NumPy arrays.

        Args:
            x: inputs, as for `fit`.
            batch_size: rows per step, 32 by default.
            verbose: 0 silent, else progress as for `fit`.
            steps: number of batches.
            callbacks: a list of callbacks.
            engine: the engine, for this call.

        Returns:
            arrays `(rows, ...)` in the structure of the outputs.
        """
        chosen = self._engine(engine)
        source = as_source(x, batch_size=batch_size, steps=steps, shuffle=False, what="predict")
        unready = not self.built or not self._steady_variables()
        if unready or auto.is_asked(self, engine):
            batch = source.peek()
            chosen = self._prepare(engine, batch, objective=False) if unready else chosen
            chosen = auto.settle(self, engine, chosen, "predict", batch, source)
        shown = 1 if verbose == "auto" else verbose
        total = steps or source.num_batches
        hooks = CallbackList(
            callbacks, model=self, add_history=False, add_progbar=shown != 0, verbose=shown, epochs=1, steps=total
        )
        variables = self._steady_variables()
        parts: list[Any] = []
        with context.use_engine(chosen):
            variables = [*variables, *self._late()]
            values = read_all(variables)
            hooks.on_predict_begin()
            for number, batch in enumerate(source.epoch(0)):
                if steps is not None and number >= steps:
                    break
                hooks.on_predict_batch_begin(number)
                self._check_inputs(batch)
                batch = fed(chosen, batch)
                while True:
                    try:
                        changed, outputs = self._compiled_predict(chosen, variables, number)(values, np.int32(0), batch)
                        break
                    except Late as late:
                        self._late().extend(late.variables)
                        variables = [*variables, *late.variables]
                        values = [*values, *read_all(late.variables)]
                for place, value in changed.items():
                    values[place] = value
                    holder = variables[place].holder
                    if holder is None:
                        variables[place].set_value(value)
                    else:
                        holder.write(variables[place], value)
                parts.append(outputs)
                hooks.on_predict_batch_end(number, {"outputs": outputs})
            hooks.on_predict_end()
        if not parts:
            raise DataError("predict got no batches", "at least one batch")
        joined = [
            np.concatenate([np.atleast_1d(chosen.to_host(part)) for part in column])
            for column in zip(*(tree.leaves(part) for part in parts), strict=True)
        ]
        return tree.pack(parts[0], joined)

    # ------------------------------------------------ one batch

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
        *,
        engine: Any = None,
    ) -> Any:
        """One step of training on one batch; gives its loss and metrics (a list, or a dict if `return_dict`)."""
        self._need_compiled("train_on_batch")
        batch = self._one_batch(x, y, sample_weight, class_weight, "train_on_batch")
        chosen = auto.settle(self, engine, self._prepare(engine, batch), "train", batch, None)
        self.reset_metrics()
        with State(self._all_variables(), chosen).held() as state:
            runner = Runner(self, chosen, state)
            logs = runner.train(self._step_number, batch)
            vars(self)["_step_number"] += 1
            runner.settle()
        return _answer(logs, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False, *, engine: Any = None
    ) -> Any:
        """One step of evaluation on one batch; gives its loss and metrics."""
        self._need_compiled("test_on_batch")
        batch = self._one_batch(x, y, sample_weight, None, "test_on_batch")
        chosen = auto.settle(self, engine, self._prepare(engine, batch), "test", batch, None)
        self.reset_metrics()
        with State(self._all_variables(), chosen).held() as state:
            logs = Runner(self, chosen, state).test(0, batch)
        return _answer(logs, return_dict)

    def predict_on_batch(self, x: Any, *, engine: Any = None) -> Any:
        """The outputs for one batch, as NumPy arrays."""
        rows = max((shape_of(leaf)[0] for leaf in tree.leaves(x) if leaf is not None and shape_of(leaf)), default=1)
        return self.predict(x, batch_size=rows, verbose=0, engine=engine)

    def _one_batch(self, x: Any, y: Any, sample_weight: Any, class_weight: Any, what: str) -> Any:
        rows = max((shape_of(leaf)[0] for leaf in tree.leaves(x) if leaf is not None and shape_of(leaf)), default=1)
        source = as_source(
            x, y, sample_weight, batch_size=max(rows, 1), shuffle=False, class_weight=class_weight, what=what,
            output_names=self._known_output_names(),
        )  # fmt: skip
        return source.peek()


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


def _answer(logs: dict[str, Any], return_dict: bool) -> Any:
    found = {name: scalar(value) for name, value in logs.items()}
    if return_dict:
        return found
    values = list(found.values())
    return values[0] if len(values) == 1 else values


def _validation_source(data: Any, batch_size: int | None, steps: int | None) -> Source:
    x, y, sample_weight = unpack(data) if isinstance(data, tuple) else (data, None, None)
    return as_source(x, y, sample_weight, batch_size=batch_size, steps=steps, shuffle=False, what="validation")


def _metrics_of(layer: Layer) -> list[Metric]:
    own = children(
        layer,
        (Layer, Metric, Objective),
        lambda name: name in ("_objective", "_cache", "_compile_arguments", "history"),
    )
    return [item for item in own if isinstance(item, Metric)]
