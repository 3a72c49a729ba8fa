"""PyTorch on a GPU: where values live, and whole graphs as one launch. `scripts/gpu tests` runs it where there is one."""

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cornu
from cornu.engines.torch import arrays, launches, tracing
from cornu.ops._declare import operator

with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LAYERS = cornu.layers


def test_a_chosen_device_is_taken():
    with torch.device("meta"):
        assert arrays.device().type == "meta"
        together = arrays.together({"x": torch.ones(2, device="cpu"), "ys": [torch.ones(1, device="cpu"), 3.0]})
    assert together["x"].device.type == together["ys"][0].device.type == "meta"
    assert together["ys"][1] == 3.0


def test_without_a_gpu_all_stays_on_the_cpu(monkeypatch):
    monkeypatch.setattr(arrays, "_best_device", lambda: torch.device("cpu"))
    values = [torch.ones(2), torch.ones(2, device="meta")]
    assert arrays.device().type == "cpu"
    assert arrays.together(values) is values


def test_what_runs_on_the_cpu_is_not_recorded():
    body = lambda values: values
    assert launches.launched(body, [torch.ones(2)], 0) is body


class Simulated(TorchDispatchMode):
    """What a CUDA graph does, on a CPU: notes operations without effect, and repeats them in the same memory."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for argument, value in zip(function._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.before += [(one, one.clone()) for one in (value if isinstance(value, list) else [value])]
        result = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, result))
        return result

    def end(self):
        for value, before in reversed(self.before):
            value.copy_(before)

    def replay(self):
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again)):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def simulated(monkeypatch):
    """Launches on the CPU, by graphs that are simulated; gives those that are made."""

    @contextlib.contextmanager
    def graph(made, **options):
        with made:
            yield
        made.end()

    for name, value in (("CUDAGraph", Simulated), ("graph", graph), ("current_stream", int), ("default_stream", int)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(launches, "_pool", lambda: None)
    made = []

    def launched(body, values, donated):
        made.append(launches.Launched(body, donated))
        return made[-1]

    monkeypatch.setattr(tracing, "launched", launched)
    with cornu.engine("torch"):
        yield made


def both_ways(monkeypatch, train):
    """What a function gives with launches, and without."""
    found = train()
    monkeypatch.setattr(tracing, "launched", lambda body, values, donated: body)
    return found, train()


def momentum():
    """No Adam: on a CPU its kernel takes a number, which a graph would keep."""
    return cornu.optimizers.SGD(0.05, momentum=0.9)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_simulated_launches_train_as_op_by_op(simulated, monkeypatch, dropout):
    x, y = data(240)  # the last batch is smaller

    def train():
        made = model(dropout, momentum())
        history = [made.fit(x, y, batch_size=64, epochs=2, verbose=0).history for _ in range(4)]
        logs = [made.train_on_batch(x[:64], y[:64]) for _ in range(3)]
        weights = made.get_weights()
        made.set_weights([weight * 0.5 for weight in weights])
        outputs = [made.predict(x[start:], verbose=0) for start in range(5)]
        return [history, logs, weights, outputs, made.evaluate(x, y, verbose=0)]

    cornu.tree.map_structure(np.testing.assert_array_equal, *both_ways(monkeypatch, train))
    assert sum(one.graph is not None for one in simulated) >= 3
    assert not any(one.why for one in simulated)


def test_simulated_launches_change_nothing_that_is_held(simulated):
    x, y = data(64)
    made = model(0.0, momentum())
    held, copies = [], []
    for step in range(12):
        if step == 9:
            made.set_weights([weight + 1 for weight in made.get_weights()])
        logs = made.train_on_batch(x, y)
        with torch.no_grad():
            values = [variable.value for variable in made.variables] + list(made.optimizer.variables[0:1])
        held.append([*values, *logs])
        copies.append([np.array(cornu.ops.convert_to_numpy(value)) for value in held[-1]])
    for values, then in zip(held, copies, strict=True):
        for value, copy in zip(values, then, strict=True):
            if not isinstance(value, cornu.Variable):
                np.testing.assert_array_equal(cornu.ops.convert_to_numpy(value), copy)
    assert any(one.graph is not None for one in simulated)


def permuted(values):
    a, b, x = values
    return [b, a + x, a, b[:1]]


def test_simulated_state_that_changes_places(simulated):
    """Results that lie in the state of others are read before it is written to, also where the state is put anew."""
    run = launches.Launched(permuted, 2)
    state = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    expected = [value.clone() for value in state]
    held = []
    for step in range(12):
        if step in (5, 8):  # as metrics that begin anew
            state[1], expected[1] = torch.zeros(2), torch.zeros(2)
        x = torch.full((2,), float(step))
        *state, old, part = run([*state, x])
        held.append((old, expected[0]))
        assert torch.equal(part, expected[1][:1])
        expected = [expected[1], expected[0] + step]
        for value, wanted in [*held, *zip(state, expected)]:
            assert torch.equal(value, wanted)
    assert run.records == 2
    assert run.graph is not None


def test_simulated_launches_give_up_where_everything_moves(simulated):
    run = launches.Launched(lambda values: [value + 1 for value in values], 3)
    for step in range(12):
        results = run([torch.full((2,), float(step)) for _ in range(3)])
        assert all(torch.equal(result, torch.full((2,), step + 1.0)) for result in results)
    assert run.graph is not None


@pytest.fixture
def on_gpu():
    with cornu.engine("torch"):
        yield


def data(rows=256, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 12)).astype("float32"), rng.normal(size=(rows, 3)).astype("float32")


def model(dropout=0.0, optimizer="adam"):
    cornu.utils.set_random_seed(5)
    parts = [LAYERS.Input((12,)), LAYERS.Dense(16, activation="relu"), LAYERS.BatchNormalization()]
    parts += [LAYERS.Dropout(dropout)] if dropout else []
    made = cornu.Sequential([*parts, LAYERS.Dense(3)])
    made.compile(optimizer, "mse", metrics=["mae"])
    return made


@with_gpu
def test_values_live_on_the_gpu_and_those_of_the_cpu_come_to_it(on_gpu):
    made = model()
    assert made.variables[0].value.is_cuda
    for _ in range(7):
        assert made(torch.ones(4, 12)).is_cuda
    assert cornu.ops.add(torch.ones(2, device="cuda"), torch.ones(2)).is_cuda
    assert cornu.ops.add(torch.ones(2), torch.ones(2)).is_cuda
    x = torch.ones(4, 12, requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.is_cuda


@with_gpu
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_launch_trains_as_op_by_op(on_gpu, monkeypatch, dropout):
    x, y = data(240)  # the last batch is smaller

    def train():
        made = model(dropout)
        history = [made.fit(x, y, batch_size=64, epochs=4, shuffle=False, verbose=0).history for _ in range(2)]
        return [history, made.predict(x, verbose=0), made.evaluate(x, y, verbose=0)]

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    cornu.tree.map_structure(close, *both_ways(monkeypatch, train))


@with_gpu
def test_launches_happen(on_gpu, monkeypatch):
    made = []
    monkeypatch.setattr(tracing, "launched", lambda *given: made.append(launches.launched(*given)) or made[-1])
    x, y = data()
    model().fit(x, y, batch_size=32, epochs=3, verbose=0)
    assert any(one.graph is not None for one in made), [one.why for one in made]
    assert max(one.records for one in made) <= 3


@with_gpu
def test_values_held_from_before_do_not_change(on_gpu):
    x, y = data()
    made = model()
    made.fit(x, y, epochs=3, verbose=0)
    with torch.no_grad():  # with gradients they would be parameters, which training writes to
        held = [variable.value for variable in made.variables]
    copies = [value.clone() for value in held]
    outputs = [made.predict_on_batch(x[:8]) for _ in range(6)]
    given = [made.train_on_batch(x[:32], y[:32]) for _ in range(6)]
    for value, copy in zip(held, copies, strict=True):
        assert torch.equal(value, copy)
    assert len({float(logs[0]) for logs in given}) == 6
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-5, atol=1e-6)


@with_gpu
def test_predict_sees_weights_set_and_trained_since(on_gpu):
    x, y = data()
    made = model()
    for _ in range(6):
        before = made.predict(x, verbose=0)
    weights = made.get_weights()
    made.set_weights([weight * 0 for weight in weights])
    for _ in range(6):
        assert not made.predict(x, verbose=0).any()
    made.set_weights(weights)
    np.testing.assert_allclose(made.predict(x, verbose=0), before, rtol=1e-5, atol=1e-6)
    made.fit(x, y, epochs=2, verbose=0)
    now = made.predict(x, verbose=0)
    np.testing.assert_allclose(now, cornu.ops.convert_to_numpy(made(x)), rtol=1e-4, atol=1e-5)
    assert abs(now - before).max() > 1e-3


@with_gpu
def test_state_that_changes_places(on_gpu):
    """Results that lie in the state of others are read before it is written to."""

    def body(values):
        a, b, x = values
        return [b, a + x, a]

    run = launches.launched(body, [torch.zeros(2, device="cuda")] * 3, 2)
    state = [torch.tensor([1.0, 2.0], device="cuda"), torch.tensor([3.0, 4.0], device="cuda")]
    expected = [value.cpu() for value in state]
    for step in range(6):
        x = torch.full((2,), float(step), device="cuda")
        *state, old = run([*state, x])
        expected, before = [expected[1], expected[0] + step], expected[0]
        assert torch.equal(old.cpu(), before)
        assert torch.equal(state[0].cpu(), expected[0])
        assert torch.equal(state[1].cpu(), expected[1])
    assert run.graph is not None, run.why


@with_gpu
def test_what_waits_for_elements_goes_on_as_it_is(on_gpu):
    def body(values):
        return [values[0] * float(values[0].sum())]

    run = launches.launched(body, [torch.ones(2, device="cuda")], 0)
    for step in range(4):
        x = torch.full((2,), float(step), device="cuda")
        assert torch.equal(run([x])[0], x * (2.0 * step))
    assert run.graph is None


def same_slopes(function, arrays, tolerance):
    """Value and gradients of a function of variables are those of the NumPy engine."""
    found = {}
    for engine in ("torch", "numpy"):
        with cornu.engine(engine):
            given = [cornu.Variable(part) for part in arrays]
            value, gradients = cornu.value_and_grad(lambda given=given: function(given), given)()
            found[engine] = [cornu.ops.convert_to_numpy(part) for part in (value, *gradients)]
    for a, b in zip(found["torch"], found["numpy"], strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@with_gpu
@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradients_are_the_reference_s(causal):
    rng = np.random.default_rng(1)
    *arrays, weight = (rng.normal(size=(2, 9, 4, 16)).astype("float32") for _ in range(4))

    def loss(values):
        attended = cornu.ops.dot_product_attention(*values, is_causal=causal)
        return cornu.ops.sum(cornu.ops.multiply(attended, weight))

    same_slopes(loss, arrays, 2e-3)


@with_gpu
@pytest.mark.parametrize("options", [{}, {"go_backwards": True, "return_sequences": True}, {"use_bias": False}])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_and_their_gradients_are_the_reference_s(kind, options):
    x = np.random.default_rng(2).normal(size=(3, 7, 4)).astype("float32")
    layer = getattr(LAYERS, kind)(5, **options)
    with cornu.engine("numpy"):
        layer.build((None, 7, 4))
    weights = [np.random.default_rng(i).normal(size=w.shape).astype("float32") for i, w in enumerate(layer.weights)]

    def loss(values):
        return cornu.ops.sum(cornu.ops.square(layer.stateless_call([cornu.ops.convert_to_tensor(v) for v in values], [], x)[0]))

    same_slopes(loss, weights, 2e-3)


@with_gpu
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_train_as_on_the_cpu(kind):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(96, 9, 4)).astype("float32"), rng.normal(size=(96, 2)).astype("float32")
    found = []
    for engine in ("torch", "jax"):
        cornu.utils.set_random_seed(6)
        made = cornu.Sequential([LAYERS.Input((9, 4)), getattr(LAYERS, kind)(8), LAYERS.Dense(2)])
        made.compile("adam", "mse", engine=engine)
        found.append(made.fit(x, y, epochs=5, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@with_gpu
def test_batch_normalization_without_a_scale_has_gradients():
    x = np.random.default_rng(4).normal(size=(6, 3)).astype("float32")

    def loss(values):
        normalized = operator("normalization_by_batch")(values[0], axis=-1, offset=values[1])
        return cornu.ops.sum(cornu.ops.sin(normalized[0]))

    same_slopes(loss, [x, np.ones(3, "float32")], 1e-3)
