"""Attention layers against Keras: numbers, masks, scores, gradients, weights and their names."""

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.core.errors import ArgumentError, ShapeError, UnsupportedError
from cornu.graph.masks import mask_of, set_mask
from cornu.layers import attention
from cornu.random import at_step as clock

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


Q, V, K = normal(2, 4, 6), normal(2, 5, 6), normal(2, 5, 3)
SEEN = RNG.random((2, 4, 5)) > 0.4
SEEN[0, 1] = False  # a query that may see nothing
MHA, GQA = "MultiHeadAttention", "GroupQueryAttention"
HEADS = {"num_heads": 3, "key_dim": 2}
GROUPS = {"head_dim": 2, "num_query_heads": 4, "num_key_value_heads": 2}

# name, arguments, inputs, call arguments
CASES = [
    (MHA, HEADS, (Q, V), {}),
    (MHA, HEADS, (Q, V, K), {"attention_mask": SEEN}),
    (MHA, HEADS, (Q, V), {"attention_mask": SEEN, "return_attention_scores": True}),
    (MHA, HEADS, (Q, V), {"use_causal_mask": True}),
    (MHA, HEADS, (Q, V), {"use_causal_mask": True, "return_attention_scores": True, "attention_mask": SEEN[:1, :1]}),
    # (Keras's fused attention fails where value_dim is not key_dim.)
    (MHA, {**HEADS, "value_dim": 4, "output_shape": 7, "use_bias": False, "dropout": 0.5}, (Q, V),
     {"attention_mask": SEEN[:, None]}),
    (MHA, {**HEADS, "use_gate": True, "sliding_window": 2, "output_shape": (2, 3)}, (Q, V), {"use_causal_mask": True}),
    (MHA, {**HEADS, "dropout": 0.5}, (Q, V), {"attention_mask": SEEN, "use_causal_mask": True}),
    (MHA, HEADS, (normal(2, 3, 4, 6), normal(2, 3, 4, 6)), {}),
    (MHA, {**HEADS, "attention_axes": 2}, (normal(2, 3, 4, 6), normal(2, 3, 5, 6)), {"return_attention_scores": True}),
    (MHA, {**HEADS, "attention_axes": (-2,)}, (normal(2, 3, 4, 6), normal(2, 3, 5, 6)),
     {"attention_mask": SEEN[:, None]}),
    (GQA, GROUPS, (Q, V), {}),
    (GQA, GROUPS, (Q, V, K), {"attention_mask": SEEN, "return_attention_scores": True}),
    (GQA, {**GROUPS, "use_gate": True, "use_bias": False}, (Q, V), {"use_causal_mask": True}),
    (GQA, {**GROUPS, "sliding_window": 2, "dropout": 0.1}, (Q, V), {"use_causal_mask": True}),
    ("Attention", {}, ([Q, V],), {}),
    ("Attention", {"use_scale": True}, ([Q, V, normal(2, 5, 6)],), {"use_causal_mask": True}),
    ("Attention", {"score_mode": "concat", "use_scale": True}, ([Q, V],), {"return_attention_scores": True}),
    ("Attention", {"score_mode": "concat"}, ([Q, V],), {"mask": [SEEN[:, :, 0], SEEN[:, 0]]}),
    ("Attention", {}, ([Q, V],),
     {"mask": [None, SEEN[:, 1]], "use_causal_mask": True, "return_attention_scores": True}),
    ("AdditiveAttention", {}, ([Q, V],), {"mask": [SEEN[:, :, 0], SEEN[:, 1]]}),
    ("AdditiveAttention", {"use_scale": False}, ([Q, V],), {"use_causal_mask": True}),
]  # fmt: skip


_judges = {}


def pair(name, arguments, inputs):
    """A layer and Keras's (made once), with the same weights."""
    key = repr((name, arguments, [[y.shape for y in x] if isinstance(x, list) else x.shape for x in inputs]))
    if key not in _judges:
        theirs = _judges[key] = getattr(keras.layers, name)(**arguments)
        if name.startswith(("Multi", "Group")):
            theirs.build(*(x.shape for x in inputs))
        else:
            theirs.build([x.shape for x in inputs[0]])
        rng = np.random.default_rng(1)
        theirs.set_weights([rng.normal(size=w.shape).astype("float32") for w in theirs.get_weights()])
    ours, theirs = getattr(attention, name)(**arguments), _judges[key]
    ours.compute_output_spec(*inputs)
    ours.set_weights(theirs.get_weights())
    return ours, theirs


_wanted = {}


def once(key, compute):
    """What Keras answers, computed for the first engine only."""
    if key not in _wanted:
        _wanted[key] = compute()
    return _wanted[key]


def leaves(outputs):
    return [ops.convert_to_numpy(y) for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.parametrize("at", range(len(CASES)))
def test_the_numbers_are_those_of_keras(engine, at):
    name, arguments, inputs, call = CASES[at]
    ours, theirs = pair(name, arguments, inputs)
    want = once(("numbers", at), lambda: theirs(*inputs, **call))
    want = [np.asarray(y) for y in (want if isinstance(want, tuple) else (want,))]
    assert not any(np.isnan(y).any() for y in want)
    symbolic = [
        [cornu.Input(y.shape[1:]) for y in x] if isinstance(x, list) else cornu.Input(x.shape[1:]) for x in inputs
    ]
    model = cornu.Model(symbolic, ours(*symbolic, **call))
    for outputs in (ours(*inputs, **call), model(list(inputs))):
        got = leaves(outputs) if not isinstance(outputs, list) else leaves(tuple(outputs))
        assert len(got) == len(want)
        for mine, other in zip(got, want, strict=True):
            np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)
    shapes = model.output_shape if len(want) > 1 else [model.output_shape]
    assert [tuple(s)[1:] for s in shapes] == [y.shape[1:] for y in want]
    paths = [w.path.split("/", 1)[1] for w in theirs.weights]
    assert [w.path.split("/", 1)[1] for w in ours.weights] == paths
    assert set(ours.get_config()) >= set(theirs.get_config())
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()


@pytest.mark.parametrize("at", [1, 10, 13, 20])
def test_the_gradients_are_those_of_keras(engine, at):
    name, arguments, inputs, call = CASES[at]
    ours, theirs = pair(name, arguments, inputs)
    values = [[cornu.Variable(y) for y in x] if isinstance(x, list) else cornu.Variable(x) for x in inputs]

    def first(outputs):
        return outputs[0] if isinstance(outputs, tuple) else outputs

    wanted = [values, ours.trainable_variables]
    _, mine = value_and_grad(lambda: ops.sum(ops.sin(first(ours(*values, **call)))), wanted)()
    rest = [v.value for v in theirs.non_trainable_variables]

    def loss(inputs, weights):
        return jax.numpy.sum(jax.numpy.sin(first(theirs.stateless_call(weights, rest, *inputs, **call)[0])))

    weights = [v.value for v in theirs.trainable_variables]
    want = once(("gradients", at), lambda: jax.jit(jax.grad(loss, (0, 1)))(list(inputs), weights))
    for got, other in zip(cornu.tree.leaves(mine), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), np.asarray(other), rtol=2e-4, atol=2e-4)


MASKS = np.array([[True, False, True, False], [False] * 4]), np.array([[True, True, False, False, True]] * 2)


def with_mask(x, mask, library):
    if library is keras:
        value = keras.ops.convert_to_tensor(x.copy())
        keras.src.backend.set_keras_mask(value, keras.ops.convert_to_tensor(mask))
        return value
    value = ops.convert_to_tensor(x.copy())
    set_mask(value, ops.convert_to_tensor(mask))
    return value


@pytest.mark.parametrize("name, arguments, call", [
    (MHA, HEADS, {}),
    (MHA, HEADS, {"return_attention_scores": True}),
    (MHA, HEADS, {"use_causal_mask": True, "attention_mask": SEEN[:1, :1]}),
    (MHA, {**HEADS, "dropout": 0.1}, {}),
    (GQA, GROUPS, {"use_causal_mask": True}),
    ("Attention", {}, {"use_causal_mask": True}),
    ("AdditiveAttention", {}, {}),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*destroy the mask information")
def test_masks_arrive_by_themselves(engine, name, arguments, call):
    one = name in ("Attention", "AdditiveAttention")
    ours, theirs = pair(name, arguments, ([Q, V],) if one else (Q, V))
    found = []
    for layer, library in ((ours, cornu), (theirs, keras)):
        parts = [with_mask(x, mask, library) for x, mask in zip((Q, V), MASKS, strict=True)]
        found.append(layer(parts, **call) if one else layer(*parts, **call))
    want = [np.asarray(y) for y in (found[1] if isinstance(found[1], tuple) else (found[1],))]
    for mine, other in zip(leaves(found[0]), want, strict=True):
        assert not np.isnan(mine).any()
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)
    output = found[0][0] if isinstance(found[0], tuple) else found[0]
    np.testing.assert_array_equal(ops.convert_to_numpy(mask_of(output)), MASKS[0])
    # In a graph too.
    words = [cornu.Input((None,), dtype="int32") for _ in MASKS]
    rows = [cornu.layers.Embedding(3, 6, mask_zero=True, weights=normal(3, 6))(word) for word in words]
    y = ours(rows, **call) if one else ours(*rows, **call)
    y = y[0] if isinstance(y, (tuple, list)) else y
    assert y.shape == (None, None, 6) and y.mask is rows[0].mask
    ids = [np.where(mask, 2, 0).astype("int32") for mask in MASKS]
    got = ops.convert_to_numpy(cornu.Model(words, y)(ids))
    data = [row.node.operation.get_weights()[0][i] for row, i in zip(rows, ids, strict=True)]
    parts = [with_mask(x, mask, keras) for x, mask in zip(data, MASKS, strict=True)]
    want = theirs(parts, **call) if one else theirs(*parts, **call)
    np.testing.assert_allclose(got, np.asarray(want[0] if isinstance(want, tuple) else want), rtol=2e-5, atol=2e-5)


def test_a_mask_given_by_hand(engine):
    ours, theirs = pair(MHA, {**HEADS, "dropout": 0.1}, (Q, V))
    masks = {"query_mask": MASKS[0], "value_mask": MASKS[1]}
    want = theirs(Q, V, attention_mask=MASKS[0][:, :, None] & MASKS[1][:, None])
    np.testing.assert_allclose(ops.convert_to_numpy(ours(Q, V, **masks)), np.asarray(want), rtol=2e-5, atol=2e-5)


def test_dropout_of_scores():
    x = normal(2, 8, 6)
    for name, arguments in ((MHA, {**HEADS, "dropout": 0.5}), ("Attention", {"dropout": 0.5})):
        found = []
        for engine in ("numpy", "jax"):
            with cornu.engine(engine), clock(np.int32(3)):
                layer = getattr(attention, name)(**arguments, seed=5, name="attend")
                inputs = ([x, x],) if name == "Attention" else (x, x)
                layer(*inputs)
                rng = np.random.default_rng(1)
                layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
                found.append(ops.convert_to_numpy(layer(*inputs, training=True)))
                assert np.abs(found[-1] - ops.convert_to_numpy(layer(*inputs))).max() > 1e-3
        np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
        assert isinstance(layer.get_config()["seed"], int)


def test_weights_are_drawn_apart_and_held():
    x = cornu.Input((None, 6))
    layer = attention.MultiHeadAttention(2, 3, kernel_regularizer="l2", activity_regularizer="l1")
    layer(x, x)
    query, key = layer.query_dense.kernel.numpy(), layer.key_dense.kernel.numpy()
    assert query.shape == key.shape and (query != key).any()
    assert layer.activity_regularizer is None and layer.query_dense.activity_regularizer is not None
    assert layer.get_config()["activity_regularizer"] is layer.query_dense.activity_regularizer
    again = attention.MultiHeadAttention.from_config(layer.get_config())
    again.build_from_config(layer.get_build_config())
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]


def test_mixed_precision():
    for at, policy in ((2, "mixed_float16"), (3, "mixed_bfloat16"), (18, "mixed_float16")):
        name, arguments, inputs, call = CASES[at]
        layer = getattr(attention, name)(**arguments, dtype=policy)
        with cornu.engine("numpy"):
            for got in leaves(layer(*inputs, **call)):
                assert str(got.dtype) == policy[6:] and np.isfinite(got.astype("float32")).all()


def test_wrong_arguments():
    make = attention.MultiHeadAttention
    for wrong in (
        lambda: make(0, 2),
        lambda: make(2, 2.5),
        lambda: make(2, 2, value_dim=0),
        lambda: make(2, 2, dropout=1.0),
        lambda: make(2, 2, sliding_window=0),
        lambda: make(2, 2, attention_axes="1"),
        lambda: make(2, 2, attention_axes=2)(Q, V),
        lambda: attention.GroupQueryAttention(2, 3, 2),
        lambda: attention.Attention(score_mode="sum"),
        lambda: attention.Attention()(Q),
        lambda: attention.Attention()([Q]),
        lambda: attention.Attention()([Q, V], mask=SEEN),
    ):
        with pytest.raises(ArgumentError):
            wrong()
    with pytest.raises(ShapeError):
        make(2, 2)(Q, V, Q)
    with pytest.raises(ShapeError):
        attention.GroupQueryAttention(2, 2, 2)(Q[0], V[0])
    with pytest.raises(UnsupportedError):
        make(2, 2, flash_attention=True)
