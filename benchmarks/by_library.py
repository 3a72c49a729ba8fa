"""Cornu and Keras: the same code for both."""

import importlib
from typing import Any

import numpy as np

from benchmarks.contender import LEARNING_RATE, Contender
from benchmarks.workload import Given, Workload

__all__ = ["Library", "compile_for", "ready"]


def ready(library: str, engine: str) -> Any:
    """Import a library and compute something, so that its engine is there.

    Keras takes its engine from the environment (`KERAS_BACKEND`), which `pool.py` sets.
    """
    keras = importlib.import_module(library)
    if library == "cornu":
        keras.set_engine(engine)
    keras.ops.convert_to_numpy(keras.ops.add(keras.ops.zeros((3,)), 1.0))
    return keras


def compile_for(keras: Any, model: Any, loss: str) -> None:
    """Compile a model with Adam, the loss of that name and a metric."""
    losses, metrics = keras.losses, keras.metrics
    chosen, metric = {
        "classes": lambda: (losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"),
        "yes_no": lambda: (losses.BinaryCrossentropy(from_logits=True), metrics.BinaryAccuracy(threshold=0.0)),
        "squares": lambda: (losses.MeanSquaredError(), metrics.MeanAbsoluteError()),
    }[loss]()
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=chosen, metrics=[metric])


class Library(Contender):
    """A workload in Cornu or Keras.

    Args:
        library: `"cornu"` or `"keras"`.
        workload: the workload.
        given: its data and first weights.
        engine: the engine.
    """

    def __init__(self, library: str, workload: Workload, given: Given, engine: str) -> None:
        super().__init__(workload, given)
        self.keras = ready(library, engine)
        self.model = workload.build(self.keras)
        self.model.set_weights(given.weights)
        compile_for(self.keras, self.model, workload.loss)

    def step(self, x: Any, y: Any) -> float:
        return float(self.model.train_on_batch(x, y)[0])

    def fit(self) -> None:
        self.model.fit(self.given.x, self.given.y, batch_size=self.workload.batch, verbose=0)

    def predict(self, x: Any) -> np.ndarray:
        return self.model.predict(x, batch_size=self.workload.batch, verbose=0)

    def native(self, x: Any) -> Any:
        to = self.keras.ops.convert_to_tensor
        return {name: to(value) for name, value in x.items()} if isinstance(x, dict) else to(x)

    def eager(self, x: Any) -> None:
        y = self.model(x)
        if hasattr(y, "block_until_ready"):
            y.block_until_ready()
        elif getattr(y, "is_cuda", False):
            importlib.import_module("torch").cuda.synchronize()
