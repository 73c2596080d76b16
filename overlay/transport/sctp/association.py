"""SCTP over DTLS (RFC 8261): aiortc's association, made synchronous, bundling and hard to harm.

aiortc's coroutines never wait for anything but the transport's own send, and ours does not wait
either; so each is driven to its end on the spot: no task, queue or future per packet. What is
replaced here, and why: docs/decisions/0009-sctp-by-subclassing.md.
"""

from dataclasses import dataclass
from typing import Any, cast

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_MAX_BURST,
    SCTP_MAX_INIT_RETRANS,
    USERDATA_MAX_LENGTH,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    HeartbeatAckChunk,
    InitAckChunk,
    InitChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
    SackChunk,
    ShutdownChunk,
    StreamResetOutgoingParam,
)

from overlay.errors import LocalProtocolError, RemoteProtocolError
from overlay.transport.dtls.association import Dtls
from overlay.transport.sctp.acknowledging import SACK_BYTES, drive
from overlay.transport.sctp.packets import (
    FIRST_FRAGMENT,
    IMMEDIATE,
    LAST_FRAGMENT,
    SCTP_PORT,
    TSN_HALF,
    TSN_MODULO,
    UNORDERED,
    WHOLE,
    Bundle,
    HeartbeatKind,
    OutboundData,
    is_for,
    read_chunks,
    read_heartbeat_ack,
)
from overlay.transport.sctp.path_mtu import PathMtu
from overlay.transport.sctp.sizing import Path, Sizing
from overlay.transport.sctp.timers import RTO_MAX, Clock, timeout

MAX_WINDOW = 1 << 20
"""Bytes in flight towards us at most, as aiortc has it."""
MAX_STREAMS = 1024
"""Data channels that a peer may use."""
TSN_WINDOW = 4096
"""DATA chunks in flight: what is further ahead is dropped like a lost packet (guess)."""
MAX_REASSEMBLY_BYTES = 4 << 20
PROBE_INTERVAL = 1.0
"""Seconds between chunks that ask for a SACK at once, to measure the path (guess)."""
NARROW = SACK_BYTES + 2 * USERDATA_MAX_LENGTH
"""A congestion window in bytes; a wider one has room before the peer's next SACK is due."""
LOW_WATER = 16_384
"""Bytes not yet sent once, below which the association wants the next message (guess)."""
MAX_PIECE_PACKETS = LOW_WATER // USERDATA_MAX_LENGTH
"""Packets that a piece of a stream fills at most, with the byte that says what it is."""

DCEP = 50
BINARY = 53
DATA_CHANNEL_OPEN = 3
DATA_CHANNEL_ACK = b"\x02"


@dataclass(frozen=True, slots=True)
class Channel:
    """A data channel as both ends have agreed on it beforehand (RFC 8831 §6.4)."""

    stream_id: int
    ordered: bool
    max_retransmits: int | None


class Sctp(Sizing):
    """One association. After each call: look at `ready`, `over`, `stalled` and `take`."""

    def __init__(
        self, dtls: Dtls, clock: Clock, path: Path, mtu: PathMtu, window: int = MAX_WINDOW
    ) -> None:
        """`window`: bytes that the peer may have in flight towards us."""
        super().__init__(cast(RTCDtlsTransport, dtls), clock, path, mtu)
        self._dtls = dtls
        self._advertised_rwnd = min(window, MAX_WINDOW)
        self._inbound_streams_max = self._outbound_streams_count = MAX_STREAMS
        # Data may be sent: the peer is there and will take it (RFC 9260 §5.1 C).
        self.ready = False
        self._established = False
        self._first_tsn = self._local_tsn
        self.unsent = 0  # bytes queued that have not been sent once
        self._confirmed: list[bytes] = []  # nonces of ours that have come back
        self._inbox: list[tuple[int, int, bytes]] = []
        self._probe_at = 0.0
        self._ends_soon = False

    @property
    def rtt(self) -> float | None:
        """Smoothed round trip in seconds (RFC 9260 §6.3.1)."""
        return self._srtt

    @property
    def idle(self) -> bool:
        """Whether everything sent has been acknowledged and nothing waits."""
        return not self._sent_queue and not self._outbound_queue

    @property
    def is_in_flight(self) -> bool:
        """Whether something that was sent awaits its acknowledgement."""
        return bool(self._sent_queue)

    @property
    def piece(self) -> int:
        """Bytes of bulk that it wants now: whole packets, few where a window takes long to send.

        0 while more than two packets wait for the window: what is more urgent overtakes the rest.
        """
        if self.unsent > 2 * USERDATA_MAX_LENGTH:
            return 0
        packets = self._cwnd // 4 // USERDATA_MAX_LENGTH
        return max(1, min(packets, MAX_PIECE_PACKETS)) * self._most_data - 1

    def begin(self) -> None:
        """Send our INIT; both ends do (RFC 8841 §9.3)."""
        drive(self.start(RTCSctpCapabilities(maxMessageSize=0), SCTP_PORT))

    def receive(self, packet: bytes) -> None:
        """Handle one decrypted packet. RemoteProtocolError: end the link, the peer is at fault."""
        try:
            if not self._receive_plain_sack(packet):
                drive(self._handle_data(packet))
        except (RemoteProtocolError, LocalProtocolError):
            raise
        except Exception as error:
            # aiortc raises whatever its parser trips over; nothing of ours runs inside.
            raise RemoteProtocolError(f"SCTP: {error!r}") from error

    def take(self) -> list[tuple[int, int, bytes]]:
        """Drain the messages received: stream id, payload protocol, data."""
        inbox, self._inbox = self._inbox, []
        return inbox

    def take_acknowledged(self) -> list[bytes]:
        """The nonces of ours that have come back; `acknowledged` is false again."""
        self.acknowledged = False
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def queue(self, channel: Channel, protocol: int, data: bytes) -> None:
        """Cut a message (at least one byte) into DATA chunks; `flush` sends them."""
        ordered, stream_id = channel.ordered, channel.stream_id
        sequence = self._outbound_stream_seq.get(stream_id, 0) if ordered else 0
        if ordered:
            self._outbound_stream_seq[stream_id] = (sequence + 1) & 0xFFFF
        most = self._most_data
        last = len(data) - most
        for position in range(0, len(data), most):
            flags = 0 if ordered else UNORDERED
            flags |= (FIRST_FRAGMENT if position == 0 else 0) | (
                LAST_FRAGMENT if position >= last else 0
            )
            piece = data[position : position + most]
            chunk = OutboundData(flags, self._local_tsn, stream_id, sequence, protocol, piece)
            chunk._max_retransmits = channel.max_retransmits
            self._local_tsn = (self._local_tsn + 1) % TSN_MODULO
            self._outbound_queue.append(chunk)
        self.unsent += len(data)

    def flush(self) -> None:
        """Send what the congestion window lets through."""
        self._send_queued()

    def end_soon(self) -> None:
        """We wait for the last acknowledgement: from now on each chunk asks for it (RFC 7053)."""
        self._ends_soon = True

    def resume(self) -> None:
        """The path is back, or another: do not wait for the retransmission timer, at either end.

        What was lost before says nothing of the time that it takes from now on.
        """
        self.release()
        if self.ready:
            drive(self._send_sack())
        if self._sent_queue:
            self._t3_expired()
            self._rto = timeout(self._srtt or 0.0, self._rttvar or 0.0)
            self._t3.start(self._rto)

    def abort(self) -> None:
        """End the association at once and say so to the peer."""
        if not self.over:
            drive(self.stop())
        self._close()
        self._sack_timer.close()
        self._t3.close()

    # --- receiving ---------------------------------------------------------------------------

    async def _handle_data(self, data: bytes) -> None:
        if not is_for(data, self._local_verification_tag):
            return
        for chunk in read_chunks(data):
            if isinstance(chunk, DataChunk):
                await self._receive_data_chunk(chunk)
            else:
                await self._receive_chunk(chunk)
        if self._sack_needed:
            self._sack_needed = False
            await self._owe_sack(len(data))

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, SackChunk):
            self._on_sack(chunk.cumulative_tsn, chunk.advertised_rwnd, chunk.gaps)
            return
        if isinstance(chunk, InitChunk):
            if self._may_begin(chunk):
                await self._acknowledge_init(chunk)
            return
        if isinstance(chunk, InitAckChunk):
            await self._take_init_ack(chunk)
            return
        if isinstance(chunk, ForwardTsnChunk):
            if self._last_received_tsn is None:
                return  # no INIT yet: out of the blue (RFC 9260 §8.4)
        elif isinstance(chunk, HeartbeatAckChunk):
            self._on_heartbeat_ack(chunk)
            return
        elif isinstance(chunk, ShutdownChunk):
            self.over = True
        await super()._receive_chunk(chunk)

    def _on_heartbeat_ack(self, chunk: HeartbeatAckChunk) -> None:
        answer = read_heartbeat_ack(chunk.params)
        if answer is None:
            return
        kind, nonce = answer
        if kind == HeartbeatKind.PATH:
            self.acknowledged = True
            self._confirmed.append(nonce)
        elif kind == HeartbeatKind.SIZE:
            self.acknowledged = True
            self._on_size_answer(nonce)

    def _may_begin(self, init: InitChunk) -> bool:
        """A late duplicate of the INIT must not rewind an association in use (RFC 9260 §5.2.2)."""
        first = (init.initial_tsn - 1) % TSN_MODULO
        return not self._established and self._last_received_tsn in {None, first}

    async def _acknowledge_init(self, init: InitChunk) -> None:
        """Say the TSN that we began with, whatever has been sent since (RFC 9260 §5.2.1)."""
        reached, self._local_tsn = self._local_tsn, self._first_tsn
        await super()._receive_chunk(init)
        self._local_tsn = reached

    async def _take_init_ack(self, chunk: InitAckChunk) -> None:
        """It begins no count anew: data may have overtaken it."""
        reached = self._last_received_tsn
        await super()._receive_chunk(chunk)
        if reached is not None:
            self._last_received_tsn = reached

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        last = self._last_received_tsn
        if last is None:
            return  # no INIT yet: out of the blue (RFC 9260 §8.4)
        self._sack_needed = True
        self._sack_asked = self._sack_asked or bool(chunk.flags & IMMEDIATE)
        if chunk.stream_id >= MAX_STREAMS:
            raise RemoteProtocolError("SCTP: data on a stream that does not exist")
        ahead = (chunk.tsn - last) % TSN_MODULO
        if TSN_WINDOW < ahead < TSN_HALF:
            return
        if ahead == 1 and not self._sack_misordered and self._is_whole(chunk):
            self._last_received_tsn = chunk.tsn
            self._inbox.append((chunk.stream_id, chunk.protocol, chunk.user_data))
            return
        await super()._receive_data_chunk(chunk)
        if self._advertised_rwnd < -MAX_REASSEMBLY_BYTES:
            raise RemoteProtocolError("SCTP: more data in pieces than anybody may send")

    def _is_whole(self, chunk: DataChunk) -> bool:
        """Whether this chunk is a message by itself and the next of its stream (the usual case)."""
        if (
            chunk.flags & WHOLE != WHOLE
            or self._reconfig_deferred is not None  # a reset waits for what was sent before it
        ):
            return False
        stream = self._get_inbound_stream(chunk.stream_id)
        if stream.reassembly:
            return False
        if not chunk.flags & UNORDERED:
            if chunk.stream_seq != stream.sequence_number:
                return False
            stream.sequence_number = (chunk.stream_seq + 1) & 0xFFFF
        return True

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        self._inbox.append((stream_id, pp_id, data))

    async def _receive_reconfig_param(self, param: Any) -> None:
        """A peer that closes channel 0 ends the link (RFC 8831 §6.7)."""
        await super()._receive_reconfig_param(param)
        if isinstance(param, StreamResetOutgoingParam) and 0 in param.streams:
            self.over = True

    # --- sending -----------------------------------------------------------------------------

    async def _transmit(self) -> None:
        self._send_queued()

    def _send_queued(self) -> None:
        """aiortc's `_transmit`, bundling (RFC 9260 §6.10), without a walk over all in flight."""
        if self._forward_tsn_chunk is not None:
            drive(self._send_chunk(self._forward_tsn_chunk))
            self._forward_tsn_chunk = None
            self._t3.ensure(self._rto)
        # Max.Burst (RFC 9260 §6.1 D), and less of it while what was lost is repeated.
        burst = SCTP_MAX_BURST if self._fast_recovery_exit is None else 2
        # At least one chunk may be in flight whatever the peer's window says (RFC 9260 §6.1 A).
        window = min(self._flight_size + burst * USERDATA_MAX_LENGTH, self._cwnd)
        window = min(window, max(self._peer_rwnd, 1))
        bundle = Bundle(
            self._remote_verification_tag, self._size, self._dtls.send, self._send_oversize
        )
        blocked = self._resend and not self._retransmit(bundle, window)
        if self._outbound_queue and not blocked:
            self._send_new(bundle, window)
        bundle.send()
        if self._sent_queue:
            self._t3.ensure(self._rto)

    def _send_oversize(self, packet: bytes) -> None:
        if self._path is not None:
            self._path.send_in_fragments(packet)

    def _send_new(self, bundle: Bundle, window: int) -> None:
        queue, sent, now = self._outbound_queue, self._sent_queue, self._clock.now()
        # In a window so narrow that the peer's SACK would be late, the last chunk asks for it.
        narrow = self._cwnd - USERDATA_MAX_LENGTH if self._cwnd < NARROW else self._cwnd
        while queue and self._flight_size < window and len(sent) < TSN_WINDOW:
            chunk: OutboundData = queue.popleft()
            sent.append(chunk)
            self.unsent -= chunk._book_size
            chunk._in_flight = True
            self._flight_size += chunk._book_size
            chunk._sent_count = 1
            chunk._sent_time = now
            if now >= self._probe_at:
                chunk.flags |= IMMEDIATE
                self._probe_at = now + PROBE_INTERVAL
            elif self._ends_soon or self._flight_size > narrow:
                chunk.flags |= IMMEDIATE
            bundle.add(chunk)

    def _retransmit(self, bundle: Bundle, window: int) -> bool:
        """Send again what is marked, while the window lets it; whether nothing is left to."""
        earliest = True
        for chunk in self._sent_queue:
            if chunk._retransmit:
                if self._fast_recovery_transmit:
                    self._fast_recovery_transmit = False
                elif self._flight_size >= window:
                    return False
                self._flight_size_increase(chunk)
                chunk._misses = 0
                chunk._retransmit = False
                chunk._sent_count += 1
                chunk.flags |= IMMEDIATE
                bundle.add(chunk)
                if earliest:
                    self._t3.start(self._rto)  # RFC 9260 §6.3.2 R4
            earliest = False
        self._resend = False
        return True

    def _update_advanced_peer_ack_point(self) -> None:
        """Also takes back the bytes of chunks that were abandoned before they were ever sent."""
        before = len(self._outbound_queue)
        super()._update_advanced_peer_ack_point()
        if len(self._outbound_queue) != before:
            self.unsent = sum(chunk._book_size for chunk in self._outbound_queue)

    # --- states and timers -------------------------------------------------------------------

    def _set_state(self, state: "RTCSctpTransport.State") -> None:
        if state is self.State.ESTABLISHED:
            self._association_state = state
            self.ready = self._established = True
            self._resize()  # a search may have begun before anything could be sent
            return
        # Deviation: aiortc waits for the COOKIE ACK, a round trip more.
        self.ready = self.ready or state is self.State.COOKIE_ECHOED
        self.over = self.over or state is self.State.CLOSED
        super()._set_state(state)

    def _get_timestamp(self) -> int:
        """What the lifetime of a state cookie is counted by (RFC 9260 §5.1.3)."""
        return int(self._clock.now())

    def _t1_expired(self) -> None:
        self._t1_failures += 1
        self._t1_handle = None
        if self._t1_failures > SCTP_MAX_INIT_RETRANS or self._t1_chunk is None:
            self._set_state(self.State.CLOSED)
        else:
            self._send_again(self._t1_chunk)
            self._t1_handle = self._loop.call_later(self._rto, self._t1_expired)

    def _send_again(self, chunk: Chunk) -> None:
        """Send an INIT or a COOKIE ECHO once more.

        An INIT names no tag of the peer's, even if that is known by now (RFC 9260 §8.5.1 A).
        """
        tag = self._remote_verification_tag
        if isinstance(chunk, InitChunk):
            self._remote_verification_tag = 0
        drive(self._send_chunk(chunk))
        self._remote_verification_tag = tag

    def _t3_cancel(self) -> None:
        self._t3.stop()

    def _t3_expired(self) -> None:
        """RFC 9260 §6.3.3, with the back-off (E2) that aiortc leaves out."""
        self._t3.stop()
        self._rto = min(2 * self._rto, RTO_MAX)
        for chunk in self._sent_queue:
            if not self._maybe_abandon(chunk):
                chunk._retransmit = True
            self._flight_size_decrease(chunk)
        self._update_advanced_peer_ack_point()
        self._fast_recovery_exit = None
        self._partial_bytes_acked = 0
        self._ssthresh = max(self._cwnd // 2, 4 * USERDATA_MAX_LENGTH)
        self._cwnd = USERDATA_MAX_LENGTH
        self._resend = True
        self._on_timeout()
        self._send_queued()
