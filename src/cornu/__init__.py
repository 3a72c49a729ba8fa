"""Cornu: Keras 3's API, in which the engine is a choice per call."""

from cornu import engines as engines
from cornu import ops as ops
from cornu.core.variable import Variable as Variable
from cornu.engines import engine as engine
from cornu.engines import set_engine as set_engine
