"""A node's port where every check is simulated: the shipped endpoint, driven by the world's clock.

What the transport does for a real node (`overlay.transport.udp.transport`) is done here with
datagrams of the world and a stand-in for DTLS and SCTP.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Protocol, assert_never

from overlay.core.endpoint.circuits import CircuitEffect
from overlay.core.endpoint.dtls_cookie import attempt_name
from overlay.core.endpoint.endpoint import Endpoint
from overlay.core.endpoint.hidden import HiddenEndpoint
from overlay.core.endpoint.outputs import (
    CloseSockets,
    Confirm,
    Ended,
    EndpointOutput,
    Move,
    OpenSockets,
    Record,
    Secure,
    Send,
)
from overlay.core.events import (
    Adopt,
    Aim,
    CircuitCarried,
    Dial,
    DialFailed,
    Event,
    Foretold,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
    Mapped,
    Negotiate,
    PathMoved,
    Prepare,
    Punch,
    PunchOver,
    Restart,
    Seen,
)
from overlay.core.types import Address, EndReason, LinkFacts, LinkId, is_chosen_by_core
from overlay.sim.clock import MICROSECOND
from overlay.sim.network.ends import LinkEnd
from overlay.sim.network.handshake import FLIGHT_TIMEOUT, Handshake
from overlay.sim.node import SimNode

WAITING_MAX = 256
"""Datagrams that wait in the socket of a frozen node; later ones are lost (guess)."""


@dataclass(slots=True, eq=False)
class Side:
    """One node's side of an association, from the found path to the end."""

    port: "Port"
    secure: Secure
    handshake: Handshake
    remote: Address
    """Where its datagrams go."""
    local: Address
    """Where they leave from."""
    facts: LinkFacts | None = None
    """Set once its channel is established."""
    half: "Half | None" = field(default=None)
    """Its end of the link, made when the server's channel is established."""

    @property
    def link(self) -> LinkId:
        """The link's id at this node."""
        return self.secure.link

    @property
    def is_open(self) -> bool:
        """Whether the core knows the link to be open."""
        return self.facts is not None


@dataclass(slots=True, eq=False)
class Half(LinkEnd):
    """An end of a link whose path is watched by its port."""

    side: Side = field(kw_only=True)
    sacks_at: int = 0
    """Microsecond before which what arrives is acknowledged with what has."""
    resends: bool = False
    """A look whether the path is back is under way."""


class Datagrams(Protocol):
    """What a port asks of its network."""

    feed: Callable[[SimNode, Event], None]
    """Hands an event to a node's core."""

    @property
    def now_us(self) -> int:
        """Microseconds since the beginning."""
        ...

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        ...

    def wall_offset(self, node: SimNode) -> float:
        """A node's wall clock less the world's time."""
        ...

    def at(self, when_us: int, call: Callable[[], None]) -> None:
        """Call something at this microsecond."""
        ...

    def send(
        self,
        node: SimNode,
        data: bytes,
        target: Address,
        ttl: int | None = None,
        local: Address | None = None,
    ) -> None:
        """A datagram leaves a node's port, or a socket that was opened for it.

        `ttl`: so many routers and no more may pass it on.
        """
        ...

    def open_sockets(self, node: SimNode, count: int) -> tuple[Address, ...]:
        """More sockets of a node, whose datagrams its port gets."""
        ...

    def close_sockets(self, sockets: tuple[Address, ...]) -> None:
        """They are needed no more."""
        ...

    def starts(self, client: Side) -> None:
        """A client's first flight leaves."""
        ...

    def open(self, side: Side) -> None:
        """A side's channel is established."""
        ...

    def rerouted(self, side: Side) -> None:
        """A side's path has begun or ceased to run over a circuit, or runs over another."""
        ...

    def resume(self, side: Side) -> None:
        """Packets come in again on a silent path."""
        ...

    def lose(self, end: LinkEnd, reason: EndReason) -> None:
        """A link has ended as this end sees it."""
        ...

    def forget(self, side: Side) -> None:
        """A side is over before its link opened, or after it ended."""
        ...


class Port:
    """The one UDP port of a node, from its start to its crash."""

    def __init__(self, network: Datagrams, node: SimNode, rng: Random) -> None:
        self.node = node
        self.sides: dict[LinkId, Side] = {}
        self.closed = False
        self._network = network
        self._rng = rng
        self._waiting: list[tuple[bytes, Address, Address]] = []
        self._wakes_at: int | None = None
        self._performs_soon = False
        kind = HiddenEndpoint if node.settings.relay_only else Endpoint
        self.endpoint = kind(
            dial_key=node.settings.dial_key, cookie_key=rng.randbytes(32), random=rng
        )
        self.endpoint.set_local((node.address,))

    # --- what the core wants -----------------------------------------------------------------

    def perform(
        self,
        effect: Dial | Prepare | Negotiate | Restart | Punch | Aim | Adopt | CircuitEffect,
    ) -> None:
        """Hand the endpoint an effect; what comes of it is done once its core has had its say."""
        self.endpoint.perform(effect, self._told())
        self.perform_soon()

    def close(self, link: LinkId) -> None:
        """Forget an attempt or a link; nothing more is said of it."""
        side = self.sides.pop(link, None)
        if side is not None:
            self._network.forget(side)
        self.endpoint.close(link)
        self.perform_soon()

    def shut(self) -> None:
        """The node has crashed."""
        self.closed = True
        for side in self.sides.values():
            self._network.forget(side)
        self.sides.clear()

    # --- what comes in -----------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, local: Address) -> None:
        """A datagram to this address; while the node is frozen it waits in the socket."""
        if self.node.frozen:
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append((data, source, local))
            return
        self.endpoint.receive(data, source, local, self._told())
        self._perform_outputs()

    def heard(self, link: LinkId, source: Address) -> None:
        """A message has come on a link, in a packet from there."""
        if not self.node.frozen:
            self.endpoint.decrypted(link, source, self._network.now)
            self._perform_outputs()

    def acknowledged(self, link: LinkId) -> None:
        """A SACK has come on a link."""
        if not self.node.frozen:
            self.endpoint.acknowledged(link, self._network.now)
            self._perform_outputs()

    def unacknowledged(self, link: LinkId) -> None:
        """A message has been under way for long."""
        if not self.node.frozen:
            self.endpoint.unacknowledged(link, self._network.now)
            self._perform_outputs()

    def thaw(self) -> None:
        """The node goes on: what was due is late, what came has waited."""
        self._on_time()
        waiting, self._waiting = self._waiting, []
        for data, source, local in waiting:
            self.receive(data, source, local)

    def _told(self) -> float:
        """The time, after telling the endpoint what the node's wall clock says."""
        self.endpoint.set_wall(self._network.wall_offset(self.node))
        return self._network.now

    # --- time --------------------------------------------------------------------------------

    def perform_soon(self) -> None:
        """Do what the endpoint says once whatever is under way at this instant is over."""
        if not self._performs_soon:
            self._performs_soon = True
            self._network.at(self._network.now_us, self._perform_outputs)

    def _rearm(self) -> None:
        """One pending look at the endpoint's timers; one that comes too soon looks again."""
        deadline = self.endpoint.next_deadline()
        if deadline is None:
            return
        when = max(self._network.now_us, int(deadline * MICROSECOND))
        while when / MICROSECOND < deadline:
            when += 1
        if self._wakes_at is None or when < self._wakes_at:
            self._wakes_at = when
            self._network.at(when, partial(self._wake, when))

    def _wake(self, when: int) -> None:
        if self._wakes_at == when:
            self._wakes_at = None
            self._on_time()

    def _on_time(self) -> None:
        if self.closed or self.node.frozen:
            return
        self.endpoint.handle_timeout(self._told())
        self._perform_outputs()

    def _send(
        self,
        data: bytes,
        remote: Address,
        local: Address | None = None,
        ttl: int | None = None,
    ) -> None:
        """A datagram leaves; one to a circuit's address by the link to its relay."""
        if not remote.port:
            way = self.endpoint.circuits.way(remote)
            if way is None:
                return
            data, remote, local = way[0] + data, way[1], way[2]
        self._network.send(self.node, data, remote, ttl, local)

    # --- what the endpoint says ------------------------------------------------------------------

    def _perform_outputs(self) -> None:
        self._performs_soon = False
        while not self.closed and (output := self.endpoint.poll()) is not None:
            self._on_output(output)
        if not self.closed:
            self._rearm()

    def _on_output(self, output: EndpointOutput) -> None:
        match output:
            case Send():
                self._send(output.data, output.remote, output.local, output.ttl)
            case Record():
                self._on_record(output)
            case Confirm():
                heartbeat = self.sides[output.link].handshake.heartbeat(output.nonce)
                self._send(heartbeat, output.remote, output.local)
            case Secure():
                self._on_secure(output)
            case Move():
                self._on_move(output)
            case DialFailed() | LinkLost():
                self._on_end(output)
            case OpenSockets(link, _, count):
                opened = self._network.open_sockets(self.node, count)
                self.endpoint.opened(link, opened, self._network.now)
            case CloseSockets(sockets):
                self._network.close_sockets(sockets)
            case Mapped() | Seen() | LinkSuspect() | LinkSilent() | CircuitCarried():
                self._network.feed(self.node, output)
            case Foretold() | PunchOver():
                self._network.feed(self.node, output)
            case LinkAlive():
                side = self.sides[output.link]
                self._network.feed(self.node, output)
                self._network.resume(side)
            case _:
                assert_never(output)

    def _on_move(self, move: Move) -> None:
        side = self.sides[move.link]
        before_remote, side.remote = side.remote, move.remote
        side.local = move.local or self.node.address
        if not (move.remote.port and before_remote.port):
            self._network.rerouted(side)
        before = side.facts
        if before is not None:
            side.facts = replace(
                before,
                remote=move.remote,
                local=side.local,
                path=move.path,
                technique=move.technique,
            )
            if side.facts != before:
                self._network.feed(self.node, PathMoved(move.link, side.facts))

    def _on_end(self, end: Ended) -> None:
        side = self.sides.pop(end.link, None)
        if side is not None and side.is_open:
            assert side.half is not None
            self._network.lose(side.half, end.reason)
            return
        if side is not None:
            self._network.forget(side)
        if is_chosen_by_core(end.link):
            self._network.feed(self.node, end)

    # --- handshakes --------------------------------------------------------------------------

    def _on_secure(self, secure: Secure) -> None:
        handshake = Handshake(
            client=secure.dtls_role == "client",
            ours=self.node.crypto.fingerprint,
            expected=secure.fingerprint,
            fresh=self._rng.randbytes,
            name=attempt_name(secure.attempt),
        )
        local = secure.local or self.node.address
        side = self.sides[secure.link] = Side(self, secure, handshake, secure.remote, local)
        if handshake.flight:
            self._network.starts(side)
            self._fly(side, handshake.flight, FLIGHT_TIMEOUT)

    def _fly(self, side: Side, flight: bytes, delay: float) -> None:
        """Send the client's flight, again and again until another takes its turn."""
        if side.handshake.flight is not flight or self.sides.get(side.link) is not side:
            return
        if not self.node.frozen:
            self._send(flight, side.remote, side.local)
        when = self._network.now_us + round(delay * MICROSECOND)
        self._network.at(when, partial(self._fly, side, flight, 2 * delay))

    def _on_record(self, record: Record) -> None:
        for link in record.links:
            side = self.sides.get(link)
            if side is None:
                continue
            before = side.handshake.flight
            answer = side.handshake.receive(record.data)
            if answer is None:
                continue
            self._after(side, answer, before)
            if side.handshake.secure:
                self.endpoint.decrypted(link, record.remote, self._network.now)
            if side.handshake.returned:
                nonce, side.handshake.returned = side.handshake.returned, b""
                now = self._network.now
                self.endpoint.confirmed(link, nonce, record.remote, record.local, now)
            return

    def _after(self, side: Side, answer: bytes, before: bytes) -> None:
        """A record has moved a handshake on, or was one that we had before."""
        handshake = side.handshake
        if handshake.failed:
            self.close(side.link)
            if is_chosen_by_core(side.link):
                self._network.feed(self.node, DialFailed(side.link, EndReason.CERTIFICATE))
            return
        if handshake.flight and handshake.flight is not before:
            self._fly(side, handshake.flight, FLIGHT_TIMEOUT)
        elif answer:
            self._send(answer, side.remote, side.local)
        if handshake.open and not side.is_open:
            self._network.open(side)
