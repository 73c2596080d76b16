"""Homes of a simulated world: hosts behind NATs, and plain routers between these and the internet.

As in the laboratory (docs/nat-laboratory.md) each home has a leg of its own to the core, one router
in the middle::

    core ── router ── router ── router ── home's router ══ hosts          11.n.0.10 ║ 192.168.n.10
    core ── router ── router ── router ── carrier's NAT ══ home's router ══ hosts
    core ── host that is in no home

So a datagram of a low TTL opens its own NAT and dies before it comes to the other's. Which box is
next follows from where a datagram goes: hosts of one home meet on its LAN, homes of one carrier at
the carrier's NAT. What goes to an address that nobody on the internet has is mapped like all else,
and ends at the core.
"""

from random import Random

from overlay.core.nat.behaviour import Dependence
from overlay.core.types import Address
from overlay.sim.network.ice import IceNetwork
from overlay.sim.network.nat.box import Box
from overlay.sim.network.nat.firewalls import TTL, Way
from overlay.sim.network.nat.kinds import KINDS, Kind
from overlay.sim.node import PORT

ROUTERS = 3
"""Plain routers between the core and each home, as in the laboratory."""


class Gateway:
    """A home's or a carrier's router: its NAT or filter, and what is on the network inside."""

    def __init__(
        self, box: Box | None, inside: str, outside: "Gateway | None", routers: int
    ) -> None:
        """`inside`: how addresses there begin. `outside`: the carrier's, of a home that has one."""
        self.box, self.outside, self.routers = box, outside, routers
        self.hosts: list[str] = []
        """Those on the network inside: of a carrier the outer addresses of homes."""
        self._inside = inside

    @property
    def is_nat(self) -> bool:
        """Whether addresses inside are private ones."""
        return self.box is not None and self.box.kind.is_nat

    def new_address(self) -> str:
        """One more on the network inside."""
        self.hosts.append(f"{self._inside}.{10 + len(self.hosts)}")
        return self.hosts[-1]


class Home:
    """Some hosts behind one router; made by `Homes.home`."""

    def __init__(self, homes: "Homes", kind: Kind, gateway: Gateway) -> None:
        self.kind, self.gateway = kind, gateway
        self._homes = homes

    def new_host(self) -> str:
        """The address of one more host: `World.spawn` starts a node there (its `host`)."""
        return self._homes.new_host(self.gateway)

    @property
    def outer(self) -> str:
        """The address from which the internet sees it; without a NAT that of its first host."""
        outermost = self.gateway.outside or self.gateway
        return outermost.box.outer if outermost.box and outermost.is_nat else self.gateway.hosts[0]

    def forget(self) -> None:
        """Its router restarts: every mapping is lost; a carrier's stay."""
        if self.gateway.box is not None:
            self.gateway.box.forget()

    def move(self) -> str:
        """Another outer address, as a provider gives one at night; mappings are lost. Returns it.

        Without a NAT of its own at the internet a home stays where it is.
        """
        if self.gateway.is_nat and self.gateway.outside is None:
            self._homes.move(self.gateway)
        return self.outer


class Homes:
    """All homes of a world; it stands in its network from now on."""

    def __init__(self, network: IceNetwork, seed: int = 0, *, routers: int = ROUTERS) -> None:
        """`routers`: plain ones between the core and each home."""
        self.routers = routers
        self._network, self._seed = network, seed
        self._legs = 0
        self._suffixes = 10
        self._by_host: dict[str, Gateway] = {}
        """The router of each host in a home."""
        self._by_outer: dict[str, Gateway] = {}
        """At which router a datagram to this address comes in: a NAT's own, or a host's."""
        self._private: set[str] = set()
        """Addresses that are unknown to the internet."""
        self._leaving, self._arriving = network.leaving, network.arriving
        network.stand_in(self.leaving, self.arriving, self, self.behind)

    # --- what there is -----------------------------------------------------------------------

    def carrier(self, kind: str | Kind = "port_restricted") -> Gateway:
        """A carrier's NAT; homes are put behind it with `home(kind, carrier=…)`."""
        number = self._leg()
        box = self._box(_kind(kind), f"11.{number}.0.10", number)
        gateway = Gateway(box, f"100.{64 + number // 250}.{number % 250}", None, self.routers)
        self._by_outer[box.outer] = gateway
        return gateway

    def home(self, kind: str | Kind, *, carrier: Gateway | None = None) -> Home:
        """A new home of a kind, or of one of `KINDS` by its name."""
        chosen = _kind(kind)
        if chosen.carrier is not None and carrier is None:
            carrier = self.carrier(chosen.carrier)
        if not chosen.is_nat and carrier is not None:
            raise ValueError(f"behind a carrier's NAT a home has one of its own: {chosen.name}")
        number = self._leg()
        outer = carrier.new_address() if carrier else f"11.{number}.0.10"
        inside = f"192.168.{number % 250}" if chosen.is_nat else f"11.{number}.1"
        box: Box | None = self._box(chosen, outer, number)
        if not chosen.is_nat and chosen.udp and chosen.filtering is Dependence.INDEPENDENT:
            box = None
        gateway = Gateway(box, inside, carrier, self.routers)
        if chosen.is_nat:
            self._by_outer[outer] = gateway
        if carrier is not None:
            self._private.add(outer)
        return Home(self, chosen, gateway)

    def new_host(self, gateway: Gateway) -> str:
        """The address of one more host behind this router."""
        host = gateway.new_address()
        self._by_host[host] = gateway
        if gateway.is_nat:
            self._private.add(host)
        else:
            self._by_outer[host] = gateway
        return host

    def move(self, gateway: Gateway) -> None:
        """Another outer address for this NAT; every mapping is lost."""
        assert gateway.box is not None
        self._suffixes += 1
        del self._by_outer[gateway.box.outer]
        network = gateway.box.outer.rpartition(".")[0]
        gateway.box.forget(f"{network}.{self._suffixes}")
        self._by_outer[gateway.box.outer] = gateway

    def _leg(self) -> int:
        self._legs += 1
        return self._legs

    def _box(self, kind: Kind, outer: str, number: int) -> Box:
        return Box(kind, outer, Random(f"ports {self._seed} {number}"))

    # --- what the network asks ---------------------------------------------------------------

    def leaving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        """As `Fate` says, of a datagram with an ordinary TTL."""
        way = self.outward(source, target, TTL)
        return None if way is None else way[:2]

    def arriving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        """As `Fate` says, of a datagram with an ordinary TTL."""
        way = self.inward(source, target, TTL)
        return None if way is None else way[:2]

    def behind(self, outer: Address) -> Address:
        """The port of some host behind this address: of several one stands for all."""
        gateway = self._by_outer.get(outer.host)
        while gateway is not None and gateway.hosts and gateway.is_nat:
            outer = Address(gateway.hosts[0], PORT)
            gateway = self._by_outer.get(outer.host)
        return outer

    def outward(self, source: Address, target: Address, ttl: int) -> Way | None:
        """From a host to the box of its receiver. See `Hops`."""
        gateway = self._by_host.get(source.host)
        if gateway is None:
            left = self._leaving(source, target)
            return None if left is None else self._cross(*left, ttl, 0)
        while True:
            if target.host in gateway.hosts:
                return source, target, ttl
            ttl -= 1
            if ttl < 1:
                return None
            if gateway.box is not None:
                turns = gateway.is_nat and target.host == gateway.box.outer
                if turns and not gateway.box.kind.hairpin:
                    return None
                outer = gateway.box.outward(source, target, self._network.now)
                if outer is None:
                    return None
                source = outer
                if turns:
                    return source, target, ttl
            if gateway.outside is None:
                return self._cross(source, target, ttl, gateway.routers)
            gateway = gateway.outside

    def _cross(self, source: Address, target: Address, ttl: int, routers: int) -> Way | None:
        """Over the plain routers of one leg, the core, and those of the other leg."""
        if target.host in self._private:
            return None
        entrance = self._by_outer.get(target.host)
        ttl -= routers + 1 + (entrance.routers if entrance else 0)
        return (source, target, ttl) if ttl >= 1 else None

    def inward(self, source: Address, target: Address, ttl: int) -> Way | None:
        """From the box of its receiver to a host. See `Hops`."""
        gateway = self._by_outer.get(target.host)
        if gateway is None and target.host not in self._by_host:
            arrived = self._arriving(source, target)
            return None if arrived is None else (*arrived, ttl)
        while gateway is not None and (gateway.is_nat or source.host not in gateway.hosts):
            if gateway.box is not None:
                inner = gateway.box.inward(source, target, self._network.now)
                if inner is None:
                    return None
                target = inner
            ttl -= 1
            if ttl < 1:
                return None
            gateway = self._by_outer.get(target.host) if gateway.is_nat else None
        return source, target, ttl


def _kind(kind: str | Kind) -> Kind:
    return KINDS[kind] if isinstance(kind, str) else kind
