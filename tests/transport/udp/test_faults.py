"""Bad nets, bad peers and our own bugs: who pays, and that nobody else does."""

import gc
import logging
import socket
import weakref
from random import Random

import pytest
import trio

import overlay.transport.udp.link
from overlay.core.events import (
    Admit,
    DialFailed,
    Hangup,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
    PathMoved,
)
from overlay.core.types import Address, EndReason, GoodbyeCode, LinkId, PeerId
from overlay.core.wire import codec
from overlay.core.wire.messages import Ping
from overlay.transport.sctp.association import Sctp
from overlay.transport.streams import StreamLost
from overlay.transport.udp.transport import UdpTransport
from tests.transport.nodes import PATIENCE, Node, admitted, linked, stream_between, udp_nodes
from tests.transport.sctp.test_association import FAULTS, chunk, packet
from tests.transport.udp.relay import relay_to


def udp(node: Node) -> UdpTransport:
    assert isinstance(node.transport, UdpTransport)
    return node.transport


def association(node: Node, link: LinkId) -> Sctp:
    sctp = udp(node)._links[link]._sctp
    assert sctp is not None
    return sctp


async def answers(asker: Node, ours: LinkId, answerer: Node, token: int) -> None:
    """A message still crosses the link."""
    asker.send(ours, Ping(token))
    await answerer.until(lambda: Ping(token) in answerer.received())


class Seen:
    """What a fault of tests.transport.sctp.test_association needs to know of the victim."""

    def __init__(self, sctp: Sctp) -> None:
        self.association = sctp


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_a_peer_that_breaks_sctp_loses_its_link_and_nobody_elses(fault: str) -> None:
    async with udp_nodes("bob", "mallory", "carol") as (bob, mallory, carol):
        bad, theirs = await linked(mallory, bob)
        good = carol.dial(bob, attempt=b"c" * 16)
        await carol.opened(good)
        victim = association(bob, theirs)
        chunks = FAULTS[fault](Seen(victim))  # type: ignore[arg-type]
        tag = 0 if chunks[0][0] == 1 else victim._local_verification_tag
        udp(mallory)._links[bad]._dtls.send(packet(tag, *chunks))
        assert await bob.next_of(LinkLost) == LinkLost(theirs, EndReason.PROTOCOL)
        await answers(carol, good, bob, 77)


@pytest.mark.parametrize("reason", [EndReason.GONE, EndReason.STALLED, EndReason.BROKEN])
async def test_a_stream_says_why_its_link_has_ended(reason: EndReason) -> None:
    async with udp_nodes("bob", "alice") as (bob, alice):
        ours, _ = await admitted(alice, bob)
        near, far = await stream_between(alice, ours, bob)
        udp(alice)._links[ours].end(reason)
        with pytest.raises(StreamLost, match=reason) as mine:
            await near.receive_some()
        with pytest.raises(StreamLost, match="closed") as others:
            await far.receive_some()
        assert (mine.value.reason, others.value.reason) == (reason, EndReason.CLOSED)
        assert await alice.next_of(LinkLost) == LinkLost(ours, reason)


async def test_unknown_chunks_cost_a_peer_nothing() -> None:
    """The counter-test: what RFC 9260 says to ignore is ignored."""
    async with udp_nodes("bob", "alice") as (bob, alice):
        ours, theirs = await linked(alice, bob)
        tag = association(bob, theirs)._local_verification_tag
        udp(alice)._links[ours]._dtls.send(packet(tag, chunk(0xBF, b"new")))
        await answers(alice, ours, bob, 1)
        assert not bob.all_of(LinkLost)


@pytest.mark.parametrize("seed", range(3))
async def test_altered_copies_of_a_links_own_datagrams_harm_no_link(seed: int) -> None:
    async with udp_nodes("bob", "alice", "carol") as (bob, alice, carol):
        captured: list[bytes] = []
        send = udp(alice).send_datagram

        def capture(data: bytes, remote: Address, local: Address | None) -> None:
            captured.append(data)
            send(data, remote, local)

        udp(alice).send_datagram = capture  # type: ignore[method-assign]
        ours, _ = await linked(alice, bob)
        other = carol.dial(bob, attempt=b"c" * 16)
        await carol.opened(other)
        await answers(alice, ours, bob, 1)
        random = Random(seed)
        for round_ in range(20):
            for _ in range(100):
                broken = bytearray(random.choice(captured))
                for _ in range(random.randrange(4)):
                    broken[random.randrange(len(broken))] = random.randrange(256)
                send(bytes(broken[: random.randrange(1, len(broken) + 1)]), bob.address, None)
            await answers(carol, other, bob, 100 + round_)
        await answers(alice, ours, bob, 2)
        assert not bob.all_of(LinkLost)


async def test_random_and_empty_datagrams_from_strangers_harm_no_link() -> None:
    random = Random(5)
    async with udp_nodes("bob", "alice") as (bob, alice):
        ours, _ = await linked(alice, bob)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for round_ in range(20):
                for _ in range(100):
                    first = bytes([random.choice((0, 1, 20, 21, 22, 23, 63, 64, 128, 255))])
                    noise = random.choice(
                        (b"", first + random.randbytes(random.randrange(1, 1500)))
                    )
                    stranger.sendto(noise, bob.address)
                await answers(alice, ours, bob, round_)


async def test_a_bug_of_ours_costs_one_link_and_is_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode = codec.decode

    def buggy(data: bytes) -> object:
        message = decode(data)
        if message == Ping(666):
            raise ZeroDivisionError("a bug")
        return message

    monkeypatch.setattr(overlay.transport.udp.link, "decode", buggy)
    async with udp_nodes("bob", "alice", "carol") as (bob, alice, carol):
        ours, theirs = await linked(alice, bob)
        other = carol.dial(bob, attempt=b"c" * 16)
        await carol.opened(other)
        with caplog.at_level(logging.ERROR, "overlay.transport"):
            alice.send(ours, Ping(666))
            assert await bob.next_of(LinkLost) == LinkLost(theirs, EndReason.ERROR)
        assert bob.transport.internal_errors == 1
        assert "ZeroDivisionError" in caplog.text
        await answers(carol, other, bob, 1)
        bob.transport.internal_errors = 0


async def test_a_link_opens_and_loses_nothing_over_a_bad_net() -> None:
    async with udp_nodes("bob", "alice") as (bob, alice), relay_to(bob.address) as relay:
        relay.loss = 0.15
        link = alice.dial(bob, address=relay.address, timeout=30)
        await alice.opened(link)
        theirs = (await bob.opened()).link
        for token in range(300):
            alice.send(link, Ping(token))
            bob.send(theirs, Ping(token))
        await alice.until(lambda: len(alice.received()) == 300)
        await bob.until(lambda: len(bob.received()) == 300)
        assert alice.received() == bob.received() == [Ping(token) for token in range(300)]


@pytest.mark.slow
async def test_a_frozen_path_is_suspected_then_silent_and_resumes_where_it_was() -> None:
    async with udp_nodes("bob", "alice") as (bob, alice), relay_to(bob.address) as relay:
        link = alice.dial(bob, address=relay.address)
        await alice.opened(link)
        theirs = (await bob.opened()).link
        alice.transport.perform(Admit(link, PeerId(bytes(32))))
        bob.transport.perform(Admit(theirs, PeerId(bytes(32))))
        stream, far = await stream_between(alice, link, bob)
        relay.loss = 1.0
        await stream.send_all(b"while it was silent")
        alice.send(link, Ping(1))
        bob.send(theirs, Ping(2))
        assert await alice.next_of(LinkSuspect) == LinkSuspect(link)
        assert await alice.next_of(LinkSilent) == LinkSilent(link)
        assert await bob.next_of(LinkSilent) == LinkSilent(theirs)
        unanswered = await alice.transport.open_stream(link, "waits")
        assert unanswered._streams.mux.next_deadline() is None, "no time passes for streams"
        relay.loss = 0.0
        assert await alice.next_of(LinkAlive) == LinkAlive(link)
        await bob.until(lambda: bob.received() == [Ping(1)])
        await alice.until(lambda: alice.received() == [Ping(2)])
        assert await far.receive_some() == b"while it was silent"
        await bob.until(lambda: len(bob.streams) == 2)
        assert not alice.all_of(LinkLost)


@pytest.mark.slow
async def test_a_link_follows_its_peer_to_a_new_address() -> None:
    async with udp_nodes("bob", "alice") as (bob, alice), relay_to(bob.address) as relay:
        link = alice.dial(bob, address=relay.address)
        await alice.opened(link)
        opened = await bob.opened()
        bob.transport.perform(Admit(opened.link, PeerId(bytes(32))))
        await relay.move()
        alice.send(link, Ping(1))
        moved = await bob.next_of(PathMoved)
        assert moved.link == opened.link
        assert moved.facts.remote != opened.facts.remote
        await bob.until(lambda: bob.received() == [Ping(1)])
        bob.send(opened.link, Ping(2))
        await alice.until(lambda: alice.received() == [Ping(2)])


async def test_an_icmp_error_about_one_address_harms_no_link() -> None:
    async with udp_nodes("bob", "alice") as (bob, alice):
        ours, _ = await linked(alice, bob)
        alice.dial(bob, address=Address("127.0.0.1", 9), attempt=b"x" * 16, timeout=0.5)
        await alice.next_of(DialFailed)
        await answers(alice, ours, bob, 1)


async def test_a_link_that_has_ended_is_freed_without_the_cycle_collector() -> None:
    """OpenSSL's memory does not count for the collector, so it would come too late."""
    async with udp_nodes("bob", "alice") as (bob, alice):
        ours, theirs = await linked(alice, bob)
        freed = [trio.Event(), trio.Event()]
        for gone, node, link in zip(freed, (alice, bob), (ours, theirs), strict=True):
            weakref.finalize(udp(node)._links[link]._dtls, gone.set)
        gc.disable()
        try:
            alice.transport.perform(Hangup(ours, GoodbyeCode.UNNEEDED))
            with trio.fail_after(PATIENCE):
                for gone in freed:
                    await gone.wait()  # until the last timer that knew the link has rung
        finally:
            gc.enable()
