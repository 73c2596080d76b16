"""Two associations back to back over a wire with latency, loss, reordering and corruption.

Time is virtual for SCTP; a DTLS handshake's own timers are OpenSSL's and real, so loss begins
when the wire is told to be lossy.
"""

import heapq
from collections.abc import Callable
from random import Random

from overlay.core.types import Address
from overlay.transport.alarms import Alarm, Alarms
from overlay.transport.dtls.association import Dtls
from overlay.transport.sctp.association import Sctp
from overlay.transport.sctp.packets import PACKET_BYTES
from overlay.transport.sctp.path_mtu import PathMtu
from tests.transport.dtls.certificates import credentials

IP_AND_UDP = 28
LEAST = 508
"""Bytes of an SCTP packet that an IPv4 path of 576 carries."""
HERE = Address("192.0.2.1", 1)


class Wire:
    """Carries datagrams between two ends in virtual time, as badly as it is told to."""

    def __init__(self, seed: int = 1) -> None:
        self.random = Random(seed)
        self.latency = 0.005
        self.loss = self.duplication = self.corruption = 0.0
        self.jitter = 0.0
        self.mtu = 65_535  # an IPv4 path's; what is larger vanishes, unless it may be cut
        self.carries_fragments = True
        self.time = 0.0
        self.alarms = Alarms(self.now)
        self.carried = self.largest = self.dropped = 0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[[bytes], None], bytes]] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        return self.alarms.call_later(delay, ring)

    def carry(
        self, to: Callable[[bytes], None], datagram: bytes, *, may_be_cut: bool = False
    ) -> None:
        self.carried += 1
        if len(datagram) + IP_AND_UDP > self.mtu and not (may_be_cut and self.carries_fragments):
            self.dropped += 1
            return
        self.largest = max(self.largest, len(datagram))
        for _ in range(2 if self.random.random() < self.duplication else 1):
            if self.random.random() < self.loss:
                continue
            if self.random.random() < self.corruption:
                broken = bytearray(datagram)
                broken[self.random.randrange(len(broken))] ^= 1 + self.random.randrange(255)
                datagram = bytes(broken)
            self._count += 1
            at = self.time + self.latency + self.random.random() * self.jitter
            heapq.heappush(self._heap, (at, self._count, to, datagram))

    def clear(self) -> None:
        """Lose all that is on its way."""
        self._heap.clear()

    def run(self, until: Callable[[], bool], limit: float = 60.0) -> bool:
        """Advance until the condition holds, or nothing more happens, or `limit` seconds passed."""
        end = self.time + limit
        while not until():
            due = self.alarms.next_deadline()
            if self._heap and (due is None or self._heap[0][0] <= due):
                if self._heap[0][0] > end:
                    return False
                self.time, _, to, datagram = heapq.heappop(self._heap)
                to(datagram)
            elif due is not None and due <= end:
                self.time = due
                self.alarms.run_due(due)
            else:
                return False
        return True


class End:
    """DTLS, and SCTP as soon as that stands."""

    def __init__(self, wire: Wire, role: str, name: str, expected: bytes | None = None) -> None:
        self.wire = wire
        self.other: End | None = None
        self.received: list[tuple[int, int, bytes]] = []
        self.sctp: Sctp | None = None
        self.mtu = PathMtu(LEAST, PACKET_BYTES, path=HERE)
        self.sizes: list[int] = []
        self.in_fragments = 0
        self.dtls = Dtls(credentials(name), role, self._transmit, expected=expected)

    def _transmit(self, datagram: bytes) -> None:
        assert self.other is not None
        self.wire.carry(self.other.receive, datagram)

    def receive(self, datagram: bytes) -> None:
        plaintexts = self.dtls.receive(datagram)
        if plaintexts is None:
            return
        if self.sctp is None and self.dtls.state == "connected":
            self.sctp = Sctp(self.dtls, self.wire, self, self.mtu)
            self.sctp.begin()
        if self.sctp is not None:
            for plaintext in plaintexts:
                self.sctp.receive(plaintext)
            self.received += self.sctp.take()

    def send_probe(self, packet: bytes) -> None:
        self._transmit(self.dtls.seal(packet))

    def send_in_fragments(self, packet: bytes) -> None:
        assert self.other is not None
        self.in_fragments += 1
        self.wire.carry(self.other.receive, self.dtls.seal(packet), may_be_cut=True)

    def resized(self, size: int) -> None:
        self.sizes.append(size)

    @property
    def is_up(self) -> bool:
        return self.sctp is not None and self.sctp.established

    @property
    def association(self) -> Sctp:
        assert self.sctp is not None
        return self.sctp


def pair(
    wire: Wire, *, expected_by_client: bytes | None = None, expected_by_server: bytes | None = None
) -> tuple[End, End]:
    """A client ("alice") and a server ("bob"), started."""
    alice = End(wire, "client", "alice", expected_by_client)
    bob = End(wire, "server", "bob", expected_by_server)
    alice.other, bob.other = bob, alice
    bob.dtls.start()
    alice.dtls.start()
    return alice, bob
