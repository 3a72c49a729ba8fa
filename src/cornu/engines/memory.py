"""How the C library gives memory: a process that computes the same step again and again should keep what it has freed.

Arrays above some size (32 MB at most, by glibc's own rule) come from the system and go back to it, as does what is
free at the end of the heap, and each page is made anew when it is first touched. On a CPU that costs XLA a fifth of a
step of a Transformer or of a convolutional net, PyTorch a tenth of the latter, and TensorFlow a twentieth of a small
step: its batches (`benchmarks/notes.md`).
"""

import ctypes
import os
import sys

__all__ = ["GLIBC_LIMIT", "KEPT", "keep_freed"]

GLIBC_LIMIT = 32 << 20  # bytes of an array that glibc comes to keep by itself
KEPT = 1 << 30  # bytes that are kept at most

# glibc's numbers for `mallopt`, and the size below which memory is kept. A heap is not cut back where less than the pad
# would be left: 64 MB, all that the arena of a thread can have, stay its own. How many arenas there may be is left to
# glibc: where two threads that compute share one they wait for each other, a fifth of an LSTM's step on PyTorch.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_PAD = 1 << 27
_pieces = [0]


def keep_freed(piece: int = KEPT) -> bool:
    """Let the process keep freed memory for what comes next, up to 1 GiB; whether that was done.

    It is not done where the environment sets how memory is given (`GLIBC_TUNABLES`, `MALLOC_...`), where
    `CORNU_KEEP_MEMORY=0` says so, and without glibc.

    Args:
        piece: bytes up to which a single array's is kept; once asked for, more stays.
    """
    own = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if own or os.environ.get("CORNU_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    _pieces[0] = max(_pieces[0], piece)
    asked = ((_MMAP_THRESHOLD, _pieces[0]), (_TRIM_THRESHOLD, KEPT), (_TOP_PAD, _PAD))
    return all(mallopt(*pair) for pair in asked)
