"""Signed documents: the author, the label and the very bytes, or nothing."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.wire import signing as documents
from overlay.core.wire.documents import AnswerBody, Grant, OfferBody, Record, Signed
from overlay.errors import LocalProtocolError
from tests.core.strategies import within_bounds
from tests.keys import NETWORK, keys_of

ALICE, BOB = keys_of("alice"), keys_of("bob")


def grant() -> Grant:
    return Grant(NETWORK, bytes(8), bytes(32), ALICE.peer_id, "member", 0, 2_000_000_000)


def answer(**changes: object) -> AnswerBody:
    body = AnswerBody(
        network=NETWORK,
        sender=ALICE.peer_id,
        recipient=BOB.peer_id,
        request=bytes(16),
        offer_hash=bytes(32),
        boot=1,
        accepted=True,
        reason="",
        hops=2,
        fingerprint=bytes(32),
        ufrag="abcd",
        password="p" * 22,
        candidates=[],
    )
    return msgspec.structs.replace(body, **changes)


def test_what_the_author_signed_holds() -> None:
    data = documents.pack(documents.sign(grant(), ALICE))
    assert documents.opened(data, Grant, BOB) == grant()


def test_what_another_signed_does_not() -> None:
    signed = documents.sign(grant(), BOB)
    assert documents.verified(signed, Grant, BOB) == "signature"
    assert documents.peek(signed, Grant) == grant(), "peeking does not check that"


def test_a_document_does_not_pass_for_one_of_another_kind() -> None:
    """The labels differ, even where the same bytes make sense as both."""
    signed = documents.sign(grant(), ALICE)
    label = documents.KINDS[Record].label
    relabelled = Signed(signed.body, ALICE.sign(documents.labelled(label, signed.body)))
    assert documents.verified(relabelled, Grant, BOB) == "signature"
    unlabelled = Signed(signed.body, ALICE.sign(signed.body))
    assert documents.verified(unlabelled, Grant, BOB) == "signature"
    assert len({kind.label for kind in documents.KINDS.values()}) == len(documents.KINDS)


@given(st.data())
def test_a_changed_byte_anywhere_is_noticed(data: st.DataObject) -> None:
    packed = bytearray(documents.pack(documents.sign(grant(), ALICE)))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    assert isinstance(documents.opened(bytes(packed), Grant, BOB), str)


@given(st.binary(max_size=200))
def test_no_bytes_make_opening_raise(data: bytes) -> None:
    kinds: tuple[Any, ...] = (Record, OfferBody, AnswerBody, Grant)
    for kind in kinds:
        assert isinstance(documents.opened(data, kind, BOB), str)
        assert isinstance(documents.verified(Signed(data, bytes(64)), kind, BOB), str)


def test_further_fields_are_ignored_but_signed() -> None:
    body = msgspec.msgpack.encode([*msgspec.to_builtins(grant(), builtin_types=[bytes]), "later"])
    label = documents.KINDS[Grant].label
    signed = Signed(body, ALICE.sign(documents.labelled(label, body)))
    assert documents.verified(signed, Grant, BOB) == grant()


def test_fields_out_of_bounds_are_neither_signed_nor_read() -> None:
    bad = msgspec.structs.replace(grant(), role="")
    with pytest.raises(LocalProtocolError, match=r"Grant\.role"):
        documents.sign(bad, ALICE)
    body = msgspec.msgpack.encode(bad)
    signed = Signed(body, ALICE.sign(documents.labelled(documents.KINDS[Grant].label, body)))
    assert documents.verified(signed, Grant, BOB) == "malformed: Grant.role is out of bounds"


@pytest.mark.parametrize(
    "changes", [{"ufrag": "abc"}, {"password": "p" * 21}, {"fingerprint": b""}], ids=str
)
def test_an_answer_accepts_with_credentials_or_not_at_all(changes: dict[str, object]) -> None:
    assert documents.peek(documents.sign(answer(), ALICE), AnswerBody) == answer()
    halfway = documents.peek(documents.sign(answer(**changes), ALICE), AnswerBody)
    assert isinstance(halfway, str)
    refusal = answer(accepted=False, reason="busy", **changes)
    assert documents.peek(documents.sign(refusal, ALICE), AnswerBody) == refusal


@given(within_bounds(OfferBody))
def test_every_offer_within_bounds_travels(body: OfferBody) -> None:
    ours = msgspec.structs.replace(body, sender=ALICE.peer_id)
    data = documents.pack(documents.sign(ours, ALICE))
    assert documents.opened(data, OfferBody, BOB) == ours
