"""The engine's value: an array on the host, or an output of a node of a graph under construction."""

from typing import Any

import numpy as np

from cornu.core import tree
from cornu.core.errors import GraphError
from cornu.core.spec import ArrayOperators, operators

__all__ = ["OnnxValue"]


def _on_host(arguments: Any) -> Any:
    """Arguments of a NumPy function that is no op, with values as host arrays."""
    return tree.map_structure(lambda leaf: leaf.numpy() if isinstance(leaf, OnnxValue) else leaf, arguments)


class OnnxValue(ArrayOperators):
    """A concrete array, or a stand-in for one that a graph under construction will compute.

    Attributes:
        shape: its sizes.
        dtype: the dtype's name.
        array: the elements, `None` for a stand-in.
        name: the stand-in's name in its graph, empty for a concrete one.
        graph: the graph (`builder.Graph`) under construction that it belongs to.
    """

    __slots__ = ("__weakref__", "array", "dtype", "graph", "name", "shape")

    shape: tuple[int, ...]
    dtype: str
    array: np.ndarray | None
    name: str
    graph: Any

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        array: np.ndarray | None = None,
        name: str = "",
        graph: Any = None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.array = array
        self.name = name
        self.graph = graph

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    def numpy(self) -> np.ndarray:
        """The elements as a host array.

        Raises:
            GraphError: for a stand-in, which has none yet.
        """
        if self.array is None:
            raise GraphError(
                f"{self!r} has no value while a graph is being built",
                "a computation written with ops, with no decision on a value",
                "use cornu.ops.where, cond or while_loop, or fit(..., run_eagerly=True) to look at values",
            )
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return np.array(array) if copy else array

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        op = operators.get(function.__name__)
        if op is not None:
            return op(*args, **kwargs)
        if function in (np.shape, np.ndim, np.size) and len(args) == 1 and not kwargs:
            return getattr(self, function.__name__)
        return function(*_on_host(args), **_on_host(kwargs))

    def item(self) -> Any:
        """The only element as a Python number."""
        return self.numpy().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.shape:
            raise TypeError("a scalar cannot be iterated over")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        if self.array is None:
            return f"<OnnxValue {self.name} {self.shape} {self.dtype}>"
        return f"OnnxValue({self.array!r})"
