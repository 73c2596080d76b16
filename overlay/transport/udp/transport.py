"""One idea: the UDP transport, sockets, the endpoint, and a link for each association it lets in.

The endpoint decides (pure code), this performs: `Send` goes to a socket, `Secure` makes a link,
`Record` feeds it; what the endpoint says of links is for the core and goes to the node. One task a
socket, one for all timers, one a link.
"""

import contextvars
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVarTuple, assert_never

import trio
import trio_asyncio  # type: ignore[import-untyped]

from overlay.core.addresses import CIRCUIT_BYTES, is_circuit, is_loopback
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
    Admit,
    Adopt,
    Aim,
    Await,
    CircuitCarried,
    Dial,
    DialFailed,
    Event,
    Foretold,
    Hangup,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
    Listening,
    Mapped,
    Negotiate,
    OpenPort,
    PathMoved,
    Prepare,
    Punch,
    PunchOver,
    Restart,
    Seen,
    SendFrom,
    Transmit,
    Unsent,
)
from overlay.core.limits import BoundedDict
from overlay.core.types import MAIN, Address, LinkId, Random
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import Goodbye, Gossip, GossipPart, Message
from overlay.errors import LinkClosed, LocalProtocolError
from overlay.transport.alarms import Alarm, Alarms
from overlay.transport.dtls.association import Credentials
from overlay.transport.interface import (
    CircuitEffect,
    LinkDescription,
    LinkStatistics,
    PortEffect,
    Starting,
    TransportEffect,
)
from overlay.transport.streams import MeshStream, OnStream
from overlay.transport.udp.further import FurtherSockets
from overlay.transport.udp.interfaces import INTERVAL, Surroundings, look_around
from overlay.transport.udp.link import GATHER_INTERVAL, Link
from overlay.transport.udp.ports import Ports
from overlay.transport.udp.sockets import UdpSocket, open_sockets

PATH_SIZES_MAX = 256
"""Addresses remembered because their paths have carried small packets only (guess)."""

log = logging.getLogger("overlay.transport")

Given = TypeVarTuple("Given")


class UdpTransport:
    """`overlay.transport.interface.Transport` on real sockets."""

    def __init__(
        self,
        listen: Address,
        *,
        dial_key: bytes,
        certificate: bytes,
        random: Random,
        advertise: tuple[Address, ...] = (),
        hidden: bool = False,
    ) -> None:
        """`certificate`: key and certificate in PEM.

        `advertise`: what the user says is reachable from outside.
        """
        self.listen: tuple[Address, ...] = ()
        self.internal_errors = 0
        self.heard = False
        self.credentials = Credentials(certificate)
        self.on_stream: OnStream | None = None
        self.path_sizes: BoundedDict[str, int] = BoundedDict(PATH_SIZES_MAX)
        self._listen_on = listen
        self._advertise = advertise
        kind = HiddenEndpoint if hidden else Endpoint
        self._endpoint = kind(dial_key=dial_key, cookie_key=secrets.token_bytes(32), random=random)
        self._sockets: list[UdpSocket] = []
        self._addresses: tuple[Address, ...] | None = None
        self._alarms = Alarms(trio.current_time)
        self._ports = Ports(self.emit)
        self._further = FurtherSockets(
            self._on_datagram, self._on_circuit, self._rearm, self._on_refused
        )
        self._links: dict[LinkId, Link] = {}
        self._to_flush: list[Link] = []
        self._gathering: list[Link] = []
        self._latest: tuple[Message | None, bytes] = (None, b"")
        self._emit: Callable[[Event], None] = _nobody_listens
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.copy_context()
        self._wake = trio.Event()
        self._sleeps_until = 0.0

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
        self._sockets = open_sockets(self._listen_on)
        try:
            async with trio_asyncio.open_loop() as loop:
                # aiortc may leave work to the loop; without this its failure would end the node.
                loop.set_exception_handler(self._on_loop_error)
                self._context = contextvars.copy_context()
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._emit = emit
                    self.listen = tuple(socket.address for socket in self._sockets)
                    self._look_around()
                    for socket in self._sockets:
                        nursery.start_soon(
                            socket.read,
                            self._on_datagram,
                            self._on_circuit,
                            self._rearm,
                            self._on_refused,
                        )
                    nursery.start_soon(self._keep_time)
                    nursery.start_soon(self._watch_addresses)
                    task_status.started()
        finally:
            self._nursery = None
            self._emit = _nobody_listens
            for socket in self._sockets:
                socket.close()

    async def _watch_addresses(self) -> None:
        while True:
            await trio.sleep(INTERVAL)
            self._look_around()

    def _look_around(self) -> None:
        """See under which addresses others reach us now, and say so if that has changed."""
        try:
            found = look_around()
        except OSError as error:  # no descriptor is left, say
            log.debug("looking at the interfaces: %s", error)
            if self._addresses is not None:
                return  # what we know stays
            found = Surroundings()
        for socket in self._sockets:
            if socket.is_ipv6:
                socket.zones = found.zones
        addresses = tuple(found.reach(self.listen))
        if addresses != self._addresses:
            self._addresses = addresses
            self._endpoint.set_local(addresses)
            self._emit(Listening(addresses, self._advertise))

    def perform(self, effect: TransportEffect) -> None:
        """See `Transport.perform`; nothing happens unless we run."""
        if self._nursery is not None:
            if isinstance(effect, Transmit):
                self._guarded(self._transmit, effect)  # which asks nothing of the endpoint
            else:
                self._guarded(self._perform, effect)
                self._rearm()

    def _perform(
        self,
        effect: Dial
        | Prepare
        | Negotiate
        | Restart
        | Punch
        | Aim
        | Adopt
        | Hangup
        | Admit
        | CircuitEffect
        | PortEffect,
    ) -> None:
        if isinstance(effect, Hangup):
            self._hang_up(effect.link)
        elif isinstance(effect, Admit):
            if (link := self._links.get(effect.link)) is not None:
                link.admit()
        elif isinstance(effect, PortEffect):
            self._perform_at_port(effect)
        else:
            self._endpoint.perform(effect, trio.current_time())
        self._perform_outputs()

    async def open_stream(self, link: LinkId, protocol: str, priority: int = 0) -> MeshStream:
        """See `Transport.open_stream`."""
        found = self._open_link(link)
        if found is None or found.streams is None:
            raise LinkClosed("there is no such link: no stream can be opened on it")
        return await found.streams.open(protocol, priority)

    def clock_set(self, wall: float) -> None:
        """See `Transport.clock_set`."""
        self._endpoint.set_wall(wall - trio.current_time())

    def statistics(self, link: LinkId) -> LinkStatistics | None:
        """See `Transport.statistics`."""
        found = self._open_link(link)
        if found is None:
            return None
        facts = found.facts()
        return LinkStatistics(
            bytes_in=found.bytes_in,
            bytes_out=found.bytes_out,
            queued=found.queued,
            rtt=self._endpoint.rtt(link, trio.current_time()) or found.rtt,
            remote=facts.remote,
            local=facts.local,
            path=facts.path,
        )

    def description(self, link: LinkId) -> LinkDescription | None:
        """See `Transport.description`."""
        found, described = self._open_link(link), self._endpoint.description(link)
        if found is None or described is None:
            return None
        local, remote, local_candidates, remote_candidates = described
        facts = found.facts()
        return LinkDescription(
            local=local,
            remote=remote,
            local_candidates=tuple(local_candidates),
            remote_candidates=tuple(remote_candidates),
            dtls_role=facts.dtls_role,
            local_fingerprint=self.credentials.fingerprint,
            remote_fingerprint=facts.remote_fingerprint,
        )

    @property
    def refused(self) -> Counter[str]:
        """Datagrams that were for nobody or against a rule, by kind: see `Endpoint.counters`."""
        return self._endpoint.counters

    def _open_link(self, link: LinkId) -> Link | None:
        found = self._links.get(link)
        return found if found is not None and found.is_open else None

    # --- effects ----------------------------------------------------------------------------------

    def _transmit(self, effect: Transmit) -> None:
        link = self._links.get(effect.link)
        if link is None:
            return
        try:
            data = self._encoded(effect.message)
        except LocalProtocolError:
            log.exception("link %d: a message of ours breaks the protocol", effect.link)
            self.internal_errors += 1
            return
        if isinstance(effect.message, GossipPart):
            if not link.transmit_part(data):
                self.emit(Unsent(link.id, effect.message))
        else:
            kind = type(effect.message)
            link.transmit(data, patient=kind is Gossip, last=kind is Goodbye)

    def _encoded(self, message: Message) -> bytes:
        """Its bytes; a message that goes to many links in a row is encoded once."""
        latest, data = self._latest
        if message is not latest:
            data = encode(message)
            self._latest = message, data
        return data

    def _perform_at_port(self, effect: PortEffect) -> None:
        match effect:
            case Await(transaction):
                self._endpoint.wait_for(transaction)
            case OpenPort():
                assert self._nursery is not None
                self._context.copy().run(self._nursery.start_soon, self._ports.serve, effect)
            case SendFrom(port, data, remote, local) if port == MAIN:
                self.send_datagram(data, remote, local)
            case SendFrom():
                self._ports.send(effect)
            case _:
                assert_never(effect)

    def _hang_up(self, link: LinkId) -> None:
        found = self._links.get(link)
        if found is not None:
            found.hang_up()
        else:
            self._endpoint.close(link)

    # --- datagrams --------------------------------------------------------------------------------

    def _on_datagram(self, data: bytes, remote: Address, local: Address | None) -> None:
        self._guarded(self._sort, data, remote, local)

    def _on_refused(self, remote: Address) -> None:
        if not self.heard:
            self._hear(remote)
        self._guarded(self._endpoint.refused, remote, trio.current_time())
        self._guarded(self._perform_outputs)

    def _sort(self, data: bytes, remote: Address, local: Address | None) -> None:
        now = trio.current_time()
        link_id = self._endpoint.association_of(data, remote, local)
        link = self._links.get(link_id) if link_id is not None else None
        if link is not None and link.receive(data, remote, local):
            self._endpoint.decrypted(link.id, remote, now)
        else:
            if not self.heard:
                self._hear(remote)
            self._endpoint.receive(data, remote, local, now)
        self._perform_outputs()

    def _hear(self, remote: Address) -> None:
        """Somebody's packet, or word of a packet of ours, has come in: UDP works, if from afar."""
        own = any(each.host == remote.host for each in self._addresses or ())
        self.heard = not own and not is_loopback(remote.host) and not is_circuit(remote)

    def _on_circuit(self, data: bytes, remote: Address, local: Address | None, now: float) -> None:
        self._guarded(self._pass_on, data, remote, local, now)

    def _pass_on(self, data: bytes, remote: Address, local: Address | None, now: float) -> None:
        """A datagram of a circuit: it goes on if we relay it, or what is in it is for us."""
        circuits = self._endpoint.circuits
        onward = circuits.forward(data, remote, local, now)
        if onward is not None:
            self.send_datagram(data, *onward)
            return
        circuit = circuits.arrived(data, remote, local)
        if circuit is not None:
            self._sort(data[CIRCUIT_BYTES:], circuit, None)

    def _over_circuit(
        self, data: bytes, circuit: Address
    ) -> tuple[bytes, Address, Address | None] | None:
        """How this leaves to a circuit's address; None: the circuit is over."""
        way = self._endpoint.circuits.way(circuit)
        if way is None:
            return None
        prefix, remote, local = way
        return prefix + data, remote, local

    def send_datagram(self, data: bytes, remote: Address, local: Address | None) -> None:
        """For links: a datagram to `remote`."""
        if not remote.port:
            leaving = self._over_circuit(data, remote)
            if leaving is None:
                return
            data, remote, local = leaving
        further = self._further.sockets
        if further and local in further:
            further[local].send(data, remote, None)
            return
        for socket in self._sockets:
            if socket.is_ipv6 == (":" in remote.host):
                socket.send(data, remote, local)
                return

    def _send_low(self, send: Send) -> None:
        """A datagram that is not to get far; to a circuit's address none goes."""
        assert send.ttl is not None
        if send.local in self._further.sockets:
            self._further.sockets[send.local].send_low(send.data, send.remote, None, send.ttl)
            return
        for socket in self._sockets:
            if socket.is_ipv6 == (":" in send.remote.host):
                socket.send_low(send.data, send.remote, send.local, send.ttl)
                return

    def send_probe(self, data: bytes, remote: Address, local: Address | None) -> None:
        """For links: a datagram that is to arrive whole or not at all."""
        if not remote.port:
            leaving = self._over_circuit(data, remote)
            if leaving is None:
                return
            data, remote, local = leaving
        further = self._further.sockets
        if further and local in further:
            further[local].send_probe(data, remote, None)
            return
        for socket in self._sockets:
            if socket.is_ipv6 == (":" in remote.host):
                socket.send_probe(data, remote, local)
                return

    def send_in_fragments(self, data: bytes, remote: Address, local: Address | None) -> None:
        """For links: a datagram that routers may cut."""
        if not remote.port:
            leaving = self._over_circuit(data, remote)
            if leaving is None:
                return
            data, remote, local = leaving
        further = self._further.sockets
        if further and local in further:
            further[local].send_in_fragments(data, remote, None)
            return
        for socket in self._sockets:
            if socket.is_ipv6 == (":" in remote.host):
                socket.send_in_fragments(data, remote, local)
                return

    # --- what the endpoint says -------------------------------------------------------------------

    def _perform_outputs(self) -> None:
        while (output := self._endpoint.poll()) is not None:
            self._perform_output(output)

    def _perform_output(self, output: EndpointOutput) -> None:
        match output:
            case Send(data, remote, local, None):
                self.send_datagram(data, remote, local)
            case Send():
                self._send_low(output)
            case Record():
                self._feed(output)
            case Confirm(link, nonce, remote, local):
                self._links[link].confirm(nonce, remote, local)
            case Secure():
                self._secure(output)
            case Move():
                self._move(output)
            case DialFailed() | LinkLost():
                self._end(output)
            case Mapped() | Seen() | CircuitCarried() | Foretold() | PunchOver():
                self._emit(output)
            case OpenSockets(link, host, count):
                self._open_sockets(link, host, count)
            case CloseSockets(sockets):
                self._further.close(sockets)
            case LinkSuspect():
                self._emit(output)
                self._links[output.link].suspect()
            case LinkSilent():
                self._emit(output)
                self._links[output.link].suspend()
            case LinkAlive():
                self._emit(output)
                self._links[output.link].resume()
            case _:
                assert_never(output)

    def _open_sockets(self, link: LinkId, host: str, count: int) -> None:
        assert self._nursery is not None, "the endpoint speaks only while we run"
        opened = self._context.copy().run(self._further.open, host, count, self._nursery)
        self._endpoint.opened(link, opened, trio.current_time())

    def _secure(self, secure: Secure) -> None:
        nursery = self._nursery
        assert nursery is not None, "the endpoint speaks only while we run"
        link = Link(secure, self, self.listen[0])
        self._links[secure.link] = link
        # An effect may be what brought us here, in a task that knows nothing of the loop.
        self._context.copy().run(nursery.start_soon, link.run)
        link.start()

    def _feed(self, record: Record) -> None:
        for link_id in record.links:
            link = self._links.get(link_id)
            if link is not None and link.receive(record.data, record.remote, record.local):
                if link.is_secure:
                    self._endpoint.decrypted(link_id, record.remote, trio.current_time())
                return

    def _move(self, move: Move) -> None:
        link = self._links[move.link]
        if link.move(move.remote, move.local, move.path, move.technique) and link.is_open:
            self._emit(PathMoved(link.id, link.facts()))

    def _end(self, end: Ended) -> None:
        """A link's own task tells the node; an attempt without a path has none, so we do."""
        link = self._links.get(end.link)
        if link is not None:
            link.end(end.reason)
        else:
            self._emit(end)

    # --- what links ask of us ---------------------------------------------------------------------

    def now(self) -> float:
        """trio's clock, in seconds."""
        return trio.current_time()

    @property
    def receive_window(self) -> int:
        """What the smallest of our sockets' buffers holds, in bytes of user data."""
        return min(socket.window for socket in self._sockets)

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        """Call `ring` once, `delay` seconds from now."""
        alarm = self._alarms.call_later(delay, ring)
        if alarm.at < self._sleeps_until:
            self._wake.set()
        return alarm

    def emit(self, event: Event) -> None:
        """Hand an event to the node."""
        self._emit(event)

    def flush_soon(self, link: Link) -> None:
        """Call `link.flush` once the task that runs now has had its turn."""
        self._to_flush.append(link)
        self._wake.set()

    def gather(self, link: Link) -> None:
        """Call `link.gathered` soon: one alarm for all that wait, so that they wake us once."""
        if not self._gathering:
            self.call_later(GATHER_INTERVAL, self._gathered)
        self._gathering.append(link)

    def _gathered(self) -> None:
        links, self._gathering = self._gathering, []
        for link in links:
            link.gathered()

    def acknowledged(self, link: Link) -> None:
        """The peer has acknowledged something of ours."""
        self._endpoint.acknowledged(link.id, trio.current_time())

    def unacknowledged(self, link: Link) -> None:
        """What was sent on this link has gone unacknowledged for too long."""
        self._endpoint.unacknowledged(link.id, trio.current_time())
        self._perform_outputs()

    def confirmed(self, link: Link, nonce: bytes, remote: Address, local: Address | None) -> None:
        """What a `Confirm` asked has come back."""
        self._endpoint.confirmed(link.id, nonce, remote, local, trio.current_time())

    def link_opened(self, link: Link) -> None:
        """DTLS and SCTP stand: the endpoint no longer counts it as half-open."""
        self._endpoint.established(link.id, trio.current_time())

    def link_closed(self, link: Link) -> None:
        """Forget it."""
        self._links.pop(link.id, None)
        self._endpoint.close(link.id)

    # --- time ------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        """The endpoint may want to be called earlier than the timekeeper had planned."""
        deadline = self._endpoint.next_deadline()
        if deadline is not None and deadline < self._sleeps_until:
            self._wake.set()

    async def _keep_time(self) -> None:
        """Run every timer when it is due, and flush the links that asked for it."""
        while True:
            deadlines = (self._endpoint.next_deadline(), self._alarms.next_deadline())
            self._sleeps_until = min((at for at in deadlines if at is not None), default=_NEVER)
            with trio.move_on_at(self._sleeps_until):
                await self._wake.wait()
            self._wake = trio.Event()
            self._sleeps_until = -_NEVER  # what is set from here on is seen without a wake-up
            links, self._to_flush = self._to_flush, []
            for link in links:
                link.flush()
            self._alarms.run_due(trio.current_time())
            self._guarded(self._on_endpoint_deadline)

    def _on_endpoint_deadline(self) -> None:
        self._endpoint.handle_timeout(trio.current_time())
        self._perform_outputs()

    # --- faults --------------------------------------------------------------------------------

    def _guarded(self, call: Callable[[*Given], None], *given: *Given) -> None:
        """Our own fault outside any link costs what was being done, and is counted."""
        try:
            call(*given)
        except Exception:
            log.exception("internal error")
            self.internal_errors += 1

    def _on_loop_error(self, _loop: Any, context: dict[str, Any]) -> None:
        log.error("internal error: %s", context.get("message"), exc_info=context.get("exception"))
        self.internal_errors += 1


_NEVER = float("inf")


def _nobody_listens(event: Event) -> None:
    log.debug("not running: %s", event)
