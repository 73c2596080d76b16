"""The commands that ask the running node; they import next to nothing, so they start fast."""

import base64
import sys
import time
from pathlib import Path
from urllib.parse import quote

import click

from overlay.cli import tables
from overlay.cli.options import Patience, Word, asks_node, print_json, read_argument
from overlay.errors import CommandFailed, Failure
from overlay.node.client import Client

RELAYED = "relayed"
UNREACHABLE = 2
PING_INTERVAL = 1.0
"""Seconds between two pings that wait for a direct path."""
SLACK = 10.0
"""Seconds that the node gets on top of a time limit of the user."""


@click.command()
@asks_node
def status(data_dir: Path, as_json: bool) -> None:
    """Show what the node is and how it fares."""
    answer = Client(data_dir).get("/status")
    print_json(answer) if as_json else tables.print_status(answer)


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Also members without a link.")
@click.option(
    "--sdp", type=Word(), metavar="PEER", help="Print both session descriptions of a link instead."
)
@asks_node
def peers(data_dir: Path, as_json: bool, everybody: bool, sdp: str | None) -> None:
    """List the links of the node.

    With --json a line each. PEER is a peer id, a unique prefix of one, or a unique name.
    """
    if sdp is not None:
        answer = Client(data_dir).post("/descriptions", {"peer": sdp})
        print_json(answer) if as_json else tables.print_descriptions(answer)
        return
    rows = Client(data_dir).get("/peers/all" if everybody else "/peers")["peers"]
    if as_json:
        for row in rows:
            print_json(row)
    else:
        tables.print_peers(rows)


@click.command()
@click.argument("peer", type=Word())
@asks_node
def connect(data_dir: Path, as_json: bool, peer: str) -> None:
    """Open a link to PEER, by whatever way reaches it."""
    answer = Client(data_dir).post("/connect", {"peer": peer})
    print_json(answer) if as_json else tables.print_connected(answer)


@click.command()
@click.argument("peer", type=Word())
@click.option(
    "--until-direct", is_flag=True, help="Again every second, until no relay is in between."
)
@click.option("--timeout", type=Patience(), metavar="S", help="Exit 1 if not direct in S seconds.")
@asks_node
def ping(
    data_dir: Path, as_json: bool, peer: str, until_direct: bool, timeout: float | None
) -> None:
    """Measure the round trip to PEER over its link, and show its path."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        answer = Client(data_dir).post("/ping", {"peer": peer})
        print_json(answer) if as_json else tables.print_ping(answer)
        if not until_direct or answer.get("path") != RELAYED:
            return
        if deadline is not None and time.monotonic() + PING_INTERVAL > deadline:
            raise CommandFailed(
                Failure.TIMEOUT,
                f"the path is still relayed after {timeout:g} s: `overlay doctor {peer}` says why",
            )
        time.sleep(PING_INTERVAL)


@click.command()
@click.argument("peer", type=Word(), required=False)
@asks_node
def doctor(data_dir: Path, as_json: bool, peer: str | None) -> int:
    """Say what this network is, or why PEER is direct or relayed, and what to do about it.

    With PEER: exit 0 if the path is direct, 1 if it is relayed, 2 if there is none.
    """
    if peer is None:
        answer = Client(data_dir).get("/doctor")
        print_json(answer) if as_json else tables.print_doctor(answer)
        return 0
    answer = Client(data_dir).post("/doctor", {"peer": peer})
    print_json(answer) if as_json else tables.print_doctor_of(peer, answer)
    return UNREACHABLE if answer["path"] is None else int(answer["path"] == RELAYED)


@click.command()
@click.argument("peer", type=Word())
@asks_node
def trace(data_dir: Path, as_json: bool, peer: str) -> None:
    """Show the way to PEER through the mesh, which an offer to it takes."""
    answer = Client(data_dir).post("/trace", {"peer": peer})
    print_json(answer) if as_json else tables.print_trace(answer)


@click.command()
@click.option("--peers", default=1, show_default=True, type=click.IntRange(0), metavar="N")
@click.option("--timeout", type=Patience(), metavar="S", help="Exit 1 after S seconds.")
@asks_node
def wait(data_dir: Path, as_json: bool, peers: int, timeout: float | None) -> None:
    """Wait until the node has links to at least N peers."""
    body = {"peers": peers, "timeout": timeout}
    patience = None if timeout is None else timeout + SLACK
    answer = Client(data_dir).post("/wait", body, patience)
    if as_json:
        print_json(answer)


@click.command()
@click.argument("topic", type=Word())
@click.argument("data", default="-", metavar="[DATA|-]")
@asks_node
def publish(data_dir: Path, as_json: bool, topic: str, data: str) -> None:
    """Send DATA, or standard input, to every subscriber of TOPIC in the mesh.

    At most 1 MiB (1,048,576 bytes). What is not UTF-8 is sent as bytes.
    """
    content = read_argument(data)
    body = {"topic": topic}
    try:
        body["data"] = content.decode()
    except UnicodeDecodeError:
        body["data_b64"] = base64.b64encode(content).decode()
    answer = Client(data_dir).post("/publish", body)
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
    seen = 0
    try:
        with Client(data_dir).stream(path) as stream:
            print(f"subscribed to {topic}; Ctrl-C ends it", file=sys.stderr, flush=True)
            for row in stream.until(deadline):
                print_json(row) if as_json else tables.print_message(row)
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
    """Say goodbye to all peers and end the node; returns when it is gone."""
    node = Client(data_dir)
    node.post("/leave", {})
    node.wait_until_gone()
    if as_json:
        print_json({"left": True})


COMMANDS = (status, peers, connect, ping, trace, doctor, wait, publish, subscribe, leave)
