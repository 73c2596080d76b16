"""Send files to a peer that receives them: read ahead and hashed in threads while bytes go out.

Rows: ``offered`` (the peer has been told, and may have to ask its user), for each file
``checking`` (the peer has the beginning of it), ``started``, ``progress``, ``sent``.
"""

import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from overlay.api import Node, Stream
from overlay.apps.files import wire
from overlay.apps.files.names import fault_of, shown
from overlay.apps.files.part import CHUNK, hasher
from overlay.apps.files.telling import Progress, Rows, Teller, alone, told
from overlay.apps.files.wire import Begin, Entry, Have, Kept, Nonsense, Offer, Whole, Wire
from overlay.errors import CommandFailed, Failure

HASHED_AT_ONCE = 64 << 20
"""Bytes between two moments at which checking a beginning can be given up (guess)."""
AHEAD = 1
"""Pieces of `CHUNK` bytes that are read before the stream takes them: two more are in hand."""
GOES_ON = "what came is kept there: send it again, and it goes on from there"


class Changed(Exception):
    """The file is not any more what was offered."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file to be sent, as it was when it was offered."""

    path: str
    name: str
    size: int
    modified: int
    """Nanoseconds, as the file system counts them."""


def look_at(paths: Sequence[str]) -> list[Outgoing]:
    """What is to be sent; CommandFailed ``usage`` names the first file that cannot be."""
    if not 1 <= len(paths) <= wire.FILES_MAX:
        raise CommandFailed(Failure.USAGE, f"1 to {wire.FILES_MAX} files are sent at once")
    found: dict[str, Outgoing] = {}
    for path in paths:
        file = _look_at(path)
        if file.name in found:
            raise _unfit(
                path, f"has the same name as {shown(found[file.name].path)}: send it by itself"
            )
        found[file.name] = file
    return list(found.values())


def _look_at(path: str) -> Outgoing:
    name = os.path.basename(os.path.normpath(path))
    try:
        seen = os.stat(path)
        if stat.S_ISREG(seen.st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise _unfit(path, f"cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(seen.st_mode):
        raise _unfit(path, f"is a directory: pack it first (tar -czf {name}.tgz {name})")
    if not stat.S_ISREG(seen.st_mode):
        raise _unfit(path, "is no regular file: only those can be sent")
    if fault := fault_of(name):
        raise _unfit(path, f"cannot be sent under this name, which {fault}: rename it")
    return Outgoing(path, name, seen.st_size, seen.st_mtime_ns)


def _unfit(path: str, why: str) -> CommandFailed:
    return CommandFailed(Failure.USAGE, f"{shown(path)} {why}")


class Source:
    """An open file on its way out: reads and hashes, in threads."""

    def __init__(self, file: Outgoing) -> None:
        self._file = file
        self._descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._hash = hasher()
        self.offset = 0
        """How much has been read and hashed."""

    def read(self) -> bytes:
        """The next piece; Changed when the file has become shorter."""
        data = os.read(self._descriptor, min(CHUNK, self._file.size - self.offset))
        if not data:
            raise Changed
        self._hash.update(data)
        self.offset += len(data)
        return data

    def read_until(self, end: int) -> None:
        """Hash as far as there."""
        while self.offset < end:
            data = os.pread(self._descriptor, min(CHUNK, end - self.offset), self.offset)
            if not data:
                raise Changed
            self._hash.update(data)
            self.offset += len(data)

    def go_on(self, *, agrees: bool) -> None:
        """Read on from what has been hashed, or from the beginning."""
        if not agrees:
            self.offset, self._hash = 0, hasher()
        os.lseek(self._descriptor, self.offset, os.SEEK_SET)

    @property
    def digest(self) -> bytes:
        """The hash of the first `offset` bytes."""
        return self._hash.digest()

    def check(self) -> None:
        """Changed: somebody has written to the file since it was offered."""
        seen = os.fstat(self._descriptor)
        if (seen.st_size, seen.st_mtime_ns) != (self._file.size, self._file.modified):
            raise Changed

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


class Sending:
    """One offer, from the stream's opening to the last file kept at the other end."""

    def __init__(self, node: Node, peer: str, files: Sequence[Outgoing]) -> None:
        self._node = node
        self._peer = peer
        self._name = peer
        self._files = files
        self._current = files[0]

    async def run(self, teller: Teller) -> None:
        """Connect, offer, send; CommandFailed when it comes to nothing."""
        stream = await self._node.open_stream(self._peer, wire.PROTOCOL)
        try:
            await self._offer(Wire(stream), teller)
            await stream.aclose()
        except trio.BrokenResourceError as error:
            raise self._ended(error) from None
        except Nonsense:
            stream.reset(wire.PROTOCOL_BROKEN)
            text = f"{self._name} answers in a way that is not understood: is its overlay newer?"
            raise CommandFailed(Failure.PROTOCOL, text) from None
        except (Changed, OSError) as error:
            stream.reset(wire.CHANGED if isinstance(error, Changed) else wire.UNREADABLE)
            raise self._spoilt(error) from None
        except BaseException:
            stream.reset(wire.STOPPED)
            raise

    async def _offer(self, talk: Wire, teller: Teller) -> None:
        names = {each.peer_id: each.name for each in self._node.peers(everybody=True)}
        self._name = shown(names.get(talk.stream.peer_id, "")) or talk.stream.peer_id
        entries = [Entry(file.name, file.size) for file in self._files]
        await talk.say(Offer(entries))
        listed = [{"file": entry.name, "size": entry.size} for entry in entries]
        peer = {"peer_id": talk.stream.peer_id, "name": names.get(talk.stream.peer_id, "")}
        await teller.tell("offered", **peer, files=listed)
        for file in self._files:
            self._current = file
            have = await talk.hear(Have)
            source = await trio.to_thread.run_sync(Source, file)
            try:
                source.check()
                await self._send(talk, teller, file, source, have)
            finally:
                source.close()

    async def _send(
        self, talk: Wire, teller: Teller, file: Outgoing, source: Source, have: Have
    ) -> None:
        """One file that the peer wants, of which it may have the beginning."""
        if 0 < have.offset <= file.size:
            await teller.tell("checking", file=file.name, bytes=have.offset, size=file.size)
            while source.offset < have.offset:
                end = min(have.offset, source.offset + HASHED_AT_ONCE)
                await trio.to_thread.run_sync(source.read_until, end)
        agrees = have.offset == source.offset and have.digest == source.digest
        source.go_on(agrees=agrees)
        offset = source.offset
        await talk.say(Begin(offset))
        await teller.tell("started", file=file.name, size=file.size, offset=offset)
        progress = Progress(teller, file.name, file.size, offset)
        await _pump(source, file.size, talk.stream, progress)
        source.check()
        await talk.say(Whole(source.digest))
        kept = await talk.hear(Kept)
        done = {"size": file.size, "offset": offset, "seconds": progress.seconds}
        digest = source.digest.hex()
        await teller.tell("sent", file=file.name, there=kept.name, digest=digest, **done)

    def _spoilt(self, error: Exception) -> CommandFailed:
        path = self._current.path
        if isinstance(error, OSError):
            return _unfit(path, f"cannot be read: {error.strerror}")
        text = f"{shown(path)} has changed while it was being sent: send it again, or a copy"
        return CommandFailed(Failure.FAILED, text)

    def _ended(self, error: trio.BrokenResourceError) -> CommandFailed:
        """Why the other end takes no more, and what to do."""
        name, file = self._name, self._current.name
        command = f"overlay receive --from {self._node.name}"
        reasons = {
            wire.REFUSED: (
                Failure.REFUSED,
                f"{name} is not receiving files: there, run `{command}` first",
            ),
            wire.BUSY: (Failure.BUSY, f"{name} has too many offers already: send it again later"),
            wire.DECLINED: (Failure.REFUSED, f"{name} does not want {file}"),
            wire.NOBODY: (
                Failure.REFUSED,
                f"nobody is at {name} to agree to {file}: there, run `{command}`",
            ),
            wire.NO_SPACE: (
                Failure.FAILED,
                f"the disk of {name} has no room for {file}: {GOES_ON}, once there is room",
            ),
            wire.CANNOT_WRITE: (
                Failure.FAILED,
                f"{name} cannot write {file}: what it prints there says why",
            ),
            wire.STOPPED: (Failure.BROKEN, f"{name} has stopped receiving {file}; {GOES_ON}"),
            wire.DAMAGED: (
                Failure.FAILED,
                f"{file} arrived damaged at {name}, which has thrown it away: send it again",
            ),
            wire.BAD_NAME: (Failure.REFUSED, f"{name} takes no file of the name {file}: rename it"),
            wire.TAKEN: (Failure.BUSY, f"{name} is getting another {file} now: wait for its end"),
        }
        reasons[wire.CANCELLED] = reasons[wire.STOPPED]
        lost = (Failure.BROKEN, f"{file} has not got through to {name}: {error}; {GOES_ON}")
        code = wire.code_of(error)
        return CommandFailed(*(lost if code is None else reasons.get(code, lost)))


async def _pump(source: Source, end: int, stream: Stream, progress: Progress) -> None:
    """Send what is left of a file; the next piece is read and hashed meanwhile."""
    ahead, pieces = trio.open_memory_channel[bytes | Changed | OSError](AHEAD)

    async def read() -> None:
        async with ahead:
            try:
                while source.offset < end:
                    await ahead.send(await trio.to_thread.run_sync(source.read))
            except (Changed, OSError) as error:  # raised here, it would end a write half-way
                await ahead.send(error)

    with alone():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async for piece in pieces:
                if not isinstance(piece, bytes):
                    raise piece
                await _send_in_steps(stream, piece, progress)


async def _send_in_steps(stream: Stream, piece: bytes, progress: Progress) -> None:
    step = CHUNK // 4  # for a slow link, a whole piece is a long time without progress
    for at in range(0, len(piece), step):
        part = memoryview(piece)[at : at + step]
        await stream.send_all(part)
        progress.add(len(part))


@asynccontextmanager
async def rows(node: Node, peer: str, paths: Sequence[str]) -> AsyncIterator[Rows]:
    """Send these files to a peer for as long as the context is open; what happens to them."""
    files = await trio.to_thread.run_sync(look_at, paths)
    async with told(Sending(node, peer, files).run) as happening:
        yield happening
