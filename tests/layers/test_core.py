"""`EinsumDense`, `Embedding`, activation layers, `Identity` and `Lambda` against Keras; and `twin`."""

import warnings

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.core.errors import ArgumentError, BuildError, CornuWarning, MaskWarning, ShapeError
from cornu.graph.masks import mask_of, set_mask
from cornu.layers import activation, einsum_dense, embedding, wrappers_core
from cornu.layers.dense import Dense

LEFT_OUT = {"quantization_config", "lora_rank", "lora_alpha", "gptq_unpacked_column_size"}


_judges = {}


def judge(name, shape, arguments):
    """Keras's layer, an input, and what it answers and says of its shape (asked once for both engines)."""
    key = repr((name, shape, arguments))
    if key not in _judges:
        theirs = getattr(keras.layers, name)(**arguments)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, *shape)).astype("float32")
        theirs.build(x.shape)
        theirs.set_weights([0.5 + rng.random(w.shape).astype("float32") for w in theirs.get_weights()])
        want, other = np.asarray(theirs(x)), keras.Input(shape)
        # What Keras says of EinsumDense is less than is known, and wrong where a letter moves.
        said = keras.Model(other, theirs(other)).output_shape if name != "EinsumDense" else (None, *want.shape[1:])
        _judges[key] = theirs, x, want, said
    return _judges[key]


def twin(module, name, shape, arguments, checked=True):
    """A layer and Keras's with the same weights, and an input: outputs, shapes, names and configs agree."""
    cls = getattr(module, name)
    ours, (theirs, x, want, said) = cls(**arguments), judge(name, shape, arguments)
    mine = cornu.Input(shape)
    model = cornu.Model(mine, ours(mine))
    ours.set_weights(theirs.get_weights())
    if not checked:
        return ours, theirs, x
    assert model.output_shape == said
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    for got in (ours(x), model(x)):
        np.testing.assert_allclose(ops.convert_to_numpy(got), want, rtol=1e-5, atol=2e-6)
        assert ops.convert_to_numpy(got).dtype == want.dtype
    assert set(ours.get_config()) >= set(theirs.get_config()) - LEFT_OUT
    assert cls.from_config(ours.get_config()).get_config() == ours.get_config()
    return ours, theirs, x


def same_gradients(ours, theirs, x, **kwargs):
    """The gradients of a function of the output agree, for the input and all trainable weights."""
    value = cornu.Variable(x)
    _, mine = value_and_grad(lambda: ops.sum(ops.sin(ours(value, **kwargs))), [value, *ours.trainable_variables])()
    rest = [v.value for v in theirs.non_trainable_variables]

    def loss(x, weights):
        return jax.numpy.sum(jax.numpy.sin(theirs.stateless_call(weights, rest, x, **kwargs)[0]))

    dx, weights = jax.jit(jax.grad(loss, (0, 1)))(x, [v.value for v in theirs.trainable_variables])
    for got, want in zip(mine, [dx, *weights], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), np.asarray(want), rtol=1e-4, atol=1e-4)


X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")

CASES = [
    (einsum_dense, "EinsumDense", (5,), {"equation": "ab,bc->ac", "output_shape": 6, "bias_axes": "c"}),
    (einsum_dense, "EinsumDense", (3, 5), {"equation": "abc,cde->abde", "output_shape": (None, 2, 4), "bias_axes": "de",
                                           "activation": "tanh"}),
    (einsum_dense, "EinsumDense", (3, 5), {"equation": "abc,cde->abde", "output_shape": (3, 2, 4), "bias_axes": "d"}),
    (einsum_dense, "EinsumDense", (4, 3, 5), {"equation": "...x,xy->...y", "output_shape": 2, "bias_axes": "y"}),
    (einsum_dense, "EinsumDense", (5, 3, 2), {"equation": "ab...,bc->ac...", "output_shape": 4, "bias_axes": "c"}),
    (einsum_dense, "EinsumDense", (3, 5), {"equation": "abc,bd->adc", "output_shape": (7, None)}),
    (activation, "Activation", (4,), {"activation": "selu"}),
    (activation, "Activation", (3, 4), {"activation": "softmax"}),
    (activation, "ReLU", (4,), {}),
    (activation, "ReLU", (4,), {"max_value": 0.8, "negative_slope": 0.1, "threshold": 0.2}),
    (activation, "LeakyReLU", (4,), {}),
    (activation, "LeakyReLU", (4,), {"negative_slope": 0.1}),
    (activation, "PReLU", (3, 4), {}),
    (activation, "PReLU", (3, 4, 2), {"shared_axes": [1, 2], "alpha_initializer": "ones"}),
    (activation, "PReLU", (3, 4), {"shared_axes": 1}),
    (activation, "ELU", (4,), {"alpha": 0.7}),
    (activation, "Softmax", (3, 4), {"axis": 1}),
    (activation, "Softmax", (3, 4), {"axis": (1, 2)}),
    (wrappers_core, "Identity", (3, 4), {}),
]  # fmt: skip


@pytest.mark.parametrize("module, name, shape, arguments", CASES)
def test_the_numbers_are_those_of_keras(engine, module, name, shape, arguments):
    twin(module, name, shape, arguments)


@pytest.mark.parametrize("at", [2, 4, 9, 13, 17])
def test_the_gradients_are_those_of_keras(engine, at):
    same_gradients(*twin(*CASES[at], checked=False))


def test_wrong_arguments():
    einsum = einsum_dense.EinsumDense
    for wrong in (
        lambda: einsum("ab,bc", 3),
        lambda: einsum("...a,ab->b...", 3),
        lambda: einsum("ab,bc->ac", 3, bias_axes="z")(X[0]),
        lambda: einsum("abc,cd->abd", 3)(X),
        lambda: embedding.Embedding(0, 3),
        lambda: embedding.Embedding(3, True),
        lambda: activation.ReLU(negative_slope=None),
        lambda: activation.LeakyReLU(-1),
        lambda: activation.PReLU(shared_axes=3)(X),
        lambda: wrappers_core.Lambda(3),
    ):
        with pytest.raises(ArgumentError):
            wrong()
    for wrong in (
        lambda: einsum("abc,cd->abd", (None, 3))(X[0]),
        lambda: einsum("abc,cd->abd", (5, 3))(X),
        lambda: einsum("abc,bd->adc", (7, None))(cornu.Input((None, 4))),
        lambda: activation.PReLU()(cornu.Input((None, 4))),
        lambda: activation.Softmax()(X, mask=np.ones((2, 3), bool)),
        lambda: activation.Softmax()(X[:1], mask=np.ones((2, 3, 4), bool)),
    ):
        with pytest.raises(ShapeError):
            wrong()


def test_einsum_dense_draws_by_the_kernels_own_fans():
    layer = einsum_dense.EinsumDense("abc,cde->abde", (None, 20, 30), kernel_initializer="glorot_uniform")
    layer.build((None, None, 50))
    limit = np.sqrt(6 / (50 + 600))
    assert 0.98 * limit < np.abs(layer.kernel.numpy()).max() <= limit


def test_alpha_is_understood():
    with pytest.warns(CornuWarning, match="negative_slope"):
        layer = activation.LeakyReLU(alpha=0.1)
    assert layer.negative_slope == 0.1
    assert activation.LeakyReLU.from_config(layer.get_config()).negative_slope == 0.1


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_softmax_with_a_mask(engine, axis):
    mask = np.random.default_rng(1).random((2, 3, 4)) > 0.5
    mask[0, 1], mask[1] = False, False
    for given in (mask, mask.astype("float32"), mask[:, :1]):
        want = np.asarray(keras.layers.Softmax(axis)(X, mask=given))
        got = ops.convert_to_numpy(activation.Softmax(axis)(X, mask=given))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    inputs = cornu.Input((3, 4)), cornu.Input((3, 4), dtype="bool")
    model = cornu.Model(list(inputs), activation.Softmax(axis)(inputs[0], mask=inputs[1]))
    want = np.asarray(keras.layers.Softmax(axis)(X, mask=mask))
    np.testing.assert_allclose(ops.convert_to_numpy(model([X, mask])), want, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- Embedding


def pair(**arguments):
    theirs, ours = keras.layers.Embedding(7, 3, **arguments), embedding.Embedding(7, 3, **arguments)
    theirs.build()
    ours.build(None)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


@pytest.mark.parametrize("dtype", ["int32", "int8", "uint8", "int64", "uint32", "float32", "bool"])
def test_embedding(engine, dtype):
    theirs, ours = pair()
    ids = np.array([[0, 1, 6], [5, 5, 2]]).astype(dtype)
    if dtype == "float32":
        ids += 0.7
    np.testing.assert_array_equal(ops.convert_to_numpy(ours(ids)), np.asarray(theirs(ids)))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert set(ours.get_config()) >= set(theirs.get_config()) - {"quantization_config", "lora_rank", "lora_alpha"}
    assert embedding.Embedding.from_config(ours.get_config()).get_config() == ours.get_config()


@pytest.mark.parametrize("dtype, outside", [
    ("int32", [-1, 7, -7, 2**31 - 1]),
    ("float32", [-1.0, 7.0, np.nan, 1e20, -np.inf]),
    ("uint32", [7, 2**32 - 1, 2**31]),
    ("int64", [2**32, -(2**32), 2**62]),
])  # fmt: skip
def test_ids_outside_give_no_other_row(engine, dtype, outside):
    _, ours = pair()
    got = ops.convert_to_numpy(ours(np.array([*outside, 3], dtype)))
    assert np.isnan(got[:-1]).all() and not np.isnan(got[-1]).any()
    ids = np.array([-1, 7, 3], "int32")
    _, (gradient,) = value_and_grad(lambda: ops.sum(ops.where(ops.isnan(y := ours(ids)), 0.0, y)), ours.weights)()
    assert np.argwhere(ops.convert_to_numpy(gradient))[:, 0].tolist() == [3, 3, 3]


def test_embedding_in_a_model(engine):
    theirs, ours = pair(mask_zero=True)
    ids = np.array([[3, 0, 1], [0, 0, 6]], "int32")
    word = cornu.Input((None,), dtype="int32")
    row = ours(word)
    assert row.shape == (None, None, 3) and row.mask.shape == (None, None)
    model = cornu.Model(word, [row, ops.cast(row.mask, "int32")])
    got, mask = model(ids)
    np.testing.assert_array_equal(ops.convert_to_numpy(got), np.asarray(theirs(ids)))
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), ids != 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(mask_of(ours(ids))), ids != 0)
    same_gradients(ours, theirs, ids.astype("float32"))


def test_embedding_with_weights_and_mixed_precision(engine):
    rows = np.random.default_rng(2).normal(size=(4000, 2)).astype("float32")
    for given in (rows, [rows]):
        layer = embedding.Embedding(4000, 2, weights=given, dtype="mixed_float16")
        got = ops.convert_to_numpy(layer(np.array([2049.0, 3999.0], "float32")))
        assert got.dtype == "float16"
        np.testing.assert_array_equal(got, rows[[2049, 3999]].astype("float16"))
    with pytest.warns(CornuWarning, match="input_length"):
        assert "input_length" not in embedding.Embedding(4, 2, input_length=3).get_config()


# ---------------------------------------------------------------- Lambda, Identity


def test_lambda(engine):
    layer = wrappers_core.Lambda(lambda x, factor: x * factor, arguments={"factor": 3.0})
    np.testing.assert_allclose(ops.convert_to_numpy(layer(X)), 3 * X, rtol=1e-6)
    again = wrappers_core.Lambda.from_config(layer.get_config())
    np.testing.assert_allclose(ops.convert_to_numpy(again(X)), 3 * X, rtol=1e-6)
    assert set(layer.get_config()) >= set(keras.layers.Lambda(lambda x: x).get_config())
    x = cornu.Input((None, 4))
    assert wrappers_core.Lambda(lambda x: ops.reshape(x, (ops.shape(x)[0], -1)))(x).shape == (None, None)
    training = wrappers_core.Lambda(lambda x, training: x + 1 if training else x)
    assert float(training(np.float32(1), training=True)) == 2 and float(training(np.float32(1))) == 1


def test_lambda_holds_the_layers_of_its_closure(engine):
    dense = Dense(2)
    layer = wrappers_core.Lambda(lambda x: dense(x) + 1)
    layer(X)
    assert [w.name for w in layer.trainable_weights] == ["kernel", "bias"]
    _, gradients = value_and_grad(lambda: ops.sum(layer(X)), layer.trainable_variables)()
    assert len(gradients) == 2
    with pytest.raises(BuildError, match="does not hold"):
        wrappers_core.Lambda(_global_dense)(X)


_dense = Dense(2)


def _global_dense(x):
    return _dense(x)


def test_masks_through_lambda_and_identity(engine):
    ids = np.array([[3, 0, 1], [0, 0, 6]], "int32")
    word = cornu.Input((None,), dtype="int32")
    row = embedding.Embedding(7, 3, mask_zero=True)(word)
    assert wrappers_core.Identity()(row).mask is row.mask
    assert wrappers_core.Lambda(lambda x: x * 2 + 1)(row).mask is row.mask
    assert wrappers_core.Lambda(lambda x: x, mask=lambda x, mask: None)(row).mask is None
    with pytest.warns(MaskWarning, match="loses it"):
        assert wrappers_core.Lambda(lambda x: ops.sum(x, axis=1))(row).mask is None

    def masked_mean(x, mask):
        kept = ops.cast(ops.expand_dims(mask, -1), "float32")
        return ops.sum(x * kept, axis=1) / ops.maximum(ops.sum(kept, axis=1), 1.0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = wrappers_core.Lambda(masked_mean)(row)
    assert y.mask is None
    got = ops.convert_to_numpy(cornu.Model(word, y)(ids))
    rows = row.node.operation.get_weights()[0]
    np.testing.assert_allclose(got, [(rows[3] + rows[1]) / 2, rows[6]], rtol=1e-5)
    value = ops.convert_to_tensor(X)
    set_mask(value, np.ones((2, 3), bool))
    assert mask_of(wrappers_core.Lambda(lambda x: x * 2)(value)) is not None
