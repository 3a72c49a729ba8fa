"""Saving: refused before a byte is written, whole or not at all, and what is loaded is what was saved."""

import dataclasses
import re
import threading

import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import CornuError, SavingError, ShapeError

X = np.linspace(-1, 1, 20).reshape(4, 5).astype("float32")


def plain(x):
    return x * 0.5


class Takes(layers.Layer):
    """Keeps whatever it is given."""

    def __init__(self, thing=None, other=None):
        super().__init__()
        self.thing = thing
        self.other = other
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


class Grows(layers.Layer):
    """Changes its argument while it is made."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.sizes.append(2)
        self.blocks = [layers.Dense(size) for size in self.sizes]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Subclassed(cornu.Model):
    def __init__(self, units=3, blocks=2):
        super().__init__()
        self.blocks = [layers.Dense(units, activation="relu") for _ in range(blocks)]
        self.heads = {"a": layers.Dense(1), "b": layers.Dense(2)}

    def call(self, x, training=False):
        scale = self.add_weight(name="scale", shape=(), initializer="ones")
        for block in self.blocks:
            x = block(x)
        return {key: head(x) * scale for key, head in self.heads.items()}


class Custom(cornu.Model):
    """A Functional model with a train_step of its own."""

    def train_step(self, data):
        return super().train_step(data)


@dataclasses.dataclass
class Options:
    size: int


def _model(layer):
    x = cornu.Input((5,))
    return cornu.Model(x, layer(x))


def _same(a, b, x=X):
    with cornu.engine("numpy"):
        one, two = a(x), b(x)
    for left, right in zip(cornu.tree.leaves(one), cornu.tree.leaves(two), strict=True):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-6)


def _local_class():
    class Local(layers.Layer):
        def call(self, x):
            return x

    return Local()


def _local_function():
    def inner(x):
        return x

    return Takes(inner)


REFUSED = {
    "lambda": (lambda: layers.Lambda(lambda x: x * 2), "no name"),
    "lambda argument": (lambda: Takes(lambda x: x), "'thing'"),
    "lambda in a list": (lambda: Takes([1, {"a": lambda x: x}]), "'thing'"),
    "local class": (_local_class, "defined inside a function"),
    "local function": (_local_function, "defined inside another"),
    "plain object": (lambda: Takes(Options(3)), "'thing'"),
    "lock": (lambda: Takes(other=threading.Lock()), "'other'"),
    "dict with odd keys": (lambda: Takes({1: "a"}), "keys that are text"),
    "set": (lambda: Takes({1, 2}), "'thing'"),
    "class": (lambda: Takes(layers.Dense), "Dense"),
    "activation lambda": (lambda: layers.Dense(2, activation=lambda x: x), "no name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_be_loaded_is_refused_before_a_byte_is_written(name, tmp_path, monkeypatch):
    make, words = REFUSED[name]
    model = _model(make())
    path = tmp_path / "m.keras"
    path.write_bytes(b"precious")
    monkeypatch.setattr("tempfile.mkstemp", lambda *a, **k: pytest.fail("a file was opened"))
    with pytest.raises(SavingError, match=words):
        model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"] and path.read_bytes() == b"precious"


class _Stop(BaseException):
    """Ctrl-C, a full disk, a kill."""


@pytest.mark.parametrize(
    "where", ["os.replace", "os.fsync", "os.chmod", "zipfile.ZipFile.writestr", "zipfile.ZipFile.testzip"]
)
@pytest.mark.parametrize("kind", [_Stop, OSError])
def test_an_interrupted_write_leaves_the_old_file(where, kind, tmp_path, monkeypatch):
    model = _model(layers.Dense(2))
    path = tmp_path / "m.keras"
    model.save(path)
    before = path.read_bytes()
    model.set_weights([w + 1 for w in model.get_weights()])

    def stop(*args, **kwargs):
        raise kind("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(where, stop)
        with pytest.raises(kind):
            model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"] and path.read_bytes() == before
    weights = tmp_path / "w.weights.h5"
    if where.startswith("os."):
        with monkeypatch.context() as patch:
            patch.setattr(where, stop)
            with pytest.raises(kind):
                model.save_weights(weights)
        assert not weights.exists() and len(list(tmp_path.iterdir())) == 1
    model.save(path)
    _same(cornu.saving.load_model(path), model)


def test_a_disk_that_lies_is_noticed(tmp_path, monkeypatch):
    model = _model(layers.Dense(2))
    monkeypatch.setattr("zipfile.ZipFile.testzip", lambda self: "model.weights.h5")
    with pytest.raises(SavingError, match="does not read back"):
        model.save(tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_paths_that_are_refused(tmp_path):
    model = _model(layers.Dense(2))
    for name in ("m.h5", "m", "m.weights.h5"):
        with pytest.raises(SavingError, match="ends in .keras"):
            model.save(tmp_path / name)
    with pytest.raises(SavingError, match="folder"):
        model.save(tmp_path / "missing" / "m.keras")
    model.save(tmp_path / "m.keras")
    with pytest.raises(SavingError, match="exists"):
        model.save(tmp_path / "m.keras", overwrite=False)
    with pytest.raises(SavingError, match="there is no file"):
        cornu.saving.load_model(tmp_path / "other.keras")
    with pytest.raises(CornuError):
        model.load_weights(tmp_path / "other.weights.h5")


def test_the_same_model_gives_the_same_bytes_of_weights(tmp_path):
    model = _model(layers.Dense(2))
    for name in ("a.weights.h5", "b.weights.h5"):
        model.save_weights(tmp_path / name)
    assert (tmp_path / "a.weights.h5").read_bytes() == (tmp_path / "b.weights.h5").read_bytes()


@pytest.mark.parametrize(
    "thing",
    [
        (1, (2.5, "x")),
        [1, (2,), {"a": (3,)}],
        {"b": [None, True]},
        np.arange(3),
        slice(1, None),
        b"bytes",
        ops.relu,
        cornu.activations.gelu,
        plain,
        [ops.tanh, plain],
        "text",
    ],
    ids=lambda thing: re.sub(" at 0x[0-9a-f]+", "", str(thing)),
)
def test_arguments_come_back_as_they_were(thing, tmp_path):
    model = _model(Takes(thing))
    model.save(tmp_path / "m.keras")
    loaded = cornu.saving.load_model(tmp_path / "m.keras")
    found = loaded.layers[1].thing
    assert type(found) is type(thing)
    if isinstance(thing, np.ndarray):
        np.testing.assert_array_equal(found, thing)
        assert found.dtype == thing.dtype
    else:
        assert found == thing
    _same(loaded, model)


def test_objects_come_back(tmp_path):
    thing = [layers.Dense(3, name="one"), cornu.initializers.RandomNormal(stddev=0.1), cornu.regularizers.L2(0.01)]
    model = _model(Takes(thing, cornu.losses.Huber(0.5)))
    model.save(tmp_path / "m.keras")
    layer = cornu.saving.load_model(tmp_path / "m.keras").layers[1]
    assert [type(item).__name__ for item in layer.thing] == ["Dense", "RandomNormal", "L2"]
    assert layer.thing[0].units == 3 and layer.thing[1].stddev == 0.1 and type(layer.other).__name__ == "Huber"


def test_an_argument_that_grows_while_the_layer_is_made(tmp_path):
    model = _model(Grows([3]))
    model.save(tmp_path / "m.keras")
    loaded = cornu.saving.load_model(tmp_path / "m.keras")
    assert len(loaded.layers[1].blocks) == 2
    _same(loaded, model)


def test_a_later_change_of_an_argument_counts():
    layer = Takes("before")
    layer.thing = "after"
    assert layer.get_config()["thing"] == "after" and Takes.from_config(layer.get_config()).thing == "after"


@pytest.mark.parametrize(
    "index", [np.s_[:, 1:3], np.s_[:, 0], np.s_[..., 1], np.s_[:, [0, 2]], np.s_[:, None]], ids=str
)
def test_indexing_survives_a_file(index, tmp_path):
    x = cornu.Input((5,))
    model = cornu.Model(x, x[index] * 1.0)
    model.save(tmp_path / "m.keras")
    _same(cornu.saving.load_model(tmp_path / "m.keras"), model)


def test_subclassed_models(tmp_path):
    model = Subclassed(4, blocks=1)
    model.compile("adam", {"a": "mse", "b": "mse"})
    y = {"a": X[:, :1], "b": X[:, :2]}
    model.fit(X, y, epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = cornu.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is Subclassed and len(loaded.weights) == len(model.weights)
    _same(loaded, model)
    for m in (model, loaded):
        m.fit(X, y, epochs=1, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_subclass_made_from_a_graph(tmp_path):
    x = cornu.Input((5,))
    model = Custom(x, layers.Dense(2)(x))
    model.save(tmp_path / "m.keras")
    loaded = cornu.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is Custom
    _same(loaded, model)


def test_weights_that_do_not_fit(tmp_path):
    _model(layers.Dense(2)).save_weights(tmp_path / "w.weights.h5")
    other = _model(layers.Dense(3))
    before = other.get_weights()
    with pytest.raises(ShapeError, match="kernel"):
        other.load_weights(tmp_path / "w.weights.h5")
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_custom_objects_and_scopes(tmp_path):
    model = _model(layers.Dense(2, activation=plain))
    model.save(tmp_path / "m.keras")
    for load in (
        lambda: cornu.saving.load_model(tmp_path / "m.keras", custom_objects={"plain": plain}),
        lambda: cornu.saving.load_model(tmp_path / "m.keras"),  # defined beside classes of ours in this module
    ):
        _same(load(), model)
    with cornu.saving.custom_object_scope({"plain": ops.tanh}):
        found = cornu.saving.load_model(tmp_path / "m.keras")
    assert found.layers[1].activation is ops.tanh


def test_a_file_cannot_name_what_a_module_imports():
    for module, name in (
        ("os", "system"),
        (__name__, "os"),
        (__name__, "_model.__globals__"),
        ("builtins", "eval"),
        (__name__, "pytest"),
    ):
        form = {"module": module, "class_name": "function", "config": name, "registered_name": f"{module}>{name}"}
        with pytest.raises(CornuError, match="registered"):
            cornu.saving.deserialize_keras_object(form)


def test_models_has_them_too(tmp_path):
    """Where users of Keras look for them first."""
    made = cornu.Sequential([cornu.Input((3,)), cornu.layers.Dense(2)])
    cornu.models.save_model(made, tmp_path / "m.keras")
    x = np.ones((1, 3), "float32")
    found = cornu.models.load_model(tmp_path / "m.keras").predict(x, verbose=0)
    np.testing.assert_array_equal(found, made.predict(x, verbose=0))
