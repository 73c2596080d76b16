"""Which packets a machine sends and gets, as a sniffer on its interface sees them.

The core counts what crosses the internet; this also sees what stays on a LAN, such as discovery
and requests to the router. Layouts: packet(7), RFC 791, RFC 8200 (extension headers are skipped
nowhere: such packets have their number for a protocol).
"""

import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.lab.nat.machines import Host

_EVERY_PROTOCOL = 0x0300
"""ETH_P_ALL in network order, as the third argument of socket(2) wants it."""
_IPV4, _IPV6 = 0x0800, 0x86DD
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_PATIENCE = 0.05
_TIMESTAMPS = 35
"""SO_TIMESTAMPNS, which the socket module does not name."""
_TIMESPEC = struct.Struct("@qq")
_ROOM = socket.CMSG_SPACE(_TIMESPEC.size)


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet; the ports are 0 where its protocol has none."""

    outgoing: bool
    source: str
    source_port: int
    destination: str
    destination_port: int
    protocol: str
    payload: bytes
    """What follows the headers of UDP; of other protocols, what follows the IP header."""
    at: float
    """When the kernel saw it, in seconds of `time.time`."""


class Capture:
    """Collects the IP packets of a host's ``eth0`` while its block runs."""

    def __init__(self, host: Host, interface: str = "eth0") -> None:
        self.packets: list[Packet] = []
        self._socket = host.call(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, _EVERY_PROTOCOL)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        self._socket.bind((interface, 0))
        self._socket.settimeout(_PATIENCE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    @property
    def sent(self) -> list[Packet]:
        """What the host itself has sent so far."""
        return [packet for packet in self.packets if packet.outgoing]

    def _collect(self) -> None:
        """Until told to stop and nothing waits."""
        while True:
            try:
                data, told, _, (_, protocol, kind, *_) = self._socket.recvmsg(65536, _ROOM)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            outgoing = kind == socket.PACKET_OUTGOING
            seconds, nanoseconds = _TIMESPEC.unpack(told[0][2])
            at = seconds + nanoseconds / 1e9
            if (packet := _parsed(data, protocol, at, outgoing=outgoing)) is not None:
                self.packets.append(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


def _parsed(data: bytes, ether_type: int, at: float, *, outgoing: bool) -> Packet | None:
    if ether_type == _IPV4:
        protocol, body = data[9], data[(data[0] & 15) * 4 :]
        source, destination = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    elif ether_type == _IPV6:
        protocol, body = data[6], data[40:]
        source = socket.inet_ntop(socket.AF_INET6, data[8:24])
        destination = socket.inet_ntop(socket.AF_INET6, data[24:40])
    else:
        return None
    ports = (0, 0)
    if protocol in {6, 17} and len(body) >= 8:
        ports = struct.unpack_from("!HH", body)
        body = body[8:] if protocol == 17 else body
    name = _NAMES.get(protocol, str(protocol))
    return Packet(outgoing, source, ports[0], destination, ports[1], name, body, at)
