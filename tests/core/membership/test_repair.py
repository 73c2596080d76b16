"""Repair of the views when neighbours die: at once, with whoever answers, and only for cause."""

from random import Random

import pytest

from overlay.core.context import Context, Settings
from overlay.core.events import Transmit
from overlay.core.membership.hyparview import (
    KNOWN_MAX,
    REPAIRS_MAX,
    WANT_PATIENCE,
    Fact,
    HyParView,
    NeighbourDown,
    Parameters,
    Wanted,
)
from overlay.core.membership.shuffles import ShuffledView, ShuffleParameters
from overlay.core.types import LinkId, PeerId
from overlay.core.wire import messages as m
from overlay.sim.crypto import Ledger, StandInCrypto
from overlay.sim.node import SimNode
from overlay.sim.world import World

NODES = 20


def peers(first: int, count: int) -> list[PeerId]:
    return [PeerId(bytes([first + i]) * 32) for i in range(count)]


def a_view(
    neighbours: int, strangers: int, *, resort: bool = True
) -> tuple[HyParView, list[PeerId]]:
    """A full view of `neighbours`, and `strangers` to fill it from; its neighbours."""
    crypto = StandInCrypto(Ledger(), Random(1))
    settings = Settings(bytes(32), "net", "n", 1, bytes(32), resort=resort)
    context = Context(settings, crypto, Random(2))
    view = HyParView(context, Parameters(active_size=neighbours, full_mesh=0))
    view.passive = ShuffledView(
        view.context, ShuffleParameters(), view.active, view.links, view.known, lambda _: None
    )
    inside = peers(1, neighbours)
    for number, peer in enumerate(inside):
        view.on_linked(peer, LinkId(number), ours=False, join=False, now=0.0)
        view.on_neighbour_ask(peer, m.NeighbourAsk(high=True), 0.0)
    for peer in peers(100, strangers):
        view.on_known(peer, 0.0)
    view.on_time(10.0)  # by now nobody waits for others to come first
    assert list(view.active) == inside
    return view, inside


def wanted(facts: list[Fact]) -> list[PeerId]:
    return [fact.peer for fact in facts if isinstance(fact, Wanted)]


def test_one_doubtful_neighbour_is_waited_for() -> None:
    view, inside = a_view(5, 10)
    assert wanted(view.on_doubt(inside[0], 20.0, doubtful=True)) == []


def test_most_neighbours_in_doubt_are_repaired_before_they_are_known_to_be_dead() -> None:
    view, inside = a_view(5, 10)
    facts = [fact for peer in inside[:3] for fact in view.on_doubt(peer, 20.0, doubtful=True)]
    assert len(wanted(facts)) == 1
    assert not any(isinstance(fact, NeighbourDown) for fact in facts)


def test_doubt_that_passes_costs_nobody_anything() -> None:
    view, inside = a_view(5, 10)
    view.on_doubt(inside[0], 20.0, doubtful=True)
    view.on_doubt(inside[1], 20.0, doubtful=True)
    view.on_doubt(inside[0], 20.0, doubtful=False)
    assert wanted(view.on_doubt(inside[2], 20.1, doubtful=True)) == []
    assert list(view.active) == inside


def test_a_full_view_takes_in_a_peer_at_the_expense_of_a_doubtful_one() -> None:
    view, inside = a_view(5, 1)
    (stranger,) = peers(100, 1)
    view.on_linked(stranger, LinkId(9), ours=False, join=False, now=20.0)
    view.on_neighbour_ask(stranger, m.NeighbourAsk(high=False), 20.0)
    assert stranger not in view.active, "nobody is in doubt yet"
    view.on_doubt(inside[2], 21.0, doubtful=True)
    view.on_neighbour_ask(stranger, m.NeighbourAsk(high=False), 21.0)
    assert stranger in view.active
    assert inside[2] not in view.active
    sent = [each.message for each in view.context.drain() if isinstance(each, Transmit)]
    assert m.Disconnect() in sent


def test_a_wanted_peer_that_does_not_come_is_given_company_within_bounds() -> None:
    view, inside = a_view(5, 30)
    asked = [peer for each in inside for peer in wanted(view.on_unlinked(each, 20.0, absent=True))]
    assert len(asked) == 2
    now = 20.0
    for _ in range(10):
        now += WANT_PATIENCE
        asked += wanted(view.on_time(now))
    assert 2 < len(asked) <= REPAIRS_MAX
    assert len(set(asked)) == len(asked)


def test_who_was_refused_by_as_many_as_it_wants_asks_the_next_with_high_priority() -> None:
    view, inside = a_view(5, 8)
    for number, peer in enumerate(peers(100, 8)):
        view.on_linked(peer, LinkId(20 + number), ours=False, join=False, now=20.0)
    view.context.drain()
    now, asks = 20.0, []
    for each in inside[:2]:
        view.on_disconnect(each, now)
    for _ in range(400):
        for sent in view.context.drain():
            if isinstance(sent, Transmit) and isinstance(sent.message, m.NeighbourAsk):
                peer = next(peer for peer, link in view.links.items() if link == sent.link)
                asks.append(sent.message.high)
                view.on_neighbour_reply(peer, m.NeighbourReply(accepted=False), now)
        now += 1.0
        view.on_time(now)
    assert not any(asks[:5])
    assert any(asks[5:8]), "two are asked at once"
    assert 0.1 < sum(asks) / len(asks) < 0.25, "and then begins to count anew"


def test_who_has_nobody_left_asks_whom_it_is_linked_to_even_if_they_have_just_refused() -> None:
    """Found behind a NAT that few can get through: for half a minute nothing was heard."""
    view, (neighbour,) = a_view(1, 8)
    view.parameters = Parameters(active_size=3, full_mesh=0)
    linked = peers(50, 2)
    for number, peer in enumerate(linked):
        view.on_linked(peer, LinkId(20 + number), ours=True, join=False, now=20.0)
        view.on_neighbour_reply(peer, m.NeighbourReply(accepted=False), 20.0)
    view.context.drain()
    facts = view.on_doubt(neighbour, 21.0, doubtful=True)
    asks = [each for each in view.context.drain() if isinstance(each, Transmit)]
    assert {each.link for each in asks} == {view.links[peer] for peer in linked}
    assert {each.message for each in asks} == {m.NeighbourAsk(high=True)}
    assert not set(wanted(facts)) & set(linked)
    view.on_time(21.1)
    assert view.context.drain() == [], "each is asked once"


def test_the_paper_replaces_who_died_at_once_and_who_made_room_at_the_next_shuffle() -> None:
    """Algorithm 1: before that, the passive view holds mostly former neighbours."""
    view, inside = a_view(5, 8, resort=False)
    for peer in peers(100, 8):
        view.passive.add(peer)
    assert wanted(view.on_disconnect(inside[0], 20.0)) == []
    assert wanted(view.on_time(30.0)) == []
    assert len(wanted(view.on_unlinked(inside[1], 31.0, absent=True))) == 1
    view.shrink()
    assert len(wanted(view.on_doubt(inside[2], 32.0, doubtful=False))) == 1
    ours, inside = a_view(5, 8)
    assert len(wanted(ours.on_disconnect(inside[0], 20.0))) == 1, "the product waits for nothing"


def test_who_takes_us_in_too_late_is_told_that_we_do_not_count_on_it() -> None:
    view, inside = a_view(5, 1)
    (stranger,) = peers(100, 1)
    view.on_linked(stranger, LinkId(9), ours=False, join=False, now=20.0)
    view.on_disconnect(inside[0], 20.0)
    view.on_neighbour_reply(stranger, m.NeighbourReply(accepted=False), 27.0)
    view.context.drain()
    view.on_neighbour_reply(stranger, m.NeighbourReply(accepted=True), 27.1)
    assert stranger not in view.active
    assert Transmit(LinkId(9), m.Disconnect()) in view.context.drain()
    view.on_neighbour_reply(inside[1], m.NeighbourReply(accepted=True), 27.2)
    assert inside[1] in view.active
    assert view.context.drain() == [], "both count on each other"
    view.on_neighbour_reply(inside[1], m.NeighbourReply(accepted=False), 27.3)
    assert inside[1] not in view.active, "it does not count on us, so nor do we on it"
    assert Transmit(LinkId(1), m.Disconnect()) in view.context.drain()


@pytest.fixture(params=range(6))
def killed(request: pytest.FixtureRequest) -> tuple[World, list[SimNode]]:
    """Twenty settled nodes, of which half have just crashed; the survivors."""
    world = World(request.param)
    nodes = [world.spawn() for _ in range(NODES)]
    invite = world.invite(nodes[0])
    for node in nodes[1:]:
        world.join(node, invite)
        world.run_for(0.2)
    world.run_for(60.0)
    dead = world.rng.sample(nodes, NODES // 2)
    for node in dead:
        world.crash(node)
    return world, [node for node in nodes if node not in dead]


def test_survivors_of_a_mass_crash_hear_all_that_is_published_eight_seconds_later(
    killed: tuple[World, list[SimNode]],
) -> None:
    world, survivors = killed
    world.run_for(8.0)
    for node in survivors:
        world.publish(node, node.name.encode())
    world.run_for(2.0)
    for node in survivors:
        heard = {each.name for each in world.heard(node.name.encode())}
        assert heard == {each.name for each in survivors}


def test_a_contact_of_a_burst_keeps_no_more_in_mind_than_it_can_know() -> None:
    """A thousand and more come and go within the time that each of them rests."""
    view, _ = a_view(5, 0)
    for number in range(KNOWN_MAX + 100):
        peer = PeerId(number.to_bytes(32, "big"))
        view.on_known(peer, 10.0)
        view.on_linked(peer, LinkId(100 + number), ours=False, join=False, now=10.0)
        view.on_unlinked(peer, 10.0, absent=False)
    assert len(view.known) <= KNOWN_MAX
    assert len(view._resting) <= KNOWN_MAX


def test_neighbours_that_died_take_no_places_of_those_that_may_replace_them() -> None:
    view, inside = a_view(5, 0)
    kept = peers(100, ShuffleParameters().size)
    for peer in kept:
        view.on_known(peer, 10.0)
        view.passive.add(peer)
    for peer in inside:
        view.on_unlinked(peer, 10.0, absent=True)
    assert list(view.passive.peers) == kept
    view.on_unlinked(kept[0], 10.0, absent=False)
    assert kept[0] in view.passive.peers
