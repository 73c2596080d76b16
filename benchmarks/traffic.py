"""What our nodes carry while they are measured: publications with their age, streams full of bytes.

Everything goes through the interface of applications, and is counted where they would read it.
"""

import struct
import time
from functools import partial
from typing import Any

import trio

from overlay.core.events import PingPeer, Publish
from overlay.core.types import LinkId, PeerId
from overlay.node.driver import Driver
from overlay.transport.streams import MeshStream
from overlay.transport.udp.transport import UdpTransport

TOPIC = "bench"
PROTOCOL = "bench"
STAMP = struct.Struct("!d")
"""The moment of publication on the system's monotone clock, which all processes share."""


class Publications:
    """What one node publishes, and how old each publication was when it came out here."""

    def __init__(self, driver: Driver) -> None:
        self.delays: list[float] = []
        """Seconds from publication to the subscriber, in the order of arrival."""
        self._driver = driver
        self._more = trio.Event()

    async def subscribe(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Read for ever."""
        async with self._driver.subscribe(TOPIC) as messages:
            task_status.started()
            async for message in messages:
                (published_at,) = STAMP.unpack_from(message.data)
                self.delays.append(time.monotonic() - published_at)
                self._more.set()

    async def heard(self, count: int) -> list[float]:
        """The delays, once `count` publications have come out."""
        while len(self.delays) < count:
            self._more = trio.Event()
            await self._more.wait()
        return self.delays

    async def publish(self, size: int, rate: float, seconds: float) -> int:
        """Publish evenly, and catch up when late; how many there were."""
        started, count = trio.current_time(), round(rate * seconds)
        for number in range(count):
            await trio.sleep_until(started + number / rate)
            data = STAMP.pack(time.monotonic()).ljust(size, b".")
            await self._driver.call(partial(Publish, topic=TOPIC, data=data, text=False))
        return count

    async def pings(self, peer: PeerId, times: int, interval: float) -> list[float]:
        """Round trips in seconds, one after the other."""
        taken = []
        for _ in range(times):
            taken.append(await self._driver.call(lambda request: PingPeer(request, peer)))
            await trio.sleep(interval)
        return taken


class Streams:
    """Fills streams to peers, and empties and counts those that peers open."""

    def __init__(self, transport: UdpTransport) -> None:
        self.bytes = 0
        """What has come."""
        self.nursery: trio.Nursery | None = None
        """Where the streams live: set before the first of them."""
        self._transport = transport

    def on_stream(self, link: LinkId, protocol: str, stream: MeshStream) -> None:
        """A peer has opened a stream."""
        assert self.nursery is not None
        self.nursery.start_soon(self._empty, stream)

    async def fill(self, link: LinkId, streams: int, size: int) -> None:
        """Open streams and write pieces of `size` bytes for as long as they last."""
        assert self.nursery is not None
        for _ in range(streams):
            stream = await self._transport.open_stream(link, PROTOCOL)
            self.nursery.start_soon(_fill, stream, size)

    async def _empty(self, stream: MeshStream) -> None:
        try:
            while chunk := await stream.receive_some():
                self.bytes += len(chunk)
        except trio.BrokenResourceError:
            pass  # the sender has ended


async def _fill(stream: MeshStream, size: int) -> None:
    piece = bytes(size)
    try:
        while True:
            await stream.send_all(piece)
    except trio.BrokenResourceError:
        pass  # the receiver has ended
