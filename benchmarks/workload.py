"""What a workload states, and the data and first weights that all its contenders share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Given", "Workload", "draw", "load", "rows_of", "take"]


@dataclass(frozen=True)
class Workload:
    """A model, its data and how long a block of it is.

    Attributes:
        name: what `--only` takes.
        title: one line for the tables.
        batch: rows of a batch.
        steps: steps of one `fit`, the same for every contender.
        loss: `"classes"` (logits and whole numbers), `"yes_no"` (logits and 0 or 1) or `"squares"`.
        multiply_adds: of the forward pass of one row, for the share of the roofline.
        data: of a generator and a number of rows, gives `(x, y)`; x is an array or a dict of arrays
            by input name.
        build: of `keras` or `cornu`, gives the model: the same code for both.
        jax: `(weights, x, training) -> (output, moved)`, with the weights in the model's order; `moved` are the new
            values of those that do not train.
        tensorflow: the same in TensorFlow's functions.
        torch: makes an `nn.Module` whose submodules come in the order of the model's weights.
        nnx: of `nnx.Rngs`, makes an `nnx.Module` of that kind.
        order: where that order is not the model's: the place of each weight among the model's.
    """

    name: str
    title: str
    batch: int
    steps: int
    loss: str
    multiply_adds: int
    data: Callable[[np.random.Generator, int], tuple[Any, Any]]
    build: Callable[[Any], Any]
    jax: Callable[[Any, Any, bool], tuple[Any, Any]]
    tensorflow: Callable[[Any, Any, bool], tuple[Any, Any]]
    torch: Callable[[], Any]
    nnx: Callable[[Any], Any]
    order: tuple[int, ...] = ()

    @property
    def step_flops(self) -> int:
        """Floating point operations of a training step: forward, and twice as many backward."""
        return 6 * self.multiply_adds * self.batch


@dataclass(frozen=True)
class Given:
    """The data and first weights of a workload.

    Attributes:
        x: inputs of `steps` batches.
        y: targets.
        weights: in the order of the model's `weights`.
        trained: which of them train.
    """

    x: Any
    y: Any
    weights: list[np.ndarray]
    trained: list[bool]

    def reordered(self, order: tuple[int, ...]) -> "Given":
        """With the weights in the order of what was written by hand."""
        if not order:
            return self
        return Given(self.x, self.y, [self.weights[i] for i in order], [self.trained[i] for i in order])


def rows_of(x: Any) -> int:
    """How many rows an array or a dict of arrays has."""
    return len(next(iter(x.values()))) if isinstance(x, dict) else len(x)


def take(x: Any, at: Any) -> Any:
    """Some rows of an array or of a dict of arrays."""
    return {name: value[at] for name, value in x.items()} if isinstance(x, dict) else x[at]


def draw(workload: Workload, path: Path) -> None:
    """Draw the data and first weights of a workload, and write them for its contenders.

    Args:
        workload: the workload; its model is built by Cornu, which computes nothing.
        path: an `.npz` file.
    """
    import cornu

    rng = np.random.default_rng(0)
    x, y = workload.data(rng, workload.batch * workload.steps)
    arrays = {f"x.{name}": value for name, value in x.items()} if isinstance(x, dict) else {"x": x}
    arrays["y"] = y
    variables = workload.build(cornu).weights
    arrays["trained"] = np.array([variable.trainable for variable in variables])
    for number, variable in enumerate(variables):
        arrays[f"weight{number:04d}"] = _first(rng, variable.name, tuple(variable.shape))
    np.savez(path, **arrays)


def _first(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A first weight: by its variable's name and shape alone."""
    if name in ("gamma", "moving_variance"):
        return np.ones(shape, "float32")
    if name in ("bias", "beta", "moving_mean"):
        return np.zeros(shape, "float32")
    fan_in = shape[-1] if name == "embeddings" else int(np.prod(shape[:-1]))
    return rng.normal(0, fan_in**-0.5, shape).astype("float32")


def load(path: Path) -> Given:
    """Read what `draw` wrote."""
    with np.load(path) as file:
        named = {name[2:]: file[name] for name in file.files if name.startswith("x.")}
        weights = [file[name] for name in sorted(file.files) if name.startswith("weight")]
        return Given(named or file["x"], file["y"], weights, [bool(train) for train in file["trained"]])
