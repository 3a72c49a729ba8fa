"""What a step that watches every op (`every_op`) leads to, when not all was finite."""

from collections.abc import Callable
from typing import Any

from cornu.core.errors import NonFiniteError
from cornu.ops.creation import convert_to_numpy
from cornu.training import every_op, guard

__all__ = ["step"]

_DOING = {"test": "evaluate", "predict": "predict"}


def step(
    kind: str, model: Any, engine: Any, compiled: Callable[..., Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    """A compiled step that watches every op, as the loop calls it.

    Args:
        kind: `"train"`, `"test"` or `"predict"`.
        model: the model.
        engine: the engine.
        compiled: the step that watches every op.
        plain: the step that does not, uncompiled.

    Returns:
        a function of the same arguments that gives what the plain step gives. A bad step of training tells the loop, as
        ever (`alive`); another raises `NonFiniteError`.
    """

    def train(*args: Any) -> Any:
        with every_op.apart():
            return compiled(*args)

    def forward(values: list[Any], number: Any, batch: Any, place: int | None = None) -> Any:
        with every_op.apart():
            changed, result, finite = compiled(values, number, batch)
        if not bool(convert_to_numpy(finite)):
            raise _explained(kind, model, engine, lambda: plain(values, number, batch), number, batch, place)
        return changed, result

    return train if kind == "train" else forward


def _explained(
    kind: str, model: Any, engine: Any, run: Callable[[], Any], number: Any, batch: Any, place: int | None
) -> NonFiniteError:
    bad = guard.first_bad(batch if isinstance(batch, tuple) else (batch,))
    found, _ = (None, False) if bad is not None else guard.replayed(run, engine, int(number))
    at = int(number) if place is None else place
    told = f"{_DOING[kind]} of model {model.name!r} met values that are not finite at step {at}: first in"
    if bad is not None:
        return NonFiniteError(f"{told} the data: {bad} holds some", "finite data", "clean or mask that data")
    if found is None:
        return NonFiniteError(
            f"{told} the compiled step; op by op every value is finite",
            "finite numbers",
            "compile(run_eagerly=True), which computes as the search for the op does",
        )
    layer = f"layer {found.path!r}" if found.path else "the loss or a metric"
    raised = NonFiniteError(
        f"{told} {layer}, op {found.op.name!r}",
        "finite numbers from every op",
        "look at its inputs: cornu.inspect.trace(model, x)",
    )
    raised.inputs = guard.shapes_in(found.arrays)
    return raised
