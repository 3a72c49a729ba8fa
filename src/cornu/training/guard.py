"""When the loss leaves the finite numbers: which layer and op made the first value that is not finite."""

from typing import Any

import numpy as np

from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.core.errors import CornuError, DataError, NonFiniteError
from cornu.core.variable import Variable, read_all
from cornu.layers._context import call_in_force
from cornu.ops._declare import Op
from cornu.ops.creation import convert_to_numpy
from cornu.random import at_step

__all__ = ["explain"]


class _Found(Exception):
    """The first op whose result is not finite though its arguments are."""

    def __init__(self, op: Op, path: str | None, arrays: Any) -> None:
        self.op, self.path, self.arrays = op, path, arrays


def _bad(values: Any) -> bool:
    for leaf in tree.leaves(values):
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
            host = np.asarray(leaf)
            if host.dtype.kind == "f" or host.dtype.name == "bfloat16":
                if not np.isfinite(host.astype("float32")).all():
                    return True
    return False


class _Watch:
    """Looks at every value of a step, on the way forward and on the way back.

    Attributes:
        back: whether the fault was met on the way back.
    """

    def __init__(self) -> None:
        self.back = False
        self._origins: dict[int, tuple[Any, str | None]] = {}

    def forward(self, op: Op, arrays: Any, static: Any, result: Any) -> None:
        """Stop at the first op that makes what is not finite."""
        call = call_in_force()
        path = call.path if call is not None else None
        for part in result if isinstance(result, (tuple, list)) else (result,):
            self._origins[id(part)] = (part, path)
        # Constants such as the -inf of a masked softmax come in as arguments; only what an op makes itself counts.
        if (
            op.is_primitive
            and op.family not in ("creation", "movement", "control")
            and _bad(result)
            and not _bad(arrays)
        ):
            raise _Found(op, path, arrays)

    def backward(self, op: Op, result: Any, gradient: Any, share: Any) -> None:
        """Stop at the first op whose gradient is not finite."""
        if _bad(share) and not _bad(gradient):
            self.back = True
            part = result[0] if isinstance(result, (tuple, list)) else result
            raise _Found(op, self._origins.get(id(part), (None, None))[1], part)


def explain(model: Any, engine: Any, batch: Any, number: int, trained: list[Variable]) -> CornuError:
    """Run a step again, op by op, on the last good weights, to find where it went wrong.

    Args:
        model: the model; its variables hold the last good values.
        engine: the engine.
        batch: the batch of the step.
        number: the step's number.
        trained: the variables the step trains.

    Returns:
        the error to raise.
    """
    try:  # labels that came as an engine's values could not be looked at before
        model._check_values(
            tree.map_structure(lambda leaf: None if leaf is None else np.asarray(convert_to_numpy(leaf)), batch)
        )
    except DataError as error:
        return error
    place, inputs = _first_bad_input(batch), None
    if place is not None:
        origin, fix = f"the data: {place} holds values that are not finite", "clean or mask that data before training"
    else:
        found, backwards = _replay(model, engine, batch, number, trained)
        fix = "lower the learning rate, scale the data, or clip gradients (clipnorm=1.0)"
        if found is None:
            origin = "the optimizer's update"
        else:
            layer = f"layer {found.path!r}" if found.path else "the loss"
            way = "the gradient of " if backwards else ""
            origin = f"{way}{layer}, op {found.op.name!r}"
            shapes = [getattr(leaf, "shape", ()) for leaf in tree.leaves(found.arrays) if hasattr(leaf, "shape")]
            inputs = ", ".join(map(str, shapes))
    raised = NonFiniteError(
        f"training left the finite numbers at step {number}: first in {origin}",
        "finite losses and weights; the model keeps the last good weights",
        fix,
    )
    if place is None and inputs:
        raised.inputs = inputs
    return raised


def _first_bad_input(batch: Any) -> str | None:
    for name, part in zip(("x", "y", "sample_weight"), batch, strict=False):
        for path, leaf in tree.flatten_with_path(part):
            if leaf is not None and _bad(convert_to_numpy(leaf)):
                return name + "".join(f"[{key!r}]" for key in path)
    return None


def _replay(model: Any, engine: Any, batch: Any, number: int, trained: list[Variable]) -> tuple[_Found | None, bool]:
    x, y, weight = batch

    watch = _Watch()

    def forward(values: list[Any]) -> tuple[Any, Any]:
        with context.bind(trained, values):
            y_pred = model(x, training=True)
            loss = model._loss_of(x, y, y_pred, weight, training=True)
        return loss, None

    token, loops = context.watcher.set(watch.forward), context.unroll.set(True)
    back, by_tape = context.way_back.set(watch.backward), context.by_tape.set(True)
    try:
        with context.use_engine(engine), context.bind([], []), at_step(np.int32(number)), np.errstate(all="ignore"):
            if model._own_steps():
                model.train_step(batch)
            else:
                tape_value_and_grad(forward)(read_all(trained))
    except _Found as found:
        return found, watch.back
    except Exception:  # a step that cannot be replayed (native functions) has no origin to name
        return None, False
    finally:
        context.watcher.reset(token)
        context.way_back.reset(back)
        context.by_tape.reset(by_tape)
        context.unroll.reset(loops)
    return None, False
