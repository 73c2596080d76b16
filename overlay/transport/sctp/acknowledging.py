"""Acknowledging (RFC 9260 §6.2): what has arrived here, and what the peer says has arrived there.

Most packets of a busy node are SACKs. So small packets wait for one together, unless they ask for
it (RFC 7053); and one that leaves nothing out is read without aiortc's detours.
"""

import time
from collections.abc import Coroutine
from typing import Any

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import USERDATA_MAX_LENGTH, RTCSctpTransport, SackChunk

from overlay.errors import LocalProtocolError, RemoteProtocolError
from overlay.transport.sctp.packets import IMMEDIATE, SCTP_PORT, read_plain_sack
from overlay.transport.sctp.timers import (
    RTO_INITIAL,
    SACK_DELAY,
    SACK_DELAY_SMALL,
    Clock,
    Timer,
    smoothed,
)

MAX_DUPLICATES = 32
MAX_GAPS = 128
NEARLY_FULL = 1100
"""Bytes of a packet that is one of many, most likely. guess"""
SACK_BYTES = 4 * NEARLY_FULL
"""Bytes of packets after which a SACK goes out at once; nearly full ones count twice. Deviation:
RFC 9260 §6.2 counts two packets of any size, TCP waits for two full ones (RFC 9293 §3.8.6.3)."""

_MODULO = 2**32
_HALF = 2**31


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
        self._loop = clock
        self._rto = RTO_INITIAL
        self.over = False
        """The peer ended the association, or it never came about."""
        self._peer_rwnd = USERDATA_MAX_LENGTH
        self._resend = False
        """Something in flight is marked to be sent again."""
        self._sack_owed = 0
        """Bytes of packets that no SACK has gone out for."""
        self._sack_asked = False
        self._sack_timer = Timer(clock, self._sack_late)
        self._t3 = Timer(clock, self._t3_expired)

    # --- what the peer says has arrived ----------------------------------------------------------

    def _receive_plain_sack(self, packet: bytes) -> bool:
        """Handle the usual answer to data, in few steps: one SACK without gaps; else False.

        It does what aiortc's `_receive_sack_chunk` does when nothing is lost or given up.
        """
        if (
            self._fast_recovery_exit is not None
            or self._resend
            or self._forward_tsn_chunk is not None
            or self._reconfig_queue
        ):
            return False
        plain = read_plain_sack(packet, self._local_verification_tag)
        if plain is None:
            return False
        cumulative, window = plain
        last = self._last_sacked_tsn
        if (cumulative - last) % _MODULO > (self._local_tsn - 1 - last) % _MODULO:
            return False  # of data never sent, or older than one that has come before
        self._peer_rwnd = window
        self._last_sacked_tsn = cumulative
        full = self._flight_size >= self._cwnd
        done, size = self._acknowledge(cumulative)
        if done and full:
            self._widen(size)
        sent = self._sent_queue
        if not sent:
            self._t3.stop()
        elif done:
            self._t3.start(self._rto)
        if self._forward_tsn_streams or (sent and sent[0]._abandoned):
            self._update_advanced_peer_ack_point()
        else:
            self._advanced_peer_ack_tsn = cumulative
        if self._outbound_queue or self._forward_tsn_chunk is not None:
            drive(self._transmit())
        return True

    def _acknowledge(self, cumulative: int) -> tuple[bool, int]:
        """Forget what has arrived; whether that was anything, and its bytes."""
        sent, first, size = self._sent_queue, True, 0
        while sent and (cumulative - sent[0].tsn) % _MODULO < _HALF:
            chunk = sent.popleft()
            if not chunk._acked:
                size += chunk._book_size
            if chunk._in_flight:
                chunk._in_flight = False
                self._flight_size -= chunk._book_size
            if chunk._sent_count == 1 and (
                (first and size >= NEARLY_FULL) or chunk.flags & IMMEDIATE
            ):
                self._update_rto(time.time() - chunk._sent_time)
            first = False
        return not first, size

    def _widen(self, size: int) -> None:
        """The window was used up and `size` bytes of it have arrived (RFC 9260 §7.2)."""
        if self._cwnd <= self._ssthresh:
            self._cwnd += min(size, USERDATA_MAX_LENGTH)
            return
        self._partial_bytes_acked += size
        if self._partial_bytes_acked >= self._cwnd:
            self._partial_bytes_acked -= self._cwnd
            self._cwnd += USERDATA_MAX_LENGTH

    def _check_sack(self, sack: SackChunk) -> None:
        """Only what was sent can be acknowledged; anything else would wedge the association."""
        ahead = (self._local_tsn - 1 - sack.cumulative_tsn) % _MODULO
        if ahead >= _MODULO // 2 or (sack.gaps and sack.gaps[-1][1] > ahead):
            raise RemoteProtocolError("SCTP: a SACK for data that was never sent")
        self._peer_rwnd = sack.advertised_rwnd
        if sack.gaps:
            self._resend = True

    def _update_rto(self, R: float) -> None:  # noqa: N803
        if 0 <= R < 60:  # a wall clock that jumped is not believed
            self._srtt, self._rttvar, self._rto = smoothed(self._srtt, self._rttvar, R)

    # --- what has arrived here -------------------------------------------------------------------

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
        return (tsn - last) % _MODULO
