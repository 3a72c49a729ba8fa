"""The engines: the only folder that imports one. Start with `contract.py`, then `numpy/`."""

from cornu.engines.auto import Auto, set_auto_budget
from cornu.engines.cache import clear_auto_cache
from cornu.engines.compile_cache import compile_cache_directory, set_compile_cache
from cornu.engines.contract import Engine
from cornu.engines.registry import available, default_engine, engine, engines, get, set_engine

__all__ = [
    "Auto", "Engine", "available", "clear_auto_cache", "compile_cache_directory", "default_engine", "engine",
    "engines", "get", "set_auto_budget", "set_compile_cache", "set_engine",
]  # fmt: skip
