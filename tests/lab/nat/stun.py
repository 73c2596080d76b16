"""RFC 5780 by ourselves: a responder of two addresses and two ports, and a probe that classifies.

Its words are those of `kinds.py`. A negative answer never rests on a timer alone: what might be
filtered is followed by a question that is surely answered, on the same way, and only what has not
come shortly after that answer counts as filtered.
"""

import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.lab.nat.kinds import Dependence, Ports
from tests.lab.nat.machines import Host

PORTS = 3478, 3479
Address = tuple[str, int]
_COOKIE = 0x2112A442
_REQUEST, _RESPONSE = 0x0001, 0x0101
_CHANGE_REQUEST, _MAPPED, _ORIGIN, _OTHER = 0x0003, 0x0020, 0x802B, 0x802C
_CHANGE_IP, _CHANGE_PORT = 4, 2
_RESEND = 0.2
"""Seconds after which a request is sent again."""
_GRACE = 0.05
"""Seconds that what was sent earlier may come later."""
_ROUNDS = 2
_TRIES = 20


# --- messages ---------------------------------------------------------------------------------


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _attributes(message: bytes) -> dict[int, bytes]:
    found, at = dict[int, bytes](), 20
    while at + 4 <= len(message):
        kind, size = struct.unpack_from("!HH", message, at)
        found[kind] = message[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4
    return found


def _xored(address: Address, transaction: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS (RFC 8489 §14.2), IPv4 and IPv6."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    mask = struct.pack("!I", _COOKIE) + transaction
    host = bytes(a ^ b for a, b in zip(socket.inet_pton(family, address[0]), mask, strict=False))
    number = 1 if family == socket.AF_INET else 2
    return struct.pack("!BBH", 0, number, address[1] ^ _COOKIE >> 16) + host


def _unxored(value: bytes, transaction: bytes) -> Address:
    mask = struct.pack("!I", _COOKIE) + transaction
    host = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    (port,) = struct.unpack_from("!H", value, 2)
    family = socket.AF_INET if value[1] == 1 else socket.AF_INET6
    return socket.inet_ntop(family, host), port ^ _COOKIE >> 16


def _plain(address: Address) -> bytes:
    return struct.pack("!BBH", 0, 1, address[1]) + socket.inet_aton(address[0])


# --- the responder ----------------------------------------------------------------------------


class Responder:
    """A STUN server of RFC 5780 on a host with two addresses, IPv4; closed with its block."""

    def __init__(self, host: Host) -> None:
        self.hosts = host.addresses[0], host.addresses[1]
        self.address = self.hosts[0], PORTS[0]
        self._sockets: dict[tuple[int, int], socket.socket] = {}
        for i, address in enumerate(self.hosts):
            for j, port in enumerate(PORTS):
                made = host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                made.bind((address, port))
                self._sockets[i, j] = made
        self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        ways = {made.fileno(): way for way, made in self._sockets.items()}
        poll = select.poll()  # select(2) takes no descriptor beyond 1023
        for descriptor in (self._stop[0], *ways):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._stop[0] in ready:
                return
            for fd in ready:
                self._answer(*ways[fd])

    def _answer(self, i: int, j: int) -> None:
        message, source = self._sockets[i, j].recvfrom(2048)
        if len(message) < 20 or struct.unpack_from("!H", message)[0] != _REQUEST:
            return
        wish = _attributes(message).get(_CHANGE_REQUEST, bytes(4))
        (change,) = struct.unpack("!I", wish)
        other = 1 - i, 1 - j
        i, j = i ^ bool(change & _CHANGE_IP), j ^ bool(change & _CHANGE_PORT)
        transaction = message[8:20]
        body = (
            _attribute(_MAPPED, _xored(source, transaction))
            + _attribute(_ORIGIN, _plain((self.hosts[i], PORTS[j])))
            + _attribute(_OTHER, _plain((self.hosts[other[0]], PORTS[other[1]])))
        )
        header = struct.pack("!HHI", _RESPONSE, len(body), _COOKIE) + transaction
        self._sockets[i, j].sendto(header + body, source)

    def close(self) -> None:
        os.write(self._stop[1], b"x")
        self._thread.join()
        for made in self._sockets.values():
            made.close()
        for fd in self._stop:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# --- the probe --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What both probes can say of a NAT; None throughout: UDP comes through not at all."""

    mapping: Dependence | None = None
    filtering: Dependence | None = None
    preserved: bool | None = None
    hairpin: bool | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a NAT behaves, as seen from behind it; None throughout: UDP comes through not at all."""

    mapping: Dependence | None
    filtering: Dependence | None
    ports: Ports | None
    hairpin: bool | None

    @property
    def verdict(self) -> Verdict:
        preserved = None if self.ports is None else self.ports is Ports.PRESERVED
        return Verdict(self.mapping, self.filtering, preserved, self.hairpin)


class Port:
    """A UDP socket on the probing host that asks one question at a time."""

    def __init__(self, host: Host) -> None:
        self._socket = host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.bind(("", 0))
        self.number: int = self._socket.getsockname()[1]

    def ask(self, server: Address, tries: int = _TRIES) -> Address | None:
        """The mapped address that the server sees; None when it does not answer."""
        transaction = os.urandom(12)
        for _ in range(tries):
            self._request(server, transaction)
            if answer := self._await(_answers(transaction), _RESEND):
                return _unxored(_attributes(answer)[_MAPPED], transaction)
        return None

    def hears_from_elsewhere(self, server: Address, change: int) -> bool:
        """Whether an answer from another address or port of the server's gets in."""
        for _ in range(_ROUNDS):
            changed, plain = os.urandom(12), os.urandom(12)
            self._request(server, changed, change)
            self._request(server, plain)
            came = self._await_both(changed, plain)
            if came:
                return True
        return False

    def _await_both(self, wanted: bytes, surely: bytes) -> bool:
        """Whether `wanted` is answered at most a moment after `surely`."""
        told = set[bytes]()

        def either(message: bytes) -> bool:
            told.add(message[8:20])
            return wanted in told or surely in told

        self._await(either, _RESEND * _TRIES)
        return wanted in told or self._await(_answers(wanted), _GRACE) is not None

    def send(self, data: bytes, to: Address) -> None:
        self._socket.sendto(data, to)

    def hears(self, data: bytes, within: float = _GRACE) -> bool:
        return self._await(lambda message: message == data, within) is not None

    def _request(self, server: Address, transaction: bytes, change: int = 0) -> None:
        body = _attribute(_CHANGE_REQUEST, struct.pack("!I", change)) if change else b""
        header = struct.pack("!HHI", _REQUEST, len(body), _COOKIE) + transaction
        self._socket.sendto(header + body, server)

    def _await(self, wanted: Callable[[bytes], bool], within: float) -> bytes | None:
        """The first message that is wanted; others are thrown away."""
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                message = self._socket.recv(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
            if wanted(message):
                return message
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()


def _answers(transaction: bytes) -> Callable[[bytes], bool]:
    return lambda message: message[8:20] == transaction


def classify(host: Host, servers: tuple[str, str]) -> Behaviour:
    """What NAT a host is behind, by a responder's two addresses (RFC 5780 §4)."""
    first, second = servers
    with Port(host) as port:
        if port.ask((first, PORTS[0]), tries=_TRIES // 2) is None:
            return Behaviour(None, None, None, None)
    return Behaviour(
        _mapping(host, first, second),
        _filtering(host, first),
        _ports(host, first),
        _hairpin(host, first),
    )


def _mapping(host: Host, first: str, second: str) -> Dependence:
    with Port(host) as port:
        at_first = {port.ask((first, number)) for number in PORTS}
        at_second = {port.ask((second, number)) for number in PORTS}
    if len(at_first | at_second) == 1:
        return Dependence.INDEPENDENT
    if len(at_first) == len(at_second) == 1:
        return Dependence.ADDRESS
    return Dependence.ADDRESS_PORT


def _filtering(host: Host, first: str) -> Dependence:
    """Each with a fresh port: an answer that got in would open the way for the next."""
    server = first, PORTS[0]
    with Port(host) as port:
        port.ask(server)
        if port.hears_from_elsewhere(server, _CHANGE_IP | _CHANGE_PORT):
            return Dependence.INDEPENDENT
    with Port(host) as port:
        port.ask(server)
        if port.hears_from_elsewhere(server, _CHANGE_PORT):
            return Dependence.ADDRESS
    return Dependence.ADDRESS_PORT


def _ports(host: Host, first: str) -> Ports:
    """From five sockets, one after the other."""
    pairs = list[tuple[int, int]]()
    for _ in range(5):
        with Port(host) as port:
            mapped = port.ask((first, PORTS[0]))
            assert mapped is not None
            pairs.append((port.number, mapped[1]))
    if all(inner == outer for inner, outer in pairs):
        return Ports.PRESERVED
    steps = [b[1] - a[1] for a, b in itertools.pairwise(pairs)]
    if all(0 < step < 10 for step in steps):
        return Ports.SEQUENTIAL
    return Ports.RANDOM


def _hairpin(host: Host, first: str) -> bool:
    """Whether one socket of a host reaches another at its mapped address (RFC 5780 §4.5)."""
    server = first, PORTS[0]
    with Port(host) as near, Port(host) as far:
        ours, theirs = near.ask(server), far.ask(server)
        assert ours is not None
        assert theirs is not None
        for _ in range(_ROUNDS):
            # A filter may want to have seen a packet the other way.
            far.send(b"way back", ours)
            near.send(b"hairpin", theirs)
            near.ask(server)
            if far.hears(b"hairpin"):
                return True
    return False
