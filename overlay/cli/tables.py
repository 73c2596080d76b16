"""What people see: tables, links to hand on, codes to scan.

A peer chooses its own name, so whatever came from the mesh is printed without control characters.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from overlay.cli.reports import table
from overlay.node.words import plain

NUMBERS = ("rtt", "age", "in", "out")
ELSEWHERE = "another node runs with this identity (a copied data directory): stop one of the two"
SHORT_ID = 16
"""Characters of a peer id that tell peers apart at a glance; all begin with 12D3KooW."""


def print_status(status: dict[str, Any]) -> None:
    """A line for each fact."""
    signalling = ", ".join(f"{count} {what}" for what, count in status["signalling"].items())
    rows = {
        "peer id": status["peer_id"],
        "name": plain(status["name"]),
        "network": plain(status["network"]),
        "listening on": listening(status["listen"]),
        "links": str(status["links"]),
        # A node of an older version says neither.
        **({"recalling": status["recalling"]} if status.get("recalling") else {}),
        **({"elsewhere": ELSEWHERE} if status.get("identity_elsewhere") else {}),
        "up for": span(status["uptime"]),
        "signalling": signalling,
        "refused": ", ".join(f"{n} {why}" for why, n in status["refused"].items()) or "nothing",
        "own faults": str(status["internal_errors"]),
        "version": f"{status['version']} (wire {status['wire']})",
    }
    for what, value in rows.items():
        print(f"{what:>12}  {value}")


def listening(addresses: list[str]) -> str:
    """Where newcomers can dial, and whether nobody else can."""
    from overlay.core.addresses import Reach, reach_of

    hosts = [address.rpartition(":")[0].strip("[]") for address in addresses]
    text = ", ".join(addresses)
    match reach_of(hosts):
        case Reach.NOWHERE:
            return "nowhere: no network interface has an address"
        case Reach.MACHINE:
            return f"{text} (loopback: only this machine can reach it)"
        case Reach.LINK:
            return f"{text} (link-local: only machines on the same cable or switch can reach it)"
        case Reach.NETWORK:
            return text


def print_peers(peers: list[dict[str, Any]]) -> None:
    """A row for each link."""
    if not peers:
        print("no links")
        return
    head = ("name", "peer id", "dir", "negotiated", "via", "hops", "path", "remote", *NUMBERS)
    table(head, map(_cells, peers), NUMBERS)


def _cells(peer: dict[str, Any]) -> Iterator[str]:
    yield plain(peer["name"])
    yield short(peer["peer_id"])
    if peer["direction"] is None:
        yield "no link"
        return
    yield from (peer["direction"], peer["negotiated"], short(peer["via"] or ""), str(peer["hops"]))
    yield from (peer["path"], peer["remote"])
    yield "" if peer["rtt"] is None else f"{1000 * peer['rtt']:.1f} ms"
    yield span(max(0.0, time.time() - peer["since"]))
    yield from (size(peer["bytes_in"]), size(peer["bytes_out"]))


def print_descriptions(answer: dict[str, Any]) -> None:
    """Both sides of a link as SDP."""
    print(f"# ours\n{answer['local']}\n# theirs, {answer['peer_id']}\n{answer['remote']}", end="")


def print_connected(peer: dict[str, Any]) -> None:
    """One line on a link."""
    via = f" via {peer['via']}, {peer['hops']} hops" if peer["via"] else ""
    print(f"linked to {peer['peer_id']} at {peer['remote']} ({peer['negotiated']}{via})")


def print_trace(answer: dict[str, Any]) -> None:
    """A line for each peer on the way, and how long it is."""
    for number, hop in enumerate(answer["hops"], 1):
        print(f"{number:>2}  {hop}")
    print(f"there and back in {1000 * answer['rtt']:.1f} ms")


def print_message(message: dict[str, Any]) -> None:
    """One line on a published message."""
    data = message.get("data")
    text = f"(base64) {message['data_b64']}" if data is None else plain(data)
    print(f"{short(message['from'])}: {text}", flush=True)


def short(peer_id: str) -> str:
    """Enough of a peer id to recognise it by, and to pass to a command."""
    return peer_id[:SHORT_ID]


def span(seconds: float) -> str:
    """A duration, roughly: two units at most."""
    whole = int(seconds)
    for unit, length, smaller, divisor in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= length:
            return f"{whole // length}{unit} {whole % length // divisor}{smaller}"
    return f"{whole}s"


def size(count: int) -> str:
    """Bytes, roughly."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def qr_code(link: str, columns: int | None = None) -> str:
    """The link as a code to scan, in half-height blocks; or a line saying that it has no room."""
    import io

    import segno

    out = io.StringIO()
    code = segno.make(link, error="l", micro=False)
    if columns is None:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 16
    if code.symbol_size(border=2)[0] > columns:
        return "(the terminal is too narrow for a QR code)\n"
    code.terminal(out, border=2, compact=True)
    try:
        out.getvalue().encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return "(the terminal has no characters for a QR code)\n"
    return out.getvalue()


def moment(seconds: float) -> str:
    """An instant in local time."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
