"""UDP sockets that trio reads itself: one for each address family, answers from where it was asked.

Measured: asyncio's datagram transport allocates 256 KiB a call and wakes once a packet; one wait
and then reading until the kernel has no more moves twice the bytes.
"""

import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable

import trio

from overlay.core.endpoint.circuits import FIRST, PAST
from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.transport.udp.interfaces import WILDCARDS

BUFFER_BYTES = 4 << 20
"""Asked for in both directions; the kernel may grant less (measured)."""
DATAGRAM_BYTES = 2048
BURST = 64
"""Datagrams read before the other tasks get a turn (measured)."""
PORTS_TRIED = 64
"""Random ports that are tried until one is free in both families (guess): with four of five taken
in one of them, all are in one start of a million."""

# Linux's numbers; Python names only some of them on each platform.
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
_IPV6_PKTINFO = getattr(socket, "IPV6_PKTINFO", 50)
_IPV6_RECVPKTINFO = getattr(socket, "IPV6_RECVPKTINFO", 49)
# How Linux sends what may be too large for the path (ip(7), ipv6(7)).
_MTU_DISCOVER = {False: (socket.IPPROTO_IP, 10), True: (socket.IPPROTO_IPV6, 23)}  # by `is_ipv6`
_PMTUDISC_DONT, _PMTUDISC_PROBE = 0, 3
_IPV6_MTU = 24
_IPV6_LEAST = 1280
_TTL = {  # by `is_ipv6`
    False: (socket.IPPROTO_IP, socket.IP_TTL),
    True: (socket.IPPROTO_IPV6, getattr(socket, "IPV6_HOPLIMIT", 52)),
}
_TTL_VALUE = struct.Struct("=i")
_IN_PKTINFO = struct.Struct("=i4s4s")
_IN6_PKTINFO = struct.Struct("=16si")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_IN6_PKTINFO.size)
_MAX_KNOWN_LOCALS = 256
_LINK_LOCAL = "fe80:"

# Errors of datagrams sent earlier, as ICMP tells them (ip(7), IP_RECVERR; sock_extended_err).
_RECVERR = {False: (socket.IPPROTO_IP, 11), True: (socket.IPPROTO_IPV6, 25)}  # by `is_ipv6`
_MSG_ERRQUEUE = 0x2000
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ERROR_ANCILLARY_BYTES = socket.CMSG_SPACE(_EXTENDED_ERROR.size + 28) + _ANCILLARY_BYTES
_PORT_UNREACHABLE = {(2, 3, 3), (3, 1, 4)}
"""Origin, type and code: of ICMP (RFC 792) and of ICMPv6 (RFC 4443 §3.1)."""
IS_LINUX = sys.platform == "linux"
OnDatagram = Callable[[bytes, Address, Address | None], None]
OnCircuit = Callable[[bytes, Address, Address | None, float], None]
OnRefused = Callable[[Address], None]

log = logging.getLogger("overlay.transport")


class UdpSocket:
    """One bound socket. With a wildcard address it knows which address each datagram came to."""

    def __init__(self, address: Address) -> None:
        """Bind to `address`; port 0 takes a free one. ConfigError: it cannot."""
        self.zones: tuple[int, ...] = ()
        """The interfaces on which a link-local address may be (RFC 4007 §6), if there are any."""
        self._zones_of: dict[str, tuple[int, ...]] = {}
        self._family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._wildcard = address.host in WILDCARDS
        self._locals: dict[bytes, Address] = {}
        self._ancillary: dict[str, list[tuple[int, int, bytes]]] = {}
        self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            self._prepare()
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise _cannot_listen(address, error) from None
        name = self._socket.getsockname()
        self.address = Address(name[0], name[1])

    def _prepare(self) -> None:
        sock = self._socket
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        if self._family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if IS_LINUX:
                # IPv6 cuts at the source, and every path carries this much (RFC 8200 §5).
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU, _IPV6_LEAST)
        if IS_LINUX:
            sock.setsockopt(*_RECVERR[self.is_ipv6], 1)
        if self._wildcard and self._family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        elif self._wildcard:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    @property
    def window(self) -> int:
        """Bytes of user data that fit the kernel's buffer while we are not reading.

        Linux counts each packet of ours, 1.2 KiB, as 2.3 KiB against what it grants. measured
        """
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) * 3 // 8

    @property
    def is_ipv6(self) -> bool:
        return self._family == socket.AF_INET6

    async def read(
        self,
        on_datagram: OnDatagram,
        on_circuit: OnCircuit,
        after_burst: Callable[[], None],
        on_refused: OnRefused,
    ) -> None:
        """Hand on every datagram, for ever; `after_burst` once after each batch of them.

        `on_circuit` gets those of circuits (RFC 7983), and when their batch was begun.
        `on_refused`: the host of this address says that nobody listens at that port there.
        """
        receive = self._receive_with_info if self._wildcard else self._receive
        while True:
            await trio.lowlevel.wait_readable(self._socket.fileno())
            now = trio.current_time()
            for count in range(BURST):
                try:
                    received = receive()
                except BlockingIOError:
                    if not count:
                        self._read_errors(on_refused)  # they wake us, too
                    break
                except OSError as error:
                    # An ICMP error for something sent earlier: says nothing about this socket.
                    log.debug("receiving: %s", error)
                    self._read_errors(on_refused)
                    continue
                if received is None:
                    continue
                if FIRST <= received[0][0] < PAST:
                    on_circuit(*received, now)
                else:
                    on_datagram(*received)
            after_burst()

    def _read_errors(self, on_refused: OnRefused) -> None:
        """What ICMP messages say of datagrams that we have sent."""
        for _ in range(BURST if IS_LINUX else 0):
            try:
                _, ancillary, _, remote = self._socket.recvmsg(
                    0, _ERROR_ANCILLARY_BYTES, _MSG_ERRQUEUE
                )
            except OSError:
                return  # no more
            for level, kind, data in ancillary:
                if (level, kind) == _RECVERR[self.is_ipv6] and _is_refusal(data, remote[0]):
                    on_refused(Address(remote[0], remote[1]))

    def _receive(self) -> tuple[bytes, Address, Address | None] | None:
        data, remote = self._socket.recvfrom(DATAGRAM_BYTES)
        if not data:
            return None
        return data, Address(remote[0], remote[1]), self.address

    def _receive_with_info(self) -> tuple[bytes, Address, Address | None] | None:
        data, ancillary, _, remote = self._socket.recvmsg(DATAGRAM_BYTES, _ANCILLARY_BYTES)
        if not data:
            return None
        if len(remote) == 4 and remote[3]:
            self._heard_from(remote[0], remote[3])
        local = self._local_of(ancillary[0][2]) if ancillary else None
        return data, Address(remote[0], remote[1]), local

    def _local_of(self, info: bytes) -> Address:
        local = self._locals.get(info)
        if local is None:
            if self.is_ipv6:
                host = socket.inet_ntop(socket.AF_INET6, info[:16])
            else:
                host = socket.inet_ntoa(info[8:12])
            if len(self._locals) >= _MAX_KNOWN_LOCALS:
                self._locals.clear()
            local = self._locals[info] = Address(host, self.address.port)
        return local

    def _heard_from(self, host: str, zone: int) -> None:
        """A link-local address means nothing without its zone, which `Address` does not carry.

        Each zone counts where it was heard, so that nobody on another link of ours can lead what
        is for it away.
        """
        zones = self._zones_of.get(host, ())
        if zone not in zones and zone in self.zones:
            if len(self._zones_of) >= _MAX_KNOWN_LOCALS:
                self._zones_of.clear()
            self._zones_of[host] = (*zones, zone)

    def send(
        self, data: bytes, remote: Address, local: Address | None, *, is_last_try: bool = False
    ) -> None:
        """Send, from `local` if we have several; what cannot be sent now is lost, as on any net."""
        if self.zones and remote.host.startswith(_LINK_LOCAL):
            self._send_to_zones(data, remote, local)
            return
        try:
            if self._wildcard and local is not None:
                self._socket.sendmsg((data,), self._info(local.host), 0, remote)
            else:
                self._socket.sendto(data, remote)
        except OSError as error:
            if not is_last_try and error.errno != errno.EAGAIN:
                # Linux tells here of the error of another one, too (ip(7)).
                self.send(data, remote, local, is_last_try=True)
            else:
                _lost(remote, error)

    def _send_to_zones(self, data: bytes, remote: Address, local: Address | None) -> None:
        """Send to a link-local address on the link where it was heard, else on each of ours."""
        info = self._info(local.host) if self._wildcard and local is not None else []
        heard = self._zones_of.get(remote.host, ())
        for zone in [each for each in heard if each in self.zones] or self.zones:
            for _ in range(2):  # The first try may be told of the error of another one (ip(7)).
                try:
                    self._socket.sendmsg((data,), info, 0, (*remote, 0, zone))
                    break
                except OSError as error:
                    _lost(remote, error)

    def send_low(self, data: bytes, remote: Address, local: Address | None, ttl: int) -> None:
        """Send with this TTL (IPv6: hop limit), which is that datagram's alone (ip(7), ipv6(7))."""
        ancillary = [(*_TTL[self.is_ipv6], _TTL_VALUE.pack(ttl))]
        if self._wildcard and local is not None:
            ancillary += self._info(local.host)
        for _ in range(2):  # The first try may be told of the error of another one (ip(7)).
            try:
                self._socket.sendmsg((data,), ancillary, 0, remote)
                return
            except OSError as error:
                _lost(remote, error)

    def send_probe(self, data: bytes, remote: Address, local: Address | None) -> None:
        """Send whole or not at all, whatever the kernel believes of the path (RFC 8899 §3)."""
        self._send_as(_PMTUDISC_PROBE, data, remote, local)

    def send_in_fragments(self, data: bytes, remote: Address, local: Address | None) -> None:
        """Send so that routers may cut it (IPv4: without DF)."""
        self._send_as(_PMTUDISC_DONT, data, remote, local)

    def _send_as(self, mode: int, data: bytes, remote: Address, local: Address | None) -> None:
        if not IS_LINUX:  # elsewhere nothing goes with DF: all arrives, and probes say little
            self.send(data, remote, local)
            return
        level, option = _MTU_DISCOVER[self.is_ipv6]
        usual = self._socket.getsockopt(level, option)
        self._socket.setsockopt(level, option, mode)
        try:
            self.send(data, remote, local)
        finally:
            self._socket.setsockopt(level, option, usual)

    def _info(self, host: str) -> list[tuple[int, int, bytes]]:
        info = self._ancillary.get(host)
        if info is None:
            packed = socket.inet_pton(self._family, host)
            if self.is_ipv6:
                info = [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, 0))]
            else:
                info = [(socket.IPPROTO_IP, _IP_PKTINFO, _IN_PKTINFO.pack(0, packed, packed))]
            if len(self._ancillary) >= _MAX_KNOWN_LOCALS:
                self._ancillary.clear()
            self._ancillary[host] = info
        return info

    def close(self) -> None:
        self._socket.close()


def _lost(remote: Address, error: OSError) -> None:
    """A datagram could not be sent: nothing to say of what networks do every day."""
    if error.errno not in _UNREACHABLE:
        log.debug("sending to %s: %s", remote, error)


def _is_refusal(data: bytes, host: str) -> bool:
    """Whether this error is the host's own word that it has no such port."""
    _, origin, kind, code, _, _, _ = _EXTENDED_ERROR.unpack_from(data)
    if (origin, kind, code) not in _PORT_UNREACHABLE:
        return False
    offender = data[_EXTENDED_ERROR.size :]
    if ":" in host:
        return offender[8:24] == socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return offender[4:8] == socket.inet_aton(host)


_UNREACHABLE = {
    errno.EAGAIN,  # the kernel's buffer is full
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EPERM,  # a firewall of our own
    errno.ENOBUFS,
    errno.EADDRNOTAVAIL,
    errno.ENODEV,  # an interface that has gone since we last looked
    errno.EINVAL,  # a link-local address of ours and a zone that is not its own
}


_IN_USE = (
    "cannot listen on {}: the port is in use; "
    "stop the program that uses it, or choose another with --listen"
)


class PortTaken(ConfigError):
    """Another program listens on the port already."""


def _cannot_listen(address: Address, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return PortTaken(_IN_USE.format(address))
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"cannot listen on {address}: this machine has no such address; "
            "choose another with --listen"
        )
    return ConfigError(f"cannot listen on {address}: {reason}; choose another with --listen")


def open_sockets(listen: Address) -> list[UdpSocket]:
    """The sockets for an address: ``::`` also takes the IPv4 wildcard, on the same port.

    ConfigError: cannot listen there.
    """
    if listen.host != "::":
        return [UdpSocket(listen)]
    tried = list[UdpSocket]()  # open until the end, so that no port is tried twice
    try:
        for _ in range(1 if listen.port else PORTS_TRIED):
            tried.append(UdpSocket(listen))
            try:
                ipv4 = UdpSocket(Address("0.0.0.0", tried[-1].address.port))
            except PortTaken:
                continue
            return [tried.pop(), ipv4]
    except PortTaken:
        pass  # all are
    finally:
        for each in tried:
            each.close()
    if listen.port:
        raise PortTaken(_IN_USE.format(listen))
    raise PortTaken(
        f"cannot listen: of {len(tried)} random ports none is free for both IPv6 and IPv4; stop "
        "programs that use UDP ports, or choose one with --listen"
    )
