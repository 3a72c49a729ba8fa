"""`PyDataset`: batches by number, made by the user's own Python code."""

from collections.abc import Iterator
from typing import Any

from cornu.core.config import POSITIVE
from cornu.core.errors import UnsupportedError

__all__ = ["PyDataset", "Sequence"]


class PyDataset:
    """Base of data sets that give batches by number: write `__len__` (number of batches) and `__getitem__` (one batch).

    A batch is `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; each part is an array or a structure of arrays.
    `on_epoch_begin` and `on_epoch_end` are called around each epoch. A data set without end overrides `num_batches` to
    give `None`.

    Args:
        workers: how many threads make batches ahead; 1, the default, makes each batch when it is needed.
        use_multiprocessing: kept for Keras's sake; the workers are threads, and the batches are the same.
        max_queue_size: how many batches are made ahead at most, 10 by default.

    Example:
        >>> import numpy as np
        >>> class Squares(PyDataset):
        ...     def __len__(self):
        ...         return 3
        ...     def __getitem__(self, index):
        ...         x = np.arange(4.0) + 4 * index
        ...         return x, x**2
        >>> [x.tolist() for x, _ in Squares()][0]
        [0.0, 1.0, 2.0, 3.0]
    """

    # Defaults for subclasses that do not call super().__init__().
    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        POSITIVE.check(type(self).__name__, "max_queue_size", max_queue_size)
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """The batch of a number from 0 on."""
        raise UnsupportedError(
            f"{type(self).__name__} has no __getitem__", "a method __getitem__(self, index) that gives a batch"
        )

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has; `None` for no end."""
        if hasattr(self, "__len__"):
            return len(self)
        raise UnsupportedError(
            f"{type(self).__name__} does not say how many batches it has",
            "a method __len__, or a property num_batches (None for no end)",
        )

    def __iter__(self) -> Iterator[Any]:
        index = 0
        while self.num_batches is None or index < self.num_batches:
            yield self[index]
            index += 1

    def on_epoch_begin(self) -> None:
        """Called before each epoch."""

    def on_epoch_end(self) -> None:
        """Called after each epoch."""


Sequence = PyDataset
