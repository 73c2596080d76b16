"""Stand-in keys for simulated worlds: fast, deterministic, and still refusing forgeries.

A signature is a keyed digest; the world's ledger of key pairs takes the place of mathematics, so
that only the holder of a key object can sign for its public half.
"""

from dataclasses import dataclass, field
from hashlib import blake2b, sha256

from overlay.core.types import IDENTITY, PeerId, Random


@dataclass(slots=True)
class Ledger:
    """Which secret belongs to which public key, for one world."""

    secrets: dict[bytes, bytes] = field(default_factory=dict)

    def enrol(self, secret: bytes) -> bytes:
        """The public half of a secret."""
        public = sha256(b"public" + secret).digest()
        self.secrets[public] = secret
        return public


class StandInCrypto:
    """The crypto port of one simulated node; its tokens are digests of a secret and a count."""

    __slots__ = (
        *("_count", "_ledger", "_prekeys", "_secret", "_source"),
        *("fingerprint", "peer_id"),
    )

    def __init__(self, ledger: Ledger, random: Random) -> None:
        self._ledger = ledger
        self._secret = random.randbytes(32)
        self._source = random.randbytes(32)
        self._count = 0
        self._prekeys: dict[int, tuple[bytes, bytes]] = {}
        """Secret and public halves."""
        self.peer_id = PeerId(ledger.enrol(self._secret))
        self.fingerprint = sha256(b"certificate" + self._secret).digest()

    def token(self, size: int) -> bytes:
        """Seeded bytes, at most 64."""
        self._count += 1
        return blake2b(self._count.to_bytes(8, "big"), key=self._source, digest_size=size).digest()

    def sign(self, data: bytes) -> bytes:
        """64 bytes that only our secret makes."""
        return _tag(self._secret, data)

    def verify(self, signer: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether the signer's secret made this signature over exactly this data."""
        secret = self._ledger.secrets.get(signer)
        return secret is not None and _tag(secret, data) == signature

    def sign_with(self, seed: bytes, data: bytes) -> bytes:
        """The signature of the key with this seed."""
        self._ledger.enrol(seed)
        return _tag(seed, data)

    def public_of(self, seed: bytes) -> PeerId:
        """The public key of the key with this seed."""
        return PeerId(self._ledger.enrol(seed))

    def new_prekey(self, prekey_id: int) -> bytes:
        """Make and keep a sealing key; the same id gives the same key."""
        if prekey_id not in self._prekeys:
            secret = self.token(32)
            self._prekeys[prekey_id] = (secret, self._ledger.enrol(secret))
        return self._prekeys[prekey_id][1]

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
        held = (
            (self._secret, self.peer_id) if prekey_id == IDENTITY else self._prekeys.get(prekey_id)
        )
        if held is None or held[1] != sealed[:32]:
            return None
        tag, plaintext = sealed[32:96], sealed[96:]
        return plaintext if _tag(sealed[:32], info + plaintext) == tag else None


def _tag(key: bytes, data: bytes) -> bytes:
    return blake2b(data, key=key).digest()
