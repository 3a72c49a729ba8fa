"""Tasks side by side in the threads that PyTorch computes with.

Threads of Python's would not do: those of OpenMP keep a core busy for some time after each op, waiting for the next.
"""

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["side_by_side", "thread_count"]

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _openmp() -> Any:
    """The OpenMP that PyTorch was linked with, by the names of GCC's; `None` where it is another's, or none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        library.GOMP_parallel.argtypes = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
        return library if library.omp_get_max_threads() == torch.get_num_threads() else None
    except (OSError, AttributeError):
        return None


def thread_count() -> int:
    """How many tasks can run side by side: 1 where PyTorch's threads cannot be had."""
    return 1 if _openmp() is None else torch.get_num_threads()


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run tasks, each in a thread of PyTorch's, in which ops use no further ones.

    Settings that PyTorch keeps for each thread, such as whether gradients are on, are the task's to make.

    Args:
        tasks: functions without arguments; more than there are threads run one after the other.

    Returns:
        what each gave.

    Raises:
        BaseException: what the first task raised that raised anything.
    """
    openmp = _openmp() if len(tasks) > 1 else None
    if openmp is None:
        return [task() for task in tasks]
    given: list[Any] = [None] * len(tasks)
    raised: list[BaseException | None] = [None] * len(tasks)

    def body(_: Any) -> None:
        for number in range(openmp.omp_get_thread_num(), len(tasks), openmp.omp_get_num_threads()):
            try:
                given[number] = tasks[number]()
            except BaseException as error:
                raised[number] = error

    openmp.GOMP_parallel(_BODY(body), None, len(tasks), 0)
    for error in raised:
        if error is not None:
            raise error
    return given
