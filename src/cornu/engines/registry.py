"""Which engines there are, which is in force, and who owns a value. Engines are imported when first asked for."""

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from cornu.core import context
from cornu.core.errors import EngineError, MissingEngineError, near_miss
from cornu.ops import _declare

__all__ = ["available", "default_engine", "engine", "engines", "get", "set_engine"]

# name -> (module, library it needs, extra that brings the library)
ENGINES = {
    "numpy": ("cornu.engines.numpy", "numpy", None),
    "jax": ("cornu.engines.jax", "jax", None),
    "tensorflow": ("cornu.engines.tensorflow", "tensorflow", "tensorflow"),
    "torch": ("cornu.engines.torch", "torch", "torch"),
    "pytensor": ("cornu.engines.pytensor", "pytensor", "pytensor"),
    "onnxruntime": ("cornu.engines.onnxruntime", "onnxruntime", "onnx"),
}

_loaded: dict[str, Any] = {}
_lock = threading.RLock()
_default: list[str | None] = [None]


def get(name: Any) -> Any:
    """The engine of a name (an engine itself is given back).

    Args:
        name: `"numpy"`, `"jax"`, ...

    Raises:
        EngineError: if there is no such engine.
        MissingEngineError: if its library is not installed.
    """
    if not isinstance(name, str):
        return name
    found = _loaded.get(name)
    if found is not None:
        return found
    if name not in ENGINES:
        raise EngineError(f"engine {name!r}{near_miss(name, ENGINES)}", f"one of {', '.join(ENGINES)}")
    module, library, extra = ENGINES[name]
    with _lock:
        if name not in _loaded:
            try:
                importlib.import_module(library)
            except ImportError as error:
                install = f"pip install 'cornu[{extra}]'" if extra else f"pip install {library}"
                raise MissingEngineError(
                    f"engine {name!r} needs {library}: {error}", "it installed", install
                ) from error
            _loaded[name] = importlib.import_module(module).ENGINE
            _declare.forget_types()
    return _loaded[name]


def engines() -> list[str]:
    """The names of all engines Cornu knows."""
    return list(ENGINES)


def available() -> list[str]:
    """The names of the engines whose library is installed (found without importing it)."""
    return [name for name, (_, library, _) in ENGINES.items() if importlib.util.find_spec(library) is not None]


def default_engine() -> Any:
    """The engine that is used where none was chosen: `set_engine`'s, `CORNU_ENGINE`'s, else `jax`."""
    return get(_default[0] or os.environ.get("CORNU_ENGINE") or "jax")


def set_engine(name: str) -> None:
    """Choose the default engine of this process; it is imported when first needed.

    Raises:
        EngineError: if there is no such engine.
    """
    if name not in ENGINES:
        raise EngineError(f"engine {name!r}{near_miss(name, ENGINES)}", f"one of {', '.join(ENGINES)}")
    _default[0] = name


@contextlib.contextmanager
def engine(name: str) -> Iterator[Any]:
    """Put an engine in force for a `with` block.

    Args:
        name: the engine's name.

    Example:
        >>> import cornu
        >>> with cornu.engine("numpy"):
        ...     type(cornu.ops.zeros(2)).__name__
        'ndarray'
    """
    with context.use_engine(get(name)) as chosen:
        yield chosen


def _owner(kind: type) -> Any:
    """Who interprets values of a type: an engine whose library has been imported already."""
    for name, (_, library, _) in ENGINES.items():
        if name != "numpy" and library in sys.modules and _belongs(kind, library) and get(name).owns(kind):
            found = get(name)
            return lambda value: found
    return None


def _belongs(kind: type, library: str) -> bool:
    return any(base.__module__.partition(".")[0].startswith(library) for base in kind.__mro__)


context.default_engine = default_engine
_declare.find_interpreters(_owner)
