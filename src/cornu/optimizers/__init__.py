"""Optimizers: rules that update weights by their gradients. `sgd.py` shows how one is written."""

from cornu.core.family import Family
from cornu.optimizers import schedules as schedules
from cornu.optimizers.adadelta import Adadelta
from cornu.optimizers.adagrad import Adagrad
from cornu.optimizers.adam import Adam, AdamW
from cornu.optimizers.adamax import Adamax
from cornu.optimizers.base import Optimizer
from cornu.optimizers.ftrl import Ftrl
from cornu.optimizers.lamb import Lamb
from cornu.optimizers.lion import Lion
from cornu.optimizers.loss_scale_optimizer import LossScaleOptimizer
from cornu.optimizers.nadam import Nadam
from cornu.optimizers.rmsprop import RMSprop
from cornu.optimizers.sgd import SGD

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "LossScaleOptimizer", "Nadam",
    "Optimizer", "RMSprop", "deserialize", "get", "schedules", "serialize",
]  # fmt: skip

FAMILY = Family(
    "optimizer",
    "keras.optimizers",
    [
        Optimizer, SGD, Adadelta, Adagrad, Adam, AdamW, Adamax, Ftrl, Lamb, Lion, LossScaleOptimizer, Nadam, RMSprop,
    ],
    check=lambda value: isinstance(value, Optimizer),
    ignore_case=True,
)  # fmt: skip
get, serialize, deserialize = FAMILY.get, FAMILY.serialize, FAMILY.deserialize
