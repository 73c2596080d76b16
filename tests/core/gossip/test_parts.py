"""Publications in parts: put together in any order, once, within bounds, and never in part."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.context import Context, Settings
from overlay.core.events import Deliver, Publish, Rejected, Report, Resolved
from overlay.core.gossip.parts import (
    LIFE,
    ORIGIN_BYTES,
    OVER_MAX,
    OVERHEAD,
    TOTAL_BYTES,
    Reassembly,
    cut,
    flow_of,
    part_id,
    refusal_of,
)
from overlay.core.gossip.publications import OUTGOING_MAX, PARTS_AT_ONCE, Dissemination
from overlay.core.types import PeerId, RequestId
from overlay.core.wire.bounds import PART_MAX, PARTS_MAX, PUBLISHED_MAX
from overlay.core.wire.messages import Gossip, GossipPart, Published
from overlay.sim.crypto import Ledger, StandInCrypto

NAMES = st.binary(min_size=32, max_size=32)


def parts_of(
    data: bytes, origin: bytes = bytes(32), publication: bytes = bytes(16)
) -> list[GossipPart]:
    """A publication as its parts, unsigned."""
    pieces = list(cut(data))
    return [
        GossipPart(
            part_id(origin, publication, number),
            origin,
            "t",
            piece,
            text=False,
            hops=1,
            publication=publication,
            part=number,
            parts=len(pieces),
            signature=bytes(64),
        )
        for number, piece in enumerate(pieces)
    ]


def content(seed: int, size: int) -> bytes:
    """Bytes of which no two pieces are the same."""
    return random.Random(seed).randbytes(size)


# --- putting together ----------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 3), st.integers(0, 2)),
        st.integers(PART_MAX + 1, 5 * PART_MAX),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_parts_in_any_order_with_duplicates_of_several_origins_come_out_whole_and_once(
    sizes: dict[tuple[int, int], int], order: random.Random
) -> None:
    whole = {key: content(sum(key), size) for key, size in sizes.items()}
    parts = [
        part
        for (origin, number), data in whole.items()
        for part in parts_of(data, bytes([origin]) * 32, bytes([number]) * 16)
    ]
    arrivals = parts + order.choices(parts, k=len(parts))
    order.shuffle(arrivals)
    reassembly, out = Reassembly(), []
    for now, part in enumerate(arrivals):
        assert refusal_of(part) is None
        data = reassembly.add(part, now / 100)
        if data is not None:
            out.append(((part.origin[0], part.publication[0]), data))
    assert len(out) == len(whole)
    assert dict(out) == whole
    assert reassembly.next_deadline() is None
    assert reassembly._size == 0
    assert not reassembly._sizes
    assert not reassembly._by_origin


@given(st.data())
def test_without_one_of_its_parts_nothing_comes_out_and_nothing_stays(data: st.DataObject) -> None:
    parts = parts_of(content(1, data.draw(st.integers(PART_MAX + 1, 6 * PART_MAX))))
    missing = data.draw(st.sampled_from(parts))
    reassembly = Reassembly()
    for part in parts:
        assert part is missing or reassembly.add(part, 10.0) is None
    assert reassembly.next_deadline() == 10.0 + LIFE
    reassembly.on_time(10.0 + LIFE - 0.1)
    assert reassembly.given_up == 0
    reassembly.on_time(10.0 + LIFE)
    assert reassembly.given_up == 1
    assert reassembly._size == 0
    assert reassembly.next_deadline() is None
    for part in parts:
        assert reassembly.add(part, 50.0) is None, "what was given up began anew"
    assert reassembly._size == 0


def test_progress_gives_a_publication_more_time() -> None:
    parts = parts_of(content(2, 4 * PART_MAX))
    reassembly = Reassembly()
    found = []
    for number, part in enumerate(parts):
        now = number * (LIFE - 1)
        reassembly.on_time(now)
        found.append(reassembly.add(part, now))
        if number == 0:
            assert reassembly.add(part, now + LIFE / 2) is None, "the same again is no progress"
            assert reassembly.next_deadline() == LIFE
    assert found[-1] == content(2, 4 * PART_MAX)


# --- bounds --------------------------------------------------------------------------------------


def unfinished(origin: bytes, number: int, pieces: int = 1) -> list[GossipPart]:
    """The beginning of a publication of the largest size."""
    publication = number.to_bytes(16, "big")
    return parts_of(bytes(PUBLISHED_MAX), origin, publication)[:pieces]


def test_an_origins_flood_of_unfinished_publications_costs_only_its_own() -> None:
    reassembly, honest = Reassembly(), parts_of(content(3, PUBLISHED_MAX), b"h" * 32)
    for part in honest[:-1]:
        reassembly.add(part, 0.0)
    flooder = b"f" * 32
    for number in range(100):
        for part in unfinished(flooder, number, 20):
            reassembly.add(part, 1.0)
        assert reassembly._sizes[PeerId(flooder)] <= ORIGIN_BYTES
        assert reassembly._size <= TOTAL_BYTES
    assert reassembly.given_up >= 80
    assert reassembly.add(honest[-1], 2.0) == content(3, PUBLISHED_MAX)


def test_of_many_origins_the_publication_that_waited_longest_gives_way() -> None:
    reassembly, honest = Reassembly(), parts_of(content(4, PUBLISHED_MAX), b"h" * 32)
    stalled = parts_of(content(5, PUBLISHED_MAX), b"s" * 32)
    for part in stalled[:-1]:
        reassembly.add(part, 0.0)
    whole = None
    for number, part in enumerate(honest):
        whole = reassembly.add(part, 1.0)
        for each in range(60):
            origin = (60 * number + each).to_bytes(32, "big")
            reassembly.add(unfinished(origin, 0)[0], 1.0)
        assert reassembly._size <= TOTAL_BYTES
    assert whole == content(4, PUBLISHED_MAX), "what makes progress gave way"
    assert reassembly.add(stalled[-1], 2.0) is None
    assert len(reassembly._pending) <= TOTAL_BYTES // OVERHEAD
    assert len(reassembly._over) <= OVER_MAX


def test_an_origin_that_contradicts_itself_is_taken_at_its_first_word() -> None:
    reassembly = Reassembly()
    one, two = parts_of(content(6, PART_MAX + 1))
    reassembly.add(one, 0.0)
    for wrong in ({"parts": 3}, {"topic": "u"}, {"text": True}):
        assert reassembly.add(msgspec.structs.replace(two, **wrong), 0.0) is None
    assert reassembly.add(two, 0.0) == content(6, PART_MAX + 1)


# --- ids -----------------------------------------------------------------------------------------


@given(NAMES, NAMES, st.integers(0, PARTS_MAX - 1), st.integers(0, PARTS_MAX - 1))
def test_ids_of_one_publication_belong_together_and_to_nobody_else(
    origin: bytes, other: bytes, part: int, another: int
) -> None:
    publication = origin[:16]
    ids = [part_id(origin, publication, number) for number in (part, another)]
    assert flow_of(ids[0]) == flow_of(ids[1])
    assert (ids[0] == ids[1]) == (part == another)
    if origin != other:
        assert flow_of(part_id(other, publication, part)) != flow_of(ids[0])
    if origin[16:] != publication:
        assert flow_of(part_id(origin, origin[16:], part)) != flow_of(ids[0])


def test_nobody_takes_anothers_ids_and_no_part_lies_beyond_the_last() -> None:
    part = parts_of(content(7, 2 * PART_MAX))[1]
    assert refusal_of(part) is None
    for wrong in (
        {"origin": b"x" * 32},
        {"publication": b"x" * 16},
        {"part": 0},
        {"message_id": bytes(16)},
        {"parts": 1},
    ):
        assert refusal_of(msgspec.structs.replace(part, **wrong)) is not None, wrong


# --- ours and others' ----------------------------------------------------------------------------


class Peer:
    """One node's dissemination and what it says."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        crypto = StandInCrypto(ledger, random.Random(seed))
        settings = Settings(bytes(32), "n", f"p{seed}", 1, bytes(32))
        self.context = Context(settings, crypto, random.Random(seed))
        self.machine = Dissemination(self.context)

    def publish(self, data: bytes, *, request: int = 1, topic: str = "t") -> list[Published]:
        """All that goes out for a publication, however long that takes."""
        command = Publish(RequestId(request), topic, data, text=False)
        out = self.machine.publish(command, 0.0)
        while self.machine._outgoing:
            deadline = self.machine._timers.next_deadline()
            assert deadline is not None
            out += self.machine.on_time(deadline)
        return out

    def delivered(self) -> list[bytes]:
        """What was delivered since the last look."""
        return [each.data for each in self.context.drain() if isinstance(each, Deliver)]


@pytest.fixture
def peers() -> tuple[Peer, Peer]:
    ledger = Ledger()
    return Peer(ledger, 1), Peer(ledger, 2)


@pytest.mark.parametrize("size", [0, 1, PART_MAX])
def test_what_fits_one_piece_goes_in_one(peers: tuple[Peer, Peer], size: int) -> None:
    one, other = peers
    data = content(8, size)
    (message,) = one.publish(data)
    assert isinstance(message, Gossip)
    assert other.machine.receive(message, 0.0) is None
    assert one.delivered() == other.delivered() == [data]


@pytest.mark.parametrize("size", [PART_MAX + 1, 200_000, PUBLISHED_MAX])
def test_what_is_larger_goes_in_parts_and_is_delivered_when_whole(
    peers: tuple[Peer, Peer], size: int
) -> None:
    one, other = peers
    data = content(9, size)
    messages = one.publish(data)
    assert len(messages) == -(-size // PART_MAX)
    assert one.delivered() == [data], "the publisher hears itself at once"
    for message in messages[:-1]:
        assert isinstance(message, GossipPart)
        assert other.machine.receive(message, 0.0) is None
    assert other.delivered() == []
    assert other.machine.receive(messages[-1], 0.0) is None
    assert other.delivered() == [data]


def test_a_large_one_leaves_a_few_parts_at_a_time_and_is_resolved_with_the_last(
    peers: tuple[Peer, Peer],
) -> None:
    machine, context = peers[0].machine, peers[0].context
    command = Publish(RequestId(5), "t", content(10, 10 * PART_MAX), text=True)
    sent, now = [len(machine.publish(command, 3.0))], 3.0
    while not any(isinstance(each, Resolved) for each in context.drain()):
        deadline = machine._timers.next_deadline()
        assert deadline is not None
        assert deadline > now
        assert machine.on_time((now + deadline) / 2) == []
        now = deadline
        sent.append(len(machine.on_time(now)))
    assert sent == [PARTS_AT_ONCE, PARTS_AT_ONCE, 2]
    assert machine._timers.next_deadline() is None


def test_what_is_too_large_or_too_much_is_refused_and_says_so(peers: tuple[Peer, Peer]) -> None:
    machine, context = peers[0].machine, peers[0].context
    for data, topic in ((bytes(PUBLISHED_MAX + 1), "t"), (b"", ""), (b"", "t\n")):
        assert machine.publish(Publish(RequestId(1), topic, data, text=False), 0.0) == []
        (refusal,) = context.drain()
        assert isinstance(refusal, Rejected)
        assert refusal.code == "too_large"
        assert str(PUBLISHED_MAX) in refusal.text
    codes = []
    for number in range(OUTGOING_MAX // PUBLISHED_MAX + 1):
        machine.publish(Publish(RequestId(number), "t", bytes(PUBLISHED_MAX), text=False), 0.0)
        codes += [each.code for each in context.drain() if isinstance(each, Rejected)]
    assert codes == ["busy"]
    assert machine.publish(Publish(RequestId(0), "t", b"small", text=False), 0.0) != []


@pytest.mark.parametrize(
    "change",
    [
        {"data": b"forged"},
        {"topic": "u"},
        {"text": True},
        {"parts": 12},
        {"signature": bytes(64)},
        {"part": 3},
        {"publication": bytes(16)},
    ],
)
def test_a_part_that_is_not_as_its_origin_signed_it_is_its_bringers_fault(
    peers: tuple[Peer, Peer], change: dict[str, object]
) -> None:
    one, other = peers
    part = one.publish(content(11, 5 * PART_MAX))[2]
    assert other.machine.receive(msgspec.structs.replace(part, **change), 0.0) is not None
    assert other.machine.receive(part, 0.0) is None


def test_a_part_is_no_message_by_itself_and_a_message_no_part(peers: tuple[Peer, Peer]) -> None:
    """What is signed as one kind does not hold as the other."""
    one, other = peers
    part = one.publish(content(12, 2 * PART_MAX))[0]
    assert isinstance(part, GossipPart)
    alone = Gossip(
        part.message_id, part.origin, part.topic, part.data, part.text, 1, part.signature
    )
    assert other.machine.receive(alone, 0.0) is not None
    assert other.delivered() == []


def test_what_is_given_up_is_reported_without_filling_the_log(peers: tuple[Peer, Peer]) -> None:
    one, other = peers
    reports: list[Report] = []
    for number in range(40):
        for part in one.publish(content(number, PUBLISHED_MAX))[:-1]:
            assert other.machine.receive(part, 1.0) is None
        other.machine.on_time(1.0 + number / 100)
        reports += [each for each in other.context.drain() if isinstance(each, Report)]
    other.machine.on_time(99.0)
    reports += [each for each in other.context.drain() if isinstance(each, Report)]
    assert [each.event for each in reports] == ["publications_given_up"] * 2
    assert sum(each.fields["count"] for each in reports) == 40
    assert other.machine._timers.next_deadline() is None


def test_our_own_parts_that_come_back_are_no_news(peers: tuple[Peer, Peer]) -> None:
    one, _ = peers
    data = content(13, 3 * PART_MAX)
    for message in one.publish(data):
        assert one.machine.receive(message, 0.0) is None
    assert one.delivered() == [data]
