"""Finding the layers and variables an object holds, however it holds them.

Nothing is noted when an attribute is set: the object is searched when somebody asks. So a layer appended to a list
later, or kept in a dict, a dataclass, a plain object or a closure, is found like any other.
"""

import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from cornu.core.variable import Variable

__all__ = ["children"]

# Libraries whose objects are values, not holders of layers.
_OPAQUE = {
    "numpy", "jax", "jaxlib", "torch", "tensorflow", "keras", "pytensor", "onnxruntime", "onnx", "pandas", "polars",
    "h5py",
    "PIL", "scipy", "sklearn", "matplotlib", "ml_dtypes",
}  # fmt: skip
_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.BuiltinFunctionType)
_PLAIN = frozenset(_LEAVES)


def _opaque(kind: type) -> bool:
    top = kind.__module__.partition(".")[0]
    return top in _OPAQUE or (top in sys.stdlib_module_names and top not in ("__main__", "types", "collections"))


def _parts(holder: Any) -> Iterator[Any]:
    """What a container, plain object or closure holds directly."""
    if isinstance(holder, dict):
        yield from holder.values()
        yield from (key for key in holder if not isinstance(key, _LEAVES))
    elif isinstance(holder, (list, tuple, set, frozenset, deque)):
        yield from holder
    elif isinstance(holder, functools.partial):
        yield from (holder.func, *holder.args, *holder.keywords.values())
    elif isinstance(holder, types.MethodType):
        yield holder.__self__
    elif isinstance(holder, types.FunctionType):
        yield from (*(holder.__defaults__ or ()), *(holder.__kwdefaults__ or {}).values())
        for cell in holder.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue
    elif not _opaque(type(holder)) and getattr(type(holder), "_shares_variables", True):
        yield from vars(holder).values() if hasattr(holder, "__dict__") else ()
        for kind in type(holder).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(holder, slot) and slot not in ("__dict__", "__weakref__"):
                    yield getattr(holder, slot)


def children(holder: Any, kinds: tuple[type, ...], skip: Callable[[str], bool]) -> list[Any]:
    """The objects of these kinds, and variables, that an object holds: the nearest ones, in order of its attributes.

    Args:
        holder: the object; its own attributes are searched.
        kinds: classes to look for; what they hold themselves is theirs.
        skip: tells of an attribute's name that it is not to be searched.

    Returns:
        each found object once.
    """
    found: list[Any] = []
    seen = {id(holder)}
    # Not `isinstance`: of a class with a metaclass of `abc` that asks all its subclasses, once for each type it meets.
    sought = {Variable, *kinds}
    pending = [value for name, value in reversed(vars(holder).items()) if not skip(name)]
    while pending:
        item = pending.pop()
        if type(item) in _PLAIN or isinstance(item, _LEAVES) or id(item) in seen:
            continue
        seen.add(id(item))
        if not sought.isdisjoint(type(item).__mro__):
            found.append(item)
            continue
        pending.extend(reversed(list(_parts(item))))
    return found
