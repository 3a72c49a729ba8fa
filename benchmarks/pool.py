"""The parent's side of the workers: starting, asking, ending."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.contender import engine_of

__all__ = ["Clock", "Failed", "Process", "Setting"]

ROOT = Path(__file__).parent.parent

_CPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
_GPU = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


class Failed(Exception):
    """A worker's error, end, or silence."""


class Setting:
    """What all workers have alike: threads, caches that are empty at the start, a place for files.

    Args:
        folder: a temporary folder.
        threads: how many cores a worker may use.
        gpu: whether engines may use one.
    """

    def __init__(self, folder: Path, threads: int, gpu: bool = False) -> None:
        self.folder = folder
        self.gpu = gpu
        self.cores = sorted(os.sched_getaffinity(0))[:threads]

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a contender's process."""
        threads = str(len(self.cores))
        engine = engine_of(name)
        return {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **(_GPU if self.gpu else _CPU),
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            "PYTENSOR_FLAGS": f"base_compiledir={tempfile.mkdtemp(prefix='pytensor', dir=self.folder)}",
            "CORNU_CACHE_DIR": tempfile.mkdtemp(prefix="cornu", dir=self.folder),
            "KERAS_HOME": str(self.folder / "keras"),
            "KERAS_BACKEND": engine if engine in ("jax", "tensorflow", "torch") else "jax",
        }


class Process:
    """A worker.

    Args:
        name: the contender.
        setting: threads and folder.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        self._used = 0.0
        self.log = setting.folder / f"{name.replace('/', '-')}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=setting.environment(name),
            )
        os.sched_setaffinity(self._process.pid, setting.cores)  # before it has started threads of its own

    def ask(self, do: str, timeout: float = 600.0, **asked: Any) -> dict[str, Any]:
        """Have something done.

        Args:
            do: a method of `Worker`.
            timeout: seconds after which the worker is ended.

        Raises:
            Failed: if it failed, or gave no answer.
        """
        self.send(do, **asked)
        return self.answer(do, timeout)

    def send(self, do: str, **asked: Any) -> None:
        """Say what is to be done, without waiting for the answer.

        Raises:
            Failed: if the worker has ended.
        """
        assert self._process.stdin
        if self._process.poll() is not None:
            raise Failed(self._last_words())
        try:
            self._process.stdin.write((json.dumps({"do": do, **asked}) + "\n").encode())
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._last_words()) from None

    def answer(self, do: str, timeout: float = 600.0) -> dict[str, Any]:
        """The answer to what was sent.

        Raises:
            Failed: as `ask`.
        """
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], max(timeout, 0.1))
        if not ready:
            self.end()
            raise Failed(f"no answer to {do!r} within {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines() or [""]
        return f"its process ended ({code}): {lines[-1][:200]}"

    def processor_seconds(self) -> float:
        """The processor time it and those it started have used, so far or until its end."""
        if self._process.returncode is None and Path(f"/proc/{self._process.pid}/stat").exists():
            self._used = _ticks(self._process.pid) / os.sysconf("SC_CLK_TCK")
        return self._used

    def end(self) -> None:
        """End it."""
        self.processor_seconds()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _ticks(pid: int) -> int:
    """The processor time of a process and its descendants: those of `torch.compile` compile."""
    ticks, children = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            found = int(stat.parent.name)
            ticks[found] = sum(map(int, fields[11:15]))  # its own, and that of children that have ended
            children.setdefault(int(fields[1]), []).append(found)
    total, pending = 0, [pid]
    while pending:
        found = pending.pop()
        total += ticks.get(found, 0)
        pending += children.get(found, ())
    return total


class Clock:
    """A time by which all must be done.

    Args:
        seconds: from now; `None` for no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float = 600.0) -> float:
        """Seconds left, `most` at most."""
        return most if self._end is None else min(most, self._end - time.monotonic())
