"""Loops and choices: TensorFlow's own in a graph, plain Python where values are at hand."""

import contextvars
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from cornu.core import tree
from cornu.core.errors import GraphError
from cornu.core.variable import Variable
from cornu.engines.tensorflow.gradients import custom_gradient
from cornu.engines.tensorflow.sizes import resolve
from cornu.ops import control
from cornu.ops._declare import host_array

__all__ = ["TABLE", "under_xla"]

# Whether what is traced here will be compiled by XLA, which knows no control dependencies.
under_xla: ContextVar[bool] = ContextVar("cornu_tensorflow_xla", default=False)


def _tensor(value: Any) -> Any:
    if isinstance(value, Variable):
        value = value.value
    return tf.convert_to_tensor(value if tf.is_tensor(value) or hasattr(value, "handle") else host_array(value))


def _flat(structure: Any) -> list[Any]:
    """The arrays of a structure, without its `None`s."""
    return [_tensor(leaf) for leaf in tree.leaves(structure) if leaf is not None]


def _packed(like: Any, values: Any) -> Any:
    """A structure with its arrays replaced, `None`s kept."""
    given = iter(values)
    return tree.map_structure(lambda leaf: None if leaf is None else next(given), like)


def _kept(before: list[Any], after: list[Any], what: str) -> list[Any]:
    """What a step made of a state, held to its shapes.

    Raises:
        GraphError: if arrays are missing, or a dtype has changed.
    """
    if len(before) != len(after) or any(a.dtype != b.dtype for a, b in zip(before, after, strict=True)):
        raise GraphError(f"{what} gave {after!r}", f"what it got: {before!r}", "keep the state's structure and dtypes")
    return [tf.ensure_shape(b, a.shape) for a, b in zip(before, after, strict=True)]


def _shown(function: Callable[..., Any], *examples: Any) -> tuple[Any, list[Any]]:
    """What a function gives for arrays like these: its structure, and shapes and dtypes of its arrays."""
    like: list[Any] = []

    def traced(*flat: Any) -> list[Any]:
        rest = iter(flat)
        result = function(*(_packed(example, rest) for example in examples))
        like.append(tree.map_structure(lambda leaf: None if leaf is None else 0, result))
        return _flat(result)

    specs = [tf.TensorSpec(x.shape, x.dtype) for example in examples for x in _flat(example)]
    concrete = tf.function(traced, autograph=False).get_concrete_function(*specs)
    return like[0], [tf.TensorSpec(out.shape, out.dtype) for out in concrete.outputs]


def _scan(f: Any, init: Any, xs: Any, length: Any, reverse: bool, unroll: Any) -> Any:
    if tf.executing_eagerly():
        return control.unrolled_scan(f, init, xs, length, reverse, unroll)
    steps = resolve(control.scan_length(xs, length))
    start, columns = _flat(init), _flat(xs)
    first = _packed(
        xs, [tf.zeros(x.shape[1:], x.dtype) if x.shape[1:].is_fully_defined() else _row(x) for x in columns]
    )
    like, shown = _shown(lambda state, x: f(state, x)[1], init, first)
    inputs = [
        tf.TensorArray(x.dtype, size=steps, element_shape=x.shape[1:], clear_after_read=False).unstack(x)
        for x in columns
    ]
    outputs = [tf.TensorArray(spec.dtype, size=steps, element_shape=spec.shape) for spec in shown]

    def body(done: Any, state: Any, collected: Any) -> Any:
        at = steps - 1 - done if reverse else done
        after, y = f(_packed(init, state), _packed(xs, [array.read(at) for array in inputs]))
        written = [array.write(at, part) for array, part in zip(collected, _flat(y), strict=True)]
        return done + 1, _kept(start, _flat(after), "the function of scan"), written

    _, state, collected = tf.while_loop(
        lambda done, *_: done < steps, body, (tf.constant(0), start, outputs), maximum_iterations=steps
    )
    return _packed(init, state), _packed(like, [array.stack() for array in collected])


def _row(x: Any) -> Any:
    return tf.zeros(tf.shape(x)[1:], x.dtype)


def _while_loop(cond: Any, body: Any, loop_vars: Any, maximum_iterations: Any) -> Any:
    if tf.executing_eagerly():
        return control.unrolled_while_loop(cond, body, loop_vars, maximum_iterations)
    many = isinstance(loop_vars, (list, tuple))
    given = tuple(loop_vars) if many else (loop_vars,)
    start = _flat(given)

    def holds(*state: Any) -> Any:
        return tf.reshape(tf.cast(_tensor(cond(*_packed(given, state))), tf.bool), ())

    def step(*state: Any) -> Any:
        after = body(*_packed(given, state))
        return _kept(start, _flat(after), "the body of while_loop")

    state = tf.while_loop(holds, step, start, maximum_iterations=maximum_iterations)
    result = _packed(given, state if isinstance(state, (list, tuple)) else [state])
    return (list(result) if isinstance(loop_vars, list) else result) if many else result[0]


def _cond(pred: Any, true_fn: Any, false_fn: Any, operands: Any) -> Any:
    if tf.executing_eagerly():
        return control.unrolled_cond_of(pred, true_fn, false_fn, operands)
    like: list[Any] = []

    def branch(function: Any) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            result = function(*(operands or ()))
            like.append(result)
            return _flat(result)

        return run

    flag = tf.reshape(tf.cast(pred, tf.bool), ())
    found = tf.cond(flag, branch(true_fn), branch(false_fn))
    return _packed(like[0], found if isinstance(found, (list, tuple)) else [found])


def _rematerialized(operands: Any, f: Callable[..., Any]) -> Any:
    if tf.executing_eagerly():
        return f(*operands)
    around = contextvars.copy_context()
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    result = f(*operands)
    given, outputs = _flat(operands), _flat(result)
    closed = _closed_over(graph.get_operations()[before:], given)
    if closed is None:
        return result
    floats = [i for i, x in enumerate(given) if x.dtype.is_floating]
    smooth = [i for i, x in enumerate(outputs) if x.dtype.is_floating]

    def again(gradients: list[Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            values = _after(gradients, given)
            sources = [*(values[i] for i in floats), *closed]
            tape.watch(sources)
            found = _flat(f(*_packed(operands, values)))
        back: list[Any] = tape.gradient([found[i] for i in smooth], sources, output_gradients=gradients)
        return back

    @custom_gradient
    def kept(*sources: Any) -> Any:
        # What was in force around the call is so no longer when the way back is built.
        return outputs, lambda *gradients: around.copy().run(again, [gradients[i] for i in smooth])

    # The gradients go around the operations that gave the outputs, which then need not keep their values.
    found = kept(*(given[i] for i in floats), *closed)
    return _packed(result, found)


def _closed_over(made: list[Any], given: list[Any]) -> list[Any] | None:
    """The floats that operations take from outside, beside what is given.

    Returns:
        tensors; `None` if the operations do more than compute, or use what has no gradient of its own here.
    """
    inside = {operation.name for operation in made}
    found: dict[str, Any] = {}
    for operation in made:
        if operation.op_def.is_stateful:
            return None
        # What the graph around this one has, this one meets in placeholders.
        met = operation.outputs if operation.type == "Placeholder" else operation.inputs
        found.update((x.name, x) for x in met if x.op.name not in inside or operation.type == "Placeholder")
    for x in given:
        found.pop(x.name, None)
    if any(x.dtype in (tf.resource, tf.variant) for x in found.values()):
        return None
    return [x for x in found.values() if x.dtype.is_floating]


def _after(gradients: list[Any], values: list[Any]) -> list[Any]:
    """The values, not to be had before the gradients: else what comes of them is shared with the way forward."""
    if not under_xla.get():
        with tf.control_dependencies(gradients):
            return [tf.identity(x) for x in values]
    first = tf.cast(tf.reshape(gradients[0], [-1])[:1], tf.float32)
    # No computation makes this NaN, which XLA does not know.
    mark = tf.reduce_all(tf.bitcast(first, tf.uint32) != tf.constant(0xFFFFFFFF, tf.uint32))
    return [tf.where(mark, x, tf.constant(float("nan"), x.dtype)) if x.dtype.is_floating else x for x in values]


TABLE: dict[str, Callable[..., Any]] = {
    "scan": _scan,
    "while_loop": _while_loop,
    "cond_of": _cond,
    "rematerialized": _rematerialized,
}
