"""Names of classes in files, and the classes they stand for. A name is a key, never an import."""

import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

from cornu.core.errors import SavingError

__all__ = [
    "enrol",
    "find",
    "function_beside",
    "get_registered_name",
    "get_registered_object",
    "register",
    "registered_name",
]

T = TypeVar("T")
_by_name: dict[str, Any] = {}
_name_of: dict[Any, str] = {}


# Modules in which somebody has defined a class that is enrolled.
_modules: set[str] = set()
# class name -> the classes of that name, by `module>qualified name`
_by_class_name: dict[str, dict[str, type]] = {}


def enrol(cls: type) -> None:
    """Enter a class under `module>Name`; called for every Configurable when its class statement runs."""
    _modules.add(cls.__module__)
    if "<locals>" not in cls.__qualname__:
        key = f"{cls.__module__}>{cls.__qualname__}"
        _by_name[key] = cls
        _by_class_name.setdefault(cls.__name__, {})[key] = cls


def register(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Enter a class or function under `package>name`, as Keras's `register_keras_serializable` does.

    Args:
        package: the package part of the name.
        name: the name part; by default the object's own.

    Raises:
        SavingError: if another object of another origin has the name already.

    Example:
        >>> @register("shop")
        ... def double(x):
        ...     return x * 2
        >>> find("shop>double") is double
        True
    """

    def decorate(target: T) -> T:
        key = f"{package}>{name or target.__name__}"  # type: ignore[attr-defined]
        known = _by_name.get(key)
        if known is not None and _origin(known) != _origin(target):
            raise SavingError(f"the name {key!r} is taken by {known!r}", "a name of its own for each object")
        _by_name[key] = target
        _name_of[target] = key
        return target

    return decorate


def _origin(target: Any) -> tuple[str, str]:
    return getattr(target, "__module__", ""), getattr(target, "__qualname__", "")


def registered_name(target: Any) -> str:
    """The name an object goes by in a file: the one it was registered under, or `module>Name`."""
    if _is_registered(target):
        return _name_of[target]
    return f"{target.__module__}>{target.__qualname__}"


def _is_registered(target: Any) -> bool:
    try:
        return target in _name_of
    except TypeError:  # it has no hash
        return False


def can_be_found(target: Any) -> bool:
    """Whether a file that names this object could be loaded by a process that has imported it."""
    return _is_registered(target) or "<locals>" not in getattr(target, "__qualname__", "<locals>")


def find(name: str, custom_objects: dict[str, Any] | None = None) -> Any | None:
    """The object of a registered name or, from `custom_objects`, of a class name; `None` if there is none."""
    short = name.rpartition(">")[2]
    for source in (custom_objects or {}, scope):
        if name in source or short in source:
            return source.get(name, source.get(short))
    if name in _by_name:
        return _by_name[name]
    # A class that has moved (from `__main__` into a module, say) is found by its own name if only one has it.
    same = list(_by_class_name.get(short.rpartition(".")[2], {}).values())
    return same[0] if len(same) == 1 else None


def function_beside(module: str, name: str) -> Any | None:
    """A function by name, if it is defined at the top level of a module that defines an enrolled class too.

    So a layer's own helper functions need no decorator. Nothing is imported, and what a module has only imported does
    not count.
    """
    if module not in _modules or module.partition(".")[0] == "cornu" or module not in sys.modules:
        return None
    found = vars(sys.modules[module]).get(name)
    own = isinstance(found, types.FunctionType) and found.__module__ == module and found.__qualname__ == name
    return found if own else None


# Objects given by `custom_object_scope`, by class name.
scope: dict[str, Any] = {}


def get_registered_object(name: str, custom_objects: dict[str, Any] | None = None, module_objects: Any = None) -> Any:
    """The object registered under a name, or `None` (Keras's name for `find`)."""
    return find(name, custom_objects)


def get_registered_name(obj: Any) -> str:
    """The name an object was registered under, or its own (Keras's rule)."""
    return _name_of.get(obj) or str(obj.__name__)
