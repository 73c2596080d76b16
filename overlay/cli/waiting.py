"""One idea: whoever waits for longer than a second is told what for, on standard error.

On a terminal that is one line, written over each second and gone when the wait is over. Elsewhere
most waits say nothing, so that a command that fails leaves one line, its error; those for somebody
else, who may never come, say a line there, too.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from overlay.node import client, terminal
from overlay.node.client import PATIENCE

SILENCE = 1.0
"""Seconds of silence that need no word."""
INTERVAL = 1.0
"""Seconds after which the line is written again."""
HELD = 0.5
"""Seconds (guess) for a terminal to take what is being written: its user may hold it."""
CLEAR = "\r\x1b[K"
"""Back to the beginning of the line, and what stands there is gone (ECMA-48, CR and EL)."""


class Waiting:
    """Says `text` while its context is open, until `end`."""

    def __init__(self, text: str, *, in_pipes: bool = False) -> None:
        self._text = text
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if text and (in_pipes or sys.stderr.isatty()):
            self._thread = threading.Thread(target=self._say, name="waiting", daemon=True)

    def end(self) -> None:
        """Say no more; what stands on a terminal is taken away. Others may write from now on."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(HELD)
            self._thread = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def _say(self) -> None:
        began = time.monotonic()
        if self._over.wait(SILENCE):
            return
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            if not terminal.moves(sys.stderr):
                tell(self._text)
                return
            while True:
                line = f"{self._text} ({time.monotonic() - began:.0f} s)"
                write(CLEAR + line[: columns() - 1])
                if self._over.wait(INTERVAL):
                    break
            write(CLEAR)


def waiting(text: str, *, in_pipes: bool = False) -> Waiting:
    """A context in which silence is filled; `in_pipes`: also where no terminal reads it."""
    return Waiting(text, in_pipes=in_pipes)


def tell(text: str) -> None:
    """One line to whoever waits."""
    write(text + "\n")


def write(text: str) -> None:
    """Have it read at once."""
    sys.stderr.write(text)
    sys.stderr.flush()


def columns() -> int:
    """How wide the terminal of standard error is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Client(client.Client):
    """The client of commands: it says what it is waiting for."""

    def __init__(
        self, data_dir: Path, doing: str = "waiting for the node", *, in_pipes: bool = False
    ) -> None:
        super().__init__(data_dir)
        self._doing = doing
        self._in_pipes = in_pipes

    def get(self, path: str, timeout: float | None = PATIENCE) -> Any:
        """The answer to a question."""
        with self._waiting():
            return super().get(path, timeout)

    def post(self, path: str, body: dict[str, Any], timeout: float | None = PATIENCE) -> Any:
        """The result of a command."""
        with self._waiting():
            return super().post(path, body, timeout)

    @contextlib.contextmanager
    def stream(self, path: str, body: dict[str, Any] | None = None) -> Iterator[client.Stream]:
        """Objects as they come, for as long as the context is open; `body`: of a command."""
        with self._waiting() as wait, super().stream(path, body) as stream:
            wait.end()
            yield stream

    def _waiting(self) -> Waiting:
        return waiting(self._doing, in_pipes=self._in_pipes)
