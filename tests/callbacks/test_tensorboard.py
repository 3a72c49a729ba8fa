"""TensorBoard logs: written without TensorFlow, under Keras's tags in Keras's folders."""

import glob
import os
import subprocess
import sys

import numpy as np
import pytest

import cornu

pytest.importorskip("tensorboardX")
tf = pytest.importorskip("tensorflow")

X = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
GIVEN = {"histogram_freq": 1, "update_freq": "batch", "write_graph": True}


def tags(folder):
    found = {}
    for path in glob.glob(os.path.join(folder, "*", "*tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(path):
            for value in event.summary.value:
                key = (os.path.basename(os.path.dirname(path)), value.tag)
                found.setdefault(key, []).append((event.step, value))
    return found


def train(library, folder):
    x = library.Input((5,))
    model = library.Model(x, library.layers.Dense(3, name="head")(x))
    model.compile(library.optimizers.Adam(0.01), "mse", metrics=["mae"])
    callback = library.callbacks.TensorBoard(str(folder), **GIVEN)
    model.fit(X, X[:, :3], batch_size=16, epochs=2, verbose=0, validation_data=(X, X[:, :3]), callbacks=[callback])
    return model


@pytest.mark.filterwarnings("ignore")
def test_tags_and_steps_are_those_of_keras(tmp_path):
    import keras

    train(cornu, tmp_path / "ours")
    train(keras, tmp_path / "theirs")
    ours, theirs = tags(tmp_path / "ours"), tags(tmp_path / "theirs")
    missing = {key for key in theirs if key not in ours and "image" not in key[1]}
    assert not missing
    for key, rows in theirs.items():
        assert sorted(step for step, _ in rows) == sorted(step for step, _ in ours[key]), key


def test_values_are_those_of_the_history(tmp_path):
    model = train(cornu, tmp_path)
    found = tags(tmp_path)
    written = [value.simple_value for _, value in found["train", "epoch_loss"]]
    np.testing.assert_allclose(written, model.history.history["loss"], rtol=1e-6)
    written = [value.simple_value for _, value in found["validation", "epoch_mae"]]
    np.testing.assert_allclose(written, model.history.history["val_mae"], rtol=1e-6)
    assert [value.simple_value for _, value in found["train", "epoch_learning_rate"]] == pytest.approx([0.01, 0.01])
    assert len(found["train", "head/kernel/histogram"]) == 2


def test_written_without_tensorflow(tmp_path):
    code = (
        "import sys, numpy as np, cornu; sys.modules['tensorflow'] = None\n"
        "from cornu import Input, Model, layers\n"
        "x = Input((3,)); m = Model(x, layers.Dense(1)(x)); m.compile('sgd', 'mse')\n"
        f"m.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, engine='numpy', callbacks=[cornu.callbacks.TensorBoard({str(tmp_path)!r})])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ("train", "epoch_loss") in tags(tmp_path)


def test_what_it_does_not_do_is_said():
    with pytest.raises(cornu.errors.UnsupportedError, match="profile_batch"):
        cornu.callbacks.TensorBoard("logs", profile_batch=2)
    with pytest.raises(cornu.errors.ArgumentError, match="update_freq='often'"):
        cornu.callbacks.TensorBoard("logs", update_freq="often")
