"""How cost grows: with layers, inputs and outputs, the size of pictures, models made and thrown away, rows on disk."""

import gc
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_library import compile_for, ready
from benchmarks.contender import engine_of
from benchmarks.once import dense

__all__ = ["CURVES", "IN_TURNS", "run"]

# curve -> (what a point says, its unit, sizes in a quick run, sizes in a full one)
CURVES: dict[str, tuple[str, str, tuple[int, ...], tuple[int, ...]]] = {
    "layers_build": ("build so many Dense layers", "s", (10, 100), (10, 100, 1000, 10_000)),
    "layers_step": ("a training step of so many Dense layers of 8", "s", (10, 100), (10, 100, 1000, 10_000)),
    "layers_first": ("the first step of so many, with what it compiles", "s", (10, 100), (10, 100, 1000, 10_000)),
    "inputs_step": ("a training step of so many inputs and outputs", "s", (1, 10), (1, 10, 100)),
    "rows_step": (
        "a training step of the three convolutions of a block of ResNet-50 where pictures have so many rows, batch 8",
        "s", (14,), (7, 14, 28, 56),
    ),
    "waiting_fit": ("a step of `fit` on a generator that waits so many ms for each batch", "s", (8,), (0, 8, 16)),
    "working_fit": (
        "a step of `fit` on a generator that adds noise to each batch so many times", "s", (2,), (0, 2, 4),
    ),
    "growth": ("memory kept per build-fit-predict-delete, of so many", "MB", (40,), (300,)),
    "disk_speed": ("rows per second of 256 numbers, fit from so many MB on disk", "rows/s", (50,), (100, 1000)),
    "disk_memory": ("memory added by such a fit, at its most", "MB", (50,), (100, 1000)),
}  # fmt: skip
# Curves on which Cornu is compared with Keras: each contender has several processes, and they take turns at each size.
# A process keeps the model of the size it was asked for last.
IN_TURNS = ("rows_step", "waiting_fit", "working_fit")
_keras: list[Any] = []
_made: dict[tuple[str, int], Any] = {}
_disk: dict[int, dict[str, float]] = {}


def run(name: str, curve: str, size: int) -> dict[str, Any]:
    """A point of a curve.

    Args:
        name: the contender.
        curve: a name from `CURVES`.
        size: how many.

    Returns:
        `value`, in the curve's unit.
    """
    library = name.partition("/")[0]
    if not _keras:
        _keras.append(ready(library, engine_of(name)))
    keras = _keras[0]
    if curve == "layers_build":
        return {"value": _median(lambda: dense(keras, size), 3 if size <= 1000 else 1)}
    if curve in ("layers_step", "layers_first"):
        x = np.ones((32, 8), "float32")
        return {"value": (_step if curve == "layers_step" else _first)(keras, dense(keras, size, 8), x, x)}
    if curve == "inputs_step":
        return {"value": _step(keras, *_wide(keras, size))}
    if curve in IN_TURNS:
        if (curve, size) not in _made:
            _made.clear()
            _made[curve, size] = _block(keras, curve, size)
        return {"value": _made[curve, size]()}
    if curve == "growth":
        return {"value": _growth(keras, size)}
    if size not in _disk:
        _disk[size] = _stream(keras, size)
    return {"value": _disk[size][curve]}


def _block(keras: Any, curve: str, size: int) -> Any:
    """What gives seconds of a step, for a curve in turns, of a model that is made now."""
    if curve == "rows_step":
        model, x, y = _bottleneck(keras, size)
        _first(keras, model, x, y)
        return lambda: _median(lambda: model.train_on_batch(x, y), 15)
    if curve == "waiting_fit":
        return _fed(keras, lambda x: (time.sleep(size / 1000), x)[1])
    return _fed(keras, lambda x: _noisy(x, size))


def _median(call: Any, times: int) -> float:
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def _first(keras: Any, model: Any, x: Any, y: Any) -> float:
    """Seconds of the first training step."""
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    return _median(lambda: model.train_on_batch(x, y), 1)


def _step(keras: Any, model: Any, x: Any, y: Any) -> float:
    """Seconds of a training step, when it is compiled."""
    _first(keras, model, x, y)
    model.train_on_batch(x, y)
    return _median(lambda: model.train_on_batch(x, y), 15)


def _bottleneck(keras: Any, rows: int) -> Any:
    """A block like ResNet-50's at pictures of so many rows and columns, and a batch for it."""
    filters, layers = 64 * 56 // rows, keras.layers
    x = keras.Input((rows, rows, 4 * filters))
    h = layers.Conv2D(filters, 1, activation="relu")(x)
    h = layers.Conv2D(filters, 3, padding="same", activation="relu")(h)
    h = layers.Conv2D(4 * filters, 1)(h)
    draw = np.random.default_rng(0).normal
    batch = (draw(size=(8, *size)).astype("float32") for size in ((rows, rows, 4 * filters), (4 * filters,)))
    return keras.Model(x, layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, h])))), *batch


def _fed(keras: Any, make: Any, steps: int = 60) -> Any:
    """What gives seconds of a step of `fit` on a generator.

    Args:
        keras: the library.
        make: gives a batch `(256, 784)` of another.
        steps: how many steps.
    """
    layers = keras.layers
    hidden = [layers.Dense(1024, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)])
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    draw = np.random.default_rng(0).random
    x, y = draw((256, 784), "float32"), draw((256, 10), "float32")

    def batches(count: int) -> Any:
        for _ in range(count):
            yield make(x), y

    def fit() -> float:
        begin = time.perf_counter()
        model.fit(batches(steps), steps_per_epoch=steps, verbose=0)
        return (time.perf_counter() - begin) / steps

    return fit


def _noisy(x: np.ndarray, times: int) -> np.ndarray:
    for seed in range(times):
        x = np.clip(x + np.random.default_rng(seed).normal(0, 0.1, x.shape).astype("float32"), 0, 1)
    return x


def _wide(keras: Any, count: int) -> Any:
    """A model of so many inputs and outputs, and a batch for it."""
    inputs = [keras.Input((8,)) for _ in range(count)]
    outputs = [keras.layers.Dense(4)(x) for x in inputs]
    x, y = ([np.ones((32, width), "float32") for _ in range(count)] for width in (8, 4))
    return (keras.Model(inputs, outputs), x, y) if count > 1 else (keras.Model(inputs[0], outputs[0]), x[0], y[0])


def resident() -> float:
    """Memory this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _growth(keras: Any, loops: int) -> float:
    """MB kept per loop: the slope over all loops but the first fifth."""
    x, y = np.ones((64, 10), "float32"), np.ones((64, 1), "float32")
    held = []
    for _ in range(loops):
        model = _small(keras, 10)
        compile_for(keras, model, "squares")
        model.fit(x, y, verbose=0)
        model.predict(x, verbose=0)
        del model
        gc.collect()
        held.append(resident())
    held = held[loops // 5 :]
    return float(np.polyfit(np.arange(len(held)), held, 1)[0])


def _small(keras: Any, width: int) -> Any:
    layers = keras.layers
    return keras.Sequential([keras.Input((width,)), layers.Dense(16, activation="relu"), layers.Dense(1)])


def _stream(keras: Any, megabytes: int) -> dict[str, float]:
    """Fit once over an array that lies on disk."""
    rows, batch = megabytes * 2**20 // 1024, 256
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        with path.open("wb") as file:
            for _ in range(rows // 1024):
                file.write(np.ones((1024, 256), "float32").tobytes())
        x = np.memmap(path, "float32", "r", shape=(rows // 1024 * 1024, 256))

        def batches() -> Any:
            for start in range(0, len(x), batch):
                part = np.array(x[start : start + batch])
                most[0] = max(most[0], _anonymous())
                yield part, part[:, :1]

        model = _small(keras, 256)
        compile_for(keras, model, "squares")
        model.train_on_batch(np.array(x[:batch]), np.array(x[:batch, :1]))
        before = _anonymous()
        most = [before]
        begin = time.perf_counter()
        model.fit(batches(), steps_per_epoch=len(x) // batch, verbose=0)
        seconds = time.perf_counter() - begin
        return {"disk_speed": len(x) / seconds, "disk_memory": most[0] - before}


def _anonymous() -> float:
    """Memory of this process that is no file's, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
