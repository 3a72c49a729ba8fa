"""Cells: one step of a recurrence. `SimpleRNNCell`, `LSTMCell` and `GRUCell`.

A step has two parts: `project`, which depends on the inputs alone and so can be done for all time steps at once, and
`advance`, which is the recurrence. `call` is `advance` of `project`; a layer over time uses the two apart.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from cornu import activations, constraints, initializers, ops, random, regularizers
from cornu.core import tree
from cornu.core.config import POSITIVE, Field, one_of
from cornu.core.errors import ArgumentError
from cornu.layers._clock import layer_key
from cornu.layers.base import Layer
from cornu.ops.recurrent import gru_step, lstm_step

__all__ = ["GRUCell", "LSTMCell", "RecurrentCell", "SimpleRNNCell"]

RATE = Field(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1, "a number from 0 to 1")

# Dropout's factors for the inputs and for the state: one array, one for each gate, or none.
Noise: TypeAlias = tuple[list[Any] | None, list[Any] | None]
_SILENT: Noise = (None, None)

# The factors that hold for a whole loop over time: id of a cell -> its factors.
_noise: ContextVar[dict[int, Noise] | None] = ContextVar("cornu_cell_noise", default=None)


@contextlib.contextmanager
def one_noise(cells: Iterable["RecurrentCell"], batch: Any) -> Iterator[None]:
    """Let each of these cells use one draw of dropout for all steps of the block.

    Args:
        cells: cells, built.
        batch: the batch's size.
    """
    drawn = {id(cell): cell.draw_noise(batch) for cell in cells}
    token = _noise.set({**(_noise.get() or {}), **drawn})
    try:
        yield
    finally:
        _noise.reset(token)


class RecurrentCell(Layer):
    """What the house's cells share; a subclass writes `project` and `advance`.

    Attributes:
        gates: how many blocks of `units` columns the kernels have.
    """

    gates = 1

    def __init__(
        self,
        units: int,
        activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        recurrent_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        recurrent_constraint: Any,
        bias_constraint: Any,
        dropout: float,
        recurrent_dropout: float,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        POSITIVE.check(owner, "units", units)
        RATE.check(owner, "dropout", dropout)
        RATE.check(owner, "recurrent_dropout", recurrent_dropout)
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.seed = seed
        self._drawn_seed = random.global_seed() if seed is None else seed
        self.state_size: Any = self.units
        self.output_size = self.units

    # ------------------------------------------------ weights

    def build(self, input_shape: Any) -> None:
        """Make the kernel, the recurrent kernel and the bias."""
        features = input_shape[-1]
        if features is None:
            raise ArgumentError(
                f"{type(self).__name__} got an input of shape {input_shape}, whose last size is unknown",
                "a known last size",
                "give it in Input(shape=(None, features))",
            )
        width = self.units * self.gates
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, width),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, width),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self._bias_shape(),
                initializer=self._first_bias(),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.units * self.gates,)

    def _first_bias(self) -> Any:
        return self.bias_initializer

    # ------------------------------------------------ dropout

    def _separate(self) -> bool:
        """Whether each gate has dropout of its own."""
        return self.gates > 1 and getattr(self, "implementation", 2) == 1

    def draw_noise(self, batch: Any) -> Noise:
        """Dropout's factors for a batch: drawn once, used for all time steps (Gal and Ghahramani, 2016).

        Args:
            batch: the batch's size.

        Returns:
            those for the inputs, each `(batch, features)`, and those for the state, each `(batch, units)`.
        """

        def draw(rate: float, size: int) -> list[Any] | None:
            if not rate:
                return None
            ones = ops.ones((batch, size), dtype=self.compute_dtype)
            count = self.gates if self._separate() else 1
            return [random.dropout(ones, rate, seed=layer_key(self, self._drawn_seed)) for _ in range(count)]

        return draw(self.dropout, self.kernel.shape[0]), draw(self.recurrent_dropout, self.units)

    def noise(self, batch: Any, training: bool) -> Noise:
        """The factors that hold for the loop in progress, or drawn now if there is none."""
        if not training or not (self.dropout or self.recurrent_dropout):
            return _SILENT
        found = (_noise.get() or {}).get(id(self))
        return self.draw_noise(batch) if found is None else found

    # ------------------------------------------------ the step

    def project(self, inputs: Any, noise: Noise = _SILENT) -> list[Any]:
        """The part of a step that depends on the inputs alone.

        Args:
            inputs: `(batch, features)`, or `(time, batch, features)` for all steps at once.
            noise: dropout's factors.

        Returns:
            an array `(..., units)` for each gate. (XLA is slow at cutting a part of an array within a loop.)
        """
        leading = ops.shape(inputs)[:-1]
        projected = _product(inputs, self.kernel, noise[0])
        bias = self._input_bias()
        gates = self._by_gate(projected if bias is None else ops.add(projected, bias))
        return gates if len(leading) == 1 else [ops.reshape(gate, (*leading, self.units)) for gate in gates]

    def _by_gate(self, x: Any) -> list[Any]:
        return [x] if self.gates == 1 else ops.split(x, self.gates, axis=-1)

    def _input_bias(self) -> Any:
        return self.bias

    def advance(self, projected: list[Any], states: list[Any], noise: Noise = _SILENT) -> tuple[Any, list[Any]]:
        """The recurrence: from projected inputs and states to the output and the next states.

        Args:
            projected: what `project` gives for one step, an array `(batch, units)` for each gate.
            states: arrays `(batch, units)`.
            noise: dropout's factors.
        """
        raise NotImplementedError(f"{type(self).__name__} has no advance(projected, states, noise)")

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: list of arrays `(batch, units)`, or the array if there is one.
            training: whether dropout works.

        Returns:
            the output `(batch, units)`, and the next states in the form of `states`.
        """
        noise = self.noise(ops.shape(inputs)[0], training)
        nested = tree.is_nested(states)
        output, after = self.advance(self.project(inputs, noise), list(states) if nested else [states], noise)
        return output, after if nested else after[0]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros for each state, `(batch, units)`."""
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in tree.leaves(self.state_size)]


def _product(x: Any, kernel: Any, factors: list[Any] | None) -> Any:
    """`x @ kernel` with all rows of `x` on one axis; with factors for each gate, each block of columns has its own."""

    def rows(x: Any) -> Any:
        shape = ops.shape(x)
        return x if len(shape) == 2 else ops.reshape(x, (-1, shape[-1]))

    if factors is None:
        return ops.matmul(rows(x), kernel)
    if len(factors) == 1:
        return ops.matmul(rows(ops.multiply(x, factors[0])), kernel)
    blocks = ops.split(kernel, len(factors), axis=1)
    parts = [ops.matmul(rows(ops.multiply(x, f)), block) for f, block in zip(factors, blocks, strict=True)]
    return ops.concatenate(parts, axis=-1)


class SimpleRNNCell(RecurrentCell):
    """One step of `SimpleRNN`: `output = activation(inputs @ kernel + bias + state @ recurrent_kernel)`.

    Args:
        units: size of the output and of the state.
        activation: function of the output, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(features, units)`.
        recurrent_initializer: first values of the recurrent kernel `(units, units)`.
        bias_initializer: first values of the bias `(units,)`.
        kernel_regularizer: penalty on the kernel.
        recurrent_regularizer: penalty on the recurrent kernel.
        bias_regularizer: penalty on the bias.
        kernel_constraint: what the kernel is kept to.
        recurrent_constraint: what the recurrent kernel is kept to.
        bias_constraint: what the bias is kept to.
        dropout: part of the inputs to drop, from 0 to 1.
        recurrent_dropout: part of the state to drop on its way to the next step, from 0 to 1.
        seed: seed of both.

    Inputs `(batch, features)` and one state `(batch, units)`; output `(batch, units)`, which is the next state.

    Example:
        >>> import cornu, numpy as np
        >>> cell = SimpleRNNCell(2)
        >>> output, states = cell(np.ones((3, 5), "float32"), [np.zeros((3, 2), "float32")])
        >>> output.shape, len(states)
        ((3, 2), 1)
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer, kernel_constraint, recurrent_constraint,
            bias_constraint, dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip

    def advance(self, projected: list[Any], states: list[Any], noise: Noise = _SILENT) -> tuple[Any, list[Any]]:
        """The recurrence."""
        carried = _product(states[0], self.recurrent_kernel, noise[1])
        output = self.activation(ops.add(projected[0], carried))
        return output, [output]


class LSTMCell(RecurrentCell):
    """One step of `LSTM`: gates `i`, `f`, `o` and a candidate, in the kernels' columns as `i, f, candidate, o`.

        carry = f * carry + i * activation(candidate)
        output = o * activation(carry)

    Hochreiter and Schmidhuber, "Long short-term memory", 1997; the forget gate of Gers et al., 2000.

    Args:
        units: size of the output and of both states.
        activation: function of the candidate and of the carry, or its name.
        recurrent_activation: function of the gates, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(features, 4 * units)`.
        recurrent_initializer: first values of the recurrent kernel `(units, 4 * units)`.
        bias_initializer: first values of the bias `(4 * units,)`.
        unit_forget_bias: whether the forget gate's bias begins at 1 (Jozefowicz et al., 2015).
        kernel_regularizer: penalty on the kernel.
        recurrent_regularizer: penalty on the recurrent kernel.
        bias_regularizer: penalty on the bias.
        kernel_constraint: what the kernel is kept to.
        recurrent_constraint: what the recurrent kernel is kept to.
        bias_constraint: what the bias is kept to.
        dropout: part of the inputs to drop, from 0 to 1.
        recurrent_dropout: part of the state to drop on its way to the next step, from 0 to 1.
        seed: seed of both.
        implementation: 1 to draw dropout for each gate, 2 for one draw; `recurrent_dropout` implies 1.

    Inputs `(batch, features)` and two states `(batch, units)`, the output and the carry; output `(batch, units)`.

    Example:
        >>> import cornu, numpy as np
        >>> zeros = np.zeros((3, 2), "float32")
        >>> output, states = LSTMCell(2)(np.ones((3, 5), "float32"), [zeros, zeros])
        >>> output.shape, len(states)
        ((3, 2), 2)
    """

    gates = 4

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer, kernel_constraint, recurrent_constraint,
            bias_constraint, dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = unit_forget_bias
        self.implementation = _implementation("LSTMCell", implementation, recurrent_dropout)
        self.state_size = [self.units, self.units]

    def _first_bias(self) -> Any:
        if not self.unit_forget_bias:
            return self.bias_initializer
        units, other = self.units, self.bias_initializer

        def first(shape: Any, dtype: Any = None) -> Any:
            parts = other((units,), dtype), np.ones(units), other((2 * units,), dtype)
            return np.concatenate([np.asarray(part, "float64") for part in parts])

        return first

    def advance(self, projected: list[Any], states: list[Any], noise: Noise = _SILENT) -> tuple[Any, list[Any]]:
        """The recurrence."""
        output, carry = states
        carried = self._by_gate(_product(output, self.recurrent_kernel, noise[1]))
        gates = [ops.add(x, h) for x, h in zip(projected, carried, strict=True)]
        output, carry = lstm_step(gates, carry, self.activation, self.recurrent_activation)
        return output, [output, carry]


class GRUCell(RecurrentCell):
    """One step of `GRU`: gates `z`, `r` and a candidate, in the kernels' columns as `z, r, candidate`.

        output = z * state + (1 - z) * activation(candidate)

    The reset gate `r` acts on the state's part of the candidate: after the product with the recurrent kernel
    (arXiv 1406.1078v1, with biases of its own), or on the state before it (`reset_after=False`, arXiv 1406.1078v3).

    Args:
        units: size of the output and of the state.
        activation: function of the candidate, or its name.
        recurrent_activation: function of the gates, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(features, 3 * units)`.
        recurrent_initializer: first values of the recurrent kernel `(units, 3 * units)`.
        bias_initializer: first values of the bias `(2, 3 * units)`; `(3 * units,)` if not `reset_after`.
        kernel_regularizer: penalty on the kernel.
        recurrent_regularizer: penalty on the recurrent kernel.
        bias_regularizer: penalty on the bias.
        kernel_constraint: what the kernel is kept to.
        recurrent_constraint: what the recurrent kernel is kept to.
        bias_constraint: what the bias is kept to.
        dropout: part of the inputs to drop, from 0 to 1.
        recurrent_dropout: part of the state to drop on its way to the next step, from 0 to 1.
        reset_after: whether the reset gate acts after the product.
        seed: seed of dropout.
        implementation: 1 to draw dropout for each gate, 2 for one draw; `recurrent_dropout` implies 1.

    Inputs `(batch, features)` and one state `(batch, units)`; output `(batch, units)`, which is the next state.

    Example:
        >>> import cornu, numpy as np
        >>> output, state = GRUCell(2)(np.ones((3, 5), "float32"), np.zeros((3, 2), "float32"))
        >>> output.shape, state.shape
        ((3, 2), (3, 2))
    """

    gates = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        *,
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer, kernel_constraint, recurrent_constraint,
            bias_constraint, dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after
        self.implementation = _implementation("GRUCell", implementation, recurrent_dropout)

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def _input_bias(self) -> Any:
        return self.bias if self.bias is None or not self.reset_after else ops.get_item(self.bias, 0)

    def advance(self, projected: list[Any], states: list[Any], noise: Noise = _SILENT) -> tuple[Any, list[Any]]:
        """The recurrence."""
        (state,) = states
        if self.reset_after:
            carried = _product(state, self.recurrent_kernel, noise[1])
            if self.bias is not None:
                carried = ops.add(carried, ops.get_item(self.bias, 1))
            carried = self._by_gate(carried)
            output = gru_step(projected, carried, state, self.activation, self.recurrent_activation)
            return output, [output]
        x_z, x_r, x_h = projected
        gates, last = ops.split(self.recurrent_kernel, [2 * self.units], axis=1)
        h_z, h_r = ops.split(_product(state, gates, noise[1] and noise[1][:2]), 2, axis=-1)
        z = self.recurrent_activation(ops.add(x_z, h_z))
        r = self.recurrent_activation(ops.add(x_r, h_r))
        h_h = _product(ops.multiply(r, state), last, noise[1] and noise[1][2:])
        candidate = self.activation(ops.add(x_h, h_h))
        output = ops.add(ops.multiply(z, state), ops.multiply(ops.subtract(1, z), candidate))
        return output, [output]


def _implementation(owner: str, value: Any, recurrent_dropout: float) -> int:
    one_of(0, 1, 2).check(owner, "implementation", value)
    return 1 if recurrent_dropout else int(value)
