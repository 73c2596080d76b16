"""What the world's faults do to nodes: each strikes, and ends when it is told to."""

from collections.abc import Callable
from typing import Any

import pytest

from overlay.core.events import (
    Event,
    LinkAlive,
    LinkLost,
    LinkSilent,
    Received,
    Resolved,
    Transmit,
)
from overlay.core.membership.hyparview import HyParView
from overlay.core.wire.messages import Ping
from overlay.sim.checks.invariants import Violated
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.scenario import liveness
from overlay.sim.world import World

pytestmark = pytest.mark.slow


def mesh(world: World, size: int, **settings: Any) -> list[SimNode]:
    """Nodes that joined in one burst, at rest."""
    first = world.spawn(**settings)
    nodes = [first, *world.burst(size - 1, first, 2.0, **settings)]
    world.run_for(30.0)
    assert liveness.unsettled(world) is None
    return nodes


class Watched(World):
    """A world that lets tests see every event before a node does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.watchers: list[Callable[[SimNode, Event], None]] = []
        super().__init__(*arguments, **options)

    def feed(self, node: SimNode, event: Event) -> None:
        for watcher in self.watchers:
            watcher(node, event)
        super().feed(node, event)


def events_of(world: World, kinds: tuple[type, ...]) -> list[tuple[float, str, Event]]:
    """Notes from now on what of these kinds the world feeds to nodes."""
    assert isinstance(world, Watched)
    noted: list[tuple[float, str, Event]] = []

    def note(node: SimNode, event: Event) -> None:
        if isinstance(event, kinds):
            noted.append((world.now, node.name, event))

    world.watchers.append(note)
    return noted


def ears(world: World, data: bytes) -> set[str]:
    """Names of those that heard it."""
    return {node.name for node in world.heard(data)}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_passes_between_the_parts_of_a_divided_world(seed: int) -> None:
    world = World(seed, checked=True)
    nodes = mesh(world, 12)
    world.partition([nodes[:6]])
    world.run_for(30.0)
    world.publish(nodes[0], b"one")
    world.publish(nodes[11], b"other")
    world.run_for(40.0)
    assert ears(world, b"one") == {node.name for node in nodes[:6]}
    assert ears(world, b"other") == {node.name for node in nodes[6:]}
    request = world.connect(nodes[0], nodes[11])
    world.run_for(20.0)
    assert not isinstance(nodes[0].results[request], Resolved)


@pytest.mark.parametrize("seed", range(4))
def test_links_over_a_short_cut_come_back_and_lose_nothing(seed: int) -> None:
    """Within the detection time: what was sent meanwhile arrives, in order."""
    world = Watched(seed, checked=True)
    one, other = mesh(world, 2)
    noted = events_of(world, (LinkSilent, LinkLost, LinkAlive, Received))
    world.partition([[one]])
    (view,) = one.core.peers()
    for token in range(5):
        world.network.perform(one, Transmit(view.link, Ping(token)))
        world.run_for(2.0)
    assert [event for _, _, event in noted if isinstance(event, Received)] == []
    assert sum(isinstance(event, LinkSilent) for _, _, event in noted) == 2
    world.heal()
    world.run_for(3.0)
    assert sum(isinstance(event, LinkAlive) for _, _, event in noted) == 2
    arrived = [event.message for _, name, event in noted if name == other.name
               and isinstance(event, Received) and isinstance(event.message, Ping)]  # fmt: skip
    assert [ping.token for ping in arrived if ping.token < 5] == [0, 1, 2, 3, 4]
    assert not any(isinstance(event, LinkLost) for _, _, event in noted)


@pytest.mark.parametrize("seed", range(6))
def test_halves_that_were_apart_for_longer_than_links_last_find_each_other(seed: int) -> None:
    """Each half is content with itself: only seeking the absent brings them together."""
    world = World(seed, checked=True)
    nodes = mesh(world, 24)
    world.partition([nodes[:12]])
    world.run_for(150.0)
    assert liveness.unsettled(world) is not None
    world.heal()
    liveness.demand(world)


APART = (3, 4, 21)
"""Seeds of which the halves of twelve nodes are six full views each, which hear nothing new."""


def halves_of_six(seed: int) -> World:
    """Apart for thirty seconds, and healed."""
    world = World(seed, checked=True, replay="this very test")
    nodes = mesh(world, 12)
    world.partition([nodes[:6]])
    world.run_for(30.0)
    world.heal()
    return world


@pytest.mark.parametrize("seed", APART)
def test_halves_with_full_views_take_back_whom_they_hear_of_again(seed: int) -> None:
    """Links between them come by the ring, and gossip runs over views alone."""
    liveness.demand(halves_of_six(seed))


@pytest.mark.parametrize("seed", APART)
def test_halves_with_full_views_stay_apart_unless_who_returns_is_asked(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter-test."""
    monkeypatch.setattr(HyParView, "_has_returned", lambda view, peer: view._absent.pop(peer, None))
    with pytest.raises(
        Violated, match=rf"seed {seed}, at .*2 parts of 6, 6; replay: this very test"
    ):
        liveness.demand(halves_of_six(seed))


def test_a_silent_link_is_suspect_silent_and_lost_in_its_time() -> None:
    world = Watched(1)
    one, other = mesh(world, 2)
    noted = events_of(world, (LinkSilent, LinkLost))
    cut = world.now
    world.crash(other)
    world.run_for(70.0)
    (silent_at, _, _), (lost_at, name, lost) = noted
    assert name == one.name
    assert 4.0 <= silent_at - cut <= 6.0
    assert 58.0 <= lost_at - cut <= 60.0
    assert isinstance(lost, LinkLost)
    assert lost.reason == "broken"


def test_a_burst_joins_through_one_contact_within_its_time() -> None:
    world = World(5, checked=True)
    first = world.spawn()
    nodes = world.burst(40, first, 3.0, firewalled=0.5)
    assert len({node.firewalled for node in nodes}) == 2
    world.run_for(60.0)
    liveness.demand(world)
    assert len(world.up()) == 41


def test_a_clock_that_steps_too_far_is_refused_and_one_that_steps_back_is_welcome() -> None:
    world = World(2)
    host, late = world.spawn(), world.spawn()
    world.step_clock(late, -1_000.0)
    request = world.join(late, world.invite(host))
    world.run_for(20.0)
    assert not isinstance(late.results[request], Resolved)
    world.step_clock(late, 1_000.0)
    request = world.join(late, world.invite(host))
    world.run_for(20.0)
    assert isinstance(late.results[request], Resolved)


def transfer(conditions: Conditions) -> float:
    """Seconds until the last of 40 publications of a kilobyte arrives."""
    world = World(7, conditions)
    one, other = mesh(world, 2)
    began = world.now
    for index in range(40):
        world.publish(one, bytes([index]) * 1_000)
    heard = lambda: len(other.delivered) == 40  # noqa: E731
    world.run_until(heard, within=60.0)
    return world.now - began


def test_bandwidth_and_loss_cost_time_and_late_packets_overtake_nobody_on_their_link() -> None:
    still = Conditions(latency=(0.02, 0.02), jitter=0.0)
    assert transfer(still) < 0.1
    narrow = Conditions(latency=(0.02, 0.02), jitter=0.0, bandwidth=20_000.0)
    assert 2.0 < transfer(narrow) < 4.0
    lossy = Conditions(latency=(0.02, 0.02), jitter=0.0, loss=0.2)
    assert transfer(lossy) > 0.3
    late = Conditions(latency=(0.02, 0.02), jitter=0.0, reordering=0.5)
    assert 0.03 < transfer(late) < 1.0
