"""Where reports go: a directory with a page and its plots, a table on the terminal."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.errors import CommandFailed, Failure, UsageError
from overlay.node import terminal

if TYPE_CHECKING:
    from rich.console import Console

    from overlay.sim.report.plots import Picture

WIDTH = 200
"""Columns where there is no terminal."""


def make_directory(option: str, path: Path) -> None:
    """Have this directory; UsageError that names the option when it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{option} {path}: cannot be written: {error.strerror or error}"
        raise UsageError(text) from None
    if not os.access(path, os.W_OK):
        raise UsageError(f"{option} {path}: cannot be written: Permission denied")


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Within it, a disk that takes no more is an error that names the option or file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        text = f"{where}: cannot be written: {error.strerror or error}"
        raise CommandFailed(Failure.FAILED, text) from None


def write_pages(directory: Path, pictures: "Iterable[Picture]", text: str) -> None:
    """The page as index.html, and each picture beside it."""
    for picture in pictures:
        with writing(f"{directory / picture.name}.png"):
            (directory / f"{picture.name}.png").write_bytes(picture.png)
    with writing(f"{directory / 'index.html'}"):
        (directory / "index.html").write_text(text, encoding="utf-8")


def console(least: int = 0, *, stderr: bool = False) -> "Console":
    """Standard output, or error: as wide as it takes where it is no terminal; at least so wide."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    shown = Console(
        stderr=stderr,
        width=None if stream.isatty() else WIDTH,
        color_system="auto" if terminal.colours(stream) else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    shown.width = max(shown.width, least)
    return shown


def shows_progress(*, as_json: bool) -> bool:
    """Whether a bar can be drawn where people see it."""
    return not as_json and terminal.moves(sys.stderr)


def table(
    head: Sequence[str],
    body: Iterable[Iterable[str]],
    numbers: Collection[str] = (),
    *,
    least: int = 0,
) -> None:
    """Print a table; the columns of `numbers` are aligned at their ends.

    What is wider than the terminal is cut, unless it has at least `least` columns.
    """
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in head:
        shown.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    for row in body:
        shown.add_row(*row)
    console(least).print(shown)
