"""`overlay ping`: once for programs; for who watches again and again, and what came of it."""

import time
from pathlib import Path
from typing import Any

import click

from overlay.cli import tables
from overlay.cli.completion import Peer
from overlay.cli.doubts import doubts
from overlay.cli.names import Names
from overlay.cli.options import Patience, asks_node, print_json
from overlay.cli.waiting import Client
from overlay.errors import CommandFailed, Failure
from overlay.node import terminal

RELAYED = "relayed"
PING_INTERVAL = 1.0
"""Seconds from one ping to the next."""


@click.command()
@click.argument("peer", type=Peer())
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="End after N pings.")
@click.option(
    "--until-direct", is_flag=True, help="Again every second, until no relay is in between."
)
@click.option(
    "--timeout",
    type=Patience(),
    metavar="S",
    help="End after S seconds; with --until-direct, exit 1 if not direct by then.",
)
@asks_node
def ping(
    data_dir: Path,
    as_json: bool,
    peer: str,
    count: int | None,
    until_direct: bool,
    timeout: float | None,
) -> None:
    """Measure the round trip to PEER over its link.

    Shows the path, too. On a terminal it goes on every second until Ctrl-C, and says in the end how
    many were answered; it pings once where its output goes elsewhere, or with --json. Exit code 1
    if the first is not answered.
    """
    pings = Pings(Client(data_dir), peer, as_json=as_json)
    deadline = None if timeout is None else time.monotonic() + timeout
    if until_direct:
        pings.until_direct(count, deadline, timeout)
    elif count is None and (as_json or not terminal.is_shown()):
        pings.once()
    else:
        pings.repeat(count, deadline)


class Pings:
    """Pings of one peer, each told as it comes back."""

    def __init__(self, node: Client, peer: str, *, as_json: bool) -> None:
        self._node = node
        self._peer = peer
        self._as_json = as_json
        self._names = Names(node)
        self._times: list[float] = []
        self._lost = 0
        self._peer_id = ""

    def once(self) -> Any:
        """What the node answers; CommandFailed: the peer does not, or there is no link."""
        with doubts(self._node, self._peer):
            answer = self._node.post("/ping", {"peer": self._peer})
        self._times.append(answer["rtt"])
        self._peer_id = answer["peer_id"]
        if self._as_json:
            print_json(answer)
        else:
            tables.print_ping(answer, self._names.titled)
        return answer

    def until_direct(
        self, count: int | None, deadline: float | None, timeout: float | None
    ) -> None:
        """Ping until no relay is in between; CommandFailed ``timeout``: there still is one."""
        while self.once().get("path") == RELAYED:
            is_late = deadline is not None and time.monotonic() + PING_INTERVAL > deadline
            if is_late or len(self._times) == count:
                after = f"{timeout:g} s" if is_late else f"{count} pings"
                raise CommandFailed(
                    Failure.TIMEOUT,
                    f"the path is still relayed after {after}: "
                    f"`overlay doctor {self._peer}` says why",
                )
            time.sleep(PING_INTERVAL)

    def repeat(self, count: int | None, deadline: float | None) -> None:
        """Ping until there have been enough, then say what came of it."""
        is_interrupted = False
        try:
            while True:
                next_at = time.monotonic() + PING_INTERVAL
                self._again()
                if len(self._times) + self._lost == count or (
                    deadline is not None and next_at > deadline
                ):
                    break
                time.sleep(max(0.0, next_at - time.monotonic()))
        except KeyboardInterrupt:
            if not self._times:
                raise
            is_interrupted = True
        if not self._as_json:
            print("\n" * is_interrupted + self.tally(), flush=True)

    def _again(self) -> None:
        """As `once`, but that a later one is not answered is a line, too."""
        try:
            self.once()
        except CommandFailed as error:
            if not self._times:
                raise
            self._lost += 1
            told = {"code": error.code, "text": error.text}
            if self._as_json:
                print_json({"peer_id": self._peer_id, "rtt": None, "error": told})
            else:
                print(f"{self._names.titled(self._peer_id)}: {error.text}", flush=True)

    def tally(self) -> str:
        """How many were answered, and how soon."""
        answered = len(self._times)
        sent = answered + self._lost
        lost = 100 * self._lost / sent
        least, mean, most = min(self._times), sum(self._times) / answered, max(self._times)
        shown = "/".join(f"{1000 * each:.1f}" for each in (least, mean, most))
        return f"{sent} sent, {answered} answered, {lost:.0f} % lost; least/mean/most {shown} ms"
