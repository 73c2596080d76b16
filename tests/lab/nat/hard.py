"""One idea: the hard cases of which others' laboratories are made, and what must come of each here.

Hosts with many addresses, uplinks of either family, ways that break and come back, and ways that
are bad. A case says how the homes of the two ends are built, and what comes of it; `Trial` tries it
with two nodes that have just been started. The bench tries them all, `make test` one of each sort.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.acceptance.in_laboratory import Carrying
from tests.lab.nat.kinds import Ipv6
from tests.lab.nat.laboratory import Home, Laboratory
from tests.lab.nat.mesh import (
    ASKED,
    Mesh,
    carry,
    connect,
    path_of,
    row_of,
    wait_until_direct,
)
from tests.lab.nat.wire import Impairment
from tests.lab.nodes import Failed, Node, wait_for

DIRECT, RELAYED = "direct", "relayed"
STREAM = 64 << 20
"""Bytes of the stream that an outage befalls."""
FLOWING = 4 << 20
"""Of these, as many have gone when it begins."""
BEYOND = 60.0
"""Seconds: a link whose peer is silent for longer is over."""
PATIENCE = 30.0
"""Seconds for a stream to go on after an outage, before it counts as lost."""
Options = Mapping[str, Any]


class Group(StrEnum):
    """What makes a case hard."""

    ADDRESSES = "addresses"
    UPLINKS = "uplinks"
    OUTAGES = "outages"
    DEGRADATIONS = "degradations"


@dataclass(frozen=True, slots=True)
class Outage:
    """The way of the end that asks breaks for so many seconds, while a stream goes over it."""

    seconds: float
    cable: bool = False
    """The host sees it."""
    both: bool = False
    """The other end's breaks as well."""
    restart: bool = False
    """And its router has been switched off and on: what was mapped is so no more."""


@dataclass(frozen=True, slots=True)
class Case:
    """Two homes, the one that asks first; what must come of the pair."""

    name: str
    group: Group
    a: Options = field(default_factory=dict)
    b: Options = field(default_factory=dict)
    kinds: tuple[str, str] = ("port_restricted", "port_restricted")
    outcome: str = DIRECT
    within: float = 1.0
    """Seconds to the first answered ping at most."""
    direct_within: float = 2.0
    """Seconds from the same moment to a path of their own."""
    size: int = 1 << 20
    """Bytes that show the way; 0: the nodes say it."""
    outage: Outage | None = None
    back_within: float = 0.0
    """Seconds from the end of the outage until bytes of the same stream move again."""


def _many() -> list[Case]:
    cases = []
    for count in (8, 16, 32):
        sorts: dict[str, Options] = {
            f"{count} addresses on its LAN": {"addresses": count},
            f"{count} interfaces that lead nowhere": {"nowhere": count},
            f"{count} addresses, half of them of IPv6": {
                "addresses": count // 2,
                "ipv6": Ipv6.FIREWALLED,
            },
        }
        for name, options in sorts.items():
            cases += [
                Case(f"{name}: who asks", Group.ADDRESSES, a=options),
                Case(f"{name}: both ends", Group.ADDRESSES, a=options, b=options),
            ]
    return cases


UPLINKS: dict[str, Options] = {
    "IPv4": {},
    "IPv6": {"ipv6": Ipv6.ONLY},
    "both": {"ipv6": Ipv6.FIREWALLED},
}
SYMMETRIC = "symmetric_random", "symmetric_random"


def _uplinks() -> list[Case]:
    cases = [
        Case(
            f"{one} to {other}",
            Group.UPLINKS,
            a=ours,
            b=theirs,
            outcome=RELAYED if {one, other} == {"IPv4", "IPv6"} else DIRECT,
        )
        for one, ours in UPLINKS.items()
        for other, theirs in UPLINKS.items()
    ]
    dead, both = {"ipv6": Ipv6.DEAD}, UPLINKS["both"]
    return [
        *cases,
        Case("both to both, symmetric NATs", Group.UPLINKS, a=both, b=both, kinds=SYMMETRIC),
        Case("IPv6 that is dead to both", Group.UPLINKS, a=dead, b=both),
        Case("both to IPv6 that is dead", Group.UPLINKS, a=both, b=dead),
    ]


def _outages() -> list[Case]:
    def case(name: str, outage: Outage, back_within: float, **more: Any) -> Case:
        return Case(name, Group.OUTAGES, outage=outage, back_within=back_within, **more)

    return [
        case("3 s, the cable", Outage(3, cable=True), 5.0),
        case("10 s, the cable", Outage(10, cable=True), 5.0),
        case("10 s, beyond the router", Outage(10), 5.0),
        case("30 s, beyond the router", Outage(30), 5.0),
        case("10 s at both ends", Outage(10, both=True), 5.0),
        case("10 s, and the router restarts", Outage(10, restart=True), 10.0),
        case("10 s of a relayed pair", Outage(10), 5.0, kinds=SYMMETRIC, outcome=RELAYED),
        case("90 s: another link", Outage(90), 15.0),
    ]


ENDS = "who asks", "who is asked"
LEVELS = {
    "good Wi-Fi": (Impairment(latency=0.01, jitter=0.005, loss=0.005), 2.0),
    "bad Wi-Fi": (Impairment(latency=0.1, jitter=0.03, loss=0.03, reorder=0.03), 8.0),
    "a full cell": (Impairment(latency=0.2, jitter=0.06, loss=0.05, reorder=0.05), 12.0),
    "hardly usable": (Impairment(latency=0.3, jitter=0.08, loss=0.08, reorder=0.08), 15.0),
    "a satellite in rain": (Impairment(latency=0.5, jitter=0.1, loss=0.12, reorder=0.12), 30.0),
    "absurd": (Impairment(latency=0.8, jitter=0.2, loss=0.2, reorder=0.2), 60.0),
    "a modem": (Impairment(latency=0.05, rate=7_000, queue=14_000), 8.0),
    "a queue of two seconds": (Impairment(latency=0.02, rate=64_000, queue=128_000), 4.0),
}
"""Eight ways, each for the whole leg of one home and in both directions; in how many seconds who
asks over it has an answer. It takes ten round trips, and some are lost."""


def _degradations() -> list[Case]:
    cases = []
    for name, (level, within) in LEVELS.items():
        bad: Options = {"impairment": level}
        for end, (a, b) in zip(ENDS, ((bad, {}), ({}, bad)), strict=True):
            cases.append(
                Case(
                    f"{name}: {end}",
                    Group.DEGRADATIONS,
                    a,
                    b,
                    within=within,
                    direct_within=within + 10.0,
                    size=0,
                )
            )
    return cases


CASES = (*_many(), *_uplinks(), *_outages(), *_degradations())


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try of a case went."""

    name: str
    group: str
    seconds: float
    """From the request behind `overlay connect` to the first answered ping, or to the failure."""
    way: str = ""
    """``direct``, ``relayed``; empty: not connected, or both."""
    direct_s: float | None = None
    """From the same moment to a path of their own."""
    technique: str | None = None
    back_s: float | None = None
    """From the end of an outage until bytes moved again."""
    whole: bool = True
    """No byte of a stream was lost or out of order."""
    same_link: bool = True
    """It was the same link after the outage."""
    why: str = ""


def missed(case: Case, tried: Tried) -> list[str]:
    """What is not as it must be."""
    said = []
    if tried.way != case.outcome:
        said.append(f"{tried.way or 'no way'}, not {case.outcome}: {tried.why}")
    if tried.seconds > case.within:
        said.append(f"connects after {tried.seconds:.1f} s")
    if case.outcome == DIRECT and (tried.direct_s is None or tried.direct_s > case.direct_within):
        said.append(f"direct after {tried.direct_s} s")
    if not tried.whole:
        said.append(f"a stream came to nothing: {tried.why}")
    if case.outage is not None:
        if tried.back_s is None or tried.back_s > case.back_within:
            said.append(f"back after {tried.back_s} s")
        if tried.same_link is (case.outage.seconds > BEYOND):
            said.append("another link" if not tried.same_link else "the same link")
    return [f"{case.name}: {each}" for each in said]


class Trial:
    """Homes for some cases, nodes in them, and a try of each."""

    def __init__(self, laboratory: Laboratory, mesh: Mesh, cases: Sequence[Case]) -> None:
        """All nodes are started at once; the homes stand already or are built now."""
        self.laboratory, self.mesh, self.cases = laboratory, mesh, cases
        homes = [home for case in cases for home in self._homes(case)]
        nodes = mesh.members(homes, *ASKED)
        self._nodes = list(zip(nodes[::2], nodes[1::2], strict=True))

    def _homes(self, case: Case) -> tuple[Home, Home]:
        one, other = case.kinds
        pair = (
            self.laboratory.standing(one, f"{case.name} a", **case.a),
            self.laboratory.standing(other, f"{case.name} b", **case.b),
        )
        for home in pair:
            home.forget()
        return pair

    def run(self) -> list[Tried]:
        """A try of each case, one after the other."""
        return [self.attempt(*each) for each in zip(self.cases, self._nodes, strict=True)]

    def attempt(self, case: Case, nodes: tuple[Node, Node]) -> Tried:
        """One try."""
        a, b = nodes
        began_at = time.monotonic()

        def since() -> float:
            return round(time.monotonic() - began_at, 3)

        def told(seconds: float, **more: Any) -> Tried:
            return Tried(case.name, case.group.value, seconds, **more)

        why = _linked(a, b, case.within)
        if why:
            return told(since(), why=why)
        seconds, direct_s = since(), None
        if case.outcome == DIRECT and wait_until_direct(a, b, case.direct_within):
            direct_s = since()
        technique = row_of(a, b).get("technique")
        after: dict[str, Any] = {}
        if case.outage is not None:
            after = self._survive(case, case.outage, a, b)
        way, why = self._way(case, a, b)
        whole = after.pop("whole", True) and not why
        why = after.pop("why", "") or why
        return told(
            seconds, way=way, direct_s=direct_s, technique=technique, whole=whole, why=why, **after
        )

    def _way(self, case: Case, a: Node, b: Node) -> tuple[str, str]:
        """Where bytes go, and what was wrong with that."""
        if not case.size:
            return {"relayed": RELAYED, "": ""}.get(path_of(a, b), DIRECT), ""
        self.laboratory.reset_counters()
        carried = carry(a, b, case.size)
        homes = self.mesh.homes[a.name], self.mesh.homes[b.name]
        between, through = self.laboratory.bytes_between(*homes), self.mesh.through(*homes)
        why = "" if carried.get("whole") else f"a stream came to nothing: {carried}"
        stray = case.size // 20
        if between >= case.size and through < stray:
            return DIRECT, why
        return RELAYED if through >= case.size and between < stray else "", why

    def _survive(self, case: Case, outage: Outage, a: Node, b: Node) -> dict[str, Any]:
        """A stream, and what the outage did to it."""
        before = row_of(a, b).get("since")
        stream = Carrying(a, b, STREAM)
        wait_for(lambda: stream.has_sent(FLOWING), PATIENCE, "a stream that flows", 0.02)
        one, other = self.mesh.homes[a.name], self.mesh.homes[b.name]
        with one.outage(cable=outage.cable):
            if outage.both:
                with other.outage(cable=outage.cable):
                    time.sleep(outage.seconds)
            else:
                time.sleep(outage.seconds)
            if outage.restart:
                one.rebind()
        ended_at = time.monotonic()
        if outage.seconds > BEYOND:
            return self._anew(case, a, b, ended_at, before)
        moved = [at for at in self._until_it_moves(stream, ended_at) if at > ended_at]
        done = stream.end(PATIENCE)
        if case.outcome == DIRECT:
            wait_until_direct(a, b, case.back_within)
        return {
            "back_s": round(moved[0] - ended_at, 3) if moved else None,
            "whole": bool(done.get("whole")),
            "same_link": row_of(a, b).get("since") == before,
            "why": "" if done.get("whole") else f"the stream: {done}",
        }

    def _until_it_moves(self, stream: Carrying, ended_at: float) -> list[float]:
        deadline = ended_at + PATIENCE
        while not any(at > ended_at for at in stream.times) and time.monotonic() < deadline:
            time.sleep(0.02)
        return list(stream.times)

    def _anew(
        self, case: Case, a: Node, b: Node, ended_at: float, before: object
    ) -> dict[str, Any]:
        """The link is over, and whoever asks gets another."""
        why = _linked(a, b, case.back_within)
        back = None if why else round(time.monotonic() - ended_at, 3)
        wait_until_direct(a, b, case.direct_within)
        same = row_of(a, b).get("since") == before
        return {"back_s": back, "same_link": same, "why": why}


def _linked(a: Node, b: Node, patience: float) -> str:
    """Ask for a link and an answer over it, until it comes; why it has not in this time."""
    deadline = time.monotonic() + patience
    while True:
        try:
            connect(a, b)
            a.ask("POST", "/ping", {"peer": b.peer_id})
        except Failed as failure:
            if time.monotonic() > deadline:
                return str(failure)
            time.sleep(0.2)
        else:
            return ""
