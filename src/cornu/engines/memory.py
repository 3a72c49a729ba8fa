"""How the C library gives memory: a process that computes the same step again and again should keep what it has freed.

Arrays above some size (32 MB at most, by glibc's own rule) come from the system and go back to it, as does what is
free at the end of the heap, and each page is made anew when it is first touched. On a CPU that costs XLA a fifth of a
step of a Transformer or of a convolutional net, PyTorch a tenth of the latter, and TensorFlow a twentieth of a small
step: its batches (`benchmarks/notes.md`).

Memory in pages of 4 KB is slower the more scattered they lie in the machine; in pages of 2 MB it is not. Where Linux
leaves huge pages to who asks for them, the process asks for what its heap will grow into.
"""

import ctypes
import mmap
import os
import sys
from pathlib import Path

__all__ = ["GLIBC_LIMIT", "keep_freed"]

GLIBC_LIMIT = 32 << 20  # bytes of an array that glibc comes to keep by itself

# glibc's numbers for `mallopt`, and the size below which memory is kept. A heap is not cut back where less than the pad
# would be left: 64 MB, all that the arena of a thread can have, stay its own. How many arenas there may be is left to
# glibc: where two threads that compute share one they wait for each other, a fifth of an LSTM's step on PyTorch.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT, _PAD = 1 << 30, 1 << 27
_INT = (1 << 31) - 1
_HUGE = 1 << 30  # bytes of heap for which huge pages are asked
_MADV_HUGEPAGE = 14  # Linux's number
_pieces: list[int] = [0]
_grown: list[int | None] = [None]


def keep_freed(piece: int = _KEPT) -> bool:
    """Let the process keep freed memory for what comes next, up to 1 GiB, in huge pages; whether that was done.

    It is not done where the environment sets how memory is given (`GLIBC_TUNABLES`, `MALLOC_...`), where
    `CORNU_KEEP_MEMORY=0` says so, and without glibc.

    Args:
        piece: bytes up to which a single array's is kept; once asked for, more stays.
    """
    own = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if own or os.environ.get("CORNU_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
    except (OSError, AttributeError):  # another C library
        return False
    _pieces[0] = max(_pieces[0], piece)
    done = all([mallopt(_MMAP_THRESHOLD, _pieces[0]), mallopt(_TOP_PAD, _PAD), mallopt(_TRIM_THRESHOLD, _INT)])
    if done and _grown[0] is None:
        _grown[0] = _grow_huge(library) if _may_ask() else 0
    # What the heap has grown by is at its end, and free.
    return bool(mallopt(_TRIM_THRESHOLD, min(_KEPT + (_grown[0] or 0), _INT))) and done


def _may_ask() -> bool:
    """Whether huge pages come where they are asked for, and a heap may be larger than what is used of it."""
    import resource  # not on Windows

    try:
        given = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
        counted = Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii")
    except OSError:
        return False
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return "[madvise]" in given and counted.strip() != "2" and set(limits) == {resource.RLIM_INFINITY}


def _grow_huge(library: ctypes.CDLL) -> int:
    """Let the heap grow, untouched, and ask for huge pages there; gives by how many bytes it grew."""
    library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
    library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    library.sbrk.argtypes = [ctypes.c_ssize_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = library.sbrk(0)
    library.mallopt(_TOP_PAD, _HUGE)
    pieces: list[int] = []
    while library.sbrk(0) == start and len(pieces) < 8:  # what is free in the heap comes first
        pieces.append(library.malloc(GLIBC_LIMIT // 2))
    library.mallopt(_TOP_PAD, _PAD)
    start += -start % mmap.PAGESIZE
    grown: int = max(0, library.sbrk(0) - start)
    if grown:
        library.madvise(start, grown, _MADV_HUGEPAGE)
    for piece in pieces:
        library.free(piece)
    return grown
