"""Memory of one kind for all contenders.

What a machine has free in small blocks is given out first, and its pages lie scattered; a process that got such pages
took up to 1.4 times as long for the same steps as one that started later, when they were used up. So they are used up
before anybody starts.
"""

import mmap
from pathlib import Path

__all__ = ["Scraps"]

_BLOCK = 9  # of 2 to this power pages and more a block is large: huge pages are made of those
_LEAST = 1 << 29  # bytes, some of them of kinds that no process is given


class Scraps:
    """Holds what is free in small blocks, on Linux; at most half of what is free."""

    def __init__(self) -> None:
        self._held: list[mmap.mmap] = []

    def hold(self) -> int:
        """Take what there is now, besides what is held; gives the bytes."""
        try:
            blocks = Path("/proc/buddyinfo").read_text().splitlines()
            free = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        except OSError:
            return 0
        counts = [line.split()[4:] for line in blocks if line.split()[3] != "DMA"]
        small = sum(int(count) << order for by in counts for order, count in enumerate(by[:_BLOCK])) * mmap.PAGESIZE
        size = min(small, int(free["MemAvailable"].split()[0]) * 1024 // 2)
        if size < _LEAST:
            return 0
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        self._held.append(mmap.mmap(-1, size, flags=flags))
        return size
