"""`Configurable`: an object whose config is read from the signature of its `__init__`.

Layers, losses, metrics, optimizers, initializers, regularizers and constraints are all Configurable. The class
statement enrols the class under its name; making an object remembers the arguments. So a subclass needs neither
a decorator nor `get_config`.
"""

import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable
from typing import Any

from cornu.core import registry
from cornu.core.errors import ArgumentError, near_miss
from cornu.core.tree import leaves, map_structure

__all__ = ["Configurable", "Field", "init_parameters"]

_MISSING = object()


class _Remembering(ABCMeta):
    """The class of Configurable classes: it notes the arguments an object is made with."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        kwargs, extra = cls._take_base_arguments(kwargs)  # type: ignore[attr-defined]
        made: Any = cls.__new__(cls, *args, **kwargs)  # type: ignore[call-overload, arg-type]
        if not isinstance(made, cls) or "_arguments" in vars(made):
            return made
        made._before_init()
        given = map_structure(_same, (args, kwargs))  # as they are now: a list may grow in `__init__`
        made.__init__(*args, **kwargs)
        object.__setattr__(made, "_arguments", given)
        if not _init_owner(cls).__module__.startswith(("cornu.", "builtins")):
            object.__setattr__(made, "_kept_as_given", made._attributes_that_hold_arguments(args, kwargs))
        made._after_init(extra)
        return made


class Configurable(metaclass=_Remembering):
    """An object that can be described by the arguments it was made with, and made again from them."""

    # Keywords that every class of a family takes, though its own `__init__` may not name them.
    _base_arguments: tuple[str, ...] = ()
    # Whether variables it holds belong to the layer that holds it (an optimizer's or metric's do not).
    _shares_variables = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        registry.enrol(cls)

    @classmethod
    def _take_base_arguments(cls, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split off the family's keywords that this class's own `__init__` cannot take."""
        if not cls._base_arguments or not kwargs:
            return kwargs, {}
        names, variadic = init_parameters(cls)
        if variadic:
            return kwargs, {}
        extra = {key: kwargs[key] for key in cls._base_arguments if key in kwargs and key not in names}
        return ({key: value for key, value in kwargs.items() if key not in extra} if extra else kwargs), extra

    def _before_init(self) -> None:
        """Set up what the object needs even if a subclass forgets `super().__init__()`."""

    def _after_init(self, extra: dict[str, Any]) -> None:
        """Take the family's keywords that `__init__` could not."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__` by name, as objects (`saving` writes them down).

        An argument stored under its own name is read where it is stored, so that a later change counts.
        """
        return self._arguments_by_name()

    def _attributes_that_hold_arguments(self, args: Any, kwargs: Any) -> frozenset[str]:
        """Names of the arguments that `__init__` stored as they came, under their own names."""
        bound = _init_signature(_init_owner(type(self))).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        before, own = vars(self)["_arguments"], vars(self)
        first = _init_signature(_init_owner(type(self))).bind_partial(self, *before[0], **before[1])
        first.apply_defaults()
        return frozenset(
            name
            for name, value in list(bound.arguments.items())[1:]
            if name in own and own[name] is value and _is_as(value, first.arguments[name])
        )

    def _arguments_by_name(self) -> dict[str, Any]:
        args, kwargs = vars(self).get("_arguments", ((), {}))
        owner = _init_owner(type(self))
        ours = owner.__module__.startswith("cornu.")
        kept = vars(self).get("_kept_as_given", frozenset())
        config: dict[str, Any] = {}
        bound = _init_signature(owner).bind_partial(self, *args, **kwargs)
        parameters = list(_init_signature(owner).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                config.update(bound.arguments.get(parameter.name, {}))
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                if bound.arguments.get(parameter.name):
                    config[parameter.name] = list(bound.arguments[parameter.name])
                continue
            given = bound.arguments.get(parameter.name, parameter.default)
            if ours:
                config[parameter.name] = getattr(self, parameter.name, given)
            else:
                config[parameter.name] = vars(self).get(parameter.name, given) if parameter.name in kept else given
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """An object made from a config.

        Raises:
            ArgumentError: if the config holds a key that `__init__` does not take.
        """
        names, variadic = init_parameters(cls)
        config = dict(config)
        positional = _variadic_positional(cls)
        args = config.pop(positional, ()) if positional else ()
        if not variadic:
            for key in config:
                if key not in names and key not in cls._base_arguments:
                    raise ArgumentError(
                        f"{cls.__name__} got the config key {key!r}{near_miss(key, names)}",
                        f"keys among {', '.join(names)}",
                        f"take {key!r} in __init__, or leave it out of get_config",
                    )
        if args:
            leading = [config.pop(name) for name in _before_variadic(cls) if name in config]
            return cls(*leading, *args, **config)
        return cls(**config)


def _init_owner(cls: type) -> type:
    """The class whose `__init__` a class uses."""
    return next(base for base in cls.__mro__ if "__init__" in vars(base))


def _same(value: Any) -> Any:
    return value


def _is_as(value: Any, before: Any) -> bool:
    """Whether a structure holds the very objects that its copy made earlier holds."""
    now, then = leaves(value), leaves(before)
    return len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True))


@functools.cache
def _init_signature(cls: type) -> inspect.Signature:
    return inspect.signature(cls.__init__)  # type: ignore[misc]


_parameters: dict[type, tuple[tuple[str, ...], bool]] = {}


def init_parameters(cls: type) -> tuple[tuple[str, ...], bool]:
    """The names `__init__` takes, and whether it takes any others (`**kwargs`)."""
    found = _parameters.get(cls)
    if found is None:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
        names = tuple(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        found = _parameters[cls] = names, any(p.kind is p.VAR_KEYWORD for p in parameters)
    return found


def _variadic_positional(cls: type) -> str | None:
    for parameter in inspect.signature(cls.__init__).parameters.values():  # type: ignore[misc]
        if parameter.kind is parameter.VAR_POSITIONAL and cls.__init__ is not object.__init__:  # type: ignore[misc]
            return parameter.name
    return None


def _before_variadic(cls: type) -> list[str]:
    names = []
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:  # type: ignore[misc]
        if parameter.kind is parameter.VAR_POSITIONAL:
            break
        names.append(parameter.name)
    return names


class Field:
    """Limits of an argument, as data: a check and the words for it.

    Args:
        valid: tells whether a value is within the limits.
        words: what is expected, in words.
    """

    __slots__ = ("valid", "words")

    def __init__(self, valid: Callable[[Any], bool], words: str) -> None:
        self.valid = valid
        self.words = words

    def check(self, owner: str, name: str, value: Any) -> None:
        """Refuse a value outside the limits.

        Raises:
            ArgumentError: naming the owner, the argument and the limits.
        """
        if not self.valid(value):
            raise ArgumentError(f"{owner} got {name}={value!r}", self.words)


def positive_int(value: Any) -> bool:
    """Whether a value is a whole number above zero (NumPy's count, booleans do not)."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and value.__index__() > 0


POSITIVE = Field(positive_int, "a whole number above zero")
FRACTION = Field(lambda v: isinstance(v, (int, float)) and 0 <= v < 1, "a number from 0 up to (not including) 1")


def one_of(*choices: Any) -> Field:
    """The limits of an argument that is one of a few values."""
    return Field(lambda value: value in choices, "one of " + ", ".join(repr(choice) for choice in choices))


_strict = [False]


def set_strict(on: bool = True) -> None:
    """Turn warnings about what is lost (a mask, above all) into errors.

    Args:
        on: whether to be strict.
    """
    _strict[0] = bool(on)


def is_strict() -> bool:
    """Whether what is lost is an error rather than a warning."""
    return _strict[0]
