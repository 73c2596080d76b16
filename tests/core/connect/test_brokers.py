"""Whom an offer goes through first: a common neighbour, else whoever told us of its target."""

import random
from collections.abc import Iterator

import pytest

from overlay.core.events import Effect, Received, Transmit
from overlay.core.routing.ring import place_of
from overlay.core.types import PeerId
from overlay.core.wire.messages import Offer, Records
from overlay.sim.node import SimNode
from overlay.sim.world import World


@pytest.fixture(scope="module")
def world() -> World:
    """A mesh in which links come about by offers alone."""
    world, rng = World(5), random.Random(5)
    nodes = [world.spawn(direct=False)]
    for _ in range(49):
        invite = world.invite(rng.choice(nodes))
        nodes.append(world.spawn(direct=False))
        world.join(nodes[-1], invite)
        world.run_for(0.5)
    world.run_for(60.0)
    return world


def common(one: SimNode, other: SimNode) -> set[PeerId]:
    return one.neighbours() & other.neighbours()


def told(one: SimNode, other: SimNode) -> set[PeerId]:
    """Common neighbours that have told so: a link of a moment ago has not got about."""
    neighbours = one.core._routing.lookahead.neighbours
    place = place_of(other.peer_id)
    return {peer for peer in common(one, other) if place in neighbours[peer].places}


def pairs(world: World, *, linked: bool) -> Iterator[tuple[SimNode, SimNode]]:
    """Nodes without a link that have common neighbours, or none."""
    rng = random.Random(6)
    while True:
        one, other = rng.sample(world.nodes, 2)
        if other.peer_id not in one.neighbours() and bool(common(one, other)) == linked:
            yield one, other


def first_hop(world: World, one: SimNode, other: SimNode) -> PeerId:
    """Where the offer goes when one node is told to connect to the other."""
    hops: list[PeerId] = []
    target = (other.peer_id, 0)
    perform = world.network.perform

    def note(node: SimNode, effect: Effect) -> None:
        offer = effect.message if isinstance(effect, Transmit) else None
        if node is one and isinstance(offer, Offer) and (offer.target, offer.hops) == target:
            assert isinstance(effect, Transmit)
            hops.append(world.network.ends[node][effect.link].other.node.peer_id)
        perform(node, effect)

    world.network.perform = note  # type: ignore[method-assign]
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=15.0)
    world.network.perform = perform  # type: ignore[method-assign]
    return hops[0]


def tell(world: World, one: SimNode, other: SimNode, bearer: PeerId) -> None:
    """A neighbour of the one brings the other's record, newer than any before."""
    other.core._membership.renew(world.now)
    record = other.core._membership.own
    (link,) = [view.link for view in one.core.peers() if view.peer == bearer]
    world.feed(one, Received(link, Records([record])))


def test_an_offer_goes_to_a_common_neighbour_first_whoever_told_of_its_target(
    world: World,
) -> None:
    found = (each for each in pairs(world, linked=True) if told(*each))
    for _ in range(5):
        one, other = next(found)
        strangers = one.neighbours() - common(one, other)
        if strangers:
            tell(world, one, other, min(strangers))
        brokers = common(one, other)
        assert first_hop(world, one, other) in brokers


def test_without_a_common_neighbour_it_goes_to_whoever_told_of_its_target(world: World) -> None:
    found = pairs(world, linked=False)
    greedy = 0
    for _ in range(5):
        one, other = next(found)
        bearer = random.Random(world.clock.now_us).choice(sorted(one.neighbours()))
        routing = one.core._routing
        place = place_of(other.peer_id)
        nearest = routing.lookahead.best(place, list(routing.neighbours))
        assert nearest is not None
        greedy += nearest[1] == bearer
        tell(world, one, other, bearer)
        assert first_hop(world, one, other) == bearer
    assert greedy < 5, "greedy routing would have gone there anyway"


def test_who_told_of_a_peer_long_ago_is_not_asked_first(world: World) -> None:
    found = pairs(world, linked=False)
    others = 0
    for _ in range(5):
        one, other = next(found)
        bearer = random.Random(world.clock.now_us).choice(sorted(one.neighbours()))
        tell(world, one, other, bearer)
        world.run_for(30.0)
        if other.peer_id not in one.neighbours() and not common(one, other):
            others += first_hop(world, one, other) != bearer
    assert others >= 2
