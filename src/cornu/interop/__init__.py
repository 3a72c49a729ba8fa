"""Cornu inside other libraries: `cornu.interop.torch`, `cornu.interop.tensorflow`; imported when asked for."""

import importlib
from typing import Any

__all__ = ["tensorflow", "torch"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cornu.interop' has no attribute {name!r}")
    return importlib.import_module(f"cornu.interop.{name}")
