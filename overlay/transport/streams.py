"""Application streams as trio streams, over the `StreamMux` of a link.

Both transports use this: a `Carrier` brings frames in, takes them out when it can, and has timers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import index
from typing import Protocol, assert_never

import trio

from overlay.core.stream.frames import (
    BUSY,
    CANCELLED,
    CLOSED,
    CODE_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    PROTOCOL_MAX,
    REFUSED,
    TIMEOUT,
)
from overlay.core.stream.mux import LOST, Changed, Opened, Over, StreamMux, Violation
from overlay.core.stream.stream import Stream
from overlay.core.types import EndReason, LinkId
from overlay.errors import LinkClosed, RemoteProtocolError
from overlay.transport.alarms import Alarm

RECEIVE_BYTES = 65_536
"""What `receive_some` returns at most unless told otherwise."""

OnStream = Callable[[LinkId, str, "MeshStream"], None]
"""Takes a stream that a peer has opened: the link, the protocol's name, the stream. Never blocks;
whoever takes it closes it."""


class StreamLost(trio.BrokenResourceError):
    """The link that carried the stream has ended; `reason` says why.

    An `overlay.core.types.EndReason`: ``gone``, ``broken``, ``stalled``, ``closed`` and others.
    """

    def __init__(self, reason: EndReason) -> None:
        super().__init__(f"{_ENDS.get(reason, 'the link has ended')} ({reason})")
        self.reason = reason


_ENDS = {
    EndReason.GONE: "the other end is gone: nobody is at its port any more",
    EndReason.BROKEN: "the other end has been silent for too long",
    EndReason.STALLED: "the other end answers, but no data gets through to it",
    EndReason.CLOSED: "the other end has closed the link",
    EndReason.CANCELLED: "this node has closed the link",
}


class StreamReset(trio.BrokenResourceError):
    """The other end gave the stream up, or never answered; `code` says why."""

    def __init__(self, code: int) -> None:
        reason = _REASONS.get(code, "the other end reset the stream")
        super().__init__(f"{reason} (code {code})")
        self.code = code


_REASONS = {
    CANCELLED: "the other end gave the stream up",
    CLOSED: "the other end has closed the stream",
    BUSY: "the other end has too many streams open",
    REFUSED: "the other end does not serve this protocol",
    TIMEOUT: "the other end did not answer in time",
}


class Carrier(Protocol):
    """What streams need of the link that carries them."""

    def now(self) -> float: ...
    def call_later(self, delay: float, ring: Callable[[], None], /) -> Alarm: ...
    def streams_ready(self) -> None:
        """Frames wait in `LinkStreams.mux`: send them as soon as the link can take them."""
        ...


class LinkStreams:
    """The streams of one link: the mux, and who waits for what."""

    def __init__(
        self, carrier: Carrier, link: LinkId, *, client: bool, on_stream: OnStream | None
    ) -> None:
        """`client`: we are the DTLS client. `on_stream` None: streams of the peer's are refused."""
        self.mux = StreamMux(client=client)
        self.is_admitted = False
        self._carrier: Carrier | None = carrier
        self._link = link
        self._on_stream = on_stream
        self._watched: dict[Stream, MeshStream] = {}
        self._room = trio.lowlevel.ParkingLot()
        self._alarm: Alarm | None = None
        self._rings_at: float | None = None
        self.reason = EndReason.CANCELLED  # why the link has ended, once it has

    # --- the link --------------------------------------------------------------------------------

    def admit(self) -> None:
        """Both streams of ours and of the peer's may be opened from now on."""
        self.is_admitted = True
        self.mux.admit()
        self._send()

    def receive(self, stream_id: int, data: bytes) -> None:
        """Handle a frame. RemoteProtocolError: the peer broke the protocol."""
        if self._carrier is not None:
            self.mux.receive(stream_id, data, self._carrier.now())
            self.settle()

    def settle(self) -> None:
        """Wake whoever waits for what has happened in the mux; call it after `mux.pop`."""
        for output in self.mux.take():
            match output:
                case Changed():
                    self._wake(output.stream)
                case Over():
                    self._wake(output.stream)
                    self._watched.pop(output.stream, None)
                    self._room.unpark_all()
                case Opened():
                    self._hand_on(output.stream)
                case Violation():
                    raise RemoteProtocolError(f"streams: {output.why}")
                case _:
                    assert_never(output)
        self._arm()

    def suspend(self) -> None:
        """The link has fallen silent: streams wait."""
        self.mux.suspend()
        self._arm()

    def resume(self) -> None:
        """The link is heard again."""
        if self._carrier is not None:
            self.mux.resume(self._carrier.now())
            self._arm()

    def hang_up(self) -> None:
        """The link ends as soon as it can: break streams, let closed ones get out their rest."""
        self._on_stream = None
        self.mux.hang_up()
        self.settle()
        self._leave()

    def lose(self, reason: EndReason) -> None:
        """The link has ended."""
        self.reason = reason
        self.mux.lose()
        self.settle()
        self._leave()
        self._carrier = None  # no cycle with the link

    def _leave(self) -> None:
        self.is_admitted = False
        self._room.unpark_all()

    # --- our application -------------------------------------------------------------------------

    async def open(self, protocol: str, priority: int) -> "MeshStream":
        """A new stream, once fewer than 256 of ours are open; LinkClosed: the link has ended."""
        if not (0 < len(protocol) <= PROTOCOL_MAX and protocol.isprintable()):
            raise ValueError(f"a protocol's name has 1 to {PROTOCOL_MAX} printable characters")
        if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
            raise ValueError(f"a priority is from {PRIORITY_MIN} to {PRIORITY_MAX}")
        await trio.lowlevel.checkpoint()
        while True:
            if self._carrier is None or not self.is_admitted:
                raise LinkClosed("the link has ended: no stream can be opened on it")
            stream = self.mux.open(protocol, priority, self._carrier.now())
            if stream is not None:
                break
            await self._room.park()
        made = self._watched[stream] = MeshStream(self, stream, self._link)
        self._send()
        return made

    def write(self, stream: Stream, data: memoryview) -> int:
        """As many bytes as there is room for."""
        taken = self.mux.write(stream, data)
        self._send()
        return taken

    def read(self, stream: Stream, most: int) -> bytes:
        """What has arrived."""
        data = self.mux.read(stream, most)
        self._send()
        return data

    def end(self, stream: Stream) -> None:
        """Half-close."""
        self.mux.end(stream)
        self._send()

    def close(self, stream: Stream) -> None:
        """Leave; what was written is still delivered."""
        if self._carrier is not None:
            self.mux.close(stream, self._carrier.now())
            self._send()

    def reset(self, stream: Stream, code: int) -> None:
        """Leave at once."""
        self.mux.reset(stream, code)
        self._send()

    # --- inside ----------------------------------------------------------------------------------

    def _send(self) -> None:
        self.settle()
        if self._carrier is not None and self.mux.ready:
            self._carrier.streams_ready()

    def _wake(self, stream: Stream) -> None:
        watcher = self._watched.get(stream)
        if watcher is not None:
            watcher.wake()

    def _hand_on(self, stream: Stream) -> None:
        if self._on_stream is None or self._carrier is None:
            self.mux.reset(stream, REFUSED)
            return
        made = self._watched[stream] = MeshStream(self, stream, self._link)
        self._on_stream(self._link, stream.protocol, made)

    def _arm(self) -> None:
        deadline = self.mux.next_deadline()
        if self._rings_at == deadline:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._rings_at = None, deadline
        if deadline is not None and self._carrier is not None:
            self._alarm = self._carrier.call_later(deadline - self._carrier.now(), self._ring)

    def _ring(self) -> None:
        if self._carrier is not None:
            self._rings_at = None
            self.mux.handle_timeout(self._carrier.now())
            self._send()


class MeshStream(trio.abc.HalfCloseableStream):
    """A reliable stream of bytes in both directions to the peer of a link.

    `send_all` waits while 64 KiB wait here: for the link, and for credit when the other end does
    not read. Cancelled between two of its bytes, it resets the stream. `aclose` delivers what was
    sent, but throws away what still comes; cancelled, it resets. When the link ends, or the other
    end resets, both directions raise trio.BrokenResourceError (`StreamLost` with the reason,
    `StreamReset` with the code).
    """

    def __init__(self, streams: LinkStreams, stream: Stream, link: LinkId) -> None:
        self.link = link
        self.protocol = stream.protocol
        self.priority = stream.priority
        self._streams = streams
        self._stream = stream
        self._lot = trio.lowlevel.ParkingLot()
        self._busy: set[str] = set()
        self._is_closed = False

    def wake(self) -> None:
        """Something has happened: look again."""
        self._lot.unpark_all()

    # --- sending ---------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; see `trio.abc.SendStream`."""
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            self._check_sending()
            while rest:
                taken = self._streams.write(self._stream, rest)
                rest = rest[taken:]
                if rest:
                    await self._wait_within(was_partial=len(rest) < len(data))

    async def _wait_within(self, *, was_partial: bool) -> None:
        try:
            await self._until_room()
        except trio.Cancelled:
            if was_partial:
                self.reset()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Return once there is room for a byte."""
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            await self._until_room()

    async def _until_room(self) -> None:
        self._check_sending()
        while self._stream.room == 0:
            await self._lot.park()
            self._check_sending()

    async def send_eof(self) -> None:
        """Half-close: the other end reads what was sent, then the end."""
        with self._alone("sending"):
            self._check_open()
            if not self._stream.ending and self._stream.broken is None:
                self._streams.end(self._stream)
            await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this end has closed the stream")

    def _check_sending(self) -> None:
        self._check_open()
        self._check_broken()
        if self._stream.ending:
            raise trio.ClosedResourceError("send_eof was called on the stream")

    def _check_broken(self) -> None:
        code = self._stream.broken
        if code == LOST:
            raise StreamLost(self._streams.reason)
        if code is not None:
            raise StreamReset(code)

    # --- receiving -------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, empty at the end; see `trio.abc.ReceiveStream`."""
        most = RECEIVE_BYTES if max_bytes is None else index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        stream = self._stream
        with self._alone("receiving"):
            await trio.lowlevel.checkpoint()
            while True:
                self._check_open()
                if stream.incoming:
                    return self._streams.read(stream, most)
                if stream.at_eof:
                    return b""
                self._check_broken()
                await self._lot.park()

    # --- the end ---------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close; what was sent is still delivered, unless this is cancelled."""
        is_open, self._is_closed = not self._is_closed, True
        self.wake()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:  # before any END: half of it must not look like all of it
            self._streams.reset(self._stream, CANCELLED)
            raise
        if is_open:
            self._streams.close(self._stream)

    def reset(self, code: int = CANCELLED) -> None:
        """Close at once; the other end reads `code` (below 16: ours). Harmless when closed."""
        if not 0 <= code <= CODE_MAX:
            raise ValueError(f"a code is from 0 to {CODE_MAX}")
        self._is_closed = True
        self._streams.reset(self._stream, code)
        self.wake()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is {what} on this stream")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)
