"""Memory of one kind for all contenders.

What a machine has free in small blocks is given out first, and its pages lie scattered; a process that got such pages
took up to 1.4 times as long for the same steps as one that started later, when they were used up. So another process
uses them up before anybody starts.
"""

import mmap
import subprocess
import sys
from pathlib import Path

__all__ = ["Scraps"]

_BLOCK = 9  # of 2 to this power pages and more a block is large: huge pages are made of those
_LEAST = 1 << 29  # bytes, some of them of kinds that no process is given


class Scraps:
    """Holds what is free in small blocks, on Linux; at most half of what is free."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None

    def hold(self) -> None:
        """Take what there is now, in place of what was held: processes that ended since then have left more."""
        self.let_go()
        size = _size()
        if size < _LEAST:
            return
        command = [sys.executable, __file__, str(size)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout
        self._holder.stdout.readline()

    def let_go(self) -> None:
        """Give it back."""
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None


def _size() -> int:
    """Bytes to take."""
    try:
        blocks = Path("/proc/buddyinfo").read_text().splitlines()
        free = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return 0
    counts = [line.split()[4:] for line in blocks if line.split()[3] != "DMA"]
    small = sum(int(count) << order for by in counts for order, count in enumerate(by[:_BLOCK])) * mmap.PAGESIZE
    return min(small, int(free["MemAvailable"].split()[0]) * 1024 // 2)


def _hold(size: int) -> None:
    """Hold so many bytes until the parent closes the pipe."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with mmap.mmap(-1, size, flags=flags):
        print("held", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _hold(int(sys.argv[1]))
