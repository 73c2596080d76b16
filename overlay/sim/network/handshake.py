"""What stands for DTLS and SCTP where every check is simulated: as many flights, no cryptography.

The endpoint sees what it sorts: a ClientHello whose cookie it asks for, plain and encrypted
records. Client and server show their certificates' fingerprints and agree on an exporter value; a
flight that got lost is sent again by the client.
"""

import hashlib
import struct
from collections.abc import Callable
from enum import IntEnum

from overlay.core.endpoint.dtls_cookie import handshake_type, is_plain, parse_client_hello

FLIGHT_TIMEOUT = 1.0
"""Seconds until the client sends its flight again; then twice as many (RFC 6347 §4.2.4.1)."""

_RECORD = struct.Struct("!BHHHIH")  # RFC 6347 §4.1; the sequence number in two parts
_RECORD_BYTES = _RECORD.size
_DTLS_1_2 = 0xFEFD
_HANDSHAKE, _APPLICATION_DATA = 22, 23
_KIND_AT = _RECORD_BYTES
_SESSION_AT = _KIND_AT + 1
_BODY_AT = _SESSION_AT + 32
_COOKIE_AT = _RECORD_BYTES + 12 + 3
"""In a HelloVerifyRequest: after its handshake header, version and length."""


class Flight(IntEnum):
    """A datagram of the handshake; up to 20 they are DTLS's own types (RFC 5246 §7.4)."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    VERIFY = 3
    KEY_EXCHANGE = 16
    FINISHED = 20
    CONNECT = 100  # SCTP's part: the server's side is open
    CONNECTED = 101  # so is the client's
    HEARTBEAT = 102
    HEARTBEAT_ACK = 103


class Handshake:
    """One side of one association, from its first flight until its channel stands."""

    def __init__(
        self,
        *,
        client: bool,
        ours: bytes,
        expected: bytes | None,
        fresh: Callable[[int], bytes],
        name: bytes,
    ) -> None:
        """`ours`, `expected`: fingerprints; None: the peer may have any. `fresh` makes bytes.

        `name`: which attempt a client's first message says it belongs to.
        """
        self._name = name
        self.session = fresh(32) if client else b""
        """The client's random, which tells one association from another at the same addresses."""
        self.fingerprint = b""
        """The peer's."""
        self.exporter = b""
        self.secure = False
        """Encrypted records can be read."""
        self.open = False
        self.failed = False
        """The peer has another certificate than was promised."""
        self.flight = self._client_hello(b"") if client else b""
        """The client's latest, to be sent until the answer comes."""
        self.returned = b""
        """The nonce of the latest HEARTBEAT that was answered; who reads it empties it."""
        self._awaits = Flight.SERVER_HELLO
        self._client, self._ours, self._expected = client, ours, expected
        self._nonce = b"" if client else fresh(32)

    def receive(self, data: bytes) -> bytes | None:
        """A record: what to answer, perhaps nothing; None: it is none of ours."""
        if is_plain(data):
            return self._on_plain(data)
        if self.session != data[_SESSION_AT:_BODY_AT]:
            return None
        kind, body = data[_KIND_AT], data[_BODY_AT:]
        if kind == Flight.HEARTBEAT:
            return self._sealed(Flight.HEARTBEAT_ACK, body) if self.secure else b""
        if kind == Flight.HEARTBEAT_ACK:
            self.returned = body
            return b""
        return self._by_server(kind, b"") if self._client else self._on_sealed(kind)

    def heartbeat(self, nonce: bytes) -> bytes:
        """A datagram that the peer answers with the same nonce."""
        return self._sealed(Flight.HEARTBEAT, nonce)

    def _on_plain(self, data: bytes) -> bytes | None:
        hello = parse_client_hello(data)
        if hello is not None:
            if self._client or self.session not in (b"", hello.random):
                return None
            self.session = hello.random
            return self._plain(Flight.SERVER_HELLO, self._nonce + self._ours)
        kind = handshake_type(data)
        if self._client and kind == Flight.VERIFY and self._awaits is Flight.SERVER_HELLO:
            self.flight = self._client_hello(data[_COOKIE_AT:])
            return self.flight
        if self.session != data[_SESSION_AT:_BODY_AT]:
            return None
        body = data[_BODY_AT:]
        if self._client:
            return self._by_server(kind, body)
        return self._on_key_exchange(body) if kind == Flight.KEY_EXCHANGE else b""

    # --- the client --------------------------------------------------------------------------

    def _by_server(self, kind: int | None, body: bytes) -> bytes:
        """The server's flight; one that we have seen already says nothing."""
        if kind != self._awaits:
            return b""
        if self._awaits is Flight.SERVER_HELLO:
            if not self._accepts(body[32:]):
                return b""
            self._agree(body[:32])
            self._awaits = Flight.FINISHED
            self.flight = self._plain(Flight.KEY_EXCHANGE, self._ours)
        elif self._awaits is Flight.FINISHED:
            self.secure = True
            self._awaits = Flight.CONNECTED
            self.flight = self._sealed(Flight.CONNECT)
        else:
            self.open, self.flight = True, b""
        return self.flight

    def _client_hello(self, cookie: bytes) -> bytes:
        """As much of a ClientHello as the endpoint reads (RFC 6347 §4.2.1), of a real size."""
        body = struct.pack("!H", _DTLS_1_2) + self.session + b"\0" + bytes([len(cookie)]) + cookie
        listed = struct.pack("!BH", 0, len(self._name)) + self._name
        listed = struct.pack("!H", len(listed)) + listed
        extension = struct.pack("!HH", 0, len(listed)) + listed  # RFC 6066 §3
        body += b"\0\0" + b"\0" + struct.pack("!H", len(extension)) + extension
        body += bytes(160 - len(extension))
        size = len(body).to_bytes(3, "big")
        message = bytes([Flight.CLIENT_HELLO]) + size + b"\0\0" + b"\0\0\0" + size + body
        return _RECORD.pack(_HANDSHAKE, _DTLS_1_2, 0, 0, 0, len(message)) + message

    # --- the server --------------------------------------------------------------------------

    def _on_key_exchange(self, body: bytes) -> bytes:
        if not self.secure:
            if not self._accepts(body):
                return b""
            self._agree(self._nonce)
            self.secure = True
        return self._sealed(Flight.FINISHED)

    def _on_sealed(self, kind: int) -> bytes | None:
        if not self.secure:
            return None
        if kind != Flight.CONNECT:
            return b""
        self.open = True
        return self._sealed(Flight.CONNECTED)

    # --- both --------------------------------------------------------------------------------

    def _accepts(self, fingerprint: bytes) -> bool:
        self.fingerprint = fingerprint
        self.failed = self._expected not in (None, fingerprint)
        return not self.failed

    def _agree(self, nonce: bytes) -> None:
        self.exporter = hashlib.sha256(self.session + nonce).digest()

    def _plain(self, flight: Flight, body: bytes) -> bytes:
        message = bytes([flight]) + self.session + body
        return _RECORD.pack(_HANDSHAKE, _DTLS_1_2, 0, 0, 0, len(message)) + message

    def _sealed(self, flight: Flight, body: bytes = b"") -> bytes:
        message = bytes([flight]) + self.session + body
        return _RECORD.pack(_APPLICATION_DATA, _DTLS_1_2, 1, 0, 0, len(message)) + message
