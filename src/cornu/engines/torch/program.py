"""A traced graph as a plain Python function that calls PyTorch's operators one after the other."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from cornu.engines.torch.in_place import in_place
from cornu.engines.torch.pieces import kernel_of

__all__ = ["program"]

# Operators whose function in `torch` takes the same arguments; it is called faster than the operator itself.
_IN_TORCH = frozenset(
    (
        "abs acos acosh add addmm amax amin argmax argmin asin asinh atan atan2 atanh bitwise_and bitwise_left_shift "
        "bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm cat ceil clamp cos cosh cumsum digamma div eq erf "
        "erfinv exp expm1 flip floor gather ge gt index_add index_select isnan lgamma le log log1p logical_and "
        "logical_not logical_or lt masked_fill maximum mean minimum mm mul ne neg permute pow reciprocal relu "
        "remainder round rsqrt scatter_add select sigmoid sign sin sinh sqrt squeeze sub sum t tan tanh transpose "
        "unsqueeze"
    ).split()
)
_METHODS = frozenset(("expand", "view"))


def _function(node: Node) -> Callable[..., Any]:
    target: Any = node.target
    own = kernel_of(target)
    if own is not None:
        return own
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return target._op if isinstance(target, torch._ops.OpOverload) else target
    name = target._schema.name.partition("::")[2]
    found: Any = None
    if name in _IN_TORCH or (name == "where" and target._overloadname == "self"):
        found = getattr(torch, name)
    elif name in _METHODS:
        found = getattr(torch.Tensor, name)
    return found if found is not None and not node.kwargs else target._op


class _Writer:
    """Writes the function and collects what it refers to."""

    def __init__(self, traced: GraphModule) -> None:
        self.traced = traced
        self.names: dict[Node, str] = {}
        self.scope: dict[str, Any] = {}
        self.lines: list[str] = []
        self.last = _last_uses(traced)
        self.in_place = in_place(traced)

    def constant(self, value: Any) -> str:
        name = f"k{len(self.scope)}"
        self.scope[name] = value
        return name

    def text(self, value: Any) -> str:
        if isinstance(value, Node):
            return self.names[value]
        if value is None or type(value) in (bool, int):
            return repr(value)
        if isinstance(value, (list, tuple)) and _has_node(value):
            inner = ", ".join(map(self.text, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
        return self.constant(list(value) if isinstance(value, list) else value)

    def call(self, node: Node) -> None:
        function: Any
        given = [self.text(value) for value in node.args]
        if node in self.in_place:
            function, name, part = self.in_place[node]
            given += [f"{key}={self.text(value)}" for key, value in node.kwargs.items()]
            given += [] if name is None else [f"{name}={self.names[part]}"]
        elif node.target is torch.ops.aten._to_copy.default and list(node.kwargs) == ["dtype"]:
            function = torch.Tensor.to
            given.append(self.text(node.kwargs["dtype"]))
        else:
            function = _function(node)
            given += [f"{name}={self.text(value)}" for name, value in node.kwargs.items()]
        name = self.names[node] = f"v{len(self.names)}"
        self.lines.append(f"{name} = {self.constant(function)}({', '.join(given)})")

    def write(self) -> Callable[[list[Any]], list[Any]]:
        inputs = []
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.names[node] = f"v{len(self.names)}"
                inputs.append(self.names[node])
            elif node.op == "get_attr":
                self.names[node] = self.constant(getattr(self.traced, node.target))
            elif node.op == "output":
                self.lines.append(f"return {self.text(list(node.args[0]))}")
            else:
                self.call(node)
            over = [self.names[n] for n in self.last.get(node, ())]
            if over:
                self.lines.append(f"del {', '.join(over)}")
        head = f"({', '.join(inputs)},) = values" if inputs else "pass"
        source = "\n    ".join(["def run(values):", head, *self.lines])
        exec(compile(source, "<cornu torch trace>", "exec"), self.scope)
        run: Callable[[list[Any]], list[Any]] = self.scope["run"]
        return run


def _has_node(value: Any) -> bool:
    return any(isinstance(item, Node) for item in value)


def _last_uses(traced: GraphModule) -> dict[Node, list[Node]]:
    """For each node, the computed values that are not needed after it."""
    found: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    for node in reversed(traced.graph.nodes):
        for parent in node.all_input_nodes:
            if parent not in seen:
                seen.add(parent)
                if node.op != "output" and parent.op == "call_function":
                    found.setdefault(node, []).append(parent)
        if node.op == "call_function" and node not in seen:
            seen.add(node)
            found.setdefault(node, []).append(node)
    return found


def program(traced: GraphModule) -> Callable[[list[Any]], list[Any]]:
    """The graph as a function of a list of tensors that gives a list of them."""
    return _Writer(traced).write()
