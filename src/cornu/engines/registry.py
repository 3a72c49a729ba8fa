"""Which engines there are, which is in force, and who owns a value. Engines are imported when first asked for."""

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cornu.core import context
from cornu.core.errors import EngineError, MissingEngineError, near_miss
from cornu.engines import compile_cache
from cornu.engines.versions import LEAST, too_old
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

# Other names that users know an engine by -> (the engine, what to say once).
ALIASES = {
    "theano": ("pytensor", "engine 'theano' is PyTensor, Theano's living successor"),
    "onnx": ("onnxruntime", None),
    "tf": ("tensorflow", None),
    "pytorch": ("torch", None),
}

_loaded: dict[str, Any] = {}
_said: set[str] = set()
_lock = threading.RLock()
_default: list[str | None] = [None]
# What a `with cornu.engine("auto")` block was given.
_auto: ContextVar[Any] = ContextVar("cornu_auto", default=None)


def get(name: Any) -> Any:
    """The engine of a name (an engine itself is given back).

    Args:
        name: `"numpy"`, `"jax"`, `"tensorflow"`, `"torch"`, `"pytensor"` or `"onnxruntime"`.

    Raises:
        EngineError: if there is no such engine.
        MissingEngineError: if its library is not installed.
    """
    if not isinstance(name, str):
        return name
    found = _loaded.get(name)
    if found is not None:
        return found
    name = standard_name(name)
    module, library, extra = ENGINES[name]
    with _lock:
        if name not in _loaded:
            try:
                if importlib.util.find_spec(library) is None:
                    raise ModuleNotFoundError(f"No module named {library!r}", name=library)
                if (old := too_old(library)) is not None:
                    raise ImportError(f"version {old} is installed", name=library)
                made = import_undrawn(module).ENGINE  # which imports the library
            except ImportError as error:
                if (error.name or "").startswith("cornu"):
                    raise
                install = f"pip install 'cornu[{extra}]'" if extra else f"pip install {library}"
                least = f" {LEAST[library]} or newer" if library in LEAST else ""
                raise MissingEngineError(
                    f"engine {name!r} needs {library}{least}: {error}", "it installed", install
                ) from error
            _loaded[name] = made
            _declare.forget_types()
            compile_cache.tell(made)
    return _loaded[name]


def import_undrawn(module: str) -> Any:
    """Import a module whose libraries may draw from NumPy's generator, which is the user's and is left as it was."""
    drawn = np.random.get_state()
    try:
        return importlib.import_module(module)
    finally:
        np.random.set_state(drawn)


def standard_name(name: str) -> str:
    """The name of an engine that may have been given by another name.

    Raises:
        EngineError: if there is no such engine.
    """
    if name in ALIASES:
        name, said = ALIASES[name]
        if said is not None and said not in _said:
            _said.add(said)
            print(said, file=sys.stderr)
    if name == "auto":
        raise EngineError(
            "engine 'auto' where no model is at hand to be measured",
            f"one of {', '.join(ENGINES)}",
            "model.fit(..., engine='auto'), or compile, evaluate, predict, set_engine, a with block",
        )
    if name not in ENGINES:
        raise EngineError(f"engine {name!r}{near_miss(name, ENGINES)}", f"one of {', '.join(ENGINES)}")
    return name


def reference() -> Any:
    """The engine that is always there and comes with no import: NumPy's."""
    return get("numpy")


def engines() -> list[str]:
    """The names of all engines Cornu knows."""
    return list(ENGINES)


def available() -> list[str]:
    """The names of the engines whose library is installed, and new enough (found without importing it)."""
    libraries = {name: library for name, (_, library, _) in ENGINES.items()}
    return [n for n, library in libraries.items() if importlib.util.find_spec(library) and not too_old(library)]


def default_engine() -> Any:
    """The engine that is used where none was chosen.

    `set_engine`'s; else that of the environment variable `CORNU_ENGINE`; else `KERAS_BACKEND`'s, if it names one of
    these engines; else `jax`. While a function is traced that the user compiles with an engine itself
    (`tf.function`), it is that engine.
    """
    for found in _loaded.values():
        if found.follows_users and found.is_compiling():
            return found
    return get(fallback_name())


def fallback_name() -> str:
    """The name of the default engine; where that is `"auto"`, the one for what no model computes."""
    name = _default_name()
    return standard_name(_keras_backend() or "jax" if name == "auto" else name)


def _default_name() -> str:
    return _default[0] or os.environ.get("CORNU_ENGINE") or _keras_backend() or "jax"


def is_auto(name: Any) -> bool:
    """Whether what a user gave as engine is `"auto"` or an `Auto`."""
    return name == "auto" if isinstance(name, str) else hasattr(name, "candidates")


def auto_in_force() -> Any:
    """The `"auto"` or `Auto` of the `with` block here, or of the default; `None` where an engine was chosen."""
    if context.chosen_engine() is not None:
        return _auto.get()
    return "auto" if _default_name() == "auto" else None


def _keras_backend() -> str | None:
    name = os.environ.get("KERAS_BACKEND")
    return name if name in ENGINES or name in ALIASES else None


def set_engine(name: str) -> None:
    """Choose the default engine of this process; it is imported when first needed.

    Args:
        name: the engine's name, or `"auto"` to let each model choose by measurement.

    Raises:
        EngineError: if there is no such engine.
    """
    _default[0] = name if name == "auto" else standard_name(name)


@contextlib.contextmanager
def engine(name: str) -> Iterator[Any]:
    """Put an engine in force for a `with` block.

    Args:
        name: the engine's name; `"auto"` lets each model choose by measurement (all else runs on the default engine).

    Example:
        >>> import cornu
        >>> with cornu.engine("numpy"):
        ...     type(cornu.ops.zeros(2)).__name__
        'ndarray'
    """
    measured = is_auto(name)
    token = _auto.set(name if measured else None)
    try:
        with context.use_engine(default_engine() if measured else get(name)) as chosen:
            yield chosen
    finally:
        _auto.reset(token)


def choose(values: Any) -> Any:
    """The engine for a call that names none: the one of the `with` block, else of the values, else the default.

    Args:
        values: a structure of what the call is given.

    Raises:
        EngineError: if the values belong to two engines.
    """
    found = context.chosen_engine() or _declare.owner_of(values)
    return found if found is not None else default_engine()


@contextlib.contextmanager
def in_force_for(values: Any) -> Iterator[None]:
    """Put the engine of values in force for a block, unless a block around chose one."""
    if context.chosen_engine() is not None or context.is_abstract():
        yield
        return
    with context.use_engine(choose(values)):
        yield


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
context.find_engine = get
_declare.find_interpreters(_owner)
