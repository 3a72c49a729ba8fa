"""The usual mistakes: each gives one error of one class, the same on every engine, that says what came, where, and what to do."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers, ops
from cornu.core import errors
from cornu.engines import registry, versions

HERE = __file__


def _two_inputs():
    left, right = Input((4,), name="left"), Input((3,), name="right")
    joined = layers.Concatenate(name="joined")([left, right])
    model = Model(
        {"left": left, "right": right},
        {"head": layers.Dense(2, name="head")(joined), "tail": layers.Dense(1, name="tail")(joined)},
        name="pair",
    )
    return model


X = {"left": np.ones((6, 4), "float32"), "right": np.ones((6, 3), "float32")}
Y = {"head": np.ones((6, 2), "float32"), "tail": np.ones((6, 1), "float32")}


def _small(**compiled):
    x = Input((4,), name="features")
    model = Model(x, layers.Dense(3, activation="softmax", name="scores")(x), name="small")
    if compiled:
        model.compile("sgd", **compiled)
    return model


def _ids():
    x = Input((2,), dtype="int32", name="ids")
    return Model(x, layers.Embedding(5, 2, name="table")(x), name="lookup")


ONES = np.ones((6, 4), "float32")


def rank():
    layers.Conv2D(2, 3, name="filters")(Input((8, 8), name="image"))


def shared_width():
    head = layers.Dense(2, name="head")
    head(Input((5,), name="five"))
    head(Input((4,), name="four"))


def concat():
    layers.Concatenate(axis=1, name="joined")([Input((4, 2), name="left"), Input((4, 3), name="right")])


def missing_input():
    _two_inputs()({"left": X["left"]})


def extra_input():
    _two_inputs()({**X, "third": X["left"]})


def misspelt_input():
    model = _two_inputs()
    model.compile("sgd", "mse")
    model.fit({"left": X["left"], "rihgt": X["right"]}, Y, verbose=0)


def misspelt_loss():
    model = _two_inputs()
    model.compile("sgd", {"haed": "mse", "tail": "mse"})
    model.fit(X, Y, verbose=0)


def misspelt_metric():
    model = _two_inputs()
    model.compile("sgd", "mse", metrics={"tial": ["mae"]})
    model.fit(X, Y, verbose=0)


def misspelt_target():
    model = _two_inputs()
    model.compile("sgd", "mse")
    model.fit(X, {"haed": Y["head"], "tail": Y["tail"]}, verbose=0)


def list_for_names():
    model = _two_inputs()
    model.compile("sgd", "mse")
    model.fit(X, [Y["head"], Y["tail"]], verbose=0)


def count_unbuilt():
    layers.Dense(2, name="head").count_params()


def predict_without_call():
    class Empty(Model):
        pass

    Empty(name="empty").predict(ONES, verbose=0)


def summary_unbuilt():
    cornu.Sequential([layers.Dense(2)], name="stack").input_shape  # noqa: B018


def not_compiled():
    _small().fit(ONES, ONES, verbose=0)


def fractions_as_ids():
    _ids().predict(np.full((3, 2), 1.5, "float32"), verbose=0)


def text():
    _small().predict(np.array([["a", "b", "c", "d"]]), verbose=0)


def text_to_layer():
    layers.Dense(2, name="head")(np.array([["a", "b"]]))


def none():
    _small().predict(None, verbose=0)


def none_to_model():
    _small()(None)


def none_in_dict():
    _two_inputs()({"left": X["left"], "right": None})


def rows():
    _small(loss="mse").fit(ONES, np.ones((5, 3), "float32"), verbose=0)


def no_rows():
    _small(loss="mse").fit(ONES[:0], np.ones((0, 3), "float32"), verbose=0)


def width_in_fit():
    _small(loss="mse").fit(np.ones((6, 7), "float32"), np.ones((6, 3), "float32"), verbose=0)


def target_width():
    _small(loss="mse").fit(ONES, np.ones((6, 1), "float32"), verbose=0)


def target_rank():
    _small(loss="categorical_crossentropy").fit(ONES, np.ones(6, "int32"), verbose=0)


def label_range():
    _small(loss="sparse_categorical_crossentropy").fit(ONES, np.array([0, 1, 2, 3, 1, 2]), shuffle=False, verbose=0)


def no_target():
    _small(loss="mse").fit(ONES, verbose=0)


def no_loss():
    _small(metrics=["mae"]).fit(ONES, np.ones((6, 3), "float32"), verbose=0)


def optimizer_name():
    _small().compile("adm", "mse")


def loss_name():
    _small().compile("sgd", "mean_sqared_error")


def metric_name():
    _small().compile("sgd", "mse", metrics=["acuracy"])


def activation_name():
    layers.Dense(2, activation="rleu", name="head")


def initializer_name():
    layers.Dense(2, kernel_initializer="glorot_unifrom", name="head")


def layer_keyword():
    layers.Dense(2, activaton="relu", name="head")


def set_weights():
    _small().set_weights([np.zeros((4, 2)), np.zeros(3)])


def set_too_few_weights():
    _small().set_weights([np.zeros((4, 3))])


def unreachable():
    a, b = Input((2,), name="used"), Input((2,), name="forgotten")
    Model(a, layers.Add(name="sum")([a, b]), name="cut")


def no_tensor():
    Model(ONES, layers.Dense(2)(Input((4,))), name="cut")


def symbolic_to_numpy():
    np.asarray(layers.Dense(2, name="head")(Input((4,), name="features")))


def symbolic_bool():
    if layers.Dense(1, name="head")(Input((4,), name="features")) > 0:
        pass


def negative_units():
    layers.Dense(-3, name="head")


def fractional_units():
    layers.Dense(2.5, name="head")


def reshape():
    layers.Reshape((3, 3), name="square")(Input((8,), name="flat"))


def too_small():
    layers.Conv2D(4, 5, name="filters")(Input((3, 3, 1), name="image"))


def add_mismatch():
    layers.Add(name="sum")([Input((4,), name="left"), Input((3,), name="right")])


def matmul_mismatch():
    ops.matmul(Input((4,), name="left"), np.ones((3, 2), "float32"))


def unknown_engine():
    _small().predict(ONES, verbose=0, engine="jaxx")


def two_layers_of_a_name():
    x = Input((4,), name="features")
    Model(x, layers.Dense(2, name="same")(layers.Dense(2, name="same")(x)), name="twins")


def number_for_a_layer():
    cornu.Sequential([layers.Dense(2), 3])


def layer_inside_call():
    class Careless(layers.Layer):
        def call(self, x):
            return layers.Dense(2, name="lost")(x)

    Careless(name="careless")(Input((4,), name="features"))


def unknown_shape_weight():
    layers.Dense(2, name="head")(Input((3, None), name="sequence"))


def wrong_metric_argument():
    _small().compile("sgd", "mse", metrics=[3])


def callback_class():
    _small(loss="mse").fit(ONES, ONES[:, :3], verbose=0, callbacks=[cornu.callbacks.EarlyStopping])


def monitored_name():
    stop = cornu.callbacks.EarlyStopping(monitor="val_los")
    _small(loss="mse").fit(ONES, ONES[:, :3], verbose=0, callbacks=[stop])


def dry():
    _small(loss="mse").fit(((ONES, ONES[:, :3]) for _ in range(2)), steps_per_epoch=2, epochs=2, verbose=0)


def get_layer():
    _small().get_layer("score")


# The mistake, the class of its error, the built-in kind, and what its text must hold.
MISTAKES = [
    (rank, errors.ShapeError, ValueError, ["'filters'", "(batch, 8, 8)", "4 axes", "image", "add an axis"]),
    (shared_width, errors.ShapeError, ValueError, ["'head'", "(batch, 4)", "size 5", "four", "a layer of its own"]),
    (concat, errors.ShapeError, ValueError, ["'joined'", "left", "right", "(batch, 4, 2)", "(batch, 4, 3)", "axis 2"]),
    (missing_input, errors.BindingError, ValueError, ["'pair'", "without 'right'", "['left', 'right']"]),
    (extra_input, errors.BindingError, ValueError, ["'pair'", "'third'", "['left', 'right']", "leave out"]),
    (
        misspelt_input,
        errors.BindingError,
        ValueError,
        ["'pair'", "'rihgt'", "did you mean 'right'", "['left', 'right']"],
    ),
    (
        misspelt_loss,
        errors.BindingError,
        ValueError,
        ["compile", "loss", "'haed'", "did you mean 'head'", "head, tail"],
    ),
    (
        misspelt_metric,
        errors.BindingError,
        ValueError,
        ["compile", "metrics", "'tial'", "did you mean 'tail'", "head, tail"],
    ),
    (misspelt_target, errors.BindingError, ValueError, ["y", "'haed'", "did you mean 'head'", "head, tail"]),
    (list_for_names, errors.BindingError, ValueError, ["y is a list", "dict with the keys head, tail"]),
    (count_unbuilt, errors.BuildError, ValueError, ["'head'", "not built", "Input"]),
    (predict_without_call, errors.UnsupportedError, NotImplementedError, ["'empty'", "call(self, inputs)"]),
    (summary_unbuilt, errors.BuildError, ValueError, ["'stack'", "Sequential"]),
    (not_compiled, errors.BuildError, ValueError, ["fit", "'small'", "not compiled", "model.compile("]),
    (fractions_as_ids, errors.DtypeError, TypeError, ["'ids'", "1.5", "int32", "'lookup'"]),
    (text, errors.DataError, ValueError, ["predict", "text", "x", "(1, 4)", "indices or one-hot"]),
    (text_to_layer, errors.DtypeError, TypeError, ["'head'", "<U1", "turn text into numbers"]),
    (none, errors.DataError, ValueError, ["predict", "x is None", "arrays"]),
    (none_to_model, errors.BindingError, ValueError, ["'small'", "None", "'features'"]),
    (none_in_dict, errors.BindingError, ValueError, ["'pair'", "None", "'right'"]),
    (rows, errors.DataError, ValueError, ["fit", "6", "5", "x", "y"]),
    (no_rows, errors.DataError, ValueError, ["fit", "no rows"]),
    (width_in_fit, errors.ShapeError, ValueError, ["'features'", "'small'", "(6, 7)", "(batch, 4)", "axis 1 is 7"]),
    (target_width, errors.ShapeError, ValueError, ["mean_squared_error", "(6, 1)", "(6, 3)", "'scores'", "one unit"]),
    (target_rank, errors.ShapeError, ValueError, ["categorical_crossentropy", "(6,)", "(6, 3)", "'scores'", "sparse"]),
    (label_range, errors.DataError, ValueError, ["y", "label 3", "'scores'", "0 to 2", "count labels from 0"]),
    (no_target, errors.BindingError, ValueError, ["no y", "fit(x, y)"]),
    (no_loss, errors.BuildError, ValueError, ["'small'", "no loss", "compile"]),
    (optimizer_name, errors.ArgumentError, ValueError, ["optimizer", "'adm'", "did you mean 'adam'"]),
    (loss_name, errors.ArgumentError, ValueError, ["loss", "'mean_sqared_error'", "did you mean 'mean_squared_error'"]),
    (metric_name, errors.ArgumentError, ValueError, ["metric", "'acuracy'", "did you mean 'accuracy'"]),
    (activation_name, errors.ArgumentError, ValueError, ["activation", "'rleu'", "did you mean 'relu'"]),
    (
        initializer_name,
        errors.ArgumentError,
        ValueError,
        ["initializer", "'glorot_unifrom'", "did you mean 'glorot_uniform'"],
    ),
    (layer_keyword, errors.ArgumentError, ValueError, ["Dense", "'activaton'", "did you mean 'activation'", "units"]),
    (set_weights, errors.ShapeError, ValueError, ["'scores/kernel'", "(4, 2)", "(4, 3)"]),
    (set_too_few_weights, errors.ShapeError, ValueError, ["'small'", "1 array", "2 weights", "scores/kernel (4, 3)"]),
    (unreachable, errors.GraphError, ValueError, ["'cut'", "'forgotten'", "'used'", "add 'forgotten' to the inputs"]),
    (no_tensor, errors.GraphError, ValueError, ["'cut'", "inputs", "ndarray", "Input(...)"]),
    (symbolic_to_numpy, errors.GraphError, ValueError, ["'head'", "no value", "cornu.ops"]),
    (symbolic_bool, errors.GraphError, ValueError, ["no value", "cornu.ops.where"]),
    (negative_units, errors.ArgumentError, ValueError, ["Dense", "units=-3", "above zero"]),
    (fractional_units, errors.ArgumentError, ValueError, ["Dense", "units=2.5", "whole number"]),
    (reshape, errors.ShapeError, ValueError, ["'square'", "flat", "(batch, 8)", "9"]),
    (too_small, errors.ShapeError, ValueError, ["'filters'", "image", "(batch, 3, 3, 1)", "5", "padding='same'"]),
    (add_mismatch, errors.ShapeError, ValueError, ["'sum'", "left", "right", "(batch, 4)", "(batch, 3)"]),
    (matmul_mismatch, errors.ShapeError, ValueError, ["matmul", "left", "(batch, 4)", "(3, 2)"]),
    (unknown_engine, errors.EngineError, RuntimeError, ["'jaxx'", "did you mean 'jax'", "numpy"]),
    (two_layers_of_a_name, errors.GraphError, ValueError, ["'twins'", "'same'", "name="]),
    (number_for_a_layer, errors.DtypeError, TypeError, ["Sequential", "3", "a layer"]),
    (
        layer_inside_call,
        errors.BuildError,
        ValueError,
        ["'careless'", "'lost'", "neither trained nor saved", "self.lost"],
    ),
    (
        unknown_shape_weight,
        errors.ArgumentError,
        ValueError,
        ["'head'", "sequence", "last size is unknown", "Input(shape="],
    ),
    (wrong_metric_argument, errors.ArgumentError, ValueError, ["metric", "3"]),
    (callback_class, errors.ArgumentError, ValueError, ["EarlyStopping", "EarlyStopping(...)"]),
    (monitored_name, errors.BindingError, ValueError, ["EarlyStopping", "'val_los'", "loss"]),
    (dry, errors.DataError, ValueError, ["fit", "ran dry", "epoch 2", "steps"]),
    (get_layer, errors.ArgumentError, ValueError, ["'small'", "'score'", "did you mean 'scores'"]),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda row: row[0].__name__)
def test_a_mistake_gives_one_error_that_says_it_all(mistake):
    make, kind, builtin, parts = mistake
    texts = []
    for name in ("numpy", "jax"):
        with cornu.engine(name), pytest.raises(builtin) as caught:
            make()
        error = caught.value
        assert type(error) is kind, f"{type(error).__name__}: {error}"
        text = str(error)
        for part in parts:
            assert part in text, f"{part!r} is not in:\n{text}"
        assert f"called at: {HERE}:" in text, text
        assert f"in {make.__name__}" in text or "in call" in text, text
        assert "expected:" in text, text
        texts.append(text)
    assert texts[0] == texts[1]


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "abacus", ("cornu.engines.abacus", "abacus_library", "abacus"))
    with pytest.raises(ImportError) as caught:
        _small().predict(ONES, engine="abacus", verbose=0)
    assert type(caught.value) is errors.MissingEngineError
    for part in ("'abacus'", "abacus_library", "pip install 'cornu[abacus]'", HERE):
        assert part in str(caught.value)


def test_an_engine_whose_library_is_too_old(monkeypatch):
    required = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for library, least in versions.LEAST.items():
        assert any(f"{library}>={least}" in extra for extra in required["optional-dependencies"].values())
    monkeypatch.setattr(registry, "_loaded", {})
    assert "onnxruntime" in registry.available()
    for least, late in (("1.999", True), ("999", True), ("1.0", False), ("0.9999", False)):
        monkeypatch.setitem(versions.LEAST, "onnxruntime", least)
        assert ("onnxruntime" not in registry.available()) == late
        if late:
            with pytest.raises(errors.MissingEngineError, match=f"onnxruntime {least} or newer: version 1"):
                _small().predict(ONES, engine="onnxruntime", verbose=0)


def test_a_mistake_in_a_graph_is_found_where_the_line_was_written():
    """A size that only shows when the model runs: the error names the layer, and both lines."""
    time = Input((None, 2), name="sequence")
    other = Input((None, 2), name="other")
    model = Model([time, other], layers.Add(name="sum")([time, other]), name="late")
    with pytest.raises(errors.ShapeError) as caught:
        model.predict([np.ones((2, 5, 2), "float32"), np.ones((2, 4, 2), "float32")], verbose=0)
    for part in ("5", "4", "'sum'", "made at", "called at", HERE):
        assert part in str(caught.value)


def test_errors_need_no_engine():
    """The texts above come without importing an engine, where no values are computed."""
    code = (
        "import sys, cornu\n"
        "head = cornu.layers.Dense(2); head(cornu.Input((5,)))\n"
        "try: head(cornu.Input((4,)))\n"
        "except cornu.core.errors.ShapeError: print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
