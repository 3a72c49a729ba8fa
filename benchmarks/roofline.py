"""What the machine can do at most: operations per second of a matrix product, bytes per second of memory."""

import time
from typing import Any

import numpy as np

__all__ = ["LIBRARIES", "measure"]

LIBRARIES = {"numpy": "cornu/numpy", "jax": "plain/jax", "torch": "eager/torch"}  # and in whose process
SIZE = 2048  # of the matrices
FLOATS = 32 * 2**20  # of the vectors: far more than the caches hold


def measure(library: str) -> dict[str, Any]:
    """The best of several runs of a product of matrices and of `a + b` into a third vector.

    Args:
        library: `"numpy"`, `"jax"` or `"torch"`.

    Returns:
        `flops` (float32, per second) and `bandwidth` (bytes read and written per second).
    """
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(SIZE, SIZE)).astype("float32") for _ in range(2))
    u, v = (np.ones(FLOATS, "float32") for _ in range(2))
    product, add = _functions(library, a, b, u, v)
    return {"flops": 2 * SIZE**3 / _best(product), "bandwidth": 12 * FLOATS / _best(add)}


def _functions(library: str, a: Any, b: Any, u: Any, v: Any) -> Any:
    if library == "jax":
        import jax

        a, b, u, v = (jax.numpy.asarray(value) for value in (a, b, u, v))
        product, add = jax.jit(lambda a, b: a @ b), jax.jit(lambda u, v: u + v)
        return lambda: product(a, b).block_until_ready(), lambda: add(u, v).block_until_ready()
    if library == "torch":
        import torch

        a, b, u, v = (torch.from_numpy(value) for value in (a, b, u, v))
        out, total = torch.empty_like(a), torch.empty_like(u)
        return lambda: torch.mm(a, b, out=out), lambda: torch.add(u, v, out=total)
    out, total = np.empty_like(a), np.empty_like(u)
    return lambda: np.matmul(a, b, out=out), lambda: np.add(u, v, out=total)


def _best(call: Any) -> float:
    seconds = []
    for _ in range(7):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
