"""`Function`: a graph with structured inputs and outputs; data is bound to the inputs by name."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes, tree
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import BindingError, CornuError, DataError, DtypeError, GraphError, ShapeError, near_miss
from cornu.core.spec import Spec
from cornu.graph import masks
from cornu.graph.plan import Plan
from cornu.graph.symbolic import Node, SymbolicTensor, aside
from cornu.ops._declare import ENGINE_RANK, dtype_of, host_array, interpreter_of, shape_of
from cornu.ops.creation import as_tensor
from cornu.ops.elementwise import cast_to
from cornu.ops.movement import reshape_to

__all__ = ["Function"]


class Function:
    """The graph from some symbolic tensors to others.

    Args:
        inputs: a structure of symbolic tensors.
        outputs: a structure of symbolic tensors.
        owner: the name of the model, for messages.

    Raises:
        GraphError: if something is no symbolic tensor, an input is named twice, or an output does not follow from
            the inputs.
    """

    def __init__(self, inputs: Any, outputs: Any, owner: str = "model") -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.owner = owner
        for what, structure in (("inputs", inputs), ("outputs", outputs)):
            for path, tensor in tree.flatten_with_path(structure):
                if type(tensor) is not SymbolicTensor:
                    place = "".join(f"[{key!r}]" for key in path)
                    raise GraphError(
                        f"{owner!r} got {tensor!r:.60} ({type(tensor).__name__}) as {what}{place}",
                        "symbolic tensors, from Input(...) and calls of layers on it",
                    )
        self.flat_inputs: list[SymbolicTensor] = tree.leaves(inputs)
        self.flat_outputs: list[SymbolicTensor] = tree.leaves(outputs)
        if len({id(tensor) for tensor in self.flat_inputs}) != len(self.flat_inputs):
            raise GraphError(f"{owner!r} got the same tensor as two inputs", "each input once")
        # A cut through a graph goes without the masks that come from before it.
        is_cut = any(tensor.node.parents for tensor in self.flat_inputs)
        try:
            self.plan = Plan(self.flat_inputs, self.flat_outputs, masks=not is_cut)
        except CornuError as error:
            error.locate(layer=f"{owner!r}")
            raise
        self._ways: dict[tuple[int | None, ...], Way] = {}
        self.input_names = [tensor.node.name for tensor in self.flat_inputs]
        # The keys of a dict that binds all inputs at once, if there can be one.
        nested = isinstance(inputs, dict) and any(map(tree.is_nested, inputs.values()))
        keys = tree._keys(inputs) if isinstance(inputs, dict) else self.input_names
        self._flat_keys = None if nested or len(set(keys)) != len(self.flat_inputs) else keys

    def bind(self, values: Any) -> list[Any]:
        """The values in the order of the inputs, bound by name where there are names.

        Args:
            values: a structure like that of the inputs, or a dict by the inputs' names.

        Raises:
            BindingError: if a key is missing, extra or misspelt, or the structure differs.
        """
        expected = self.inputs
        if type(values) is dict and self._flat_keys is not None and len(values) == len(self._flat_keys):
            try:
                return [values[key] for key in self._flat_keys]
            except KeyError:
                pass  # what is wrong is said below
        if type(values) is dict and not isinstance(expected, dict):
            return self._by_name(values)
        if isinstance(expected, dict) and not isinstance(values, dict) and len(expected) == 1:
            values = {next(iter(expected)): values}
        if not isinstance(expected, (list, tuple, dict)):
            if isinstance(values, (list, tuple)) and len(values) == 1 and _is_array(values[0]):
                values = values[0]
            return [values]
        if isinstance(expected, (list, tuple)) and len(expected) == 1 and not isinstance(values, (list, tuple)):
            values = [values]
        return self._like(expected, values)

    def _by_name(self, values: dict[str, Any]) -> list[Any]:
        self._check_keys(values, self.input_names, "inputs")
        return [values.get(name) for name in self.input_names]

    def _check_keys(self, values: dict[str, Any], names: list[str], where: str) -> None:
        optional = {t.node.name for t in self.flat_inputs if getattr(t.node.operation, "optional", False)}
        for key in values:
            if key not in names:
                raise BindingError(
                    f"{self.owner!r} got {key!r} among its {where}{near_miss(key, names)}",
                    f"exactly the keys {sorted(map(str, names))}",
                    f"rename or leave out {key!r}",
                )
        missing = [name for name in names if name not in values and name not in optional]
        if missing:
            raise BindingError(
                f"{self.owner!r} got {where} without {', '.join(map(repr, missing))}",
                f"exactly the keys {sorted(map(str, names))}; given: {sorted(map(str, values))}",
            )

    def _like(self, expected: Any, values: Any) -> list[Any]:
        """The leaves of `values` where `expected` has leaves, dicts by key."""
        found: list[Any] = []
        pending: list[tuple[Any, Any, str]] = [(expected, values, "inputs")]
        while pending:
            want, have, place = pending.pop()
            if isinstance(want, dict):
                if not isinstance(have, dict):
                    raise BindingError(
                        f"{self.owner!r} got {_kind(have)} as {place}",
                        f"a dict with the keys {sorted(map(str, want))}",
                        "bind by name: {" + ", ".join(f"{key!r}: ..." for key in want) + "}",
                    )
                self._check_keys(have, list(want), place)
                pending.extend((want[key], have.get(key), f"{place}[{key!r}]") for key in reversed(tree._keys(want)))
            elif isinstance(want, (list, tuple)):
                if not isinstance(have, (list, tuple)) or len(have) != len(want):
                    count = f" of {len(have)}" if isinstance(have, (list, tuple)) else ""
                    raise BindingError(
                        f"{self.owner!r} got {_kind(have)}{count} as {place}",
                        f"a list of {len(want)}: {', '.join(t.node.name for t in tree.leaves(want))}",
                    )
                pairs = list(enumerate(zip(want, have, strict=True)))
                pending.extend((w, h, f"{place}[{i}]") for i, (w, h) in reversed(pairs))
            else:
                found.append(have)
        return found

    def prepared(self, values: list[Any]) -> list[Any]:
        """Bound values checked against the inputs: rank, sizes and dtype."""
        return [self._prepare(tensor, value) for tensor, value in zip(self.flat_inputs, values, strict=True)]

    def _prepare(self, tensor: SymbolicTensor, value: Any) -> Any:
        if value is None:
            if getattr(tensor.node.operation, "optional", False):
                return None
            raise BindingError(f"{self.owner!r} got None for the input {tensor.name!r}", "an array")
        if type(value) is SymbolicTensor:
            return self._fitted(tensor, value)
        if interpreter_of(value) is None:
            host = _numbers(value, tensor.name)
            self._check_whole(tensor, host)
            value = as_tensor(host_array(host, tensor.dtype))
            if type(value) is np.ndarray and masks.mask_of(value) is None:
                value = value.view()  # a mask that a layer sets on it must not stay on the caller's array
        elif dtype_of(value) != tensor.dtype:
            self._check_whole(tensor, value)
            value = cast_to(value, dtype=tensor.dtype)
        return self._fitted(tensor, value)

    def check_values(self, values: Any) -> None:
        """What only the values show, and must be looked at before a step is compiled.

        Raises:
            DtypeError: if an input of whole numbers got fractions.
        """
        for tensor, value in zip(self.flat_inputs, self.bind(values), strict=True):
            if value is not None:
                self._check_whole(tensor, value)

    def looks_at(self, values: Any) -> bool:
        """Whether `check_values` hangs on elements of such values."""
        pairs = zip(self.flat_inputs, self.bind(values), strict=True)
        return any(value is not None and _may_be_fractions(tensor, value) for tensor, value in pairs)

    def _check_whole(self, tensor: SymbolicTensor, value: Any) -> None:
        """Refuse fractions for whole numbers, where there are values to look at."""
        if not _may_be_fractions(tensor, value):
            return
        owner = interpreter_of(value)
        if owner is not None and (owner.rank != ENGINE_RANK or owner.is_tracing(value)):
            return
        host = np.asarray(value if owner is None else owner.to_host(value)).astype("float64")
        if not np.array_equal(host, np.trunc(host)):
            raise DtypeError(
                f"input {tensor.name!r} of {self.owner!r} got {dtype_of(value)} values that are not whole, such as "
                f"{host[host != np.trunc(host)].flat[0]:g}",
                f"whole numbers of dtype {tensor.dtype}",
                f"Input(..., dtype='float32') to take fractions, or round them: {tensor.name}.round()",
            )

    def _fitted(self, tensor: SymbolicTensor, value: Any) -> Any:
        want, have = tensor.shape, shape_of(value)
        if len(have) == len(want) - 1 and want[-1] == 1:
            value = reshape_to(value, shape=(*have, 1))
        elif len(have) == len(want) + 1 and have[-1] == 1:
            value = reshape_to(value, shape=have[:-1])
        have = shape_of(value)
        if len(have) != len(want):
            hint = "add the batch axis: x[None]" if len(have) == len(want) - 1 else None
            raise ShapeError(
                f"input {tensor.name!r} of {self.owner!r} got shape {shape_text(have)}",
                f"shape {shape_text(want)}",
                hint,
            )
        for axis, (w, h) in enumerate(zip(want, have, strict=True)):
            if not isinstance(w, Dim) and not isinstance(h, Dim) and w != h:
                raise ShapeError(
                    f"input {tensor.name!r} of {self.owner!r} got shape {shape_text(have)}",
                    f"shape {shape_text(want)}; axis {axis} is {h}",
                )
        return value

    def __call__(self, values: Any, keep: Callable[..., None] | None = None, given: Any = None) -> Any:
        """The outputs, in their structure and with their masks, for a structure of values.

        Args:
            values: a structure like that of the inputs, or a dict by the inputs' names.
            keep: told of every node and what it gave.
            given: masks that travel with the values, in the values' structure.
        """
        given = self.bind_masks(given)
        way = self.way(given)
        found = way.plan.run([*self.prepared(self.bind(values)), *(mask for mask in given if mask is not None)], keep)
        outputs, rest = found[: len(way.masked)], iter(found[len(way.masked) :])
        for output, masked in zip(outputs, way.masked, strict=True):
            if masked:
                masks.set_mask(output, next(rest))
        return tree.pack(self.outputs, outputs)

    def bind_masks(self, given: Any) -> list[Any]:
        """A mask or `None` for each input, from a structure like the inputs'."""
        if all(mask is None for mask in tree.leaves(given)):
            return [None] * len(self.flat_inputs)
        if len(self.flat_inputs) == 1:
            return tree.leaves(given)
        return self.bind(given)

    def way(self, given: list[Any]) -> "Way":
        """How to compute outputs and their masks when some inputs come with a mask."""
        ranks = tuple(None if mask is None else len(shape_of(mask)) for mask in given)
        found = self._ways.get(ranks)
        if found is None:
            found = self._ways[ranks] = self._make_way(ranks)
        return found

    def _make_way(self, ranks: tuple[int | None, ...]) -> "Way":
        inputs, outputs = self.flat_inputs, self.flat_outputs
        if any(rank is not None for rank in ranks):  # make the graph anew, with masks on the inputs
            inputs = [_again(tensor, rank) for tensor, rank in zip(inputs, ranks, strict=True)]
            with aside():
                outputs = self.plan.replay(inputs)
            inputs = [*inputs, *(tensor.mask for tensor in inputs if tensor.mask is not None)]
        found = [tensor.mask for tensor in outputs if tensor.mask is not None]
        plan = Plan(inputs, [*outputs, *found]) if found or inputs is not self.flat_inputs else self.plan
        return Way(plan, Plan(inputs, found) if found else None, [tensor.mask is not None for tensor in outputs])

    def masks(self, values: Any, given: Any = None) -> Any:
        """The masks of the outputs, in their structure; `None` if there are none."""
        given = self.bind_masks(given)
        way = self.way(given)
        if way.for_masks is None:
            return None
        with aside():
            ready = [*self.prepared(self.bind(values)), *(mask for mask in given if mask is not None)]
            found = way.for_masks.run(ready)
        rest = iter(found)
        return tree.pack(self.outputs, [next(rest) if masked else None for masked in way.masked])


class Way:
    """How to compute a function's outputs and masks.

    Args:
        plan: from the inputs, and the masks that come with them, to the outputs and their masks.
        for_masks: from the same to the masks alone; `None` if no output has one.
        masked: for each output whether it has a mask.
    """

    __slots__ = ("for_masks", "masked", "plan")

    def __init__(self, plan: Plan, for_masks: Plan | None, masked: list[bool]) -> None:
        self.plan = plan
        self.for_masks = for_masks
        self.masked = masked


class Given:
    """Stands in a graph for a mask that comes from outside."""

    optional = False

    def __init__(self, name: str) -> None:
        self.name = name


def _may_be_fractions(tensor: SymbolicTensor, value: Any) -> bool:
    """Whether floats came for whole numbers."""
    return tensor.dtype in dtypes.INTEGERS and dtype_of(value) in dtypes.FLOATS


def _again(tensor: SymbolicTensor, rank: int | None) -> SymbolicTensor:
    """Another tensor for the same input, with a mask of this many axes."""
    found: SymbolicTensor = Node(tensor.node.operation, (), {}, Spec(tensor.shape, tensor.dtype), []).outputs[0]
    if rank is not None:
        found.mask = Node(Given(f"{tensor.name}_mask"), (), {}, Spec(tensor.shape[:rank], "bool"), []).outputs[0]
    return found


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if not _is_array(value) else "one array"


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or interpreter_of(value) is not None


def _numbers(value: Any, name: str) -> np.ndarray:
    try:
        return host_array(value)
    except DtypeError as error:
        raise DataError(f"input {name!r} {error.got}", error.expected, error.fix) from None
