"""How fast a file goes from disk to disk, beside a bare stream in the same run, and what it holds.

Two nodes as `overlay up` starts them, `overlay receive` at one, `overlay send` at the other: read,
hashed, encrypted, written, hashed again, and taken by the disk before it is told as sent.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.cases import streams
from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import ROOT, resident_bytes

SIZE = 1 << 30
OVERLAY = (sys.executable, "-m", "overlay")
PIECE = 1 << 20
STREAM_SECONDS = 5.0
"""For which the bare stream is measured before the file, and again after it."""
RESET_PEAK = "5"
"""What makes the kernel measure the peak of a process's memory anew (proc(5), clear_refs)."""

RATE = Measure(
    "files",
    "`overlay send` of 1 GiB, disk to disk and verified",
    "x bare stream",
    Bar(0.9, at_most=False),
)
MEMORY = Measure(
    "files-memory", "the same: peak memory of either node over idle", "MiB", Bar(64), worst=True
)


class Command:
    """An `overlay` command with JSON on its output; ended with its context."""

    def __init__(self, *words: str, stdin: str | None = None) -> None:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("OVERLAY_")}
        self.process = subprocess.Popen(
            [*OVERLAY, *words, "--json"],
            cwd=ROOT,
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._rows: IO[str] = self.process.stdout
        self.process.stdin.write(stdin or "")
        self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self._rows.close()

    def next_of(self, event: str) -> dict[str, Any]:
        """The next row of this kind; RuntimeError when the command ends without."""
        for line in self._rows:
            row: dict[str, Any] = json.loads(line)
            if row["event"] == event:
                return row
        raise RuntimeError(f"no {event!r} from overlay {self.process.args!r}")


@contextlib.contextmanager
def linked(directory: Path) -> Iterator[tuple[Command, Command]]:
    """Two nodes with a link between them: who sends, and who receives."""
    with Command("up", "--data-dir", str(directory / "a"), "--name", "a") as one:
        link = one.next_of("ready")["invite"]
        join = ("join", "-", "--data-dir", str(directory / "b"), "--name", "b")
        with Command(*join, stdin=link + "\n") as other:
            other.next_of("ready")
            yield one, other


def transfer(size: int = SIZE) -> dict[str, float]:
    """One file of chance: its rate in bytes a second, and the peak of memory over idle in MiB."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        (directory / "in").mkdir()
        _write(directory / "file", size)
        receive = ("receive", str(directory / "in"), "--from", "a")
        with linked(directory) as nodes:
            pids = [node.process.pid for node in nodes]
            with Command(*receive, "--data-dir", str(directory / "b")) as receiver:
                receiver.next_of("ready")
                idle = [_idle(pid) for pid in pids]
                send = ("send", "b", str(directory / "file"), "--data-dir", str(directory / "a"))
                with Command(*send) as sender:
                    sent = sender.next_of("sent")
                assert receiver.next_of("received")["digest"] == sent["digest"]
            peaks = [_peak(pid) - before for pid, before in zip(pids, idle, strict=True)]
    return {"rate": size / sent["seconds"], "memory": max(0, *peaks) / (1 << 20)}


def _write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // PIECE):
            file.write(os.urandom(PIECE))
        file.flush()
        os.fsync(file.fileno())  # its way to the disk is no part of what is measured


def _idle(pid: int) -> int:
    """Bytes that the process holds now, from where its peak is measured."""
    Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
    return resident_bytes(pid)


def _peak(pid: int) -> int:
    """The most bytes that it has held since then (proc(5), status)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def files() -> dict[str, float]:
    """The file's rate by that of a stream, and its memory.

    The stream is measured before and after: a file takes most of a minute, in which machines that
    share their cores change their pace by a third.
    """
    before = streams.bare(STREAM_SECONDS)
    moved = transfer()
    after = streams.bare(STREAM_SECONDS)
    stream = (before + after) / 2 * 1e6
    return {RATE.name: moved["rate"] / stream, MEMORY.name: moved["memory"]}


CASES = (Case("files", (RATE, MEMORY), files),)
