"""Further UDP ports, each open for some seconds: how a NAT treats them is compared with ours."""

import logging
from collections.abc import Callable

import trio

from overlay.core.events import Event, OpenPort, PortHeard, PortOpened, SendFrom
from overlay.core.types import Address, PortId
from overlay.errors import ConfigError
from overlay.transport.udp.sockets import DATAGRAM_BYTES, UdpSocket

PORTS_MAX = 32
"""Ports open at once besides the node's own (guess); the core wants fewer."""
HEARD_MAX = 64
"""Datagrams that one of them takes in its life (guess): strangers may send there, too."""
SECONDS_MAX = 180.0
"""The longest that one is open (guess): longer than any mapping that is measured."""

log = logging.getLogger("overlay.transport")


class Ports:
    """Those that are open now."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._open: dict[PortId, UdpSocket] = {}

    async def serve(self, effect: OpenPort) -> None:
        """Be that port until its time is up."""
        port = effect.port
        if port in self._open or len(self._open) >= PORTS_MAX:
            return
        try:
            socket = UdpSocket(Address(effect.host, 0))
        except ConfigError as error:  # an address that has just gone, say
            log.debug("another port: %s", error)
            return
        self._open[port] = socket
        try:
            self._emit(PortOpened(port, socket.address))
            with trio.move_on_after(min(effect.seconds, SECONDS_MAX)):
                await self._listen(port, socket)
        finally:
            del self._open[port]
            socket.close()

    async def _listen(self, port: PortId, socket: UdpSocket) -> None:
        left = HEARD_MAX

        def on_datagram(data: bytes, remote: Address, _: Address | None) -> None:
            nonlocal left
            if left and len(data) < DATAGRAM_BYTES:
                left -= 1
                self._emit(PortHeard(port, data, remote))

        await socket.read(on_datagram, lambda *_: None, lambda: None, lambda _: None)

    def send(self, effect: SendFrom) -> None:
        """From the port if it is open still; what cannot be sent is lost."""
        socket = self._open.get(effect.port)
        if socket is not None and socket.is_ipv6 == (":" in effect.remote.host):
            socket.send(effect.data, effect.remote, None)
