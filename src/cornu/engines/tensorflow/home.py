"""`tf.Variable`s in which variables live while a user's own `tf.GradientTape` or `tf.function` reads them."""

from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import config as autograph
from tensorflow.python.eager import record

from cornu.core.variable import Variable

__all__ = ["TensorflowHome", "home_of", "tape_is_active"]

# TensorFlow has no public way to ask.
tape_is_active = record.could_possibly_record
# AutoGraph is to leave this library's own code alone, which makes no decisions on tensors.
autograph.CONVERSION_RULES = (autograph.DoNotConvert("cornu"), *autograph.CONVERSION_RULES)


class TensorflowHome:
    """A `tf.Variable` that holds a variable's value.

    Args:
        engine: the TensorFlow engine.
        variable: the variable, whose value moves in.

    Attributes:
        engine: the engine.
        native: the `tf.Variable`.
    """

    def __init__(self, engine: Any, variable: Variable) -> None:
        self.engine = engine
        with tf.init_scope():
            value = engine.from_any(variable.stored())
            self.native = tf.Variable(value, trainable=variable.trainable, dtype=value.dtype)

    def read(self, variable: Variable) -> Any:
        """The value, which no tape follows."""
        return tf.stop_gradient(self.native.read_value())

    def look(self, variable: Variable) -> Any:
        """The value, as `read`."""
        return self.read(variable)

    def tracked(self) -> Any:
        """The value as tapes follow it."""
        return tf.convert_to_tensor(self.native)

    def write(self, variable: Variable, value: Any) -> None:
        """Replace the value."""
        self.native.assign(self.engine.own(value, variable.dtype))

    def is_shared(self) -> bool:
        """Always: compiled functions hold the variable without a word."""
        return True


def home_of(engine: Any, variable: Variable, always: bool) -> TensorflowHome | None:
    """A home for a variable read here and now: one that a tape should follow, or that a graph may assign."""
    if variable.home is not None and variable.home.engine is engine:
        return variable.home  # type: ignore[return-value]
    wanted = always or engine.is_compiling() or (variable.trainable and tape_is_active())
    return TensorflowHome(engine, variable) if wanted else None
