"""The rival in a home: aiortc as it ships, told what the other end says by whoever started it.

``python -m benchmarks.nat.stock HOST:PORT``: its STUN server. Commands are lines of JSON on
standard input; each try is a connection of its own, and so has ports of its own.
"""

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

PING, PIECE = b"ping", bytes(16_384)
HIGH_WATER = 65_536


class Try:
    """One connection, and its only channel."""

    def __init__(self, server: str) -> None:
        configuration = RTCConfiguration(iceServers=[RTCIceServer(urls=f"stun:{server}")])
        self.connection = RTCPeerConnection(configuration)
        self.channel: RTCDataChannel | None = None
        self.began_at = perf_counter()
        self.answered = asyncio.Event()
        self.arrived = 0
        self.connection.on("datachannel", self.use)

    def use(self, channel: RTCDataChannel) -> None:
        """Answer pings on this channel, and count what else comes."""
        self.channel = channel
        channel.on("message", self._on_message)

    def _on_message(self, data: bytes) -> None:
        assert self.channel is not None
        if data == PING:
            self.channel.send(b"pong")
        elif data == b"pong":
            self.answered.set()
        else:
            self.arrived += len(data)


class Stock:
    """The tries of one home, by number."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._tries: dict[int, Try] = {}

    async def offer(self, number: int) -> dict[str, Any]:
        """Begin a try; what to tell the other end."""
        made = self._tries[number] = Try(self._server)
        made.use(made.connection.createDataChannel("bench"))
        assert made.channel is not None
        channel = made.channel
        channel.on("open", lambda: channel.send(PING))
        await made.connection.setLocalDescription(await made.connection.createOffer())
        return {"sdp": made.connection.localDescription.sdp}

    async def answer(self, number: int, sdp: str) -> dict[str, Any]:
        """The other end of a try; what to tell the first."""
        made = self._tries[number] = Try(self._server)
        await made.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await made.connection.setLocalDescription(await made.connection.createAnswer())
        return {"sdp": made.connection.localDescription.sdp}

    async def accept(self, number: int, sdp: str, patience: float) -> dict[str, Any]:
        """The answer has come; seconds from the beginning to the first answered ping, or null."""
        made = self._tries[number]
        await made.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        try:
            await asyncio.wait_for(made.answered.wait(), patience)
        except TimeoutError:
            return {"seconds": None}
        return {"seconds": perf_counter() - made.began_at}

    async def send(self, number: int, size: int) -> dict[str, Any]:
        """So many bytes over the channel; returns when they are acknowledged or nearly so."""
        channel = self._tries[number].channel
        assert channel is not None
        for _ in range(size // len(PIECE)):
            while channel.bufferedAmount > HIGH_WATER:  # noqa: ASYNC110 (as a user would)
                await asyncio.sleep(0.002)
            channel.send(PIECE)
        return {}

    async def arrived(self, number: int) -> dict[str, Any]:
        """Bytes that have come by a try."""
        return {"bytes": self._tries[number].arrived}

    async def close(self, number: int) -> dict[str, Any]:
        """End a try."""
        await self._tries.pop(number).connection.close()
        return {}


async def serve(server: str) -> None:
    """Carry out commands, several at once, until the input ends."""
    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    stock, under_way = Stock(server), set[asyncio.Task[None]]()

    async def obey(command: dict[str, Any]) -> None:
        name, ticket = command.pop("do"), command.pop("ticket")
        try:
            answer = await getattr(stock, name)(**command)
        except Exception as error:  # noqa: BLE001 (the parent is told)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"ticket": ticket, **answer}), flush=True)

    while line := await reader.readline():
        task = asyncio.create_task(obey(json.loads(line)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(serve(sys.argv[1]))
