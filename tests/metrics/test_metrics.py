"""Metrics: the same numbers as Keras over several batches, on each engine; state, names, and errors."""

import keras
import numpy as np
import pytest

import cornu
from cornu import metrics, ops
from cornu.core import context
from cornu.core.config import Configurable
from cornu.core.dims import BATCH, Dim
from cornu.core.errors import ArgumentError, CornuWarning, ShapeError
from cornu.core.spec import Spec

rng = np.random.default_rng(0)
BATCHES, SIZE, CLASSES = 2, 6, 4


def real(*shape):
    return rng.normal(size=(BATCHES, *shape)).astype("float32")


def bits(*shape):
    return (rng.random((BATCHES, *shape)) > 0.4).astype("float32")


def chances(*shape):
    e = np.exp(real(*shape))
    return e / e.sum(-1, keepdims=True)


def labels(*shape):
    return rng.integers(0, CLASSES, (BATCHES, *shape))


REAL = real(SIZE, 3), real(SIZE, 3)
POSITIVE = np.abs(REAL[0]), np.abs(REAL[1]) + 0.1
BITS = bits(SIZE, 3), rng.random((BATCHES, SIZE, 3)).astype("float32")
ROW = bits(SIZE), rng.random((BATCHES, SIZE)).astype("float32")
SPARSE = labels(SIZE), chances(SIZE, CLASSES)
HOT = np.eye(CLASSES, dtype="float32")[SPARSE[0]], SPARSE[1]
STEPS = labels(SIZE, 2), chances(SIZE, 2, CLASSES)
AREAS = labels(SIZE, 3), labels(SIZE, 3)

CASES = [
    ("MeanSquaredError", {}, *REAL),
    ("MeanSquaredError", {}, REAL[0][..., 0], REAL[1][..., :1]),
    ("RootMeanSquaredError", {}, *REAL),
    ("MeanAbsoluteError", {}, *REAL),
    ("MeanAbsolutePercentageError", {}, *REAL),
    ("MeanSquaredLogarithmicError", {}, *POSITIVE),
    ("CosineSimilarity", {}, *REAL),
    ("LogCoshError", {}, *REAL),
    ("PearsonCorrelation", {}, *REAL),
    ("ConcordanceCorrelation", {}, *REAL),
    ("R2Score", {}, *REAL),
    ("R2Score", {"class_aggregation": None, "num_regressors": 2}, *REAL),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, *REAL),
    ("Hinge", {}, BITS[0], REAL[1]),
    ("SquaredHinge", {}, BITS[0], REAL[1]),
    ("CategoricalHinge", {}, *HOT),
    ("KLDivergence", {}, *HOT),
    ("Poisson", {}, *POSITIVE),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, *BITS),
    ("CategoricalCrossentropy", {"from_logits": True}, *HOT),
    ("SparseCategoricalCrossentropy", {}, *STEPS),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}, *SPARSE),
    ("Accuracy", {}, SPARSE[0], SPARSE[1].argmax(-1)),
    ("BinaryAccuracy", {"threshold": 0.3}, *BITS),
    ("BinaryAccuracy", {}, ROW[0], ROW[1][..., None]),
    ("CategoricalAccuracy", {}, *HOT),
    ("SparseCategoricalAccuracy", {}, *SPARSE),
    ("SparseCategoricalAccuracy", {}, SPARSE[0][..., None], SPARSE[1]),
    ("SparseCategoricalAccuracy", {}, *STEPS),
    ("TopKCategoricalAccuracy", {"k": 2}, *HOT),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, *SPARSE),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, *STEPS),
    ("SparseTopKCategoricalAccuracy", {"k": 2, "from_sorted_ids": True}, SPARSE[0], np.argsort(-SPARSE[1], -1)),
    ("TruePositives", {}, *ROW),
    ("FalsePositives", {"thresholds": [0.2, 0.7]}, *BITS),
    ("TrueNegatives", {"thresholds": [0.0, 0.5, 1.0]}, *BITS),
    ("FalseNegatives", {}, ROW[0], ROW[1][..., None]),
    ("Precision", {}, *BITS),
    ("Precision", {"top_k": 2}, *HOT),
    ("Precision", {"thresholds": [0.1, 0.9], "class_id": 1}, *BITS),
    ("Recall", {}, *ROW),
    ("Recall", {"thresholds": 0.3, "top_k": 1, "class_id": 2}, *HOT),
    ("SensitivityAtSpecificity", {"specificity": 0.4}, *BITS),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "num_thresholds": 1}, *ROW),
    ("PrecisionAtRecall", {"recall": 0.5, "num_thresholds": 7}, *BITS),
    ("RecallAtPrecision", {"precision": 0.6, "class_id": 1}, *BITS),
    *(
        ("AUC", {"curve": curve, "summation_method": method, "num_thresholds": 11}, *BITS)
        for curve in ("ROC", "PR", "PRGAIN")
        for method in ("interpolation", "minoring", "majoring")
    ),
    ("AUC", {"thresholds": [0.7, 0.2]}, *ROW),
    ("AUC", {"thresholds": [0.7, 0.2], "multi_label": True, "label_weights": [1.0, 2.0, 3.0]}, *BITS),
    ("AUC", {"multi_label": True, "num_labels": 3, "curve": "PR"}, *BITS),
    ("AUC", {"label_weights": [1.0, 2.0, 3.0], "from_logits": True}, BITS[0], REAL[1]),
    ("F1Score", {}, *HOT),
    ("F1Score", {"average": "weighted"}, *HOT),
    ("FBetaScore", {"average": "micro", "beta": 2.0, "threshold": 0.3}, *BITS),
    ("FBetaScore", {"average": "macro", "beta": 0.5}, *HOT),
    ("IoU", {"num_classes": CLASSES, "target_class_ids": [0, 2]}, *AREAS),
    ("MeanIoU", {"num_classes": CLASSES - 1, "ignore_class": 1}, *AREAS),
    ("BinaryIoU", {"target_class_ids": [1], "threshold": 0.4}, *BITS),
    ("OneHotIoU", {"num_classes": CLASSES, "target_class_ids": [1]}, *HOT),
    ("OneHotMeanIoU", {"num_classes": CLASSES, "sparse_y_pred": True}, HOT[0], SPARSE[1].argmax(-1)),
]  # fmt: skip
# Cases tried without sample weights too: enough of them for each way of weighing.
PLAIN = {0, 2, 11, 20, 21, 26, 35, 37, 42, 46, 56, 59, 63}
WHOLE = ("IoU", "MeanIoU", "BinaryIoU", "OneHotIoU", "OneHotMeanIoU")


def weights_for(name, y_true, y_pred, plain):
    if plain:
        yield None
    if name in WHOLE:
        yield rng.integers(0, 3, (y_true if y_true.ndim < 4 and "OneHot" not in name else y_true[..., 0]).shape)
    elif name not in ("F1Score", "FBetaScore") and y_pred.ndim > 3:
        yield rng.random((BATCHES, SIZE, 2)).astype("float32")
    else:
        yield rng.random((BATCHES, SIZE)).astype("float32")


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # Keras asks JAX for int64
@pytest.mark.parametrize(
    ("i", "name", "options", "y_true", "y_pred"),
    [(i, *case) for i, case in enumerate(CASES)],
    ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)],
)
def test_same_as_keras(i, name, options, y_true, y_pred):
    for weights in weights_for(name, y_true, y_pred, i in PLAIN):
        if name in WHOLE and weights is not None:
            weights = weights.reshape(BATCHES, -1)
        theirs = getattr(keras.metrics, name)(**options)
        for n in range(BATCHES):
            theirs.update_state(y_true[n], y_pred[n], sample_weight=None if weights is None else weights[n])
        expected = np.asarray(theirs.result())
        for engine in ("numpy",) if weights is None else ("numpy", "jax"):
            with cornu.engine(engine):
                metric = getattr(metrics, name)(**options)
                for n in range(BATCHES):
                    weight = None if weights is None else weights[n]
                    if name in WHOLE and weight is not None and "OneHot" not in name:
                        weight = weight.reshape(y_true[n].shape)
                    metric.update_state(y_true[n], y_pred[n], sample_weight=weight)
                found = ops.convert_to_numpy(metric.result())
            where = f"{engine}, weights {weights is not None}"
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=where)
            assert found.dtype == expected.dtype and found.shape == expected.shape, where
            assert [(v.name, v.shape, v.dtype) for v in metric.variables] == [
                (v.name, v.shape, v.dtype) for v in theirs.variables
            ]
            for mine, other in zip(metric.variables, theirs.variables, strict=True):
                np.testing.assert_allclose(mine.numpy(), np.asarray(other), rtol=2e-5, atol=1e-5, err_msg=where)
            metric.reset_state()
            assert all((v.numpy() == 0).all() for v in metric.variables)
    assert getattr(metric, "_direction", None) == getattr(theirs, "_direction", None)


@pytest.mark.parametrize("name", ["Mean", "Sum"])
@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ((5,), None), ((5, 3), None), ((5,), (5,)), ((5, 3), (5,)), ((5, 3), (5, 3)), ((5, 3), (5, 1)), ((5, 1), (5,)),
        ((), None), ((5, 3, 2), (5, 3)), ((5,), ()),
    ],
)  # fmt: skip
def test_means(name, values, weights):
    theirs, ours = getattr(keras.metrics, name)(), getattr(metrics, name)()
    for _ in range(2):
        x = rng.random(values).astype("float32")
        w = None if weights is None else rng.random(weights).astype("float32")
        theirs.update_state(x, w)
        ours.update_state(x, w)
    np.testing.assert_allclose(ops.convert_to_numpy(ours.result()), np.asarray(theirs.result()), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "true", "pred"),
    [
        ("MeanSquaredError", (6, 1), (6, 3)), ("MeanAbsoluteError", (6,), (6, 3)), ("Accuracy", (6,), (6, 3)),
        ("BinaryAccuracy", (6, 1), (6, 3)), ("CategoricalAccuracy", (6,), (6, 3)), ("Precision", (6, 1), (6, 3)),
        ("SparseCategoricalAccuracy", (6, 3), (6, 3)), ("TopKCategoricalAccuracy", (6,), (6, 3)), ("AUC", (6,), (6, 3)),
        ("RootMeanSquaredError", (6, 1), (6, 3)), ("F1Score", (6, 1), (6, 3)), ("R2Score", (6, 1), (6, 3)),
        ("SparseTopKCategoricalAccuracy", (5,), (6, 3)),
    ],
)  # fmt: skip
def test_shapes_are_never_broadcast(name, true, pred):
    with pytest.raises(ShapeError) as info:
        getattr(metrics, name)().update_state(np.ones(true, "float32"), np.ones(pred, "float32"))
    assert str(true) in str(info.value) and str(pred) in str(info.value)


def test_weights_that_do_not_fit():
    x = np.ones((4, 3), "float32")
    for metric, weights in (
        (metrics.Mean(), (3,)),
        (metrics.Mean(), (4, 3, 2)),
        (metrics.F1Score(), (4, 3)),
        (metrics.Precision(), (3,)),
    ):
        args = (x,) if isinstance(metric, metrics.Mean) else (x, x)
        with pytest.raises(ShapeError):
            metric.update_state(*args, sample_weight=np.ones(weights, "float32"))
    with pytest.raises(ShapeError, match="weights of shape"):
        metrics.MeanIoU(2).update_state(np.ones((4, 3), int), np.ones((4, 3), int), sample_weight=np.ones(4, int))
    with pytest.warns(CornuWarning, match="cut off"):
        metrics.MeanIoU(2).update_state([1, 0], [1, 1], sample_weight=[0.5, 0.5])
    with pytest.warns(CornuWarning, match="adjusted"):
        metrics.R2Score(num_regressors=9)([[1.0], [2.0]], [[1.0], [2.5]])


@pytest.mark.parametrize("name", ["Mean", "AUC", "SparseCategoricalAccuracy", "F1Score"])
def test_stateless_and_compiled(engine, name):
    y_true, y_pred = SPARSE if name.startswith("Sparse") else HOT if name == "F1Score" else ROW
    args = (lambda i: (y_pred[i],)) if name == "Mean" else (lambda i: (y_true[i], y_pred[i]))
    plain, pure = getattr(metrics, name)(), getattr(metrics, name)()
    if name == "F1Score":
        pure.update_state(*args(0))
        pure.reset_state()
    state = pure.stateless_reset_state()
    step = context.engine_in_force().compile(lambda state, batch: pure.stateless_update_state(state, *batch))
    for i in range(BATCHES):
        plain.update_state(*args(i))
        state = step([ops.convert_to_tensor(v) for v in state], [ops.convert_to_tensor(a) for a in args(i)])
    found = ops.convert_to_numpy(pure.stateless_result(state))
    np.testing.assert_allclose(found, ops.convert_to_numpy(plain.result()), rtol=1e-6)
    assert all((v.numpy() == 0).all() for v in pure.variables)
    with pytest.raises(ArgumentError, match="values for its variables"):
        pure.stateless_update_state(state[1:], *args(0))


def test_unknown_sizes():
    with context.abstract():
        for name in ("MeanSquaredError", "CategoricalAccuracy", "AUC", "F1Score", "R2Score"):
            metric = getattr(metrics, name)()
            spec = Spec((BATCH, 4), "float32")
            metric.update_state(spec, spec, Spec((BATCH,), "float32"))
            assert metric.result().dtype == "float32"
        metric = metrics.MeanIoU(4)
        pixels = Spec((BATCH, Dim("height"), 5), "int32")
        metric.update_state(pixels, pixels)
        assert metric.result().shape == ()


class NoMetric(Configurable):
    """Another kind of object, that can be called."""

    def __call__(self, y_true, y_pred):
        return y_pred


class Forgetful(metrics.Metric):
    """A user's metric that forgets `super().__init__`, and holds others."""

    def __init__(self, power=2):
        self.power = power
        self.inner = {"mean": metrics.Mean(), "list": [metrics.Sum()]}
        self.total = self.add_weight(name="total", initializer="ones")

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.power(ops.abs(y_true - y_pred), self.power)
        self.inner["mean"].update_state(error)
        self.inner["list"][0].update_state(error)
        self.total.assign_add(ops.sum(error))

    def result(self):
        return {"mean": self.inner["mean"].result(), "total": self.total}


def test_users_class(engine):
    metric = Forgetful(3, name="mine", dtype="float32")
    assert metric.name == "mine" and metric.dtype == "float32"
    assert [v.name for v in metric.variables] == ["total", "total", "count", "total"]
    found = metric(ops.convert_to_tensor([1.0, 2.0]), ops.convert_to_tensor([1.0, 4.0]))
    assert float(found["mean"]) == 4.0 and float(found["total"]) == 9.0
    metric.reset_state()
    assert all(float(v) == 0 for v in metric.variables)
    state = metric.stateless_update_state([v.numpy() for v in metric.variables], np.ones(2), np.zeros(2))
    assert [float(v) for v in state] == [2.0, 2.0, 2.0, 2.0]
    assert float(metric.stateless_result(state)["total"]) == 2.0
    assert metrics.deserialize(metrics.serialize(metric)).power == 3


def test_names():
    assert metrics.Mean(name="a/b").variables[0].path == "a>b/total"
    first, second = metrics.AUC(), metrics.AUC()
    assert second.name != first.name and second.name.startswith("auc_")
    assert metrics.get("accuracy").name == "accuracy"
    assert metrics.get(None) is None
    with pytest.raises(ArgumentError, match="did you mean"):
        metrics.get("binary_acuracy")
    with pytest.raises(ArgumentError, match="is no metric"):
        metrics.get("NoMetric")
    with pytest.raises(ArgumentError):
        metrics.get(7)
    for name in keras.src.metrics.ALL_OBJECTS_DICT:
        assert name in metrics.family.names, name


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_configs(case):
    name, options = case[:2]
    theirs = getattr(keras.metrics, name)(**options)
    ours = metrics.deserialize(keras.metrics.serialize(theirs))
    expected, config = theirs.get_config(), ours.get_config()
    same = {key: config[key] for key in expected if key not in ("thresholds", "label_weights")}
    assert same == {key: value for key, value in expected.items() if key in same}
    again = metrics.deserialize(metrics.serialize(ours))
    assert metrics.serialize(again) == metrics.serialize(ours)


def test_arguments():
    for make in (
        lambda: metrics.AUC(curve="REC"),
        lambda: metrics.AUC(num_thresholds=1),
        lambda: metrics.AUC(num_labels=3),
        lambda: metrics.Precision(thresholds=1.5),
        lambda: metrics.Precision(class_id=-1),
        lambda: metrics.PrecisionAtRecall(recall=2),
        lambda: metrics.F1Score(average="mean"),
        lambda: metrics.FBetaScore(beta=-1.0),
        lambda: metrics.IoU(2, [2]),
        lambda: metrics.R2Score(num_regressors=-1),
        lambda: metrics.TopKCategoricalAccuracy(k=0)(*(x[0] for x in HOT)),
        lambda: metrics.R2Score().result(),
    ):
        with pytest.raises(ArgumentError):
            make()


@pytest.mark.parametrize(
    ("true", "pred", "kind"),
    [
        ((8,), (8, 1), "binary_accuracy"),
        ((8, 3), (8, 3), "categorical_accuracy"),
        ((8, 1), (8, 3), "sparse_categorical_accuracy"),
        ((8,), (8, 3), "sparse_categorical_accuracy"),
    ],
)  # fmt: skip
def test_accuracy_for(true, pred, kind):
    metric = metrics.accuracy_for(true, pred)
    assert metric.name == "accuracy" and metric.fn.__name__ == kind


def test_masks_travel(engine):
    mask = np.array([[1, 0], [1, 1], [0, 0], [1, 1], [1, 1], [0, 1]], bool)
    metric = metrics.SparseCategoricalAccuracy()
    metric.update_state(STEPS[0][0], STEPS[1][0], mask=mask)
    hits = STEPS[1][0].argmax(-1) == STEPS[0][0]
    np.testing.assert_allclose(float(metric.result()), hits[mask].mean(), rtol=1e-6)
