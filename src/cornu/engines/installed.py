"""What is installed, and on what machine: found without importing an engine."""

import functools
import os
import platform
from pathlib import Path

from cornu.engines.registry import ENGINES
from cornu.engines.versions import version_of

__all__ = ["THREADS", "cores", "engine_versions", "machine", "processor", "threads"]

# Environment variables that say how many threads an engine takes, what it may use of the machine, or how it compiles.
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS", "XLA_FLAGS", "PYTENSOR_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def engine_versions() -> dict[str, str | None]:
    """The version of each engine's library by the engine's name, `None` where it is not installed."""
    return {name: version_of(library) for name, (_, library, _) in ENGINES.items()}


@functools.cache
def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return models[0] if models else platform.processor() or platform.machine()


@functools.cache
def _graphics() -> list[str]:
    """The names of NVIDIA's devices, as Linux's driver lists them."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text().splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return found


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> dict[str, str]:
    """Those of `THREADS` that are set, and the settings of Cornu's engines (`CORNU_PYTENSOR_LINKER` ...)."""
    ours = tuple(f"CORNU_{name.upper()}_" for name in ENGINES)
    own = sorted(name for name in os.environ if name.startswith(ours))
    return {name: os.environ[name] for name in (*THREADS, *own) if name in os.environ}


def machine() -> dict[str, object]:
    """What of the machine decides how fast an engine is."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": cores(),
        "all_cores": os.cpu_count(),
        "graphics": _graphics(),
    }
