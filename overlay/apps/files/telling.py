"""How a transfer is told to whoever asked for it: rows from its task, its progress among them.

Rows of progress are dropped while nobody reads, so that a stopped terminal delays no transfer.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import trio

from overlay.errors import CommandFailed

Row = dict[str, Any]
"""``{"event": …}``; which events there are, `overlay.apps.files.sending` and `receiving` say."""
Rows = AsyncIterator[Row]

ROOM = 64
"""Rows that may wait for a reader (guess)."""
PROGRESS_INTERVAL = 0.25
RATE_WINDOW = 3.0
"""Seconds over which a rate is measured: less jumps, more lags behind (guess)."""


class Teller:
    """The writing end of the rows."""

    def __init__(self, channel: "trio.MemorySendChannel[Row | CommandFailed]") -> None:
        self._channel = channel

    async def tell(self, event: str, **facts: Any) -> None:
        """A row that must be read."""
        await self._channel.send({"event": event, **facts})

    def mention(self, event: str, **facts: Any) -> None:
        """A row that the next one like it makes up for."""
        try:
            self._channel.send_nowait({"event": event, **facts})
        except trio.WouldBlock:
            pass


Work = Callable[[Teller], Awaitable[None]]


@asynccontextmanager
async def told(work: Work) -> AsyncIterator[Rows]:
    """Run `work` while the context is open; its rows, and then the CommandFailed that ended it."""
    send, receive = trio.open_memory_channel[Row | CommandFailed](ROOM)

    async def run() -> None:
        async with send:
            try:
                await work(Teller(send))
            except CommandFailed as error:
                await send.send(error)

    async def rows() -> AsyncGenerator[Row, None]:
        async for row in receive:
            if isinstance(row, CommandFailed):
                raise row
            yield row

    with alone():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            async with aclosing(rows()) as found:
                yield found
            nursery.cancel_scope.cancel()


class Progress:
    """How far one file has come, how fast it goes now, and how long the rest will take."""

    def __init__(self, teller: Teller, file: str, size: int, offset: int) -> None:
        self._teller = teller
        self._file, self._size, self._bytes = file, size, offset
        self._began_at = self._told_at = trio.current_time()
        self._seen = deque([(self._began_at, offset)])

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return trio.current_time() - self._began_at

    def add(self, count: int) -> None:
        """So many bytes more have gone or come; tell it, if it is time."""
        self._bytes += count
        now = trio.current_time()
        if now < self._told_at + PROGRESS_INTERVAL:
            return
        self._told_at = now
        self._seen.append((now, self._bytes))
        while self._seen[1][0] < now - RATE_WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (self._bytes - before) / (now - since)
        left = (self._size - self._bytes) / rate if rate else None
        done = {"bytes": self._bytes, "size": self._size, "rate": rate, "left": left}
        self._teller.mention("progress", file=self._file, **done)


@contextmanager
def alone() -> Iterator[None]:
    """Errors of a nursery as they were raised, without the group: the first, if there are more."""
    try:
        yield
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None
