"""Sizes that are not known when a model is built: computed with, checked at run time by name, kept in configs."""

import json

import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import ShapeError

RNG = np.random.default_rng(0)


def computed():
    x = cornu.Input((None, 4), name="x")
    batch, time, _ = ops.shape(x)
    doubled = ops.reshape(x, (batch, time * 2, -1))
    places = ops.arange(time)
    return x, [doubled, places, ops.cast(places, "float32")[None, :, None] + x, x[:, : time // 2]]


def expected(x):
    time = x.shape[1]
    places = np.arange(time)
    return [x.reshape(2, 2 * time, 2), places, places.astype("float32")[None, :, None] + x, x[:, : time // 2]]


def test_computing_with_a_size(engine):
    model = cornu.Model(*computed())
    assert model.output_shape == [(None, None, 2), (None,), (None, None, 4), (None, None, 4)]
    inner = cornu.Input((None, 4), name="other")
    models = [
        model,
        cornu.Model.from_config(model.get_config()),
        cornu.Model.from_config(json.loads(json.dumps(model.get_config()))),
        cornu.models.clone_model(model, cornu.Input((None, 4), name="renamed")),
        cornu.Model(inner, model(inner * 1.0)),
    ]
    for one in models:
        for time in (3, 9):
            x = RNG.normal(size=(2, time, 4)).astype("float32")
            for found, wanted in zip(one(x), expected(x), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-6)
        with cornu.engine(engine):
            x = RNG.normal(size=(2, 5, 4)).astype("float32")
            batch_free = cornu.Model(one.input, [one.output[0], one.output[2]])
            np.testing.assert_allclose(batch_free.predict(x, verbose=0)[0], expected(x)[0], rtol=1e-6)


TWO = {
    "add": lambda a, b: a + b,
    "layer": lambda a, b: layers.Add()([a, b]),
    "concatenate": lambda a, b: ops.concatenate([a, b], axis=2),
    "matmul": lambda a, b: ops.matmul(ops.transpose(a, (0, 2, 1)), b),
}


@pytest.mark.parametrize("name", list(TWO))
def test_two_unknown_sizes_are_checked_by_name(name, engine):
    a, b = cornu.Input((None, 4), name="left"), cornu.Input((None, 4), name="right")
    model = cornu.Model([a, b], TWO[name](a, b))
    again = cornu.Model.from_config(model.get_config())
    for one in (model, again):
        one([np.ones((2, 3, 4)), np.ones((2, 3, 4))])
        with pytest.raises(ShapeError, match="3 and 5") as caught:
            one([np.ones((2, 3, 4)), np.ones((2, 5, 4))])
        assert "left.1 and right.1" in str(caught.value)
        with pytest.raises(ShapeError):
            one.predict([np.ones((2, 3, 4)), np.ones((2, 5, 4))], verbose=0)


def test_an_unknown_size_of_one_broadcasts(engine):
    a, b = cornu.Input((None, 4), name="left"), cornu.Input((None, 4), name="right")
    found = cornu.Model([a, b], a + b)([np.ones((2, 3, 4)), np.ones((2, 1, 4))])
    assert found.shape == (2, 3, 4)


def test_named_sizes(engine):
    a, b = cornu.Input(("time", 4), name="left"), cornu.Input(("time", 4), name="right")
    model = cornu.Model([a, b], ops.concatenate([a, b], axis=2))
    assert model.input_shape == [(None, None, 4), (None, None, 4)]
    for one in (model, cornu.Model.from_config(model.get_config()), cornu.models.clone_model(model)):
        assert one([np.ones((2, 3, 4)), np.ones((2, 3, 4))]).shape == (2, 3, 8)
        with pytest.raises(ShapeError, match=r"'left'.*'right'(.|\n)*'time'"):
            one([np.ones((2, 3, 4)), np.ones((2, 5, 4))])
    c = cornu.Input(("time", "time"), name="square")
    with pytest.raises(ShapeError, match="'time'"):
        cornu.Model(c, c * 1)(np.ones((2, 3, 4)))


def test_rows_of_two_inputs_must_agree(engine):
    a, b = cornu.Input((4,), name="left"), cornu.Input((4,), name="right")
    with pytest.raises(ShapeError, match=r"'left' has size 2(.|\n)*'right' has size 3"):
        cornu.Model([a, b], [a, b])([np.ones((2, 4)), np.ones((3, 4))])


def test_a_reshape_that_does_not_fit_is_refused():
    x = cornu.Input((None,), name="x")
    rows, size = ops.shape(x)
    model = cornu.Model(x, ops.reshape(x, (rows, size // 2, 2)))
    assert model(np.ones((3, 6))).shape == (3, 3, 2)
    with pytest.raises(ShapeError):
        model(np.ones((3, 7)))
