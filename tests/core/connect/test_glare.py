"""Offers that cross: one of the two links stands, whatever of the other is on its way."""

from overlay.core.events import Event, LinkOpened, Received, Wakeup
from overlay.core.link.links import AttemptFailed
from overlay.core.types import GoodbyeCode, LinkId
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.sim.scenario.test_faults import Watched

STEADY = Conditions(latency=(0.02, 0.02), jitter=0.0)


def strangers(world: World) -> tuple[SimNode, SimNode, SimNode]:
    """Two nodes that only an offer links, and their common neighbour."""
    common = world.spawn(auto=False, direct=False)
    invite = world.invite(common)
    one, other = (world.spawn(auto=False, direct=False) for _ in range(2))
    for node in (one, other):
        world.join(node, invite)
    world.run_for(8.0)
    assert common.neighbours() == {one.peer_id, other.peer_id}
    return one, other, common


def link_to(node: SimNode, peer: SimNode) -> LinkId:
    return next(view.link for view in node.core.peers() if view.peer == peer.peer_id)


def crossed_late(seed: int) -> bool:
    """Links two strangers, and has the other's own offer come when the link of the first is open.

    Whether that offer wins by the rule of glare.
    """
    world = Watched(seed, STEADY, checked=True, fidelity="ice")
    one, other, common = strangers(world)
    wins: list[bool] = []

    def cross() -> None:
        """The other end made its offer before it took in ours."""
        connecting = other.core._connecting
        ours = one.core._connecting.table.by_peer[other.peer_id].offering
        attempts = connecting.table.of(one.peer_id)
        offer = connecting._offers._make_offer(attempts, b"", world.now)
        assert ours is not None
        assert attempts.offering is not None
        wins.append(attempts.offering.attempt < ours.attempt)
        world.feed(other, Wakeup())
        world.feed(one, Received(link_to(one, common), offer))

    def watch(node: SimNode, event: Event) -> None:
        if node is one and isinstance(event, LinkOpened):
            world.after(0.001, cross)

    world.watchers.append(watch)
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=2.0)
    world.run_for(1.0)
    links = link_to(one, other), link_to(other, one)
    world.run_for(15.0)
    assert (link_to(one, other), link_to(other, one)) == links
    (won,) = wins
    return won


def test_an_offer_that_comes_late_does_not_end_the_link_of_ours_that_is_open() -> None:
    """Its sender may have verified that link already: both would be lost."""
    assert sum(crossed_late(seed) for seed in range(6)) >= 2


def test_a_link_that_was_said_to_stand_and_does_not_is_not_waited_for_for_ever() -> None:
    """The peer has refused a duplicate of a link that is lost: the ring may ask for others."""
    world = World(1, STEADY, checked=True, fidelity="ice")
    one, other, _ = strangers(world)
    core, peer = one.core, other.peer_id
    core._neighbourhood.ring._asked[peer] = None
    link = core._links.new_id()
    core._connecting.table.of(peer).dials[link] = None
    core._on_facts([AttemptFailed(link, GoodbyeCode.DUPLICATE, "another stands")], world.now)
    world.feed(one, Wakeup())
    world.run_for(5.0)
    assert peer not in core._neighbourhood.ring._asked
