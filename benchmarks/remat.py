"""What rematerialisation costs and saves: peak memory and processor time of a gradient, with and without.

    python -m benchmarks.remat            on JAX and PyTorch, about a minute
    python -m benchmarks.remat jax

The model is a stack of blocks as in a Transformer, without the attention: normalisation, a wide layer with GELU, a
narrow one, a sum. Memory is what the gradient needs beside its arguments: on JAX what XLA lays out, on PyTorch the most
that is allocated at once in a compiled step.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["CASES", "main"]

BLOCKS, WIDTH, ROWS = 8, 256, 1024
# label -> the mode of the scope around the blocks, and whether their own layers are made in it too
CASES: dict[str, tuple[str | None, bool]] = {
    "without": (None, False),
    "activations": ("activations", True),
    "each block": ("full", False),
    "each block and each layer in it": ("full", True),
}


def _model(mode: str | None, within: bool) -> Any:
    """The stack of blocks, all or part of it made in a `RematScope`."""
    import cornu
    from cornu import layers

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            with cornu.RematScope(mode if within else None):
                self.norm = layers.LayerNormalization()
                self.wide = layers.Dense(4 * WIDTH, activation="gelu")
                self.narrow = layers.Dense(WIDTH)

        def call(self, x: Any) -> Any:
            return x + self.narrow(self.wide(self.norm(x)))

    cornu.utils.set_random_seed(0)
    with cornu.RematScope(mode):
        blocks = [Block() for _ in range(BLOCKS)]
    x = y = cornu.Input((WIDTH,))
    for block in blocks:
        y = block(y)
    return cornu.Model(x, layers.Dense(1)(y))


def _gradient(engine: Any, model: Any, x: Any) -> tuple[Callable[[list[Any]], Any], list[Any]]:
    """The gradient of the mean square of a model's outputs, as a function of its weights; and those."""
    from cornu import ops
    from cornu.core import context

    weights = model.trainable_variables

    def loss(values: list[Any]) -> Any:
        with context.bind(weights, values):
            return ops.mean(ops.square(model(x, training=True))), None

    return engine.value_and_grad(loss), [engine.from_host(w.numpy()) for w in weights]


def _bytes_on_jax(gradient: Any, values: list[Any], run: Any) -> int:
    import jax

    return int(jax.jit(gradient).lower(values).compile().memory_analysis().temp_size_in_bytes)


def _bytes_on_torch(gradient: Any, values: list[Any], run: Any) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run(list(values))
    kept = watched.profiler.kineto_results.events()
    live = peak = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in kept if e.name() == "[memory]"):
        live += size
        peak = max(peak, live)
    return peak


_BYTES = {"jax": _bytes_on_jax, "torch": _bytes_on_torch}


def measure(name: str, rounds: int = 5) -> dict[str, tuple[float, float]]:
    """Memory in MB and seconds of the processor a gradient takes, by case, on one engine; the cases take turns."""
    import cornu

    found: dict[str, tuple[float, float]] = {}
    with cornu.engine(name) as engine:
        x = engine.from_host(np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype("float32"))
        ready, times, memory = {}, {}, {}
        for case, (mode, within) in CASES.items():
            gradient, values = _gradient(engine, _model(mode, within), x)
            run = engine.compile(gradient)
            for _ in range(3):  # engines may run a function op by op at first
                engine.wait(run(list(values))[0][0])
            memory[case] = _BYTES[name](gradient, values, run)
            ready[case], times[case] = (run, values), []
        for _ in range(rounds):
            for case, (run, values) in ready.items():
                begin = time.process_time()
                (loss, _), gradients = run(list(values))
                engine.wait(gradients[-1])
                engine.wait(loss)
                times[case].append(time.process_time() - begin)
        for case in CASES:
            found[case] = memory[case] / 2**20, statistics.median(times[case])
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table for each engine."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remat", description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="*", choices=[*_BYTES, []], help="by default all of them")
    for name in parser.parse_args(arguments).engines or _BYTES:
        found = measure(name)
        base_memory, base_time = found["without"]
        print(f"{name}: {BLOCKS} blocks of width {WIDTH}, {ROWS} rows")
        for case, (memory, seconds) in found.items():
            print(
                f"  {case:32} {memory:7.0f} MB ({memory / base_memory:4.2f}) "
                f"{1000 * seconds:7.0f} ms ({seconds / base_time:4.2f})"
            )


if __name__ == "__main__":
    main()
