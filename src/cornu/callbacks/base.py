"""`Callback`: the hooks around epochs and batches."""

from typing import Any

import numpy as np

from cornu.ops._declare import interpreter_of
from cornu.ops.creation import convert_to_numpy

__all__ = ["HOOKS", "Callback", "python_value"]


class Callback:
    """Base of callbacks. Override the hooks you need; all others cost nothing.

    `logs` is a mapping from names to numbers. During batches its values are read when you look at them, which waits
    for the device; a hook that does not look does not wait. What `on_epoch_end` adds to its logs goes into the history.

    Attributes:
        params: a dict: `verbose`, `epochs`, `steps`.
        model: the model. `model.stop_training = True` stops after this batch or epoch.

    Example:
        >>> class Stop(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         if logs["loss"] < 0.1:
        ...             self.model.stop_training = True
    """

    params: dict[str, Any] | None = None
    _model: Any = None

    def __init__(self) -> None:
        self.params = None
        self._model = None

    @property
    def model(self) -> Any:
        """The model."""
        return self._model

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the run's parameters: `verbose`, `epochs`, `steps`."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Take the model."""
        self._model = model

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before an epoch (numbered from 0) of training."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After an epoch; `logs` hold its metrics, and those of validation as `val_...`."""

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        """The same as `on_train_batch_begin`, for older callbacks."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """The same as `on_train_batch_end`, for older callbacks."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch (numbered from 0 in its epoch) of training."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch of training; `logs` hold the metrics of the epoch so far."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch of evaluation, that in `fit` included."""

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch of evaluation, that in `fit` included."""

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch of prediction."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch of prediction; `logs["outputs"]` are its outputs."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Before training."""

    def on_train_end(self, logs: Any = None) -> None:
        """After training; `logs` are those of the last epoch."""

    def on_test_begin(self, logs: Any = None) -> None:
        """Before an evaluation, that in `fit` included."""

    def on_test_end(self, logs: Any = None) -> None:
        """After an evaluation, that in `fit` included."""

    def on_predict_begin(self, logs: Any = None) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: Any = None) -> None:
        """After a prediction."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


# A hook that does nothing itself but call another.
def python_value(value: Any) -> Any:
    """A scalar of any kind as a Python number; anything else as it is, an engine's array as a host array."""
    if isinstance(value, (int, float, str)) or value is None:
        return value
    if isinstance(value, (np.ndarray, np.generic)) or interpreter_of(value) is not None:
        host = np.asarray(convert_to_numpy(value))
        return host.item() if host.ndim == 0 else host
    return value
