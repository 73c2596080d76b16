"""A peer in its own process: commands and answers are lines of JSON on its stdin and stdout."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
ANSWER_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0


class PeerFailed(Exception):
    """A peer's process ended, answered with an error, or said nothing in time."""


class Peer:
    """Starts ``python -m MODULE ARGS…`` and asks it things; a context manager that ends it."""

    def __init__(
        self, module: str, *args: str, pass_fds: Sequence[int] = (), root: Path = ROOT
    ) -> None:
        """`root`: the directory whose packages it imports."""
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, what: str, timeout: float = ANSWER_TIMEOUT, **fields: Any) -> dict[str, Any]:
        """Send one command and return its answer.

        Raises PeerFailed when the answer is an error or does not come within `timeout` seconds.
        """
        self.tell(what, **fields)
        return self.answer(timeout)

    def tell(self, what: str, **fields: Any) -> None:
        """Send one command; its answer is to be fetched with `answer`."""
        assert self._process.stdin is not None
        line = json.dumps({"do": what, **fields}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"{self.module} has ended") from None

    def answer(self, timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """The answer to the oldest unanswered command."""
        answer: dict[str, Any] = json.loads(self._read_line(timeout))
        if "error" in answer:
            raise PeerFailed(f"{self.module}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """End the process: by the end of its input, or by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _read_line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()  # select(2) takes no descriptor beyond 1023
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._unread:
            if not poll.poll(1000.0 * timeout):
                raise PeerFailed(f"{self.module} said nothing for {timeout:g} s")
            chunk = os.read(descriptor, 65_536)
            if not chunk:
                raise PeerFailed(f"{self.module} has ended")
            self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        return line


# --- what the kernel says of a process ---------------------------------------------------------


def resident_bytes(pid: int) -> int:
    """Memory that the process holds in RAM (``/proc/PID/statm``, second field, in pages)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Open file descriptors of the process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Processor time of the process's living threads (``/proc/PID/task/*/schedstat``, in ns)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
