"""Keras 3's files: those it wrote give its outputs here, and those written here give ours there."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import CornuError, SavingError, UnsupportedError
from cornu.saving import state

DATA = Path(__file__).parent.parent / "data" / "formats"
RNG = np.random.default_rng(0)
FLAT, IMAGE, SERIES = (RNG.normal(size=s).astype("float32") for s in ((4, 5), (2, 8, 8, 3), (3, 6, 4)))
IDS = RNG.integers(1, 9, (3, 6)).astype("int32")

# ---------------------------------------------------------------- Keras's files, here


@pytest.mark.parametrize(
    "name",
    [
        "seq_small",
        "multi_io",
        "text_rnn",
        "portable_seq_small",
        "old_keras_3.0.5",
        "old_keras_3.3.3",
        "old_keras_3.8.0",
    ],
)
def test_files_of_keras_give_its_outputs(name, engine):
    stored = np.load(DATA / f"{name.removeprefix('portable_')}.io.npz")
    inputs = {key[3:]: value for key, value in stored.items() if key.startswith("in_")}
    expected = {key[4:]: value for key, value in stored.items() if key.startswith("out_")}
    model = cornu.saving.load_model(DATA / f"{name}.keras")
    found = model.predict(inputs if len(inputs) > 1 else next(iter(inputs.values())), verbose=0)
    if not isinstance(found, dict):  # old files name their one output as a list of one
        found = dict(zip(expected, found if isinstance(found, list) else [found], strict=True))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6)


def test_compiled_state_comes_along():
    model = cornu.saving.load_model(DATA / "seq_small.keras")
    theirs = keras.saving.load_model(DATA / "seq_small.keras")
    assert int(model.optimizer.iterations) == int(theirs.optimizer.iterations) > 0
    assert cornu.saving.load_model(DATA / "seq_small.keras", compile=False).optimizer is None
    for ours, other in zip(model.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), np.asarray(other), rtol=1e-6)


def test_mixed_precision_file():
    model, theirs = (load(DATA / "mixed_bf16.keras") for load in (cornu.saving.load_model, keras.saving.load_model))
    x = RNG.normal(size=(4, *model.input_shape[1:])).astype("float32")
    assert [w.dtype for w in model.weights] == [str(w.dtype) for w in theirs.weights]
    assert [layer.compute_dtype for layer in model.layers] == [layer.compute_dtype for layer in theirs.layers]
    expected = np.asarray(theirs(x)).astype("float32")
    np.testing.assert_allclose(model.predict(x, verbose=0).astype("float32"), expected, rtol=0.02, atol=0.02)


@cornu.saving.register_keras_serializable("sample", "Scale")
class Scale(layers.Layer):
    """The layer of custom_assets.keras: a factor, a counter, and a note in a file."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.note = None

    def build(self, input_shape):
        self.g = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="g")
        self.steps = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="steps")

    def call(self, x):
        return x * self.g * self.factor

    def save_assets(self, dir_path):
        (Path(dir_path) / "note.txt").write_text(self.note or "none")

    def load_assets(self, dir_path):
        self.note = (Path(dir_path) / "note.txt").read_text()


def test_assets_travel(tmp_path):
    stored = np.load(DATA / "custom_assets.io.npz")
    model = cornu.saving.load_model(DATA / "custom_assets.keras")
    for source in (model, _again(model, tmp_path / "again.keras")):
        np.testing.assert_allclose(source.predict(stored["in_x"], verbose=0), stored["out_y"], rtol=1e-5, atol=1e-6)
        layer = next(layer for layer in source.layers if isinstance(layer, Scale))
        assert layer.note == model.layers[1].note and len(layer.note) == 11 and layer.steps.dtype == "int32"


def _again(model, path):
    model.save(path)
    return cornu.saving.load_model(path)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("lambda_unsafe", SavingError, "never runs"),
        ("int8_dense", UnsupportedError, "quantised"),
        ("lora_dense", UnsupportedError, "lora_rank"),
    ],
)
def test_files_that_are_refused(name, kind, words):
    with pytest.raises(kind, match=words):
        cornu.saving.load_model(DATA / f"{name}.keras")
    with pytest.raises(SavingError, match="never run"):
        cornu.saving.load_model(DATA / f"{name}.keras", safe_mode=False)


@pytest.mark.parametrize("name", ["seq_small", "multi_io"])
def test_weights_files_both_ways(name, tmp_path):
    ours = cornu.saving.load_model(DATA / f"{name}.keras")
    expected = ours.get_weights()
    ours.set_weights([w * 0 for w in expected])
    ours.load_weights(DATA / f"{name}.weights.h5")
    for a, b in zip(ours.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    ours.set_weights([w + 1 for w in expected])
    ours.save_weights(tmp_path / "w.weights.h5")
    theirs = keras.saving.load_model(DATA / f"{name}.keras")
    theirs.load_weights(tmp_path / "w.weights.h5")
    for a, b in zip(theirs.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b + 1)


# ---------------------------------------------------------------- our files, in Keras


def _functional():
    a, b = cornu.Input((5,), name="a"), cornu.Input((5,), name="b")
    shared = layers.Dense(4, activation="relu", name="shared")
    x = ops.concatenate([shared(a), shared(b) * 2.0], axis=-1)
    x = ops.relu(x - ops.mean(x, axis=-1, keepdims=True))
    y = ops.reshape(layers.Dense(6)(x), (-1, 2, 3))[:, 0]
    return cornu.Model({"a": a, "b": b}, {"y": y, "z": ops.sum(x, axis=1)}), {"a": FLAT, "b": FLAT * 0.5}


def _nested():
    inner = cornu.Sequential([cornu.Input((4,)), layers.Dense(3, activation="tanh"), layers.Dropout(0.3)], name="inner")
    start = cornu.Input((4,), name="p")
    block = cornu.Model(start, layers.add([start, layers.Dense(4)(start)]), name="block")
    x = cornu.Input((4,), name="q")
    return cornu.Model(x, inner(block(block(x)))), FLAT[:, :4]


def _sequential():
    stack = [
        cornu.Input((5,)),
        layers.Dense(3, kernel_regularizer="l2"),
        layers.LeakyReLU(0.2),
        layers.Dense(2, "softmax"),
    ]
    return cornu.Sequential(stack, name="stack"), FLAT


def _image():
    x = cornu.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.SeparableConv2D(3, 2)(layers.MaxPooling2D(2)(y))
    y = layers.Conv2DTranspose(2, 2, strides=2)(layers.ZeroPadding2D(1)(y))
    return cornu.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.UpSampling2D(2)(y)))), IMAGE


def _recurrent():
    x = cornu.Input((None, 4))
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    y = layers.LayerNormalization()(y + layers.MultiHeadAttention(2, 2)(y, y))
    y = layers.TimeDistributed(layers.Dense(3))(y)
    return cornu.Model(x, layers.GRU(2)(layers.SimpleRNN(3, return_sequences=True)(y))), SERIES


def _masked():
    x = cornu.Input((None,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    return cornu.Model(x, layers.Dense(2)(layers.LSTM(3)(layers.Dropout(0.1)(y)))), np.where(IDS > 6, 0, IDS).astype(
        "int32"
    )


MODELS = {f.__name__.strip("_"): f for f in (_functional, _nested, _sequential, _image, _recurrent, _masked)}


def _random_weights(model):
    # Positive, for the variances of batch normalisation.
    model.set_weights([RNG.uniform(0.1, 0.6, w.shape).astype(w.dtype) for w in model.get_weights()])


def _leaves(value):
    return [value[key] for key in sorted(value)] if isinstance(value, dict) else [value]


def test_paths_in_files_do_not_hang_on_where_lists_lie_in_memory():
    """A nested model's list of layers is made anew for each look; the next one may get the memory of the last."""
    model, _ = _nested()
    expected = [path for path, item in state.walk(model) if state.own_variables(item)]
    assert expected == ["layers/functional/layers/dense", "layers/sequential/layers/dense"]
    for _ in range(300):
        model, _ = _nested()
        assert [path for path, item in state.walk(model) if state.own_variables(item)] == expected


@pytest.mark.parametrize("name", MODELS)
def test_our_files_load_in_keras_with_our_outputs(name, tmp_path):
    model, x = MODELS[name]()
    _random_weights(model)
    model.save(tmp_path / "m.keras")
    theirs = keras.saving.load_model(tmp_path / "m.keras")
    again = cornu.saving.load_model(tmp_path / "m.keras")
    expected = model.predict(x, verbose=0)
    for found in (theirs.predict(x, verbose=0), again.predict(x, verbose=0)):
        for a, b in zip(_leaves(found), _leaves(expected), strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=2e-5, atol=1e-5)
    assert [w.shape for w in theirs.weights] == [w.shape for w in model.weights]
    # And back: what Keras writes of it loads here.
    theirs.save(tmp_path / "k.keras")
    back = cornu.saving.load_model(tmp_path / "k.keras").predict(x, verbose=0)
    for a, b in zip(_leaves(back), _leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("make", [lambda k: k.optimizers.Adam(0.01), lambda k: k.optimizers.SGD(0.1, momentum=0.9)])
def test_training_goes_on_in_keras_where_it_stopped_here(make, tmp_path):
    model, x = _sequential()
    y = RNG.uniform(size=(4, 2)).astype("float32")
    model.compile(make(cornu), "mse", metrics=["mae"])
    model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "m.keras")
    theirs = keras.saving.load_model(tmp_path / "m.keras")
    assert int(theirs.optimizer.iterations) == 3
    ours = cornu.saving.load_model(tmp_path / "m.keras")
    for m in (model, theirs, ours):
        m.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    for a, b, c in zip(model.get_weights(), theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(c, a, rtol=1e-5, atol=1e-7)


def test_bfloat16_weights_round_trip(tmp_path):
    model = cornu.Sequential([cornu.Input((5,)), layers.Dense(3, dtype="bfloat16")])
    model.save(tmp_path / "m.keras")
    again, theirs = cornu.saving.load_model(tmp_path / "m.keras"), keras.saving.load_model(tmp_path / "m.keras")
    assert again.weights[0].dtype == "bfloat16" == str(theirs.weights[0].dtype)
    for a, b, c in zip(model.weights, again.weights, theirs.weights, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes() == np.asarray(c.value).tobytes()


# ---------------------------------------------------------------- damage


def _damaged(data):
    for cut in np.linspace(0, len(data) - 1, 25).astype(int):
        yield data[:cut]
    for at in np.linspace(0, len(data) - 1, 90).astype(int):
        yield data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize("name", ["old_keras_3.8.0.keras", "seq_small.weights.h5"])
def test_damaged_files_are_refused_or_harmless(name, tmp_path):
    path = tmp_path / name
    if name.endswith(".keras"):
        load = cornu.saving.load_model
    else:
        model = cornu.saving.load_model(DATA / "seq_small.keras")

        def load(path):
            model.load_weights(path)
            return model

    expected = load(DATA / name).get_weights()
    refused = 0
    for data in _damaged((DATA / name).read_bytes()):
        path.write_bytes(data)
        try:
            found = load(path).get_weights()
        except CornuError as error:
            assert isinstance(error, (SavingError, ValueError))
            refused += 1
            continue
        if name.endswith(".keras"):  # every byte is under a checksum
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
    assert refused > 25


def test_archives_that_would_explode_are_refused(tmp_path):
    import zipfile

    shutil.copy(DATA / "seq_small.keras", tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(50_000_000))
    with pytest.raises(SavingError, match="would grow"):
        cornu.saving.load_model(tmp_path / "m.keras")


def test_assets_stay_in_their_folder(tmp_path):
    import zipfile

    shutil.copy(DATA / "custom_assets.keras", tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "a") as archive:
        archive.writestr("assets/layers/scale/../../../escaped.txt", b"out")
    with pytest.raises(SavingError, match="stay in their folder"):
        cornu.saving.load_model(tmp_path / "m.keras")
    assert not list(tmp_path.rglob("escaped.txt"))
