"""The network of a simulated world at fidelity ``ice``: every check is a datagram.

At each node's port is the core's endpoint as it ships: its ICE agents find the paths, nominate one,
watch it, and follow it when it moves (RFC 8445). A datagram takes the latency between two nodes and
some jitter; it may be lost, and passes the NAT box or firewall of its sender and of its receiver
(`overlay.sim.network.nat`). Messages are not cut into datagrams: they arrive whole and in order,
later by what lost packets cost; while no packet passes they wait.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from overlay.core.events import (
    Admit,
    Adopt,
    Aim,
    Await,
    Dial,
    DropCircuit,
    Effect,
    Hangup,
    LinkOpened,
    Negotiate,
    OpenPort,
    PortHeard,
    PortOpened,
    Prepare,
    Punch,
    Received,
    RelayCircuit,
    Restart,
    SendFrom,
    Transmit,
    UseCircuit,
)
from overlay.core.types import MAIN, Address, EndReason, LinkFacts, LinkId, PortId
from overlay.core.wire.messages import Message
from overlay.sim.clock import MICROSECOND
from overlay.sim.network.conditions import Conditions, Drawn, Latencies
from overlay.sim.network.ends import LinkEnd, part
from overlay.sim.network.links import Network
from overlay.sim.network.nat.firewalls import Fate, Firewalls, Hops, Way
from overlay.sim.network.port import Half, Port, Side
from overlay.sim.network.silence import Silence
from overlay.sim.node import Environment, SimNode

SACK_INTERVAL = MICROSECOND // 10
"""Microseconds between two SACKs, as a transport tells its endpoint of them."""
FURTHER_PORTS = 40_000
"""From here on nodes' further ports are counted."""
UNACKNOWLEDGED_AFTER = 0.5
"""Seconds after which a transport says that a message over a relay is not acknowledged."""
MESSAGE = bytes([23]) + bytes(99)
"""What a relay sees of a message: a record of this size (guess)."""
RESEND_INTERVAL = 1.0
"""Seconds between two tries to get through with a message: the first timer of SCTP (RFC 9260)."""


class _WatchedByEndpoints(Silence):
    """The endpoints notice silence themselves."""

    def look(self, end: LinkEnd, *, anew: bool = False, within: float = 0.0) -> None:
        """Nothing to be done."""


class IceNetwork(Network):
    """All ports of a world, and what passes between them."""

    def __init__(
        self, environment: Environment, conditions: Conditions, *, codec: bool = False
    ) -> None:
        super().__init__(environment, conditions, codec=codec, silence=_WatchedByEndpoints)
        firewalls = Firewalls(environment.clock, environment.by_address)
        self.leaving: Fate = firewalls.leaving
        self.arriving: Fate = firewalls.arriving
        """The boxes of all senders, and of all receivers; a test can replace them."""
        self.hops: Hops | None = None
        """The same for datagrams with a TTL of their own; None: nobody counts."""
        self.behind: Callable[[Address], Address] = _itself
        """For an address that is no node's: one of a node behind it."""
        self.datagrams = 0
        """Checks, answers and flights of handshakes sent so far."""
        self._seed = environment.seed
        self._losses = Random(f"datagrams {self._seed}")
        self._ports: dict[SimNode, Port] = {}
        self._clients: dict[bytes, Side] = {}
        """Sides that have begun a handshake, by its session, until its link is open or lost."""
        self._further: dict[Address, PortId] = {}
        """The ports of all nodes besides their own, by address."""
        self._further_at: dict[tuple[SimNode, PortId], Address] = {}
        """And where each is."""
        self._sockets: dict[Address, SimNode] = {}
        """More sockets that nodes' own ports read from."""
        self._ports_opened = 0
        self._drawn: tuple[tuple[float, float], Latencies] | None = None

    def stand_in(
        self, leaving: Fate, arriving: Fate, hops: Hops, behind: Callable[[Address], Address]
    ) -> None:
        """From now on these are the boxes between all nodes."""
        self.leaving, self.arriving = leaving, arriving
        self.hops, self.behind = hops, behind

    # --- what ports ask of the world ---------------------------------------------------------

    @property
    def now_us(self) -> int:
        """Microseconds since the beginning."""
        return self._clock.now_us

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._clock.now

    def wall_offset(self, node: SimNode) -> float:
        """A node's wall clock less the world's."""
        return node.wall(self.now) - self.now

    def at(self, when_us: int, call: Callable[[], None]) -> None:
        """Call something at this microsecond."""
        self._clock.at_us(when_us, call)

    def port(self, node: SimNode) -> Port:
        """The port of a living node."""
        port = self._ports.get(node)
        if port is None:
            rng = Random(f"port {self._seed} {node.name} {node.settings.boot}")
            port = self._ports[node] = Port(self, node, rng)
        return port

    def perform(self, node: SimNode, effect: Effect) -> None:
        """What the transport does with the core's effects."""
        match effect:
            case Transmit():
                end = self.ends[node].get(effect.link)
                if end is not None:
                    self._send(end, effect.message)
            case Hangup(link):
                self._hang_up(node, link)
            case Dial() | Prepare() | Negotiate() | Restart() | Adopt() | Punch() | Aim():
                self.port(node).perform(effect)
            case OpenPort():
                self._open_port(node, effect)
            case SendFrom(port, data, remote):
                self._send_from(node, port, data, remote)
            case UseCircuit() | RelayCircuit() | DropCircuit():
                self.port(node).perform(effect)
            case Await(transaction):
                self.port(node).endpoint.wait_for(transaction)
            case Admit():
                pass
            case _:
                raise AssertionError(effect)

    # --- datagrams ---------------------------------------------------------------------------

    def send(
        self,
        node: SimNode,
        data: bytes,
        target: Address,
        ttl: int | None = None,
        local: Address | None = None,
    ) -> None:
        """A datagram leaves a node's port, or one of the sockets that were opened for it."""
        source = local if local in self._sockets else node.address
        self._leave(node, source, data, target, ttl)

    def open_sockets(self, node: SimNode, count: int) -> tuple[Address, ...]:
        """More sockets of a node."""
        opened = tuple(self._new_address(node) for _ in range(count))
        self._sockets.update(dict.fromkeys(opened, node))
        return opened

    def close_sockets(self, sockets: tuple[Address, ...]) -> None:
        """They are needed no more."""
        for each in sockets:
            if self._sockets.pop(each, None) is not None:
                del self._by_address[each]

    def _new_address(self, node: SimNode) -> Address:
        """At a port that none of its own has: a socket may outlive ten thousand others."""
        while True:
            self._ports_opened += 1
            address = Address(node.address.host, FURTHER_PORTS + self._ports_opened % 10_000)
            if address not in self._by_address:
                self._by_address[address] = node
                return address

    def _leave(
        self, node: SimNode, source: Address, data: bytes, target: Address, ttl: int | None
    ) -> None:
        self.datagrams += 1
        if ttl is None or self.hops is None:
            out: tuple[Address, Address] | Way | None = self.leaving(source, target)
        else:
            out = self.hops.outward(source, target, ttl)
        receiver = self._at(out[1]) if out else None
        loss = self.conditions.loss
        if out is None or receiver is None or (loss and self._losses.random() < loss):
            return
        when = self.now_us + round(self._travel(self.latency(node, receiver)) * MICROSECOND)
        self._clock.schedule(when, self._arrives, (data, node), out)

    def _at(self, target: Address) -> SimNode | None:
        """Who is there, or behind the box that is there."""
        found = self._by_address.get(target)
        return self._by_address.get(self.behind(target)) if found is None else found

    def _arrives(self, sent: tuple[bytes, SimNode], way: tuple[Address, Address] | Way) -> None:
        """A datagram is at the receiver's box."""
        data, sender = sent
        found = self._let_in(sender, way)
        if found is None:
            return
        receiver, source, target = found
        port = self._further.get(target)
        if port is None:
            local = target if target in self._sockets else receiver.address
            self.port(receiver).receive(data, source, local)
        else:
            self.feed(receiver, PortHeard(port, data, source))

    def _let_in(
        self, sender: SimNode, way: tuple[Address, Address] | Way
    ) -> tuple[SimNode, Address, Address] | None:
        """Who gets it, from where as the receiver sees it, and at which address of its own."""
        within: tuple[Address, Address] | Way | None
        if len(way) == 2:
            within = self.arriving(*way)
        else:
            within = self.hops.inward(*way) if self.hops is not None else None
        receiver = self._by_address.get(within[1]) if within else None
        if within is None or receiver is None or not receiver.alive:
            return None
        return (receiver, within[0], within[1]) if receiver.gets_from(sender) else None

    # --- further ports -----------------------------------------------------------------------

    def _open_port(self, node: SimNode, effect: OpenPort) -> None:
        """Another port of a node, for as long as it is wanted."""
        address = self._new_address(node)
        self._further[address] = effect.port
        self._further_at[node, effect.port] = address
        self._clock.schedule_in(effect.seconds, self._close_port, address)
        self.at(self.now_us, partial(self.feed, node, PortOpened(effect.port, address)))

    def _close_port(self, address: Address, _: None) -> None:
        node, port = self._by_address.pop(address), self._further.pop(address)
        self._further_at.pop((node, port), None)

    def _send_from(self, node: SimNode, port: PortId, data: bytes, target: Address) -> None:
        if port == MAIN:
            self.send(node, data, target)
            return
        source = self._further_at.get((node, port))
        if source is not None:
            self._leave(node, source, data, target, None)

    def latency(self, one: SimNode, other: SimNode) -> float:
        """Seconds from one node to another: where nothing says it, drawn once for each pair."""
        conditions = self.conditions
        if conditions.between is not None:
            return super().latency(one, other)
        if self._drawn is None or self._drawn[0] != conditions.latency:
            self._drawn = conditions.latency, Drawn(self._seed, *conditions.latency)
        return self._drawn[1].between(one.index, other.index)

    # --- links -------------------------------------------------------------------------------

    def starts(self, client: Side) -> None:
        """A client's first flight leaves: whoever answers it will have the other end."""
        self._clients[client.handshake.session] = client

    def forget(self, side: Side) -> None:
        """A side is over; whoever is at its other end will notice, or has been told."""
        if self._clients.get(side.handshake.session) is side:
            del self._clients[side.handshake.session]
        if side.half is not None and not side.half.gone:
            side.half.gone = True
            part(side.half)

    def open(self, side: Side) -> None:
        """A side's channel is established; the server's, which is first, makes both ends."""
        client = self._clients.get(side.handshake.session)
        if side.half is None and client is not None:
            self._join(client, side)
        half = side.half
        if half is None:
            return  # who began it is gone, and this attempt will time out
        if client is side:
            del self._clients[side.handshake.session]
        side.facts = _facts(side)
        self.ends[half.node][half.link] = half
        side.port.endpoint.established(side.link, self.now)
        self.feed(half.node, LinkOpened(side.link, side.secure.inbound, side.facts))
        self._resend_soon(half, 0.0)

    def _join(self, client: Side, server: Side) -> None:
        one, other = client.port.node, server.port.node
        client.half = Half(one, client.link, self.latency(one, other), side=client)
        server.half = Half(other, server.link, self.latency(other, one), side=server)
        client.half.other, server.half.other = server.half, client.half
        for side in (client, server):
            if not side.remote.port:
                self.rerouted(side)

    def _hang_up(self, node: SimNode, link: LinkId) -> None:
        """The other end is told after all that was sent before; by silence if no packet passes."""
        end = self.ends[node].pop(link, None)
        if end is not None and not end.other.gone:
            self._send(end, None)
        self.port(node).close(link)

    # --- circuits ----------------------------------------------------------------------------

    def rerouted(self, side: Side) -> None:
        """A side's packets go over a circuit now, or not any more: that takes another time."""
        half = side.half
        if half is None:
            return
        one, other = half.node, half.other.node
        if side.remote.port:
            half.latency = self.latency(one, other)
            return
        way = side.port.endpoint.circuits.way(side.remote)
        relay = None if way is None else self._by_address.get(way[1])
        if relay is not None:
            half.latency = self.latency(one, relay) + self.latency(relay, other)

    def _passes_over(self, sender: Port, circuit: Address, receiver: Port) -> bool:
        """Whether a packet over this circuit would reach the receiver now, by both legs."""
        way = sender.endpoint.circuits.way(circuit)
        if way is None:
            return False
        found = self._passes_leg(sender.node, way[1])
        if found is None or found[0].frozen:
            return False
        relay, source = found
        packet = way[0] + MESSAGE
        onward = self.port(relay).endpoint.circuits.forward(packet, source, relay.address, self.now)
        found = None if onward is None else self._passes_leg(relay, onward[0])
        if found is None or found[0] is not receiver.node:
            return False
        heard = receiver.endpoint.circuits.arrived(packet, found[1], receiver.node.address)
        return heard == circuit

    def _passes_leg(
        self, sender: SimNode, target: Address, local: Address | None = None
    ) -> tuple[SimNode, Address] | None:
        """Who would get a packet, and from where as he sees it."""
        source = local if local in self._sockets else sender.address
        out = self.leaving(source, target)
        found = None if out is None else self._let_in(sender, out)
        return None if found is None else found[:2]

    # --- messages ----------------------------------------------------------------------------

    def _arrive(self, end: LinkEnd, message: Message | None) -> None:
        assert isinstance(end, Half)
        if end.gone:
            return
        assert isinstance(end.other, Half)
        source = None if end.held else self._passes(end)
        if source is None:
            end.held.append(message)
            self._resend_soon(end, RESEND_INTERVAL)
            if not (end.other.gone or end.other.side.remote.port):
                self._clock.schedule_in(UNACKNOWLEDGED_AFTER, self._not_acknowledged, end)
        else:
            self._take_in(end, message, source)

    def _passes(self, end: Half) -> Address | None:
        """The source of a packet that reaches this end now, as it sees it; None: none would."""
        assert isinstance(end.other, Half)
        sender = end.other.node
        if not end.side.is_open:
            return None
        target = end.other.side.remote
        if not target.port:
            passes = self._passes_over(end.other.side.port, target, end.side.port)
            return target if passes else None
        found = self._passes_leg(sender, target, end.other.side.local)
        return found[1] if found is not None and found[0] is end.node else None

    def _take_in(self, end: Half, message: Message | None, source: Address) -> None:
        if message is None:
            self.lose(end, EndReason.CLOSED)
            end.side.port.close(end.link)
            return
        end.side.port.heard(end.link, source)
        self._acknowledge(end)
        if not end.gone:
            self.feed(end.node, Received(end.link, message))

    def _acknowledge(self, end: Half) -> None:
        """A SACK goes back, one for all that arrives within a tenth of a second."""
        if not (end.gone or end.node.frozen) and self.now_us >= end.sacks_at:
            end.sacks_at = self.now_us + SACK_INTERVAL
            self._clock.schedule_in(end.latency, self._acknowledged, end.other)

    def _acknowledged(self, end: LinkEnd, _: None) -> None:
        assert isinstance(end, Half)
        if not end.gone and not end.other.gone and self._passes(end) is not None:
            end.side.port.acknowledged(end.link)

    def _not_acknowledged(self, end: LinkEnd, _: None) -> None:
        """What was sent to this end half a second ago still waits: its sender asks why."""
        assert isinstance(end, Half)
        if end.held and not end.gone and not end.other.gone:
            assert isinstance(end.other, Half)
            end.other.side.port.unacknowledged(end.other.link)

    def resume(self, side: Side) -> None:
        """A silent path is heard again: what waits at both ends is sent anew."""
        half = side.half
        if half is not None and not half.other.gone:
            assert isinstance(half.other, Half)
            self._resend_soon(half, 0.0)
            self._resend_soon(half.other, half.latency)

    def _resend_soon(self, end: Half, delay: float) -> None:
        if end.held and (delay < RESEND_INTERVAL or not end.resends):
            end.resends = True
            self._clock.schedule_in(delay, self._resend, end)

    def _resend(self, end: Half, _: None) -> None:
        """Try again what waits; forget it if its sender is dead."""
        held, end.held, end.resends = end.held, [], False
        if not end.gone and end.other.node.alive:
            for message in held:
                self._arrive(end, message)

    # --- faults ------------------------------------------------------------------------------

    def on_crash(self, node: SimNode) -> None:
        """Its port is closed: nothing answers there."""
        port = self._ports.pop(node, None)
        if port is not None:
            port.shut()
        self.close_sockets(tuple(each for each, whose in self._sockets.items() if whose is node))
        self.ends.pop(node, None)

    def on_thaw(self, node: SimNode) -> None:
        """Its port goes on."""
        self.port(node).thaw()


def _itself(address: Address) -> Address:
    return address


def _facts(side: Side) -> LinkFacts:
    return side.secure.facts(
        side.remote,
        side.local,
        side.secure.path,
        side.secure.technique,
        remote_fingerprint=side.handshake.fingerprint,
        exporter=side.handshake.exporter,
    )
