"""Where reports go: a directory with a page and its plots, a table on the terminal."""

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.errors import UsageError

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


def write_pages(directory: Path, pictures: "Iterable[Picture]", text: str) -> None:
    """The page as index.html, and each picture beside it."""
    for picture in pictures:
        (directory / f"{picture.name}.png").write_bytes(picture.png)
    (directory / "index.html").write_text(text, encoding="utf-8")


def console() -> "Console":
    """Standard output, as wide as it takes where it is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def table(
    head: Sequence[str], body: Iterable[Iterable[str]], numbers: Collection[str] = ()
) -> None:
    """Print a table; the columns of `numbers` are aligned at their ends."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in head:
        shown.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    for row in body:
        shown.add_row(*row)
    console().print(shown)
