"""The transport in memory under a clock that jumps: cuts, crashes, and the times of liveness."""

from random import Random

import trio
from trio.testing import MockClock

from overlay.core.events import (
    DialFailed,
    Event,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
)
from overlay.core.types import EndReason
from overlay.core.wire.messages import Goodbye, Ping
from overlay.transport.memory.transport import (
    LOST_AFTER,
    SILENT_AFTER,
    SUSPECT_AFTER,
    MemoryNetwork,
)
from tests.transport.nodes import Node, linked, memory_nodes


def timed(node: Node) -> list[tuple[float, Event]]:
    """The node's events from now on, each with the seconds since now."""
    start, events = trio.current_time(), list[tuple[float, Event]]()
    node.on_event = lambda event: events.append((round(trio.current_time() - start, 3), event))
    return events


async def test_a_cut_path_goes_suspect_silent_and_lost_on_time(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        link, _ = await linked(alice, bob)
        events = timed(alice)
        network.cut(alice.address, bob.address)
        await trio.sleep(LOST_AFTER)
        await alice.next_of(LinkLost)
        assert events == [
            (SUSPECT_AFTER, LinkSuspect(link)),
            (SILENT_AFTER, LinkSilent(link)),
            (LOST_AFTER, LinkLost(link, EndReason.BROKEN)),
        ]


async def test_what_waited_behind_a_cut_arrives_when_it_heals(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        link, theirs = await linked(alice, bob)
        network.isolate(bob.address)
        alice.send(link, *[Ping(token) for token in range(5)])
        await bob.next_of(LinkSilent)
        assert bob.received() == []
        network.reconnect(bob.address)
        assert await bob.next_of(LinkAlive) == LinkAlive(theirs)
        alice.send(link, Ping(5))
        await bob.until(lambda: len(bob.received()) == 6)
        assert bob.received() == [Ping(token) for token in range(6)]


async def test_a_cut_too_short_to_notice_is_not_mentioned(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        link, _ = await linked(alice, bob)
        events = timed(alice)
        network.cut(alice.address, bob.address)
        await trio.sleep(SUSPECT_AFTER / 2)
        network.heal(alice.address, bob.address)
        await trio.sleep(2 * LOST_AFTER)
        assert events == []
        assert alice.transport.statistics(link) is not None


async def test_a_node_that_crashes_says_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        _, theirs = await linked(alice, bob)
        events = timed(bob)
        network.isolate(alice.address)
        alice.stop()
        await trio.sleep(LOST_AFTER)
        await bob.next_of(LinkLost)
        assert events[-1] == (LOST_AFTER, LinkLost(theirs, EndReason.BROKEN))


async def test_nobody_is_dialled_through_a_cut(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        network.cut(alice.address, bob.address)
        link = alice.dial(bob, timeout=5)
        assert await alice.next_of(DialFailed) == DialFailed(link, EndReason.TIMEOUT)
        alice.negotiate(bob.credentials, bob.candidates(), bob.fingerprint, controlling=True)
        bob.negotiate(alice.credentials, alice.candidates(), alice.fingerprint, controlling=False)
        await alice.next_of(DialFailed, already=1)
        await bob.next_of(DialFailed)


async def test_negotiations_pair_up_only_by_the_right_password(autojump_clock: MockClock) -> None:
    async with memory_nodes("alice", "bob") as (alice, bob):
        wrong = type(bob.credentials)(bob.credentials.ufrag, "w" * 24)
        alice.negotiate(wrong, bob.candidates(), bob.fingerprint, controlling=True)
        bob.negotiate(alice.credentials, alice.candidates(), alice.fingerprint, controlling=False)
        await alice.next_of(DialFailed)
        await bob.next_of(DialFailed)


async def test_a_peer_that_does_not_keep_up_loses_its_link(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        link, _ = await linked(alice, bob)
        network.cut(alice.address, bob.address)
        for _ in range(5000):
            alice.send(link, Goodbye("x", "y" * 1000))
        assert await alice.next_of(LinkLost) == LinkLost(link, EndReason.OVERFLOW)


async def test_two_runs_of_one_seed_are_equal(autojump_clock: MockClock) -> None:
    exporters = []
    for _ in range(2):
        async with memory_nodes("alice", "bob") as (alice, bob):
            await linked(alice, bob)
            exporters.append((await bob.opened()).facts.exporter)
    assert exporters[0] == exporters[1]
