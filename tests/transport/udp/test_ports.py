"""Further ports: real sockets, each for a while, bounded in number and in what they take."""

import trio
import trio.testing

from overlay.core.events import OpenPort, PortHeard, PortOpened, SendFrom
from overlay.core.types import MAIN, Address, PortId
from overlay.transport.udp.ports import HEARD_MAX, PORTS_MAX
from tests.transport.nodes import Node, udp_nodes
from tests.transport.udp.test_faults import udp


async def opened(node: Node, port: int, seconds: float = 30.0) -> Address:
    already = len(node.all_of(PortOpened))
    node.transport.perform(OpenPort(PortId(port), "127.0.0.1", seconds))
    found = await node.next_of(PortOpened, already)
    assert found.port == port
    return found.local


async def test_a_datagram_from_one_port_reaches_another() -> None:
    async with udp_nodes("bob", "alice") as (bob, alice):
        here, there = await opened(bob, 1), await opened(alice, 1)
        assert here.port not in (bob.address.port, 0)
        bob.transport.perform(SendFrom(PortId(1), b"hello", there))
        assert await alice.next_of(PortHeard) == PortHeard(PortId(1), b"hello", here)
        bob.transport.perform(SendFrom(MAIN, b"again", there))
        assert await alice.next_of(PortHeard, 1) == PortHeard(PortId(1), b"again", bob.address)


async def test_a_port_is_closed_when_its_time_is_up() -> None:
    async with udp_nodes("bob") as (bob,):
        await opened(bob, 1, seconds=0.05)
        with trio.fail_after(10):
            while udp(bob)._ports._open:  # noqa: ASYNC110
                await trio.sleep(0.01)
        bob.transport.perform(SendFrom(PortId(1), b"too late", bob.address))
        await opened(bob, 1)


async def test_ports_are_bounded_and_so_is_what_comes_in() -> None:
    async with udp_nodes("bob", "alice") as (bob, alice):
        first = await opened(bob, 1)
        for port in range(2, 2 * PORTS_MAX):
            bob.transport.perform(OpenPort(PortId(port), "127.0.0.1", 30.0))
        await bob.until(lambda: len(bob.all_of(PortOpened)) == PORTS_MAX)
        await opened(alice, 1)
        for _ in range(2 * HEARD_MAX):
            alice.transport.perform(SendFrom(PortId(1), b"flood", first))
        await bob.until(lambda: len(bob.all_of(PortHeard)) == HEARD_MAX)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(bob.all_of(PortHeard)) == HEARD_MAX
        assert len(udp(bob)._ports._open) == PORTS_MAX


async def test_an_address_that_is_not_ours_opens_nothing_and_ends_nothing() -> None:
    async with udp_nodes("bob") as (bob,):
        bob.transport.perform(OpenPort(PortId(1), "198.51.100.1", 5.0))
        bob.transport.perform(SendFrom(PortId(1), b"nowhere", bob.address))
        await opened(bob, 2)
        assert [event.port for event in bob.all_of(PortOpened)] == [2]
