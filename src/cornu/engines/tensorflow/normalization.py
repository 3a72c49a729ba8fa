"""Batch normalisation by TensorFlow's own kernel."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cornu.ops._declare import operator

__all__ = ["TABLE"]


def _normalization_by_batch(x: Any, offset: Any, scale: Any, axis: int, epsilon: float) -> Any:
    rank, channels = x.shape.rank, x.shape[-1]
    if x.dtype != tf.float32 or rank < 2 or axis not in (-1, rank - 1) or channels is None:
        return operator("normalization_by_batch").body(x, axis, offset, scale, epsilon)
    offset = tf.zeros(channels) if offset is None else offset
    scale = tf.ones(channels) if scale is None else scale
    rows = x if rank == 4 else tf.reshape(x, (-1, 1, 1, channels))
    none = tf.zeros((0,))
    found = tf.raw_ops.FusedBatchNormV3(x=rows, scale=scale, offset=offset, mean=none, variance=none, epsilon=epsilon)
    # Its variance is the unbiased one, and its gradient takes no notice of the statistics.
    count = tf.cast(tf.size(x) // channels, tf.float32)
    variance = tf.stop_gradient(found.batch_variance * ((count - 1) / count))
    y = found.y if rank == 4 else tf.reshape(found.y, tf.shape(x))
    return tf.ensure_shape(y, x.shape), tf.stop_gradient(found.batch_mean), variance


TABLE: dict[str, Callable[..., Any]] = {"normalization_by_batch": _normalization_by_batch}
