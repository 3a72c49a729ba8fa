"""`Family`: the names of one kind of object (initializers, optimizers ...), its `get`, `serialize` and `deserialize`.

The serialized form is Keras's: `{"module", "class_name", "config", "registered_name"}`. A name in it is
looked up, never imported.
"""

import enum
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cornu.core import dtypes, registry
from cornu.core.config import Configurable
from cornu.core.dims import Dim, from_plain, to_plain
from cornu.core.errors import ArgumentError, CornuError, SavingError, UnsupportedError, near_miss
from cornu.core.names import snake_case

__all__ = ["Family", "deserialize_object", "serialize_object"]

# Keras's module name -> the family whose classes it names; and the module name of each house class.
_families: dict[str, "Family"] = {}
_module_of: dict[type, str] = {}


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
        self.add(classes)
        _families[module] = self

    def add(self, classes: Iterable[type]) -> None:
        """Enter more of the house's classes."""
        for cls in classes:
            self.names |= {cls.__name__: cls, snake_case(cls.__name__): cls}
            if cls.__name__ == "L1L2":  # Keras's one exception to its rule
                self.names["l1_l2"] = cls
            if self.ignore_case:
                self.names[cls.__name__.lower()] = cls
            _module_of[cls] = self.module

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
        return _made(found, config, custom_objects) if inspect.isclass(found) else found

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
            name = str(config.get("registered_name") or config.get("class_name"))
            raise ArgumentError(
                f"there is no {self.kind} {name!r}{near_miss(name, self.names)}",
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
    if config.get("class_name") == "function":
        return registry.function_beside(str(config.get("module")), str(name))
    return None


def _made(cls: type, given: dict[str, Any], custom_objects: dict[str, Any] | None) -> Any:
    """An object of a class from its serialized form; a user's own `from_config` gets the config as written."""
    config = dict(given.get("config") or {})
    method = getattr(cls, "from_config", None)
    if method is None or (
        method.__func__.__module__.startswith("cornu.") and not getattr(method.__func__, "raw_config", False)
    ):
        config = {key: deserialize_object(value, custom_objects) for key, value in config.items()}
    if cls in _module_of:
        config = _without_idle(cls, config)
    try:
        made = cls(**config) if method is None else method(config)
    except CornuError as error:
        error.locate(layer=f"{config.get('name')!r} ({cls.__name__}), being made from its config")
        raise
    if given.get("build_config") and hasattr(made, "build_from_config"):
        made.build_from_config(given["build_config"])
    if given.get("compile_config") and hasattr(made, "compile_from_config"):
        made.compile_from_config({k: deserialize_object(v, custom_objects) for k, v in given["compile_config"].items()})
    return made


# Arguments of Keras's classes that ours do not have, with values that ask for nothing.
_IDLE = {"renorm_momentum": 0.99, "jit_compile": True, "implementation": 2, "use_gate": False}


# Arguments of Keras's classes that ask for what a layer of ours does not do.
_NOT_DONE = {
    "lora_rank": "low-rank adaptation is not a part of layers here",
    "quantization_config": "quantised layers are not read yet",
}


def _without_idle(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """A config without the keys a house class does not take and whose values ask for nothing; others are refused."""
    for key, what in _NOT_DONE.items():
        if config.get(key):
            raise UnsupportedError(
                f"the file's {cls.__name__} {config.get('name')!r} has {key}={config[key]!r:.60}: {what}",
                "layers without it",
                "load the file with Keras, copy its weights into a plain model there, and save that",
            )
    taken: set[str] = set(getattr(cls, "_base_arguments", ()))
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            taken.update(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    if cls.from_config.__func__ is not Configurable.from_config.__func__:  # type: ignore[attr-defined]
        return config
    return {k: v for k, v in config.items() if k in taken or not (v is None or v is False or _IDLE.get(k) == v)}


def deserialize_object(value: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """A serialized value, whatever it is: an object's form is made into the object, plain values stay.

    Raises:
        ArgumentError: if it names what nobody has enrolled.
    """
    if type(value) in (list, tuple):
        return type(value)(deserialize_object(item, custom_objects) for item in value)
    if not isinstance(value, dict):
        return value
    if "class_name" not in value or "config" not in value:
        return {key: deserialize_object(item, custom_objects) for key, item in value.items()}
    if value["class_name"] in ("__numpy__", "__tensor__"):
        return np.asarray(value["config"]["value"], dtypes.numpy_dtype(value["config"]["dtype"]))
    if value["class_name"] in _special:
        return _special[value["class_name"]](value["config"])
    family = _family_of(str(value.get("module")), str(value["class_name"]))
    if family is not None:
        return family.deserialize(value, custom_objects)
    if str(value["class_name"]).startswith("Quantized") and str(value.get("module")).startswith("keras"):
        raise UnsupportedError(
            f"the file holds a {value['class_name']} ({value['config']!r:.80}): quantised layers are not read yet",
            "layers without it",
            "load the file with Keras, copy its weights into a plain model there, and save that",
        )
    found = _registered(value, custom_objects) or _enrolled(value)
    if found is None and value["class_name"] == "function":
        found = _house_function(str(value.get("module")), str(value["config"]))
    if found is None:
        raise ArgumentError(
            f"nothing is registered as {value.get('registered_name') or value['class_name']!r}",
            "a class whose module has been imported",
            "import it, or pass custom_objects={'Name': Name}",
        )
    return _made(found, value, custom_objects) if inspect.isclass(found) else found


def _bytes(config: dict[str, Any]) -> bytes:
    return str(config["value"]).encode()


def _slice(config: dict[str, Any]) -> slice:
    return slice(*(deserialize_object(config[key]) for key in ("start", "stop", "step")))


def _refuse_lambda(config: Any) -> Any:
    raise SavingError(
        "the file holds a Python lambda as machine code, which Cornu never runs",
        "functions by name",
        "register the function under a name (cornu.saving.register_keras_serializable) and save again",
    )


# Values that are no objects and yet have a form of their own in files.
_special: dict[str, Callable[[Any], Any]] = {
    "__bytes__": _bytes,
    "__slice__": _slice,
    "__size__": from_plain,
    "__ellipsis__": lambda config: Ellipsis,
    "__tuple__": lambda config: tuple(deserialize_object(config["value"])),
    "__lambda__": _refuse_lambda,
}


# Where the house keeps the classes that files name by Keras's modules; loaded when a file first names one.
_HOUSES = {
    "keras": "cornu.models",
    **{
        f"keras.{name}": f"cornu.{name}"
        for name in "layers initializers regularizers constraints losses metrics optimizers random".split()
    },
    "keras.optimizers.schedules": "cornu.optimizers",
}


def _family_of(module: str, class_name: str) -> "Family | None":
    """The family of a Keras module's name, private ones included; `None` for anything of the user's."""
    if module.partition(".")[0] not in ("keras", "keras_core", "tf_keras", "tensorflow"):
        return None
    if module in _HOUSES:
        importlib.import_module(_HOUSES[module])
    if module in _families:
        return _families[module]
    for house in _HOUSES.values():
        importlib.import_module(house)
    for family in _families.values():
        if class_name in family.names:
            return family
    return None


def serialize_object(value: Any) -> Any:
    """Any value of a config as plain values: objects by their class's name and config, functions by their name.

    Raises:
        SavingError: for a function that could not be found again.
    """
    return _serialized(value, False)


def _serialized(value: Any, exact: bool) -> Any:
    """The serialized form; if `exact`, tuples come back as tuples, and the house's functions as functions."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, (list, tuple)):
        items = [_serialized(item, exact) for item in value]
        if isinstance(value, tuple) and exact:
            return {"class_name": "__tuple__", "config": {"value": items}}
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SavingError(
                    f"a dict with the key {key!r} ({type(key).__name__}) cannot be written", "keys that are text"
                )
        return {key: _serialized(item, exact) for key, item in value.items()}
    if isinstance(value, bytes):
        return {"class_name": "__bytes__", "config": {"value": value.decode()}}
    if isinstance(value, slice):
        parts = {"start": value.start, "stop": value.stop, "step": value.step}
        return {"class_name": "__slice__", "config": serialize_object(parts)}
    if isinstance(value, Dim):
        return {"class_name": "__size__", "config": to_plain(value)}
    if value is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(value, (np.ndarray, np.generic)):
        if value.ndim == 0:
            return value.item()
        return {"class_name": "__numpy__", "config": {"value": value.tolist(), "dtype": value.dtype.name}}
    if inspect.isclass(value):
        raise SavingError(
            f"the class {value.__qualname__} as an argument cannot be written", "an object of it, or its name"
        )
    if isinstance(value, Configurable) or hasattr(value, "get_config"):
        return _object_form(value)
    if callable(value) and hasattr(value, "__name__"):
        return _function_form(value, exact)
    raise SavingError(
        f"{value!r:.80} of type {type(value).__name__} cannot be written",
        "numbers, text, lists, dicts, arrays, functions by name, and objects with a config",
        "take what it is made from as the argument, or give its class get_config",
    )


# Classes that Keras's files name by a module of its own inside.
_PLACE_IN_KERAS = {"Functional": "keras.src.models.functional"}


def _object_form(value: Any) -> dict[str, Any]:
    cls = type(value)
    module = _module_of.get(cls)
    if module is None and not registry.can_be_found(cls):
        raise SavingError(
            f"class {cls.__qualname__} of module {cls.__module__} is defined inside a function, so a file that "
            "names it could not be loaded",
            "a class at the top level of a module",
            "move it there, or register it: @cornu.saving.register_keras_serializable()",
        )
    config = value.get_config()
    # Of a class of the user's own whose config we read and hand back, everything comes back as it was given.
    methods = [getattr(getattr(cls, name, None), "__module__", None) or "" for name in ("get_config", "from_config")]
    exact = module is None and all(name.startswith("cornu.") for name in methods) and "output_layers" not in config
    found: dict[str, Any] = {
        "module": _PLACE_IN_KERAS.get(cls.__name__, module) if module else cls.__module__,
        "class_name": cls.__name__,
        "config": {},
    }
    for key, item in config.items():
        try:
            found["config"][key] = _serialized(item, exact)
        except SavingError as error:
            error.locate(
                layer=f"the argument {key!r} of {getattr(value, 'name', None) or 'an object'!r} ({cls.__name__})"
            )
            raise
    found["registered_name"] = None if module else registry.registered_name(cls)
    if module and cls.__name__ in _PLACE_IN_KERAS:
        found["registered_name"] = cls.__name__
    for key in ("build_config", "compile_config"):
        extra = getattr(value, f"get_{key}", None)
        extra = extra() if extra is not None else None
        if extra:
            found[key] = serialize_object(extra)
    return found


# The house's modules whose public functions a file may name.
_FUNCTION_HOUSES = tuple(
    f"cornu.{name}" for name in "activations ops losses metrics initializers regularizers constraints random".split()
)


def _function_form(value: Any, exact: bool) -> Any:
    name, module = value.__name__, str(getattr(value, "__module__", None))
    if name == "<lambda>":
        raise SavingError(f"{value!r} has no name", "a function with a name", "write it with def and register it")
    if module.startswith("cornu."):
        house = ".".join(module.split(".")[:2])
        if not exact:
            return name
        if _house_function(house, name) is not value:
            raise SavingError(
                f"the function {name!r} of {module} is none of the house's public ones",
                "a public function, or one of your own",
            )
        return {"module": house, "class_name": "function", "config": name, "registered_name": name}
    if not registry.can_be_found(value):
        raise SavingError(
            f"the function {value.__qualname__!r} of module {module} is defined inside another, so a file that "
            "names it could not be loaded",
            "a function at the top level of a module",
            "move it there, or register it: @cornu.saving.register_keras_serializable()",
        )
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": registry.registered_name(value),
    }


def _house_function(house: str, name: str) -> Any:
    """A public function of the house, or `None`."""
    if house not in _FUNCTION_HOUSES:
        return None
    found = importlib.import_module(house)
    return getattr(found, name, None) if name in found.__all__ else None
