"""Batches of many lengths, as other sources make them, padded to few shapes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.core.errors import ArgumentError, DataError
from cornu.training.columns import standard, to_host
from cornu.training.masking import check_masking
from cornu.training.padding import (
    by_name,
    check_lengths,
    fitting,
    names_of,
    pad_batch,
    rebuilt,
    stepwise,
    value_for,
)
from cornu.utils.py_dataset import PyDataset

__all__ = ["bucket_batches"]

_WHAT = "bucket_batches"


def bucket_batches(
    source: Any,
    *,
    model: Any,
    lengths: Iterable[int] | None = None,
    sequences: Any = None,
    targets: Any = None,
    value: Any = 0,
    verbose: bool = True,
) -> Any:
    """A source of batches with their time axis padded up to the next of some lengths, so that there are few shapes.

    The model must mask the padding; whether it does is tried on the first row. Losses and predictions are then those of
    the batches as they come: steps of targets that are padding get the sample weight 0. So are the metrics of each
    batch; over an epoch, metrics of targets per step weigh a batch by its share of steps that are no padding, as
    Keras's do.

    Args:
        source: a `PyDataset`, a loader or other iterable, a function that gives one (called for each pass), or an
            iterator, of batches `x`, `(x, y)` or `(x, y, sample_weight)`. Sequences are `(batch, time, ...)`.
        model: the model that is fed. `None` says that you know that it masks.
        lengths: the lengths to pad to; by default 8, 16, 32 and so on.
        sequences: names (or places) of the inputs that are sequences; needed where there are several inputs.
        targets: names (or places) of the outputs whose targets have a time axis, `True` for all, `False` for none;
            needed where a target's second axis is as long as the sequences.
        value: what sequences are padded with, a number or a dict by input name; 0 by default.
        verbose: whether to print how many lengths became how many shapes, after the first pass.

    Returns:
        a `PyDataset` for a `PyDataset`, else an iterable; its `report()` tells of the shapes so far. An iterator for
        an iterator.

    Raises:
        DataError: (as batches are made) if a batch is longer than the largest length, or the model does not mask the
            padding.

    Example:
        >>> import numpy as np
        >>> batches = bucket_batches([(np.ones((2, n), "int32"), np.zeros(2)) for n in (3, 9, 12)], model=None)
        >>> [x.shape for x, y in batches]
        bucket_batches: 3 lengths (3 to 12) in 2 shapes; 40% of the steps are padding
        [(2, 8), (2, 16), (2, 16)]
    """
    padder = _Padder(model, lengths, sequences, targets, value, verbose)
    if isinstance(source, PyDataset) or (hasattr(source, "__getitem__") and hasattr(source, "on_epoch_end")):
        return _Numbered(source, padder)
    if hasattr(source, "__next__"):
        return padder.padded(source, False)
    if isinstance(source, (Mapping, np.ndarray, str, bytes)) or not (callable(source) or hasattr(source, "__iter__")):
        raise DataError(
            f"{_WHAT} got a source of type {type(source).__name__}",
            "a PyDataset, a loader, an iterable of batches, or a function that gives one",
            "cornu.utils.LengthBuckets takes rows",
        )
    return _Streamed(source, padder)


class _Padder:
    """Pads batches, and remembers what it met."""

    def __init__(self, model: Any, lengths: Any, sequences: Any, targets: Any, value: Any, verbose: bool) -> None:
        self.model = model
        self.lengths = None if lengths is None else check_lengths(lengths, _WHAT)
        self.sequences, self.targets, self.value, self.verbose = sequences, targets, value, verbose
        self.met: set[int] = set()
        self.shapes: set[tuple[int, int]] = set()
        self.steps = [0, 0]  # those of the data, and all

    def padded(self, batches: Iterable[Any], lists_are_tuples: bool) -> Iterator[Any]:
        """Batches, padded; at the end, a line about them."""
        for batch in batches:
            yield self.batch(tuple(batch) if lists_are_tuples and isinstance(batch, list) else batch)
        self.tell()

    def tell(self) -> None:
        """Say once what was met."""
        if self.verbose and self.met:
            self.verbose = False
            print(self.report())

    def report(self) -> str:
        """How many lengths became how many shapes so far, in one line."""
        if not self.met:
            return f"{_WHAT}: no batches so far"
        return (
            f"{_WHAT}: {len(self.met)} lengths ({min(self.met)} to {max(self.met)}) in {len(self.shapes)} shapes; "
            f"{1 - self.steps[0] / self.steps[1]:.0%} of the steps are padding"
        )

    def batch(self, batch: Any) -> Any:
        """One batch, padded."""
        parts = batch if isinstance(batch, tuple) else (batch,)
        if not 1 <= len(parts) <= 3 or parts[0] is None:
            raise DataError(f"{_WHAT} got a batch of {len(parts)} parts", "x, (x,), (x, y) or (x, y, sample_weight)")
        x_like, y_like, given = (_tuples(part) for part in (*parts, *([None] * (3 - len(parts)))))
        x, y = _arrays(x_like, "x"), _arrays(y_like, "y")
        named = self._sequences(x)
        steps = max(x[name].shape[1] for name in named)
        if steps == 0:
            raise DataError(f"{_WHAT} got a batch without steps", "at least one step")
        length = fitting(steps, self.lengths, _WHAT)
        values = {name: value_for(self.value, name, x[name].dtype, _WHAT) for name in named}
        timed = self._timed(y, steps)
        if self.model is not None:
            self._check(x_like, x, values, timed, steps, length)
        rows = len(next(iter(x.values())))
        self.met.add(steps)
        self.shapes.add((rows, length))
        self.steps[0] += rows * steps
        self.steps[1] += rows * length
        filled = {n: pad_batch(part, length, values[n]) if n in named else part for n, part in x.items()}
        if not y:
            return (rebuilt(x_like, filled),)
        weights = self._weights(given, y, timed, length)
        targets = {name: pad_batch(part, length, 0) if name in timed else part for name, part in y.items()}
        made = (rebuilt(x_like, filled), rebuilt(y_like, targets))
        return made if all(weight is None for weight in weights.values()) else (*made, rebuilt(y_like, weights))

    def _sequences(self, x: dict[Any, np.ndarray]) -> set[Any]:
        if self.sequences is None and len(x) > 1:
            raise ArgumentError(
                f"{_WHAT} got batches with the inputs {', '.join(map(repr, x))}",
                "to be told which of them are sequences",
                f"sequences=[{next(iter(x))!r}]",
            )
        named = set(x) if self.sequences is None else names_of(self.sequences, x, _WHAT, "sequences")
        for name in named:
            if x[name].ndim < 2:
                raise DataError(
                    f"{_WHAT} got x of shape {x[name].shape} as sequences", "(batch, time, ...)", "sequences=..."
                )
        if not named:
            raise ArgumentError(f"{_WHAT} got sequences={self.sequences!r}", "at least one input")
        return named

    def _timed(self, y: dict[Any, np.ndarray], steps: int) -> set[Any]:
        """The targets with a time axis."""
        if self.targets is not None:
            named = names_of(self.targets, y, _WHAT, "targets") if y else set()
            for name in named:
                if y[name].ndim < 2 or y[name].shape[1] != steps:
                    raise DataError(
                        f"{_WHAT} got targets of shape {y[name].shape} for sequences of {steps} steps",
                        f"shape (batch, {steps}, ...)",
                    )
            return named
        for name, part in y.items():
            if part.ndim > 1 and part.shape[1] == steps:
                where = "" if name is None else f" {name!r}"
                raise ArgumentError(
                    f"{_WHAT} cannot tell whether the targets{where} of shape {part.shape} have a time axis: the "
                    f"sequences have {steps} steps",
                    "targets=True (a target per step) or targets=False (a target per row)",
                )
        return set()

    def _weights(self, given: Any, y: dict[Any, np.ndarray], timed: set[Any], length: int) -> dict[Any, Any]:
        parts = by_name(given, _WHAT, "sample_weight")
        if None in parts and None not in y:  # for all outputs
            parts = dict.fromkeys(y, given)
        for name in parts:
            if name not in y:
                raise DataError(f"{_WHAT} got sample_weight for {name!r}", f"names among {', '.join(map(repr, y))}")
        found = {}
        for name, target in y.items():
            part = parts.get(name)
            weight = None if part is None else standard(np.asarray(to_host(part, "sample_weight", _WHAT)), True)
            if name in timed:
                rows, steps = target.shape[:2]

                def valid(rows: int = rows, steps: int = steps) -> np.ndarray:
                    ones = np.ones((rows, steps), dtypes.numpy_dtype(dtypes.floatx()))
                    return pad_batch(ones, length, 0)

                weight = stepwise(weight, valid, length, "sample_weight", _WHAT)
            found[name] = weight
        return found

    def _check(
        self, like: Any, x: dict[Any, np.ndarray], values: Any, timed: set[Any], steps: int, length: int
    ) -> None:
        """Try the model on the first row, with padding."""
        model, self.model = self.model, None
        if length == steps:
            later = [size for size in self.lengths or [2 * steps] if size > steps]
            if not later:
                self.model = model  # nothing is padded so far
                return
            length = later[0]
        one = {name: part[:1] for name, part in x.items()}
        filled = {n: pad_batch(part, length, values[n]) if n in values else part for n, part in one.items()}
        check_masking(
            model, rebuilt(like, one), rebuilt(like, filled), steps, list(values.values()), timed, _WHAT
        )  # fmt: skip


class _Numbered(PyDataset):
    """A `PyDataset`, padded."""

    def __init__(self, source: Any, padder: _Padder) -> None:
        super().__init__(int(getattr(source, "workers", 1) or 1), max_queue_size=getattr(source, "max_queue_size", 10))
        self._source, self._padder = source, padder
        if self.num_batches != 0:
            self[0]  # so that the model is tried here, and not kept

    @property
    def num_batches(self) -> int | None:
        """How many batches the source has; `None` for no end."""
        source = self._source
        found: int | None = source.num_batches if hasattr(source, "num_batches") else len(source)
        return found

    def __getitem__(self, index: int) -> Any:
        return self._padder.batch(self._source[index])

    def on_epoch_begin(self) -> None:
        if hasattr(self._source, "on_epoch_begin"):
            self._source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._padder.tell()
        self._source.on_epoch_end()

    def report(self) -> str:
        """How many lengths became how many shapes so far, in one line."""
        return self._padder.report()


class _Streamed:
    """An iterable, padded; begins anew with each pass."""

    def __init__(self, source: Any, padder: _Padder) -> None:
        self._source, self._padder = source, padder
        # PyTorch's collate function turns the tuple of a row's parts into a list.
        self._lists_are_tuples = any(
            base.__name__ == "DataLoader" and base.__module__.startswith("torch.utils.data")
            for base in type(source).__mro__
        )

    def __iter__(self) -> Iterator[Any]:
        source = self._source
        batches = source if hasattr(source, "__iter__") else source()
        return self._padder.padded(batches, self._lists_are_tuples)

    def __len__(self) -> int:
        return len(self._source)

    @property
    def cardinality(self) -> Any:
        """What a `tf.data.Dataset` says of its end; `None` for others."""
        return getattr(self._source, "cardinality", None)

    def report(self) -> str:
        """How many lengths became how many shapes so far, in one line."""
        return self._padder.report()


def _tuples(part: Any) -> Any:
    """A list of arrays as a tuple: several inputs or outputs."""
    several = isinstance(part, list) and part and all(np.ndim(item) > 0 and hasattr(item, "dtype") for item in part)
    return tuple(part) if several else part


def _arrays(part: Any, name: str) -> dict[Any, np.ndarray]:
    found = by_name(part, _WHAT, name)
    return {key: standard(np.asarray(to_host(item, name, _WHAT)), False) for key, item in found.items()}
