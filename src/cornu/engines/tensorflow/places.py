"""State that steps update where it lies: `tf.Variable`s, whose handles a traced function takes as arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from cornu.ops.updates import adam_update as _adam

__all__ = ["TABLE", "Places", "handle_of", "is_place", "reading"]

_EAGER = tf.__internal__.EagerTensor


def is_place(value: Any) -> bool:
    """Whether a value is a `tf.Variable`."""
    kind = type(value)
    return kind is ResourceVariable or (kind is not _EAGER and isinstance(value, tf.Variable))  # which is slow


def handle_of(value: Any) -> Any:
    """What stands for a value among a traced function's arguments."""
    return value.handle if is_place(value) else value


class Places:
    """The state of a function that is being traced.

    Args:
        arguments: the function's stand-ins: handles of places, and tensors.
        places: the places, `None` where there is a tensor.
    """

    def __init__(self, arguments: Any, places: list[Any]) -> None:
        self.graph = tf.compat.v1.get_default_graph()
        self.values = []
        self._handles: dict[int, tuple[Any, Any]] = {}
        self._updated: dict[int, Any] = {}
        for argument, place in zip(arguments, places, strict=True):
            if place is None:
                self.values.append(argument)
                continue
            value = tf.raw_ops.ReadVariableOp(resource=argument, dtype=place.dtype)
            value.set_shape(place.shape)
            self._handles[id(value)] = value, argument
            self.values.append(value)

    def handle(self, value: Any) -> Any:
        """The handle of the place that a value was read from, `None` if there is none, or it was written to since."""
        if tf.compat.v1.get_default_graph() is not self.graph:
            return None
        found = self._handles.get(id(value))
        return None if found is None else found[1]

    def updated(self, handle: Any, value: Any) -> Any:
        """The value that an update has put in the place of `value`."""
        new = tf.raw_ops.ReadVariableOp(resource=handle, dtype=value.dtype)
        new.set_shape(value.shape)
        del self._handles[id(value)]
        self._updated[id(new)] = new, handle
        return new

    def write(self, before: Any, after: Any, handle: Any) -> None:
        """Put a result in its place, if it is not there already."""
        if after is before:
            return
        known = self._updated.get(id(after))
        if known is None or known[1] is not handle:
            tf.raw_ops.AssignVariableOp(resource=handle, value=after)


_places: ContextVar[Places | None] = ContextVar("cornu_tensorflow_places", default=None)


@contextmanager
def reading(places: Places) -> Iterator[None]:
    """Let updates in this block write to where what they update was read from."""
    token = _places.set(places)
    try:
        yield
    finally:
        _places.reset(token)


def _adam_update(
    value: Any, gradient: Any, momentum: Any, velocity: Any, alpha: Any, beta_1: float, beta_2: float, epsilon: float
) -> Any:
    places, parts = _places.get(), (value, momentum, velocity)
    handles = [None if places is None else places.handle(part) for part in parts]
    alike = len({part.dtype for part in (*parts, gradient, alpha)}) == 1
    if places is None or None in handles or not alike or value.shape != gradient.shape:
        return _adam.body(value, gradient, momentum, velocity, alpha, beta_1, beta_2, epsilon)
    # The correction of the bias is in alpha.
    none = tf.zeros((), value.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=handles[0], m=handles[1], v=handles[2], beta1_power=none, beta2_power=none, lr=alpha,
        beta1=tf.constant(beta_1, value.dtype), beta2=tf.constant(beta_2, value.dtype),
        epsilon=tf.constant(epsilon, value.dtype), grad=gradient,
    )  # fmt: skip
    return tuple(places.updated(handle, part) for handle, part in zip(handles, parts, strict=True))


TABLE: dict[str, Callable[..., Any]] = {"adam_update": _adam_update}
