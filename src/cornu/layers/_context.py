"""What holds during a layer's call: training or not, the path of names, and what a call leaves behind."""

from contextvars import ContextVar
from typing import Any

__all__ = ["Call", "current", "call_in_force"]


class Root:
    """What the outermost call and all calls inside it share.

    Attributes:
        called: for each layer being called for the first time, the layers it called.
        kept: masks of values that cannot be held weakly.
        draws: for each layer that has drawn random numbers in this call, by id: its place among them, and how often
            it drew.
    """

    __slots__ = ("draws", "kept")

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.draws: dict[int, tuple[int, int]] = {}


class Call:
    """One layer call.

    Attributes:
        layer: the layer called.
        parent: the call around it, or `None`.
        training: whether it trains (`None`: nobody has said).
        path: names of the layers from the outermost to this one, joined by `/`.
        root: what is shared with the outermost call.
        inner: the layers called from inside this call.
    """

    __slots__ = ("inner", "layer", "parent", "path", "root", "training")

    def __init__(self, layer: Any, parent: "Call | None", training: bool | None, path: str) -> None:
        self.layer = layer
        self.parent = parent
        self.training = training
        self.path = path
        self.root: Root = parent.root if parent is not None else Root()
        self.inner: list[Any] = []


current: ContextVar[Call | None] = ContextVar("cornu_call", default=None)


def call_in_force() -> Call | None:
    """The innermost layer call in progress, or `None`."""
    return current.get()
