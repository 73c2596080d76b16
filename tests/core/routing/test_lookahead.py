"""Neighbours of neighbours: who leads nearest to a place, and who may be handed a request."""

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.routing.lookahead import (
    BROUGHT_FOR,
    BROUGHT_MAX,
    DIGEST_MAX,
    REQUESTS_BURST,
    Lookahead,
    Neighbour,
)
from overlay.core.routing.ring import SPACE, distance, place_of
from overlay.core.types import LinkId, PeerId

PLACES = st.integers(0, SPACE - 1)
PEERS = st.lists(st.binary(min_size=32, max_size=32).map(PeerId), unique=True, max_size=20)


def peer(name: str) -> PeerId:
    return PeerId(name.encode() * 32)


def around(*names: str) -> Lookahead:
    lookahead = Lookahead(peer("self"[:1]))
    for index, name in enumerate(names):
        lookahead.add(peer(name), LinkId(index), 0.0)
    return lookahead


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


@given(PEERS, PLACES)
def test_the_best_neighbour_reaches_nearest(peers: list[PeerId], place: int) -> None:
    lookahead = around("a", "b", "c")
    for index, name in enumerate("abc"):
        lookahead.learn(peer(name), peers[index::3])
    untried = [peer(name) for name in "abc"]
    best = lookahead.best(place, untried)
    assert best is not None
    assert best[0] == min(lookahead.neighbours[each].reach(place) for each in untried)
    assert lookahead.best(place, []) is None


def test_those_that_say_they_know_the_target_come_the_quickest_first() -> None:
    lookahead, target = around("a", "b", "c"), peer("t")
    for name, srtt in (("a", 0.3), ("b", 0.1)):
        lookahead.learn(peer(name), [target])
        lookahead.neighbours[peer(name)].srtt = srtt
    everybody = [peer(name) for name in "abc"]
    assert lookahead.knowing(target, everybody, 0.0) == [peer("b"), peer("a")]
    assert lookahead.knowing(target, [peer("c")], 0.0) == []


def test_the_way_to_a_newcomer_is_the_one_that_word_of_it_came_until_somebody_names_it() -> None:
    lookahead, target = around("a", "b"), peer("newcomer")
    lookahead.brought(target, peer("a"), 5.0)
    everybody = [peer("a"), peer("b")]
    assert lookahead.knowing(target, everybody, 6.0) == [peer("a")]
    assert lookahead.knowing(target, [peer("b")], 6.0) == [], "it has been tried"
    assert lookahead.knowing(target, everybody, 5.0 + BROUGHT_FOR) == []
    lookahead.learn(peer("b"), [target])
    assert lookahead.knowing(target, everybody, 6.0) == [peer("b")]
    for number in range(BROUGHT_MAX):
        lookahead.brought(peer(f"later {number}"), peer("a"), 6.0)
    lookahead.learn(peer("b"), [])
    assert lookahead.knowing(target, everybody, 6.0) == [], "the latest are remembered"


def test_what_a_neighbour_says_of_its_neighbours_is_bounded_and_replaced() -> None:
    lookahead = around("a")
    many = [PeerId(index.to_bytes(32, "big")) for index in range(1000)]
    lookahead.learn(peer("a"), many)
    neighbour = lookahead.neighbours[peer("a")]
    assert all(place_of(each) in neighbour.places for each in many[:DIGEST_MAX])
    assert place_of(many[DIGEST_MAX]) not in neighbour.places
    lookahead.learn(peer("a"), [lookahead.peer_id, peer("t")])
    assert place_of(peer("t")) in neighbour.places
    own = place_of(lookahead.peer_id)
    assert own in lookahead.places([]), "our own link to it is no news"
    lookahead.learn(peer("z"), many)  # who is no neighbour says nothing
    assert list(lookahead.neighbours) == [peer("a")]


def test_a_flood_is_cut_after_a_burst_and_let_in_again_at_the_rate() -> None:
    neighbour = Neighbour(LinkId(0), 0)
    let_in = [neighbour.allowed(0.0) for _ in range(int(REQUESTS_BURST) + 10)]
    assert sum(let_in) == REQUESTS_BURST
    assert not neighbour.allowed(0.0)
    assert neighbour.allowed(0.1)


def test_a_neighbour_in_doubt_is_sure_again_on_another_link() -> None:
    """Its process was restarted: what it did not acknowledge went to the one before."""
    lookahead = around("a")
    lookahead.doubt(peer("a"))
    assert not lookahead.is_sure(peer("a"))
    lookahead.add(peer("a"), LinkId(7), 1.0)
    assert lookahead.is_sure(peer("a"))
