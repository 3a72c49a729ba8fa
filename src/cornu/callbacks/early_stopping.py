"""`EarlyStopping`."""

from typing import Any

from cornu.callbacks.monitor import MonitorCallback
from cornu.callbacks.progress import say

__all__ = ["EarlyStopping"]


class EarlyStopping(MonitorCallback):
    """Stop training when a value has stopped getting better.

    Args:
        monitor: the name of what is watched.
        min_delta: by how much a value must be better to count.
        patience: how many epochs without getting better to wait for.
        verbose: 1 to say when it stops.
        mode: `"min"`, `"max"`, or `"auto"` to ask the metric.
        baseline: a value to beat; until it is beaten the patience runs.
        restore_best_weights: whether to go back to the weights of the best epoch when training ends.
        start_from_epoch: from which epoch (numbered from 0) on to watch.

    Raises:
        BindingError: (at the end of the first epoch) if no such value is logged.

    Example:
        >>> stop = EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._begin()

    def _begin(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_weights: Any = None
        self.best_epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._begin()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        current = self._current(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            # The first weights that are watched are the best so far, whatever the value.
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self._is_improvement(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._is_improvement(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.stopped_epoch > 0 and self.verbose > 0:
            say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose > 0:
                say(f"Going back to the weights of the best epoch, {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)
