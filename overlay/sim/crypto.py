"""Stand-in keys for simulated worlds: fast, deterministic, and still refusing forgeries.

A signature is a keyed digest; the world's ledger of key pairs takes the place of mathematics, so
that only the holder of a key object can sign for its public half.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from overlay.core.types import IDENTITY, PeerId, Random


@dataclass(slots=True)
class Ledger:
    """Which secret belongs to which public key, for one world."""

    secrets: dict[bytes, bytes] = field(default_factory=dict)

    def enrol(self, secret: bytes) -> bytes:
        """The public half of a secret."""
        public = hashlib.sha256(b"public" + secret).digest()
        self.secrets[public] = secret
        return public


class StandInCrypto:
    """The crypto port of one simulated node."""

    def __init__(self, ledger: Ledger, random: Random) -> None:
        self._ledger = ledger
        self._random = random
        self._secret = random.randbytes(32)
        self._prekeys: dict[int, bytes] = {}
        self.peer_id = PeerId(ledger.enrol(self._secret))
        self.fingerprint = hashlib.sha256(b"certificate" + self._secret).digest()

    def token(self, size: int) -> bytes:
        """Seeded bytes."""
        return self._random.randbytes(size)

    def sign(self, data: bytes) -> bytes:
        """64 bytes that only our secret makes."""
        return _tag(self._secret, data)

    def verify(self, signer: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether the signer's secret made this signature over exactly this data."""
        secret = self._ledger.secrets.get(signer)
        return secret is not None and hmac.compare_digest(_tag(secret, data), signature)

    def sign_with(self, seed: bytes, data: bytes) -> bytes:
        """The signature of the key with this seed."""
        self._ledger.enrol(seed)
        return _tag(seed, data)

    def public_of(self, seed: bytes) -> PeerId:
        """The public key of the key with this seed."""
        return PeerId(self._ledger.enrol(seed))

    def new_prekey(self, prekey_id: int) -> bytes:
        """Make and keep a sealing key; the same id gives the same key."""
        secret = self._prekeys.setdefault(prekey_id, self._random.randbytes(32))
        return self._ledger.enrol(secret)

    def forget_prekey(self, prekey_id: int) -> None:
        """Destroy a sealing key."""
        self._prekeys.pop(prekey_id, None)

    def sealing_key(self, peer: PeerId) -> bytes:
        """A peer id serves as its own sealing key."""
        return peer

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """A tagged envelope that only the holder of the secret half takes as opened."""
        return public + _tag(public, info + plaintext) + plaintext

    def open(self, prekey_id: int, info: bytes, sealed: bytes) -> bytes | None:
        """The plaintext if it was sealed to this prekey and is unharmed."""
        secret = self._secret if prekey_id == IDENTITY else self._prekeys.get(prekey_id)
        if secret is None or self._ledger.enrol(secret) != sealed[:32]:
            return None
        tag, plaintext = sealed[32:96], sealed[96:]
        return plaintext if hmac.compare_digest(_tag(sealed[:32], info + plaintext), tag) else None


def _tag(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha512")
