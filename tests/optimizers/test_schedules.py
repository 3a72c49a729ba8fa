"""Schedules: Keras's values and configs, on both engines and inside a compiled step."""

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops, optimizers
from cornu.core import context
from cornu.core.errors import ArgumentError
from cornu.core.spec import Spec
from cornu.optimizers import schedules

STEPS = [0, 1, 3, 5, 9, 10, 11, 14, 20, 29, 31, 50, 300]
CASES = [
    ("ExponentialDecay", (0.1, 10, 0.5), {}),
    ("ExponentialDecay", (0.1, 10, 0.5), {"staircase": True}),
    ("InverseTimeDecay", (0.1, 10, 0.5), {}),
    ("InverseTimeDecay", (0.1, 10, 0.5), {"staircase": True}),
    ("PiecewiseConstantDecay", ([5, 10, 30], [1.0, 0.5, 0.25, 0.1]), {}),
    ("PolynomialDecay", (0.1, 10), {"power": 2.0}),
    ("PolynomialDecay", (0.1, 10), {"cycle": True, "end_learning_rate": 0.01}),
    ("CosineDecay", (0.1, 20), {"alpha": 0.1}),
    ("CosineDecay", (0.0, 20), {"warmup_target": 0.3, "warmup_steps": 10}),
    ("CosineDecay", (0.1, 20), {"warmup_target": 0.3}),
    ("CosineDecayRestarts", (0.1, 7), {}),
    ("CosineDecayRestarts", (0.1, 7), {"t_mul": 1.0, "m_mul": 0.8, "alpha": 0.1}),
    ("CosineDecayRestarts", (0.1, 7), {"t_mul": 1.5, "m_mul": 0.8}),
]


@pytest.mark.parametrize(("name", "args", "options"), CASES)
def test_values_and_configs_are_those_of_keras(engine, name, args, options):
    ours = getattr(schedules, name)(*args, **options)
    theirs = getattr(keras.optimizers.schedules, name)(*args, **options)
    config = keras.optimizers.schedules.serialize(theirs)
    assert schedules.serialize(ours) == config
    again = schedules.deserialize(config)
    expected = jax.vmap(theirs)(jax.numpy.asarray(STEPS))
    np.testing.assert_allclose(again(np.asarray(STEPS, "int32")), expected, rtol=1e-5, atol=1e-6)
    assert ops.dtype(ours(ops.convert_to_tensor(3))) == "float32"
    with context.abstract():
        assert ours(Spec((), "int32")).key == ((), "float32")


def test_in_a_compiled_function():
    schedule = schedules.CosineDecay(0.0, 20, warmup_target=0.3, warmup_steps=10)
    with cornu.engine("jax") as engine:
        assert float(engine.compile(schedule)(ops.convert_to_tensor(5))) == pytest.approx(0.15)


class Halving(schedules.LearningRateSchedule):
    def __call__(self, step):
        return ops.power(0.5, ops.cast(step, "float32"))


def test_own_schedule():
    config = optimizers.serialize(optimizers.SGD(Halving()))
    again = optimizers.deserialize(config)
    assert float(again.learning_rate) == 1.0 and isinstance(again.get_config()["learning_rate"], Halving)


def test_wrong_arguments():
    for name in ("ExponentialDecay", "InverseTimeDecay"):
        with pytest.raises(ArgumentError, match="decay_steps=0"):
            getattr(schedules, name)(0.1, 0, 0.5)
    with pytest.raises(ArgumentError, match="one value more"):
        schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2])
    with pytest.raises(ArgumentError, match="rising"):
        schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3])
