"""Helpers for users: data sets, labels, seeds, pictures."""

import importlib
from typing import Any

from cornu.random import set_random_seed
from cornu.utils.arrays import normalize, to_categorical
from cornu.utils.py_dataset import PyDataset, Sequence

__all__ = [
    "CustomObjectScope", "LengthBuckets", "PyDataset", "Sequence", "bucket_batches", "clear_session",
    "custom_object_scope", "get_custom_objects", "normalize", "plot_model", "register_keras_serializable",
    "set_random_seed", "to_categorical",
]  # fmt: skip

# What stands further up in the house, and is imported when it is used.
_ELSEWHERE = {
    "CustomObjectScope": "cornu.saving",
    "LengthBuckets": "cornu.training.lengths",
    "bucket_batches": "cornu.training.batches",
    "custom_object_scope": "cornu.saving",
    "get_custom_objects": "cornu.saving",
    "register_keras_serializable": "cornu.saving",
    "plot_model": "cornu.inspect.plot",
    "clear_session": "cornu.core.names",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'cornu.utils' has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE[name]), name)
