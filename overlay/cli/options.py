"""The options that commands share, and how they print."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from overlay.errors import UsageError
from overlay.node.directory import default_path

LONGEST_WAIT = 10 * 365 * 86400.0
"""Seconds: beyond any patience, and still a number that every clock can take."""

Command = TypeVar("Command", bound=Callable[..., Any])
MAX_STDIN = 4 << 20
"""Bytes read from standard input for ``-`` (guess); more than a message or a link may have."""


class Location(click.Path):
    """The path of a file or directory, by its name."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty one: it would be the current directory, which nobody has named."""
        if value == "":
            self.fail("is empty: name one", param, ctx)
        return super().convert(value, param, ctx)


def data_dir_option(command: Command) -> Command:
    """``--data-dir``: which of several nodes of this machine is meant."""
    return click.option(
        "--data-dir",
        type=Location(file_okay=False),
        default=default_path,
        show_default="the user's data directory",
        envvar="OVERLAY_DATA_DIR",
        help="Where the node keeps its keys and its control socket.",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def asks_node(command: Command) -> Command:
    """A command that asks the running node: ``--data-dir`` and ``--json``."""
    return data_dir_option(json_option(command))


class Word(click.ParamType[str]):
    """A topic or a peer: any valid UTF-8."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse bytes that are no UTF-8: no peer and no topic has such a name."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8", param, ctx)
        return value


class Patience(click.ParamType[float]):
    """A time limit in seconds."""

    name = "seconds"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what no clock can wait for."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= LONGEST_WAIT:
            self.fail(f"{value!r} is no number of seconds from 0 to {LONGEST_WAIT:.0f}", param, ctx)
        return seconds


def print_json(value: Any) -> None:
    """One object, one line."""
    print(json.dumps(value), flush=True)


def read_argument(value: str) -> bytes:
    """What was given on the command line, or all of standard input for ``-``."""
    if value != "-":
        return os.fsencode(value)
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise UsageError(f"standard input holds more than {MAX_STDIN} bytes")
    return data


def read_link(value: str) -> str:
    """An invite link from the command line, or from standard input for ``-``."""
    if value != "-":
        return value
    from overlay.core.wire import invite
    from overlay.core.wire.armour import text_of

    if sys.stdin.isatty():
        from overlay.cli.pasting import paste

        return paste("the invite link", invite.is_whole)
    return text_of(read_argument("-"))
