"""`Rescaling`, `Normalization` and `CategoryEncoding` against Keras."""

import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.core.errors import ArgumentError, DataError, DtypeError, ShapeError, UnsupportedError
from cornu.layers import preprocessing

DATA = np.random.default_rng(0).normal(3, 2, size=(50, 4, 3)).astype("float32")


def agree(ours, theirs, x, **call):
    want, got = np.asarray(theirs(x, **call)), ops.convert_to_numpy(ours(x, **call))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert got.dtype == want.dtype
    inputs = cornu.Input(x.shape[1:], dtype=str(x.dtype))
    model = cornu.Model(inputs, ours(inputs))
    assert model.output_shape == (None, *want.shape[1:])
    if not call:
        np.testing.assert_allclose(ops.convert_to_numpy(model(x)), want, rtol=2e-5, atol=2e-5)
    assert set(ours.get_config()) >= set(theirs.get_config())
    again = type(ours).from_config(ours.get_config())
    assert str(again.get_config()) == str(ours.get_config())
    return again


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": 1 / 127.5, "offset": -1},
        {"scale": [1.0, 2.0, 3.0]},
        {"scale": 2, "offset": np.arange(3.0)},
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32"])
def test_rescaling(engine, arguments, dtype):
    x = (DATA * 10).clip(0, 200).astype(dtype)
    agree(preprocessing.Rescaling(**arguments), keras.layers.Rescaling(**arguments), x)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (-1, 1), None])
@pytest.mark.parametrize("invert", [False, True])
def test_normalization_adapts(engine, axis, invert):
    ours, theirs = (m.Normalization(axis=axis, invert=invert) for m in (preprocessing, keras.layers))
    ours.adapt(DATA)
    theirs.adapt(DATA)
    agree(ours, theirs, DATA[:5])
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert [w.dtype for w in ours.weights] == [str(w.dtype) for w in theirs.weights]
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(ours.mean), np.asarray(theirs.mean), rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(ours.variance), np.asarray(theirs.variance), rtol=1e-5)
    again = type(ours).from_config(ours.get_config())
    again.build_from_config(ours.get_build_config())
    again.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(DATA)), ops.convert_to_numpy(ours(DATA)))


@pytest.mark.parametrize(
    "axis, mean, variance",
    [
        (-1, 3.0, 2.0),
        (-1, [1.0, 2.0, 3.0], [1.0, 0.0, 4.0]),
        (None, 3.0, 2.0),
        ((1, 2), [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]),
        (1, np.arange(4.0), np.ones(4)),
    ],
)
def test_normalization_with_given_statistics(engine, axis, mean, variance):
    arguments = {"axis": axis, "mean": mean, "variance": variance}
    ours, theirs = preprocessing.Normalization(**arguments), keras.layers.Normalization(**arguments)
    again = agree(ours, theirs, DATA[:5])
    np.testing.assert_allclose(ops.convert_to_numpy(again(DATA)), ops.convert_to_numpy(ours(DATA)))
    assert not ours.weights


class Rows:
    """A data set that can only be indexed."""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return DATA[10 * i : 10 * i + 10], np.zeros(10)


def test_data_of_all_kinds(engine):
    whole = preprocessing.Normalization()
    whole.adapt(DATA)
    batches = [DATA[:7], DATA[7:30], DATA[30:]]
    pairs = ((b, 0) for b in batches)
    for data in (batches, iter(batches), pairs, Rows(), ops.convert_to_tensor(DATA), DATA.astype("float64")):
        layer = preprocessing.Normalization()
        layer.adapt(DATA[:3])  # forgotten by the next
        layer.adapt(data)
        for got, want in zip(layer.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)
    far = preprocessing.Normalization(axis=None)
    far.adapt(np.array([1e8, 1e8 + 1, 1e8 + 2]))
    np.testing.assert_allclose(far.get_weights()[1], 2 / 3, rtol=1e-6)
    image = preprocessing.Normalization()
    image.adapt(np.full((3, 2), 255, "uint8"))
    np.testing.assert_array_equal(image.get_weights()[0], [255, 255])


def test_normalization_in_training(engine):
    layer = preprocessing.Normalization()
    layer.adapt(DATA)
    inputs = cornu.Input((4, 3))
    model = cornu.Model(inputs, layer(inputs))
    got = ops.convert_to_numpy(model(DATA))
    assert abs(got.mean()) < 1e-5 and abs(got.std() - 1) < 1e-4
    assert not model.trainable_weights


def test_wrong_arguments():
    make = preprocessing.Normalization
    for wrong in (
        lambda: make(mean=1.0),
        lambda: make(mean=[1.0], variance=1.0),
        lambda: make(mean=[[1.0]], variance=[[1.0]]),
        lambda: make(mean=[1.0, 2.0], variance=[1.0, 2.0])(DATA),
        lambda: make(axis=3)(DATA),
        lambda: make(mean=1.0, variance=1.0).adapt(DATA),
        lambda: preprocessing.CategoryEncoding(),
        lambda: preprocessing.CategoryEncoding(3, "hot"),
        lambda: preprocessing.CategoryEncoding(3)(np.array([1]), count_weights=np.ones(1)),
    ):
        with pytest.raises(ArgumentError):
            wrong()
    with pytest.raises(ShapeError):
        make()(cornu.Input((None,)))
    for data in ([], np.zeros((0, 3)), [DATA, DATA[:, :, :2]]):
        with pytest.raises(DataError):
            make().adapt(data)
    for data in ([[1.0, 2.0]], 3):
        with pytest.raises(DtypeError):
            make().adapt(data)
    with pytest.raises(UnsupportedError):
        preprocessing.CategoryEncoding(3, sparse=True)


@pytest.mark.parametrize(
    "mode, shape",
    [
        ("one_hot", (2,)),
        ("one_hot", (2, 1)),
        ("one_hot", (2, 3)),
        ("multi_hot", (2, 3)),
        ("multi_hot", (2, 3, 2)),
        ("count", (2, 3)),
    ],
)
@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_category_encoding(engine, mode, shape, dtype):
    x = np.random.default_rng(1).integers(0, 5, shape).astype(dtype)
    arguments = {"num_tokens": 5, "output_mode": mode}
    ours, theirs = preprocessing.CategoryEncoding(**arguments), keras.layers.CategoryEncoding(**arguments)
    agree(ours, theirs, x)
    if mode == "count":
        agree(ours, theirs, x, count_weights=np.random.default_rng(2).random(shape).astype("float32"))
