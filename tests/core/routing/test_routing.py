"""One idea: how requests travel: acknowledged, tried elsewhere, bounced, twice through nobody."""

import random

import pytest

from overlay.core.context import Context, Settings
from overlay.core.events import Transmit
from overlay.core.routing.lookahead import REQUESTS_BURST
from overlay.core.routing.next_hop import OFFER_TTL, TRIES_MAX
from overlay.core.routing.requests import (
    ATTEMPTS_MAX,
    WALK,
    ReplyArrived,
    RequestArrived,
    Undeliverable,
    attempt_of,
    base_of,
    walks,
)
from overlay.core.routing.ring import distance, place_of
from overlay.core.routing.routing import (
    ACK_TIMEOUT_MIN,
    ACK_TIMEOUT_TARGET,
    ACK_TIMEOUT_UNKNOWN,
    FORGET_INTERVAL,
    REQUEST_LIFE,
    REQUESTS_MAX,
    RETRY_AFTER,
    SEEK_TIMEOUT,
    WALK_AFTER,
    WALKS_AT_ONCE,
    Routing,
)
from overlay.core.timers import NEVER
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import (
    Answer,
    Bounce,
    Locate,
    Located,
    Message,
    Offer,
    SignalAck,
    Trace,
)
from overlay.sim.crypto import Ledger, StandInCrypto

TARGET = PeerId(b"t" * 32)
REQUEST = b"r" * 15 + b"\0"
OFFER = Offer(TARGET, REQUEST, OFFER_TTL, 1, b"sealed")
ANSWER = Answer(REQUEST, 1, b"sealed")
NAMES = "abcdefghijklm"


def peer(name: str) -> PeerId:
    return PeerId(name.encode() * 32)


def nearest_first(names: str) -> list[str]:
    """By their distance to the target."""
    place = place_of(TARGET)
    return sorted(names, key=lambda name: distance(place_of(peer(name)), place))


def hop_key(seed: int) -> StandInCrypto:
    return StandInCrypto(Ledger(), random.Random(seed))


def far_seed() -> int:
    """A seed for a node that is farther from the target than all its neighbours."""
    place = place_of(TARGET)
    farthest = distance(place_of(peer(nearest_first(NAMES)[-1])), place)
    seeds = range(1000)
    return next(s for s in seeds if distance(place_of(hop_key(s).peer_id), place) > farthest)


class Hop:
    """One routing machine, its neighbours by one-letter names, and what it sends."""

    def __init__(self, neighbours: str, seed: int | None = None, walker: int = 1) -> None:
        crypto = hop_key(far_seed() if seed is None else seed)
        settings = Settings(bytes(32), "n", "hop", 1, dial_key=bytes(32))
        self.context = Context(settings, crypto, random.Random(walker))
        self.routing = Routing(self.context)
        for index, name in enumerate(neighbours):
            self.routing.add(peer(name), LinkId(index), 0.0)
        self._links = dict(enumerate(neighbours))

    def sent(self) -> list[tuple[str, Message]]:
        """What went out since the last time, and to whom."""
        effects = self.context.drain()
        return [(self._links[e.link], e.message) for e in effects if isinstance(e, Transmit)]

    def handed(self) -> list[tuple[str, int]]:
        """Who was handed an offer since the last time, and how much of the TTL with it."""
        return [(name, m.ttl) for name, m in self.sent() if isinstance(m, Offer)]


# --- greedy, with acknowledgements -----------------------------------------------------------


def test_a_hop_acknowledges_an_offer_and_hands_it_to_the_target() -> None:
    hop = Hop("atb")
    assert hop.routing.on_request(peer("a"), OFFER, 0.0) == []
    passed = (place_of(hop.context.peer_id),)
    onward = Offer(TARGET, REQUEST, OFFER_TTL - 1, 1, b"sealed", hops=1, vain=passed)
    assert hop.sent() == [("a", SignalAck(REQUEST, False)), ("t", onward)]  # noqa: FBT003
    assert hop.routing.counters.forwarded == 1


def test_the_nearest_neighbour_comes_first() -> None:
    hop = Hop("abcd")
    hop.routing.send(OFFER, 0.0)
    assert hop.handed() == [(nearest_first("abcd")[0], OFFER_TTL)]


def test_a_neighbour_whose_neighbour_is_nearer_is_preferred() -> None:
    first, *_, last = nearest_first("abcd")
    hop = Hop("abcd")
    nearer = next(n for n in nearest_first("efghijklmnopq"))
    assert nearest_first(first + nearer)[0] == nearer
    hop.routing.lookahead.learn(peer(last), [peer(nearer)])
    hop.routing.send(OFFER, 0.0)
    assert hop.handed()[0][0] == last


def test_a_neighbour_that_knows_the_target_is_preferred_to_all_but_the_target() -> None:
    for name in "abcd":
        hop = Hop("abcd")
        hop.routing.lookahead.learn(peer(name), [TARGET])
        hop.routing.send(OFFER, 0.0)
        assert [to for to, _ in hop.handed()] == [name]
    hop = Hop("abcdt")
    hop.routing.lookahead.learn(peer("a"), [TARGET])
    hop.routing.send(OFFER, 0.0)
    assert [to for to, _ in hop.handed()] == ["t"]


def test_an_unacknowledged_offer_is_tried_elsewhere_in_time() -> None:
    first, *rest = nearest_first("abc")
    hop = Hop("abc")
    hop.routing.send(OFFER, 0.0)
    assert [name for name, _ in hop.handed()] == [first]
    assert hop.context.agenda.earliest == ACK_TIMEOUT_UNKNOWN
    assert hop.routing.on_time(ACK_TIMEOUT_UNKNOWN) == []
    assert hop.handed() == [(rest[0], OFFER_TTL - 1)], "the try in vain is paid for"


def test_the_target_itself_has_more_time() -> None:
    """Whoever else is tried would have to come to it as well."""
    hop = Hop("atb")
    last = nearest_first("ab")[1]
    hop.routing.lookahead.learn(peer(last), [TARGET])
    hop.routing.send(OFFER, 0.0)
    assert [name for name, _ in hop.handed()] == ["t"]
    assert hop.context.agenda.earliest == ACK_TIMEOUT_TARGET
    hop.routing.on_time(ACK_TIMEOUT_TARGET)
    assert hop.handed() == [(last, OFFER_TTL - 1)]


def test_a_slow_target_is_tried_by_those_alone_who_are_linked_to_it() -> None:
    """Others would bring it to us again, or say that they know no way."""
    hop = Hop("atb")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    assert [name for name, _ in hop.handed()] == ["t"]
    hop.routing.on_time(ACK_TIMEOUT_TARGET)
    assert hop.sent() == []
    assert [*hop.routing.on_reply(TARGET, ANSWER, 2.0), *hop.sent()] == [("a", ANSWER)]


def test_a_target_whose_link_is_lost_is_sought_by_all() -> None:
    hop = Hop("atb")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    hop.sent()
    hop.routing.remove(TARGET, ACK_TIMEOUT_TARGET / 2)
    assert [name for name, _ in hop.handed()] == ["b"]


def test_an_acknowledged_offer_is_not_tried_elsewhere() -> None:
    """The counter-test of the one above."""
    hop = Hop("atb")
    hop.routing.send(OFFER, 0.0)
    hop.routing.on_ack(peer("t"), SignalAck(REQUEST, answer=False), 0.0)
    hop.sent()
    hop.routing.on_time(RETRY_AFTER - 0.1)
    assert hop.sent() == []


def test_a_slow_neighbour_gets_three_of_its_round_trips() -> None:
    hop = Hop("b")
    hop.routing.neighbours[peer("b")].srtt = 0.5
    hop.routing.send(OFFER, 0.0)
    assert hop.context.agenda.earliest == 1.5


def test_acknowledgements_tell_how_long_a_neighbour_takes() -> None:
    hop = Hop("tb")
    hop.routing.send(OFFER, 0.0)
    hop.routing.on_ack(peer("t"), SignalAck(REQUEST, answer=False), 0.2)
    assert hop.routing.neighbours[peer("t")].srtt == 0.2
    another = b"s" * 15 + b"\0"
    hop.routing.send(Offer(TARGET, another, OFFER_TTL, 1, b""), 1.0)
    hop.routing.on_ack(peer("t"), SignalAck(another, answer=False), 1.04)
    assert hop.routing.neighbours[peer("t")].srtt == pytest.approx(0.2 - 0.16 / 8)
    third = b"u" * 15 + b"\0"
    hop.routing.send(Offer(TARGET, third, OFFER_TTL, 1, b""), 2.0)
    hop.routing.on_reply(peer("t"), Answer(third, 1, b""), 2.18)
    assert hop.routing.neighbours[peer("t")].srtt == pytest.approx(0.18), "a reply says it as well"
    quick = Hop("b")
    quick.routing.neighbours[peer("b")].srtt = 0.001
    quick.routing.send(OFFER, 0.0)
    assert quick.context.agenda.earliest == ACK_TIMEOUT_MIN


def test_a_neighbour_that_left_a_request_unacknowledged_comes_last_until_it_speaks() -> None:
    first, second = nearest_first("ab")
    hop = Hop("ab")
    hop.routing.send(OFFER, 0.0)
    hop.routing.on_time(ACK_TIMEOUT_UNKNOWN)
    hop.sent()
    another = Offer(TARGET, b"s" * 15 + b"\0", OFFER_TTL, 1, b"")
    hop.routing.send(another, 1.0)
    assert [name for name, _ in hop.handed()] == [second]
    hop.routing.on_ack(peer(first), SignalAck(REQUEST, answer=False), 0.0)
    hop.routing.send(Offer(TARGET, b"u" * 15 + b"\0", OFFER_TTL, 1, b""), 1.0)
    assert [name for name, _ in hop.handed()] == [first]


def test_a_doubted_neighbour_is_still_tried_when_it_is_the_target_or_the_only_one() -> None:
    for names, expected in (("ta", "t"), ("a", "a")):
        hop = Hop(names)
        hop.routing.lookahead.doubt(peer(expected))
        hop.routing.send(OFFER, 0.0)
        assert [name for name, _ in hop.handed()] == [expected]


def test_a_refused_offer_goes_to_the_next_best_and_then_back() -> None:
    hop = Hop("abc")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    order = nearest_first("bc")
    for left, name in zip((OFFER_TTL - 1, OFFER_TTL - 2), order, strict=True):
        assert hop.handed() == [(name, left)]
        hop.routing.on_bounce(peer(name), Bounce(REQUEST, "busy"), 0.1)
    ((name, bounce),) = hop.sent()
    assert (name, type(bounce)) == ("a", Bounce)
    assert isinstance(bounce, Bounce)
    assert (bounce.code, bounce.left) == ("busy", OFFER_TTL - 3)
    assert hop.routing.counters.dropped == 1


@pytest.mark.parametrize("left", [0, 5, 255])
def test_a_hop_that_took_charge_and_found_no_way_says_what_is_left(left: int) -> None:
    hop = Hop("abc")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    first = nearest_first("bc")[0]
    hop.routing.on_ack(peer(first), SignalAck(REQUEST, answer=False), 0.0)
    hop.sent()
    hop.routing.on_bounce(peer(first), Bounce(REQUEST, "no_route", left), 0.1)
    if left:
        assert [ttl for _, ttl in hop.handed()] == [min(left, OFFER_TTL - 2)], (
            "less, whoever says so"
        )
    else:
        assert [type(message) for _, message in hop.sent()] == [Bounce], "it was all spent"


def test_only_the_last_hop_tried_can_bounce_a_request() -> None:
    hop = Hop("abc")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    second = nearest_first("bc")[1]
    hop.sent()
    for liar in ("a", second):
        assert hop.routing.on_bounce(peer(liar), Bounce(REQUEST, "no_route"), 0.1) == []
    assert hop.sent() == []


def test_one_node_tries_so_many_next_hops_and_no_more() -> None:
    hop = Hop(NAMES)
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    tried: list[str] = []
    while handed := hop.handed():
        tried += [name for name, _ in handed]
        hop.routing.on_bounce(peer(tried[-1]), Bounce(REQUEST, "busy"), 0.1)
    assert len(set(tried)) == len(tried) == TRIES_MAX


def test_the_sender_hears_that_nobody_could_pass_its_offer_on() -> None:
    hop = Hop("b")
    hop.routing.send(OFFER, 0.0)
    facts = hop.routing.on_bounce(peer("b"), Bounce(REQUEST, "no_route"), 0.1)
    assert facts == [Undeliverable(REQUEST, "no_route")]
    assert Hop("").routing.send(OFFER, 0.0) == [Undeliverable(REQUEST, "no_route")]


def test_a_late_acknowledgement_is_not_too_late() -> None:
    hop = Hop("t")
    hop.routing.send(OFFER, 0.0)
    assert hop.routing.on_time(1.0) == [], "gave up on a slow hop with nobody else to try"
    facts = hop.routing.on_reply(peer("t"), ANSWER, 0.0)
    assert facts == [ReplyArrived(ANSWER, peer("t"))]


# --- loops, replays, bounds ------------------------------------------------------------------


def test_a_request_never_goes_twice_through_a_node() -> None:
    hop = Hop("abc")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    hop.sent()
    assert hop.routing.on_request(peer("b"), OFFER, 0.1) == []
    assert hop.sent() == [("b", Bounce(REQUEST, "loop"))]
    again = Offer(TARGET, attempt_of(REQUEST, 1), OFFER_TTL, 1, b"sealed")
    hop.routing.on_request(peer("b"), again, 0.2)
    assert len(hop.handed()) == 1, "another attempt is another way"


def test_an_offer_for_us_is_delivered_once_and_answered_at_every_attempt() -> None:
    hop = Hop("ab")
    mine = Offer(hop.context.peer_id, REQUEST, 5, 1, b"sealed")
    assert hop.routing.on_request(peer("a"), mine, 0.0) == [RequestArrived(mine, peer("a"))]
    assert hop.routing.on_request(peer("a"), mine, 0.1) == []
    hop.routing.reply(ANSWER)
    assert ("a", ANSWER) in hop.sent()
    second = Offer(hop.context.peer_id, attempt_of(REQUEST, 1), 5, 1, b"sealed")
    assert hop.routing.on_request(peer("b"), second, 2.0) == []
    assert ("b", Answer(attempt_of(REQUEST, 1), 1, b"sealed")) in hop.sent()
    assert hop.routing.counters.delivered == hop.routing.counters.sent == 1


def test_a_ttl_that_has_run_out_bounces_and_a_large_one_is_cut() -> None:
    hop = Hop("ab")
    hop.routing.on_request(peer("a"), Offer(TARGET, REQUEST, 1, 1, b""), 0.0)
    assert hop.sent() == [("a", Bounce(REQUEST, "ttl"))]
    hop.routing.on_request(peer("a"), Offer(TARGET, b"s" * 16, 255, 1, b""), 0.0)
    assert hop.handed() == [("b", OFFER_TTL - 1)]


def test_a_flood_of_offers_is_cut_and_recovers() -> None:
    hop = Hop("at")
    for index in range(int(REQUESTS_BURST) + 50):
        hop.routing.on_request(peer("a"), Offer(TARGET, index.to_bytes(16, "big"), 8, 1, b""), 0.0)
    assert [m.code for _, m in hop.sent() if isinstance(m, Bounce)] == ["busy"] * 50
    hop.routing.on_request(peer("a"), OFFER, 1.0)
    assert len(hop.handed()) == 1


def test_requests_are_forgotten_after_their_life_and_of_too_many_the_oldest() -> None:
    hop = Hop("at")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    hop.routing.on_time(REQUEST_LIFE + FORGET_INTERVAL)
    hop.sent()
    hop.context.agenda.settle()
    assert hop.context.agenda.earliest == NEVER
    for index in range(REQUESTS_MAX + 100):
        name = index.to_bytes(16, "big")
        hop.routing.on_request(peer("a"), Offer(TARGET, name, 8, 1, b""), 100.0 + index)
    assert len(hop.routing._requests) == REQUESTS_MAX
    hop.routing.on_reply(peer("t"), Answer(bytes(16), 1, b""), 0.0)
    assert hop.routing.counters.dropped == 1


# --- replies -----------------------------------------------------------------------------------


def test_an_answer_goes_back_the_way_the_offer_came() -> None:
    hop = Hop("atb")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    hop.sent()
    assert hop.routing.on_reply(peer("t"), ANSWER, 0.0) == []
    assert hop.sent() == [("a", ANSWER)]
    assert hop.routing.counters.forwarded == 2
    hop.routing.on_ack(peer("a"), SignalAck(REQUEST, answer=True), 0.0)  # as older nodes do
    hop.routing.on_time(REQUEST_LIFE + 1.0)
    assert hop.routing.counters.dropped == 0


@pytest.mark.parametrize("bearer", ["a", "b"])
def test_an_answer_from_whom_nobody_asked_is_dropped(bearer: str) -> None:
    hop = Hop("atb")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    hop.sent()
    assert hop.routing.on_reply(peer(bearer), ANSWER, 0.0) == []
    assert hop.sent() == []
    assert hop.routing.counters.dropped == 1


def test_an_answer_whose_way_back_is_gone_counts_as_dropped() -> None:
    gone = Hop("at")
    gone.routing.on_request(peer("a"), OFFER, 0.0)
    gone.routing.remove(peer("a"), 0.1)
    gone.routing.on_reply(peer("t"), ANSWER, 0.0)
    assert gone.routing.counters.dropped == 1


def test_a_neighbour_that_goes_is_replaced_at_once_unless_it_had_taken_charge() -> None:
    hop = Hop("atb")
    hop.routing.on_request(peer("a"), OFFER, 0.0)
    hop.sent()
    hop.routing.remove(peer("t"), 0.1)
    assert [name for name, _ in hop.handed()] == ["b"]
    hop.routing.on_ack(peer("b"), SignalAck(REQUEST, answer=False), 0.0)
    hop.routing.remove(peer("b"), 0.2)
    assert hop.sent() == []


# --- attempts ----------------------------------------------------------------------------------


def test_a_request_without_an_answer_is_tried_over_another_first_link_then_from_random_starts() -> (
    None
):
    hop = Hop(NAMES)
    order = nearest_first(NAMES)
    hop.routing.send(OFFER, 0.0)
    ((first, _),) = hop.handed()
    hop.routing.on_ack(peer(first), SignalAck(REQUEST, answer=False), 0.0)
    hop.routing.on_time(RETRY_AFTER)
    ((name, message),) = hop.sent()
    assert isinstance(message, Offer)
    assert (first, name) == (order[0], order[2]), "not the first again, nor the next best"
    assert message.request == attempt_of(REQUEST, 1)
    hop.routing.on_ack(peer(name), SignalAck(message.request, answer=False), 0.0)
    hop.routing.on_time(RETRY_AFTER + WALK_AFTER)
    walking = [m.request for _, m in hop.sent() if isinstance(m, Offer)]
    assert walking == [attempt_of(REQUEST, WALK + index) for index in range(WALKS_AT_ONCE)]
    assert all(walks(request) and base_of(request) == REQUEST for request in walking)


def test_an_answered_request_is_not_tried_again() -> None:
    hop = Hop("abt")
    hop.routing.send(OFFER, 0.0)
    hop.routing.on_reply(peer("t"), ANSWER, 0.0)
    hop.sent()
    assert hop.routing.on_time(REQUEST_LIFE + 1.0) == []
    assert hop.sent() == []


@pytest.mark.parametrize(("walk", "attempts"), [(True, ATTEMPTS_MAX), (False, WALK)])
def test_a_request_that_always_comes_back_is_given_up_in_the_end(
    walk: bool,
    attempts: int,
) -> None:
    hop = Hop("abc")
    facts = hop.routing.send(OFFER, 0.0, walk=walk)
    seen = set()
    for _ in range(200):
        for name, message in hop.sent():
            if isinstance(message, Offer):
                seen.add(message.request)
                hop.routing.on_ack(peer(name), SignalAck(message.request, answer=False), 0.0)
                facts += hop.routing.on_bounce(peer(name), Bounce(message.request, "no_route"), 0.1)
    assert len(seen) == attempts
    facts += hop.routing.on_time(0.1 + SEEK_TIMEOUT)
    assert facts == [Undeliverable(REQUEST, "no_route")]
    assert hop.routing._own == {}


def test_a_walk_takes_no_notice_of_what_neighbours_say_at_first() -> None:
    """So whoever says that it knows everybody gets no more than its share of the walks."""
    firsts = []
    for number in range(200):
        hop = Hop(NAMES, walker=number)
        hop.routing.lookahead.learn(peer("a"), [TARGET])
        walk = Offer(TARGET, attempt_of(REQUEST, WALK), OFFER_TTL, 1, b"")
        hop.routing.on_request(peer("m"), walk, 0.0)
        firsts += [name for name, _ in hop.handed()]
    assert len(set(firsts)) == len(NAMES) - 1
    greedy = Hop(NAMES)
    greedy.routing.lookahead.learn(peer("a"), [TARGET])
    greedy.routing.on_request(peer("m"), OFFER, 0.0)
    assert [name for name, _ in greedy.handed()] == ["a"], "the counter-test"


# --- places ------------------------------------------------------------------------------------


def test_whoever_knows_nobody_nearer_to_a_place_answers_for_it() -> None:
    place = place_of(TARGET)
    near = min(range(1000), key=lambda s: distance(place_of(hop_key(s).peer_id), place))
    hop = Hop("abcd", seed=near)
    locate = Locate(place, REQUEST, OFFER_TTL)
    assert hop.routing.on_request(peer("a"), locate, 0.0) == [RequestArrived(locate, peer("a"))]
    far = Hop("abcd")
    assert far.routing.on_request(peer("a"), locate, 0.0) == [], "the counter-test"
    assert [m for _, m in far.sent() if isinstance(m, Locate)]


def test_a_place_that_those_nearer_do_not_take_ends_here() -> None:
    hop = Hop("abc")
    locate = Locate(place_of(TARGET), REQUEST, OFFER_TTL)
    hop.routing.on_request(peer("a"), locate, 0.0)
    facts = []
    for _ in range(4):
        for name, message in hop.sent():
            if isinstance(message, Locate):
                facts += hop.routing.on_bounce(peer(name), Bounce(REQUEST, "busy"), 0.1)
    assert [type(fact) for fact in facts] == [RequestArrived]
    hop.routing.reply(Located(REQUEST, []))
    assert ("a", Located(REQUEST, [])) in hop.sent()


def test_our_own_place_is_looked_for_beside_ourselves() -> None:
    """Greedy routing would end at whoever asks; it goes to who is nearest besides."""
    hop = Hop("abcd")
    own = place_of(hop.context.peer_id)
    by_distance = sorted("abcd", key=lambda name: distance(place_of(peer(name)), own))
    hop.routing.send(Locate(own, REQUEST, OFFER_TTL), 0.0)
    assert [name for name, m in hop.sent() if isinstance(m, Locate)] == by_distance[:1]


def test_a_trace_names_every_hop() -> None:
    hop = Hop("abt")
    hop.routing.on_request(peer("a"), Trace(TARGET, REQUEST, OFFER_TTL, [b"x" * 32]), 0.0)
    ((_, message),) = [each for each in hop.sent() if isinstance(each[1], Trace)]
    assert isinstance(message, Trace)
    assert message.path == [b"x" * 32, bytes(hop.context.peer_id)]
