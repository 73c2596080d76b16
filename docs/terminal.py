"""A terminal of 80 columns and 24 lines, and what it shows of a command that runs in it.

The command sees a real pseudo-terminal; what it writes is put on a screen as a terminal would put
it: lines wrap at the last column, and what is overwritten is gone. Colours are left out.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS, LINES = 80, 24
PIECES = re.compile(
    r"\x1b\[([0-9;?]*)([@-~])"  # a control sequence (ECMA-48 §5.4)
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # a title
    r"|\x1b."
    r"|[\r\n\b\t\x07]"
    r"|[^\x00-\x1f]"
)


class Failed(Exception):
    """A command did not show in time what it was run for."""


class Screen:
    """Rows of characters, those that have scrolled out among them; `write` moves the cursor."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        """As a terminal takes it in; a control sequence must not be cut in two."""
        for piece in PIECES.finditer(text):
            match piece.group():
                case "\r":
                    self.column = 0
                case "\n":
                    self._down()
                case "\b":
                    self.column = max(0, self.column - 1)
                case "\t":
                    self.column = min(COLUMNS - 1, self.column // 8 * 8 + 8)
                case _ if piece[2]:
                    self._control(piece[1], piece[2])
                case character if character.isprintable():
                    self._put(character)

    def text(self) -> str:
        """All rows, without the blanks at their ends."""
        rows = ["".join(row).rstrip() for row in self.rows]
        return "\n".join(rows).strip("\n")

    def _put(self, character: str) -> None:
        if self.column == COLUMNS:
            self.column = 0
            self._down()
        row = self.rows[self.row]
        row += " " * (self.column + 1 - len(row))
        row[self.column] = character
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def _control(self, numbers: str, what: str) -> None:
        count = int(numbers) if numbers.isdecimal() else 0
        match what:
            case "A":
                self.row = max(0, self.row - max(1, count))
            case "G":
                self.column = max(1, count) - 1
            case "C":
                self.column = min(COLUMNS - 1, self.column + max(1, count))
            case "D":
                self.column = max(0, self.column - max(1, count))
            case "K" if count == 0:
                del self.rows[self.row][self.column :]
            case "K":
                self.rows[self.row][:] = []
            case "J":
                del self.rows[self.row][self.column :]
                del self.rows[self.row + 1 :]
            case _:
                pass  # colours, and whether the cursor is seen


class Terminal:
    """A command line under bash in a terminal of its own; `close` ends whatever is left of it."""

    def __init__(self, command: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self.screen = Screen()
        self._raw = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        argv: Sequence[str] = ("bash", "-o", "pipefail", "-c", command)
        self.process = subprocess.Popen(
            argv,
            cwd=directory,
            env={**environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 (no thread runs here)
        )
        os.close(theirs)

    def read_until(self, pattern: str, timeout: float) -> None:
        """Wait until the screen shows this; `Failed` if it does not, or the command ends."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.screen.text()):
            if not self._read(deadline):
                raise Failed(f"$ {self.command}\n{self.screen.text()}\nnever showed {pattern!r}")

    def read_to_end(self, timeout: float) -> int:
        """Wait until the command ends; its exit code."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        try:
            return self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failed(f"$ {self.command}\n{self.screen.text()}\nstill runs") from None

    def type(self, text: str) -> None:
        """As from the keyboard; ``\\x03`` is Ctrl-C."""
        os.write(self._ours, text.encode())

    def close(self) -> None:
        """End it, and all that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)

    def _read(self, deadline: float) -> bool:
        """Take in what comes next; whether there was anything before the deadline or the end."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        self._raw += data
        self.screen = Screen()
        self.screen.write(self._raw.decode(errors="ignore"))
        return bool(data)


def _take_terminal() -> None:
    """In the child: the new terminal is the one whose Ctrl-C it gets."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
