"""Sockets besides the node's own: as many as there can be, read, and closed when that is said."""

import resource
import subprocess
import sys

import pytest
import trio
import trio.testing

from overlay.core.types import Address
from overlay.transport.udp import further
from overlay.transport.udp.further import FURTHER_MAX, FurtherSockets
from overlay.transport.udp.sockets import UdpSocket

LOOPBACK = "127.0.0.1"


class Heard:
    """What came in, and at which of them."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Address | None]] = []
        self.both = trio.Event()
        self.sockets = FurtherSockets(
            self._on_datagram,
            lambda *_: None,
            lambda: None,
            lambda _: None,
        )

    def _on_datagram(self, data: bytes, _: Address, local: Address | None) -> None:
        self.datagrams.append((data, local))
        if len(self.datagrams) == 2:
            self.both.set()


async def test_what_comes_in_says_at_which_of_them_and_what_leaves_is_from_there() -> None:
    heard, stranger = Heard(), UdpSocket(Address(LOOPBACK, 0))
    async with trio.open_nursery() as nursery:
        opened = heard.sockets.open(LOOPBACK, 3, nursery)
        assert len(set(opened)) == 3
        stranger.send(b"\x00one", opened[0], None)
        stranger.send(b"\x00three", opened[2], None)
        with trio.fail_after(5.0):
            await heard.both.wait()
        assert set(heard.datagrams) == {(b"\x00one", opened[0]), (b"\x00three", opened[2])}
        heard.sockets.sockets[opened[1]].send(b"\x00two", stranger.address, None)
        await trio.lowlevel.wait_readable(stranger._socket.fileno())
        received = stranger._receive()
        assert received is not None
        assert received[:2] == (b"\x00two", opened[1])
        heard.sockets.close(opened)
    stranger.close()


async def test_a_closed_one_is_free_for_others_and_the_rest_go_on() -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        first, second = heard.sockets.open(LOOPBACK, 2, nursery)
        heard.sockets.close((first, Address(LOOPBACK, 1)))
        assert list(heard.sockets.sockets) == [second]
        await trio.testing.wait_all_tasks_blocked()
        UdpSocket(first).close()
        heard.sockets.close((second,))


async def test_there_are_so_many_at_most() -> None:
    heard = Heard()
    heard.sockets.sockets.update({Address("x", n): None for n in range(FURTHER_MAX - 1)})  # type: ignore[misc]
    async with trio.open_nursery() as nursery:
        opened = heard.sockets.open(LOOPBACK, 5, nursery)
        assert len(opened) == 1
        heard.sockets.close(opened)


async def test_at_an_address_that_is_not_ours_there_are_none() -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        assert heard.sockets.open("192.0.2.1", 2, nursery) == ()


FEW = """
import resource, trio
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from overlay.transport.udp.further import FurtherSockets, has_descriptors
async def main():
    sockets = FurtherSockets(lambda *_: None, lambda *_: None, lambda: None, lambda _: None)
    async with trio.open_nursery() as nursery:
        opened = sockets.open("127.0.0.1", 256, nursery)
        print(has_descriptors(), 0 < len(opened) < 64)
        sockets.close(opened)
trio.run(main)
"""


def test_with_64_descriptors_birthday_is_known_to_be_impossible_and_nothing_breaks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize(
    ("limit", "enough"), [(64, False), (256, False), (384, True), (1024, True)]
)
def test_how_many_descriptors_birthday_takes(
    limit: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, 4096))
    assert further.has_descriptors() is enough
