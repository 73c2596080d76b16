"""Eight nodes behind firewalls that let nobody in: only negotiation through the mesh links them.

Each node has a network namespace of its own, on one LAN, and all but the first sit behind a
stateful firewall that drops whatever they have not asked for. All join by the first node's invite.
Every link that does not touch the first has to be negotiated through the mesh: nobody could have
dialled anybody. Then the first is killed, and a message still reaches every survivor.
"""

import argparse
import os
import sys
from pathlib import Path

if __package__ in {None, ""}:  # run as a script: the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.stage import NODES, Link, Stage, curtain, require, table_of
from tests.lab.lan import STATEFUL, Lan
from tests.lab.namespaces import why_unavailable
from tests.lab.nodes import Failed


def assemble(stage: Stage, lan: Lan, firewall: str | None) -> None:
    """Start the open node, then all others at once with its invite."""
    for number in range(1, NODES + 1):
        host = lan.host(firewall=None if number == 1 else firewall)
        node = stage.crew.node(f"n{number}", enter=host.enter)
        stage.cast.append(node)
        stage.show(node, f"{host.address}, {'open' if number == 1 else 'behind a firewall'}")
    first, *others = stage.cast
    stage.step(f"{first.name} is up; everybody else joins by its invite")
    first.up(listen=f"{lan.hosts[0].address}:0")
    link = first.invite("--members", "1")
    for node, host in zip(others, lan.hosts[1:], strict=True):
        node.start(join=link, listen=f"{host.address}:0")
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
            require(link.via != "–", f"{link.a} – {link.b} names nobody who handed the offer on")


def play(stage: Stage, lan: Lan, firewall: str | None) -> None:
    """The whole demonstration; raises `Failed` at the first thing that does not hold."""
    stage.step(f"{NODES} network namespaces on one switch")
    assemble(stage, lan, firewall)
    stage.step("everybody links to everybody")
    stage.settle()
    links = stage.links()
    require(len(links) == NODES * (NODES - 1) // 2, f"{len(links)} links are no full mesh")
    first, *survivors = stage.cast
    negotiated_through_the_mesh(links, first.name)
    stage.step("everybody subscribes")
    ears = stage.listen()
    stage.step(f"{first.name}, the only one that could be dialled, is killed with SIGKILL")
    first.kill()
    stage.show(first, "killed")
    stage.announce(survivors[-1], ears, survivors)
    stage.no_internal_errors(survivors)
    stage.step("the message reached every survivor")
    stage.close(table_of(links))


def enter_user_namespace() -> None:
    """Start again under unshare(1) when this user may not make namespaces; once."""
    if why_unavailable() is None or os.environ.get("DEMO_UNSHARED"):
        return
    os.environ["DEMO_UNSHARED"] = "1"
    os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])


def main() -> None:
    """Play it; exit 0 only if all of it held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--no-firewall",
        action="store_true",
        help="leave every node open: members dial directly, and the demonstration has to fail",
    )
    options = parser.parse_args()
    enter_user_namespace()
    with curtain() as stage:
        if why := why_unavailable():
            raise Failed(why)
        with Lan() as lan:
            play(stage, lan, None if options.no_firewall else STATEFUL)


if __name__ == "__main__":
    main()
