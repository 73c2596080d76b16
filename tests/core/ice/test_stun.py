"""The STUN codec: the vectors of RFC 5769, and an error value for everything else."""

import hashlib
import struct
from binascii import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.ice import stun
from overlay.core.ice.stun import Message, MessageClass, ParseError
from overlay.core.types import Address

PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "80220010" + b"STUN test client".hex() + "002400046e0001ff80290008932ff9b151263b36"
    "00060009" + b"evtj:h6vY   ".hex() + "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
IPV4_RESPONSE = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b" + b"test vector ".hex() + "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
IPV6_RESPONSE = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b" + b"test vector ".hex() + "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
LONG_TERM_REQUEST = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e"
    "00060012e3839ee38388e383aae38383e382afe382b90000"
    "0015001c"
    + b"f//499k954d6OL34oL9FSTvy64sA".hex()
    + "0014000b"
    + b"example.org\0".hex()
    + "00080014"
    "f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
VECTORS = [REQUEST, IPV4_RESPONSE, IPV6_RESPONSE, LONG_TERM_REQUEST]


def parsed(data: bytes) -> Message:
    message = stun.parse(data)
    assert isinstance(message, Message), message
    return message


def raw(
    *attributes: tuple[int, bytes],
    kind: int = 0x0001,
    pad: bytes = b"\0",
    length: int | None = None,
) -> bytes:
    """A message of whatever attributes, right or wrong."""
    body = b"".join(
        struct.pack("!HH", number, len(value)) + value + pad * (-len(value) % 4)
        for number, value in attributes
    )
    size = len(body) if length is None else length
    return struct.pack("!HHI12s", kind, size, stun.MAGIC_COOKIE, b"transactions") + body


# --- RFC 5769 -----------------------------------------------------------------------------------


def test_the_sample_request_of_rfc_5769_reads_as_it_should() -> None:
    request = parsed(REQUEST)
    assert (request.method, request.message_class) == (stun.BINDING, MessageClass.REQUEST)
    assert request.transaction_id.hex() == "b7e7a701bc34d686fa87dfae"
    assert request.software == "STUN test client"
    assert request.username == "evtj:h6vY"
    assert request.priority == 0x6E0001FF
    assert request.ice_controlled == 0x932FF9B151263B36
    assert (request.ice_controlling, request.use_candidate) == (None, False)
    assert request.fingerprint
    assert request.integrity_ok(PASSWORD)


@pytest.mark.parametrize(
    ("response", "host"),
    [(IPV4_RESPONSE, "192.0.2.1"), (IPV6_RESPONSE, "2001:db8:1234:5678:11:2233:4455:6677")],
)
def test_the_sample_responses_of_rfc_5769_read_as_they_should(response: bytes, host: str) -> None:
    message = parsed(response)
    assert message.message_class is MessageClass.SUCCESS
    assert message.mapped_address == Address(host, 32853)
    assert message.software == "test vector"
    assert message.fingerprint
    assert message.integrity_ok(PASSWORD)


def test_the_long_term_request_of_rfc_5769_is_authentic() -> None:
    request = parsed(LONG_TERM_REQUEST)
    name = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    key = hashlib.md5(f"{name}:example.org:TheMatrIX".encode()).digest()
    assert request.username == name
    assert request.integrity_ok(key)
    assert not request.fingerprint
    assert request.unknown_required == ()


@pytest.mark.parametrize("vector", VECTORS[:3])
def test_any_flipped_bit_breaks_the_fingerprint_or_the_header(vector: bytes) -> None:
    for bit in range(8 * len(vector)):
        spoilt = bytearray(vector)
        spoilt[bit // 8] ^= 1 << bit % 8
        message = stun.parse(bytes(spoilt))
        # Only in the FINGERPRINT's own type can it turn into an attribute that nobody knows.
        assert isinstance(message, ParseError) or not message.fingerprint


def test_any_flipped_bit_breaks_the_integrity() -> None:
    end = len(LONG_TERM_REQUEST)
    name = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    key = hashlib.md5(f"{name}:example.org:TheMatrIX".encode()).digest()
    for bit in range(8 * end):
        spoilt = bytearray(LONG_TERM_REQUEST)
        spoilt[bit // 8] ^= 1 << bit % 8
        message = stun.parse(bytes(spoilt))
        assert isinstance(message, ParseError) or not message.integrity_ok(key)


def test_another_password_does_not_pass() -> None:
    assert not parsed(REQUEST).integrity_ok(PASSWORD + b"x")
    assert not parsed(REQUEST).integrity_ok(b"")


# --- what we write, we read ----------------------------------------------------------------------

addresses = st.one_of(
    st.builds(Address, st.ip_addresses(v=4).map(str), st.integers(0, 65_535)),
    st.builds(Address, st.ip_addresses(v=6).map(str), st.integers(0, 65_535)),
)
messages = st.builds(
    Message,
    method=st.integers(0, 0xFF),
    message_class=st.sampled_from(MessageClass),
    transaction_id=st.binary(min_size=12, max_size=12),
    username=st.none() | st.text(max_size=120),
    priority=st.none() | st.integers(0, 2**32 - 1),
    use_candidate=st.booleans(),
    ice_controlling=st.none() | st.integers(0, 2**64 - 1),
    ice_controlled=st.none() | st.integers(0, 2**64 - 1),
    mapped_address=st.none() | addresses,
    error_code=st.none() | st.integers(300, 699),
    unknown_attributes=st.lists(st.integers(0, 0xFFFF), max_size=9).map(tuple),
    software=st.none() | st.text(max_size=60),
)


@given(messages, st.none() | st.binary(), st.booleans())
def test_what_is_encoded_parses_to_the_same(
    message: Message, key: bytes | None, fingerprint: bool
) -> None:
    data = stun.encode(message, key, fingerprint)
    message.fingerprint = fingerprint
    back = parsed(data)
    assert back == message
    assert back.raw == data
    assert back.integrity_ok(b"x" if key is None else key) is (key is not None)
    assert stun.is_stun(data)


def test_no_message_type_is_mistaken_for_another() -> None:
    """RFC 8489 §5: the class bits lie between the method's (of which a shared port sees 256)."""
    kinds = {
        stun.encode(Message(method, message_class, bytes(12)), None)[:2]: (method, message_class)
        for method in range(0x1000)
        for message_class in MessageClass
    }
    assert len(kinds) == 4 * 0x1000
    assert kinds[b"\x01\x01"] == (stun.BINDING, MessageClass.SUCCESS)
    assert kinds[b"\x01\x11"] == (stun.BINDING, MessageClass.ERROR)
    assert kinds[b"\x00\x11"] == (stun.BINDING, MessageClass.INDICATION)


def test_an_answer_carries_the_id_of_its_question() -> None:
    request = parsed(REQUEST)
    success = stun.binding_success(request, Address("192.0.2.1", 32853))
    answer = parsed(stun.encode(success, PASSWORD))
    assert answer.transaction_id == request.transaction_id
    assert answer.mapped_address == Address("192.0.2.1", 32853)
    refusal = parsed(stun.encode(stun.binding_error(request, 401), None))
    assert (refusal.error_code, refusal.error_reason) == (401, "Unauthenticated")
    assert refusal.transaction_id == request.transaction_id


# --- what we do not understand -------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_raise(data: bytes) -> None:
    assert isinstance(stun.parse(data), ParseError)


@given(st.sampled_from(VECTORS), st.data())
def test_no_mutation_of_a_valid_message_makes_the_parser_raise(
    vector: bytes, data: st.DataObject
) -> None:
    spoilt = bytearray(vector)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(spoilt) - 1)))
        match data.draw(st.integers(0, 3)):
            case 0:
                spoilt[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case 1:
                del spoilt[at : at + data.draw(st.integers(1, 20))]
            case 2:
                spoilt[at:at] = data.draw(st.binary(max_size=20))
            case _:
                spoilt[2:4] = struct.pack("!H", max(0, len(spoilt) - 20))
    message = stun.parse(bytes(spoilt))
    if isinstance(message, Message):
        message.integrity_ok(PASSWORD)


KNOWN = [
    stun.USERNAME,
    stun.MESSAGE_INTEGRITY,
    stun.ERROR_CODE,
    stun.UNKNOWN_ATTRIBUTES,
    stun.XOR_MAPPED_ADDRESS,
    stun.PRIORITY,
    stun.USE_CANDIDATE,
    stun.SOFTWARE,
    stun.FINGERPRINT,
    stun.ICE_CONTROLLED,
    stun.ICE_CONTROLLING,
]


@given(
    st.lists(
        st.tuples(st.sampled_from(KNOWN) | st.integers(0, 0xFFFF), st.binary(max_size=24)),
        max_size=12,
    ),
    st.integers(0, 0x3FFF),
)
def test_no_list_of_attributes_makes_the_parser_raise(
    attributes: list[tuple[int, bytes]], kind: int
) -> None:
    message = stun.parse(raw(*attributes, kind=kind))
    if isinstance(message, Message):
        message.integrity_ok(PASSWORD)
        assert len(message.unknown_required) <= stun.MAX_ATTRIBUTES


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (stun.PRIORITY, b""),
        (stun.PRIORITY, b"\1\2\3"),
        (stun.PRIORITY, b"\1\2\3\4\5"),
        (stun.ICE_CONTROLLED, b"1234567"),
        (stun.ICE_CONTROLLING, b"123456789"),
        (stun.USE_CANDIDATE, b"\0"),
        (stun.XOR_MAPPED_ADDRESS, b""),
        (stun.XOR_MAPPED_ADDRESS, b"\0\1\0\0"),
        (stun.XOR_MAPPED_ADDRESS, b"\0\2\0\0\1\2\3\4"),
        (stun.XOR_MAPPED_ADDRESS, b"\0\3\0\0\1\2\3\4"),
        (stun.ERROR_CODE, b"\0\0\4"),
        (stun.ERROR_CODE, b"\0\0\2\0"),
        (stun.ERROR_CODE, b"\0\0\4\x64"),
        (stun.UNKNOWN_ATTRIBUTES, b"\0\1\2"),
        (stun.USERNAME, b"\xff\xfe"),
        (stun.USERNAME, b"u" * 514),
        (stun.MESSAGE_INTEGRITY, b"x" * 19),
        (stun.FINGERPRINT, b"x" * 3),
        (stun.FINGERPRINT, b"xxxx"),
    ],
)
def test_a_malformed_attribute_spoils_the_message(kind: int, value: bytes) -> None:
    assert isinstance(stun.parse(raw((kind, value))), ParseError)


def test_the_attributes_of_the_malformed_test_are_fine_when_well_formed() -> None:
    """The counter-test: it is not their mere presence that spoils."""
    good = raw(
        (stun.PRIORITY, b"1234"),
        (stun.ICE_CONTROLLED, b"12345678"),
        (stun.USE_CANDIDATE, b""),
        (stun.XOR_MAPPED_ADDRESS, b"\0\1\0\0\1\2\3\4"),
        (stun.ERROR_CODE, b"\0\0\4\1\xff"),
        (stun.UNKNOWN_ATTRIBUTES, b"\0\1"),
        (stun.USERNAME, b"u" * 513),
        (stun.MESSAGE_INTEGRITY, b"x" * 20),
    )
    message = parsed(good)
    assert message.error_code == 401
    assert message.use_candidate
    assert not message.integrity_ok(b"x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        REQUEST[:19],
        REQUEST[:-1],
        REQUEST + b"\0",
        REQUEST + bytes(4),
        b"\x40" + REQUEST[1:],
        REQUEST[:4] + b"\x21\x12\xa4\x43" + REQUEST[8:],
        raw((stun.SOFTWARE, b"1234"), length=4),
        raw((stun.SOFTWARE, b"1234"), length=6),
        raw() + b"\0\0\0\0",
        raw(length=4) + b"\x80\x22\x00\x01",
        raw((stun.SOFTWARE, bytes(2048))),
        raw(*[(stun.SOFTWARE, b"")] * (stun.MAX_ATTRIBUTES + 1)),
    ],
)
def test_what_is_no_message_is_an_error_value(data: bytes) -> None:
    assert isinstance(stun.parse(data), ParseError)


def test_as_many_attributes_as_allowed_are_read() -> None:
    parsed(raw(*[(stun.SOFTWARE, b"")] * stun.MAX_ATTRIBUTES))


def test_unknown_attributes_are_reported_only_when_comprehension_is_required() -> None:
    message = parsed(raw((0x7FFE, b"?"), (0x8000, b"!"), (0xC057, b"net"), (0x7FFF, b"")))
    assert message.unknown_required == (0x7FFE, 0x7FFF)
    refusal = parsed(stun.encode(stun.binding_error(message, 420), None))
    assert (refusal.error_code, refusal.unknown_attributes) == (420, (0x7FFE, 0x7FFF))


def test_of_several_equal_attributes_the_first_counts() -> None:
    message = parsed(raw((stun.PRIORITY, b"\0\0\0\1"), (stun.PRIORITY, b"\0\0\0\2")))
    assert message.priority == 1
    # Not even a malformed second one is looked at.
    assert parsed(raw((stun.PRIORITY, b"\0\0\0\1"), (stun.PRIORITY, b""))).priority == 1


def test_nothing_behind_the_integrity_counts() -> None:
    """Anyone on the way could have added it (RFC 8489 §14.5)."""
    signed = stun.encode(
        stun.binding_request(b"transactions", username="a:b"), b"key", fingerprint=False
    )
    added = struct.pack("!HH", stun.USE_CANDIDATE, 0) + struct.pack("!HHI", stun.PRIORITY, 4, 9)
    longer = signed[:2] + struct.pack("!H", len(signed) - 20 + len(added)) + signed[4:] + added
    message = parsed(longer)
    assert message.integrity_ok(b"key")
    assert (message.use_candidate, message.priority) == (False, None)


def test_the_fingerprint_must_come_last() -> None:
    value = struct.pack("!I", crc32(raw(length=8)) ^ 0x5354554E)
    assert parsed(raw((stun.FINGERPRINT, value))).fingerprint
    late = raw((stun.FINGERPRINT, value), (stun.SOFTWARE, b""))
    assert isinstance(stun.parse(late), ParseError)


def test_the_padding_may_hold_anything() -> None:
    """RFC 8489 §14: it is to be ignored."""
    assert parsed(raw((stun.SOFTWARE, b"a"), pad=b"\xff")).software == "a"


def test_other_traffic_of_the_port_is_no_stun() -> None:
    assert stun.is_stun(REQUEST)
    assert not stun.is_stun(b"\x16\xfe\xfd" + bytes(40))
    assert not stun.is_stun(REQUEST[:8])
    assert not stun.is_stun(b"")
