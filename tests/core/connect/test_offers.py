"""Offers and answers hold only between the two for whom they were made, once, and while fresh."""

import random

import msgspec
import pytest

from overlay.core.connect.offers import (
    OFFER_INFO,
    OFFER_LIFE,
    Refused,
    open_answer,
    open_offer,
    seal_answer,
    seal_offer,
)
from overlay.core.context import Context, Settings
from overlay.core.events import Effect, Transmit
from overlay.core.link.hello import MAX_CLOCK_SKEW
from overlay.core.types import PeerId
from overlay.core.wire import signing as documents
from overlay.core.wire.documents import AnswerBody, OfferBody, PrekeyEntry
from overlay.core.wire.messages import Offer
from overlay.sim.crypto import Ledger, StandInCrypto
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.worlds import line

NOW = 100.0
WALL = 1_800_000_000
REQUEST = b"r" * 15 + b"\0"


class Party:
    """One end of a negotiation."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.crypto = StandInCrypto(ledger, random.Random(seed))
        settings = Settings(bytes(32), "n", f"node{seed}", 1, dial_key=bytes(32))
        self.context = Context(settings, self.crypto, random.Random(seed))
        self.context.set_wall(WALL, NOW)
        self.prekey = PrekeyEntry(1, 1, self.crypto.new_prekey(1), WALL + 1000)


@pytest.fixture
def ends() -> tuple[Party, Party]:
    ledger = Ledger()
    return Party(ledger, 1), Party(ledger, 2)


def offer_body(sender: Party, recipient: Party) -> OfferBody:
    """A correct offer."""
    return OfferBody(
        network=bytes(32),
        sender=sender.crypto.peer_id,
        recipient=recipient.crypto.peer_id,
        request=REQUEST,
        attempt=b"a" * 16,
        boot=1,
        expires_at=WALL + 10,
        ttl=8,
        fingerprint=sender.crypto.fingerprint,
        ufrag="u" * 8,
        password="p" * 24,
        candidates=[],
        record=b"",
    )


def answer_body(offer: OfferBody, digest: bytes) -> AnswerBody:
    """A correct answer."""
    return AnswerBody(
        network=offer.network,
        sender=offer.recipient,
        recipient=offer.sender,
        request=offer.request,
        offer_hash=digest,
        boot=1,
        accepted=True,
        reason="",
        hops=2,
        fingerprint=bytes(32),
        ufrag="v" * 8,
        password="q" * 24,
        candidates=[],
    )


def test_an_offer_opens_at_its_recipient_and_nowhere_else(ends: tuple[Party, Party]) -> None:
    one, two = ends
    body = offer_body(one, two)
    offer, digest = seal_offer(one.context, body, two.prekey)
    opened = open_offer(two.context, offer, NOW)
    assert (opened.body, opened.digest) == (body, digest)
    with pytest.raises(Refused, match="seal"):
        open_offer(Party(one.crypto._ledger, 3).context, offer, NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": b"\1" * 32}, "network"),
        ({"recipient": b"o" * 32}, "recipient"),
        ({"request": b"x" * 16}, "recipient"),
        ({"expires_at": int(WALL - MAX_CLOCK_SKEW - 1)}, "expired"),
        ({"expires_at": int(WALL + OFFER_LIFE + MAX_CLOCK_SKEW + 1)}, "expired"),
    ],
)
def test_an_offer_with_one_thing_wrong_is_refused(
    ends: tuple[Party, Party], changes: dict[str, object], reason: str
) -> None:
    one, two = ends
    body = msgspec.structs.replace(offer_body(one, two), **changes)
    offer, _ = seal_offer(one.context, body, two.prekey)
    if "request" in changes:  # under a seal that holds, or it would not get that far
        data = documents.pack(documents.sign(body, one.crypto))
        sealed = two.crypto.seal(two.prekey.public, OFFER_INFO + REQUEST, data)
        offer = Offer(offer.target, REQUEST, 8, 1, sealed)
    with pytest.raises(Refused, match=reason):
        open_offer(two.context, offer, NOW)


def test_an_offer_in_anothers_name_is_refused(ends: tuple[Party, Party]) -> None:
    one, two = ends
    forger = Party(one.crypto._ledger, 3)
    signed = documents.sign(offer_body(forger, two), forger.crypto)
    body = msgspec.msgpack.encode(offer_body(one, two))
    data = documents.pack(msgspec.structs.replace(signed, body=body))
    sealed = forger.crypto.seal(two.prekey.public, OFFER_INFO + REQUEST, data)
    with pytest.raises(Refused, match="signature"):
        open_offer(two.context, Offer(two.crypto.peer_id, REQUEST, 8, 1, sealed), NOW)


def test_an_answer_holds_for_the_offer_that_it_answers(ends: tuple[Party, Party]) -> None:
    one, two = ends
    offer = offer_body(one, two)
    _, digest = seal_offer(one.context, offer, two.prekey)
    body = answer_body(offer, digest)
    answer = seal_answer(two.context, body, one.prekey, offer.request)
    assert open_answer(one.context, answer, two.crypto.peer_id, digest) == body
    with pytest.raises(Refused, match="offer"):
        open_answer(one.context, answer, two.crypto.peer_id, bytes(32))
    with pytest.raises(Refused, match="recipient"):
        open_answer(one.context, answer, PeerId(b"o" * 32), digest)
    with pytest.raises(Refused, match="seal"):
        open_answer(one.context, msgspec.structs.replace(answer, prekey=2), PeerId(b""), digest)


def test_a_replayed_offer_is_refused_counted_and_named() -> None:
    """A go-between that hands the same sealed offer on again, when the hops have forgotten it."""
    world = World(3)
    one, middle, other = line(world)
    seen: list[Transmit] = []
    perform = world.network.perform

    def record(node: SimNode, effect: Effect) -> None:
        if node is middle and isinstance(effect, Transmit) and isinstance(effect.message, Offer):
            seen.append(effect)
        perform(node, effect)

    world.network.perform = record  # type: ignore[method-assign]
    world.connect(one, other)
    world.run_for(5.0)
    assert len(seen) == 1
    world.run_for(20.0)  # the hops have forgotten the request
    dropped = other.core.status().signalling.dropped
    perform(middle, seen[0])
    world.run_for(1.0)
    assert other.core.status().signalling.dropped == dropped + 1
    assert other.reports[-1].fields["reason"] == "replay"
