"""Where a request goes next: past what leads nowhere, and on while the target may be behind it."""

from overlay.core.routing.next_hop import OFFER_TTL, STRAYS
from overlay.core.routing.ring import distance, place_of
from overlay.core.wire.messages import Bounce, Offer, SignalAck
from tests.core.routing.test_routing import (
    OFFER,
    REQUEST,
    TARGET,
    Hop,
    hop_key,
    nearest_first,
    peer,
)


def hop_nearest_of_all(neighbours: str) -> Hop:
    """A node that is nearer to the target than any of its neighbours."""
    place = place_of(TARGET)
    near = min(range(1000), key=lambda s: distance(place_of(hop_key(s).peer_id), place))
    return Hop(neighbours, seed=near)


def test_where_nobody_is_nearer_and_nobody_silent_the_search_soon_ends() -> None:
    hop = hop_nearest_of_all("abcd")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    given, tried = [], []
    while handed := hop.handed():
        ((name, ttl),) = handed
        given.append(ttl)
        tried.append(name)
        hop.routing.on_ack(peer(name), SignalAck(REQUEST, answer=False), 0.0)
        hop.routing.on_bounce(peer(name), Bounce(REQUEST, "no_route", ttl - 1), 0.1)
    assert len(set(tried)) == len(tried)
    assert given == list(range(STRAYS, STRAYS - len(given), -1))


def nearer_places(hop: Hop) -> tuple[int, ...]:
    """Some between a node and the target."""
    place, own = place_of(TARGET), place_of(hop.context.peer_id)
    return (place + (1 if distance(place + 1, own) <= distance(place, own) else -1),)


def test_where_nodes_in_between_are_silent_the_search_goes_on() -> None:
    """The counter-test of the one above: then the target may be behind them."""
    hop = hop_nearest_of_all("abcd")
    gap = Offer(TARGET, REQUEST, OFFER_TTL, 1, b"", vain=nearer_places(hop))
    hop.routing.on_request(peer("a"), gap, 0.0)
    assert [ttl for _, ttl in hop.handed()] == [OFFER_TTL - 1]
    silent = hop_nearest_of_all("abcd")
    gone = Offer(TARGET, REQUEST, OFFER_TTL, 1, b"", vain=(place_of(TARGET), *nearer_places(hop)))
    silent.routing.on_request(peer("a"), gone, 0.0)
    assert [ttl for _, ttl in silent.handed()] == [STRAYS], "the target itself was silent"


def test_nobody_goes_where_others_found_that_it_leads_nowhere() -> None:
    first, second = nearest_first("bc")
    hop = Hop("abc")
    vain = (place_of(peer(first)),)
    hop.routing.on_request(peer("a"), Offer(TARGET, REQUEST, OFFER_TTL, 1, b"", vain=vain), 0.0)
    ((name, message),) = [each for each in hop.sent() if isinstance(each[1], Offer)]
    assert name == second
    assert isinstance(message, Offer)
    assert set(message.vain) == {*vain, place_of(hop.context.peer_id)}


def test_whoever_asks_is_not_among_the_places_that_a_request_has_passed() -> None:
    hop = Hop("abc")
    hop.routing.lookahead.doubt(peer("c"))
    hop.routing.send(OFFER, 0.0)
    ((_, message),) = hop.sent()
    assert isinstance(message, Offer)
    assert message.vain == (place_of(peer("c")),)
