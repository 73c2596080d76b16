"""What may be told to a terminal besides text: colours, moves of its cursor; and how large it is.

It stands alone because the log and all commands ask it, and commands import next to nothing in
order to start fast. NO_COLOR takes the colours and bold letters, TERM=dumb every escape sequence.
"""

import os
import sys
from typing import Protocol

DUMB = frozenset({"", "dumb", "unknown"})
"""Values of TERM that promise nothing but lines (term(7)); so does none at all."""


class Stream(Protocol):
    """Something that is written to."""

    def isatty(self) -> bool:
        """Whether a person reads it."""


def moves(stream: Stream) -> bool:
    """Whether lines that are on the screen can be written again."""
    return stream.isatty() and os.environ.get("TERM", "") not in DUMB


def colours(stream: Stream) -> bool:
    """Whether text may stand out."""
    return moves(stream) and not os.environ.get("NO_COLOR")


def size() -> tuple[int, int]:
    """Columns and lines of the terminal that standard output goes to; 80 and 24 unless it says."""
    import shutil

    columns, lines = shutil.get_terminal_size()
    return columns, lines


def is_shown() -> bool:
    """Whether standard output goes to a terminal: not to a pipe, a file or a journal."""
    return sys.stdout.isatty()
