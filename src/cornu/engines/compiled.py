"""A function compiled once for each structure, shapes and dtypes of its arguments."""

from collections.abc import Callable
from typing import Any

from cornu.core import context, tree
from cornu.ops._declare import dtype_of, shape_of

__all__ = ["Compiled"]


class Compiled:
    """A pure function of nested structures, which an engine traces when it meets new shapes.

    Args:
        engine: the engine.
        function: takes and gives structures of the engine's values; leaves that are no arrays are fixed in a trace.
        donate: whether the first argument's memory may be used for the result.
        thorough: whether to compile for long, for a faster function.

    Attributes:
        traces: how many traces have been made.
    """

    def __init__(self, engine: Any, function: Callable[..., Any], donate: bool = False, thorough: bool = False) -> None:
        self.engine = engine
        self.function = function
        self.donate = donate
        self.thorough = thorough
        self._made: dict[Any, tuple[Callable[[list[Any]], list[Any]], Any]] = {}

    @property
    def traces(self) -> int:
        """How many traces have been made."""
        return len(self._made)

    def __call__(self, *args: Any) -> Any:
        arrays: list[Any] = []
        key = self._key(args, arrays)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._make(args, arrays)
        run, pack = found
        return pack(run(arrays))

    def known(self, *args: Any) -> Callable[[list[Any]], Any]:
        """The function for arguments like these, which it has been called with, of the list of their arrays."""
        run, pack = self._made[self._key(args, [])]
        return lambda arrays: pack(run(arrays))

    def _key(self, value: Any, arrays: list[Any]) -> Any:
        """What tells one trace from another; the arrays among the leaves are collected on the way."""
        kind = type(value)
        if kind is list or kind is tuple:
            return (kind, *[self._key(item, arrays) for item in value])
        if isinstance(value, dict):
            return (kind, *[(name, self._key(value[name], arrays)) for name in tree._keys(value)])
        if isinstance(value, (list, tuple)):
            return (kind, *[self._key(item, arrays) for item in value])
        if not hasattr(value, "dtype"):
            return value
        if not self.engine.owns(kind):
            value = self.engine.feed(value)
        arrays.append(value)
        return (shape_of(value), dtype_of(value))

    def _make(self, args: Any, arrays: list[Any]) -> tuple[Callable[[list[Any]], list[Any]], Any]:
        """The trace for these arguments, and how its results are put in their structure."""
        leaves = tree.leaves(args)
        places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]
        donated = sum(hasattr(leaf, "dtype") for leaf in tree.leaves(args[0])) if self.donate and args else 0
        given: list[Any] = []  # the structure of the results, as the trace found it
        engine = self.engine

        def flat(values: list[Any]) -> list[Any]:
            filled = list(leaves)
            for place, value in zip(places, values, strict=True):
                filled[place] = value
            with context.use_engine(engine):
                result = self.function(*tree.pack(args, filled))
                found = tree.leaves(result)
                traced = [i for i, leaf in enumerate(found) if hasattr(leaf, "dtype")]
                outputs = [engine.own(found[i]) for i in traced]
            rest = list(found)
            for i in traced:
                rest[i] = None
            given[:] = [tree.map_structure(lambda _: None, result), rest, traced]
            return outputs

        run = engine.trace(flat, arrays, donated, self.thorough)

        def pack(values: list[Any]) -> Any:
            like, rest, traced = given
            filled = list(rest)
            for i, value in zip(traced, values, strict=True):
                filled[i] = value
            return tree.pack(like, filled)

        return run, pack
