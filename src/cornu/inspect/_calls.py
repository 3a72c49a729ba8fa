"""Paths of the layer calls that happen as one model runs: those of `model.tensors()`, and the same way further in."""

import contextlib
from collections.abc import Iterator
from typing import Any

from cornu.core import context
from cornu.layers._context import Call, call_in_force

__all__ = ["Calls"]


class Calls:
    """Listens to calls of layers and nodes of graphs, and gives each a path.

    Args:
        model: the layer whose call is the outermost; it has no part in the paths.

    A path is made of names from the outermost call inwards, joined by `/`; later calls of the same layer within a call
    have `@1`, `@2`, ... behind the name.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._names: dict[int, str] = {}
        self._counts: dict[tuple[int, str], int] = {}
        self._last: dict[int, Call] = {}
        self._held: list[Any] = []  # calls and nodes live as long as what knows them by their ids

    @contextlib.contextmanager
    def listening(self) -> Iterator["Calls"]:
        """Listen in this block."""
        call, node = context.on_call.set(self.ended), context.on_node.set(self.ran)
        try:
            yield self
        finally:
            context.on_call.reset(call)
            context.on_node.reset(node)

    def ended(self, call: Call, outputs: Any) -> None:
        """Take note of a call."""
        self._held.append(call)
        self._last[id(call.layer)] = call
        self._names[id(call)] = self.next_name(call.parent, call.layer.name)

    def ran(self, plan: Any, node: Any, result: Any) -> None:
        """Take note of a node: its path in its graph is the name of its call."""
        if not node.is_op:
            call = self._last.get(id(node.operation))
            if call is not None and call.parent is call_in_force():
                self._names[id(call)] = self.node_path(plan, node)

    def node_path(self, plan: Any, node: Any) -> str:
        """A node's path in the graph of the model in force."""
        self._held.append(node)
        around = call_in_force()
        function = None if around is None else getattr(around.layer, "_function", None)
        if function is not None and id(node) in function.plan.paths:
            return str(function.plan.paths[id(node)])
        return str(plan.paths.get(id(node), node.name))

    def next_name(self, parent: Call | None, name: str) -> str:
        """A name, with `@1`, `@2`, ... if it was given before within the same call."""
        self._held.append(parent)
        key = (id(parent), name)
        count = self._counts.get(key, 0)
        self._counts[key] = count + 1
        return name if count == 0 else f"{name}@{count}"

    def path(self, call: Call | None) -> str:
        """A call's path; empty for the model's own call, or for none. To be asked when the call has ended."""
        parts = []
        while call is not None and not (call.parent is None and call.layer is self.model):
            parts.append(self._names.get(id(call), call.layer.name))
            call = call.parent
        return "/".join(reversed(parts))
