"""What the two ends of a transfer say to each other, over one stream.

The sender opens the stream and makes an `Offer` of one or more files. For each of them, in order:
the receiver says `Have`, how much of it lies here already and what that hashes to; the sender says
`Begin`, from where it goes on (there if its own beginning hashes alike, else at 0); the bytes
follow as they are, then `Whole`, the hash of the whole file; the receiver says `Kept` once it is
verified and safe on its disk. The first `Have` is the receiver's consent.

A message is its length (4 bytes, big-endian) and a MessagePack map; fields that are not known are
ignored. Whoever gives up resets the stream with one of the codes below, which is all the other
end is told: paths and causes stay where they belong.
"""

from typing import Annotated, TypeVar

import msgspec
import trio

from overlay.api import Stream

PROTOCOL = "overlay-files/1"
HASH_BYTES = 32
FILES_MAX = 1_000
"""Files of one offer (guess)."""
MESSAGE_MAX = 1 << 19
"""Bytes: room for the longest offer."""
SIZE_MAX = 1 << 62
READ = 1 << 18
"""Bytes that are taken from the stream at once: as many as can wait there."""

DECLINED, NOBODY, NO_SPACE, CANNOT_WRITE, STOPPED, DAMAGED, BAD_NAME, TAKEN = range(16, 24)
"""Why a receiver resets: it does not want the file; has nobody to ask; its disk is full; it cannot
write; its command was ended; another hash than the sender's; a name that is not safe; somebody
else is writing this file."""
CHANGED, UNREADABLE, PROTOCOL_BROKEN = range(24, 27)
"""Why a sender resets, besides `STOPPED`: its file changed meanwhile; it cannot be read. Either:
what the other said makes no sense."""
CANCELLED, BUSY, REFUSED = 0, 2, 3
"""What the node itself says in place of an application: it was ended in the middle of a write; too
much is under way; nobody receives."""

Digest = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX)]


class Entry(msgspec.Struct, frozen=True):
    """One file of an offer."""

    name: Annotated[str, msgspec.Meta(max_length=1024)]
    size: Bytes


class Offer(msgspec.Struct, frozen=True):
    """The sender has these files; nothing of them comes before the receiver agrees."""

    files: Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=FILES_MAX)]


class Have(msgspec.Struct, frozen=True):
    """The receiver takes the file; so many bytes lie here, with this BLAKE2b-256."""

    offset: Bytes
    digest: Digest


class Begin(msgspec.Struct, frozen=True):
    """The sender goes on from here: from what the receiver has, or from 0."""

    offset: Bytes


class Whole(msgspec.Struct, frozen=True):
    """All bytes have been sent; the BLAKE2b-256 of the whole file."""

    digest: Digest


class Kept(msgspec.Struct, frozen=True):
    """The file is whole, verified and on the disk, under this name."""

    name: Annotated[str, msgspec.Meta(max_length=1024)]


T = TypeVar("T", bound=msgspec.Struct)


class Nonsense(Exception):
    """The other end sent what no correct one sends."""


class Wire:
    """One end's side of the stream: messages, and the bytes between them."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._unread = bytearray()

    async def say(self, message: msgspec.Struct) -> None:
        """Send a message."""
        body = msgspec.msgpack.encode(message)
        await self.stream.send_all(len(body).to_bytes(4, "big") + body)

    async def hear(self, kind: type[T]) -> T:
        """The next message, which must be of this kind; Nonsense."""
        length = int.from_bytes(await self._exactly(4), "big")
        if length > MESSAGE_MAX:
            raise Nonsense("a message is too long")
        try:
            return msgspec.msgpack.decode(await self._exactly(length), type=kind)
        except msgspec.DecodeError as error:
            raise Nonsense(str(error)) from None

    async def some_into(self, room: memoryview) -> int:
        """Put the next bytes into `room`; how many there were. Nonsense when they end early."""
        if self._unread:
            count = min(len(self._unread), len(room))
            room[:count] = self._unread[:count]
            del self._unread[:count]
            return count
        chunk = await self._some(len(room))
        room[: len(chunk)] = chunk
        return len(chunk)

    async def silence(self) -> None:
        """Return when the other end speaks out of turn; trio.BrokenResourceError when it goes."""
        if not self._unread:
            self._unread += await self._some(READ)

    async def _exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._unread += await self._some(READ)
        found = bytes(self._unread[:count])
        del self._unread[:count]
        return found

    async def _some(self, most: int) -> bytes:
        chunk = await self.stream.receive_some(min(most, READ))
        if not chunk:
            raise Nonsense("the stream ends too early")
        return chunk


def code_of(error: trio.BrokenResourceError) -> int | None:
    """The code with which the other end reset the stream; None: the link has ended."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None
