"""A dial and an offer to one peer race: the first that is verified wins, and the other leaves."""

from typing import Any

import pytest

from overlay.core.connect import connect
from overlay.core.connect.dialling import DIAL_TIMEOUT
from overlay.core.connect.table import ATTEMPT_FAILED
from overlay.core.events import Dial, Effect, Prepare, Recall, Report, Resolved
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, PathKind
from overlay.sim.network import port
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.world import World

LATENCY = 0.02
STEADY = Conditions(latency=(LATENCY, LATENCY), jitter=0.0)
SHAKY = Conditions(latency=(0.005, 0.05), jitter=0.03, loss=0.02, reordering=0.1)


def strangers(world: World, **settings: Any) -> tuple[SimNode, SimNode]:
    """Two nodes that can be dialled, as their records say, and have a common neighbour alone."""
    common = world.spawn(auto=False)
    invite = world.invite(common)
    settings.setdefault("circuits", False)
    ends = world.spawn(auto=False, **settings), world.spawn(auto=False, **settings)
    for node in ends:
        world.join(node, invite)
    world.run_for(8.0)
    assert common.neighbours() == {node.peer_id for node in ends}
    return ends


def connected(world: World, *pairs: tuple[SimNode, SimNode]) -> float:
    """Virtual seconds until each of these has a link to the other."""
    since = world.now
    requests = [(node, world.connect(node, peer)) for node, peer in pairs]
    world.run_until(lambda: all(each in node.results for node, each in requests), within=15.0)
    for node, request in requests:
        assert isinstance(node.results[request], Resolved), node.results[request]
    return world.now - since


def left_behind(world: World, node: SimNode) -> int:
    """Associations and attempts that are not the links which the node counts."""
    assert isinstance(world.network, IceNetwork)
    kept = len(world.network.port(node).endpoint._links) - len(node.core.peers())
    return kept + len(node.core._connecting.table.by_peer) + len(node.core._links._expected)


def noted(world: World) -> list[Effect]:
    """What is begun, and what comes to nothing, from now on."""
    effects: list[Effect] = []

    def note(_: SimNode, effect: Effect) -> None:
        failed = isinstance(effect, Report) and effect.event == ATTEMPT_FAILED
        if failed or isinstance(effect, Dial | Prepare):
            effects.append(effect)

    world.observe(note)
    return effects


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("stagger", [0.0, 0.001, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("conditions", [STEADY, SHAKY], ids=["steady", "shaky"])
def test_of_a_dial_and_an_offer_one_wins_and_the_other_leaves_nothing_behind(
    both: bool, stagger: float, conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "STAGGER_COMMAND", stagger)
    for seed in range(6):
        world = World(seed, conditions, checked=True, fidelity="ice")
        one, other = strangers(world, advertised=True)
        begun = noted(world)
        connected(world, (one, other), *([(other, one)] if both else []))
        links = [[view.link for view in node.core.peers()] for node in (one, other)]
        world.run_for(15.0)
        assert [[view.link for view in node.core.peers()] for node in (one, other)] == links
        assert [len(each) for each in links] == [2, 2], "the common neighbour and the peer"
        assert left_behind(world, one) == left_behind(world, other) == 0
        assert any(isinstance(each, Dial) for each in begun)
        assert stagger > 0.0 or any(isinstance(each, Prepare) for each in begun)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("conditions", [STEADY, SHAKY], ids=["steady", "shaky"])
def test_a_circuit_beside_the_two_leaves_a_direct_link_and_nothing_else(
    both: bool, conditions: Conditions
) -> None:
    """It may come first: then its link goes on over the path that the others have found."""
    for seed in range(12):
        world = World(seed, conditions, checked=True, fidelity="ice")
        one, other = strangers(world, advertised=True, circuits=True)
        connected(world, (one, other), *([(other, one)] if both else []))
        links = [[view.link for view in node.core.peers()] for node in (one, other)]
        world.run_for(40.0)
        assert [[view.link for view in node.core.peers()] for node in (one, other)] == links, seed
        assert all(view.facts.path is not PathKind.RELAYED for view in one.core.peers())
        assert left_behind(world, one) == left_behind(world, other) == 0


@pytest.mark.parametrize("seed", range(3))
def test_an_offer_does_not_wait_until_a_dial_has_timed_out(seed: int) -> None:
    """Their records say that they can be dialled, and their firewalls know nothing of that."""
    world = World(seed, STEADY, checked=True, fidelity="ice")
    one, other = strangers(world, advertised=True, firewalled=True)
    begun = noted(world)
    assert connected(world, (one, other)) <= connect.STAGGER_COMMAND + 20 * LATENCY
    assert [type(each) for each in begun] == [Dial, Prepare]


def test_without_the_race_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "STAGGER_COMMAND", 60.0)
    world = World(1, STEADY, checked=True, fidelity="ice")
    one, other = strangers(world, advertised=True, firewalled=True)
    assert connected(world, (one, other)) > DIAL_TIMEOUT


def test_a_dial_that_works_at_once_costs_the_mesh_nothing() -> None:
    world = World(2, Conditions(latency=(0.002, 0.002), jitter=0.0), checked=True, fidelity="ice")
    one, other = strangers(world, advertised=True)
    begun = noted(world)
    connected(world, (one, other))
    assert [type(each) for each in begun] == [Dial]


def test_without_names_the_two_kill_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener cannot tell whose ClientHello it gets, and feeds it to the wrong handshake."""
    monkeypatch.setattr(port, "attempt_name", lambda _: b"")
    monkeypatch.setattr(connect, "STAGGER_COMMAND", 0.001)
    slow = 0
    for seed in range(12):
        world = World(seed, STEADY, fidelity="ice")
        one, other = strangers(world, advertised=True)
        world.connect(one, other)
        world.run_for(2.0)
        slow += other.peer_id not in one.neighbours()
    assert slow


def test_a_nats_address_that_nobody_has_proven_is_not_dialled_where_an_offer_can_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has met its owner, too: where an offer can go, a dial there can only spoil it.

    A node that starts calls members that it has met. When it joins by an invite just then, those
    it has merely heard of count as met.
    """
    asked = list[tuple[bool, bool]]()
    dialable = Reflexive.dialable

    def spy(self: Reflexive, entries: Any, *, claimed: bool, mapped: bool) -> list[Address]:
        asked.append((claimed, mapped))
        return dialable(self, entries, claimed=claimed, mapped=mapped)

    world = World(1)
    one, other = strangers(world)
    world.feed(one, Recall(()))
    monkeypatch.setattr(Reflexive, "dialable", spy)
    connected(world, (one, other))
    assert asked[0] == (True, False)
