"""In a mesh too large for everybody to know everybody, a newcomer is told so."""

import pytest

from overlay.core.events import Rejected
from overlay.core.membership.membership import Membership
from overlay.sim.node import SimNode
from overlay.sim.world import World

SPREAD = 3


def newcomer() -> tuple[World, list[SimNode], SimNode]:
    """Ten nodes of which each tells a newcomer of three others at most, and the newcomer."""
    world = World(1)
    nodes = [world.spawn(records_spread=SPREAD) for _ in range(11)]
    invite = world.invite(nodes[0])
    for node in nodes[1:]:
        world.join(node, invite)
        world.run_for(5.0)
    return world, nodes, nodes[-1]


def takes_some_for_all(world: World, nodes: list[SimNode], node: SimNode) -> bool:
    """Whether it says of somebody that there is no such member, once it knows but one."""
    membership: Membership = node.core._membership
    for peer in list(membership.book.peers())[1:]:
        membership.book.forget(peer)
    other = next(each for each in nodes if each.peer_id not in node.neighbours() | {node.peer_id})
    request = world.connect(node, other)
    result = node.results.get(request)
    return isinstance(result, Rejected) and result.code == "unknown_peer"


def test_a_newcomer_does_not_take_some_records_for_all() -> None:
    assert not takes_some_for_all(*newcomer())


def test_it_would_were_it_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "on_some", lambda *_: None)
    assert takes_some_for_all(*newcomer())


def test_the_hello_measures_the_round_trip_of_a_link() -> None:
    world = World(1)
    one, other = world.spawn(), world.spawn()
    world.join(other, world.invite(one))
    world.run_for(1.0)
    latency = next(iter(world.network.ends[one].values())).latency
    for node in (one, other):
        (view,) = node.core.peers()
        assert view.rtt is not None
        assert 2 * latency <= view.rtt < 3 * latency + 0.05
