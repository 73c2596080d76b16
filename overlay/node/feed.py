"""A bounded queue from the node's loop to one reader, who learns when it was too slow."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

import trio

from overlay.errors import CommandFailed

MAX_WAITING = 1_024
"""Items that may wait for one reader; beyond it its feed ends (guess)."""

T = TypeVar("T")


class Feed(Generic[T]):
    """`overlay.api.Feed`: put into without waiting, read with ``async for``."""

    def __init__(self, on_close: Callable[[], None] = lambda: None) -> None:
        """`on_close` is called once: when the reader closes it, or when it overflows."""
        self._send, self._receive = trio.open_memory_channel[T](MAX_WAITING)
        self._on_close = on_close
        self._closed = False
        self.overflowed = False

    def put(self, item: T) -> None:
        """Queue it, or end the feed: a gap must not go unnoticed."""
        if self._closed:
            return
        try:
            self._send.send_nowait(item)
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
                found.append(self._receive.receive_nowait())
        return found

    async def get(self) -> T:
        """The next item; trio.EndOfChannel at the end; CommandFailed ``overflow``."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if not self.overflowed:
                raise
            raise CommandFailed(
                "overflow",
                f"more came than was read ({MAX_WAITING} waited): the subscription has ended; "
                "subscribe again",
            ) from None
        except trio.ClosedResourceError:
            raise CommandFailed("closed", "this feed has been closed by its reader") from None

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
