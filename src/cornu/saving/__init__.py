"""Files: models and weights in Keras 3's formats.

A file is data; the names in it are keys of a registry, never imports.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from cornu.core import registry
from cornu.core.family import deserialize_object, serialize_object
from cornu.core.registry import get_registered_name, get_registered_object, register
from cornu.saving.keras_file import load_model, load_weights, save_model, save_weights

__all__ = [
    "CustomObjectScope", "custom_object_scope", "deserialize_keras_object", "get_custom_objects", "get_registered_name",
    "get_registered_object", "load_model", "load_weights", "model_to_json", "register_keras_serializable", "save_model",
    "save_weights", "serialize_keras_object",
]  # fmt: skip

register_keras_serializable = register
serialize_keras_object = serialize_object


def deserialize_keras_object(
    config: Any, custom_objects: dict[str, Any] | None = None, safe_mode: bool = True, **kwargs: Any
) -> Any:
    """The object of a serialized form (`cornu.core.family.deserialize_object`)."""
    return deserialize_object(config, custom_objects)


@contextlib.contextmanager
def custom_object_scope(custom_objects: dict[str, Any]) -> Iterator[None]:
    """Within a block, let names in files stand for these objects."""
    before = dict(registry.scope)
    registry.scope.update(custom_objects)
    try:
        yield
    finally:
        registry.scope.clear()
        registry.scope.update(before)


CustomObjectScope = custom_object_scope


def get_custom_objects() -> dict[str, Any]:
    """The objects of the scopes in force, by name; what is put in stays."""
    return registry.scope


def model_to_json(model: Any, **kwargs: Any) -> str:
    """A model's architecture as JSON text."""
    return json.dumps(serialize_object(model), **kwargs)
