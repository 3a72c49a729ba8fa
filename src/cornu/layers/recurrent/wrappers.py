"""Layers around a layer: `Wrapper`, `Bidirectional`, `TimeDistributed`."""

from typing import Any

from cornu import activations, ops
from cornu.core import tree
from cornu.core.config import one_of
from cornu.core.dims import is_known, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers._arguments import signature_of
from cornu.layers.base import InputSpec, Layer
from cornu.layers.recurrent._shared import build_inside, fresh, swapped, walk
from cornu.ops._declare import shape_of
from cornu.ops._rules import require_equal

__all__ = ["Bidirectional", "TimeDistributed", "Wrapper"]


def _check_layer(owner: str, name: str, value: Any) -> None:
    if not isinstance(value, Layer):
        raise ArgumentError(f"{owner} got {name}={value!r:.80} of type {type(value).__name__}", "a layer")


class Wrapper(Layer):
    """Base of layers that hold one other layer.

    Args:
        layer: the layer held.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        _check_layer(type(self).__name__, "layer", layer)
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape: Any = None) -> None:
        """Build the layer held."""
        build_inside(self, self.layer, input_shape)
        self.built = True

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer made from a config, with a layer of its own inside."""
        return super().from_config(fresh(dict(config)))


# ---------------------------------------------------------------- both directions

_MERGE_MODE = one_of("concat", "sum", "mul", "ave", None)
_ALIKE = ("stateful", "return_sequences", "return_state")


class Bidirectional(Layer):
    """A layer over time and its mirror image, which walks from the end; their outputs are merged.

    The layer given is not used itself: both directions are made from its config, with weights of their own.

    Args:
        layer: an `RNN` such as `LSTM` or `GRU`, or any layer over time with `go_backwards`, `return_sequences`,
            `return_state` and `stateful`.
        merge_mode: `"concat"` (on the last axis), `"sum"`, `"mul"`, `"ave"`, or `None` to give both.
        weights: first weights, those of the forward layer and then those of the backward one.
        backward_layer: the layer for the backward direction, with the other `go_backwards`; by default a mirror image.

    Input `(batch, time, features)`. The output is the layer's, twice as wide with `"concat"`, a pair with `None`; with
    `return_state` a tuple of output, forward states and backward states. Of `initial_state` the first half goes to the
    forward layer. Outputs of all steps are in the order of time, and 0 at masked steps.

    Raises:
        ArgumentError: if the layers do not match.

    Example:
        >>> import cornu
        >>> Bidirectional(cornu.layers.recurrent.LSTM(4))(cornu.Input((None, 3))).shape
        (None, 8)
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        _check_layer("Bidirectional", "layer", layer)
        if backward_layer is not None:
            _check_layer("Bidirectional", "backward_layer", backward_layer)
        _MERGE_MODE.check("Bidirectional", "merge_mode", merge_mode)
        for name in (*_ALIKE, "go_backwards"):
            if not hasattr(layer, name):
                raise ArgumentError(
                    f"Bidirectional got {layer!r:.80}, which has no {name}", "a layer over time: an RNN, LSTM, GRU ..."
                )
        super().__init__(**kwargs)
        config = layer.get_config()
        self.forward_layer = _made(layer, config, name="forward_" + layer.name.removeprefix("forward_"))
        if backward_layer is None:
            name = "backward_" + layer.name.removeprefix("backward_")
            backward_layer = _made(layer, config, name=name, go_backwards=True)
        self.backward_layer = backward_layer
        self._check_match()
        for one in (self.forward_layer, self.backward_layer):
            if getattr(one, "zero_output_for_mask", None) is not None:
                one.zero_output_for_mask = one.return_sequences
        self.merge_mode = merge_mode
        self._first_weights = weights
        self.stateful = layer.stateful
        self.return_sequences = layer.return_sequences
        self.return_state = layer.return_state
        self.supports_masking = True
        self.input_spec = layer.input_spec

    def _check_match(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ArgumentError(
                f"Bidirectional got two layers with go_backwards={forward.go_backwards}",
                "layers that walk in opposite directions",
                f"set go_backwards={not forward.go_backwards} in backward_layer",
            )
        for name in _ALIKE:
            if getattr(forward, name) != getattr(backward, name):
                raise ArgumentError(
                    f"Bidirectional got layers with {name}={getattr(forward, name)} and {getattr(backward, name)}",
                    f"the same {name} in both",
                )

    def get_config(self) -> dict[str, Any]:
        """Both layers, and how they are merged."""
        found = {**super().get_config(), "layer": self.forward_layer, "backward_layer": self.backward_layer}
        found.pop("weights", None)
        return found

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer made from a config, with layers of its own inside."""
        return super().from_config(fresh(dict(config)))

    def build(self, sequences_shape: Any) -> None:
        """Build both layers."""
        build_inside(self, self.forward_layer, sequences_shape)
        build_inside(self, self.backward_layer, sequences_shape)
        if self._first_weights:
            half = len(self._first_weights) // 2
            self.forward_layer.set_weights(self._first_weights[:half])
            self.backward_layer.set_weights(self._first_weights[half:])
        self.built = True

    @property
    def states(self) -> tuple[Any, ...] | None:
        """The states kept between batches, forward and backward, or `None`."""
        forward, backward = self.forward_layer.states, self.backward_layer.states
        return (*forward, *backward) if forward and backward else None

    def reset_state(self) -> None:
        """Begin anew: set the states kept between batches to the initial ones.

        Raises:
            ArgumentError: if the layer keeps none.
        """
        if not self.stateful:
            raise ArgumentError(f"reset_state of {self.name!r}, which is not stateful", "a layer with stateful=True")
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """`reset_state`, by its other name."""
        self.reset_state()

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool | None = None) -> Any:
        """Run both layers and merge their outputs.

        Args:
            sequences: `(batch, time, features)`.
            initial_state: the forward layer's states, then the backward one's.
            mask: `(batch, time)`, true where a step counts.
            training: whether dropout works.

        Returns:
            the output, or a tuple of output(s) and states.

        Raises:
            ShapeError: if the initial states cannot be halved.
        """
        sequences = ops.drop_mask(sequences)
        halves: Any = (None, None)
        if initial_state is not None:
            many = len(initial_state) if isinstance(initial_state, (list, tuple)) else 1
            if many % 2 or many == 1:
                raise ShapeError(
                    f"{self.name!r} got an initial_state of {many} arrays",
                    "an even number: the forward layer's states, then the backward one's",
                )
            halves = initial_state[: many // 2], initial_state[many // 2 :]
        forward = self._one(self.forward_layer, sequences, halves[0], mask, training)
        backward = self._one(self.backward_layer, sequences, halves[1], mask, training)
        states: tuple[Any, ...] = ()
        if self.return_state:
            states = (*forward[1:], *backward[1:])
            forward, backward = forward[0], backward[0]
        forward, backward = (ops.cast(ops.drop_mask(y), self.compute_dtype) for y in (forward, backward))
        if self.return_sequences:
            # The one that walks from the end gives its outputs in that order.
            if self.backward_layer.go_backwards:
                backward = ops.flip(backward, axis=1)
            else:
                forward = ops.flip(forward, axis=1)
        merged = self._merged(forward, backward)
        return merged[0] if len(merged) == 1 and not states else (*merged, *states)

    def _one(self, layer: Any, sequences: Any, initial_state: Any, mask: Any, training: Any) -> Any:
        signature = signature_of(type(layer))
        kwargs: dict[str, Any] = {"training": training} if signature.takes_training else {}
        if signature.takes_mask and mask is not None:
            kwargs["mask"] = mask
        if initial_state is not None:
            kwargs["initial_state"] = initial_state
        return layer(sequences, **kwargs)

    def _merged(self, forward: Any, backward: Any) -> tuple[Any, ...]:
        if self.merge_mode is None:
            return forward, backward
        if self.merge_mode == "concat":
            return (ops.concatenate([forward, backward], axis=-1),)
        if self.merge_mode == "mul":
            return (ops.multiply(forward, backward),)
        total = ops.add(forward, backward)
        return (total if self.merge_mode == "sum" else ops.divide(total, 2),)

    def compute_mask(self, sequences: Any, previous_mask: Any = None) -> Any:
        """The input's mask for each output with time steps; the states have none."""
        mask = tree.leaves(previous_mask)[0] if self.return_sequences else None
        outputs = 2 if self.merge_mode is None else 1
        if outputs == 1 and not self.return_state:
            return mask
        found = [mask] * outputs
        if self.return_state:
            found += [None] * (2 * len(getattr(self.forward_layer, "state_size", ())))
        return found


def _made(layer: Layer, config: dict[str, Any], **changed: Any) -> Any:
    """A new layer from another's config, with some values changed and its `use_cudnn` kept."""
    made = type(layer).from_config({**fresh(config), **changed})
    if hasattr(layer, "use_cudnn"):
        made.use_cudnn = layer.use_cudnn  # type: ignore[attr-defined]
    return made


# ---------------------------------------------------------------- one layer at every time step

# House layers that treat each row of the batch by itself and keep no state: time can be folded into the batch.
_RANKS = (1, 2, 3)
_BY_ROW = {
    "Activation", "Dense", "ELU", "Embedding", "Flatten", "InputLayer", "LeakyReLU", "PReLU", "Permute", "ReLU",
    "RepeatVector", "Rescaling", "Reshape",
    *(f"{kind}Conv{n}D" for kind in ("", "Depthwise", "Separable") for n in _RANKS),
    *(f"Conv{n}DTranspose" for n in _RANKS),
    *(f"{kind}Pooling{n}D" for kind in ("Average", "Max", "GlobalAverage", "GlobalMax") for n in _RANKS),
    *(f"{kind}{n}D" for kind in ("Cropping", "UpSampling", "ZeroPadding") for n in _RANKS),
}  # fmt: skip


def _by_row(layer: Any) -> bool:
    """Whether a layer gives each row of a batch the same whatever the other rows are."""
    cls = type(layer)
    if cls.__name__ == "Sequential" and cls.__module__.startswith("cornu.models."):
        graph = layer._function
        fixed = graph is not None and any(is_known(tensor.shape[0]) for tensor in graph.flat_inputs)
        return not fixed and layer.activity_regularizer is None and all(map(_by_row, layer.layers))
    house = cls.__module__.startswith("cornu.layers.") and cls.__name__ in _BY_ROW
    if not house or layer.activity_regularizer is not None or _fixed_batch(layer):
        return False
    activation = getattr(layer, "activation", None)
    return activation is None or getattr(activations, getattr(activation, "__name__", ""), None) is activation


def _fixed_batch(layer: Any) -> bool:
    shape = getattr(layer, "batch_shape", None) or getattr(layer, "_batch_shape", None)
    return shape is not None and len(shape) > 0 and isinstance(shape[0], int)


class TimeDistributed(Wrapper):
    """A layer at every time step, with the same weights.

    Args:
        layer: the layer, for inputs `(batch, ...)`.

    Input `(batch, time, ...)`, output `(batch, time, ...)` with what the layer gives for one step.

    The steps are walked one after the other, so that a layer which looks at the whole batch (batch normalization in
    training) sees one step at a time. Layers that treat each row by itself (dense, convolution, pooling ...) are called
    once, with time folded into the batch.

    Raises:
        ArgumentError: if `layer` is no layer.

    Example:
        >>> import cornu
        >>> TimeDistributed(cornu.layers.Dense(8))(cornu.Input((None, 5))).shape
        (None, None, 8)
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = True
        self.input_spec = InputSpec(min_ndim=3)

    def build(self, input_shape: Any = None) -> None:
        """Build the layer, for the shape of one step."""
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) < 3:
            raise ShapeError(f"TimeDistributed got an input of shape {input_shape}", "shape (batch, time, ...)")
        batch = None if _by_row(self.layer) else input_shape[0]
        super().build((batch, *input_shape[2:]))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Call the layer at every step.

        Args:
            inputs: `(batch, time, ...)`.
            training: handed to the layer if it asks for it.
            mask: `(batch, time)` or `(batch, time, ...)`; a step's part is handed to the layer if it asks for it.

        Returns:
            what the layer gives, with a time axis after the batch.

        Raises:
            ShapeError: if the mask does not fit the input.
        """
        batch, time = ops.shape(inputs)[:2]
        self._check_mask(mask, batch, time)
        signature = signature_of(type(self.layer))
        kwargs = {"training": training} if signature.takes_training else {}
        inputs = ops.drop_mask(inputs)
        mask = ops.drop_mask(mask) if mask is not None and signature.takes_mask else None
        if _by_row(self.layer):
            folded = {} if mask is None else {"mask": _folded(mask)}
            outputs = self.layer(_folded(inputs), **folded, **kwargs)
            return tree.map_structure(lambda y: ops.reshape(y, (batch, time, *ops.shape(y)[1:])), outputs)

        def step(carry: Any, x: Any) -> Any:
            x, part = x
            return carry, self.layer(x, **({} if mask is None else {"mask": part}), **kwargs)

        xs = (swapped(inputs), () if mask is None else swapped(mask))
        _, outputs = walk(self, self.layer, step, (), xs, time, training=bool(training))
        return tree.map_structure(swapped, outputs)

    def _check_mask(self, mask: Any, batch: Any, time: Any) -> None:
        if mask is None:
            return
        shape = shape_of(mask)
        if len(shape) < 2:
            raise ShapeError(f"{self.name!r} got a mask of shape {shape_text(shape)}", shape_text((batch, time)))
        require_equal(shape[0], batch, f"the batch of the mask and of the input of {self.name!r}")
        require_equal(shape[1], time, f"the time steps of the mask and of the input of {self.name!r}")


def _folded(x: Any) -> Any:
    """`(batch, time, ...)` as `(batch * time, ...)`."""
    batch, time, *rest = ops.shape(x)
    return ops.reshape(x, (batch * time, *rest))
