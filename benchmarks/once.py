"""What a process does once: importing, building, saving, loading. Each is asked of a fresh process in this order."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.by_library import ready
from benchmarks.contender import engine_of

__all__ = ["TASKS", "resnet50", "run"]

# task -> what the tables call it
TASKS = {
    "import": "import",
    "ready": "import, and a first op on the engine: both",
    "dense100": "build 100 Dense layers",
    "resnet50": "build ResNet-50",
    "weights": "build ResNet-50, and draw its weights: both",
    "save": "save it (.keras)",
    "load": "load it",
}
# task -> the one whose time is counted in: what a library puts off until later is no time saved
_WITH = {"ready": "import", "weights": "resnet50"}
_held: dict[str, Any] = {}
_taken: dict[str, float] = {}


def run(name: str, task: str) -> dict[str, Any]:
    """Do a task and say how long it took.

    Args:
        name: the contender.
        task: a name from `TASKS`; those before it have been done in this process.

    Returns:
        `seconds`: how long it took, and what `_WITH` counts in.
    """
    library = name.partition("/")[0]
    begin = time.perf_counter()
    if task == "import":
        __import__(library)
    elif task == "ready":
        _held["keras"] = ready(library, engine_of(name))
    elif task == "dense100":
        dense(_held["keras"], 100)
    elif task == "resnet50":
        _held["model"] = resnet50(_held["keras"])
    elif task == "weights":
        _held["model"].get_weights()
    elif task == "save":
        _held["folder"] = tempfile.TemporaryDirectory()
        _held["path"] = Path(_held["folder"].name) / "model.keras"
        begin = time.perf_counter()
        _held["model"].save(_held["path"])
    else:
        _held["keras"].saving.load_model(_held["path"]).get_weights()
    seconds = time.perf_counter() - begin
    if task == "load":
        _held["folder"].cleanup()
    _taken[task] = seconds + _taken.get(_WITH.get(task, ""), 0.0)
    return {"seconds": _taken[task]}


def dense(keras: Any, layers: int, width: int = 64) -> Any:
    """A chain of Dense layers."""
    x = h = keras.Input((width,))
    for _ in range(layers):
        h = keras.layers.Dense(width, activation="relu")(h)
    return keras.Model(x, h)


def resnet50(keras: Any) -> Any:
    """ResNet-50 as in `keras.applications`, without first weights."""
    layers = keras.layers

    def unit(h: Any, filters: int, size: int, stride: int = 1) -> Any:
        h = layers.Conv2D(filters, size, strides=stride, padding="same")(h)
        return layers.BatchNormalization(epsilon=1.001e-5)(h)

    x = keras.Input((224, 224, 3))
    h = layers.ReLU()(unit(x, 64, 7, 2))
    h = layers.MaxPooling2D(3, strides=2, padding="same")(h)
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and filters > 64 else 1
            shortcut = unit(h, 4 * filters, 1, stride) if block == 0 else h
            f = layers.ReLU()(unit(h, filters, 1, stride))
            f = layers.ReLU()(unit(f, filters, 3))
            h = layers.ReLU()(layers.Add()([shortcut, unit(f, 4 * filters, 1)]))
    h = layers.Dense(1000, activation="softmax")(layers.GlobalAveragePooling2D()(h))
    return keras.Model(x, h)
