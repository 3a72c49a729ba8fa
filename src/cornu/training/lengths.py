"""Sequences of many lengths in batches of few shapes, so that a step is compiled a bounded number of times."""

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from cornu import random
from cornu.core import context, dtypes, tree
from cornu.core.config import POSITIVE
from cornu.core.errors import ArgumentError, CornuWarning, DataError
from cornu.core.spec import Spec
from cornu.ops._declare import dtype_of, shape_of
from cornu.ops.random import host_order
from cornu.training.masking import check_masking
from cornu.training.padding import (
    Column,
    by_name,
    check_even,
    check_lengths,
    fitting,
    kind_of,
    label,
    names_of,
    powers_of_two,
    rebuilt,
    stepwise,
    value_for,
)
from cornu.utils.py_dataset import PyDataset

__all__ = ["LengthBuckets"]

# What marks this use of a seed: no other stream of random bits has this word there.
_SHUFFLE = 0xB0CCE75


class LengthBuckets(PyDataset):
    """Rows of unequal length as batches of few lengths: each row is padded to the next of some lengths (its bucket).

    Rows of one bucket share batches; what is left over of a bucket goes along with the next one. So there are at most
    as many shapes as buckets, and one for the last rows. The model must mask the padding; whether it does is tried on
    a row when the object is made. Losses and predictions are then those of batches without padding: steps of targets
    that are padding get the sample weight 0. So are the metrics of each batch; over an epoch, metrics of targets per
    step weigh a batch by its share of steps that are no padding, as Keras's do.

    Args:
        x: a sequence `(time, ...)` for each row, in a list (arrays, or lists of numbers). Several inputs: a dict or
            tuple of such lists, and arrays `(rows, ...)` for what has no time. All sequences of a row are padded to
            one length.
        y: targets: an array `(rows, ...)` or list with one for each row; or a list with a sequence `(time, ...)` for
            each row, a target per step. Several outputs: a dict or tuple. `None` to predict: then the rows stay in
            their order.
        sample_weight: weights `(rows,)`, or for targets per step a list of `(time,)`; by output like `y`.
        model: the model that is fed. `None` says that you know that it masks.
        lengths: the buckets; by default 8, 16, 32 ... and the longest row's length.
        batch_size: rows per batch, 32 by default.
        sequences: names (or places) of the inputs that are sequences; by default those that are lists of arrays.
        targets: names (or places) of the outputs whose targets are sequences, `True` for all, `False` for none; by
            default lists of arrays as long as the sequences, unless all rows are of one length.
        value: what sequences are padded with, a number or a dict by input name; 0 by default. Targets are padded
            with 0.
        shuffle: whether rows are mixed anew for each epoch of `fit`; with `y` only.
        seed: seed of the shuffling; by default one drawn from the global seed.
        verbose: whether to print how many lengths became how many shapes.
        workers: how many threads make batches ahead.
        max_queue_size: how many batches are made ahead at most.

    Raises:
        DataError: if rows, targets and weights do not fit, a row is longer than the largest bucket, or the model does
            not mask the padding.

    Example:
        >>> import cornu
        >>> x = [[5, 3], [1, 2, 9, 4, 7, 6, 3, 8, 2], [4, 4, 1]] * 8
        >>> tokens = cornu.Input((None,), dtype="int32")
        >>> h = cornu.layers.Embedding(10, 4, mask_zero=True)(tokens)
        >>> model = cornu.Model(tokens, cornu.layers.Dense(1)(cornu.layers.GRU(4)(h)))
        >>> buckets = LengthBuckets(x, [0.0, 1.0, 0.0] * 8, model=model, batch_size=4)
        LengthBuckets: 3 lengths (2 to 9) in 2 shapes: 16 rows of 8, 8 rows of 9; 44% of the steps are padding
        >>> sorted(batch[0].shape for batch in buckets)
        [(4, 8), (4, 8), (4, 8), (4, 8), (4, 9), (4, 9)]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        model: Any,
        lengths: Iterable[int] | None = None,
        batch_size: int = 32,
        sequences: Any = None,
        targets: Any = None,
        value: Any = 0,
        shuffle: bool = True,
        seed: int | None = None,
        verbose: bool = True,
        workers: int = 1,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        POSITIVE.check("LengthBuckets", "batch_size", batch_size)
        self.batch_size, self.shuffle = int(batch_size), bool(shuffle) and y is not None
        self.seed = random.global_seed() if seed is None else int(seed)
        self._like: tuple[Any, Any] = (kind_of(x), kind_of(y))
        self._inputs = self._read_inputs(x, sequences)
        self._row_lengths = np.max([c.lengths for c in self._inputs.values() if c.lengths is not None], axis=0)
        self._targets = self._read_targets(y, targets)
        self._weights = self._read_weights(sample_weight)
        columns = [*self._inputs.values(), *self._targets.values(), *self._weights.values()]
        check_even(columns, "LengthBuckets")
        self._values = {
            name: value_for(value, name, column.dtype, "LengthBuckets")
            for name, column in self._inputs.items()
            if column.lengths is not None
        }
        longest = int(self._row_lengths.max())
        self.lengths = powers_of_two(longest) if lengths is None else check_lengths(lengths, "LengthBuckets")
        fitting(longest, self.lengths, "LengthBuckets")
        self._bucket = np.searchsorted(self.lengths, self._row_lengths)
        self._epoch = 0
        self._plan = self._planned(grouped=y is not None)
        if model is not None:
            self._check(model)
        self._warn_of_values()
        if verbose:
            print(self.report())

    # ------------------------------------------------ reading

    def _read_inputs(self, x: Any, sequences: Any) -> dict[Any, Column]:
        parts = by_name(x, "LengthBuckets", "x")
        if not parts or (None in parts and not isinstance(x, (list, np.ndarray))):
            raise DataError(
                f"LengthBuckets got x of type {type(x).__name__}",
                "a list with a sequence for each row, or a dict or tuple of such",
                "cornu.utils.bucket_batches takes what makes its own batches",
            )
        named = None if sequences is None else names_of(sequences, parts, "LengthBuckets", "sequences")
        found = {}
        for name, part in parts.items():
            is_sequence = True if name is None else None if named is None else name in named
            if named is None and name is not None and isinstance(part, np.ndarray) and part.dtype != object:
                is_sequence = False
            found[name] = Column(part, label("x", name), "LengthBuckets", sequences=is_sequence)
        if any(len(column) == 0 for column in found.values()):
            raise DataError("LengthBuckets got no rows", "at least one row")
        if all(column.lengths is None for column in found.values()):
            raise DataError(
                f"LengthBuckets got no sequences among {', '.join(column.name for column in found.values())}",
                "at least one list with an array for each row",
                f"sequences=[{next(iter(found))!r}]",
            )
        check_even(found.values(), "LengthBuckets")
        return found

    def _read_targets(self, y: Any, targets: Any) -> dict[Any, Column]:
        parts = by_name(y, "LengthBuckets", "y")
        named = None if targets is None else names_of(targets, parts, "LengthBuckets", "targets")
        found = {}
        for name, part in parts.items():
            called = label("y", name)
            if named is not None:
                column = Column(part, called, "LengthBuckets", sequences=name in named)
            else:
                ragged = isinstance(part, list) or (isinstance(part, np.ndarray) and part.dtype == object)
                column = Column(part, called, "LengthBuckets", sequences=None if ragged else False)
                if column.lengths is not None and not self._has_steps(column):
                    column = Column(part, called, "LengthBuckets", sequences=False)
            if column.lengths is not None and len(column) == len(self._row_lengths):
                self._check_steps(column)
            found[name] = column
        return found

    def _has_steps(self, column: Column) -> bool:
        """Whether a list of arrays holds a target per step, where nobody says so."""
        assert column.lengths is not None
        if len(set(column.lengths.tolist())) > 1:
            return True
        if not self._matches(column):
            return False
        raise ArgumentError(
            f"LengthBuckets cannot tell whether {column.name} holds a target per step: all rows have length "
            f"{column.lengths[0]}, as have all sequences",
            "targets=True (a target per step) or targets=False (a target per row)",
        )

    def _matches(self, column: Column) -> bool:
        return any(other.lengths is not None and column.is_as_long_as(other) for other in self._inputs.values())

    def _check_steps(self, column: Column) -> None:
        if self._matches(column):
            return
        assert column.lengths is not None
        place = int(np.argmax(column.lengths != self._row_lengths))
        raise DataError(
            f"LengthBuckets got {column.name}[{place}] with {column.lengths[place]} steps for a sequence of "
            f"{self._row_lengths[place]}",
            "targets as long as the sequences of an input",
        )

    def _read_weights(self, sample_weight: Any) -> dict[Any, Column]:
        parts = by_name(sample_weight, "LengthBuckets", "sample_weight")
        if None in parts:  # for all outputs
            parts = dict.fromkeys(self._targets, sample_weight)
        found = {}
        for name, part in parts.items():
            if name not in self._targets:
                raise DataError(
                    f"LengthBuckets got sample_weight for {name!r}",
                    f"names among {', '.join(map(repr, self._targets))}",
                )
            if part is None:
                continue
            target = self._targets[name]
            sequences = False if target.lengths is None else None
            column = Column(part, label("sample_weight", name), "LengthBuckets", is_weight=True, sequences=sequences)
            if column.lengths is not None and len(column) == len(target) and not column.is_as_long_as(target):
                raise DataError(
                    f"LengthBuckets got {column.name} of other lengths than its targets", "a weight per step"
                )
            found[name] = column
        return found

    def _warn_of_values(self) -> None:
        for name, value in self._values.items():
            column = self._inputs[name]
            count = column.steps_equal_to(value)
            if count:
                warnings.warn(
                    f"LengthBuckets pads {column.name} with {value}, which {count} of its own steps hold throughout: a "
                    "model that masks that value leaves them out, with padding or without",
                    CornuWarning,
                    stacklevel=3,
                )

    # ------------------------------------------------ batches

    def _planned(self, grouped: bool) -> list[tuple[np.ndarray, int]]:
        """The batches: the rows of each, and the length they are padded to."""
        count, size = len(self._row_lengths), self.batch_size
        if not grouped:
            cut = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
            return [(rows, self.lengths[self._bucket[rows].max()]) for rows in cut]
        order = self._order(count, 0) if self.shuffle else np.arange(count)
        plan: list[tuple[np.ndarray, int]] = []
        left = np.zeros(0, np.int64)
        for bucket, length in enumerate(self.lengths):
            rows = np.concatenate([left, order[self._bucket[order] == bucket]])
            whole = len(rows) - len(rows) % size
            plan += [(rows[start : start + size], length) for start in range(0, whole, size)]
            left = rows[whole:]
        if len(left):
            plan.append((left, self.lengths[self._bucket[left].max()]))
        return [plan[place] for place in self._order(len(plan), 1)] if self.shuffle else plan

    def _order(self, count: int, stream: int) -> np.ndarray:
        """A random order: a pure function of the seed and the epoch (Threefry 2x32)."""
        return host_order(self.seed, _SHUFFLE + stream, self._epoch, count)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Any:
        """A batch: `x`, `(x, y)` or `(x, y, sample_weight)`."""
        rows, length = self._plan[index]
        return self._batch(rows, length)

    def _batch(self, rows: np.ndarray, length: int) -> Any:
        x = rebuilt(self._like[0], self._inputs_of(rows, length))
        if not self._targets:
            return x if not isinstance(x, tuple) else (x,)
        y = {name: column.take(rows, length, 0) for name, column in self._targets.items()}
        weights = {name: self._weights_of(name, column, rows, length) for name, column in self._targets.items()}
        parts = (x, rebuilt(self._like[1], y))
        if all(weight is None for weight in weights.values()):
            return parts
        return (*parts, rebuilt(self._like[1], weights))

    def _inputs_of(self, rows: np.ndarray, length: int) -> dict[Any, np.ndarray]:
        return {name: column.take(rows, length, self._values.get(name)) for name, column in self._inputs.items()}

    def _weights_of(self, name: Any, target: Column, rows: np.ndarray, length: int) -> np.ndarray | None:
        column = self._weights.get(name)
        given = None if column is None else column.take(rows, length, 0)
        if target.lengths is None:
            return given
        steps = target.lengths[rows, None]

        def valid() -> np.ndarray:
            return (np.arange(length) < steps).astype(dtypes.numpy_dtype(dtypes.floatx()))

        return stepwise(given, valid, length, "sample_weight", "LengthBuckets")

    def on_epoch_end(self) -> None:
        """Mix the rows anew."""
        if self.shuffle:
            self._epoch += 1
            self._plan = self._planned(grouped=True)

    # ------------------------------------------------ predicting

    def in_order(self) -> "LengthBuckets":
        """The same rows in their own order, each batch padded to the bucket of its longest row."""
        made = copy.copy(self)
        made.shuffle = False
        made._plan = self._planned(grouped=False)
        return made

    def predict(self, model: Any, engine: Any = None) -> Any:
        """A model's outputs for all rows, in the order of the rows and without padding.

        Args:
            model: the model.
            engine: the engine, for this call.

        Returns:
            in the structure of the outputs: an array `(rows, ...)`; for outputs with a time axis a list with an array
            `(time, ...)` for each row.

        Example:
            >>> import cornu
            >>> tokens = cornu.Input((None,), dtype="int32")
            >>> h = cornu.layers.Embedding(10, 4, mask_zero=True)(tokens)
            >>> model = cornu.Model(tokens, cornu.layers.Dense(2)(h))
            >>> buckets = LengthBuckets([[5, 3], [1, 2, 9], [7]], model=model, verbose=False)
            >>> [row.shape for row in buckets.predict(model)]
            [(2, 2), (3, 2), (1, 2)]
        """
        plan = self._planned(grouped=True)
        timed: list[bool] | None = None
        outputs: Any = None
        found: list[list[Any]] = []
        for rows, length in plan:
            x = rebuilt(self._like[0], self._inputs_of(rows, length))
            outputs = model.predict_on_batch(x, engine=engine)
            if timed is None:
                timed = self._timed(model, x, length)
                found = [[None] * len(self._row_lengths) for _ in timed]
            for leaf, column, has_time in zip(tree.leaves(outputs), found, timed, strict=True):
                for row, output in zip(rows, leaf, strict=True):
                    column[row] = output[: self._row_lengths[row]] if has_time else output
        joined = [column if has_time else np.stack(column) for column, has_time in zip(found, timed or [], strict=True)]
        return tree.pack(outputs, joined)

    def _timed(self, model: Any, x: Any, length: int) -> list[bool]:
        """Which outputs have a time axis: those whose second size moves with that of the sequences."""
        sizes = []
        for steps in (length, length + 1):

            def spec(name: Any, array: np.ndarray, steps: int = steps) -> Spec:
                shape = (array.shape[0], steps, *array.shape[2:]) if name in self._values else array.shape
                return Spec(shape, dtype_of(array))

            parts = by_name(x, "LengthBuckets", "x")
            with context.abstract():
                outputs = model(rebuilt(self._like[0], {n: spec(n, a) for n, a in parts.items()}), training=False)
            sizes.append([shape_of(leaf)[1:2] for leaf in tree.leaves(outputs)])
        return [one != other for one, other in zip(*sizes, strict=True)]

    # ------------------------------------------------ saying so

    def _check(self, model: Any) -> None:
        """Try the model on the row with the most padding and on the shortest, padded to the longest bucket."""
        padding = np.asarray(self.lengths)[self._bucket] - self._row_lengths
        if not padding.any():
            return
        timed = {name for name, column in self._targets.items() if column.lengths is not None}
        for row in dict.fromkeys([int(np.argmax(padding)), int(np.argmin(self._row_lengths))]):
            steps, place = int(self._row_lengths[row]), np.array([row])
            exact = rebuilt(self._like[0], self._inputs_of(place, steps))
            padded = rebuilt(self._like[0], self._inputs_of(place, self.lengths[-1]))
            check_masking(model, exact, padded, steps, list(self._values.values()), timed, "LengthBuckets")

    def report(self) -> str:
        """How many lengths became how many shapes, and how much of the batches is padding, in one line."""
        counts: dict[int, int] = {}
        for rows, length in self._plan:
            counts[length] = counts.get(length, 0) + len(rows)
        shapes = {(len(rows), length) for rows, length in self._plan}
        different = len(set(self._row_lengths.tolist()))
        shortest, longest = int(self._row_lengths.min()), int(self._row_lengths.max())
        steps = sum(count * length for length, count in counts.items())
        listed = ", ".join(f"{count} rows of {length}" for length, count in sorted(counts.items()))
        return (
            f"{type(self).__name__}: {different} lengths ({shortest} to {longest}) in {len(shapes)} shapes: {listed}; "
            f"{1 - self._row_lengths.sum() / steps:.0%} of the steps are padding"
        )

    def __repr__(self) -> str:
        return f"<{self.report()}>"
