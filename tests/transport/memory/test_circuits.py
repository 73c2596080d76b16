"""Links over circuits between memory transports: as between real ones, in virtual time."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import trio
from trio.testing import MockClock

from overlay.core.addresses import circuit_address
from overlay.core.events import (
    Admit,
    Adopt,
    DropCircuit,
    LinkAlive,
    LinkOpened,
    LinkSilent,
    Mapped,
    PathMoved,
    RelayCircuit,
    Restart,
    UseCircuit,
)
from overlay.core.types import CircuitId, LinkId, PathKind, PeerId
from overlay.core.wire.messages import Ping
from overlay.transport.memory.transport import LATENCY, MemoryNetwork
from tests.transport.nodes import Node, memory_nodes, stream_between

CIRCUIT, SECOND = CircuitId(b"@circuit"), CircuitId(b"Acircuit")


@asynccontextmanager
async def neighbours() -> AsyncGenerator[tuple[MemoryNetwork, Node, Node, Node], None]:
    """Alice and bob, who do not reach each other, both linked to carol."""
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", "carol", network=network) as (alice, bob, carol):
        network.cut(alice.address, bob.address)
        for number, each in enumerate((alice, bob)):
            await each.opened(each.dial(carol, attempt=bytes([number]) * 16))
        begin(alice, bob, carol, CIRCUIT)
        yield network, alice, bob, carol


def begin(alice: Node, bob: Node, carol: Node, circuit: CircuitId) -> None:
    carol.transport.perform(RelayCircuit(circuit, LinkId(1), LinkId(3), 1e6))
    for each in (alice, bob):
        each.transport.perform(UseCircuit(circuit, LinkId(0)))


async def relayed(alice: Node, bob: Node, circuit: CircuitId = CIRCUIT) -> tuple[LinkId, LinkId]:
    already = len(bob.all_of(LinkOpened))
    link = alice.dial(bob, address=circuit_address(circuit), attempt=circuit * 2)
    await alice.opened(link)
    return link, (await bob.next_of(LinkOpened, already)).link


async def test_a_dial_over_a_circuit_is_relayed(autojump_clock: MockClock) -> None:
    async with neighbours() as (_, alice, bob, _):
        link, theirs = await relayed(alice, bob)
        for node, each in ((alice, link), (bob, theirs)):
            facts = (await node.opened(each)).facts
            assert (facts.path, facts.remote) == (PathKind.RELAYED, circuit_address(CIRCUIT))
            assert each not in [event.link for event in node.all_of(Mapped)]
        at = trio.current_time()
        alice.send(link, Ping(1))
        await bob.until(lambda: bob.received(theirs) == [Ping(1)])
        assert abs(trio.current_time() - at - 2 * LATENCY) < 1e-6


async def test_it_is_silent_while_its_relay_does_not_relay(autojump_clock: MockClock) -> None:
    async with neighbours() as (_, alice, bob, carol):
        link, theirs = await relayed(alice, bob)
        carol.transport.perform(DropCircuit(CIRCUIT))
        alice.send(link, Ping(1))
        assert (await alice.next_of(LinkSilent)).link == link
        assert (await bob.next_of(LinkSilent)).link == theirs
        begin(alice, bob, carol, CIRCUIT)
        assert (await alice.next_of(LinkAlive)).link == link
        await bob.until(lambda: bob.received(theirs) == [Ping(1)])


async def test_it_is_silent_when_its_relay_has_stopped(autojump_clock: MockClock) -> None:
    async with neighbours() as (_, alice, bob, carol):
        link, _ = await relayed(alice, bob)
        carol.stop()
        await alice.until(lambda: LinkSilent(link) in alice.events)


async def test_a_stream_goes_on_over_another_circuit_and_then_directly(
    autojump_clock: MockClock,
) -> None:
    data = Random(1).randbytes(300_000)
    async with neighbours() as (network, alice, bob, carol):
        link, theirs = await relayed(alice, bob)
        for node, each in ((alice, link), (bob, theirs)):
            node.transport.perform(Admit(each, PeerId(bytes(32))))
        near, far = await stream_between(alice, link, bob)
        received = bytearray()

        async def read() -> None:
            while len(received) < len(data):
                received.extend(await far.receive_some(65_536))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await near.send_all(data[:100_000])
            carol.transport.perform(DropCircuit(CIRCUIT))
            begin(alice, bob, carol, SECOND)
            second, their_second = await relayed(alice, bob, SECOND)
            bob.transport.perform(Adopt(theirs, their_second))
            alice.transport.perform(Adopt(link, second))
            assert (await alice.next_of(PathMoved)).facts.remote == circuit_address(SECOND)
            await near.send_all(data[100_000:200_000])
            network.heal(alice.address, bob.address)
            one, other = alice.credentials, bob.credentials
            for node, each, local, remote in (
                (alice, link, one, other),
                (bob, theirs, other, one),
            ):
                node.transport.perform(
                    Restart(each, node is alice, local, remote, node.candidates(), (), 5.0)
                )
            assert (await bob.next_of(PathMoved, 1)).facts.path is PathKind.HOST
            carol.stop()
            await near.send_all(data[200_000:])
        assert bytes(received) == data
