"""The engines: the only folder that imports one. Start with `contract.py`, then `numpy/`."""

from cornu.engines.contract import Engine
from cornu.engines.registry import available, default_engine, engine, engines, get, set_engine

__all__ = ["Engine", "available", "default_engine", "engine", "engines", "get", "set_engine"]
