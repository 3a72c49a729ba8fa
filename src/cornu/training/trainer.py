"""`Trainer`: what every model can do with data: compile, fit, evaluate, predict, and the steps they are made of."""

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from cornu import optimizers, random
from cornu.callbacks import CallbackList, TerminateOnNaN
from cornu.core import context, dtypes, tree
from cornu.core.errors import ArgumentError, BuildError, DataError
from cornu.engines import registry as engines
from cornu.ops._declare import shape_of
from cornu.training import answers, auto, every_op
from cornu.training.columns import is_standard
from cornu.training.data import DEFAULT_BATCH_SIZE, Source, as_source
from cornu.training.forward import Forward, joined
from cornu.training.groups import limited
from cornu.training.handover import handing_over
from cornu.training.loop import Logs, Resident, Runner
from cornu.training.model_steps import StepCache, Steps, unpack
from cornu.training.objective import Objective
from cornu.training.state import State

__all__ = ["Trainer"]

# Steps are handed over together, without being asked to, once a model has taken so many alone: a loop of steps is a
# second thing to compile. An epoch must have so many, and at most so many go together.
_STEPS_ALONE, _FEWEST, _TOGETHER = 1000, 16, 64
# Elements of a batch, times weights, that make a step which takes less time than handing it over.
_SHORT = 1 << 22
# A batch size that takes all rows there are.
_ALL = sys.maxsize
_NONE = Resident()


class Trainer(Steps):
    """A layer that can be trained; the base of `Model`."""

    # ------------------------------------------------ compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: Any = 1,
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
                short steps. The numbers are the same; callbacks are told of the batches at the ends of groups. With 1
                or "auto" a model whose steps are very short comes to that by itself after its first thousand, where no
                callback wants to be told of batches.
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
        if steps_per_execution != "auto" and (not isinstance(steps_per_execution, int) or steps_per_execution < 1):
            raise ArgumentError(
                f"compile got steps_per_execution={steps_per_execution!r}", "a whole number above zero, or 'auto'"
            )
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
        own["_cache"] = StepCache()

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
        steps = steps_per_epoch or source.num_batches
        hooks = CallbackList(
            callbacks, model=self, add_history=True, add_progbar=verbose != 0,
            verbose=1 if verbose == "auto" else verbose,
            epochs=epochs, steps=steps, validation_freq=None if validation is None else validation_freq,
        )  # fmt: skip
        quiet = any(isinstance(callback, TerminateOnNaN) for callback in hooks.callbacks)
        with self._resident(chosen, training=True) as runner, runner.handing_over():
            runner.quiet = quiet and not every_op.is_on()
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
                self.optimizer.finalize_variable_values(self._steady_trainable_variables())
            hooks.on_train_end(logs)
        return self.history

    def _steps_at_once(self, engine: Any, source: Source, hooks: CallbackList) -> int:
        """How many training steps are dispatched as one: as many as asked for, or some where nobody can tell."""
        if not engine.traces or self.run_eagerly or every_op.is_on() or self._compile_arguments is None:
            return 1
        asked = self._compile_arguments["steps_per_execution"]
        if asked not in (1, "auto"):
            return int(asked)
        seen = hooks.has_train_batch_hooks or self._own_steps()
        steps = source.num_batches or 0
        if seen or not engine.loops or self._step_number < _STEPS_ALONE or steps < _FEWEST or source.lends:
            return 1
        elements = sum(int(np.prod(shape_of(leaf))) for leaf in tree.leaves(source.peek()) if leaf is not None)
        if elements * sum(weight.size for weight in self._steady_trainable_variables()) > _SHORT:
            return 1
        return steps // -(-steps // _TOGETHER)

    def _train_epoch(self, runner: Runner, source: Source, epoch: int, steps: int | None, hooks: Any) -> dict[str, Any]:
        logs = Logs({})
        count = 0
        for together, batch in source.groups(epoch, self._steps_at_once(runner.engine, source, hooks), steps):
            hooks.on_train_batch_begin(count)
            logs = runner.train(self._step_number, batch, together, source.lends)
            vars(self)["_step_number"] += together
            count += together
            hooks.on_train_batch_end(count - 1, logs)
            if self.stop_training:
                break
        if count == 0:
            raise DataError(f"epoch {epoch + 1} of fit had no batches", "at least one batch per epoch")
        source.on_epoch_end()
        runner.settle(going_on=True)
        return logs.read()

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
            runner = Runner(self, chosen, state)
            with runner.handing_over():
                logs = runner.evaluate(source, steps, hooks)
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
        plain = verbose == 0 and callbacks is None and steps is None
        if plain:
            answer = answers.answer(self, x, batch_size, engine)
            if answer is not None:
                return answer
        chosen = self._engine(engine)
        unready = not self.built or not self._steady_variables()
        if plain and not unready and _is_batch(x, batch_size) and not auto.is_asked(self, engine):
            with context.use_engine(chosen):
                forward = Forward(self, chosen)
                outputs = forward(0, (x, None, None))
            answers.keep(self, x, batch_size, engine, forward, outputs)
            return joined(chosen, [outputs])
        source = as_source(x, batch_size=batch_size, steps=steps, shuffle=False, what="predict")
        if unready or auto.is_asked(self, engine):
            first = source.peek()
            chosen = self._prepare(engine, first, objective=False) if unready else chosen
            chosen = auto.settle(self, engine, chosen, "predict", first, source)
        shown = 1 if verbose == "auto" else verbose
        total = steps or source.num_batches
        hooks = CallbackList(
            callbacks, model=self, add_history=False, add_progbar=shown != 0, verbose=shown, epochs=1, steps=total
        )
        parts: list[Any] = []
        with (
            context.use_engine(chosen),
            handing_over(chosen, self._steady_variables()) as handover,
            Forward(self, chosen, handover) as forward,
        ):
            vars(self)["stop_predicting"] = False
            watched = hooks.has_predict_batch_hooks
            hooks.on_predict_begin()
            for number, batch in enumerate(limited(source.epoch(0), steps)):
                hooks.on_predict_batch_begin(number)
                outputs = forward.begun(number, batch, source.lends)
                parts.append(outputs)
                hooks.on_predict_batch_end(number, {"outputs": outputs()} if watched else None)
                if self.stop_predicting:
                    break
            parts = [outputs() for outputs in parts]
            hooks.on_predict_end()
        if not parts:
            raise DataError("predict got no batches", "at least one batch")
        if plain and source.num_rows is not None:
            calls = auto.calls_to_come(self, engine, chosen, "predict", source)
            answers.keep(self, x, batch_size, engine, forward, parts[0], calls)
        return joined(chosen, parts)

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
        with self._resident(chosen, training=True) as runner:
            self.reset_metrics()
            logs = runner.train(self._step_number, batch, shared=True).read()
            vars(self)["_step_number"] += 1
            if not all(map(_is_finite, logs.values())):
                runner.settle()
        return _answer(logs, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False, *, engine: Any = None
    ) -> Any:
        """One step of evaluation on one batch; gives its loss and metrics."""
        self._need_compiled("test_on_batch")
        batch = self._one_batch(x, y, sample_weight, None, "test_on_batch")
        chosen = auto.settle(self, engine, self._prepare(engine, batch), "test", batch, None)
        with self._resident(chosen, training=False) as runner:
            self.reset_metrics()
            logs = runner.test(0, batch).read()
        return _answer(logs, return_dict)

    def predict_on_batch(self, x: Any, *, engine: Any = None) -> Any:
        """The outputs for one batch, as NumPy arrays."""
        return self.predict(x, batch_size=_ALL, verbose=0, engine=engine)

    @contextlib.contextmanager
    def _resident(self, engine: Any, training: bool) -> Iterator[Runner]:
        """Steps over a state that stays where it is after training, until somebody else reads or writes a variable."""
        variables = self._all_variables()
        version = (engine.name, self.run_eagerly, self._guard, every_op.mode())
        runner = self._cache.get("resident", _NONE).resumed(version, variables)
        state = State(variables, engine, reused=training and not self.run_eagerly) if runner is None else runner.state
        try:
            with context.use_engine(engine):
                if runner is None:
                    state.add(variables)
                    runner = Runner(self, engine, state)
                runner.quiet = False
                yield runner
        except BaseException:
            state.abandon()
            raise
        if (training or state.reused) and all(variable.home is None for variable in state.variables):
            self._cache["resident"] = Resident(version, runner)
            state.idle = True
        else:
            state.release()

    def _one_batch(self, x: Any, y: Any, sample_weight: Any, class_weight: Any, what: str) -> Any:
        if sample_weight is None and class_weight is None:
            arrays = tree.leaves((x, y))
            if all(map(is_standard, arrays)) and arrays[0].size and len({array.shape[0] for array in arrays}) == 1:
                return x, y, None  # as a source would give them
        source = as_source(
            x, y, sample_weight, batch_size=_ALL, shuffle=False, class_weight=class_weight, what=what,
            output_names=self._known_output_names(),
        )  # fmt: skip
        return source.peek()


def _is_finite(value: Any) -> bool:
    return math.isfinite(value) if type(value) is float else bool(np.isfinite(value).all())


def _is_batch(x: Any, batch_size: Any) -> bool:
    """Whether data is one batch in the shape and dtype in which it would be fed."""
    rows = batch_size or DEFAULT_BATCH_SIZE
    return (
        type(x) is np.ndarray
        and x.dtype == dtypes.numpy_dtype(dtypes.floatx())
        and type(rows) is int
        and x.ndim > 0
        and 0 < len(x) <= rows
    )


def _answer(logs: dict[str, Any], return_dict: bool) -> Any:
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _validation_source(data: Any, batch_size: int | None, steps: int | None) -> Source:
    x, y, sample_weight = unpack(data) if isinstance(data, tuple) else (data, None, None)
    return as_source(x, y, sample_weight, batch_size=batch_size, steps=steps, shuffle=False, what="validation")
