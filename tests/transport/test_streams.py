"""What streams promise an application, held by the transport on sockets and the one in memory."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import pytest
import trio
import trio.testing

from overlay.core.events import Admit, Hangup, LinkLost
from overlay.core.stream.frames import CANCELLED, Data, Open, encode
from overlay.core.stream.mux import STREAMS_MAX, WINDOW
from overlay.core.stream.stream import SEND_BUFFER
from overlay.core.types import EndReason, GoodbyeCode, LinkId, PeerId
from overlay.core.wire.messages import Ping
from overlay.errors import LinkClosed
from overlay.transport.memory.transport import MemoryTransport
from overlay.transport.sctp.association import BINARY, Channel
from overlay.transport.streams import LinkStreams, MeshStream, StreamReset
from tests.transport.nodes import (
    PATIENCE,
    Node,
    admitted,
    linked,
    memory_nodes,
    stream_between,
    udp_nodes,
)
from tests.transport.udp.test_faults import association

Nodes = Callable[..., AbstractAsyncContextManager[list[Node]]]
TwoStreams = tuple[MeshStream, MeshStream]


@pytest.fixture(params=[udp_nodes, memory_nodes], ids=["udp", "memory"])
def nodes(request: pytest.FixtureRequest) -> Nodes:
    made: Nodes = request.param
    return made


async def exactly(stream: MeshStream, size: int) -> bytes:
    data = bytearray()
    with trio.fail_after(PATIENCE):
        while len(data) < size:
            piece = await stream.receive_some(size - len(data))
            assert piece, f"the end after {len(data)} of {size} bytes"
            data += piece
    return bytes(data)


async def everything(stream: MeshStream) -> bytes:
    data = bytearray()
    with trio.fail_after(PATIENCE):
        async for piece in stream:
            data += piece
    return bytes(data)


async def clogged(stream: MeshStream) -> None:
    """Send what the other end's window and our buffer hold: nothing more goes."""
    with trio.fail_after(PATIENCE):
        await stream.send_all(bytes(WINDOW + SEND_BUFFER))


def streams_of(node: Node, link: LinkId) -> LinkStreams:
    if isinstance(node.transport, MemoryTransport):
        streams = node.transport._links[link].streams
    else:
        streams = node.transport._links[link]._streams  # type: ignore[attr-defined]
    assert isinstance(streams, LinkStreams)
    return streams


def cheat(node: Node, link: LinkId, stream_id: int, *frames: bytes) -> None:
    """Send frames that no rule allows straight onto the link, and hear no answer."""
    streams_of(node, link).mux.receive = lambda *_: None  # type: ignore[method-assign]
    for frame in frames:
        if isinstance(node.transport, MemoryTransport):
            near = node.transport._links[link]
            near.host.send(near, near._arrival(stream_id, frame))
        else:
            sctp = association(node, link)
            channel = Channel(stream_id, ordered=True, max_retransmits=None)
            sctp.queue(channel, BINARY, frame)
            sctp.flush()


# --- what trio expects of any stream -------------------------------------------------------------


async def test_it_is_a_half_closeable_stream_as_trio_defines_it(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)

        async def made() -> TwoStreams:
            return await stream_between(alice, ours, bob)

        async def made_clogged() -> TwoStreams:
            near, far = await made()
            await clogged(near)
            await clogged(far)
            return near, far

        await trio.testing.check_half_closeable_stream(made, made_clogged)


# --- bytes ---------------------------------------------------------------------------------------


async def test_bytes_cross_whole_and_in_order_both_ways_at_once(nodes: Nodes) -> None:
    sent = bytes(range(256)) * 8000
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob, "copy", 3)
        assert (far.protocol, far.priority) == ("copy", 3)

        async def send(stream: MeshStream) -> None:
            await stream.send_all(sent)
            await stream.send_eof()

        async def receive(stream: MeshStream) -> None:
            assert await everything(stream) == sent

        async with trio.open_nursery() as nursery:
            for stream in (near, far):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)
        assert not streams_of(alice, ours).mux._streams
        statistics = alice.transport.statistics(ours)
        assert statistics is not None
        assert statistics.bytes_in > len(sent)
        assert statistics.bytes_out > len(sent)
        assert statistics.queued == 0


async def test_both_ends_can_open(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, theirs = await admitted(alice, bob)
        for opener, link, acceptor in ((alice, ours, bob), (bob, theirs, alice)):
            near, far = await stream_between(opener, link, acceptor)
            await near.send_all(b"hello")
            assert await exactly(far, 5) == b"hello"


async def test_what_was_sent_before_a_close_arrives(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        async with near:
            await near.send_all(bytes(50_000))
        assert await everything(far) == bytes(50_000)
        more_than_fits = bytes(WINDOW + SEND_BUFFER + 1)  # so it waits until the word has come
        with pytest.raises(StreamReset, match="closed"):
            await far.send_all(more_than_fits)


# --- limits --------------------------------------------------------------------------------------


async def test_a_reader_that_stops_stops_its_writer_and_nobody_else(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        stuck, far = await stream_between(alice, ours, bob)
        await clogged(stuck)
        near, other = await stream_between(alice, ours, bob)
        await near.send_all(bytes(1000))
        assert await exactly(other, 1000) == bytes(1000)
        alice.send(ours, Ping(7))
        await bob.until(lambda: bob.received() == [Ping(7)])
        await exactly(far, WINDOW)
        with trio.fail_after(PATIENCE):
            await stuck.wait_send_all_might_not_block()


async def test_opening_waits_while_too_many_are_open(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        held = [await alice.transport.open_stream(ours, "test") for _ in range(STREAMS_MAX)]
        opened = trio.Event()

        async def open_one_more() -> None:
            held.append(await alice.transport.open_stream(ours, "last"))
            opened.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one_more)
            await bob.until(lambda: len(bob.streams) == STREAMS_MAX)
            assert not opened.is_set()
            held[9].reset()
            with trio.fail_after(PATIENCE):
                await opened.wait()
        await bob.until(lambda: bob.streams[-1].protocol == "last")


@pytest.mark.slow
async def test_ten_thousand_streams_from_a_few_tasks_all_serve(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        answered = 0

        async def ask() -> None:
            nonlocal answered
            for number in range(100):
                async with await alice.transport.open_stream(ours, "ask") as stream:
                    await stream.send_all(b"%d" % number)
                    await stream.send_eof()
                    assert await everything(stream) == b"%d!" % number
                    answered += 1

        async def answer(stream: MeshStream) -> None:
            async with stream:
                await stream.send_all(await everything(stream) + b"!")

        async with trio.open_nursery() as serving:
            bob._on_stream = lambda link, protocol, stream: serving.start_soon(answer, stream)  # type: ignore[method-assign]
            bob_streams = streams_of(bob, (await bob.opened()).link)
            bob_streams._on_stream = bob._on_stream
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(ask)
        assert answered == 10_000
        assert not bob_streams.mux._inbound


async def test_a_peer_that_opens_too_many_is_refused_and_the_rest_goes_on(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        for number in range(1, 400):
            cheat(alice, ours, 2 + 2 * number, encode(Open("flood", 0, 0)))
        await bob.until(lambda: len(bob.streams) == STREAMS_MAX)
        await near.send_all(b"still")
        assert await exactly(far, 5) == b"still"
        assert not bob.all_of(LinkLost)


@pytest.mark.parametrize("breach", ["flood", "beyond credit", "not admitted"])
async def test_a_peer_that_breaks_the_rules_loses_its_link_and_nobody_elses(
    nodes: Nodes, breach: str
) -> None:
    async with nodes("bob", "mallory", "carol") as (bob, mallory, carol):
        link, theirs = await (linked if breach == "not admitted" else admitted)(mallory, bob)
        good = carol.dial(bob, attempt=b"c" * 16)
        await carol.opened(good)
        if breach == "not admitted":
            mallory.transport.perform(Admit(link, PeerId(bytes(32))))
        await trio.testing.wait_all_tasks_blocked()
        if breach == "flood":
            with suppress(LinkClosed):
                await _flood(mallory, link, bob)
        else:
            frames = [encode(Data(bytes(60_000)))] * 5
            cheat(mallory, link, 8, encode(Open("test", 0, 0)), *frames)
        assert await bob.next_of(LinkLost) == LinkLost(theirs, EndReason.PROTOCOL)
        carol.send(good, Ping(1))
        await bob.until(lambda: Ping(1) in bob.received())


async def _flood(mallory: Node, link: LinkId, bob: Node) -> None:
    """Open and reset, never more than allowed at once, thousands of times."""
    for _ in range(100):
        already = len(bob.streams)
        streams = [await mallory.transport.open_stream(link, "flood") for _ in range(100)]
        await bob.until(lambda: bool(bob.all_of(LinkLost)) or len(bob.streams) >= already + 100)  # noqa: B023
        for stream in streams:
            stream.reset()
        if bob.all_of(LinkLost):
            return


# --- the end -------------------------------------------------------------------------------------


async def test_a_cancelled_send_resets_the_stream(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        with trio.move_on_after(0.5) as scope:
            await near.send_all(bytes(4 * WINDOW))
        assert scope.cancelled_caught
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"more")
        with pytest.raises(StreamReset) as caught:
            await everything(far)
        assert caught.value.code == CANCELLED


async def test_a_cancelled_read_costs_nothing(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        with trio.move_on_after(0.1):
            await far.receive_some()
        await near.send_all(b"later")
        assert await exactly(far, 5) == b"later"


async def test_a_reset_says_why(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        near.reset(4711)
        with pytest.raises(StreamReset, match="4711"):
            await exactly(far, 1)


async def test_streams_that_nobody_takes_are_refused(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, theirs = await admitted(alice, bob)
        streams_of(bob, theirs)._on_stream = None
        stream = await alice.transport.open_stream(ours, "unheard of")
        with pytest.raises(StreamReset, match="does not serve"):
            await exactly(stream, 1)


@pytest.mark.parametrize("who", ["the opener", "the acceptor"])
async def test_the_end_of_a_link_breaks_its_streams_at_both_ends(nodes: Nodes, who: str) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, theirs = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)

        async def breaks(stream: MeshStream) -> None:
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"!")
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"!")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaks, near)
            nursery.start_soon(breaks, far)
            await trio.testing.wait_all_tasks_blocked()
            if who == "the opener":
                alice.transport.perform(Hangup(ours, GoodbyeCode.LEAVE))
            else:
                bob.transport.perform(Hangup(theirs, GoodbyeCode.LEAVE))
        if who == "the acceptor":
            await alice.next_of(LinkLost)
        with pytest.raises(LinkClosed):
            await alice.transport.open_stream(ours, "late")


async def test_what_a_closed_stream_has_sent_survives_our_hangup(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        await far.send_all(b"!")
        await exactly(near, 1)  # and with it the credit
        await near.send_all(bytes(60_000))
        await near.aclose()
        alice.transport.perform(Hangup(ours, GoodbyeCode.LEAVE))
        assert await everything(far) == bytes(60_000)


async def test_a_hangup_waits_a_moment_for_the_reader_of_a_closed_stream() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        await clogged(near)
        await near.aclose()
        with trio.fail_after(PATIENCE):
            while not association(alice, ours).idle:  # noqa: ASYNC110
                await trio.sleep(0.01)
        alice.transport.perform(Hangup(ours, GoodbyeCode.LEAVE))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await everything(far)) == WINDOW + SEND_BUFFER


async def test_a_task_that_waits_to_open_is_told_when_the_link_ends(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        for _ in range(STREAMS_MAX):
            await alice.transport.open_stream(ours, "test")
        async with trio.open_nursery() as nursery:

            async def one_more() -> None:
                with pytest.raises(LinkClosed):
                    await alice.transport.open_stream(ours, "test")

            nursery.start_soon(one_more)
            await trio.testing.wait_all_tasks_blocked()
            alice.transport.perform(Hangup(ours, GoodbyeCode.LEAVE))


async def test_no_stream_on_a_link_that_is_not_admitted(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await linked(alice, bob)
        for link in (ours, LinkId(404)):
            with pytest.raises(LinkClosed):
                await alice.transport.open_stream(link, "test")


@pytest.mark.parametrize(
    ("protocol", "priority"), [("", 0), ("x" * 65, 0), ("a\n", 0), ("a", 5), ("a", -5)]
)
async def test_what_no_peer_would_accept_is_refused_here(
    nodes: Nodes, protocol: str, priority: int
) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await admitted(alice, bob)
        with pytest.raises(ValueError, match=r"name|priority"):
            await alice.transport.open_stream(ours, protocol, priority)
