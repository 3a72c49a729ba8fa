"""What tests of PyTorch's traces share; import it after `pytest.importorskip("torch")`."""

import numpy as np

import cornu
from cornu import ops
from cornu.engines.torch import tracing
from cornu.engines.torch.simplify import simplify

ENGINE = cornu.engines.get("torch")


def with_gradients(function):
    """A function of a list of tensors that gives what another one does, and the gradients of a weighted sum of it."""

    def run(values):
        def loss(given):
            y = function(*given)
            weights = np.cos(np.arange(int(np.prod(ops.shape(y))), dtype="float32")).reshape(ops.shape(y))
            return ops.sum(ops.multiply(y, weights)), y

        (_, y), gradients = ENGINE.value_and_grad(loss)(values)
        return [y, *gradients]

    return run


def nodes_of(run, values):
    """The nodes of a function's trace, made simple."""
    graph = tracing._graph(run, values, False)
    simplify(graph)
    return list(graph.graph.nodes)


def named(nodes, word):
    """Those whose operator has a word in its name."""
    return [node for node in nodes if word in str(node.target)]
