"""`ops.nn` against Keras: values, gradients (tape and native), shapes of unknown sizes, and what it refuses."""

import functools

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff import value_and_grad
from cornu.core import context
from cornu.core.dims import BATCH, Dim, evaluate
from cornu.core.errors import ArgumentError, CornuError, DtypeError, ShapeError, UnsupportedError
from cornu.core.spec import Spec
from cornu.core.variable import Variable


@pytest.fixture(scope="module", autouse=True)
def quick_compiles():
    """Most of the time here goes into XLA's optimisation of code that runs once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


rng = np.random.default_rng(7)


def floats(*shape):
    return rng.normal(size=shape).astype("float32")


def probabilities(*shape):
    x = np.exp(floats(*shape))
    return x / x.sum(-1, keepdims=True)


ROW = np.array([-7.3, -2.6, -1.4, -0.7, -0.2, 0.3, 0.8, 1.7, 3.4, 8.1], "float32")
IMAGE, SQUARE, LINE = floats(2, 7, 6, 4), floats(2, 5, 5, 2), floats(2, 9, 4)
FIRST = np.moveaxis(IMAGE, -1, 1).copy()
Q, K, V = floats(2, 5, 4, 3), floats(2, 6, 4, 3), floats(2, 6, 4, 3)
BIAS, MASK = floats(1, 4, 5, 6), rng.random((2, 1, 5, 6)) > 0.4
ONE_HOT = np.eye(5, dtype="float32")[[1, 0, 4]]

PLAIN = [
    "celu", "elu", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid",
    "log_softmax", "relu6", "selu", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh_shrink",
]  # fmt: skip

# name of the op, arrays (the floats among them are differentiated), other arguments.
ELEMENTWISE = [
    *((name, (ROW,), {}) for name in PLAIN),
    ("gelu", (ROW,), {"approximate": False}), ("elu", (ROW,), {"alpha": 0.3}), ("celu", (ROW,), {"alpha": 0.3}),
    ("leaky_relu", (ROW,), {"negative_slope": 0.4}), ("threshold", (ROW,), {"threshold": 0.5, "default_value": -2.0}),
    ("soft_shrink", (ROW,), {"threshold": 1.5}), ("hard_shrink", (ROW,), {"threshold": 1.5}),
    ("softmax", (LINE,), {"axis": 1}), ("softmax", (LINE,), {"axis": (0, 2)}), ("log_softmax", (LINE,), {"axis": 0}),
    ("glu", (LINE,), {"axis": 2}), ("squareplus", (ROW,), {"b": 0.5}),
]  # fmt: skip
CONVOLUTIONS = [
    ("conv", (LINE, floats(3, 4, 5)), {}), ("conv", (LINE, floats(2, 4, 5)), {"padding": "same", "strides": 3}),
    ("conv", (IMAGE, floats(3, 2, 4, 5)), {"strides": (2, 1), "padding": "same"}),
    ("conv", (IMAGE, floats(3, 3, 4, 5)), {"dilation_rate": 2}),
    ("conv", (IMAGE, floats(3, 3, 2, 6)), {"padding": "same"}),
    ("conv", (FIRST, floats(3, 3, 4, 5)), {"data_format": "channels_first", "padding": "same", "strides": 2}),
    ("conv", (floats(1, 4, 3, 4, 2), floats(2, 2, 2, 2, 3)), {}),
    ("depthwise_conv", (IMAGE, floats(3, 3, 4, 2)), {"padding": "same", "strides": 2}),
    ("conv", (IMAGE, floats(2, 1, 4, 5)), {"strides": (3, 4), "padding": "same"}),
    ("depthwise_conv", (FIRST, floats(2, 3, 4, 1)), {"data_format": "channels_first"}),
    ("separable_conv", (IMAGE, floats(3, 3, 4, 2), floats(1, 1, 8, 3)), {"padding": "same", "strides": 2}),
    ("conv_transpose", (SQUARE, floats(3, 3, 4, 2)), {"strides": 2}),
    ("conv_transpose", (SQUARE, floats(2, 3, 4, 2)), {"strides": 2, "padding": "same"}),
    ("conv_transpose", (SQUARE, floats(3, 3, 4, 2)), {"strides": 3, "padding": "same", "output_padding": 1}),
    ("conv_transpose", (SQUARE, floats(1, 1, 4, 2)), {"strides": 3, "padding": "same"}),
    ("conv_transpose", (SQUARE, floats(2, 2, 4, 2)), {"strides": (1, 3), "output_padding": (0, 2)}),
    ("conv_transpose", (SQUARE, floats(2, 2, 4, 2)), {"strides": 3}),
    ("conv_transpose", (SQUARE, floats(3, 2, 4, 2)), {"dilation_rate": 2, "padding": "same"}),
    ("conv_transpose", (FIRST, floats(4, 3, 3, 4)), {"data_format": "channels_first", "strides": 2, "padding": "same"}),
]  # fmt: skip
POOLING = [
    (name, (x,), options)
    for name in ("max_pool", "average_pool")
    for x, options in (
        (IMAGE, {"pool_size": 2, "strides": 2}), (IMAGE, {"pool_size": (3, 2), "strides": 2, "padding": "same"}),
        (IMAGE, {"pool_size": 3, "strides": 1, "padding": "same"}), (LINE, {"pool_size": 4, "strides": 3}),
        (FIRST, {"pool_size": 3, "strides": 2, "padding": "same", "data_format": "channels_first"}),
    )
] + [
    ("adaptive_average_pool", (IMAGE,), {"output_size": (3, 4)}), ("adaptive_max_pool", (IMAGE,), {"output_size": 5}),
    ("adaptive_average_pool", (FIRST,), {"output_size": 3, "data_format": "channels_first"}),
]  # fmt: skip
REST = [
    ("moments", (LINE,), {"axes": [0, 1]}), ("moments", (LINE,), {"axes": 1, "keepdims": True}),
    ("batch_normalization", (LINE, floats(4), probabilities(4)), {"axis": -1}),
    ("batch_normalization", (LINE, floats(9), probabilities(9)), {"axis": 1, "offset": floats(9), "scale": floats(9)}),
    ("layer_normalization", (LINE, floats(4), floats(4)), {}), ("layer_normalization", (LINE,), {"axis": (1, 2)}),
    ("layer_normalization", (LINE, floats(9), floats(9)), {"axis": 1, "epsilon": 0.1}),
    ("rms_normalization", (LINE, floats(4)), {}), ("rms_normalization", (LINE,), {"axis": 1, "epsilon": 0.1}),
    ("normalize", (LINE,), {}), ("normalize", (LINE,), {"axis": (0, 1)}),
    ("normalize", (LINE,), {"axis": 1, "order": 1}), ("normalize", (LINE,), {"order": 3}),
    ("binary_crossentropy", (probabilities(3, 5), probabilities(3, 5)), {}),
    ("binary_crossentropy", (probabilities(3, 5), floats(3, 5)), {"from_logits": True}),
    ("categorical_crossentropy", (ONE_HOT, probabilities(3, 5) * 2), {}),
    ("categorical_crossentropy", (ONE_HOT.T.copy(), floats(5, 3)), {"from_logits": True, "axis": 0}),
    ("sparse_categorical_crossentropy", (np.array([1, 0, 4]), probabilities(3, 5)), {}),
    ("sparse_categorical_crossentropy", (np.array([[1], [0], [4]]), floats(3, 5)), {"from_logits": True}),
    ("psnr", (LINE, LINE + 0.1), {"max_val": 2.0}),
    ("dot_product_attention", (Q, K, V), {}), ("dot_product_attention", (Q, K, V), {"is_causal": True, "scale": 0.3}),
    ("dot_product_attention", (Q, K, V, BIAS), {"mask": MASK, "is_causal": True}),
    ("dot_product_attention", (Q, K[:, :, :2], V[:, :, :2]), {"mask": MASK}),
]  # fmt: skip
CASES = ELEMENTWISE + CONVOLUTIONS + POOLING + REST


def total(namespace, results):
    """One number that depends on every element in its own way."""
    results = results if isinstance(results, (tuple, list)) else [results]
    sums = [
        namespace.sum(namespace.multiply(y, np.cos(np.arange(np.prod(y.shape))).reshape(y.shape).astype("float32")))
        for y in results
    ]
    return sums[0] if len(sums) == 1 else namespace.add(*sums)


@functools.cache
def judged(index):
    """Values and gradients by Keras."""
    name, arrays, options = CASES[index]
    of = tuple(i for i, a in enumerate(arrays) if a.dtype == np.float32)

    def loss(*a):
        y = getattr(keras.ops, name)(*a, **options)
        return total(keras.ops, y), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=of, has_aux=True))(*arrays)
    return y, of, gradients


def close(a, b, what, tolerance=2e-5):
    a, b = ops.convert_to_numpy(a), np.asarray(b)
    assert a.shape == b.shape and a.dtype == b.dtype, what
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what)


EACH_CASE = pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])


@EACH_CASE
def test_values_and_gradients_are_those_of_keras(index):
    name, arrays, options = CASES[index]
    want, of, want_gradients = judged(index)
    for engine in ("numpy", "jax"):

        def gradients_of(values, engine=engine):
            variables = [Variable(np.zeros(a.shape, "float32")) if i in of else a for i, a in enumerate(arrays)]
            watched = [variables[i] for i in of]

            def loss():
                y = getattr(ops, name)(*variables, **options)
                return total(ops, y), y

            with context.bind(watched, values):
                return value_and_grad(loss, watched, has_aux=True)()

        with cornu.engine(engine) as owner:
            (_, got), gradients = owner.compile(gradients_of)([owner.from_host(arrays[i]) for i in of])
        pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        for a, b in pairs:
            close(a, b, f"{name} on {engine}")
        for i, a, b in zip(of, gradients, want_gradients, strict=True):
            close(a, b, f"gradient {i} of {name} on {engine}", 1e-4)


def test_sparsemax_is_a_projection(engine):
    """Keras 3.15.1 takes a wrong threshold where more than one element stays; the definition is the judge."""
    x = floats(6, 5)
    y = ops.convert_to_numpy(ops.sparsemax(x))
    for row, got in zip(x, y, strict=True):
        tau = next(t for k in range(5, 0, -1) if np.sort(row)[-k] > (t := (np.sort(row)[-k:].sum() - 1) / k))
        np.testing.assert_allclose(got, np.maximum(row - tau, 0), atol=1e-6)
    close(ops.sparsemax(x.T.copy(), axis=0), y.T, "sparsemax of axis 0")
    # The Jacobian is diag(s) - s s' / |s| on the support s.
    v, w = Variable(x), floats(6, 5)
    _, g = value_and_grad(lambda: ops.sum(ops.multiply(ops.sparsemax(v), w)), v)()
    support = y > 0
    mean = (w * support).sum(1, keepdims=True) / support.sum(1, keepdims=True)
    close(g, (support * (w - mean)).astype("float32"), "gradient", 1e-5)


def test_the_window_is_the_default_of_strides(engine):
    close(ops.max_pool(IMAGE, (3, 2)), ops.convert_to_numpy(ops.max_pool(IMAGE, (3, 2), (3, 2))), "max_pool")


EXTREMES = np.array([-300.0, -88.0, -1.0, 0.0, 1.0, 6.0, 88.0, 300.0], "float32")
SLOPE_AT_ZERO = {
    "celu": 1, "elu": 1, "gelu": 0.5, "log_sigmoid": 0.5, "silu": 0.5, "softplus": 0.5, "softsign": 1,
    "squareplus": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({case[0] for case in ELEMENTWISE}))
def test_gradients_are_finite_at_extremes(engine, name):
    options = {"threshold": {"threshold": 0.0, "default_value": 1.0}}.get(name, {})
    x = Variable(EXTREMES)
    y, g = value_and_grad(lambda: ops.sum(getattr(ops, name)(x, **options)), x)()
    g = ops.convert_to_numpy(g)
    assert np.isfinite(float(y)) and np.isfinite(g).all()
    if name in SLOPE_AT_ZERO:
        assert g[3] == pytest.approx(SLOPE_AT_ZERO[name])


def test_second_derivatives_at_zero(engine):
    for name, want in {"softplus": 0.25, "log_sigmoid": -0.25, "silu": 0.5, "gelu": 0.7978846, "elu": 1.0}.items():
        x = Variable(np.zeros((), "float32"))
        first = value_and_grad(lambda name=name, x=x: getattr(ops, name)(x), x)
        _, second = value_and_grad(lambda first=first: first()[1], x)()
        assert float(second) == pytest.approx(want), name


@pytest.mark.parametrize("name", ["binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_losses_are_finite_at_extremes(engine, name, from_logits):
    worst = [[1.0, 0.0, 0.0], [300.0, -300.0, 0.0]] if from_logits else [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    output = Variable(np.array(worst, "float32"))
    target = np.array([1, 1]) if name.startswith("sparse") else np.eye(3, dtype="float32")[[1, 1]]
    y, g = value_and_grad(lambda: ops.mean(getattr(ops, name)(target, output, from_logits=from_logits)), output)()
    assert np.isfinite(float(y)) and np.isfinite(ops.convert_to_numpy(g)).all()


def test_labels_out_of_range_give_nan(engine):
    output = np.full((5, 3), 1 / 3, "float32")
    for labels in (
        np.array([0, 3, -1, 2, 2**30], "int32"), np.array([0, 2**32, -1, 2, 2**40], "int64"),
        np.array([0, 3, 0.5, 2, np.nan], "float32"), np.array([0, 200, 255, 2, 3], "uint8"),
    ):  # fmt: skip
        for from_logits in (False, True):
            loss = ops.convert_to_numpy(ops.sparse_categorical_crossentropy(labels, output, from_logits))
            assert np.isnan(loss).tolist() == [False, True, True, False, True], labels.dtype
    loss = ops.sparse_categorical_crossentropy(np.array([255], "uint8"), np.zeros((1, 300), "float32"), True)
    assert np.isfinite(ops.convert_to_numpy(loss)).all()


def test_normalize_and_attention_where_nothing_is(engine):
    x = Variable(np.zeros((2, 3), "float32"))
    for order in (1, 2, 3):
        y, g = value_and_grad(lambda order=order: ops.sum(ops.normalize(x, order=order)), x)()
        assert float(y) == 0 and np.isfinite(ops.convert_to_numpy(g)).all()
    q = Variable(Q)
    y, g = value_and_grad(lambda: ops.sum(ops.dot_product_attention(q, K, V, mask=np.zeros((1, 1, 5, 6), bool))), q)()
    assert np.isfinite(float(y)) and np.isfinite(ops.convert_to_numpy(g)).all()


def test_multi_hot(engine):
    for x in (np.array([0, 3]), np.array([[0, 3], [1, 1], [7, -1]])):
        close(ops.multi_hot(x, num_classes=4), keras.ops.multi_hot(x, 4), "multi_hot")
    empty = ops.multi_hot(np.zeros((2, 0), "int32"), num_classes=3, dtype="int32")
    assert ops.convert_to_numpy(empty).tolist() == [[0] * 3] * 2


def test_nan_stays_nan(engine):
    x = np.array([np.nan], "float32")
    for name, _, options in ELEMENTWISE:
        if name not in ("glu",):
            options = {k: v for k, v in options.items() if k != "axis"}
            assert np.isnan(ops.convert_to_numpy(getattr(ops, name)(x, **options))).all(), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_dtypes(engine, dtype):
    x = ops.cast(np.array([[1.0, 2.0], [3.0, -300.0]], "float32"), dtype)
    want = "float32" if dtype == "int32" else dtype
    for name in ("softmax", "gelu", "softplus", "layer_normalization", "rms_normalization", "normalize", "relu6"):
        y = getattr(ops, name)(x)
        assert ops.dtype(y) == want, name
        assert np.isfinite(ops.convert_to_numpy(y).astype("float32")).all(), name
    mean, variance = ops.moments(x, axes=[0, 1])
    assert ops.dtype(mean) == ops.dtype(variance) == want
    targets, output = ops.cast(np.eye(2, dtype="float32"), dtype), ops.cast(np.eye(2, dtype="float32"), dtype)
    assert np.isfinite(ops.convert_to_numpy(ops.binary_crossentropy(targets, output)).astype("float32")).all()


UNKNOWN = {IMAGE.shape: ("h", "w", 4), LINE.shape: ("t", 4), FIRST.shape: (4, "h", "w"), SQUARE.shape: ("h", "w", 2)}


@EACH_CASE
def test_shapes_of_unknown_sizes(index):
    """The Spec's shape, with the unknown sizes filled in, is the shape Keras gives; and where all is known, equal."""
    name, arrays, options = CASES[index]
    x = arrays[0]
    want = judged(index)[0]
    want = [y.shape for y in (want if isinstance(want, tuple) else (want,))]
    known = [Spec(a.shape, a.dtype.name) for a in arrays]
    asked = [(known, {})]
    if x.shape in UNKNOWN:
        names = UNKNOWN[x.shape]
        free = Spec((BATCH, *(Dim(s) if isinstance(s, str) else s for s in names)), "float32")
        sizes = {s: n for s, n in zip(names, x.shape[1:], strict=True) if isinstance(s, str)}
        asked.append(([free, *known[1:]], {"batch": x.shape[0], **sizes}))
    for specs, values in asked:
        with context.abstract():
            got = getattr(ops, name)(*specs, **options)
        got = got if isinstance(got, tuple) else (got,)
        assert [evaluate(y.shape, values) for y in got] == want
        assert all(y.dtype == "float32" for y in got)


def test_same_padding_gives_plain_sizes():
    h, w = Dim("h"), Dim("w")
    x = Spec((BATCH, h, w, 3), "float32")
    assert ops.conv(x, Spec((3, 4, 3, 8), "float32"), padding="same").shape == (BATCH, h, w, 8)
    assert ops.max_pool(x, 3, 1, "same").shape == (BATCH, h, w, 3)
    assert ops.conv_transpose(x, Spec((3, 4, 8, 3), "float32"), 2, "same").shape == (BATCH, 2 * h, 2 * w, 8)
    halves = ops.max_pool(x, 3, 2, "same").shape
    assert halves == ops.conv(x, Spec((1, 1, 3, 3), "float32"), 2, "same").shape == (
        BATCH, (h - 1) // 2 + 1, (w - 1) // 2 + 1, 3,
    )  # fmt: skip
    attention = ops.dot_product_attention(*[Spec((BATCH, Dim("t"), 4, 8), "float32")] * 3)
    assert attention.shape == (BATCH, Dim("t"), 4, 8)


REFUSED = [
    (ShapeError, "conv", (LINE, floats(3, 3, 5)), {}), (ShapeError, "conv", (LINE, floats(10, 4, 5)), {}),
    (ShapeError, "conv", (IMAGE, floats(3, 4, 5)), {}), (ShapeError, "conv_transpose", (LINE, floats(3, 5, 3)), {}),
    (ShapeError, "depthwise_conv", (LINE, floats(3, 2, 1)), {}),
    (ArgumentError, "conv", (LINE, floats(3, 4, 5)), {"padding": "smae"}),
    (ArgumentError, "conv", (LINE, floats(3, 4, 5)), {"strides": (1, 1)}),
    (ArgumentError, "max_pool", (LINE,), {"pool_size": 2, "data_format": "channel_last"}),
    (ShapeError, "max_pool", (LINE,), {"pool_size": 10}), (ArgumentError, "max_pool", (LINE,), {"pool_size": 0}),
    (ArgumentError, "glu", (floats(3),), {}), (ArgumentError, "celu", (ROW,), {"alpha": 0}),
    (ShapeError, "binary_crossentropy", (floats(3), floats(3, 1)), {}),
    (ShapeError, "sparse_categorical_crossentropy", (np.array([1, 2]), floats(3, 5)), {}),
    (DtypeError, "dot_product_attention", (Q, K, V), {"mask": BIAS}),
    (ShapeError, "dot_product_attention", (Q, K[:, :, :3], V[:, :, :3]), {}),
    (UnsupportedError, "dot_product_attention", (Q, K, V), {"flash_attention": True}),
    (UnsupportedError, "moments", (LINE,), {"axes": 0, "synchronized": True}),
    (ArgumentError, "multi_hot", (np.array([1]),), {}), (ArgumentError, "normalize", (ROW,), {"order": 0}),
    (UnsupportedError, "normalize", (LINE,), {"order": 1, "axis": (0, 1)}),
]  # fmt: skip


@pytest.mark.parametrize("error, name, arrays, options", REFUSED)
def test_refused(engine, error, name, arrays, options):
    with pytest.raises(error) as caught:
        getattr(ops, name)(*arrays, **options)
    assert isinstance(caught.value, CornuError) and caught.value.expected
