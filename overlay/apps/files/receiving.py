"""Receive files that peers send, into one directory: with consent, one after the other.

Who is named beforehand may send; about anybody else the user is asked, or, with nobody to ask, the
offer is refused. Bytes are hashed and written in threads while the next ones come.

Rows: ``ready``; ``offered`` (with a ``question`` to be answered, or None), ``refused``; for each
file ``started``, ``progress``, ``received``; ``failed`` ends an offer, not the receiving.
"""

import errno
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from overlay.api import Feed, Node, Stream
from overlay.apps.files import wire
from overlay.apps.files.names import fault_of, shown
from overlay.apps.files.part import CHUNK, Part, Taken, Unsafe
from overlay.apps.files.telling import Progress, Row, Rows, Teller, alone, told
from overlay.apps.files.wire import Begin, Entry, Have, Kept, Nonsense, Offer, Whole, Wire
from overlay.errors import CommandFailed, Failure

OFFER_TIMEOUT = 30.0
"""Seconds for the offer to come once a stream is open (guess)."""
OFFERS_MAX = 4
"""Offers of one peer that may wait (guess)."""
BUFFERS = 3
"""Pieces of `CHUNK` bytes: one is filled, one written, one in between."""
SETTLE_EVERY = 32 << 20
"""Bytes after which the disk is asked to take what was written, so that the end need not wait."""
HASHED_AT_ONCE = 64 << 20
HAND_OVER_AFTER = 1.0
"""Seconds after which what has come is written, however little: it is lost with this process."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a disk says that takes no more (EFBIG: this file may not become longer)."""


class Questions:
    """What users have been asked and not answered yet, by a word that only the asked one knows."""

    def __init__(self) -> None:
        self._open: dict[str, Question] = {}

    def ask(self) -> "Question":
        """A new question."""
        question = Question()
        self._open[question.word] = question
        return question

    def forget(self, question: "Question") -> None:
        """It needs no answer any more."""
        del self._open[question.word]

    def answer(self, word: str, *, accept: bool) -> None:
        """The user has decided; CommandFailed: nobody waits for it any more."""
        question = self._open.get(word)
        if question is None:
            raise CommandFailed(Failure.CLOSED, "the sender has gone before it was answered")
        question.accepted = accept
        question.answered.set()


@dataclass(slots=True)
class Question:
    """Whether somebody's files are welcome."""

    word: str = field(default_factory=lambda: secrets.token_hex(8))
    answered: trio.Event = field(default_factory=trio.Event)
    accepted: bool = False


class Refused(Exception):
    """The offer is not taken: the code for the sender, the text for our own user."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Failed(Exception):
    """A file cannot be taken: what the sender, programs and our own user are told."""

    def __init__(self, reset: int, code: Failure, text: str) -> None:
        super().__init__(text)
        self.reset = reset
        self.code = code
        self.text = text


@dataclass(slots=True)
class Incoming:
    """An offer that is being dealt with."""

    talk: Wire
    peer_id: str
    name: str
    """What the sender calls itself."""
    files: list[Entry] = field(default_factory=list)
    file: str | None = None
    """Which of them is being received."""
    kept: int = 0
    """How many bytes of it are kept as its part."""

    @property
    def who(self) -> dict[str, str]:
        """The sender, in rows."""
        return {"peer_id": self.peer_id, "name": self.name}


class Receiving:
    """What one command receives: into its directory, from whom it says."""

    def __init__(
        self,
        node: Node,
        path: str,
        directory: int,
        senders: Collection[str],
        questions: Questions | None,
    ) -> None:
        """`directory`: open. `senders`: peer ids; none: ask. `questions` None: nobody is there."""
        self._node = node
        self._path = path
        self._directory = directory
        self._senders = senders
        self._questions = questions
        self._turn = trio.Lock()
        self._offers: Counter[str] = Counter()

    async def run(self, arrivals: Feed[Stream], teller: Teller) -> None:
        """Meet every stream that comes, until the node leaves."""
        await teller.tell("ready", directory=self._path)
        async with trio.open_nursery() as nursery:
            async for stream in arrivals:
                if self._offers[stream.peer_id] >= OFFERS_MAX:
                    stream.reset(wire.BUSY)
                    continue
                self._offers[stream.peer_id] += 1
                nursery.start_soon(self._meet, stream, teller)
            nursery.cancel_scope.cancel()

    async def _meet(self, stream: Stream, teller: Teller) -> None:
        """One offer to its end: whatever goes wrong with it is its sender's, or told."""
        names = {each.peer_id: each.name for each in self._node.peers(everybody=True)}
        offer = Incoming(Wire(stream), stream.peer_id, names.get(stream.peer_id, ""))
        try:
            last = await self._deal_with(offer, teller)
        except Refused as error:
            stream.reset(error.code)
            files = _listed(offer.files)
            await teller.tell("refused", **offer.who, files=files, text=error.text)
        except Failed as error:
            stream.reset(error.reset)
            await self._tell_failed(offer, teller, error.code, error.text)
        except Nonsense:
            stream.reset(wire.PROTOCOL_BROKEN)
            text = "it says what is not understood: is its overlay newer?"
            await self._tell_failed(offer, teller, Failure.PROTOCOL, text)
        except trio.BrokenResourceError as error:
            await self._tell_failed(offer, teller, Failure.BROKEN, _why(error))
        except BaseException:
            stream.reset(wire.STOPPED)
            raise
        else:  # whoever is told that all has come may end us: the stream is closed by now
            await teller.tell("received", **offer.who, **last)
        finally:
            self._offers[stream.peer_id] -= 1
            self._offers += Counter()  # forgets whom it counts no more

    async def _tell_failed(self, offer: Incoming, teller: Teller, code: Failure, text: str) -> None:
        if offer.files:  # else it was no offer yet
            facts = {"files": _listed(offer.files), "file": offer.file, "kept": offer.kept}
            await teller.tell("failed", **offer.who, **facts, code=code, text=text)

    async def _deal_with(self, offer: Incoming, teller: Teller) -> Row:
        """Take all files of an offer; the row of the last one, which is still to be told."""
        with trio.move_on_after(OFFER_TIMEOUT) as scope:
            offer.files = (await offer.talk.hear(Offer)).files
        if scope.cancelled_caught:
            raise Nonsense("no offer")
        self._check(offer)
        async with self._turn:
            await self._agree(offer, teller)
            for number, entry in enumerate(offer.files, 1):
                row = await self._take(offer, entry, teller)
                if number < len(offer.files):
                    await teller.tell("received", **offer.who, **row)
            await offer.talk.stream.aclose()
        return row

    def _check(self, offer: Incoming) -> None:
        """Refused: what need not be asked about."""
        for entry in offer.files:
            if fault := fault_of(entry.name):
                raise Refused(wire.BAD_NAME, f"its name {fault}")
        if self._senders and offer.peer_id not in self._senders:
            raise Refused(wire.DECLINED, "--from names somebody else")
        if not self._senders and self._questions is None:
            command = f"overlay receive --from {shown(offer.name) or offer.peer_id}"
            text = f"there is no terminal to ask at: `{command}` takes it without asking"
            raise Refused(wire.NOBODY, text)

    async def _agree(self, offer: Incoming, teller: Teller) -> None:
        """Return when the offer is welcome; Refused."""
        facts = {**offer.who, "files": _listed(offer.files)}
        if self._senders or self._questions is None:
            await teller.tell("offered", **facts, question=None)
            return
        question = self._questions.ask()
        try:
            await teller.tell("offered", **facts, question=question.word)
            with alone():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_never_speaks, offer.talk)
                    await question.answered.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self._questions.forget(question)
        if not question.accepted:
            raise Refused(wire.DECLINED, "you have declined it")

    # --- one file ------------------------------------------------------------------------------

    async def _take(self, offer: Incoming, entry: Entry, teller: Teller) -> Row:
        """One file, until it has its name; the row that says so. Failed: why not."""
        offer.file, offer.kept = entry.name, 0
        try:
            part = await trio.to_thread.run_sync(Part.open, self._directory, entry.name)
            try:
                return await self._fill(offer.talk, entry, part, teller)
            finally:
                offer.kept = part.close()
        except (OSError, Unsafe, Taken) as error:
            raise _fault(error, entry.name) from None

    async def _fill(self, talk: Wire, entry: Entry, part: Part, teller: Teller) -> Row:
        if 0 < part.held <= entry.size:
            facts = {"bytes": part.held, "size": entry.size}
            await teller.tell("checking", file=entry.name, **facts)
            while not await trio.to_thread.run_sync(part.hash_more, HASHED_AT_ONCE):
                pass
        self._check_room(entry, part)
        await talk.say(Have(part.size, part.digest))
        offset = (await talk.hear(Begin)).offset
        if offset not in (0, part.size):
            raise Nonsense("it goes on from where nothing is")
        await trio.to_thread.run_sync(part.go_on, offset)
        await teller.tell("started", file=entry.name, size=entry.size, offset=offset)
        progress = Progress(teller, entry.name, entry.size, offset)
        await Pump(talk, part, entry.size, progress).run()
        if (await talk.hear(Whole)).digest != part.digest:
            part.discard()
            text = "it arrived damaged, and was thrown away: it has to be sent again"
            raise Failed(wire.DAMAGED, Failure.FAILED, text)
        name = await trio.to_thread.run_sync(part.finish)
        await talk.say(Kept(name))
        done = {"size": entry.size, "offset": offset, "seconds": progress.seconds}
        path = os.path.join(self._path, name)
        return {"file": entry.name, "path": path, "digest": part.digest.hex(), **done}

    def _check_room(self, entry: Entry, part: Part) -> None:
        """Failed: the rest of the file does not fit on the disk."""
        disk = os.fstatvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        if entry.size - part.held > free:
            text = f"{entry.size - part.held} bytes are to come, and the disk has room for {free}"
            raise Failed(wire.NO_SPACE, Failure.FAILED, text)


class Pump:
    """The bytes of one file on their way from the stream to its part."""

    def __init__(self, talk: Wire, part: Part, end: int, progress: Progress) -> None:
        self._talk = talk
        self._part = part
        self._end = end
        self._progress = progress
        self._full, self._to_write = trio.open_memory_channel[tuple[memoryview, int]](BUFFERS)
        self._written, self._empty = trio.open_memory_channel[memoryview](BUFFERS)
        self._settled = part.size
        self._is_settling = False

    async def run(self) -> None:
        """Until all has been written; what came is written however the stream ends."""
        ended: Exception | None = None
        for _ in range(BUFFERS):
            self._written.send_nowait(memoryview(bytearray(CHUNK)))
        with alone():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery)
                try:
                    await self._read()
                except (trio.BrokenResourceError, Nonsense) as error:
                    ended = error
        if ended is not None:
            raise ended

    async def _read(self) -> None:
        left = self._end - self._part.size
        async with self._full:
            while left:
                buffer = await self._empty.receive()
                hand_over_at = trio.current_time() + HAND_OVER_AFTER
                filled = 0
                try:
                    while filled < min(left, CHUNK) and trio.current_time() < hand_over_at:
                        count = await self._talk.some_into(buffer[filled : filled + left])
                        filled += count
                        self._progress.add(count)
                        left -= count
                finally:
                    self._full.send_nowait((buffer, filled))

    async def _write(self, nursery: trio.Nursery) -> None:
        async for buffer, filled in self._to_write:
            await trio.to_thread.run_sync(self._part.write, buffer[:filled])
            if self._part.size - self._settled >= SETTLE_EVERY and not self._is_settling:
                self._is_settling = True
                nursery.start_soon(self._settle)
            self._written.send_nowait(buffer)

    async def _settle(self) -> None:
        size = self._part.size
        await trio.to_thread.run_sync(self._part.settle)
        self._settled, self._is_settling = size, False


async def _never_speaks(talk: Wire) -> None:
    """The sender has nothing to say until we agree; trio.BrokenResourceError when it goes."""
    await talk.silence()
    raise Nonsense("it goes on without consent")


def _listed(files: list[Entry]) -> list[Row]:
    return [{"file": entry.name, "size": entry.size} for entry in files]


def _fault(error: Exception, name: str) -> Failed:
    """What is wrong here, in words for the sender, for programs and for our own user."""
    match error:
        case Taken():
            return Failed(wire.TAKEN, Failure.BUSY, f"another {name} is being received here now")
        case OSError() if error.errno in FULL:
            return Failed(wire.NO_SPACE, Failure.FAILED, f"the disk is full ({error.strerror})")
        case OSError():
            text = f"it cannot be written: {error.strerror}"
            return Failed(wire.CANNOT_WRITE, Failure.FAILED, text)
        case _:
            return Failed(wire.CANNOT_WRITE, Failure.FAILED, str(error))


def _why(error: trio.BrokenResourceError) -> str:
    """Why nothing more comes."""
    reasons = {
        wire.STOPPED: "the sender has stopped",
        wire.CANCELLED: "the sender has stopped",
        wire.CHANGED: "it has changed at the sender while it was being sent",
        wire.UNREADABLE: "the sender cannot read it",
    }
    code = wire.code_of(error)
    return str(error) if code is None else reasons.get(code, str(error))


@asynccontextmanager
async def rows(
    node: Node, directory: str, senders: Collection[str], questions: Questions | None
) -> AsyncIterator[Rows]:
    """Receive into a directory for as long as the context is open; what happens there.

    `senders`: the ids of the peers that may send, the others may not; none: the user is asked, or
    nobody may where `questions` is None.
    """
    opened = await trio.to_thread.run_sync(_open, directory)
    try:
        async with _accepted(node) as arrivals:
            receiving = Receiving(node, directory, opened, senders, questions)
            async with told(partial(receiving.run, arrivals)) as happening:
                yield happening
    finally:
        os.close(opened)


def _open(directory: str) -> int:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        text = f"there is no directory {shown(directory)}: make it first"
        raise CommandFailed(Failure.USAGE, text) from None
    except OSError as error:
        text = f"nothing can be received into {shown(directory)}: {error.strerror}"
        raise CommandFailed(Failure.USAGE, text) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        os.close(descriptor)
        text = f"nothing can be received into {shown(directory)}: it may not be written to"
        raise CommandFailed(Failure.USAGE, text)
    return descriptor


def _accepted(node: Node) -> Feed[Stream]:
    try:
        return node.accept_streams(wire.PROTOCOL)
    except CommandFailed as error:
        if error.code != Failure.BUSY:
            raise
        text = "`overlay receive` runs at this node already: end that one first"
        raise CommandFailed(Failure.BUSY, text) from None
