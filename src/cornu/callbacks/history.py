"""`History`: what `fit` gives back."""

from typing import Any

from cornu.callbacks.base import Callback, python_value

__all__ = ["History"]


class History(Callback):
    """The logs of all epochs. `fit` adds one by itself and returns it.

    Attributes:
        history: name -> list of values, one per epoch that had it.
        epoch: the epochs' numbers.

    Example:
        >>> import types
        >>> history = History()
        >>> history.set_model(types.SimpleNamespace())
        >>> history.on_train_begin()
        >>> history.on_epoch_end(0, {"loss": 0.5})
        >>> history.history
        {'loss': [0.5]}
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name in logs or {}:
            self.history.setdefault(name, []).append(python_value(logs[name]))
        if self.model is not None:
            self.model.history = self
