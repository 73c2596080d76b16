"""`overlay offer`, `answer`, `accept`: two strangers meet by one message each way."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from overlay.cli import tables
from overlay.cli.invites import duration
from overlay.cli.options import MAX_STDIN, Patience, asks_node, print_json
from overlay.cli.waiting import Client
from overlay.errors import UsageError
from overlay.names import plain

LINE = 64
"""Characters of a line: mail programs break none of that length."""
ASK = "ask"
PEER_ID = "12D3KooW"
SLACK = 15.0
"""Seconds that the node gets on top of what the user waits."""
EXPIRES = 3600.0


def seal_option(command: Any) -> Any:
    """``--seal``."""
    return click.option(
        "--seal",
        metavar=f"{ASK}|FILE|PEER",
        help="Seal it with a passphrase that is asked for or stands in FILE, or to a peer id.",
    )(command)


@click.command()
@click.argument("file", metavar="[FILE|-]", default="-")
@click.option(
    "--expires", callback=duration, metavar="1h", help="How long it may wait for its answer."
)
@seal_option
@asks_node
def offer(
    data_dir: Path, as_json: bool, file: str, expires: float | None, seal: str | None
) -> None:
    """Make an offer to be met, for one stranger, and write it to FILE.

    Carry it to them by mail, chat, paper or QR code; they run `overlay answer` and send back what
    that prints, which goes to `overlay accept` here. Whoever reads it can join, as by an invite.
    """
    wanted = {"expires": EXPIRES if expires is None else expires, "seal": secret(seal)}
    made = Client(data_dir).post("/offer", wanted)
    write(made, "offer", file, as_json)
    if not as_json:
        until = tables.moment(made["expires_at"])
        told = f"(a secret, for one person; this node can be met until {until}: keep it running)"
        click.echo(told, err=True)


@click.command()
@click.argument("file", metavar="[FILE|-]", default="-")
@click.option("--output", metavar="FILE|-", default="-", help="Where the answer is written.")
@seal_option
@asks_node
def answer(data_dir: Path, as_json: bool, file: str, output: str, seal: str | None) -> None:
    """Answer the offer in FILE: print what has to be carried back to its maker.

    A node that has never met anybody moves into the offer's network; one that has refuses.
    """
    told = {"text": carried(file, "offer"), "seal": secret(seal)}
    made = Client(data_dir).post("/answer", told)
    write(made, "answer", output, as_json)
    if not as_json:
        told_more = (
            f"(this node is in the network {plain(made['network'])} now, and looks for the "
            f"offerer until {tables.moment(made['expires_at'])}: send the answer back)"
        )
        click.echo(told_more, err=True)


@click.command()
@click.argument("file", metavar="[FILE|-]", default="-")
@seal_option
@click.option(
    "--timeout",
    type=Patience(),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Exit 1 if the two have not met by then; the node goes on trying.",
)
@asks_node
def accept(data_dir: Path, as_json: bool, file: str, seal: str | None, timeout: float) -> None:
    """Take the answer in FILE to this node's offer, and meet whoever has sent it."""
    told = {"text": carried(file, "answer"), "seal": secret(seal), "timeout": timeout}
    met = Client(data_dir).post("/accept", told, timeout + SLACK)
    print_json(met) if as_json else tables.print_connected(met)


def write(made: dict[str, Any], what: str, file: str, as_json: bool) -> None:
    """An offer or an answer to a file that others cannot read, or to standard output."""
    if as_json:
        print_json(made)
        return
    text = "\n".join(textwrap.wrap(made[what], LINE)) + "\n"
    if file == "-":
        print(text, end="", flush=True)
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as out:
            out.write(text)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None


def carried(file: str, what: str) -> str:
    """What was carried here: from a file, from standard input, or pasted at the prompt."""
    from overlay.core.wire import by_hand
    from overlay.core.wire.armour import text_of

    if file == "-" and sys.stdin.isatty():
        from overlay.cli.pasting import paste

        kind = by_hand.Kind[what.upper()]
        return paste(f"the {what}", lambda text: by_hand.is_whole(text, kind))
    return text_of(sys.stdin.buffer.read(MAX_STDIN) if file == "-" else contents(file))


def contents(file: str) -> bytes:
    """A file's bytes, of a large one the first."""
    try:
        with open(file, "rb") as opened:
            return opened.read(MAX_STDIN)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def secret(seal: str | None) -> str | None:
    """The peer id or the passphrase that `--seal` means. UsageError."""
    if seal is None or seal.startswith(PEER_ID):
        return seal
    if seal == ASK:
        text: str = click.prompt("Passphrase", hide_input=True, err=True)
        return text
    lines = contents(seal).decode(errors="replace").splitlines()
    if not lines or not lines[0].strip():
        raise UsageError(f"{seal} holds no passphrase in its first line")
    return lines[0].strip()
