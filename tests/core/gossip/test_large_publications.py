"""Large publications in whole nodes: along the tree, through loss and death, and whose fault."""

import random
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from overlay.core.events import Effect, Transmit, Unsent
from overlay.core.gossip.parts import LIFE
from overlay.core.gossip.plumtree import CACHE_BYTES, CACHE_OVERHEAD, FLOWS_MAX, Plumtree
from overlay.core.types import PeerId
from overlay.core.wire.bounds import PART_MAX, PUBLISHED_MAX
from overlay.core.wire.messages import Announcement, Gossip, GossipPart, Graft, IHave
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.gossip.test_gossip import LOSSY, grown

Change = Callable[[SimNode, GossipPart], list[GossipPart]]


def content(seed: int, size: int) -> bytes:
    """Bytes of which no two pieces are the same."""
    return random.Random(seed).randbytes(size)


def alter(world: World, change: Change) -> None:
    """Have each part that is sent replaced by what `change` makes of it."""
    perform = world.network.perform

    def altered(node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Transmit) and isinstance(effect.message, GossipPart):
            for part in change(node, effect.message):
                perform(node, Transmit(effect.link, part))
        else:
            perform(node, effect)

    world.network.perform = altered  # type: ignore[method-assign]


def names_of(nodes: list[SimNode]) -> list[str]:
    """Sorted, so that whoever is there twice shows."""
    return sorted(node.name for node in nodes)


def unfinished(node: SimNode) -> int:
    """Publications of which the node holds parts."""
    return len(node.core._gossip.dissemination._reassembly._pending)


# --- everybody gets it ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_everybody_gets_the_largest_publication_whole_and_once(seed: int) -> None:
    world = World(seed, LOSSY)
    nodes = grown(world, 16)
    data = content(seed, PUBLISHED_MAX)
    world.publish(nodes[seed], data)
    world.run_until(lambda: len(world.heard(data)) == 16, within=10.0)
    world.run_for(5.0)
    assert names_of(world.heard(data)) == names_of(nodes)


@pytest.mark.parametrize("seed", range(4))
def test_survivors_of_a_mass_crash_all_get_a_large_publication(seed: int) -> None:
    """A quarter of the mesh dies when some of the parts are through."""
    world = World(seed, LOSSY)
    publisher, *others = grown(world, 24)
    data = content(seed, 40 * PART_MAX + 7)
    world.publish(publisher, data)
    world.run_for(0.08)
    assert len(world.heard(data)) == 1, "it was through already: the test shows nothing"
    for node in world.rng.sample(others, 6):
        world.crash(node)
    world.run_for(30.0)
    heard = [node for node in world.heard(data) if node.alive]
    assert names_of(heard) == names_of([node for node in world.nodes if node.alive])


@pytest.mark.parametrize("seed", range(2))
def test_publications_of_several_origins_at_once_do_not_mix(seed: int) -> None:
    world = World(seed, LOSSY)
    nodes = grown(world, 12)
    sent = {node.name: content(index, 150_000 + index) for index, node in enumerate(nodes[:4])}
    for node in nodes[:4]:
        world.publish(node, sent[node.name])
        world.publish(node, node.name.encode())
    world.run_for(15.0)
    for data in (*sent.values(), *(node.name.encode() for node in nodes[:4])):
        assert names_of(world.heard(data)) == names_of(nodes)


@pytest.mark.parametrize("seed", range(3))
def test_parts_run_along_a_tree_that_the_first_of_them_shape(seed: int) -> None:
    """No later publication costs much more than a copy for each node; nor does the first."""
    world = World(seed)
    nodes = grown(world, 20)
    sent: Counter[str] = Counter()

    def count(node: SimNode, part: GossipPart) -> list[GossipPart]:
        sent[part.topic] += 1
        return [part]

    alter(world, count)
    least = 19 * 64
    for number in range(3):
        sent.clear()
        data = content(number, PUBLISHED_MAX)
        world.publish(nodes[3], data)
        world.run_for(3.0)
        assert names_of(world.heard(data)) == names_of(nodes)
        assert least <= sent["t"] <= least * (2.0 if number == 0 else 1.1)


def test_a_part_that_comes_twice_is_no_second_delivery() -> None:
    world = World(3)
    nodes = grown(world, 5)
    alter(world, lambda _, part: [part, part])
    data = content(3, 100_000)
    world.publish(nodes[0], data)
    world.run_for(5.0)
    assert names_of(world.heard(data)) == names_of(nodes)


# --- or nobody does ------------------------------------------------------------------------------


def test_without_one_part_nobody_hears_anything_and_nothing_stays() -> None:
    world = World(4)
    nodes = grown(world, 8)
    alter(world, lambda _, part: [] if part.part == 7 else [part])
    data = content(4, 20 * PART_MAX)
    world.publish(nodes[0], data)
    world.run_for(5.0)
    assert world.heard(data) == [nodes[0]]
    assert [unfinished(node) for node in nodes] == [0, *[1] * 7]
    world.run_for(LIFE)
    assert world.heard(data) == [nodes[0]]
    for node in nodes:
        reassembly, tree = node.core._gossip.dissemination._reassembly, node.core._gossip.tree
        assert reassembly._size == 0
        assert not reassembly._by_origin
        assert tree._missing == {}
        assert tree._cache == {}
        assert tree._cached_bytes == 0


def test_a_part_that_was_lost_is_grafted() -> None:
    """The counter-test to the one above: lost on its first way only."""
    world = World(4)
    nodes = grown(world, 12)
    lost: set[PeerId] = set()

    def lose(node: SimNode, part: GossipPart) -> list[GossipPart]:
        if part.part != 7 or node is nodes[0] or node.peer_id in lost:
            return [part]
        lost.add(node.peer_id)
        return []

    alter(world, lose)
    data = content(4, 20 * PART_MAX)
    world.publish(nodes[0], data)
    world.run_for(10.0)
    assert lost
    assert names_of(world.heard(data)) == names_of(nodes)


def test_a_forged_part_costs_its_bringer_the_link_and_nobody_the_publication() -> None:
    world = World(5)
    publisher, liar, *others = grown(world, 4)
    perform = world.network.perform
    forged: list[GossipPart] = []

    def forge(node: SimNode, effect: Effect) -> None:
        """The third part is late; meanwhile the liar tells everybody another one."""
        part = effect.message if isinstance(effect, Transmit) else None
        if node is not publisher or not isinstance(part, GossipPart) or part.part != 3:
            perform(node, effect)
            return
        world.after(0.3, lambda: perform(node, effect))
        if not forged:
            forged.append(msgspec.structs.replace(part, data=b"forged"))
            for view in liar.core.peers():
                perform(liar, Transmit(view.link, forged[0]))

    world.network.perform = forge  # type: ignore[method-assign]
    data = content(5, 20 * PART_MAX)
    world.publish(publisher, data)
    world.run_for(5.0)
    assert {node.name for node in world.heard(data)} >= {
        publisher.name,
        *(node.name for node in others),
    }
    for node in others:
        faults = [each.fields for each in node.reports if each.event == "peer_misbehaved"]
        assert [fault["peer"] for fault in faults] == [liar.peer_id]


# --- bounds --------------------------------------------------------------------------------------


def test_a_flood_of_large_publications_fills_no_cache_beyond_its_bound() -> None:
    world = World(6)
    nodes = grown(world, 3)
    for number in range(24):
        data = content(number, PUBLISHED_MAX)
        world.publish(nodes[0], data)
        world.run_until(lambda: len(world.heard(data)) == 3, within=10.0)  # noqa: B023
        for node in nodes:
            tree = node.core._gossip.tree
            held = sum(len(cached.message.data) for cached in tree._cache.values())
            assert held <= tree._cached_bytes <= CACHE_BYTES
            assert len(tree._flows) <= FLOWS_MAX
            node.delivered.clear()
    world.run_for(40.0)
    assert all(node.core._gossip.tree._cached_bytes == 0 for node in nodes)


def test_empty_messages_fill_no_cache_either() -> None:
    world = World(7)
    (node,) = grown(world, 1)
    for number in range(CACHE_BYTES // CACHE_OVERHEAD + 10):
        message = Gossip(number.to_bytes(16, "big"), bytes(32), "t", b"", True, 0, bytes(64))  # noqa: FBT003
        node.core._gossip.tree.broadcast(message, world.now)
    assert len(node.core._gossip.tree._cache) <= CACHE_BYTES // CACHE_OVERHEAD


def test_who_is_too_slow_for_a_part_is_told_and_grafts_it_later() -> None:
    world = World(8, Conditions(latency=(0.01, 0.01), jitter=0.0))
    one, other = grown(world, 2)
    dropped = 0

    def too_slow(node: SimNode, part: GossipPart) -> list[GossipPart]:
        """What the transport does when too many parts wait."""
        nonlocal dropped
        if node is not one or dropped >= 10:
            return [part]
        dropped += 1
        (view,) = one.core.peers()
        world.at(0, lambda: world.feed(one, Unsent(view.link, part)))
        return []

    alter(world, too_slow)
    data = content(8, PUBLISHED_MAX)
    world.publish(one, data)
    world.run_for(5.0)
    assert dropped == 10
    assert world.heard(data) == [one, other]


# --- one flow, one bearer ------------------------------------------------------------------------


class Branches:
    """A tree with neighbours, and what it tells each of them."""

    def __init__(self, peers: int) -> None:
        (node,) = grown(World(9), 1)
        self.context = node.core._context
        self.tree = Plumtree(self.context)
        self.peers = [PeerId(bytes([number]) * 32) for number in range(1, peers + 1)]
        for number, peer in enumerate(self.peers):
            self.tree.on_neighbour_up(peer, 2 * number, 0.0)  # type: ignore[arg-type]

    def told(self) -> list[tuple[PeerId, str]]:
        """Kinds of messages since the last look, and for whom."""
        return [
            (self.peers[each.link // 2], type(each.message).__name__)
            for each in self.context.drain()
            if isinstance(each, Transmit)
        ]


def part(number: int, flow: bytes = b"f" * 14) -> GossipPart:
    """One of ten."""
    return GossipPart(
        flow + bytes([0, number]),
        bytes(32),
        "t",
        b"data",
        text=False,
        hops=1,
        publication=bytes(16),
        part=number,
        parts=10,
        signature=bytes(64),
    )


def test_only_who_does_not_bear_a_flow_is_pruned_for_its_duplicates() -> None:
    """Parts under way from two neighbours at once must not cost both their branches."""
    branches = Branches(2)
    one, two = branches.peers
    branches.tree.on_gossip(one, part(0), 1.0)
    branches.tree.on_gossip(two, part(1), 1.0)
    branches.told()
    branches.tree.on_duplicate(one, part(1), 1.6)
    branches.tree.on_duplicate(two, part(0), 1.6)
    assert branches.told() == [(two, "Prune")]
    assert (list(branches.tree.eager), list(branches.tree.lazy)) == ([one], [two])


def test_a_part_from_elsewhere_is_mentioned_to_the_bearer_of_its_flow_not_pushed() -> None:
    branches = Branches(3)
    one, two, three = branches.peers
    branches.tree.on_gossip(one, part(0), 1.0)
    branches.told()
    branches.tree.on_gossip(two, part(1), 1.0)
    assert branches.told() == [(one, "IHave"), (three, "GossipPart")]


def test_a_flow_whose_bearer_falls_silent_takes_another() -> None:
    branches = Branches(2)
    one, two = branches.peers
    branches.tree.on_gossip(one, part(0), 1.0)
    branches.tree.on_gossip(two, part(1), 1.6)
    branches.told()
    branches.tree.on_duplicate(two, part(0), 1.6)
    branches.tree.on_duplicate(one, part(1), 1.6)
    assert branches.told() == [(one, "Prune")]


def test_nothing_of_a_flow_is_grafted_while_it_goes_on() -> None:
    branches = Branches(2)
    one, two = branches.peers
    tree = branches.tree
    announced = IHave([Announcement(part(n).message_id, 2) for n in (5, 9)])
    tree.on_ihave(two, announced, 1.0)
    other = IHave([Announcement(b"another message.", 2)])
    tree.on_ihave(two, other, 1.0)
    for number in range(5):
        now = 1.0 + number * 0.4
        tree.on_gossip(one, part(number), now)
        tree.on_time(now)
    told = branches.told()
    assert told.count((two, "Graft")) == 1, "a message of its own waits for no flow"
    tree.on_time(2.6 + 0.49)
    assert branches.told() == []
    tree.on_time(2.6 + 0.5)
    grafts = [each for each in branches.context.drain() if isinstance(each, Transmit)]
    wanted = {part(n).message_id for n in (5, 9)}
    assert {each.message.message_id for each in grafts if isinstance(each.message, Graft)} == wanted
    assert len(grafts) == len(wanted)


def test_no_more_flows_are_followed_than_the_latest() -> None:
    branches = Branches(1)
    for number in range(FLOWS_MAX + 10):
        branches.tree.on_gossip(branches.peers[0], part(0, number.to_bytes(14, "big")), 1.0)
    followed = [int.from_bytes(flow, "big") for flow in branches.tree._flows]
    assert followed == list(range(10, FLOWS_MAX + 10))


def test_who_pushes_to_us_although_pruned_is_told_again() -> None:
    """It may have made us eager since, when something new of ours was still under way (§3.6)."""
    branches = Branches(2)
    one, two = branches.peers
    branches.tree.on_gossip(one, part(0), 1.0)
    branches.told()
    for _ in range(2):
        branches.tree.on_duplicate(two, part(0), 1.6)
        assert branches.told() == [(two, "Prune")]
