"""ReLU on JAX: as elsewhere for what is not finite, its gradient from what came out, and computed once for all."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cornu
from cornu.engines.jax import choice, compiling

relu = cornu.engines.get("jax").table["relu"]
rng = np.random.default_rng(0)


def floats(*shape):
    return jnp.asarray(rng.normal(size=shape).astype("float32"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "uint8"])
def test_numbers_are_those_of_jax(dtype):
    x = jnp.asarray([0, 1, 3, 100, 127] if dtype == "uint8" else [-7, -1, 0, 1, 7], dtype)
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    assert relu(x).dtype == dtype


def test_what_is_not_finite():
    x = jnp.asarray([np.nan, -np.inf, np.inf, -0.0])
    np.testing.assert_array_equal(relu(x), [np.nan, 0, np.inf, 0])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(relu(x)))(x), [0, 0, 1, 0])


def test_gradients_of_every_kind():
    x, d = jnp.asarray([-2.0, -0.5, 0.0, 0.5, 2.0]), jnp.arange(1.0, 6.0)
    cube = lambda x: jnp.sum(relu(x) ** 3)
    np.testing.assert_allclose(jax.grad(cube)(x), [0, 0, 0, 0.75, 12])
    np.testing.assert_allclose(jax.hessian(cube)(x), np.diag([0, 0, 0, 3, 12]))
    np.testing.assert_allclose(jax.jvp(relu, (x,), (d,))[1], [0, 0, 0, 4, 5])
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: relu(x) * x))(x), [0, 0, 0, 1, 4])


def test_what_several_read_is_computed_once():
    """A maximum is computed again within the transposition for a kernel's gradient, which takes ten times as long."""
    given = floats(8, 28, 28, 64), floats(64), floats(3, 3, 64, 64)

    def readers(function):
        """How many computations read the result of the convolution that comes before."""

        def convolve(x, kernel):
            order = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=order)

        def loss(x, bias, kernel):
            return jnp.sum(jnp.sin(convolve(function(convolve(x, kernel) + bias), kernel)))

        lowered = jax.jit(jax.grad(loss, (0, 1, 2)), compiler_options=compiling.options()).lower(*given)
        (entry,) = re.findall(r"^ENTRY.*?^}", lowered.compile().as_text(), re.DOTALL | re.MULTILINE)
        (first, *_) = re.findall(r"%([\w.]+) = \S+ convolution\(%x", entry)
        return len(re.findall(rf"\(.*%{re.escape(first)}\b", entry))

    assert readers(relu) == 1 < readers(jax.nn.relu)


@pytest.mark.parametrize(("batch", "cores", "way"), [(8, 2, "xla"), (8, 1, "positions"), (1, 2, "positions")])
def test_kernels_of_one_element(monkeypatch, batch, cores, way):
    """By XLA where there is much to do; what comes into its convolutions is computed once."""
    monkeypatch.setattr(choice, "cores", lambda: cores)
    static = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    shapes = [(batch, 28, 28, 64), (1, 1, 64, 256)]
    assert choice.usual("convolution", shapes, "float32", static) == way
    shapes = [(batch, 28, 28, 256), (1, 1, 64, 256)]
    static["shape"] = (batch, 28, 28, 64)
    assert choice.usual("convolution_input_gradient", shapes, "float32", static) == "positions"
