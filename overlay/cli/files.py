"""`overlay send` and `overlay receive`: the node moves the files, these show how it goes and ask.

Progress is one line that is written over on a terminal that can do that; elsewhere it is a line
at the beginning, every tenth of the file or ten seconds, and at the end.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from overlay import signals
from overlay.cli.completion import Peer
from overlay.cli.options import Word, asks_node, print_json
from overlay.cli.tables import size, span
from overlay.cli.waiting import Client, tell
from overlay.errors import CommandFailed, Failure
from overlay.names import plain, titled
from overlay.node import terminal

LINE_SHARE, LINE_SECONDS = 0.1, 10.0
"""Where lines cannot be written over, one comes after so much of a file, or so long."""
AGAIN = "`overlay send` it again, and it goes on from there"
Row = dict[str, Any]


@click.command()
@click.argument("peer", type=Peer())
@click.argument("files", type=Word(), nargs=-1, required=True, metavar="FILE...")
@asks_node
def send(data_dir: Path, as_json: bool, peer: str, files: tuple[str, ...]) -> None:
    """Send each FILE to PEER, where `overlay receive` has to run.

    Returns once all are whole, verified and on the disk there. If anything ends it before, send
    them again: what has arrived is not sent twice. A directory has to be packed first.
    """
    shown = Sent(as_json)
    body = {"peer": peer, "files": [os.path.abspath(file) for file in files]}
    try:
        with Client(data_dir).stream("/send", body) as stream:
            for row in stream.until(None, tell):
                shown.show(row)
    except KeyboardInterrupt:
        shown.display.line(f"stopped: {AGAIN}", sys.stderr)
        raise
    finally:
        shown.display.end()
    if shown.count < len(files):
        raise CommandFailed(Failure.CLOSED, f"the node is leaving, or gone: {AGAIN}")


@click.command()
@click.argument("directory", type=Word(), default=".", metavar="[DIR]")
@click.option(
    "--from",
    "senders",
    type=Peer(),
    multiple=True,
    metavar="PEER",
    help="Take what PEER sends without asking, and nothing of others; may be repeated.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N files.")
@asks_node
def receive(
    data_dir: Path, as_json: bool, directory: str, senders: tuple[str, ...], count: int | None
) -> int:
    """Receive files into DIR, the current directory unless named, until interrupted.

    Asks about each offer on a terminal. Where there is none, --from says who may send. Nothing is
    overwritten: beside a.txt the next one is `a (1).txt`. An unfinished file is called NAME.part.
    """
    asks = not senders and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    node = Client(data_dir)
    shown = Received(as_json, lambda word, accept: answer(node, word, accept))
    body = {"directory": os.path.abspath(directory), "senders": list(senders), "asks": asks}
    try:
        with node.stream("/receive", body) as stream:
            for row in stream.until(None, tell):
                shown.show(row)
                if shown.count == count:
                    return 0
    except KeyboardInterrupt:
        if shown.current is None:
            return 0
        shown.display.line(f"stopped: what came of {shown.current} is kept", sys.stderr)
        return signals.status()
    finally:
        shown.display.end()
    raise CommandFailed(
        Failure.CLOSED, "nothing is received any more: the node is leaving, or gone"
    )


def answer(node: Client, question: str, accept: bool) -> None:
    """Tell the node what the user says; where the sender has gone, a row will say so."""
    with suppress(CommandFailed):
        node.post("/receive/answer", {"question": question, "accept": accept})


class Display:
    """Where lines go, and the one line of progress that may be below them."""

    def __init__(self) -> None:
        self._can_overwrite = terminal.moves(sys.stdout)
        self._is_open = False
        self._told_share, self._told_at = 0.0, 0.0

    def line(self, text: str, out: Any = None) -> None:
        """A line that stays."""
        self.end()
        print(text, file=out or sys.stdout, flush=True)

    def begin(self) -> None:
        """Another file begins."""
        self._told_share, self._told_at = 0.0, time.monotonic()

    def progress(self, text: str, share: float) -> None:
        """How far it is, `share` of it done: over the last such line, or below it if it is time."""
        if self._can_overwrite:
            width = terminal.size()[0] - 1
            while cells(text) > width:
                text = text[:-1]
            print("\r" + text + " " * (width - cells(text)), end="", flush=True)
            self._is_open = True
            return
        now = time.monotonic()
        if share >= self._told_share + LINE_SHARE or now >= self._told_at + LINE_SECONDS:
            self._told_share, self._told_at = share, now
            print(text, flush=True)

    def end(self) -> None:
        """Take the line of progress away."""
        if self._is_open:
            width = terminal.size()[0] - 1
            print("\r" + " " * width, end="\r", flush=True)
            self._is_open = False


class Transfers:
    """What both commands show: how a file comes on."""

    verb = ""

    def __init__(self, as_json: bool) -> None:
        self.display = Display()
        self.count = 0
        """Files that are whole at the other end, or here."""
        self.current: str | None = None
        """The name of the file that is under way."""
        self._as_json = as_json

    def show(self, row: Row) -> None:
        """One row of the node's."""
        if self._as_json:
            print_json(row)
            self.note(row)
            return
        match row["event"]:
            case "started":
                self.display.begin()
                self.display.line(self._started(row))
            case "progress":
                self._progress(row)
            case _:
                self.tell(row)
        self.note(row)

    def tell(self, row: Row) -> None:
        """What is not about a file under way."""
        raise NotImplementedError

    def note(self, row: Row) -> None:
        """Count, and remember what is under way."""
        match row["event"]:
            case "started":
                self.current = plain(row["file"])
            case "sent" | "received":
                self.count += 1
                self.current = None
            case "failed":
                self.current = None

    def _started(self, row: Row) -> str:
        file = plain(row["file"])
        if row["offset"]:
            return f"going on with {file} at {size(row['offset'])} of {size(row['size'])}"
        return f"{self.verb} {file} ({size(row['size'])})"

    def _progress(self, row: Row) -> None:
        done, whole = row["bytes"], row["size"]
        left = "" if row["left"] is None else f"  {span(row['left'])} left"
        text = f"{done / whole:4.0%}  {size(done)} of {size(whole)}  {size(row['rate'])}/s{left}"
        self.display.progress(f"{ended(plain(row['file']), 30)}  {text}", done / whole)


def how_fast(row: Row) -> str:
    """``in 34s, 30.1 MiB/s``: of what went over the wire this time."""
    seconds = row["seconds"]
    rate = (row["size"] - row["offset"]) / seconds if seconds else 0.0
    return f"in {span(seconds)}, {size(round(rate))}/s" if rate and seconds >= 1 else "at once"


def cells(text: str) -> int:
    """The columns of a terminal that it takes: East Asian characters two, marks none."""
    import unicodedata

    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)


def ended(text: str, most: int) -> str:
    """A long name by its beginning and its end."""
    return text if len(text) <= most else f"{text[: most - 13]}...{text[-10:]}"


def listed(files: list[Row]) -> str:
    """What is offered: one file by its name, several by their number and names."""
    names = ", ".join(plain(each["file"]) for each in files)
    total = size(sum(each["size"] for each in files))
    return f"{names} ({total})" if len(files) == 1 else f"{len(files)} files ({total}): {names}"


def who(row: Row) -> str:
    """Whom it comes from or goes to: the name is their own word, the id is proven."""
    return titled(row["peer_id"], row["name"])


class Sent(Transfers):
    """`overlay send`."""

    verb = "sending"

    def tell(self, row: Row) -> None:
        """Offers, and files that have got there."""
        match row["event"]:
            case "offered":
                self.display.line(f"offering {listed(row['files'])} to {who(row)}")
            case "checking":
                file, there = plain(row["file"]), size(row["bytes"])
                self.display.line(f"{there} of {file} are there already: comparing")
            case "sent":
                there = (
                    "" if row["there"] == row["file"] else f"; there it is {plain(row['there'])}"
                )
                text = f"sent {plain(row['file'])} ({size(row['size'])}) {how_fast(row)}{there}"
                self.display.line(text)


class Received(Transfers):
    """`overlay receive`; `answer` takes a question's word and what the user says to it."""

    verb = "receiving"

    def __init__(self, as_json: bool, answer: Callable[[str, bool], None]) -> None:
        super().__init__(as_json)
        self._answer = answer

    def tell(self, row: Row) -> None:
        """Offers, questions, refusals, and files that are whole."""
        match row["event"]:
            case "ready":
                text = f"receiving files into {plain(row['directory'])}; Ctrl-C ends it"
                self.display.line(text, sys.stderr)
            case "offered" if row["question"] is not None:
                text = f"{who(row)} wants to send {listed(row['files'])}. Take it? [y/N] "
                self._answer(row["question"], asked(text))
            case "offered":
                self.display.line(f"{who(row)} sends {listed(row['files'])}")
            case "refused":
                text = f"refused {listed(row['files'])} from {who(row)}: {plain(row['text'])}"
                self.display.line(text)
            case "checking":
                file, here = plain(row["file"]), size(row["bytes"])
                self.display.line(f"{here} of {file} are here already: comparing")
            case "received":
                path = plain(row["path"])
                self.display.line(f"received {path} ({size(row['size'])}) {how_fast(row)}")
            case "failed":
                self._tell_failed(row)

    def _tell_failed(self, row: Row) -> None:
        file = listed(row["files"]) if row["file"] is None else plain(row["file"])
        kept = row["kept"]
        again = f"; {size(kept)} are kept as {file}.part: sent again, it goes on" if kept else ""
        text = f"error: {file} of {who(row)}: {plain(row['text'])}{again}"
        self.display.line(text, sys.stderr)


def asked(question: str) -> bool:
    """What the user says at the terminal to a question of ours; no, unless it is yes."""
    import termios

    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)  # what was typed before is no answer
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
