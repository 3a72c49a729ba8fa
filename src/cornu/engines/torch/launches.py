"""A traced graph on a GPU as one launch: a CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

Small steps cost what their launches cost, some microseconds each; a CUDA graph launches all kernels at once.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Launched", "launched"]

Flat = Callable[[list[Any]], list[Any]]

# How often a body is recorded anew, because what it is given lies elsewhere, before it goes on as it is.
_MOST_RECORDS = 8


class Launched:
    """A body, recorded at its second call and launched whole from then on.

    A CUDA graph reads and writes the memory it was recorded with. What a body is given in the same place every time
    (state, weights) it reads there; what comes from elsewhere (batches, metrics that begin anew) is copied to a place
    of its own. What it gives is copied out, but for the state, which stays where it is.

    Args:
        body: of a list of tensors on one GPU; it never waits for their elements.
        donated: how many of the first tensors it may write to; the first results take their place.

    Attributes:
        why: what kept it from being recorded.
    """

    def __init__(self, body: Flat, donated: int) -> None:
        self.body = body
        self.donated = donated
        self.records = 0
        self.graph: Any = None
        self.fed: set[int] = set()  # what is copied to its place
        self.places: list[Any] = []
        self.results: list[tuple[Any, bool]] = []  # and whether it stays
        self.why: str | None = None
        self._lock = threading.Lock()

    def __call__(self, values: list[Any]) -> list[Any]:
        # On the user's own streams nothing would keep two launches apart.
        if self.why is not None or torch.cuda.current_stream() != torch.cuda.default_stream():
            return self.body(values)
        with self._lock:
            if not self.places:
                # Held until the next call, so that a new batch does not get the memory of this one.
                self.places = list(values)
                return self.body(values)
            moved = self._moved(values)
            if self.graph is None or moved:
                self._record(values, moved)
            if self.why is not None:
                return self.body(values)
            for i in self.fed:
                self.places[i].copy_(values[i])
            self.graph.replay()
            return [result if stays else result.clone() for result, stays in self.results]

    def _moved(self, values: list[Any]) -> set[int]:
        """Which values do not lie where they lay before, of those that are not fed."""
        pairs = enumerate(zip(values, self.places, strict=True))
        return {i for i, (value, place) in pairs if i not in self.fed and value.data_ptr() != place.data_ptr()}

    def _record(self, values: list[Any], moved: set[int]) -> None:
        """Record the body; without success it goes on as it is."""
        if self.records == _MOST_RECORDS:
            self._give_up(f"what it is given lay elsewhere {_MOST_RECORDS} times")
            return
        # Before the first record the state lies where the body, not a launch, has put it.
        self.fed |= {i for i in moved if i >= self.donated or self.records}
        self.places = [value.clone() if i in self.fed else value for i, value in enumerate(values)]
        self.records += 1
        self.graph, self.results = None, []
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
                self.results = self._settled(self.body(list(self.places)))
        except RuntimeError as error:  # it waits for elements, or calls what cannot be recorded
            torch.cuda.synchronize()
            self._give_up(f"{type(error).__name__}: {error}")
            return
        self.graph = graph

    def _give_up(self, why: str) -> None:
        self.why = why
        self.graph, self.results, self.places = None, [], []

    def _settled(self, results: list[Any]) -> list[tuple[Any, bool]]:
        """The results with the state copied to its places, and nothing else in that memory."""
        state = {i: self.places[i] for i in range(self.donated) if i not in self.fed}
        written = {i for i, place in state.items() if results[i].data_ptr() == place.data_ptr()}
        memory = {place.untyped_storage().data_ptr() for place in state.values()}
        # All that lies in the state is read before any of it is written to.
        for i, result in enumerate(results):
            if i not in written and result.untyped_storage().data_ptr() in memory:
                results[i] = result.clone()
        for i in state.keys() - written:
            state[i].copy_(results[i])
        return [(state.get(i, result), i in state) for i, result in enumerate(results)]


@functools.cache
def _first() -> tuple[Any, ...]:
    """A small graph, with what it reads and writes, that lasts as long as the process."""
    graph = torch.cuda.CUDAGraph()
    number = torch.zeros((), device="cuda")
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = number + 1
    return graph, number, result


def _pool() -> Any:
    """Memory that all graphs share, for none needs what another has left; the first keeps it."""
    return _first()[0].pool()


def launched(body: Flat, values: list[Any], donated: int) -> Flat:
    """The body; on a GPU as one launch.

    Args:
        body: of a list of tensors.
        values: what it will be called with first.
        donated: how many of the first tensors it may write to.
    """
    devices = {value.device for value in values}
    on_gpu = len(devices) == 1 and values[0].is_cuda and values[0].device.index == torch.cuda.current_device()
    return Launched(body, donated) if on_gpu else body
