"""The rival: aiortc as it ships, with the event loop that asyncio recommends on Linux.

``python -m benchmarks.stock offer|answer READ WRITE``: READ and WRITE are the descriptors of the
pipes that carry session descriptions straight between the two peers.
"""

import asyncio
import gc
import json
import os
import re
import sys
from functools import partial
from time import perf_counter
from typing import Any

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from benchmarks.tally import Tally

HIGH_WATER = 4_096
"""The sender waits while more than this is buffered (measured: from 16 KiB on, bursts overflow the
receiver's socket and the association stalls for a second at a time)."""
OPEN_TIMEOUT = 30.0
PING_TIMEOUT = 30.0
PING = b"ping"
_CANDIDATE = re.compile(r"(a=candidate:\S+ \d+ udp \d+ )\S+ \d+ typ host", re.IGNORECASE)


class Stock:
    """One peer: every connection it holds and what has arrived on them."""

    def __init__(self, reader: asyncio.StreamReader, write_to: int) -> None:
        self._reader = reader
        self._write_to = write_to
        self._connections: list[RTCPeerConnection] = []
        self._channels: list[RTCDataChannel] = []
        self._tally = Tally()
        self._filling: set[asyncio.Task[None]] = set()

    async def connect(self, through: list[Any] | None = None) -> dict[str, Any]:
        """Offer a connection; the time from createOffer to the channel's open event.

        `through`: host and port at which the other end is to be looked for instead of its own.
        """
        connection = self._new_connection()
        channel = connection.createDataChannel("bench")
        self._channels.append(channel)
        opened = asyncio.Event()
        channel.on("open", opened.set)
        started = perf_counter()
        await connection.setLocalDescription(await connection.createOffer())
        self._tell(connection.localDescription)
        await connection.setRemoteDescription(await self._hear(through))
        await asyncio.wait_for(opened.wait(), OPEN_TIMEOUT)
        return {"seconds": perf_counter() - started}

    async def accept(self, through: list[Any] | None = None) -> dict[str, Any]:
        """Answer the next offer; returns once the channel is there.

        Pings on any channel are sent back, all else is counted.
        """
        connection = self._new_connection()
        arrived = asyncio.Event()

        def on_channel(channel: RTCDataChannel) -> None:
            self._channels.append(channel)
            channel.on("message", partial(self._on_message, channel))
            arrived.set()

        connection.on("datachannel", on_channel)
        await connection.setRemoteDescription(await self._hear(through))
        await connection.setLocalDescription(await connection.createAnswer())
        self._tell(connection.localDescription)
        await asyncio.wait_for(arrived.wait(), OPEN_TIMEOUT)
        return {}

    async def send(self, size: int, seconds: float, high_water: int = HIGH_WATER) -> dict[str, Any]:
        """Send messages as fast as the newest channel takes them."""
        channel = self._channels[-1]
        room = asyncio.Event()
        channel.bufferedAmountLowThreshold = high_water // 2
        channel.on("bufferedamountlow", room.set)
        data, sent = bytes(size), 0
        end = perf_counter() + seconds
        while perf_counter() < end:
            while channel.bufferedAmount < high_water:
                channel.send(data)
                sent += 1
            room.clear()
            await room.wait()
        return {"sent": sent}

    async def fill(self, streams: int, size: int, high_water: int) -> dict[str, Any]:
        """Open channels and keep `high_water` bytes buffered on each from now on."""
        for _ in range(streams):
            channel = self._connections[-1].createDataChannel("bulk")
            task = asyncio.create_task(_fill(channel, bytes(size), high_water))
            self._filling.add(task)  # which keeps it alive
        return {}

    async def streamed(self) -> dict[str, Any]:
        """How many bytes have come, and when that was."""
        return {"bytes": self._tally.figures()["bytes"], "at": perf_counter()}

    async def ping(self, times: int, interval: float) -> dict[str, Any]:
        """Round trips in seconds on a channel of their own, one after the other."""
        channel = self._connections[-1].createDataChannel("ping")
        returned = asyncio.Event()
        channel.on("message", lambda data: returned.set())
        await _open(channel)
        taken = []
        for _ in range(times):
            returned.clear()
            started = perf_counter()
            channel.send(PING)
            await asyncio.wait_for(returned.wait(), PING_TIMEOUT)
            taken.append(perf_counter() - started)
            await asyncio.sleep(interval)
        return {"seconds": taken}

    async def close(self) -> dict[str, Any]:
        """Close every connection."""
        for connection in self._connections:
            await connection.close()
        self._connections.clear()
        self._channels.clear()
        return {}

    async def settle(self) -> dict[str, Any]:
        """Collect garbage, so that what is left is what the links hold."""
        gc.collect()
        return {}

    async def arrived(self) -> dict[str, Any]:
        """What has reached the application so far."""
        return dict(self._tally.figures())

    def _new_connection(self) -> RTCPeerConnection:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connections.append(connection)
        return connection

    def _tell(self, description: RTCSessionDescription) -> None:
        line = json.dumps({"sdp": description.sdp, "type": description.type}) + "\n"
        os.write(self._write_to, line.encode())

    async def _hear(self, through: list[Any] | None) -> RTCSessionDescription:
        heard = json.loads(await self._reader.readline())
        if through is not None:
            heard["sdp"] = readdressed(heard["sdp"], through)
        return RTCSessionDescription(**heard)

    def _on_message(self, channel: RTCDataChannel, data: bytes) -> None:
        if data == PING:
            channel.send(data)
        else:
            self._tally.delivered(len(data))


def readdressed(sdp: str, through: list[Any]) -> str:
    """The description of a peer that is to be looked for at another host and port."""
    host, port = through
    return _CANDIDATE.sub(rf"\g<1>{host} {port} typ host", sdp)


async def _open(channel: RTCDataChannel) -> None:
    opened = asyncio.Event()
    channel.on("open", opened.set)
    if channel.readyState != "open":
        await asyncio.wait_for(opened.wait(), OPEN_TIMEOUT)


async def _fill(channel: RTCDataChannel, data: bytes, high_water: int) -> None:
    await _open(channel)
    room = asyncio.Event()
    channel.bufferedAmountLowThreshold = high_water // 2
    channel.on("bufferedamountlow", room.set)
    while True:
        while channel.bufferedAmount < high_water:
            channel.send(data)
        room.clear()
        await room.wait()


async def _lines_of(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return reader


async def serve(read_from: int, write_to: int) -> None:
    """Carry out commands until the input ends."""
    commands = await _lines_of(sys.stdin.fileno())
    stock = Stock(await _lines_of(read_from), write_to)
    while line := await commands.readline():
        command = json.loads(line)
        try:
            answer = await getattr(stock, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 (the parent is told)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Run one stock peer; refuse to measure a process in which trio-asyncio patches asyncio."""
    assert "trio_asyncio" not in sys.modules, "the rival must run on plain asyncio"
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
