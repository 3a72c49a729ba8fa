"""`lstm` and `gru` in TensorFlow: in a graph each step projects its own inputs.

TensorFlow keeps, for the gradient of a loop, what each step reads; a step that reads its inputs, and not their
projection, has less to keep and to add up. Eager calls that come again and again become a graph, for a loop of eager
steps takes several times as long.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cornu.core import context
from cornu.ops.recurrent import gru_by_steps, lstm_by_steps

__all__ = ["TABLE"]

# Up to this many rows one product of all steps is better than one a step.
_FEW_ROWS = 8
# How many eager calls with the same shapes run step by step, and for how many shapes graphs are kept.
_EAGER_CALLS, _MOST_GRAPHS = 2, 64


def _from_third_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors and static arguments: eager at first, then as a graph for tensors of these shapes."""
    calls: dict[Any, int] = {}
    graphs: dict[Any, Any] = {}

    def run(*given: Any) -> Any:
        if not tf.executing_eagerly():
            return function(*given)
        tensors = [value for value in given if tf.is_tensor(value)]
        static = tuple(None if tf.is_tensor(value) else value for value in given)
        key = (static, *[(tuple(value.shape), value.dtype) for value in tensors])
        graph = graphs.get(key)
        if graph is None:
            calls[key] = calls.get(key, 0) + 1
            if calls[key] <= _EAGER_CALLS or len(graphs) == _MOST_GRAPHS:
                return function(*given)
            graph = graphs[key] = _graph(function, given)
        return graph(*tensors)

    return run


def _graph(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    engine = context.find_engine("tensorflow")
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in given if tf.is_tensor(value)]
    # Not the tensors themselves: the graph would keep them.
    rest = [(True, None) if tf.is_tensor(value) else (False, value) for value in given]

    def traced(*tensors: Any) -> Any:
        found = iter(tensors)
        with context.use_engine(engine):
            return function(*[next(found) if is_tensor else value for is_tensor, value in rest])

    return tf.function(traced, autograph=False).get_concrete_function(*specs)


def _at_once(x: Any) -> bool:
    rows = x.shape[1]
    return bool(tf.executing_eagerly() or (rows is not None and rows <= _FEW_ROWS))


def _lstm(
    x: Any, kernel: Any, recurrent_kernel: Any, state: Any, carry: Any, bias: Any, reverse: bool, sequences: bool
) -> Any:
    return lstm_by_steps(x, kernel, recurrent_kernel, state, carry, bias, reverse, sequences, _at_once(x))


def _gru(x: Any, kernel: Any, recurrent_kernel: Any, state: Any, bias: Any, reverse: bool, sequences: bool) -> Any:
    return gru_by_steps(x, kernel, recurrent_kernel, state, bias, reverse, sequences, _at_once(x))


def _on_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a table, whose last arguments are static and come by name."""
    eager = _from_third_call(function)
    return lambda *given, reverse, sequences: eager(*given, reverse, sequences)


TABLE: dict[str, Callable[..., Any]] = {"lstm": _on_all(_lstm), "gru": _on_all(_gru)}
