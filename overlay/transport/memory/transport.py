"""One idea: the same transport without sockets: nodes in one process, in a `MemoryNetwork`.

For tests of whole nodes, ours and other people's, under trio's MockClock: dials check tokens and
fingerprints, negotiations pair up by their credentials, messages cross the real codec with a
latency, and a path that is cut goes suspect, silent and lost at the times of the real one.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import assert_never

import trio

from overlay.core.addresses import candidate_priority, circuit_address, circuit_of
from overlay.core.events import (
    Admit,
    Adopt,
    Aim,
    Await,
    Dial,
    DialFailed,
    DropCircuit,
    Event,
    Hangup,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Listening,
    Mapped,
    Negotiate,
    OpenPort,
    PathMoved,
    Prepare,
    Punch,
    RelayCircuit,
    Restart,
    SendFrom,
    Transmit,
    Unsent,
    UseCircuit,
)
from overlay.core.types import (
    Address,
    Candidate,
    CircuitId,
    EndReason,
    IceCredentials,
    LinkFacts,
    LinkId,
    PathKind,
    Technique,
    is_chosen_by_core,
)
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import GossipPart
from overlay.errors import LinkClosed, LocalProtocolError
from overlay.transport.alarms import Alarm, Alarms
from overlay.transport.interface import LinkDescription, LinkStatistics, Starting, TransportEffect
from overlay.transport.memory.circuits import Circuits
from overlay.transport.memory.link import MemoryLink
from overlay.transport.outbox import MAX_QUEUED_BYTES
from overlay.transport.streams import MeshStream, OnStream

LATENCY = 0.01
"""Seconds one way (guess)."""
SUSPECT_AFTER, SILENT_AFTER, LOST_AFTER = 3.5, 6.0, 60.0
"""Seconds without hearing anything, as `overlay.core.ice.liveness` and its checks make them."""

log = logging.getLogger("overlay.transport")


class MemoryNetwork:
    """Where memory transports find each other."""

    def __init__(self, random: Random, latency: float = LATENCY) -> None:
        """`random` makes the exporter values; `latency` is in seconds, one way."""
        self.random = random
        self.latency = latency
        self._transports: dict[Address, MemoryTransport] = {}
        self._cut: set[frozenset[Address]] = set()
        self._isolated: set[Address] = set()
        self._negotiating: dict[tuple[str, str], _Attempt] = {}
        self.circuits = Circuits(self._far, self.passes)

    def cut(self, one: Address, other: Address) -> None:
        """Let nothing pass between these two."""
        self._cut.add(frozenset((one, other)))
        self.paths_changed()

    def heal(self, one: Address, other: Address) -> None:
        """Undo `cut`: what waited arrives."""
        self._cut.discard(frozenset((one, other)))
        self.paths_changed()

    def isolate(self, address: Address) -> None:
        """Let nothing pass to or from this node: frozen, crashed or unplugged."""
        self._isolated.add(address)
        self.paths_changed()

    def reconnect(self, address: Address) -> None:
        """Undo `isolate`."""
        self._isolated.discard(address)
        self.paths_changed()

    def passes(self, one: Address, other: Address) -> bool:
        """Whether something sent now would arrive."""
        isolated = one in self._isolated or other in self._isolated
        return not isolated and frozenset((one, other)) not in self._cut

    def _far(self, node: Address, link: LinkId) -> Address | None:
        transport = self._transports.get(node)
        found = None if transport is None else transport._links.get(link)
        return found.facts.remote if found is not None and found.circuit is None else None

    def reaches(self, node: Address, address: Address) -> "MemoryTransport | None":
        """Who is at this address, or at the far end of this circuit, for what `node` sends."""
        circuit = circuit_of(address)
        if circuit is None:
            return self._at(address, node)
        far = self.circuits.far_end(node, circuit)
        return None if far is None else self._transports.get(far)

    def paths_changed(self) -> None:
        for transport in self._transports.values():
            transport.check_paths()

    def _join(self, transport: "MemoryTransport") -> None:
        if transport.address in self._transports:
            raise ValueError(f"two nodes at {transport.address}")
        self._transports[transport.address] = transport

    def _leave(self, transport: "MemoryTransport") -> None:
        del self._transports[transport.address]
        self.paths_changed()

    def _partner(self, ours: "_Attempt") -> "_Attempt | None":
        """Whoever waits for exactly these credentials; if nobody does, wait."""
        self._negotiating = {key: each for key, each in self._negotiating.items() if each.is_alive}
        local, remote = ours.effect.local.ufrag, ours.effect.remote.ufrag
        partner = self._negotiating.get((remote, local))
        if partner is not None and ours.fits(partner) and partner.fits(ours):
            del self._negotiating[remote, local]
            return partner
        self._negotiating[local, remote] = ours
        return None

    def _at(self, address: Address, asker: Address) -> "MemoryTransport | None":
        return self._transports.get(address) if self.passes(asker, address) else None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A `Negotiate` that waits for its counterpart."""

    transport: "MemoryTransport"
    effect: Negotiate

    @property
    def is_alive(self) -> bool:
        return self.effect.link in self.transport._attempts

    def fits(self, other: "_Attempt") -> bool:
        """Whether the other has our credentials and we know an address of it that we reach."""
        at, there = self.transport.address, other.transport.address
        known = {candidate.address for candidate in self.effect.remote_candidates}
        passwords = self.effect.remote == other.effect.local
        return passwords and there in known and self.transport._network.passes(at, there)


class MemoryTransport:
    """`overlay.transport.interface.Transport` within one process."""

    def __init__(
        self,
        network: MemoryNetwork,
        address: Address,
        *,
        dial_key: bytes,
        fingerprint: bytes,
        advertise: tuple[Address, ...] = (),
    ) -> None:
        """`fingerprint` stands for the DTLS certificate that there is none of here."""
        self.listen: tuple[Address, ...] = ()
        self.internal_errors = 0
        self.heard = True  # there is no network that could lack anything
        self.on_stream: OnStream | None = None
        self.address = address
        self.fingerprint = fingerprint
        self._network = network
        self._dial_key = dial_key
        self._advertise = advertise
        self._alarms = Alarms(trio.current_time)
        self._wake = trio.Event()
        self._emit: Callable[[Event], None] | None = None
        self._wall_offset: float | None = None
        self._links: dict[LinkId, MemoryLink] = {}
        self._attempts: dict[LinkId, Alarm] = {}
        self._next_link = 1

    # --- `Transport` ----------------------------------------------------------------------------

    async def run(
        self,
        emit: Callable[[Event], None],
        *,
        on_stream: OnStream | None = None,
        task_status: Starting = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Transport.run`."""
        self.on_stream = on_stream
        self._network._join(self)
        self.listen = (self.address,)
        self._emit = emit
        emit(Listening(self.listen, self._advertise))
        task_status.started()
        try:
            while True:
                with trio.move_on_at(self._alarms.next_deadline() or float("inf")):
                    await self._wake.wait()
                self._wake = trio.Event()
                self._alarms.run_due(trio.current_time())
        finally:
            self._emit = None
            for link in list(self._links.values()):
                self._hang_up(link)
            self._network._leave(self)

    def perform(self, effect: TransportEffect) -> None:
        """See `Transport.perform`; nothing happens unless we run."""
        if self._emit is None:
            return
        match effect:
            case Dial():
                self._dial(effect)
            case Negotiate():
                self._negotiate(effect)
            case Transmit():
                self._transmit(effect)
            case Hangup():
                self._forget_attempt(effect.link)
                if (link := self._links.get(effect.link)) is not None:
                    self._hang_up(link)
            case Admit():
                if (link := self._links.get(effect.link)) is not None:
                    link.open_streams().admit()
            case Prepare():
                pass  # there are no sockets to gather candidates from
            case Restart():
                self._restart(effect)
            case Adopt():
                self._adopt(effect)
            case UseCircuit() | RelayCircuit() | DropCircuit():
                self._network.circuits.perform(self.address, effect)
                self._network.paths_changed()
            case OpenPort() | SendFrom() | Await() | Punch() | Aim():
                pass  # there are no datagrams
            case _:
                assert_never(effect)

    async def open_stream(self, link: LinkId, protocol: str, priority: int = 0) -> MeshStream:
        """See `Transport.open_stream`."""
        found = self._links.get(link)
        if found is None or found.streams is None:
            raise LinkClosed("there is no such link: no stream can be opened on it")
        return await found.streams.open(protocol, priority)

    def clock_set(self, wall: float) -> None:
        """See `Transport.clock_set`."""
        self._wall_offset = wall - trio.current_time()

    def statistics(self, link: LinkId) -> LinkStatistics | None:
        """See `Transport.statistics`."""
        found = self._links.get(link)
        if found is None:
            return None
        return LinkStatistics(
            bytes_in=found.bytes_in,
            bytes_out=found.bytes_out,
            queued=found.waiting + (found.streams.mux.queued if found.streams is not None else 0),
            rtt=2 * self._latency(found),
            remote=found.facts.remote,
            local=found.facts.local,
            path=found.facts.path,
        )

    def description(self, link: LinkId) -> LinkDescription | None:
        """See `Transport.description`."""
        found = self._links.get(link)
        return None if found is None else found.description

    # --- opening ----------------------------------------------------------------------------------

    def _dial(self, effect: Dial) -> None:
        self._expect(effect.link, effect.timeout)
        reached = ((each, self._network.reaches(self.address, each)) for each in effect.addresses)
        admitted = ((at, each, each._admits(effect.remote)) for at, each in reached if each)
        address, target, claim = next(
            (found for found in admitted if found[2]), (self.address, None, None)
        )
        if target is None or claim is None:
            return
        if effect.fingerprint != target.fingerprint:
            self._fail_soon(effect.link, EndReason.CERTIFICATE)
            return
        ours = _Side(self, effect.link, effect.attempt, effect.local, inbound=False)
        theirs = _Side(target, None, effect.attempt, effect.remote, inbound=True, claim=claim)
        self._connect(ours, theirs, circuit_of(address))

    def _admits(self, presented: IceCredentials) -> dial.Claim | None:
        """What the dialler's token says, if it is one of ours and still good."""
        claim = dial.parse_ufrag(presented.ufrag)
        if claim is None or self._wall_offset is None:
            return None
        token = dial.make_token(self._dial_key, claim.kind, claim.token_id, claim.expires_at)
        genuine = dial.listener_password(token, presented.ufrag) == presented.password
        fresh = claim.expires_at > trio.current_time() + self._wall_offset
        return claim if genuine and fresh else None

    def _negotiate(self, effect: Negotiate) -> None:
        self._expect(effect.link, effect.timeout)
        partner = self._network._partner(_Attempt(self, effect))
        if partner is None:
            return
        other, theirs = partner.transport, partner.effect
        if effect.fingerprint != other.fingerprint or theirs.fingerprint != self.fingerprint:
            # Who sees the wrong certificate says so; the other side sees a failed handshake.
            ours, others = EndReason.CERTIFICATE, EndReason.PROTOCOL
            if effect.fingerprint == other.fingerprint:
                ours, others = others, ours
            self._fail_soon(effect.link, ours)
            other._fail_soon(theirs.link, others)
            return
        sides = [
            _Side(at, each.link, each.attempt, each.local, inbound=not each.controlling)
            for at, each in ((self, effect), (other, theirs))
        ]
        dialler, listener = sorted(sides, key=lambda side: side.inbound)
        self._connect(dialler, listener)

    def _connect(
        self, dialler: "_Side", listener: "_Side", circuit: CircuitId | None = None
    ) -> None:
        exporter = self._network.random.randbytes(32)
        near = dialler.at._make_link(dialler, listener, exporter)
        far = listener.at._make_link(listener, dialler, exporter)
        near.other, far.other = far, near
        if circuit is not None:
            for link in (near, far):
                _reroute(link, circuit, circuit_address(circuit))
        latency = self._latency(near)

        def arrive() -> None:
            # Scheduled first, so that nothing which the far end says overtakes it.
            dialler.at.call_later(latency, lambda: dialler.at._open(near))
            listener.at._open(far)

        listener.at.call_later(latency, arrive)

    def _make_link(self, side: "_Side", other: "_Side", exporter: bytes) -> MemoryLink:
        link_id = side.link
        if link_id is None:
            link_id = LinkId(self._next_link)
            self._next_link += 2
            self._expect(link_id, LOST_AFTER)
        role = "server" if side.inbound else "client"
        negotiated = side.claim is None and other.claim is None
        facts = LinkFacts(
            remote=other.at.address,
            local=self.address,
            path=PathKind.HOST,
            dtls_role=role,
            remote_fingerprint=other.at.fingerprint,
            exporter=exporter,
            attempt=side.attempt,
            token_kind=side.claim.kind if side.claim else None,
            token_id=side.claim.token_id if side.claim else b"",
            technique=Technique.ICE if negotiated else None,
        )
        description = LinkDescription(
            local=side.credentials,
            remote=None if side.claim else other.credentials,
            local_candidates=(Candidate("host", self.address, candidate_priority("host")),),
            remote_candidates=(Candidate("host", other.at.address, candidate_priority("host")),),
            dtls_role=role,
            local_fingerprint=self.fingerprint,
            remote_fingerprint=other.at.fingerprint,
        )
        return MemoryLink(link_id, self, side.inbound, facts, description)

    def _open(self, link: MemoryLink) -> None:
        if link.id not in self._attempts:
            if link.other is not None:  # hung up meanwhile: the other node must not keep its half
                link.other.host.call_later(
                    self._network.latency, _losing(link.other, EndReason.CLOSED)
                )
            return
        self._forget_attempt(link.id)
        self._links[link.id] = link
        self.emit(LinkOpened(link.id, link.inbound, link.facts))
        if link.circuit is None:
            self.emit(Mapped(link.id, self.address))
        self.check_paths()

    def _expect(self, link: LinkId, timeout: float) -> None:
        self._attempts[link] = self.call_later(timeout, lambda: self._fail(link, EndReason.TIMEOUT))

    def _fail_soon(self, link: LinkId, reason: EndReason) -> None:
        self.call_later(2 * self._network.latency, lambda: self._fail(link, reason))

    def _fail(self, link: LinkId, reason: EndReason) -> None:
        if link in self._attempts:
            self._forget_attempt(link)
            if is_chosen_by_core(link):
                self.emit(DialFailed(link, reason))

    def _forget_attempt(self, link: LinkId) -> None:
        alarm = self._attempts.pop(link, None)
        if alarm is not None:
            alarm.cancel()

    # --- messages ---------------------------------------------------------------------------------

    def _transmit(self, effect: Transmit) -> None:
        link = self._links.get(effect.link)
        if link is None:
            return
        try:
            data = encode(effect.message)
        except LocalProtocolError:
            log.exception("link %d: a message of ours breaks the protocol", effect.link)
            self.internal_errors += 1
            return
        if isinstance(effect.message, GossipPart) and link.waiting > MAX_QUEUED_BYTES // 2:
            self.emit(Unsent(link.id, effect.message))
            return
        link.transmit(data)
        if link.waiting > MAX_QUEUED_BYTES:
            self.call_later(0, _losing(link, EndReason.OVERFLOW))

    def _hang_up(self, link: MemoryLink) -> None:
        link.end_streams()
        self._drop(link, EndReason.CANCELLED)
        self.send(link, lambda other: other.host.lose(other, EndReason.CLOSED))

    def send(self, link: MemoryLink, arrive: Callable[[MemoryLink], None]) -> None:
        """Let something happen at the other end after the latency, in order, if the path passes."""
        other = link.other
        if other is None:
            return

        def arrival() -> None:
            if other.held is None:
                arrive(other)
            else:
                other.held.append(arrival)

        now = trio.current_time()
        link.arrives_at = max(link.arrives_at, now + self._latency(link))
        other.host.call_later(link.arrives_at - now, arrival)

    def _latency(self, link: MemoryLink) -> float:
        """Seconds one way: over a relay twice as many."""
        return self._network.latency * (1 if link.circuit is None else 2)

    def lose(self, link: MemoryLink, reason: EndReason) -> None:
        """For links: end the link for this reason."""
        if not self.has(link):
            return
        self._drop(link, reason)
        self.emit(LinkLost(link.id, reason))
        if reason is not EndReason.CLOSED:
            self.send(link, lambda other: other.host.lose(other, EndReason.CLOSED))

    def _drop(self, link: MemoryLink, reason: EndReason) -> None:
        self._links.pop(link.id, None)
        if link.streams is not None:
            link.streams.lose(reason)
        for alarm in link.silence:
            alarm.cancel()
        if self._network.circuits.stand:
            self._network.paths_changed()

    # --- paths ------------------------------------------------------------------------------------

    def check_paths(self) -> None:
        """Notice which links the network has cut or healed."""
        for link in list(self._links.values()):
            if link.circuit is None:
                passes = self._network.passes(link.facts.local, link.facts.remote)
            else:
                passes = self._network.reaches(self.address, link.facts.remote) is not None
            if not passes and link.held is None:
                link.held = deque()
                link.silence = tuple(self._silence_of(link))
            elif passes and link.held is not None:
                self._heard_again(link, link.held)

    def _adopt(self, effect: Adopt) -> None:
        """Take the path of another link over; between two addresses there is but one."""
        heir, donor = self._links.get(effect.link), self._links.get(effect.path)
        if heir is not None and donor is not None and not effect.asked:
            self._move(heir, donor.circuit, donor.facts.remote)

    def _restart(self, effect: Restart) -> None:
        """A link over a circuit goes directly once both ends have begun, if packets pass."""
        link = self._links.get(effect.link)
        if link is None or link.circuit is None or link.other is None:
            return
        link.restart = effect
        theirs, host = link.other.restart, link.other.host
        if theirs is None or (theirs.local, theirs.remote) != (effect.remote, effect.local):
            return
        if isinstance(host, MemoryTransport) and self._network.passes(self.address, host.address):
            self._move(link, None, host.address)
            host._move(link.other, None, self.address)

    def _move(self, link: MemoryLink, circuit: CircuitId | None, remote: Address) -> None:
        if link.facts.remote != remote:
            _reroute(link, circuit, remote)
            self.emit(PathMoved(link.id, link.facts))
            self.check_paths()

    def _silence_of(self, link: MemoryLink) -> Iterator[Alarm]:
        yield self.call_later(SUSPECT_AFTER, lambda: self._quiet(link, LinkSuspect(link.id)))
        yield self.call_later(SILENT_AFTER, lambda: self._quiet(link, LinkSilent(link.id)))
        yield self.call_later(LOST_AFTER, _losing(link, EndReason.BROKEN))

    def _quiet(self, link: MemoryLink, event: Event) -> None:
        link.is_quiet = True
        if link.streams is not None and isinstance(event, LinkSilent):
            link.streams.suspend()
        self.emit(event)

    def _heard_again(self, link: MemoryLink, held: deque[Callable[[], None]]) -> None:
        link.held = None
        for alarm in link.silence:
            alarm.cancel()
        if link.is_quiet:
            link.is_quiet = False
            if link.streams is not None:
                link.streams.resume()
            self.emit(LinkAlive(link.id))
        for arrival in held:
            self.call_later(self._network.latency, arrival)

    # --- time -------------------------------------------------------------------------------------

    def has(self, link: MemoryLink) -> bool:
        """For links: whether it is open and ours."""
        return self._links.get(link.id) is link

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        """For links: call `ring` once, `delay` seconds from now."""
        alarm = self._alarms.call_later(delay, ring)
        self._wake.set()
        return alarm

    def emit(self, event: Event) -> None:
        """For links: hand an event to the node."""
        if self._emit is not None:
            self._emit(event)


@dataclass(frozen=True, slots=True)
class _Side:
    """What one side brings to a link that is about to open."""

    at: MemoryTransport
    link: LinkId | None
    attempt: bytes
    credentials: IceCredentials
    inbound: bool
    claim: dial.Claim | None = None


def _losing(link: MemoryLink, reason: EndReason) -> Callable[[], None]:
    return lambda: link.host.lose(link, reason)


def _reroute(link: MemoryLink, circuit: CircuitId | None, remote: Address) -> None:
    """Its messages go there from now on."""
    path = PathKind.HOST if circuit is None else PathKind.RELAYED
    link.circuit, link.restart = circuit, None
    link.facts = replace(link.facts, remote=remote, path=path)
