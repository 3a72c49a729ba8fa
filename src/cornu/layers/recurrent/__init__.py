"""Layers over time: cells, the loop over them, and wrappers."""

from cornu.layers.recurrent.base import RNN, StackedRNNCells
from cornu.layers.recurrent.cells import GRUCell, LSTMCell, SimpleRNNCell
from cornu.layers.recurrent.layers import GRU, LSTM, SimpleRNN
from cornu.layers.recurrent.masking import Masking
from cornu.layers.recurrent.wrappers import Bidirectional, TimeDistributed, Wrapper

__all__ = [
    "GRU", "LSTM", "RNN", "Bidirectional", "GRUCell", "LSTMCell", "Masking", "SimpleRNN", "SimpleRNNCell",
    "StackedRNNCells", "TimeDistributed", "Wrapper",
]  # fmt: skip
