"""What links cost while they stand: memory, file descriptors, processor time."""

import time

from benchmarks.cases import rival
from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import Peer, cpu_seconds, descriptors, resident_bytes

NODE = "benchmarks.node"
FEW, MANY = 10, 210
QUIET = {"auto": False}
"""For the crowd that dials in: no links among themselves."""
EVERYBODY = {**QUIET, "mesh_size": MANY + 2}
"""All links are used for gossip, or they would be guests', and ended one after another."""
IDLE_SECONDS = 20.0
SETTLE_SECONDS = 3.0
"""Records and neighbour lists are still on their way when the last link stands (guess)."""

MEMORY = Measure("link-memory", f"memory a link, slope from {FEW} to {MANY} links", "KiB", Bar(100))
FILES = Measure("link-descriptors", "file descriptors a link", "", Bar(0))
IDLE = Measure("idle", f"idle node with {FEW} links", "% of a core", Bar(1))


def footprint() -> dict[str, float]:
    """One node under test, dialled by a crowd in another process."""
    seen = []
    with Peer(NODE) as tested, Peer(NODE) as crowd:
        tested.ask("start", links_max=2 * MANY, **EVERYBODY)
        link = tested.ask("invite")["link"]
        joined = 0
        for target in (FEW, MANY):
            for node in range(joined, target):
                crowd.ask("start", **EVERYBODY)
                crowd.ask("join", node=node, link=link)
            joined = target
            tested.ask("wait", links=target)
            time.sleep(SETTLE_SECONDS)
            tested.ask("settle")
            seen.append((resident_bytes(tested.pid), descriptors(tested.pid)))
    (bytes_few, files_few), (bytes_many, files_many) = seen
    links = MANY - FEW
    return {
        MEMORY.name: (bytes_many - bytes_few) / links / 1024,
        FILES.name: (files_many - files_few) / links,
    }


def stock_footprint() -> dict[str, float]:
    """The rival's answerer, with as many connections."""
    memory, files = rival.footprint(FEW, MANY)
    return {MEMORY.name: memory, FILES.name: files}


def idle() -> dict[str, float]:
    """A node in its default configuration with ten links and nothing to do."""
    with Peer(NODE) as tested, Peer(NODE) as crowd:
        tested.ask("start")
        link = tested.ask("invite")["link"]
        for node in range(FEW):
            crowd.ask("start", **QUIET)
            crowd.ask("join", node=node, link=link)
        tested.ask("wait", links=FEW)
        time.sleep(SETTLE_SECONDS)
        started, used = time.monotonic(), cpu_seconds(tested.pid)
        time.sleep(IDLE_SECONDS)
        used = cpu_seconds(tested.pid) - used
        elapsed = time.monotonic() - started
        tested.ask("wait", links=FEW)
    return {IDLE.name: 100 * used / elapsed}


CASES = (
    Case("footprint", (MEMORY, FILES), footprint, stock_footprint),
    Case("idle", (IDLE,), idle),
)
