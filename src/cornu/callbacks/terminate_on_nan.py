"""`TerminateOnNaN`."""

import math
from typing import Any

from cornu.callbacks.base import Callback, python_value
from cornu.callbacks.progress import say
from cornu.core.errors import NonFiniteError

__all__ = ["TerminateOnNaN"]


class TerminateOnNaN(Callback):
    """Stop training when the loss is NaN or infinite. It waits for the loss of each batch.

    Args:
        raise_error: whether to raise instead, so that nothing is done at the end of training.

    Raises:
        NonFiniteError: if `raise_error`, when the loss is not finite.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        if not logs or "loss" not in logs:
            return
        loss = python_value(logs["loss"])
        if math.isfinite(loss):
            return
        if self.raise_error:
            raise NonFiniteError(f"the loss is {loss} after batch {batch}", "a finite loss")
        say(f"Batch {batch}: the loss is {loss}, training stops")
        self.model.stop_training = True
