"""A link in memory, as one of its two nodes has it: its counts, what a cut holds back, its streams.

To `LinkStreams` it is the carrier that UDP's `Link` is.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from overlay.core.events import Event, Malformed, Received, Restart
from overlay.core.stream.mux import PIECE
from overlay.core.types import CircuitId, EndReason, LinkFacts, LinkId
from overlay.core.wire.codec import Broken, Unknown, decode
from overlay.errors import RemoteProtocolError
from overlay.transport.alarms import Alarm
from overlay.transport.interface import LinkDescription
from overlay.transport.streams import LinkStreams, OnStream

STREAMS_UNDER_WAY = 262_144
"""Bytes of streams that may be on their way at once; there is no congestion here (guess)."""

log = logging.getLogger("overlay.transport")


class Host(Protocol):
    """What a link needs of the transport that it belongs to."""

    on_stream: OnStream | None

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm: ...
    def emit(self, event: Event) -> None: ...
    def has(self, link: "MemoryLink") -> bool: ...
    def send(self, link: "MemoryLink", arrive: Callable[["MemoryLink"], None]) -> None: ...
    def lose(self, link: "MemoryLink", reason: EndReason) -> None: ...


@dataclass(slots=True, eq=False)
class MemoryLink:
    """An open link, as one of its two nodes has it."""

    id: LinkId
    host: Host
    inbound: bool
    facts: LinkFacts
    description: LinkDescription
    other: "MemoryLink | None" = None
    circuit: CircuitId | None = None
    """What its messages go over; None: they go directly."""
    restart: Restart | None = None
    """A restart that has begun at this end, and at the other perhaps not yet."""
    arrives_at: float = 0.0
    """When the last message of this node arrives: nothing overtakes it on another path."""
    bytes_in: int = 0
    bytes_out: int = 0
    waiting: int = 0
    """Bytes of messages sent by this node that a cut holds back."""
    under_way: int = 0
    """Bytes of streams sent by this node that have not arrived."""
    held: deque[Callable[[], None]] | None = None
    """What arrives once the path passes again; None while it does."""
    silence: tuple[Alarm, ...] = ()
    is_quiet: bool = False
    streams: LinkStreams | None = None

    def transmit(self, data: bytes) -> None:
        """Let a control message arrive at the other end."""
        self.bytes_out += len(data)
        self.waiting += len(data)
        self.host.send(self, lambda other: self._deliver(other, data))

    def _deliver(self, other: "MemoryLink", data: bytes) -> None:
        self.waiting -= len(data)
        if not other.host.has(other):
            return
        other.bytes_in += len(data)
        message = decode(data)
        if isinstance(message, Broken):
            other.host.emit(Malformed(other.id, message.why))
        elif not isinstance(message, Unknown):
            other.host.emit(Received(other.id, message))

    # --- streams: what `LinkStreams` needs of its carrier ----------------------------------------

    def now(self) -> float:
        """trio's clock."""
        return trio.current_time()

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        """The host's alarms."""
        return self.host.call_later(delay, ring)

    def streams_ready(self) -> None:
        """Send frames while few are under way."""
        self._pump(STREAMS_UNDER_WAY)

    def open_streams(self) -> LinkStreams:
        """The streams of this node on the link, made when first needed."""
        if self.streams is None:
            client = self.facts.dtls_role == "client"
            self.streams = LinkStreams(self, self.id, client=client, on_stream=self.host.on_stream)
        return self.streams

    def end_streams(self) -> None:
        """The link is about to end: closed streams get out what they still may."""
        if self.streams is not None:
            self.streams.hang_up()
            self._pump(1 << 62)
            self.streams.lose(EndReason.CANCELLED)

    def _pump(self, most: int) -> None:
        streams = self.streams
        if streams is None:
            return
        while streams.mux.ready and self.under_way < most:
            stream_id, frame = streams.mux.pop(PIECE)
            self.bytes_out += len(frame)
            self.under_way += len(frame)
            self.host.send(self, self._arrival(stream_id, frame))
        streams.settle()

    def _arrival(self, stream_id: int, frame: bytes) -> "Callable[[MemoryLink], None]":
        def arrive(other: MemoryLink) -> None:
            self.under_way -= len(frame)
            if other.host.has(other):
                other.receive_frame(stream_id, frame)
            if self.host.has(self):
                self.streams_ready()

        return arrive

    def receive_frame(self, stream_id: int, frame: bytes) -> None:
        """Handle a frame of the peer's; one that breaks the protocol ends the link."""
        self.bytes_in += len(frame)
        try:
            self.open_streams().receive(stream_id, frame)
            self.streams_ready()
        except RemoteProtocolError as error:
            log.info("link %d: the peer broke the protocol: %s", self.id, error)
            self.host.lose(self, EndReason.PROTOCOL)
