"""One idea: a mesh in the laboratory, and one try of a pair of its nodes.

Acceptance tests, the bench and the demonstration share it. Every node is a process, asked by the
command line and its socket; whether a pair is direct the laboratory decides: its counters show
where the bytes of a stream went.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement, count, permutations
from urllib.parse import quote

from overlay.node.client import Client
from tests.lab.nat.kinds import KINDS, Dependence, Kind, Ports
from tests.lab.nat.laboratory import Home, Laboratory
from tests.lab.nat.machines import Host
from tests.lab.nodes import Crew, Failed, Json, Node

CARRIER = (sys.executable, "-m", "tests.builds.carrier")
"""The ordinary node, which also sends bytes by stream."""
STAY = ("--set", "links.guests=10m")
"""Links stay that neither end has a use for, as those to the public nodes in a mesh without gossip:
who has one left is seen by one observer alone, and cannot foretell its ports (decision 0040)."""
ASKED = ("--set", "links.auto=false", *STAY)
"""No link but those that a command asks for: what a pair's connect takes is its own."""
MATRIX = tuple(name for name, kind in KINDS.items() if kind.udp)
"""The kinds of which every pair is tried."""
PAIRS = tuple(combinations_with_replacement(MATRIX, 2))
SIZE = 1 << 20
"""Bytes that a stream carries to show which way they take."""
STRAY = SIZE // 20
"""Of those, as many may go another way."""
SETTLE = 8.0
"""Seconds within which a link that began as a relayed one becomes a direct one."""


def expected(a: str, b: str) -> str:
    """What comes of a pair: ``direct`` or ``relayed``."""
    return "direct" if by_ice(a, b) or technique(a, b) else "relayed"


def by_ice(a: str, b: str) -> bool:
    """Whether ICE makes a direct path of a pair.

    RFC 8445 with server-reflexive candidates: checks go both ways at once, so each filter has let
    the other end in, unless a mapping for this peer has a port that nobody has told it. Where a
    router would remember a check that comes too early, a low TTL keeps it away.
    """
    kinds = KINDS[a], KINDS[b]
    return not any(_dependent(one) and _strict(other) for one, other in (kinds, kinds[::-1]))


def technique(a: str, b: str) -> str:
    """What beyond ICE makes a direct path of a pair: ``prediction``, ``birthday``; empty: nothing.

    Ports that are numbered can be told; one drawn by chance is met if the other end has one address
    for everybody.
    """
    dependent = [kind for kind in (KINDS[a], KINDS[b]) if _dependent(kind)]
    if by_ice(a, b):
        return ""
    if all(kind.ports is Ports.SEQUENTIAL for kind in dependent):
        return "prediction"
    return "birthday" if len(dependent) == 1 else ""


def needs_low_ttl(a: str, b: str) -> bool:
    """Whether it is a race between the two whether plain ICE makes a direct path of this pair."""
    kinds = KINDS[a], KINDS[b]
    races = any(one.accepts and _strict(other) for one, other in (kinds, kinds[::-1]))
    return races and by_ice(a, b)


def _dependent(kind: Kind) -> bool:
    return kind.mapping is not Dependence.INDEPENDENT


def _strict(kind: Kind) -> bool:
    return kind.filtering is Dependence.ADDRESS_PORT


@dataclass(frozen=True, slots=True)
class Try:
    """How one try of a pair went."""

    a: str
    b: str
    seconds: float
    """From the request behind `overlay connect` to the first answered ping, or to the failure."""
    path: str = ""
    """As the node says: ``host``, ``reflexive`` or ``relayed``; empty: not connected."""
    first_path: str = ""
    """The same at the moment when the link came up."""
    why: str = ""
    between: int = 0
    """Payload between the two homes, as the laboratory counted it, while `SIZE` was carried."""
    through: int = 0
    """As much of it went through some one other node: to it, and on from there."""

    @property
    def connected(self) -> bool:
        return bool(self.path)

    @property
    def way(self) -> str:
        """Where the bytes went: ``direct``, ``relayed``; empty: nowhere, or both."""
        if self.between >= SIZE and self.through < STRAY:
            return "direct"
        return "relayed" if self.through >= SIZE and self.between < STRAY else ""


@dataclass
class Mesh:
    """Nodes on public hosts and in homes; the first public one founds the network."""

    laboratory: Laboratory
    crew: Crew
    publics: list[Node] = field(default_factory=list)
    homes: dict[str, Home] = field(default_factory=dict)
    """Where each node of a home is, by the node's name."""
    settings: tuple[str, ...] = ()
    """What every node is told."""
    _numbers: Iterator[int] = field(default_factory=count)

    def public(
        self,
        *settings: str,
        host: Host | None = None,
        known: bool = True,
        argv: Sequence[str] = CARRIER,
        env: dict[str, str] | None = None,
        ipv6: bool = False,
    ) -> Node:
        """One more node on a host of the internet itself, linked to the others there.

        `known`: newcomers are to be linked to it. `argv`: another build (`tests.builds`). `ipv6`:
        it listens over that, too.
        """
        host = host or self.laboratory.public_host()
        number = next(self._numbers)
        node = self.crew.node(f"public{number}", argv=argv, enter=host.enter, env=env)
        join = self.publics[0].invite("--members", "1") if self.publics else None
        listen = f"{'*' if ipv6 else host.address}:{4000 + number}"
        node.up(*STAY, *self.settings, *settings, listen=listen, join=join)
        if join:
            node.wait_peers(1)
        if known:
            self.publics.append(node)
        return node

    def start(
        self,
        home: Home,
        *settings: str,
        host: int = 0,
        port: int = 0,
        argv: Sequence[str] = CARRIER,
    ) -> Node:
        """A node in a home, still joining; port 0 is a fresh one."""
        if home not in self.homes.values():
            home.forget()
        name = f"{home.kind.name}{next(self._numbers)}"
        node = self.crew.node(name, argv=argv, enter=home.hosts[host].enter)
        self.homes[name] = home
        join = self.publics[0].invite("--members", "1")
        node.start(*self.settings, *settings, listen=f"*:{port}", join=join)
        return node

    def ready(self, nodes: Sequence[Node], relays: Sequence[Node] | None = None) -> None:
        """Wait until these nodes have joined, and link them to all public ones, or to these."""
        for node in nodes:
            node.wait_ready()

        def link(node: Node) -> None:
            for public in self.publics if relays is None else relays:
                connect_at_last(node, public)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(link, nodes))

    def members(self, homes: Sequence[Home], *settings: str) -> list[Node]:
        """A node in each of these homes, all started at once."""
        nodes = [self.start(home, *settings) for home in homes]
        self.ready(nodes)
        return nodes

    def between(self, a: Node, b: Node) -> int:
        """Payload that has gone between two nodes' homes without anybody in between."""
        return self.laboratory.bytes_between(self.homes[a.name], self.homes[b.name])

    def through(self, a: Home, b: Home) -> int:
        """Payload that went from one home to the other through the node that passed on most."""
        legs = dict[str, list[int]]()  # by the node's host, over whichever family it is reached
        for flow in self.laboratory.flows():
            for source, to in ((flow.source, flow.destination), (flow.destination, flow.source)):
                for leg, (home, other) in enumerate(((a, b), (b, a))):
                    if home.owns(source) and not home.owns(to) and not other.owns(to):
                        legs.setdefault(self._host_of(to), [0, 0])[leg] += flow.payload
        return max(map(min, legs.values()), default=0)

    def _host_of(self, address: str) -> str:
        """The first address of the public host that has this one."""
        hosts = self.laboratory.public_hosts
        return next((host.address for host in hosts if host.owns(address)), address)

    def attempt(self, a: Node, b: Node, *, patience: float = SETTLE, counted: bool = True) -> Try:
        """One try of a pair that is not linked; `counted`: with bytes that show their way."""
        homes = self.homes[a.name], self.homes[b.name]
        kinds = homes[0].kind.name, homes[1].kind.name
        began_at = time.monotonic()
        try:
            row = connect(a, b)
            a.ask("POST", "/ping", {"peer": b.peer_id})
        except Failed as failure:
            return Try(*kinds, time.monotonic() - began_at, why=str(failure))
        seconds = time.monotonic() - began_at
        missed = ""
        if expected(*kinds) == "direct" and patience and not wait_until_direct(a, b, patience):
            missed = told_of(a, b)
        if not counted:
            return Try(*kinds, seconds, path=path_of(a, b), first_path=row["path"])
        self.laboratory.reset_counters()
        carried = carry(a, b, SIZE)
        between, through = self.laboratory.bytes_between(*homes), self.through(*homes)
        why = "" if carried.get("whole") else f"the stream came to nothing: {carried}"
        return Try(
            *kinds,
            seconds,
            path_of(a, b),
            first_path=row["path"],
            why=why or missed,
            between=between,
            through=through,
        )


def told_of(a: Node, b: Node) -> str:
    """What both ends have tried with each other, and how many links they have to be seen by."""
    told = {}
    for one, other in ((a, b), (b, a)):
        rungs = one.ask("POST", "/doctor", {"peer": other.peer_id})["rungs"]
        told[one.name] = {"links": len(one.neighbours()), "rungs": rungs}
    return json.dumps(told)


def connect(a: Node, b: Node) -> Json:
    """What `overlay connect` asks, and its answer; `Failed` when there is no link."""
    return a.ask("POST", "/connect", {"peer": b.peer_id})


def connect_at_last(a: Node, b: Node, patience: float = 60.0) -> None:
    """The same for who has come just now: on a bad way word of others takes its time."""
    deadline = time.monotonic() + patience
    while True:
        try:
            connect(a, b)
            return
        except Failed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def row_of(a: Node, b: Node) -> Json:
    """What `a` says of its link to `b`; empty without one."""
    rows = a.ask("GET", "/peers")["peers"]
    return next((row for row in rows if row["peer_id"] == b.peer_id), {})


def path_of(a: Node, b: Node) -> str:
    """The path of that link; empty without one."""
    return str(row_of(a, b).get("path") or "")


def wait_until_direct(a: Node, b: Node, patience: float) -> bool:
    """Whether the link is a direct one within so many seconds."""
    deadline = time.monotonic() + patience
    while path_of(a, b) in ("relayed", ""):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def carrying(a: Node, b: Node, size: int, patience: float = 60.0) -> Iterator[Json]:
    """So many bytes by a stream; what the sender tells meanwhile, the outcome last."""
    topic = quote(f"{b.peer_id}/{size}", safe="")
    with Client(a.directory).stream(f"/carry?topic={topic}") as stream:
        yield from stream.until(time.monotonic() + patience)


def carry(a: Node, b: Node, size: int) -> Json:
    """The outcome of `carrying`."""
    rows = list(carrying(a, b, size))
    return rows[-1] if rows else {"event": "failed", "text": "the node said nothing"}


class Watch:
    """Homes whose mappings live for three seconds: the links among them, for so many seconds."""

    def __init__(self, mesh: Mesh, kinds: Sequence[str], seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._states = list[str]()
        self._missing = list[str]()
        homes = [mesh.laboratory.home(kind, timeout=3) for kind in kinds]
        self._nodes = mesh.members(homes, *ASKED)
        for a, b in combinations(self._nodes, 2):
            connect(a, b)
        self._logged = [len(node.log) for node in self._nodes]
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while time.monotonic() < self._ends_at:
            for a, b in permutations(self._nodes, 2):
                state = row_of(a, b).get("state")
                self._states.append(str(state))
                if state is None:
                    self._missing.append(f"{a.name} of {b.name}: {_last_words(a, b)}")
            time.sleep(0.5)

    def end(self) -> Json:
        """The states of the links among them at each look; which were missing, which have ended."""
        self._thread.join()
        logs = [node.log[at:] for node, at in zip(self._nodes, self._logged, strict=True)]
        ended = [line for log in logs for line in log.splitlines() if "peer_down" in line]
        ended = [line for line in ended if "reason=unneeded" not in line]
        return {"states": self._states, "missing": self._missing, "ended": ended}


def _last_words(node: Node, of: Node) -> list[str]:
    """The last lines of a node's log that are about another."""
    return [line for line in node.log.splitlines() if of.peer_id in line][-8:]
