"""A prompt at which a person types while others' lines appear above it.

Only the main thread writes to the terminal: whoever else has a line queues it and interrupts the
main thread by a signal, as often as it takes. Else a line that comes between the end of one line
typed and the next prompt would be shown with a prompt of its own, and there would be two. Whether
one is on the screen now, the terminal knows: readline takes it out of canonical mode (termios(3))
for exactly as long.
"""

import queue
import signal
import sys
import termios
import threading
import unicodedata
from types import FrameType, TracebackType
from typing import Protocol, Self

from overlay.node import terminal

PROMPT = "> "
WIPE = "\r\x1b[K"
"""Takes away what the terminal itself has shown of keys that were pressed while no prompt stood:
readline shows them again at the next one."""
INTERRUPT = signal.SIGUSR1
AGAIN = 0.05
"""Seconds after which the main thread is interrupted again: readline notices a signal only while it
waits for a key."""


class Lines(Protocol):
    """Where a person's lines come from, and others' lines go."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def read(self) -> str | None:
        """What the person has typed; None at the end."""

    def print(self, line: str) -> None:
        """Show a line, from whatever thread."""


def lines(*, is_terminal: bool) -> Lines:
    """With a prompt where the terminal can draw one, and readline is there to do it."""
    if is_terminal and terminal.moves(sys.stdout):
        try:
            return Prompt()
        except ImportError:  # some builds of Python have no readline
            pass
    return Plain()


class Plain:
    """Lines in, lines out, and nothing else: pipes, and terminals that can do no more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self) -> str | None:
        """What comes next."""
        return sys.stdin.readline() or None

    def print(self, line: str) -> None:
        """Show it."""
        print(line, flush=True)


class Prompt:
    """A prompt with line editing; enter it in the main thread."""

    def __init__(self) -> None:
        import readline

        self._typed = readline.get_line_buffer
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._is_writing = False
        self._has_closed = threading.Event()

    def __enter__(self) -> Self:
        signal.signal(INTERRUPT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._has_closed.set()
        self._write()
        signal.signal(INTERRUPT, signal.SIG_IGN)

    def read(self) -> str | None:
        """What was typed up to Return; None for Ctrl-D."""
        sys.stdout.write(WIPE)
        sys.stdout.flush()
        try:
            return input(PROMPT)
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            raise

    def print(self, line: str) -> None:
        """Have it shown above the prompt, and wait until it is."""
        self._waiting.put(line)
        main = threading.main_thread()
        if threading.current_thread() is main:
            self._write()
            return
        while not self._waiting.empty() and not self._has_closed.is_set():
            signal.pthread_kill(main.ident or 0, INTERRUPT)
            self._has_closed.wait(AGAIN)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._write()

    def _write(self) -> None:
        """Show what waits; a signal that interrupts this leaves its line to it."""
        if self._is_writing:
            return
        self._is_writing = True
        try:
            is_up = not termios.tcgetattr(sys.stdin)[3] & termios.ICANON
            text = ""
            while not self._waiting.empty():
                text += self._waiting.get() + "\n"
            if text:
                sys.stdout.write(above(text, self._typed()) if is_up else WIPE + text)
                sys.stdout.flush()
        finally:
            self._is_writing = False


def above(text: str, typed: str) -> str:
    """What puts lines above the prompt: it is wiped away with what was typed, and drawn again."""
    rows = cells(PROMPT + typed) // terminal.size()[0]
    up = f"\x1b[{rows}A" if rows else ""
    return f"{up}\r\x1b[J{text}{PROMPT}{typed}"


def cells(text: str) -> int:
    """Columns that a text takes on the screen (UAX #11; combining characters take none)."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
