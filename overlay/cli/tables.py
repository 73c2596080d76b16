"""What people see: tables, links to hand on, codes to scan.

A peer chooses its own name, so whatever came from the mesh is printed without control characters.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from overlay.cli.reports import table
from overlay.names import plain, short_id
from overlay.node import terminal

Titled = Callable[[str], str]
"""How a peer is called, by its id."""
NUMBERS = ("rtt", "age", "in", "out")
GAP = 2
"""Spaces between two columns."""
ELSEWHERE = "another node runs with this identity (a copied data directory): stop one of the two"
BELOW_CODE = 3
"""Lines below a code that have to fit on the screen with it: what follows, and the cursor's."""


def print_status(status: dict[str, Any]) -> None:
    """A line for each fact."""
    signalling = ", ".join(f"{count} {what}" for what, count in status["signalling"].items())
    rows = {
        "peer id": status["peer_id"],
        "short id": short_id(status["peer_id"]),
        "name": plain(status["name"]),
        "network": plain(status["network"]),
        "listening on": listening(status["listen"]),
        "links": links(status),
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


def links(status: dict[str, Any]) -> str:
    """How many there are, and how many of them are in doubt, or dead to all appearances."""
    suspect, silent = status.get("suspect"), status.get("silent")  # an older version says neither
    doubts = [f"{suspect} of them suspect"] if suspect else []
    doubts += [f"{silent} more silent"] if silent else []
    return ", ".join([str(status["links"]), *doubts])


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


ALWAYS = ("name", "peer id", "state", "path", "negotiated", "rtt")
"""Columns of the peers that are there in any width, and never cut."""
FURTHER = ("remote", "age", "relay", "via", "hops", "dir", "in", "out")
"""Those that follow, one by one, as far as there is room."""
THIS_NODE = "this node"


def print_peers(answer: dict[str, Any], *, everybody: bool, wide: bool) -> None:
    """A row for each link; the node's own as well where a peer has the same name."""
    rows = [_cells(peer) for peer in answer["peers"] if everybody or peer["state"] != "known"]
    own = answer.get("self", {"name": ""})  # a node of an older version does not say it
    if any(row["name"] == plain(own["name"]) != "" for row in rows):
        rows.insert(0, {**_named(own), "state": THIS_NODE})
    if not rows:
        print("no links")
        return
    columns = room() if not wide else None
    head, width = _columns(rows, columns)
    body = ([row.get(column, "") for column in head] for row in rows)
    table(head, body, NUMBERS, least=width)


def room() -> int | None:
    """The columns of the terminal; None where something else reads, which has room for all."""
    import shutil

    return shutil.get_terminal_size((0, 0)).columns or None


def _columns(rows: list[dict[str, str]], room: int | None) -> tuple[list[str], int]:
    """The columns that have room, and how wide they are together."""
    from rich.cells import cell_len

    head, total = [], -GAP
    for column in (*ALWAYS, *FURTHER):
        cells = [row.get(column, "") for row in rows]
        width = GAP + max(map(cell_len, [column, *cells]))
        if column in FURTHER and not any(cells):
            continue
        if column in FURTHER and room is not None and total + width > room:
            break
        head.append(column)
        total += width
    return head, total


def _named(peer: dict[str, Any]) -> dict[str, str]:
    return {"name": plain(peer["name"]) or "-", "peer id": short_id(peer["peer_id"])}


def _cells(peer: dict[str, Any]) -> dict[str, str]:
    if peer["direction"] is None:
        return {**_named(peer), "state": "no link"}
    rtt = peer["rtt"]
    return {
        **_named(peer),
        "state": peer["state"],
        "path": peer["path"],
        "negotiated": peer["negotiated"],
        "rtt": "-" if rtt is None else f"{1000 * rtt:.1f} ms",
        "remote": peer["remote"],
        "age": span(max(0.0, time.time() - peer["since"])),
        "relay": short_id(peer.get("relay") or ""),  # a node of an older version does not say it
        "via": short_id(peer["via"] or ""),
        "hops": str(peer["hops"]),
        "dir": peer["direction"],
        "in": size(peer["bytes_in"]),
        "out": size(peer["bytes_out"]),
    }


def print_descriptions(answer: dict[str, Any]) -> None:
    """Both sides of a link as SDP."""
    print(f"# ours\n{answer['local']}\n# theirs, {answer['peer_id']}\n{answer['remote']}", end="")


def print_connected(peer: dict[str, Any], titled: Titled = short_id) -> None:
    """One line on a link."""
    via = f" via {titled(peer['via'])}, {peer['hops']} hops" if peer["via"] else ""
    print(f"linked to {titled(peer['peer_id'])} at {peer['remote']} ({peer['negotiated']}{via})")


def print_ping(answer: dict[str, Any], titled: Titled = short_id) -> None:
    """One line on a round trip and its path."""
    path, relay = answer.get("path"), answer.get("relay")
    how = f" ({path} via {titled(relay)})" if relay else f" ({path})" if path else ""
    print(f"{titled(answer['peer_id'])}: {1000 * answer['rtt']:.1f} ms{how}", flush=True)


MAPPING = {
    "independent": "everybody sees this node at the same address",
    "address": "another address for every host that it sends to",
    "address-port": "another address for everybody that it sends to (symmetric)",
    "unknown": "too few members see it from outside",
}
FILTERING = {
    "independent": "packets of strangers get in",
    "address": "packets get in from hosts that it has sent to",
    "address-port": "packets get in only from the very addresses that it has sent to",
    "unknown": "nobody has been able to try",
}
PORTS = {
    "preserved": "the NAT keeps the port, or there is none",
    "sequential": "the NAT counts on from one mapping to the next",
    "random": "nobody can tell the next one",
    "unknown": "too few mappings have been seen",
}
IPV6 = {
    "none": "no global address",
    "open": "strangers get in",
    "firewalled": "there is an address, but strangers do not get in",
    "unknown": "there is an address; nobody has tried to get in",
}
TRUTH = {True: "yes", False: "no", None: "unknown"}
COLUMNS = 80


def print_doctor(answer: dict[str, Any]) -> None:
    """What this network is, in plain words, and what to do about it."""
    lifetime = answer["lifetime"]
    rows = {
        "udp": {True: "works", False: "blocked", None: "nobody has tried yet"}[answer["udp"]],
        "addresses": ", ".join(answer["addresses"]) or "none",
        "mapping": _explained(answer["mapping"], MAPPING),
        "filtering": _explained(answer["filtering"], FILTERING),
        "ports": _explained(answer["ports"], PORTS),
        "lifetime": "unknown" if lifetime is None else f"idle for {lifetime:.0f} s and still there",
        "hairpin": {**TRUTH, None: "unknown, or there is no NAT"}[answer["hairpin"]],
        "ipv6": _explained(answer["ipv6"], IPV6),
        "reachable": TRUTH[answer["reachable"]],
    }
    print("This network")
    for what, value in rows.items():
        _print_wrapped(f"{what:>11}  ", value)
    for index, each in enumerate(answer["observers"]):
        title = "seen at" if index == 0 else ""
        print(f"{title:>11}  {each['mapped']} by {short_id(each['peer_id'])}")
    print("\nWhat to do")
    for line in answer["advice"] or ["nothing: all is well"]:
        _print_wrapped("  - ", line)


def _explained(word: str, words: dict[str, str]) -> str:
    return f"{word}: {words[word]}" if word in words else word


def _print_wrapped(title: str, text: str) -> None:
    import textwrap

    indent = " " * len(title)
    print(textwrap.fill(text, COLUMNS, initial_indent=title, subsequent_indent=indent))


def print_doctor_of(peer: str, answer: dict[str, Any]) -> None:
    """Over what a peer is reached, and why over that."""
    path, relay, rungs = answer["path"], answer["relay"], answer["rungs"]
    over = "cannot be reached now" if path is None else f"is reached directly ({path})"
    if path == "relayed":
        over = (
            f"is reached through the relay {short_id(relay)}"
            if relay
            else "is reached through a relay"
        )
    _print_wrapped("", f"{plain(peer)} {over}.")
    print("\nWhat was tried, the latest last" if rungs else "\nNothing has been tried lately.")
    for rung in rungs:
        title = f"  {rung['rung']:<8}{rung['outcome']:<10}{rung['seconds']:>7.2f} s  "
        told = (rung.get("technique"), plain(rung["why"]))
        _print_wrapped(title, ": ".join(filter(None, told)) or "-")


def print_trace(answer: dict[str, Any]) -> None:
    """A line for each peer on the way, and how long it is."""
    for number, hop in enumerate(answer["hops"], 1):
        print(f"{number:>2}  {short_id(hop)}")
    print(f"there and back in {1000 * answer['rtt']:.1f} ms")


def print_message(message: dict[str, Any], titled: Titled = short_id) -> None:
    """One line on a published message."""
    data = message.get("data")
    text = f"(base64) {message['data_b64']}" if data is None else plain(data)
    print(f"{titled(message['from'])}: {text}", flush=True)


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


def qr_code(link: str) -> str:
    """The link as a code to scan, in half-height blocks; or a line saying why there is none."""
    import io

    import segno

    out = io.StringIO()
    code = segno.make(link.upper(), error="l", micro=False)  # the alphanumeric mode is smaller
    code.terminal(out, border=2, compact=True)
    columns, lines = code.symbol_size(border=2)[0], out.getvalue().count("\n") + BELOW_CODE
    has = terminal.size()
    if terminal.is_shown() and (columns > has[0] or lines > has[1]):
        return (
            f"Its QR code needs {columns} columns and {lines} lines; "
            f"this terminal has {has[0]} and {has[1]}.\n"
        )
    try:
        out.getvalue().encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return "(the terminal has no characters for a QR code)\n"
    return out.getvalue()


def moment(seconds: float) -> str:
    """An instant in local time."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
