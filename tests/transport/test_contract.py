"""What every transport promises the core, held by the one on sockets and the one in memory."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from overlay.core.events import DialFailed, Hangup, LinkLost, Prepare
from overlay.core.types import Address, EndReason, GoodbyeCode
from overlay.core.wire.dial_tokens import INVITE
from overlay.core.wire.messages import Goodbye, Ping, Pong
from tests.transport.nodes import Node, linked, memory_nodes, udp_nodes

Nodes = Callable[..., AbstractAsyncContextManager[list[Node]]]
NOBODY = Address("127.0.0.1", 9)
"""Where nobody listens."""


@pytest.fixture(params=[udp_nodes, memory_nodes], ids=["udp", "memory"])
def nodes(request: pytest.FixtureRequest) -> Nodes:
    made: Nodes = request.param
    return made


async def test_a_direct_dial_opens_the_same_link_at_both_ends(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
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


async def test_messages_cross_both_ways_in_order(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
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


async def test_a_negotiated_link_opens_whoever_controls(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
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


async def test_a_prepared_link_opens_though_the_peer_began_to_check_before(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours = alice.new_link()
        alice.transport.perform(Prepare(ours, alice.credentials, bytes(16), alice.candidates()))
        theirs = bob.negotiate(
            alice.credentials, alice.candidates(), alice.fingerprint, controlling=False
        )
        await trio.testing.wait_all_tasks_blocked()
        alice.negotiate(
            bob.credentials, bob.candidates(), bob.fingerprint, controlling=True, link=ours
        )
        await alice.opened(ours)
        await bob.opened(theirs)


async def test_a_negotiation_that_nobody_answers_fails_by_its_deadline(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        link = alice.negotiate(
            bob.credentials, bob.candidates(), bob.fingerprint, controlling=True, timeout=0.3
        )
        assert (await alice.next_of(DialFailed)).link == link


async def test_a_wrong_fingerprint_is_refused_and_nothing_opens(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob, fingerprint=bytes(32))
        assert await alice.next_of(DialFailed) == DialFailed(link, EndReason.CERTIFICATE)
        assert not bob.events[1:]


@pytest.mark.parametrize("fault", ["token", "expired"])
async def test_a_dial_without_a_good_token_fails(nodes: Nodes, fault: str) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        if fault == "token":
            link = alice.dial(bob, token=bytes(16), timeout=0.5)
        else:
            link = alice.dial(bob, expires_at=1_000_000_000, timeout=0.5)
        failed = await alice.next_of(DialFailed)
        assert failed.link == link
        assert failed.reason in {"timeout", "unreachable"}
        assert not bob.events[1:]


async def test_a_dial_into_the_void_fails_by_its_deadline(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob, address=NOBODY, timeout=0.3)
        assert await alice.next_of(DialFailed) == DialFailed(link, EndReason.TIMEOUT)


async def test_a_hangup_lets_the_last_messages_arrive_and_says_nothing_here(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, theirs = await linked(alice, bob)
        alice.send(ours, *[Ping(token) for token in range(2000)], Goodbye("leave", "bye"))
        alice.transport.perform(Hangup(ours, GoodbyeCode.LEAVE))
        lost = await bob.next_of(LinkLost)
        assert lost == LinkLost(theirs, EndReason.CLOSED)
        assert bob.received()[-1] == Goodbye("leave", "bye")
        assert len(bob.received()) == 2001
        assert not alice.all_of(LinkLost)
        assert alice.transport.statistics(ours) is None
        alice.send(ours, Ping(1))  # harmless


async def test_a_hangup_of_an_attempt_leaves_no_trace(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        link = alice.dial(bob, address=NOBODY, timeout=0.2)
        alice.transport.perform(Hangup(link, EndReason.CANCELLED))
        other = alice.dial(bob, address=NOBODY, timeout=0.3)
        await alice.next_of(DialFailed)
        assert [event.link for event in alice.all_of(DialFailed)] == [other]


async def test_a_node_that_stops_tells_its_peers(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        _, theirs = await linked(alice, bob)
        alice.stop()
        assert await bob.next_of(LinkLost) == LinkLost(theirs, EndReason.CLOSED)


@pytest.mark.parametrize("controlling", [False, True])
async def test_a_negotiation_refuses_a_certificate_that_was_not_promised(
    nodes: Nodes, controlling: bool
) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours = alice.negotiate(
            bob.credentials, bob.candidates(), bytes(32), controlling=controlling, timeout=3
        )
        bob.negotiate(
            alice.credentials,
            alice.candidates(),
            alice.fingerprint,
            controlling=not controlling,
            timeout=3,
        )
        assert await alice.next_of(DialFailed) == DialFailed(ours, EndReason.CERTIFICATE)
        await bob.next_of(DialFailed)


async def test_a_message_that_breaks_our_own_bounds_is_our_fault_and_costs_no_link(
    nodes: Nodes,
) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, _ = await linked(alice, bob)
        alice.send(ours, Goodbye("x" * 100_000, ""))
        alice.send(ours, Ping(1))
        await bob.until(lambda: bob.received() == [Ping(1)])
        assert alice.transport.internal_errors == 1
        alice.transport.internal_errors = 0


async def test_nothing_happens_once_a_transport_has_stopped(nodes: Nodes) -> None:
    async with nodes("alice", "bob") as (alice, bob):
        ours, theirs = await linked(alice, bob)
        alice.stop()
        await bob.next_of(LinkLost)
        events = len(alice.events)
        alice.send(ours, Ping(1))
        alice.dial(bob, attempt=b"n" * 16)
        alice.transport.perform(Hangup(ours, GoodbyeCode.UNNEEDED))
        bob.send(theirs, Ping(2))
        assert len(alice.events) == events
        assert alice.transport.statistics(ours) is None
        assert alice.transport.description(ours) is None
