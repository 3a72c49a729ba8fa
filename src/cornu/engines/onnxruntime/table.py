"""Every primitive in ONNX: a function of the table writes nodes where a graph is under construction, and runs a session
of its own where there is none."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import dtypes
from cornu.engines.onnxruntime import contraction, control, elementwise, movement, reductions, windows
from cornu.engines.onnxruntime.nodes import Value
from cornu.engines.onnxruntime.session import Program

__all__ = ["TABLE", "concrete"]

# Name of a primitive -> function of values that writes its nodes.
WRITERS: dict[str, Callable[..., Any]] = {
    **elementwise.TABLE,
    **reductions.TABLE,
    **movement.TABLE,
    **contraction.TABLE,
    **windows.TABLE,
}

# Name of a primitive -> function of host arrays, for those that compute nothing.
HOST: dict[str, Callable[..., Any]] = {
    "stop_gradient": lambda x: x,
    "as_tensor": lambda x: x,
    "broadcast_to_shape": lambda x, shape: np.broadcast_to(x, shape),
    "iota": lambda size, dtype: np.arange(size, dtype=dtypes.numpy_dtype(dtype)),
    "size_as_array": lambda size: np.asarray(size, np.int32),
    "reshape_to": lambda x, shape: np.reshape(x, shape),
    "permute": lambda x, axes: np.transpose(x, axes),
    "flip_axes": lambda x, axes: np.flip(x, axes),
    "slice_static": lambda x, starts, stops, steps: x[tuple(map(slice, starts, stops, steps))],
}

# How many single ops keep their sessions.
_KEPT = 1024

_programs: "OrderedDict[Any, tuple[Program, bool]]" = OrderedDict()
_lock = threading.Lock()


@functools.lru_cache(maxsize=64)
def _name_of(dtype: Any) -> str:
    return dtypes.standardize_dtype(dtype)


def concrete(array: np.ndarray) -> Value:
    """A host array as a value."""
    return Value(array.shape, _name_of(array.dtype), array=array)


def _key(value: Any) -> Any:
    kind = type(value)
    if kind is Value:
        return value.shape, value.dtype
    if kind is list or kind is tuple:
        return tuple(map(_key, value))
    return value


def _flat(arguments: tuple[Any, ...]) -> list[Value]:
    found: list[Value] = []
    for value in arguments:
        found.extend(value) if type(value) is list else found.append(value)
    return found


def _run(name: str, arguments: tuple[Any, ...], static: dict[str, Any]) -> Any:
    """A primitive of concrete values, by the session kept for its shapes and dtypes."""
    key = (name, _key(arguments), tuple((n, _key(v)) for n, v in static.items()))
    with _lock:
        found = _programs.get(key)
        if found is not None:
            _programs.move_to_end(key)
    values = _flat(arguments)
    if found is None:
        found = _made(name, arguments, static)
        with _lock:
            _programs[key] = found
            if len(_programs) > _KEPT:
                _programs.popitem(last=False)
    program, many = found
    results = program(values)
    return tuple(results) if many else results[0]


def _made(name: str, arguments: tuple[Any, ...], static: dict[str, Any]) -> tuple[Program, bool]:
    many: list[bool] = []

    def write(values: list[Value]) -> list[Value]:
        rest = iter(values)
        given = [[next(rest) for _ in a] if type(a) is list else next(rest) for a in arguments]
        result = WRITERS[name](*given, **static)
        many.append(isinstance(result, tuple))
        return list(result) if many[0] else [result]

    program = Program(write, [(v.shape, v.dtype) for v in _flat(arguments)], single=True)
    return program, many[0]


def _entry(name: str) -> Callable[..., Any]:
    write, host = WRITERS[name], HOST.get(name)

    def run(*arguments: Any, **static: Any) -> Any:
        for value in arguments:
            if value.array is None if type(value) is Value else any(part.array is None for part in value):
                return write(*arguments, **static)
        if host is not None:
            return concrete(np.asarray(host(*(value.array for value in arguments), **static)))
        return _run(name, arguments, static)

    return run


TABLE: dict[str, Callable[..., Any]] = {name: _entry(name) for name in WRITERS} | control.TABLE
