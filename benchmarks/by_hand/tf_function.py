"""Plain TensorFlow: variables, a `tf.function` for the step, `ResourceApplyAdam`."""

from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.contender import BETA1, BETA2, EPSILON, LEARNING_RATE, ByHand
from benchmarks.workload import Given, Workload

__all__ = ["TFFunction"]


def _classes(out: Any, y: Any) -> Any:
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, out)
    hit = tf.equal(tf.argmax(out, -1, tf.int32), y)
    return tf.reduce_mean(loss), tf.reduce_mean(tf.cast(hit, tf.float32))


def _yes_no(out: Any, y: Any) -> Any:
    loss = tf.nn.sigmoid_cross_entropy_with_logits(y, out)
    hit = tf.equal(out > 0, y > 0.5)
    return tf.reduce_mean(loss), tf.reduce_mean(tf.cast(hit, tf.float32))


def _squares(out: Any, y: Any) -> Any:
    return tf.reduce_mean(tf.math.squared_difference(out, y)), tf.reduce_mean(tf.abs(out - y))


LOSSES = {"classes": _classes, "yes_no": _yes_no, "squares": _squares}


class TFFunction(ByHand):
    """A workload in plain TensorFlow."""

    def __init__(self, workload: Workload, given: Given) -> None:
        super().__init__(workload, given)
        score, net = LOSSES[workload.loss], workload.tensorflow
        self.weights = weights = [tf.Variable(w, trainable=t) for w, t in zip(given.weights, given.trained)]
        trained = [w for w in weights if w.trainable]
        still = [w for w in weights if not w.trainable]
        moments = [[tf.Variable(tf.zeros_like(w)) for w in trained] for _ in range(2)]
        power1, power2 = tf.Variable(BETA1), tf.Variable(BETA2)
        self.total = total = tf.Variable(tf.zeros(2))

        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                out, moved = net(weights, x, True)
                loss, metric = score(out, y)
            for w, g, m, v in zip(trained, tape.gradient(loss, trained), *moments):
                tf.raw_ops.ResourceApplyAdam(
                    var=w.handle, m=m.handle, v=v.handle, beta1_power=power1, beta2_power=power2, lr=LEARNING_RATE,
                    beta1=BETA1, beta2=BETA2, epsilon=EPSILON, grad=tf.convert_to_tensor(g),
                )  # fmt: skip
            power1.assign(power1 * BETA1)
            power2.assign(power2 * BETA2)
            for w, value in zip(still, moved):
                w.assign(value)
            total.assign_add(tf.stack([loss, metric]))
            return loss

        x, y = given.x, given.y
        shapes = tf.nest.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), (x, y))
        self._step = tf.function(step, input_signature=shapes)
        self._eager = lambda x: net(weights, x, False)[0]
        self._forward = tf.function(self._eager, input_signature=shapes[:1])

    def run(self, x: Any, y: Any) -> Any:
        return self._step(self.native(x), tf.constant(y))

    def forward(self, x: Any) -> np.ndarray:
        return self._forward(self.native(x)).numpy()

    def begin(self) -> None:
        self.total.assign(tf.zeros(2))

    def sums(self) -> tuple[float, float]:
        loss, metric = self.total.numpy()
        return float(loss), float(metric)

    def native(self, x: Any) -> Any:
        return {name: tf.constant(value) for name, value in x.items()} if isinstance(x, dict) else tf.constant(x)

    def eager(self, x: Any) -> None:
        self._eager(x)
