"""Acknowledging (RFC 9260 §6.2): what has arrived here, and what the peer says has arrived there.

Most packets of a busy node are SACKs. So small packets wait for one together, unless they ask for
it (RFC 7053); and one that leaves nothing out is read without aiortc's detours.
"""

from collections.abc import Coroutine
from typing import Any

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import USERDATA_MAX_LENGTH, RTCSctpTransport

from overlay.errors import LocalProtocolError, RemoteProtocolError
from overlay.transport.sctp.packets import (
    IMMEDIATE,
    SCTP_PORT,
    TSN_HALF,
    TSN_MODULO,
    OutboundData,
    read_plain_sack,
)
from overlay.transport.sctp.timers import (
    RTO_INITIAL,
    SACK_DELAY,
    SACK_DELAY_SMALL,
    Clock,
    Timer,
    smoothed,
)

MAX_DUPLICATES = 16
MAX_GAPS = 96
"""What a SACK names at most: it has to fit a path that carries no more than 576 bytes."""
NEARLY_FULL = 1100
"""Bytes of a packet that is one of many, most likely (guess)."""
SACK_BYTES = 4 * NEARLY_FULL
"""Bytes of packets after which a SACK goes out at once; nearly full ones count twice. Deviation:
RFC 9260 §6.2 counts two packets of any size, TCP waits for two full ones (RFC 9293 §3.8.6.3)."""
MISSES = 3
"""SACKs that leave a chunk out before it counts as lost. RFC 9260 §7.2.4"""
LONGEST_MEASURED = 60.0
"""Seconds. What took longer measured a process that was stopped, not the path (guess)."""


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine of aiortc's that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise LocalProtocolError("an SCTP coroutine waited for something")


class Acknowledging(RTCSctpTransport):
    """The part of an association that `overlay.transport.sctp.association.Sctp` builds on."""

    _loop: Any
    _fast_recovery_exit: Any
    _last_received_tsn: Any
    _outbound_queue: Any
    _sent_queue: Any

    def __init__(self, dtls: RTCDtlsTransport, clock: Clock) -> None:
        super().__init__(dtls, SCTP_PORT)
        self._loop = self._clock = clock
        self._rto = RTO_INITIAL
        self.over = False  # the peer ended the association, or it never came about
        self.acknowledged = False  # the peer has acknowledged something new
        self._is_troubled = False  # the timer has run out, and nothing has been acknowledged since
        self._peer_rwnd = USERDATA_MAX_LENGTH
        self._resend = False  # something in flight is marked to be sent again
        self._sack_owed = 0  # bytes of packets that no SACK has gone out for
        self._sack_asked = False
        self._sack_timer = Timer(clock, self._sack_late)
        self._t3 = Timer(clock, self._t3_expired)

    # --- what the peer says has arrived ----------------------------------------------------------

    def _receive_plain_sack(self, packet: bytes) -> bool:
        """Handle the usual answer to data, one SACK without gaps, in few steps; else False."""
        plain = read_plain_sack(packet, self._local_verification_tag)
        if plain is None:
            return False
        self._on_sack(*plain, [])
        return True

    def _on_sack(self, cumulative: int, window: int, gaps: list[tuple[int, int]]) -> None:
        """Forget what has arrived, and send what may go now (RFC 9260 §6.2.1, §7.2).

        RemoteProtocolError: it acknowledges what was never sent, which would wedge the association.
        """
        in_flight = (self._local_tsn - 1 - cumulative) % TSN_MODULO
        if in_flight >= TSN_HALF or (gaps and gaps[-1][1] > in_flight):
            raise RemoteProtocolError("SCTP: a SACK for data that was never sent")
        last = self._last_sacked_tsn
        if (cumulative - last) % TSN_MODULO >= TSN_HALF:
            return  # older than one that has come before, and so is its window
        self._peer_rwnd = window
        self._last_sacked_tsn = cumulative
        full = self._flight_size >= self._cwnd
        done, size = self._acknowledge(cumulative)
        lost = False
        if gaps:
            beyond, lost = self._on_gaps(cumulative, gaps)
            size += beyond
        if size:
            self.acknowledged = True
        if done and self._is_troubled:
            self._on_progress()
        if self._fast_recovery_exit is None:
            if done and full:
                self._widen(size)
            if lost:
                self._enter_fast_recovery()
        elif (cumulative - self._fast_recovery_exit) % TSN_MODULO < TSN_HALF:
            self._fast_recovery_exit = None
        sent = self._sent_queue
        if not sent:
            self._t3.stop()
        elif done:
            self._t3.start(self._rto)
        if gaps or self._advanced_peer_ack_tsn != last or (sent and sent[0]._abandoned):
            self._update_advanced_peer_ack_point()
        else:
            self._advanced_peer_ack_tsn = cumulative
        if self._outbound_queue or self._resend or self._forward_tsn_chunk is not None:
            drive(self._transmit())

    def _on_progress(self) -> None:
        """Data gets on again after a time-out."""
        self._is_troubled = False

    def _acknowledge(self, cumulative: int) -> tuple[bool, int]:
        """Forget what has arrived; whether that was anything, and its bytes."""
        sent, first, size = self._sent_queue, True, 0
        while sent and (cumulative - sent[0].tsn) % TSN_MODULO < TSN_HALF:
            chunk = sent.popleft()
            if chunk._in_flight:
                chunk._in_flight = False
                self._flight_size -= chunk._book_size
            if not chunk._acked:  # else a SACK with gaps has reported it before
                size += chunk._book_size
                # What was sent twice does not say which copy arrived (RFC 9260 §6.3.1 C5).
                if chunk._sent_count == 1 and (
                    (first and size >= NEARLY_FULL) or chunk.flags & IMMEDIATE
                ):
                    self._measured(self._clock.now() - chunk._sent_time)
            first = False
        return not first, size

    def _measured(self, seconds: float) -> None:
        if seconds < LONGEST_MEASURED:
            self._srtt, self._rttvar, self._rto = smoothed(self._srtt, self._rttvar, seconds)

    def _on_gaps(self, cumulative: int, gaps: list[tuple[int, int]]) -> tuple[int, bool]:
        """Note what arrived beyond a gap: its bytes, and whether something before it is lost."""
        arrived = {ahead for start, end in gaps for ahead in range(start, end + 1)}
        size = 0
        older: list[OutboundData] = []
        missed: list[OutboundData] = []
        for chunk in self._sent_queue:
            ahead = (chunk.tsn - cumulative) % TSN_MODULO
            if ahead > gaps[-1][1]:
                break
            if ahead not in arrived:
                older.append(chunk)
                continue
            if not chunk._acked:
                chunk._acked = True
                size += chunk._book_size
                missed += older  # only what is older than something new (RFC 9260 §7.2.4, HTNA)
                older = []
            self._flight_size_decrease(chunk)
        lost = False
        for chunk in missed:
            chunk._misses += 1
            if chunk._misses == MISSES:
                chunk._misses = 0
                if not self._maybe_abandon(chunk):
                    chunk._retransmit = self._resend = True
                chunk._acked = False
                self._flight_size_decrease(chunk)
                lost = True
        return size, lost

    def _enter_fast_recovery(self) -> None:
        """Halve the window until all that is in flight now has arrived (RFC 9260 §7.2.4)."""
        self._ssthresh = max(self._cwnd // 2, 4 * USERDATA_MAX_LENGTH)
        self._cwnd = self._ssthresh
        self._partial_bytes_acked = 0
        self._fast_recovery_exit = self._sent_queue[-1].tsn
        self._fast_recovery_transmit = True

    def _widen(self, size: int) -> None:
        """The window was used up and `size` bytes of it have arrived (RFC 9260 §7.2)."""
        if self._cwnd <= self._ssthresh:
            self._cwnd += min(size, USERDATA_MAX_LENGTH)
            return
        self._partial_bytes_acked += size
        if self._partial_bytes_acked >= self._cwnd:
            self._partial_bytes_acked -= self._cwnd
            self._cwnd += USERDATA_MAX_LENGTH

    # --- what has arrived here -------------------------------------------------------------------

    def _mark_received(self, tsn: int) -> bool:
        """Note a TSN; True if it is a duplicate. Like aiortc's, without sorting at each chunk."""
        ahead = (tsn - self._last_received_tsn) % TSN_MODULO
        if ahead == 0 or ahead >= TSN_HALF or tsn in self._sack_misordered:
            if len(self._sack_duplicates) < MAX_DUPLICATES:
                self._sack_duplicates.append(tsn)
            return True
        self._sack_misordered.add(tsn)
        while (tsn := (self._last_received_tsn + 1) % TSN_MODULO) in self._sack_misordered:
            self._sack_misordered.remove(tsn)
            self._last_received_tsn = tsn
        return False

    async def _owe_sack(self, size: int) -> None:
        """A packet of `size` bytes had data: acknowledge it now or, with others, a little later."""
        self._sack_owed += size if size < NEARLY_FULL else 2 * size
        missing = self._sack_misordered or self._sack_duplicates
        if self._sack_owed >= SACK_BYTES or self._sack_asked or missing:
            await self._send_sack()
        else:
            self._sack_timer.hasten(SACK_DELAY if size >= NEARLY_FULL else SACK_DELAY_SMALL)

    def _sack_late(self) -> None:
        if self._sack_owed and not self.over:
            drive(self._send_sack())

    async def _send_sack(self) -> None:
        self._sack_owed, self._sack_asked = 0, False
        self._sack_timer.stop()
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
        return (tsn - last) % TSN_MODULO
