"""What a library on an engine must be able to do to be measured."""

from typing import Any

import numpy as np

from benchmarks.workload import Given, Workload, rows_of, take

__all__ = ["ALL", "LEARNING_RATE", "ByHand", "Contender", "engine_of", "make", "prepare"]

LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-7  # Adam, as in Keras

# engine -> its contenders: Cornu, Keras, and by hand.
ALL: dict[str, tuple[str, ...]] = {
    "jax": ("cornu/jax", "keras/jax", "plain/jax", "nnx/jax"),
    "tensorflow": ("cornu/tensorflow", "keras/tensorflow", "function/tensorflow"),
    "torch": ("cornu/torch", "keras/torch", "eager/torch", "compiled/torch"),
    "pytensor": ("cornu/pytensor",),
    "onnxruntime": ("cornu/onnxruntime",),
    "numpy": ("cornu/numpy",),
    "auto": ("cornu/auto",),
}


def engine_of(name: str) -> str:
    """The engine of a contender: `"jax"` of `"keras/jax"`."""
    return name.partition("/")[2]


class Contender:
    """A workload's model in the hands of one library on one engine.

    Args:
        workload: the workload.
        given: its data and first weights.
    """

    def __init__(self, workload: Workload, given: Given) -> None:
        self.workload = workload
        self.given = given

    def step(self, x: Any, y: Any) -> float:
        """Train on a batch of host arrays; gives its loss."""
        raise NotImplementedError

    def fit(self) -> None:
        """Train once over all data, shuffled, with a metric; returns when it is computed."""
        raise NotImplementedError

    def predict(self, x: Any) -> np.ndarray:
        """The outputs for any number of rows, in batches, as a host array."""
        raise NotImplementedError

    def native(self, x: Any) -> Any:
        """A batch as the engine's values."""
        raise NotImplementedError

    def eager(self, x: Any) -> None:
        """Call the model uncompiled on the engine's values; returns when the outputs are computed."""
        raise NotImplementedError


class ByHand(Contender):
    """What all that is written by hand shares: the loop."""

    def run(self, x: Any, y: Any) -> Any:
        """Train on a batch of host arrays without waiting; gives its loss as the engine has it."""
        raise NotImplementedError

    def forward(self, x: Any) -> np.ndarray:
        """The outputs for one batch of host arrays, compiled, as a host array."""
        raise NotImplementedError

    def begin(self) -> None:
        """Forget the sums of loss and metric."""
        raise NotImplementedError

    def sums(self) -> tuple[float, float]:
        """The sums of loss and metric since `begin`."""
        raise NotImplementedError

    def step(self, x: Any, y: Any) -> float:
        return float(self.run(x, y))

    def fit(self) -> None:
        x, y, batch = self.given.x, self.given.y, self.workload.batch
        order = np.random.permutation(len(y))
        self.begin()
        for start in range(0, len(y), batch):
            at = order[start : start + batch]
            self.run(take(x, at), y[at])
        self.sums()

    def predict(self, x: Any) -> np.ndarray:
        rows, batch = rows_of(x), self.workload.batch
        if rows <= batch:
            return self.forward(x)
        return np.concatenate([self.forward(take(x, slice(i, i + batch))) for i in range(0, rows, batch)])


def prepare(name: str) -> Any:
    """Import what a contender needs, with its engine.

    Returns:
        function of a workload and what is given that makes it.
    """
    library, _, engine = name.partition("/")
    if library in ("cornu", "keras"):
        from benchmarks.by_library import Library, ready

        ready(library, engine)
        return lambda workload, given: Library(library, workload, given, engine)
    if library == "plain":
        from benchmarks.by_hand.plain_jax import PlainJax as kind
    elif library == "nnx":
        from benchmarks.by_hand.flax_nnx import FlaxNNX as kind
    elif library == "function":
        from benchmarks.by_hand.tf_function import TFFunction as kind
    else:
        from benchmarks.by_hand.pytorch import PyTorch

        def kind(workload: Workload, given: Given) -> Contender:
            return PyTorch(workload, given, compiled=library == "compiled")

    return lambda workload, given: kind(workload, given.reordered(workload.order))


def make(name: str, workload: Workload, given: Given) -> Contender:
    """A contender by its name."""
    made: Contender = prepare(name)(workload, given)
    return made
