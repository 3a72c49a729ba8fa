"""`ProgbarLogger`: shows the progress of training, evaluation or prediction."""

from typing import Any

from cornu.callbacks.base import Callback
from cornu.callbacks.progress import Progress

__all__ = ["ProgbarLogger"]


class ProgbarLogger(Callback):
    """Show progress: a bar on a terminal, a line per epoch elsewhere. `fit` adds one unless `verbose=0`.

    Args:
        stream: where to write, by default `sys.stdout`.
    """

    def __init__(self, stream: Any = None) -> None:
        super().__init__()
        self.stream = stream
        self.verbose: Any = 1
        self.epochs: int | None = 1
        self.target: int | None = None
        self.progress: Progress | None = None
        self._in_fit = False

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        verbose = params.get("verbose", 1)
        self.verbose = 1 if verbose == "auto" else int(verbose)
        self.epochs = params.get("epochs", 1)
        self.target = params.get("steps")

    def _begin(self, epochs: int | None, epoch: int | None = None) -> None:
        self.progress = Progress(self.target, epochs, self.verbose, self.stream)
        self.progress.begin(epoch)

    def _step(self, batch: int, logs: Any) -> None:
        if self.progress is not None:
            self.progress.update(batch + 1, logs)

    def _end(self, logs: Any) -> None:
        if self.progress is not None:
            if self.target is None:
                self.target = self.progress.done or None  # the next epoch can show how far it is
            self.progress.end(logs)
            self.progress = None

    def on_train_begin(self, logs: Any = None) -> None:
        # Validation within `fit` is silent; its results are part of the epoch's line.
        self._in_fit = True

    def on_train_end(self, logs: Any = None) -> None:
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin(self.epochs, epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end(logs)

    def on_test_begin(self, logs: Any = None) -> None:
        if not self._in_fit:
            self._begin(None)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._in_fit:
            self._step(batch, logs)

    def on_test_end(self, logs: Any = None) -> None:
        if not self._in_fit:
            self._end(logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._begin(None)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step(batch, None)

    def on_predict_end(self, logs: Any = None) -> None:
        self._end(None)
