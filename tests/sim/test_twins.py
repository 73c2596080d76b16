"""One identity at two nodes: a copied data directory. Both are told, and the mesh stays calm."""

import dataclasses

import pytest

from overlay.core.events import Recall, Report
from overlay.core.membership.elsewhere import ELSEWHERE, ELSEWHERE_FOR, RECORD_TICK, Elsewhere
from overlay.sim.node import SimNode
from overlay.sim.world import World

BOOT = 1_800_000_000 << 10
"""As a node counts its starts (`overlay.node.store`)."""


def started(world: World) -> SimNode:
    """A node that has started once."""
    node = world.spawn(sequence=BOOT << 20)
    node.settings = dataclasses.replace(node.settings, boot=BOOT)
    return node


def mesh(seed: int, size: int) -> tuple[World, list[SimNode]]:
    """Nodes whose boots and sequence numbers are those of real ones."""
    world = World(seed)
    nodes = [started(world)]
    invite = world.invite(nodes[0])
    for _ in range(size - 1):
        nodes.append(started(world))
        world.join(nodes[-1], invite)
        world.run_for(1.0)
    world.run_for(10.0)
    return world, nodes


def says_so(node: SimNode) -> bool:
    return node.core.status().identity_elsewhere


def watched(world: World) -> dict[tuple[str, str], int]:
    """How often each node reports what from now on."""
    counts: dict[tuple[str, str], int] = {}

    def look(node: SimNode, effect: object) -> None:
        if isinstance(effect, Report):
            key = node.name, effect.event
            counts[key] = counts.get(key, 0) + 1

    world.observe(look)
    return counts


@pytest.mark.parametrize(("size", "seed"), [(3, 0), (3, 1), (7, 2), (7, 3), (30, 4)])
def test_two_nodes_with_one_identity_both_say_so_and_the_mesh_stays_calm(
    size: int, seed: int
) -> None:
    world, nodes = mesh(seed, size)
    original, others = nodes[1], [nodes[0], *nodes[2:]]
    counts = watched(world)
    copy = world.clone(original, boot=BOOT + 5000)
    world.run_until(lambda: says_so(original) and says_so(copy), within=15.0 if size < 8 else 40.0)
    world.run_for(300.0)
    assert says_so(original)
    assert says_so(copy)
    assert not any(map(says_so, others))
    assert counts[original.name, ELSEWHERE] == counts[copy.name, ELSEWHERE] == 1
    assert copy.neighbours(), "the newer boot is the one that the mesh knows"
    if size < 8:
        assert original.neighbours() == set(), "in a larger mesh each has neighbours of its own"
    ups = [counts.get((node.name, "peer_up"), 0) for node in others]
    assert max(ups) <= (3 if size < 8 else 15), ups
    assert all(len(node.neighbours()) >= 2 for node in others)


@pytest.mark.parametrize("tenths", range(10))
def test_a_second_later_the_older_one_has_a_record_of_after_the_newer_ones_start(
    tenths: int,
) -> None:
    """Records say whole seconds: one of the second of the start tells the newer one nothing."""
    world, nodes = mesh(2, 3)
    original, core = nodes[1], nodes[1].core
    world.run_for(tenths / 10)
    started_at = int(core._context.wall(world.now))
    copy = world.clone(original, boot=BOOT + 5000)
    world.run_until(lambda: says_so(original), within=5.0)
    for other in (copy, nodes[0], nodes[2]):
        world.crash(other)  # so that nobody refuses it once more
    world.run_for(RECORD_TICK + 0.05)
    record = core._book.read(core._membership.own)
    assert record is not None
    assert record.issued_at > started_at


@pytest.mark.parametrize("gone", ["original", "copy"])
@pytest.mark.parametrize("seed", range(3))
def test_when_one_of_the_two_is_gone_the_other_is_alone_again(seed: int, gone: str) -> None:
    world, nodes = mesh(seed, 4)
    original = nodes[1]
    copy = world.clone(original, boot=BOOT + 5000)
    world.run_until(lambda: says_so(original) and says_so(copy), within=15.0)
    world.crash(original if gone == "original" else copy)
    rest = copy if gone == "original" else original
    world.run_for(ELSEWHERE_FOR + 100.0)
    assert not says_so(rest)
    assert len(rest.neighbours()) == 3
    assert not any(says_so(node) for node in nodes if node.alive)


@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_is_restarted_has_no_twin(seed: int) -> None:
    """The counter-test: a newer boot takes its place from a dead one, whoever tells it what."""
    world, nodes = mesh(seed, 6)
    for node in nodes[1:4]:
        world.crash(node)
        world.run_for(0.3 * seed)
        boot = node.settings.boot + 1024
        node.settings = dataclasses.replace(node.settings, boot=boot, sequence=boot << 20)
        world.restart(node)
        old = [data for other in nodes for data in other.cache.values()]
        world.feed(node, Recall(tuple(old)))
        world.run_for(5.0)
    world.run_for(60.0)
    assert not any(map(says_so, nodes))


def test_two_that_started_alike_do_not_displace_each_other_for_ever() -> None:
    """Boots that differ by chance alone, as those of two boards without a clock."""
    world, nodes = mesh(9, 3)
    original = nodes[1]
    copy = world.clone(original, boot=original.settings.boot + 1)
    counts = watched(world)
    world.run_for(120.0)
    assert counts.get((nodes[0].name, "peer_up"), 0) <= 2
    assert original.neighbours() == set()
    assert len(copy.neighbours()) == 2


def test_a_stranger_cannot_make_us_believe_in_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that we have not signed, or have signed in this life, tells nothing."""
    world, nodes = mesh(3, 2)
    one, two = nodes
    told: list[float] = []
    monkeypatch.setattr(Elsewhere, "on_told", lambda self, now: told.append(now))
    own = one.core._membership.own
    one.core._add_record(own, two.peer_id, world.now)
    one.core._add_record(own[:-1] + bytes([own[-1] ^ 1]), two.peer_id, world.now)
    one.core._add_record(b"garbage", two.peer_id, world.now)
    assert told == []
