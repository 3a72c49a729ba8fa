"""`CSVLogger`."""

import csv
import io
import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from cornu.callbacks.base import Callback, python_value
from cornu.core.errors import CornuWarning, SavingError

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Write each epoch's logs as a row of a CSV file: the epoch (from 0), then the logs by name.

    A row is written whole and the file closed again, so that it can be read while training goes on. A value an epoch
    does not have is `NA`.

    Args:
        filename: path of the file.
        separator: what stands between two values.
        append: whether to go on with a file that is there, under its own header; else it is overwritten.

    Raises:
        SavingError: (at the end of the first epoch) if the file's header lacks a name that is logged.

    Example:
        >>> log = CSVLogger("training.csv", append=True)
    """

    def __init__(self, filename: Any, separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.filename = os.fspath(filename)
        self.sep = separator
        self.append = append
        self.keys: list[str] | None = None
        self._header: list[str] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.keys = self._header = None
        is_torn = False
        if self.append and os.path.exists(self.filename):
            with open(self.filename, newline="", encoding="utf-8") as file:
                self._header = next(csv.reader(file, delimiter=self.sep), None)
            with open(self.filename, "rb") as raw:
                if raw.seek(0, os.SEEK_END):
                    raw.seek(-1, os.SEEK_END)
                    is_torn = raw.read(1) not in b"\r\n"
        with open(self.filename, "a" if self.append else "w", encoding="utf-8", newline="") as file:
            if is_torn:  # the last row was cut off: the next begins on a line of its own
                file.write("\r\n")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = {} if logs is None else logs
        if self.keys is None:
            self.keys = self._choose_keys(logs)
        else:
            extra = [name for name in logs if name not in self.keys]
            if extra:
                warnings.warn(
                    f"CSVLogger leaves out {', '.join(extra)}: the header of {self.filename!r} is written already",
                    CornuWarning,
                    stacklevel=2,
                )
        row = [epoch, *(_cell(logs[name]) if name in logs else "NA" for name in self.keys)]
        self._write(row)

    def _choose_keys(self, logs: Any) -> list[str]:
        names = sorted(logs)
        if self._header is not None:
            keys = self._header[1:]
            missing = [name for name in names if name not in keys]
            if missing or self._header[:1] != ["epoch"]:
                raise SavingError(
                    f"CSVLogger cannot append to {self.filename!r}, whose header is {self.sep.join(self._header)!r}: "
                    f"it has no {', '.join(missing) or 'epoch'}",
                    f"the columns epoch, {', '.join(names)}",
                    "another file, or append=False",
                )
            return keys
        if names and not any(name.startswith("val_") for name in names):
            names += [f"val_{name}" for name in names]  # a later epoch may be validated
        self._write(["epoch", *names])
        return names

    def _write(self, row: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter=self.sep).writerow(row)
        with open(self.filename, "a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())


def _cell(value: Any) -> Any:
    value = python_value(value)
    if isinstance(value, np.ndarray) or (isinstance(value, Iterable) and not isinstance(value, str)):
        return f'"[{", ".join(map(str, value))}]"'
    return value
