"""Sockets among interfaces: which addresses there are, which ports, and links with zones."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ifaddr
import pytest
import trio

from overlay.core.addresses import LocalHost
from overlay.core.events import Listening
from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.transport.udp import interfaces, sockets, transport
from overlay.transport.udp.interfaces import Surroundings, look_around
from overlay.transport.udp.sockets import PORTS_TRIED, UdpSocket, open_sockets
from tests.transport.nodes import udp_nodes

LOOPBACK = (LocalHost("127.0.0.1", "lo"), LocalHost("::1", "lo"))
LAN = LocalHost("192.0.2.7", "eth0")
BOTH = (Address("::", 5), Address("0.0.0.0", 5))


def test_a_wildcard_is_reached_at_the_interfaces_addresses_of_its_family() -> None:
    here = Surroundings((*LOOPBACK, LAN, LocalHost("fd00::7", "eth0")), (LAN.host,))
    assert list(here.reach(BOTH)) == [Address(LAN.host, 5), Address("fd00::7", 5)]
    assert list(here.reach(BOTH[1:])) == [Address(LAN.host, 5)]
    only_ipv6 = Surroundings((*LOOPBACK, LocalHost("fd00::7", "eth0")))
    assert list(only_ipv6.reach(BOTH)) == [Address("fd00::7", 5)]
    assert list(only_ipv6.reach(BOTH[1:])) == [Address("127.0.0.1", 5)], "it has nothing else"


def test_what_we_were_told_to_listen_on_is_named_for_as_long_as_it_is_ours() -> None:
    here = Surroundings((*LOOPBACK, LAN))
    assert list(here.reach([Address("127.0.0.3", 5)])) == [Address("127.0.0.3", 5)]
    assert list(here.reach([Address("203.0.113.77", 5)])) == []


def test_the_interfaces_of_this_machine_can_be_read() -> None:
    found = look_around()
    assert all(socket.getaddrinfo(each.host, None) for each in found.hosts)
    assert {"lo", "lo0"} & {each.interface for each in found.hosts} or not found.hosts
    own = {each.host for each in found.hosts}
    assert set(found.routed) <= own


@pytest.mark.parametrize("error", [AssertionError("no netmask"), ValueError("no UTF-8")])
def test_an_interface_that_ifaddr_cannot_read_ends_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_adapters() -> None:
        raise error

    monkeypatch.setattr(ifaddr, "get_adapters", get_adapters)
    with pytest.raises(OSError, match="interfaces"):
        look_around()


async def test_a_change_of_addresses_is_told_once_and_no_change_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [Surroundings(LOOPBACK)]
    looks, looked_often = 0, trio.Event()

    def look() -> Surroundings:
        nonlocal looks
        looks += 1
        if looks == 4:
            raise OSError(errno.EMFILE, "too many open files")
        if looks == 10:
            looked_often.set()
        return now[0]

    monkeypatch.setattr(transport, "look_around", look)
    monkeypatch.setattr(transport, "INTERVAL", 0.001)
    async with udp_nodes("alice", listen=Address("0.0.0.0", 0)) as (alice,):

        def told() -> list[set[str]]:
            return [{at.host for at in each.addresses} for each in alice.all_of(Listening)]

        assert told() == [{"127.0.0.1"}]
        with trio.fail_after(30.0):
            await looked_often.wait()
        assert told() == [{"127.0.0.1"}]
        for hosts in ((*LOOPBACK, LAN), (), LOOPBACK):
            now[0] = Surroundings(hosts)
            count = len(told())
            await alice.until(lambda: len(told()) > count)  # noqa: B023
        assert told() == [{"127.0.0.1"}, {LAN.host}, set(), {"127.0.0.1"}]


async def test_a_node_whose_interfaces_cannot_be_read_at_first_names_them_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    def look() -> Surroundings:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError(errno.EMFILE, "too many open files")
        return Surroundings((LAN,))

    monkeypatch.setattr(transport, "look_around", look)
    monkeypatch.setattr(transport, "INTERVAL", 0.001)
    async with udp_nodes("alice", listen=Address("0.0.0.0", 0)) as (alice,):
        await alice.until(lambda: len(alice.all_of(Listening)) == 2)
        hosts = [[at.host for at in each.addresses] for each in alice.all_of(Listening)]
        assert hosts == [[], [LAN.host]]


# --- ports ----------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ports that are taken for IPv4: as many as the test says."""
    ports = list[int]()
    bind = socket.socket.bind
    count = {"left": 0}

    class Crowded(socket.socket):
        def bind(self, address: Any) -> None:
            if address[0] == "0.0.0.0" and address[1] and count["left"]:
                count["left"] -= 1
                ports.append(address[1])
                raise OSError(errno.EADDRINUSE, "Address already in use")
            bind(self, address)

    monkeypatch.setattr(socket, "socket", Crowded)
    ports.append(0)
    count["left"] = PORTS_TRIED - 1
    return ports


def test_a_random_port_that_is_taken_in_one_family_is_passed_over(taken: list[int]) -> None:
    with ExitStack() as stack:
        both = open_sockets(Address("::", 0))
        for each in both:
            stack.callback(each.close)
        assert len(taken) == len(set(taken)) == PORTS_TRIED, "none was tried twice"
        assert len({each.address.port for each in both}) == 1
        assert both[0].address.port not in taken


def test_trying_ends_with_one_line(taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PORTS_TRIED", 3)
    with pytest.raises(ConfigError, match=r"of 3 random ports none is free.*--listen") as caught:
        open_sockets(Address("::", 0))
    assert "\n" not in str(caught.value)
    for port in taken[1:]:
        UdpSocket(Address("::", port)).close()  # nothing was left open


# --- zones ----------------------------------------------------------------------------------------


class Kernel:
    """In place of a socket's own: what it was asked to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.refused: set[int] = set()
        self.pending = 0
        """Errors of earlier datagrams that the next ones are told of."""

    def sendmsg(self, _data: Any, _ancillary: Any, _flags: int, target: tuple[Any, ...]) -> None:
        if self.pending:
            self.pending -= 1
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        if target[3] in self.refused:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.sent.append(target)

    def sendto(self, _data: bytes, target: tuple[Any, ...]) -> None:
        self.sent.append(tuple(target))


@dataclass
class Ipv6:
    """A socket, its kernel replaced."""

    socket: UdpSocket
    kernel: Kernel


@pytest.fixture
def ipv6(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ipv6]:
    made, kernel = UdpSocket(Address("::", 0)), Kernel()
    with monkeypatch.context() as patched:
        patched.setattr(made, "_socket", kernel)
        yield Ipv6(made, kernel)
    made.close()


def test_a_link_local_address_is_looked_for_on_each_link_until_it_is_heard(
    ipv6: Ipv6,
) -> None:
    ipv6.socket.zones = (2, 3, 4)
    there = Address("fe80::7", 9)
    ipv6.socket.send(b"x", there, None)
    assert ipv6.kernel.sent == [("fe80::7", 9, 0, zone) for zone in (2, 3, 4)]
    ipv6.socket._heard_from("fe80::7", 3)
    ipv6.socket._heard_from("fe80::7", 3)
    ipv6.kernel.sent.clear()
    ipv6.socket.send(b"x", there, Address("fe80::1", 5))
    assert ipv6.kernel.sent == [("fe80::7", 9, 0, 3)]


def test_nobody_on_another_link_leads_away_what_is_for_a_link_local_address(
    ipv6: Ipv6,
) -> None:
    ipv6.socket.zones = (2, 3)
    ipv6.socket._heard_from("fe80::7", 2)
    ipv6.socket._heard_from("fe80::7", 3)
    ipv6.socket._heard_from("fe80::7", 99)
    ipv6.socket.send(b"x", Address("fe80::7", 9), None)
    assert [target[3] for target in ipv6.kernel.sent] == [2, 3]
    for number in range(1000):
        ipv6.socket._heard_from(f"fe80::{number:x}", 2)
    assert len(ipv6.socket._zones_of) <= 256


def test_a_link_that_has_gone_is_where_nobody_was_heard(ipv6: Ipv6) -> None:
    """An adapter that is plugged in again has another index."""
    ipv6.socket.zones = (2, 3)
    ipv6.socket._heard_from("fe80::7", 3)
    ipv6.socket.zones = (2, 4)
    ipv6.socket.send(b"x", Address("fe80::7", 9), None)
    assert [target[3] for target in ipv6.kernel.sent] == [2, 4]


def test_a_link_that_does_not_take_it_keeps_it_from_no_other(ipv6: Ipv6) -> None:
    ipv6.socket.zones = (2, 3)
    ipv6.kernel.refused = {2}
    ipv6.socket.send(b"x", Address("fe80::7", 9), Address("fe80::1", 5))
    assert [target[3] for target in ipv6.kernel.sent] == [3]


def test_nobody_on_one_link_costs_no_datagram_on_another(ipv6: Ipv6) -> None:
    ipv6.socket.zones = (2, 3)
    ipv6.kernel.pending = 1  # nobody has the address on the other link, says the kernel at last
    ipv6.socket._heard_from("fe80::7", 3)
    ipv6.socket.send(b"x", Address("fe80::7", 9), None)
    assert [target[3] for target in ipv6.kernel.sent] == [3]


def test_other_addresses_have_no_zone(ipv6: Ipv6) -> None:
    ipv6.socket.zones = (2, 3)
    ipv6.socket.send(b"x", Address("fd00::7", 9), None)
    assert ipv6.kernel.sent == [("fd00::7", 9)]


def test_interfaces_are_looked_at_often_enough() -> None:
    """A new address is to be told within 5 s, at two looks and some work."""
    assert 2 * interfaces.INTERVAL < 5.0
