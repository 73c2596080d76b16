"""What one link has still to send: lanes served in strict order of urgency.

SCTP's own queue is first in, first out for the whole association (measured: a ping behind 1 MiB
waits 3 s at 1 % loss), so messages wait here and SCTP is handed one only when it runs dry.
"""

from collections import deque
from typing import Protocol

from overlay.transport.sctp import Channel

CONTROL = Channel(0, ordered=True, max_retransmits=None)
DATAGRAMS = Channel(1, ordered=False, max_retransmits=0)
MAX_QUEUED_BYTES = 4 << 20
"""Beyond this the peer is not keeping up and the link ends (``overflow``). DESIGN."""
MAX_DATAGRAM_LANE_BYTES = 65_536
"""Beyond this the oldest datagram is dropped: late ones are of no use. guess"""


class Lane(Protocol):
    """A source of messages: one channel, or a scheduler that shares its turn among many streams.

    Messages of a lane of streams are pieces of at most 16 KiB, so that a more urgent lane never
    waits behind more than one of them.
    """

    size: int
    """Bytes waiting."""

    def pop(self) -> tuple[Channel, int, bytes]:
        """The next message: channel, payload protocol, data. Only called while `size` > 0."""
        ...


class FifoLane:
    """Messages of one channel, first in, first out."""

    def __init__(self, channel: Channel) -> None:
        self.size = 0
        self._channel = channel
        self._messages: deque[tuple[int, bytes]] = deque()

    def push(self, protocol: int, data: bytes) -> None:
        self._messages.append((protocol, data))
        self.size += len(data)

    def pop(self) -> tuple[Channel, int, bytes]:
        protocol, data = self._messages.popleft()
        self.size -= len(data)
        return self._channel, protocol, data


class Outbox:
    """The lanes of one link, most urgent first."""

    def __init__(self) -> None:
        self.control = FifoLane(CONTROL)
        self.datagrams = FifoLane(DATAGRAMS)
        self._lanes: tuple[Lane, ...] = (self.control, self.datagrams)

    @property
    def size(self) -> int:
        """Bytes waiting in all lanes."""
        return sum(lane.size for lane in self._lanes)

    def push_control(self, protocol: int, data: bytes) -> bool:
        """Queue a control message; False, and nothing queued, when the outbox is full."""
        if self.size + len(data) > MAX_QUEUED_BYTES:
            return False
        self.control.push(protocol, data)
        return True

    def push_datagram(self, protocol: int, data: bytes) -> None:
        """Queue a datagram; the oldest make room for it."""
        self.datagrams.push(protocol, data)
        while self.datagrams.size > MAX_DATAGRAM_LANE_BYTES:
            self.datagrams.pop()

    def pop(self) -> tuple[Channel, int, bytes] | None:
        """The next message in order of urgency, or None."""
        for lane in self._lanes:
            if lane.size:
                return lane.pop()
        return None
