"""A storm of datagrams from strangers, and what they got for them.

Noise, the packets that are known to kill naive nodes, handshakes, and checks whose source is
forged: as if from innocent peers (to steal their links) and as if from victims (to have them
flooded). Forging needs CAP_NET_RAW. Nothing here knows the node's code.
"""

import os
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from random import Random
from types import TracebackType
from typing import Self

from OpenSSL import SSL

from tests.lab.backlog import Pace

Address = tuple[str, int]
MAGIC_COOKIE = 0x2112A442
VICTIMS = ("127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24")
PACED = 50
"""Datagrams between two looks at the reader's backlog."""


def client_hello() -> bytes:
    """A ClientHello as a stranger sends it first: without a cookie (RFC 6347 §4.2.1)."""
    client = SSL.Connection(SSL.Context(SSL.DTLS_METHOD))
    client.set_connect_state()
    try:
        client.do_handshake()
    except SSL.WantReadError:
        pass
    return client.bio_read(4096)


def binding(*attributes: tuple[int, bytes], transaction: bytes) -> bytes:
    """A Binding request, unsigned (RFC 8489 §5)."""
    body = b"".join(
        struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    return struct.pack("!HHI", 1, len(body), MAGIC_COOKIE) + transaction + body


def one_packet_kills(random: Random) -> list[bytes]:
    """What kills stock aiortc and aioice with one packet, and its near relations."""
    transaction = random.randbytes(12)
    return [
        b"",
        binding((0x0024, b"\0"), transaction=transaction),  # PRIORITY of one byte
        binding((0x0006, b"a:b"), (0x0024, b""), transaction=transaction),
        binding((0x0006, b"\xff\xfe:x"), transaction=transaction),  # USERNAME is no UTF-8
        binding((0x802A, b"\0\1"), (0x8029, b""), transaction=transaction),  # short tie-breakers
        binding((0x0020, b"\0\1"), transaction=transaction),  # XOR-MAPPED-ADDRESS cut short
        binding((0x0008, b"short"), transaction=transaction),  # MESSAGE-INTEGRITY of 5 bytes
        binding(transaction=transaction)[:19],
        binding(transaction=transaction)[:2] + b"\xff\xff" + binding(transaction=transaction)[4:],
        b"\x01\x01" + binding((0x0020, b""), transaction=transaction)[2:],  # a response
        b"\x16\xfe\xfd" + bytes(8) + b"\xff\xff",  # a record longer than its datagram
        b"\x16\xfe\xff" + bytes(8) + b"\x00\x0c" + bytes(12),  # HelloRequest
        b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28",  # a fatal alert in the clear
        b"\x14\xfe\xfd" + bytes(8) + b"\x00\x01\x01",  # ChangeCipherSpec out of nowhere
    ]


class Strangers:
    """Sockets of nobody in particular, and victims in whose name others send."""

    def __init__(self, target: Address, innocent: Sequence[Address], seed: int) -> None:
        """`innocent` are the addresses of peers whose links must not suffer."""
        self._target, self._innocent, self._random = target, list(innocent), Random(seed)
        self._pace = Pace(target[1])
        self._own = [self._bound("127.0.0.1") for _ in range(8)]
        self._victims = [self._bound(host) for host in VICTIMS]
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._hello = client_hello()
        self.checks: list[bytes] = []
        """Genuine checks of a linked peer, to be sent in others' names."""
        self.kinds: Counter[str] = Counter()
        self.sent_for: Counter[Address] = Counter()
        self.received: Counter[Address] = Counter()

    @staticmethod
    def _bound(host: str) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host, 0))
        made.settimeout(0)
        return made

    def send(self, count: int) -> None:
        """That many datagrams, drawn from all kinds, no faster than the target reads."""
        for number in range(count):
            kind = self._random.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
            if kind.startswith("forged"):
                self._send_forged(kind)
            else:
                self._send_openly(kind)
            self.kinds[kind] += 1
            if number % PACED == 0:
                self.listen()
                self._pace.wait()

    def _send_openly(self, kind: str) -> None:
        own = self._random.choice(self._own)
        data = self._datagram(kind)
        own.sendto(data, self._target)
        self.sent_for[own.getsockname()] += len(data)

    def _send_forged(self, kind: str) -> None:
        if kind == "forged_innocent" and self._innocent:
            source = self._random.choice(self._innocent)
        else:
            source = self._random.choice(self._victims).getsockname()
        data = self._datagram(self._random.choice(("check", "hello", "kill", "noise")))
        self._raw.sendto(udp_packet(source, self._target, data), (self._target[0], 0))
        self.sent_for[source] += len(data)

    def _datagram(self, kind: str) -> bytes:
        random = self._random
        if kind == "check" and self.checks:
            return random.choice(self.checks)
        if kind == "kill":
            return random.choice(one_packet_kills(random))
        if kind == "hello":
            return self._hello
        first = random.choice(
            (bytes([random.randrange(4)]), bytes([random.randrange(20, 64)]), b"")
        )
        return first + random.randbytes(random.choice((0, 1, 12, 19, 20, 60, 300, 1200)))

    def listen(self) -> None:
        """Take in what was sent to us and to the victims."""
        for own in [*self._own, *self._victims]:
            try:
                while True:
                    self.received[own.getsockname()] += len(own.recv(4096))
            except BlockingIOError:
                pass

    def worst_amplification(self) -> float:
        """The most that an address of ours was sent, as a multiple of what was sent in its name."""
        self.listen()
        return max(
            (
                received / max(1, self.sent_for[address])
                for address, received in self.received.items()
            ),
            default=0.0,
        )

    def close(self) -> None:
        for own in [*self._own, *self._victims, self._raw]:
            own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


WEIGHTS = {"noise": 6, "kill": 3, "hello": 1, "check": 1, "forged_innocent": 1, "forged_victim": 1}
"""How often each kind is drawn."""


def udp_packet(source: Address, target: Address, data: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram from whomever we say; the kernel fills in checksums."""
    udp = struct.pack("!HHHH", source[1], target[1], 8 + len(data), 0) + data
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
        socket.inet_aton(source[0]), socket.inet_aton(target[0]),
    )  # fmt: skip
    return header + udp


def may_forge() -> bool:
    """Whether this process may send packets in others' names."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except PermissionError:
        return False
    return True


def pipe_for_orders(directory: os.PathLike[str]) -> str:
    """A FIFO through which `tests.builds.hostile_node` takes its orders."""
    path = os.path.join(directory, "orders")
    os.mkfifo(path, 0o600)
    return path
