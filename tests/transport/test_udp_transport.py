"""Two whole UDP transports on loopback: dialled, negotiated, moved, ended."""

import pytest

from overlay.core.dial import INVITE
from overlay.core.events import (
    DialFailed,
    Hangup,
    LinkLost,
    LinkOpened,
    Listening,
    Transmit,
)
from overlay.core.messages import Goodbye, Ping, Pong
from overlay.core.types import Address, LinkId
from tests.transport.nodes import Node, udp_nodes


async def linked(alice: Node, bob: Node) -> tuple[LinkId, LinkId]:
    """A direct dial from alice to bob: the link's id at each end."""
    link = alice.dial(bob)
    opened = await alice.opened(link)
    return opened.link, (await bob.opened()).link


async def test_a_direct_dial_opens_the_same_link_at_both_ends() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob)
        ours, theirs = await alice.opened(link), await bob.opened()
        assert (ours.inbound, theirs.inbound) == (False, True)
        assert theirs.link % 2 == 1
        assert ours.facts.exporter == theirs.facts.exporter != b""
        assert ours.facts.attempt == theirs.facts.attempt
        assert ours.facts.remote_fingerprint == bob.fingerprint
        assert theirs.facts.remote_fingerprint == alice.fingerprint
        assert (ours.facts.dtls_role, theirs.facts.dtls_role) == ("client", "server")
        assert (theirs.facts.token_kind, theirs.facts.token_id) == (INVITE, b"invite 1")
        assert (ours.facts.remote, theirs.facts.remote) == (bob.address, alice.address)


async def test_messages_cross_both_ways_in_order() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        ours, theirs = await linked(alice, bob)
        alice.send(ours, Goodbye("first", "of all"), *[Ping(token) for token in range(500)])
        bob.send(theirs, *[Pong(token) for token in range(500)])
        await bob.until(lambda: len(bob.received()) == 501)
        await alice.until(lambda: len(alice.received()) == 500)
        assert bob.received() == [
            Goodbye("first", "of all"),
            *[Ping(token) for token in range(500)],
        ]
        assert alice.received() == [Pong(token) for token in range(500)]
        statistics = alice.transport.statistics(ours)
        assert statistics is not None
        assert statistics.bytes_out > statistics.bytes_in > 0
        assert statistics.remote == bob.address
        assert statistics.rtt is not None


async def test_a_negotiated_link_opens_whoever_controls() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        ours = alice.negotiate(bob.credentials, bob.candidates(), bob.fingerprint, controlling=True)
        theirs = bob.negotiate(
            alice.credentials, alice.candidates(), alice.fingerprint, controlling=False
        )
        first, second = await alice.opened(ours), await bob.opened(theirs)
        assert first.facts.exporter == second.facts.exporter
        assert (first.inbound, second.inbound) == (False, True)
        described = alice.transport.description(ours)
        assert described is not None
        assert described.local == alice.credentials
        assert described.remote == bob.credentials
        assert described.remote_fingerprint == bob.fingerprint


async def test_a_wrong_fingerprint_is_refused_and_nothing_opens() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob, fingerprint=bytes(32))
        assert await alice.next_of(DialFailed) == DialFailed(link, "certificate")
        assert not bob.events[1:]


@pytest.mark.parametrize("fault", ["token", "expired"])
async def test_a_dial_without_a_good_token_fails(fault: str) -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        if fault == "token":
            link = alice.dial(bob, token=bytes(16), timeout=0.5)
        else:
            link = alice.dial(bob, expires_at=1_000_000_000, timeout=0.5)
        failed = await alice.next_of(DialFailed)
        assert failed.link == link
        assert failed.reason in {"timeout", "unreachable"}
        assert not bob.events[1:]


async def test_a_dial_into_the_void_fails_by_its_deadline() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob, address=Address("127.0.0.1", 9), timeout=0.3)
        assert await alice.next_of(DialFailed) == DialFailed(link, "timeout")


async def test_a_hangup_lets_the_last_messages_arrive_and_says_nothing_here() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        ours, theirs = await linked(alice, bob)
        alice.send(ours, *[Ping(token) for token in range(2000)], Goodbye("leave", "bye"))
        alice.transport.perform(Hangup(ours, "leave"))
        lost = await bob.next_of(LinkLost)
        assert lost == LinkLost(theirs, "closed")
        assert bob.received()[-1] == Goodbye("leave", "bye")
        assert len(bob.received()) == 2001
        assert not alice.all_of(LinkLost)
        assert alice.transport.statistics(ours) is None
        alice.send(ours, Ping(1))  # harmless


async def test_a_hangup_of_an_attempt_leaves_no_trace() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob, address=Address("127.0.0.1", 9), timeout=0.2)
        alice.transport.perform(Hangup(link, "cancelled"))
        other = alice.dial(bob, address=Address("127.0.0.1", 9), timeout=0.3)
        await alice.next_of(DialFailed)
        assert [event.link for event in alice.all_of(DialFailed)] == [other]


async def test_a_node_that_stops_tells_its_peers() -> None:
    async with udp_nodes("bob") as (bob,):
        async with udp_nodes("alice") as (alice,):
            _, theirs = await linked(alice, bob)
        assert await bob.next_of(LinkLost) == LinkLost(theirs, "closed")


async def test_a_peer_that_does_not_keep_up_loses_its_link_and_no_other() -> None:
    async with udp_nodes("alice", "bob", "carol") as (alice, bob, carol):
        ours, _ = await linked(alice, bob)
        other = alice.dial(carol, attempt=bytes(16))
        await alice.opened(other)
        big = Goodbye("x", "y" * 1000)
        for _ in range(5000):
            alice.transport.perform(Transmit(ours, big))
        assert await alice.next_of(LinkLost) == LinkLost(ours, "overflow")
        alice.send(other, Ping(7))
        await carol.until(lambda: carol.received() == [Ping(7)])


async def test_dials_at_once_share_one_port() -> None:
    names = [f"peer{number}" for number in range(20)]
    async with udp_nodes("hub", *names) as (hub, *peers):
        for number, peer in enumerate(peers):
            peer.dial(hub, attempt=bytes([number]) * 16)
        for peer in peers:
            await peer.opened()
        await hub.until(lambda: len({event.facts.remote for event in _opened(hub)}) == 20)
        assert len({event.facts.exporter for event in _opened(hub)}) == 20


def _opened(node: Node) -> list[LinkOpened]:
    return node.all_of(LinkOpened)


async def test_a_wildcard_socket_answers_from_the_address_that_was_asked() -> None:
    async with (
        udp_nodes("alice") as (alice,),
        udp_nodes("bob", listen=Address("0.0.0.0", 0)) as (bob,),
    ):
        listening = bob.all_of(Listening)[0]
        assert all(address.host != "0.0.0.0" for address in listening.addresses)
        link = alice.dial(bob, address=Address("127.0.0.2", bob.address.port))
        assert (await alice.opened(link)).facts.remote.host == "127.0.0.2"
        assert (await bob.opened()).facts.local.host == "127.0.0.2"


async def test_ipv6_works_like_ipv4() -> None:
    async with udp_nodes("alice", "bob", listen=Address("::1", 0)) as (alice, bob):
        ours, _ = await linked(alice, bob)
        alice.send(ours, Ping(6))
        await bob.until(lambda: bob.received() == [Ping(6)])


async def test_the_wildcard_of_ipv6_takes_both_families_on_one_port() -> None:
    async with (
        udp_nodes("four") as (four,),
        udp_nodes("six", listen=Address("::1", 0)) as (six,),
        udp_nodes("hub", listen=Address("::", 0)) as (hub,),
    ):
        assert len({address.port for address in hub.transport.listen}) == 1
        port = hub.address.port
        await four.opened(four.dial(hub, address=Address("127.0.0.1", port)))
        await six.opened(six.dial(hub, address=Address("::1", port), attempt=bytes(16)))
