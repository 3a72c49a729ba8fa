"""The layers. `base.py` is what they share; `dense.py` shows how one is written."""

from cornu.layers.base import InputSpec, Layer
from cornu.layers.dense import Dense
from cornu.layers.input_layer import Input, InputLayer

__all__ = ["Dense", "Input", "InputLayer", "InputSpec", "Layer"]
