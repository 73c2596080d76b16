"""Whole nodes of the unchanged core in seeded worlds: joining, negotiating, dying, coming back."""

import dataclasses
import hashlib
from functools import partial

import msgspec
import pytest

from overlay.core.events import (
    Connect,
    Dial,
    Effect,
    Event,
    LinkLost,
    Mapped,
    PathMoved,
    PingPeer,
    Prepare,
    Recall,
    Rejected,
    Resolved,
    TracePeer,
    Transmit,
)
from overlay.core.types import Address, EndReason, Negotiated, PathKind, PeerId
from overlay.core.wire.messages import Gossip, Offer, Ping
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.worlds import LOSSY, behind_firewalls, chain, is_full_mesh, line, rejected


@pytest.mark.parametrize("seed", range(12))
def test_eight_nodes_that_join_by_each_others_invites_form_a_full_mesh(seed: int) -> None:
    world = World(seed, LOSSY)
    nodes = chain(world, 8)
    world.run_until(lambda: is_full_mesh(nodes), within=60.0)
    world.publish(nodes[3], b"hello")
    world.run_until(lambda: len(world.heard(b"hello")) == 8, within=10.0)
    world.run_for(20.0)
    assert is_full_mesh(nodes), "links did not last"
    assert len(world.heard(b"hello")) == 8, "delivered twice"


@pytest.mark.parametrize("seed", range(12))
def test_the_mesh_goes_on_when_the_node_that_made_it_dies(seed: int) -> None:
    world = World(seed, LOSSY)
    creator, *others = chain(world, 8)
    world.run_until(lambda: is_full_mesh([creator, *others]), within=60.0)
    world.crash(creator)
    world.run_for(7.0)
    assert is_full_mesh(others), "a dead node still counts as a neighbour"
    world.publish(others[2], b"still here")
    world.run_until(lambda: len(world.heard(b"still here")) == 7, within=10.0)
    newcomer = world.spawn()
    request = world.join(newcomer, world.invite(others[-1]))
    world.run_until(lambda: is_full_mesh([*others, newcomer]), within=60.0)
    assert newcomer.results[request] == Resolved(request, None)


@pytest.mark.parametrize("seed", range(8))
def test_behind_firewalls_every_link_is_negotiated_through_the_mesh(seed: int) -> None:
    world = World(seed, LOSSY)
    first, *others = behind_firewalls(world, 8)
    for node in others:
        for view in node.core.peers():
            by_invite = view.peer == first.peer_id
            assert view.negotiated == (Negotiated.INVITE if by_invite else Negotiated.MESH)
            assert (view.via is None) == by_invite
    world.crash(first)
    world.publish(others[0], b"who is left")
    world.run_until(lambda: len(world.heard(b"who is left")) == 7, within=10.0)


def test_behind_firewalls_nobody_connects_without_a_go_between() -> None:
    """The counter-test: the same nodes, the same records, and nobody to carry the offer."""
    world = World(5)
    one, middle, other = line(world)
    one.firewalled = other.firewalled = True
    world.crash(middle)
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=30.0)
    assert isinstance(one.results[request], Rejected)
    assert not other.neighbours() - {middle.peer_id}


@pytest.mark.parametrize("seed", range(6))
def test_a_frozen_go_between_carries_nothing_and_a_thawed_one_does(seed: int) -> None:
    world = World(seed)
    one, middle, other = line(world, circuits=False)
    world.freeze(middle)
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=15.0)
    assert isinstance(one.results[request], Rejected)
    world.run_for(10.0)
    assert one.neighbours() == set()

    forwarded = middle.core.status().signalling.forwarded
    world.thaw(middle)
    world.run_for(1.0)
    assert one.neighbours() == {middle.peer_id}, "the suspended link did not resume"
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=15.0)
    assert one.results[request] == Resolved(request, None)
    for node, peer in ((one, other), (other, one)):
        view = next(view for view in node.core.peers() if view.peer == peer.peer_id)
        assert (view.negotiated, view.via, view.hops) == (Negotiated.MESH, middle.peer_id, 2)
    assert middle.core.status().signalling.forwarded >= forwarded + 2


@pytest.mark.parametrize("seed", range(12))
def test_of_a_direct_and_a_relayed_link_one_stands_from_then_on(seed: int) -> None:
    """Whichever comes first by milliseconds: there is one, and soon it has the direct path."""
    world = World(seed)
    one, _, other = line(world)
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=2.0)
    assert one.results[request] == Resolved(request, None)
    for _ in range(40):
        world.run_for(0.05)
        assert other.peer_id in one.neighbours()
    for node, peer in ((one, other), (other, one)):
        view = next(view for view in node.core.peers() if view.peer == peer.peer_id)
        assert view.facts.path is not PathKind.RELAYED


def test_an_offer_harmed_on_the_way_is_refused_counted_and_named() -> None:
    world = World(3)
    one, middle, other = line(world, circuits=False)
    perform, harmed = world.network.perform, []

    def harm(node: SimNode, effect: object) -> None:
        if node is middle and isinstance(effect, Transmit) and isinstance(effect.message, Offer):
            sealed = bytearray(effect.message.sealed)
            sealed[-1] ^= 1
            message = msgspec.structs.replace(effect.message, sealed=bytes(sealed))
            effect = Transmit(effect.link, message)
            harmed.append(effect)
        perform(node, effect)  # type: ignore[arg-type]

    world.network.perform = harm  # type: ignore[method-assign]
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=20.0)
    assert isinstance(one.results[request], Rejected)
    assert other.core.status().signalling.dropped == len(harmed) > 0
    named = [report for report in other.reports if report.event == "offer_refused"]
    assert named[0].fields == {"reason": "seal", "peer": middle.peer_id}


@pytest.mark.parametrize("seed", range(20))
def test_of_two_simultaneous_attempts_both_ends_keep_the_same(seed: int) -> None:
    world = World(seed, LOSSY)
    one, middle, other = line(world)
    requests = [(one, world.connect(one, other)), (other, world.connect(other, one))]
    world.run_until(lambda: all(r in node.results for node, r in requests), within=20.0)
    assert all(isinstance(node.results[r], Resolved) for node, r in requests)
    world.run_for(5.0)
    attempts = []
    for node, peer in ((one, other), (other, one)):
        views = [view for view in node.core.peers() if view.peer == peer.peer_id]
        assert len(views) == 1
        attempts.append(views[0].facts.attempt)
    assert attempts[0] == attempts[1]
    assert len(middle.neighbours()) == 2


@pytest.mark.parametrize("seed", range(8))
def test_a_node_restarted_on_its_keys_is_back_without_an_invite(seed: int) -> None:
    world = World(seed)
    nodes = chain(world, 4)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    world.crash(nodes[1])
    world.run_for(0.5)
    world.restart(nodes[1])
    world.run_until(lambda: is_full_mesh(nodes), within=2.0)
    world.run_for(70.0)
    assert is_full_mesh(nodes), "the old life of the node ended its new links"
    assert {view.negotiated for view in nodes[1].core.peers()} == {Negotiated.CACHE}


def test_a_nodes_own_record_that_comes_back_to_it_is_no_peers() -> None:
    world = World(2)
    one, two = chain(world, 2)
    world.run_for(2.0)
    world.feed(two, Recall((one.cache[one.peer_id], two.cache[two.peer_id])))
    assert [record.peer_id for record in two.core.known()] == [one.peer_id]


def test_a_node_that_left_is_not_called_after_until_it_is_back() -> None:
    world = World(11)
    nodes = chain(world, 4)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    world.leave(nodes[2])
    world.run_for(1.0)
    rest = [nodes[0], nodes[1], nodes[3]]
    assert is_full_mesh(rest)
    perform, called = world.network.perform, []

    def record(node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Dial | Prepare):
            called.append(effect)
        perform(node, effect)

    world.network.perform = record  # type: ignore[method-assign]
    world.run_for(100.0)
    assert called == [], "somebody keeps calling"
    world.restart(nodes[2])
    world.run_until(lambda: is_full_mesh(nodes), within=10.0)


@pytest.mark.parametrize("seed", range(4))
def test_more_nodes_than_fit_a_full_mesh_all_hear_a_publication(seed: int) -> None:
    world = World(seed)
    nodes = [world.spawn()]
    for _ in range(23):
        nodes.append(world.spawn())
        world.join(nodes[-1], world.invite(nodes[0]))
    world.run_for(60.0)
    for node in nodes:
        most = node.settings.links_max + node.settings.long_links  # others' long links
        assert 1 <= len(node.neighbours()) <= most
    world.publish(nodes[7], b"all")
    world.run_for(5.0)
    assert len(world.heard(b"all")) == 24


def test_a_publication_in_anothers_name_costs_the_bearer_its_link() -> None:
    world = World(8)
    nodes = chain(world, 3)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    liar, victim, framed = nodes
    link = next(view.link for view in liar.core.peers() if view.peer == victim.peer_id)
    message = Gossip(
        bytes(16), framed.peer_id, "t", b"I owe you", text=False, hops=1, signature=bytes(64)
    )
    world.network.perform(liar, Transmit(link, message))
    world.run_for(0.2)
    assert world.heard(b"I owe you") == []
    assert any(report.event == "peer_misbehaved" for report in victim.reports)
    assert not any(report.event == "peer_misbehaved" for report in framed.reports)


def test_a_ping_measures_the_round_trip_and_needs_a_link() -> None:
    world = World(9, Conditions(latency=(0.04, 0.04), jitter=0.0))
    one, _, other = line(world)
    request = world.request(one, lambda r: PingPeer(r, other.peer_id))
    assert rejected(world, one, request).code == "not_linked"
    world.connect(one, other)
    world.run_for(3.0)
    request = world.request(one, lambda r: PingPeer(r, other.peer_id))
    world.run_until(lambda: request in one.results, within=1.0)
    result = one.results[request]
    assert isinstance(result, Resolved)
    assert result.value == pytest.approx(0.08, abs=0.001)
    world.freeze(other)
    request = world.request(one, lambda r: PingPeer(r, other.peer_id))
    assert rejected(world, one, request).code == "silent", "before the ping's own time is up"


def test_a_ping_over_a_link_that_is_lost_says_so_at_once() -> None:
    world = World(9)
    one, other = chain(world, 2)
    world.run_for(2.0)
    request = world.request(one, lambda r: PingPeer(r, other.peer_id))
    (view,) = one.core.peers()
    world.feed(one, LinkLost(view.link, EndReason.GONE))
    assert request in one.results, "without waiting for its pong"
    refused = rejected(world, one, request)
    assert (refused.code, refused.text) == ("broken", "the link to the peer has ended (gone)")


def test_a_node_whose_address_changes_shows_itself_on_every_link_that_moved() -> None:
    world = World(3)
    one, _ = chain(world, 2)
    world.run_for(2.0)
    (view,) = one.core.peers()

    def pings(event: Event) -> int:
        effects = one.core.handle(event, world.now)
        return sum(isinstance(e, Transmit) and isinstance(e.message, Ping) for e in effects)

    here, elsewhere = one.address, Address("198.51.100.1", 5)
    assert pings(Mapped(view.link, here)) == 0
    assert pings(Mapped(view.link, elsewhere)) == 1
    assert pings(PathMoved(view.link, dataclasses.replace(view.facts, local=elsewhere))) == 1
    assert one.core.peers()[0].facts.local == elsewhere


def test_a_trace_names_the_nodes_on_the_way() -> None:
    world = World(9, Conditions(latency=(0.04, 0.04), jitter=0.0))
    one, middle, other = line(world)
    request = world.request(one, lambda r: TracePeer(r, other.peer_id))
    world.run_until(lambda: request in one.results, within=2.0)
    result = one.results[request]
    assert isinstance(result, Resolved)
    assert result.value.hops == (middle.peer_id, other.peer_id)
    assert result.value.rtt == pytest.approx(0.16, abs=0.001)
    world.freeze(other)
    request = world.request(one, lambda r: TracePeer(r, other.peer_id))
    assert rejected(world, one, request).code == "unreachable"
    request = world.request(one, lambda r: TracePeer(r, PeerId(bytes(32))))
    assert rejected(world, one, request).code == "unreachable"


def test_connecting_to_nobody_or_to_oneself_is_refused_at_once() -> None:
    world = World(10)
    node, stranger = world.spawn(), world.spawn(network=b"\2" * 32)
    for peer, code in ((node, "self"), (stranger, "unknown_peer")):
        request = world.request(node, partial(Connect, peer=peer.peer_id))
        result = node.results[request]
        assert isinstance(result, Rejected)
        assert result.code == code


def history(seed: int) -> str:
    """A digest of everything that happens in a small life."""
    digest = hashlib.sha256()

    class Recorded(World):
        def feed(self, node: SimNode, event: Event) -> None:
            digest.update(f"{self.clock.now_us} {node.name} {event!r}".encode())
            super().feed(node, event)

    world = Recorded(seed, LOSSY)
    nodes = chain(world, 5)
    world.run_for(5.0)
    world.crash(nodes[0])
    world.publish(nodes[1], b"x")
    world.run_for(20.0)
    return digest.hexdigest()


def test_the_same_seed_makes_the_same_world() -> None:
    assert history(1) == history(1)
    assert history(1) != history(2)


@pytest.mark.parametrize("seed", range(6))
def test_guests_are_handed_on_and_the_view_stays_within_its_limit(seed: int) -> None:
    world = World(seed)
    host = world.spawn(links_max=6, mesh_size=5)
    guests = []
    for _ in range(12):
        guests.append(world.spawn(links_max=6, mesh_size=5))
        world.join(guests[-1], world.invite(host))
    world.run_for(10.0)
    assert len(host.neighbours()) > 6, "newcomers were turned away"
    world.run_for(120.0)
    assert len(host.neighbours()) <= 9, "guests stay for good"
    world.publish(guests[0], b"all")
    world.run_for(3.0)
    assert len(world.heard(b"all")) == 13, "a guest was not handed on"
