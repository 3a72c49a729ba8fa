"""Batches in groups, which are handed to an engine at once."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cornu.core import tree
from cornu.ops._declare import dtype_of, shape_of
from cornu.ops.indexing import get_item
from cornu.ops.movement import stack

__all__ = ["Group", "grouped", "limited", "merged", "part"]

# How many batches, and the arrays of all of them with a first axis for it; a batch as it is where it is alone.
Group = tuple[int, Any]


def grouped(batches: Iterator[Any], size: int) -> Iterator[Group]:
    """Batches in groups of a size, all of one group of the same shapes; others alone."""
    if size == 1:
        yield from ((1, batch) for batch in batches)
        return
    group: list[Any] = []
    shape: Any = None
    for batch in batches:
        mine = repr(tree.map_structure(lambda leaf: None if leaf is None else (shape_of(leaf), dtype_of(leaf)), batch))
        if group and mine != shape:
            yield from ((1, one) for one in group)
            group = []
        shape = mine
        group.append(batch)
        if len(group) == size:
            yield size, tree.map_structure(_stacked, *group)
            group = []
    yield from ((1, one) for one in group)


def _stacked(*leaves: Any) -> Any:
    if leaves[0] is None:
        return None
    if all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in leaves):
        return np.stack(leaves)
    return stack(list(leaves))


def part(group: Any, index: int) -> Any:
    """One batch of a group of several."""
    return tree.map_structure(lambda leaf: None if leaf is None else get_item(leaf, index), group)


def merged(group: Any) -> Any:
    """A group of several batches as one batch, where its arrays lie on the host; others are left out."""

    def merge(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or leaf.ndim < 2:
            return None
        return leaf.reshape(-1, *leaf.shape[2:])

    return tree.map_structure(merge, group)


def limited(batches: Iterator[Any], steps: int | None) -> Iterator[Any]:
    """At most so many batches; `None` for all."""
    if steps is None:
        yield from batches
        return
    for _ in range(steps):
        batch = next(batches, None)
        if batch is None:
            return
        yield batch
