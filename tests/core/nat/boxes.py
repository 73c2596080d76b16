"""NAT boxes of a simulated world, each built to be of one kind; what nodes find is held against it.

A box stands before one host. Its mappings and filters are RFC 4787's, by the words of
`overlay.core.nat.behaviour`; ports are preserved, counted on, or drawn by chance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from overlay.core.nat.behaviour import Dependence, Ports
from overlay.core.types import Address
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.world import World

INDEPENDENT, ADDRESS, ADDRESS_PORT, UNKNOWN = Dependence


@dataclass
class Box:
    """What stands between one host and the rest of the world."""

    outer: str
    """Its address; the host's own where there is no NAT."""
    mapping: Dependence = INDEPENDENT
    filtering: Dependence = ADDRESS_PORT
    ports: Ports = Ports.PRESERVED
    hairpin: bool = False
    lifetime: float = 120.0
    accepts: bool = False
    """Whether a packet that it lets in to nobody takes its port: ours to that sender is another."""
    forwarded: frozenset[int] = frozenset()
    """Inner ports that somebody has opened to all by hand."""
    mapped: dict[tuple[Address, str], tuple[Address, float]] = field(default_factory=dict)
    sent: dict[tuple[Address, Address], float] = field(default_factory=dict)
    early: dict[tuple[Address, Address], Address | None] = field(default_factory=dict)
    """By sender and outer address: a packet came too early, and by which address it is answered."""
    rng: Random = field(default_factory=lambda: Random(7))
    counted: int = 20_000

    def out(self, source: Address, target: Address, now: float) -> Address:
        """With which source a packet of the host leaves."""
        scope = {INDEPENDENT: "", ADDRESS: target.host, ADDRESS_PORT: str(target)}[self.mapping]
        outer, used = self.mapped.get((source, scope), (None, 0.0))
        if outer is None or now > used + self.lifetime:
            outer = Address(self.outer, self._new_port(source))
        self.mapped[source, scope] = outer, now
        if (target, outer) in self.early:
            taken = self.early[target, outer] or Address(
                self.outer, self.rng.randrange(1024, 65_536)
            )
            self.early[target, outer] = outer = taken
            self.mapped[source, str(target)] = outer, now
        self.sent[outer, target] = now
        return outer

    def _new_port(self, source: Address) -> int:
        match self.ports:
            case Ports.PRESERVED:
                return source.port
            case Ports.SEQUENTIAL:
                self.counted += 1
                return self.counted
            case _:
                return self.rng.randrange(1024, 65_536)

    def into(self, source: Address, outer: Address, now: float) -> Address | None:
        """To which of the host's addresses a packet for `outer` goes; None: it is dropped."""
        for (inner, scope), (mapped, used) in self.mapped.items():
            if mapped == outer and (
                inner.port in self.forwarded
                or (now <= used + self.lifetime and self._lets_in(source, outer, now))
            ):
                self.mapped[inner, scope] = mapped, now
                return inner
        if self.accepts and (outer, source) not in self.sent:
            self.early.setdefault((source, outer), None)
        return None

    def _lets_in(self, source: Address, outer: Address, now: float) -> bool:
        lately = [
            target
            for (mapped, target), at in self.sent.items()
            if mapped == outer and now <= at + self.lifetime
        ]
        match self.filtering:
            case Dependence.INDEPENDENT:
                return True
            case Dependence.ADDRESS:
                return any(target.host == source.host for target in lately)
            case _:
                return source in lately


class Boxes:
    """All boxes of a world, by the host behind each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.behind: dict[str, Box] = {}
        self.arrived: list[tuple[Address, Address]] = []
        """Source and target of every datagram that was for a host without a box."""
        network = world.network
        assert isinstance(network, IceNetwork)
        network.leaving, network.arriving = self.leaving, self.arriving

    def put(self, node: SimNode, box: Box) -> Box:
        self.behind[node.address.host] = box
        return box

    def leaving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        box = self.behind.get(source.host)
        if box is None:
            return source, target
        inside = self._host_of(target)
        if inside == source.host and target.host != source.host and not box.hairpin:
            return None
        outer = box.out(source, target, self.world.now)
        self.world.by_address.setdefault(outer, self.world.by_address[source])
        return outer, target

    def arriving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        inside = self._host_of(target)
        box = self.behind.get(inside)
        if box is None:
            self.arrived.append((source, target))
            return source, target
        inner = box.into(source, target, self.world.now)
        return None if inner is None else (source, inner)

    def inner_port(self, outer: Address) -> int:
        """The port of the socket behind a mapped address; 0: none."""
        box = self.behind.get(self._host_of(outer))
        mapped = box.mapped.items() if box is not None else ()
        return next((inner.port for (inner, _), (each, _) in mapped if each == outer), 0)

    def _host_of(self, outer: Address) -> str:
        """The host behind the box with this address, or the address's own."""
        hosts = [host for host, box in self.behind.items() if box.outer == outer.host]
        return hosts[0] if hosts else outer.host


Make = Callable[[], Box]
