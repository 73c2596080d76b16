"""One idea: a link, its DTLS, SCTP, queues and life, from its first handshake byte to its end.

Bytes are handled synchronously where they arrive; the link's one task (`Link.run`) owns what takes
time: the handshake's deadline, and the end, which is an event with a reason.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from overlay.core.addresses import CIRCUIT_BYTES, is_circuit
from overlay.core.endpoint.dtls_cookie import attempt_name
from overlay.core.endpoint.outputs import Secure
from overlay.core.events import DialFailed, Event, LinkLost, LinkOpened, Malformed, Received
from overlay.core.limits import BoundedDict
from overlay.core.types import (
    Address,
    EndReason,
    LinkFacts,
    LinkId,
    PathKind,
    Technique,
    is_chosen_by_core,
)
from overlay.core.wire.codec import Broken, Unknown, decode
from overlay.errors import RemoteProtocolError
from overlay.transport.alarms import Alarm
from overlay.transport.dtls.association import (
    LEAST_DATAGRAM_BYTES,
    Credentials,
    Dtls,
    DtlsState,
)
from overlay.transport.outbox import CONTROL, DATAGRAMS, Outbox
from overlay.transport.sctp.acknowledging import NEARLY_FULL
from overlay.transport.sctp.association import (
    BINARY,
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    DCEP,
    LOW_WATER,
    Sctp,
)
from overlay.transport.sctp.packets import PACKET_BYTES, HeartbeatKind
from overlay.transport.sctp.path_mtu import PathMtu
from overlay.transport.streams import LinkStreams, OnStream

HEARD_INTERVAL = 0.1
"""Seconds: the host is told at most this often that the peer hears us (guess)."""
GATHER_INTERVAL = 0.030
"""Seconds between packets of publications on one link: faster ones share packets, and each hop of
theirs costs up to this. A link that carries fewer than 33 a second delays none (guess)."""
IPV6_BYTES = 1280 - 40 - 8 - CIRCUIT_BYTES
"""What fits a UDP datagram on any IPv6 path (RFC 8200 §5), over a circuit as well: data that is in
flight when a link comes to run over one cannot be cut anew."""
UNACKNOWLEDGED_AFTER = 0.5
"""Seconds, and twice the round trip at least, after which data over a relay is worth a question."""
REPEAT_AFTER, REPEATS = 0.25, 2
"""Seconds (guess) after which a flight of the handshake is sent again, then twice as many, before
OpenSSL does it after one: the paths that need it lose one packet in ten."""
HANGUP_TIMEOUT = 1.0
"""Seconds that a link which we end may take to get its last messages acknowledged (guess)."""

log = logging.getLogger("overlay.transport")


class Host(Protocol):
    """What a link needs of the transport that it belongs to."""

    credentials: Credentials
    internal_errors: int
    on_stream: OnStream | None
    path_sizes: BoundedDict[str, int]
    """Bytes of a packet that the path to an IP address has last been found to carry, if fewer were
    sent there than elsewhere: its next link begins with small packets."""

    @property
    def receive_window(self) -> int:
        """Bytes that a peer may have in flight towards us."""
        ...

    def now(self) -> float: ...
    def call_later(self, delay: float, ring: Callable[[], None], /) -> Alarm: ...
    def send_datagram(self, data: bytes, remote: Address, local: Address | None) -> None: ...
    def send_probe(self, data: bytes, remote: Address, local: Address | None) -> None:
        """Send it whole or not at all, whatever is believed of the path."""
        ...

    def send_in_fragments(self, data: bytes, remote: Address, local: Address | None) -> None:
        """Let routers cut it."""
        ...

    def emit(self, event: Event) -> None: ...
    def flush_soon(self, link: "Link") -> None:
        """Call `link.flush` once what goes on now has finished."""
        ...

    def gather(self, link: "Link") -> None:
        """Call `link.gathered` after `GATHER_INTERVAL` at most."""
        ...

    def acknowledged(self, link: "Link") -> None:
        """The peer has acknowledged something of ours: we are heard. At most every 0.1 s."""
        ...

    def unacknowledged(self, link: "Link") -> None:
        """Something of ours has been under way over a relay for longer than it should."""
        ...

    def confirmed(self, link: "Link", nonce: bytes, remote: Address, local: Address | None) -> None:
        """What `Link.confirm` sent has come back, in a datagram between these addresses."""
        ...

    def link_opened(self, link: "Link") -> None: ...
    def link_closed(self, link: "Link") -> None:
        """The link's task is about to end; forget it."""
        ...


class Link:
    """A link from its attempt to its end. Every public method may be called in every state."""

    def __init__(self, secure: Secure, host: Host, local: Address) -> None:
        """`local`: where we are bound, if the endpoint does not know which address was dialled."""
        self.id: LinkId = secure.link
        self.inbound = secure.inbound
        self.remote, self.local = secure.remote, secure.local
        self.path, self.technique = secure.path, secure.technique
        self.bytes_in = self.bytes_out = 0
        self.is_open = False
        self.reason: EndReason | None = None  # why it ended; None while it lives
        self._secure = secure
        self._host = host
        self._bound = local
        self._dtls = Dtls(
            host.credentials,
            secure.dtls_role,
            self._send_datagram,
            expected=secure.fingerprint,
            cookie_exchanged=secure.cookie_exchanged,
            name=attempt_name(secure.attempt),
        )
        self._sctp: Sctp | None = None
        self._outbox = Outbox()
        self._streams: LinkStreams | None = None
        self._hanging_up = False
        self._flush_is_due = False
        self._heard_until = 0.0  # until then the host knows that the peer hears us
        self._acknowledged_at = 0.0  # when the peer has last acknowledged something
        # Over a relay: since when what is under way waits for that, while it is looked at.
        self._watched_at: float | None = None
        self._gathers_until = 0.0  # patient messages wait for others until then
        self._is_gathering = False
        # Frames of streams have gone since whoever waits for room was told.
        self._frames_went = False
        self._repeat: Alarm | None = None
        self._changed = trio.Event()

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the handshake; as DTLS client, send our first flight."""
        self._guarded(self._dtls.start)
        self._arm_handshake_timer()

    async def run(self) -> None:
        """Own the link until it has ended; then say why, unless we hung up ourselves."""
        try:
            with trio.move_on_at(self._secure.deadline):
                await self._until(lambda: self.is_open)
            if not self.is_open:
                self.end(EndReason.TIMEOUT)
            await self._until(lambda: self._hanging_up)
            with trio.move_on_after(HANGUP_TIMEOUT):
                await self._until(lambda: self._is_drained)
        finally:
            # No checkpoint from here on: a cancelled link says goodbye like any other.
            self._guarded(self._close)
            self._host.link_closed(self)
        self._report()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while self.reason is None and not condition():
            self._changed = trio.Event()
            await self._changed.wait()

    def _close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            ours = self._hanging_up or self.reason is None
            streams.lose(EndReason.CANCELLED if ours else self._why)
        sctp, self._sctp = self._sctp, None  # no cycle keeps OpenSSL's 60 KiB until a collection
        if sctp is not None:
            sctp.abort()
        self._stop_repeating()
        self._dtls.close()

    def _report(self) -> None:
        if self.reason is None or self._hanging_up:
            return
        if self.is_open:
            self._host.emit(LinkLost(self.id, self._why))
        elif is_chosen_by_core(self.id):
            self._host.emit(DialFailed(self.id, self.reason))

    @property
    def _why(self) -> EndReason:
        """Why an open link has ended."""
        assert self.reason is not None
        return EndReason.BROKEN if self.reason is EndReason.TIMEOUT else self.reason

    def end(self, reason: EndReason) -> None:
        """End at once; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._changed.set()

    def hang_up(self) -> None:
        """End without an event, as soon as what was transmitted has arrived (at most 1 s)."""
        if self._streams is not None and not self._hanging_up:
            self._guarded(self._streams.hang_up)
        self._hanging_up = True
        self._changed.set()
        if not self.is_open:
            self.end(EndReason.CANCELLED)

    # --- datagrams -------------------------------------------------------------------------------

    def receive(self, datagram: bytes, remote: Address, local: Address | None) -> bool:
        """Handle a DTLS record that came from `remote` to `local`; whether it was genuine."""
        if self.reason is not None:
            return False
        try:
            plaintexts = self._dtls.receive(datagram)
            if plaintexts is None:
                return False
            self._on_plaintexts(plaintexts)
            if self._sctp is not None and self._sctp.acknowledged:
                self._on_acknowledged(self._sctp, remote, local)
        except RemoteProtocolError as error:
            log.info("link %d: the peer broke the protocol: %s", self.id, error)
            self.end(EndReason.PROTOCOL)
        except Exception:
            log.exception("link %d: internal error", self.id)
            self._on_own_fault()
        return True

    def _on_plaintexts(self, plaintexts: list[bytes]) -> None:
        if self._sctp is None:
            if self._dtls.state is DtlsState.CONNECTED:
                self._begin_sctp()
            else:
                self._arm_handshake_timer()
        if self._sctp is not None:
            for plaintext in plaintexts:
                self._sctp.receive(plaintext)
            self._after_sctp(self._sctp)
        if self._dtls.state is DtlsState.FAILED:
            self.end(self._dtls.failure if not self.is_open else EndReason.BROKEN)
        elif self._dtls.state is DtlsState.CLOSED:
            self.end(EndReason.CLOSED if self.is_open else EndReason.PROTOCOL)

    def _begin_sctp(self) -> None:
        overhead = self._dtls.overhead
        most = min(PACKET_BYTES, (IPV6_BYTES - overhead) // 4 * 4)
        mtu = PathMtu(self._least, most, path=self.remote)
        if self._dtls.is_small or self._host.path_sizes.get(self.remote.host, most) < most:
            mtu.begin_small(self._host.now())
        self._sctp = Sctp(self._dtls, self, self, mtu, self._host.receive_window)
        self._sctp.begin()
        self._repeat_later()  # of two last flights, the peer may lack ours

    @property
    def _least(self) -> int:
        """Bytes of an SCTP packet that any path to an address of this family carries."""
        room = IPV6_BYTES if ":" in self.remote.host else LEAST_DATAGRAM_BYTES
        return (room - self._dtls.overhead) // 4 * 4

    def send_probe(self, packet: bytes) -> None:
        """For SCTP: see `overlay.transport.sctp.sizing.Path`."""
        self._host.send_probe(self._dtls.seal(packet), self.remote, self.local)

    def send_in_fragments(self, packet: bytes) -> None:
        """For SCTP: see `overlay.transport.sctp.sizing.Path`."""
        self._host.send_in_fragments(self._dtls.seal(packet), self.remote, self.local)

    def resized(self, size: int) -> None:
        """For SCTP: see `overlay.transport.sctp.sizing.Path`."""
        if not is_circuit(self.remote):  # of which there is never another with that name
            self._host.path_sizes.put(self.remote.host, size)
        log.info("link %d: packets of %d bytes from now on, to %s", self.id, size, self.remote)

    def _on_acknowledged(self, sctp: Sctp, remote: Address, local: Address | None) -> None:
        """Something of ours has arrived: tell the host of it."""
        confirmed = sctp.take_acknowledged()
        now = self._acknowledged_at = self._host.now()
        if now >= self._heard_until:
            self._heard_until = now + HEARD_INTERVAL
            self._host.acknowledged(self)
        for nonce in confirmed:
            self._host.confirmed(self, nonce, remote, local)

    def _send_datagram(self, data: bytes) -> None:
        self._host.send_datagram(data, self.remote, self.local)

    def _arm_handshake_timer(self) -> None:
        delay = self._dtls.timeout()
        if delay is not None and self.reason is None:
            self.call_later(delay, self._on_handshake_timer)
            self._repeat_later()

    def _repeat_later(self, nth: int = 0) -> None:
        """Have the flight that has just been sent, or is, sent again unless it is answered."""
        self._stop_repeating()
        if nth < REPEATS:
            after = REPEAT_AFTER * 2**nth
            self._repeat = self.call_later(after, lambda: self._repeat_flight(nth))

    def _stop_repeating(self) -> None:
        if self._repeat is not None:
            self._repeat.cancel()
            self._repeat = None

    def _repeat_flight(self, nth: int) -> None:
        self._repeat = None
        if self._dtls.repeat():
            self._repeat_later(nth + 1)

    def _on_handshake_timer(self) -> None:
        left = self._dtls.timeout()
        if left is None:
            return
        if left <= 0:
            self._dtls.handle_timeout()
        if self._dtls.state is DtlsState.FAILED:
            self.end(self._dtls.failure)
        self._arm_handshake_timer()

    # --- SCTP ----------------------------------------------------------------------------------

    def now(self) -> float:
        """The host's clock, for SCTP."""
        return self._host.now()

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        """A timer whose failure ends this link and nothing else."""
        return self._host.call_later(delay, lambda: self._on_alarm(ring))

    def _on_alarm(self, ring: Callable[[], None]) -> None:
        def guarded() -> None:
            ring()
            if self._sctp is not None:
                self._after_sctp(self._sctp)

        if self.reason is None:
            self._guarded(guarded)

    def _after_sctp(self, sctp: Sctp) -> None:
        """Act on what a call into SCTP has brought about."""
        if sctp.ready and not self.is_open:
            self._open()
        for stream_id, protocol, data in sctp.take() if self.is_open else ():
            self._on_message(stream_id, protocol, data)
        if sctp.over:
            self.end(EndReason.CLOSED if self.is_open else EndReason.PROTOCOL)
        elif sctp.stalled:
            self.end(EndReason.STALLED)
        elif self._outbox.ready:
            self.flush()
        if self._hanging_up and self._is_drained:
            self._changed.set()

    def _open(self) -> None:
        self.is_open = True
        self._changed.set()
        self._host.link_opened(self)
        self._host.emit(LinkOpened(self.id, self.inbound, self.facts()))

    def _on_message(self, stream_id: int, protocol: int, data: bytes) -> None:
        if protocol == DCEP:
            # A stock peer that opens its channel in band waits for the answer (RFC 8832 §5.2).
            if data[:1] == bytes([DATA_CHANNEL_OPEN]) and stream_id == 0:
                self._outbox.push_control(DCEP, DATA_CHANNEL_ACK)
        elif stream_id > DATAGRAMS.stream_id and protocol == BINARY:
            self.bytes_in += len(data)
            self._the_streams().receive(stream_id, data)
        elif stream_id == CONTROL.stream_id and not self._hanging_up:
            self.bytes_in += len(data)
            message = decode(data)
            if isinstance(message, Broken):
                self._host.emit(Malformed(self.id, message.why))
            elif not isinstance(message, Unknown):
                self._host.emit(Received(self.id, message))

    # --- sending -------------------------------------------------------------------------------

    def transmit(self, data: bytes, *, patient: bool = False, last: bool = False) -> None:
        """Queue a control message; a queue past its bound ends the link (``overflow``).

        `patient`: it is one of many, perhaps, and may wait a moment for others of its kind.
        `last`: the link ends when it has arrived.
        """
        if self.reason is not None or self._hanging_up:
            return
        if last and self._sctp is not None:
            self._sctp.end_soon()
        self.bytes_out += len(data)
        if not self._outbox.push_control(BINARY, data):
            self.end(EndReason.OVERFLOW)
        elif patient:
            self._send_with_others()
        else:
            self._send_soon()

    def transmit_part(self, data: bytes) -> bool:
        """Queue a part of a publication, which all else overtakes; False when too many wait."""
        if self.reason is not None or self._hanging_up:
            return True
        if not self._outbox.push_part(BINARY, data):
            return False
        self.bytes_out += len(data)
        self._send_soon()
        return True

    def _send_with_others(self) -> None:
        """At once if none has gone lately or a packet is full, else when some have gathered."""
        now = self._host.now()
        if now >= self._gathers_until or self._outbox.control.size >= NEARLY_FULL:
            self._gathers_until = now + GATHER_INTERVAL
            self._send_soon()
        elif not self._is_gathering:
            self._is_gathering = True
            self._host.gather(self)

    def gathered(self) -> None:
        """`GATHER_INTERVAL` has passed."""
        self._is_gathering = False
        self._gathers_until = self._host.now() + GATHER_INTERVAL
        self.flush()

    def _send_soon(self) -> None:
        if self._sctp is not None and self._sctp.idle and not self._flush_is_due:
            self.flush()  # nothing is under way: a lone message must not wait
        elif not self._flush_is_due:
            self._flush_is_due = True  # more may come at once: then they share packets
            self._host.flush_soon(self)

    def flush(self) -> None:
        """Hand SCTP what waits, as far as it will send it soon."""
        self._flush_is_due = False
        self._guarded(self._refill)

    def _refill(self) -> None:
        sctp = self._sctp
        if sctp is None or not self.is_open or self.reason is not None:
            return
        while self._outbox.ready and self._hand_over(sctp):
            sctp.flush()
        if self.path is PathKind.RELAYED and self._watched_at is None:
            self._watched_at = self._host.now()
            self._watch(sctp)
        if self._streams is not None and self._frames_went:
            self._frames_went = False
            self._streams.settle()  # who waited for room has some now

    def _hand_over(self, sctp: Sctp) -> bool:
        """Queue what SCTP wants; whether that was anything."""
        queued = False
        while sctp.unsent < LOW_WATER and (message := self._outbox.pop(sctp.piece)) is not None:
            channel, _, data = message
            if channel.stream_id > DATAGRAMS.stream_id:
                self.bytes_out += len(data)
                self._frames_went = True
            sctp.queue(*message)
            queued = True
        return queued

    def _watch(self, sctp: Sctp) -> None:
        """Over a relay, see that what is under way gets acknowledged; else say so, and again.

        A path in use is not asked whether it lives: without this a relay that has died would be
        noticed seconds later.
        """
        assert self._watched_at is not None
        if sctp.idle or self.path is not PathKind.RELAYED:
            self._watched_at = None
            return
        now = self._host.now()
        patience = max(UNACKNOWLEDGED_AFTER, 2 * (sctp.rtt or 0.0))
        due = max(self._watched_at, self._acknowledged_at) + patience
        if now >= due:
            if sctp.is_in_flight:
                self._host.unacknowledged(self)
            self._watched_at, due = now, now + patience
        self.call_later(due - now, self._on_watch)

    def _on_watch(self) -> None:
        if self._sctp is not None:
            self._watch(self._sctp)

    @property
    def queued(self) -> int:
        """Bytes that were handed over and have not left for the first time."""
        return self._outbox.size + (self._sctp.unsent if self._sctp is not None else 0)

    @property
    def _is_drained(self) -> bool:
        waits = self._outbox.size or self._outbox.ready
        return not waits and (self._sctp is None or self._sctp.idle)

    # --- streams ---------------------------------------------------------------------------------

    @property
    def streams(self) -> LinkStreams | None:
        """Where streams can be opened, once the link is admitted and until it ends."""
        streams = self._streams
        return streams if streams is not None and streams.is_admitted else None

    def admit(self) -> None:
        """The peer has been admitted: streams may come and go."""
        if self.is_open and self.reason is None and not self._hanging_up:
            self._guarded(self._the_streams().admit)

    def streams_ready(self) -> None:
        """Frames of streams wait: send them, with what else the task that runs now may bring."""
        sctp = self._sctp
        if sctp is not None and sctp.piece and not self._flush_is_due:
            self._flush_is_due = True
            self._host.flush_soon(self)
        # Else enough is on its way: when that is acknowledged, `_after_sctp` asks for more.

    def _the_streams(self) -> LinkStreams:
        if self._streams is None:
            client = self._secure.dtls_role == "client"
            self._streams = LinkStreams(
                self, self.id, client=client, on_stream=self._host.on_stream
            )
            self._outbox.add_streams(self._streams.mux)
        return self._streams

    # --- the path --------------------------------------------------------------------------------

    def move(
        self,
        remote: Address,
        local: Address | None,
        path: PathKind,
        technique: Technique | None = None,
    ) -> bool:
        """Send there from now on; whether that is a change."""
        moved = (self.remote, self.local, self.path) != (remote, local, path)
        changed = moved or self.technique is not technique
        self.remote, self.local, self.path, self.technique = remote, local, path, technique
        if moved and self._sctp is not None:
            self._sctp.move(remote, self._least)
        return changed

    def confirm(self, nonce: bytes, remote: Address, local: Address | None) -> None:
        """Ask by HEARTBEAT, beside the path, whether the peer is at `remote`; 8 bytes of nonce.

        Nothing is queued or repeated. `Host.confirmed` follows when the nonce comes back.
        """
        if self._sctp is not None and self.is_open and self.reason is None:
            packet = self._sctp.heartbeat(HeartbeatKind.PATH, nonce)
            self._host.send_datagram(self._dtls.seal(packet), remote, local)

    def suspect(self) -> None:
        """The peer does not answer just now: what is lost says nothing of the path's size."""
        if self._sctp is not None:
            self._sctp.hold()

    def suspend(self) -> None:
        """The path has fallen silent: streams wait with it."""
        self.suspect()
        if self._streams is not None:
            self._streams.suspend()

    def resume(self) -> None:
        """The path is heard again: repeat what got lost without waiting for a timer."""
        if self._sctp is not None and self.reason is None:
            self._guarded(self._sctp.resume)
        if self._streams is not None:
            self._streams.resume()

    def facts(self) -> LinkFacts:
        """What the hello signs, and what users see."""
        return self._secure.facts(
            self.remote,
            self.local or self._bound,
            self.path,
            self.technique,
            remote_fingerprint=self._dtls.fingerprint,
            exporter=self._dtls.exporter,
        )

    @property
    def is_secure(self) -> bool:
        """Whether DTLS stands, so that what makes sense here must be the peer's."""
        return self._dtls.state is DtlsState.CONNECTED

    @property
    def rtt(self) -> float | None:
        """SCTP's smoothed round trip in seconds."""
        return self._sctp.rtt if self._sctp is not None else None

    # --- faults --------------------------------------------------------------------------------

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("link %d: internal error", self.id)
            self._on_own_fault()

    def _on_own_fault(self) -> None:
        self._host.internal_errors += 1
        self.end(EndReason.ERROR)
