"""Losses: the same numbers as Keras, on each engine; and errors where Keras would broadcast."""

import keras
import numpy as np
import pytest

import cornu
from cornu import losses, ops
from cornu.autodiff import value_and_grad
from cornu.core import context
from cornu.core.dims import BATCH, Dim
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.spec import Spec

rng = np.random.default_rng(0)
REAL = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(4, 3)).astype("float32")
POSITIVE = np.abs(REAL[0]), np.abs(REAL[1]) + 0.1
BITS = (rng.random((4, 3)) > 0.5).astype("float32"), rng.random((4, 3)).astype("float32")
SCORES = rng.normal(size=(4, 5)).astype("float32")
CHANCES = np.exp(SCORES) / np.exp(SCORES).sum(-1, keepdims=True)
LABELS = np.array([0, 3, 4, 1])
ONE_HOT = np.eye(5, dtype="float32")[LABELS]
SEQUENCE = rng.random((4, 2, 5)).astype("float32")
SEQUENCE_LABELS = rng.integers(0, 5, (4, 2))
UNIT = (SCORES / np.linalg.norm(SCORES, axis=-1, keepdims=True)).astype("float32")

CASES = [
    ("MeanSquaredError", {}, *REAL),
    ("MeanSquaredError", {}, REAL[0][:, :1], REAL[1][:, 0]),
    ("MeanSquaredError", {}, SEQUENCE[::-1], SEQUENCE),
    ("MeanAbsoluteError", {}, REAL[0][:, 0], REAL[1][:, :1]),
    ("MeanAbsolutePercentageError", {}, *REAL),
    ("MeanSquaredLogarithmicError", {}, *POSITIVE),
    ("CosineSimilarity", {}, *REAL),
    ("CosineSimilarity", {"axis": 0}, *REAL),
    ("Huber", {"delta": 0.7}, *REAL),
    ("LogCosh", {}, *REAL),
    ("Hinge", {}, np.sign(REAL[0]), REAL[1]),
    ("Hinge", {}, BITS[0], REAL[1]),
    ("SquaredHinge", {}, BITS[0], REAL[1]),
    ("CategoricalHinge", {}, ONE_HOT, SCORES),
    ("BinaryCrossentropy", {}, *BITS),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, BITS[0], REAL[1]),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True}, *BITS),
    ("BinaryFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.1, "gamma": 1.5}, BITS[0], REAL[1]),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, ONE_HOT, CHANCES),
    ("CategoricalCrossentropy", {"from_logits": True}, ONE_HOT, SCORES),
    ("CategoricalFocalCrossentropy", {}, ONE_HOT, CHANCES),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "alpha": [0.1, 0.2, 0.3, 0.4, 0.5]}, ONE_HOT, SCORES),
    ("SparseCategoricalCrossentropy", {}, LABELS, CHANCES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS[:, None], SCORES),
    ("SparseCategoricalCrossentropy", {"ignore_class": 3}, LABELS, CHANCES),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1, "from_logits": True}, SEQUENCE_LABELS, SEQUENCE),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.3}, LABELS, CHANCES),
    ("KLDivergence", {}, ONE_HOT, CHANCES),
    ("Poisson", {}, *POSITIVE),
    ("Dice", {}, *BITS),
    ("Dice", {"axis": (1,)}, *BITS),
    ("Tversky", {"alpha": 0.3, "beta": 0.8, "axis": 1}, *BITS),
    ("Circle", {"gamma": 10.0}, np.array([0, 1, 0, 1]), UNIT),
    ("CTC", {}, np.array([[1, 2, 2, 0], [3, 0, 0, 0]]), rng.normal(size=(2, 7, 5)).astype("float32")),
]  # fmt: skip
IDS = [f"{case[0]}-{i}" for i, case in enumerate(CASES)]


def weights_for(shape):
    yield None
    if shape:
        yield rng.random((shape[0],) + (1,) * (len(shape) - 1)).astype("float32")
        yield rng.random(shape).astype("float32")
    yield 0.5


@pytest.mark.parametrize(("name", "options", "y_true", "y_pred"), CASES, ids=IDS)
def test_same_as_keras(name, options, y_true, y_pred):
    theirs = getattr(keras.losses, name)(reduction="none", **options)
    every = name in ("MeanSquaredError", "SparseCategoricalCrossentropy", "Dice")  # all reductions and weights
    for reduction in ("sum_over_batch_size", "mean_with_sample_weight", "none")[: 3 if every else 1]:
        for weights in weights_for(np.asarray(theirs.call(y_true, y_pred)).shape) if every else (None,):
            theirs.reduction = reduction
            expected = np.asarray(theirs(y_true, y_pred, sample_weight=weights))
            for engine in ("numpy", "jax") if name != "CTC" else ("numpy",):  # JAX would compile the loop each time
                with cornu.engine(engine):
                    loss = getattr(losses, name)(reduction=reduction, **options)
                    found = ops.convert_to_numpy(loss(y_true, y_pred, sample_weight=weights))
                np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=f"{engine} {reduction}")
                assert found.dtype == np.float32


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"])
def test_mask(engine, reduction):
    mask = np.array([[1, 0], [1, 1], [0, 0], [1, 1]], bool)
    for weights in (None, rng.random((4, 2)).astype("float32"), rng.random((4, 1)).astype("float32")):
        y_pred = keras.ops.convert_to_tensor(SEQUENCE)
        keras.src.backend.set_keras_mask(y_pred, keras.ops.convert_to_tensor(mask))
        theirs = keras.losses.SparseCategoricalCrossentropy(ignore_class=2, reduction=reduction)
        ours = losses.SparseCategoricalCrossentropy(ignore_class=2, reduction=reduction)
        expected = theirs(SEQUENCE_LABELS, y_pred, sample_weight=weights)
        found = ours(SEQUENCE_LABELS, SEQUENCE, sample_weight=weights, mask=mask)
        np.testing.assert_allclose(ops.convert_to_numpy(found), np.asarray(expected), rtol=1e-5)
    # a mask leads: it is lined up with the batch, whatever the rank of the losses
    only_first = losses.MeanSquaredError()(SEQUENCE, SEQUENCE + 1.0, mask=np.array([1, 0, 0, 0]))
    np.testing.assert_allclose(float(only_first), 1.0, rtol=1e-6)


REFUSED = [
    ("mean_squared_error", (4, 1), (4, 3), "end the model with one unit"),
    ("mean_squared_error", (4,), (4, 3), "end the model with one unit"),
    ("mean_absolute_error", (4, 3), (1, 3), "nothing is broadcast"),
    ("binary_crossentropy", (4, 1), (4, 3), "end the model with one unit"),
    ("categorical_crossentropy", (4,), (4, 3), "one_hot"),
    ("categorical_crossentropy", (4, 1), (4, 3), "one_hot"),
    ("kl_divergence", (4, 1), (4, 3), "one_hot"),
    ("hinge", (4,), (4, 3), "end the model with one unit"),
    ("sparse_categorical_crossentropy", (4, 3), (4, 3), "argmax"),
    ("sparse_categorical_crossentropy", (3,), (4, 3), "one class number"),
    ("dice", (4, 1), (4, 3), "end the model with one unit"),
    ("circle", (3,), (4, 3), None),
    ("ctc", (3, 2), (4, 5, 3), None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "true", "pred", "advice"), REFUSED)
def test_shapes_are_never_broadcast(name, true, pred, advice):
    with pytest.raises(ShapeError) as info:
        getattr(losses, name)(np.ones(true, "float32"), np.ones(pred, "float32"))
    text = str(info.value)
    assert str(true) in text and str(pred) in text
    assert advice is None or advice in text


@pytest.mark.parametrize(
    ("values", "weights"), [((4, 2), (4,)), ((4, 4), (4,)), ((4,), (4, 2)), ((4, 1), (4, 2)), ((4,), (3,))]
)
def test_weights_that_do_not_fit(values, weights):
    loss = losses.LossFunctionWrapper(lambda y_true, y_pred: y_pred)
    with pytest.raises(ShapeError, match="weights of shape"):
        loss(np.ones(values, "float32"), np.ones(values, "float32"), sample_weight=np.ones(weights, "float32"))


def test_one_class_is_warned_of():
    with pytest.warns(SyntaxWarning, match="one class"):
        losses.CategoricalCrossentropy()(np.ones((2, 1)), np.ones((2, 1)))
    with pytest.warns(SyntaxWarning, match="one class"):
        losses.SparseCategoricalCrossentropy()(np.zeros((2, 1)), np.ones((2, 1)))


def test_unknown_sizes():
    with context.abstract():
        for name in ("MeanSquaredError", "BinaryCrossentropy", "CategoricalCrossentropy", "Huber", "Dice"):
            loss = getattr(losses, name)()
            spec = loss(Spec((BATCH, 3), "float32"), Spec((BATCH, 3), "float32"), mask=Spec((BATCH,), "bool"))
            assert spec.shape == () and spec.dtype == "float32", name
        loss = losses.SparseCategoricalCrossentropy(reduction=None, ignore_class=0)
        time = Dim("time")
        spec = loss(Spec((BATCH, time), "int32"), Spec((BATCH, time, 7), "float32"))
        assert spec.shape == (BATCH, time)
        with pytest.raises(ShapeError, match="batch, k"):
            losses.MeanSquaredError()(Spec((BATCH,), "float32"), Spec((BATCH, Dim("k")), "float32"))


def test_gradient_where_all_is_ignored():
    for loss, y_true in (
        (losses.SparseCategoricalCrossentropy(ignore_class=3), np.full(4, 3)),
        (losses.Circle(), np.arange(4)),
    ):
        w = cornu.Variable(np.ones((4, 5), "float32"))
        with cornu.engine("numpy"):
            gradient = value_and_grad(lambda x, loss=loss, y=y_true, w=w: loss(y, x * w), w)(np.abs(UNIT))[1]
        assert np.isfinite(ops.convert_to_numpy(gradient)).all()


def test_classes_and_functions_by_name():
    for name, thing in keras.src.losses.ALL_OBJECTS_DICT.items():
        if name in ("Loss", "LossFunctionWrapper"):
            continue
        ours = losses.get(name)
        if isinstance(thing, type):
            assert type(ours).__name__ == thing.__name__
            theirs = thing()
            assert ours.name == theirs.name
            config = theirs.get_config()
            made = losses.deserialize(keras.losses.serialize(theirs))
            assert {key: made.get_config()[key] for key in config} == config
            again = losses.deserialize(losses.serialize(made))
            assert again.get_config() == made.get_config()
        else:
            assert ours.__name__ == thing.__name__
            assert losses.deserialize(keras.losses.serialize(thing)) is ours
            assert losses.deserialize(losses.serialize(ours)) is ours
    wrapped = losses.deserialize(losses.serialize(losses.LossFunctionWrapper(losses.huber, delta=2.0)))
    assert wrapped.fn is losses.huber and wrapped.get_config()["delta"] == 2.0
    assert losses.get(None) is None
    with pytest.raises(ArgumentError, match="did you mean 'mean_squared_error'"):
        losses.get("mean_squard_error")
    with pytest.raises(ArgumentError):
        losses.get(3)
    with pytest.raises(ArgumentError, match="reduction"):
        losses.MeanSquaredError(reduction="average")


class Pinball(losses.Loss):
    """A user's loss that forgets `super().__init__`."""

    def __init__(self, tau=0.5):
        self.tau = tau

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.tau * error, (self.tau - 1) * error), axis=-1)


def test_users_class(engine):
    loss = Pinball(0.9, name="quantile", reduction="sum")
    assert loss.name == "quantile" and loss.reduction == "sum" and Pinball().name.startswith("pinball")
    np.testing.assert_allclose(float(loss([[1.0], [0.0]], [[0.0], [1.0]])), 1.0, rtol=1e-6)
    assert losses.deserialize(losses.serialize(loss)).tau == 0.9


def test_structures_and_lists(engine):
    def total(y_true, y_pred):
        return ops.abs(y_true["a"] - y_pred["a"]) + ops.abs(y_true["b"] - y_pred["b"])

    y_true = {"a": np.ones(3, "float32"), "b": np.zeros((3, 1), "float32")}
    y_pred = {"a": np.zeros((3, 1), "float32"), "b": np.ones(3, "float32")}
    assert float(losses.LossFunctionWrapper(total)(y_true, y_pred)) == 2.0
    assert float(losses.MeanSquaredError()([0, 2], [0, 0])) == 2.0


def test_many_classes_in_half_precision():
    y_pred = np.zeros((1, 3000), "float32")
    y_pred[0, 2049] = 100.0
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float16")
    assert float(loss(np.array([2049]), y_pred)) == 0.0  # 2049 is no float16


@pytest.mark.parametrize(
    ("true", "pred", "name"),
    [
        ((8,), (8, 1), "binary"),
        ((8,), (8,), "binary"),
        ((8, 3), (8, 3), "categorical"),
        ((8, 1), (8, 3), "sparse"),
        ((8, 2), (8, 2, 3), "sparse"),
    ],
)
def test_crossentropy_by_shapes(true, pred, name):
    wanted = "sparse_categorical_crossentropy" if name == "sparse" else f"{name}_crossentropy"
    assert losses.crossentropy_for(true, pred).__name__ == wanted
