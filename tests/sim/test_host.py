"""Large pages: asked for where there are any, and nothing that a world does depends on them."""

import mmap
import os
import re
import sys
from pathlib import Path

import pytest

from overlay.sim import host as pages
from overlay.sim.world import World

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def offered() -> bool:
    """Whether the system puts small pages together when it is asked to (Linux 6.1)."""
    if sys.platform != "linux" or not THP.exists() or "[never]" in THP.read_text():
        return False
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= (6, 1)


def in_large_pages() -> int:
    """Bytes of this process."""
    found = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return int(found[1]) << 10 if found else 0


def test_small_pages_are_put_together_where_the_system_does_that() -> None:
    """Pages of its own, which nobody has put together before."""
    before = in_large_pages()
    with mmap.mmap(-1, 4 * pages.LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(4 * pages.LARGE))
        got, after = pages.enlarge(), in_large_pages()
    assert (got > 0 and after > before) or not offered()


def test_a_world_looks_when_there_are_many_new_pages_and_in_a_copy_of_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(pages, "enlarge", lambda: looks.append(1))
    faults = 0
    monkeypatch.setattr(pages, "faults", lambda: faults)
    world = World(1)
    for faults, looked in ((1, 0), (pages.FAULTS, 1), (pages.FAULTS + 1, 1), (2, 2), (3, 2)):
        world.run_for(1.0)
        assert len(looks) == looked, faults


def test_where_there_is_no_such_call_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert pages.enlarge() == 0
