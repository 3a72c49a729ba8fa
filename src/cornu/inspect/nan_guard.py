"""`nan_guard`: stop at the first op that makes a value that is not finite."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import context
from cornu.core.errors import NonFiniteError
from cornu.layers._context import Call, call_in_force
from cornu.ops._declare import Op, interpreter_of
from cornu.training import every_op, guard

__all__ = ["nan_guard"]


class _Eager(guard.Watch):
    """Watches ops as they are computed, outside of compiled steps.

    Args:
        infinite: whether infinities count.
    """

    def __init__(self, infinite: bool) -> None:
        super().__init__(infinite)
        self.calls: dict[int, tuple[Any, int]] = {}  # how often each outermost layer was called

    def ended(self, call: Call, outputs: Any) -> None:
        """Look at what an outermost call gives: values that no op made came in with the data or the weights."""
        if call.parent is not None or context.is_abstract():
            return
        if self.is_bad(outputs):
            raise NonFiniteError(
                f"{call.layer.name!r} gave values that are not finite{self._step(call.layer)}: no op made them, "
                "they came in with the inputs or the weights",
                "finite inputs and weights",
                "clean or mask the data",
            )
        self.calls[id(call.layer)] = (call.layer, self._count(call.layer) + 1)

    def tell(self, op: Op, path: str | None, arrays: Any) -> None:
        """Stop."""
        way = "the gradient of " if self.back else ""
        self.back = False
        outermost = call_in_force()
        while outermost is not None and outermost.parent is not None:
            outermost = outermost.parent
        at = self._step(None if outermost is None else outermost.layer)
        where = f"layer {path!r}, op {op.name!r}" if path else f"op {op.name!r}, outside of layers"
        raised = NonFiniteError(
            f"the first value that is not finite{at}: {way}{where}",
            "finite numbers from every op",
            "look at its inputs: cornu.inspect.trace(model, x)",
        )
        raised.inputs = guard.shapes_in(arrays)
        raise raised

    def _step(self, layer: Any) -> str:
        """Which step or call it is, in words."""
        step = context.step.get()
        owner = interpreter_of(step)
        if step is not None and (owner is None or not owner.is_tracing(step)):
            return f" at step {int(step)}"
        return "" if layer is None else f" at call {self._count(layer)} of {layer.name!r}"

    def _count(self, layer: Any) -> int:
        return self.calls.get(id(layer), (None, 0))[1]


@contextlib.contextmanager
def nan_guard(infinite: bool = True) -> Iterator[None]:
    """Raise at the first value that is not finite in this block, and name the layer, the op and the step.

    Calls of models and layers are watched op by op, and so are gradients by `cornu.value_and_grad`. `fit`, `evaluate`,
    `predict` and their `_on_batch` kin run steps, compiled anew for the block, that also give whether every op gave
    finite numbers; a bad step is then run once more, op by op, to find the op. `fit` stops even where
    `stop_on_nonfinite=False` or `TerminateOnNaN` would not, on the last good weights. Outside of the block nothing is
    computed for it.

    The gradients of a compiled step are judged by the new weights, and a `cornu.ops.scan` in it by its results (a
    recurrent layer's loop is watched inside too). A function that the user compiles with an engine's own means
    (`jax.jit`) is not watched: its values are not known while it is traced. Nor can a step be that differentiates with
    `jax.grad` rather than `cornu.value_and_grad`.

    Args:
        infinite: whether infinities count; if not, only NaN does.

    Raises:
        NonFiniteError: at the first value that is not finite, which an op made of finite ones or which came in.

    Example:
        >>> import cornu, numpy as np
        >>> x = cornu.Input((2,))
        >>> model = cornu.Model(x, cornu.layers.Lambda(cornu.ops.log, name="logs")(x), name="net")
        >>> with cornu.inspect.nan_guard():
        ...     model.predict(np.array([[1.0, -2.0]], "float32"), verbose=0)
        Traceback (most recent call last):
        cornu.core.errors.NonFiniteError: predict of model 'net' met values that are not finite at step 0: ...
    """
    watch = _Eager(infinite)
    told: list[tuple[ContextVar[Any], Any]] = [
        (context.watcher, watch.forward),
        (context.way_back, watch.backward),
        (context.by_tape, True),
        (context.unroll, True),
        (context.on_call, watch.ended),
    ]
    tokens = [(variable, variable.set(value)) for variable, value in told]
    try:
        with every_op.watch_every_op("finite" if infinite else "nan"), np.errstate(all="ignore"):
            yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)
