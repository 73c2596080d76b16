"""What the dead cost the living: dialled less and less, forgotten in the end, found again."""

from collections import Counter

import pytest

from overlay.core.connect import table
from overlay.core.connect.attempts import Step
from overlay.core.connect.table import ATTEMPT_FAILED
from overlay.core.events import Dial, Effect, Report
from overlay.core.membership import membership
from overlay.core.membership.membership import FORGET_INTERVAL
from overlay.core.membership.prekeys import DAY
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.sim.scenario.test_faults import mesh

MINUTES = 60.0


class Attempts:
    """Counts, for each node, the dials to one other and the rounds that came to nothing."""

    def __init__(self, world: World, dead: SimNode) -> None:
        self.dials: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        self._dead = dead
        world.observe(self._note)

    def _note(self, node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Dial) and self._dead.address in effect.addresses:
            self.dials[node.name] += 1
        if isinstance(effect, Report) and effect.event == ATTEMPT_FAILED:
            self.rounds[node.name] += effect.fields["peer"] == self._dead.peer_id


def after_a_death(seed: int, size: int, seconds: float) -> Attempts:
    """A mesh that has settled loses one node without a word; then so many seconds pass."""
    world = World(seed, checked=True)
    nodes = mesh(world, size)
    world.run_for(20.0)
    dead = nodes[size // 2]
    attempts = Attempts(world, dead)
    world.crash(dead)
    world.run_for(seconds)
    return attempts


@pytest.mark.parametrize("size", [5, 12, 30])
@pytest.mark.parametrize("seed", range(3))
def test_backoff_towards_the_dead_holds_whoever_asks(seed: int, size: int) -> None:
    attempts = after_a_death(seed, size, 5 * MINUTES)
    assert attempts.rounds
    assert max(attempts.rounds.values()) <= 8
    assert max(attempts.dials.values()) <= 8


def test_without_rests_the_dead_are_dialled_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BACKOFF_MAX", 0.0)
    attempts = after_a_death(1, 5, 5 * MINUTES)
    assert min(attempts.rounds.values()) > 8


def test_members_that_are_forgotten_do_not_shorten_the_rest_from_who_dies_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were they counted, a node would think itself cut off, and dial four times a minute."""
    monkeypatch.setattr(membership, "FORGET_AFTER", 100.0)
    monkeypatch.setattr(membership, "FORGET_INTERVAL", 50.0)
    world = World(1, checked=True)
    nodes = mesh(world, 8)
    for node in nodes[4:]:
        world.crash(node)
    world.run_for(5 * MINUTES)
    for node in nodes[:4]:
        assert len(node.core.known()) == len(node.neighbours()) == 3
    monkeypatch.setattr(membership, "FORGET_AFTER", 2 * DAY)
    attempts = Attempts(world, nodes[0])
    world.crash(nodes[0])
    world.run_for(5 * MINUTES)
    assert attempts.rounds
    assert max(attempts.rounds.values()) <= 8


def knows(node: SimNode, other: SimNode) -> bool:
    return any(record.peer_id == other.peer_id for record in node.core.known())


def knowing(world: World, node: SimNode) -> int:
    """How many of the living know this node by its record."""
    return sum(knows(each, node) for each in world.up())


def days_later(world: World, days: float) -> None:
    """All clocks go on by so many days: the living sign their records anew; then an hour passes."""
    for node in world.up():
        world.step_clock(node, days * DAY)
    world.run_for(FORGET_INTERVAL + 60.0)


def test_the_dead_are_forgotten_in_the_end_and_found_again() -> None:
    world = World(3, checked=True)
    nodes = mesh(world, 6)
    dead = nodes[3]
    world.crash(dead)
    days_later(world, 1.9)
    assert knowing(world, dead) == 5
    days_later(world, 0.2)
    assert knowing(world, dead) == 0
    assert all(knowing(world, node) == 4 for node in world.up()), "the living know each other"
    attempts = Attempts(world, dead)
    world.run_for(15 * MINUTES)
    assert not attempts.dials
    dead.clock_offset = nodes[0].clock_offset
    world.restart(dead)
    world.run_for(30.0)
    assert dead.neighbours() == {node.peer_id for node in nodes if node is not dead}
    assert knowing(world, dead) == 5


def test_who_brings_the_record_of_somebody_forgotten_is_not_believed() -> None:
    """One node has been away, and has forgotten nobody: it brings back nobody."""
    world = World(4, checked=True)
    nodes = mesh(world, 6)
    dead, away = nodes[3], nodes[4]
    world.crash(dead)
    world.crash(away)
    days_later(world, 2.1)
    assert knowing(world, dead) == 0
    away.clock_offset = nodes[0].clock_offset
    away.cache[dead.peer_id] = dead.core._membership.own
    world.restart(away)
    world.run_for(60.0)
    assert away.neighbours()
    assert [node.name for node in world.up() if knows(node, dead)] == [away.name]


def test_who_was_asleep_for_days_forgets_nobody_before_it_can_hear_of_them() -> None:
    """It was about to look who is silent, and its links have not been given up yet."""
    world = World(6, checked=True)
    nodes = mesh(world, 24)
    asleep = nodes[5]
    world.run_for(FORGET_INTERVAL - 20.0 - world.now)
    world.partition([[asleep]])
    world.run_for(10.0)
    for node in nodes:
        world.step_clock(node, 3 * DAY)
    world.run_for(15.0)
    assert asleep.core.peers()
    assert not asleep.neighbours()
    assert len(asleep.core.known()) == 23


def test_without_a_date_the_dead_are_known_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "FORGET_AFTER", 14 * DAY)
    world = World(3, checked=True)
    nodes = mesh(world, 6)
    world.crash(nodes[3])
    days_later(world, 2.1)
    assert knowing(world, nodes[3]) == 5


def test_a_users_command_need_not_wait_until_a_rest_is_over() -> None:
    world = World(5, checked=True)
    nodes = mesh(world, 5)
    world.run_for(20.0)
    dead = nodes[2]
    world.crash(dead)
    world.run_for(3 * MINUTES)
    attempts = nodes[0].core._connecting.table.by_peer[dead.peer_id]
    world.run_until(lambda: attempts.retry_at > world.now + 5.0, within=60.0)
    assert attempts.step is Step.REST
    before = attempts.failures
    world.connect(nodes[0], dead)
    assert attempts.offering is not None
    world.run_for(20.0)
    assert attempts.failures > before, "it counts all the same"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("minutes", [2, 10])
def test_the_halves_of_a_small_mesh_find_each_other_soon(seed: int, minutes: int) -> None:
    """Each half takes the other for dead; who misses most of the mesh looks more often."""
    world = World(seed, checked=True)
    nodes = mesh(world, 4)
    world.run_for(20.0)
    world.partition([nodes[:2]])
    world.run_for(minutes * MINUTES)
    world.heal()
    world.run_until(lambda: all(len(node.neighbours()) == 3 for node in nodes), within=45.0)
    assert all(len(node.neighbours()) == 3 for node in nodes)
