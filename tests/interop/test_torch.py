"""PyTorch as its users use it: backward through a model, loaders, modules in both directions, torch functions in layers."""

import weakref

import numpy as np
import pytest

import cornu
from cornu import Input, Model, layers
from cornu.core.errors import BuildError, EngineError

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
Y = (X @ np.random.default_rng(1).normal(size=(5, 3))).astype("float32")


def network():
    cornu.utils.set_random_seed(1)
    x = Input((5,))
    y = layers.BatchNormalization()(layers.Dense(4, activation="tanh")(x))
    return Model(x, layers.Dense(3)(y))


def test_backward_through_a_model_equals_our_gradient():
    model = network()
    with cornu.engine("torch"):
        loss = ((model(torch.tensor(X), training=True) - torch.tensor(Y)) ** 2).mean()
        loss.backward()
        found = [variable.value.grad.numpy() for variable in model.trainable_variables]
    again = network()
    with cornu.engine("numpy"):
        task = lambda: cornu.ops.mean(cornu.ops.square(again(X, training=True) - Y))
        value, wanted = cornu.value_and_grad(task, again.trainable_variables)()
    np.testing.assert_allclose(float(loss.detach()), float(value), rtol=1e-5)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "hold",
    [
        lambda parameter, model: parameter,
        lambda parameter, model: torch.optim.SGD([parameter]),
        lambda parameter, model: model(torch.tensor(X)),  # a graph of autograd
        lambda parameter, model: parameter.view(-1).detach(),
        lambda parameter, model: parameter.detach().numpy(),
        lambda parameter, model: weakref.ref(parameter),
        lambda parameter, model: parameter.register_hook(lambda gradient: gradient) and None,
        lambda parameter, model: setattr(parameter, "note", 1),
        lambda parameter, model: model(torch.tensor(X)).sum().backward(),  # leaves a gradient
    ],
)
def test_a_parameter_that_somebody_holds_stays_the_variables_own(hold):
    model = network()
    model.compile("sgd", "mse")
    variable = model.trainable_variables[0]
    with cornu.engine("torch"):
        model(torch.tensor(X))
        held = hold(variable.value, model)
        home = variable.home
        before = variable.numpy().copy()
        model.train_on_batch(X, Y)
        model.train_on_batch(X, Y)
        assert variable.home is home
        assert not np.array_equal(home.native.detach().numpy(), before)
        np.testing.assert_array_equal(home.native.detach().numpy(), variable.numpy())
    del held


def test_a_parameter_that_nobody_holds_is_let_go_when_training_begins():
    model, again = network(), network()
    model.compile("sgd", "mse")
    again.compile("sgd", "mse")
    with cornu.engine("torch"):
        model(torch.tensor(X))
        assert model.trainable_variables[0].home is not None
        for _ in range(3):
            model.train_on_batch(X, Y)
            again.train_on_batch(X, Y)
        assert all(variable.home is None for variable in model.variables)
        for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        model(torch.tensor(X)).sum().backward()
        assert model.trainable_variables[0].value.grad is not None


def test_a_model_in_a_module_trains_with_an_optimizer_of_torch():
    from cornu.interop.torch import Module

    class Net(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.body = Module(model)
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.body(x) * self.scale

    model = network()
    net = Net(model)
    assert len(list(net.parameters())) == 7 and len(list(net.buffers())) == 2
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((net(torch.tensor(X)) - torch.tensor(Y)) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10
    net.eval()
    with torch.no_grad():
        outputs = net.body(torch.tensor(X)).numpy()
    # The model sees what the optimizer did, on every engine; the module sees what `fit` does.
    for engine in ("numpy", "jax", "torch"):
        np.testing.assert_allclose(model.predict(X, verbose=0, engine=engine), outputs, rtol=1e-4, atol=1e-5)
    before = net.body.dense_kernel.detach().clone()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0, engine="jax")
    assert not torch.equal(before, net.body.dense_kernel)
    np.testing.assert_array_equal(net.body.dense_kernel.detach().numpy(), model.layers[1].kernel.numpy())


def test_state_of_a_module_is_saved_and_loaded_by_torch():
    from cornu.interop.torch import Module

    one, other = network(), network()
    other.set_weights([w + 1 for w in other.get_weights()])
    Module(other).load_state_dict(Module(one).state_dict())
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    halves = Module(one).double()
    assert all(p.dtype == torch.float64 for p in halves.parameters())


def test_a_module_wants_weights_that_are_made():
    from cornu.interop.torch import Module

    with pytest.raises(BuildError, match="not made yet"):
        Module(layers.Dense(3))


def test_a_module_of_torch_is_a_layer():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh())
    x = Input((5,))
    wrapped = layers.TorchModuleWrapper(net)
    model = Model(x, layers.Dense(3)(wrapped(x)))
    assert wrapped.output.shape == (None, 8)
    assert len(wrapped.trainable_variables) == 4 and len(wrapped.non_trainable_variables) == 3
    model.compile(cornu.optimizers.Adam(0.02), "mse")
    losses = model.fit(X, Y, epochs=30, verbose=0).history["loss"]  # bound to torch without being told
    assert losses[-1] < losses[0] / 2
    assert int(net[1].num_batches_tracked) == 30
    np.testing.assert_array_equal(net[0].weight.detach().numpy(), wrapped.trainable_variables[0].numpy())
    with pytest.raises(EngineError, match="the module Sequential.*'jax'"):
        model.predict(X, verbose=0, engine="jax")
    with pytest.raises(cornu.errors.ArgumentError, match=r"torch\.nn\.Module"):
        layers.TorchModuleWrapper("net")


def test_a_loader_goes_into_fit():
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.tensor(X), torch.tensor(Y))
    one, other = network(), network()
    for model in (one, other):
        model.compile(cornu.optimizers.SGD(0.05), "mse")
    found = one.fit(DataLoader(data, batch_size=8), epochs=2, verbose=0, engine="torch").history["loss"]
    wanted = other.fit(X, Y, batch_size=8, shuffle=False, epochs=2, verbose=0, engine="numpy").history["loss"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


class Gate(layers.Layer):
    def call(self, x):
        kernel = self.add_weight(shape=(x.shape[-1], 4), name="kernel")
        return torch.nn.functional.silu(torch.matmul(x, kernel)) * torch.sigmoid(x.mean(-1, keepdim=True))


def test_functions_of_torch_in_a_layer_of_a_graph():
    x = Input((None, 5))
    hidden = Gate(name="gate")(x)
    assert hidden.shape == (None, None, 4)
    model = Model(x, layers.GlobalAveragePooling1D()(hidden))
    model.compile(cornu.optimizers.Adam(0.05), "mse")
    series = np.stack([X, X + 1], axis=1)
    losses = model.fit(series, X[:, :4], epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    with pytest.raises(EngineError, match=r"'gate' \(Gate\) calls torch's (silu|matmul)") as caught:
        model.predict(series, engine="jax", verbose=0)
    assert "engine='torch'" in str(caught.value)


def test_a_function_of_torch_on_a_symbolic_tensor_says_what_to_do():
    with pytest.raises(EngineError, match="torch's relu.*no value yet") as caught:
        torch.relu(Input((3,)))
    assert "cornu.layers.Lambda" in str(caught.value)
