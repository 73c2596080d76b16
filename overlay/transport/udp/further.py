"""Sockets of the node besides its own, over which links may run: what NATs make necessary.

Each reads as the node's own socket does, and what comes in says at which of them. They are opened
and closed as the endpoint says, which bounds them.
"""

import logging
from collections.abc import Callable

import trio

from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.transport.udp.sockets import OnCircuit, OnDatagram, OnRefused, UdpSocket

FURTHER_MAX = 512
"""At once: those of one technique, and those over which links run (guess)."""

DESCRIPTORS_MIN = 384
"""What a process must be allowed for a technique that takes 256 sockets (guess): half as many again
for all else that is open."""

log = logging.getLogger("overlay.transport")


class FurtherSockets:
    """Those that are open, by address; `sockets` is for who sends."""

    def __init__(
        self,
        on_datagram: OnDatagram,
        on_circuit: OnCircuit,
        after_burst: Callable[[], None],
        on_refused: OnRefused,
    ) -> None:
        self.sockets: dict[Address, UdpSocket] = {}
        self._scopes: dict[Address, trio.CancelScope] = {}
        self._handlers = (on_datagram, on_circuit, after_burst, on_refused)

    def open(self, host: str, count: int, nursery: trio.Nursery) -> tuple[Address, ...]:
        """Open so many, or as many as there can be; returns their addresses."""
        opened = list[Address]()
        for _ in range(min(count, FURTHER_MAX - len(self.sockets))):
            try:
                socket = UdpSocket(Address(host, 0))
            except (ConfigError, OSError) as error:  # no such address any more, no descriptors
                log.debug("another socket: %s", error)
                break
            self.sockets[socket.address] = socket
            scope = self._scopes[socket.address] = trio.CancelScope()
            nursery.start_soon(self._read, socket, scope)
            opened.append(socket.address)
        return tuple(opened)

    async def _read(self, socket: UdpSocket, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await socket.read(*self._handlers)
        finally:
            socket.close()

    def close(self, addresses: tuple[Address, ...]) -> None:
        """Close these, if they are open: soon, when their readers have had their turn."""
        for address in addresses:
            if self.sockets.pop(address, None) is not None:
                self._scopes.pop(address).cancel()


def has_descriptors() -> bool:
    """Whether this process may open hundreds of sockets beside all else (RLIMIT_NOFILE)."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return True
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= DESCRIPTORS_MIN
