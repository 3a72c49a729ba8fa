"""Models: a Functional graph, a Sequential stack, or a class of your own."""

from cornu.dtype_policies import KERAS
from cornu.models.cloning import clone_model
from cornu.models.model import Functional, Model
from cornu.models.sequential import Sequential
from cornu.saving import load_model, save_model

KERAS.add([Functional, Model, Sequential])

__all__ = ["Functional", "Model", "Sequential", "clone_model", "load_model", "save_model"]
