"""What follows from a model's variables alone is computed once, by PyTorch, while nobody writes to them."""

import concurrent.futures
import itertools

import numpy as np
import pytest

import cornu
from cornu import layers, ops

torch = pytest.importorskip("torch")

from cornu.engines.torch import beforehand, laid, tracing  # noqa: E402
from cornu.engines.torch.simplify import simplify  # noqa: E402
from cornu.training import answers  # noqa: E402

rng = np.random.default_rng(0)
ENGINE = cornu.engines.get("torch")


@pytest.fixture(autouse=True)
def on_a_cpu():
    with torch.device("cpu"):
        yield


def floats(*shape):
    return ENGINE.from_host(rng.normal(size=shape).astype("float32"))


def targets(graph):
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def parts_of(run, values, count):
    """The graph of a function in two, by the number of arguments that are given beforehand."""
    graph = tracing._graph(run, list(values), False)
    simplify(graph)
    return beforehand.split(graph, count)


def outputs_of(parts, values, count):
    first = parts[0](*values[:count])
    return parts[1](*first, *values[count:])


def agree(run, values, count):
    parts = parts_of(run, values, count)
    for found, wanted in zip(outputs_of(parts, values, count), run(list(values)), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6, atol=1e-6)
    return [targets(part) for part in parts]


def test_only_what_hangs_on_nothing_else_is_early():
    def run(values):
        kernel, bias, x = values
        turned = ops.tanh(ops.transpose(kernel))
        return [ops.add(ops.matmul(x, turned), ops.exp(bias)), ops.multiply(turned, 2.0), kernel]

    early, late = agree(run, [floats(3, 4), floats(3), floats(2, 4)], 2)
    assert "aten.tanh.default" in early and "aten.exp.default" in early
    assert not {"aten.tanh.default", "aten.exp.default"} & set(late)
    assert any("mm" in name for name in late) and not any("mm" in name for name in early)


def test_what_is_early_is_never_written_to():
    """A step computes in the memory of its own results only."""

    def run(values):
        kernel, x = values
        early = ops.exp(kernel)
        return [ops.negative(ops.multiply(early, x)), ops.exp(early)]

    values = [floats(64, 128), floats(64, 128)]
    traced = tracing._traced(run, values, 0, False)
    step = traced.given(values[:1])
    wanted = [part.clone() for part in run(values)]
    for _ in range(3):
        for found, right in zip(step([values[1]]), wanted, strict=True):
            np.testing.assert_array_equal(found.numpy(), right.numpy())


def test_what_would_take_much_memory_is_late(monkeypatch):
    def run(values):
        large, small, x = values
        cast = ops.multiply(ops.add(large, 1.0), 2.0)
        return [ops.matmul(ops.matmul(x, cast), ops.tanh(small)), ops.matmul(x, ops.transpose(large))]

    values = [floats(100, 100), floats(100, 4), floats(2, 100)]
    early, late = agree(run, values, 2)
    assert "aten.mul.Tensor" in early
    monkeypatch.setattr(beforehand, "_LARGEST", 4 * 100 * 100 - 1)
    early, late = agree(run, values, 2)
    assert "aten.tanh.default" in early and "aten.mul.Tensor" in late and "aten.add.Tensor" in late
    assert any("permute" in name or "t." in name for name in early)  # a view takes none


def test_random_numbers_are_drawn_each_time():
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda kernel, x: [torch.bernoulli(kernel) * x])
    traced = graph(torch.full((8, 8), 0.5), torch.ones(8, 8))
    early, late = (targets(part) for part in beforehand.split(traced, 1))
    assert "aten.bernoulli.default" in late and not early


def test_graphs_that_write_to_their_arguments_stay_whole():
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda kernel, x: [kernel.exp() + x.add_(1)])
    early, late = (targets(part) for part in beforehand.split(graph(torch.ones(3), torch.ones(3)), 1))
    assert not early and "aten.exp.default" in late


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_of_convolutions_are_turned_beforehand(strides, channels):
    run = lambda values: [ops.conv(values[1], values[0], strides=strides, padding="same")]
    early, late = agree(run, [floats(3, 3, channels, 8), floats(2, 9, 9, channels)], 1)
    assert "aten.clone.default" in early and "aten.clone.default" not in late


@pytest.mark.parametrize("biased", [True, False])
def test_matrices_of_large_products_are_packed_beforehand(monkeypatch, biased):
    def run(values):
        kernel, bias, small, x = values
        found = ops.matmul(x, ops.transpose(kernel))
        return [ops.matmul(ops.relu(ops.add(found, bias) if biased else found), small)]

    values = [floats(256, 200) / 14, floats(256), floats(256, 4), floats(256, 200)]
    reorder, product = "mkldnn._reorder_linear_weight.default", "mkldnn._linear_pointwise.default"
    parts = parts_of(run, values, 3)
    early, late = map(targets, parts)
    assert early.count(reorder) == 1 and late.count(product) == 1 and reorder not in late
    assert "aten.addmm.default" not in late and "aten.add.Tensor" not in late
    assert sum("aten.mm" in name for name in late) == 1  # the small one
    found, wanted = outputs_of(parts, values, 3)[0], run(list(values))[0]
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(beforehand, "_LARGEST", 4 * 256 * 200 - 1)
    assert not any(product in targets(part) for part in parts_of(run, values, 3))


def normalized(y, values, axis=-1):
    """A batch normalisation by known numbers."""
    mean, spread, gamma, beta = values
    return ops.batch_normalization(y, mean, ops.square(spread), axis=axis, scale=gamma, offset=beta)


PICTURE, KERNEL, PLAIN = (2, 9, 9, 3), (3, 3, 3, 8), (3, 6, 5)
# name -> (function of an array, a kernel, a bias and a normalisation of 8 channels, the shapes of the first two, whether
# the normalisation becomes part of the kernel)
NORMALIZED = {
    "a convolution": (lambda x, k, b, n: normalized(ops.conv(x, k), n), PICTURE, KERNEL, True),
    "one with a bias": (lambda x, k, b, n: normalized(ops.add(ops.conv(x, k), b), n), PICTURE, KERNEL, True),
    "one that pads": (lambda x, k, b, n: normalized(ops.conv(x, k, padding="same"), n), PICTURE, KERNEL, True),
    "one of each channel": (
        lambda x, k, b, n: normalized(ops.depthwise_conv(x, k[..., :2]), [part[:6] for part in n]), PICTURE, KERNEL, True,
    ),
    "one along a line": (lambda x, k, b, n: normalized(ops.conv(x, k), n), (2, 9, 3), (3, 3, 8), True),
    "ReLU after it": (lambda x, k, b, n: ops.relu(normalized(ops.conv(x, k), n)), PICTURE, KERNEL, True),
    "a product": (lambda x, k, b, n: normalized(ops.matmul(x, k), n), (6, 5), (5, 8), True),
    "a product of rows of rows": (lambda x, k, b, n: normalized(ops.matmul(x, k), n), PLAIN, (5, 8), True),
    "a product with a bias": (lambda x, k, b, n: normalized(ops.add(ops.matmul(x, k), b), n), PLAIN, (5, 8), True),
    "no offset, no scale": (lambda x, k, b, n: ops.batch_normalization(ops.conv(x, k), n[0], n[1] ** 2, -1), PICTURE, KERNEL, True),
    "nothing before it": (lambda x, k, b, n: normalized(x[..., :1] * ops.ones_like(b), n), PICTURE, KERNEL, False),
    "something between": (lambda x, k, b, n: normalized(ops.tanh(ops.conv(x, k)), n), PICTURE, KERNEL, False),
    "another who reads": (lambda x, k, b, n: normalized(y := ops.conv(x, k), n) + ops.sin(y), PICTURE, KERNEL, False),
    "another axis": (lambda x, k, b, n: normalized(ops.conv(x, k)[:, :4, :8], n, axis=2), (2, 9, 10, 3), KERNEL, False),
    "numbers that hang on the array": (
        lambda x, k, b, n: normalized(ops.conv(x, k), [part * ops.mean(x) for part in n]), PICTURE, KERNEL, False,
    ),
    "the other way": (
        lambda x, k, b, n: normalized(ops.conv_transpose(x, ops.transpose(k, (0, 1, 3, 2))), n), PICTURE, KERNEL, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", NORMALIZED)
def test_a_normalisation_by_known_numbers_becomes_part_of_the_kernel(monkeypatch, name, packed):
    for bound in ("_WORK", "_KERNEL_WORK"):
        monkeypatch.setattr(laid, bound, 0 if packed else 1 << 60)
    function, shape, kernel, is_part = NORMALIZED[name]

    def run(values):
        k, b, *n, x = values
        return [function(x, k, b, n)]

    values = [floats(*kernel), *(floats(8) for _ in range(5)), floats(*shape)]
    parts = parts_of(run, values, 6)
    late = targets(parts[1])
    assert ("aten.addcmul.default" not in late) == is_part
    assert not {"aten.mul.Tensor", "aten.sub.Tensor", "aten.rsqrt.default"} & set(late) or not is_part
    assert len([node for node in parts[1].graph.nodes if node.op == "placeholder" and not node.users]) <= 1
    found, wanted = outputs_of(parts, values, 6)[0], run(list(values))[0]
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_normalisation_stays_where_its_kernel_would_take_much_memory(monkeypatch):
    """It takes one pass there."""
    function, shape, kernel, _ = NORMALIZED["a convolution"]
    run = lambda values: [function(values[-1], values[0], values[1], values[2:6])]
    values = [floats(*kernel), *(floats(8) for _ in range(5)), floats(*shape)]
    monkeypatch.setattr(beforehand, "_LARGEST", 4 * 3 * 3 * 3 * 8 - 1)
    _, late = agree(run, values, 6)
    assert "aten.addcmul.default" in late and not {"aten.mul.Tensor", "aten.sub.Tensor", "aten.add.Tensor"} & set(late)


# name -> (what is added to a convolution of 8 channels of an array of 3, whether the convolution adds it)
ADDED = {
    "what was given": (lambda y, x, k: ops.add(y, ops.concatenate([x, x, x[..., :2]], -1)), True),
    "on the left": (lambda y, x, k: ops.add(ops.concatenate([x, x, x[..., :2]], -1), y), True),
    "another convolution": (lambda y, x, k: ops.add(y, ops.conv(x, k[:1, :1])), True),
    "itself": (lambda y, x, k: ops.add(y, y), False),
    "one row for all": (lambda y, x, k: ops.add(y, ops.concatenate([x, x, x[..., :2]], -1)[:1]), False),
    "one number for a place": (lambda y, x, k: ops.add(y, x[..., :1]), False),
}


@pytest.mark.parametrize("name", ADDED)
def test_convolutions_of_packed_kernels_add(monkeypatch, name):
    monkeypatch.setattr(laid, "_KERNEL_WORK", 0)
    function, adds = ADDED[name]

    def run(values):
        kernel, x = values
        return [ops.relu(function(ops.conv(x, kernel, padding="same"), x, kernel))]

    values = [floats(3, 3, 3, 8), floats(*PICTURE)]
    parts = parts_of(run, values, 1)
    early, late = map(targets, parts)
    assert early.count("mkldnn._reorder_convolution_weight.default") >= 1 and "aten.convolution.default" not in late
    assert ("mkldnn._convolution_pointwise.binary" in late) == adds == ("aten.add.Tensor" not in late)
    found, wanted = outputs_of(parts, values, 1)[0], run(list(values))[0]
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_nan_comes_out_of_packed_convolutions_and_relu(monkeypatch):
    """oneDNN's own ReLU gives 0 for it."""
    monkeypatch.setattr(laid, "_KERNEL_WORK", 0)

    def run(values):
        kernel, x = values
        y = ops.relu(ops.conv(x, kernel, padding="same"))
        return [
            y,
            ops.relu(ops.add(ops.conv(y, ops.concatenate([kernel, kernel, kernel[:, :, :2]], 2)), y[:, 1:-1, 1:-1])),
        ]

    x = rng.normal(size=PICTURE).astype("float32")
    x[0, 4, 4, 1], x[1, 2, 2, 0] = np.nan, np.inf
    values = [floats(*KERNEL), ENGINE.from_host(x)]
    parts = parts_of(run, values, 1)
    assert any("_convolution_pointwise" in name for name in targets(parts[1]))
    for found, wanted in zip(outputs_of(parts, values, 1), run(list(values)), strict=True):
        assert np.isnan(wanted.numpy()).any()
        np.testing.assert_array_equal(np.isnan(found.numpy()), np.isnan(wanted.numpy()))


SIDE = (5, 4, 3)  # of a kernel of 4 heads of 3 numbers


def heads(x, kernel, bias=None):
    y = ops.einsum("bte,ehd->bthd", x, kernel)
    return y if bias is None else ops.add(y, bias)


def attended(*parts, causal=False):
    return ops.dot_product_attention(*parts, is_causal=causal)


# name -> (function of two arrays (2, 6, 5), three kernels and biases; of how many products each that replaces some is made)
JOINED = {
    "three": (lambda x, z, k, b: attended(*(heads(x, k[i], b[i]) for i in range(3))), [3]),
    "three without biases": (lambda x, z, k, b: attended(*(heads(x, part) for part in k)), [3]),
    "one bias": (lambda x, z, k, b: attended(heads(x, k[0]), heads(x, k[1], b[1]), heads(x, k[2])), [3]),
    "causal": (lambda x, z, k, b: attended(*(heads(x, part) for part in k), causal=True), [3]),
    "two of another array": (lambda x, z, k, b: attended(heads(x, k[0]), heads(z, k[1], b[1]), heads(z, k[2], b[2])), [2]),
    "each of another": (lambda x, z, k, b: attended(heads(x, k[0]), heads(z, k[1]), heads(ops.sin(x), k[2])), []),
    "one that others read": (lambda x, z, k, b: attended(q := heads(x, k[0]), heads(x, k[1]), heads(x, k[2])) + q, [2]),
    "one that hangs on the array": (
        lambda x, z, k, b: attended(heads(x, k[0]), heads(x, k[1]), heads(x, k[2] * ops.mean(x))), [2],
    ),
    "one used before the next": (
        lambda x, z, k, b: attended(
            q := heads(x, k[0]), attended(q, heads(x, k[1]), heads(x, k[2])), heads(x, k[1] + 1)
        ), [],
    ),
    "no attention": (lambda x, z, k, b: heads(x, k[0]) * heads(x, k[1]) + heads(x, k[2]), []),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_products_that_attention_reads_are_one(monkeypatch, name):
    function, sizes = JOINED[name]

    def run(values):
        *given, x, z = values
        return [function(x, z, given[:3], given[3:])]

    values = [
        *(floats(*SIDE) for _ in range(3)),
        *(floats(*SIDE[1:]) for _ in range(3)),
        floats(2, 6, 5),
        floats(2, 6, 5),
    ]
    parts = parts_of(run, values, 6)
    split = [node for node in parts[1].graph.nodes if "split_with_sizes" in str(node.target)]
    assert [len(node.args[1]) for node in split] == sizes
    found, wanted = outputs_of(parts, values, 6)[0], run(list(values))[0]
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(beforehand, "_LARGEST", 4 * 5 * 12 * 2 - 1)
    assert not any("split_with_sizes" in name for name in targets(parts_of(run, values, 6)[1]))


@pytest.mark.parametrize("rows", [1, 2])
def test_narrow_matrices_lie_by_columns_for_one_row(rows):
    """Those that have four times as many rows as columns; the numbers are those of the product as it was."""

    def run(values):
        narrow, bias, wide, x = values
        return [ops.matmul(ops.add(ops.matmul(x, narrow), bias), wide), ops.matmul(ops.exp(x), narrow)]

    values = [floats(64, 10), floats(10), floats(10, 12), floats(rows, 64)]
    parts = parts_of(run, values, 3)
    early, late = map(targets, parts)
    assert early.count("aten.contiguous.default") == (2 if rows == 1 else 0) and "aten.t.default" not in late
    for found, wanted in zip(outputs_of(parts, values, 3), run(list(values)), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_kernels_beside_channels_in_front_stay():
    """There the results would lie in another order than what comes after was traced for."""
    cornu.utils.set_random_seed(0)
    inputs = cornu.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, data_format="channels_first", activation="relu")(inputs)
    made = cornu.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    x = rng.normal(size=(2, 3, 8, 8)).astype("float32")
    with cornu.engine("numpy"):
        wanted = made(x)
    with cornu.engine("torch"):
        for _ in range(5):
            found = made.predict(x, verbose=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_many_threads_may_ask():
    """Of kinds of calls of which some are forgotten, while somebody writes to the weights."""
    with cornu.engine("torch"):
        made = cornu.Sequential([cornu.Input((4,)), layers.Dense(3, use_bias=False)])
        kernel = made.layers[0].kernel
        kernel.assign(np.ones((4, 3)))
        given = [np.ones((rows, 4), "float32") for rows in range(1, 9)]
        for x in given * 4:
            made.predict(x, verbose=0)
        wrong = []

        def ask(number):
            with cornu.engine("torch"), torch.device("cpu"):
                for turn in range(150):
                    x = given[(number + turn) % len(given)]
                    found = made.predict(x, verbose=0)
                    if found.shape != (len(x), 3) or not (found % 4 == 0).all() or not (found == found[0, 0]).all():
                        wrong.append(found)

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(ask, number) for number in range(6)]
            for value in range(1, 40):
                kernel.assign(np.full((4, 3), value, "float32"))
            for future in futures:
                future.result()
        assert not wrong
        np.testing.assert_array_equal(made.predict(given[0], verbose=0), np.full((1, 3), 4.0 * 39))


def pictures_model():
    cornu.utils.set_random_seed(1)
    inputs = cornu.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, activation="relu", padding="same")(inputs)
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
    x = layers.LSTM(5)(layers.Reshape((16, 4))(layers.Conv2DTranspose(4, 3, padding="same")(x)))
    made = cornu.Model(inputs, layers.Dense(3)(x))
    made.compile(optimizer="sgd", loss="mse")
    return made


def test_predictions_follow_every_write_to_the_variables():
    x = rng.normal(size=(6, 8, 8, 1)).astype("float32")
    with cornu.engine("torch"):
        made = pictures_model()

        def check():
            for rows in (6, 1):
                for _ in range(4):  # from the third call on it is traced
                    found = made.predict(x[:rows], verbose=0)
                with cornu.engine("numpy"):
                    wanted = made(x[:rows], training=False)
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
            return found

        seen = [check()]
        made.set_weights([value + 0.1 for value in made.get_weights()])
        seen.append(check())
        made.layers[1].kernel.assign(made.layers[1].kernel * 2)
        seen.append(check())
        made.train_on_batch(x, np.ones((6, 3), "float32"))
        seen.append(check())
        made.fit(x, np.ones((6, 3), "float32"), verbose=0)
        seen.append(check())
        made(x)  # now the kernels live in parameters of PyTorch's, which others may write to
        seen.append(check())
        with torch.no_grad():
            for variable in made.trainable_variables:
                variable.value.data.mul_(1.5)
        seen.append(check())
        changed = [not np.allclose(before, after) for before, after in itertools.pairwise(seen)]
        assert changed == [True, True, True, True, False, True]


def test_a_model_keeps_few_kinds_of_calls_prepared():
    with cornu.engine("torch"):
        made = pictures_model()
        for rows in range(1, 9):
            for _ in range(2):
                made.predict(np.ones((rows, 8, 8, 1), "float32"), verbose=0)
        _, ways, ready = made._cache["answers"]
        assert len(ways) == 8 and ready == list(ways.values())[-answers._READY :]
        assert [way._ready is not None for way in ways.values()] == [False] * 4 + [True] * 4
        first = made.predict(np.ones((1, 8, 8, 1), "float32"), verbose=0)  # one of those forgotten
        np.testing.assert_allclose(first, made.predict(np.ones((2, 8, 8, 1), "float32"), verbose=0)[:1], rtol=1e-5)


def test_views_of_views_are_one():
    """Also with something computed element by element between them."""

    def run(values):
        x, y = values
        yield ops.transpose(ops.relu(ops.transpose(x, (0, 2, 1))), (0, 2, 1))
        yield ops.reshape(ops.tanh(ops.reshape(x, (2, 12))), (6, 4))
        yield ops.transpose(ops.transpose(x, (1, 2, 0)), (1, 2, 0))
        seen = ops.transpose(y)
        yield ops.exp(seen)  # others look at it too
        yield ops.reshape(ops.reshape(seen, (-1,)), (4, 2))  # no view: it is copied
        yield ops.sqrt(ops.transpose(ops.cast(ops.greater(x, 0), "int32"), (2, 0, 1)))

    whole = lambda values: list(run(values))
    values = [floats(2, 3, 4), floats(2, 4)]
    graph = tracing._graph(whole, list(values), False)
    before = targets(graph)
    simplify(graph)
    for found, wanted in zip(graph(*values), whole(values), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    turns = lambda names: sum("view" in name or "permute" in name for name in names)
    assert turns(targets(graph)) <= turns(before) - 5


def test_products_add_biases_of_several_axes():
    run = lambda values: [ops.add(ops.einsum("btd,dnh->btnh", *values[:2]), values[2])]
    values = [floats(2, 3, 4), floats(4, 2, 5), floats(2, 5)]
    graph = tracing._graph(run, list(values), False)
    simplify(graph)
    assert "aten.addmm.default" in targets(graph) and "aten.add.Tensor" not in targets(graph)
    np.testing.assert_allclose(graph(*values)[0].numpy(), run(values)[0].numpy(), rtol=1e-5, atol=1e-6)
    short = [*values[:2], floats(5)]  # along the last axis alone: not a number for each column
    graph = tracing._graph(run, list(short), False)
    simplify(graph)
    np.testing.assert_allclose(graph(*short)[0].numpy(), run(short)[0].numpy(), rtol=1e-5, atol=1e-6)
