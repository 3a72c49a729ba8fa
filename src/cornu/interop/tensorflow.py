"""A Cornu layer or model as a `tf.Module`, for `tf.saved_model.save`, checkpoints and TensorFlow's own loops."""

import cornu.engines.tensorflow.library  # noqa: F401  # isort: skip

from typing import Any

import tensorflow as tf

from cornu.core.dims import keras_shape
from cornu.core.errors import BuildError
from cornu.engines import registry
from cornu.layers.base import Layer

__all__ = ["Module"]


class Module(tf.Module):
    """A Cornu layer as a TensorFlow module: its weights live in `tf.Variable`s that the module tracks.

    What is done to the variables the layer sees, on every engine, and the other way round.

    Args:
        layer: a layer or model whose weights are made.
        name: the module's name, by default the layer's.

    Attributes:
        weights: the `tf.Variable`s, in the order of the layer's variables.
        serve: for a model with a graph: inference as a `tf.function` with the model's inputs as its signature, unknown
            sizes free; `tf.saved_model.save` keeps it.

    Raises:
        BuildError: if the weights are not made yet.
    """

    def __init__(self, layer: Layer, name: str | None = None) -> None:
        super().__init__(name=(name or layer.name).replace("/", "_"))
        if not layer.built:
            raise BuildError(
                f"interop.tensorflow.Module got the layer {layer.name!r}, whose weights are not made yet",
                "a layer that has been called, or a model made from Input(...)",
                f"{layer.name}.build(input_shape) first",
            )
        self._layer = layer
        engine = registry.get("tensorflow")
        self.weights: list[tf.Variable] = []
        for variable in layer.variables:
            home: Any = variable.find_home(engine, always=True)
            self.weights.append(home.native)
        function = getattr(layer, "_function", None)
        if function is not None:
            specs = [
                tf.TensorSpec(keras_shape(tensor.shape), tensor.dtype, name=tensor.name)
                for tensor in function.flat_inputs
            ]
            names = [tensor.name for tensor in function.flat_inputs]
            self.serve = tf.function(
                lambda *values: self(dict(zip(names, values, strict=True)), training=False),
                input_signature=specs,
                autograph=False,
            )

    @property
    def layer(self) -> Layer:
        """The layer."""
        return self._layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer on TensorFlow."""
        with registry.engine("tensorflow"):
            return self._layer(*args, **kwargs)
