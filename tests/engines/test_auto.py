"""`engine="auto"`: it measures, chooses, remembers, says so in one line, and leaves no trace in what the user sees."""

import json
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest

import cornu
from cornu import callbacks, layers
from cornu.core import context, errors
from cornu.engines import cache, registry
from cornu.engines.auto import Auto
from cornu.engines.numpy import NumpyEngine
from cornu.training import auto, trial
from cornu.training.auto import _quiet as quiet
from cornu.training.fingerprint import fingerprint, key_of
from cornu.training.report import Report

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3
PAIR = Auto(budget=30, engines=["numpy", "jax"])


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """A cache directory of its own for each test, and less time for each measurement."""
    monkeypatch.setenv("CORNU_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(auto, "_WINDOW", 0.03)
    monkeypatch.setattr(auto, "_quiet", lambda: None)  # it collects garbage, of which other tests have left much
    for name in ("CORNU_ENGINE", "CORNU_AUTO_BUDGET", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "auto"


class Fake(NumpyEngine):
    """NumPy under another name: slower to compile and in each step, or failing."""

    traces = True

    def __init__(self, name, compile=0.0, step=0.0, fails=None):
        self.name, self.compiling, self.pause, self.fails, self.steps = name, compile, step, fails, 0

    def compile(self, function, donate=False, thorough=False):
        made = super().compile(function, donate, thorough)
        seen = []

        def run(*args):
            if self.fails is not None:
                raise self.fails
            if not seen:
                seen.append(True)
                time.sleep(self.compiling)
            self.steps += 1
            time.sleep(self.pause)
            return made(*args)

        return run


@pytest.fixture
def fakes(monkeypatch):
    """Enter fake engines, the only ones there are."""

    def enter(*engines):
        names = [e.name for e in engines]
        entries = dict.fromkeys(("numpy", *names), ("cornu.engines.numpy", "numpy", None))
        monkeypatch.setattr(registry, "ENGINES", entries)
        monkeypatch.setattr(registry, "_loaded", {"numpy": registry.get("numpy"), **dict(zip(names, engines))})
        monkeypatch.setattr(registry, "available", lambda: names)
        monkeypatch.setenv("CORNU_ENGINE", names[0])
        return Auto(budget=30, engines=names)

    return enter


def small(optimizer=None, units=8, engine=None):
    """Dropout, batch statistics, a shuffled source: all that is random or kept."""
    cornu.utils.set_random_seed(7)
    x = cornu.Input((6,))
    y = layers.Dense(units, activation="relu")(x)
    y = layers.BatchNormalization()(y)
    y = layers.Dropout(0.4)(y)
    model = cornu.Model(x, layers.Dense(3, activation="softmax")(y))
    model.compile(
        optimizer or cornu.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"], engine=engine
    )
    return model


def tiny(engine=None):
    """One layer: what is measured is the fakes' own time."""
    cornu.utils.set_random_seed(7)
    model = cornu.Sequential([cornu.Input((6,)), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", engine=engine)
    return model


def equal(one, other):
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- what it does not change


@pytest.mark.parametrize("chosen", registry.available())
def test_training_is_as_without_auto_bit_for_bit(monkeypatch, chosen):
    """Losses, weights, the optimizer's and the metrics' state, and the batches callbacks see."""
    registry.get(chosen)  # importing a library may draw from NumPy's generator
    auto = Auto(engines=["jax" if chosen == "numpy" else "numpy", chosen])
    monkeypatch.setattr("cornu.training.report.Report.choose", lambda *_, **__: chosen)
    found = []
    for engine in (chosen, auto):
        model, losses = small(), []
        note = callbacks.LambdaCallback(on_train_batch_end=lambda i, logs: losses.append(logs["loss"]))  # noqa: B023
        random.seed(3), np.random.seed(4)
        history = model.fit(
            X, Y, batch_size=8, epochs=3, verbose=0, engine=engine, callbacks=[note], validation_data=(X, Y)
        ).history
        after = random.random(), np.random.rand(), cornu.random.global_seed()
        found.append((model, losses, history, after))
    (plain, *rest), (measured, *same) = found
    assert rest == same and len(rest[0]) == 15
    assert equal(plain._all_variables(), measured._all_variables())
    assert plain._step_number == measured._step_number == 15


def test_measuring_leaves_everything_as_it_was(fakes):
    """Predict and evaluate change no weight; a generator gives every batch once; nothing holds a variable."""
    auto = fakes(Fake("one"), Fake("two"))
    model = small()
    model.fit(X, Y, batch_size=8, verbose=0, engine="one")
    before = [v.numpy() for v in model.weights + model.optimizer.variables]
    versions = [v.version for v in model.weights]
    model.predict(X, verbose=0, engine=auto)
    assert [v.version for v in model.weights] == versions
    model.evaluate(X, Y, verbose=0, engine=auto)
    for value, variable in zip(before, model.weights + model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())
    seen = []

    def batches():
        for i in range(5):
            seen.append(i)
            yield X[i * 8 : i * 8 + 8], Y[i * 8 : i * 8 + 8]

    begun = []
    note = callbacks.LambdaCallback(on_train_batch_begin=lambda i, logs: begun.append(i))
    model.fit(batches(), verbose=0, engine=auto, callbacks=[note])
    assert seen == begun == [0, 1, 2, 3, 4]
    assert model._step_number == 10
    model.get_weights()  # whoever looks has the values back
    assert all(v.holder is None for v in model._all_variables())
    assert not model.stop_training


def test_what_is_not_drawn_yet_stays_undrawn(fakes):
    """Initial weights are drawn by the call itself, not by the measuring."""
    auto = fakes(Fake("one"), Fake("two"))
    model, drawn = small(), []

    def draw(shape, dtype):
        drawn.append(context.engine_in_force().name)
        return np.ones(shape, dtype)

    model.layers[1].kernel._initial = draw
    model.fit(X, Y, verbose=0, engine=auto)
    assert len(drawn) == 1


# ---------------------------------------------------------------- the choice


class Third(Fake):
    """An engine that compiles a step at its third call."""

    slow = (3,)  # the calls that take as long as compiling

    def compile(self, function, donate=False, thorough=False):
        made, calls = NumpyEngine.compile(self, function, donate, thorough), []

        def run(*args):
            calls.append(True)
            time.sleep(self.compiling if len(calls) in self.slow else self.pause)
            return made(*args)

        return run


def test_a_compiler_that_comes_at_the_third_call_is_no_slow_step(fakes, capsys):
    auto = fakes(Third("third", compile=0.3, step=0.001), Fake("steady", step=0.01))
    tiny().fit(X, Y, batch_size=8, epochs=40, verbose=0, engine=auto)
    assert "chosen: third for 200 steps" in capsys.readouterr().out


def test_one_slow_step_after_compiling_is_not_taken_for_all(fakes, capsys):
    """PyTorch's first step after its trace prepares what the others keep."""

    class Fourth(Third):
        slow = (3, 4)

    auto = fakes(Fake("steady", step=0.01), Fourth("fourth", compile=0.3, step=0.001))
    tiny().predict(X, batch_size=8, verbose=0, engine=auto)
    assert "chosen: fourth" in capsys.readouterr().out


def test_steps_whose_logs_are_read_one_by_one_are_measured_apart(fakes, capsys, monkeypatch):
    """`fit` does not wait for a step before it hands over the next; `train_on_batch` does, and engines differ in that."""
    prompt, take = [], trial.Trial.timed
    monkeypatch.setattr(trial.Trial, "timed", lambda self, n: (prompt.append(self.work.prompt), take(self, n))[1])
    auto = fakes(Fake("one"), Fake("two", step=0.005))
    model = tiny(auto)
    model.fit(X[:8], Y[:8], batch_size=8, verbose=0)
    assert not any(prompt)
    del prompt[:]
    for _ in range(3):
        model.train_on_batch(X[:8], Y[:8])
    assert prompt and all(prompt)
    model.fit(X[:8], Y[:8], batch_size=8, verbose=0)
    assert capsys.readouterr().out.count("chosen: one") == 2


def test_a_short_fit_does_not_wait_for_a_slow_compiler(fakes, capsys):
    """Total time decides: compile plus steps. What was measured serves other models; who has measured has compiled."""
    auto = fakes(Fake("quick", step=0.05), Fake("deep", compile=1.0))
    tiny().fit(X, Y, batch_size=20, verbose=0, engine=auto)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "chosen: deep" in line and "; remembered in" in line
    model = tiny()
    model.fit(X, Y, batch_size=20, verbose=0, engine=auto)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "chosen: quick" in line and "as remembered in" in line
    deep, quick = registry.get("deep").steps, registry.get("quick").steps
    model.fit(X, Y, batch_size=20, epochs=100, verbose=0, engine=auto)
    assert "chosen: deep" in capsys.readouterr().out
    assert registry.get("deep").steps == deep + 200 and registry.get("quick").steps == quick


def test_many_short_calls_come_to_the_compiler_in_the_end(fakes, capsys):
    auto = fakes(Fake("quick", step=0.05), Fake("deep", compile=0.5))
    tiny().predict(X[:1], verbose=0, engine=auto)
    assert "chosen: deep" in capsys.readouterr().out
    model = tiny()
    for _ in range(40):
        model.predict(X[:1], verbose=0, engine=auto)
    out = capsys.readouterr().out
    assert out.index("chosen: quick") < out.index("chosen: deep") and out.count("\n") == 2


def test_a_choice_is_asked_again_after_as_many_calls_as_there_were(fakes, monkeypatch):
    given = fakes(Fake("quick", step=0.05), Fake("deep", compile=1.0))
    tiny().predict(X[:1], verbose=0, engine=given)
    asked, settle = [], auto.settle
    monkeypatch.setattr(auto, "settle", lambda *parts: (asked.append(len(done)), settle(*parts))[1])
    model, done = tiny(), []
    for call in range(40):
        done.append(model.predict(X[:1], verbose=0, engine=given))
        assert np.array_equal(done[0], done[call])
    assert asked[:4] == [0, 2, 6, 14] and len(asked) < 10, "straight to the step but for these"
    assert registry.get("deep").steps > 10, "the last of them found that compiling pays"


def test_it_waits_until_no_thread_is_at_work(monkeypatch):
    used, naps = iter([0.0, 0.02, 0.02, 0.03, 0.03, 0.031]), []
    clock = SimpleNamespace(process_time=lambda: next(used), sleep=naps.append)
    monkeypatch.setattr(auto, "time", clock)
    quiet()
    assert naps == [0.02] * 3


def test_equals_are_decided_by_order():
    """The first of two whose totals differ by less than a tenth, whatever the noise says; else the faster one."""
    report = Report(["first", "second", "third"], 30)
    report.times = {"first": (0.1, 0.0105), "second": (0.1, 0.01), "third": (0.0, 0.02)}
    assert report.choose(100) == "first" and report.choose(5) == "third"
    report.times["first"] = (0.1, 0.012)
    assert report.choose(1000) == "second"
    report.times["second"] = (0.4, 0.01)
    assert report.choose(100, traces=1) == "first" and report.choose(1000, traces=2) == "second"
    report.warm = {"second"}
    assert report.choose(1) == "second", "what has compiled already need not do it again"
    assert report.choose(1, traces=2) == "third", "but for another shape"


def test_an_engine_that_fails_is_named_with_its_reason(fakes, capsys, monkeypatch):
    auto = fakes(Fake("good"), Fake("bad", fails=errors.UnsupportedError("engine 'bad' cannot do 'erf':\nno such op")))
    monkeypatch.setitem(registry.ENGINES, "broken", ("cornu.engines.no_such_engine", "numpy", None))
    auto.engines.append("broken")
    tiny().fit(X, Y, verbose=0, engine=auto)
    line = capsys.readouterr().out
    assert "bad failed (UnsupportedError: engine 'bad' cannot do 'erf':)" in line and line.count("\n") == 1
    assert "broken failed (ModuleNotFoundError" in line and "chosen: good" in line


def test_if_all_fail_the_first_error_is_raised(fakes):
    auto = fakes(Fake("one", fails=ValueError("the first")), Fake("two", fails=ValueError("the second")))
    with pytest.raises(ValueError, match="the first"):
        tiny().fit(X, Y, verbose=0, engine=auto)


def test_wrong_data_is_an_error_before_anything_is_measured(fakes, capsys):
    auto = fakes(Fake("one"), Fake("two"))
    with pytest.raises(errors.DataError, match="label 7"):
        tiny().fit(X, np.full(40, 7), verbose=0, engine=auto)
    assert capsys.readouterr().out == ""


def test_the_budget_names_who_was_not_reached(fakes, capsys, own_cache):
    """The first engine is always measured; a larger budget measures again."""
    fakes(Fake("one", compile=0.4), Fake("two"))
    model = tiny()
    model.fit(X, Y, verbose=0, engine=Auto(budget=0.2))
    assert "not reached in 0.2 s: two; chosen: one for 2 steps;" in capsys.readouterr().out
    assert json.loads(next(own_cache.glob("*.json")).read_text())["budget"] == 0.2
    tiny().fit(X, Y, verbose=0, engine=Auto(budget=0.1))
    assert "not reached in 0.2 s: two" in capsys.readouterr().out
    model.fit(X, Y, verbose=0, engine=Auto(budget=20))
    assert "two" in capsys.readouterr().out.partition(";")[0]


def test_a_slow_interpreter_is_given_up_in_the_middle_of_its_step(fakes, capsys):
    """An engine without a compiler is stopped after an op, once it is clear that it cannot win."""

    class Plain(Fake):
        traces = False
        done = 0

        def apply(self, op, arrays, static):
            time.sleep(0.01)
            self.done += 1
            return super().apply(op, arrays, static)

    slow = Plain("slow")
    auto = fakes(Fake("quick"), slow)
    start = time.monotonic()
    tiny().predict(X, verbose=0, engine=auto)
    assert "slow over" in capsys.readouterr().out or slow.steps > 0
    assert time.monotonic() - start < 10
    auto = fakes(Fake("quick"), slow := Plain("slow"))
    model = cornu.Sequential([cornu.Input((6,)), *(layers.Dense(6) for _ in range(100))])
    model.predict(X, verbose=0, engine=auto)
    out = capsys.readouterr().out
    assert "slow over" in out and slow.steps == 1 and slow.done < 150


def test_one_engine_alone_is_not_measured(fakes, capsys, own_cache):
    auto = fakes(only := Fake("only"))
    tiny().fit(X, Y, batch_size=20, verbose=0, engine=auto)
    assert only.steps == 2 and capsys.readouterr().out == "" and not own_cache.exists()


# ---------------------------------------------------------------- how it is asked for


def test_every_way_to_ask(fakes, capsys, monkeypatch):
    fakes(Fake("one"), Fake("two"))
    monkeypatch.setenv("CORNU_ENGINE", "one")

    def measured(call):
        cornu.clear_auto_cache()
        call(tiny())
        return "engine auto" in capsys.readouterr().out

    assert not measured(lambda model: model.fit(X, Y, verbose=0))
    for call in (
        lambda model: model.fit(X, Y, verbose=0, engine="auto"),
        lambda model: model.evaluate(X, Y, verbose=0, engine="auto"),
        lambda model: model.predict(X, verbose=0, engine="auto"),
        lambda model: model.train_on_batch(X, Y, engine="auto"),
        lambda model: model.test_on_batch(X, Y, engine="auto"),
        lambda model: model.predict_on_batch(X, engine="auto"),
    ):
        assert measured(call)

    def compiled(model):
        model.compile("sgd", "sparse_categorical_crossentropy", engine="auto")
        model.fit(X, Y, verbose=0)

    def block(model):
        with cornu.engine("auto"):
            assert cornu.ops.zeros(2).shape == (2,)
            model.fit(X, Y, verbose=0)

    def named_within(model):
        with cornu.engine("auto"), cornu.engine("two"):
            model.fit(X, Y, verbose=0)
            model.fit(X, Y, verbose=0, engine="one")

    assert measured(compiled) and measured(block) and not measured(named_within)


def test_as_the_default(capsys, monkeypatch):
    monkeypatch.setattr(registry, "available", lambda: ["numpy", "jax"])
    monkeypatch.setenv("CORNU_ENGINE", "auto")
    tiny().predict(X, verbose=0)
    assert "engine auto" in capsys.readouterr().out
    assert type(cornu.ops.zeros(2)).__module__.startswith("jax")
    monkeypatch.delenv("CORNU_ENGINE")
    monkeypatch.setattr(registry, "_default", [None])
    cornu.set_engine("auto")
    tiny().evaluate(X, Y, verbose=0)
    assert "engine auto" in capsys.readouterr().out
    with cornu.engine("numpy"):
        tiny().fit(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


def test_where_there_is_no_model_it_is_an_error():
    with pytest.raises(errors.EngineError, match="no model is at hand"):
        registry.get("auto")


def test_a_callback_keeps_the_loop_s_engine(fakes, capsys):
    """A prediction within `fit` takes the engine that `fit` has found."""
    fakes(Fake("one"), Fake("two"))
    model, used = tiny(engine="auto"), []

    def predict(epoch, logs):
        model.predict(X, verbose=0)
        used.append(context.engine_in_force().name)

    model.fit(X, Y, verbose=0, callbacks=[callbacks.LambdaCallback(on_epoch_end=predict)])
    assert used[0] in ("one", "two") and capsys.readouterr().out.count("engine auto") == 1


def test_a_model_that_is_bound_to_an_engine_is_not_measured(capsys):
    """A layer that calls one engine's own functions leaves no choice."""
    numpy = pytest.importorskip("jax.numpy")

    class Sine(layers.Layer):
        def call(self, x):
            return numpy.sin(x)

    x = cornu.Input((6,))
    model = cornu.Model(x, layers.Dense(3, activation="softmax")(Sine()(x)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert np.isfinite(model.fit(X, Y, verbose=0, engine=PAIR).history["loss"]).all()
    assert capsys.readouterr().out == ""


def test_budgets(monkeypatch):
    assert Auto().budget == 30
    monkeypatch.setenv("CORNU_AUTO_BUDGET", "12")
    assert Auto().budget == 12
    cornu.set_auto_budget(5)
    try:
        assert Auto().budget == 5 and Auto(budget=1).budget == 1
    finally:
        cornu.set_auto_budget(None)
    for wrong in (0, -1, "much", float("nan"), float("inf")):
        with pytest.raises(errors.ArgumentError, match="seconds above zero"):
            cornu.set_auto_budget(wrong)
    monkeypatch.setenv("CORNU_AUTO_BUDGET", "soon")
    with pytest.raises(errors.ArgumentError, match="CORNU_AUTO_BUDGET"):
        Auto().budget  # noqa: B018
    with pytest.raises(errors.EngineError, match="did you mean 'torch'"):
        Auto(engines=["torhc"])


# ---------------------------------------------------------------- the cache


def test_it_is_remembered(fakes, capsys, own_cache):
    """A second model of the same structure measures nothing; clearing measures again."""
    one, two = Fake("one"), Fake("two")
    auto = fakes(one, two)
    tiny().fit(X, Y, batch_size=20, verbose=0, engine=auto)
    assert "; remembered in" in capsys.readouterr().out
    steps = one.steps + two.steps
    tiny().fit(X, Y, batch_size=20, verbose=0, engine=auto)
    assert "; as remembered in" in capsys.readouterr().out
    assert one.steps + two.steps == steps + 2
    assert [path.suffix for path in own_cache.iterdir()] == [".json"]
    assert cornu.clear_auto_cache() == 1 and cornu.clear_auto_cache() == 0
    tiny().fit(X, Y, batch_size=20, verbose=0, engine=auto)
    assert "; remembered in" in capsys.readouterr().out


DAMAGED = [
    "", "not json", "[]", "{}", '{"format": 99}', "[" * 100_000, '{"times": {"one": ["fast", 1]}}',
    '{"times": {"one": [0.1, -1.0]}}', '{"times": {"one": [0.1]}}', '{"times": {}}', '{"times": {"stranger": [1, 1]}}',
    '{"slower": {"one": "x"}}', '{"failed": []}', '{"budget": null}', '{"key": "another"}', b"\xff\xfe\x00",
]  # fmt: skip


def test_damaged_and_foreign_files_are_measured_anew(fakes, capsys, own_cache):
    auto = fakes(Fake("one"), Fake("two"))
    tiny().fit(X, Y, verbose=0, engine=auto)
    path = next(own_cache.iterdir())
    whole = json.loads(path.read_text())
    read = lambda: Report.from_record(cache.read(whole["key"]), ["one", "two"])
    assert read().times.keys() == {"one", "two"}
    for text in DAMAGED:
        if isinstance(text, str) and text.startswith('{"'):
            text = json.dumps({**whole, **json.loads(text)})
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert read() is None, text
    capsys.readouterr()
    tiny().fit(X, Y, verbose=0, engine=auto)
    assert "; remembered in" in capsys.readouterr().out
    assert json.loads(path.read_text()).keys() == whole.keys()


def test_a_cache_that_cannot_be_written_is_said(fakes, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CORNU_CACHE_DIR", str(tmp_path / "file"))
    tiny().fit(X, Y, verbose=0, engine=fakes(Fake("one"), Fake("two")))
    assert "; not remembered (NotADirectoryError" in capsys.readouterr().out


def test_a_failed_write_leaves_what_was_there(own_cache, monkeypatch):
    cache.write("ab", {"times": {"one": [1.0, 1.0]}})
    with pytest.raises(ValueError, match="JSON compliant"):
        cache.write("ab", {"times": {"one": [1.0, float("nan")]}})
    assert cache.read("ab")["times"] == {"one": [1.0, 1.0]}
    assert [path.suffix for path in own_cache.iterdir()] == [".json"]


def test_the_cache_s_place(monkeypatch, tmp_path):
    monkeypatch.delenv("CORNU_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.cache_directory() == tmp_path / "cornu"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / ".cache" / "cornu"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache.cache_directory() == tmp_path / "Library" / "Caches" / "cornu"


def _key(model, kind="train"):
    y = Y if model.loss == "sparse_categorical_crossentropy" else np.zeros((40, 3), "float32")
    model._prepare("numpy", (X, y, None))
    return key_of(fingerprint(model, kind))


class Twice(layers.Layer):
    """Doubles."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


def _with(layer, loss="sparse_categorical_crossentropy"):
    x = cornu.Input((6,))
    model = cornu.Model(x, layer(layers.Dense(3)(x)))
    model.compile("adam", loss)
    return model


def test_the_key_tells_work_apart_and_nothing_else(monkeypatch):
    base = _key(small())
    cornu.utils.set_random_seed(1)
    assert _key(small()) == base, "names and seeds do not count"
    assert _key(small(cornu.optimizers.Adam(0.5))) == base, "nor does the learning rate"
    assert _key(small(), "test") != base and _key(small(units=9)) != base
    assert _key(small(cornu.optimizers.SGD(0.01))) != base
    assert _key(small(cornu.optimizers.Adam(0.01, clipnorm=1.0))) != base
    frozen = small()
    frozen.layers[1].trainable = False
    assert _key(frozen) != base
    eager = small()
    eager.run_eagerly = True
    assert _key(eager) != base
    assert _key(_with(layers.ReLU())) != _key(_with(layers.ELU()))
    assert _key(_with(layers.ReLU(), "mse")) != _key(_with(layers.ReLU(), "mae"))


def test_the_key_follows_the_user_s_own_code(monkeypatch):
    before = _key(_with(Twice()))
    assert _key(_with(Twice())) == before and _key(_with(Twice(3.0))) != before
    monkeypatch.setattr(Twice, "call", lambda self, x: x * self.factor + 1.0)
    assert _key(_with(Twice())) != before
    one, other = (lambda y, p: cornu.ops.mean(p)), (lambda y, p: cornu.ops.max(p))
    assert _key(_with(Twice(), one)) != _key(_with(Twice(), other))


def test_the_key_follows_the_graph():
    def made(cross):
        x = cornu.Input((6,))
        a, b = layers.Dense(3)(x), layers.Dense(3)(x)
        c = cornu.ops.exp(a) - b if cross else cornu.ops.exp(b) - a
        model = cornu.Model(x, c * cornu.ops.softmax(a))
        model.compile("adam", "mse")
        return model

    assert _key(made(True)) == _key(made(True)) != _key(made(False))


def test_the_record_follows_machine_versions_and_threads(fakes, capsys, monkeypatch):
    auto = fakes(Fake("one"), Fake("two"))

    def anew():
        tiny().fit(X, Y, verbose=0, engine=auto)
        return "; remembered in" in capsys.readouterr().out

    assert anew() and not anew()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert anew() and not anew()
    monkeypatch.setattr("cornu.training.auto.engine_versions", lambda: {"one": "9.9"})
    assert anew() and not anew()
    monkeypatch.setattr("cornu.training.auto.machine", lambda: {"processor": "another"})
    assert anew() and not anew()


def test_shapes_and_dtypes_are_measured_apart(fakes, capsys):
    auto = fakes(Fake("one"), Fake("two"))
    model = tiny()
    for size in (8, 20, 8, 20):
        model.fit(X, Y, batch_size=size, verbose=0, engine=auto)
    assert capsys.readouterr().out.count("; remembered in") == 2


def test_a_subclassed_model_with_a_step_of_its_own(fakes, capsys):
    """Variables that a step makes late join in; the training is as without auto."""

    class Own(cornu.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)
            self.second = cornu.optimizers.Adam(0.1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y, _ = data
            gradient = cornu.value_and_grad(lambda: cornu.ops.mean(self(x) ** 2), self.trainable_variables)
            loss, gradients = gradient()
            self.second.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    auto = fakes(Fake("one"), Fake("two"))
    found = []
    for engine in ("one", auto):
        cornu.utils.set_random_seed(2)
        model = Own()
        model.compile(optimizer="sgd")
        history = model.fit(X, Y, batch_size=8, epochs=3, verbose=0, engine=engine).history
        found.append((history["loss"], [w.tolist() for w in model.get_weights()]))
    assert found[0] == found[1] and "chosen:" in capsys.readouterr().out
