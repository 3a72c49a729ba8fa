"""Kernels of convolutions on PyTorch: turned once for a step, and products of matrices where these are faster."""

import numpy as np
import pytest

from cornu import ops

torch = pytest.importorskip("torch")

from torch_traces import ENGINE, named, nodes_of, with_gradients  # noqa: E402

from cornu.engines.torch import kernels, tracing  # noqa: E402

rng = np.random.default_rng(0)


def floats(*shape):
    return rng.normal(size=shape).astype("float32")


def turned(x, kernel):
    return ops.conv(x, kernel, padding="same")


# name -> (function of an array and a kernel, their shapes, whether it is a product of matrices)
CASES = {
    "a picture": (turned, (2, 6, 5, 3), (3, 3, 3, 4), False),
    "one channel": (turned, (2, 6, 5, 1), (3, 3, 1, 4), False),
    "one filter": (turned, (2, 6, 5, 3), (3, 3, 3, 1), False),
    "one channel and filter": (turned, (2, 6, 5, 1), (3, 3, 1, 1), False),
    "a window as large as the picture": (ops.conv, (2, 3, 2, 4), (3, 2, 4, 5), False),
    "strides": (lambda x, k: ops.conv(x, k, strides=2), (2, 6, 5, 3), (3, 3, 3, 4), False),
    "groups": (ops.conv, (2, 6, 5, 4), (3, 3, 2, 6), False),
    "the other way": (ops.conv_transpose, (2, 6, 5, 3), (3, 3, 4, 3), False),
    "a line": (ops.conv, (2, 6, 3), (3, 3, 4), False),
    "many positions": (ops.conv, (2, 3, 3, 4), (1, 1, 4, 17), False),
    "few positions": (ops.conv, (2, 3, 3, 4), (1, 1, 4, 18), True),
    "few positions, strides": (lambda x, k: ops.conv(x, k, strides=2), (1, 3, 3, 4), (1, 1, 4, 18), False),
    "few positions, padding": (lambda x, k: ops.conv(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), k),
                               (1, 1, 1, 4), (1, 1, 4, 18), True),
    "few positions, groups": (ops.conv, (1, 3, 3, 4), (1, 1, 2, 18), False),
}  # fmt: skip


@pytest.fixture(autouse=True)
def on_a_cpu():
    with torch.device("cpu"):
        yield


@pytest.mark.parametrize("large", [0, 1 << 20], ids=["as a matrix", "as it is"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_and_gradients_are_those_of_numpy(name, large, monkeypatch):
    monkeypatch.setattr(kernels, "_LARGE", large)
    function, x, kernel, is_product = CASES[name]
    values = floats(*x), floats(*kernel)
    given = [ENGINE.from_host(value) for value in values]
    run = with_gradients(function)
    traced = tracing._traced(run, given, 0, False)
    assert traced.eager_because is None
    wanted = [np.asarray(function(*values)), *by_differences(function, values)]
    for result in (traced(given), run(given)):
        for found, right in zip(result, wanted, strict=True):
            np.testing.assert_allclose(found.detach().numpy(), right, rtol=2e-4, atol=2e-4)
    assert bool(named(nodes_of(run, given), "aten.mm")) == is_product


def by_differences(function, values):
    """Gradients of the sum that `with_gradients` takes: it is linear in each of both, so differences are exact."""
    weights = np.cos(np.arange(np.asarray(function(*values)).size, dtype="float32"))

    def total(x, kernel):
        return float(np.sum(np.ravel(np.asarray(function(x, kernel))).astype("float64") * weights))

    for place in range(2):
        gradient = np.zeros_like(values[place])
        for at in np.ndindex(gradient.shape):
            one = np.zeros_like(gradient)
            one[at] = 1
            gradient[at] = total(*(one if i == place else value for i, value in enumerate(values)))
        yield gradient


@pytest.mark.parametrize("large", [0, 1 << 20], ids=["as a matrix", "as it is"])
def test_a_step_turns_a_kernel_once_and_its_gradient_back_once(large, monkeypatch):
    """A large one as a matrix both ways."""
    monkeypatch.setattr(kernels, "_LARGE", large)
    given = [ENGINE.from_host(value) for value in (floats(2, 6, 5, 3), floats(3, 3, 3, 4))]
    nodes = nodes_of(with_gradients(turned), given)
    (forward,), (backward,) = named(nodes, "aten.convolution.default"), named(nodes, "convolution_backward")
    assert forward.args[1] is backward.args[2]
    assert forward.args[1].meta["val"].is_contiguous(memory_format=torch.channels_last)
    assert [node.args[0].meta["val"].ndim for node in named(nodes, "clone")] == [4 if large else 2] * 2


def test_predictions_have_a_view_of_the_kernel():
    given = [ENGINE.from_host(value) for value in (floats(2, 6, 5, 3), floats(3, 3, 3, 4))]
    nodes = nodes_of(lambda values: [turned(*values)], given)
    assert not named(nodes, "clone")
    assert not named(nodes, "copy")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_widths(dtype):
    given = [ops.cast(ENGINE.from_host(value), dtype) for value in (floats(2, 6, 5, 3), floats(3, 3, 3, 4))]
    found = turned(*given)
    wanted = turned(*(value.double() for value in given))
    assert found.dtype == given[0].dtype
    np.testing.assert_allclose(found.double().numpy(), wanted.numpy(), rtol=2e-2, atol=5e-2)


def test_arrays_that_lie_otherwise():
    """As after a transposition: neither is laid out, the numbers are the same."""
    x, kernel = ENGINE.from_host(floats(2, 3, 6, 5)).permute(0, 2, 3, 1), ENGINE.from_host(floats(4, 3, 3, 3))
    kernel = kernel.permute(2, 3, 1, 0)
    assert not x.is_contiguous()
    found, wanted = turned(x, kernel), turned(x.contiguous(), kernel.contiguous())
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5)
