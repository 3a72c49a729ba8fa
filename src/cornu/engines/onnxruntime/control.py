"""Loops and choices in a graph: `Scan`, `Loop` and `If`. Outside of a trace they run as Python loops over ops."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import context, tree
from cornu.engines.onnxruntime import nodes as n
from cornu.engines.onnxruntime.builder import Graph, building, current, emit, finish
from cornu.engines.onnxruntime.nodes import Value
from cornu.ops import control

__all__ = ["TABLE"]


def _own(value: Any) -> Value:
    found: Value = context.engine_in_force().own(value)
    return found


def _leaves(structure: Any) -> list[Value]:
    """The arrays of a structure; `None` is none."""
    return [_own(leaf) for leaf in tree.leaves(structure) if leaf is not None]


def _packed(like: Any, values: list[Value]) -> Any:
    """A structure with values in place of its arrays."""
    rest = iter(values)
    return tree.map_structure(lambda leaf: None if leaf is None else next(rest), like)


def _specs(values: list[Value]) -> list[tuple[tuple[int, ...], str]]:
    return [(value.shape, value.dtype) for value in values]


def _scan(f: Callable[..., Any], init: Any, xs: Any, length: Any, reverse: bool, unroll: Any) -> Any:
    steps = int(control.scan_length(xs, length))
    outer = current()
    if outer is None or steps == 0:
        return control.unrolled_scan(f, init, xs, length, reverse, unroll)
    states, rows = _leaves(init), _leaves(xs)
    given = rows or [n.constant(np.zeros(steps), "bool")]  # Scan walks along something
    body = Graph(outer, hoists=True)
    inner = [body.input(value.shape, value.dtype) for value in states]
    slices = [body.input(value.shape[1:], value.dtype) for value in given]
    with building(body):
        state, y = f(_packed(init, inner), _packed(xs, slices))
        control._same_specs(init, state, "the function of scan")
        after, made = _leaves(state), _leaves(y)
    finish(body, after + made)
    directions: dict[str, Any] = {"scan_input_directions": [int(reverse)] * len(given)}
    if made:
        directions["scan_output_directions"] = [int(reverse)] * len(made)
    found = emit(
        "Scan",
        states + given,
        _specs(states) + [((steps, *value.shape), value.dtype) for value in made],
        graphs={"body": body},
        num_scan_inputs=len(given),
        **directions,
    )
    return _packed(init, found[: len(states)]), _packed(y, found[len(states) :])


def _while_loop(cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: Any) -> Any:
    outer = current()
    if outer is None:
        return control.unrolled_while_loop(cond, body, loop_vars, maximum_iterations)
    many = isinstance(loop_vars, (list, tuple))
    start = tuple(loop_vars) if many else (loop_vars,)
    states = _leaves(start)
    holds = _truth(cond(*start))
    inner = Graph(outer, hoists=True)
    inner.input((), "int64")
    inner.input((), "bool")
    values = [inner.input(value.shape, value.dtype) for value in states]
    with building(inner):
        after = body(*_packed(start, values))
        after = tuple(after) if isinstance(after, (list, tuple)) else (after,)
        control._same_specs(start, after, "the body of while_loop")
        again = _truth(cond(*after))
        results = _leaves(after)
    finish(inner, [again, *results])
    most = None if maximum_iterations is None else n.constant(int(maximum_iterations), "int64")
    found = emit("Loop", [most, holds, *states], _specs(states), graphs={"body": inner})
    state = _packed(start, found)
    return (list(state) if isinstance(loop_vars, list) else state) if many else state[0]


def _truth(value: Any) -> Value:
    return n.cast(n.reshape(_own(value), ()), "bool")


def _cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any) -> Any:
    outer = current()
    if outer is None:
        return control.unrolled_cond_of(pred, true_fn, false_fn, operands)
    branches, results = {}, []
    for name, function in (("then_branch", true_fn), ("else_branch", false_fn)):
        # What a branch computes must stay in it, so as not to be computed when the other one is chosen.
        branch = branches[name] = Graph(outer, hoists=False)
        with building(branch):
            result = function(*(operands or ()))
            leaves = _leaves(result)
        finish(branch, leaves)
        results.append((result, leaves))
    control._same_specs(results[0][0], results[1][0], "false_fn of cond")
    if not results[0][1]:
        return results[0][0]
    found = emit("If", [_truth(pred)], _specs(results[0][1]), graphs=branches)
    return _packed(results[0][0], found)


TABLE: dict[str, Callable[..., Any]] = {
    "scan": _scan,
    "while_loop": _while_loop,
    "cond_of": _cond,
    "rematerialized": control.plain_rematerialized,
}
