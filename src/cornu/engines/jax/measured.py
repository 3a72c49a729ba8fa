"""The way to compute a convolution or a pooling window, measured on this machine where that is asked for.

It is asked for by `compile(jit_compile=True)`, or for all by the environment variable `CORNU_JAX_MEASURE=1`; else
`choice.usual` decides at no cost. Each case is measured once, on numbers of its own, and kept in Cornu's cache.
"""

import contextlib
import functools
import hashlib
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from cornu.engines import cache
from cornu.engines.installed import machine, threads
from cornu.engines.jax.choice import WAYS, possible, usual
from cornu.engines.jax.compiling import options

__all__ = ["measuring", "way"]

# Seconds that all measuring in a process may take; afterwards `choice.usual` decides.
_BUDGET = 60.0
_ROUNDS, _SECONDS = 9, 0.3  # runs of each way, and after how long there are no more of them
_GAIN = 0.95  # of the usual way's time another way must stay under

_wanted: ContextVar[bool] = ContextVar("cornu_jax_measure", default=False)
_known: dict[str, str] = {}
_lock = threading.Lock()
_spent = [0.0]


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """What is compiled inside takes the ways that are measured to be fastest."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def way(op: str, shapes: list[Any], dtype: str, static: dict[str, Any]) -> str:
    """The way to compute an op on a CPU; arguments as for `choice.possible`."""
    expected = usual(op, shapes, dtype, static)
    if not (_wanted.get() or os.environ.get("CORNU_JAX_MEASURE") == "1"):
        return expected
    ways = possible(op, shapes, dtype, static)
    if len(ways) == 1 or not all(isinstance(shape[0], int) for shape in shapes):
        return expected
    what = {
        "op": op,
        "shapes": shapes,
        "dtype": dtype,
        "static": static,
        "jax": jax.__version__,
        "machine": machine(),
        "threads": threads(),
        "options": options(),
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    with _lock:
        if key not in _known:
            remembered = (cache.read(key) or {}).get("way")
            if remembered in ways:
                _known[key] = remembered
            elif _spent[0] < _BUDGET:
                _known[key] = _measure(key, what, ways, expected)
            else:
                return expected
        return _known[key]


def _measure(key: str, what: dict[str, Any], ways: list[str], expected: str) -> str:
    """The fastest way, which is kept on disk too. In a thread of its own: its caller may be inside a trace."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(_times(what["op"], what["shapes"], what["dtype"], what["static"], ways))
        except Exception as error:  # handed over to the thread that asked
            found.append(error)

    start = time.perf_counter()
    thread = threading.Thread(target=run, name="cornu-measure")
    thread.start()
    thread.join()
    _spent[0] += time.perf_counter() - start
    times = found[0]
    if isinstance(times, Exception):
        raise times
    best = min(times, key=times.__getitem__)
    if times[best] > _GAIN * times[expected]:
        best = expected
    with contextlib.suppress(OSError):  # a cache that cannot be written is one that is not there
        cache.write(key, {"way": best, "seconds": times, **what})
    return best


def _times(op: str, shapes: list[Any], dtype: str, static: dict[str, Any], ways: list[str]) -> dict[str, float]:
    """Seconds that each way takes: the median of runs in turns."""
    random = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"), jax.default_device(jax.devices("cpu")[0]):
        arrays = [jax.numpy.asarray(random.standard_normal(shape), dtype) for shape in shapes]
        compiled = {
            name: jax.jit(functools.partial(WAYS[op][name], **static), compiler_options=options())
            .lower(*arrays)
            .compile()
            for name in ways
        }
        taken = {name: [_seconds(function, arrays)] for name, function in compiled.items()}
        least = min(times[0] for times in taken.values())
        start = time.perf_counter()
        for _ in range(_ROUNDS):
            for name, function in compiled.items():
                if taken[name][0] < 10 * least:  # others are not run again
                    taken[name].append(_seconds(function, arrays))
            if time.perf_counter() - start > _SECONDS:
                break
    return {name: statistics.median(times[1:] or times) for name, times in taken.items()}


def _seconds(function: Any, arrays: list[Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    return time.perf_counter() - start
