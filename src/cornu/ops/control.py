"""Loops and choices that every interpreter can follow.

The plain forms at the end (`unrolled_*`) are Python loops over ops: the NumPy engine's own, and what the tape runs,
so every loop is differentiable where the mathematics is.
"""

from collections.abc import Callable
from typing import Any

from cornu.core import tree
from cornu.core.errors import ArgumentError, GraphError, ShapeError
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import creation as _c
from cornu.ops import indexing as _i
from cornu.ops import movement as _m
from cornu.ops._declare import Tree, interpreter_of, primitive, shape_of, to_spec
from cornu.ops._rules import require_equal

__all__ = ["cond", "fori_loop", "map", "rematerialized", "scan", "switch", "vectorized_map", "while_loop"]


def _same_specs(before: Any, after: Any, what: str) -> None:
    if not tree.same_structure(before, after):
        raise GraphError(f"{what} gave {after!r}", f"the structure it got: {before!r}")
    for a, b in zip(tree.leaves(before), tree.leaves(after), strict=True):
        a, b = to_spec(a), to_spec(b)
        if a.key != b.key:
            raise ShapeError(
                f"{what} gave {b!r}", f"what it got: {a!r}", "keep shape and dtype of the loop's state fixed"
            )


@primitive(family="control")
def scan(f: Callable, init: Tree, xs: Tree | None = None, length=None, reverse=False, unroll=1) -> Any:
    """A loop that carries a state along an axis and collects what each step gives.

    Args:
        f: function `(state, x) -> (state, y)`.
        init: the first state, a structure of arrays whose shapes and dtypes stay.
        xs: structure of arrays, walked along axis 0; `None` to run `length` steps without.
        length: number of steps; read from `xs` when left out.
        reverse: whether to walk from the end.
        unroll: a hint to the engine; the result is the same.

    Returns:
        the last state, and the `y` of all steps stacked along axis 0.

    Example:
        >>> import cornu
        >>> total, partial = cornu.ops.scan(lambda s, x: (s + x, s), 0, cornu.ops.arange(4))
        >>> int(total), partial.tolist()
        (6, [0, 0, 1, 3])
    """
    steps = scan_length(xs, length)
    x = tree.map_structure(lambda s: None if s is None else Spec(s.shape[1:], s.dtype), xs)
    state, y = f(init, x)
    _same_specs(init, state, "the function of scan")
    stacked = tree.map_structure(lambda s: None if s is None else Spec((steps, *to_spec(s).shape), to_spec(s).dtype), y)
    return tree.map_structure(lambda s: to_spec(s), state), stacked


def scan_length(xs: Any, length: Any) -> Any:
    """The number of steps of a scan.

    Raises:
        ShapeError: if the arrays disagree on it.
        ArgumentError: if nothing tells.
    """
    for x in tree.leaves(xs):
        if x is not None:
            size = shape_of(x)[0]
            length = size if length is None else require_equal(length, size, "steps of a scan")
    if length is None:
        raise ArgumentError("scan got neither xs nor length", "one of them")
    return length


@primitive(family="control")
def while_loop(cond: Callable, body: Callable, loop_vars: Tree, maximum_iterations=None) -> Any:
    """A loop that runs as long as a condition on its state holds.

    Args:
        cond: function `(*state) -> boolean scalar`.
        body: function `(*state) -> state`.
        loop_vars: the first state: a list or tuple of structures, or one array.
        maximum_iterations: when to stop in any case; gives the loop a gradient on every engine.

    Returns:
        the last state.
    """
    state = loop_vars if isinstance(loop_vars, (list, tuple)) else (loop_vars,)
    cond(*state)
    after = body(*state)
    after = after if isinstance(after, (list, tuple)) else (after,)
    _same_specs(tuple(state), tuple(after), "the body of while_loop")
    return tree.map_structure(to_spec, loop_vars)


@primitive(family="control")
def cond_of(pred: Spec, true_fn: Callable, false_fn: Callable, operands: Tree | None = None) -> Any:
    """`cond` with its operands given."""
    given: Any = operands or ()
    chosen, other = true_fn(*given), false_fn(*given)
    _same_specs(chosen, other, "false_fn of cond")
    return tree.map_structure(lambda leaf: None if leaf is None else to_spec(leaf), chosen)


def cond(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    """One of two computations, as a boolean scalar says.

    Args:
        pred: boolean scalar.
        true_fn: function of no arguments.
        false_fn: function of no arguments; gives the same structure, shapes and dtypes.

    Returns:
        what the chosen function gives.

    Example:
        >>> import cornu
        >>> int(cornu.ops.cond(True, lambda: cornu.ops.add(1, 1), lambda: cornu.ops.add(0, 0)))
        2
    """
    return cond_of(pred, true_fn=true_fn, false_fn=false_fn)


@primitive(family="control")
def rematerialized(operands: Tree, f: Callable) -> Any:
    """What a function gives, of which nothing but the operands is kept for the way back: it is computed again there.

    Args:
        operands: a list or tuple of structures of arrays.
        f: function `(*operands)`; it may be called more than once, and must give the same each time. Gradients reach
            what it closes over too.

    Returns:
        what `f` gives, a structure of arrays. Values and gradients are those of `f(*operands)`.

    Example:
        >>> import cornu
        >>> x = cornu.Variable([1.0, 2.0])
        >>> loss = lambda: cornu.ops.rematerialized((x.value,), lambda v: cornu.ops.sum(cornu.ops.exp(v) * v))
        >>> _, gradient = cornu.value_and_grad(loss, x)()
        >>> [round(float(g), 3) for g in gradient]
        [5.437, 22.167]
    """
    given: Any = operands
    return tree.map_structure(lambda leaf: None if leaf is None else to_spec(leaf), f(*given))


def switch(index: Any, branches: list[Callable], *operands: Any) -> Any:
    """One of several computations, by number; a number outside is moved to the nearest."""

    def choose(i: int) -> Any:
        if i == len(branches) - 1:
            return branches[i](*operands)
        return cond(_a.less_equal(index, i), lambda: branches[i](*operands), lambda: choose(i + 1))

    return choose(0)


def fori_loop(lower: Any, upper: Any, body_fun: Callable, init_val: Any) -> Any:
    """`state = body_fun(i, state)` for `i` from `lower` up to (not including) `upper`."""
    if isinstance(lower, int) and isinstance(upper, int):
        counter = _c.arange(lower, upper)
        state, _ = scan(lambda s, i: (body_fun(i, s), None), init_val, counter)
        return state
    start = _c.convert_to_tensor(lower, "int32")
    _, state = while_loop(
        lambda i, s: _a.less(i, upper), lambda i, s: (_a.add(i, 1), body_fun(i, s)), (start, init_val)
    )
    return state


def map(f: Callable, xs: Any) -> Any:
    """`f` of each part of `xs` along axis 0, the results stacked."""
    return scan(lambda _, x: (_, f(x)), (), xs)[1]


def vectorized_map(function: Callable, elements: Any) -> Any:
    """`function` of each part of `elements` along axis 0, the results stacked (`map`, by Keras's other name)."""
    return map(function, elements)


# ---------------------------------------------------------------- plain forms


def unrolled_scan(f: Callable, init: Any, xs: Any, length: Any, reverse: bool, unroll: Any) -> Any:
    """`scan` as a Python loop over ops."""
    steps = int(scan_length(xs, length))
    if steps == 0:
        x = tree.map_structure(lambda a: None if a is None else _c.zeros(shape_of(a)[1:], _c.dtype(a)), xs)
        y = f(init, x)[1]
        return init, tree.map_structure(lambda a: None if a is None else _c.zeros((0, *shape_of(a)), _c.dtype(a)), y)
    state, collected = init, []
    for i in reversed(range(steps)) if reverse else range(steps):
        x = tree.map_structure(lambda a, i=i: None if a is None else _i.get_item(a, i), xs)
        state, y = f(state, x)
        collected.append(y)
    if reverse:
        collected.reverse()
    first = collected[0]
    columns = zip(*(tree.leaves(y) for y in collected), strict=True)
    stacked = [None if column[0] is None else _m.stack(list(column)) for column in columns]
    return state, tree.pack(first, stacked)


def unrolled_while_loop(cond: Callable, body: Callable, loop_vars: Any, maximum_iterations: Any) -> Any:
    """`while_loop` as a Python loop over ops."""
    many = isinstance(loop_vars, (list, tuple))
    state = tuple(loop_vars) if many else (loop_vars,)
    done = 0
    while (maximum_iterations is None or done < maximum_iterations) and bool(_plain(cond(*state))):
        state = body(*state)
        state = tuple(state) if isinstance(state, (list, tuple)) else (state,)
        done += 1
    return (list(state) if isinstance(loop_vars, list) else state) if many else state[0]


def unrolled_cond_of(pred: Any, true_fn: Callable, false_fn: Callable, operands: Any) -> Any:
    """`cond` as Python's `if`."""
    return (true_fn if bool(_plain(pred)) else false_fn)(*(operands or ()))


def plain_rematerialized(operands: Any, f: Callable) -> Any:
    """`rematerialized` as a plain call, which keeps what autodiff keeps."""
    return f(*operands)


def _plain(value: Any) -> Any:
    """A concrete value under any tapes."""
    owner = interpreter_of(value)
    return value if owner is None else owner.plain(value)


UNROLLED: dict[str, Callable[..., Any]] = {
    "scan": unrolled_scan,
    "while_loop": unrolled_while_loop,
    "cond_of": unrolled_cond_of,
    "rematerialized": plain_rematerialized,
}
