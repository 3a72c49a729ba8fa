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
        self._made: dict[Any, tuple[Callable[[list[Any]], list[Any]], _Pack]] = {}

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

    def bound(self, *args: Any) -> Callable[[], Any] | None:
        """The call with some arguments, for any thread to make; `None` where it would run the function's own Python.

        Args:
            args: the arguments.
        """
        arrays: list[Any] = []
        run, pack = self._made.get(self._key(args, arrays), (None, None))
        if run is None or pack is None or not self.is_traced(run):
            return None
        return lambda: pack(run(arrays))

    def is_traced(self, run: Callable[[list[Any]], list[Any]]) -> bool:
        """Whether what an engine made of the function runs without the function's own Python."""
        return self.engine.traces

    def known(self, part: int, *args: Any) -> Callable[[list[Any]], Callable[[list[Any]], Any]]:
        """One part of the result, for arguments like these, which it has been called with.

        Args:
            part: its place in the tuple that the function gives.
            args: the arguments.

        Returns:
            function of the arrays of the earlier arguments, to which nobody writes as long as its result is called,
            that gives the part as a function of the arrays of the later ones.
        """
        run, pack = self._made[self._key(args, [])]
        place = pack.place(part)
        given = getattr(run, "given", None)

        def known(first: list[Any]) -> Callable[[list[Any]], Any]:
            late = (lambda rest: run([*first, *rest])) if given is None else given(first)
            if place is None:
                return lambda rest: pack(late(rest))[part]
            return lambda rest: late(rest)[place]

        return known

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

    def _make(self, args: Any, arrays: list[Any]) -> tuple[Callable[[list[Any]], list[Any]], "_Pack"]:
        """The trace for these arguments, and how its results are put in their structure."""
        leaves = tree.leaves(args)
        places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]
        donated = sum(hasattr(leaf, "dtype") for leaf in tree.leaves(args[0])) if self.donate and args else 0
        pack = _Pack()
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
            pack.like = tree.map_structure(lambda _: None, result)
            pack.rest = [None if i in traced else leaf for i, leaf in enumerate(found)]
            pack.traced = traced
            return outputs

        run = engine.trace(flat, arrays, donated, self.thorough)

        return run, pack


class _Pack:
    """How the arrays that a trace gives are put in the structure of its result.

    Attributes:
        like: the structure.
        rest: its leaves that are no arrays, with `None` for those that are.
        traced: the places of the arrays among the leaves.
    """

    def __init__(self) -> None:
        self.like: Any = None
        self.rest: list[Any] = []
        self.traced: list[int] = []

    def __call__(self, values: list[Any]) -> Any:
        filled = list(self.rest)
        for i, value in zip(self.traced, values, strict=True):
            filled[i] = value
        return tree.pack(self.like, filled)

    def place(self, part: int) -> int | None:
        """Where among the arrays one part of the result is; `None` if it is no single array."""
        if tree.is_nested(self.like[part]):
            return None
        leaf = len(tree.leaves(self.like[:part]))
        return self.traced.index(leaf) if leaf in self.traced else None
