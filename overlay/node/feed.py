"""A bounded queue from the node's loop to one reader, who learns when it was too slow."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

import trio

from overlay.errors import CommandFailed, Failure

MAX_WAITING = 1_024
"""Items that may wait for one reader; beyond it its feed ends (guess)."""
MAX_WAITING_BYTES = 64 << 20
"""The same for the bytes of messages (guess)."""

T = TypeVar("T")


class Feed(Generic[T]):
    """`overlay.api.Feed`: put into without waiting, read with ``async for``."""

    def __init__(
        self,
        on_close: Callable[[], None] = lambda: None,
        size_of: Callable[[T], int] = lambda _: 0,
    ) -> None:
        """`on_close` is called once: when the reader closes it, or when it overflows.

        `size_of`: the bytes of an item that count.
        """
        self._send, self._receive = trio.open_memory_channel[T](MAX_WAITING)
        self._on_close = on_close
        self._size_of = size_of
        self._size = 0
        self._closed = False
        self.overflowed = False

    def put(self, item: T) -> None:
        """Queue it, or end the feed: a gap must not go unnoticed."""
        if self._closed:
            return
        size = self._size_of(item)
        try:
            if self._size + size > MAX_WAITING_BYTES:
                raise trio.WouldBlock
            self._send.send_nowait(item)
            self._size += size
        except trio.WouldBlock:
            self.overflowed = True
            self.end()

    def end(self) -> None:
        """No more will come; what waits can still be read."""
        self._send.close()
        if not self._closed:
            self._closed = True
            self._on_close()

    def close(self) -> None:
        """See `overlay.api.Feed.close`."""
        self.end()
        self._receive.close()

    @property
    def waiting(self) -> int:
        """How many items wait for the reader."""
        return self._receive.statistics().current_buffer_used

    def drain(self) -> list[T]:
        """Take all that wait."""
        found: list[T] = []
        with suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                found.append(self._taken(self._receive.receive_nowait()))
        return found

    def _taken(self, item: T) -> T:
        self._size -= self._size_of(item)
        return item

    async def get(self) -> T:
        """The next item; trio.EndOfChannel at the end; CommandFailed ``overflow``."""
        try:
            return self._taken(await self._receive.receive())
        except trio.EndOfChannel:
            if not self.overflowed:
                raise
            raise CommandFailed(
                Failure.OVERFLOW,
                f"more came than was read (at most {MAX_WAITING} items of "
                f"{MAX_WAITING_BYTES >> 20} MiB in all may wait): the subscription has ended; "
                "subscribe again",
            ) from None
        except trio.ClosedResourceError:
            raise CommandFailed(Failure.CLOSED, "this feed has been closed by its reader") from None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
