"""Eight nodes behind eight kinds of NAT, and two on the internet itself that only help at first.

An internet of network namespaces: every home is behind routers of its own. All join by the invite
of one public node. Once they are a mesh, both public ones are killed, one after the other. The
eight go on: a message reaches all, and ten mebibytes go between the two whose NATs are the worst,
which no direct path can connect: one of the other six carries them, and cannot read them. In the
end every two of them are linked, and a table says by which technique.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

if __package__ in {None, ""}:  # run as a script: the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.table import Table

from demos import acts
from demos.firewalled import enter_user_namespace
from demos.links import are_connected
from demos.stage import Stage, curtain, require
from tests.lab.namespaces import why_unavailable
from tests.lab.nat.kinds import KINDS
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.mesh import CARRIER, carry, connect, expected, row_of
from tests.lab.nodes import Failed, Node

HOMES = (
    *("full_cone", "address_restricted", "port_restricted", "port_restricted_hashed", "carrier"),
    *("open_input", "symmetric_sequential", "symmetric_random"),
)
WORST = HOMES[-2:]
SIZE = 10 << 20
"""Bytes of the stream."""
TECHNIQUES = ("dialled", "ice", "low-ttl", "prediction", "birthday", "relayed")
"""How a link came by its path, the easiest first."""
SEARCHING = 8.0
"""Seconds from a relayed link in which a technique finds a direct path, if one can."""


def assemble(stage: Stage, laboratory: Laboratory, settings: tuple[str, ...]) -> list[Node]:
    """Start the public nodes, then everybody else at once by the first one's invite; the homes'."""
    publics = list[Node]()
    for number in (1, 2):
        host = laboratory.public_host()
        node = stage.crew.node(f"public{number}", argv=CARRIER, enter=host.enter)
        stage.cast.append(node)
        join = publics[0].invite("--members", "1") if publics else None
        node.up(*settings, listen=f"{host.address}:4000", join=join)
        publics.append(node)
        stage.show(node, f"{host.address}, on the internet itself")
    link = publics[0].invite()
    homes = []
    for kind in HOMES:
        home = laboratory.home(kind)
        node = stage.crew.node(kind, argv=CARRIER, enter=home.host.enter)
        stage.cast.append(node)
        stage.show(node, f"behind {home.wan_address}: {KINDS[kind].summary}")
        node.start(*settings, join=link, listen=None)
        homes.append(node)
    for node in homes:
        node.wait_ready()
    return homes


def settle(stage: Stage, homes: list[Node]) -> None:
    """Wait until the mesh holds together without the public nodes; say how they are linked."""
    names = [node.name for node in homes]
    acts.until(lambda: are_connected(names, stage.pairs(homes)), "a mesh that needs no public node")
    rows = [row for node in homes for row in node.peers()]
    relayed = sum(row["path"] == "relayed" for row in rows)
    stage.step(
        f"the homes hold together by themselves: of {len(rows)} ends of links "
        f"{len(rows) - relayed} are direct, {relayed} relayed"
    )


def carry_between(stage: Stage, a: Node, b: Node) -> None:
    """Ten mebibytes between two that no direct path can connect."""
    connect(a, b)
    row = row_of(a, b)
    require(row["path"] == "relayed", f"{a.name} – {b.name} is {row['path']}: no worst NATs")
    relay = stage.name_of(row["relay"])
    done = carry(a, b, SIZE)
    require(done.get("whole") is True, f"the stream came to nothing: {done}")
    rate = SIZE / done["seconds"] / 1e6
    stage.told["carried"] = {**done, "from": a.name, "to": b.name, "relay": relay}
    stage.step(
        f"{a.name} sends {b.name} {SIZE >> 20} MiB by way of {relay}: all of it arrives, "
        f"{rate:.1f} MB/s"
    )


def link_everybody(stage: Stage, homes: Sequence[Node]) -> None:
    """Link every two homes, let them look for direct paths, and count what got them there."""
    for a, b in combinations(homes, 2):
        connect(a, b)
    stage.step("every two homes are linked; those look for a direct path that came about without")
    found = searched(list(combinations(homes, 2)))
    by = {each: [pair for pair, how in found.items() if how == each] for each in TECHNIQUES}
    stage.told["techniques"] = {name: len(some) for name, some in by.items() if some}
    stage.close(table_of(by))


def searched(pairs: list[tuple[Node, Node]]) -> dict[tuple[Node, Node], str]:
    """By which technique each pair is linked, when all that can be direct are; or at last."""
    deadline = time.monotonic() + SEARCHING
    meet = sum(expected(a.name, b.name) == "direct" for a, b in pairs)
    while True:
        found = {pair: technique_of(*pair) for pair in pairs}
        direct = sum(technique != "relayed" for technique in found.values())
        if direct >= meet or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def technique_of(a: Node, b: Node) -> str:
    """What got this link its path: one of `TECHNIQUES`."""
    row = row_of(a, b)
    if row.get("path") == "relayed":
        return "relayed"
    return str(row.get("technique") or "dialled")


def table_of(by: dict[str, list[tuple[Node, Node]]]) -> Table:
    """A line for each technique: how many links, and one of them."""
    table = Table(title="every two homes", title_justify="left")
    for column in ("technique", "links", "for example"):
        table.add_column(column, justify="right" if column == "links" else "left")
    for name, pairs in by.items():
        if pairs:
            a, b = pairs[-1]
            table.add_row(name, str(len(pairs)), f"{a.name} – {b.name}")
    return table


def play(stage: Stage, laboratory: Laboratory, options: argparse.Namespace) -> None:
    """The whole demonstration; raises `Failed` at the first thing that does not hold."""
    settings = ("--set", "links.circuits=false") if options.no_circuits else ()
    stage.step(f"two public hosts, and {len(HOMES)} homes behind as many kinds of NAT")
    homes = assemble(stage, laboratory, settings)
    publics = stage.cast[:2]
    settle(stage, homes)
    acts.listen(stage)
    acts.announce(stage, publics[0], stage.cast, "hello")
    for public, speaker in zip(publics, WORST, strict=True):
        stage.cast = acts.lose(stage, public)
        acts.announce(stage, stage.node(speaker), stage.cast, "we go on")
    stage.told["killed"] = [public.name for public in publics]
    carry_between(stage, *map(stage.node, WORST))
    after = acts.still_connected(stage, homes)
    link_everybody(stage, homes)
    stage.told |= {"nodes": [node.name for node in homes], "kinds": HOMES, "links_after": after}


def main() -> None:
    """Play it; exit 0 only if all of it held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="print what was seen as JSON, the board on stderr"
    )
    parser.add_argument(
        "--no-circuits",
        action="store_true",
        help="relay for nobody: the two worst cannot talk, and the demonstration has to fail",
    )
    options = parser.parse_args()
    enter_user_namespace()
    with curtain(options, Stage) as stage:
        if why := why_unavailable():
            raise Failed(why)
        with Laboratory() as laboratory:
            play(stage, laboratory, options)


if __name__ == "__main__":
    main()
