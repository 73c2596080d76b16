"""A node that gets a signal at some moment of its start, and how it ends."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab.nodes import OVERLAY, Process

AFTER_READY = 2.0
"""Seconds beyond the start over which moments are spread."""
AT_ONCE = 3
ENDED = 60.0
"""Seconds in which a node has ended on a loaded machine (guess)."""


@dataclass(frozen=True)
class Ending:
    """What was seen of one node."""

    number: int
    delay: float
    heeded: bool
    """Whether the node had set its handlers when the signal was sent."""
    code: int
    seconds: float
    """From the signal to the end."""
    out: list[str]
    err: str
    left: set[str]
    """Files in its data directory."""

    @property
    def was_ready(self) -> bool:
        return bool(self.out) and '"ready"' in self.out[0]

    def fault(self) -> str | None:
        """What is not as promised."""
        if not self.heeded and self.code in (-self.number, 1):
            return None  # the interpreter's own beginning: it dies by the signal, or is not whole
        if "Traceback" in self.err:
            return "a traceback"
        if self.left - FILES:
            return "something was left behind"
        if self.was_ready:
            good = self.code == 0 and self.out[-1] == '{"event": "left"}\n'
            return None if good else "no goodbye after it was ready"
        early = 128 + (signal.SIGINT if self.number == signal.SIGINT else signal.SIGTERM)
        return None if self.code == early and not self.out else "not the signal's status"


FILES = frozenset({"certificate.pem", "dial.key", "identity.key", "lock", "overlay.db"})


def heeds(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM (proc(5)): Python by itself has none."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def start(directory: Path) -> Process:
    """`overlay up` on this directory, on loopback, with what it prints for programs."""
    return Process(
        [*OVERLAY, "up", "--json", "--data-dir", str(directory), "--listen", "127.0.0.1:0"]
    )


def start_time(directory: Path) -> float:
    """Seconds from the process's start to its ready line; its directory is there afterwards."""
    began = time.monotonic()
    process = start(directory)
    try:
        process.out.next(ENDED)
        return time.monotonic() - began
    finally:
        process.end()
        process.kill()


def ending(directory: Path, number: int, delay: float) -> Ending:
    """Start a node, send it a signal so many seconds later, see how it ends."""
    process = start(directory)
    try:
        time.sleep(delay)
        heeded = process.popen.poll() is None and heeds(process.popen.pid)
        sent_at = time.monotonic()
        process.signal(number)
        code = process.popen.wait(ENDED)
        seconds = time.monotonic() - sent_at
        process.out.finish()
        process.err.finish()
    finally:
        process.kill()
    left = set(os.listdir(directory)) if directory.exists() else set()
    return Ending(number, delay, heeded, code, seconds, process.out.all, process.log, left)


def endings(directory: Path, numbers: Sequence[int], seed: int) -> Iterator[Ending]:
    """One for each signal, at moments spread by chance from the start to 2 s after `ready`.

    Every other node begins with the keys of one that has been there before: making them takes long.
    """
    began = directory / "first"
    span = start_time(began) + AFTER_READY
    draw = random.Random(seed)
    moments = [(at + draw.random()) * span / len(numbers) for at in range(len(numbers))]
    draw.shuffle(moments)

    def one(at: int) -> Ending:
        own = directory / str(at)
        if at % 2:
            shutil.copytree(began, own)
        return ending(own, numbers[at], moments[at])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(one, range(len(numbers)))
