"""Two programs as somebody might write them: one serves streams, the other opens them.

Run as ``python -m tests.node.stream_programs ROLE NAME``, with an invite on standard input. Each
belongs to the mesh of the invite, opens no links of its own, and prints what it saw as JSON lines.
"""

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from typing import Any

import trio

import overlay
from overlay import api
from overlay.transport.streams import StreamReset

PIECE = bytes(range(256)) * 64
"""16 KiB."""
LARGE = 512
"""Pieces of a large transfer: 8 MiB."""
SMALL = 64
SERVER = "server"
QUIET = {"links.auto": False, "links.direct": False}
PINGS = 20


def tell(**said: Any) -> None:
    """One line of JSON."""
    print(json.dumps(said), flush=True)


def a_node(name: str) -> AbstractAsyncContextManager[api.Node]:
    """In the mesh of the invite on standard input."""
    return overlay.open_node(
        name=name, listen="127.0.0.1:0", join=sys.stdin.readline().strip(), settings=QUIET
    )


async def until_known(node: api.Node, name: str) -> None:
    """Its record comes by gossip, which tells nobody when."""
    while name not in {peer.name for peer in node.peers(everybody=True)}:  # noqa: ASYNC110
        await trio.sleep(0.02)


# --- the one that serves -----------------------------------------------------------------------


class Server:
    """Reads what comes: at once, when it is told to, or until it has had enough."""

    def __init__(self) -> None:
        self._go = trio.Event()

    async def run(self, name: str) -> None:
        async with a_node(name) as node, trio.open_nursery() as nursery:
            await nursery.start(node.serve, "go", self._on_go)
            for protocol, read in (
                ("digest", self._digest),
                ("stall", self._stall),
                ("until-reset", self._until_reset),
                ("enough", self._enough),
            ):
                nursery.start_soon(self._accept, node.accept_streams(protocol), read)
            tell(ready=node.peer_id)
            await trio.sleep_forever()

    async def _accept(
        self, arriving: api.Feed[api.Stream], read: Callable[[api.Stream], Awaitable[None]]
    ) -> None:
        async with arriving, trio.open_nursery() as nursery:
            async for stream in arriving:
                nursery.start_soon(read, stream)

    async def _on_go(self, peer: str, data: bytes) -> bytes:
        self._go.set()
        return b"going"

    async def _digest(self, stream: api.Stream) -> None:
        """All of it, to its end; the answer goes the other way, which is still open."""
        digest = sha256()
        async with stream:
            async for data in stream:
                digest.update(data)
            await stream.send_all(digest.hexdigest().encode())

    async def _stall(self, stream: api.Stream) -> None:
        await self._go.wait()
        await self._digest(stream)

    async def _until_reset(self, stream: api.Stream) -> None:
        count = 0
        try:
            async for data in stream:
                count += len(data)
                await stream.send_all(b"more?")
        except StreamReset as error:
            tell(reset=error.code, after=count)

    async def _enough(self, stream: api.Stream) -> None:
        await stream.receive_some()
        stream.reset(18)


# --- the ones that open streams ----------------------------------------------------------------


async def sent(stream: api.Stream, pieces: int, progress: list[int] | None = None) -> str:
    """Send so much, say that it is all, and return what the other end says its digest is."""
    for _ in range(pieces):
        await stream.send_all(PIECE)
        if progress is not None:
            progress[0] += len(PIECE)
    await stream.send_eof()
    answer = b""
    async for data in stream:
        answer += data
    return answer.decode()


def digest_of(pieces: int) -> str:
    """What it should say."""
    return sha256(PIECE * pieces).hexdigest()


async def large(node: api.Node) -> None:
    """Many bytes to a peer that there is no link to."""
    before = [peer.name for peer in node.peers()]
    async with await node.open_stream(SERVER, "digest") as stream:
        (peer,) = [peer for peer in node.peers() if peer.peer_id == stream.peer_id]
        is_whole = await sent(stream, LARGE) == digest_of(LARGE)
    assert peer.link is not None
    tell(before=before, peer=peer.name, negotiated=peer.link.negotiated, whole=is_whole)


async def stalled(node: api.Node) -> None:
    """A reader that stops, while the same two nodes ping, ask and stream; then it goes on."""
    progress, answers = [0], []

    async def stall() -> None:
        async with await node.open_stream(SERVER, "stall") as stream:
            answers.append(await sent(stream, LARGE, progress))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stall)
        async with await node.open_stream(SERVER, "digest") as other:
            is_other_whole = await sent(other, SMALL) == digest_of(SMALL)
        stuck_at = -1
        while stuck_at != progress[0]:  # a round of pings long, nothing moves any more
            stuck_at = progress[0]
            pings = [await node.ping(SERVER) for _ in range(PINGS)]
            hub = [await node.ping("hub") for _ in range(PINGS)]
        assert await node.request(SERVER, "go", b"") == b"going"
    tell(
        stuck_at=stuck_at,
        other_whole=is_other_whole,
        pings=len(pings) + len(hub),
        whole=answers == [digest_of(LARGE)],
    )


async def given_up(node: api.Node) -> None:
    """Streams that end early: reset here, cancelled here, reset there."""
    stream = await node.open_stream(SERVER, "until-reset")
    await stream.send_all(PIECE)
    assert await stream.receive_some()
    stream.reset(17)
    with trio.CancelScope() as scope:
        async with await node.open_stream(SERVER, "until-reset") as stream:
            await stream.send_all(PIECE)
            assert await stream.receive_some()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    code = None
    try:
        async with await node.open_stream(SERVER, "enough") as stream:
            await sent(stream, LARGE)
    except StreamReset as error:
        code = error.code
    async with await node.open_stream(SERVER, "digest") as stream:
        is_whole = await sent(stream, SMALL) == digest_of(SMALL)
    tell(theirs=code, afterwards=is_whole)
    await trio.sleep_forever()  # what we said is delivered; the test ends us


CASES = {"large": large, "stalled": stalled, "given-up": given_up}


async def main(role: str, name: str) -> None:
    """Be the server, or go through one case."""
    if role == "serve":
        await Server().run(name)
        return
    async with a_node(name) as node:
        await until_known(node, SERVER)
        await CASES[role](node)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
