"""Callbacks: they do what Keras's do, and say what is wrong."""

import io
import types
from collections.abc import Mapping

import keras
import numpy as np
import pytest

from cornu import callbacks, ops
from cornu.core.errors import ArgumentError, BindingError, CornuWarning, NonFiniteError, SavingError


class Model:
    """What callbacks ask of a model."""

    def __init__(self, *optimizers, metrics=()):
        rate = types.SimpleNamespace(learning_rate=0.1)
        self.optimizer = rate if not optimizers else types.SimpleNamespace(optimizers=list(optimizers))
        self.stop_training = False
        self.metrics = list(metrics)
        self.weights = [np.zeros(1)]
        self.saved = []
        self.epoch = 0

    def get_weights(self):
        return [np.full(1, self.epoch)]

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=False):
        self.saved.append(path)

    def save_weights(self, path, overwrite=False):
        self.saved.append(path)


class Lazy(Mapping):
    """Logs that count how often they are read."""

    def __init__(self, **values):
        self.values_, self.reads = values, 0

    def __getitem__(self, name):
        self.reads += 1
        return self.values_[name]

    def __iter__(self):
        return iter(self.values_)

    def __len__(self):
        return len(self.values_)


def train(given, values, name="val_loss", model=None, epochs=None, **params):
    """Epochs whose logs hold the values under a name; gives the model and the last epoch."""
    model = model or Model()
    hooks = callbacks.CallbackList(
        given, model=model, add_history=True, epochs=len(values), steps=2, verbose=0, **params
    )
    hooks.on_train_begin()
    epoch = -1
    for epoch, value in enumerate(values):
        model.epoch = epoch
        hooks.on_epoch_begin(epoch)
        for batch in range(2):
            hooks.on_train_batch_begin(batch)
            hooks.on_train_batch_end(batch, {"loss": value})
        hooks.on_epoch_end(epoch, {"loss": value} if value is None else {"loss": value, name: value})
        if model.stop_training:
            break
    hooks.on_train_end({})
    return model, epoch


def judge(callback, values, name="val_loss"):
    """The same by hand for a callback of Keras."""
    model = Model()
    callback.set_model(model)
    callback.set_params({})
    callback.on_train_begin()
    epoch = -1
    for epoch, value in enumerate(values):
        model.epoch = epoch
        callback.on_epoch_begin(epoch)
        for batch in range(2):
            callback.on_train_batch_end(batch, {"loss": value})
        callback.on_epoch_end(epoch, {"loss": value, name: value})
        if model.stop_training:
            break
    callback.on_train_end({})
    return model, epoch


VALUES = [
    [1.0, 0.8, 0.9, 0.7, 0.7, 0.7, 0.69, 0.5],
    [1.0, 1.1, 1.2, 0.1],
    [0.5, 0.45, 0.44, 0.43, 0.3, 0.35, 0.36, 0.37, 0.38],
]


# ---------------------------------------------------------------- CallbackList


def test_only_hooks_that_are_overridden_are_called():
    called = []

    class Epochs(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            called.append(epoch)

    class Old(callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            called.append(("batch", batch, logs["loss"]))

    quiet = callbacks.CallbackList([Epochs()], model=Model())
    logs = Lazy(loss=1.0)
    quiet.on_train_batch_begin(0)
    quiet.on_train_batch_end(0, logs)
    assert not quiet.has_train_batch_hooks and not logs.reads and not called
    busy = callbacks.CallbackList([Epochs(), [Old()]], model=Model())
    busy.on_train_batch_end(3, logs)
    busy.on_test_batch_end(0, logs)
    busy.on_epoch_end(1, logs)
    assert called == [("batch", 3, 1.0), 1]
    assert busy.has_train_batch_hooks and not busy.has_test_batch_hooks and not busy.has_predict_batch_hooks
    progress = callbacks.CallbackList(None, add_progbar=True, model=Model(), verbose=1, epochs=1, steps=1)
    assert not progress.has_train_batch_hooks
    functions = callbacks.CallbackList([callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: None)])
    assert functions.has_test_batch_hooks and not functions.has_train_batch_hooks
    functions.append(Old())
    assert functions.has_train_batch_hooks


def test_all_hooks_reach_callbacks():
    called = []

    def note(name):
        return lambda *args, **kwargs: called.append((name, args, kwargs))

    hooks = [name for name in dir(callbacks.Callback) if name.startswith("on_")]
    assert len(hooks) == 16
    every = callbacks.CallbackList(callbacks.LambdaCallback(**{name: note(name) for name in hooks}))
    for name in hooks:
        getattr(every, name)(*([5] if "batch" in name or "epoch" in name else []), None)
    assert [name for name, _, _ in called] == hooks
    assert all(args[0] == 5 for name, args, _ in called if "batch" in name or "epoch" in name)
    assert all(({} in args) or kwargs == {"logs": {}} for _, args, kwargs in called)


def test_keras_callbacks_work_too():
    kept = []

    class Theirs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append((epoch, logs["loss"], self.model is not None))

    hooks = callbacks.CallbackList([Theirs()], model=Model(), epochs=1, steps=1)
    hooks.on_epoch_end(0, {"loss": 1.0})
    assert kept == [(0, 1.0, True)] and not hooks.has_train_batch_hooks


@pytest.mark.parametrize("bad", [callbacks.History, print, 3])
def test_what_is_no_callback(bad):
    with pytest.raises(ArgumentError, match="callbacks hold"):
        callbacks.CallbackList([bad])


def test_history_keeps_python_numbers_and_what_others_log():
    model, _ = train([callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))], [np.float32(0.5), 0.25])
    assert model.history.history == {
        "loss": [0.5, 0.25],
        "val_loss": [0.5, 0.25],
        "learning_rate": [0.1, 0.05],
    }
    assert type(model.history.history["loss"][0]) is float and model.history.epoch == [0, 1]
    own = callbacks.History()
    assert train([own], [1.0])[0].history is own
    hooks = callbacks.CallbackList(add_history=True, model=Model())
    hooks.on_train_begin()
    hooks.on_epoch_end(0, Lazy(loss=ops.convert_to_tensor(2.0)))
    assert hooks.callbacks[0].history == {"loss": [2.0]}


def test_lambda_refuses_unknown_names():
    with pytest.raises(ArgumentError, match=r"on_epoch_ned.*did you mean 'on_epoch_end'"):
        callbacks.LambdaCallback(on_epoch_ned=print)
    with pytest.raises(ArgumentError, match="a function"):
        callbacks.LambdaCallback(on_epoch_end=3)


# ---------------------------------------------------------------- what is watched


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"patience": 2},
        {"patience": 2, "min_delta": 0.15},
        {"patience": 1, "mode": "max", "restore_best_weights": True},
        {"patience": 2, "baseline": 0.75, "restore_best_weights": True},
        {"patience": 1, "start_from_epoch": 2, "restore_best_weights": True},
    ],
)
def test_early_stopping_is_keras(values, kwargs):
    mine, theirs = callbacks.EarlyStopping(**kwargs), keras.callbacks.EarlyStopping(**kwargs)
    model, epoch = train([mine], values)
    expected, last = judge(theirs, values)
    assert epoch == last and model.stop_training == expected.stop_training and model.weights == expected.weights
    for name in ("wait", "stopped_epoch", "best", "best_epoch"):
        assert getattr(mine, name) == getattr(theirs, name), name


def test_early_stopping_says_so(capsys):
    train([callbacks.EarlyStopping(verbose=1, restore_best_weights=True)], [1.0, 2.0])
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 2: early stopping",
        "Going back to the weights of the best epoch, 1",
    ]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"patience": 1},
        {"patience": 2, "factor": 0.5, "cooldown": 2},
        {"patience": 1, "min_lr": 0.03, "min_delta": 0.05},
        {"patience": 1, "mode": "max"},
    ],
)
def test_reduce_on_plateau_is_keras(values, kwargs):
    mine, theirs = callbacks.ReduceLROnPlateau(**kwargs), keras.callbacks.ReduceLROnPlateau(**kwargs)
    model, _ = train([mine], values)
    expected, _ = judge(theirs, values)
    assert model.optimizer.learning_rate == pytest.approx(expected.optimizer.learning_rate)
    assert (mine.wait, mine.cooldown_counter, mine.best) == (theirs.wait, theirs.cooldown_counter, theirs.best)
    assert len(model.history.history["learning_rate"]) == len(values)


def metric(name, direction=None):
    return types.SimpleNamespace(name=name, _direction=direction)


@pytest.mark.parametrize(
    ("monitor", "metrics", "direction"),
    [
        ("val_loss", [], "min"),
        ("val_out_loss", [], "min"),
        ("accuracy", [metric("accuracy", "up")], "max"),
        ("val_accuracy", [metric("loss"), types.SimpleNamespace(metrics=[metric("accuracy", "up")])], "max"),
        ("val_mae", [metric("mae", "down")], "min"),
        ("val_out_accuracy", [metric("accuracy", "up")], "max"),
        ("val_score", [metric("score")], None),
        ("val_score", [metric("score", "up"), metric("score", "down")], None),
    ],
)
def test_mode_auto_asks_the_metric(monitor, metrics, direction):
    watcher = callbacks.EarlyStopping(monitor=monitor)
    watcher.set_model(Model(metrics=metrics))
    if direction is None:
        with pytest.raises(ArgumentError, match=f"{monitor!r} and cannot tell"):
            train([watcher], [1.0], name=monitor, model=watcher.model)
    else:
        assert watcher.direction == direction


@pytest.mark.parametrize("make", [callbacks.EarlyStopping, callbacks.ReduceLROnPlateau])
def test_what_is_not_logged_is_an_error_at_the_first_epoch(make):
    with pytest.raises(BindingError, match=r"(?s)'val_los'.*did you mean 'val_loss'.*one of .*loss, val_loss"):
        train([make(monitor="val_los")], [1.0, 2.0])
    with pytest.raises(BindingError, match="validation_data"):
        train([make()], [1.0], name="other")
    with pytest.raises(BindingError, match="validation_data"):
        train([make()], [1.0], name="other", validation_freq=None)
    train([make(patience=5)], [1.0, 2.0], name="other", validation_freq=2)
    with pytest.raises(BindingError, match="val_other"):
        train([make()], [1.0], name="val_other", validation_freq=2)


def test_nan_is_never_the_best():
    stop = callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    model, _ = train([stop], [float("nan"), 0.5, float("nan"), 0.6])
    assert stop.best == 0.5 and model.weights == [np.ones(1)]


# ---------------------------------------------------------------- ModelCheckpoint


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"filepath": "{epoch:02d}-{val_loss:.2f}.keras"},
        {"filepath": "{epoch}.keras", "save_best_only": True},
        {"filepath": "{epoch}.h5", "save_best_only": True, "initial_value_threshold": 0.6},
        {"filepath": "{epoch}.keras", "save_best_only": True, "mode": "max"},
        {"filepath": "{epoch}-{batch}.keras", "save_freq": 3},
        {"filepath": "{epoch}-{batch}-{loss:.1f}.weights.h5", "save_freq": 1, "save_weights_only": True},
    ],
)
def test_checkpoints_are_kerass(values, kwargs):
    model, _ = train([callbacks.ModelCheckpoint(**kwargs)], values)
    expected, _ = judge(keras.callbacks.ModelCheckpoint(**kwargs), values)
    assert model.saved == expected.saved


def test_checkpoints_read_only_what_the_path_names(tmp_path, capsys):
    save = callbacks.ModelCheckpoint(tmp_path / "new" / "{loss:.0f}.keras", verbose=1)
    save.set_model(Model())
    logs = Lazy(loss=2.0, accuracy=1.0)
    save.on_epoch_end(0, logs)
    assert logs.reads == 1 and (tmp_path / "new").is_dir() and save.model.saved == [str(tmp_path / "new" / "2.keras")]
    assert "Epoch 1: saved the model to" in capsys.readouterr().out


def test_checkpoints_refuse(tmp_path):
    for kwargs in (
        {"filepath": "a.txt"},
        {"filepath": "a.h5", "save_weights_only": True},
        {"filepath": "a.keras", "save_freq": "batch"},
        {"filepath": "a.keras", "mode": "best"},
        {"filepath": "a.keras", "save_freq": 0},
    ):
        with pytest.raises(ArgumentError, match="ModelCheckpoint got"):
            callbacks.ModelCheckpoint(**kwargs)
    for path, kind, message in (
        ("{val_los}.keras", BindingError, "did you mean 'val_loss'"),
        ("{epoch:x.2f}.keras", ArgumentError, "cannot fill in"),
        ("{}.keras", ArgumentError, "cannot fill in"),
    ):
        with pytest.raises(kind, match=message):
            train([callbacks.ModelCheckpoint(path)], [1.0])
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(SavingError, match="a folder"):
        train([callbacks.ModelCheckpoint(tmp_path / "folder.keras")], [1.0])
    with pytest.raises(BindingError, match="after batch 1"):
        train([callbacks.ModelCheckpoint("a.keras", save_best_only=True, save_freq=1)], [1.0])


# ---------------------------------------------------------------- learning rates


def test_schedules(capsys):
    rates = []
    one = callbacks.LearningRateScheduler(lambda epoch, rate: rate * ops.convert_to_tensor(0.5), verbose=1)
    spy = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(logs["learning_rate"]))
    train([one, spy], [1.0, 1.0])
    assert rates == pytest.approx([0.05, 0.025]) and "learning rate to 0.05" in capsys.readouterr().out
    several = Model(*(types.SimpleNamespace(name=name, learning_rate=1.0) for name in "ab"))
    train([callbacks.LearningRateScheduler(lambda epoch: 3)], [1.0], model=several)
    assert several.history.history["learning_rate_b"] == [3.0]
    for bad in ("fast", None, float("nan"), True, np.ones(2)):
        with pytest.raises(ArgumentError, match="a finite number"):
            train([callbacks.LearningRateScheduler(lambda *_, answer=bad: answer)], [1.0])

    def broken(epoch, rate):
        raise TypeError("the user's own")

    with pytest.raises(TypeError, match="own"):
        train([callbacks.LearningRateScheduler(broken)], [1.0])
    with pytest.raises(ArgumentError, match="factor"):
        callbacks.ReduceLROnPlateau(factor=1.0)


# ---------------------------------------------------------------- CSVLogger


@pytest.mark.parametrize("kwargs", [{}, {"separator": ";"}])
@pytest.mark.parametrize("name", ["val_loss", "accuracy"])
def test_csv_is_kerass(tmp_path, name, kwargs):
    train([callbacks.CSVLogger(tmp_path / "mine.csv", **kwargs)], VALUES[0], name=name)
    judge(keras.callbacks.CSVLogger(str(tmp_path / "theirs.csv"), **kwargs), VALUES[0], name=name)
    mine, theirs = ((tmp_path / f"{who}.csv").read_bytes() for who in ("mine", "theirs"))
    assert mine == theirs and mine.count(b"\n") == len(VALUES[0]) + 1


def test_csv_appends_under_its_own_header(tmp_path):
    path = tmp_path / "log.csv"
    for _ in range(2):
        train([callbacks.CSVLogger(path, append=True)], [1.0])
    assert path.read_text().splitlines() == ["epoch,loss,val_loss", "0,1.0,1.0", "0,1.0,1.0"]
    path.write_text("epoch,val_loss,loss\n0,1.0")  # cut off
    train([callbacks.CSVLogger(path, append=True)], [2.0])
    assert path.read_text().splitlines() == ["epoch,val_loss,loss", "0,1.0", "0,2.0,2.0"]
    with pytest.raises(SavingError, match="no accuracy"):
        train([callbacks.CSVLogger(path, append=True)], [2.0], name="accuracy")
    train([callbacks.CSVLogger(path)], [3.0])
    assert path.read_text().count("\n") == 2
    late = callbacks.CSVLogger(path)
    late.on_train_begin()
    late.on_epoch_end(0, {"loss": 1.0})
    assert path.read_text().splitlines()[-1] == "0,1.0,NA"  # flushed
    with pytest.warns(CornuWarning, match="leaves out more"):
        late.on_epoch_end(1, {"loss": 1.0, "more": np.ones(2)})
    late.on_train_end()


# ---------------------------------------------------------------- the rest


def test_terminate_on_nan(capsys):
    _, epoch = train([callbacks.TerminateOnNaN()], [1.0, float("inf"), 1.0])
    assert epoch == 1 and "Batch 0: the loss is inf" in capsys.readouterr().out
    with pytest.raises(NonFiniteError, match="nan after batch 0"):
        train([callbacks.TerminateOnNaN(raise_error=True)], [float("nan")])


def test_progbar():
    stream = io.StringIO()
    shown = callbacks.ProgbarLogger(stream)
    hooks = callbacks.CallbackList([shown], add_progbar=True, model=Model(), verbose="auto", epochs=2, steps=None)
    assert len(hooks.callbacks) == 1
    logs = Lazy(loss=1.0)
    hooks.on_train_begin()
    for epoch in range(2):
        hooks.on_epoch_begin(epoch)
        for batch in range(3):
            hooks.on_train_batch_end(batch, logs)
        hooks.on_test_begin()
        hooks.on_test_batch_end(0, logs)
        hooks.on_test_end(logs)
        assert not logs.reads
        hooks.on_epoch_end(epoch, {"loss": 0.5})
    hooks.on_train_end()
    hooks.on_test_begin()
    hooks.on_test_batch_end(0, logs)
    hooks.on_test_end(logs)
    hooks.on_predict_begin()
    hooks.on_predict_batch_end(0, {"outputs": np.ones(3)})
    hooks.on_predict_end()
    lines = stream.getvalue().splitlines()
    assert [line.partition("  ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2", "1/3 steps", "1/3 steps"]
    assert lines[0].startswith("Epoch 1/2  3/3 steps  ") and lines[0].endswith("  loss 0.5")
    assert lines[2].endswith("  loss 1") and "outputs" not in lines[3]
