"""The reference engine: plain, slow, obvious, and dependent on NumPy alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import context
from cornu.core.variable import Variable
from cornu.engines.contract import Engine
from cornu.engines.numpy.table import TABLE
from cornu.ops._declare import host_array, interpreter_of

__all__ = ["ENGINE"]


class NumpyEngine(Engine):
    """Computes host arrays with NumPy, one op at a time; the tape differentiates."""

    name = "numpy"
    table = TABLE

    def owns(self, kind: type) -> bool:
        """Host arrays and NumPy's scalars."""
        return issubclass(kind, (np.ndarray, np.generic))

    def from_host(self, value: np.ndarray) -> np.ndarray:
        """The array itself."""
        return value

    def to_host(self, value: Any) -> np.ndarray:
        """The array itself."""
        return np.asarray(value)

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Host data as an array; another engine's value, brought over."""
        if isinstance(value, Variable):
            with context.use_engine(self):
                value = value.value
        owner = interpreter_of(value)
        if owner is not None:
            value = owner.to_host(value)
        return host_array(value, dtype)

    def compile(self, function: Callable[..., Any], donate: bool = False, thorough: bool = False) -> Callable[..., Any]:
        """The function with this engine in force, floating-point warnings off (NaN and infinity are answers)."""

        def run(*args: Any) -> Any:
            with context.use_engine(self), np.errstate(all="ignore"):
                return function(*args)

        return run


ENGINE = NumpyEngine()
