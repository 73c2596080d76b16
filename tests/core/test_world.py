"""Whole nodes of the unchanged core in seeded worlds: joining, negotiating, dying, coming back."""

import dataclasses
import hashlib
from functools import partial
from typing import Any

import msgspec
import pytest

from overlay.core.events import (
    ClockSet,
    Connect,
    Dial,
    Effect,
    Event,
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
from overlay.core.types import Address, Negotiated, PeerId, RequestId
from overlay.core.wire.messages import Gossip, Offer, Ping
from overlay.sim.clock import EPOCH
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World

LOSSY = Conditions(latency=(0.005, 0.150), jitter=0.02, loss=0.05)


def is_full_mesh(nodes: list[SimNode]) -> bool:
    """Whether everybody is linked to everybody."""
    return all(len(node.neighbours()) == len(nodes) - 1 for node in nodes)


def chain(world: World, size: int, **settings: Any) -> list[SimNode]:
    """Nodes of which each joins by the invite of the one before it."""
    nodes = [world.spawn(**settings)]
    for _ in range(size - 1):
        invite = world.invite(nodes[-1])
        nodes.append(world.spawn(**settings))
        request = world.join(nodes[-1], invite)
        world.run_until(lambda: request in nodes[-1].results, within=10.0)  # noqa: B023
        assert nodes[-1].results[request] == Resolved(request, None)
    return nodes


def behind_firewalls(world: World, size: int) -> list[SimNode]:
    """A mesh in which only the first node could have been dialled; returns it when full."""
    nodes = [world.spawn()]
    invite = world.invite(nodes[0])
    for _ in range(size - 1):
        nodes.append(world.spawn(firewalled=True))
        world.join(nodes[-1], invite)
    world.run_until(lambda: is_full_mesh(nodes), within=60.0)
    return nodes


def line(world: World) -> tuple[SimNode, SimNode, SimNode]:
    """A–B–C, linked only through B, opening no link that nobody asked for."""
    middle = world.spawn(auto=False, direct=False)
    invite = world.invite(middle)
    ends = [world.spawn(auto=False, direct=False) for _ in range(2)]
    for end in ends:
        world.join(end, invite)
    world.run_until(lambda: len(middle.neighbours()) == 2, within=10.0)
    world.run_for(1.0)
    assert all(end.neighbours() == {middle.peer_id} for end in ends)
    return ends[0], middle, ends[1]


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
    one, middle, other = line(world)
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


def test_an_offer_harmed_on_the_way_is_refused_counted_and_named() -> None:
    world = World(3)
    one, middle, other = line(world)
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


def rejected(world: World, node: SimNode, request: RequestId) -> Rejected:
    """How a command failed."""
    world.run_until(lambda: request in node.results, within=30.0)
    result = node.results[request]
    assert isinstance(result, Rejected)
    assert "\n" not in result.text
    return result


def test_a_join_that_cannot_work_says_why() -> None:
    world = World(1)
    host = world.spawn()
    invite = world.invite(host, expires_in=100.0)
    stranger = world.spawn(network=b"\1" * 32)
    assert rejected(world, stranger, world.join(stranger, invite)).code == "network"

    forged = msgspec.structs.replace(
        invite, grant=msgspec.structs.replace(invite.grant, signature=bytes(64))
    )
    guest = world.spawn()
    assert rejected(world, guest, world.join(guest, forged)).code == "refused"

    skewed = world.spawn()
    world.feed(skewed, ClockSet(EPOCH + world.now - 86_400))
    clock = rejected(world, skewed, world.join(skewed, invite))
    assert (clock.code, "clock" in clock.text) == ("clock", True)

    wrong = msgspec.structs.replace(invite.members[0], fingerprint=bytes(32))
    request = world.join(guest, msgspec.structs.replace(invite, members=[wrong]))
    certificate = rejected(world, guest, request)
    assert (certificate.code, "certificate" in certificate.text) == ("certificate", True)
    assert guest.core.status().refused["certificate"] == 1

    world.crash(host)
    gone = rejected(world, guest, world.join(guest, invite))
    assert gone.code == "unreachable"

    world.run_for(200.0)
    assert rejected(world, guest, world.join(guest, invite)).code == "expired"


def test_an_invite_names_neighbours_and_works_without_its_maker() -> None:
    world = World(4)
    nodes = chain(world, 4)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    alone = world.invite(nodes[0], members=1)
    shared = world.invite(nodes[0], members=4)
    assert len(alone.members) == 1
    assert 2 <= len(shared.members) <= 4
    world.crash(nodes[0])
    late, later = world.spawn(), world.spawn()
    assert rejected(world, late, world.join(late, alone)).code == "unreachable"
    request = world.join(later, shared)
    world.run_until(lambda: request in later.results, within=10.0)
    assert later.results[request] == Resolved(request, None)


def test_a_dial_token_opens_only_the_node_that_made_it() -> None:
    """The counter-test of the invite: another kind of token, or another node's, opens nothing."""
    world = World(6)
    host, other = world.spawn(), world.spawn()
    invite = world.invite(host)
    (member,) = invite.members
    stolen = world.invite(other).members[0]
    swapped = msgspec.structs.replace(member, token=stolen.token)
    guest = world.spawn()
    request = world.join(guest, msgspec.structs.replace(invite, members=[swapped]))
    assert rejected(world, guest, request).code == "unreachable"


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
    assert rejected(world, one, request).code == "timeout"


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


def test_an_invite_does_not_wait_for_a_neighbour_that_says_nothing() -> None:
    world = World(4)
    nodes = chain(world, 3)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    world.freeze(nodes[1])
    before = world.now
    invite = world.invite(nodes[0], members=4)
    assert nodes[1].peer_id not in [member.peer_id for member in invite.members]
    assert world.now - before <= 1.1


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


def test_a_record_that_is_too_old_or_another_networks_joins_nobody() -> None:
    world = World(13)
    one, two = chain(world, 2)
    world.run_for(2.0)
    stranger = world.spawn(network=b"\3" * 32)
    world.feed(stranger, Recall((one.cache[two.peer_id], b"garbage")))
    assert stranger.core.known() == []
    world.feed(stranger, ClockSet(EPOCH + world.now + 100 * 86_400))
    late = world.spawn()
    world.feed(late, ClockSet(EPOCH + world.now + 100 * 86_400))
    world.feed(late, Recall((one.cache[two.peer_id],)))
    assert late.core.known() == []


@pytest.mark.parametrize("up", [1, 4])
def test_of_the_members_that_an_invite_names_one_takes_the_newcomer_in(up: int) -> None:
    """Whichever answers first; of the others, hardly one has answered by then, too."""
    joined = 0
    for seed in range(5):
        world = World(seed)
        nodes = [world.spawn(advertised=True)]
        for _ in range(11):
            nodes.append(world.spawn(advertised=True))
            world.join(nodes[-1], world.invite(nodes[0]))
            world.run_for(0.5)
        invite = world.invite(nodes[3], members=4)
        named = [node for node in nodes if node.peer_id in {m.peer_id for m in invite.members}]
        assert len(named) == 4
        for node in named[up:]:
            world.crash(node)
        newcomer = world.spawn()
        request = world.join(newcomer, invite)
        world.run_for(2.0)
        assert isinstance(newcomer.results[request], Resolved)
        views = newcomer.core.peers()
        joined += sum(each.negotiated is Negotiated.INVITE for each in views)
    assert 5 <= joined <= (5 if up == 1 else 10)
