"""Loops and choices: by Python where all is known, by `scan`, `ifelse` and a loop of our own in a traced function."""

from collections.abc import Callable
from typing import Any

import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import toposort
from pytensor.ifelse import ifelse

from cornu.core import context, tree
from cornu.engines.pytensor import linkers
from cornu.engines.pytensor.operations import While, nodes
from cornu.engines.pytensor.values import Known, Traced, stand_in, traced, tracing
from cornu.ops import control

__all__ = ["LOOPS"]


def _leaves(values: Any) -> list[Any]:
    """The arrays of a structure as our own; `None` stays."""
    own = context.engine_in_force().own
    return [leaf if leaf is None else own(leaf) for leaf in tree.leaves(values)]


def _symbolic(*values: Any) -> bool:
    return tracing.get() or any(isinstance(leaf, Traced) for value in values for leaf in tree.leaves(value))


def _plain(value: Any) -> Any:
    """A variable that PyTensor's `scan` takes; a constant as one of PyTensor's own."""
    return pt.constant(value.data) if isinstance(value, Known) else value


def closure(outputs: list[Any], inner: list[Any]) -> list[Any]:
    """What a graph over `inner` uses from outside: the outermost variables that do not depend on `inner`."""
    depends = dict.fromkeys(inner, True)
    for node in toposort(outputs, blockers=inner):
        inside = any(depends.get(variable, False) for variable in node.inputs)
        depends.update(dict.fromkeys(node.outputs, inside))
    outer: dict[Any, None] = {}
    seen = set(inner)
    pending = list(outputs)
    while pending:
        one = pending.pop()
        if one in seen or isinstance(one, Constant):
            continue
        seen.add(one)
        if depends.get(one, False):
            pending.extend(one.owner.inputs)
        else:
            outer[one] = None
    return list(outer)


def _scan(f: Callable, init: Any, xs: Any, length: Any, reverse: bool, unroll: Any) -> Any:
    steps = int(control.scan_length(xs, length))
    if steps < 2 or not _symbolic(init, xs):
        return control.unrolled_scan(f, init, xs, length, reverse, unroll)
    first, given = _leaves(init), _leaves(xs)
    state = [stand_in(leaf.dtype, leaf.shape) for leaf in first]
    parts = [leaf if leaf is None else stand_in(leaf.dtype, leaf.shape[1:]) for leaf in given]
    after, y = f(tree.pack(init, state), tree.pack(xs, parts))
    new, collected = _leaves(after), _leaves(y)
    sequences = [leaf for leaf in given if leaf is not None]
    inner = [part for part in parts if part is not None] + state
    found = _run_scan(inner, sequences, first, new, collected, steps, reverse)
    last = [traced(row[-1]) for row in found[: len(new)]]
    rows = iter(found[len(new) :])
    stacked = [None if leaf is None else traced(next(rows)) for leaf in collected]
    if reverse:
        stacked = [None if leaf is None else traced(leaf[::-1]) for leaf in stacked]
    return tree.pack(init, last), tree.pack(y, stacked)


def _run_scan(
    inner: list[Any], sequences: list[Any], first: list[Any], new: list[Any], y: list[Any], steps: int, reverse: bool
) -> list[Any]:
    """PyTensor's `scan` over a step that is traced already; all states, then all results, each stacked."""
    outputs = [*new, *(leaf for leaf in y if leaf is not None)]
    outer = closure(outputs, inner)

    def step(*arguments: Any) -> list[Any]:
        plain = [_plain(out) for out in outputs]
        return list(graph_replace(plain, dict(zip([*inner, *outer], arguments, strict=True)), strict=False))

    found = pytensor.scan(
        step,
        sequences=[_plain(leaf) for leaf in sequences],
        outputs_info=[_plain(leaf) for leaf in first] + [None] * (len(outputs) - len(new)),
        non_sequences=outer,
        n_steps=steps,
        go_backwards=reverse,
        mode=linkers.mode(linkers.chosen()),
        strict=True,
        return_list=True,
        return_updates=False,
    )
    return [pt.specify_shape(row, (steps, *out.type.shape)) for row, out in zip(found, outputs, strict=True)]


def _while_loop(cond: Callable, body: Callable, loop_vars: Any, maximum_iterations: Any) -> Any:
    if not _symbolic(loop_vars):
        return control.unrolled_while_loop(cond, body, loop_vars, maximum_iterations)
    many = isinstance(loop_vars, (list, tuple))
    start = tuple(loop_vars) if many else (loop_vars,)

    def step(state: Any) -> Any:
        after = body(*state)
        return tuple(after) if isinstance(after, (list, tuple)) else (after,)

    if maximum_iterations is None:
        last = _unbounded(cond, step, start)
    else:

        def guarded(state: Any, _: Any) -> Any:
            return _choice(cond(*state), lambda: step(state), lambda: state), None

        last, _ = _scan(guarded, start, None, maximum_iterations, False, 1)
    return (list(last) if isinstance(loop_vars, list) else last) if many else last[0]


def _unbounded(cond: Callable, step: Callable, start: Any) -> Any:
    first = _leaves(start)
    state = [stand_in(leaf.dtype, leaf.shape) for leaf in first]
    packed = tree.pack(start, state)
    results = [*_leaves(cond(*packed)), *_leaves(step(packed))]
    results = [_plain(result) for result in results]
    results[0] = pt.reshape(results[0], ())
    outer = closure(results, state)
    free = [v.type() for v in outer]
    results = list(graph_replace(results, dict(zip(outer, free, strict=True)), strict=False)) if outer else results
    found = nodes(While(state, free, results), [*map(_plain, first), *outer])
    return tree.pack(start, [traced(out) for out in found])


def _choice(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    """`ifelse` over structures."""
    (condition,) = _leaves([pred])
    if isinstance(condition, Known):
        return (true_fn if bool(condition) else false_fn)()
    one, other = true_fn(), false_fn()
    leaves = list(zip(_leaves(one), _leaves(other), strict=True))
    pairs = [(_plain(a), _plain(b)) for a, b in leaves if a is not None]
    if not pairs:
        return one
    condition = pt.reshape(condition, ()) if condition.ndim else condition
    found: Any = ifelse(condition, [a for a, _ in pairs], [b for _, b in pairs])
    chosen = iter([traced(out) for out in found])
    return tree.pack(one, [None if a is None else next(chosen) for a, _ in leaves])


def _cond_of(pred: Any, true_fn: Callable, false_fn: Callable, operands: Any) -> Any:
    given = operands or ()
    return _choice(pred, lambda: true_fn(*given), lambda: false_fn(*given))


LOOPS: dict[str, Callable[..., Any]] = {
    "scan": _scan,
    "while_loop": _while_loop,
    "cond_of": _cond_of,
    "rematerialized": control.plain_rematerialized,
}
