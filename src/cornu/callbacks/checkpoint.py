"""`ModelCheckpoint`."""

import os
from collections.abc import Mapping
from typing import Any

from cornu.callbacks.base import python_value
from cornu.callbacks.monitor import MonitorCallback
from cornu.callbacks.progress import say
from cornu.core.config import positive_int
from cornu.core.errors import ArgumentError, BindingError, SavingError, near_miss

__all__ = ["ModelCheckpoint"]


class _Names(dict[str, Any]):
    """What a path may name: the epoch, the batch and the logs; a log is read only if it is named."""

    def __init__(self, path: str, logs: Mapping[str, Any], **places: int) -> None:
        super().__init__(places)
        self.path = path
        self.logs = logs

    def __missing__(self, name: str) -> Any:
        try:
            return python_value(self.logs[name])
        except KeyError:
            known = [*self, *self.logs]
            raise BindingError(
                f"ModelCheckpoint's path {self.path!r} names {name!r}, which is not logged{near_miss(name, known)}",
                f"names among {', '.join(map(str, known))}",
            ) from None


class ModelCheckpoint(MonitorCallback):
    """Save the model, or its weights, as training goes on.

    Args:
        filepath: a path that ends in `.keras` or `.h5`, or for weights in `.weights.h5`. It may name the epoch
            (from 1), the batch and the logs: `"{epoch:02d}-{val_loss:.2f}.keras"`. Folders are made.
        monitor: what `save_best_only` watches.
        verbose: 1 to say when it saves.
        save_best_only: whether to save only when the watched value is better than ever.
        save_weights_only: whether to save only the weights.
        mode: `"min"`, `"max"`, or `"auto"` to ask the metric.
        save_freq: `"epoch"`, or a number of batches.
        initial_value_threshold: a first best value to beat.

    Raises:
        ArgumentError: for a path that does not end so, or another `save_freq`.
        BindingError: (when it first saves) if the path or `monitor` names what is not logged.
        SavingError: if the path is a folder.

    Example:
        >>> save = ModelCheckpoint("best.keras", save_best_only=True)
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        if save_freq != "epoch" and not positive_int(save_freq):
            raise ArgumentError(f"ModelCheckpoint got save_freq={save_freq!r}", "'epoch' or a number of batches")
        self.save_freq = save_freq
        endings = (".weights.h5",) if save_weights_only else (".keras", ".h5")
        if not self.filepath.endswith(endings):
            raise ArgumentError(
                f"ModelCheckpoint got filepath={self.filepath!r} with save_weights_only={save_weights_only}",
                f"a path that ends in {' or '.join(endings)}",
            )
        self._epoch = 0
        self._batches_since = 0
        self._last_batch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            return
        is_new_epoch = self._last_batch is None or batch <= self._last_batch
        self._batches_since += batch + 1 if is_new_epoch else batch - (self._last_batch or 0)
        self._last_batch = batch
        if self._batches_since >= self.save_freq:
            self._batches_since = 0
            self._save(self._epoch, batch, {} if logs is None else logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, {} if logs is None else logs)

    def _save(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> None:
        if self.save_best_only and not self._is_best(epoch, batch, logs):
            return
        path = self._path(epoch, batch, logs)
        if os.path.isdir(path):
            raise SavingError(f"ModelCheckpoint cannot save to {path!r}, which is a folder", "a path of a file")
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        if self.verbose > 0:
            say(f"Epoch {epoch + 1}: saved {'the weights' if self.save_weights_only else 'the model'} to {path}")

    def _is_best(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> bool:
        if batch is not None and self.monitor not in logs:
            raise self._missing(logs, f"after batch {batch + 1}")
        current = self._current(logs)
        if current is None:
            return False
        best, better = self.best, self._is_improvement(current, self.best)
        if better:
            self.best = current
        if self.verbose > 0:
            than = "" if best is None else f" from {best:.5f}"
            say(
                f"Epoch {epoch + 1}: {self.monitor} {'improved' if better else 'did not improve'}{than} ({current:.5f})"
            )
        return better

    def _path(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> str:
        places = {"epoch": epoch + 1} if batch is None else {"epoch": epoch + 1, "batch": batch + 1}
        try:
            return self.filepath.format_map(_Names(self.filepath, logs, **places))
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            if isinstance(error, BindingError):
                raise
            raise ArgumentError(
                f"ModelCheckpoint cannot fill in the path {self.filepath!r}: {error}", "names with formats: {epoch:02d}"
            ) from None
