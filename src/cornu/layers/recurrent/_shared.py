"""What layers over time share: building a layer inside another, copying one, and a loop that loses nothing.

A step that calls a layer may do more than give a result: the layer may assign its variables (moving averages, a
generator's state), add to the loss, or draw random numbers. `walk` makes all of that part of the loop's state, so that
a loop that an engine compiles, a loop in Python and a tape's loop do the same.
"""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

from cornu import ops
from cornu.core import context, tree
from cornu.core.dims import Dim
from cornu.core.errors import UnsupportedError
from cornu.core.variable import Variable, read_all
from cornu.initializers import Initializer
from cornu.layers._arguments import signature_of
from cornu.layers._clock import layer_key
from cornu.layers._context import Call, call_in_force, current
from cornu.layers.base import Layer
from cornu.ops import random
from cornu.ops.control import unrolled_scan
from cornu.random import at_step

__all__ = ["build_inside", "fresh", "swapped", "walk"]


def build_inside(owner: Layer, layer: Any, shape: Any) -> None:
    """Build a layer that another holds, under the other's path; what is built, or no layer, is left as it is.

    Args:
        owner: the layer that holds it.
        layer: the layer to build.
        shape: the shape of its first input, in Keras's form.
    """
    if not isinstance(layer, Layer) or layer.built:
        return
    vars(layer)["_path"] = f"{owner.path}/{layer.name}"
    names = signature_of(type(layer)).names
    token = current.set(Call(layer, current.get(), None, layer.path))
    try:
        layer._build_with({names[0] if names else "inputs": shape})
    finally:
        current.reset(token)


def fresh(value: Any) -> Any:
    """A value of a config with every layer, cell and initializer in it made anew, so that no weights are shared."""
    if isinstance(value, (Layer, Initializer)):
        return type(value).from_config({key: fresh(part) for key, part in value.get_config().items()})
    if isinstance(value, (list, tuple, dict)):
        return tree.map_structure(fresh, value)
    return copy.deepcopy(value) if hasattr(value, "state_size") else value  # a cell that is no layer


def swapped(x: Any) -> Any:
    """`(batch, time, ...)` as `(time, batch, ...)`, and back."""
    return ops.swapaxes(x, 0, 1)


def walk(
    owner: Layer,
    inner: Any,
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    xs: Any,
    length: int | Dim,
    *,
    training: bool,
    reverse: bool = False,
    unroll: bool = False,
) -> tuple[Any, Any]:
    """`ops.scan` of a step that calls a layer.

    Args:
        owner: the layer whose call this is; losses of the steps are added up and become its own.
        inner: the layer that the step calls; `None` if the step has no effect but its result.
        step: function `(state, x) -> (state, y)`.
        state: the first state.
        xs: structure of arrays, walked along axis 0.
        length: number of steps.
        training: whether layers may draw random numbers; each step then draws its own.
        reverse: whether to walk from the end.
        unroll: whether to loop in Python; `length` must be known.

    Returns:
        the last state, and the `y` of all steps stacked along axis 0.

    Raises:
        UnsupportedError: if a step assigns a trainable variable.
    """
    layers = inner._flatten_layers() if isinstance(inner, Layer) else []
    kept = [variable for variable in inner.variables if not variable.trainable] if layers else []
    flag, watcher = context.flag.get(), context.watcher.get()
    kept += [flag] if flag is not None and watcher is not None else []
    places = {id(variable): i for i, variable in enumerate(kept)}
    changed: set[int] = set()
    root = call_in_force().root if call_in_force() is not None else None  # type: ignore[union-attr]
    draws = dict(root.draws) if root is not None else {}
    key = layer_key(owner, 0) if training and inner is not None else None
    moments = ops.arange(length) if key is not None else ()

    def body(carry: Any, x: Any) -> Any:
        state, values = carry
        x, moment = x
        if root is not None:
            root.draws = dict(draws)  # however often an engine runs this to trace it, the draws are the same
        before = [len(layer._call_losses) for layer in layers]
        now = contextlib.nullcontext() if key is None else at_step(ops.get_item(random.fold_in(key, moment), 0))
        with context.bind(kept, values) as scope, now:
            token = context.watcher.set(watcher if flag is not None else context.watcher.get())
            try:
                state, y = step(state, x)
            finally:
                context.watcher.reset(token)
        for place, variable in scope.assigned.items():
            if place not in places:
                _refuse_assignment(owner, variable)
            changed.add(places[place])
        losses = []
        for layer, count in zip(layers, before, strict=True):
            losses += [ops.convert_to_tensor(loss) for loss in layer._call_losses[count:]]
            del layer._call_losses[count:]
        return (state, [scope.values[id(variable)] for variable in kept]), (y, losses)

    start = (state, read_all(kept))
    if unroll:
        (state, values), (ys, losses) = unrolled_scan(body, start, (xs, moments), length, reverse, 1)
    else:
        (state, values), (ys, losses) = ops.scan(body, start, (xs, moments), length, reverse)
    for i in sorted(changed):
        kept[i].assign(values[i])
    for loss in losses:
        owner.add_loss(ops.sum(loss))
    return state, ys


def _refuse_assignment(owner: Layer, variable: Variable) -> None:
    raise UnsupportedError(
        f"a step of {owner.path!r} assigns the variable {variable.path!r}, which is trainable or not held by its cell",
        "variables with trainable=False, made before the first step",
        "make it in __init__ or build with trainable=False, or carry it as a state of the cell",
    )
