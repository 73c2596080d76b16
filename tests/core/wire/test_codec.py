"""The codec: values, never exceptions; bounds on every field; room for later versions."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.core.wire import bounds, codec
from overlay.core.wire import documents as document_bodies
from overlay.core.wire.codec import Broken, Unknown
from overlay.core.wire.messages import MAX_MESSAGE_BYTES, Gossip, Message, Ping, Records
from overlay.errors import LocalProtocolError
from tests.core.strategies import ALL_KINDS, MESSAGE_KINDS, messages_within_bounds, within_bounds

DEEP = b"\x93\x04\x01" + b"\x91" * 60_000 + b"\x01"
"""A ping with a further field of 60,000 arrays within each other."""


def outside(rule: bounds.Rule) -> list[Any]:
    """Values of the right type that this rule has to refuse."""
    match rule:
        case bounds.Number(low, high):
            return [low - 1, high + 1]
        case bounds.Bytes():
            return [bytes(max(rule._sizes) + 1), bytes(max(rule._sizes) - 1)]
        case bounds.Blob(high, low):
            return [bytes(high + 1)] + ([bytes(low - 1)] if low else [])
        case bounds.Text(high, low, alphabet):
            bad = ["a" * (high + 1), "a" * low + "\x1b", "a" * low + "\n"]
            return bad + (["a" * (low - 1)] if low else []) + (["é" * high] if alphabet else [])
        case bounds.Name():
            return ["a" * 65]
        case bounds.Topic():
            return ["", "é" * 129, "a" * 257, "bell\a"]
        case bounds.OneOf():
            return ["", "else"]
        case bounds.Host():
            return ["", "localhost", "1.2.3", "::", "0.0.0.0", "224.0.0.1", "ff02::1", "fe80::1%lo"]
        case bounds.Many(high, item):
            return [["x"] * (high + 1)] + [[bad] for bad in outside(item)[:1]]
        case _:
            return []


def struct_of(kind: type[msgspec.Struct]) -> Any:
    """Some struct of this kind, the same in every run."""
    found: list[Any] = []

    @given(within_bounds(kind))
    def keep(struct: Any) -> None:
        found.append(struct)

    keep()
    return found[0]


@given(messages_within_bounds())
def test_what_is_encoded_is_decoded_to_the_same(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\x93\x03\xa1\xff\xa1a")
@example(b"\x92\x06\xdd\xff\xff\xff\xff")
@example(DEEP)
def test_no_bytes_make_decode_raise(data: bytes) -> None:
    result = codec.decode(data)
    if not isinstance(result, Unknown | Broken):
        assert bounds.violation(result) is None


@given(messages_within_bounds(), st.data())
def test_no_harm_to_a_valid_message_makes_decode_raise(message: Message, data: Any) -> None:
    harmed = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(harmed) - 1))
        harmed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not harmed:
            break
    result = codec.decode(bytes(harmed))
    if not isinstance(result, Unknown | Broken):
        assert bounds.violation(result) is None


def test_every_field_has_a_bound_and_every_bound_a_field() -> None:
    assert set(bounds.BOUNDS) == set(ALL_KINDS)
    for kind in ALL_KINDS:
        assert list(bounds.BOUNDS[kind]) == [f.name for f in msgspec.structs.fields(kind)], kind


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.__name__)
def test_each_bound_is_kept(kind: type[msgspec.Struct]) -> None:
    struct = struct_of(kind)
    assert bounds.violation(struct) is None
    for name, rule in bounds.BOUNDS[kind].items():
        for value in outside(rule):
            bad = msgspec.structs.replace(struct, **{name: value})
            assert bounds.violation(bad) == f"{kind.__name__}.{name}", value


@pytest.mark.parametrize("kind", MESSAGE_KINDS, ids=lambda kind: kind.__name__)
def test_a_message_out_of_bounds_is_neither_read_nor_written(kind: type[msgspec.Struct]) -> None:
    struct = struct_of(kind)
    for name, rule in bounds.BOUNDS[kind].items():
        for value in outside(rule):
            if isinstance(rule, bounds.Number) and not -(2**63) <= value < 2**64:
                continue
            bad = msgspec.structs.replace(struct, **{name: value})
            with pytest.raises(LocalProtocolError, match=name):
                codec.encode(bad)
            assert isinstance(codec.decode(msgspec.msgpack.encode(bad)), Broken)


def test_a_list_within_bounds_may_hold_nothing_out_of_bounds() -> None:
    entry = struct_of(document_bodies.AddressEntry)
    member = struct_of(document_bodies.InviteMember)
    for addresses, expected in [
        ([entry], None),
        ([msgspec.structs.replace(entry, port=0)], "InviteMember.addresses"),
    ]:
        struct = msgspec.structs.replace(member, addresses=addresses)
        assert bounds.violation(struct) == expected


def test_unknown_kinds_are_named_and_survive() -> None:
    assert codec.decode(msgspec.msgpack.encode([99, "what", {"a": [1]}])) == Unknown(99)
    assert codec.decode(msgspec.msgpack.encode([0])) == Unknown(0)
    assert isinstance(codec.decode(msgspec.msgpack.encode(["hello"])), Broken)
    assert isinstance(codec.decode(msgspec.msgpack.encode([99])[:-1]), Broken)
    assert isinstance(codec.decode(b"\x92\x63\xc1"), Broken), "an unknown kind, but no MessagePack"


def test_further_fields_are_ignored() -> None:
    assert codec.decode(msgspec.msgpack.encode([4, 7, "later", [1, 2]])) == Ping(7)
    assert isinstance(codec.decode(msgspec.msgpack.encode([4])), Broken), "but none may lack"


def test_wrong_types_are_broken() -> None:
    for bad in ([4, "7"], [4, 7.5], [4, None], {"4": 7}, 4, [], None, [4, True]):
        assert isinstance(codec.decode(msgspec.msgpack.encode(bad)), Broken), bad
    assert isinstance(codec.decode(codec.encode(Ping(1)) + b"\0"), Broken), "something follows"


def test_a_message_too_large_is_neither_read_nor_written() -> None:
    record = bytes(bounds.RECORD_MAX)
    assert len(codec.encode(Records([record] * 16))) <= MAX_MESSAGE_BYTES
    with pytest.raises(LocalProtocolError, match="too large"):
        codec.encode(Records([record] * 17))
    data = msgspec.msgpack.encode(Records([record] * 17))
    result = codec.decode(data)
    assert isinstance(result, Broken)
    assert "65536" in result.why
    unknown = msgspec.msgpack.encode([99, bytes(MAX_MESSAGE_BYTES)])
    assert isinstance(codec.decode(unknown), Broken)


def test_the_largest_publication_in_one_piece_fits() -> None:
    gossip = Gossip(
        message_id=bytes(16),
        origin=bytes(32),
        topic="t" * bounds.TOPIC_MAX,
        data=bytes(bounds.GOSSIP_MAX),
        text=False,
        hops=255,
        signature=bytes(64),
    )
    assert codec.decode(codec.encode(gossip)) == gossip


def test_why_it_is_broken_is_one_short_line() -> None:
    for data in (b"", b"\x93\x03\xa1\xff\xa1a", DEEP, msgspec.msgpack.encode([4, "x" * 1000])):
        result = codec.decode(data)
        assert isinstance(result, Broken)
        assert result.why
        assert len(result.why.splitlines()) == 1
        assert len(result.why) <= 200
