"""Streams to peers by name, and requests over them: one stream a request, ended by its end.

A request is all that its stream carries; the reply is a status byte (0: done, 1: failed) and the
answer, or the failure as a JSON object ``{"code", "text"}``.
"""

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from overlay import api
from overlay.core.stream.frames import BUSY, REFUSED, TIMEOUT
from overlay.core.types import LinkId, PeerId
from overlay.errors import CommandFailed, Failure, LinkClosed
from overlay.node import arguments
from overlay.node.feed import Feed
from overlay.transport.interface import Starting
from overlay.transport.streams import MeshStream, StreamReset

MAX_ARRIVALS = 64
"""Streams of one protocol that may wait to be accepted; beyond it they are refused (guess)."""
MAX_ANSWERS = 64
"""Requests of one protocol that are answered at once; beyond it they are refused (guess)."""
MAX_ANSWERS_PEER = 16
"""So many of these may be one peer's, so that the others are answered, too (guess)."""
MAX_REQUEST = 1 << 20
"""Bytes of a request, and of a reply (guess)."""
REQUEST_TIMEOUT = 30.0
"""Seconds for a whole request to come in, and for its reply to be taken (guess)."""
TRIES = 3
"""Links that a stream is tried on: one may end at any moment, or be replaced (guess)."""
DONE, FAILED = b"\0", b"\1"
CODE_MAX, TEXT_MAX = 32, 1024

Handler = Callable[[str, bytes], Awaitable[bytes]]


class PeerStream(api.Stream):
    """A stream of the transport with the peer's name on it."""

    def __init__(self, stream: MeshStream, peer_id: str) -> None:
        self.peer_id = peer_id
        self.protocol = stream.protocol
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.send_all(arguments.buffer(data))

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if max_bytes is not None:
            arguments.whole("max_bytes", max_bytes, 1, sys.maxsize)
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """What was sent is still delivered, unless this is cancelled."""
        await self._stream.aclose()

    def reset(self, code: int | None = None) -> None:
        """See `overlay.api.Stream.reset`."""
        if code is None:
            self._stream.reset()
        else:
            arguments.code(code)
            self._stream.reset(code)


class Arrivals(Feed[api.Stream]):
    """The streams of one protocol that peers have opened and nobody has accepted yet."""

    def put(self, stream: api.Stream) -> None:
        """Queue it, or refuse it when too many wait."""
        if self.waiting >= MAX_ARRIVALS:
            stream.reset(BUSY)
        else:
            super().put(stream)

    def close(self) -> None:
        """Refuse what waits, too."""
        for stream in self.drain():
            stream.reset(REFUSED)
        super().close()


class Streaming:
    """What a node does with streams; it is told how links are found and streams opened on them."""

    def __init__(
        self,
        linked: Callable[[str], Awaitable[tuple[str, LinkId]]],
        opened: Callable[[LinkId, str, int], Awaitable[MeshStream]],
        peer_of: Callable[[LinkId], PeerId | None],
        text_of: Callable[[PeerId], str],
    ) -> None:
        self._linked = linked
        self._opened = opened
        self._peer_of = peer_of
        self._text_of = text_of
        self._served: dict[str, Arrivals] = {}

    def on_stream(self, link: LinkId, protocol: str, stream: MeshStream) -> None:
        """A peer has opened a stream: hand it to whoever serves its protocol, or refuse it."""
        peer, arrivals = self._peer_of(link), self._served.get(protocol)
        if peer is None or arrivals is None:
            stream.reset(REFUSED)
        else:
            arrivals.put(PeerStream(stream, self._text_of(peer)))

    def end(self) -> None:
        """The node ends: nobody will open a stream any more."""
        for arrivals in list(self._served.values()):
            arrivals.end()

    async def open(self, peer: str, protocol: str, priority: int) -> PeerStream:
        """See `overlay.api.Node.open_stream`."""
        for _ in range(TRIES):
            peer_id, link = await self._linked(peer)
            try:
                return PeerStream(await self._opened(link, protocol, priority), peer_id)
            except LinkClosed:
                continue
        raise CommandFailed(Failure.CLOSED, "the link to this peer has ended again and again")

    def accept(self, protocol: str) -> Arrivals:
        """See `overlay.api.Node.accept_streams`."""
        if protocol in self._served:
            raise CommandFailed(Failure.BUSY, f"streams of {protocol!r} are accepted already")

        def forget() -> None:
            del self._served[protocol]

        arrivals = self._served[protocol] = Arrivals(forget)
        return arrivals

    # --- requests ------------------------------------------------------------------------------

    async def request(self, peer: str, protocol: str, data: bytes, timeout: float) -> bytes:
        """See `overlay.api.Node.request`."""
        if len(data) > MAX_REQUEST:
            raise CommandFailed(Failure.TOO_LARGE, f"a request has at most {MAX_REQUEST} bytes")
        with trio.move_on_after(timeout):
            stream = await self.open(peer, protocol, 0)
            async with stream:
                try:
                    await stream.send_all(data)
                    await stream.send_eof()
                    return _read_reply(await _read_all(stream, 1 + MAX_REQUEST))
                except StreamReset as error:
                    raise _failure(error, protocol) from None
                except trio.BrokenResourceError as error:
                    text = f"no reply will come over this link: {error}"
                    raise CommandFailed(Failure.BROKEN, text) from None
        raise CommandFailed(Failure.TIMEOUT, f"no reply within {timeout:g} s")

    async def serve(self, protocol: str, handler: Handler, task_status: Starting) -> None:
        """See `overlay.api.Node.serve`."""
        answering: Counter[str] = Counter()

        async def answer(stream: api.Stream) -> None:
            try:
                await _answer(stream, handler)
            finally:
                answering[stream.peer_id] -= 1
                if not answering[stream.peer_id]:
                    del answering[stream.peer_id]

        async with self.accept(protocol) as arrivals, trio.open_nursery() as nursery:
            task_status.started()
            async for stream in arrivals:
                peer = stream.peer_id
                if answering.total() >= MAX_ANSWERS or answering[peer] >= MAX_ANSWERS_PEER:
                    stream.reset(BUSY)
                else:
                    answering[peer] += 1
                    nursery.start_soon(answer, stream)
            nursery.cancel_scope.cancel()  # the node has left: nobody waits for an answer


async def _answer(stream: api.Stream, handler: Handler) -> None:
    """One request: a peer's fault ends its stream, a bug of the handler's comes out."""
    request: bytes | None = None
    try:
        with trio.move_on_after(REQUEST_TIMEOUT), suppress(trio.BrokenResourceError):
            request = await _read_all(stream, MAX_REQUEST)
        if request is None:
            stream.reset(TIMEOUT)
            return
        try:
            answer = await handler(stream.peer_id, request)
            arguments.octets(f"what the handler of {stream.protocol!r} returns", answer)
            reply = DONE + answer
        except CommandFailed as error:
            told = {"code": error.code[:CODE_MAX], "text": error.text[:TEXT_MAX]}
            reply = FAILED + json.dumps(told).encode()
        with trio.move_on_after(REQUEST_TIMEOUT) as scope, suppress(trio.BrokenResourceError):
            await stream.send_all(reply)
            await stream.send_eof()
        if scope.cancelled_caught:
            stream.reset(TIMEOUT)
        await stream.aclose()
    except CommandFailed:
        stream.reset(REFUSED)  # the request was too large
    except BaseException:
        stream.reset()
        raise


async def _read_all(stream: api.Stream, most: int) -> bytes:
    """All that the other end sends; CommandFailed ``too_large`` beyond `most` bytes."""
    data = bytearray()
    while chunk := await stream.receive_some():
        data += chunk
        if len(data) > most:
            raise CommandFailed(Failure.TOO_LARGE, f"more than {most} bytes came")
    return bytes(data)


def _read_reply(reply: bytes) -> bytes:
    if reply[:1] == DONE:
        return reply[1:]
    try:
        match json.loads(reply[1:][: 8 * TEXT_MAX]):
            case {"code": str(code), "text": str(text)} if reply[:1] == FAILED:
                raise CommandFailed(code[:CODE_MAX], text[:TEXT_MAX])
    except (ValueError, RecursionError):
        pass
    raise CommandFailed(Failure.PROTOCOL, "the peer's reply is not understood")


def _failure(error: StreamReset, protocol: str) -> CommandFailed:
    """What a reset in place of a reply means to who asked."""
    why = {
        REFUSED: (
            Failure.REFUSED,
            f"the peer does not serve {protocol!r}, or not a request like this",
        ),
        BUSY: (Failure.BUSY, "the peer has too much to do: ask again later"),
        TIMEOUT: (
            Failure.TIMEOUT,
            "the peer did not answer, or did not get the whole request, in time",
        ),
    }
    return CommandFailed(*why.get(error.code, (Failure.FAILED, "the peer gave the request up")))
