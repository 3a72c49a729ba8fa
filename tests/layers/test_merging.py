"""Merging layers against Keras: numbers, shapes, masks, errors."""

import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.core.errors import ArgumentError, ShapeError
from cornu.graph.masks import mask_of, set_mask
from cornu.layers import merging

RNG = np.random.default_rng(0)


def arrays(*shapes):
    return [RNG.normal(size=shape).astype("float32") for shape in shapes]


SAME, MIXED = ((2, 3, 4),) * 3, ((2, 3, 4), (2, 4), (2, 1, 4))
ELEMENTWISE = ["Add", "Multiply", "Average", "Maximum", "Minimum"]
CASES = [
    *[(name, {}, shapes) for name in ELEMENTWISE for shapes in (SAME, MIXED)],
    ("Add", {}, ((2, 5), (2,))),
    ("Add", {}, ((2, 5),)),
    ("Subtract", {}, SAME[:2]),
    ("Subtract", {}, ((2, 4), (2, 3, 4))),
    ("Concatenate", {}, ((2, 3, 4), (2, 3, 2))),
    ("Concatenate", {"axis": 1}, ((2, 3, 4), (2, 1, 4), (2, 2, 4))),
    ("Dot", {"axes": 1}, ((2, 5), (2, 5))),
    ("Dot", {"axes": -1, "normalize": True}, ((2, 5), (2, 5))),
    ("Dot", {"axes": (1, 2)}, ((2, 3, 5), (2, 10, 3))),
    ("Dot", {"axes": (2, 1)}, ((2, 3, 5), (2, 5))),
    ("Dot", {"axes": [1, -1]}, ((2, 5), (2, 3, 5))),
    ("Dot", {"axes": (-1, 2), "normalize": True}, ((2, 3, 4, 5), (2, 6, 5, 2))),
]


@pytest.mark.parametrize("name, arguments, shapes", CASES)
def test_the_numbers_are_those_of_keras(engine, name, arguments, shapes):
    theirs, ours = getattr(keras.layers, name)(**arguments), getattr(merging, name)(**arguments)
    xs = arrays(*shapes)
    np.testing.assert_allclose(ops.convert_to_numpy(ours(xs)), np.asarray(theirs(xs)), rtol=1e-5, atol=1e-5)
    inputs = [cornu.Input(shape[1:]) for shape in shapes]
    others = [keras.Input(shape[1:]) for shape in shapes]
    model = cornu.Model(inputs, ours(inputs))
    assert model.output_shape == keras.Model(others, getattr(keras.layers, name)(**arguments)(others)).output_shape
    np.testing.assert_allclose(ops.convert_to_numpy(model(xs)), np.asarray(theirs(xs)), rtol=1e-5, atol=1e-5)
    function, given = getattr(merging, name.lower()), {**arguments}
    np.testing.assert_array_equal(ops.convert_to_numpy(function(xs, **given)), ops.convert_to_numpy(ours(xs)))
    assert set(ours.get_config()) >= set(theirs.get_config())
    assert type(ours).from_config(ours.get_config()).get_config() == ours.get_config()


def test_unknown_sizes(engine):
    a, b = cornu.Input((None, 4)), cornu.Input((None, 4))
    x, y = arrays((2, 5, 4), (2, 3, 4))
    joined = cornu.Model([a, b], merging.Concatenate(axis=1)([a, b]))
    assert joined.output_shape == (None, None, 4)
    np.testing.assert_array_equal(ops.convert_to_numpy(joined([x, y])), np.concatenate([x, y], 1))
    total = cornu.Model([a, b], merging.Add()([a, b]))
    np.testing.assert_allclose(ops.convert_to_numpy(total([x, x])), 2 * x)
    with pytest.raises(ShapeError, match="5 and 3"):
        total([x, y])
    scores = cornu.Model([a, b], merging.Dot(axes=2)([a, b]))
    assert scores.output_shape == (None, None, None)
    np.testing.assert_allclose(ops.convert_to_numpy(scores([x, y])), x @ y.transpose(0, 2, 1), rtol=1e-4, atol=1e-5)


def masked(xs, masks, library):
    """Values with masks attached, in one library or the other."""
    found = []
    for x, mask in zip(xs, masks, strict=True):
        value = (keras.ops if library is keras else ops).convert_to_tensor(x.copy())
        if mask is not None and library is keras:
            keras.src.backend.set_keras_mask(value, keras.ops.convert_to_tensor(mask))
        elif mask is not None:
            set_mask(value, ops.convert_to_tensor(mask))
        found.append(value)
    return found


MASKS = [np.array([[True, False, True], [False, False, True]]), np.array([[True, True, False], [False, True, False]])]


@pytest.mark.parametrize("name, arguments", [*((name, {}) for name in ELEMENTWISE), ("Subtract", {}),
                                             ("Concatenate", {}), ("Concatenate", {"axis": 1})])  # fmt: skip
@pytest.mark.parametrize("which", ["both", "first", "second"])
def test_masks_are_joined_as_by_keras(engine, name, arguments, which):
    xs = arrays((2, 3, 4), (2, 3, 4))
    masks = [MASKS[0] if which != "second" else None, MASKS[1] if which != "first" else None]
    want = getattr(keras.layers, name)(**arguments)(masked(xs, masks, keras))
    got = getattr(merging, name)(**arguments)(masked(xs, masks, cornu))
    np.testing.assert_allclose(ops.convert_to_numpy(got), np.asarray(want), rtol=1e-6, atol=1e-6)
    theirs, mine = keras.src.backend.get_keras_mask(want), mask_of(got)
    assert (theirs is None) == (mine is None)
    if theirs is not None:
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), np.asarray(theirs))

    words = [cornu.Input((3,), dtype="int32") for _ in xs]
    rows = [cornu.layers.Embedding(5, 4, mask_zero=mask is not None)(w) for w, mask in zip(words, masks, strict=True)]
    other = [keras.Input((3,), dtype="int32") for _ in xs]
    other_rows = [keras.layers.Embedding(5, 4, mask_zero=m is not None)(w) for w, m in zip(other, masks, strict=True)]
    for mine, theirs in zip(rows, other_rows, strict=True):
        mine.node.operation.set_weights(theirs._keras_history.operation.get_weights())
    ids = [np.where(mask, 3, 0).astype("int32") for mask in MASKS]
    y = getattr(merging, name)(**arguments)(rows)
    model = cornu.Model(words, [y] if y.mask is None else [y, y.mask])
    want = keras.Model(other, getattr(keras.layers, name)(**arguments)(other_rows))(ids)
    got = model(ids)
    np.testing.assert_allclose(ops.convert_to_numpy(got[0]), np.asarray(want), rtol=1e-6, atol=1e-6)
    if y.mask is not None:
        want = np.asarray(keras.src.backend.get_keras_mask(want))
        np.testing.assert_array_equal(ops.convert_to_numpy(got[1]), want)


def test_masks_of_images_and_of_fewer_axes(engine):
    x, y = masked(arrays((2, 3, 4, 5), (2, 3, 4, 5)), MASKS, cornu)
    for layer in (merging.Concatenate(), merging.Multiply(), merging.Maximum()):
        np.testing.assert_array_equal(ops.convert_to_numpy(mask_of(layer([x, y]))), MASKS[0] | MASKS[1])
    joined = mask_of(merging.Concatenate(1)([x, y]))
    np.testing.assert_array_equal(ops.convert_to_numpy(joined), np.concatenate(MASKS, 1))
    (vector,) = masked(arrays((2, 5)), [np.array([True, False])], cornu)
    total = merging.Add()([x, vector])
    np.testing.assert_array_equal(ops.convert_to_numpy(mask_of(total)), MASKS[0] | np.array([[True], [False]]))


@pytest.mark.parametrize("layer, shapes, named", [
    (merging.Add(), ((2, 3, 4), (2, 3, 5)), "axis 2"),
    (merging.Add(), ((2, 3, 4), (3, 4)), "axis 0"),
    (merging.Maximum(), ((2, 3), (2, 4), (2, 1)), "axis 1"),
    (merging.Concatenate(), ((2, 3, 4), (2, 5, 4)), "axis 1"),
    (merging.Concatenate(axis=2), ((2, 3), (2, 3)), "axis=2"),
    (merging.Concatenate(), ((2, 3), (2, 3, 4)), "axis=-1"),
    (merging.Dot(axes=1), ((2, 3), (2, 4)), "axes 1 and 1"),
    (merging.Dot(axes=1), ((2, 3), (3, 3)), "axis 0"),
    (merging.Dot(axes=2), ((2, 3), (2, 3)), "axes=2"),
])  # fmt: skip
def test_shapes_that_do_not_fit(layer, shapes, named):
    with pytest.raises(ShapeError) as error:
        layer(arrays(*shapes))
    text = str(error.value)
    assert named in text and all(str(shape) in text for shape in shapes), text


def test_wrong_arguments():
    x, y, z = arrays((2, 3), (2, 3), (2, 3))
    for wrong in (
        lambda: merging.Add()(x),
        lambda: merging.Add()([]),
        lambda: merging.Subtract()([x]),
        lambda: merging.Subtract()([x, y, z]),
        lambda: merging.Dot(axes=1)([x]),
        lambda: merging.Dot(axes=0),
        lambda: merging.Dot(axes=(1, 2, 3)),
        lambda: merging.Dot(axes="1"),
    ):
        with pytest.raises(ArgumentError):
            wrong()


@pytest.mark.parametrize("name", [*ELEMENTWISE, "Concatenate", "Dot"])
def test_gradients(engine, name):
    import jax

    arguments = {"axes": 2} if name == "Dot" else {}
    ours, theirs = getattr(merging, name)(**arguments), getattr(keras.layers, name)(**arguments)
    xs = arrays((2, 3, 4), (2, 3, 4))
    variables = [cornu.Variable(x) for x in xs]
    _, mine = value_and_grad(lambda: ops.sum(ops.sin(ours(variables))), variables)()
    want = jax.jit(jax.grad(lambda xs: jax.numpy.sum(jax.numpy.sin(theirs(xs)))))([jax.numpy.asarray(x) for x in xs])
    for got, other in zip(mine, want, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), np.asarray(other), rtol=1e-4, atol=1e-5)
