"""Activations for which TensorFlow has a faster kernel than their composition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cornu.engines.tensorflow.gradients import custom_gradient
from cornu.engines.tensorflow.loops import under_xla
from cornu.ops._declare import operator

__all__ = ["TABLE"]


def _softmax(x: Any, axis: Any) -> Any:
    rank = x.shape.rank
    kernel = x.dtype in (tf.float32, tf.float64) and not under_xla.get()  # XLA makes one of its own
    if not kernel or not rank or axis not in (-1, rank - 1) or not x.shape[-1]:
        return operator("softmax").body(x, axis)
    result: list[Any] = []

    @custom_gradient
    def compute(x: Any) -> Any:
        # oneDNN's kernel gives NaN for some elements only of a row that has one, or an infinity.
        plain = tf.reduce_max(x) < tf.constant(np.inf, x.dtype)
        y = tf.cond(plain, lambda: tf.nn.softmax(x), lambda: operator("softmax").body(x, -1))

        def backward(g: Any) -> Any:
            y = result[0]
            return (g - tf.reduce_sum(g * y, -1, keepdims=True)) * y

        return y, backward

    result.append(compute(x))
    return result[0]


def _leaky_relu(x: Any, negative_slope: Any) -> Any:
    if x.dtype != tf.float32 or under_xla.get():  # its slope is a float32
        return operator("leaky_relu").body(x, negative_slope)

    @custom_gradient
    def compute(x: Any) -> Any:
        # TensorFlow's own gradient takes the other slope at 0.
        right = tf.greater_equal(x, tf.zeros((), x.dtype))
        return tf.nn.leaky_relu(x, negative_slope), lambda g: tf.where(right, g, g * negative_slope)

    return compute(x)


TABLE: dict[str, Callable[..., Any]] = {"leaky_relu": _leaky_relu, "softmax": _softmax}
