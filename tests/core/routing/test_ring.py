"""Places on a ring: the nearest are asked for and held, the lost are tried again, lies pass."""

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.context import Context, Settings
from overlay.core.routing.ring import (
    CANDIDATES,
    CHECK_FIRST,
    CHECK_INTERVAL_MAX,
    LOST_MAX,
    PLACED_AFTER,
    RETRY_FOR,
    RETRY_INTERVAL,
    SPACE,
    Held,
    LocateNeeded,
    Needed,
    Released,
    Ring,
    RingFact,
    RingParameters,
    distance,
    place_of,
)
from overlay.core.types import PeerId
from overlay.sim.crypto import Ledger, StandInCrypto

PEERS = st.lists(st.binary(min_size=32, max_size=32).map(PeerId), unique=True, max_size=30)


def somebody(count: int, seed: int = 1) -> list[PeerId]:
    rng = random.Random(seed)
    return [PeerId(rng.randbytes(32)) for _ in range(count)]


@dataclass(slots=True)
class Node:
    """One ring and what it has said. `alive`: whose links come about when it asks."""

    seed: int = 1
    ring: RingParameters = field(default_factory=RingParameters)
    alive: dict[PeerId, None] | None = None
    now: float = 0.0
    needed: list[PeerId] = field(default_factory=list)
    locates: list[tuple[float, LocateNeeded]] = field(default_factory=list)
    held: dict[PeerId, bool] = field(default_factory=dict)
    machine: Ring = field(init=False)

    def __post_init__(self) -> None:
        crypto = StandInCrypto(Ledger(), random.Random(self.seed))
        settings = Settings(bytes(32), "n", "node", 1, bytes(32))
        self.machine = Ring(Context(settings, crypto, random.Random(self.seed)), self.ring)

    def take(self, facts: list[RingFact]) -> None:
        """Do what connecting would: link to whom is needed, if that one is alive."""
        for fact in facts:
            match fact:
                case Needed(peer):
                    self.needed.append(peer)
                    if self.alive is not None:
                        good = peer in self.alive
                        answer = self.machine.on_linked if good else self.machine.on_unreachable
                        self.take(answer(peer, self.now))
                case LocateNeeded():
                    self.locates.append((self.now, fact))
                case Held(peer, ring):
                    self.held[peer] = ring
                case Released(peer):
                    del self.held[peer]

    def place(self, *peers: PeerId) -> None:
        """The node has found its place: from now on it asks for whom it hears of."""
        self.take(self.machine.on_located(self.machine.place, list(peers), self.now))

    def hear(self, peers: list[PeerId]) -> None:
        self.take(self.machine.on_heard(peers, self.now))

    def link(self, peer: PeerId) -> None:
        self.take(self.machine.on_linked(peer, self.now))

    def run(self, seconds: float, step: float = 0.5) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.take(self.machine.on_time(self.now))

    def nearest(self, peers: list[PeerId], side: int = 2) -> set[PeerId]:
        """The right ring neighbours."""
        own = self.machine.place
        clockwise = sorted(peers, key=lambda peer: (place_of(peer) - own) % SPACE)
        return {*clockwise[:side], *(clockwise[-side:] if clockwise else [])}


def test_distance_is_the_shorter_way_around() -> None:
    assert distance(1, SPACE - 1) == distance(SPACE - 1, 1) == 2
    assert distance(0, SPACE // 2) == SPACE // 2
    assert distance(5, 5) == 0


@given(PEERS, st.integers(0, 2**32))
def test_whoever_hears_of_everybody_holds_the_two_nearest_on_either_side(
    peers: list[PeerId], seed: int
) -> None:
    node = Node(seed, alive=dict.fromkeys(peers))
    node.place()
    for start in range(0, len(peers), 3):
        node.hear(peers[start : start + 3])
    assert {peer for peer, ring in node.held.items() if ring} == node.nearest(peers)
    assert set(node.machine.near) == node.nearest(peers)


@given(PEERS, st.data())
def test_the_dead_are_passed_over_for_the_next_nearest(
    peers: list[PeerId], data: st.DataObject
) -> None:
    living = data.draw(st.lists(st.sampled_from(peers), unique=True)) if peers else []
    node = Node(alive=dict.fromkeys(living))
    node.place()
    node.hear(peers)
    node.hear(peers)
    assert set(node.machine.near) == node.nearest(living) or len(peers) > 2 * CANDIDATES
    assert set(node.machine.near) <= set(living)


def test_nobody_is_asked_for_before_the_node_has_found_its_place() -> None:
    node = Node(alive={})
    peers = somebody(10)
    node.hear(peers)
    assert node.needed == []
    node.place()
    assert node.needed, "the counter-test"


def test_a_node_that_hears_nothing_of_its_place_takes_it_as_found_in_time() -> None:
    node = Node()
    first, *rest = somebody(5)
    node.link(first)
    node.hear(rest)
    node.run(CHECK_FIRST * 1.5 + PLACED_AFTER - 1.0)
    assert node.needed == []
    node.run(2.0)
    assert set(node.needed) == node.nearest([first, *rest]) - {first}


def test_a_ring_neighbour_is_let_go_only_when_its_successor_is_linked() -> None:
    node = Node()
    peers = somebody(40)
    right = node.nearest(peers)
    far = [peer for peer in peers if peer not in right]
    node.place()
    for peer in far:
        node.link(peer)
    assert set(node.held) == node.nearest(far)
    node.hear(peers)
    assert set(node.held) == node.nearest(far), "nobody has come yet"
    for peer in right:
        node.link(peer)
    assert {peer for peer, ring in node.held.items() if ring} == right


def test_a_lost_neighbour_is_replaced_at_once_and_tried_again_later() -> None:
    peers = somebody(20)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    lost = next(iter(node.machine.near))
    assert node.alive is not None
    del node.alive[lost]
    node.take(node.machine.on_unlinked(lost, node.now))
    rest = [peer for peer in peers if peer != lost]
    assert set(node.machine.near) == node.nearest(rest)
    node.hear([lost])
    assert lost not in node.machine.near, "hearsay of the dead counts for nothing while they rest"
    node.alive[lost] = None
    node.run(RETRY_INTERVAL * 1.3)
    assert lost in node.machine.near


def test_while_a_lost_neighbour_is_asked_for_again_the_next_one_has_its_place() -> None:
    """Whoever is dead answers nothing for a minute: until then the ring must not be open."""
    peers = somebody(20)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    lost = next(iter(node.machine.near))
    node.alive = None  # from now on nobody answers
    node.take(node.machine.on_unlinked(lost, node.now))
    node.run(RETRY_INTERVAL * 1.3)
    assert lost in node.needed[-2:], "it is asked for again"
    for peer in node.nearest([peer for peer in peers if peer != lost]):
        node.link(peer)
    assert set(node.machine.near) >= node.nearest([peer for peer in peers if peer != lost])


def test_of_many_that_are_lost_one_is_tried_at_a_time_and_all_when_one_is_back() -> None:
    """A partition makes half the mesh absent: whoever is away costs more than who is there."""
    peers = somebody(20)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    away = sorted(node.machine.near)
    node.alive = dict.fromkeys(peer for peer in peers if peer not in away)
    for peer in away:
        node.take(node.machine.on_unlinked(peer, node.now))
    node.needed.clear()
    node.run(10 * RETRY_INTERVAL)
    tries = [peer for peer in node.needed if peer in away]
    assert 7 <= len(tries) <= 13
    assert len(set(tries)) > 1, "not always the same one"
    node.alive = dict.fromkeys(peers)
    while not set(away) & set(node.machine.near):
        node.run(0.5)
    assert set(away) <= set(node.machine.near), "the others are not tried when one is back"


def test_who_stays_lost_is_forgotten_in_the_end() -> None:
    first, lost = somebody(2)
    node = Node(alive={})
    node.place()
    node.link(first)
    node.hear([lost])
    node.run(RETRY_FOR + 4 * RETRY_INTERVAL, step=5.0)
    tries = node.needed.count(lost)
    assert 0.5 * RETRY_FOR / RETRY_INTERVAL < tries < 1.5 * RETRY_FOR / RETRY_INTERVAL
    node.run(10 * RETRY_INTERVAL, step=5.0)
    assert node.needed.count(lost) <= tries + 1


def test_whoever_says_that_strangers_are_near_costs_one_try_each_and_no_link() -> None:
    """A neighbour that lies: it names a thousand peers that are not there."""
    peers, invented = somebody(20), somebody(1000, seed=2)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    before = dict(node.held)
    for start in range(0, 1000, 64):
        node.hear(invented[start : start + 64])
    node.run(1.0)
    node.hear(peers)
    assert set(node.machine.near) == node.nearest(peers)
    assert node.held == before
    assert len(node.needed) == len(set(node.needed))
    assert len(node.machine._lost) <= LOST_MAX


def test_a_member_that_has_left_is_not_tried_again() -> None:
    peers = somebody(6)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    gone = next(iter(node.machine.near))
    node.take(node.machine.on_unlinked(gone, node.now))
    node.machine.forget(gone, node.now)
    count = node.needed.count(gone)
    node.run(10 * RETRY_INTERVAL, step=2.0)
    assert node.needed.count(gone) == count


# --- size and long links -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [30, 1000, 20_000])
def test_the_size_of_the_mesh_is_told_from_how_dense_it_is_around_us(size: int) -> None:
    estimates = []
    for seed in range(9):
        node, peers = Node(seed), somebody(size, seed)
        node.hear(peers)
        estimates.append(node.machine.size())
    assert size / 2.5 < sorted(estimates)[4] < size * 2.5


def located_far(node: Node) -> list[LocateNeeded]:
    return [locate for _, locate in node.locates if not locate.own]


def test_long_links_are_located_at_harmonic_distances() -> None:
    """Symphony, §3.1: as many in each octave of distance."""
    offsets = []
    for seed in range(40):
        node, peers = Node(seed), somebody(1000, 3)
        node.place()
        node.hear(peers)
        node.link(peers[0])
        node.run(100.0)
        places = [locate.place for locate in located_far(node)]
        offsets += [distance(place, node.machine.place) / SPACE for place in places]
    assert len(offsets) > 200
    near = sum(offset < 1 / 1000**0.5 for offset in offsets) / len(offsets)
    assert 0.35 < near < 0.65
    assert min(offsets) > 1 / 10_000


def test_the_peer_nearest_to_a_place_becomes_a_long_link_at_the_expense_of_the_oldest() -> None:
    peers = somebody(300)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    far = [peer for peer in peers if peer not in node.nearest(peers, side=CANDIDATES)][:3]
    for peer in far:
        node.take(node.machine.on_located(place_of(peer), [peer], node.now))
    assert [peer for peer, ring in node.held.items() if not ring] == far[1:]


def test_a_small_mesh_needs_no_long_links() -> None:
    peers = somebody(8)
    node = Node(alive=dict.fromkeys(peers))
    node.place()
    node.hear(peers)
    node.run(100.0)
    assert located_far(node) == []
    assert node.locates, "the counter-test: it locates its own place"


# --- time --------------------------------------------------------------------------------------


def test_a_node_locates_its_place_soon_then_less_and_less_and_again_when_something_changes() -> (
    None
):
    peers = somebody(6)
    node = Node(alive=dict.fromkeys(peers))
    node.link(peers[0])
    node.run(600.0)
    own = [at for at, locate in node.locates if locate.own]
    gaps = [after - before for before, after in pairwise(own)]
    assert own[0] <= 2 * CHECK_FIRST
    assert gaps[0] < 15.0
    assert 0.7 * CHECK_INTERVAL_MAX < gaps[-1] < 1.3 * CHECK_INTERVAL_MAX
    changed = node.now
    node.hear(peers)
    node.run(5.0)
    assert any(locate.own and at > changed for at, locate in node.locates)


def test_without_a_ring_nothing_is_asked_or_located() -> None:
    node = Node(ring=RingParameters(side=0, long=0), alive={})
    node.place()
    for peer in somebody(5):
        node.link(peer)
    node.hear(somebody(20))
    node.run(100.0)
    assert (node.needed, node.locates, node.held) == ([], [], {})
    assert node.machine.nearest(0, 3), "it still says whom it knows"
