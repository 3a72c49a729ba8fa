"""`cost`: what a model will cost, from the Specs of its values alone; nothing is computed, and no engine is needed."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, dtypes, tree
from cornu.core.dims import BATCH, Dim, evaluate, shape_text
from cornu.core.errors import ArgumentError, near_miss
from cornu.core.spec import Spec
from cornu.inspect._calls import Calls
from cornu.inspect._prices import FREE, TRANSCENDENTAL, bytes_of, flops_of, specs_in
from cornu.inspect._table import count_text, size_text, table
from cornu.layers._arguments import shapes_to_specs
from cornu.layers._context import Call, call_in_force
from cornu.layers.base import Layer
from cornu.ops import arithmetic as _a
from cornu.ops import reduction as _r
from cornu.ops._declare import Op, to_spec

__all__ = ["Cost", "LayerCost", "cost"]


class LayerCost:
    """What one layer's call costs, with all that is inside it.

    Attributes:
        path: the call's path.
        kind: the layer's class.
        shapes: the shapes of its outputs.
        flops: floating-point operations.
        bytes: bytes read and written.
        parameters: elements of its weights; 0 for a later call of a shared layer.
        output_bytes: bytes of its outputs.
    """

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        self.shapes: list[tuple[Any, ...]] = []
        self.flops = self.bytes = self.parameters = self.output_bytes = 0

    def __repr__(self) -> str:
        return f"<{self.path} ({self.kind}): {count_text(self.flops)} FLOPs, {size_text(self.bytes)}>"


class Cost:
    """What a model costs; it prints as a table.

    Attributes:
        name: the model's name.
        sizes: what the unknown sizes were taken to be.
        training: whether the gradients are counted.
        flops: floating-point operations.
        transcendentals: how many of them are of the dear kind: exponentials, roots, logarithms, tanh ...
        bytes: bytes read and written if every op reads its arrays and writes its result.
        parameters: elements of all weights.
        parameter_bytes: their bytes.
        peak_memory: the most bytes of activations alive at once (inputs too, weights not).
        activations: bytes of all values computed.
        layers: a `LayerCost` for each layer call, by path.
        notes: what could not be counted exactly.
    """

    def __init__(self, name: str, sizes: dict[str, int], training: bool) -> None:
        self.name, self.sizes, self.training = name, sizes, training
        self.flops = self.transcendentals = self.bytes = self.parameters = self.parameter_bytes = 0
        self.peak_memory = self.activations = 0
        self.layers: dict[str, LayerCost] = {}
        self.notes: list[str] = []

    def table(self, depth: int = 1) -> str:
        """A row per layer call.

        Args:
            depth: how many levels of layers within layers to show.
        """
        rows, counted = [], 0
        for path, layer in self.layers.items():
            counted += layer.flops if "/" not in path else 0
            if path.count("/") < depth:
                shapes = ", ".join(map(shape_text, layer.shapes))
                numbers = [f"{layer.parameters:,}", count_text(layer.flops), size_text(layer.bytes)]
                rows.append([path, layer.kind, shapes, *numbers, size_text(layer.output_bytes)])
        if self.flops > counted:
            rows.append(["outside of layers", "", "", "", count_text(self.flops - counted), "", ""])
        head = ["layer", "class", "output", "parameters", "FLOPs", "bytes moved", "output size"]
        return "\n".join(table(head, rows, left=(0, 1, 2)))

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        what = "forward and gradients" if self.training else "forward"
        lines = [
            f"{self.name}, {what}" + (f", {sizes}" if sizes else ""),
            self.table(),
            f"FLOPs:       {count_text(self.flops)} ({self.flops:,}), "
            f"{count_text(self.transcendentals)} of them transcendental",
            f"bytes moved: {size_text(self.bytes)}, op by op",
            f"parameters:  {self.parameters:,} ({size_text(self.parameter_bytes)})",
            f"activations: {size_text(self.peak_memory)} at the peak, {size_text(self.activations)} in all",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__


def cost(
    model: Layer,
    inputs: Any = None,
    *,
    batch_size: int = 1,
    sizes: Mapping[str, int] | None = None,
    training: bool = False,
) -> Cost:
    """FLOPs, bytes, parameters and activation memory of a model, per layer and in all, from shapes and dtypes alone.

    What counts: an elementwise op one FLOP per element, also a transcendental one (`.transcendentals` says how many);
    a product `2 m n k`; a convolution two per output element and element of a filter, padding included; a reduction one
    per element summed; a window one per element; a sort `n log2 n`; moving, reshaping, casting and whole numbers none.
    A loop's body counts once per step. Bytes are those of an engine that fuses nothing; compiled ones move fewer.

    Args:
        model: the model or layer.
        inputs: its input where it has no graph: a shape (`(None, 28, 28)`), a Spec, an array, or a list or dict
            of them.
        batch_size: the batch.
        sizes: the other unknown sizes by name, as in `{"time": 128}`; the names are those of `Input(("time",))`, and
            `"x.1"` for axis 1 of an input `x` that says `None`, `"axis1"` for that of a shape given here.
        training: whether to count a step of training: the model as in training, and the gradients of its trainable
            weights by the tape's rules, without loss and optimizer. The peak then holds what the gradients need.

    Returns:
        a `Cost`: `.flops`, `.bytes`, `.parameters`, `.peak_memory`, `.layers`; it prints as a table.

    Raises:
        ArgumentError: if a size or the inputs are missing.

    Example:
        >>> import cornu
        >>> x = cornu.Input((64,), name="x")
        >>> h = cornu.layers.Dense(32, activation="relu", name="hidden")(x)
        >>> model = cornu.Model(x, cornu.layers.Dense(8, name="out")(h), name="net")
        >>> found = cornu.inspect.cost(model, batch_size=10)
        >>> found.flops == 10 * (2 * 64 * 32 + 2 * 32 + 2 * 32 * 8 + 8)
        True
        >>> print(found)
        net, forward, batch=10
        layer   class  output    parameters    FLOPs  bytes moved  output size
        ----------------------------------------------------------------------
        hidden  Dense  (10, 32)       2,080  41.60 k     17.28 kB      1.28 kB
        out     Dense  (10, 8)          264   5.20 k      3.30 kB        320 B
        FLOPs:       46.80 k (46,800), 0 of them transcendental
        ...
    """
    if not isinstance(model, Layer):
        raise ArgumentError(f"cost got {model!r:.80} ({type(model).__name__})", "a model or layer")
    known = {BATCH.expression: int(batch_size), **{name: int(size) for name, size in (sizes or {}).items()}}
    if not model.built:
        _build(model, inputs)
    specs = _specs(model, inputs, known)
    counter = _Counter(model)
    with context.abstract(), context.bind([], []), counter.listening():
        _run(model, specs, training)
    return counter.report(specs, known, training)


def _build(model: Any, inputs: Any) -> None:
    """Make the weights, on Specs whose sizes may be unknown."""
    if inputs is not None:
        with context.abstract(), context.bind([], []):
            model(_as_specs(model, inputs))


def _run(model: Any, specs: Any, training: bool) -> None:
    if not training:
        model(specs, training=False)
        return
    trained = model.trainable_variables

    def forward(values: list[Any]) -> tuple[Any, Any]:
        with context.bind(trained, values):
            outputs = model(specs, training=True)
        total: Any = 0.0
        for leaf in tree.leaves(outputs):
            total = _a.add(total, _r.sum(leaf))
        return total, None

    tape_value_and_grad(forward)([Spec(variable.shape, variable.dtype) for variable in trained])


def _as_specs(model: Any, inputs: Any) -> Any:
    """Specs for shapes, Specs or arrays."""
    leaves = tree.leaves(inputs)
    if all(leaf is None or isinstance(leaf, int) for leaf in leaves):
        return tree.map_structure(_named_by_axis, shapes_to_specs(inputs, model.compute_dtype))
    return tree.map_structure(lambda leaf: None if leaf is None else to_spec(leaf), inputs)


def _named_by_axis(spec: Any) -> Any:
    """A shape's unknown sizes behind the batch named by their axes, which a user can guess."""
    if spec is None:
        return None
    sizes = [Dim(f"axis{i}") if i and isinstance(size, Dim) else size for i, size in enumerate(spec.shape)]
    return Spec(tuple(sizes), spec.dtype)


def _specs(model: Any, inputs: Any, known: dict[str, int]) -> Any:
    """The Specs of the inputs, all sizes known."""
    function = getattr(model, "_function", None)
    if inputs is not None:
        found = _as_specs(model, inputs)
    elif function is not None:
        found = tree.map_structure(lambda tensor: Spec(tensor.shape, tensor.dtype), function.inputs)
    else:
        raise ArgumentError(
            f"cost got {model.name!r} ({type(model).__name__}), which has no graph that tells its inputs",
            "the shape of its input",
            f"cost({model.name}, (None, ...)), with the batch first; or a Spec, an array, or a dict of them",
        )
    unknown: set[str] = set()
    for spec in tree.leaves(found):
        for size in spec.shape if isinstance(spec, Spec) else ():
            unknown |= size.unknowns() if isinstance(size, Dim) else set()
    missing = sorted(unknown - set(known))
    if missing:
        raise ArgumentError(
            f"cost of {model.name!r} needs the sizes {', '.join(map(repr, missing))}",
            "a number for each unknown size",
            "sizes={" + ", ".join(f"{name!r}: 128" for name in missing) + "}",
        )
    for name in set(known) - unknown - {BATCH.expression}:
        raise ArgumentError(
            f"cost of {model.name!r} got the size {name!r}{near_miss(name, unknown)}",
            f"sizes among {', '.join(map(repr, sorted(unknown))) or 'none'}",
        )
    if BATCH.expression not in unknown:
        known.pop(BATCH.expression)
    return tree.map_structure(lambda s: None if s is None else Spec(evaluate(s.shape, known), s.dtype), found)


class _Counter:
    """Hears of every primitive on Specs, and adds up."""

    def __init__(self, model: Layer) -> None:
        self.model = model
        self.calls = Calls(model)
        self.total = Cost(model.name, {}, False)
        self._own: dict[int, list[Any]] = {}  # id of a call -> the call, its own FLOPs and bytes
        self._ended: list[tuple[Call, Any]] = []
        self._origins: dict[int, Call | None] = {}  # id of a Spec -> the call in which it was met
        self._loose = [0, 0]  # what was met outside of layers, since the last primitive that was gone back through
        self._times = 1  # how often what is heard now happens
        self._events: list[tuple[list[Spec], list[Spec], bool]] = []  # arrays, results, whether they share memory

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen in this block."""
        with self.calls.listening():
            call, spec = context.on_call.set(self.ended), context.on_spec.set(self.heard)
            back = context.way_back.set(self.went_back)
            try:
                yield
            finally:
                context.way_back.reset(back)
                context.on_spec.reset(spec)
                context.on_call.reset(call)

    def ended(self, call: Call, outputs: Any) -> None:
        """Note a layer's call."""
        if self._times == 1:
            self.calls.ended(call, outputs)
            self._ended.append((call, outputs))

    def heard(self, op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> None:
        """Note a primitive."""
        if op.family == "control":
            self._loop(op, arrays, static, result)
            return
        flops = self._times * flops_of(op, arrays, static, result)
        moved = 0 if op.name in FREE else self._times * (bytes_of(list(arrays.values())) + bytes_of(result))
        self.total.flops += flops
        self.total.bytes += moved
        self.total.transcendentals += flops if op.name in TRANSCENDENTAL else 0
        call = call_in_force()
        if call is None:
            self._loose = [self._loose[0] + flops, self._loose[1] + moved]
        else:
            self._credit(call, flops, moved)
        if self._times == 1:
            results = specs_in(result)
            self._origins.update((id(spec), call) for spec in results)
            self._events.append((specs_in(list(arrays.values())), results, op.name in FREE))

    def _credit(self, call: Call, flops: int, moved: int) -> None:
        own = self._own.setdefault(id(call), [call, 0, 0])
        own[1] += flops
        own[2] += moved

    def went_back(self, op: Op, result: Any, gradient: Any, share: Any) -> None:
        """Credit what was computed on the way back through a primitive to the layer in which it was met."""
        call = self._origins.get(id(result[0] if isinstance(result, (tuple, list)) else result))
        if call is not None:
            self._credit(call, *self._loose)
        self._loose = [0, 0]

    def _loop(self, op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> None:
        """Count the body of a loop, heard once already, as often as it runs."""
        if op.name == "rematerialized":  # its ops have been heard
            return
        self._events.append((specs_in(arrays), specs_in(result), False))
        if op.name == "cond_of":
            self._note("both sides of a cond are counted")
            return
        if op.name == "scan":
            x = tree.map_structure(lambda s: None if s is None else Spec(s.shape[1:], s.dtype), arrays["xs"])
            leaves = [spec for spec in tree.leaves(arrays["xs"]) if spec is not None]
            steps = int(leaves[0].shape[0]) if leaves else int(static["length"])
            again = lambda: static["f"](tree.map_structure(to_spec, arrays["init"]), x)
        else:
            steps = static["maximum_iterations"]
            if steps is None:
                self._note("a while_loop without maximum_iterations is counted as one step")
                return
            state = tree.map_structure(to_spec, arrays["loop_vars"])
            state = state if isinstance(state, (list, tuple)) else (state,)
            again = lambda: (static["cond"](*state), static["body"](*state))
        if steps == 1:
            return
        before, self._times = self._times, self._times * (steps - 1)
        try:
            again()
        finally:
            self._times = before

    def _note(self, text: str) -> None:
        if text not in self.total.notes:
            self.total.notes.append(text)

    def report(self, inputs: Any, sizes: dict[str, int], training: bool) -> Cost:
        """All that was counted."""
        found = self.total
        found.sizes, found.training = sizes, training
        weights = self.model.weights
        found.parameters = sum(variable.size for variable in weights)
        found.parameter_bytes = sum(variable.size * dtypes.size_of(variable.dtype) for variable in weights)
        seen: set[int] = set()
        for call, outputs in self._ended:
            path = self.calls.path(call)
            if not path:
                continue
            layer = found.layers[path] = LayerCost(path, type(call.layer).__name__)
            specs = specs_in([leaf for leaf in tree.leaves(outputs) if hasattr(leaf, "dtype")])
            layer.shapes, layer.output_bytes = [spec.shape for spec in specs], bytes_of(specs)
            if id(call.layer) not in seen:
                seen.add(id(call.layer))
                layer.parameters = sum(variable.size for variable in call.layer.weights)
        for call, flops, moved in self._own.values():
            while call is not None:
                inner = found.layers.get(self.calls.path(call))
                if inner is not None:
                    inner.flops += flops
                    inner.bytes += moved
                call = call.parent
        found.layers = dict(sorted(found.layers.items(), key=lambda item: self._order[item[0]]))
        found.peak_memory, found.activations = _memory(self._events, specs_in(inputs))
        return found

    @property
    def _order(self) -> dict[str, tuple[int, ...]]:
        """Where each path stands: a layer before what is inside it, otherwise by time."""
        first: dict[str, int] = {}
        for place, (call, _) in enumerate(self._ended):
            path = self.calls.path(call)
            parts = path.split("/")
            for i in range(1, len(parts) + 1):
                first.setdefault("/".join(parts[:i]), place)
        return {
            path: tuple(first["/".join(path.split("/")[:i])] for i in range(1, path.count("/") + 2)) for path in first
        }


def _memory(events: list[tuple[list[Spec], list[Spec], bool]], inputs: list[Spec]) -> tuple[int, int]:
    """The most bytes alive at once, and the bytes of all values: each lives from its op to its last use."""
    root: dict[int, int] = {id(spec): id(spec) for spec in inputs}
    size = {id(spec): bytes_of(spec) for spec in inputs}
    last: dict[int, int] = {}
    for place, (arrays, results, shared) in enumerate(events):
        for spec in arrays:
            if id(spec) in root:
                last[root[id(spec)]] = place
        for spec in results:
            known = root.get(id(arrays[0])) if shared and arrays else None
            root[id(spec)] = known if known is not None else id(spec)
            if known is None:
                size[id(spec)] = bytes_of(spec)
    free: dict[int, list[int]] = {}
    for key, place in last.items():
        free.setdefault(place, []).append(key)
    alive = peak = sum(size[id(spec)] for spec in inputs)
    started = {id(spec) for spec in inputs}
    for place, (_, results, _) in enumerate(events):
        for spec in results:
            key = root[id(spec)]
            if key not in started:
                started.add(key)
                alive += size[key]
        peak = max(peak, alive)
        alive -= sum(size[key] for key in free.get(place, []))
    return peak, sum(size.values())
