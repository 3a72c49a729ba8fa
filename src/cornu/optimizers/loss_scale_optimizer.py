"""Dynamic loss scaling, for float16."""

from collections.abc import Sequence
from typing import Any

from cornu import initializers, ops
from cornu.core import context
from cornu.core.errors import ArgumentError, BuildError
from cornu.core.family import deserialize_object
from cornu.core.variable import Variable
from cornu.optimizers.base import _DEFAULTS, Optimizer, either

__all__ = ["LossScaleOptimizer"]


class LossScaleOptimizer(Optimizer):
    """An optimizer that takes gradients of a loss multiplied by a factor, so that they do not vanish in float16.

    The factor halves (and the update is left out) when a gradient is not finite, and doubles after some steps without
    that (Micikevicius et al., "Mixed precision training", ICLR 2018).

    Args:
        inner_optimizer: the optimizer that makes the updates.
        initial_scale: the first factor.
        dynamic_growth_steps: after how many good steps the factor doubles.
        name: its name.

    Raises:
        ArgumentError: for options that belong to the inner optimizer.

    Example:
        >>> import cornu, numpy as np
        >>> optimizer = LossScaleOptimizer(cornu.optimizers.SGD(0.5), initial_scale=4.0)
        >>> w = cornu.Variable(np.array([1.0], "float32"))
        >>> optimizer.apply([np.array([4.0], "float32")], [w])  # of a loss that was multiplied by 4
        >>> w.numpy().tolist()
        [0.5]
    """

    _base_arguments = ()

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if not options.pop("dynamic", True):
            raise ArgumentError(
                "LossScaleOptimizer got dynamic=False", "nothing", "give the inner optimizer a loss_scale_factor"
            )
        for key, value in options.items():
            if key not in _DEFAULTS or value != _DEFAULTS[key]:
                raise ArgumentError(
                    f"LossScaleOptimizer got {key}={value!r}", "its own options", f"give {key} to the inner optimizer"
                )
        super().__init__(0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None  # or gradients would be scaled twice

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the variables: the counter, the factor, and the inner optimizer's."""
        if self.built:
            return
        scale = initializers.Constant(self.initial_scale)
        self.step_counter = self.add_variable((), dtype="int32", name="step_counter")
        self.dynamic_scale = self.add_variable((), scale, "float32", name="dynamic_scale")
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[Variable]:
        """Its own variables, then the inner optimizer's."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """How many updates have been made."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the factor."""
        return ops.multiply(loss, self.dynamic_scale.value if self.built else self.initial_scale)

    def check_finite(self, grads: Sequence[Any]) -> Any:
        """Whether all gradients are finite: boolean scalar."""
        return ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads if g is not None]))

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None) -> None:
        """Update weights by gradients of the scaled loss, if they are finite; arguments as for `Optimizer.apply`."""
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None and not self.built:
            raise BuildError(f"optimizer {self.name!r} does not know its weights", "build(variables) first")
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(variables)
        with context.autocast(None):
            pairs = self.inner_optimizer._pairs(grads, variables)

            def good() -> None:
                scale = self.dynamic_scale.value
                self.inner_optimizer.apply([ops.divide(g, scale) for g, _ in pairs], [v for _, v in pairs])
                grown = ops.equal(self.step_counter, self.dynamic_growth_steps - 1)
                self.step_counter.assign(ops.where(grown, 0, ops.add(self.step_counter.value, 1)))
                self.dynamic_scale.assign(ops.where(grown, ops.multiply(scale, 2.0), scale))

            def bad() -> None:
                self.step_counter.assign(ops.zeros((), "int32"))
                self.dynamic_scale.assign(ops.multiply(self.dynamic_scale.value, 0.5))

            either(self.check_finite(grads), good, bad, [*variables, *self.variables])

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """The inner optimizer's."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """The arguments by name."""
        return {
            "name": self.name,
            "inner_optimizer": self.inner_optimizer,
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """An optimizer made from a config; the inner one may be in its serialized form."""
        config = dict(config)
        return cls(deserialize_object(config.pop("inner_optimizer"), custom_objects), **config)
