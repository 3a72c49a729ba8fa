"""The NumPy engine's special functions against SciPy's."""

import ml_dtypes
import numpy as np
import pytest
import scipy.special

from cornu.engines.numpy import special

FUNCTIONS = ["erf", "erfinv", "lgamma", "digamma"]
NEAR_0 = np.logspace(-300, -1, 400)
ABOVE_0 = np.concatenate([np.linspace(1e-3, 300, 30_000), NEAR_0, np.logspace(0, 300, 400)])
BETWEEN_POLES = -(np.arange(300)[:, None] + np.linspace(0.01, 0.99, 50)).reshape(-1)


def assert_close(result, expected, rtol=1e-12, atol=0.0):
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sign", [-1, 1])
def test_erf_on_a_grid(sign):
    x = sign * np.concatenate([np.linspace(0, 7, 50_001), NEAR_0, [300, np.inf]])
    assert_close(special.erf(x), scipy.special.erf(x), rtol=2e-15)


@pytest.mark.parametrize("sign", [-1, 1])
def test_erfinv_on_a_grid(sign):
    x = sign * np.concatenate([np.linspace(0, 1, 50_001)[:-1], 1 - np.logspace(-15.9, -1, 400), NEAR_0, [1 - 2**-53]])
    assert_close(special.erfinv(x), scipy.special.erfinv(x), rtol=2e-15)


def test_erfinv_undoes_erf():
    x = np.linspace(-1, 1, 1001)
    assert_close(special.erfinv(special.erf(x)), x, rtol=2e-15)


def test_lgamma_above_0():
    assert_close(special.lgamma(ABOVE_0), scipy.special.gammaln(ABOVE_0), rtol=1e-12)


def test_lgamma_close_to_its_roots():
    x = np.concatenate([root + sign * np.logspace(-15, -1, 200) for root in (1, 2) for sign in (-1, 1)])
    # SciPy's complex function, unlike its real one, has a series around the roots.
    assert_close(special.lgamma(x), scipy.special.loggamma(x + 0j).real, rtol=5e-14)


def test_lgamma_below_0():
    x = np.concatenate([BETWEEN_POLES, -NEAR_0])
    assert_close(special.lgamma(x), scipy.special.gammaln(x), atol=1e-12)


def test_digamma_above_0():
    near_root = np.concatenate([1.4616321449683622 + sign * np.logspace(-15, -0.5, 200) for sign in (-1, 1)])
    x = np.concatenate([ABOVE_0, near_root])
    assert_close(special.digamma(x), scipy.special.digamma(x), rtol=5e-14)


def test_digamma_below_0():
    x = np.concatenate([BETWEEN_POLES, -NEAR_0])
    assert_close(special.digamma(x), scipy.special.digamma(x), atol=1e-10)


def test_digamma_close_to_a_pole():
    distance = 2.0 ** -np.arange(10, 40)
    assert_close(special.digamma(-7 + distance), scipy.special.digamma(8) - 1 / distance, rtol=1e-5)


@pytest.mark.parametrize("function", ["lgamma", "digamma"])
def test_recurrence_below_0(function):
    x = -np.linspace(0.01, 9.99, 998)
    x = x[np.abs(x - np.round(x)) > 1e-3]
    step = {"lgamma": np.log(np.abs(x)), "digamma": 1 / x}[function]
    assert_close(getattr(special, function)(x + 1), getattr(special, function)(x) + step, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        ("erf", [0.0, np.inf, -np.inf, np.nan], [0.0, 1.0, -1.0, np.nan]),
        ("erfinv", [0.0, 1.0, -1.0, 1.5, -1.5, np.inf, np.nan], [0.0, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan]),
        ("lgamma", [0.0, -0.0, -1.0, -2.0, -300.0, -1e300, 1.0, 2.0], [np.inf] * 6 + [0.0, 0.0]),
        ("lgamma", [np.inf, -np.inf, 1e307, np.nan], [np.inf, np.inf, np.inf, np.nan]),
        ("digamma", [0.0, -0.0, -1.0, -300.0, -1e300], [np.nan] * 5),
        ("digamma", [np.inf, -np.inf, np.nan], [np.inf, np.nan, np.nan]),
    ],
)
def test_edges(function, x, expected):
    np.testing.assert_array_equal(getattr(special, function)(np.array(x)), expected)


@pytest.mark.parametrize("function", ["erf", "erfinv"])
def test_zero_keeps_its_sign(function):
    assert np.signbit(getattr(special, function)(np.array([0.0, -0.0]))).tolist() == [False, True]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_dtype_is_kept_and_the_result_is_the_nearest(function, dtype):
    x = np.linspace(-0.95, 0.95, 40).astype(dtype)
    result = getattr(special, function)(x)
    scipy_function = getattr(scipy.special, "gammaln" if function == "lgamma" else function)
    assert result.dtype == x.dtype
    exact = scipy_function(x.astype(np.float64))
    half_a_step = 0.51 * float(ml_dtypes.finfo(x.dtype).eps) if x.dtype.itemsize < 8 else 1e-14
    assert_close(result.astype(np.float64), exact, rtol=half_a_step, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_results_out_of_range_are_infinite(dtype):
    largest = np.array(ml_dtypes.finfo(dtype).max, dtype)
    assert np.isinf(special.lgamma(largest))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (2, 3)])
def test_shape_is_kept(function, shape):
    result = getattr(special, function)(np.full(shape, 0.25, np.float32))
    assert isinstance(result, np.ndarray)
    assert result.shape == shape
