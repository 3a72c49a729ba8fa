"""`CallbackList`: several callbacks as one, of which only those are called that have something to say."""

from collections.abc import Callable, MutableMapping
from typing import Any

from cornu.callbacks.base import Callback
from cornu.callbacks.history import History
from cornu.callbacks.progbar import ProgbarLogger
from cornu.core import tree
from cornu.core.errors import ArgumentError

__all__ = ["CallbackList"]

_CALLS = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


def _overrides(callback: Any, hook: str) -> bool:
    """Whether a callback does something in a hook: it, or its class, has a method of its own there."""
    if hook in vars(callback):
        return True
    method = getattr(type(callback), hook, None)
    # Keras marks the empty hooks of its own base class.
    if method is not None and method is not getattr(Callback, hook) and not getattr(method, "_is_default", False):
        return True
    return hook in _CALLS and _overrides(callback, _CALLS[hook])


class CallbackList(Callback):
    """Several callbacks as one. A callback that does not override a hook is not called there.

    Args:
        callbacks: a callback, or a nesting of lists of them.
        add_history: whether to add a `History` if there is none.
        add_progbar: whether to add a `ProgbarLogger` if there is none.
        model: the model they are for.
        **params: what `set_params` gives them: `verbose`, `epochs`, `steps`; a trainer may add `validation_freq`, which
            tells callbacks that not every epoch has `val_...` logs (`None`: none has).

    Attributes:
        callbacks: the list.
        has_train_batch_hooks: whether a callback, the progress aside, wants to be told of batches of training: whether
            anybody can look at the state between two batches.
        has_test_batch_hooks: that for evaluation.
        has_predict_batch_hooks: that for prediction.

    Raises:
        ArgumentError: for what is no callback.
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        self.callbacks: list[Any] = [] if callbacks is None else [_checked(item) for item in tree.leaves(callbacks)]
        self._history = self._find(History) or (self._add(History()) if add_history else None)
        self._progbar = self._find(ProgbarLogger) or (self._add(ProgbarLogger()) if add_progbar else None)
        self._listeners: dict[str, list[Callable[..., Any]]] = {}
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def _find(self, kind: type) -> Any:
        return next((callback for callback in self.callbacks if isinstance(callback, kind)), None)

    def _add(self, callback: Callback) -> Callback:
        self.callbacks.append(callback)
        return callback

    def append(self, callback: Any) -> None:
        """Add a callback."""
        self.callbacks.append(_checked(callback))
        self._listeners.clear()
        if self._model is not None:
            callback.set_model(self._model)
        if self.params:
            callback.set_params(self.params)

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params
        if params:
            for callback in self.callbacks:
                callback.set_params(params)
        self._listeners.clear()

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)
        self._listeners.clear()

    def _listening(self, hook: str) -> list[Callable[..., Any]]:
        found = self._listeners.get(hook)
        if found is None:
            found = [getattr(callback, hook) for callback in self.callbacks if _overrides(callback, hook)]
            self._listeners[hook] = found
        return found

    def _has_batch_hooks(self, kind: str) -> bool:
        return any(
            _overrides(callback, f"on_{kind}_batch_{moment}")
            for callback in self.callbacks
            for moment in ("begin", "end")
            if callback is not self._progbar
        )

    @property
    def has_train_batch_hooks(self) -> bool:
        """Whether a callback, the progress aside, wants to be told of batches of training."""
        return self._has_batch_hooks("train")

    @property
    def has_test_batch_hooks(self) -> bool:
        """Whether a callback, the progress aside, wants to be told of batches of evaluation."""
        return self._has_batch_hooks("test")

    @property
    def has_predict_batch_hooks(self) -> bool:
        """Whether a callback, the progress aside, wants to be told of batches of prediction."""
        return self._has_batch_hooks("predict")

    def _tell(self, hook: str, *place: int, logs: Any) -> None:
        listening = self._listening(hook)
        if listening:
            logs = {} if logs is None else logs
            for listener in listening:
                listener(*place, logs=logs) if place else listener(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        logs = {} if logs is None else logs
        for listener in self._listening("on_epoch_begin"):
            listener(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        listening = self._listening("on_epoch_end")
        if logs is None:
            logs = {}
        elif listening and not isinstance(logs, MutableMapping):
            logs = dict(logs)  # callbacks may add to it
        for listener in listening:
            listener(epoch, logs)

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("on_batch_begin", batch, logs=logs)

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("on_batch_end", batch, logs=logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("on_train_batch_begin", batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("on_train_batch_end", batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("on_test_batch_begin", batch, logs=logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("on_test_batch_end", batch, logs=logs)

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("on_predict_batch_begin", batch, logs=logs)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("on_predict_batch_end", batch, logs=logs)

    def on_train_begin(self, logs: Any = None) -> None:
        self._tell("on_train_begin", logs=logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._tell("on_train_end", logs=logs)

    def on_test_begin(self, logs: Any = None) -> None:
        self._tell("on_test_begin", logs=logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._tell("on_test_end", logs=logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._tell("on_predict_begin", logs=logs)

    def on_predict_end(self, logs: Any = None) -> None:
        self._tell("on_predict_end", logs=logs)


def _checked(callback: Any) -> Any:
    if isinstance(callback, type):
        raise ArgumentError(
            f"callbacks hold the class {callback.__name__}", "objects", f"make one: {callback.__name__}(...)"
        )
    if not isinstance(callback, Callback) and not (hasattr(callback, "set_model") and hasattr(callback, "set_params")):
        raise ArgumentError(
            f"callbacks hold {callback!r:.60} of type {type(callback).__name__}",
            "callbacks",
            "wrap a function: LambdaCallback(on_epoch_end=function)" if callable(callback) else None,
        )
    return callback
