"""Sources of batches: whatever a user hands to `fit`, `evaluate` or `predict`, as one kind of thing.

`as_source` looks at what came and makes one of three sources:

    arrays      structures of arrays, lists of numbers, data frames, HDF5 data sets: cut into batches here
    by number   a `PyDataset`: batches that can be asked for by number
    streams     generators (one pass over all epochs), loaders and other iterables (a pass per epoch)

A batch is always `(x, y, sample_weight)`; missing parts are `None`. Nothing is dropped, guessed or cut short: what does
not fit raises a `DataError`. Random order is a pure function of the seed and the epoch.
"""

import contextvars
import itertools
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Number
from typing import Any

import numpy as np

from cornu.core import dtypes, tree
from cornu.core.config import POSITIVE
from cornu.core.errors import ArgumentError, DataError
from cornu.core.variable import Variable
from cornu.ops._declare import ENGINE_RANK, interpreter_of
from cornu.ops.random import host_order
from cornu.training.class_weights import Weigher
from cornu.training.columns import Column, advice, check_rows, check_weight, named, standard, to_host, walk
from cornu.training.groups import Group, grouped, limited
from cornu.utils.py_dataset import PyDataset

__all__ = ["Source", "as_source"]

Batch = tuple[Any, Any, Any]

DEFAULT_BATCH_SIZE = 32

# What marks this use of a seed: no other stream of random bits has this word there.
_SHUFFLE = 0x5AFF1E00

_STEPS = {"fit": "steps_per_epoch", "validation": "validation_steps"}


class Source(ABC):
    """Batches, epoch by epoch.

    Attributes:
        num_batches: batches per epoch; `None` where only the data knows.
        num_rows: rows per epoch; `None` where batches come ready-made.
        batch_size: rows per batch (the last may have fewer); `None` where batches come ready-made.
        steps: how many batches per epoch were asked for; `None` for all there are.
        lends: whether the arrays of a batch are somebody else's, who may write to them later.
    """

    num_rows: int | None = None
    batch_size: int | None = None
    lends = False

    def __init__(self, what: str, steps: int | None) -> None:
        self.what = what
        self.steps = steps

    @property
    @abstractmethod
    def num_batches(self) -> int | None:
        """Batches per epoch; `None` where only the data knows."""

    @abstractmethod
    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, numbered from 0.

        Raises:
            DataError: (while iterating) if the data runs dry or a batch is not understood.
        """

    def groups(self, number: int, size: int, steps: int | None = None) -> Iterator[Group]:
        """The batches of an epoch in groups of a size, where their shapes are alike; the others alone.

        Args:
            number: the epoch.
            size: how many batches go into a group.
            steps: the most batches; `None` for all.
        """
        return grouped(limited(self.epoch(number), steps), size)

    @abstractmethod
    def peek(self) -> Batch:
        """A first batch to learn shapes and dtypes from; no epoch loses it."""

    def split(
        self, fraction: float, batch_size: int | None = None, steps: int | None = None
    ) -> tuple["Source", "Source"]:
        """This source without its last rows, and one of those rows, in order and without class weights, for validation.

        Args:
            fraction: how much to split off, above 0 and below 1.
            batch_size: rows per batch of validation, by default as here.
            steps: batches per validation, by default all.

        Raises:
            DataError: if the batches come ready-made, or a part would have no rows.
        """
        raise DataError(
            f"{self.what} got validation_split={fraction!r} with {self._describe()}",
            "arrays, which can be split by rows",
            "pass validation_data=... instead",
        )

    def on_epoch_end(self) -> None:  # noqa: B027
        """To be called after each epoch."""

    def _describe(self) -> str:
        return "data that makes its own batches"

    def _positions(self, number: int, per_pass: int) -> Iterator[tuple[int, int]]:
        """The epoch's batches as (pass over the data, index in that pass).

        With `steps`, training goes on where the last epoch stopped; anything else begins at the beginning.
        """
        if self.steps is None:
            return ((number, index) for index in range(per_pass))
        start = number * self.steps if self.what == "fit" else 0
        return (divmod(position, per_pass) for position in range(start, start + self.steps))


def as_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str | None = True,
    seed: int = 0,
    class_weight: Mapping[Any, Any] | None = None,
    what: str = "fit",
    output_names: list[str] | None = None,
) -> Source:
    """Anything that holds data as a `Source`.

    Args:
        x: inputs: an array, a list of numbers, a data frame, or a list, tuple, dict or nesting of them (`None` for an
            optional input); or what gives batches: a `PyDataset`, a generator, a loader, any iterable. Such a batch is
            `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; a list is not a tuple but several inputs (PyTorch's
            `DataLoader` excepted: it turns tuples into lists).
        y: targets, for arrays only.
        sample_weight: weights of the rows: one array, or a structure like `y`; for arrays only.
        batch_size: rows per batch, for arrays only; by default 32, or what gives `steps` batches.
        steps: batches per epoch; by default all there are. In `fit` the next epoch goes on where the last stopped.
        shuffle: whether rows (of arrays) or batches (of a `PyDataset`) come in random order; `"batch"` mixes the rows
            within each batch only. The order is a pure function of the seed and the epoch. Only `fit` shuffles.
        seed: seed of the shuffling.
        class_weight: `{class: weight}` for one output, or that by output name or index. Labels are whole numbers
            `(rows,)` or `(rows, 1)`, or one-hot rows. A class that is not named weighs 1. Multiplied with
            `sample_weight`.
        what: who asks, for messages: `"fit"`, `"evaluate"`, `"predict"`, `"validation"` ...
        output_names: names of the model's outputs, where `y` is a list and `class_weight` goes by name.

    Returns:
        the source. Floats come in the default float dtype, int64 as int32 where all values fit, all else as it is.

    Raises:
        DataError: if the data does not fit.
        ArgumentError: for an argument outside its limits.

    Example:
        >>> source = as_source(np.arange(10.0), np.arange(10), batch_size=4, shuffle=False)
        >>> source.num_batches, [x.shape[0] for x, _, _ in source.epoch(0)]
        (3, [4, 4, 2])
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None:
            POSITIVE.check(what, name if name != "steps" else _STEPS.get(what, "steps"), value)
    if shuffle not in (True, False, None, "batch"):
        raise ArgumentError(f"{what} got shuffle={shuffle!r}", "True, False or 'batch'")
    if class_weight is not None and not isinstance(class_weight, Mapping):
        raise DataError(
            f"{what} got class_weight of type {type(class_weight).__name__}",
            "a dict {class: weight}, or that by output name",
        )
    shuffle = shuffle if what == "fit" else False
    weigh = None if not class_weight else Weigher(class_weight, output_names, what)
    if x is None:
        raise DataError(f"{what} got no data: x is None", "arrays, a PyDataset, a generator or a loader")
    if isinstance(x, Source):
        return x
    if isinstance(x, (str, bytes)):
        raise DataError(
            f"{what} got text as x: {x!r:.60}", "arrays of numbers, or what gives batches of them", advice(x)
        )
    by_number = _is_py_dataset(x)
    if not by_number and not hasattr(x, "__next__") and _is_arrays(x):
        return _Arrays((x, y, sample_weight), batch_size, steps, shuffle, seed, weigh, what)
    kind = _kind_of(x)
    if not by_number and not hasattr(x, "__iter__"):
        raise DataError(
            f"{what} got x of type {type(x).__name__}, which holds no data that Cornu can read",
            "arrays, data frames, a PyDataset, a generator, or a loader that can be iterated over",
            advice(x),
        )
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise DataError(
                f"{what} got {name} along with {kind}, which makes its own batches",
                f"{name} within the batches",
                "let each batch be (x, y) or (x, y, sample_weight)",
            )
    if batch_size is not None:
        raise DataError(
            f"{what} got batch_size={batch_size} along with {kind}, which makes its own batches",
            "no batch_size",
            "set the batch size where the batches are made",
        )
    if shuffle == "batch":
        raise DataError(f"{what} got shuffle='batch' along with {kind}", "arrays, or shuffle=True or False")
    if by_number:
        return _ByNumber(x, steps, bool(shuffle), seed, weigh, what)
    return _Stream(x, steps, weigh, what)


def _is_py_dataset(x: Any) -> bool:
    """Whether batches can be asked for by number: our own kind, Keras's, or one written like them."""
    return isinstance(x, PyDataset) or (
        hasattr(x, "__getitem__")
        and hasattr(x, "on_epoch_end")
        and (hasattr(x, "__len__") or hasattr(x, "num_batches"))
    )


def _is_arrays(x: Any) -> bool:
    """Whether a value holds rows: an array, a frame, numbers, or a structure of them."""
    if isinstance(x, (np.ndarray, np.generic, list, tuple, Mapping, Number, Variable)):
        return True
    return (
        any(hasattr(x, name) for name in ("__array__", "to_numpy", "column_names", "toarray"))
        or interpreter_of(x) is not None
    )


def _kind_of(x: Any) -> str:
    if _is_py_dataset(x):
        return f"the PyDataset {type(x).__name__}"
    return f"{'an iterator' if hasattr(x, '__next__') else 'an iterable'} of type {type(x).__name__}"


# ---------------------------------------------------------------- arrays


class _Arrays(Source):
    """Arrays, cut into batches. Rows are neither copied nor cast before their batch is due, unless that is cheap."""

    def __init__(
        self,
        parts: Batch,
        batch_size: int | None,
        steps: int | None,
        shuffle: Any,
        seed: int,
        weigh: Weigher | None,
        what: str,
        rows: range | None = None,
        columns: dict[tuple[int, bool], Column] | None = None,
    ) -> None:
        super().__init__(what, steps)
        names = ("x", "y", "sample_weight")
        parts = tuple(
            walk(part, name, lambda leaf, path: to_host(leaf, path, what))
            for part, name in zip(parts, names, strict=True)
        )  # type: ignore[assignment]
        x, y, weight = parts
        if not named(x, "x"):
            raise DataError(f"{what} got no arrays in x", "at least one array of rows")
        total = check_rows([item for part, name in zip(parts, names, strict=True) for item in named(part, name)], what)
        check_weight(y, weight, what)
        self._raw, self._given_size = parts, batch_size
        self._rows = range(total) if rows is None else rows
        self._shuffle, self._seed, self._weigh = shuffle, seed, weigh
        if weigh is not None:
            weight = weigh.weights(y, walk(weight, "sample_weight", lambda leaf, _: np.asarray(leaf)))
        self._structure = (x, y, weight)
        # By id of the raw array (which `_raw` keeps alive): a split shares the columns of the whole.
        self._known = {} if columns is None else columns
        self._columns = [
            self._column(leaf, is_weight=place == 2, is_raw=place < 2 or weigh is None)
            for place, part in enumerate(self._structure)
            for leaf in tree.leaves(part)
        ]
        self.num_rows = len(self._rows)
        self.batch_size = int(batch_size or (math.ceil(self.num_rows / steps) if steps else DEFAULT_BATCH_SIZE))
        self._per_pass = math.ceil(self.num_rows / self.batch_size)
        if steps is not None and steps > self._per_pass:
            raise DataError(
                f"{what} got {_STEPS.get(what, 'steps')}={steps}, but {self.num_rows} rows make {self._per_pass} "
                f"batches of {self.batch_size}",
                f"at most {self._per_pass} steps",
                "fewer steps, a smaller batch_size, or leave one of them out",
            )
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def num_batches(self) -> int:
        return self.steps or self._per_pass

    def epoch(self, number: int) -> Iterator[Batch]:
        for round_, index in self._positions(number, self._per_pass):
            yield self._batch(self._rows_of(round_, index))

    def groups(self, number: int, size: int, steps: int | None = None) -> Iterator[Group]:
        positions = list(itertools.islice(self._positions(number, self._per_pass), steps))
        rows, at = self.batch_size or 1, 0
        whole = (self.num_rows or 0) // rows  # batches of a pass that are full
        while at < len(positions):
            round_, index = positions[at]
            together = positions[at : at + size]
            if (
                size > 1
                and len(together) == size
                and together[-1] == (round_, index + size - 1)
                and index + size <= whole
            ):
                batch = self._batch(self._rows_of(round_, index, size))
                yield (
                    size,
                    tree.map_structure(
                        lambda leaf: None if leaf is None else leaf.reshape(size, rows, *leaf.shape[1:]), batch
                    ),
                )
                at += size
            else:
                yield 1, self._batch(self._rows_of(round_, index))
                at += 1

    def peek(self) -> Batch:
        start = self._rows.start
        return self._batch(slice(start, min(start + (self.batch_size or 1), self._rows.stop)))

    def _column(self, array: Any, is_weight: bool, is_raw: bool) -> Column | None:
        if array is None:
            return None
        if not is_raw:
            return Column(array, is_weight)
        known = id(array), is_weight
        if known not in self._known:
            self._known[known] = Column(array, is_weight)
        return self._known[known]

    def _rows_of(self, round_: int, index: int, count: int = 1) -> slice | np.ndarray:
        start, size = self._rows.start, self.batch_size or 1
        first, last = index * size, min((index + count) * size, len(self._rows))
        if not self._shuffle:
            return slice(start + first, start + last)
        if self._order is None or self._order[0] != round_:
            order = host_order(self._seed, _SHUFFLE, round_, len(self._rows))
            if self._shuffle == "batch":
                # Sorting the random ranks within each batch leaves the batches where they are.
                ranks = np.empty_like(order)
                ranks[order] = np.arange(len(order))
                order = np.lexsort((ranks, np.arange(len(order)) // size))
            self._order = round_, order + start if start else order
        return self._order[1][first:last]

    def _batch(self, rows: slice | np.ndarray) -> Batch:
        taken: Batch = tree.pack(
            self._structure, [None if column is None else column.take(rows) for column in self._columns]
        )
        return taken

    def split(self, fraction: float, batch_size: int | None = None, steps: int | None = None) -> tuple[Source, Source]:
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
            raise ArgumentError(f"{self.what} got validation_split={fraction!r}", "a number above 0 and below 1")
        rows = self._rows
        at = math.floor(len(rows) * (1.0 - fraction))
        if at == 0 or at == len(rows):
            raise DataError(
                f"{self.what} got validation_split={fraction} of {len(rows)} rows, which leaves {at} for training and "
                f"{len(rows) - at} for validation",
                "at least one row in each",
                "more rows, another validation_split, or validation_data=...",
            )
        train = _Arrays(
            self._raw, self._given_size, self.steps, self._shuffle, self._seed, self._weigh, self.what,
            rows[:at], self._known,
        )  # fmt: skip
        size = batch_size or self.batch_size
        return train, _Arrays(self._raw, size, steps, False, 0, None, "validation", rows[at:], self._known)


# ---------------------------------------------------------------- batches that come ready-made


class _Ready(Source):
    """A source whose batches come ready-made: how to read one."""

    lends = True

    def __init__(self, data: Any, steps: int | None, weigh: Weigher | None, what: str) -> None:
        super().__init__(what, steps)
        self.data = data
        self._weigh = weigh
        # PyTorch's collate function turns the tuple of a row's parts into a list.
        self._lists_are_tuples = any(
            base.__name__ == "DataLoader" and base.__module__.startswith("torch.utils.data")
            for base in type(data).__mro__
        )

    def _describe(self) -> str:
        return _kind_of(self.data)

    def _read(self, element: Any) -> Batch:
        """A batch as `(x, y, sample_weight)`, checked and in the dtypes it should come in."""
        if isinstance(element, list) and self._lists_are_tuples:
            element = tuple(element)
        if not isinstance(element, tuple):
            element = (element,)
        what = self.what
        if not 1 <= len(element) <= 3 or element[0] is None:
            got = (
                "a batch whose x is None"
                if element and element[0] is None
                else f"a batch that is a tuple of {len(element)}"
            )
            raise DataError(
                f"{what} got {got} from {self._describe()}",
                "x, (x,), (x, y) or (x, y, sample_weight)",
                "several inputs go into a list or dict: ([x1, x2, x3, x4], y)",
            )
        element = (*element, *([None] * (3 - len(element))))
        names = ("x", "y", "sample_weight")
        parts = [
            walk(part, name, self._weight if name == "sample_weight" else self._value)
            for part, name in zip(element, names, strict=True)
        ]
        where = f" in a batch from {self._describe()}"
        check_rows([item for part, name in zip(parts, names, strict=True) for item in named(part, name)], what, where)
        x, y, weight = parts
        check_weight(y, weight, what)
        if self._weigh is not None:
            host = walk(weight, "sample_weight", lambda leaf, path: to_host(leaf, path, what))
            weight = self._weigh.weights(y, host)
        return x, y, weight

    def _value(self, value: Any, name: str) -> Any:
        return self._leaf(value, name, False)

    def _weight(self, value: Any, name: str) -> Any:
        return self._leaf(value, name, True)

    def _leaf(self, value: Any, name: str, is_weight: bool) -> Any:
        if not isinstance(value, (np.ndarray, list, tuple)):
            owner = interpreter_of(value)
            if owner is not None and owner.rank == ENGINE_RANK and len(value.shape) and not owner.is_tracing(value):
                # An engine's array stays one, unless its dtype is another than it should be.
                dtype = dtypes.standardize_dtype(value.dtype)
                if dtype == dtypes.floatx() or not (is_weight or dtype in dtypes.FLOATS or dtype == "int64"):
                    return value
        return standard(np.asarray(to_host(value, name, self.what)), is_weight)


class _ByNumber(_Ready):
    """A `PyDataset`. Its batches may be made ahead by threads; they come in order all the same."""

    def __init__(
        self, data: Any, steps: int | None, shuffle: bool, seed: int, weigh: Weigher | None, what: str
    ) -> None:
        if what == "predict" and hasattr(data, "in_order"):
            data = data.in_order()  # buckets of lengths: outputs are to come in the order of the rows
        super().__init__(data, steps, weigh, what)
        self._shuffle, self._seed = shuffle, seed
        self._per_pass()

    def _per_pass(self) -> int | None:
        """How many batches the data set has now (it may change between epochs)."""
        data, what = self.data, self.what
        count = data.num_batches if hasattr(data, "num_batches") else len(data)
        name = _STEPS.get(what, "steps")
        if count is None:
            if self.steps is None:
                raise DataError(
                    f"{what} got {self._describe()}, which has no end",
                    "the number of batches per epoch",
                    f"{name}=...",
                )
            return None
        if count <= 0:
            raise DataError(f"{what} got no rows: {self._describe()} has {count} batches", "at least one batch")
        if self.steps is not None and self.steps > count:
            raise DataError(
                f"{what} got {name}={self.steps}, but {self._describe()} has {count} batches", f"at most {count} steps"
            )
        return int(count)

    @property
    def num_batches(self) -> int | None:
        return self.steps or self._per_pass()

    def epoch(self, number: int) -> Iterator[Batch]:
        if hasattr(self.data, "on_epoch_begin"):
            self.data.on_epoch_begin()
        for element in self._ahead(self._indices(number)):
            yield self._read(element)

    def _indices(self, number: int) -> Iterator[int]:
        count = self._per_pass()
        if count is None:
            assert self.steps is not None
            start = number * self.steps if self.what == "fit" else 0
            yield from range(start, start + self.steps)
            return
        known = -1
        for round_, index in self._positions(number, count):
            if self._shuffle and round_ != known:
                known, order = round_, host_order(self._seed, _SHUFFLE, round_, count)
            yield int(order[index]) if self._shuffle else index

    def _ahead(self, indices: Iterable[int]) -> Iterator[Any]:
        workers = int(getattr(self.data, "workers", 1) or 0)
        if workers <= 1:
            for index in indices:
                yield self.data[index]
            return
        depth = max(int(getattr(self.data, "max_queue_size", 10)), workers)
        pending: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="cornu-data")
        try:
            for index in indices:
                # Each thread sees the engine that is in force here.
                pending.append(pool.submit(contextvars.copy_context().run, self.data.__getitem__, index))
                if len(pending) >= depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def peek(self) -> Batch:
        return self._read(self.data[0])

    def on_epoch_end(self) -> None:
        if hasattr(self.data, "on_epoch_end"):
            self.data.on_epoch_end()


_END: Any = object()


class _Stream(_Ready):
    """An iterator, of which there is one pass over all epochs, or an iterable that begins anew."""

    def __init__(self, data: Any, steps: int | None, weigh: Weigher | None, what: str) -> None:
        super().__init__(data, steps, weigh, what)
        self._renewable = not hasattr(data, "__next__")
        self._live: Iterator[Any] | None = None
        self._waiting: deque[Batch] = deque()  # read by `peek`, not yet given
        self._given = 0  # in this pass
        self._in_epoch = 0
        self._epochs = 0
        if steps is None and _is_endless(data):
            raise DataError(
                f"{what} got {self._describe()}, which has no end",
                "the number of batches per epoch",
                f"{_STEPS.get(what, 'steps')}=...",
            )

    @property
    def num_batches(self) -> int | None:
        if self.steps is not None:
            return self.steps
        try:
            return len(self.data)
        except (TypeError, NotImplementedError):
            return None

    def _restart(self) -> None:
        self._live, self._given = None, 0
        self._waiting.clear()

    def _next(self) -> Any:
        if self._waiting:
            return self._waiting.popleft()
        if self._live is None:
            self._live = iter(self.data)
        element = next(self._live, _END)
        return element if element is _END else self._read(element)

    def peek(self) -> Batch:
        if not self._waiting:
            batch = self._next()
            if batch is _END:
                raise self._empty()
            self._waiting.append(batch)
        return self._waiting[0]

    def epoch(self, number: int) -> Iterator[Batch]:
        self._epochs += 1
        label = number + 1 if self.what == "fit" else self._epochs
        # Only training with `steps` goes on in the middle of a pass.
        if self._renewable and self._given and (self.steps is None or self.what != "fit"):
            self._restart()
        begun_before = self._given > 0
        for step in itertools.count() if self.steps is None else range(self.steps):
            batch = self._next()
            if batch is _END and self._renewable and begun_before:
                # The pass that an earlier epoch began ends within this one.
                self._restart()
                begun_before = False
                batch = self._next()
            if batch is _END:
                self._finish(step, label)
                return
            self._given += 1
            yield batch

    def _finish(self, step: int, label: int) -> None:
        """The data has ended after `step` batches of this epoch: in order, or too early."""
        if self.steps is not None:
            name = _STEPS.get(self.what, "steps")
            again = "" if self._renewable else f" ({self._given} since the beginning)"
            raise DataError(
                f"{self.what} got {name}={self.steps}, but {self._describe()} ran dry in epoch {label}: "
                f"it gave {step} batches{again}",
                f"{self.steps} batches in each epoch",
                "fewer steps or epochs, or data that goes on"
                + ("" if self._renewable else "; a PyDataset begins anew by itself"),
            )
        if step == 0:
            raise self._empty()

    def _empty(self) -> DataError:
        if self._given:
            return DataError(
                f"{self.what} got {self._describe()}, which was used up: it gave {self._given} batches in all, "
                f"and none are left for epoch {self._epochs}",
                "batches for each epoch",
                f"cut it into epochs with {_STEPS.get(self.what, 'steps')}=..., or pass a PyDataset or loader",
            )
        return DataError(
            f"{self.what} got no rows: {self._describe()} gave no batches",
            "at least one batch",
            "is it used up already?",
        )


def _is_endless(data: Any) -> bool:
    """Whether a `tf.data.Dataset` says that it has no end."""
    cardinality = getattr(data, "cardinality", None)
    if not callable(cardinality):
        return False
    try:
        return int(cardinality()) == -1
    except (TypeError, ValueError):
        return False
