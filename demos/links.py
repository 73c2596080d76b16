"""The links of a mesh as its nodes tell them: who is linked to whom, how far apart two are."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from rich.table import Table

from tests.lab.nodes import Json, Node

Pair = tuple[str, str]
"""The names of two nodes that are linked."""


class Link:
    """One link as its two ends tell it."""

    def __init__(self, a: str, b: str, facts: Json, via: str) -> None:
        self.a, self.b, self.facts, self.via = a, b, facts, via

    @property
    def negotiated(self) -> str:
        """``invite``, ``direct``, ``mesh``, ``cache`` or ``manual``."""
        return str(self.facts["negotiated"])

    @property
    def hops(self) -> int:
        """How many links of the mesh the offer crossed; 0 when it needed none."""
        return int(self.facts["hops"])

    def as_json(self) -> Json:
        """What ``--json`` prints."""
        told = {key: self.facts[key] for key in ("negotiated", "hops", "path", "since", "rtt")}
        return {"ends": [self.a, self.b], "via": self.via or None, **told}


def read_links(nodes: Sequence[Node], rows: Sequence[Sequence[Json]]) -> list[Link] | None:
    """Each link between `nodes` once, from what ``peers`` says at each of them.

    None when the two ends of one differ: it is just coming up or going down.
    """
    names = {node.peer_id: node.name for node in nodes}
    ends = {
        (node.name, names[row["peer_id"]]): row
        for node, told in zip(nodes, rows, strict=True)
        for row in told
        if row["peer_id"] in names
    }
    for (a, b), row in ends.items():
        if (b, a) not in ends or ends[b, a]["negotiated"] != row["negotiated"]:
            return None
    return [
        Link(a, b, row, names.get(row["via"], "another") if row["via"] else "")
        for (a, b), row in ends.items()
        if a < b
    ]


def linked_pairs(nodes: Sequence[Node]) -> list[Pair]:
    """Who is linked to whom at this moment, from the events that `up --json` prints at both ends.

    One end alone may be the last to know, or stopped.
    """
    names = {node.peer_id: node.name for node in nodes}
    told = {node.name: _neighbours(node) for node in nodes}
    said = {(name, names[peer]) for name, peers in told.items() for peer in peers if peer in names}
    return sorted((a, b) for a, b in said if a < b and (b, a) in said)


def _neighbours(node: Node) -> set[str]:
    assert node.process is not None
    found: set[str] = set()
    for event in map(json.loads, list(node.process.out.all)):
        if event["event"] == "linked":
            found.add(event["peer_id"])
        elif event["event"] == "unlinked":
            found.discard(event["peer_id"])
    return found


def neighbours(name: str, pairs: Iterable[Pair]) -> list[str]:
    """Whom a node is linked to."""
    return [b if a == name else a for a, b in pairs if name in (a, b)]


def distances(start: str, pairs: Iterable[Pair]) -> dict[str, int]:
    """How many links each node is away from `start`; who is not in it cannot be reached."""
    pairs, found, edge = list(pairs), {start: 0}, [start]
    for name in edge:
        for other in neighbours(name, pairs):
            if other not in found:
                found[other] = found[name] + 1
                edge.append(other)
    return found


def are_connected(names: Sequence[str], pairs: Iterable[Pair]) -> bool:
    """Whether there is a way from each of these to each other that leads over no one else."""
    within = [pair for pair in pairs if set(pair) <= set(names)]
    return set(names) == set(distances(names[0], within))


def strangers(names: Sequence[str], pairs: Sequence[Pair]) -> Pair | None:
    """The two nodes that are furthest apart, if any two have no link."""
    far = [
        (hops, a, b)
        for a in names
        for b, hops in distances(a, pairs).items()
        if b in names and hops > 1
    ]
    return max(far)[1:] if far else None


def full_mesh(count: int) -> int:
    """How many links everybody with everybody would be."""
    return count * (count - 1) // 2


def table_of(links: Sequence[Link]) -> Table:
    """How the links came about: by what, over how many hops, handed on by whom, when."""
    table = Table(title=f"{len(links)} links", title_justify="left")
    for column in ("negotiated", "hops", "links", "rtt", "since", "via"):
        table.add_column(column, justify="left" if column in {"negotiated", "via"} else "right")
    begun = min(link.facts["since"] for link in links)
    for negotiated, hops in sorted({(link.negotiated, link.hops) for link in links}):
        kind = [link for link in links if (link.negotiated, link.hops) == (negotiated, hops)]
        rtts = [1000 * link.facts["rtt"] for link in kind if link.facts["rtt"] is not None]
        since = sorted(link.facts["since"] - begun for link in kind)
        helpers = Counter(link.via for link in kind if link.via).most_common()
        table.add_row(
            negotiated,
            str(hops),
            str(len(kind)),
            f"{median(rtts):.1f} ms" if rtts else "–",
            f"+{since[0]:.0f} … {since[-1]:.0f} s",
            " ".join(f"{name}×{count}" if count > 1 else name for name, count in helpers) or "–",
        )
    return table
