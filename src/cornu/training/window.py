"""The way back to the last good step: what training did since its state was last known to be good.

To ask of every step whether its new weights are finite, before the old ones are let go, would take a second copy of all
state and several passes over it in every step. Steps are pure functions, so it is enough to look now and then: if
something is wrong, the steps since the last look are taken once more from the state kept then, one by one, up to the
first that is bad. An engine that goes on by itself is not waited for: it copies the state in its turn, the copies are
looked at when the next look is due, and what came before them is kept until then.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cornu.core import dtypes, tree
from cornu.ops.creation import convert_to_numpy
from cornu.training.groups import part
from cornu.training.state import State

__all__ = ["FIRST", "SMALL", "Window"]

# The most steps between two looks, at first and once many looks were good.
FIRST, _MOST = 16, 256
# The most bytes of batches kept for them: so many times the state's, which a look passes over, within limits.
_TIMES, _LEAST, _BYTES = 8, 1 << 24, 1 << 26
# The most bytes of state of which one more copy is kept so that no look is waited for.
_TWICE = 1 << 25
# The most elements of a value that is kept when somebody writes it between steps.
SMALL = 1 << 10


class _Step(NamedTuple):
    """Steps that were handed to the engine at once: the number of the first, a batch or a group, how many."""

    number: int
    batch: Any
    together: int


class _Write(NamedTuple):
    """A value that somebody wrote between steps."""

    place: int
    value: np.ndarray


class Window:
    """Steps since the state was last known to be good.

    Args:
        state: the state, good as it is now.
        most: after how many steps to look.
    """

    def __init__(self, state: State, most: int = FIRST) -> None:
        self.state = state
        self.most = most
        self._looks: Callable[[], bool] | None = None  # at the state in which the next window begins
        first = state.take_first()
        self._kept = state.copies() if first is None else first
        self._done: list[_Step | _Write] = []
        self._views: list[int] = []  # which of those hold views of somebody's arrays
        self._steps = 0
        self._bytes = 0
        self._held = sum(v.size * dtypes.numpy_dtype(v.dtype).itemsize for v in state.variables)
        self._room = min(max(_TIMES * self._held, _LEAST), _BYTES)
        self._in_turn = self._held <= _TWICE and state.copies_in_turn()
        if self._in_turn:  # there are two at a time
            self._room //= 2

    @property
    def is_empty(self) -> bool:
        """Whether no step was taken."""
        return self._steps == 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to look."""
        return self._steps >= self.most or self._bytes >= self._room

    @property
    def is_small(self) -> bool:
        """Whether what is kept may stay between calls of `fit`: few bytes of state and batches, and room for steps."""
        return not self.is_full and self._bytes + self._held <= _BYTES

    def own_batches(self) -> None:
        """Copy what is a view of somebody's array, who may write to it before the next step."""

        def own(leaf: Any) -> Any:
            return leaf.copy() if _is_view(leaf) else leaf

        for place in self._views:
            entry = self._done[place]
            assert isinstance(entry, _Step)
            self._done[place] = entry._replace(batch=tree.map_structure(own, entry.batch))
        self._views.clear()

    def followed(self, alive: Any, watched: list[int]) -> "Window | None":
        """The window that begins here, without a look; `None` where that would mean to wait.

        Args:
            alive: an engine's value, whether all steps up to here were good.
            watched: the places of the values that must be finite.
        """
        if not self._in_turn:
            return None
        following = Window(self.state, self.grown())
        finite = self.state.engine.ask_finite([following._kept[place] for place in watched])
        self._looks = lambda: bool(convert_to_numpy(alive)) and finite()
        return following

    def was_good(self) -> bool:
        """Whether the state was good when the window that followed began."""
        assert self._looks is not None
        return self._looks()

    def join(self, following: "Window") -> None:
        """Take in what was done in the window that followed."""
        self._done.extend(following._done)

    def grown(self) -> int:
        """After how many steps to look next, when all was good."""
        return min(2 * self.most, _MOST) if self._bytes < self._room // 2 else self.most

    def note(self, number: int, batch: Any, count: int) -> None:
        """Keep the batches of steps."""
        leaves = tree.leaves(batch)
        if any(map(_is_view, leaves)):
            self._views.append(len(self._done))
        self._done.append(_Step(number, batch, count))
        self._steps += count
        self._bytes += sum(map(_size, leaves))

    def note_write(self, place: int, value: np.ndarray) -> None:
        """Keep a value that was written."""
        self._done.append(_Write(place, value))

    def joined(self, held: list[Any]) -> None:
        """Keep what variables held that joined the state just now."""
        self._kept.extend(held)

    def again(self) -> Iterator[tuple[int, Any]]:
        """Put the state back, and give the steps one by one, with what was written between them in its place."""
        state = self.state
        state.values[:] = [state.own(value) for value in self._kept]
        for entry in self._done:
            if isinstance(entry, _Write):
                state.put(entry.place, entry.value.copy())
            elif entry.together == 1:
                yield entry.number, entry.batch
            else:
                for i in range(entry.together):
                    yield entry.number + i, part(entry.batch, i)


def _is_view(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and not leaf.flags.owndata


def _size(leaf: Any) -> int:
    return int(getattr(leaf, "nbytes", 0) or 0)
