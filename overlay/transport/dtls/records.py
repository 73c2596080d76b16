"""Records of an established DTLS 1.2 association (RFC 6347 §4.1), without OpenSSL.

OpenSSL makes the handshake. Afterwards all that is left to do is one AEAD call a datagram, while
its connection object goes on holding buffers for retransmissions that can no longer be asked for
(measured: 77 KiB an association; these records need 3, and a third of the time a datagram).
"""

import hmac
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

ALERT = 21
APPLICATION_DATA = 23
HEADER_BYTES = 13
EXPLICIT_NONCE_BYTES = 8
TAG_BYTES = 16
EPOCH = 1
"""There is no renegotiation, so the keys of the first handshake are epoch 1 for good."""
WINDOW = 64
"""Records older than the newest by this much are refused (RFC 6347 §4.1.2.6)."""
_VERSION = b"\xfe\xfd"
_SALT_BYTES = {"ECDHE-ECDSA-AES128-GCM-SHA256": 4, "ECDHE-ECDSA-CHACHA20-POLY1305": 12}
_KEY_BYTES = {4: 16, 12: 32}  # by the size of the salt
SUITES = frozenset(_SALT_BYTES)
"""OpenSSL's names of the suites that `Records` can protect; the others stay with OpenSSL."""
_MASK = (1 << WINDOW) - 1
_SEQUENCE_MAX = (1 << 48) - 1


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the handshake agreed on, from which both directions' keys come (RFC 5246 §6.3)."""

    suite: str
    """One of `SUITES`."""
    master: bytes = field(repr=False)
    client_random: bytes
    server_random: bytes

    def key_block(self, size: int) -> bytes:
        """The bytes that are cut into keys and salts (RFC 5246 §6.3)."""
        seed = self.server_random + self.client_random
        return prf(self.master, b"key expansion", seed, size)


def prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """`size` bytes of P_SHA256 (RFC 5246 §5): the hash of both suites."""
    seed = label + seed
    output, a = b"", seed
    while len(output) < size:
        a = hmac.digest(secret, a, "sha256")
        output += hmac.digest(secret, a + seed, "sha256")
    return output[:size]


class Aead(Protocol):
    """An AEAD of the cryptography package, with its key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class Records:
    """Seals and opens the records of both directions."""

    def __init__(self, secrets: Secrets, role: str, last_sent: bytes, last_heard: bytes) -> None:
        """Go on after the last record that OpenSSL has sent, and the last that it has opened."""
        salt_bytes = _SALT_BYTES[secrets.suite]
        key_bytes = _KEY_BYTES[salt_bytes]
        block = secrets.key_block(2 * (key_bytes + salt_bytes))
        keys = block[:key_bytes], block[key_bytes : 2 * key_bytes]
        salts = block[2 * key_bytes : -salt_bytes], block[-salt_bytes:]
        ours, theirs = (0, 1) if role == "client" else (1, 0)
        self._explicit = salt_bytes == 4
        cipher = AESGCM if self._explicit else ChaCha20Poly1305
        self._sealing: Aead = cipher(keys[ours])
        self._opening: Aead = cipher(keys[theirs])
        self._salt, self._remote_salt = salts[ours], salts[theirs]
        self._sent = int.from_bytes(last_sent[3:11], "big")
        # OpenSSL counts its nonces from a random start: going on from there repeats none.
        self._nonce = int.from_bytes(last_sent[HEADER_BYTES : HEADER_BYTES + 8], "big")
        self._newest = int.from_bytes(last_heard[3:11], "big")
        self._heard = _MASK  # what came before was OpenSSL's: nothing of it is taken again

    def seal(self, kind: int, plaintext: bytes) -> bytes:
        """One record; `kind` is its content type."""
        self._sent += 1
        assert self._sent & _SEQUENCE_MAX, "2^48 records"
        sequence = self._sent.to_bytes(8, "big")
        typed = b"%c%b" % (kind, _VERSION)
        associated = b"%b%b%b" % (sequence, typed, len(plaintext).to_bytes(2, "big"))
        if self._explicit:  # RFC 5288 §3
            self._nonce = (self._nonce + 1) & 0xFFFF_FFFF_FFFF_FFFF
            explicit = self._nonce.to_bytes(EXPLICIT_NONCE_BYTES, "big")
            sealed = explicit + self._sealing.encrypt(self._salt + explicit, plaintext, associated)
        else:  # RFC 7905 §2
            nonce = _xor(self._salt, sequence)
            sealed = self._sealing.encrypt(nonce, plaintext, associated)
        return b"%b%b%b%b" % (typed, sequence, len(sealed).to_bytes(2, "big"), sealed)

    def open(self, record: bytes) -> bytes | None:
        """The plaintext; None if forged, replayed, too old or of another epoch."""
        number = int.from_bytes(record[3:11], "big")
        age = self._newest - number
        if number >> 48 != EPOCH or age >= WINDOW or (age >= 0 and self._heard >> age & 1):
            return None
        sequence, sealed = record[3:11], record[HEADER_BYTES:]
        if self._explicit:
            nonce = self._remote_salt + sealed[:EXPLICIT_NONCE_BYTES]
            sealed = sealed[EXPLICIT_NONCE_BYTES:]
        else:
            nonce = _xor(self._remote_salt, sequence)
        size = len(sealed) - TAG_BYTES
        if size < 0:
            return None
        associated = b"%b%b%b" % (sequence, record[:3], size.to_bytes(2, "big"))
        try:
            plaintext = self._opening.decrypt(nonce, sealed, associated)
        except InvalidTag:
            return None
        self._mark(age)
        return plaintext

    def _mark(self, age: int) -> None:
        if age >= 0:
            self._heard |= 1 << age
        else:
            self._newest -= age
            self._heard = (self._heard << -age | 1) & _MASK if age > -WINDOW else 1


def _xor(salt: bytes, sequence: bytes) -> bytes:
    number = int.from_bytes(salt, "big") ^ int.from_bytes(sequence, "big")
    return number.to_bytes(len(salt), "big")
