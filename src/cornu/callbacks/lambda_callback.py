"""`LambdaCallback`."""

from collections.abc import Callable
from typing import Any

from cornu.callbacks.base import HOOKS, Callback
from cornu.core.errors import ArgumentError, near_miss

__all__ = ["LambdaCallback"]


class LambdaCallback(Callback):
    """A callback made of functions.

    Args:
        on_epoch_begin: function of `(epoch, logs)`.
        on_epoch_end: function of `(epoch, logs)`.
        on_train_begin: function of `(logs)`.
        on_train_end: function of `(logs)`.
        on_train_batch_begin: function of `(batch, logs)`.
        on_train_batch_end: function of `(batch, logs)`.
        **kwargs: any other hook of `Callback` by its name.

    Raises:
        ArgumentError: for a name that is no hook, or what cannot be called.

    Example:
        >>> show = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
        >>> show.on_epoch_end(0, {"loss": 0.5})
        0 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Callable[..., Any] | None,
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for name, function in given.items():
            if name not in HOOKS:
                raise ArgumentError(
                    f"LambdaCallback got {name!r}{near_miss(name, HOOKS)}", f"one of {', '.join(HOOKS)}"
                )
            if function is None:
                continue
            if not callable(function):
                raise ArgumentError(f"LambdaCallback got {name}={function!r:.60}", "a function")
            setattr(self, name, function)
