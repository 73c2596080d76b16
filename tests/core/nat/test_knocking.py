"""Nobody can be made to shower somebody else: who knocks, where, how often, on whose word."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from overlay.core.context import Context, Settings
from overlay.core.events import Await, Effect, OpenPort, SendFrom, Transmit
from overlay.core.ice import stun
from overlay.core.nat.knocking import (
    ATTESTATION_LIFE,
    CLOCK_SKEW,
    KNOCKING_MAX,
    Knocking,
    Neighbour,
)
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, LinkId, PeerId, PortId
from overlay.core.wire import signing
from overlay.core.wire.bounds import violation
from overlay.core.wire.documents import Attestation
from overlay.core.wire.messages import KnockAsk, Knocked, KnockMessage, KnockPass, KnockRefuse
from overlay.sim.crypto import Ledger, StandInCrypto

WALL = 1_800_000_000
OWN = Address("11.1.0.10", 4000)
HOME = Address("11.9.0.10", 61_000)
SOCKET = Address("11.9.0.10", 62_000)
VICTIM = Address("11.66.0.66", 53)


def request(number: int) -> bytes:
    return number.to_bytes(12, "big")


class Asked:
    """A node that is asked for knocks, and what it does."""

    def __init__(self, ledger: Ledger | None = None, *, public: bool = True, **settings: Any):
        self.ledger = ledger or Ledger()
        self.crypto = StandInCrypto(self.ledger, random.Random(len(self.ledger.secrets)))
        settings = {"name": "helper", "dial_key": bytes(32), **settings}
        self.context = Context(
            Settings(bytes(32), "n", boot=1, **settings), self.crypto, random.Random(1)
        )
        self.context.set_wall(WALL, 0.0)
        self.reflexive = Reflexive()
        self.reflexive.listen((OWN,), ())
        if public:
            self.reflexive.prove(OWN)
        self.neighbours: list[Neighbour] = []
        self.links: dict[PeerId, LinkId] = {}
        self.knocking = Knocking(self.context, self.reflexive, lambda: self.neighbours, self.tell)
        self.effects: list[Effect] = []

    def tell(self, peer: PeerId, message: KnockMessage) -> None:
        self.context.emit(Transmit(self.links.get(peer, LinkId(7)), message))

    def neighbour(
        self, remote: Address = HOME, *, link: int = 0, public: bool = False
    ) -> Neighbour:
        peer = PeerId(StandInCrypto(self.ledger, random.Random(100 + link)).peer_id)
        hosts = (remote.host,) if public else ()
        self.links[peer] = LinkId(link)
        return Neighbour(peer, LinkId(link), remote, OWN, public, hosts)

    def ask(self, asker: Neighbour, message: KnockAsk, now: float = 0.0) -> None:
        self.knocking.on_ask(asker, message, now)
        self.take(now)

    def take(self, now: float) -> None:
        """Perform what it wants: ports open at once."""
        pending = self.context.drain()
        while pending:
            effect = pending.pop(0)
            self.effects.append(effect)
            if isinstance(effect, OpenPort):
                local = Address(OWN.host, 50_000 + effect.port)
                self.knocking.on_port_opened(effect.port, local, now)
                pending += self.context.drain()

    def pass_time(self, start: float, end: float) -> None:
        steps = int((end - start) * 10)
        for step in range(1, steps + 1):
            now = start + step / 10
            self.knocking.on_time(now)
            self.take(now)

    def packets(self, target: Address | None = None) -> list[SendFrom]:
        sent = [each for each in self.effects if isinstance(each, SendFrom)]
        return [each for each in sent if target in (None, each.remote)]

    def said(self) -> Iterator[Any]:
        return (each.message for each in self.effects if isinstance(each, Transmit))

    def refusals(self) -> list[str]:
        return [each.code for each in self.said() if isinstance(each, KnockRefuse)]


# --- the helper ----------------------------------------------------------------------------------


def test_a_knock_is_two_small_packets_a_second_apart_where_the_link_runs() -> None:
    helper = Asked()
    helper.ask(helper.neighbour(), KnockAsk(request(1), own=True))
    assert len(helper.packets(HOME)) == 1
    helper.pass_time(0.0, 0.9)
    assert len(helper.packets(HOME)) == 1
    helper.pass_time(0.9, 30.0)
    first, second = helper.packets()
    assert first == second
    assert first.port != PortId(0)
    assert len(first.data) <= 100
    read = stun.parse(first.data)
    assert isinstance(read, stun.Message)
    assert read.message_class is stun.MessageClass.INDICATION, "nobody answers it"
    assert list(helper.said()) == [Knocked(request(1), 50_001)]
    assert not helper.knocking._knocks


def test_another_socket_is_knocked_at_only_where_its_request_comes_from() -> None:
    helper = Asked()
    helper.ask(helper.neighbour(), KnockAsk(request(1), own=False))
    assert helper.effects == [Await(request(1))]
    helper.knocking.on_seen(request(2), SOCKET, 0.1)
    helper.knocking.on_seen(request(1), VICTIM, 0.1)
    helper.take(0.1)
    assert not helper.packets(), "a request copied or made up by somebody else, from elsewhere"
    helper.knocking.on_seen(request(1), SOCKET, 0.2)
    helper.take(0.2)
    assert [each.remote for each in helper.packets()] == [SOCKET]
    helper.knocking.on_seen(request(1), replace_port(SOCKET), 0.3)
    helper.pass_time(0.2, 10.0)
    assert [each.remote for each in helper.packets()] == [SOCKET, SOCKET]


def replace_port(address: Address) -> Address:
    return address._replace(port=address.port + 1)


def test_a_request_that_never_comes_is_forgotten() -> None:
    helper = Asked()
    helper.ask(helper.neighbour(), KnockAsk(request(1), own=False))
    helper.pass_time(0.0, 10.0)
    assert not helper.knocking._knocks
    helper.knocking.on_seen(request(1), SOCKET, 10.0)
    helper.take(10.0)
    assert not helper.packets()


@pytest.mark.parametrize(
    ("settings", "remote", "code"),
    [
        ({"knock": False}, HOME, "off"),
        ({"public": False}, HOME, "hidden"),
        ({}, Address("192.168.1.7", 4000), "private"),
        ({}, Address("100.64.1.7", 4000), "private"),
        ({}, Address("127.0.0.1", 4000), "private"),
    ],
)
def test_who_does_not_knock_says_so(settings: dict[str, Any], remote: Address, code: str) -> None:
    helper = Asked(**settings)
    helper.ask(helper.neighbour(remote), KnockAsk(request(1), own=True))
    helper.pass_time(0.0, 5.0)
    assert helper.refusals() == [code]
    assert not helper.packets()


def test_one_a_second_goes_to_a_prefix_whoever_asks() -> None:
    """Forty members of one network, or one with forty identities, ask again and again."""
    helper = Asked()
    askers = [helper.neighbour(Address(f"11.9.0.{n}", 61_000), link=n) for n in range(1, 41)]
    for second in range(60):
        for index, asker in enumerate(askers):
            now = float(second)
            helper.ask(asker, KnockAsk(request(100 * second + index), own=True), now)
        helper.pass_time(float(second), second + 1.0)
    assert 0 < len(helper.packets()) <= 63
    assert "busy" in helper.refusals()


def test_a_neighbour_may_not_ask_for_ever_nor_for_many_at_once() -> None:
    helper = Asked()
    for number in range(100):
        helper.ask(helper.neighbour(), KnockAsk(request(number), own=False))
    assert len(helper.knocking._knocks) <= 6
    many = Asked()
    for number in range(100):
        asker = many.neighbour(Address(f"11.{number}.0.1", 4000), link=number)
        many.ask(asker, KnockAsk(request(number), own=False))
    assert len(many.knocking._knocks) == KNOCKING_MAX
    assert many.refusals() == ["busy"] * (100 - KNOCKING_MAX)
    many.pass_time(0.0, 10.0)
    assert not many.knocking._knocks
    assert not many.knocking._by_port


def test_after_a_silence_one_packet_comes_from_the_port_that_was_asked() -> None:
    helper = Asked()
    helper.ask(helper.neighbour(), KnockAsk(request(1), own=False, after=25))
    helper.knocking.on_seen(request(1), SOCKET, 0.0)
    helper.pass_time(0.0, 24.9)
    assert not helper.packets()
    helper.pass_time(24.9, 60.0)
    (knock,) = helper.packets()
    assert (knock.port, knock.remote, knock.local) == (0, SOCKET, OWN)
    assert not helper.knocking._knocks


def test_the_other_port_answers_nobody_but_the_asker() -> None:
    helper = Asked()
    helper.ask(helper.neighbour(), KnockAsk(request(1), own=True))
    (port,) = helper.knocking._by_port
    probe = stun.encode(stun.binding_request(request(9)), None)
    before = len(helper.packets())
    for data, remote in (
        (probe, VICTIM),
        (b"", HOME),
        (b"\x16\xfe\xfd", HOME),
        (stun.encode(stun.binding_indication(request(9)), None), HOME),
    ):
        helper.knocking.on_port_heard(port, data, remote)
        helper.take(0.0)
    assert len(helper.packets()) == before
    elsewhere = replace_port(HOME)
    helper.knocking.on_port_heard(port, probe, elsewhere)
    helper.take(0.0)
    answer = stun.parse(helper.packets()[-1].data)
    assert isinstance(answer, stun.Message)
    assert answer.mapped_address == elsewhere
    assert len(helper.packets()[-1].data) <= 3 * len(probe)


# --- the stranger --------------------------------------------------------------------------------


class Pair:
    """A helper and the neighbour that it asks to knock as a stranger."""

    def __init__(self) -> None:
        ledger = Ledger()
        self.helper, self.stranger = Asked(ledger), Asked(ledger)
        peer = PeerId(self.helper.crypto.peer_id)
        own = Address("11.2.0.10", 4000)
        self.as_seen = Neighbour(peer, LinkId(7), OWN, own, is_public=True, hosts=(OWN.host,))

    def word(self, **changes: Any) -> Attestation:
        made = Attestation(
            network=bytes(32),
            helper=self.helper.crypto.peer_id,
            asker=self.helper.neighbour().peer,
            host=SOCKET.host,
            port=SOCKET.port,
            nonce=request(1),
            expires_at=WALL + int(ATTESTATION_LIFE),
        )
        return replace_struct(made, **changes)

    def hand(self, data: bytes, now: float = 0.0, by: Neighbour | None = None) -> int:
        """How many packets the stranger sends for it within a while."""
        before = len(self.stranger.packets())
        self.stranger.knocking.on_pass(by or self.as_seen, KnockPass(data), now)
        self.stranger.take(now)
        self.stranger.pass_time(now, now + 10.0)
        return len(self.stranger.packets()) - before

    def signed(self, word: Attestation) -> bytes:
        return signing.pack(signing.sign(word, self.helper.crypto))


def replace_struct(word: Attestation, **changes: Any) -> Attestation:
    fields = {name: getattr(word, name) for name in word.__struct_fields__}
    made = Attestation(**{**fields, **changes})
    assert violation(made) is None
    return made


def test_a_stranger_knocks_on_its_neighbours_word_once() -> None:
    pair = Pair()
    data = pair.signed(pair.word())
    assert pair.hand(data) == 2
    assert [each.remote for each in pair.stranger.packets()] == [SOCKET, SOCKET]
    assert list(pair.stranger.said()) == [Knocked(request(1), 50_001)]
    assert pair.hand(data, 20.0) == 0, "a replay"


@pytest.mark.parametrize(
    "changes",
    [
        {"network": b"n" * 32},
        {"expires_at": WALL - int(CLOCK_SKEW)},
        {"expires_at": WALL + int(CLOCK_SKEW) + 20},
        {"host": "192.168.0.1"},
        {"host": "127.0.0.1"},
        {"host": "100.64.0.1"},
    ],
    ids=str,
)
def test_a_word_that_does_not_hold_moves_nobody(changes: dict[str, Any]) -> None:
    pair = Pair()
    assert pair.hand(pair.signed(pair.word(**changes))) == 0
    assert pair.stranger.knocking.refused == {"attestation": 1}


def test_a_forged_word_one_of_somebody_else_and_one_of_a_hidden_node_move_nobody() -> None:
    pair = Pair()
    good = pair.signed(pair.word())
    forged = bytearray(good)
    forged[-1] ^= 1
    assert pair.hand(bytes(forged)) == 0
    assert pair.hand(b"") == 0
    mallory = replace(pair.as_seen, peer=pair.helper.neighbour(link=5).peer)
    assert pair.hand(good, by=mallory) == 0, "handed on by another than its author"
    assert pair.hand(good, by=replace(pair.as_seen, hosts=())) == 0
    assert pair.stranger.knocking.refused == {"attestation": 4}
    assert pair.hand(good) == 2


def test_a_helper_that_lies_about_where_it_sees_somebody_moves_two_packets_a_time() -> None:
    """What a malicious member can have sent to a third party: one packet a second to its prefix."""
    pair = Pair()
    sent = 0
    for number in range(30):
        lie = pair.word(host=VICTIM.host, port=VICTIM.port, nonce=request(number))
        pair.stranger.knocking.on_pass(pair.as_seen, KnockPass(pair.signed(lie)), number / 10)
        pair.stranger.take(number / 10)
    pair.stranger.pass_time(3.0, 20.0)
    sent = len(pair.stranger.packets(VICTIM))
    assert 0 < sent <= 6


def test_a_stranger_that_is_linked_over_ipv6_knocks_over_ipv4() -> None:
    """Found with real nodes: public ones are linked over IPv6, and homes have none."""
    helper = Asked()
    address = Address("2a00::6", 4000)
    both = replace(helper.neighbour(address, link=6), hosts=("2a00::6", "11.6.0.10"))
    helper.neighbours = [both]
    helper.ask(helper.neighbour(), KnockAsk(request(2), own=False))
    helper.knocking.on_seen(request(2), SOCKET, 0.0)
    helper.take(0.0)
    assert [each for each in helper.said() if isinstance(each, KnockPass)]
    pair = Pair()
    by = replace(pair.as_seen, local=Address("2a00::2", 4000), remote=Address("2a00::1", 4000))
    assert pair.hand(pair.signed(pair.word()), by=by) == 2
    opened = [each for each in pair.stranger.effects if isinstance(each, OpenPort)]
    assert [each.host for each in opened] == [OWN.host]


def test_the_helper_asks_a_stranger_that_is_one_and_tells_the_asker() -> None:
    helper = Asked()
    near = helper.neighbour(Address(OWN.host, 5000), link=2, public=True)
    same = helper.neighbour(Address(SOCKET.host, 5000), link=3, public=True)
    hidden = helper.neighbour(Address("11.5.0.10", 4000), link=4)
    ipv6 = helper.neighbour(Address("2a00::1", 4000), link=5, public=True)
    helper.neighbours = [near, same, hidden, ipv6]
    helper.ask(helper.neighbour(), KnockAsk(request(1), own=False))
    helper.knocking.on_seen(request(1), SOCKET, 0.0)
    helper.take(0.0)
    assert not [each for each in helper.said() if isinstance(each, KnockPass)]
    stranger = helper.neighbour(Address("11.6.0.10", 4000), link=6, public=True)
    helper.neighbours.append(stranger)
    helper.pass_time(0.0, 10.0)
    helper.ask(helper.neighbour(), KnockAsk(request(2), own=False), 10.0)
    helper.knocking.on_seen(request(2), SOCKET, 10.0)
    helper.take(10.0)
    (told,) = [
        each
        for each in helper.effects
        if isinstance(each, Transmit) and isinstance(each.message, KnockPass)
    ]
    assert told.link == stranger.link
    assert not helper.knocking.on_knocked(hidden.peer, Knocked(request(2), 4)), "not asked"
    assert not helper.knocking.on_knocked(stranger.peer, Knocked(request(3), 4))
    assert helper.knocking.on_knocked(stranger.peer, Knocked(request(2), 4))
    helper.take(10.0)
    assert list(helper.said())[-1] == Knocked(request(2), 4, stranger=True)
