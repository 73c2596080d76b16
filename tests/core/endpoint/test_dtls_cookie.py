"""DTLS cookies against OpenSSL's own client and server, and against any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.endpoint.dtls_cookie import (
    COOKIE_BYTES,
    COOKIE_SLICE,
    ClientHello,
    attempt_name,
    cookie_ok,
    handshake_type,
    hello_verify_request,
    is_alert,
    is_plain,
    is_record,
    make_cookie,
    parse_client_hello,
)
from overlay.core.types import Address
from tests.core.endpoint.world import Dtls

KEY, A = b"k" * 32, Address("8.8.8.1", 1111)


def first_hello() -> tuple[Dtls, bytes]:
    """A client of OpenSSL's, and its first ClientHello."""
    client = Dtls("client")
    client.shake()
    (data,) = client.outgoing()
    return client, data


HELLO = first_hello()[1]


def by_hand(
    *, cookie: bytes = b"", session: bytes = b"", offset: int = 0, sequence: int = 7
) -> bytes:
    """A ClientHello from the letter of RFC 6347 §4.3.2."""
    body = b"\xfe\xfd" + bytes(range(32)) + bytes([len(session)]) + session
    body += bytes([len(cookie)]) + cookie + b"\0\2\xc0\x2b" + b"\1\0"
    size = len(body).to_bytes(3, "big")
    handshake = b"\1" + size + b"\0\1" + offset.to_bytes(3, "big") + size + body
    header = b"\x16\xfe\xff" + b"\0\0" + sequence.to_bytes(6, "big")
    return header + len(handshake).to_bytes(2, "big") + handshake


def test_a_client_hello_is_read_by_the_letter() -> None:
    assert parse_client_hello(by_hand(cookie=b"biscuit", session=b"s" * 32)) == ClientHello(
        sequence=bytes(5) + b"\7", random=bytes(range(32)), cookie=b"biscuit"
    )


def extended(*extensions: bytes) -> bytes:
    """A ClientHello with these extensions (RFC 5246 §7.4.1.4)."""
    plain = by_hand()
    tail = b"".join(extensions)
    tail = len(tail).to_bytes(2, "big") + tail
    length = int.from_bytes(plain[11:13], "big") + len(tail)
    return plain[:11] + length.to_bytes(2, "big") + plain[13:] + tail


def server_name(name: bytes, *, length: int | None = None) -> bytes:
    """The extension of RFC 6066 §3."""
    size = (len(name) if length is None else length).to_bytes(2, "big")
    listed = b"\0" + size + name
    listed = len(listed).to_bytes(2, "big") + listed
    return b"\0\0" + len(listed).to_bytes(2, "big") + listed


def test_a_client_hello_may_name_its_attempt() -> None:
    name = attempt_name(bytes(16))
    for extensions, expected in (
        ([server_name(name)], name),
        ([b"\0\x0a\0\2\0\0", server_name(name)], name),
        ([server_name(b"example.org")], b""),  # a browser's: no attempt of a node's
        ([server_name(name, length=200)], b""),
        ([b"\0\0\0\0"], b""),
        ([], b""),
    ):
        hello = parse_client_hello(extended(*extensions))
        assert hello is not None
        assert hello.name == expected


def test_the_first_client_hello_of_openssl_has_no_cookie() -> None:
    hello = parse_client_hello(HELLO)
    assert hello is not None
    assert hello.cookie == b""
    assert len(hello.random) == 32


def test_openssl_sends_our_cookie_back_and_its_server_goes_on_from_there() -> None:
    client, data = first_hello()
    hello = parse_client_hello(data)
    assert hello is not None
    client.feed(hello_verify_request(hello, make_cookie(KEY, A, 100.0)))
    (data,) = client.outgoing()
    again = parse_client_hello(data)
    assert again is not None
    assert again.random == hello.random
    assert cookie_ok(KEY, A, again.cookie, 100.0)
    server = Dtls("server", listen=True)
    for _ in range(4):
        server.feed(data)
        flight = server.outgoing()
        for each in flight:
            client.feed(each)
        data = b"".join(client.outgoing())
        if server.done and client.done:
            break
    assert server.done
    assert client.done


def test_the_request_to_verify_has_the_layout_of_the_rfc() -> None:
    hello = ClientHello(b"\0\0\0\0\1\2", bytes(32), b"")
    assert hello_verify_request(hello, b"COOKIE").hex(" ") == (
        "16 fe ff 00 00 00 00 00 00 01 02 00 15 "  # record: sequence number of the ClientHello
        "03 00 00 09 00 00 00 00 00 00 00 09 "  # handshake: hello_verify_request, message_seq 0
        "fe ff 06 43 4f 4f 4b 49 45"  # DTLS 1.0 whatever comes later (RFC 6347 §4.2.1)
    )


def test_the_answer_is_shorter_than_any_client_hello() -> None:
    request = hello_verify_request(ClientHello(bytes(6), bytes(32), b""), bytes(COOKIE_BYTES))
    assert len(request) == 44 < len(by_hand())


@pytest.mark.parametrize(
    ("later", "ok"), [(0.0, True), (COOKIE_SLICE, True), (2 * COOKIE_SLICE, False), (-40.0, False)]
)
def test_a_cookie_is_good_for_its_slice_and_the_next(later: float, ok: bool) -> None:
    now = 10 * COOKIE_SLICE + 1.0
    assert cookie_ok(KEY, A, make_cookie(KEY, A, now), now + later) is ok


@pytest.mark.parametrize(
    ("key", "remote"),
    [
        (b"l" * 32, A),
        (KEY, Address("8.8.8.2", 1111)),
        (KEY, Address("8.8.8.1", 1112)),
        (KEY, Address("8.8.8.11", 111)),
    ],
)
def test_a_cookie_is_for_one_address_and_of_one_key(key: bytes, remote: Address) -> None:
    assert not cookie_ok(key, remote, make_cookie(KEY, A, 0.0), 0.0)
    assert cookie_ok(KEY, A, make_cookie(KEY, A, 0.0), 0.0)


@pytest.mark.parametrize("cookie", [b"", b"x", bytes(COOKIE_BYTES), bytes(255)])
def test_other_bytes_are_no_cookie(cookie: bytes) -> None:
    assert not cookie_ok(KEY, A, cookie, 0.0)


def test_a_client_hello_in_fragments_is_known_by_its_first() -> None:
    """Post-quantum key shares make a ClientHello longer than a datagram (RFC 6347 §4.2.3)."""
    whole = by_hand(cookie=b"biscuit")
    cut = whole[: 13 + 12 + 50]
    length = len(cut) - 13
    first = cut[:11] + length.to_bytes(2, "big") + cut[13:22] + (50).to_bytes(3, "big") + cut[25:]
    hello = parse_client_hello(first)
    assert hello is not None
    assert hello.cookie == b"biscuit"
    assert parse_client_hello(by_hand(offset=50)) is None


def test_what_is_cut_off_is_no_client_hello() -> None:
    whole = by_hand(cookie=b"biscuit", session=b"s" * 32)
    for size in range(len(whole)):
        assert parse_client_hello(whole[:size]) is None


@pytest.mark.parametrize(
    ("at", "byte"), [(0, 23), (0, 21), (1, 0x03), (3, 1), (4, 1), (13, 2), (13, 16), (59, 255)]
)
def test_another_header_is_no_client_hello(at: int, byte: int) -> None:
    """Content type, version, epoch, message type, and a session id that leads past the end."""
    data = bytearray(by_hand())
    data[at] = byte
    assert parse_client_hello(bytes(data)) is None


@given(
    st.binary(max_size=120)
    | st.builds(
        lambda at, new, cut: (HELLO[:at] + new + HELLO[at + len(new) :])[:cut],
        st.integers(0, len(HELLO)),
        st.binary(max_size=6),
        st.integers(0, len(HELLO)),
    )
)
def test_no_bytes_are_too_much_for_it(data: bytes) -> None:
    hello = parse_client_hello(data)
    if hello is not None:
        assert len(hello.random) == 32
        assert hello.cookie in data
        assert len(hello_verify_request(hello, make_cookie(KEY, A, 0.0))) < len(data)


def test_records_are_known_by_their_header() -> None:
    assert is_record(HELLO)
    assert is_plain(HELLO)
    assert handshake_type(HELLO) == 1
    assert not is_record(HELLO[:12])
    assert not is_record(b"\0" + HELLO[1:])
    assert not is_plain(HELLO[:4] + b"\1" + HELLO[5:])
    assert handshake_type(b"\x14" + HELLO[1:]) is None
    assert handshake_type(HELLO[:13]) is None
    assert is_alert(b"\x15" + HELLO[1:])
    assert not is_alert(HELLO)
