"""Imports TensorFlow, quietly and without Keras; to be imported before anything of it.

The last thing TensorFlow does when it is imported is to load Keras where it finds it, and with it pandas and
scikit-learn: a third of the time and 110 MB. `tf.keras` loads it later in any case, if somebody asks for that.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import threading
from types import ModuleType
from typing import Any

__all__: list[str] = []


class _Refused(importlib.abc.Loader):
    """Loads nothing; TensorFlow then takes Keras for not installed, until it is asked for it."""

    def exec_module(self, module: ModuleType) -> None:
        raise ImportError(f"{module.__name__} is left out while Cornu imports TensorFlow")


class _WithoutKeras(importlib.abc.MetaPathFinder):
    """Says where Keras is, which TensorFlow must know for `tf.keras`, but does not let this thread load it."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "keras" or threading.get_ident() != self.thread:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        return found and importlib.util.spec_from_loader(name, _Refused(), origin=found.origin)


def _load() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    finder = _WithoutKeras()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("tensorflow")
    finally:
        sys.meta_path.remove(finder)


_load()
