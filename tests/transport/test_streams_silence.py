"""Streams over a path that falls silent: they wait as long as the link does, and no longer."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from overlay.core.events import LinkAlive, LinkLost, LinkSilent
from overlay.core.stream.mux import OPEN_TIMEOUT
from overlay.core.types import LinkId
from overlay.transport.memory.transport import LOST_AFTER, SILENT_AFTER, MemoryNetwork
from overlay.transport.streams import StreamLost, StreamReset
from tests.transport.nodes import Node, admitted, memory_nodes, stream_between


def cut(network: MemoryNetwork, alice: Node, bob: Node) -> None:
    network.cut(alice.address, bob.address)


def make_deaf(node: Node, link: LinkId, *, but_for: int) -> None:
    """Let the node hear one stream of the link only."""
    half = node.transport._links[link]  # type: ignore[attr-defined]
    receive = half.streams.mux.receive
    half.streams.mux.receive = lambda stream_id, data, now: (
        receive(stream_id, data, now) if stream_id == but_for else None
    )


async def test_a_silent_link_keeps_its_streams_and_they_go_on(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        cut(network, alice, bob)
        await near.send_all(b"before")
        unanswered = await alice.transport.open_stream(ours, "late")
        await alice.next_of(LinkSilent)
        await near.send_all(b" and while it was silent")
        await trio.sleep(LOST_AFTER - SILENT_AFTER - 1)
        assert LOST_AFTER - 1 > OPEN_TIMEOUT, "else this shows nothing"
        network.heal(alice.address, bob.address)
        await alice.next_of(LinkAlive)
        await bob.until(lambda: len(bob.streams) == 2)
        await near.send_eof()
        received = b"".join([piece async for piece in far])
        assert received == b"before and while it was silent"
        await unanswered.send_all(b"still there")
        assert await bob.streams[1].receive_some() == b"still there"


async def test_time_passes_for_streams_again_once_the_link_is_heard(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, _ = await stream_between(alice, ours, bob)
        make_deaf(bob, (await bob.opened()).link, but_for=near._stream.id)
        cut(network, alice, bob)
        unanswered = await alice.transport.open_stream(ours, "into the void")
        await alice.next_of(LinkSilent)
        await trio.sleep(OPEN_TIMEOUT)
        network.heal(alice.address, bob.address)
        await alice.next_of(LinkAlive)
        heard_at = trio.current_time()
        with pytest.raises(StreamReset, match="did not answer"), trio.fail_after(2 * OPEN_TIMEOUT):
            await unanswered.receive_some()
        assert trio.current_time() - heard_at == pytest.approx(OPEN_TIMEOUT, abs=0.1)


async def test_a_silent_link_that_is_lost_breaks_its_streams(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(Random(1))
    async with memory_nodes("alice", "bob", network=network) as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        cut(network, alice, bob)
        start = trio.current_time()
        for stream in (near, far):
            with pytest.raises(StreamLost, match="silent"):
                await stream.receive_some()
        assert trio.current_time() - start >= LOST_AFTER
        assert alice.all_of(LinkLost)


async def test_a_peer_that_never_answers_an_opening_breaks_that_stream_only(
    autojump_clock: MockClock,
) -> None:
    async with memory_nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        make_deaf(bob, (await bob.opened()).link, but_for=near._stream.id)
        unanswered = await alice.transport.open_stream(ours, "into the void")
        start = trio.current_time()
        with pytest.raises(StreamReset, match="did not answer"):
            await unanswered.receive_some()
        assert trio.current_time() - start == pytest.approx(OPEN_TIMEOUT, abs=0.1)
        await near.send_all(b"fine")
        assert await far.receive_some() == b"fine"


async def test_half_a_message_and_then_nothing_costs_one_stream(
    autojump_clock: MockClock,
) -> None:
    async with memory_nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        half, far_half = await stream_between(alice, ours, bob)
        await half.send_all(b"half a mess")
        assert await far_half.receive_some() == b"half a mess"
        with trio.move_on_after(3600) as scope:
            await far_half.receive_some()
        assert scope.cancelled_caught
        near, far = await stream_between(alice, ours, bob)
        await near.send_all(b"fine")
        assert await far.receive_some() == b"fine"
        await far_half.aclose()
