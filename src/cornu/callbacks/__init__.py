"""Callbacks: what is done around epochs and batches of `fit`, `evaluate` and `predict`."""

from cornu.callbacks.base import Callback
from cornu.callbacks.callback_list import CallbackList
from cornu.callbacks.checkpoint import ModelCheckpoint
from cornu.callbacks.csv_logger import CSVLogger
from cornu.callbacks.early_stopping import EarlyStopping
from cornu.callbacks.history import History
from cornu.callbacks.lambda_callback import LambdaCallback
from cornu.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau
from cornu.callbacks.monitor import MonitorCallback
from cornu.callbacks.progbar import ProgbarLogger
from cornu.callbacks.tensorboard import TensorBoard
from cornu.callbacks.terminate_on_nan import TerminateOnNaN

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
