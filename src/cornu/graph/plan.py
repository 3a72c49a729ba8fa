"""The plan of a graph: its nodes in an order in which they can run, worked out once and followed in a flat loop."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cornu.core import context, tree
from cornu.core.dims import Dim, Size, substitute
from cornu.core.errors import CornuError, GraphError, ShapeError
from cornu.graph import masks
from cornu.graph.symbolic import Node, SymbolicTensor
from cornu.ops._declare import shape_of
from cornu.ops._rules import BROADCAST, require_equal

__all__ = ["Plan"]


class Plan:
    """What must be computed to get from some tensors to others.

    Args:
        inputs: symbolic tensors whose values are given; they may lie anywhere in a graph.
        outputs: symbolic tensors to compute.
        masks: whether the masks that nodes take along are computed too; without them the plan can be replayed, not run.

    Attributes:
        nodes: the nodes to run, parents first.
        shown: those of them that are not there for the sake of masks alone.
        operations: the layers and ops in Keras's order: by depth from the outputs, then by first visit.
        paths: for each node its path, with `@1`, `@2` for later calls of a shared layer or op.

    Raises:
        GraphError: if an output does not follow from the inputs.
    """

    def __init__(self, inputs: list[SymbolicTensor], outputs: list[SymbolicTensor], masks: bool = True) -> None:
        self.inputs = inputs
        self.outputs = outputs
        given = {id(tensor) for tensor in inputs}
        self._given = given
        shown, run, indices = _visit(outputs, given, lambda node: node.given)
        if masks and any(node.parents is not node.given for node in run):
            run = _visit(outputs, given, lambda node: node.parents)[1]
        for node in run:
            if not node.parents and not node.is_op:
                raise GraphError(
                    f"the outputs need the input {node.name!r}, which is not among the inputs",
                    f"inputs that lead to every output; given: {', '.join(repr(t.name) for t in inputs)}",
                    f"add {node.name!r} to the inputs",
                )
        met = {id(node) for node in shown}
        for tensor in inputs:
            if id(tensor.node) not in met:
                met.add(id(tensor.node))
                shown.append(tensor.node)
                indices.setdefault(id(tensor.node.operation), -1)
        self.operations = _by_depth(shown, indices)
        self.nodes = sorted(run, key=_order)
        self.shown = [node for node in self.nodes if id(node) in met]
        hidden = [node for node in self.nodes if id(node) not in met]
        self.paths = _paths([*sorted(shown, key=_order), *hidden])
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

    def run(self, values: list[Any], keep: Callable[[Node, Any], None] | None = None) -> list[Any]:
        """The outputs for values of the inputs.

        Args:
            values: one per input: an engine's values, or Specs.
            keep: told of every node and what it gave.

        Returns:
            one value per output.
        """
        sizes = self.sizes(values)
        told = context.on_node.get()
        known: dict[int, Any] = {id(tensor): value for tensor, value in zip(self.inputs, values, strict=True)}
        for node, done in zip(self.nodes, self._last_use, strict=True):
            try:
                if node.constraints:
                    _check(node, sizes)
                operation = node.operation
                for tensor, mask in node.along:
                    masks.set_mask(known[id(tensor)], known[id(mask)])
                if len(node.args) == 1 and type(node.args[0]) is SymbolicTensor and not node.kwargs:
                    result = operation(known[id(node.args[0])])
                else:
                    result = operation(*_filled(node.args, known, sizes), **_filled(node.kwargs, known, sizes))
            except CornuError as error:
                kind = "" if node.is_op else f" ({type(node.operation).__name__})"
                error.locate(layer=f"{self.paths.get(id(node))!r}{kind}", defined=node.where)
                raise
            if keep is not None:
                keep(node, result)
            if told is not None:
                told(self, node, result)
            self._enter(node, result, known)
            for key in done:
                known.pop(key, None)
        return [known[id(tensor)] for tensor in self.outputs]

    def _enter(self, node: Node, result: Any, known: dict[int, Any]) -> None:
        if len(node.outputs) == 1 and not isinstance(result, (list, tuple, dict)):
            known[id(node.outputs[0])] = result
            return
        for tensor, value in zip(node.outputs, tree.leaves(result), strict=True):
            if id(tensor) not in self._given:
                known[id(tensor)] = value

    def replay(
        self,
        values: list[SymbolicTensor],
        call: Callable[..., Any] = lambda operation, *args, **kwargs: operation(*args, **kwargs),
    ) -> list[Any]:
        """The graph made once more, on other symbolic tensors, whose masks travel anew.

        Args:
            values: a symbolic tensor for each input.
            call: function `(operation, *args, **kwargs)` that makes each call.

        Returns:
            one symbolic tensor per output.
        """
        sizes = self.sizes(values)
        known: dict[int, Any] = {id(tensor): value for tensor, value in zip(self.inputs, values, strict=True)}
        for node in self.shown:
            arguments, named = _filled(node.args, known, sizes), _filled(node.given_kwargs, known, sizes)
            try:
                self._enter(node, call(node.operation, *arguments, **named), known)
            except CornuError as error:
                error.locate(defined=node.where)
                raise
        return [known[id(tensor)] for tensor in self.outputs]


def _order(node: Node) -> int:
    return node.order


def _visit(
    outputs: list[SymbolicTensor], given: set[int], parents: Callable[[Node], list[SymbolicTensor]]
) -> tuple[list[Node], list[Node], dict[int, int]]:
    """The nodes behind the outputs, children after parents; those to run; and the order operations are first met in."""
    finished: list[Node] = []
    run: list[Node] = []
    state: dict[int, str] = {}
    indices: dict[int, int] = {}
    pending: list[tuple[Node, str]] = [(tensor.node, _way(tensor, given)) for tensor in reversed(outputs)]
    while pending:
        node, way = pending.pop()
        known = state.get(id(node))
        if way == "leave":
            run.append(node)
            if known != "given":
                finished.append(node)
            continue
        if known == "entered" or (known == "given" and way == "given"):
            continue
        indices.setdefault(id(node.operation) if not node.is_op else id(node), len(indices))
        if way == "given":
            state[id(node)] = "given"
            finished.append(node)
            continue
        pending.append((node, "leave"))
        state[id(node)] = "entered"
        pending.extend((tensor.node, _way(tensor, given)) for tensor in reversed(parents(node)))
    return list({id(node): node for node in finished}.values()), run, indices


def _way(tensor: SymbolicTensor, given: set[int]) -> str:
    return "given" if id(tensor) in given else "enter"


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
        for tensor in node.given:
            node_depth[id(tensor.node)] = max(depth + 1, node_depth.get(id(tensor.node), 0))
    return [things[key] for key in sorted(things, key=lambda key: (-depth_of[key], indices.get(key, -1)))]


def _paths(nodes: list[Node]) -> dict[int, str]:
    """A path for each node: its layer's or op's name, with `@1`, `@2` for later calls; layers' names go first."""
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
        if what is BROADCAST and 1 in (have, want):
            continue
        if isinstance(have, Dim) or isinstance(want, Dim):
            require_equal(have, want, what)
        elif have != want:
            names = " and ".join(size.expression for size in (a, b) if isinstance(size, Dim))
            or_one = ", or be 1" if what is BROADCAST else ""
            raise ShapeError(f"{what}: {have} and {want} differ", f"equal sizes ({names} must agree{or_one})")


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
