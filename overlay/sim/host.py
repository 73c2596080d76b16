"""Large pages for the memory of large worlds, where the system has them.

Two events that follow each other belong to two nodes, whose objects lie anywhere in gigabytes: with
pages of 4 KiB the processor looks most of them up in its page tables. Measured: decision 0026.
"""

import ctypes
import sys
from pathlib import Path

if sys.platform == "linux":
    import resource

    def faults() -> int:
        """How many pages this process has been given so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

else:

    def faults() -> int:
        """None are counted here."""
        return 0


LARGE = 1 << 21
"""Bytes of a large page."""
MADV_COLLAPSE = 25
"""Linux 6.1: put these small pages together now. Older ones refuse it, which does no harm."""
FAULTS = 1 << 14
"""So many new pages, 64 MiB if they are small, are worth a look (guess)."""


class Pages:
    """Puts small pages together when there are many new ones."""

    def __init__(self) -> None:
        self._seen = 0

    def look(self) -> None:
        """Now is a good moment; costs about a microsecond when there is nothing to do."""
        if not 0 <= faults() - self._seen < FAULTS:  # below: a copy of the process counts anew
            enlarge()
            self._seen = faults()


def enlarge() -> int:
    """Ask for large pages wherever this process keeps its own data; returns how many it got."""
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if sys.platform != "linux" or advise is None:
        return 0
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(
        advise(start, LARGE, MADV_COLLAPSE) == 0
        for first, end in _own()
        for start in range(-(-first // LARGE) * LARGE, end - LARGE + 1, LARGE)
    )


def _own() -> list[tuple[int, int]]:
    """First and last address of memory that is written to and belongs to no file."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        between, rights, _, _, inode, *name = line.split()
        if inode == "0" and rights == "rw-p" and name in ([], ["[heap]"]):
            first, end = (int(each, 16) for each in between.split("-"))
            found.append((first, end))
    return found
