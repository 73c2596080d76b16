"""Prekeys: two live at a time, and what was sealed to an older one is lost for good."""

import pytest

from overlay.core.membership import prekeys
from overlay.core.membership.prekeys import DAY
from overlay.core.types import IDENTITY
from overlay.core.wire.documents import PrekeyEntry
from tests.core.membership.test_records import record_of
from tests.keys import WALL, keys_of

ALICE, BOB = keys_of("alice"), keys_of("bob")


def test_two_prekeys_live_today_s_first() -> None:
    keys = keys_of("carol")
    today, yesterday = prekeys.rotate_prekeys(WALL, keys)
    assert (today.prekey_id, yesterday.prekey_id) == (WALL // DAY, WALL // DAY - 1)
    assert today.public != yesterday.public
    for prekey in (today, yesterday):
        sealed = BOB.seal(prekey.public, b"", b"hello")
        assert keys.open(prekey.prekey_id, b"", sealed) == b"hello"


def test_the_same_day_has_the_same_prekeys() -> None:
    keys = keys_of("carol")
    first = prekeys.rotate_prekeys(WALL, keys)
    assert prekeys.rotate_prekeys(WALL + 1, keys) == first


@pytest.mark.parametrize("days", [2, 9, 30])
def test_what_was_sealed_to_an_old_prekey_cannot_be_opened(days: int) -> None:
    """Also when the node slept in between, and nobody turned the keys on the days it missed."""
    keys = keys_of("carol")
    today = prekeys.rotate_prekeys(WALL, keys)[0]
    sealed = BOB.seal(today.public, b"", b"secret")
    prekeys.rotate_prekeys(WALL + DAY, keys)
    assert keys.open(today.prekey_id, b"", sealed) == b"secret", "yesterday's still opens"
    prekeys.rotate_prekeys(WALL + days * DAY, keys)
    assert keys.open(today.prekey_id, b"", sealed) is None


def test_prekeys_turn_at_the_next_midnight() -> None:
    assert prekeys.next_rotation(20_000 * DAY + 1.5) == 20_001 * DAY
    assert prekeys.next_rotation(20_000.0 * DAY) == 20_001 * DAY, "not twice at the same one"


def test_no_prekey_is_older_than_time() -> None:
    assert [prekey.prekey_id for prekey in prekeys.rotate_prekeys(5.0, keys_of("carol"))] == [0]


def test_what_is_sealed_to_is_a_live_prekey_of_our_suite_else_the_identity() -> None:
    later = PrekeyEntry(7, 2, bytes(1184), int(WALL) + DAY)
    short = PrekeyEntry(8, 1, bytes(33), int(WALL) + DAY)
    dead = PrekeyEntry(9, 1, bytes(32), int(WALL))
    good = PrekeyEntry(10, 1, bytes(32), int(WALL) + 1)
    full = record_of(prekeys=[later, short, dead, good])
    assert prekeys.sealing_key(ALICE.peer_id, full, WALL, BOB) == good
    for record in (record_of(prekeys=[later, short, dead]), None):
        key = prekeys.sealing_key(ALICE.peer_id, record, WALL, BOB)
        sealed = BOB.seal(key.public, b"info", b"text")
        assert key.prekey_id == IDENTITY
        assert ALICE.open(IDENTITY, b"info", sealed) == b"text"
        assert BOB.open(IDENTITY, b"info", sealed) is None, "sealed to somebody else"
