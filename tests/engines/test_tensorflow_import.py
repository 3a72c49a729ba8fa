"""TensorFlow is imported without Keras, which it would load too; `tf.keras` is there for who asks."""

import importlib.util
import subprocess
import sys
import threading

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("keras")

WITHOUT = """
import sys
import cornu
with cornu.engine("tensorflow"):
    cornu.ops.ones(2)
assert "tensorflow" in sys.modules and not {"keras", "pandas", "sklearn"} & {*sys.modules}
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("cornu")]
import tensorflow as tf
assert tf.keras.layers.Dense(2)(tf.ones((1, 3))).shape == (1, 2)
assert tf.optimizers.Adam is sys.modules["keras"].optimizers.Adam
"""
WITH = """
import keras
import cornu.interop.tensorflow
import tensorflow as tf
assert tf.keras.layers.Dense is keras.layers.Dense
"""


@pytest.mark.parametrize("code", [WITHOUT, WITH], ids=["without", "with"])
def test_keras_is_loaded_for_who_asks(code):
    done = subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_threads_may_load_keras_meanwhile():
    from cornu.engines.tensorflow import library

    finder = library._WithoutKeras()
    here = finder.find_spec("keras", None)
    assert here.origin == importlib.util.find_spec("keras").origin  # TensorFlow asks where it is
    with pytest.raises(ImportError, match="keras is left out"):
        here.loader.exec_module(importlib.util.module_from_spec(here))
    found = [...]
    thread = threading.Thread(target=lambda: found.append(finder.find_spec("keras", None)))
    thread.start()
    thread.join()
    assert found == [..., None]
    assert finder.find_spec("pandas", None) is None
