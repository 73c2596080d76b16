"""A program on a terminal of its own, and what its screen shows."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
from collections.abc import Iterator, Sequence

from tests.lab.nodes import ROOT, environment, wait_for

PATIENCE = 60.0
ESCAPE = re.compile(r"\x1b(?:\[([0-9;?]*)([A-Za-z@])|[=>78])")
"""The control sequences that programs here send (ECMA-48 §5.4), and keypad modes."""


class Terminal:
    """A child with a terminal for its standard streams; `text` is all that it has sent."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 24,
        env: dict[str, str] | None = None,
    ) -> None:
        self.columns = columns
        self.text = ""
        given = {**environment(), "TERM": "xterm", **(env or {})}
        for name in {"COLUMNS", "LINES", "NO_COLOR"} - {*(env or {})}:
            given.pop(name, None)  # of the terminal that runs the tests
        pid, self._fd = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.chdir(ROOT)
            os.execve(argv[0], list(argv), given)
        self.pid = pid
        self.code: int | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while data := os.read(self._fd, 65536):
                self.text += decoder.decode(data)

    def type(self, text: str) -> None:
        """Press these keys."""
        data = text.encode()
        while data:
            data = data[os.write(self._fd, data) :]

    def wait_for(self, shown: str) -> re.Match[str]:
        """The first match of a pattern in what it has sent."""
        found = wait_for(lambda: re.search(shown, self.text, re.MULTILINE), PATIENCE, repr(shown))
        assert found is not None
        return found

    def wait_end(self) -> int:
        """The exit code of a program that ends by itself, all that it sent having come."""

        def has_ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            return pid != 0

        if self.code is None:
            wait_for(has_ended, PATIENCE, "the program's end")
        self._thread.join(PATIENCE)
        assert self.code is not None
        return self.code

    def close(self) -> None:
        """End it whatever it does."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait_end()
        os.close(self._fd)

    def screen(self) -> list[str]:
        """All rows that it has shown, the oldest first, as high a screen as it takes."""
        return drawn(self.text, self.columns)


@contextlib.contextmanager
def on_terminal(
    argv: Sequence[str],
    *,
    columns: int = 80,
    lines: int = 24,
    env: dict[str, str] | None = None,
) -> Iterator[Terminal]:
    """A program on a terminal for as long as the block goes on."""
    terminal = Terminal(argv, columns=columns, lines=lines, env=env)
    try:
        yield terminal
    finally:
        terminal.close()


def drawn(text: str, columns: int) -> list[str]:
    """The rows that a terminal of this width shows, endlessly high; colours are left out."""
    rows = [""]
    at, column, position = 0, 0, 0
    while position < len(text):
        escape = ESCAPE.match(text, position)
        if escape:
            position = escape.end()
            number = int(escape[1]) if (escape[1] or "").isdigit() else 1
            match escape[2]:
                case "A":
                    at = max(0, at - number)
                case "C":
                    column += number
                case "D":
                    column = max(0, column - number)
                case "K" | "J":
                    rows[at] = rows[at][:column]
                    if escape[2] == "J":
                        del rows[at + 1 :]
            continue
        letter = text[position]
        position += 1
        if letter == "\r":
            column = 0
        elif letter == "\n":
            at += 1
        elif letter == "\b":
            column = max(0, column - 1)
        elif letter >= " ":
            if column == columns:
                at, column = at + 1, 0
            rows += [""] * (at + 1 - len(rows))
            rows[at] = rows[at].ljust(column) + letter + rows[at][column + 1 :]
            column += 1
        rows += [""] * (at + 1 - len(rows))
    return [row.rstrip() for row in rows]
