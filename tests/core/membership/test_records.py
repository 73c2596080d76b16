"""Records: signed, sequenced, expiring; and a book of them that stays bounded."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.membership import records
from overlay.core.membership.prekeys import DAY, rotate_prekeys
from overlay.core.membership.records import RecordBook, RecordReader, make_record
from overlay.core.wire import signing as documents
from overlay.core.wire.documents import AddressEntry, PrekeyEntry, Record
from overlay.errors import LocalProtocolError
from overlay.identity import Keys
from tests.keys import NETWORK, WALL, keys_of

ALICE, BOB = keys_of("alice"), keys_of("bob")


def record_of(keys: Keys = ALICE, sequence: int = 1, **changes: object) -> Record:
    record = Record(
        network=NETWORK,
        peer_id=keys.peer_id,
        sequence=sequence,
        issued_at=int(WALL),
        expires_at=int(WALL) + records.RECORD_LIFE,
        name="alice",
        fingerprint=keys.fingerprint,
        addresses=[AddressEntry("192.0.2.1", 4433, proven=True)],
        token=None,
        prekeys=rotate_prekeys(WALL, keys),
        wire_min=1,
        wire_max=1,
    )
    return msgspec.structs.replace(record, **changes)


def signed(keys: Keys = ALICE, sequence: int = 1, **changes: object) -> bytes:
    return make_record(record_of(keys, sequence, **changes), keys)


def opened(data: bytes, wall: float = WALL) -> Record | str:
    read = RecordReader().read(data)
    return read if isinstance(read, str) else read.refusal(NETWORK, wall, BOB) or read.record


# --- one record --------------------------------------------------------------------------------


def test_a_record_says_what_its_author_said() -> None:
    assert opened(signed()) == record_of()


def test_a_record_holds_until_it_expires() -> None:
    data, end = signed(), WALL + records.RECORD_LIFE
    assert opened(data, end - 1) == record_of()
    assert opened(data, end) == "expired"


def test_a_record_of_another_network_is_refused() -> None:
    assert opened(signed(network=bytes(32))) == "network"


def test_a_forged_record_is_refused() -> None:
    forged = documents.pack(documents.sign(record_of(ALICE), BOB))
    assert opened(forged) == "signature"


@given(st.data())
def test_a_record_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    packed = bytearray(signed())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    assert isinstance(opened(bytes(packed)), str)


@pytest.mark.parametrize(("ahead", "expected"), [(DAY, None), (DAY + 1, "future")])
def test_a_record_from_more_than_a_day_ahead_is_refused(ahead: int, expected: str | None) -> None:
    data = signed(issued_at=int(WALL) + ahead, expires_at=int(WALL) + ahead + DAY)
    result = opened(data)
    assert result == expected if expected else isinstance(result, Record)


@pytest.mark.parametrize(
    ("life", "holds"), [(records.RECORD_LIFE_MAX, True), (records.RECORD_LIFE_MAX + 1, False)]
)
def test_a_record_cannot_make_itself_last(life: int, holds: bool) -> None:
    result = opened(signed(expires_at=int(WALL) + life))
    assert isinstance(result, Record) if holds else result == "life"
    backwards = signed(issued_at=int(WALL) + 20, expires_at=int(WALL) + 10)
    assert opened(backwards) == "life", "it ends before it begins"


@given(st.binary(max_size=300))
def test_no_bytes_make_opening_raise(data: bytes) -> None:
    result = opened(data)
    assert isinstance(result, str)
    assert result.startswith("malformed")


def test_a_record_too_large_is_neither_made_nor_opened() -> None:
    prekeys = [PrekeyEntry(day, 2, bytes(1200), 0) for day in range(4)]
    with pytest.raises(LocalProtocolError, match="too large"):
        signed(prekeys=prekeys)
    huge = documents.pack(documents.sign(record_of(prekeys=prekeys), ALICE))
    assert opened(huge) == "malformed: too large"


def test_nobody_signs_records_for_others() -> None:
    with pytest.raises(AssertionError):
        make_record(record_of(ALICE), BOB)


# --- the book ----------------------------------------------------------------------------------


def book(capacity: int = records.BOOK_MAX) -> RecordBook:
    return RecordBook(NETWORK, BOB, capacity)


def test_the_book_keeps_the_newest_sequence() -> None:
    kept = book()
    assert kept.add(signed(sequence=5), WALL) == record_of(sequence=5)
    assert kept.add(signed(sequence=4), WALL) is None
    assert kept.get(ALICE.peer_id) == record_of(sequence=5)
    newer = signed(sequence=6, name="renamed")
    assert kept.add(newer, WALL) is not None
    assert kept.bytes_of(ALICE.peer_id) == newer
    assert kept.peers() == [ALICE.peer_id]
    assert kept.counters == {"old": 1}


def test_the_book_takes_no_second_record_of_one_sequence() -> None:
    kept = book()
    kept.add(signed(sequence=5), WALL)
    assert kept.add(signed(sequence=5, name="other"), WALL) is None
    assert kept.get(ALICE.peer_id) == record_of(sequence=5)


def test_a_forgery_neither_replaces_a_record_nor_stops_a_later_one() -> None:
    kept = book()
    kept.add(signed(sequence=5), WALL)
    forged = documents.pack(documents.sign(record_of(ALICE, 1000), BOB))
    assert kept.add(forged, WALL) is None
    assert kept.counters == {"signature": 1}
    assert kept.add(signed(sequence=6), WALL) is not None


def test_the_book_counts_why_it_refuses() -> None:
    kept = book()
    for data in (
        b"garbage",
        signed(network=bytes(32)),
        signed(issued_at=int(WALL) - 2 * DAY, expires_at=int(WALL)),
        signed(issued_at=int(WALL) + 2 * DAY, expires_at=int(WALL) + 3 * DAY),
    ):
        assert kept.add(data, WALL) is None
    assert kept.counters == {"malformed": 1, "network": 1, "expired": 1, "future": 1}
    assert len(kept) == 0


def test_a_full_book_gives_up_the_record_known_longest_that_nobody_needs() -> None:
    kept = book(3)
    people = {name: keys_of(name) for name in "abcde"}
    needed = {people["a"].peer_id}
    for name in "abcd":
        kept.add(signed(people[name]), WALL, needed)
    assert kept.peers() == [people[name].peer_id for name in "acd"]
    assert kept.counters == {"evicted": 1}
    assert kept.evicted() == [people["b"].peer_id]
    kept.add(signed(people["a"], 2), WALL, needed)
    assert len(kept) == 3, "a newer record of one already there takes nobody's place"
    kept.add(signed(people["e"]), WALL)
    assert people["a"].peer_id not in kept, "and nobody is needed for ever"


def test_who_is_not_in_the_book_has_nothing_in_it() -> None:
    kept = book()
    kept.add(signed(), WALL)
    assert ALICE.peer_id in kept
    assert BOB.peer_id not in kept
    assert kept.get(BOB.peer_id) is None
    assert kept.bytes_of(BOB.peer_id) is None


def test_expired_records_leave_the_book() -> None:
    kept = book()
    kept.add(signed(expires_at=int(WALL) + 10), WALL)
    kept.add(signed(BOB), WALL)
    assert kept.expire(WALL + 9) == []
    assert kept.expire(WALL + 10) == [ALICE.peer_id]
    assert kept.peers() == [BOB.peer_id]
    assert kept.evicted() == [ALICE.peer_id], "so that no view keeps it either"
    assert kept.add(signed(sequence=1), WALL + 10) is not None, "and may come back"
