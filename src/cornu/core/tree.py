"""Nested structures: lists, tuples, named tuples and dicts, with anything else as a leaf.

A dict's leaves come in the order of its sorted keys, so that two dicts with the same keys correspond whatever
order they were written in. Nothing recurses: a structure may be as deep as it likes. (`optree` does this too, but its
import takes a quarter of the time allowed to `import cornu`.)
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = [
    "flatten",
    "flatten_with_path",
    "is_nested",
    "leaves",
    "map_structure",
    "pack",
    "same_structure",
    "structure",
]


def is_nested(value: object) -> bool:
    """Whether a value is a list, tuple or dict."""
    return isinstance(value, (list, tuple, dict))


def _keys(node: dict[Any, Any]) -> list[Any]:
    try:
        return sorted(node)
    except TypeError:
        return sorted(node, key=lambda key: (type(key).__name__, str(key)))


def leaves(tree: Any) -> list[Any]:
    """All leaves, left to right, dicts by sorted key.

    Example:
        >>> leaves({"b": 1, "a": (2, [3])})
        [2, 3, 1]
    """
    if not isinstance(tree, (list, tuple, dict)):
        return [tree]
    found: list[Any] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node[key] for key in reversed(_keys(node)))
        elif isinstance(node, (list, tuple)):
            pending.extend(reversed(node))
        else:
            found.append(node)
    return found


def flatten_with_path(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """All leaves with the keys and indices that lead to them.

    Example:
        >>> flatten_with_path({"a": [5, 6]})
        [(('a', 0), 5), (('a', 1), 6)]
    """
    found: list[tuple[tuple[Any, ...], Any]] = []
    pending: list[tuple[tuple[Any, ...], Any]] = [((), tree)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict):
            pending.extend(((*path, key), node[key]) for key in reversed(_keys(node)))
        elif isinstance(node, (list, tuple)):
            pending.extend(((*path, i), node[i]) for i in reversed(range(len(node))))
        else:
            found.append((path, node))
    return found


class _Leaf:
    """The place of a leaf in a structure."""

    def __repr__(self) -> str:
        return "*"


LEAF = _Leaf()
_DEEP = 50  # levels that are left to Python's own stack


def map_structure(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The same structure with every leaf (and its partners in the other trees) passed through a function.

    Example:
        >>> map_structure(lambda a, b: a + b, {"x": [1, 2]}, {"x": [10, 20]})
        {'x': [11, 22]}
    """
    if not isinstance(tree, (list, tuple, dict)):
        return function(tree, *others)
    if not others:
        return _mapped(function, tree, 0)
    rows = zip(leaves(tree), *(_partners(tree, other) for other in others), strict=True)
    return pack(tree, [function(*row) for row in rows])


def _mapped(function: Callable[[Any], Any], tree: Any, depth: int) -> Any:
    if depth == _DEEP:
        return pack(tree, [function(leaf) for leaf in leaves(tree)])
    order = _order(tree)
    children = [
        _mapped(function, child, depth + 1) if isinstance(child, (list, tuple, dict)) else function(child)
        for child in map(tree.__getitem__, order)
    ]
    return _remake(tree, order, children)


def _partners(tree: Any, other: Any) -> list[Any]:
    """The parts of `other` that stand where `tree` has leaves (they may be structures themselves)."""
    found = []
    for path, _ in flatten_with_path(tree):
        part = other
        for key in path:
            part = part[key]
        found.append(part)
    return found


def pack(tree: Any, values: Iterable[Any]) -> Any:
    """A structure like `tree` with these leaves.

    Example:
        >>> pack({"b": 0, "a": (0, 0)}, [1, 2, 3])
        {'b': 3, 'a': (1, 2)}
    """
    return _rebuild(tree, iter(values))


def _rebuild(tree: Any, values: Iterator[Any]) -> Any:
    # A stack of (node, children done so far, keys left); each finished node is handed to the one below it.
    if not isinstance(tree, (list, tuple, dict)):
        return next(values)
    if _is_flat(tree):
        order = _order(tree)
        return _remake(tree, order, [next(values) for _ in order])
    stack: list[tuple[Any, list[Any], Any]] = [(tree, [], _order(tree))]
    while True:
        node, done, order = stack[-1]
        if len(done) == len(order):
            stack.pop()
            finished = _remake(node, order, done)
            if not stack:
                return finished
            stack[-1][1].append(finished)
            continue
        child = node[order[len(done)]]
        if isinstance(child, (list, tuple, dict)):
            stack.append((child, [], _order(child)))
        else:
            done.append(next(values))


def _is_flat(node: Any) -> bool:
    """Whether all children are leaves, as of most structures."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (list, tuple, dict)):
            return False
    return True


def _order(node: Any) -> Any:
    return _keys(node) if isinstance(node, dict) else range(len(node))


def _remake(node: Any, order: Any, children: list[Any]) -> Any:
    if isinstance(node, dict):
        by_key = dict(zip(order, children, strict=True))
        return {key: by_key[key] for key in node}
    if isinstance(node, tuple):
        return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
    return list(children)


def structure(tree: Any) -> Any:
    """The structure alone: the same nesting with `*` for every leaf."""
    return map_structure(lambda _: LEAF, tree)


def flatten(tree: Any) -> tuple[list[Any], Callable[[Iterable[Any]], Any]]:
    """The leaves, and a function that puts others in their place."""
    return leaves(tree), lambda values: pack(tree, values)


def same_structure(a: Any, b: Any) -> bool:
    """Whether two trees nest alike (lists and tuples count as the same)."""
    return [path for path, _ in flatten_with_path(a)] == [path for path, _ in flatten_with_path(b)]
