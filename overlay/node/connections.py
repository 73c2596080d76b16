"""One idea: the connections that are open on the control socket are few, and who waits is told.

How many there may be is far below what the process may open, so that commands never cost a node its
own sockets: for one too many the longest idle one is closed, and where all are at work the newcomer
hears that the node is busy. While a request is worked on, whoever asked gets a sign of life twice a
second until the answer begins; so three seconds of silence mean that the node is stopped. All this
goes on before there is an HTTP server, which takes a while to import.
"""

import errno
import logging
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from overlay.errors import Failure

MOST, FEWEST = 128, 4
"""Connections that may be open at once (guess)."""
SHARE = 4
"""One part in so many of the descriptors that this process may open (guess)."""
SIGN = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What every client of HTTP has to pass over while it waits (RFC 9110 section 15.2.1)."""
SIGN_INTERVAL = 0.5
"""Seconds between two signs of life (guess): six fit into what a client waits."""
PAUSE = 0.1
"""Seconds without accepting while this process has no descriptor left (guess)."""
LAST_WORDS_TIMEOUT = 0.2
"""Seconds for the request of somebody who is turned away (guess)."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("overlay.control")


class Connection:
    """One open connection: its stream, and how far its request has come."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.stream = trio.SocketStream(sock)
        self.scope = trio.CancelScope()
        self.is_idle = True
        """No request of it is worked on, so it may be closed for another's sake."""

    def sign(self) -> None:
        """Say that we live; a reader who takes nothing more misses it."""
        with suppress(OSError):
            os.write(self.stream.socket.fileno(), SIGN)

    def end(self) -> None:
        """Close it, whatever it is doing."""
        self.scope.cancel()
        self.stream.socket.close()


Serve = Callable[[Connection], Awaitable[None]]
"""Answers the requests of one connection until it ends."""


def most_connections() -> int:
    """How many connections this process can afford."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MOST
    return max(FEWEST, min(MOST, allowed // SHARE))


class Connections:
    """Accepts on `listener` (bound, listening; ours from now on) while `run` runs."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = trio.socket.from_stdlib_socket(listener)
        self._most = most_connections()
        self._open: dict[Connection, None] = {}  # the longest open first
        self._waiting: dict[Connection, None] = {}  # whose answers have not begun
        self._has_waiting = trio.Event()
        self._serve: Serve | None = None
        self._is_served = trio.Event()
        self._ended = trio.Event()
        self._is_warned = False

    async def run(self) -> None:
        """Accept, and give signs of life, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give_signs)
                await self._accept(nursery)
        finally:
            self._listener.close()

    def serve(self, serve: Serve) -> None:
        """Have the connections answered from now on, those that wait first."""
        self._serve = serve
        self._is_served.set()

    async def close(self, grace: float) -> None:
        """Accept no more, and end all that are open; answers under way get `grace` seconds."""
        self._listener.close()
        with trio.move_on_after(grace):
            while self._open:
                self._ended = trio.Event()
                await self._ended.wait()
        for connection in list(self._open):
            connection.end()

    def begin(self, connection: Connection) -> None:
        """A request has come: give signs of life until its answer begins."""
        connection.is_idle = False
        self._waiting[connection] = None
        self._has_waiting.set()

    def answer(self, connection: Connection) -> None:
        """The answer begins."""
        self._waiting.pop(connection, None)

    def finish(self, connection: Connection) -> None:
        """The answer has ended; it is as good as a new connection."""
        self.answer(connection)
        connection.is_idle = True

    # --- accepting ---------------------------------------------------------------------------

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                sock, _ = await self._listener.accept()
            except (OSError, trio.ClosedResourceError) as error:
                if self._listener.fileno() < 0:  # we have closed it
                    return
                await self._pause(error)
                continue
            connection = Connection(sock)
            if len(self._open) < self._most or self._close_an_idle_one():
                self._open[connection] = None
                nursery.start_soon(self._live, connection)
            else:
                await self._turn_away(connection)

    async def _pause(self, error: Exception) -> None:
        """Accept none while the process has too many files open: who knocks may wait."""
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            raise error
        if not self._is_warned:
            log.warning("no command can be heard for now: %s (see `ulimit -n`)", error.strerror)
            self._is_warned = True
        self._close_an_idle_one()
        await trio.sleep(PAUSE)

    def _close_an_idle_one(self) -> bool:
        """Whether there was one to close."""
        for connection in self._open:
            if connection.is_idle:
                del self._open[connection]
                connection.end()
                return True
        return False

    async def _turn_away(self, connection: Connection) -> None:
        """Say that too many commands are under way; who has not asked yet hears nothing."""
        with trio.move_on_after(LAST_WORDS_TIMEOUT), suppress(trio.BrokenResourceError):
            if await connection.stream.receive_some():
                await connection.stream.send_all(busy(self._most))
        connection.end()

    # --- one connection ------------------------------------------------------------------------

    async def _live(self, connection: Connection) -> None:
        try:
            with connection.scope, suppress(trio.ClosedResourceError):
                await trio.lowlevel.checkpoint_if_cancelled()  # it may have been closed since
                await self._await_server(connection)
                assert self._serve is not None
                await self._serve(connection)
        finally:
            self._open.pop(connection, None)
            self._waiting.pop(connection, None)
            connection.stream.socket.close()
            self._ended.set()

    async def _await_server(self, connection: Connection) -> None:
        if self._is_served.is_set():
            return
        await trio.lowlevel.wait_readable(connection.stream.socket.fileno())
        self.begin(connection)
        await self._is_served.wait()
        self.finish(connection)

    async def _give_signs(self) -> None:
        while True:
            await self._has_waiting.wait()
            while self._waiting:
                await trio.sleep(SIGN_INTERVAL)
                for connection in self._waiting:
                    connection.sign()
            self._has_waiting = trio.Event()


def busy(most: int) -> bytes:
    """The whole answer to a command for which there is no room."""
    text = f"{most} commands are under way, as many as this node takes: end one, or try again later"
    body = msgspec.json.encode({"error": {"code": Failure.BUSY, "text": text}})
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body
