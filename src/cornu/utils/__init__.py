"""Helpers for users: data sets, labels, seeds."""

from cornu.random import set_random_seed
from cornu.utils.arrays import normalize, to_categorical
from cornu.utils.py_dataset import PyDataset, Sequence

__all__ = ["PyDataset", "Sequence", "normalize", "set_random_seed", "to_categorical"]
