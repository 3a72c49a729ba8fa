"""Where in training a computation stands: the seed and the step, from which random layers make their keys.

A key is a pure function of (seed, step, layer, draw): nothing random needs saving, and every engine draws the same.
"""

import zlib
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import context
from cornu.core.errors import EngineError
from cornu.core.variable import Variable
from cornu.layers._context import call_in_force
from cornu.ops import random

__all__ = ["Numbers", "is_compiling", "layer_key", "numbers"]


def layer_key(layer: Any, seed: int) -> Any:
    """The key of a layer's next draw.

    Args:
        layer: the layer that draws. Its place among those that draw in the outermost call tells it from others of the
            same seed; names do not count, since automatic ones differ when the same program makes a model twice.
        seed: the layer's seed.

    Returns:
        key, two uint32.
    """
    call = call_in_force()
    draws = call.root.draws if call is not None else {}
    place, draw = draws.get(id(layer), (len(draws), 0))
    draws[id(layer)] = place, draw + 1
    salt = (zlib.crc32(place.to_bytes(4, "little")) + 0x9E3779B9 * draw) & 0xFFFFFFFF
    step = context.step.get()
    if step is None and is_compiling():
        step = _counted(layer)
    elif step is None:  # outside a step each call draws anew
        noted = numbers.get()
        step = np.uint32(0x80000000 + (_next_number(layer) if noted is None else noted.next(layer)))
    return random.fold_in(random.fold_in(random.key(seed), np.uint32(salt)), step)


class Numbers:
    """The numbers of the draws of a function that may be called again, in order: it then draws the same.

    Args:
        compiling: whether the user compiles what calls the function.
        outer: the numbers of a function around this one, or `None`.

    Attributes:
        at: which number is next; after the last one the layer that draws counts on.
    """

    def __init__(self, compiling: bool, outer: "Numbers | None") -> None:
        self.compiling = compiling
        self.outer = outer
        self.at = 0
        self._known: list[int] = []

    def next(self, layer: Any) -> int:
        """The number of a layer's next draw."""
        if self.at == len(self._known):
            self._known.append(_next_number(layer) if self.outer is None else self.outer.next(layer))
        self.at += 1
        return self._known[self.at - 1]


# The numbers of the draws outside of steps, while a function runs that may be called again.
numbers: ContextVar[Numbers | None] = ContextVar("cornu_draw_numbers", default=None)


def is_compiling() -> bool:
    """Whether a function that the user compiles is being traced."""
    noted = numbers.get()
    return context.engine_in_force().is_compiling() if noted is None else noted.compiling


def _next_number(layer: Any) -> int:
    count: int = vars(layer).get("_eager_draws", 0)
    vars(layer)["_eager_draws"] = count + 1
    return count


def _counted(layer: Any) -> Any:
    """The number of the call of a function that the user compiles: counted on the engine, for no key may be fixed.

    Raises:
        EngineError: if the engine has no place for a count.
    """
    engine = context.engine_in_force()
    count = vars(layer).get("_compiled_draws")
    if count is None:
        start = np.array(0x40000000, np.uint32)
        count = vars(layer)["_compiled_draws"] = Variable(start, trainable=False, autocast=False, name="draws")
        count.path, count.is_seed = f"{layer.path}/draws", True
    scope = context.bindings.get()
    if (scope is None or id(count) not in scope.values) and count.find_home(engine) is None:
        raise EngineError(
            f"layer {layer.path!r} draws random numbers inside a function that {engine.name!r} compiles: "
            "every call would draw the same",
            "the step's number",
            "with cornu.random.at_step(step): ... inside the function, where step is one of its arguments",
        )
    return count.assign_add(np.uint32(1))
