"""`Optimizer`: everything around an update rule. A rule itself is one pure function, `update` (see `sgd.py`).

All state is in variables, read by `value` and written by `assign`; there is no Python decision on a value. So the same
code runs eagerly, and inside a compiled step under `context.bind`.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

import numpy as np

from cornu import initializers, ops
from cornu.core import context, dtypes
from cornu.core.config import Configurable, init_parameters
from cornu.core.errors import ArgumentError, BindingError, BuildError, CornuWarning, DtypeError, ShapeError, near_miss
from cornu.core.family import deserialize_object, snake_case
from cornu.core.variable import Variable
from cornu.engines import registry
from cornu.optimizers.schedules import LearningRateSchedule

__all__ = ["Optimizer", "Options"]


class Options(TypedDict, total=False):
    """The keywords every optimizer takes (see `Optimizer`)."""

    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


_DEFAULTS: dict[str, Any] = {
    "name": None, "weight_decay": None, "clipnorm": None, "global_clipnorm": None, "clipvalue": None,
    "use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None, "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}  # fmt: skip


class Optimizer(Configurable):
    """Base of optimizers.

    A subclass names its `slots` and writes `update`. (Or, as in Keras, it overrides `build` and `update_step`.)

    Args:
        learning_rate: a number, a `LearningRateSchedule`, or a function of no arguments.
        weight_decay: if given, each update first takes `weight_decay * learning_rate` of every weight away from it.
        clipnorm: the largest norm of each gradient.
        clipvalue: the largest absolute value in a gradient.
        global_clipnorm: the largest norm of all gradients together. Only one of the three may be given.
        use_ema: whether to keep an exponential moving average of the weights.
        ema_momentum: the part of the average that stays at each step, from 0 to 1.
        ema_overwrite_frequency: after how many steps the weights are replaced by their average; `None` to leave that to
            `finalize_variable_values`, which `fit` calls at the end.
        loss_scale_factor: a number the loss is multiplied by (`scale_loss`) and gradients are divided by.
        gradient_accumulation_steps: after how many steps the mean gradient is applied once, 2 or more.
        name: its name, by default the class's in small letters.

    Attributes:
        slots: names of the variables kept for each weight; those in an inner tuple are made (and stored in files)
            weight by weight, the groups one after the other.
        slot_values: the first value of a slot, where it is not 0.

    Raises:
        ArgumentError: for arguments outside these limits, or unknown.

    Example:
        >>> import cornu
        >>> class Signs(Optimizer):
        ...     def update(self, gradient, value, slots, learning_rate, step):
        ...         return ops.subtract(value, ops.multiply(learning_rate, ops.sign(gradient))), slots
        >>> w = Variable(np.array([1.0, 2.0], "float32"))
        >>> Signs(0.5).apply([np.array([-3.0, 3.0], "float32")], [w])
        >>> w.numpy().tolist()
        [1.5, 1.5]
    """

    slots: tuple[str | tuple[str, ...], ...] = ()
    slot_values: dict[str, float] = {}
    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str
    _base_arguments = tuple(_DEFAULTS)

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        self._refuse(unknown)
        self._set_options(
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        self._set_learning_rate(learning_rate)

    def _before_init(self) -> None:
        self._variables: list[Variable] = []
        self._trainable_variables: list[Variable] = []
        self._index: dict[int, int] = {}
        self._slots: list[dict[str, Variable]] = []
        self._averages: list[Variable] = []
        self._accumulators: list[Variable] = []
        self._excluded: list[Variable] = []
        self._excluded_names: list[str] = []
        self._learning_rate: Any = None
        self.built = False
        self._set_options(**_DEFAULTS)
        self._iterations = self.add_variable((), dtype="int32", name="iteration")

    def _after_init(self, extra: dict[str, Any]) -> None:
        if self._learning_rate is None:
            raise BuildError(
                f"{type(self).__name__} has no learning rate", "super().__init__(learning_rate, ...) in its __init__"
            )
        if extra:
            self._set_options(**extra)

    def _refuse(self, unknown: dict[str, Any]) -> None:
        if "decay" in unknown and not unknown["decay"]:
            unknown.pop("decay")  # old configs hold it
        for key, value in unknown.items():
            fix = None
            if key == "decay":
                fix = f"learning_rate=InverseTimeDecay(learning_rate, decay_steps=1, decay_rate={value!r})"
            known = [*_DEFAULTS, "learning_rate"]
            got = f"{type(self).__name__} got {key}={value!r}{near_miss(key, known)}"
            raise ArgumentError(got, ", ".join(known), fix)

    def _set_options(self, **options: Any) -> None:
        """Check and store some of the keywords every optimizer takes."""
        for key, value in options.items():
            object.__setattr__(self, key, value)
        owner = type(self).__name__
        self.name = self.name or snake_case(owner)
        for variable in self._variables:
            variable.path = f"{self.name}/{variable.name}"
        steps, often = self.gradient_accumulation_steps, self.ema_overwrite_frequency
        if steps and not (hasattr(steps, "__index__") and steps >= 2):
            raise ArgumentError(f"{owner} got gradient_accumulation_steps={steps!r}", "2 or more, or None")
        if self.use_ema and not 0 <= self.ema_momentum <= 1:
            raise ArgumentError(f"{owner} got ema_momentum={self.ema_momentum!r}", "a number from 0 to 1")
        if self.use_ema and often and not (hasattr(often, "__index__") and often >= 1):
            raise ArgumentError(f"{owner} got ema_overwrite_frequency={often!r}", "a whole number above zero, or None")
        clips = {key: getattr(self, key) for key in ("clipnorm", "clipvalue", "global_clipnorm")}
        given = {key: value for key, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ArgumentError(f"{owner} got {given}", "only one of clipnorm, clipvalue and global_clipnorm")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Variable):
            self._track(value)
        object.__setattr__(self, name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._index = {id(variable): i for i, variable in enumerate(self._trainable_variables)}

    # ------------------------------------------------ variables

    def _track(self, variable: Variable) -> None:
        if all(variable is not known for known in self._variables):
            self._variables.append(variable)

    @property
    def variables(self) -> list[Variable]:
        """The optimizer's own variables, in the order in which files store them."""
        return list(self._variables)

    @property
    def iterations(self) -> Any:
        """How many updates have been made: int32 scalar (a variable, unless gradients are accumulated)."""
        if self.gradient_accumulation_steps:
            return ops.floor_divide(self._iterations, self.gradient_accumulation_steps)
        return self._iterations

    def add_variable(
        self,
        shape: Iterable[int],
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A new variable of the optimizer.

        Args:
            shape: sizes.
            initializer: see `cornu.initializers.get`.
            dtype: the dtype's name, by default the default float.
            aggregation: kept on the variable.
            layout: not used.
            name: its name.
        """
        made = Variable(
            initializers.get(initializer),
            tuple(shape),
            dtype,
            trainable=False,
            autocast=False,
            aggregation=aggregation,
            name=name,
        )
        made.path = f"{self.name}/{made.name}"
        self._track(made)
        return made

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A new variable of the optimizer with a weight's shape and dtype, named after it."""
        return self.add_variable(
            reference_variable.shape,
            initializer,
            reference_variable.dtype,
            name=f"{reference_variable.path.replace('/', '_')}_{name or 'var'}",
        )

    def add_optimizer_variables(self, trainable_variables: Any, name: Any, initializer: Any = "zeros") -> Any:
        """A new variable for each weight: a list; or for several names a tuple of lists, made weight by weight."""
        names = [name] if isinstance(name, str) else list(name)
        firsts = list(initializer) if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        if len(firsts) != len(names):
            raise ArgumentError(f"{len(names)} names and {len(firsts)} initializers", "as many of each")
        lists: tuple[list[Variable], ...] = tuple([] for _ in names)
        for variable in trainable_variables:
            for made, each, first in zip(lists, names, firsts, strict=True):
                made.append(self.add_variable_from_reference(variable, each, first))
        return lists[0] if isinstance(name, str) else lists

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the variables that go with some weights. Called by the first `apply`.

        Args:
            variables: the weights to train. Weights it does not know yet (unfrozen since) are added.
        """
        if not self.built:
            self._index = {}
            self._trainable_variables = []
            self._averages, self._accumulators, self._slots = [], [], []
        new = [variable for variable in variables if id(variable) not in self._index]
        if new or not self.built:
            self._add(new)
        self.built = True

    def _add(self, new: list[Variable]) -> None:
        self._index |= {id(variable): i for i, variable in enumerate(new, start=len(self._index))}
        self._trainable_variables += new
        if self.use_ema:
            self._averages += self.add_optimizer_variables(new, "average")
        if self.gradient_accumulation_steps:
            self._accumulators += self.add_optimizer_variables(new, "gradient_accumulator")
        added: list[dict[str, Any]] = [{} for _ in new]
        for group in self.slots:
            names = (group,) if isinstance(group, str) else group
            firsts = [initializers.Constant(self.slot_values.get(name, 0.0)) for name in names]
            lists = self.add_optimizer_variables(new, names, firsts)
            for name, made in zip(names, lists, strict=True):
                for slots, variable in zip(added, made, strict=True):
                    slots[name] = variable
        self._slots += added

    def _get_variable_index(self, variable: Variable) -> int:
        if id(variable) not in self._index:
            self.build([variable])
        return self._index[id(variable)]

    # ------------------------------------------------ learning rate

    def _set_learning_rate(self, value: Any) -> None:
        if isinstance(value, LearningRateSchedule) or callable(value):
            self._learning_rate = value
            return
        if isinstance(value, dict):
            self._learning_rate = deserialize_object(value)
            return
        if isinstance(value, (bool, str)) or np.ndim(value) != 0:
            raise ArgumentError(
                f"{type(self).__name__} got learning_rate={value!r:.80}", "a number, a schedule or a function"
            )
        constant = initializers.Constant(float(value))
        self._learning_rate = self.add_variable((), constant, dtypes.floatx(), name="learning_rate")

    @property
    def learning_rate(self) -> Any:
        """The current learning rate: a scalar (the variable itself, unless a schedule gives it)."""
        rate = self._learning_rate
        if isinstance(rate, LearningRateSchedule):
            return rate(self._iterations)
        return rate() if callable(rate) else rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, LearningRateSchedule) or callable(value):
            if isinstance(self._learning_rate, Variable):
                self._variables = [known for known in self._variables if known is not self._learning_rate]
            self._learning_rate = value
        elif not isinstance(self._learning_rate, Variable):
            raise DtypeError(
                f"the learning rate of {self.name!r} follows {self._learning_rate!r} and was set to {value!r:.40}",
                "a schedule",
                "make the optimizer with a number to set numbers later",
            )
        else:
            self._learning_rate.assign(value)

    # ------------------------------------------------ updating

    def update(
        self, gradient: Any, value: Any, slots: dict[str, Any], learning_rate: Any, step: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The rule: a pure function, written in ops.

        Args:
            gradient: array of the weight's shape and dtype.
            value: the weight.
            slots: the arrays that `slots` names.
            learning_rate: scalar of the weight's dtype.
            step: scalar of the weight's dtype: 1 at the first update.

        Returns:
            the new weight, and the new slots.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update(gradient, value, slots, learning_rate, step)")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Update one weight and its slots by the rule."""
        slots = self._slots[self._get_variable_index(variable)]
        value, new = self.update(
            ops.cast(gradient, variable.dtype),
            variable.value,
            {name: slot.value for name, slot in slots.items()},
            ops.cast(learning_rate, variable.dtype),
            ops.cast(ops.add(self.iterations, 1), variable.dtype),
        )
        variable.assign(value)
        for name, slot in slots.items():
            slot.assign(new[name])

    def before_updates(self) -> None:
        """What a rule does once per update, before the weights have their turn."""

    def assign(self, variable: Variable, value: Any) -> None:
        """Give a variable a value."""
        variable.assign(value)

    def assign_add(self, variable: Variable, value: Any) -> None:
        """Add to a variable."""
        variable.assign_add(value)

    def assign_sub(self, variable: Variable, value: Any) -> None:
        """Subtract from a variable."""
        variable.assign_sub(value)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Any:
        """Update weights by `(gradient, weight)` pairs; returns the number of calls so far."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])
        return self._iterations

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None) -> None:
        """Update weights by their gradients.

        Args:
            grads: an array per weight, of its shape; `None` leaves a weight as it is (with a warning that names it).
            trainable_variables: the weights; by default those the optimizer was built with.

        Raises:
            BuildError: if there are no weights yet.
            BindingError: if gradients and weights do not pair off, a weight is not one the optimizer was built with, or
                no weight has a gradient.
        """
        grads = list(grads)
        if not grads:
            return
        with registry.in_force_for(grads), context.autocast(None):
            pairs = self._pairs(grads, trainable_variables)
            scale = self.loss_scale_factor
            grads = [gradient if scale is None else ops.divide(gradient, scale) for gradient, _ in pairs]
            self._apply(grads, [variable for _, variable in pairs])
            for _, variable in pairs:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable.value))
            self._iterations.assign_add(1)

    def _pairs(self, grads: list[Any], variables: Sequence[Variable] | None) -> list[tuple[Any, Variable]]:
        """Gradients with their weights, those without gradient left out."""
        if variables is None:
            if not self.built:
                raise BuildError(f"optimizer {self.name!r} does not know its weights", "build(variables) first", None)
            variables = self._trainable_variables
        variables = list(variables)
        if len(grads) != len(variables):
            raise BindingError(f"{len(grads)} gradients for {len(variables)} variables", "one each, in the same order")
        if not self.built:
            self.build(variables)
        for variable in variables:
            self._get_variable_index(variable)
        missing = [variable.path for gradient, variable in zip(grads, variables, strict=True) if gradient is None]
        if len(missing) == len(grads):
            raise BindingError(
                f"there is no gradient for any of {missing}", "a loss that depends on them", "give compile a loss"
            )
        if missing:
            warnings.warn(f"there is no gradient for {missing}: these weights stay as they are", CornuWarning, 3)
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        for gradient, variable in pairs:
            if ops.shape(gradient) != variable.shape:
                got = f"a gradient of shape {ops.shape(gradient)} for {variable.path!r}"
                raise ShapeError(got, f"{variable.shape}")
        return pairs

    def _apply(self, grads: list[Any], variables: list[Variable]) -> None:
        steps = self.gradient_accumulation_steps
        if not steps:
            self._update_all(grads, variables)
        else:
            sums = [self._accumulators[self._get_variable_index(variable)] for variable in variables]

            def update() -> None:
                mean = [ops.divide(ops.add(g, total.value), steps) for g, total in zip(grads, sums, strict=True)]
                self._update_all(mean, variables)
                for total in sums:
                    total.assign(ops.zeros(total.shape, total.dtype))

            def accumulate() -> None:
                for gradient, total in zip(grads, sums, strict=True):
                    total.assign_add(gradient)

            due = ops.equal(ops.mod(ops.add(self._iterations, 1), steps), 0)
            either(due, update, accumulate, [*variables, *self._variables])
        if self.use_ema:
            self._average()

    def _update_all(self, grads: list[Any], variables: list[Variable]) -> None:
        grads = self._clip_gradients(grads)
        self._apply_weight_decay(variables)
        self.before_updates()
        rate = self.learning_rate
        for gradient, variable in zip(grads, variables, strict=True):
            self.update_step(gradient, variable, rate)

    def _average(self) -> None:
        """Move the averages of the weights on; now and then put them in the weights' place."""
        started = ops.not_equal(self.iterations, 0)
        for variable, average in zip(self._trainable_variables, self._averages, strict=True):
            kept = ops.multiply(ops.cast(started, variable.dtype), self.ema_momentum)
            fresh = ops.multiply(ops.subtract(1.0, kept), variable.value)
            average.assign(ops.add(ops.multiply(kept, average.value), fresh))
        if self.ema_overwrite_frequency:
            due = ops.equal(ops.mod(ops.add(self.iterations, 1), self.ema_overwrite_frequency), 0)
            for variable, average in zip(self._trainable_variables, self._averages, strict=True):
                variable.assign(ops.where(due, average.value, variable.value))

    # ------------------------------------------------ clipping and decay

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if self.clipnorm and self.clipnorm > 0:
            return [self._clip_by_norm(gradient) for gradient in grads]
        if self.global_clipnorm and self.global_clipnorm > 0:
            squares = ops.stack([ops.sum(ops.multiply(gradient, gradient)) for gradient in grads])
            norm = ops.sqrt(ops.sum(squares))
            most = self.global_clipnorm
            scale = ops.multiply(most, ops.minimum(ops.divide(1.0, norm), 1.0 / most))
            # An infinite or NaN norm makes all gradients NaN, as in Keras.
            scale = ops.add(scale, ops.subtract(norm, norm))
            return [ops.multiply(gradient, scale) for gradient in grads]
        if self.clipvalue and self.clipvalue > 0:
            return [ops.minimum(ops.maximum(gradient, -self.clipvalue), self.clipvalue) for gradient in grads]
        return grads

    def _clip_by_norm(self, gradient: Any) -> Any:
        norm = ops.sqrt(ops.sum(ops.multiply(gradient, gradient)))
        return ops.divide(ops.multiply(gradient, self.clipnorm), ops.maximum(norm, self.clipnorm))

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Spare some weights the weight decay. Call it before the first update.

        Args:
            var_list: weights to spare.
            var_names: patterns (regular expressions); a weight with one of them in its name is spared: `["bias"]`.

        Raises:
            BuildError: if the optimizer is built already.
        """
        if self.built:
            raise BuildError(f"optimizer {self.name!r} is built already", "exclude_from_weight_decay before that")
        self._excluded = list(var_list or ())
        self._excluded_names = list(var_names or ())

    def _use_weight_decay(self, variable: Variable) -> bool:
        if any(variable is spared for spared in self._excluded):
            return False
        return not any(re.search(pattern, variable.name) for pattern in self._excluded_names)

    def _apply_weight_decay(self, variables: list[Variable]) -> None:
        if self.weight_decay is None:
            return
        rate = self.learning_rate
        for variable in variables:
            if self._use_weight_decay(variable):
                part = ops.multiply(ops.cast(self.weight_decay, variable.dtype), ops.cast(rate, variable.dtype))
                variable.assign(ops.subtract(variable.value, ops.multiply(variable.value, part)))

    # ------------------------------------------------ around training

    def scale_loss(self, loss: Any) -> Any:
        """The loss times `loss_scale_factor`, if there is one."""
        return loss if self.loss_scale_factor is None else ops.multiply(loss, self.loss_scale_factor)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Put the averages in the weights' place, if they are kept. Called when training ends."""
        if self.use_ema:
            for variable in var_list:
                variable.assign(self._averages[self._get_variable_index(variable)].value)

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """`apply` as a pure function of arrays.

        Args:
            optimizer_variables: an array for each of `variables`.
            grads: an array (or `None`) per weight.
            trainable_variables: an array per weight.

        Returns:
            the new arrays of the weights, and of `variables`.

        Raises:
            BuildError: if the optimizer is not built.
            BindingError: if there are too many or too few arrays.
        """
        if not self.built:
            raise BuildError(f"optimizer {self.name!r} is not built", "build(variables) first")
        weights, own = self._trainable_variables, self.variables
        for what, given, known in (("weights", trainable_variables, weights), ("optimizer", optimizer_variables, own)):
            if len(given) != len(known):
                raise BindingError(f"{len(given)} arrays for {len(known)} {what} variables", "one each")
        with context.autocast(None), context.bind([*weights, *own], [*trainable_variables, *optimizer_variables]):
            self.apply(grads)
            return [variable.value for variable in weights], [variable.value for variable in own]

    def get_weights(self) -> list[np.ndarray]:
        """The values of `variables`."""
        return [variable.numpy() for variable in self.variables]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `variables`.

        Raises:
            BuildError: if the optimizer is not built.
            BindingError: if there are too many or too few.
        """
        if not self.built:
            raise BuildError(f"optimizer {self.name!r} is not built", "build(variables) first")
        if len(weights) != len(self.variables):
            raise BindingError(f"{len(weights)} arrays for {len(self.variables)} variables", "one each")
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Put the values of `variables` into a mapping, by number."""
        for i, variable in enumerate(self.variables):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Take the values of `variables` from a mapping, by number.

        Raises:
            BindingError: if there are too many or too few.
        """
        if len(store.keys()) != len(self.variables):
            raise BindingError(
                f"a file has {len(store.keys())} variables for optimizer {self.name!r}",
                f"{len(self.variables)}",
                "build the optimizer first, with the same options as when it was saved",
            )
        for i, variable in enumerate(self.variables):
            variable.assign(np.asarray(store[str(i)]))

    def get_config(self) -> dict[str, Any]:
        """The arguments by name; the learning rate as it is now."""
        rate = self._learning_rate
        common = {key: getattr(self, key) for key in _DEFAULTS}
        common = {"name": common.pop("name"), "learning_rate": rate, **common}
        if type(self).__module__.startswith("cornu."):
            own = {key: getattr(self, key) for key in init_parameters(type(self))[0] if key not in common}
        else:
            own = {key: value for key, value in self._arguments_by_name().items() if key not in common}
        config = {**common, **own}
        config["learning_rate"] = float(rate.numpy()) if isinstance(rate, Variable) else rate
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """An optimizer made from a config.

        Args:
            config: what `get_config` gives; a schedule may be in its serialized form.
            custom_objects: classes by name, for those that are not registered.
        """
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = deserialize_object(config["learning_rate"], custom_objects)
        return super().from_config(config)


def either(condition: Any, first: Callable[[], None], second: Callable[[], None], variables: list[Variable]) -> None:
    """Run one of two functions that assign to variables, as a boolean scalar says.

    Args:
        condition: boolean scalar.
        first: run if it holds.
        second: run if it does not.
        variables: all that either may assign to.
    """
    unique = list({id(variable): variable for variable in variables}.values())
    before = [variable.value for variable in unique]

    def branch(function: Callable[[], None]) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            with context.bind(unique, before):
                function()
                return [variable.value for variable in unique]

        return run

    for variable, value in zip(unique, ops.cond(condition, branch(first), branch(second)), strict=True):
        variable.assign(value)
