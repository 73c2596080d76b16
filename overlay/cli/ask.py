"""The commands that ask the running node; they import next to nothing, so they start fast."""

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from overlay.cli import tables
from overlay.cli.completion import Peer
from overlay.cli.names import Names
from overlay.cli.options import Patience, Word, asks_node, print_json, read_argument
from overlay.cli.waiting import Client, tell, waiting
from overlay.errors import CommandFailed, Failure, NoNode
from overlay.names import plain
from overlay.node.client import ENDED, PATIENCE
from overlay.node.directory import is_running

RELAYED = "relayed"
UNREACHABLE = 2
SLACK = 10.0
"""Seconds that the node gets on top of a time limit of the user."""
START_PATIENCE = 30.0
"""Seconds for which `wait` without a time limit waits for a node to start (guess)."""
START_INTERVAL = 0.1
"""Seconds between two looks whether it has."""


@click.command()
@asks_node
def status(data_dir: Path, as_json: bool) -> None:
    """Show what the node is and how it fares."""
    answer = Client(data_dir).get("/status")
    print_json(answer) if as_json else tables.print_status(answer)


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Also members without a link.")
@click.option("--wide", is_flag=True, help="All columns, however wide the terminal is.")
@click.option(
    "--sdp", type=Peer(), metavar="PEER", help="Print both session descriptions of a link instead."
)
@asks_node
def peers(data_dir: Path, as_json: bool, everybody: bool, wide: bool, sdp: str | None) -> None:
    """List the links of the node, one line each; further columns where there is room.

    A link is `up`, `suspect` (a question went unanswered) or `silent` (nothing heard for 6 s). PEER
    is a peer id, the short one shown here, a unique prefix of either, or a unique name. --json
    leaves silent links out, unless with --all.
    """
    if sdp is not None:
        answer = Client(data_dir).post("/descriptions", {"peer": sdp})
        print_json(answer) if as_json else tables.print_descriptions(answer)
        return
    answer = Client(data_dir).get("/peers/all" if everybody or not as_json else "/peers")
    if as_json:
        for row in answer["peers"]:
            print_json(row)
    else:
        tables.print_peers(answer, everybody=everybody, wide=wide)


@click.command()
@click.argument("peer", type=Peer())
@asks_node
def connect(data_dir: Path, as_json: bool, peer: str) -> None:
    """Open a link to PEER, by whatever way reaches it."""
    node = Client(data_dir, f"connecting to {plain(peer)}")
    answer = node.post("/connect", {"peer": peer})
    print_json(answer) if as_json else tables.print_connected(answer, Names(node).titled)


@click.command()
@click.argument("peer", type=Peer(), required=False)
@asks_node
def doctor(data_dir: Path, as_json: bool, peer: str | None) -> int:
    """Say what this network is, or how PEER is reached.

    And why that is so, and what to do about it. With PEER: exit 0 if the path is direct, 1 if it is
    relayed, 2 if there is none.
    """
    if peer is None:
        answer = Client(data_dir, "asking neighbours what they see").get("/doctor")
        print_json(answer) if as_json else tables.print_doctor(answer)
        return 0
    answer = Client(data_dir, f"looking for {plain(peer)}").post("/doctor", {"peer": peer})
    print_json(answer) if as_json else tables.print_doctor_of(peer, answer)
    return UNREACHABLE if answer["path"] is None else int(answer["path"] == RELAYED)


@click.command()
@click.argument("peer", type=Peer())
@asks_node
def trace(data_dir: Path, as_json: bool, peer: str) -> None:
    """Show the way through the mesh that an offer to PEER takes."""
    answer = Client(data_dir).post("/trace", {"peer": peer})
    print_json(answer) if as_json else tables.print_trace(answer)


@click.command()
@click.option("--peers", default=1, show_default=True, type=click.IntRange(0), metavar="N")
@click.option("--timeout", type=Patience(), metavar="S", help="Exit 1 after S seconds.")
@asks_node
def wait(data_dir: Path, as_json: bool, peers: int, timeout: float | None) -> None:
    """Wait until the node has links to at least N peers.

    A node that is still to start is waited for as well: for S seconds, or 30 without --timeout; if
    there is none by then, that is exit 3.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    is_up, answer = links_at_once(data_dir, peers)
    if answer is None:
        having = {0: "be up", 1: "have a link"}.get(peers, f"have {peers} links")
        text = f"waiting for the node on {data_dir} to {having}"
        with waiting(text, in_pipes=timeout is None or timeout > 1):
            answer = links_by(data_dir, peers, deadline, is_up=is_up)
    if as_json:
        print_json(answer)


def links_at_once(data_dir: Path, peers: int) -> tuple[bool, Any]:
    """Whether there is a node, and its answer if it has so many links already; else None."""
    try:
        return True, Client(data_dir).post("/wait", {"peers": peers, "timeout": 0.0})
    except NoNode:
        return False, None
    except CommandFailed as error:
        if error.code != Failure.TIMEOUT:
            raise
        return True, None


def links_by(data_dir: Path, peers: int, deadline: float | None, *, is_up: bool) -> Any:
    """The answer of a node once it has so many links, and of one that is not up, once it is.

    CommandFailed, NoNode: not by the deadline.
    """
    start_by = time.monotonic() + START_PATIENCE if deadline is None else deadline
    node = Client(data_dir, "")
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            body = {"peers": peers, "timeout": left}
            return node.post("/wait", body, None if left is None else left + SLACK)
        except NoNode:
            if is_up:
                raise CommandFailed(*ENDED) from None
            is_starting = deadline is None and is_running(data_dir)
            if time.monotonic() > start_by and not is_starting:
                raise
        time.sleep(START_INTERVAL)


@click.command()
@click.argument("topic", type=Word())
@click.argument("data", default="-", metavar="[DATA|-]")
@click.option(
    "--timeout",
    type=Patience(),
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long to wait for a first link while there is none.",
)
@asks_node
def publish(data_dir: Path, as_json: bool, topic: str, data: str, timeout: float) -> None:
    """Send DATA to every subscriber of TOPIC in the mesh.

    Without DATA, what standard input holds. At most 1 MiB (1,048,576 bytes). What is not UTF-8 is
    sent as bytes. A node that has no link waits for one; if none comes, nothing is published, and
    that is exit 1.
    """
    if data == "-" and sys.stdin.isatty():
        print("type lines, end with Ctrl-D; Ctrl-C publishes nothing", file=sys.stderr, flush=True)
    content = read_argument(data)
    body: dict[str, Any] = {"topic": topic, "timeout": 0.0}
    try:
        body["data"] = content.decode()
    except UnicodeDecodeError:
        import base64

        body["data_b64"] = base64.b64encode(content).decode()
    try:
        answer = Client(data_dir).post("/publish", body)
    except CommandFailed as error:
        if error.code != Failure.NOT_LINKED or not timeout:
            raise
        text = f"no peer is linked: waiting for the first, {timeout:g} s at most"
        node = Client(data_dir, text, in_pipes=timeout > 1)
        answer = node.post("/publish", {**body, "timeout": timeout}, timeout + PATIENCE)
    if as_json:
        print_json(answer)


@click.command()
@click.argument("topic", type=Word())
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N messages.")
@click.option("--timeout", type=Patience(), metavar="S", help="End after S seconds.")
@asks_node
def subscribe(
    data_dir: Path, as_json: bool, topic: str, count: int | None, timeout: float | None
) -> None:
    """Print each message published on TOPIC, until interrupted.

    With --count and --timeout both, fewer messages than N within S seconds are exit 1.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    path = f"/subscribe?topic={quote(topic, safe='')}"
    node = Client(data_dir)
    names = Names(node)
    seen = 0
    try:
        with node.stream(path) as stream:
            print(f"subscribed to {topic}; Ctrl-C ends it", file=sys.stderr, flush=True)
            for row in stream.until(deadline, tell):
                print_json(row) if as_json else tables.print_message(row, names.titled)
                seen += 1
                if seen == count:
                    return
    except KeyboardInterrupt:
        return
    if deadline is None or time.monotonic() < deadline:
        raise CommandFailed(
            Failure.CLOSED, "the subscription has ended: the node is leaving, or gone"
        )
    if count is not None:
        raise CommandFailed(
            Failure.TIMEOUT, f"only {seen} of {count} messages came in {timeout:g} s"
        )


@click.command()
@asks_node
def leave(data_dir: Path, as_json: bool) -> None:
    """Say goodbye to all peers and end the node.

    Returns when it is gone.
    """
    node = Client(data_dir)
    node.post("/leave", {})
    with waiting("the node says goodbye"):
        node.wait_until_gone()
    if as_json:
        print_json({"left": True})


COMMANDS = (status, peers, connect, trace, doctor, wait, publish, subscribe, leave)
