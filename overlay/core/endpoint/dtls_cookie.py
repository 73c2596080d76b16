"""DTLS cookies (RFC 6347 §4.2.1): who cannot answer at its address costs us no handshake.

The ClientHello is read, and the HelloVerifyRequest written, without OpenSSL and without state:
the cookie is an HMAC of the asker's address and the time slice, so only who receives there can
send it back.

A node that dials a peer and sends it an offer besides may begin either handshake at the same pair
of addresses. So its ClientHello says which it is, as its server name (RFC 6066 §3).
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from overlay.core.types import Address

COOKIE_BYTES = 16
COOKIE_SLICE = 30.0
"""Seconds of one time slice; a cookie is good in its own slice and in the next (guess)."""

SERVER_GREETINGS = frozenset({2, 3})
"""ServerHello, HelloVerifyRequest: what a client hears first."""
ONLY_OF_SERVERS = frozenset({2, 3, 4, 12, 13, 14})
"""ServerKeyExchange, CertificateRequest, …: what no client sends (RFC 5246 §7.4)."""
ONLY_OF_CLIENTS = frozenset({1, 15, 16})

NAMES = b".invalid"
"""What our server names end with: no host is called so (RFC 6761 §6.4)."""

_ALERT = 21
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_HELLO_VERIFY_REQUEST = 3
_DTLS_1_0 = 0xFEFF
_SERVER_NAME = 0  # the extension's number
_RECORD = struct.Struct("!BHH6sH")  # RFC 6347 §4.1: type, version, epoch, sequence number, length
_RECORD_BYTES = _RECORD.size
_HANDSHAKE_BYTES = 12  # RFC 6347 §4.2.2: type, length, message_seq, fragment offset and length
_RANDOM_AT = 2  # after client_version
_SESSION_ID_AT = _RANDOM_AT + 32


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What the cookie exchange needs of a ClientHello: its first fragment up to the cookie."""

    sequence: bytes
    """The record's sequence number, 6 bytes: the answer repeats it."""
    random: bytes
    """Tells one client's handshake from another's at the same address, 32 bytes."""
    cookie: bytes
    name: bytes = b""
    """Which attempt it belongs to (`attempt_name`); empty: its client does not say."""


def attempt_name(attempt: bytes) -> bytes:
    """The server name by which the ClientHello of this attempt is known; it does not disclose it.

    >>> attempt_name(bytes(16))
    b'e2c9c5865db8cfff439afa8acf2bd8f0.invalid'
    """
    return hashlib.sha256(b"overlay attempt 1\0" + attempt).hexdigest()[:32].encode() + NAMES


def is_record(data: bytes) -> bool:
    """Whether a datagram begins like a DTLS record (RFC 7983 §7) and holds a whole header."""
    return len(data) >= _RECORD_BYTES and 20 <= data[0] <= 63


def is_plain(data: bytes) -> bool:
    """Whether the first record is of epoch 0: sent before keys stood, so anybody can write it."""
    return data[3] == 0 and data[4] == 0


def is_alert(data: bytes) -> bool:
    """Whether the first record is an alert."""
    return data[0] == _ALERT


def handshake_type(data: bytes) -> int | None:
    """The handshake message that a plain record begins with; None when it holds something else."""
    return data[_RECORD_BYTES] if data[0] == _HANDSHAKE and len(data) > _RECORD_BYTES else None


def parse_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello that a datagram begins with, or None for all else. Never raises.

    A ClientHello in fragments (post-quantum key shares do not fit one datagram) is known by its
    first: everything up to the cookie is in it.
    """
    if len(data) < _RECORD_BYTES + _HANDSHAKE_BYTES:
        return None
    kind, version, epoch, sequence, length = _RECORD.unpack_from(data)
    if kind != _HANDSHAKE or version >> 8 != _DTLS_1_0 >> 8 or epoch != 0:
        return None
    fragment = data[_RECORD_BYTES : _RECORD_BYTES + length]
    if len(fragment) < max(length, _HANDSHAKE_BYTES) or fragment[0] != _CLIENT_HELLO:
        return None
    if fragment[6:9] != b"\0\0\0":
        return None  # not the first fragment
    body = fragment[_HANDSHAKE_BYTES:]
    random = body[_RANDOM_AT:_SESSION_ID_AT]
    cookie_at = _SESSION_ID_AT + 1 + _byte(body, _SESSION_ID_AT)
    cookie = _vector(body, cookie_at)
    if cookie is None:
        return None
    name = _server_name(body, cookie_at + 1 + len(cookie))
    return ClientHello(sequence, random, cookie, name if name.endswith(NAMES) else b"")


def hello_verify_request(hello: ClientHello, cookie: bytes) -> bytes:
    """The answer to a ClientHello without a valid cookie (RFC 6347 §4.2.1), 44 bytes.

    Its version is DTLS 1.0 whatever will be negotiated, its record number the ClientHello's, its
    message_seq 0. It is shorter than any ClientHello, so it amplifies nothing.
    """
    body = struct.pack("!HB", _DTLS_1_0, len(cookie)) + cookie
    size = len(body).to_bytes(3, "big")
    handshake = bytes([_HELLO_VERIFY_REQUEST]) + size + b"\0\0" + b"\0\0\0" + size + body
    return _RECORD.pack(_HANDSHAKE, _DTLS_1_0, 0, hello.sequence, len(handshake)) + handshake


def make_cookie(cookie_key: bytes, remote: Address, now: float) -> bytes:
    """What the holder of `remote` has to send back; `now` in seconds of any monotone clock."""
    return _cookie(cookie_key, remote, int(now // COOKIE_SLICE))


def cookie_ok(cookie_key: bytes, remote: Address, cookie: bytes, now: float) -> bool:
    """Whether we gave `cookie` to `remote` in this time slice or the one before."""
    if len(cookie) != COOKIE_BYTES:
        return False
    now_slice = int(now // COOKIE_SLICE)
    return any(
        hmac.compare_digest(cookie, _cookie(cookie_key, remote, number))
        for number in (now_slice, now_slice - 1)
    )


def _cookie(cookie_key: bytes, remote: Address, number: int) -> bytes:
    body = f"overlay cookie {number} {remote.host} {remote.port}".encode()
    return hmac.digest(cookie_key, body, "sha256")[:COOKIE_BYTES]


def _byte(data: bytes, at: int) -> int:
    """The byte at `at`; past the end, a length that leads past the end again."""
    return data[at] if at < len(data) else len(data)


def _short(data: bytes, at: int) -> int:
    """The 16 bits at `at`; past the end, a length that leads past the end again."""
    return int.from_bytes(data[at : at + 2]) if at + 2 <= len(data) else len(data)


def _server_name(body: bytes, at: int) -> bytes:
    """The first server name among the extensions (RFC 6066 §3); empty when there is none.

    `at`: where the cipher suites begin (RFC 5246 §7.4.1.2).
    """
    at += 2 + _short(body, at)
    at += 1 + _byte(body, at)
    at += 2  # the length of all extensions: their own lengths say enough
    while at + 4 <= len(body):
        kind, size = _short(body, at), _short(body, at + 2)
        at += 4
        if kind == _SERVER_NAME:
            length = _short(body, at + 3)  # after the length of the list and the type of the name
            return body[at + 5 : at + 5 + length] if length + 5 <= size else b""
        at += size
    return b""


def _vector(data: bytes, at: int) -> bytes | None:
    """The opaque<0..255> that begins at `at`, or None when it is cut off."""
    if at >= len(data):
        return None
    end = at + 1 + data[at]
    return data[at + 1 : end] if end <= len(data) else None
