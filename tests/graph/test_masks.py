"""Masks travel: through arithmetic, merging, layers of one's own, nested and subclassed models, to the loss; none is lost in silence."""

import keras
import numpy as np
import pytest

import cornu
from cornu import layers, ops
from cornu.core.errors import MaskError, MaskWarning

IDS = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
MASK = IDS != 0


class Affine(layers.Layer):
    """Elementwise, and knows nothing of masks."""

    def call(self, x):
        return x * 2.0 + 1.0


class Summed(layers.Layer):
    """The sum over time of what counts."""

    def call(self, x, mask=None):
        return ops.sum(x if mask is None else x * ops.cast(ops.expand_dims(mask, -1), x.dtype), axis=1)


class Pooled(layers.Layer):
    """Loses the mask."""

    def call(self, x):
        return ops.mean(x, axis=1)


class Holder(layers.Layer):
    """Calls layers in its own `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.affine, self.summed = Affine(), Summed()

    def call(self, x):
        return self.summed(self.affine(x))


class Encoder(cornu.Model):
    """Makes a mask inside."""

    def __init__(self, arithmetic=False, **kwargs):
        super().__init__(**kwargs)
        self.arithmetic = arithmetic
        self.embedding, self.affine = embedding(), Affine()

    def call(self, x):
        x = self.affine(self.embedding(x))
        return x * 3 if self.arithmetic else x


class Whole(cornu.Model):
    """A subclass from the ids to the sum."""

    def __init__(self, arithmetic=False):
        super().__init__()
        self.arithmetic = arithmetic
        self.embedding, self.affine, self.summed = embedding(), Affine(), Summed()

    def call(self, x):
        x = self.affine(self.embedding(x))
        return self.summed(x * 3 if self.arithmetic else x)


def embedding(name=None):
    return layers.Embedding(5, 3, mask_zero=True, name=name)


def ids():
    return cornu.Input((4,), dtype="int32")


def arithmetic(e):
    x = ids()
    y = e(x)
    return x, ops.tanh(y * 2 + np.ones((4, 3), "float32")) - y, lambda v: np.tanh(v * 2 + 1) - v


def own_layer(e):
    x = ids()
    return x, Affine()(e(x)), lambda v: v * 2 + 1


def merged(e):
    x = ids()
    y = e(x)
    return x, layers.Add()([y, layers.Multiply()([y, y])]), lambda v: v + v * v


def several_ops(e):
    x = ids()
    y = e(x)
    y = ops.concatenate([y, ops.ones_like(y)], axis=-1)[:, :, 1:4]
    return (
        x,
        ops.softmax(ops.reshape(y, (-1, 4, 3)), axis=-1),
        lambda v: _softmax(np.stack([v[..., 1], v[..., 2], np.ones(v.shape[:2])], -1)),
    )


def dense(e):
    x = ids()
    kernel = np.arange(9.0, dtype="float32").reshape(3, 3)
    return x, ops.matmul(e(x), kernel), lambda v: v @ kernel


def through_a_nested_model(e):
    x, inner = ids(), cornu.Input((4, 3))
    model = cornu.Model(inner, [inner + 1, Affine()(inner) * 3])
    return x, model(e(x))[1], lambda v: (v * 2 + 1) * 3


def made_in_a_nested_model(e):
    x, inner = ids(), ids()
    return x, cornu.Model(inner, e(inner) * 2)(x) + 1, lambda v: v * 2 + 1


def through_a_sequential(e):
    x = ids()
    return x, cornu.Sequential([Affine(), layers.Activation("tanh")])(e(x)), lambda v: np.tanh(v * 2 + 1)


def made_in_a_subclass(e):
    x = ids()
    encoder = Encoder()
    encoder.embedding = e
    return x, encoder(x) * 2, lambda v: (v * 2 + 1) * 2


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


WAYS = [
    arithmetic, own_layer, merged, several_ops, dense, through_a_nested_model, made_in_a_nested_model, through_a_sequential,
    made_in_a_subclass,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_arrives(way, engine):
    e = embedding()
    x, y, function = way(e)
    model = cornu.Model(x, Summed()(y))
    wanted = (function(e.get_weights()[0][IDS]) * MASK[..., None]).sum(1)
    np.testing.assert_allclose(model.predict(IDS, verbose=0), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model(IDS), wanted, rtol=1e-5, atol=1e-5)
    again = (
        cornu.models.clone_model(model)
        if way is not made_in_a_subclass
        else cornu.Model.from_config(model.get_config())
    )
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again(IDS), wanted, rtol=1e-5, atol=1e-5)


def test_layers_inside_a_layer_get_the_mask(engine):
    e, x = embedding(), ids()
    model = cornu.Model(x, Holder()(e(x) * 3))
    wanted = ((e.get_weights()[0][IDS] * 6 + 1) * MASK[..., None]).sum(1)
    np.testing.assert_allclose(model.predict(IDS, verbose=0), wanted, rtol=1e-5, atol=1e-5)


def test_a_subclassed_model_carries_masks_between_layers(engine):
    model = Whole()
    found = np.asarray(model(IDS))
    wanted = ((model.embedding.get_weights()[0][IDS] * 2 + 1) * MASK[..., None]).sum(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.predict(IDS, verbose=0), wanted, rtol=1e-5, atol=1e-5)
    model.compile("sgd", "mse")
    history = model.fit(IDS, np.zeros((2, 3)), batch_size=2, verbose=0)
    assert history.history["loss"][0] == pytest.approx((wanted**2).mean(), rel=1e-4)


@pytest.mark.parametrize("kind", [Whole, Encoder])
def test_arithmetic_between_layers_of_a_call_warns(kind):
    with pytest.warns(MaskWarning, match=r"arithmetic.*multiply.*test_masks.py"):
        kind(arithmetic=True)(ids())


def lstm(k, mask):
    x = k.Input((4, 3))
    if mask == "given":
        return k.Model(x, k.layers.LSTM(2)(x * 2 + 1, mask=k.ops.any(k.ops.not_equal(x, 0.0), axis=-1)))
    if mask == "layers":
        return k.Model(x, k.layers.LSTM(2)(k.layers.Activation("tanh")(k.layers.Masking()(x))))
    return k.Model(x, k.layers.LSTM(2)(k.layers.Masking()(x) * 2 + 1))


def test_lstm_behind_arithmetic(engine):
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")
    x[0, 2:], x[2, 1:] = 0, 0
    models = {mask: lstm(cornu, mask) for mask in ("given", "travels", "layers")}
    for model in models.values():
        model.set_weights(models["given"].get_weights())
    found = {mask: model.predict(x, verbose=0) for mask, model in models.items()}
    np.testing.assert_allclose(found["travels"], found["given"], rtol=1e-5, atol=1e-6)
    theirs = {mask: lstm(keras, mask) for mask in ("given", "layers")}  # Keras loses it in arithmetic
    for mask, model in theirs.items():
        model.set_weights(models["given"].get_weights())
        np.testing.assert_allclose(found[mask], model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_an_op_that_would_lose_it():
    y = embedding(name="words")(ids())
    for lose in (lambda t: ops.mean(t, axis=1), lambda t: ops.transpose(t, (1, 0, 2)), lambda t: ops.flip(t, axis=1)):
        with pytest.raises(MaskError, match=r"'words'.*cornu.ops.*") as caught:
            lose(y)
        assert "drop_mask" in str(caught.value) and "test_masks.py" in str(caught.value)
        lose(ops.drop_mask(y))
    inner = cornu.Input((4, 3))
    with pytest.raises(MaskError, match=r"cornu\.ops\.mean"):
        cornu.Model(inner, ops.mean(inner, axis=1))(y)


def test_a_layer_that_loses_it():
    y = embedding()(ids())
    with pytest.warns(MaskWarning, match=r"'pooled'.*test_masks.py"):
        Pooled(name="pooled")(y)
    cornu.set_strict(True)
    try:
        with pytest.raises(MaskError, match="'pooled'"):
            Pooled(name="pooled")(y)
    finally:
        cornu.set_strict(False)
    Pooled()(ops.drop_mask(y))


def test_a_cut_at_a_masked_tensor_says_so():
    x = ids()
    y = embedding()(x)
    with pytest.warns(MaskWarning, match="begins at"):
        tail = cornu.Model(y, layers.LSTM(2)(y))
    head = cornu.Model(x, y)
    whole = cornu.Model(x, tail(head(x)))
    wanted = tail(head(IDS), mask=MASK)
    np.testing.assert_allclose(whole(IDS), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tail(head(IDS)), wanted, rtol=1e-5, atol=1e-6)


def direct(e):
    x = ids()
    return cornu.Model(x, e(x) * 2), 2


def nested(e):
    x, inner = ids(), ids()
    return cornu.Model(x, cornu.Model(inner, e(inner))(x) * 2), 2


def stacked(e):
    return cornu.Sequential([e, layers.Activation("linear")]), 1


@pytest.mark.parametrize("make", [direct, nested, stacked])
def test_the_mask_reaches_the_loss(make, engine):
    e = embedding()
    model, factor = make(e)
    model(IDS)
    model.compile(cornu.optimizers.SGD(0.0), "mse", weighted_metrics=["mse"])
    y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    each = ((factor * e.get_weights()[0][IDS] - y) ** 2).mean(-1)
    wanted = (each * MASK).sum() / MASK.sum()
    for found in (model.fit(IDS, y, verbose=0).history, model.evaluate(IDS, y, verbose=0, return_dict=True)):
        np.testing.assert_allclose(found["loss"], wanted, rtol=1e-5)
        np.testing.assert_allclose(found["mse"], wanted, rtol=1e-5)


def test_masks_leave_no_trace_in_the_config():
    x = ids()
    model = cornu.Model(x, layers.LSTM(2)(embedding()(x) * 2))
    config = model.get_config()
    assert [layer["class_name"] for layer in config["layers"]] == ["InputLayer", "Embedding", "Multiply", "LSTM"]
    assert config["layers"][-1]["inbound_nodes"][0]["kwargs"] == {}


def test_masked_positions_do_not_count_in_metrics(engine):
    """Wrong answers at hidden positions leave the accuracy at 1 (Keras counts them in unweighted metrics)."""
    ids = cornu.Input((None,), dtype="int32")
    vectors = layers.Embedding(5, 4, mask_zero=True)(ids)
    model = cornu.Model(ids, layers.Dense(5, activation="softmax")(vectors))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.array([[1, 2, 0, 0]])
    y = model.predict(x, verbose=0).argmax(-1)
    y[0, 2:] = (y[0, 2:] + 1) % 5
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] == 1.0
