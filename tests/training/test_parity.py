"""Training gives Keras's numbers: the same weights and data, two epochs, the same history and the same weights after."""

import keras
import numpy as np
import pytest

import cornu

ROWS = 22  # batches of 8: the last one is smaller


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def mlp(k):
    """Dicts in and out, one layer shared, penalties of every kind."""
    a, b = k.Input((5,), name="a"), k.Input((5,), name="b")
    shared = k.layers.Dense(6, activation="tanh", kernel_regularizer="l2", name="shared")
    both = k.layers.Concatenate(name="both")([shared(b), shared(a)])
    hidden = k.layers.Dense(4, activation="relu", activity_regularizer=k.regularizers.L2(0.01), name="hidden")(both)
    return k.Model(
        {"a": a, "b": b},
        {
            "kind": k.layers.Dense(3, activation="softmax", name="x1")(hidden),
            "amount": k.layers.Dense(1, name="x2")(hidden),
        },
    )


def cnn(k):
    """Batch statistics, whose moving means are state."""
    x = k.Input((6, 6, 2), name="image")
    y = k.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = k.layers.BatchNormalization(momentum=0.8, name="norm")(y)
    y = k.layers.MaxPooling2D(2, name="pool")(y)
    y = k.layers.Flatten(name="flat")(y)
    return k.Model(x, k.layers.Dense(1, activation="sigmoid", name="out")(y))


def lstm(k):
    """Padded tokens: a mask goes through all."""
    x = k.Input((7,), dtype="int32", name="tokens")
    y = k.layers.Embedding(9, 4, mask_zero=True, name="embed")(x)
    y = k.layers.LSTM(5, name="recurrent")(y)
    return k.Model(x, k.layers.Dense(3, name="out")(y))


def lists(k):
    """Lists in and out, dropout at rate 0, a constraint."""
    a, b = k.Input((4,), name="a"), k.Input((3,), name="b")
    y = k.layers.Dropout(0.0, name="drop")(k.layers.Concatenate(name="cat")([a, b]))
    y = k.layers.LayerNormalization(name="norm")(y)
    left = k.layers.Dense(2, kernel_constraint=k.constraints.MaxNorm(0.5), name="zleft")(y)
    return k.Model([a, b], [left, k.layers.Dense(1, name="aright")(y)])


X = {"a": _draw(ROWS, 5), "b": _draw(ROWS, 5, seed=1)}
Y = {"amount": _draw(ROWS, 1, seed=2), "kind": np.arange(ROWS) % 3}
WEIGHTS = {"kind": np.linspace(0, 2, ROWS).astype("float32"), "amount": np.linspace(1, 0.5, ROWS).astype("float32")}
TOKENS = np.where(
    np.arange(7) < 2 + np.arange(ROWS)[:, None] % 6, 1 + (np.arange(ROWS * 7).reshape(ROWS, 7) * 5) % 8, 0
)
MLP = {
    "loss": {"amount": "mse", "kind": "sparse_categorical_crossentropy"},
    "loss_weights": {"kind": 0.3, "amount": 2.0},
    "metrics": {"kind": ["accuracy", "sparse_categorical_crossentropy"], "amount": "mae"},
    "weighted_metrics": {"kind": ["accuracy"], "amount": ["MeanSquaredError"]},
}


def _schedule(k):
    return k.optimizers.SGD(k.optimizers.schedules.ExponentialDecay(0.1, 2, 0.7), momentum=0.9, nesterov=True)


# name -> (model, optimizer, compile's arguments, x, y, fit's arguments)
CASES = {
    "mlp, momentum": (mlp, lambda k: k.optimizers.SGD(0.05, momentum=0.9), MLP, X, Y, {}),
    "mlp, schedule": (mlp, _schedule, MLP, X, Y, {"sample_weight": WEIGHTS}),
    "mlp, adam, clipped": (mlp, lambda k: k.optimizers.Adam(0.02, clipnorm=0.05), MLP, X, Y, {"validation_split": 0.25}),
    "mlp, adamw": (
        mlp, lambda k: k.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.5), MLP, X, Y, {"sample_weight": WEIGHTS},
    ),
    "mlp, rmsprop, averaged": (
        mlp, lambda k: k.optimizers.RMSprop(0.01, use_ema=True, ema_momentum=0.9), MLP, X, Y, {},
    ),
    "mlp, accumulated": (mlp, lambda k: k.optimizers.Adam(0.02, gradient_accumulation_steps=2), MLP, X, Y, {}),
    "cnn": (
        cnn, lambda k: k.optimizers.Adam(0.01), {"loss": "binary_crossentropy", "metrics": ["acc", "AUC", "mse"]},
        _draw(ROWS, 6, 6, 2), np.arange(ROWS) % 2, {"class_weight": {0: 0.5, 1: 2.0}},
    ),
    "lstm": (
        lstm, lambda k: k.optimizers.Adam(0.01),
        {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
        TOKENS, np.arange(ROWS) % 3, {"validation_data": (TOKENS[:10], np.arange(10) % 3), "validation_batch_size": 4},
    ),
    "lists": (
        lists, lambda k: k.optimizers.Adagrad(0.1),
        {"loss": ["mse", "huber"], "loss_weights": [0.5, 1.5], "metrics": [["mse", "mae"], ["mse"]]},
        [_draw(ROWS, 4), _draw(ROWS, 3)], [_draw(ROWS, 2), _draw(ROWS, 1)], {"sample_weight": WEIGHTS["kind"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_two_epochs_of_fit_are_keras_s(name):
    make, optimizer, compiled, x, y, given = CASES[name]
    keras.utils.set_random_seed(0)
    judge = make(keras)
    start = judge.get_weights()
    compiled = {**compiled, "loss": _from_logits(keras, compiled["loss"], make)}
    if name not in ("mlp, momentum", "cnn"):  # full batches only, for the sake of time
        x, y, given = cornu.core.tree.map_structure(
            lambda part: part[:16] if isinstance(part, np.ndarray) else part, (x, y, given)
        )
    judge.compile(optimizer(keras), **compiled)
    want = judge.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, **given).history
    scores = judge.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    listed = judge.evaluate(x, y, batch_size=8, verbose=0)
    for engine in ("numpy", "jax") if name in ("cnn", "lstm") else ("numpy",):
        model = make(cornu)
        assert [w.shape for w in start] == [w.shape for w in model.weights]
        model.set_weights(start)
        model.compile(optimizer(cornu), **{**compiled, "loss": _from_logits(cornu, CASES[name][2]["loss"], make)})
        found = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, engine=engine, **given).history
        _same(found, want)
        for ours, theirs in zip(model.weights, judge.weights, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=2e-5, err_msg=ours.path)
        _same(model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True, engine=engine), scores)
        np.testing.assert_allclose(
            model.evaluate(x, y, batch_size=8, verbose=0, engine=engine), listed, rtol=2e-4, atol=1e-5
        )


def _from_logits(k, loss, make):
    return k.losses.SparseCategoricalCrossentropy(from_logits=True) if make is lstm else loss


def _same(found, want):
    assert set(found) == set(want)
    for key in want:
        np.testing.assert_allclose(found[key], want[key], rtol=2e-4, atol=1e-5, err_msg=key)


def test_one_batch_is_keras_s():
    """`train_on_batch` and `test_on_batch` give the numbers of that batch, in Keras's order."""
    keras.utils.set_random_seed(1)
    judge = mlp(keras)
    model = mlp(cornu)
    model.set_weights(judge.get_weights())
    for one, k in ((judge, keras), (model, cornu)):
        one.compile(k.optimizers.SGD(0.1), **MLP)
    first = {name: part[:8] for name, part in X.items()}, {name: part[:8] for name, part in Y.items()}
    for _ in range(2):
        want, found = judge.train_on_batch(*first), model.train_on_batch(*first, engine="numpy")
        np.testing.assert_allclose(found, want, rtol=1e-4)
    want = judge.test_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True)
    found = model.test_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True, engine="numpy")
    assert want.keys() == found.keys()
    for key in want:
        np.testing.assert_allclose(found[key], want[key], rtol=1e-4, err_msg=key)
    np.testing.assert_allclose(model.predict_on_batch(X)["kind"], judge.predict_on_batch(X)["kind"], rtol=1e-4)


NAMES = [
    "mse",
    "mae",
    "MeanSquaredError",
    "mean_squared_error",
    "accuracy",
    "acc",
    "AUC",
    "binary_crossentropy",
    "cosine_similarity",
]


def _own_metric(y_true, y_pred):
    return (y_true - y_pred) ** 2


def test_metrics_are_logged_under_keras_s_names():
    keras.utils.clear_session()
    cornu.utils.clear_session()

    def make(k):
        x = k.Input((3,))
        model = k.Model(x, k.layers.Dense(1, activation="sigmoid", name="out")(x))
        metrics = [
            *NAMES,
            _own_metric,
            k.metrics.Precision(),
            k.metrics.MeanAbsoluteError(name="mine"),
            k.metrics.mean_squared_error,
        ]
        model.compile("sgd", k.losses.BinaryCrossentropy(), metrics=metrics, weighted_metrics=["mae", "mape"])
        return model

    x, y = _draw(4, 3), np.array([[0], [1], [1], [0]])
    keras.backend.clear_session()
    want = make(keras).test_on_batch(x, y, return_dict=True)
    model = make(cornu)
    found = model.test_on_batch(x, y, return_dict=True, engine="numpy")
    assert {name.removesuffix("_1") for name in found} == {name.removesuffix("_1") for name in want}
    assert set(found) == set(want)
    assert list(found) == model.metrics_names
