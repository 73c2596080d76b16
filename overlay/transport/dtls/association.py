"""DTLS 1.2 on memory BIOs (RFC 6347): datagrams in, datagrams and plaintexts out, all synchronous.

Any certificate is accepted and its fingerprint kept: who the peer is gets settled by the expected
fingerprint here or by the hello on channel 0. Why this is not aiortc's `RTCDtlsTransport`:
docs/decisions/0008-dtls-on-pyopenssl.md.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from overlay.core.addresses import CIRCUIT_BYTES
from overlay.core.types import EndReason
from overlay.errors import ConfigError, LocalProtocolError
from overlay.transport.dtls.records import ALERT, APPLICATION_DATA, SUITES, Records, Secrets

EXPORTER_LABEL = b"EXPORTER-overlay-link"
EXPORTER_BYTES = 32
RECORD_HEADER_BYTES = 13
CLOSE_NOTIFY = b"\1\0"
FATAL = b"\2"
"""Alerts (RFC 5246 §7.2): warning 0, and the level of those that end the association."""
MAX_DATAGRAM_BYTES = 1200
"""What fits the smallest IPv6 path with room for a circuit's id, and some more (guess)."""
LEAST_DATAGRAM_BYTES = 576 - 20 - 8 - CIRCUIT_BYTES
"""What fits an IPv4 path of 576 bytes, which every host takes (RFC 791), over a circuit as well."""
SMALL_AFTER = 2
"""Time-outs of a handshake after which its flights fit any path (RFC 6347 §4.1.1.1)."""
AEAD_BYTES = RECORD_HEADER_BYTES + 8 + 16
CBC_BYTES = RECORD_HEADER_BYTES + 16 + 20 + 16
"""What a record adds to its plaintext: with an AEAD, and at most with the older suites."""
_READ_BYTES = 2048
_FLIGHT_BYTES = 65_536
_DTLS_1_2 = 0xFEFD
# The forward-secret suites of RFC 8827 §6.5 that an ECDSA certificate serves, as browsers offer.
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:"
    b"ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
)


class Credentials:
    """Our certificate, and one OpenSSL context a role that all associations share."""

    def __init__(self, pem: bytes) -> None:
        """`pem` holds the ECDSA key and its certificate. ConfigError: it does not."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            key = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the certificate file is unreadable ({error}); restore it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError("the certificate's key is not ECDSA; let overlay make a new one")
        self.fingerprint = certificate.fingerprint(hashes.SHA256())
        self._contexts = {role: _context(key, certificate) for role in ("client", "server")}

    def connection(self, role: str, name: bytes = b"") -> SSL.Connection:
        """A fresh OpenSSL connection on memory BIOs, in the DTLS role `client` or `server`.

        `name`: the server name that a client asks for (RFC 6066 §3), if any.
        """
        connection = SSL.Connection(self._contexts[role])
        if role == "server":
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if name:
                connection.set_tlsext_host_name(name)
        connection.set_ciphertext_mtu(MAX_DATAGRAM_BYTES)
        return connection


def _context(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> SSL.Context:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # measured: 48 KiB an association instead of 79
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_cipher_list(_CIPHERS)
    # A stock aiortc peer fails a handshake without an SRTP profile, data channels or not.
    context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80")
    # The endpoint has checked its own, stateless cookie; OpenSSL is only told to expect one.
    context.set_cookie_generate_callback(lambda _: b"the endpoint makes cookies")
    context.set_cookie_verify_callback(lambda *_: True)
    return context


class DtlsState(StrEnum):
    """How an association stands."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"  # the peer has said so, or we have
    FAILED = "failed"  # `Dtls.failure` says why


class DataReceiver(Protocol):
    """What aiortc registers for decrypted data; we feed SCTP ourselves."""

    async def _handle_data(self, data: bytes) -> None: ...


class Dtls:
    """One association: `receive` datagrams, `send` plaintexts; `state` says how it stands.

    `transmit` is called with each datagram to send, inside `start`, `receive`, `send`, `close`.
    """

    def __init__(
        self,
        credentials: Credentials,
        role: str,
        transmit: Callable[[bytes], None],
        *,
        expected: bytes | None = None,
        cookie_exchanged: bool = False,
        name: bytes = b"",
    ) -> None:
        """`expected`: SHA-256 of the peer's certificate, None for any.

        `name`: which attempt a client's first message says it belongs to.

        `cookie_exchanged`: we are the server and the first datagram is a ClientHello whose cookie
        has been checked.
        """
        self.state = DtlsState.NEW
        # Why it failed, once it has: ``certificate``, ``protocol`` or ``timeout``.
        self.failure = EndReason.PROTOCOL
        self.fingerprint = b""  # SHA-256 of the peer's certificate once connected
        self.exporter = b""  # RFC 5705 keying material, the same 32 bytes at both ends
        self._role = role
        self._ssl: SSL.Connection = credentials.connection(role, name)
        # Takes over from OpenSSL once the peer has shown that its handshake is complete.
        self._records: Records | None = None
        self._last_sent = b""  # the newest record of epoch 1 that OpenSSL has made
        self._newest_seen = 0  # the highest record number that OpenSSL was given, genuine or not
        self._transmit = transmit
        self._most = MAX_DATAGRAM_BYTES
        self._timeouts = 0
        self._flight: list[bytes] = []  # the datagrams that nothing of the peer's has followed yet
        self._expected = expected
        self._listening = cookie_exchanged

    # --- what aiortc's SCTP asks of its transport ------------------------------------------

    @property
    def transport(self) -> "Dtls":
        """What aiortc takes for the ICE transport; it uses nothing of that which we reach."""
        return self

    def _register_data_receiver(self, receiver: DataReceiver) -> None:
        """Data goes to whoever calls `receive`."""

    def _unregister_data_receiver(self, receiver: DataReceiver) -> None:
        """Nothing was registered."""

    async def _send_data(self, data: bytes) -> None:
        self.send(data)

    # --- the association ---------------------------------------------------------------------

    def start(self) -> None:
        """Send the first flight, as client; as server, be ready for the peer's."""
        self.state = DtlsState.CONNECTING
        if not self._listening:
            self._handshake()

    def receive(self, datagram: bytes) -> list[bytes] | None:
        """The plaintexts in a datagram; None if it was nothing for this association.

        A handshake message that moved the handshake on gives an empty list.
        """
        if self._records is not None:
            return self._open(self._records, datagram)
        if self.state is DtlsState.CONNECTED:
            return self._decrypt(datagram) or self._is_over()
        return self._receive_flight(datagram) if self.state is DtlsState.CONNECTING else None

    def send(self, plaintext: bytes) -> None:
        """Encrypt into one record and transmit it; nothing happens unless connected."""
        if self.state is not DtlsState.CONNECTED:
            return
        self._transmit(self.seal(plaintext))

    def seal(self, plaintext: bytes) -> bytes:
        """One record for whoever sends it himself; only while connected."""
        if self._records is not None:
            return self._records.seal(APPLICATION_DATA, plaintext)
        try:
            self._ssl.send(plaintext)
            record = self._ssl.bio_read(_FLIGHT_BYTES)
        except SSL.Error as error:
            raise LocalProtocolError(f"cannot encrypt {len(plaintext)} bytes: {error}") from error
        self._last_sent = record
        return record

    @property
    def overhead(self) -> int:
        """Bytes that a record adds to its plaintext, at most."""
        if self._records is not None or self._ssl.get_cipher_name() in SUITES:
            return AEAD_BYTES
        return CBC_BYTES

    @property
    def is_small(self) -> bool:
        """Whether the handshake has had to do with small datagrams."""
        return self._most < MAX_DATAGRAM_BYTES

    def timeout(self) -> float | None:
        """Seconds until `handle_timeout` is due, or None."""
        return self._ssl.DTLSv1_get_timeout() if self.state is DtlsState.CONNECTING else None

    def handle_timeout(self) -> None:
        """If it is due, send the last flight again (RFC 6347 §4.2.4): the second time in small
        datagrams, and so whatever follows.
        """
        if self._ssl.DTLSv1_get_timeout() != 0:
            return
        self._timeouts += 1
        if self._timeouts == SMALL_AFTER:
            self._most = LEAST_DATAGRAM_BYTES
            self._ssl.set_ciphertext_mtu(LEAST_DATAGRAM_BYTES)
        try:
            self._ssl.DTLSv1_handle_timeout()
        except SSL.Error:
            self._fail(EndReason.TIMEOUT)
        self._flush()

    def repeat(self) -> bool:
        """Transmit the last flight once more, byte by byte; False: the peer has answered it.

        OpenSSL waits a second. Who has the flight drops the copy, as one that a network has made.
        """
        if self._records is not None or self.state in (DtlsState.CLOSED, DtlsState.FAILED):
            return False
        for datagram in self._flight:
            self._transmit(datagram)
        return bool(self._flight)

    def close(self) -> None:
        """Say close_notify if there is somebody to say it to; nothing is transmitted afterwards."""
        if self.state is DtlsState.CONNECTED:
            self._say_goodbye()
        if self.state is not DtlsState.FAILED:
            self.state = DtlsState.CLOSED
        self._transmit = _nowhere

    # --- inside --------------------------------------------------------------------------------

    def _receive_flight(self, datagram: bytes) -> list[bytes] | None:
        if self._listening and not self._accept(datagram):
            return None
        self.handle_timeout()  # else OpenSSL does it while it reads, and nobody counts it
        if self.state is DtlsState.FAILED:
            return []
        before, flight = self._ssl.get_state_string(), self._flight
        self._flight = []
        self._note_numbers(datagram)
        self._ssl.bio_write(datagram)
        self._handshake()
        moved = self.state is not DtlsState.CONNECTING or self._ssl.get_state_string() != before
        if not moved:
            self._flight = self._flight or flight
        plaintexts = self._read_all() if self.state is DtlsState.CONNECTED else []
        return plaintexts if moved else None

    def _is_over(self) -> list[bytes] | None:
        return None if self.state is DtlsState.CONNECTED else []

    def _decrypt(self, datagram: bytes) -> list[bytes]:
        # The usual datagram is one record: one call into OpenSSL, and no second that only
        # finds out, by an exception, that there is no more.
        newest = self._newest_seen
        self._note_numbers(datagram)
        self._ssl.bio_write(datagram)
        if len(datagram) != RECORD_HEADER_BYTES + int.from_bytes(datagram[11:13], "big"):
            return self._read_all()
        try:
            plaintext = self._ssl.recv(_READ_BYTES)
        except SSL.Error as error:
            self._on_error(error)
            return []
        self._flight = []
        if self._newest_seen > newest:
            self._take_over(datagram)
        return [plaintext]

    def _note_numbers(self, datagram: bytes) -> None:
        """Only a record newer than all these may end OpenSSL's window against replays.

        Who forges a high number in time makes us keep OpenSSL: that costs memory, not the link.
        """
        start = 0
        while start + RECORD_HEADER_BYTES <= len(datagram):
            number = int.from_bytes(datagram[start + 3 : start + 11], "big")
            self._newest_seen = max(self._newest_seen, number)
            start += RECORD_HEADER_BYTES + int.from_bytes(datagram[start + 11 : start + 13], "big")

    def _take_over(self, heard: bytes) -> None:
        """Let OpenSSL go: data from the peer says that no flight need be sent again."""
        ssl = self._ssl
        suite, master = ssl.get_cipher_name(), ssl.master_key()
        client_random, server_random = ssl.client_random(), ssl.server_random()
        if suite in SUITES and self._last_sent and master and client_random and server_random:
            secrets = Secrets(suite, master, client_random, server_random)
            self._records = Records(secrets, self._role, self._last_sent, heard)
            del self._ssl

    def _open(self, records: Records, datagram: bytes) -> list[bytes] | None:
        """The plaintexts of all records in a datagram; None if none was genuine."""
        if self.state is not DtlsState.CONNECTED:
            return None
        plaintexts: list[bytes] = []
        genuine, start = False, 0
        while start + RECORD_HEADER_BYTES <= len(datagram):
            size = int.from_bytes(datagram[start + 11 : start + 13], "big")
            record = datagram[start : start + RECORD_HEADER_BYTES + size]
            start += RECORD_HEADER_BYTES + size
            if start > len(datagram) or record[0] not in {ALERT, APPLICATION_DATA}:
                continue  # cut off, or a handshake message sent again: that has done its work
            plaintext = records.open(record)
            if plaintext is None:
                continue
            genuine = True
            if record[0] == APPLICATION_DATA:
                plaintexts.append(plaintext)
            else:
                self._on_alert(plaintext)
        return plaintexts if genuine else None

    def _on_alert(self, alert: bytes) -> None:
        if alert == CLOSE_NOTIFY:
            self.state = DtlsState.CLOSED
        elif alert[:1] == FATAL:
            self._fail(EndReason.PROTOCOL)

    def _read_all(self) -> list[bytes]:
        plaintexts = []
        try:
            while True:
                plaintexts.append(self._ssl.recv(_READ_BYTES))
        except SSL.Error as error:
            self._on_error(error)
        return plaintexts

    def _on_error(self, error: SSL.Error) -> None:
        """Nothing to read: mostly a foreign or replayed record; OpenSSL has dropped it."""
        self._flush()  # the peer may have lost our last flight
        if isinstance(error, SSL.ZeroReturnError):
            self.state = DtlsState.CLOSED
        elif not isinstance(error, SSL.WantReadError):
            self._fail(EndReason.PROTOCOL)

    def _accept(self, datagram: bytes) -> bool:
        """Take up a handshake whose cookie exchange the endpoint has done.

        The ClientHello has message_seq 1; `DTLSv1_listen` learns the sequence numbers from it,
        and it is then read once more as the first message.
        """
        self._ssl.bio_write(datagram)
        try:
            self._ssl.DTLSv1_listen()
        except SSL.Error:
            self._drain()  # no ClientHello, or without a cookie: OpenSSL's own request is unwanted
            return False
        self._listening = False
        return True

    def _handshake(self) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._flush()
        except SSL.Error:
            self._flush()  # the alert that says why
            self._fail(EndReason.PROTOCOL)
        else:
            self._flush()
            self._on_connected()

    def _on_connected(self) -> None:
        certificate = self._ssl.get_peer_certificate()
        if certificate is not None:
            self.fingerprint = bytes.fromhex(certificate.digest("sha256").decode().replace(":", ""))
        if self.fingerprint != (self._expected or self.fingerprint) or not self.fingerprint:
            self._say_goodbye()
            self._fail(EndReason.CERTIFICATE)
            return
        self.exporter = self._ssl.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)
        self.state = DtlsState.CONNECTED

    def _say_goodbye(self) -> None:
        if self._records is not None:
            self._transmit(self._records.seal(ALERT, CLOSE_NOTIFY))
            return
        try:
            self._ssl.shutdown()
        except SSL.Error:
            pass  # there is nobody to tell then
        self._flush()

    def _fail(self, why: EndReason) -> None:
        self.state = DtlsState.FAILED
        self.failure = why

    def _drain(self) -> bytes:
        try:
            return self._ssl.bio_read(_FLIGHT_BYTES)
        except SSL.Error:
            return b""

    def _flush(self) -> None:
        """Transmit what OpenSSL wrote, whole records packed into datagrams (RFC 6347 §4.1.1)."""
        flight = self._drain()
        datagrams: list[bytes] = []
        start = end = 0
        while end < len(flight):
            size = RECORD_HEADER_BYTES + int.from_bytes(flight[end + 11 : end + 13], "big")
            if flight[end + 3 : end + 5] == b"\0\1":
                self._last_sent = flight[end : end + size]
            if end > start and end + size - start > self._most:
                datagrams.append(flight[start:end])
                start = end
            end += size
        if end > start:
            datagrams.append(flight[start:end])
        for datagram in datagrams:
            self._transmit(datagram)
        self._flight = datagrams or self._flight


def _nowhere(datagram: bytes) -> None:
    """Nobody is left to send this."""
