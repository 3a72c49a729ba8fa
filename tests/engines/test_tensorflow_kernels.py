"""What convolutions and their biases are in TensorFlow's graphs."""

import numpy as np
import pytest

import cornu
from cornu import ops
from cornu.autodiff.tape import tape_value_and_grad

tf = pytest.importorskip("tensorflow")

ENGINE = cornu.engines.get("tensorflow")
rng = np.random.default_rng(0)


def pulled(values, strides=1, differentiate=ENGINE.value_and_grad):
    """A convolution with a bias, and the gradients of a sum after it."""

    def loss(parts):
        result = ops.add(ops.conv(*parts[:2], strides=strides), parts[2])
        return ops.sum(ops.sin(result)), result

    (_, result), gradients = differentiate(loss)(values)
    return [result, *gradients]


def given(x, kernel):
    return [rng.normal(size=shape).astype("float32") for shape in (x, kernel, kernel[-1:])]


def nodes_of(values, strides=1):
    specs = [value if isinstance(value, tf.TensorSpec) else tf.TensorSpec(value.shape) for value in values]
    graph = tf.function(lambda *values: pulled([*values], strides)).get_concrete_function(*specs).graph
    return {node.op: node for node in graph.as_graph_def().node}


def test_the_gradient_of_a_bias_reads_what_that_of_the_kernel_reads():
    """TensorFlow makes one operator of the two (its layout pass: `Conv2DBackpropFilterWithBias`)."""
    nodes = nodes_of(given((2, 6, 6, 3), (3, 3, 3, 4)))
    assert nodes["BiasAddGrad"].input[0] == nodes["Conv2DBackpropFilter"].input[2]
    assert nodes["Conv2DBackpropInput"].input[2] == nodes["BiasAddGrad"].input[0]


# name -> (array, kernel, strides, whether it is a product)
CASES = {
    "a picture": ((2, 3, 3, 4), (1, 1, 4, 18), 1, True),
    "a line": ((2, 9, 4), (1, 4, 18), 1, True),
    "many positions": ((2, 3, 3, 4), (1, 1, 4, 17), 1, False),
    "strides": ((2, 3, 3, 4), (1, 1, 4, 18), 2, False),
    "a window": ((2, 3, 3, 4), (1, 2, 4, 18), 1, False),
    "groups": ((2, 3, 3, 4), (1, 1, 2, 18), 1, False),
    "no rows": ((0, 3, 3, 4), (1, 1, 4, 18), 1, True),
    "no rows, a window": ((0, 3, 3, 4), (2, 2, 4, 18), 1, False),
}


@pytest.mark.parametrize("name", CASES)
def test_few_positions_by_one_matrix_are_a_product(name):
    x, kernel, strides, is_product = CASES[name]
    values = given(x, kernel)
    nodes = nodes_of(values, strides)
    assert ("MatMul" in nodes, "Conv2D" in nodes) == (is_product, not is_product)
    with cornu.engine("numpy"):
        wanted = pulled(values, strides, tape_value_and_grad)
    for found, right in zip(pulled([tf.constant(value) for value in values], strides), wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), right, rtol=1e-4, atol=1e-4)


def test_an_unknown_batch_is_convolved():
    spec = [tf.TensorSpec((None, 3, 3, 4)), tf.TensorSpec((1, 1, 4, 18)), tf.TensorSpec((18,))]
    assert "Conv2D" in nodes_of(spec)
