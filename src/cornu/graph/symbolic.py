"""Symbolic tensors and nodes: what a call of a layer or an op leaves behind instead of numbers."""

import contextlib
import itertools
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from cornu.core import context, tree
from cornu.core.dims import Size, shape_text
from cornu.core.errors import CornuError, GraphError, MaskError, user_line
from cornu.core.spec import Spec, StandIn
from cornu.graph import masks
from cornu.ops import _declare
from cornu.ops._declare import RECORDER_RANK, Interpreter, Op, interprets
from cornu.ops._rules import Constraint, constraints

__all__ = ["Node", "RECORDER", "SymbolicTensor", "aside", "carried", "constant", "record", "specs_of", "user_tensors"]

_order = itertools.count()


class SymbolicTensor(StandIn):
    """A tensor of a model that has not run: it knows its shape, its dtype, and the call it comes from.

    Attributes:
        spec: shape and dtype.
        node: the call that gives it.
        index: which of the call's outputs it is.
        mask: the symbolic mask that travels with it, or `None`.
        name: its name, for people.
    """

    __slots__ = ("__weakref__", "index", "mask", "name", "node", "spec")

    def __init__(self, spec: Spec, node: "Node", index: int, name: str) -> None:
        self.spec = spec
        self.node = node
        self.index = index
        self.name = name
        self.mask: SymbolicTensor | None = None

    @property
    def shape(self) -> tuple[Size, ...]:
        """Sizes; an unknown one prints as `None` and can be computed with."""
        return self.spec.shape

    @property
    def dtype(self) -> str:
        """The dtype's name."""
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.spec.shape)

    @property
    def path(self) -> str:
        """Where it comes from: the call's path, and which output."""
        return self.node.path if len(self.node.outputs) == 1 else f"{self.node.path}:{self.index}"

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.name!r} {shape_text(self.shape)} {self.dtype}>"

    def __len__(self) -> int:
        return len(self.spec)

    def _no_value(self, *_: object) -> Any:
        raise GraphError(
            f"the symbolic tensor {self.name!r} has no value while the model is being built",
            "a computation written with layers and ops",
            "use cornu.ops.where or cond for a choice, and a NumPy array to compute a value",
        )

    __bool__ = __float__ = __int__ = __array__ = __index__ = _no_value

    def __iter__(self) -> Any:
        if not self.shape:
            raise TypeError("a scalar cannot be iterated over")
        return (self[i] for i in range(int(self.shape[0])))


masks.symbolic[0] = SymbolicTensor


class Node:
    """One call of a layer or an op in a graph.

    Attributes:
        operation: the layer or op.
        args: positional arguments, with symbolic tensors in them.
        kwargs: keyword arguments, with symbolic tensors in them.
        implied: the keyword arguments that are masks nobody gave: they came with the other arguments.
        outputs: its symbolic tensors, in order.
        structure: the outputs as the call gave them.
        parents: the symbolic tensors among its arguments.
        given: those of them that the caller gave, without the implied masks.
        along: pairs of a tensor and its mask, for a layer whose inner layers may ask for the mask.
        where: the user's line of the call.
        constraints: pairs of sizes that must prove equal when the model runs.
        order: when it was made; parents come before children.
        name: the operation's name, with a number if an op is used twice.
    """

    __slots__ = (
        "__weakref__", "along", "args", "constraints", "given", "implied", "kwargs", "name", "operation", "order",
        "outputs", "parents", "structure", "where",
    )  # fmt: skip

    def __init__(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        specs: Any,
        found: list[Constraint],
        implied: tuple[str, ...] = (),
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.name = str(operation.name)
        self.implied = implied
        self.along: list[tuple[SymbolicTensor, SymbolicTensor]] = []
        self.parents = self.given = user_tensors((args, kwargs))
        if implied:
            self.given = user_tensors((args, self.given_kwargs))
        self.where = user_line()
        self.constraints = found
        self.order = next(_order)
        leaves = tree.leaves(specs)
        self.outputs = [
            SymbolicTensor(Spec(spec.shape, spec.dtype), self, i, self.name) if isinstance(spec, Spec) else spec
            for i, spec in enumerate(leaves)
        ]
        self.structure = tree.pack(specs, self.outputs)

    @property
    def is_op(self) -> bool:
        """Whether it is a call of an op rather than of a layer."""
        return isinstance(self.operation, Op)

    @property
    def path(self) -> str:
        """The operation's path (a layer's own, or the op's name)."""
        return self.name

    def send_masks(self) -> None:
        """Let the masks of its arguments come to the call with them."""
        self.along = [(tensor, tensor.mask) for tensor in self.given if tensor.mask is not None]
        self.parents = [*self.parents, *(mask for _, mask in self.along)]

    @property
    def given_kwargs(self) -> dict[str, Any]:
        """The keyword arguments without the implied masks."""
        return {name: value for name, value in self.kwargs.items() if name not in self.implied}

    def __repr__(self) -> str:
        return f"<Node {self.path} #{self.order} of {self.where}>"


def user_tensors(arguments: Any) -> list[SymbolicTensor]:
    """The symbolic tensors among arguments, in order."""
    return [leaf for leaf in tree.leaves(arguments) if type(leaf) is SymbolicTensor]


def specs_of(arguments: Any) -> Any:
    """Arguments with every symbolic tensor replaced by its Spec (which remembers its mask)."""

    def spec(leaf: Any) -> Any:
        if type(leaf) is not SymbolicTensor:
            return leaf
        tag = None if leaf.mask is None else masks.Tag((leaf.mask,))
        return Spec(leaf.shape, leaf.dtype, tag)

    return tree.map_structure(spec, arguments)


class Recorder(Interpreter):
    """Makes a node of every op called on a symbolic tensor."""

    rank = RECORDER_RANK
    name = "recorder"

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """The symbolic tensors an op gives."""
        if op is masks.carried_mask:
            return arrays["x"].mask
        found: list[Constraint] = []
        token = constraints.set(found)
        try:
            with context.abstract():
                specs = op(**specs_of(arrays), **specs_of(static))
        except CornuError as error:
            error.locate(layer=f"op {op.name}", inputs=describe({**arrays, **static}))
            raise
        finally:
            constraints.reset(token)
        node = Node(op, (), {**arrays, **static}, specs, found)
        self._carry_mask(op, node, specs)
        return node.structure

    def _carry_mask(self, op: Op, node: Node, specs: Any) -> None:
        for output, spec in zip(node.outputs, tree.leaves(specs), strict=True):
            tag = getattr(spec, "mask", None)
            if tag is None or op.name == "drop_mask":
                continue
            if tag.lost is not None:
                raise MaskError(
                    f"the mask of {node.parents[0].name!r} would be lost in cornu.ops.{op.name}",
                    "an op that keeps the masked axes as they are, or an input without a mask",
                    "apply the mask yourself (cornu.ops.where(mask, x, 0)), then call on cornu.ops.drop_mask(x)",
                )
            output.mask = masks.combined(tag.sources)

    def plain(self, value: Any) -> Any:
        """There is no value yet."""
        value._no_value()

    to_host = from_any = plain


def describe(arguments: dict[str, Any]) -> str:
    """Arguments in words, for a message: `x (batch, 3) float32`."""
    parts = []
    for name, value in arguments.items():
        for path, leaf in tree.flatten_with_path(value):
            if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
                label = getattr(leaf, "name", None) if isinstance(leaf, SymbolicTensor) else None
                label = name + "".join(f"[{key!r}]" for key in path) + (f" = {label!r}" if label else "")
                text = getattr(getattr(leaf, "dtype", None), "kind", "") in ("U", "S", "O")  # which is no dtype of ours
                dtype = leaf.dtype if text else _declare.dtype_of(leaf)
                parts.append(f"{label} {shape_text(tuple(leaf.shape))} {dtype}")
    return ", ".join(parts)


RECORDER = Recorder()
_declare.RECORDER[0] = RECORDER
interprets(SymbolicTensor, lambda value: RECORDER)


# Whether layers take no note of their calls.
_aside: ContextVar[bool] = ContextVar("cornu_aside", default=False)


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Record calls in this block without telling the layers: what their `output` means stays as it was."""
    token = _aside.set(True)
    try:
        yield
    finally:
        _aside.reset(token)


def record(
    operation: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    specs: Any,
    found: list[Constraint],
    implied: tuple[str, ...] = (),
) -> Node:
    """A node for a layer's call, which the layer remembers weakly."""
    node = Node(operation, args, kwargs, specs, found, implied)
    if not _aside.get():
        operation._calls.append(weakref.ref(node))
    return node


def constant(value: Any) -> SymbolicTensor:
    """An array as a tensor of the graph."""
    spec = _declare.to_spec(value)
    found: SymbolicTensor = Node(_declare.operator("as_tensor"), (), {"x": value}, spec, []).outputs[0]
    return found


def carried(tensor: SymbolicTensor, mask: Spec) -> SymbolicTensor:
    """The mask that a layer leaves on its output when it runs (a layer inside it made it), as a tensor of the graph."""
    found: SymbolicTensor = Node(masks.carried_mask, (), {"x": tensor}, Spec(mask.shape, mask.dtype), []).outputs[0]
    return found
