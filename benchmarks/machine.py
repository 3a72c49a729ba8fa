"""The machine, the versions, and how busy others keep it."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from cornu.engines import installed

__all__ = ["Busy", "describe", "versions"]

PACKAGES = (
    "cornu",
    "keras",
    "jax",
    "flax",
    "optax",
    "tensorflow",
    "tensorflow-cpu",
    "torch",
    "pytensor",
    "onnxruntime",
)


def describe(threads: int, gpu: bool) -> dict[str, Any]:
    """What the figures were taken on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **({"gpu": ", ".join(installed.machine()["graphics"])} if gpu else {}),
    }


def versions() -> dict[str, str]:
    """The versions of all libraries, and Cornu's commit."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return {**found, "commit": commit or "unknown"}


class Busy:
    """How much of the machine processes other than ours have used since this was made."""

    def __init__(self) -> None:
        self._before = self._read()

    @staticmethod
    def _read() -> tuple[float, float]:
        """Busy and all ticks of the machine."""
        if not Path("/proc/stat").exists():
            return 0.0, 0.0
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    def others(self, own_seconds: float) -> float:
        """The share of the machine's processor time that others used, from 0 to 1.

        Args:
            own_seconds: processor time of our processes since this was made.
        """
        busy, whole = self._read()
        own = own_seconds * os.sysconf("SC_CLK_TCK")
        return max(0.0, busy - self._before[0] - own) / max(1.0, whole - self._before[1])
