"""`cornu.regularizers` and `cornu.constraints`: Keras's values, names and configs, on both engines."""

import keras
import numpy as np
import pytest

from cornu import constraints, ops, regularizers
from cornu.core import context
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.spec import Spec

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32") * 2
CASES = [
    (regularizers, "L1", {"l1": 0.3}),
    (regularizers, "L2", {"l2": 0.3}),
    (regularizers, "L1L2", {"l1": 0.3, "l2": 0.2}),
    (regularizers, "L1L2", {}),
    (regularizers, "OrthogonalRegularizer", {"factor": 0.5}),
    (regularizers, "OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}),
    (constraints, "MaxNorm", {"max_value": 1.5}),
    (constraints, "MaxNorm", {"max_value": 2, "axis": [0, 1]}),
    (constraints, "NonNeg", {}),
    (constraints, "UnitNorm", {"axis": 1}),
    (constraints, "MinMaxNorm", {"min_value": 2.5, "max_value": 3.0, "rate": 0.7}),
]


@pytest.mark.parametrize(("module", "name", "options"), CASES)
def test_values_and_configs_are_those_of_keras(engine, module, name, options):
    family = getattr(keras, module.__name__.rpartition(".")[2])
    theirs, ours = getattr(family, name)(**options), getattr(module, name)(**options)
    expected = np.asarray(theirs(keras.ops.convert_to_tensor(X)))
    np.testing.assert_allclose(ops.convert_to_numpy(ours(ops.convert_to_tensor(X))), expected, rtol=1e-5, atol=1e-6)
    assert ours(ops.convert_to_tensor(X.astype("float16"))).dtype == "float16"
    config = family.serialize(theirs)
    close = {key: pytest.approx(v) if isinstance(v, float) else v for key, v in config["config"].items()}
    assert module.serialize(ours) == {**config, "config": close}
    assert module.deserialize(config).get_config() == close
    with context.abstract():
        spec = ours(Spec((Dim("rows"), 3), "float32"))
        assert spec.ndim == expected.ndim and spec.dtype == "float32"


@pytest.mark.parametrize("module", [regularizers, constraints])
def test_get(module):
    for name in module.FAMILY.names:
        assert type(module.get(name)) is module.FAMILY.names[name]
    assert module.get(None) is None and module.get(abs) is abs
    for wrong in ("nothing", 3):
        with pytest.raises(ArgumentError):
            module.get(wrong)


def test_names():
    assert regularizers.get("l1_l2") and regularizers.get("l2").l2 == 0.01 and regularizers.l1(0.2).l1 == 0.2
    assert constraints.get({"class_name": "max_norm", "config": {"max_value": 3}}).max_value == 3
    assert regularizers.L1(l1=None).l1 == 0.01


def test_wrong_arguments():
    for wrong in (-1.0, float("nan"), float("inf"), "a"):
        with pytest.raises(ArgumentError, match="l2="):
            regularizers.L2(wrong)
    with pytest.raises(ArgumentError, match="mode"):
        regularizers.OrthogonalRegularizer(mode="both")
    with pytest.raises(ShapeError, match="matrix"):
        regularizers.OrthogonalRegularizer()(np.ones(3, "float32"))
