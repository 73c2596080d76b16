"""What one link has still to send, in lanes; the most urgent that has something goes first.

SCTP's own queue is first in, first out for the whole association (measured: a ping behind 1 MiB
waits 3 s at 1 % loss), so messages wait here and SCTP is handed one only when it runs dry. Control
goes before datagrams, and both before bulk: parts of publications and pieces of streams, in turns.
"""

from collections import deque
from typing import Protocol

from overlay.transport.sctp.association import BINARY, Channel

CONTROL = Channel(0, ordered=True, max_retransmits=None)
PARTS = Channel(0, ordered=False, max_retransmits=None)
"""For parts of publications: no control message waits until a lost packet of one is repeated."""
DATAGRAMS = Channel(1, ordered=False, max_retransmits=0)
MAX_QUEUED_BYTES = 4 << 20
"""Beyond this the peer is not keeping up and the link ends with ``overflow`` (guess)."""
MAX_PARTS_LANE_BYTES = 4 << 20
"""Beyond this a part is not queued: its peer is told later where to get it (guess)."""
MAX_DATAGRAM_LANE_BYTES = 65_536
"""Beyond this the oldest datagram is dropped: late ones are of no use (guess)."""


class Bulk(Protocol):
    """What is sent when nothing else waits: the frames of many streams, in fair turns."""

    @property
    def ready(self) -> bool:
        """Whether `pop` has a frame."""
        ...

    @property
    def queued(self) -> int:
        """Bytes waiting, those included that must still wait for credit."""
        ...

    def pop(self, limit: int) -> tuple[int, bytes]:
        """The next frame and its stream id, with at most `limit` bytes of data."""
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
    """The lanes of one link: control, then datagrams, then parts and streams by turns."""

    def __init__(self) -> None:
        self.control = FifoLane(CONTROL)
        self.datagrams = FifoLane(DATAGRAMS)
        self.parts = FifoLane(PARTS)
        self._parts_are_next = True
        self._streams: Bulk | None = None

    def add_streams(self, streams: Bulk) -> None:
        """From now on pieces of streams are bulk, too."""
        self._streams = streams

    @property
    def size(self) -> int:
        """Bytes waiting in all lanes."""
        streams = self._streams.queued if self._streams is not None else 0
        return self.control.size + self.datagrams.size + self.parts.size + streams

    @property
    def ready(self) -> bool:
        """Whether something could be sent."""
        if self.control.size or self.datagrams.size or self.parts.size:
            return True
        return self._streams is not None and self._streams.ready

    def push_control(self, protocol: int, data: bytes) -> bool:
        """Queue a control message; False, and nothing queued, when too much waits."""
        if self.control.size + self.datagrams.size + len(data) > MAX_QUEUED_BYTES:
            return False
        self.control.push(protocol, data)
        return True

    def push_part(self, protocol: int, data: bytes) -> bool:
        """Queue a part of a publication; False, and nothing queued, when too many wait."""
        if self.parts.size + len(data) > MAX_PARTS_LANE_BYTES:
            return False
        self.parts.push(protocol, data)
        return True

    def push_datagram(self, protocol: int, data: bytes) -> None:
        """Queue a datagram; the oldest make room for it."""
        self.datagrams.push(protocol, data)
        while self.datagrams.size > MAX_DATAGRAM_LANE_BYTES:
            self.datagrams.pop()

    def pop(self, bulk: int) -> tuple[Channel, int, bytes] | None:
        """The next message in order of urgency, or None.

        `bulk`: bytes that a piece of a stream may have, 0 for no bulk now.
        """
        for lane in (self.control, self.datagrams):
            if lane.size:
                return lane.pop()
        if not bulk:
            return None
        streams_wait = self._streams is not None and self._streams.ready
        if self.parts.size and (self._parts_are_next or not streams_wait):
            self._parts_are_next = False
            return self.parts.pop()
        self._parts_are_next = True
        if self._streams is not None and streams_wait:
            stream_id, frame = self._streams.pop(bulk)
            return Channel(stream_id, ordered=True, max_retransmits=None), BINARY, frame
        return None
