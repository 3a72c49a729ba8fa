"""`activations` against Keras, and names in and out."""

import keras
import numpy as np
import pytest

import cornu
from cornu import activations, ops
from cornu.autodiff import value_and_grad
from cornu.core import registry
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError, SavingError
from cornu.core.variable import Variable

X = np.array([[-9.3, -2.6, -1.4, -0.7, -0.2], [0.3, 0.8, 1.7, 3.4, 8.1]], "float32").T.copy()
# Keras's sparsemax takes a wrong threshold (see tests/ops/test_nn.py).
NAMES = sorted(set(activations.__all__) - {"get", "serialize", "deserialize", "threshold", "sparsemax"})
CASES = [(name, {}) for name in NAMES] + [
    ("relu", {"negative_slope": 0.5}), ("relu", {"max_value": 3.0}), ("relu", {"max_value": 6}),
    ("relu", {"threshold": 1.0}), ("relu", {"threshold": 1.0, "max_value": 5.0, "negative_slope": 0.2}),
    ("relu", {"negative_slope": 0.5, "max_value": 3.0}), ("relu", {"threshold": -1.0}), ("gelu", {"approximate": True}),
    ("relu", {"threshold": -1.0, "max_value": 2.0}), ("softmax", {"axis": 0}), ("leaky_relu", {"negative_slope": 0.4}),
    ("threshold", {"threshold": 0.5, "default_value": 7.0}), ("elu", {"alpha": 0.4}),
]  # fmt: skip


@pytest.mark.parametrize("name, options", CASES)
def test_values_are_those_of_keras(engine, name, options):
    want = np.asarray(getattr(keras.activations, name)(X, **options))
    got = ops.convert_to_numpy(getattr(activations, name)(X, **options))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)
    assert got.dtype == want.dtype


def test_the_names_are_those_of_keras():
    missing = {name for name in dir(keras.activations) if not name.startswith("_")} - set(activations.__all__)
    assert not missing
    for name in set(activations.__all__) - {"get", "serialize", "deserialize", "swish", "hard_swish"}:
        function = getattr(activations, name)
        assert function.__name__ == name
        assert activations.get(name) is function and activations.get(activations.serialize(function)) is function
    assert activations.serialize(activations.swish) == keras.activations.serialize(keras.activations.swish) == "silu"


@pytest.mark.parametrize("options, slopes", [
    ({"negative_slope": 0.2, "threshold": 1.0, "max_value": 5.0}, [0.2, 0.2, 1, 0]), ({}, [0, 1, 1, 1]),
])  # fmt: skip
def test_gradients_of_relu(engine, options, slopes):
    x = Variable(np.array([-300.0, 0.5, 2.0, 300.0], "float32"))
    _, g = value_and_grad(lambda: ops.sum(activations.relu(x, **options)), x)()
    np.testing.assert_allclose(ops.convert_to_numpy(g), slopes, rtol=1e-6)


@registry.register("shop")
def doubled(x):
    return ops.multiply(x, 2)


class Scaled(Configurable):
    def __init__(self, by=2.0):
        self.by = by

    def __call__(self, x):
        return ops.multiply(x, self.by)


def test_get():
    def mine(x):
        return x

    assert activations.get(None) is activations.linear
    assert activations.get(mine) is mine and activations.get(cornu.ops.relu) is cornu.ops.relu
    assert activations.get("shop>doubled") is doubled
    hints = ("rleu", "did you mean 'relu'"), ("get", "one of"), (3, "a name"), ({"class_name": "X"}, "'X'")
    for wrong, hint in hints:
        with pytest.raises(ArgumentError, match=hint):
            activations.get(wrong)


def test_configs_of_your_own():
    config = activations.serialize(doubled)
    keras_form = {"module": "builtins", "class_name": "function", "registered_name": "function"}
    assert config == {**keras_form, "config": "shop>doubled"}
    assert activations.deserialize(config) is doubled

    def mine(x):
        return x

    config = activations.serialize(mine)
    assert activations.deserialize(config, {"mine": mine}) is mine
    with pytest.raises(ArgumentError, match="'mine' is not known"):
        activations.deserialize(config)
    again = activations.deserialize(activations.serialize(Scaled(3.0)))
    assert isinstance(again, Scaled) and again.by == 3.0
    assert activations.get(activations.serialize(cornu.ops.relu6)) is activations.relu6
    # As an op gelu is the approximation, as an activation it is not: the name alone would change the numbers.
    for refused in (cornu.ops.gelu, cornu.ops.exp, lambda x: x):
        with pytest.raises(SavingError):
            activations.serialize(refused)
