"""The plan of a graph: its nodes in an order in which they can run, worked out once and followed in a flat loop."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cornu.core import tree
from cornu.core.dims import Dim, Size, substitute
from cornu.core.errors import CornuError, GraphError, ShapeError
from cornu.graph import masks
from cornu.graph.symbolic import Node, SymbolicTensor
from cornu.ops._declare import shape_of
from cornu.ops._rules import require_equal

__all__ = ["Plan"]


class Plan:
    """What must be computed to get from some tensors to others.

    Args:
        inputs: symbolic tensors whose values are given; they may lie anywhere in a graph.
        outputs: symbolic tensors to compute.

    Attributes:
        nodes: the nodes to run, parents first.
        operations: the layers and ops in Keras's order: by depth from the outputs, then by first visit.
        paths: for each node its path, with `@1`, `@2` for later calls of a shared layer or op.

    Raises:
        GraphError: if an output does not follow from the inputs.
    """

    def __init__(self, inputs: list[SymbolicTensor], outputs: list[SymbolicTensor]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        given = {id(tensor) for tensor in inputs}
        finished, indices = _visit(outputs, given)
        for node in finished:
            if not node.parents and not node.is_op and id(node.outputs[0]) not in given:
                raise GraphError(
                    f"the outputs need the input {node.name!r}, which is not among the inputs",
                    f"inputs that lead to every output; given: {', '.join(repr(t.name) for t in inputs)}",
                    f"add {node.name!r} to the inputs",
                )
        for tensor in inputs:
            if not any(tensor.node is node for node in finished):
                finished.append(tensor.node)
                indices.setdefault(id(tensor.node.operation), -1)
        self.operations = _by_depth(finished, indices)
        self.nodes = sorted((n for n in finished if not _is_given(n, given)), key=lambda node: node.order)
        self.paths = _paths(sorted(finished, key=lambda node: node.order))
        self._last_use = self._lifetimes()

    def _lifetimes(self) -> list[list[int]]:
        """For each node the tensors that nobody needs after it."""
        kept = {id(tensor) for tensor in self.outputs}
        last: dict[int, int] = {}
        for i, node in enumerate(self.nodes):
            for tensor in (*node.parents, *(t for t in node.outputs if isinstance(t, SymbolicTensor))):
                last[id(tensor)] = i
        free: list[list[int]] = [[] for _ in self.nodes]
        for key, i in last.items():
            if key not in kept:
                free[i].append(key)
        return free

    def sizes(self, values: Iterable[Any]) -> dict[str, Size]:
        """The unknown sizes, read from the values of the inputs.

        Raises:
            ShapeError: if two inputs give one unknown two sizes.
        """
        found: dict[str, Size] = {}
        origin: dict[str, str] = {}
        for tensor, value in zip(self.inputs, values, strict=True):
            if value is None:
                continue
            for axis, (want, have) in enumerate(zip(tensor.shape, shape_of(value), strict=False)):
                if not isinstance(want, Dim):
                    continue
                name = solve_name(want)
                if name is None:
                    continue
                size = solve(want, name, have)
                place = f"axis {axis} of input {tensor.name!r}"
                if name in found and found[name] != size:
                    if not isinstance(found[name], Dim) and not isinstance(size, Dim):
                        raise ShapeError(
                            f"{origin[name]} has size {found[name]}, and {place} has size {size}",
                            f"one size for the unknown {name!r}",
                        )
                    require_equal(found[name], size, f"{origin[name]} and {place}")
                found.setdefault(name, size)
                origin.setdefault(name, place)
        return found

    def run(
        self, values: list[Any], keep: Callable[[Node, Any], None] | None = None, follow_masks: bool = False
    ) -> list[Any]:
        """The outputs for values of the inputs.

        Args:
            values: one per input: an engine's values, Specs, or symbolic tensors of another graph.
            keep: told of every node and what it gave.
            follow_masks: whether masks of the values take part (they do not when the graph has its own).

        Returns:
            one value per output.
        """
        sizes = self.sizes(values)
        known: dict[int, Any] = {id(tensor): value for tensor, value in zip(self.inputs, values, strict=True)}
        for node, done in zip(self.nodes, self._last_use, strict=True):
            try:
                if node.constraints:
                    _check(node, sizes)
                operation = node.operation
                if len(node.args) == 1 and type(node.args[0]) is SymbolicTensor and not node.kwargs:
                    result = operation(known[id(node.args[0])])
                else:
                    result = operation(*_filled(node.args, known, sizes), **_filled(node.kwargs, known, sizes))
                if follow_masks and node.is_op:
                    _carry(node, known, result)
            except CornuError as error:
                error.locate(layer=self.paths.get(id(node)), defined=node.where)
                raise
            if keep is not None:
                keep(node, result)
            if len(node.outputs) == 1 and not isinstance(result, (list, tuple, dict)):
                known[id(node.outputs[0])] = result
            else:
                for tensor, value in zip(node.outputs, tree.leaves(result), strict=True):
                    known[id(tensor)] = value
            for key in done:
                known.pop(key, None)
        return [known[id(tensor)] for tensor in self.outputs]


def _visit(outputs: list[SymbolicTensor], given: set[int]) -> tuple[list[Node], dict[int, int]]:
    """The nodes behind the outputs, children after parents, and the order in which operations are first met."""
    finished: list[Node] = []
    state: dict[int, bool] = {}
    indices: dict[int, int] = {}
    pending: list[tuple[Node, bool]] = [(tensor.node, False) for tensor in reversed(outputs)]
    while pending:
        node, ready = pending.pop()
        if ready:
            if not state[id(node)]:
                state[id(node)] = True
                finished.append(node)
            continue
        if id(node) in state:
            continue
        state[id(node)] = False
        indices.setdefault(id(node.operation) if not node.is_op else id(node), len(indices))
        pending.append((node, True))
        if not _is_given(node, given):
            pending.extend((tensor.node, False) for tensor in reversed(node.parents) if id(tensor.node) not in state)
    return finished, indices


def _is_given(node: Node, given: set[int]) -> bool:
    return any(id(tensor) in given for tensor in node.outputs)


def _by_depth(finished: list[Node], indices: dict[int, int]) -> list[Any]:
    """Layers (once each) and op nodes, deepest first."""
    node_depth: dict[int, int] = {}
    depth_of: dict[int, int] = {}
    things: dict[int, Any] = {}
    for node in reversed(finished):
        key = id(node) if node.is_op else id(node.operation)
        depth = max(node_depth.get(id(node), 0), depth_of.get(key, 0))
        depth_of[key] = node_depth[id(node)] = depth
        things[key] = node if node.is_op else node.operation
        for tensor in node.parents:
            node_depth[id(tensor.node)] = max(depth + 1, node_depth.get(id(tensor.node), 0))
    return [things[key] for key in sorted(things, key=lambda key: (-depth_of[key], indices.get(key, -1)))]


def _paths(nodes: list[Node]) -> dict[int, str]:
    """A path for each node: a layer's name, or an op's name, with `@1`, `@2` for later calls; layers' names go first."""
    counts: dict[str, int] = {}
    paths: dict[int, str] = {}
    for node in sorted(nodes, key=lambda node: node.is_op):
        count = counts.get(node.name, 0)
        counts[node.name] = count + 1
        paths[id(node)] = node.name if count == 0 else f"{node.name}@{count}"
    return paths


def _filled(template: Any, known: Mapping[int, Any], sizes: Mapping[str, Size]) -> Any:
    """Arguments with values for symbolic tensors and sizes for unknowns."""

    def fill(leaf: Any) -> Any:
        kind = type(leaf)
        if kind is SymbolicTensor:
            return known[id(leaf)]
        if kind is Dim:
            return leaf.evaluate(sizes)
        if kind is slice:
            return slice(substitute(leaf.start, sizes), substitute(leaf.stop, sizes), leaf.step)
        return leaf

    return tree.map_structure(fill, template)


def _check(node: Node, sizes: Mapping[str, Size]) -> None:
    for a, b, what in node.constraints:
        have, want = substitute(a, sizes), substitute(b, sizes)
        if isinstance(have, Dim) or isinstance(want, Dim):
            require_equal(have, want, what)
        elif have != want:
            names = " and ".join(size.expression for size in (a, b) if isinstance(size, Dim))
            raise ShapeError(f"{what}: {have} and {want} differ", f"equal sizes ({names} must agree)")


def _carry(node: Node, known: Mapping[int, Any], result: Any) -> None:
    """Let the mask of an op's argument travel on, where the graph says that the result is aligned with it."""
    found = [masks.mask_of(known[id(tensor)]) for tensor in node.parents if id(tensor) in known]
    found = [mask for mask in found if mask is not None]
    if found and node.operation.family in ("elementwise", "cumulative"):
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if shape_of(part)[: len(shape_of(found[0]))] == shape_of(found[0]):
                masks.set_mask(part, masks.combined(tuple(found)))


def solve_name(size: Dim) -> str | None:
    """The name of the one unknown in a size, if it stands in it linearly."""
    names = size.unknowns()
    if len(names) != 1 or any(len(monomial) > 1 or monomial[0][0] != "name" for monomial in size._terms if monomial):
        return None
    return next(iter(names))


def solve(size: Dim, name: str, value: Size) -> Size:
    """What an unknown must be for a size to have this value."""
    factor = size._terms[(("name", name),)]
    rest = value - size._terms.get((), 0)
    return rest if factor == 1 else Dim.operation("exact", rest, factor)
