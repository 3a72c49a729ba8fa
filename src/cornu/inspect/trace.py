"""`trace`: every intermediate value of one run of a model, by path."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cornu.core import context, tree
from cornu.core.errors import ArgumentError, BindingError, near_miss
from cornu.engines import registry as engines
from cornu.inspect._calls import Calls
from cornu.inspect._table import number_text, table
from cornu.layers._context import Call, call_in_force
from cornu.layers.base import Layer
from cornu.ops._declare import interpreter_of
from cornu.ops.creation import convert_to_numpy
from cornu.random import at_step

__all__ = ["Trace", "trace"]


class Trace(Mapping[str, np.ndarray]):
    """The values of one run, by path, in the order in which they were computed; it prints as a table.

    Attributes:
        outputs: what the model gave, in its structure, as host arrays.
        name: the model's name and the engine's, for people.
        kinds: for each path the class of the layer, or `"op"` or `"input"`.
    """

    def __init__(self, name: str, values: dict[str, np.ndarray], kinds: dict[str, str], outputs: Any) -> None:
        self.name = name
        self.outputs = outputs
        self.kinds = kinds
        self._values = values

    def __getitem__(self, path: str) -> np.ndarray:
        if path not in self._values:
            raise _NoPath(f"the trace of {self.name} has no {path!r}{near_miss(path, self._values)}", _listed(self))
        return self._values[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def table(self, limit: int | None = None) -> str:
        """A row per value: path, class, shape, dtype, mean, deviation, range, share of zeros, non-finite elements.

        Args:
            limit: how many rows to show; by default all.
        """
        rows = [[path, self.kinds[path], *_statistics(value)] for path, value in self._values.items()]
        head = ["path", "class", "shape", "dtype", "mean", "std", "min", "max", "zeros", "non-finite"]
        return "\n".join([f"{self.name}: {len(self)} values", *table(head, rows, left=(0, 1, 2, 3), limit=limit)])

    def __repr__(self) -> str:
        return self.table(limit=60)


class _NoPath(BindingError, KeyError):
    """A path that is not in a trace."""


def _listed(paths: Mapping[str, Any]) -> str:
    names = list(paths)
    return "one of " + ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def trace(
    model: Layer, x: Any, *, engine: Any = None, training: bool = False, ops: bool = False, step: int = 0
) -> Trace:
    """Every intermediate value of a model (or layer) on some data.

    Args:
        model: the model or layer.
        x: its input: an array, or a list or dict of arrays.
        engine: the engine's name; by default the one in force.
        training: whether it runs as in training. Its variables stay as they are either way.
        ops: whether the values of single ops are kept too, as `"dense/matmul"`.
        step: number of the training step, which decides what random layers draw.

    Returns:
        a mapping from path to host array. The paths are those of `model.tensors()`: layers' names, `"encoder@1"` for
        the second call of a shared layer, `"scores:1"` for the second of several outputs; a layer inside another is
        `"block/dense"`. A loop is run step by step, so that a recurrent layer's cell has a value per step.

    Raises:
        ArgumentError: if `model` is no layer.

    Example:
        >>> import cornu, numpy as np
        >>> x = cornu.Input((4,), name="x")
        >>> h = cornu.layers.Dense(3, activation="relu", kernel_initializer="ones", name="hidden")(x)
        >>> model = cornu.Model(x, cornu.layers.Dense(1, kernel_initializer="ones", name="out")(h), name="net")
        >>> values = cornu.inspect.trace(model, np.ones((2, 4), "float32"), engine="numpy")
        >>> list(values), values["hidden"].shape
        (['x', 'hidden', 'out'], (2, 3))
        >>> print(values)
        net on numpy: 3 values
        path    class  shape   dtype    mean  std  min  max  zeros  non-finite
        ----------------------------------------------------------------------
        x       input  (2, 4)  float32     1    0    1    1     0%           0
        hidden  Dense  (2, 3)  float32     4    0    4    4     0%           0
        out     Dense  (2, 1)  float32    12    0   12   12     0%           0
    """
    if not isinstance(model, Layer):
        raise ArgumentError(f"trace got {model!r:.80} ({type(model).__name__})", "a model or layer")
    chosen = engines.get(engine) if engine is not None else context.engine_in_force()
    watch = _Watch(model, ops)
    watching = context.watcher.set(watch.computed if ops else None)
    unroll = context.unroll.set(True)
    try:
        with context.use_engine(chosen), context.bind([], []), at_step(np.int32(step)), np.errstate(all="ignore"):
            _enter_inputs(watch, model, x)
            with watch.calls.listening():
                tell_call, tell_node = context.on_call.set(watch.ended), context.on_node.set(watch.ran)
                try:
                    outputs = tree.map_structure(_host, model(x, training=training))
                finally:
                    context.on_call.reset(tell_call)
                    context.on_node.reset(tell_node)
    finally:
        context.unroll.reset(unroll)
        context.watcher.reset(watching)
    values, kinds = watch.found()
    return Trace(f"{model.name} on {chosen.name}", values, kinds, outputs)


def _enter_inputs(watch: "_Watch", model: Any, x: Any) -> None:
    function = getattr(model, "_function", None)
    if function is None:
        return
    for tensor, value in zip(function.flat_inputs, function.prepared(function.bind(x)), strict=True):
        if value is not None:
            watch.rows.append((None, tensor.node.name, "input", [_host(value)]))


def _host(value: Any) -> Any:
    return np.array(convert_to_numpy(value)) if hasattr(value, "dtype") else value


class _Watch:
    """Keeps what calls, nodes and ops give, until all paths are known."""

    def __init__(self, model: Layer, ops: bool) -> None:
        self.model = model
        self.ops = ops
        self.calls = Calls(model)
        # Each: the call, a name within it (empty for the call's own outputs), what made it, the values.
        self.rows: list[tuple[Call | None, str, str, list[Any]]] = []
        self._loose: list[tuple[Call | None, str, Any]] = []  # ops of the node that runs

    def ended(self, call: Call, outputs: Any) -> None:
        """Keep the outputs of a layer's call."""
        if context.is_abstract():  # it is being built
            return
        self.calls.ended(call, outputs)
        self._settle("", None)
        if call.parent is not None or call.layer is not self.model:
            self._add(call, "", type(call.layer).__name__, outputs)

    def ran(self, plan: Any, node: Any, result: Any) -> None:
        """Keep what an op of a graph gave."""
        if context.is_abstract():
            return
        self.calls.ran(plan, node, result)
        if node.is_op:
            path = self.calls.node_path(plan, node)
            self._settle(path, node.operation.name)
            self._add(call_in_force(), path, "op", result)

    def computed(self, op: Any, arrays: Any, static: Any, result: Any) -> None:
        """Keep what an op of an engine gave; its name waits until it is known whose it is."""
        if op.family != "control":
            self._loose.append((call_in_force(), op.name, result))

    def _settle(self, path: str, node: str | None) -> None:
        """Name the ops computed since; the op that a node is has the node's path already."""
        loose, self._loose = self._loose, []
        for call, name, result in loose:
            if node == name and len(loose) == 1:
                continue
            named = self.calls.next_name(call, f"{path}/{name}" if path else name)
            self._add(call, named, "op", result)

    def _add(self, call: Call | None, name: str, kind: str, values: Any) -> None:
        leaves = tree.leaves(values)
        if not any(_is_unknown(leaf) for leaf in leaves):
            self.rows.append((call, name, kind, [_host(leaf) for leaf in leaves]))

    def found(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """All values by path, and what made each."""
        self._settle("", None)
        values: dict[str, np.ndarray] = {}
        kinds: dict[str, str] = {}
        for call, name, kind, leaves in self.rows:
            path = "/".join(part for part in (self.calls.path(call), name) if part)
            for i, leaf in enumerate(leaves):
                if isinstance(leaf, np.ndarray):
                    key = path if len(leaves) == 1 else f"{path}:{i}"
                    values[key], kinds[key] = leaf, kind
        return values, kinds


def _is_unknown(value: Any) -> bool:
    """Whether a value only stands for one: inside a function that an engine traces."""
    owner = interpreter_of(value) if hasattr(value, "dtype") else None
    return owner is not None and owner.is_tracing(value)


def _statistics(value: np.ndarray) -> list[str]:
    shape, dtype = str(value.shape), value.dtype.name
    if not value.size:
        return [shape, dtype, "", "", "", "", "", "0"]
    wide = value.astype("float64")
    finite = np.isfinite(wide)
    bad = int((~finite).sum())
    zeros = f"{100 * float((wide == 0).mean()):.3g}%"
    rest = wide[finite] if bad else wide
    numbers = [rest.mean(), rest.std(), rest.min(), rest.max()] if rest.size else []
    return [shape, dtype, *([number_text(float(n)) for n in numbers] or [""] * 4), zeros, f"{bad:,}"]
