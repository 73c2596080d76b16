"""A node that takes whatever its peers send by stream, and sends on demand: the ordinary one else.

Beside `overlay subscribe` it answers ``GET /carry?topic=PEER/BYTES``: so many bytes go to
PEER by a stream, and come back as their hash. A row when the stream is open, one for each mebibyte
that has been sent, then ``{"event": "carried", "bytes", "seconds", "whole"}``.
"""

import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import trio

from overlay import api
from overlay.errors import OverlayError
from overlay.node import daemon
from tests.builds import run_overlay

PROTOCOL = "carrier"
PIECE = 65_536
TOLD_EVERY = 1 << 20
Row = dict[str, Any]


async def take(node: api.Node) -> None:
    """Answer each stream with the hash of what it brought, until the node ends."""
    async with trio.open_nursery() as nursery, node.accept_streams(PROTOCOL) as arriving:
        async for stream in arriving:
            nursery.start_soon(answer, stream)


async def answer(stream: api.Stream) -> None:
    """One stream to its end; a broken one is the sender's affair."""
    digest = hashlib.sha256()
    with suppress(OverlayError, trio.BrokenResourceError, trio.ClosedResourceError):
        async with stream:
            async for data in stream:
                digest.update(data)
            await stream.send_all(digest.digest())


async def sending(node: api.Node, peer: str, size: int) -> AsyncGenerator[Row, None]:
    """Send random bytes, and tell how it goes."""
    began_at, sent, digest = trio.current_time(), 0, hashlib.sha256()
    async with await node.open_stream(peer, PROTOCOL) as stream:
        yield {"event": "open"}
        while sent < size:
            piece = random.randbytes(min(PIECE, size - sent))
            digest.update(piece)
            await stream.send_all(piece)
            sent += len(piece)
            if sent % TOLD_EVERY == 0:
                yield {"event": "sent", "bytes": sent, "at": trio.current_time() - began_at}
        await stream.send_eof()
        answered = b"".join([data async for data in stream])
    seconds = trio.current_time() - began_at
    whole = answered == digest.digest()
    yield {"event": "carried", "bytes": sent, "seconds": seconds, "whole": whole}


async def told(rows: AsyncIterator[Row]) -> AsyncGenerator[Row, None]:
    """The rows; what breaks is the last one."""
    try:
        async for row in rows:
            yield row
    except (OverlayError, trio.BrokenResourceError) as error:
        yield {"event": "failed", "text": str(error)}


@asynccontextmanager
async def carry(node: api.Node, topic: str) -> AsyncIterator[AsyncIterator[Row]]:
    """The application behind ``/carry``."""
    peer, size = topic.split("/")
    async with aclosing(sending(node, peer, int(size))) as rows, aclosing(told(rows)) as safe:
        yield safe


async def announce_ready(self: daemon.Daemon) -> None:
    """From now on streams are taken."""
    trio.lowlevel.spawn_system_task(take, self.node)
    await announced(self)


if __name__ == "__main__":
    daemon.APPS["carry"] = carry
    announced = daemon.Daemon._announce_ready
    daemon.Daemon._announce_ready = announce_ready  # type: ignore[method-assign]
    run_overlay()
