"""How an engine is chosen: by the call, the model, the block, the process, the environment; and none is imported unasked."""

import os
import subprocess
import sys

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers
from cornu.core.errors import EngineError
from cornu.engines import registry

LIBRARIES = ("jax", "tensorflow", "torch", "pytensor", "onnxruntime", "onnx")
X = np.ones((4, 3), "float32")


def network():
    x = Input((3,))
    return Model(x, layers.Dense(2)(x))


def run(code, **environment):
    given = {key: value for key, value in os.environ.items() if key not in ("CORNU_ENGINE", "KERAS_BACKEND")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**given, **environment}
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", registry.available())
def test_an_engine_not_asked_for_is_not_imported(name):
    code = (
        "import sys, numpy as np, cornu\n"
        "from cornu import Input, Model, layers\n"
        f"x = Input((3,)); m = Model(x, layers.Dense(2)(x)); m.compile('adam', 'mse', engine={name!r})\n"
        "m.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0); m.predict(np.ones((4, 3)), verbose=0)\n"
        f"print(*[library for library in {LIBRARIES!r} if library in sys.modules])"
    )
    # TensorFlow itself imports JAX where that is installed (tensorflow/lite/python/util.py).
    with_it = {"onnxruntime": {"onnx"}, "pytensor": {"jax"}, "tensorflow": {"jax"}}.get(name, set())
    assert set(run(code).split()) <= {name, *with_it}


def test_the_environment():
    code = "import cornu; print(cornu.config.backend())"
    assert run(code) == "jax"
    assert run(code, KERAS_BACKEND="numpy") == "numpy"
    assert run(code, KERAS_BACKEND="numpy", CORNU_ENGINE="jax") == "jax"
    assert run(code, KERAS_BACKEND="openvino") == "jax"  # a backend of Keras that is no engine of ours
    assert run("import cornu; cornu.set_engine('numpy'); print(cornu.config.backend())", CORNU_ENGINE="jax") == "numpy"


def engine_of(model, **given):
    """The engine on which a model predicts, seen by a layer in it."""
    seen = []

    class See(layers.Layer):
        def call(self, x):
            seen.append(cornu.core.context.engine_in_force().name)
            return x

    x = Input((3,))
    watched = Model(x, See()(model(x)))
    if model._compile_engine is not None:
        watched.compile("sgd", "mse", engine=model._compile_engine)
    seen.clear()
    watched.predict(X, verbose=0, **given)
    return seen[-1]


def test_who_decides():
    model = network()
    assert engine_of(model, engine="numpy") == "numpy"
    with cornu.engine("numpy"):
        assert engine_of(model) == "numpy"
        assert engine_of(model, engine="jax") == "jax"
    model.compile("sgd", "mse", engine="numpy")
    assert engine_of(model) == "numpy"
    with cornu.engine("jax"):
        assert engine_of(model) == "numpy"
        assert engine_of(model, engine="jax") == "jax"


def test_a_call_of_a_layer_names_its_engine():
    layer = layers.Dense(2)
    assert isinstance(layer(X, engine="numpy"), np.ndarray)
    assert registry.get("jax").owns(type(layer(X, engine="jax")))
    with cornu.engine("numpy"):
        assert isinstance(layer(registry.get("jax").from_host(X)), np.ndarray)


def test_theano_says_what_it_is(capsys):
    if "pytensor" not in registry.available():
        pytest.skip("needs PyTensor")
    registry._said.clear()
    assert registry.get("theano").name == "pytensor"
    assert "PyTensor, Theano's living successor" in capsys.readouterr().err
    registry.get("theano")
    assert capsys.readouterr().err == ""  # once
    assert registry.get("tf").name == "tensorflow" and registry.get("onnx").name == "onnxruntime"


def test_a_misspelt_engine():
    for call in (
        lambda: network().predict(X, engine="tensorfow"),
        lambda: cornu.set_engine("tensorfow"),
        lambda: layers.Dense(1)(X, engine="tensorfow"),
    ):
        with pytest.raises(EngineError, match="did you mean 'tensorflow'"):
            call()
