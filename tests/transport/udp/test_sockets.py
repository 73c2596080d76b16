"""What the kernel says of earlier datagrams: read, believed of nobody else, in no one's way."""

import socket
import struct
from collections.abc import Callable
from functools import partial

import pytest
import trio

from overlay.core.types import Address
from overlay.transport.udp import sockets
from overlay.transport.udp.sockets import UdpSocket
from tests.transport.nodes import PATIENCE

pytestmark = pytest.mark.skipif(not sockets.IS_LINUX, reason="Linux's error queue")


def closed_port(family: int, host: str) -> Address:
    """A port that nobody has open."""
    with socket.socket(family, socket.SOCK_DGRAM) as free:
        free.bind((host, 0))
        return Address(host, free.getsockname()[1])


class Reader:
    """Reads a socket until it has what it waits for."""

    def __init__(self, host: str) -> None:
        self.socket = UdpSocket(Address(host, 0))
        self.refused: list[Address] = []
        self.heard: list[bytes] = []
        self.wakes = 0

    async def until(self, condition: Callable[[], bool], act: Callable[[], None]) -> None:
        """Do `act` every 10 ms while the socket is read, until `condition` holds."""
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                read = partial(self.socket.read, self._on_data, self._on_circuit)
                nursery.start_soon(read, self._woken, self._on_refused)
                while not condition():
                    act()
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    def _on_data(self, data: bytes, remote: Address, local: Address | None) -> None:
        self.heard.append(data)

    def _on_circuit(self, data: bytes, remote: Address, local: Address | None, now: float) -> None:
        raise AssertionError("nobody sends any")

    def _on_refused(self, remote: Address) -> None:
        self.refused.append(remote)

    def _woken(self) -> None:
        self.wakes += 1


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_a_port_that_nobody_has_open_is_heard_of(bound: str) -> None:
    family, host = (socket.AF_INET6, "::1") if ":" in bound else (socket.AF_INET, "127.0.0.1")
    reader, nowhere = Reader(bound), closed_port(family, host)
    await reader.until(
        lambda: bool(reader.refused), lambda: reader.socket.send(b"x", nowhere, None)
    )
    assert set(reader.refused) == {nowhere}
    reader.socket.close()


async def test_a_refusal_costs_no_other_datagram_and_no_sleep() -> None:
    """Linux reports it at the next call, which has then sent nothing."""
    reader, nowhere = Reader("127.0.0.1"), closed_port(socket.AF_INET, "127.0.0.1")
    sent = 0

    def both() -> None:
        nonlocal sent
        reader.socket.send(b"into the void", nowhere, None)
        reader.socket.send(b"%d" % sent, reader.socket.address, None)
        sent += 1

    await reader.until(lambda: sent == 50, both)
    await reader.until(lambda: len(reader.heard) >= 50, lambda: None)
    assert reader.heard == [b"%d" % number for number in range(50)]
    wakes = reader.wakes
    await reader.until(lambda: reader.wakes > wakes, lambda: reader.socket.send(b"", nowhere, None))
    assert reader.wakes <= wakes + 50, "its errors are read, else they would wake us for ever"
    reader.socket.close()


def error(origin: int, kind: int, code: int, offender: str) -> bytes:
    """A sock_extended_err and who is to blame, as recvmsg(2) has it."""
    extended = struct.pack("=IBBBBII", 111, origin, kind, code, 0, 0, 0)
    if ":" in offender:
        packed = socket.inet_pton(socket.AF_INET6, offender)
        return extended + struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0)
    return extended + struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(offender))


@pytest.mark.parametrize(
    ("data", "host", "believed"),
    [
        (error(2, 3, 3, "192.0.2.1"), "192.0.2.1", True),
        (error(3, 1, 4, "2001:db8::1"), "2001:db8::1", True),
        (error(2, 3, 3, "192.0.2.254"), "192.0.2.1", False),
        (error(3, 1, 4, "2001:db8::fe"), "2001:db8::1", False),
        (error(2, 3, 1, "192.0.2.1"), "192.0.2.1", False),
        (error(2, 11, 0, "192.0.2.1"), "192.0.2.1", False),
        (error(1, 3, 3, "192.0.2.1"), "192.0.2.1", False),
        (error(3, 1, 0, "2001:db8::1"), "2001:db8::1", False),
    ],
)
def test_only_the_host_itself_can_say_that_its_port_is_closed(
    data: bytes, host: str, believed: bool
) -> None:
    """A router that rejects, or knows no way, says nothing of the process at the other end."""
    assert sockets._is_refusal(data, host) is believed


def test_what_may_be_cut_goes_without_df_and_a_probe_with_it() -> None:
    """And the datagrams that follow go as before."""
    udp = UdpSocket(Address("127.0.0.1", 0))
    modes: list[int] = []
    send = udp.send

    def noting(*args: object, **kwargs: object) -> None:
        modes.append(udp._socket.getsockopt(socket.IPPROTO_IP, 10))
        send(*args, **kwargs)  # type: ignore[arg-type]

    udp.send = noting  # type: ignore[method-assign]
    usual = udp._socket.getsockopt(socket.IPPROTO_IP, 10)
    udp.send_probe(b"x", udp.address, None)
    udp.send_in_fragments(b"x", udp.address, None)
    udp.send(b"x", udp.address, None)
    assert modes == [3, 0, usual]
    udp.close()
