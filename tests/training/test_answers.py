"""`predict` of a batch like an earlier one goes straight to its step, and says what the ordinary way says."""

import gc
import weakref

import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import BindingError, CornuError, DataError, DtypeError
from cornu.training import answers


@pytest.fixture
def met(monkeypatch):
    """How often a call was answered."""
    count = []
    inside = answers.answer

    def counted(*given):
        found = inside(*given)
        count.append(found is not None)
        return found

    monkeypatch.setattr(answers, "answer", counted)
    return count


def model():
    cornu.utils.set_random_seed(3)
    x, ids = cornu.Input((4,), name="x"), cornu.Input((), dtype="int32", name="ids")
    both = layers.Concatenate()([layers.Dense(3, activation="tanh")(x), layers.Embedding(7, 2)(ids)])
    made = cornu.Model([x, ids], {"a": layers.Dense(2)(both), "b": layers.BatchNormalization()(both)})
    made.compile("sgd", "mse")
    return made


def data(rows=5, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(rows, 4)).astype("float32"), "ids": rng.integers(0, 7, rows).astype("int32")}


def ordinary(made, x, **rest):
    """What the ordinary way says."""
    made._cache.pop("answers", None)
    return made.predict(x, verbose=0, **rest)


def same(found, wanted):
    cornu.tree.map_structure(np.testing.assert_array_equal, found, wanted)


def test_the_same_outputs_in_memory_of_their_own(each_engine, met):
    made = model()
    for kind in (lambda x: x, lambda x: list(x.values()), lambda x: dict(reversed(x.items()))):
        wanted = [ordinary(made, kind(data(seed=seed))) for seed in range(3)]
        del met[:]
        for seed in range(3):
            found = made.predict(kind(data(seed=seed)), verbose=0)
            same(found, wanted[seed])
            assert list(found) == ["a", "b"]
            assert all(part.flags.writeable and part.flags.owndata for part in found.values())
            found["a"][:] = 9
            same(made.predict(kind(data(seed=seed)), verbose=0), wanted[seed])
        assert all(met)


def test_arrays_of_any_kind_and_what_becomes_of_them(each_engine, met):
    """Read-only, reversed, with gaps; and an output that is an input does not change with the array."""
    x = cornu.Input((4,))
    made = cornu.Model(x, {"same": layers.Flatten()(x), "twice": ops.multiply(x, 2.0)})
    made.compile("sgd", "mse")
    host = np.arange(80, dtype="float32").reshape(10, 8)
    fixed = host[:5, :4].copy()
    fixed.flags.writeable = False
    for given in (fixed, host[:5, :4], host[::2, 4:][::-1], np.asfortranarray(host[:5, :4])):
        wanted = ordinary(made, given)
        del met[:]
        same(made.predict(given, verbose=0), wanted)
        assert all(met)
    own = host[:5, :4].copy()
    ordinary(made, own)
    found = made.predict(own, verbose=0)
    own[:] = -1
    np.testing.assert_array_equal(found["same"], host[:5, :4])


def test_what_is_trained_set_or_loaded_since_is_seen(engine, met, tmp_path):
    made, x = model(), data()
    y = {"a": np.ones((5, 2), "float32"), "b": np.zeros((5, 5), "float32")}
    changes = [
        lambda: made.fit(x, y, verbose=0),
        lambda: made.train_on_batch(x, y),
        lambda: made.set_weights([weight + 0.5 for weight in made.get_weights()]),
        lambda: made.trainable_variables[0].assign(np.zeros((4, 3), "float32")),
        lambda: made.load_weights(tmp_path / "w.weights.h5"),
        lambda: made.layers[2].kernel.assign_add(np.ones((4, 3), "float32")),
    ]
    made.save_weights(tmp_path / "w.weights.h5")
    for change in changes:
        before = [made.predict(x, verbose=0) for _ in range(3)][-1]
        change()
        found = [made.predict(x, verbose=0) for _ in range(3)]
        assert any((found[0][name] != before[name]).any() for name in before)
        for one in found:
            same(one, ordinary(made, x))
    assert sum(met) >= len(changes)


def test_structure_batch_size_and_engine_tell_calls_apart(met):
    made, x = model(), data(40)
    for _ in range(2):
        whole = made.predict(x, batch_size=64, verbose=0)
    assert met[-1]
    for name in ("numpy", "jax"):
        for _ in range(2):
            np.testing.assert_allclose(made.predict(x, 64, 0, engine=name)["a"], whole["a"], rtol=1e-5, atol=1e-6)
    assert sum(met) == 1 + 1 + 2  # JAX is the default
    seen = []
    with cornu.engine("numpy"):
        for _ in range(2):
            made.predict(x, 64, 0, callbacks=[cornu.callbacks.LambdaCallback(on_predict_end=lambda logs: seen.append(1))])
    assert len(seen) == 2


@pytest.mark.parametrize(("rows", "size"), [(40, None), (64, 32), (33, 32), (7, 3), (4, 1)])
def test_many_rows_in_batches(each_engine, met, rows, size):
    made = model()
    wanted = [ordinary(made, data(rows, seed), batch_size=size) for seed in range(2)]
    del met[:]
    for seed in range(2):
        found = made.predict(data(rows, seed), size, 0)
        same(found, wanted[seed])
        assert all(part.flags.writeable and part.flags.owndata for part in found.values())
    assert all(met)
    with pytest.raises(DataError):
        made.predict({**data(rows), "ids": data(rows)["ids"][:-1]}, size, 0)


def test_errors_come_as_before(engine, met):
    made = model()
    for _ in range(3):
        made.predict(data(), verbose=0)
    x = data()
    for wrong, kind in [
        ({**x, "ids": x["ids"] + 0.5}, DtypeError),
        ({"x": x["x"], "id": x["ids"]}, BindingError),
        ({**x, "ids": x["ids"][:3]}, DataError),
        ({name: value[:0] for name, value in x.items()}, DataError),
        ({**x, "x": x["x"][:, :3]}, CornuError),
    ]:
        for _ in range(3):
            with pytest.raises(kind):
                made.predict(wrong, verbose=0)
    # Whole numbers that are floats are looked at every time.
    floats = {**x, "ids": x["ids"].astype("float32")}
    del met[:]
    for _ in range(3):
        same(made.predict(floats, verbose=0), ordinary(made, x))
    assert not any(met)


def test_what_may_differ_from_call_to_call_is_not_kept(engine, met):
    class Own(cornu.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    drawing = cornu.Sequential([cornu.Input((2,)), layers.Lambda(lambda x: ops.multiply(x, 2.0))])
    keeping = cornu.Sequential([cornu.Input(batch_shape=(2, 3, 2)), layers.LSTM(2, stateful=True)])
    x = np.ones((2, 2), "float32")
    for made, given in ((Own(), x), (drawing, x), (keeping, np.ones((2, 3, 2), "float32"))):
        found = [made.predict(given, verbose=0) for _ in range(3)]
        assert not any(met)
        assert made is not keeping or (found[0] != found[1]).any()
    eager = model()
    eager.compile("sgd", "mse", run_eagerly=True)
    for _ in range(3):
        eager.predict(data(), verbose=0)
    assert not any(met)


def test_another_structure_or_default_dtype_is_another_call(engine, met):
    made, x = model(), data()
    for _ in range(2):
        made.predict(x, verbose=0)
    assert met[-1]
    made.layers[2].trainable = False
    made.predict(x, verbose=0)
    assert not met[-1]
    made.predict(x, verbose=0)
    assert met[-1]
    made.compile("sgd", "mse")
    made.predict(x, verbose=0)
    assert not met[-1]


def test_many_kinds_of_batches(met):
    made = cornu.Sequential([cornu.Input((None, 1)), layers.GlobalAveragePooling1D()])
    with cornu.engine("numpy"):
        for length in range(1, 2 * answers._MANY):
            made.predict(np.ones((1, length, 1), "float32"), verbose=0)
            assert len(made._cache["answers"][1]) <= answers._MANY


def test_a_stream_is_read_once(engine, met):
    made, x = model(), data()
    read = []

    def batches():
        read.append(1)
        yield (x,)

    same(made.predict(batches(), verbose=0), ordinary(made, x))
    assert read == [1]


def test_the_model_is_let_go(engine):
    made = model()
    for _ in range(3):
        made.predict(data(), verbose=0)
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("engine", [name for name in ("torch", "tensorflow") if name in cornu.engines.available()])
def test_weights_in_an_engine_s_own_objects_are_read_where_they_live(engine, met):
    with cornu.engine(engine):
        made, x = model(), data()
        for _ in range(2):
            made.predict(x, verbose=0)
        for variable in made.variables:
            variable.find_home(cornu.engines.get(engine), always=True)
        for _ in range(3):
            before = made.predict(x, verbose=0)
            kernel = made.layers[2].kernel
            if engine == "torch":
                kernel.home.native.data += 1.0
            else:
                kernel.home.native.assign_add(np.ones(kernel.shape, "float32"))
            found = made.predict(x, verbose=0)
            assert (found["a"] != before["a"]).any()
            same(found, ordinary(made, x))
            made.predict(x, verbose=0)
        assert sum(met) >= 4
