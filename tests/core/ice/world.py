"""A seeded world of two ICE agents: latency, loss, NATs, firewalls, moves, freezes.

Encrypted packets are stood in for by datagrams that begin with `RECORD`: whoever sends one "can
encrypt", whoever gets one "decrypts" it. Each is acknowledged, and a HEARTBEAT's nonce returned.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from overlay.core.addresses import candidate_priority
from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.types import Address, Candidate, IceCredentials, LowTtl

RECORD, HEARTBEAT, ACK = b"\x17encrypted", b"\x17heartbeat", b"\x17ack"
Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Datagram:
    """One datagram on its way."""

    data: bytes
    source: Address
    target: Address
    ttl: int | None = None


@dataclass
class Gateway:
    """What stands between a host and the world; this one lets everything through."""

    def outbound(self, datagram: Datagram) -> Datagram | None:
        return datagram

    def inbound(self, datagram: Datagram) -> Datagram | None:
        return datagram


@dataclass
class Wall(Gateway):
    """Lets nothing in."""

    def inbound(self, datagram: Datagram) -> Datagram | None:
        return None


@dataclass
class Firewall(Gateway):
    """Lets in only what answers something that went out (by address and port)."""

    flows: set[tuple[Address, Address]] = field(default_factory=set)
    refused: int = 0

    def outbound(self, datagram: Datagram) -> Datagram | None:
        self.flows.add((datagram.source, datagram.target))
        return datagram

    def inbound(self, datagram: Datagram) -> Datagram | None:
        if (datagram.target, datagram.source) in self.flows:
            return datagram
        self.refused += 1
        return None


@dataclass
class Nat(Gateway):
    """Address translation; `symmetric`: another port for every target. Always filters."""

    host: str
    symmetric: bool = False
    port: int = 40_000
    mappings: dict[tuple[Address, Address | None], Address] = field(default_factory=dict)
    flows: set[tuple[Address, Address]] = field(default_factory=set)

    def outbound(self, datagram: Datagram) -> Datagram | None:
        key = (datagram.source, datagram.target if self.symmetric else None)
        if key not in self.mappings:
            self.port += 1
            self.mappings[key] = Address(self.host, self.port)
        mapped = self.mappings[key]
        self.flows.add((mapped, datagram.target))
        return Datagram(datagram.data, mapped, datagram.target)

    def inbound(self, datagram: Datagram) -> Datagram | None:
        if (datagram.target, datagram.source) not in self.flows:
            return None
        for (inner, _), mapped in self.mappings.items():
            if mapped == datagram.target:
                return Datagram(datagram.data, datagram.source, inner)
        return None

    def rebind(self) -> None:
        """Forget all mappings, as after a reboot; new ones get new ports."""
        self.mappings.clear()
        self.flows.clear()


@dataclass
class OpenInput(Nat):
    """Takes what is for nobody behind it as its own: the ports of that packet are in use then."""

    taken: set[tuple[Address, Address]] = field(default_factory=set)

    def outbound(self, datagram: Datagram) -> Datagram | None:
        usual = self.mappings.get((datagram.source, None))
        if (usual, datagram.target) in self.taken:
            key = (datagram.source, datagram.target)
            if key not in self.mappings:
                self.port += 1
                self.mappings[key] = Address(self.host, self.port)
            self.flows.add((self.mappings[key], datagram.target))
            return Datagram(datagram.data, self.mappings[key], datagram.target)
        return super().outbound(datagram)

    def inbound(self, datagram: Datagram) -> Datagram | None:
        arrived = super().inbound(datagram)
        if arrived is None and datagram.target.host == self.host:
            self.taken.add((datagram.target, datagram.source))
        return arrived


class Host:
    """A host with one agent (or none, and `on_datagram` does what the test wants)."""

    def __init__(self, world: "World", name: str, addresses: Sequence[Address]) -> None:
        self.world = world
        self.name = name
        self.addresses = list(addresses)
        self.gateway: Gateway = Gateway()
        self.agent: IceAgent | None = None
        self.facts: list[tuple[float, ice.IceOutput]] = []
        self.sent: list[tuple[float, Datagram]] = []
        self.pokes = True
        """Send an encrypted packet whenever our address or path has changed."""
        self.frozen = False
        self.backlog: list[Datagram] = []
        self.on_datagram: Callable[[Datagram], None] | None = None

    @property
    def route(self) -> ice.Selected | None:
        """The path that the agent last announced."""
        return next((fact for fact in self.said(ice.Selected)[::-1]), None)

    def said(self, kind: type[Fact]) -> list[Fact]:
        """All outputs of one kind so far."""
        return [fact for _, fact in self.facts if isinstance(fact, kind)]

    def when(self, kind: type[ice.IceOutput]) -> list[float]:
        """The instants of all outputs of one kind."""
        return [at for at, fact in self.facts if isinstance(fact, kind)]

    def send(
        self, data: bytes, target: Address, local: Address | None = None, ttl: int | None = None
    ) -> None:
        """As the kernel does: from an address that we have, else not at all."""
        family = [each for each in self.addresses if (":" in each.host) == (":" in target.host)]
        source = local if local is not None else next(iter(family), None)
        if source in family:
            self.world.send(self, Datagram(data, source, target, ttl))

    def send_record(self) -> None:
        """Send an encrypted packet on the path."""
        if self.route is not None:
            self.send(RECORD, self.route.remote, self.route.local)

    def receive(self, datagram: Datagram) -> None:
        if self.frozen:
            self.backlog.append(datagram)
        elif self.on_datagram is not None:
            self.on_datagram(datagram)
        elif self.agent is not None:
            if datagram.data[:1] == b"\x17":
                self.decrypt(datagram)
            else:
                message = stun.parse(datagram.data)
                assert isinstance(message, stun.Message), message
                self.agent.receive(message, datagram.source, datagram.target, self.world.now)
            self.perform()

    def decrypt(self, datagram: Datagram) -> None:
        """Do as SCTP does: return nonces, acknowledge what else comes; both where the path runs."""
        assert self.agent is not None
        data, now = datagram.data, self.world.now
        if data.startswith(ACK):
            self.agent.acknowledged(now)
            self.agent.confirmed(data.removeprefix(ACK), datagram.source, datagram.target, now)
        elif self.route is not None:
            answer = ACK + data.removeprefix(HEARTBEAT) if data.startswith(HEARTBEAT) else ACK
            self.send(answer, self.route.remote, self.route.local)

    def perform(self) -> None:
        """Do what the agent wants done, write down what it says."""
        assert self.agent is not None
        for output in self.agent.take():
            if isinstance(output, ice.SendStun):
                self.send(output.data, output.remote, output.local, output.ttl)
                continue
            if isinstance(output, ice.Confirm):
                self.send(HEARTBEAT + output.nonce, output.remote, output.local)
                continue
            self.facts.append((self.world.now, output))
            if self.pokes and isinstance(output, ice.Selected | ice.Mapped):
                self.send_record()

    def thaw(self) -> None:
        """Run again: first the timers, then what the socket has kept."""
        self.frozen = False
        backlog, self.backlog = self.backlog, []
        if self.agent is not None:
            self.agent.handle_timeout(self.world.now)
            self.perform()
        for datagram in backlog:
            self.receive(datagram)


class World:
    """Hosts, the wires between them and one clock."""

    def __init__(self, seed: int, *, latency: float = 0.02, loss: float = 0.0) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.latency = latency
        self.loss = loss
        self.hosts: list[Host] = []
        self.hops = 8
        """Routers between any two, their own included: a lower TTL ends on the way."""
        self.dark = False
        """Nothing arrives anywhere."""
        self.lost: Callable[[Datagram], bool] = lambda datagram: False
        """Which datagrams never arrive."""
        self._wire: list[tuple[float, int, Datagram]] = []
        self._count = 0
        self._plans: list[tuple[float, int, Callable[[], None]]] = []

    def host(self, name: str, *addresses: str | Address) -> Host:
        """A host with these addresses (port 5000 unless given)."""
        port = 5000
        own = [a if isinstance(a, Address) else Address(a, port) for a in addresses]
        host = Host(self, name, own)
        self.hosts.append(host)
        return host

    def at(self, instant: float, deed: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._plans, (instant, self._count, deed))

    def send(self, sender: Host, datagram: Datagram) -> None:
        sender.sent.append((self.now, datagram))
        translated = sender.gateway.outbound(datagram)
        if translated is None or self.random.random() < self.loss or self.lost(datagram):
            return
        if datagram.ttl is not None and datagram.ttl <= self.hops:
            return
        delay = self.latency * self.random.uniform(0.8, 1.2)
        self._count += 1
        heapq.heappush(self._wire, (self.now + delay, self._count, translated))

    def run_until(self, end: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass until `end`, or until `done`; says which."""
        for _ in range(200_000):
            if done():
                return True
            instants = [self._wire[0][0]] if self._wire else []
            instants += [self._plans[0][0]] if self._plans else []
            for host in self.hosts:
                deadline = host.agent.next_deadline() if host.agent and not host.frozen else None
                instants += [] if deadline is None else [deadline]
            following = min(instants, default=end)
            if following >= end:
                self.now = end
                return done()
            self.now = max(self.now, following)
            self._step()
        raise AssertionError("the world does not come to rest")

    def _step(self) -> None:
        while self._plans and self._plans[0][0] <= self.now:
            heapq.heappop(self._plans)[2]()
        while self._wire and self._wire[0][0] <= self.now:
            self._deliver(heapq.heappop(self._wire)[2])
        for host in self.hosts:
            if host.agent is not None and not host.frozen:
                host.agent.handle_timeout(self.now)
                host.perform()

    def _deliver(self, datagram: Datagram) -> None:
        for host in self.hosts:
            arrived = host.gateway.inbound(datagram)
            if arrived is not None and arrived.target in host.addresses and not self.dark:
                host.receive(arrived)
                return


def host_candidates(host: Host) -> list[Candidate]:
    """A host candidate for each address, first best."""
    return [
        Candidate("host", address, candidate_priority("host", rank))
        for rank, address in enumerate(host.addresses)
    ]


def credentials(name: str) -> IceCredentials:
    """Credentials that the name determines."""
    return IceCredentials(f"ufrag{name}", f"password{name}".ljust(24, "x"))


def make_agent(host: Host, *, controlling: bool, candidates: Sequence[Candidate]) -> IceAgent:
    """Give the host its agent."""
    host.agent = IceAgent(
        controlling=controlling,
        local=credentials(host.name),
        candidates=candidates,
        random=Random(host.world.random.getrandbits(32)),
        now=host.world.now,
    )
    return host.agent


def meet(
    a: Host,
    b: Host,
    a_offers: Sequence[Candidate] | None = None,
    b_offers: Sequence[Candidate] | None = None,
    *,
    signalling: float = 0.0,
    low_ttl: LowTtl | None = None,
) -> None:
    """A offers and controls; B starts at once and A when the answer has come back.

    `low_ttl`: how B begins.
    """
    a_offers = host_candidates(a) if a_offers is None else a_offers
    b_offers = host_candidates(b) if b_offers is None else b_offers
    first = make_agent(a, controlling=True, candidates=a_offers)
    second = make_agent(b, controlling=False, candidates=b_offers)
    second.start(credentials(a.name), a_offers, a.world.now, low_ttl=low_ttl)
    b.perform()

    def answer() -> None:
        told = LowTtl(low_ttl.addresses) if low_ttl else None
        first.start(credentials(b.name), b_offers, a.world.now, low_ttl=told)
        a.perform()

    if signalling:
        a.world.at(a.world.now + signalling, answer)
    else:
        answer()


def secured(world: World, *hosts: Host) -> bool:
    """Whether they find a path; then something encrypted is acknowledged to each."""
    found = world.run_until(world.now + 9.0, lambda: connected(*hosts))
    for host in hosts:
        assert host.agent is not None
        host.agent.acknowledged(world.now)
    return found


def connected(*hosts: Host) -> bool:
    """Whether all of them have a path."""
    return all(host.route is not None for host in hosts)


def linked(seed: int, *, loss: float = 0.0) -> tuple[World, Host, Host]:
    """A world, the controlling host and the controlled one, and a path between them."""
    world = World(seed)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    meet(a, b)
    assert secured(world, a, b)
    world.run_until(world.now + 0.5)
    world.loss = loss
    return world, a, b


def worries(host: Host) -> list[ice.IceOutput]:
    """What the host has said about the peer's being there."""
    kinds = ice.Suspect | ice.Silent | ice.Alive | ice.Failed
    return [fact for _, fact in host.facts if isinstance(fact, kinds)]


def behind_nat(seed: int) -> tuple[World, Host, Host, Nat]:
    """A path between the controlling host, behind a NAT, and the controlled one."""
    world = World(seed)
    a, b = world.host("a", "192.168.0.2"), world.host("b", "203.0.113.9")
    nat = Nat("198.51.100.1")
    a.gateway = nat
    meet(a, b)
    assert secured(world, a, b)
    world.run_until(world.now + 1.0)
    return world, a, b, nat
