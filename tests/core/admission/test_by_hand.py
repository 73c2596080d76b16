"""First contact by hand in whole cores: what is offered, who may answer, when the two meet."""

import msgspec
import pytest

from overlay.core.admission.by_hand import NAMED_MAX, SEEN_TIMEOUT
from overlay.core.events import AcceptAnswer, Await, Effect, MakeOffer, Resolved, Seen, SendFrom
from overlay.core.events import AnswerOffer as AnswerCommand
from overlay.core.nat.server import KEEP_INTERVAL
from overlay.core.overlay import Overlay
from overlay.core.types import Address, Negotiated, RequestId
from overlay.core.wire import by_hand
from overlay.core.wire.documents import AddressEntry, InviteBody, InviteMember
from overlay.errors import InviteError
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.worlds import rejected
from tests.keys import keys_of, seeded

SERVER = Address("203.0.113.9", 3478)
OUTSIDE = Address("198.51.100.20", 40_000)


def result(world: World, node: SimNode, request: RequestId) -> object:
    world.run_until(lambda: request in node.results, within=60.0)
    outcome = node.results[request]
    assert isinstance(outcome, Resolved), outcome
    return outcome.value


def offered(world: World, node: SimNode, expires_in: float = 3600.0) -> InviteBody:
    body = result(world, node, world.request(node, lambda r: MakeOffer(r, expires_in)))
    assert isinstance(body, InviteBody)
    return by_hand.read_offer(by_hand.write_offer(body), node.crypto)


def answered(world: World, node: SimNode, offer: InviteBody) -> by_hand.Answer:
    payload = result(world, node, world.request(node, lambda r: AnswerCommand(r, offer)))
    assert isinstance(payload, bytes)
    return by_hand.read_answer(payload)


def accept(world: World, node: SimNode, answer: by_hand.Answer, timeout: float = 60.0) -> RequestId:
    return world.request(node, lambda r: AcceptAnswer(r, answer, timeout))


@pytest.mark.parametrize("pause", [0.0, 700.0])
def test_two_strangers_meet_and_the_answerer_is_a_member(pause: float) -> None:
    world = World(1)
    a, b = (world.spawn(host=f"198.51.100.{at}", firewalled=True) for at in (1, 2))
    offer = offered(world, a)
    world.run_for(pause)
    answer = answered(world, b, offer)
    world.run_for(pause)
    assert result(world, a, accept(world, a, answer)) == b.peer_id
    world.run_until(lambda: bool(a.neighbours() and b.neighbours()), within=10.0)
    for node in (a, b):
        (view,) = node.core.peers()
        assert view.negotiated is Negotiated.MANUAL
    assert result(world, a, accept(world, a, answer)) == b.peer_id, "a second time is no error"


def test_an_answer_that_nobody_takes_back_is_forgotten_with_its_offer() -> None:
    world = World(2)
    a, b = (world.spawn(host=f"198.51.100.{at}", firewalled=True) for at in (1, 2))
    answer = answered(world, b, offered(world, a, expires_in=60.0))
    world.run_for(90.0)
    assert "expired" in rejected(world, a, accept(world, a, answer)).text
    assert not b.core.peers()


def test_an_answer_holds_only_for_its_offer_and_unchanged() -> None:
    world = World(3)
    a, b, c = (world.spawn(host=f"198.51.100.{at}") for at in (1, 2, 3))
    answer = answered(world, b, offered(world, a))
    assert "no offer" in rejected(world, c, accept(world, c, answer)).text
    other = by_hand.write_answer(answer.invite_id, answer.member, seeded("guessed"))
    forged = by_hand.read_answer(other)
    assert "holds the offer" in rejected(world, a, accept(world, a, forged)).text


def test_who_waits_is_told_after_a_while_and_the_node_goes_on() -> None:
    world = World(4)
    a, b = (world.spawn(host=f"198.51.100.{at}", firewalled=True) for at in (1, 2))
    answer = answered(world, b, offered(world, a))
    world.crash(b)
    slow = rejected(world, a, accept(world, a, answer, timeout=20.0))
    assert (slow.code, "goes on" in slow.text) == ("timeout", True)


def test_a_node_that_nobody_can_meet_says_what_would_help() -> None:
    world = World(5)
    alone = world.spawn(host="192.168.1.5")
    refused = rejected(world, alone, world.request(alone, lambda r: MakeOffer(r, 60.0)))
    assert refused.code == "no_address"
    assert "nat.stun" in refused.text
    hidden = world.spawn(host="198.51.100.1", relay_only=True)
    refused = rejected(world, hidden, world.request(hidden, lambda r: MakeOffer(r, 60.0)))
    assert "relay_only" in refused.text


def asked(effects: list[Effect]) -> bytes:
    """The transaction of the question to the server."""
    (transaction,) = [each.transaction for each in effects if isinstance(each, Await)]
    assert [each.remote for each in effects if isinstance(each, SendFrom)] == [SERVER]
    return transaction


def test_the_server_that_the_user_names_is_asked_while_the_offer_lasts() -> None:
    """And by its answer alone, from its address, the node may be met there."""
    world = World(6)
    node = world.spawn(host="192.168.1.5", stun=SERVER)
    core, now = node.core, world.now
    first = asked(core.handle(MakeOffer(RequestId(1), 35.0), now))
    stranger = Seen(first, Address("203.0.113.66", 3478), OUTSIDE)
    assert not [each for each in core.handle(stranger, now) if isinstance(each, Resolved)]
    (made,) = [e for e in core.handle(Seen(first, SERVER, OUTSIDE), now) if isinstance(e, Resolved)]
    entries = made.value.members[0].addresses
    assert Address(entries[0].host, entries[0].port) == OUTSIDE
    again = questions(core, now, now + 100.0)
    assert len(again) >= 2
    assert again[0] == pytest.approx(now + KEEP_INTERVAL)
    assert max(again) < now + 35.0


def questions(core: Overlay, since: float, until: float) -> list[float]:
    """When a node asks the server, which answers at once."""
    from overlay.core.events import Wakeup

    found, now = [], since
    while (at := core.next_deadline()) is not None and (now := max(now, at)) < until:
        for effect in core.handle(Wakeup(), now):
            if isinstance(effect, Await):
                found.append(now)
                core.handle(Seen(effect.transaction, SERVER, OUTSIDE), now)
    return found


def test_a_server_that_does_not_answer_is_named() -> None:
    world = World(7)
    node = world.spawn(host="192.168.1.5", stun=SERVER)
    began = world.now
    refused = rejected(world, node, world.request(node, lambda r: MakeOffer(r, 60.0)))
    assert world.now - began == pytest.approx(SEEN_TIMEOUT, abs=0.5)
    assert str(SERVER) in refused.text
    assert "does not answer" in refused.text


# --- the documents -----------------------------------------------------------------------------


def test_messages_are_short() -> None:
    """What the how-to page says of their sizes."""
    bob, seed = keys_of("bob"), seeded("seed")
    sizes = []
    for count in (1, NAMED_MAX):
        addresses = [AddressEntry(f"198.51.100.{at}", 4000, proven=False) for at in range(count)]
        member = InviteMember(bob.peer_id, bob.fingerprint, b"", addresses)
        text = by_hand.text_of(by_hand.write_answer(b"8 bytes.", member, seed))
        assert by_hand.is_whole(text, by_hand.Kind.ANSWER)
        assert not by_hand.is_whole(text[:-1], by_hand.Kind.ANSWER)
        sizes.append(len(text))
    assert 160 <= sizes[0] <= sizes[1] <= 260


@pytest.mark.parametrize("size", [0, 1, 8, 40, 41, 90, 300])
def test_no_payload_makes_reading_raise_anything_else(size: int) -> None:
    for kind in by_hand.Kind:
        payload = bytes([kind << 4]) + bytes(size)
        with pytest.raises(InviteError):
            by_hand.read_answer(payload)
        with pytest.raises(InviteError):
            by_hand.read_offer(payload, keys_of("bob"))


def test_an_offer_names_its_maker_alone() -> None:
    world = World(8)
    a = world.spawn(host="198.51.100.1")
    offer = offered(world, a)
    twice = msgspec.structs.replace(offer, members=offer.members * 2)
    with pytest.raises(InviteError):
        by_hand.read_offer(by_hand.write_offer(twice), a.crypto)
