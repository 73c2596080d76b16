"""Packets as large as the path carries: performs what `PathMtu` decides of an association."""

from typing import Protocol

from aiortc.rtcdtlstransport import RTCDtlsTransport

from overlay.core.types import Address
from overlay.transport.sctp.acknowledging import Acknowledging
from overlay.transport.sctp.packets import (
    COMMON_HEADER,
    DATA_CHUNK,
    HeartbeatKind,
    OutboundData,
    heartbeat,
)
from overlay.transport.sctp.path_mtu import PathMtu
from overlay.transport.sctp.timers import Clock, Timer


class Path(Protocol):
    """How packets leave that are not sent like all others; both are encrypted on the way."""

    def send_probe(self, packet: bytes) -> None:
        """Send it whole (IPv4: with DF), or not at all."""
        ...

    def send_in_fragments(self, packet: bytes) -> None:
        """Let it be cut on the way (IPv4: without DF); IPv6 cuts at the source anyway."""
        ...

    def resized(self, size: int) -> None:
        """Packets have up to `size` bytes from now on."""
        ...


class Sizing(Acknowledging):
    """The part of an association that knows what fits a packet, and when nothing gets through."""

    def __init__(self, dtls: RTCDtlsTransport, clock: Clock, path: Path, mtu: PathMtu) -> None:
        super().__init__(dtls, clock)
        self.stalled = False  # data makes no progress, whatever its size: give the link up
        self._path: Path | None = path
        self._mtu = mtu
        self._mtu_timer = Timer(clock, self._on_mtu_due)
        self._size = mtu.size
        self._most_data = mtu.size - COMMON_HEADER.size - DATA_CHUNK.size

    @property
    def packet_bytes(self) -> int:
        """What a packet has at most, as far as we know the path."""
        return self._size

    def heartbeat(self, kind: HeartbeatKind, nonce: bytes, size: int = 0) -> bytes:
        """A packet that the peer answers with the same 8-byte nonce (RFC 9260 §8.3); send it.

        `size`: bytes to which it is padded (RFC 4820), a multiple of 4.
        """
        return heartbeat(self._remote_verification_tag, kind, nonce, size)

    def move(self, remote: Address, least: int) -> None:
        """The path leads to `remote` now, where packets of `least` bytes always fit."""
        self._mtu.move(remote, least, self._clock.now())
        self._resize()

    def hold(self) -> None:
        """The peer is not heard: what is lost now says nothing of sizes."""
        self._mtu.hold()
        self._resize()

    def release(self) -> None:
        """The peer is heard again."""
        self._mtu.release(self._clock.now())
        self._resize()

    def _on_timeout(self) -> None:
        """T3 has run out, and what is in flight is about to be sent again."""
        if not self._sent_queue:
            return  # it was a FORWARD TSN's
        self._is_troubled = True
        if self._peer_rwnd > 0:
            waiting = COMMON_HEADER.size
            for chunk in self._sent_queue:
                waiting += DATA_CHUNK.size + chunk._book_size
                if waiting > self._size:
                    break
            self._mtu.on_timeout(waiting, self._clock.now())
        else:
            self._mtu.forgive()
        self._resize()

    def _on_progress(self) -> None:
        super()._on_progress()
        self._mtu.on_progress(self._clock.now())
        self._resize()

    def _on_size_answer(self, nonce: bytes) -> None:
        self._mtu.on_answer(nonce, self._clock.now())
        self._resize()

    def _on_mtu_due(self) -> None:
        if not self.over:
            self._mtu.handle_timeout(self._clock.now())
            self._resize()

    def _resize(self) -> None:
        """Do what the search for the size wants, after each call to it."""
        mtu, path = self._mtu, self._path
        if path is None:
            return
        for nonce, size in mtu.take():
            path.send_probe(self.heartbeat(HeartbeatKind.SIZE, nonce, size))
        deadline = mtu.next_deadline()
        if deadline is None:
            self._mtu_timer.stop()
        else:
            self._mtu_timer.start(max(0.0, deadline - self._clock.now()))
        self.stalled = mtu.is_stalled
        if mtu.size != self._size:
            fell = mtu.size < self._size
            self._size = mtu.size
            self._most_data = mtu.size - COMMON_HEADER.size - DATA_CHUNK.size
            path.resized(mtu.size)
            if fell and self._is_troubled:
                self._repeat()

    def _repeat(self) -> None:
        """Send all that is in flight again: it was too large."""
        chunk: OutboundData
        for chunk in self._sent_queue:
            if not chunk._acked and not self._maybe_abandon(chunk):
                chunk._retransmit = self._resend = True
            self._flight_size_decrease(chunk)
        self._update_advanced_peer_ack_point()
        self._send_queued()

    def _send_queued(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        """Let go of everything: no cycle keeps the association."""
        self._path = None
        self._mtu_timer.close()
