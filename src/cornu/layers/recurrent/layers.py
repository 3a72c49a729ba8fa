"""`SimpleRNN`, `LSTM` and `GRU`: a house cell over time, with the cell's arguments."""

from typing import Any

from cornu.core.config import one_of
from cornu.core.errors import UnsupportedError
from cornu.layers.base import InputSpec
from cornu.layers.recurrent.base import RNN
from cornu.layers.recurrent.cells import GRUCell, LSTMCell, SimpleRNNCell

__all__ = ["GRU", "LSTM", "SimpleRNN"]


def _of_cell(name: str) -> Any:
    """A property that is the cell's attribute of the same name."""
    return property(lambda self: getattr(self.cell, name), doc=f"The cell's `{name}`.")


def _base_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a layer's cell takes over of the arguments of every layer."""
    return {key: kwargs[key] for key in ("dtype", "trainable", "autocast") if key in kwargs}


def _check_use_cudnn(owner: str, value: Any) -> None:
    one_of("auto", True, False).check(owner, "use_cudnn", value)
    if value is True:
        raise UnsupportedError(
            f"{owner} got use_cudnn=True, and no engine has cuDNN's kernel", "'auto' or False", "leave use_cudnn out"
        )


class _OverCell(RNN):
    """An RNN that shows its cell's arguments as its own."""

    units = _of_cell("units")
    activation = _of_cell("activation")
    use_bias = _of_cell("use_bias")
    kernel_initializer = _of_cell("kernel_initializer")
    recurrent_initializer = _of_cell("recurrent_initializer")
    bias_initializer = _of_cell("bias_initializer")
    kernel_regularizer = _of_cell("kernel_regularizer")
    recurrent_regularizer = _of_cell("recurrent_regularizer")
    bias_regularizer = _of_cell("bias_regularizer")
    kernel_constraint = _of_cell("kernel_constraint")
    recurrent_constraint = _of_cell("recurrent_constraint")
    bias_constraint = _of_cell("bias_constraint")
    dropout = _of_cell("dropout")
    recurrent_dropout = _of_cell("recurrent_dropout")
    seed = _of_cell("seed")


class SimpleRNN(_OverCell):
    """A `SimpleRNNCell` over time: the output is fed back with the next input.

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
        activity_regularizer: penalty on the output.
        kernel_constraint: what the kernel is kept to.
        recurrent_constraint: what the recurrent kernel is kept to.
        bias_constraint: what the bias is kept to.
        dropout: part of the inputs to drop, from 0 to 1; one draw for all time steps.
        recurrent_dropout: part of the state to drop, from 0 to 1; one draw for all time steps.
        return_sequences: whether to give the outputs of all steps instead of the last.
        return_state: whether to give the last state too.
        go_backwards: whether to walk from the end.
        stateful: whether each batch begins with the state that the last one ended with.
        unroll: whether the loop is written out step by step.
        seed: seed of dropout.
        zero_output_for_mask: whether the output at masked steps is 0 instead of the output before.

    Input `(batch, time, features)`; output `(batch, units)`, or `(batch, time, units)` with `return_sequences`.

    Example:
        >>> import cornu
        >>> SimpleRNN(4)(cornu.Input((None, 3))).shape
        (None, 4)
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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        *,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = SimpleRNNCell(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            name="simple_rnn_cell",
            **_base_arguments(kwargs),
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.input_spec = [InputSpec(ndim=3)]


class LSTM(_OverCell):
    """An `LSTMCell` over time: long short-term memory.

    Args:
        units: size of the output and of both states.
        activation: function of the candidate and of the carry, or its name.
        recurrent_activation: function of the gates, or its name.
        use_bias: whether there is a bias.
        kernel_initializer: first values of the kernel `(features, 4 * units)`.
        recurrent_initializer: first values of the recurrent kernel `(units, 4 * units)`.
        bias_initializer: first values of the bias `(4 * units,)`.
        unit_forget_bias: whether the forget gate's bias begins at 1.
        kernel_regularizer: penalty on the kernel.
        recurrent_regularizer: penalty on the recurrent kernel.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the output.
        kernel_constraint: what the kernel is kept to.
        recurrent_constraint: what the recurrent kernel is kept to.
        bias_constraint: what the bias is kept to.
        dropout: part of the inputs to drop, from 0 to 1; one draw for all time steps.
        recurrent_dropout: part of the state to drop, from 0 to 1; one draw for all time steps.
        seed: seed of dropout.
        return_sequences: whether to give the outputs of all steps instead of the last.
        return_state: whether to give the last output and carry too.
        go_backwards: whether to walk from the end.
        stateful: whether each batch begins with the states that the last one ended with.
        unroll: whether the loop is written out step by step.
        use_cudnn: taken for Keras's sake: `"auto"` or `False`.
        implementation: 1 to draw dropout for each gate, 2 for one draw.
        zero_output_for_mask: whether the output at masked steps is 0 instead of the output before.

    Input `(batch, time, features)`; output `(batch, units)`, or `(batch, time, units)` with `return_sequences`.

    Example:
        >>> import cornu
        >>> x = cornu.Input((None, 3))
        >>> output, state, carry = LSTM(4, return_sequences=True, return_state=True)(x)
        >>> output.shape, carry.shape
        ((None, None, 4), (None, 4))
    """

    recurrent_activation = _of_cell("recurrent_activation")
    unit_forget_bias = _of_cell("unit_forget_bias")
    implementation = _of_cell("implementation")

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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: Any = "auto",
        *,
        implementation: int = 2,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_use_cudnn("LSTM", use_cudnn)
        cell = LSTMCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            implementation=implementation,
            name="lstm_cell",
            **_base_arguments(kwargs),
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.use_cudnn = use_cudnn
        self.input_spec = InputSpec(ndim=3)


class GRU(_OverCell):
    """A `GRUCell` over time: gated recurrent unit (Cho et al., 2014).

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
        activity_regularizer: penalty on the output.
        kernel_constraint: what the kernel is kept to.
        recurrent_constraint: what the recurrent kernel is kept to.
        bias_constraint: what the bias is kept to.
        dropout: part of the inputs to drop, from 0 to 1; one draw for all time steps.
        recurrent_dropout: part of the state to drop, from 0 to 1; one draw for all time steps.
        seed: seed of dropout.
        return_sequences: whether to give the outputs of all steps instead of the last.
        return_state: whether to give the last state too.
        go_backwards: whether to walk from the end.
        stateful: whether each batch begins with the state that the last one ended with.
        unroll: whether the loop is written out step by step.
        reset_after: whether the reset gate acts after the product with the recurrent kernel.
        use_cudnn: taken for Keras's sake: `"auto"` or `False`.
        implementation: 1 to draw dropout for each gate, 2 for one draw.
        zero_output_for_mask: whether the output at masked steps is 0 instead of the output before.

    Input `(batch, time, features)`; output `(batch, units)`, or `(batch, time, units)` with `return_sequences`.

    Example:
        >>> import cornu
        >>> GRU(4, return_sequences=True)(cornu.Input((7, 3))).shape
        (None, 7, 4)
    """

    recurrent_activation = _of_cell("recurrent_activation")
    reset_after = _of_cell("reset_after")
    implementation = _of_cell("implementation")

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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: Any = "auto",
        *,
        implementation: int = 2,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_use_cudnn("GRU", use_cudnn)
        cell = GRUCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            reset_after=reset_after,
            seed=seed,
            implementation=implementation,
            name="gru_cell",
            **_base_arguments(kwargs),
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.use_cudnn = use_cudnn
        self.input_spec = InputSpec(ndim=3)
