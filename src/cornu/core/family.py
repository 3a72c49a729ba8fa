"""`Family`: the names of one kind of object (initializers, optimizers ...), its `get`, `serialize` and `deserialize`.

The serialized form is Keras's: `{"module", "class_name", "config", "registered_name"}`. A name in it is
looked up, never imported.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cornu.core import dtypes, registry
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError, SavingError, near_miss

__all__ = ["Family", "deserialize_object", "serialize_object", "snake_case"]

# Keras's module name -> the family whose classes it names; and the module name of each house class.
_families: dict[str, "Family"] = {}
_module_of: dict[type, str] = {}


def snake_case(name: str) -> str:
    """A class name in small letters, by Keras's rule.

    Example:
        >>> snake_case("GlorotUniform"), snake_case("L1L2")
        ('glorot_uniform', 'l1_l2')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return "l1_l2" if name == "l1l2" else name


class Family:
    """One kind of object that is named in calls and files.

    Args:
        kind: what to call one in messages.
        module: Keras's module name, which files hold.
        classes: the house's classes.
        aliases: other names for them.
        check: tells whether an object is one of this kind; by default whether it can be called.
        ignore_case: whether `"adam"` names `Adam`.
    """

    def __init__(
        self,
        kind: str,
        module: str,
        classes: Iterable[type],
        aliases: dict[str, type] | None = None,
        check: Callable[[Any], bool] = callable,
        ignore_case: bool = False,
    ) -> None:
        self.kind = kind
        self.module = module
        self.check = check
        self.ignore_case = ignore_case
        self.names: dict[str, type] = dict(aliases or {})
        for cls in classes:
            self.names |= {cls.__name__: cls, snake_case(cls.__name__): cls}
            if ignore_case:
                self.names[cls.__name__.lower()] = cls
            _module_of[cls] = module
        _families[module] = self

    def get(self, identifier: Any) -> Any:
        """An object of this kind from a name, a config, a class (made without arguments), the object itself, or `None`.

        Raises:
            ArgumentError: if it is none of these.
        """
        if identifier is None:
            return None
        found = identifier
        if isinstance(identifier, str):
            found = self.class_of({"class_name": identifier}, None)
        elif isinstance(identifier, dict):
            found = self.deserialize(identifier)
        if inspect.isclass(found):
            found = found()
        if not self.check(found):
            raise ArgumentError(f"{identifier!r:.120} is no {self.kind}", f"a name, a config, or a {self.kind}")
        return found

    def serialize(self, value: Any) -> Any:
        """An object of this kind as a dict of plain values (a function by its registered name)."""
        return serialize_object(value)

    def deserialize(self, config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
        """The object of a serialized form.

        Args:
            config: what `serialize` gives, or a name.
            custom_objects: classes and functions by name, for those that are not registered.

        Raises:
            ArgumentError: if nothing has that name.
        """
        if isinstance(config, str):
            config = {"class_name": config}
        found = self.class_of(config, custom_objects)
        return _made(found, config.get("config"), custom_objects) if inspect.isclass(found) else found

    def class_of(self, config: dict[str, Any], custom_objects: dict[str, Any] | None) -> Any:
        """The class or function that a serialized form names.

        Raises:
            ArgumentError: if nothing has that name.
        """
        found = _registered(config, custom_objects)
        if found is None:
            name = str(config.get("class_name"))
            found = self.names.get(name) or (self.names.get(name.lower()) if self.ignore_case else None)
        if found is None:
            found = _enrolled(config)
        if found is None:
            name = config.get("registered_name") or config.get("class_name")
            raise ArgumentError(
                f"there is no {self.kind} {name!r}{near_miss(str(name), self.names)}",
                f"one of {', '.join(sorted(cls.__name__ for cls in set(self.names.values())))}",
                "or name your own: custom_objects={'Name': Name}",
            )
        return found


def _registered(config: dict[str, Any], custom_objects: dict[str, Any] | None) -> Any:
    """What the caller's or the scope's custom objects hold under the name."""
    name = config.get("class_name")
    if name == "function":
        name = config["config"]
    for source in (custom_objects or {}, registry.scope):
        for key in (config.get("registered_name"), name):
            if key in source:
                return source[key]
    return None


def _enrolled(config: dict[str, Any]) -> Any:
    """What class statements and `register` have entered under the name."""
    name = config["config"] if config.get("class_name") == "function" else config.get("class_name")
    for key in (config.get("registered_name"), f"{config.get('module')}>{name}", f"Custom>{name}", name):
        found = registry.find(str(key)) if key else None
        if found is not None:
            return found
    return None


def _made(cls: type, config: dict[str, Any] | None, custom_objects: dict[str, Any] | None) -> Any:
    config = {key: deserialize_object(value, custom_objects) for key, value in (config or {}).items()}
    return cls.from_config(config) if hasattr(cls, "from_config") else cls(**config)


def deserialize_object(value: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """A serialized value, whatever it is: an object's form is made into the object, plain values stay.

    Raises:
        ArgumentError: if it names what nobody has enrolled.
    """
    if isinstance(value, list):
        return [deserialize_object(item, custom_objects) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value or "config" not in value:
        return {key: deserialize_object(item, custom_objects) for key, item in value.items()}
    if value["class_name"] in ("__numpy__", "__tensor__"):
        return np.asarray(value["config"]["value"], dtypes.numpy_dtype(value["config"]["dtype"]))
    family = _families.get(str(value.get("module")))
    if family is not None:
        return family.deserialize(value, custom_objects)
    found = _registered(value, custom_objects) or _enrolled(value)
    if found is None:
        raise ArgumentError(
            f"nothing is registered as {value.get('registered_name') or value['class_name']!r}",
            "a class whose module has been imported",
            "import it, or pass custom_objects={'Name': Name}",
        )
    return _made(found, value["config"], custom_objects) if inspect.isclass(found) else found


def serialize_object(value: Any) -> Any:
    """Any value of a config as plain values: objects by their class's name and config, functions by their name.

    Raises:
        SavingError: for a function that could not be found again.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(serialize_object(item) for item in value)
    if isinstance(value, dict):
        return {key: serialize_object(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        if value.ndim == 0:
            return value.item()
        return {"class_name": "__numpy__", "config": {"value": value.tolist(), "dtype": value.dtype.name}}
    if isinstance(value, Configurable) or hasattr(value, "get_config"):
        cls = type(value)
        module = _module_of.get(cls)
        return {
            "module": module or cls.__module__,
            "class_name": cls.__name__,
            "config": {key: serialize_object(item) for key, item in value.get_config().items()},
            "registered_name": None if module else registry.registered_name(cls),
        }
    if callable(value) and hasattr(value, "__name__"):
        if value.__name__ == "<lambda>":
            raise SavingError(f"{value!r} has no name", "a function with a name", "write it with def and register it")
        return {
            "module": value.__module__,
            "class_name": "function",
            "config": value.__name__,
            "registered_name": registry.registered_name(value),
        }
    raise SavingError(f"{value!r:.80} of type {type(value).__name__} cannot be written", "numbers, text or objects")
