"""When the loss leaves the finite numbers: which layer and op made the first value that is not finite."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.core.dims import shape_text
from cornu.core.errors import CornuError, DataError, NonFiniteError
from cornu.core.variable import Variable, read_all
from cornu.layers._context import call_in_force
from cornu.ops._declare import ENGINE_RANK, RECORDER_RANK, TAPE_RANK, Op, interpreter_of, shape_of
from cornu.ops.creation import convert_to_numpy
from cornu.random import at_step
from cornu.training import every_op

__all__ = ["Found", "Watch", "explain", "first_bad", "replayed", "shapes_in"]


class Found(Exception):
    """The first op whose result is not finite though its arguments are."""

    def __init__(self, op: Op, path: str | None, arrays: Any) -> None:
        self.op, self.path, self.arrays = op, path, arrays


def _bad(values: Any, kind: Callable[[Any], Any] = lambda host: ~np.isfinite(host)) -> bool:
    """Whether a value that is known holds elements of a kind, by default those that are not finite."""
    for leaf in tree.leaves(values):
        if type(leaf) is float or (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
            leaf = _under_tapes(leaf)
            owner = interpreter_of(leaf)
            if owner is not None and (owner.rank != ENGINE_RANK or owner.is_tracing(leaf)):
                continue
            host = np.asarray(convert_to_numpy(leaf))
            if host.dtype.kind == "f" or host.dtype.name == "bfloat16":
                if kind(host.astype("float64")).any():
                    return True
    return False


def _under_tapes(value: Any) -> Any:
    owner = interpreter_of(value)
    return owner.plain(value) if owner is not None and TAPE_RANK < owner.rank < RECORDER_RANK else value


class Watch:
    """Looks at every value of a step, on the way forward and on the way back.

    Args:
        infinite: whether infinities count; if not, only NaN does.

    Attributes:
        back: whether the fault was met on the way back.
    """

    def __init__(self, infinite: bool = True) -> None:
        self.infinite = infinite
        self.back = False
        self._origins: dict[int, tuple[Any, str | None]] = {}

    def forward(self, op: Op, arrays: Any, static: Any, result: Any) -> None:
        """Stop at the first op that makes what is not finite."""
        call = call_in_force()
        path = call.path if call is not None else None
        for part in result if isinstance(result, (tuple, list)) else (result,):
            self._origins[id(part)] = (part, path)
        if op.family in ("creation", "movement") or not self.is_bad(result):
            return
        # Constants such as the -inf of a masked softmax come in as arguments; only what an op makes itself counts.
        if not self.is_bad(arrays) or (_bad(result, np.isnan) and not _bad(arrays, np.isnan)):
            self.tell(op, path, arrays)

    def is_bad(self, values: Any) -> bool:
        """Whether a structure holds what is looked for."""
        return _bad(values) if self.infinite else _bad(values, np.isnan)

    def tell(self, op: Op, path: str | None, arrays: Any) -> None:
        """Stop."""
        raise Found(op, path, arrays)

    def backward(self, op: Op, result: Any, gradient: Any, share: Any) -> None:
        """Stop at the first op whose gradient is not finite."""
        if self.is_bad(share) and not self.is_bad(gradient):
            self.back = True
            part = result[0] if isinstance(result, (tuple, list)) else result
            self.tell(op, self._origins.get(id(part), (None, None))[1], part)


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
    place, inputs = first_bad(batch), None
    if place is not None:
        origin, fix = f"the data: {place} holds values that are not finite", "clean or mask that data before training"
    else:
        found, backwards = _replay(model, engine, batch, number, trained)
        fix = "lower the learning rate, scale the data, or clip gradients (clipnorm=1.0)"
        if found is None:
            origin = "the optimizer's update"
        else:
            layer = f"layer {found.path!r}" if found.path else _OUTSIDE if every_op.is_on() else "the loss"
            way = "the gradient of " if backwards else ""
            origin = f"{way}{layer}, op {found.op.name!r}"
            inputs = shapes_in(found.arrays)
    raised = NonFiniteError(
        f"training left the finite numbers at step {number}: first in {origin}",
        "finite losses and weights; the model keeps the last good weights",
        fix,
    )
    if place is None and inputs:
        raised.inputs = inputs
    return raised


def shapes_in(arrays: Any) -> str:
    """The shapes of the arrays in a structure, in words."""
    return ", ".join(shape_text(shape_of(leaf)) for leaf in tree.leaves(arrays) if hasattr(leaf, "shape"))


_OUTSIDE = "the loss, a metric or the optimizer"


def first_bad(batch: Any) -> str | None:
    """The first part of a batch that is not finite, in words."""
    for name, part in zip(("x", "y", "sample_weight"), batch, strict=False):
        for path, leaf in tree.flatten_with_path(part):
            if leaf is not None and Watch(every_op.mode() != "nan").is_bad(convert_to_numpy(leaf)):
                return name + "".join(f"[{key!r}]" for key in path)
    return None


def _replay(model: Any, engine: Any, batch: Any, number: int, trained: list[Variable]) -> tuple[Found | None, bool]:
    x, y, weight = batch

    def forward(values: list[Any]) -> tuple[Any, Any]:
        with context.bind(trained, values):
            y_pred = model(x, training=True)
            loss = model._loss_of(x, y, y_pred, weight, training=True)
        return loss, None

    def run() -> None:
        if model._own_steps() or every_op.is_on():
            model.train_step(batch)
        else:
            tape_value_and_grad(forward)(read_all(trained))

    return replayed(run, engine, number)


def replayed(run: Callable[[], Any], engine: Any, number: int) -> tuple[Found | None, bool]:
    """Run something op by op, changing nothing, to find the first op whose result is not finite.

    Args:
        run: what to run.
        engine: the engine.
        number: the step's number.

    Returns:
        what was found, and whether on the way back.
    """
    watch = Watch(every_op.mode() != "nan")
    token, loops = context.watcher.set(watch.forward), context.unroll.set(True)
    back, by_tape = context.way_back.set(watch.backward), context.by_tape.set(True)
    calls = context.on_call.set(None)
    try:
        with context.use_engine(engine), context.bind([], []), at_step(np.int32(number)), np.errstate(all="ignore"):
            run()
    except Found as found:
        return found, watch.back
    except Exception:  # a step that cannot be replayed (native functions) has no origin to name
        return None, False
    finally:
        context.on_call.reset(calls)
        context.watcher.reset(token)
        context.way_back.reset(back)
        context.by_tape.reset(by_tape)
        context.unroll.reset(loops)
    return None, False
