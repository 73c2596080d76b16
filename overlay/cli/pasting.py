"""A secret pasted at the prompt: read on until it is whole, never shown, nothing left behind.

A pasted link may have been wrapped: its checksum says when all of it is there. An empty line ends
it, too. Whatever the paste has beyond that is thrown away, for the shell would run it.
"""

import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator

from overlay.errors import UsageError

QUIET = 0.25
"""Seconds (guess) without a character after which a paste is over."""
DRAIN_MAX = 5.0
"""Seconds for which the rest of a paste is thrown away at most."""
LINE_MAX = 4096
"""Bytes of a line that a terminal hands over at most (N_TTY_BUF_SIZE of Linux)."""
LINES_MAX = 2000
_FLAGS, _CHARACTERS = 3, 6  # of what tcgetattr returns


def paste(what: str, is_whole: Callable[[str], bool]) -> str:
    """What is pasted at the terminal on standard input until it is whole. UsageError: nothing."""
    descriptor = sys.stdin.fileno()
    with _silent(descriptor):  # Before anybody is asked: what is pasted at once is not shown.
        print(f"Paste {what} (it is not shown), then press Enter:", file=sys.stderr, flush=True)
        text = _read(descriptor, is_whole)
        _drain(descriptor)
    if not text.strip():
        raise UsageError(f"nothing was pasted: run the command again, and paste {what}")
    return text


@contextlib.contextmanager
def _silent(descriptor: int) -> Iterator[None]:
    """Without echo; the terminal is as before in the end, even after Ctrl-C."""
    before = termios.tcgetattr(descriptor)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    silent = termios.tcgetattr(descriptor)
    silent[_FLAGS] &= ~termios.ECHO
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
        signal.signal(signal.SIGINT, handler)


def _read(descriptor: int, is_whole: Callable[[str], bool]) -> str:
    """Line after line; empty ones before the first count only when nothing follows."""
    text = ""
    for _ in range(LINES_MAX):
        line = os.read(descriptor, LINE_MAX).decode(errors="replace")
        text += line
        if line == "" or is_whole(text):
            break
        if not line.strip() and (text.strip() or not _comes(descriptor)):
            break
    return text


def _comes(descriptor: int) -> bool:
    """Whether more of the paste is on its way."""
    return bool(select.select([descriptor], [], [], QUIET)[0])


def _drain(descriptor: int) -> None:
    """Throw away what is still coming, an unfinished line included."""
    raw = termios.tcgetattr(descriptor)
    raw[_FLAGS] &= ~(termios.ICANON | termios.ECHO)
    raw[_CHARACTERS][termios.VMIN] = 0
    termios.tcsetattr(descriptor, termios.TCSADRAIN, raw)
    deadline = time.monotonic() + DRAIN_MAX
    while time.monotonic() < deadline and _comes(descriptor):
        termios.tcflush(descriptor, termios.TCIFLUSH)
