"""Settings by Keras's names (`keras.config`)."""

from cornu.core.config import is_strict, set_strict
from cornu.core.dtypes import floatx, set_floatx
from cornu.dtype_policies import dtype_policy, set_dtype_policy
from cornu.engines.compile_cache import compile_cache_directory, set_compile_cache
from cornu.engines.registry import default_engine, set_engine

__all__ = [
    "backend",
    "compile_cache_directory",
    "dtype_policy",
    "epsilon",
    "floatx",
    "image_data_format",
    "is_strict",
    "set_compile_cache",
    "set_dtype_policy",
    "set_engine",
    "set_floatx",
    "set_strict",
]


def backend() -> str:
    """The name of the default engine."""
    return str(default_engine().name)


def epsilon() -> float:
    """The small number that keeps divisions finite: 1e-7, as in Keras."""
    return 1e-7


def image_data_format() -> str:
    """Where the channels of images are: always last, unless a layer says otherwise."""
    return "channels_last"
