"""SCTP over DTLS (RFC 8261): aiortc's association, made synchronous, bundling and hard to harm.

aiortc's coroutines never wait for anything but the transport's own send, and ours does not wait
either; so each is driven to its end on the spot: no task, queue or future per packet. What is
replaced here, and why: docs/decisions/0009-sctp-by-subclassing.md.
"""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_MAX_BURST,
    SCTP_MAX_INIT_RETRANS,
    SCTP_RTO_ALPHA,
    SCTP_RTO_BETA,
    USERDATA_MAX_LENGTH,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    InitChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
    SackChunk,
    ShutdownChunk,
    StreamResetOutgoingParam,
)

from overlay.errors import LocalProtocolError, RemoteProtocolError
from overlay.transport.dtls import Dtls
from overlay.transport.sctp_packets import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    SCTP_PORT,
    UNORDERED,
    Bundle,
    OutboundData,
    is_for,
    read_chunks,
)

RTO_INITIAL = 1.0
"""Seconds. RFC 9260 §16."""
RTO_MIN = 0.4
"""Seconds. Deviation: RFC 9260 §16 says 1; twice the longest delay of a SACK is enough. guess"""
RTO_MAX = 2.0
"""Seconds. Deviation: RFC 9260 §16 says 60; a link whose path comes back resumes at once. guess"""
SACK_DELAY = 0.02
"""Seconds. RFC 9260 §6.2 allows 0.2. measured"""
MAX_WINDOW = 1 << 20
"""Bytes in flight towards us at most. aiortc's"""
MAX_STREAMS = 1024
"""Data channels that a peer may use."""
TSN_WINDOW = 4096
"""DATA chunks in flight: what is further ahead is dropped like a lost packet. guess"""
MAX_REASSEMBLY_BYTES = 4 << 20
MAX_DUPLICATES = 32
MAX_GAPS = 128
LOW_WATER = 16_384
"""Bytes not yet sent once, below which the association wants the next message. DESIGN."""
MAX_PIECE_PACKETS = LOW_WATER // USERDATA_MAX_LENGTH
"""Packets that a piece of a stream fills at most, with the byte that says what it is."""

DCEP = 50
BINARY = 53
DATA_CHANNEL_OPEN = 3
DATA_CHANNEL_ACK = b"\x02"

_MODULO = 2**32


@dataclass(frozen=True, slots=True)
class Channel:
    """A data channel as both ends have agreed on it beforehand (RFC 8831 §6.4)."""

    stream_id: int
    ordered: bool
    max_retransmits: int | None


class Cancellable(Protocol):
    """A pending timer."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What aiortc uses of an event loop; `now` is in seconds."""

    def now(self) -> float: ...

    def call_later(self, delay: float, ring: Callable[[], None], /) -> Cancellable: ...


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine of aiortc's that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise LocalProtocolError("an SCTP coroutine waited for something")


class Sctp(RTCSctpTransport):
    """One association. After each call: look at `established`, `over` and `take`."""

    _loop: Any
    _fast_recovery_exit: Any
    _last_received_tsn: Any
    _outbound_queue: Any
    _sent_queue: Any
    _t3_handle: Any

    def __init__(self, dtls: Dtls, clock: Clock, window: int = MAX_WINDOW) -> None:
        """`window`: bytes that the peer may have in flight towards us."""
        super().__init__(cast(RTCDtlsTransport, dtls), SCTP_PORT)
        self._dtls = dtls
        self._loop = clock
        self._rto = RTO_INITIAL
        self._advertised_rwnd = min(window, MAX_WINDOW)
        self._inbound_streams_max = self._outbound_streams_count = MAX_STREAMS
        self.established = False
        self.over = False
        """The peer ended the association, or it never came about."""
        self.unsent = 0
        """Bytes queued that have not been sent once."""
        self._inbox: list[tuple[int, int, bytes]] = []
        self._peer_rwnd = USERDATA_MAX_LENGTH
        self._resend = False
        self._sack_owed = 0
        self._sack_alarm: Cancellable | None = None

    @property
    def rtt(self) -> float | None:
        """Smoothed round trip in seconds (RFC 9260 §6.3.1)."""
        return self._srtt

    @property
    def idle(self) -> bool:
        """Whether everything sent has been acknowledged and nothing waits."""
        return not self._sent_queue and not self._outbound_queue

    @property
    def piece(self) -> int:
        """Bytes of bulk that it wants now: whole packets, few where a window takes long to send.

        0 while more than two packets wait for the window: what is more urgent overtakes the rest.
        """
        if self.unsent > 2 * USERDATA_MAX_LENGTH:
            return 0
        packets = self._cwnd // 4 // USERDATA_MAX_LENGTH
        return max(1, min(packets, MAX_PIECE_PACKETS)) * USERDATA_MAX_LENGTH - 1

    def begin(self) -> None:
        """Send our INIT; both ends do (RFC 8841 §9.3)."""
        drive(self.start(RTCSctpCapabilities(maxMessageSize=0), SCTP_PORT))

    def receive(self, packet: bytes) -> None:
        """Handle one decrypted packet. RemoteProtocolError: end the link, the peer is at fault."""
        try:
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

    def queue(self, channel: Channel, protocol: int, data: bytes) -> None:
        """Cut a message (at least one byte) into DATA chunks; `flush` sends them."""
        ordered, stream_id = channel.ordered, channel.stream_id
        sequence = self._outbound_stream_seq.get(stream_id, 0) if ordered else 0
        if ordered:
            self._outbound_stream_seq[stream_id] = (sequence + 1) & 0xFFFF
        last = len(data) - USERDATA_MAX_LENGTH
        for position in range(0, len(data), USERDATA_MAX_LENGTH):
            flags = 0 if ordered else UNORDERED
            flags |= (FIRST_FRAGMENT if position == 0 else 0) | (
                LAST_FRAGMENT if position >= last else 0
            )
            piece = data[position : position + USERDATA_MAX_LENGTH]
            chunk = OutboundData(flags, self._local_tsn, stream_id, sequence, protocol, piece)
            chunk._max_retransmits = channel.max_retransmits
            self._local_tsn = (self._local_tsn + 1) % _MODULO
            self._outbound_queue.append(chunk)
        self.unsent += len(data)

    def flush(self) -> None:
        """Send what the congestion window lets through."""
        drive(self._transmit())

    def resume(self) -> None:
        """The path is back after silence: do not wait for the retransmission timer."""
        if self._sent_queue:
            self._t3_expired()

    def abort(self) -> None:
        """End the association at once and say so to the peer."""
        if not self.over:
            drive(self.stop())
        self._cancel_sack()

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
            await self._owe_sack()

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, SackChunk):
            self._check_sack(chunk)
        elif isinstance(chunk, InitChunk):
            if not self._may_begin(chunk):
                return
        elif isinstance(chunk, ForwardTsnChunk):
            if self._last_received_tsn is None:
                return  # no INIT yet
        elif isinstance(chunk, ShutdownChunk):
            self.over = True
        await super()._receive_chunk(chunk)

    def _may_begin(self, init: InitChunk) -> bool:
        """A late duplicate of the INIT must not rewind an association in use (RFC 9260 §5.2.2)."""
        first = (init.initial_tsn - 1) % _MODULO
        return not self.established and self._last_received_tsn in {None, first}

    def _check_sack(self, sack: SackChunk) -> None:
        """Only what was sent can be acknowledged; anything else would wedge the association."""
        ahead = (self._local_tsn - 1 - sack.cumulative_tsn) % _MODULO
        if ahead >= _MODULO // 2 or (sack.gaps and sack.gaps[-1][1] > ahead):
            raise RemoteProtocolError("SCTP: a SACK for data that was never sent")
        self._peer_rwnd = sack.advertised_rwnd
        if sack.gaps:
            self._resend = True

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        last = self._last_received_tsn
        if last is None:
            return  # no INIT yet (RFC 9260 §5.1: out of the blue)
        self._sack_needed = True
        if chunk.stream_id >= MAX_STREAMS:
            raise RemoteProtocolError("SCTP: data on a stream that does not exist")
        ahead = (chunk.tsn - last) % _MODULO
        if TSN_WINDOW < ahead < _MODULO // 2:
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
            chunk.flags & (FIRST_FRAGMENT | LAST_FRAGMENT) != FIRST_FRAGMENT | LAST_FRAGMENT
            or self._reconfig_deferred is not None
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

    def _mark_received(self, tsn: int) -> bool:
        """Note a TSN; True if it is a duplicate. Like aiortc's, without sorting at each chunk."""
        ahead = (tsn - self._last_received_tsn) % _MODULO
        if ahead == 0 or ahead >= _MODULO // 2 or tsn in self._sack_misordered:
            if len(self._sack_duplicates) < MAX_DUPLICATES:
                self._sack_duplicates.append(tsn)
            return True
        self._sack_misordered.add(tsn)
        while (tsn := (self._last_received_tsn + 1) % _MODULO) in self._sack_misordered:
            self._sack_misordered.remove(tsn)
            self._last_received_tsn = tsn
        return False

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        self._inbox.append((stream_id, pp_id, data))

    async def _receive_reconfig_param(self, param: Any) -> None:
        """A peer that closes channel 0 ends the link (RFC 8831 §6.7)."""
        await super()._receive_reconfig_param(param)
        if isinstance(param, StreamResetOutgoingParam) and 0 in param.streams:
            self.over = True

    # --- acknowledging -----------------------------------------------------------------------

    async def _owe_sack(self) -> None:
        """Acknowledge every second packet, at once if something is missing (RFC 9260 §6.2)."""
        self._sack_owed += 1
        if self._sack_owed > 1 or self._sack_misordered or self._sack_duplicates:
            await self._send_sack()
        elif self._sack_alarm is None:
            self._sack_alarm = self._loop.call_later(SACK_DELAY, self._sack_late)

    def _sack_late(self) -> None:
        self._sack_alarm = None
        if self._sack_owed and not self.over:
            drive(self._send_sack())

    async def _send_sack(self) -> None:
        self._sack_owed = 0
        misordered = self._sack_misordered
        if len(misordered) > MAX_GAPS:
            # Tell of the nearest: the packet has to fit (RFC 9260 §3.3.4 allows leaving out).
            self._sack_misordered = set(sorted(misordered, key=self._ahead)[:MAX_GAPS])
        try:
            await super()._send_sack()
        finally:
            self._sack_misordered = misordered

    def _ahead(self, tsn: int) -> int:
        last: int = self._last_received_tsn
        return (tsn - last) % _MODULO

    def _cancel_sack(self) -> None:
        self._sack_owed = 0
        if self._sack_alarm is not None:
            self._sack_alarm.cancel()
            self._sack_alarm = None

    # --- sending -----------------------------------------------------------------------------

    async def _transmit(self) -> None:
        """Like aiortc's, but bundling (RFC 9260 §6.10) and without a walk over all in flight."""
        if self._forward_tsn_chunk is not None:
            await self._send_chunk(self._forward_tsn_chunk)
            self._forward_tsn_chunk = None
            self._t3_ensure()
        burst = SCTP_MAX_BURST if self._fast_recovery_exit is None else 2
        # At least one chunk may be in flight whatever the peer's window says (RFC 9260 §6.1 A).
        window = min(self._flight_size + burst * USERDATA_MAX_LENGTH, self._cwnd)
        window = min(window, max(self._peer_rwnd, 1))
        bundle = Bundle(self._remote_verification_tag, self._dtls.send)
        blocked = self._resend and not self._retransmit(bundle, window)
        queue, sent, now = self._outbound_queue, self._sent_queue, time.time()
        while queue and not blocked and self._flight_size < window and len(sent) < TSN_WINDOW:
            chunk: OutboundData = queue.popleft()
            sent.append(chunk)
            self.unsent -= chunk._book_size
            self._flight_size_increase(chunk)
            chunk._sent_count += 1
            chunk._sent_time = now
            bundle.add(chunk)
        bundle.send()
        if sent:
            self._t3_ensure()

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
                bundle.add(chunk)
                if earliest:
                    self._t3_restart()  # RFC 9260 §6.3.2 R4
            earliest = False
        self._resend = False
        return True

    async def _data_channel_flush(self) -> None:
        """aiortc's own channel queues stay empty: the link owns the queues."""
        await self._transmit_reconfig()

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
            self.established = True
            return
        self.over = self.over or state is self.State.CLOSED
        super()._set_state(state)

    def _get_timestamp(self) -> int:
        return int(time.monotonic())

    def _update_rto(self, R: float) -> None:  # noqa: N803
        """RFC 9260 §6.3.1, with our bounds; a wall clock that jumped is not believed."""
        if not 0 <= R < 60:
            return
        if self._srtt is None or self._rttvar is None:
            self._srtt, self._rttvar = R, R / 2
        else:
            variation = abs(self._srtt - R)
            self._rttvar += SCTP_RTO_BETA * (variation - self._rttvar)
            self._srtt += SCTP_RTO_ALPHA * (R - self._srtt)
        self._rto = max(RTO_MIN, min(self._srtt + 4 * self._rttvar, RTO_MAX))

    def _t1_expired(self) -> None:
        self._t1_failures += 1
        self._t1_handle = None
        if self._t1_failures > SCTP_MAX_INIT_RETRANS or self._t1_chunk is None:
            self._set_state(self.State.CLOSED)
        else:
            drive(self._send_chunk(self._t1_chunk))
            self._t1_handle = self._loop.call_later(self._rto, self._t1_expired)

    def _t3_ensure(self) -> None:
        if self._t3_handle is None:
            self._t3_start()

    def _t3_start(self) -> None:
        self._t3_handle = _Retransmission(self)

    def _t3_restart(self) -> None:
        if self._t3_handle is None:
            self._t3_start()
        else:
            self._t3_handle.restart()

    def _t3_expired(self) -> None:
        """RFC 9260 §6.3.3, with the back-off (E2) that aiortc leaves out."""
        self._t3_cancel()
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
        drive(self._transmit())


class _Retransmission:
    """T3-rtx. It is restarted at every SACK, so a restart mostly just moves a number."""

    __slots__ = ("_alarm", "_due_at", "_rings_at", "_sctp")

    def __init__(self, sctp: Sctp) -> None:
        self._sctp = sctp
        self._due_at = sctp._loop.now() + sctp._rto
        self._arm(sctp._rto)

    def restart(self) -> None:
        now = self._sctp._loop.now()
        self._due_at = now + self._sctp._rto
        if self._due_at < self._rings_at:
            self._alarm.cancel()
            self._arm(self._sctp._rto)

    def cancel(self) -> None:
        self._alarm.cancel()

    def _arm(self, delay: float) -> None:
        self._rings_at = self._sctp._loop.now() + delay
        self._alarm: Cancellable = self._sctp._loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        left = self._due_at - self._sctp._loop.now()
        if left > 0:
            self._arm(left)
        else:
            self._sctp._t3_expired()
