"""Where in training a computation stands: the seed and the step, from which random layers make their keys.

A key is a pure function of (seed, step, layer, draw): nothing random needs saving, and every engine draws the same.
"""

import contextlib
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.layers._context import call_in_force
from cornu.ops import random

__all__ = ["clock", "layer_key"]

_clock: ContextVar[Any] = ContextVar("cornu_clock", default=None)


@contextlib.contextmanager
def clock(step: Any) -> Iterator[None]:
    """Say which step of training the block computes (an int32 scalar, which may be traced)."""
    token = _clock.set(step)
    try:
        yield
    finally:
        _clock.reset(token)


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
    step = _clock.get()
    if step is None:  # outside a step each call draws anew
        count = vars(layer).get("_eager_draws", 0)
        vars(layer)["_eager_draws"] = count + 1
        step = np.uint32(0x80000000 + count)
    return random.fold_in(random.fold_in(random.key(seed), np.uint32(salt)), step)
