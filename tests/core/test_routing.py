"""Offers on their way: acknowledged, tried elsewhere, bounced, never twice through a node."""

import random

import pytest

from overlay.core.context import Context, Settings
from overlay.core.events import Transmit
from overlay.core.messages import Answer, Bounce, Message, Offer, SignalAck
from overlay.core.routing import (
    ACK_TIMEOUT_MIN,
    OFFERS_BURST,
    REQUEST_LIFE,
    AnswerArrived,
    OfferArrived,
    Routing,
    Undeliverable,
)
from overlay.core.timers import NEVER
from overlay.core.types import LinkId, PeerId
from overlay.sim.crypto import Ledger, StandInCrypto

TARGET = b"t" * 32
REQUEST = b"r" * 16
OFFER = Offer(TARGET, REQUEST, 8, 1, b"sealed")
ANSWER = Answer(REQUEST, 1, b"sealed")


def peer(name: str) -> PeerId:
    return PeerId(name.encode() * 32)


class Hop:
    """One routing machine, its neighbours by one-letter names, and what it sends."""

    def __init__(self, *neighbours: str) -> None:
        self.names = {peer(name): name for name in neighbours}
        crypto = StandInCrypto(Ledger(), random.Random(1))
        settings = Settings(bytes(32), "n", "hop", 1, dial_key=bytes(32))
        self.context = Context(settings, crypto, random.Random(1))
        self.routing = Routing(self.context)
        for index, name in enumerate(neighbours):
            self.routing.add(peer(name), LinkId(index), 0.0)
        self._links = dict(enumerate(neighbours))

    def sent(self) -> list[tuple[str, Message]]:
        """What went out since the last look, and to whom."""
        effects = self.context.drain()
        return [(self._links[e.link], e.message) for e in effects if isinstance(e, Transmit)]


def test_a_hop_acknowledges_an_offer_and_hands_it_to_the_target() -> None:
    hop = Hop("a", "t", "b")
    assert hop.routing.on_offer(peer("a"), OFFER, 0.0) == []
    onward = Offer(TARGET, REQUEST, 7, 1, b"sealed")
    assert hop.sent() == [("a", SignalAck(REQUEST, False)), ("t", onward)]  # noqa: FBT003
    assert hop.routing.counters.forwarded == 1


def test_a_neighbour_that_knows_the_target_is_preferred() -> None:
    for _ in range(20):
        hop = Hop("a", "b", "c", "d")
        hop.routing.learn(peer("c"), [TARGET])
        hop.routing.on_offer(peer("a"), OFFER, 0.0)
        assert [name for name, message in hop.sent() if isinstance(message, Offer)] == ["c"]


def test_an_unacknowledged_offer_is_tried_elsewhere_in_time() -> None:
    hop = Hop("a", "t", "b")
    hop.routing.send(OFFER, 0.0)
    assert [name for name, _ in hop.sent()] == ["t"]
    assert hop.context.agenda.earliest == ACK_TIMEOUT_MIN
    assert hop.routing.on_time(ACK_TIMEOUT_MIN) == []
    assert next(name for name, _ in hop.sent()) in ("a", "b")


def test_an_acknowledged_offer_is_not_tried_elsewhere() -> None:
    """The counter-test of the one above."""
    hop = Hop("a", "t", "b")
    hop.routing.send(OFFER, 0.0)
    hop.routing.on_ack(peer("t"), SignalAck(REQUEST, answer=False))
    hop.sent()
    hop.routing.on_time(5.0)
    assert hop.sent() == []


def test_a_slow_neighbour_gets_three_of_its_round_trips() -> None:
    hop = Hop("t", "b")
    hop.routing.neighbours[peer("t")].srtt = 0.5
    hop.routing.send(OFFER, 0.0)
    assert hop.context.agenda.earliest == 1.5


def test_a_bounced_offer_goes_to_the_next_best_and_then_back() -> None:
    hop = Hop("a", "b", "c")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    tried = []
    for _ in range(2):
        ((name, _),) = [each for each in hop.sent() if isinstance(each[1], Offer)]
        tried.append(name)
        hop.routing.on_bounce(peer(name), Bounce(REQUEST, "no_route"), 0.1)
    assert sorted(tried) == ["b", "c"]
    assert hop.sent() == [("a", Bounce(REQUEST, "no_route"))]
    assert hop.routing.counters.dropped == 1


def test_the_sender_hears_that_nobody_could_pass_its_offer_on() -> None:
    hop = Hop("b")
    hop.routing.send(OFFER, 0.0)
    facts = hop.routing.on_bounce(peer("b"), Bounce(REQUEST, "no_route"), 0.1)
    assert facts == [Undeliverable(REQUEST, "no_route")]
    assert Hop().routing.send(OFFER, 0.0) == [Undeliverable(REQUEST, "no_route")]


def test_a_late_acknowledgement_is_not_too_late() -> None:
    hop = Hop("t")
    hop.routing.send(OFFER, 0.0)
    assert hop.routing.on_time(1.0) == [], "gave up on a slow hop with nobody else to try"
    facts = hop.routing.on_answer(peer("t"), ANSWER, 2.0)
    assert facts == [AnswerArrived(ANSWER, peer("t"))]


def test_an_offer_never_goes_twice_through_a_node() -> None:
    hop = Hop("a", "b", "c")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    hop.sent()
    assert hop.routing.on_offer(peer("b"), OFFER, 0.1) == []
    assert hop.sent() == [("b", Bounce(REQUEST, "loop"))]


def test_an_offer_for_us_is_delivered_once() -> None:
    hop = Hop("a", "b")
    mine = Offer(hop.context.peer_id, REQUEST, 5, 1, b"sealed")
    assert hop.routing.on_offer(peer("a"), mine, 0.0) == [OfferArrived(mine, peer("a"))]
    assert hop.routing.on_offer(peer("a"), mine, 0.1) == []
    hop.routing.answer(ANSWER, 0.2)
    assert ("a", ANSWER) in hop.sent()
    assert hop.routing.counters.delivered == hop.routing.counters.sent == 1


def test_an_answer_goes_back_the_way_the_offer_came() -> None:
    hop = Hop("a", "t", "b")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    hop.sent()
    assert hop.routing.on_answer(peer("t"), ANSWER, 0.5) == []
    assert hop.sent() == [("t", SignalAck(REQUEST, True)), ("a", ANSWER)]  # noqa: FBT003
    assert hop.routing.counters.forwarded == 2
    hop.routing.on_ack(peer("a"), SignalAck(REQUEST, answer=True))
    hop.routing.on_time(REQUEST_LIFE + 1.0)
    assert hop.routing.counters.dropped == 0


@pytest.mark.parametrize("bearer", ["a", "b"])
def test_an_answer_from_whom_nobody_asked_is_dropped(bearer: str) -> None:
    hop = Hop("a", "t", "b")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    hop.sent()
    assert hop.routing.on_answer(peer(bearer), ANSWER, 0.5) == []
    assert hop.sent() == []
    assert hop.routing.counters.dropped == 1


def test_an_answer_that_nobody_takes_charge_of_counts_as_dropped() -> None:
    hop = Hop("a", "t")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    hop.routing.on_answer(peer("t"), ANSWER, 0.5)
    hop.routing.on_time(60.0)
    assert hop.routing.counters.dropped == 1
    gone = Hop("a", "t")
    gone.routing.on_offer(peer("a"), OFFER, 0.0)
    gone.routing.remove(peer("a"), 0.1)
    gone.routing.on_answer(peer("t"), ANSWER, 0.5)
    assert gone.routing.counters.dropped == 1


def test_a_ttl_that_has_run_out_bounces() -> None:
    hop = Hop("a", "b")
    hop.routing.on_offer(peer("a"), Offer(TARGET, REQUEST, 1, 1, b""), 0.0)
    assert hop.sent() == [("a", Bounce(REQUEST, "ttl"))]


def test_a_neighbour_that_goes_is_replaced_at_once() -> None:
    hop = Hop("a", "t", "b")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    hop.sent()
    hop.routing.remove(peer("t"), 0.1)
    assert [name for name, message in hop.sent() if isinstance(message, Offer)] == ["b"]


def test_a_flood_of_offers_is_cut_and_recovers() -> None:
    hop = Hop("a", "t")
    for index in range(int(OFFERS_BURST) + 50):
        hop.routing.on_offer(peer("a"), Offer(TARGET, index.to_bytes(16, "big"), 8, 1, b""), 0.0)
    bounced = [m for _, m in hop.sent() if isinstance(m, Bounce)]
    assert len(bounced) == 50
    hop.routing.on_offer(peer("a"), OFFER, 1.0)
    assert any(isinstance(message, Offer) for _, message in hop.sent())


def test_requests_are_forgotten_after_their_life() -> None:
    hop = Hop("a", "t")
    hop.routing.on_offer(peer("a"), OFFER, 0.0)
    hop.routing.on_time(REQUEST_LIFE)
    assert hop.routing._requests == {}
    hop.context.agenda.settle()
    assert hop.context.agenda.earliest == NEVER
