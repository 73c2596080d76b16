"""Sixteen nodes behind firewalls that let nobody in: only the mesh can negotiate their links.

Each node has a network namespace of its own, on one LAN, and all but the first sit behind a
stateful firewall that drops whatever they have not asked for. All join by the first node's invite.
Every link that does not touch the first has to be negotiated through the mesh: a stranger on the
same LAN shows that nobody else could have been dialled. Then the first is killed; everybody stays
connected, and a message still reaches every survivor.
"""

import argparse
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

if __package__ in {None, ""}:  # run as a script: the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos import acts
from demos.links import Link
from demos.stage import SETTINGS, Stage, arguments, curtain, require
from tests.lab.lan import STATEFUL, Lan
from tests.lab.namespaces import why_unavailable
from tests.lab.nodes import Failed


def assemble(stage: Stage, lan: Lan, options: argparse.Namespace) -> None:
    """Start the open node, then all others at once with its invite."""
    firewall = None if options.no_firewall else STATEFUL
    quiet = ("--set", "links.auto=false") if options.star else ()
    for number in range(1, options.nodes + 1):
        host = lan.host(firewall=None if number == 1 else firewall)
        node = stage.crew.node(f"n{number}", enter=host.enter)
        stage.cast.append(node)
        stage.show(node, f"{host.address}, {'open' if number == 1 else 'behind a firewall'}")
    first, *others = stage.cast
    stage.step(f"{first.name} is up; everybody else joins by its invite")
    first.up(*SETTINGS, *quiet, listen=f"{lan.hosts[0].address}:0")
    link = first.invite("--members", "1")
    for node, host in zip(others, lan.hosts[1:], strict=True):
        node.start(*SETTINGS, *quiet, join=link, listen=f"{host.address}:0")
    for node in others:
        node.wait_ready()
        stage.show(node, f"joined by {first.name}'s invite")


def negotiated_through_the_mesh(links: list[Link], first: str) -> None:
    """Every link but the first node's own came about through the mesh."""
    for link in links:
        if first not in {link.a, link.b}:
            require(
                link.negotiated == "mesh",
                f"{link.a} – {link.b} is {link.negotiated}: somebody could dial somebody",
            )
            require(link.via != "", f"{link.a} – {link.b} names nobody who handed the offer on")


def answers_strangers(lan: Lan, stage: Stage) -> list[str]:
    """Which nodes answer the STUN question of a host that they have never sent anything to."""
    by_address = {node.ready["listen"][0]: node for node in stage.cast}
    question = struct.pack("!HHI", 1, 0, 0x2112A442) + bytes(12)  # RFC 8489 §5, a Binding request
    stranger = lan.host(firewall=None)
    with stranger.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        asking.bind((stranger.address, 0))
        asking.settimeout(1.0)
        for address in by_address:
            host, port = address.rsplit(":", 1)
            asking.sendto(question, (host, int(port)))
        answered: set[str] = set()
        with suppress(TimeoutError):
            while len(answered) < len(by_address):
                host, port = asking.recvfrom(2048)[1]
                answered.add(by_address[f"{host}:{port}"].name)
    return sorted(answered)


def play(stage: Stage, lan: Lan, options: argparse.Namespace) -> None:
    """The whole demonstration; raises `Failed` at the first thing that does not hold."""
    stage.step(f"{options.nodes} network namespaces on one switch")
    assemble(stage, lan, options)
    first, *others = stage.cast
    links = acts.settle(stage, stage.cast, first.name)
    negotiated_through_the_mesh(links, first.name)
    opened = answers_strangers(lan, stage)
    require(
        opened == [first.name], f"{', '.join(opened)} let a stranger in: others could dial them"
    )
    stage.step(f"a stranger on the same switch knocks at every door: only {first.name} answers")
    names = [node.name for node in others]
    acts.connect_strangers(stage, names, stop_others=options.stop_others)
    acts.listen(stage)
    acts.announce(stage, first, stage.cast, "hello")
    survivors = acts.lose(stage, first)
    acts.announce(stage, survivors[-1], survivors, "we go on")
    after = acts.still_connected(stage, survivors)
    acts.finish(stage, links, after)


def enter_user_namespace() -> None:
    """Start again under unshare(1) when this user may not make namespaces; once."""
    if why_unavailable() is None or os.environ.get("DEMO_UNSHARED"):
        return
    os.environ["DEMO_UNSHARED"] = "1"
    os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])


def main() -> None:
    """Play it; exit 0 only if all of it held."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--no-firewall",
        action="store_true",
        help="leave every node open: then it proves nothing, and the demonstration has to fail",
    )
    parser.add_argument(
        "--star",
        action="store_true",
        help="have nobody open links of its own: all hangs on the first, and it has to fail",
    )
    options = parser.parse_args()
    enter_user_namespace()
    with curtain(options, Stage) as stage:
        if why := why_unavailable():
            raise Failed(why)
        with Lan() as lan:
            play(stage, lan, options)


if __name__ == "__main__":
    main()
