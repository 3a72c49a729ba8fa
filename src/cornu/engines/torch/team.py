"""The threads that PyTorch's operators compute with.

OpenMP gives each thread that calls an operator a team of threads of its own. GNU's `libgomp` lets a team that has
nothing to do look for work for some milliseconds, so that it is there at once for the next operator, but only while all
teams together are no more threads than there are cores. A second thread that calls PyTorch's operators so takes half as
long again for a small convolutional net, and from then on the first does too, as long as both teams are there.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["leave_team"]

_SOFT = 1  # `omp_pause_soft` (OpenMP 5.0, 3.2.2 and 5.15): threads end, what is kept for each stays


@functools.cache
def _pause() -> Callable[[int], int] | None:
    """`omp_pause_resource_all` of the library that PyTorch came with; `None` if it came with another or none."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            found: Callable[[int], int] = ctypes.CDLL(str(path)).omp_pause_resource_all
        except (OSError, AttributeError):
            continue
        return found
    return None


def leave_team() -> None:
    """Let the team of this thread end, if there is one; an operator that needs one makes it anew."""
    pause = _pause()
    if pause is not None:
        pause(_SOFT)
