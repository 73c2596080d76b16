"""HyParView and Plumtree in whole nodes: views that heal, a tree that forms, nothing lost."""

import pytest

from overlay.core.events import Effect, Transmit
from overlay.core.types import PeerId
from overlay.core.wire.messages import Gossip
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World

LOSSY = Conditions(latency=(0.005, 0.100), jitter=0.02, loss=0.02)


def grown(world: World, size: int) -> list[SimNode]:
    """A mesh whose nodes joined one after the other through the first, at rest."""
    nodes = [world.spawn()]
    for _ in range(size - 1):
        nodes.append(world.spawn())
        world.join(nodes[-1], world.invite(nodes[0]))
        world.run_for(0.2)
    world.run_for(40.0)
    return nodes


def active(node: SimNode) -> set[PeerId]:
    """The node's active view."""
    return set(node.core._neighbourhood.views.active)


def reachable(nodes: list[SimNode], start: SimNode) -> set[str]:
    """Names of the live nodes that active views lead to from one of them."""
    by_id = {node.peer_id: node for node in nodes if node.alive and not node.frozen}
    seen, frontier = {start.peer_id}, [start.peer_id]
    while frontier:
        for peer in active(by_id[frontier.pop()]):
            if peer in by_id and peer not in seen:
                seen.add(peer)
                frontier.append(peer)
    return {by_id[peer].name for peer in seen}


@pytest.mark.parametrize("seed", range(4))
def test_views_are_small_symmetric_and_connected(seed: int) -> None:
    world = World(seed, LOSSY)
    nodes = grown(world, 40)
    views = {node.peer_id: active(node) for node in nodes}
    one_sided = [(a, b) for a, view in views.items() for b in view if a not in views[b]]
    assert one_sided == []
    assert max(map(len, views.values())) <= 7
    assert sum(map(len, views.values())) / len(views) >= 4.0
    assert reachable(nodes, nodes[0]) == {node.name for node in nodes}


@pytest.mark.parametrize("seed", range(4))
def test_survivors_of_a_mass_crash_all_hear_a_broadcast(seed: int) -> None:
    """A quarter of the mesh dies while the message is on its way: grafts finish the broadcast."""
    world = World(seed, LOSSY)
    publisher, *others = grown(world, 40)
    world.publish(publisher, b"warm-up")
    world.run_for(5.0)
    world.publish(publisher, b"hello")
    world.run_for(0.05)
    for node in world.rng.sample(others, 10):
        world.crash(node)
    world.run_for(30.0)
    heard = [node.name for node in world.heard(b"hello") if node.alive]
    assert len(heard) == len(set(heard)), "delivered twice"
    assert set(heard) == {node.name for node in world.nodes if node.alive}
    assert reachable(world.nodes, publisher) == set(heard), "the views did not heal"


@pytest.mark.parametrize("seed", range(3))
def test_later_broadcasts_of_a_sender_run_along_a_tree(seed: int) -> None:
    """Plumtree §4: payloads fall to about N - 1 once duplicates have pruned the branches."""
    world = World(seed)
    nodes = grown(world, 30)
    payloads = {b"1": 0, b"2": 0, b"3": 0, b"4": 0}
    perform = world.network.perform

    def count(node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Transmit) and isinstance(effect.message, Gossip):
            payloads[effect.message.data] += 1
        perform(node, effect)

    world.network.perform = count  # type: ignore[method-assign]
    for data in payloads:
        world.publish(nodes[3], data)
        world.run_for(10.0)
        assert len(world.heard(data)) == 30
    assert payloads[b"1"] > 29 * 1.5, "the first was no flood: the test shows nothing"
    assert payloads[b"4"] <= 29 * 1.1


@pytest.mark.parametrize("seed", range(3))
def test_a_node_frozen_for_twenty_seconds_is_repaired_around_and_comes_back(seed: int) -> None:
    world = World(seed)
    nodes = grown(world, 20)
    frozen = nodes[4]
    world.freeze(frozen)
    world.run_for(20.0)
    rest = {node.name for node in nodes if node is not frozen}
    assert reachable(nodes, nodes[0]) == rest
    world.publish(nodes[0], b"without you")
    world.run_for(3.0)
    assert {node.name for node in world.heard(b"without you")} == rest
    world.thaw(frozen)
    world.run_for(10.0)
    assert reachable(nodes, nodes[0]) == {node.name for node in nodes}
    world.publish(nodes[0], b"with you")
    world.run_for(3.0)
    assert len(world.heard(b"with you")) == 20


@pytest.mark.parametrize("seed", range(6))
def test_what_is_published_while_two_become_neighbours_is_not_lost(seed: int) -> None:
    """At either end, as soon as it knows of its first link."""
    world = World(seed, LOSSY)
    host = world.spawn()
    guest = world.spawn()
    world.join(guest, world.invite(host))
    for node in (guest, host) if seed % 2 else (host, guest):
        world.run_until(lambda: node.core.peers() != [], within=5.0)  # noqa: B023
        world.publish(node, node.name.encode())
    world.run_for(5.0)
    for node in (guest, host):
        assert sorted(each.name for each in world.heard(node.name.encode())) == ["n0", "n1"]


@pytest.mark.parametrize("seed", range(3))
def test_half_of_the_mesh_dying_at_once_leaves_the_others_connected(seed: int) -> None:
    world = World(seed)
    nodes = grown(world, 30)
    for node in world.rng.sample(nodes, 15):
        world.crash(node)
    world.run_for(45.0)
    left = [node for node in nodes if node.alive]
    assert reachable(nodes, left[0]) == {node.name for node in left}
    world.publish(left[0], b"who is left")
    world.run_for(5.0)
    assert len([node for node in world.heard(b"who is left") if node.alive]) == 15


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_who_loses_all_neighbours_at_once_misses_nothing_and_is_heard(seed: int, left: int) -> None:
    """Of its links one is left at most, and it takes a while to find other neighbours."""
    world = World(seed, LOSSY)
    nodes = grown(world, 40)
    bereft = world.rng.choice(nodes)
    linked = {view.peer for view in bereft.core.peers()}
    other = next(node for node in nodes if node.peer_id not in linked and node is not bereft)
    spared = set(sorted(linked - active(bereft))[:left])
    for node in nodes:
        if node.peer_id in linked - spared:
            world.crash(node)
    for node in (bereft, other):
        world.publish(node, node.name.encode())
    world.run_for(90.0)
    living = sorted(node.name for node in nodes if node.alive)
    for node in (bereft, other):
        heard = [each.name for each in world.heard(node.name.encode()) if each.alive]
        assert sorted(heard) == living


def test_who_has_fallen_silent_is_sent_no_copies() -> None:
    """Its link is kept for a minute, and it may have left the view before, when in doubt."""
    world = World(2)
    nodes = grown(world, 20)
    dead = nodes[7]
    wasted: list[float] = []
    perform = world.network.perform

    def look(node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Transmit) and isinstance(effect.message, Gossip):
            link = node.core._links.by_id.get(effect.link)
            if link is not None and link.peer == dead.peer_id:
                wasted.append(world.now)
        perform(node, effect)

    world.network.perform = look  # type: ignore[method-assign]
    world.publish(nodes[0], b"warm-up")
    world.run_for(2.0)
    feeder = next(node for node in nodes if node.peer_id == dead.core._gossip.tree._parent)
    del feeder.core._neighbourhood.views.active[dead.peer_id]
    feeder.core._gossip.tree.on_neighbour_down(dead.peer_id, world.now, linked=True)
    world.crash(dead)
    crashed_at = world.now
    for number in range(20):
        world.publish(nodes[0], b"news %d" % number)
        world.run_for(2.0)
    assert max(wasted) > crashed_at, "it was fed on"
    assert max(wasted) < crashed_at + 8.0, "and not when it had fallen silent"
