"""Neighbours of neighbours: who leads nearest to a place, and who may be handed a request."""

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.routing.lookahead import (
    BROUGHT_FOR,
    BROUGHT_MAX,
    DIGEST_MAX,
    REQUESTS_BURST,
    Neighbour,
    Surroundings,
)
from overlay.core.routing.ring import SPACE, distance, place_of
from overlay.core.types import LinkId, PeerId

PLACES = st.integers(0, SPACE - 1)
PEERS = st.lists(st.binary(min_size=32, max_size=32).map(PeerId), unique=True, max_size=20)


def peer(name: str) -> PeerId:
    return PeerId(name.encode() * 32)


def around(*names: str) -> Surroundings:
    surroundings = Surroundings(peer("self"[:1]))
    for index, name in enumerate(names):
        surroundings.add(peer(name), LinkId(index), 0.0)
    return surroundings


@given(PEERS, PLACES)
def test_the_reach_of_a_neighbour_is_the_nearest_of_it_and_its_neighbours(
    peers: list[PeerId], place: int
) -> None:
    neighbour = Neighbour(LinkId(0), place_of(peer("a")))
    neighbour.learn(peers)
    places = [neighbour.place, *map(place_of, peers)]
    assert neighbour.reach(place) == min(distance(each, place) for each in places)


@given(PEERS.filter(len), st.data())
def test_who_is_at_a_place_that_does_not_count_leads_nowhere(
    peers: list[PeerId], data: st.DataObject
) -> None:
    place = place_of(data.draw(st.sampled_from(peers)))
    neighbour = Neighbour(LinkId(0), place_of(peer("a")))
    neighbour.learn(peers)
    others = [each for each in (neighbour.place, *map(place_of, peers)) if each != place]
    nearest = min((distance(each, place) for each in others), default=SPACE)
    assert neighbour.reach(place, {place}) == nearest
    assert neighbour.reach(place) == 0, "the counter-test: otherwise it counts"


@given(PEERS, PLACES, st.booleans())
def test_beyond_looks_at_one_side_only(peers: list[PeerId], place: int, clockwise: bool) -> None:
    neighbour = Neighbour(LinkId(0), place_of(peer("a")))
    neighbour.learn(peers)
    sign = 1 if clockwise else -1
    offsets = [(sign * (each - place)) % SPACE for each in (neighbour.place, *map(place_of, peers))]
    assert neighbour.beyond(place, clockwise=clockwise) == min(offsets)
    everywhere = {neighbour.place, *map(place_of, peers)}
    assert neighbour.beyond(place, everywhere, clockwise=clockwise) == SPACE


def test_across_leads_to_the_side_of_the_target_where_we_are_not() -> None:
    surroundings = around("a", "b")
    own = place_of(surroundings.peer_id)
    by_offset = sorted("ab", key=lambda name: (place_of(peer(name)) - own) % SPACE)
    between = (own + (place_of(peer(by_offset[0])) - own) % SPACE - 1) % SPACE
    near = (between - own) % SPACE < SPACE // 2
    untried = [peer("a"), peer("b")]
    expected = by_offset[0] if near else by_offset[1]
    assert surroundings.across(between, untried) == peer(expected)
    assert surroundings.across(between, []) is None


@given(PEERS, PLACES)
def test_the_best_neighbour_reaches_nearest(peers: list[PeerId], place: int) -> None:
    surroundings = around("a", "b", "c")
    for index, name in enumerate("abc"):
        surroundings.learn(peer(name), peers[index::3])
    untried = [peer(name) for name in "abc"]
    best = surroundings.best(place, untried)
    assert best is not None
    assert best[0] == min(surroundings.neighbours[each].reach(place) for each in untried)
    assert surroundings.best(place, []) is None


def test_those_that_say_they_know_the_target_come_the_quickest_first() -> None:
    surroundings, target = around("a", "b", "c"), peer("t")
    for name, srtt in (("a", 0.3), ("b", 0.1)):
        surroundings.learn(peer(name), [target])
        surroundings.neighbours[peer(name)].srtt = srtt
    everybody = [peer(name) for name in "abc"]
    assert surroundings.knowing(target, everybody, 0.0) == [peer("b"), peer("a")]
    assert surroundings.knowing(target, [peer("c")], 0.0) == []


def test_the_way_to_a_newcomer_is_the_one_that_word_of_it_came_until_somebody_names_it() -> None:
    surroundings, target = around("a", "b"), peer("newcomer")
    surroundings.brought(target, peer("a"), 5.0)
    everybody = [peer("a"), peer("b")]
    assert surroundings.knowing(target, everybody, 6.0) == [peer("a")]
    assert surroundings.knowing(target, [peer("b")], 6.0) == [], "it has been tried"
    assert surroundings.knowing(target, everybody, 5.0 + BROUGHT_FOR) == []
    surroundings.learn(peer("b"), [target])
    assert surroundings.knowing(target, everybody, 6.0) == [peer("b")]
    for number in range(BROUGHT_MAX):
        surroundings.brought(peer(f"later {number}"), peer("a"), 6.0)
    surroundings.learn(peer("b"), [])
    assert surroundings.knowing(target, everybody, 6.0) == [], "the latest are remembered"


def test_what_a_neighbour_says_of_its_neighbours_is_bounded_and_replaced() -> None:
    surroundings = around("a")
    many = [PeerId(index.to_bytes(32, "big")) for index in range(1000)]
    surroundings.learn(peer("a"), many)
    neighbour = surroundings.neighbours[peer("a")]
    assert all(neighbour.knows(place_of(each)) for each in many[:DIGEST_MAX])
    assert not neighbour.knows(place_of(many[DIGEST_MAX]))
    surroundings.learn(peer("a"), [surroundings.peer_id, peer("t")])
    assert neighbour.knows(place_of(peer("t")))
    own = place_of(surroundings.peer_id)
    assert own in surroundings.places([]), "our own link to it is no news"
    surroundings.learn(peer("z"), many)  # who is no neighbour says nothing
    assert list(surroundings.neighbours) == [peer("a")]


def test_a_flood_is_cut_after_a_burst_and_let_in_again_at_the_rate() -> None:
    neighbour = Neighbour(LinkId(0), 0)
    let_in = [neighbour.allowed(0.0) for _ in range(int(REQUESTS_BURST) + 10)]
    assert sum(let_in) == REQUESTS_BURST
    assert not neighbour.allowed(0.0)
    assert neighbour.allowed(0.1)
