"""BASALT's slots: nobody wins by being named often, nobody stays who does not answer."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.addresses import prefix_of
from overlay.core.context import Context, Settings
from overlay.core.membership import basalt
from overlay.core.membership.basalt import Ask, Basalt, Slots
from overlay.core.membership.records import PREFIX_BITS, prefix_in
from overlay.core.types import PeerId
from overlay.core.wire.bounds import violation
from overlay.core.wire.documents import AddressEntry, Record
from overlay.core.wire.messages import RecordPull, RecordPulled, ViewExchange, ViewExchanged
from overlay.sim.crypto import Ledger, StandInCrypto


def peers(count: int, first: int = 0) -> list[PeerId]:
    return [PeerId(number.to_bytes(32, "big")) for number in range(first, first + count)]


class Node:
    """A view, and what surrounds it: records and prefixes that the test decides."""

    def __init__(self, seed: int = 1, size: int = 30, interval: float = 1.0) -> None:
        crypto = StandInCrypto(Ledger(), Random(seed))
        born = Settings(bytes(32), "net", "n", 1, bytes(32))
        self.unknown: dict[PeerId, None] = {}
        """Whose records we do not hold."""
        self.prefixes: dict[PeerId, str] = {}
        self.now = 0.0
        self.view = Basalt(
            Context(born, crypto, Random(seed + 1)),
            Slots(size, interval),
            lambda peer: None if peer in self.unknown else b"record",
            lambda data: PeerId(data[-32:]) if len(data) >= 32 else None,
            lambda peer: self.prefixes.get(peer, ""),
        )

    def round(self) -> list[Ask]:
        """Wait for the next round; what it asks for."""
        self.view.begin(self.now)
        due = False
        while not due:
            deadline = self.view.context.agenda.earliest
            assert deadline < 1e9
            self.now = max(self.now, deadline)
            due, asks = self.view.on_time(self.now)
            self.view.context.agenda.settle()
        return asks

    def partner(self) -> PeerId:
        """Whom the next round exchanges with; it answers with an empty view."""
        (ask,) = self.round()
        assert isinstance(ask.routed, ViewExchange)
        self.view.on_view_exchanged(ViewExchanged(ask.routed.request, []), self.now)
        return PeerId(ask.routed.target)


# --- who holds a slot ----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.permutations(peers(40)), st.lists(st.sampled_from(peers(40)), max_size=200))
def test_slots_depend_on_who_was_named_not_on_how_often_or_when(
    order: list[PeerId], again: list[PeerId]
) -> None:
    once, often = Node(), Node()
    once.view.update_sample(peers(40))
    often.view.update_sample([*again, *order, *again])
    assert once.view.slots() == often.view.slots()
    assert len(once.view.slots()) == 30
    other = Node(seed=2)
    other.view.update_sample(peers(40))
    assert other.view.slots() != once.view.slots(), "seeds do not matter"


def test_a_thousand_pushes_of_a_third_of_the_members_win_it_a_third_of_the_slots() -> None:
    byzantine, honest = peers(30), peers(70, first=30)
    share = []
    for seed in range(40):
        node = Node(seed)
        for _ in range(20):
            node.view.update_sample(byzantine)
        node.view.update_sample(honest)
        share.append(sum(peer in byzantine for peer in node.view.slots()) / 30)
    assert 0.25 < sum(share) / len(share) < 0.35  # 1,200 draws: 0.30 ± 0.013


def test_whom_memory_has_lost_competes_again_and_nothing_changes() -> None:
    many = peers(3 * basalt.COMPETED_MAX)
    node, patient = Node(), Node()
    node.view.update_sample(many)
    for peer in many:
        patient.view.update_sample([peer])
        patient.view.update_sample(many[:5])
    assert node.view.slots() == patient.view.slots()
    node.view.update_sample(many)
    assert node.view.slots() == patient.view.slots()


def test_we_are_in_no_slot_of_our_own() -> None:
    node = Node()
    node.view.update_sample([node.view.context.peer_id])
    assert node.view.slots() == []
    assert node.round() == [], "there is nobody to exchange with"


# --- rounds --------------------------------------------------------------------------------------


def test_the_partner_is_one_that_has_come_up_least() -> None:
    node = Node()
    node.view.update_sample(peers(200))
    loud = list(node.view.peers)[:-3]
    for _ in range(5):
        node.view.update_sample(loud)
    quiet = list(node.view.peers)[-3:]
    drawn = {node.partner() for _ in range(3)}
    assert drawn <= {*quiet}, "somebody was asked who comes up all the time"


def test_every_ten_rounds_ten_slots_are_sampled_and_seeded_anew() -> None:
    node = Node(size=30)
    node.view.update_sample(peers(500))
    before = node.view.slots()
    for _ in range(basalt.ROUNDS_A_ROW - 1):
        node.partner()
    assert node.view.slots() == before
    assert list(node.view.samples) == []
    node.partner()
    after = node.view.slots()
    assert list(node.view.samples) == before[:10]
    assert after[10:] == before[10:]
    assert len(after) == 30, "the view fills the slots that were emptied"
    assert after[:10] != before[:10]
    assert {*after} <= {*before}, "nobody else is known"
    assert set(node.view.candidates()) == {*before[:10]}


def test_over_time_samples_are_everybody() -> None:
    """300 members, one sample a round: nobody comes up much more often than his share."""
    everybody, node, drawn = peers(300), Node(size=50), Counter[PeerId]()
    rng = Random(5)
    for number in range(600):
        node.view.update_sample(rng.sample(everybody, 50))
        node.partner()
        if number % basalt.ROUNDS_A_ROW == basalt.ROUNDS_A_ROW - 1:
            drawn.update(list(node.view.samples)[-10:])
    assert sum(drawn.values()) > 550
    assert max(drawn.values()) < 12  # on average 2
    assert len(drawn) > 200  # of independent draws: 259


def test_a_newcomer_exchanges_often_and_then_as_often_as_everybody() -> None:
    node = Node(interval=30.0)
    node.view.update_sample(peers(3))
    instants = []
    for _ in range(9):
        node.partner()
        instants.append(node.now)
    pauses = [later - earlier for earlier, later in pairwise(instants)]
    assert pauses[0] < 3.0
    assert all(25.0 < pause < 35.0 for pause in pauses[5:])


# --- exchanges -----------------------------------------------------------------------------------


def test_an_exchange_says_the_whole_view_and_brings_another() -> None:
    one, other = Node(seed=1), Node(seed=2)
    one.view.update_sample(peers(20))
    other.view.update_sample(peers(20, first=20))
    (ask,) = one.round()
    push = ask.routed
    assert isinstance(push, ViewExchange)
    assert push.peers == [one.view.context.peer_id, *one.view.peers]
    assert violation(push) is None
    reply = other.view.on_view_exchange(push)
    assert isinstance(reply, ViewExchanged)
    assert one.view.context.peer_id in other.view._competed, "the sender competes, too"
    one.view.on_view_exchanged(reply, one.now)
    assert {*peers(20)} & {*other.view.peers}
    assert {*peers(20, first=20)} & {*one.view.peers}


def test_of_a_view_longer_than_ours_the_rest_is_not_heard() -> None:
    node = Node(size=10)
    node.view.on_view_exchange(ViewExchange(bytes(32), bytes(16), 9, list(peers(256))))
    assert {*node.view.peers} <= {*peers(12)}
    assert len(node.view._competed) == 12


def test_a_reply_to_nothing_that_we_asked_is_not_heard() -> None:
    node = Node()
    assert node.view.on_view_exchanged(ViewExchanged(bytes(16), list(peers(9))), 0.0) == []
    assert node.view.slots() == []
    assert node.view.on_record_pulled(RecordPulled(bytes(16), [b"record"])) == []
    node.view.update_sample(peers(9))
    (ask,) = node.round()
    reply = ViewExchanged(ask.routed.request, [])
    node.unknown = dict.fromkeys(peers(9))
    assert node.view.on_view_exchanged(reply, 0.0) != []
    assert node.view.on_view_exchanged(reply, 0.0) == [], "the same answer counts twice"


def test_records_are_asked_for_of_whom_holds_a_slot_and_is_unknown() -> None:
    node = Node(size=20)
    node.view.update_sample(peers(1))
    (ask,) = node.round()
    partner, known = peers(1)[0], peers(20)[5]
    node.unknown = dict.fromkeys(peer for peer in peers(20) if peer != known)
    (pull,) = node.view.on_view_exchanged(ViewExchanged(ask.routed.request, list(peers(20))), 0.0)
    assert isinstance(pull.routed, RecordPull)
    assert pull.routed.target == partner
    assert violation(pull.routed) is None
    assert 0 < len(pull.routed.peers) <= basalt.PULLED_MAX
    assert {*pull.routed.peers} <= {*node.view.peers} - {known}
    records = [b"of" + peer for peer in reversed(pull.routed.peers)]
    assert node.view.on_record_pulled(RecordPulled(pull.routed.request, records)) == records
    assert node.view.counters == {}


def test_records_that_nobody_asked_for_are_not_taken_in_with_those_that_were() -> None:
    """Else a reply would be a way to fill others' books with one's friends."""
    node = Node(size=20)
    node.view.update_sample(peers(1))
    (ask,) = node.round()
    node.unknown = dict.fromkeys(peers(40))
    (pull,) = node.view.on_view_exchanged(ViewExchanged(ask.routed.request, list(peers(9))), 0.0)
    assert isinstance(pull.routed, RecordPull)
    asked = [b"of" + peer for peer in pull.routed.peers]
    others = [b"of" + peer for peer in peers(20, first=20)]
    reply = RecordPulled(pull.routed.request, [*others, *asked, asked[0], b"nonsense"])
    assert node.view.on_record_pulled(reply) == asked
    assert node.view.counters == {"unasked": 22}
    assert node.view.on_record_pulled(reply) == [], "the same answer counts twice"


def test_whoever_holds_a_record_hands_it_out_when_it_is_asked() -> None:
    node = Node()
    one, other = peers(2)
    node.unknown = {other: None}
    reply = node.view.on_record_pull(RecordPull(bytes(32), bytes(16), 9, [one, other]))
    assert reply == RecordPulled(bytes(16), [b"record"])


# --- who does not answer -------------------------------------------------------------------------


def silence(node: Node, ask: Ask) -> None:
    """Nobody could pass it on."""
    assert node.view.on_unanswered(ask.routed.request)


def lateness(node: Node, _: Ask) -> None:
    """No word of it for as long as an exchange may take; others answer meanwhile."""
    until = node.now + basalt.EXCHANGE_TIMEOUT
    while node.now < until:
        node.now = min(until, node.view.context.agenda.earliest)
        for ask in node.view.on_time(node.now)[1]:
            node.view.on_view_exchanged(ViewExchanged(ask.routed.request, []), node.now)
        node.view.context.agenda.settle()


@pytest.mark.parametrize("fails", [silence, lateness])
def test_whoever_does_not_answer_loses_its_slots_to_others_and_rests(
    fails: Callable[[Node, Ask], None],
) -> None:
    node = Node(interval=100.0)
    node.view.update_sample(peers(8))
    held = node.view.slots()
    (ask,) = node.round()
    dead = PeerId(ask.routed.target)
    fails(node, ask)
    assert dead in held
    assert dead not in node.view.slots()
    assert len(node.view.slots()) == 30, "others do not fill its slots"
    node.view.update_sample([dead])
    assert dead not in node.view.slots(), "it does not rest"
    for _ in range(basalt.REST_ROUNDS):
        node.partner()
    node.view.update_sample([dead])
    assert dead in node.view.slots(), "it rests for ever"
    assert node.view.slots() == held


def test_whoever_links_to_us_rests_no_longer() -> None:
    node = Node()
    node.view.update_sample(peers(8))
    dead = node.view.slots()[0]
    node.view.remove(dead)
    node.view.on_linked(dead)
    assert dead in node.view.slots()


def test_who_answered_keeps_its_slots() -> None:
    node = Node()
    node.view.update_sample(peers(8))
    held = node.view.slots()
    (ask,) = node.round()
    node.view.on_view_exchanged(ViewExchanged(ask.routed.request, []), node.now)
    assert not node.view.on_unanswered(ask.routed.request)
    assert node.view.slots() == held


def test_the_dead_leave_the_samples_too() -> None:
    node = Node()
    node.view.update_sample(peers(100))
    for _ in range(basalt.ROUNDS_A_ROW):
        node.partner()
    dead = node.view.samples[0]
    node.view.remove(dead)
    assert dead not in node.view.samples
    assert dead not in node.view.candidates()
    assert len(node.view.candidates()) > 5


# --- prefixes ------------------------------------------------------------------------------------


def test_one_prefix_holds_a_fifth_of_the_slots_while_there_are_others() -> None:
    crowd, others = peers(90), peers(10, first=90)
    node, blind = Node(), Node()
    node.prefixes = dict.fromkeys(crowd, "11.22.0.0/16")
    for each in (node, blind):
        each.view.update_sample([*others, *crowd])
    assert sum(peer in crowd for peer in node.view.slots()) <= 6
    assert sum(peer in crowd for peer in blind.view.slots()) > 20


def test_one_prefix_holds_all_the_slots_when_there_is_no_other() -> None:
    node = Node()
    node.prefixes = dict.fromkeys(peers(90), "11.22.0.0/16")
    node.view.update_sample(peers(90))
    assert len(node.view.slots()) == 30


def test_once_its_record_tells_its_prefix_a_crowd_gives_way() -> None:
    crowd, others = peers(90), peers(60, first=90)
    node = Node()
    node.view.update_sample([*crowd, *others])
    assert sum(peer in crowd for peer in node.view.slots()) > 10
    node.prefixes = dict.fromkeys(crowd, "11.22.0.0/16")
    for peer in list(node.view.peers):
        node.view.on_record(peer)
    for _ in range(3):
        node.view.update_sample([*crowd, *others])
    assert sum(peer in crowd for peer in node.view.slots()) <= 6
    assert len(node.view.slots()) == 30


def test_the_prefix_is_that_of_the_first_global_address_a_proven_one_before_claims() -> None:
    assert prefix_of("11.22.33.44", *PREFIX_BITS) == "11.22.0.0/16"
    assert prefix_of("2a00:1450:4001::7", *PREFIX_BITS) == "2a00:1450::/32"
    assert prefix_of("::ffff:11.22.33.44", *PREFIX_BITS) == "11.22.0.0/16"
    for private in ("10.1.2.3", "192.168.1.1", "100.64.0.1", "fe80::1", "fd00::1", "127.0.0.1"):
        assert prefix_of(private, *PREFIX_BITS) == ""
    entries = [
        AddressEntry("10.0.0.1", 1, proven=True),
        AddressEntry("11.22.1.1", 1, proven=False),
        AddressEntry("44.55.1.1", 1, proven=True),
    ]
    record = Record(b"", b"", 1, 0, 1, "", b"", entries, None, [], 1, 1)
    assert prefix_in(record) == "44.55.0.0/16"
    assert prefix_in(None) == ""


# --- limits --------------------------------------------------------------------------------------


def brought(node: Node, rate: float, seconds: float) -> tuple[int, bool]:
    """How many exchanges of one bearer's pass at this rate, and whether it is a flood."""
    (bearer,) = peers(1)
    passed, flood = 0, False
    for number in range(int(rate * seconds)):
        now = number / rate
        passed += node.view.allows(bearer, now)
        flood = flood or node.view.is_flooding(bearer, now)
    return passed, flood


def test_a_neighbour_brings_so_many_exchanges_and_no_more() -> None:
    assert brought(Node(), 0.5, 600.0) == (300, False)
    passed, flood = brought(Node(), 12.0, 600.0)
    assert passed <= 600 * basalt.PUSHES_PER_SECOND + basalt.PUSHES_BURST
    assert not flood, "it may have to pass on as much, from twelve neighbours"
    assert brought(Node(), 100.0, 60.0)[1], "nobody has to pass on that many"


def test_one_bearer_does_not_use_up_another_ones_share() -> None:
    node = Node()
    loud, quiet = peers(2)
    while node.view.allows(loud, 0.0):
        pass
    assert node.view.allows(quiet, 0.0)


def test_a_view_without_slots_does_nothing() -> None:
    node = Node(size=0)
    node.view.update_sample(peers(9))
    node.view.begin(0.0)
    assert node.view.context.agenda.earliest > 1e9
    assert node.view.slots() == []
