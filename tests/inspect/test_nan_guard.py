"""The first value that is not finite is named, called, compiled or trained; and outside of the block it costs nothing."""

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers, ops
from cornu.core import context
from cornu.core.errors import NonFiniteError
from cornu.engines import registry
from cornu.engines.contract import Engine
from cornu.inspect import nan_guard
from cornu.training.step import forward_step, train_step

X = np.abs(np.random.default_rng(0).normal(size=(24, 3))).astype("float32") + 0.1
Y = X.sum(1, keepdims=True)
BAD = X.copy()
BAD[9] *= -1  # in the third batch of four rows


class Log(layers.Layer):
    """A logarithm whose NaN nobody sees in the end."""

    def call(self, x):
        return ops.where(x > 0, ops.log(x), 0.0)


class Cell(layers.Layer):
    """A recurrent cell with the same fault, inside a loop."""

    state_size = output_size = 3

    def call(self, x, states):
        total = ops.where(x > 0, ops.log(x), 0.0) + states[0]
        return total, [total]


def model_with(layer, **compiled):
    x = Input((3,), name="x")
    h = layers.Dense(3, kernel_initializer="identity", name="first")(x)
    model = Model(x, layers.Dense(1, name="last")(layer(h)), name="net")
    model.compile(cornu.optimizers.SGD(1e-5), "mse", metrics=["mae"], **compiled)
    return model


def text_of(function, *args, **kwargs):
    with pytest.raises(NonFiniteError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def test_without_it_nothing_is_said(engine):
    model = model_with(Log(name="hidden"))
    assert np.isfinite(model.fit(BAD, Y, verbose=0).history["loss"][0])
    assert np.isfinite(model.predict(BAD, verbose=0)).all()


@pytest.mark.parametrize("eagerly", [False, True])
def test_everywhere(engine, eagerly):
    model = model_with(Log(name="hidden"), run_eagerly=eagerly, stop_on_nonfinite=False)
    given = {"batch_size": 4, "verbose": 0}
    with nan_guard():
        for text in (
            text_of(model.fit, BAD, Y, shuffle=False, **given),
            text_of(model.evaluate, BAD, Y, **given),
            text_of(model.predict, BAD, **given),
        ):
            for part in ("at step 2", "layer 'hidden'", "op 'log'", "(4, 3)", "test_nan_guard.py"):
                assert part in text, text
        assert "'hidden'" in text_of(model.train_on_batch, BAD, Y)
        assert "'hidden'" in text_of(model.test_on_batch, BAD, Y)
        text = text_of(model, BAD)
        for part in ("'hidden'", "'log'", "at call 0 of 'net'"):
            assert part in text, text
        model(X)
        assert "at call 1 of 'net'" in text_of(model, BAD)
        before = model.get_weights()
        model.fit(X, Y, **given)
        model.evaluate(X, Y, **given)
        assert np.isfinite(model.predict(X, **given)).all()
        assert not np.array_equal(before[0], model.get_weights()[0])


def test_terminate_on_nan_does_not_hide_it(engine):
    model = model_with(Log(name="hidden"))
    with nan_guard():
        text = text_of(model.fit, BAD, Y, verbose=0, callbacks=[cornu.callbacks.TerminateOnNaN()])
    assert "'hidden'" in text


def test_a_step_of_ones_own(engine):
    class Own(cornu.Model):
        def __init__(self):
            super().__init__(name="own")
            self.hidden, self.dense = Log(name="hidden"), layers.Dense(1, name="dense")

        def call(self, x):
            return self.dense(self.hidden(x))

        def train_step(self, data):
            x, y, _ = data
            loss = lambda: ops.mean(ops.square(self(x, training=True) - y))
            value, gradients = cornu.value_and_grad(loss, self.trainable_variables)()
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": value}

        def predict_step(self, data):
            return self(data[0]) * 2.0

    model = Own()
    model.compile(cornu.optimizers.Adam(1e-3))
    with nan_guard():
        model.fit(X, Y, batch_size=4, verbose=0)
        text = text_of(model.fit, BAD, Y, batch_size=4, shuffle=False, verbose=0)
        assert "at step 8" in text and "layer 'own/hidden', op 'log'" in text
        assert "at step 2" in text_of(model.predict, BAD, batch_size=4, verbose=0)


def test_inside_a_loop(engine):
    model = cornu.Sequential([Input((4, 3)), layers.RNN(Cell(name="cell"), name="rnn"), layers.Dense(1)], name="seq")
    model.compile("adam", "mse")
    x = np.ones((8, 4, 3), "float32")
    bad = x.copy()
    bad[5, 2] = -1
    y = x[:, 0, :1]
    with nan_guard():
        for text in (
            text_of(model, bad),
            text_of(model.predict, bad, batch_size=4, verbose=0),
            text_of(model.fit, bad, y, batch_size=4, verbose=0),
        ):
            assert "layer 'rnn/cell', op 'log'" in text, text
        model.fit(x, y, verbose=0)


def test_gradients(engine):
    w = cornu.Variable(0.0)
    with nan_guard():
        text = text_of(cornu.value_and_grad(lambda: ops.sqrt(w), w))
        assert "the gradient of op 'sqrt'" in text

        class Root(layers.Layer):
            def call(self, x):
                return ops.sqrt(ops.maximum(x, 0.0))

        x = Input((3,))
        model = Model(x, layers.Dense(1)(Root(name="root")(layers.Dense(2, kernel_initializer="zeros")(x))))
        model.compile("sgd", "mse")
        text = text_of(model.fit, X, Y, verbose=0)
        assert "the gradient of layer 'root', op 'sqrt'" in text


def test_what_comes_in(engine):
    """No op made it: the data did."""
    x = Input((3,), name="x")
    model = Model(x, layers.Dense(1, name="dense")(x), name="net")
    model.compile("sgd", "mse")
    bad = X.copy()
    bad[9, 0] = np.nan
    with nan_guard():
        text = text_of(model.predict, bad, batch_size=4, verbose=0)
        assert "the data: x" in text and "at step 2" in text
        assert "they came in with the inputs" in text_of(model, bad)
        assert "the data: x" in text_of(model.fit, bad, Y, verbose=0)


def test_infinities_may_be_fine(engine):
    with nan_guard(infinite=False):
        assert np.isneginf(ops.convert_to_numpy(ops.log(np.zeros(2, "float32")))).all()
        assert "'log'" in text_of(ops.log, -np.ones(2, "float32"))
        x = Input((3,))
        model = Model(x, ops.log(x))
        assert np.isneginf(model.predict(0 * X, verbose=0)).all()
        assert "'log'" in text_of(model.predict, -X, verbose=0)
    with nan_guard():
        assert "'log'" in text_of(model.predict, 0 * X, verbose=0)


def test_a_mask_is_no_fault(engine):
    """A constant that is infinite is what the author meant."""
    x = Input((4, 3))
    scores = ops.where(np.array([True, True, False, True]), ops.sum(x, axis=-1), -np.inf)
    model = Model(x, ops.softmax(scores))
    model.compile("sgd", "mse")
    with nan_guard():
        assert np.isfinite(model.predict(np.ones((2, 4, 3), "float32"), verbose=0)).all()
        model(np.ones((2, 4, 3), "float32"))


# ---------------------------------------------------------------- free when off


def ops_of(monkeypatch, function):
    """The ops that engines compute while a function runs."""
    seen = []
    plain = Engine.apply

    def apply(self, op, arrays, static):
        seen.append(op.name)
        return plain(self, op, arrays, static)

    monkeypatch.setattr(Engine, "apply", apply)
    function()
    monkeypatch.setattr(Engine, "apply", plain)
    return seen


def test_free_when_off_op_by_op(monkeypatch):
    with cornu.engine("numpy"):
        model = model_with(Log(name="hidden"))
        runs = {
            "fit": lambda: model.fit(X, Y, verbose=0, batch_size=24),
            "evaluate": lambda: model.evaluate(X, Y, verbose=0),
            "predict": lambda: model.predict(X, verbose=0),
            "call": lambda: model(X),
        }
        for run in runs.values():
            run()
        for name, run in runs.items():
            before = ops_of(monkeypatch, run)
            with nan_guard():
                during = ops_of(monkeypatch, run)
            after = ops_of(monkeypatch, run)
            assert before == after, name
            assert name == "call" or len(during) > len(before), name


def test_free_when_off_compiled():
    """The step outside of the block is the same program, and is not compiled again."""
    import jax

    with cornu.engine("jax"):
        engine = registry.get("jax")
        model = model_with(Log(name="hidden"))
        model.fit(X, Y, verbose=0)
        variables = model._all_variables()
        values = [engine.from_any(variable.stored()) for variable in variables]
        batch = (X, Y, None)

        def programs():
            step = train_step(model.train_step, variables, model.trainable_variables)
            test = forward_step(model.test_step, variables)
            found = [
                jax.make_jaxpr(lambda v, b: step(v, np.int32(0), True, b))(values, batch),
                jax.make_jaxpr(lambda v, b: test(v, np.int32(0), b)[1])(values, batch),
            ]
            return [len(program.eqns) for program in found], list(map(str, found))

        before = programs()
        compiled = model._compiled_train(engine, variables)
        with nan_guard():
            model.fit(X, Y, verbose=0)
            watched = model._compiled_train(engine, variables)
            assert watched is not compiled
        assert programs() == before
        assert model._compiled_train(engine, variables) is compiled


def test_nothing_is_left_behind():
    with pytest.raises(NonFiniteError), nan_guard(), cornu.engine("numpy"):
        ops.log(-np.ones(2, "float32"))
    for what in (context.watcher, context.way_back, context.on_call, context.flag):
        assert what.get() is None
    assert context.by_tape.get() is False and context.unroll.get() is False
