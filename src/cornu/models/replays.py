"""Calls of a graph on values, by what earlier calls like them came down to (`engines/replay.py`).

The third call on inputs of the same shapes and dtypes is recorded, if the model is a graph of Cornu's own layers, and
compared with its replay, as the fourth is; then the replay serves while nothing that the layers hold is replaced.
Whoever wants to see the ops or layers as they run (a debugger, a watcher, a tape, a compiler's trace) is given the
ordinary call.
"""

import functools
import itertools
import operator
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cornu.core import context, tree
from cornu.core.errors import CornuError
from cornu.core.variable import structure_version
from cornu.engines import registry
from cornu.engines.replay import Recorder, Replay
from cornu.layers._context import current
from cornu.ops._declare import ENGINE_RANK, dtype_of, outermost, shape_of, value_masks

__all__ = ["MISSING", "Replays"]

MISSING = object()  # where there is nothing to be run again
_MANY = 16  # kinds of inputs that a model remembers
_RECORDED, _TRUSTED = 3, 4  # the call that is recorded, and the last that is compared with its replay


class Replays:
    """What calls of a model have come down to.

    Args:
        model: a model with a graph, built.

    Attributes:
        function: its graph.
        version: the count of changes of structure up to which it holds.
        replayed: how many calls were answered by one.
    """

    def __init__(self, model: Any) -> None:
        self.function = model._function
        self.version = structure_version[0]
        self._layers = [layer for layer in model._flatten_layers() if layer is not model]
        self._held = [vars(layer) for layer in self._layers]
        self._counts = list(map(len, self._held))
        self._then = list(_values_of(self._held))
        self._inputs = [(len(tensor.shape), tensor.dtype) for tensor in self.function.flat_inputs]
        self._one = not tree.is_nested(self.function.inputs), not tree.is_nested(self.function.outputs)
        self._found: dict[Any, _Known] = {}
        self.replayed = 0

    def serves(self, model: Any) -> bool:
        """Whether what was found still holds."""
        if self.function is not model._function or self.version != structure_version[0]:
            return False
        return list(map(len, self._held)) == self._counts and all(map(operator.is_, _values_of(self._held), self._then))

    def call(self, model: Any, given: Any, said: dict[str, Any], ordinary: Callable[..., Any]) -> Any:
        """The model's outputs, run again or recorded; `MISSING` if the ordinary call is wanted.

        Args:
            model: the model.
            given: its inputs in their structure.
            said: what the caller said beside them.
            ordinary: calls the model on both.
        """
        if not _undisturbed():
            return MISSING
        try:
            engine = context.chosen_engine() or outermost(given, None) or registry.default_engine()
            inputs = self._values(given, engine) if engine.rank == ENGINE_RANK else None
        except CornuError:
            return MISSING  # the ordinary call says where
        if inputs is None:
            return MISSING
        key = (engine.name, said.get("training"), *map(_sizes, inputs))
        known = self._found.get(key, _NEW)
        if known.replay is not None and known.calls >= _TRUSTED:
            self.replayed += 1
            model._clear_losses()
            with context.use_engine(engine):
                outputs = known.replay(inputs)
            return outputs[0] if self._one[1] else tree.pack(self.function.outputs, outputs)
        if known.hopeless or context.bindings.get() is not None:
            return MISSING
        if known is _NEW:
            if len(self._found) == _MANY:
                return MISSING
            known = self._found[key] = _Known()
        known.calls += 1
        if known.calls < _RECORDED:
            return MISSING
        with context.use_engine(engine):
            return self._compared(model, known, engine, inputs, functools.partial(ordinary, **said))

    def _values(self, given: Any, engine: Any) -> list[Any] | None:
        """The engine's values of the inputs, if they are just what the graph takes."""
        if engine.owns(np.ndarray):
            return None  # its values cannot be told from constants
        values = [given] if self._one[0] else self.function.bind(given)
        found = []
        for value, (rank, dtype) in zip(values, self._inputs, strict=True):
            if type(value) is np.ndarray:
                if value.dtype.name != dtype:
                    return None
                own = engine.from_host(value)
                own = value.view() if own is value else own
            elif engine.owns(type(value)) and not engine.is_tracing(value) and dtype_of(value) == dtype:
                own = engine.from_any(value)
            else:
                return None
            if len(own.shape) != rank or id(value) in value_masks:
                return None
            found.append(own)
        return found

    def _compared(
        self, model: Any, known: "_Known", engine: Any, inputs: list[Any], ordinary: Callable[[Any], Any]
    ) -> Any:
        """The outputs of the ordinary call, recorded if it was not yet; a replay must give the very same."""
        given = tree.pack(self.function.inputs, inputs)
        if known.replay is None and self._can_be_recorded(model):
            recorder = Recorder(engine, inputs, model.variables)
            with recorder.recording():
                outputs = ordinary(given)
            if not any(map(_is_special, self._layers)):
                known.replay = recorder.replay(tree.leaves(outputs))
        else:
            outputs = ordinary(given)
        if known.replay is not None:
            for value, again in zip(tree.leaves(outputs), known.replay(inputs), strict=True):
                if not np.array_equal(engine.to_host(value), engine.to_host(again), equal_nan=True):
                    known.replay = None
        known.hopeless = known.replay is None
        return outputs

    def _can_be_recorded(self, model: Any) -> bool:
        """Whether a call is nothing but Cornu's own ops."""
        return (
            model._is_plain_graph()
            and not any(map(_is_special, self._layers))
            and not any(map(_has_own_code, self._layers))
            and not any(self.function.way([None] * len(self._inputs)).masked)
        )


def _sizes(value: Any) -> tuple[Any, ...]:
    shape = value.shape
    return shape if isinstance(shape, tuple) else shape_of(value)


def _values_of(dicts: list[dict[str, Any]]) -> Iterator[Any]:
    return itertools.chain.from_iterable(map(dict.values, dicts))


class _Known:
    """What is known of calls on inputs of some shapes.

    Attributes:
        calls: how many there were, replays not counted.
        replay: what they come down to, once recorded.
        hopeless: whether they cannot be run again.
    """

    __slots__ = ("calls", "hopeless", "replay")

    def __init__(self) -> None:
        self.calls = 0
        self.replay: Replay | None = None
        self.hopeless = False


_NEW = _Known()


def _undisturbed() -> bool:
    """Whether nobody looks at how a call is made, and it is no part of a larger one."""
    return (
        current.get() is None
        and context.watcher.get() is None
        and context.on_call.get() is None
        and context.on_node.get() is None
        and context.tape.get() is None
        and context.autocast_dtype.get() is None
        and not context.by_tape.get()
        and not context.unroll.get()
        and not context.is_abstract()
        and sys.gettrace() is None
    )


def _is_special(layer: Any) -> bool:
    """Whether a layer's call leaves something behind, or is more than its `call`."""
    return (
        layer._native is not None
        or layer._remat is not None
        or layer.activity_regularizer is not None
        or bool(layer._call_losses)
    )


def _has_own_code(layer: Any) -> bool:
    """Whether a layer holds a function, or an object that can be called, of the user's."""
    for value in vars(layer).values():
        if callable(value) and not isinstance(value, type) and not hasattr(value, "dtype"):
            owner = value if isinstance(value, types.FunctionType) else type(value)
            if not (owner.__module__ or "").startswith("cornu."):
                return True
    return False
