"""The tree while neighbours come and go: no copies in vain, and a parent in reserve."""

import pytest

from overlay.core.events import Transmit
from overlay.core.gossip.plumtree import (
    ALL_MESSAGES,
    ANNOUNCE_DELAY,
    CACHE_LIFE,
    FED_LATELY,
    GRAFT_SPREAD,
    GRAFT_TIMEOUT,
    NO_MESSAGE,
    REGRAFT_TIMEOUT,
    Plumtree,
)
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import Announcement, Gossip, Graft, IHave, Prune
from overlay.sim.world import World


def peer(number: int) -> PeerId:
    return PeerId(bytes([number]) * 32)


def message(number: int, hops: int = 3, origin: bytes = bytes(32)) -> Gossip:
    name = bytes([number]) * 16
    return Gossip(name, origin, "t", b"data", text=False, hops=hops, signature=bytes(64))


def announced(number: int, hops: int) -> IHave:
    return IHave([Announcement(message(number).message_id, hops)])


class Tree:
    """One node's tree, and what it tells its neighbours."""

    def __init__(self, *neighbours: int) -> None:
        self.context = World(9).spawn().core._context
        self.tree = Plumtree(self.context)
        for number in neighbours:
            self.add(number, 0.0)
        self.told()

    def add(self, number: int, now: float) -> None:
        self.tree.on_neighbour_up(peer(number), LinkId(number), now)

    def heard_of(self) -> list[tuple[int, int]]:
        """Messages announced since the last look, and to whom."""
        return [
            (sent.link, each.message_id[0])
            for sent in self.context.drain()
            if isinstance(sent, Transmit) and isinstance(sent.message, IHave)
            for each in sent.message.announcements
        ]

    def told(self) -> list[tuple[int, object]]:
        """Grafts and prunes since the last look, and for whom."""
        return [
            (each.link, each.message)
            for each in self.context.drain()
            if isinstance(each, Transmit) and isinstance(each.message, Graft | Prune)
        ]


def test_a_new_neighbour_of_a_node_on_the_tree_is_asked_to_announce() -> None:
    node = Tree(1)
    node.tree.on_gossip(peer(1), message(1), 1.0)
    node.add(2, 2.0)
    assert node.told() == [(2, Prune())]
    assert peer(2) in node.tree.eager, "a newcomer that has nobody else is fed"


def test_a_new_neighbour_of_a_node_that_nobody_feeds_is_to_push() -> None:
    node = Tree(1)
    node.add(2, 1.0)
    assert node.told() == []
    node.tree.on_gossip(peer(1), message(1), 2.0)
    node.add(3, 2.0 + FED_LATELY)
    assert node.told() == []
    node.tree.on_gossip(peer(1), message(2), 50.0)
    node.tree.on_neighbour_down(peer(1), 50.0, linked=False)
    node.add(4, 50.0)
    assert node.told() == []


def test_who_takes_the_place_of_a_lost_neighbour_is_told_of_our_own_since_it_was_there() -> None:
    """What it was sent may have gone no further; what others sent will have, by others."""
    node = Tree(1)
    us = node.context.peer_id
    for number, at in ((1, 1.0), (2, 8.0), (3, 12.0)):
        node.tree.broadcast(message(number, origin=us), at)
    node.tree.on_gossip(peer(1), message(4), 12.0)
    node.add(2, 14.0)
    assert node.heard_of() == [(2, 3), (2, 4)], "what is older has gone its way"
    node.tree.on_loss(peer(1), 12.0)
    node.tree.on_loss(peer(2), 20.0)
    node.add(3, 28.0)
    assert node.heard_of() == [(3, 2), (3, 3)]
    node.tree.broadcast(message(5, origin=us), 16.0)
    node.add(4, 12.0 + CACHE_LIFE)
    assert node.heard_of() == [(4, 5)], "the later loss is left"
    node.add(5, 20.0 + CACHE_LIFE)
    assert node.heard_of() == []


def test_who_has_lost_a_neighbour_asks_a_new_one_for_all_that_it_has() -> None:
    node = Tree(1, 2)
    node.add(3, 10.0)
    assert node.told() == []
    node.tree.on_loss(peer(9), 11.0)
    node.add(4, 12.0)
    assert node.told() == [], "that was no neighbour"
    node.tree.on_loss(peer(1), 12.0)
    node.add(5, 12.0 + CACHE_LIFE - 0.1)
    assert node.told() == [(5, Graft(ALL_MESSAGES))]
    node.add(6, 12.0 + CACHE_LIFE)
    assert node.told() == []


def test_who_asks_is_told_once_of_all_that_can_be_had() -> None:
    """The answer is far longer than the question: nobody gets it again and again."""
    node = Tree(1)
    for number in range(1, 5):
        node.tree.on_gossip(peer(1), message(number), float(number))
    node.add(2, 20.0)
    assert node.heard_of() == []
    node.tree.on_prune(peer(2))
    node.tree.on_graft(peer(2), Graft(ALL_MESSAGES))
    assert node.heard_of() == [(2, number) for number in range(1, 5)]
    assert peer(2) in node.tree.lazy, "it asked for no branch"
    for stranger in (2, 9):
        node.tree.on_graft(peer(stranger), Graft(ALL_MESSAGES))
    assert node.heard_of() == []


@pytest.mark.parametrize("how", ["gone", "doubtful"])
def test_the_nearest_announcer_takes_the_place_of_a_parent_in_doubt(how: str) -> None:
    node = Tree(1, 2, 3, 4)
    for lazy in (2, 3, 4):
        node.tree.on_prune(peer(lazy))
    node.tree.on_ihave(peer(2), announced(1, 3), 1.0)
    node.tree.on_gossip(peer(1), message(1), 1.0)
    node.tree.on_ihave(peer(3), announced(1, 2), 1.1)
    node.tree.on_ihave(peer(4), announced(1, 4), 1.1)
    if how == "gone":
        node.tree.on_neighbour_down(peer(1), 50.0, linked=False)
    else:
        node.tree.on_doubt(peer(1), 2.0)
    still_there = [] if how == "gone" else [(1, Prune())]
    assert node.told() == [(3, Graft(NO_MESSAGE)), *still_there]
    assert peer(3) in node.tree.eager


def test_whoever_may_be_below_us_takes_no_parents_place() -> None:
    """What it announces has come over more hops than to us: perhaps through us."""
    node = Tree(1, 2)
    node.tree.on_prune(peer(2))
    node.tree.on_gossip(peer(1), message(1, hops=3), 1.0)
    node.tree.on_ihave(peer(2), announced(1, 5), 1.1)
    node.tree.on_neighbour_down(peer(1), 50.0, linked=False)
    assert node.told() == []


def test_another_neighbours_end_moves_no_branch() -> None:
    node = Tree(1, 2, 3)
    node.tree.on_prune(peer(2))
    node.tree.on_gossip(peer(1), message(1), 1.0)
    node.tree.on_ihave(peer(2), announced(1, 1), 1.1)
    node.tree.on_neighbour_down(peer(3), 50.0, linked=False)
    assert node.told() == []


def test_a_graft_for_a_branch_alone_gets_no_message() -> None:
    node = Tree(1)
    node.tree.on_prune(peer(1))
    node.tree.on_gossip(peer(1), message(1), 1.0)
    node.tree.on_prune(peer(1))
    sent = node.tree.payloads
    node.tree.on_graft(peer(1), Graft(NO_MESSAGE))
    assert (list(node.tree.eager), node.tree.payloads) == ([peer(1)], sent)
    node.tree.on_graft(peer(1), Graft(message(1).message_id))
    assert node.tree.payloads == sent + 1


def test_nodes_that_miss_the_same_message_do_not_all_ask_at_once() -> None:
    """The first one's copy comes to the others along what is left of the branch."""
    node = Tree(1)
    for number in range(1, 40):
        node.tree.on_ihave(peer(1), announced(number, 2), 1.0)
    waits = [at - 1.0 for at in node.tree._timers.deadlines.values()]
    assert GRAFT_TIMEOUT <= min(waits) <= max(waits) <= GRAFT_TIMEOUT * GRAFT_SPREAD
    assert len({round(wait, 2) for wait in waits}) > 20


@pytest.mark.parametrize(("lag", "least", "most"), [(0.01, 0.1, 0.15), (0.4, 0.35, 0.5)])
def test_a_node_learns_how_long_a_message_comes_after_its_announcement(
    lag: float, least: float, most: float
) -> None:
    """On fast links what is lost is asked for soon; on slow ones nothing comes twice."""
    node = Tree(1)
    for number in range(1, 40):
        node.tree.on_ihave(peer(1), announced(number, 2), float(number))
        node.tree.on_gossip(peer(2), message(number), number + lag)
    node.tree.on_ihave(peer(1), announced(40, 2), 50.0)
    at = node.tree._timers.deadlines[message(40).message_id]
    assert least <= at - 50.0 <= most * GRAFT_SPREAD


def test_a_parent_that_announces_again_and_again_but_brings_nothing_is_replaced() -> None:
    node = Tree(1, 2)
    node.tree.on_gossip(peer(1), message(1), 1.0)
    node.tree.on_prune(peer(2))
    node.told()
    now, asked = 2.0, list[int]()
    while now < 2.0 + 4 * REGRAFT_TIMEOUT:
        node.tree.on_ihave(peer(1), announced(2, 1), now)
        if now == 2.0:
            node.tree.on_ihave(peer(2), announced(2, 9), now)
        node.tree.on_time(now)
        asked += [link for link, what in node.told() if what == Graft(message(2).message_id)]
        now += REGRAFT_TIMEOUT / 4
    assert asked[:2] == [1, 2]
    node.tree.on_gossip(peer(2), message(2), now)
    node.tree.on_gossip(peer(2), message(3), now)
    assert node.told() == [], "and feeds us from now on"


def test_who_is_grafted_hears_of_what_was_about_to_be_announced_to_it() -> None:
    node = Tree(1, 2)
    node.tree.on_prune(peer(2))
    node.tree.on_ihave(peer(2), announced(1, 3), 1.0)
    late = 1.0 + GRAFT_TIMEOUT * GRAFT_SPREAD
    node.tree.broadcast(message(2, origin=node.context.peer_id), late)
    node.tree.on_time(late)
    node.tree.on_time(late + ANNOUNCE_DELAY)
    assert node.heard_of() == [(2, 2)]
