"""The NumPy engine's convolutions and windows against `jax.lax` and its derivatives."""

import functools
from dataclasses import dataclass

import jax
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from cornu.engines.numpy import windows


@dataclass(frozen=True)
class Conv:
    shape: tuple
    kernel: tuple
    strides: tuple
    padding: tuple
    dilation: tuple
    groups: int = 1

    @property
    def static(self):
        return {
            "strides": self.strides,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }


CONVOLUTIONS = {
    "1d": Conv((2, 7, 3), (3, 3, 4), (1,), ((0, 0),), (1,)),
    "1d-causal-dilated": Conv((2, 9, 3), (3, 3, 2), (1,), ((4, 0),), (2,)),
    "1d-stride-beyond-kernel": Conv((2, 11, 2), (2, 2, 3), (4,), ((1, 0),), (1,)),
    "1d-depthwise": Conv((2, 8, 3), (3, 1, 6), (2,), ((1, 2),), (1,), groups=3),
    "2d": Conv((2, 6, 5, 3), (3, 2, 3, 4), (1, 1), ((1, 1), (0, 0)), (1, 1)),
    "2d-pointwise": Conv((2, 4, 5, 3), (1, 1, 3, 4), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "2d-strided-remainder": Conv((2, 8, 7, 2), (3, 3, 2, 3), (2, 3), ((0, 1), (2, 0)), (1, 1)),
    "2d-dilated": Conv((1, 9, 8, 2), (3, 2, 2, 3), (1, 2), ((2, 1), (0, 3)), (2, 3)),
    "2d-grouped": Conv((2, 5, 6, 4), (3, 3, 2, 6), (1, 2), ((1, 1), (1, 0)), (1, 1), groups=2),
    "2d-depthwise": Conv((2, 6, 5, 3), (3, 2, 1, 6), (2, 1), ((0, 1), (1, 1)), (1, 2), groups=3),
    "3d": Conv((1, 4, 5, 3, 2), (2, 3, 2, 2, 3), (1, 2, 1), ((0, 1), (1, 1), (0, 0)), (1, 1, 1)),
    "3d-grouped-dilated": Conv(
        (2, 5, 4, 4, 4), (2, 2, 3, 2, 4), (2, 1, 1), ((1, 0), (0, 2), (1, 1)), (2, 1, 1), groups=2
    ),
}


@dataclass(frozen=True)
class Pool:
    shape: tuple
    window: tuple
    strides: tuple
    padding: tuple

    @property
    def static(self):
        return {"window": self.window, "strides": self.strides, "padding": self.padding}


POOLS = {
    "1d": Pool((2, 8, 3), (2,), (2,), ((0, 0),)),
    "1d-asymmetric": Pool((2, 7, 3), (3,), (2,), ((0, 2),)),
    "1d-gaps": Pool((2, 9, 3), (2,), (3,), ((1, 0),)),
    "2d-overlap": Pool((2, 6, 5, 3), (3, 2), (1, 1), ((1, 1), (0, 0))),
    "2d-strided": Pool((2, 7, 8, 2), (3, 3), (2, 3), ((0, 1), (2, 1))),
    "3d": Pool((1, 4, 5, 4, 2), (2, 3, 2), (2, 1, 2), ((0, 0), (1, 1), (0, 1))),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def numbers(shape, kind):
    """Elements of a kind that max pooling may trip over."""
    rng = np.random.default_rng(1)
    if kind == "ties":
        return rng.integers(0, 3, shape).astype(np.float64)
    if kind == "equal":
        return np.full(shape, -5.0)
    return {"negative": lambda: -1 - rng.random(shape), "any": lambda: rng.standard_normal(shape)}[kind]()


def conv_cases(function):
    return pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())(function)


def pool_cases(function):
    return pytest.mark.parametrize("case", POOLS.values(), ids=POOLS.keys())(function)


def assert_close(result, expected):
    expected = np.asarray(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@functools.lru_cache(maxsize=1)
def jax_convolution(case):
    """The arguments, jax's result, a gradient for it, and jax's two gradients."""
    space = "DHW"[3 - len(case.strides) :]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")

    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            case.strides,
            case.padding,
            rhs_dilation=case.dilation,
            dimension_numbers=numbers,
            feature_group_count=case.groups,
        )

    x, kernel = normal(case.shape), normal(case.kernel, 1)
    result, back = jax.vjp(convolve, x, kernel)
    g = normal(result.shape, 2)
    return x, kernel, result, g, *back(g)


@conv_cases
def test_convolution(case):
    x, kernel, expected, *_ = jax_convolution(case)
    assert_close(windows.convolution(x, kernel, **case.static), expected)


@conv_cases
def test_convolution_input_gradient(case):
    _, kernel, _, g, expected, _ = jax_convolution(case)
    assert_close(windows.convolution_input_gradient(g, kernel, shape=case.shape, **case.static), expected)


@conv_cases
def test_convolution_kernel_gradient(case):
    x, _, _, g, _, expected = jax_convolution(case)
    assert_close(windows.convolution_kernel_gradient(x, g, shape=case.kernel, **case.static), expected)


def jax_sum(case, x):
    return lax.reduce_window(x, 0.0, lax.add, *jax_window(case))


def jax_max(case, x):
    return lax.reduce_window(x, -np.inf, lax.max, *jax_window(case))


def jax_window(case):
    return (1, *case.window, 1), (1, *case.strides, 1), ((0, 0), *case.padding, (0, 0))


@pool_cases
def test_window_sum_and_gradient(case):
    x = normal(case.shape)
    expected, back = jax.vjp(functools.partial(jax_sum, case), x)
    assert_close(windows.window_sum(x, **case.static), expected)
    g = normal(expected.shape, 1)
    assert_close(windows.window_sum_gradient(g, shape=case.shape, **case.static), back(g)[0])


@pytest.mark.parametrize("kind", ["any", "negative", "ties", "equal"])
@pool_cases
def test_window_max_and_gradient(case, kind):
    x = numbers(case.shape, kind)
    expected, back = jax.vjp(functools.partial(jax_max, case), x)
    assert_close(windows.window_max(x, **case.static), expected)
    g = normal(expected.shape, 1)
    assert_close(windows.window_max_gradient(x, g, **case.static), back(g)[0])


@pytest.mark.parametrize("kind", ["any", "negative"])
@pool_cases
def test_window_max_take(case, kind):
    x, values = numbers(case.shape, kind), normal(case.shape, 1)
    _, expected = jax.jvp(functools.partial(jax_max, case), (x,), (values,))
    assert_close(windows.window_max_take(x, values, **case.static), expected)


@pytest.mark.parametrize("kind", ["ties", "equal"])
@pool_cases
def test_window_max_take_is_the_transpose_of_the_gradient(case, kind):
    x, values = numbers(case.shape, kind), normal(case.shape, 1)
    taken = windows.window_max_take(x, values, **case.static)
    g = normal(taken.shape, 2)
    given = windows.window_max_gradient(x, g, **case.static)
    np.testing.assert_allclose(np.sum(taken * g), np.sum(values * given), rtol=1e-10)


STEPS = {"window": (3,), "strides": (2,), "padding": ((1, 1),)}
LEAST = [
    (np.float32, -np.inf),
    (np.float16, -np.inf),
    (ml_dtypes.bfloat16, -np.inf),
    (np.int8, -128),
    (np.uint8, 0),
    (np.int64, -(2**63)),
]


@pytest.mark.parametrize(("dtype", "least"), LEAST)
def test_padding_never_wins_even_over_the_least_values(dtype, least):
    x = np.full((1, 4, 1), least, dtype)
    assert windows.window_max(x, **STEPS).ravel().tolist() == [least, least]
    g = np.array([1, 2], dtype).reshape(1, 2, 1)
    assert windows.window_max_gradient(x, g, **STEPS).ravel().tolist() == [1, 2, 0, 0]
    values = np.array([5, 6, 7, 8], dtype).reshape(1, 4, 1)
    assert windows.window_max_take(x, values, **STEPS).ravel().tolist() == [5, 6]


def test_a_window_of_padding_only_gives_the_least_and_takes_nothing():
    static = {"window": (2,), "strides": (2,), "padding": ((2, 0),)}
    x = np.array([3, 4], np.int32).reshape(1, 2, 1)
    assert windows.window_max(x, **static).ravel().tolist() == [np.iinfo(np.int32).min, 4]
    assert windows.window_max_gradient(x, x, **static).ravel().tolist() == [0, 4]
    assert windows.window_max_take(x, x, **static).ravel().tolist() == [0, 4]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_nan_wins_and_the_first_takes_the_gradient(dtype):
    x = np.array([np.inf, np.nan, np.nan, 1, 2, 0], dtype).reshape(1, 6, 1)
    static = {"window": (3,), "strides": (3,), "padding": ((0, 0),)}
    largest = windows.window_max(x, **static).astype(np.float64).ravel()
    np.testing.assert_array_equal(largest, [np.nan, 2])
    g = np.array([5, 6], dtype).reshape(1, 2, 1)
    assert windows.window_max_gradient(x, g, **static).ravel().tolist() == [0, 5, 0, 0, 6, 0]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.int64])
def test_integers(dtype):
    case = CONVOLUTIONS["2d-grouped"]
    rng = np.random.default_rng(0)
    x, kernel = rng.integers(0, 2, case.shape), rng.integers(0, 3, case.kernel)
    wide = windows.convolution(x.astype(np.float64), kernel.astype(np.float64), **case.static)
    g = rng.integers(0, 2, wide.shape)
    pool = {"window": (2, 3), "strides": (1, 2), "padding": ((1, 0), (0, 1))}
    for function, arrays, static in [
        (windows.convolution, (x, kernel), case.static),
        (windows.convolution_input_gradient, (g, kernel), {"shape": case.shape, **case.static}),
        (windows.convolution_kernel_gradient, (x, g), {"shape": case.kernel, **case.static}),
        (windows.window_sum, (x,), pool),
        (windows.window_max, (x,), pool),
        (windows.window_max_take, (x, x), pool),
    ]:
        result = function(*(a.astype(dtype) for a in arrays), **static)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, function(*(a.astype(np.float64) for a in arrays), **static))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_width_floats_are_added_up_in_float32(dtype):
    count = 3000
    ones = np.ones((1, count, 1), dtype)
    total = np.array(count).astype(dtype)
    static = {"strides": (1,), "padding": ((0, 0),)}
    assert windows.window_sum(ones, window=(count,), **static) == total
    conv = {**static, "dilation": (1,), "groups": 1}
    one = np.ones((1, 1, 1), dtype)
    assert windows.convolution(ones, np.ones((count, 1, 1), dtype), **conv) == total
    assert windows.convolution_kernel_gradient(ones, ones, shape=(1, 1, 1), **conv) == total
    kernel = np.ones((count, 1, 1), dtype)
    padded = {**conv, "padding": ((count - 1, count - 1),)}
    g = np.ones((1, 2 * count - 1, 1), dtype)
    assert windows.convolution_input_gradient(g, kernel, shape=(1, count, 1), **padded)[0, 0, 0] == total
    for result in (windows.convolution(one, one, **conv), windows.window_max(ones, window=(2,), **static)):
        assert result.dtype == dtype


@conv_cases
def test_convolution_without_rows(case):
    x, kernel, result, *_ = jax_convolution(case)
    x, g = x[:0], np.asarray(result)[:0]
    assert windows.convolution(x, kernel, **case.static).shape == g.shape
    assert windows.convolution_input_gradient(g, kernel, shape=x.shape, **case.static).shape == x.shape
    gradient = windows.convolution_kernel_gradient(x, g, shape=kernel.shape, **case.static)
    np.testing.assert_array_equal(gradient, np.zeros(kernel.shape))


@pool_cases
def test_windows_without_rows(case):
    x = np.zeros((0, *case.shape[1:]), np.float32)
    g = windows.window_sum(x, **case.static)
    assert g.shape[0] == 0
    assert windows.window_max(x, **case.static).shape == g.shape
    assert windows.window_max_take(x, x, **case.static).shape == g.shape
    assert windows.window_sum_gradient(g, shape=x.shape, **case.static).shape == x.shape
    assert windows.window_max_gradient(x, g, **case.static).shape == x.shape


def test_arguments_are_left_as_they_were():
    x = normal((1, 4, 1))
    before = x.copy()
    static = {"window": (1,), "strides": (1,), "padding": ((0, 0),)}
    for function in (windows.window_sum, windows.window_max):
        function(x, **static)[...] = 0
    windows.window_max_gradient(x, x, **static)[...] = 0
    np.testing.assert_array_equal(x, before)
