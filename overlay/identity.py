"""Who a node is: its Ed25519 key, its DTLS certificate, its dial key, and what they can do.

Three files of mode 0600 in the data directory hold them. Nothing here shows a secret in a
representation, an error or a log.
"""

import contextlib
import datetime as dt
import hashlib
import os
import secrets
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import nacl.bindings
import nacl.exceptions
import nacl.signing
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.x509.oid import NameOID

from overlay.core.types import IDENTITY, PeerId
from overlay.errors import ConfigError, UsageError

KEY_BYTES = 32
IDENTITY_FILE = "identity.key"
CERTIFICATE_FILE = "certificate.pem"
DIAL_FILE = "dial.key"

# A DTLS certificate binds nothing to a date: peers compare its fingerprint. Fixed dates keep a
# wrong clock from making one that is not yet valid (2049: the last year of UTCTime, RFC 5280).
_NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(2049, 12, 31, tzinfo=dt.UTC)

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
_SEAL_OVERHEAD = 32 + 16  # the encapsulated key and the tag


# --- the identity and its files ----------------------------------------------------------------


class Identity:
    """A node's three long-lived secrets: signing key, certificate with its key, dial key."""

    __slots__ = ("certificate", "dial_key", "fingerprint", "peer_id", "seed")

    def __init__(self, seed: bytes, certificate: bytes, dial_key: bytes) -> None:
        self.seed = seed  # of the Ed25519 key, 32 bytes
        self.certificate = certificate  # PEM: the private key, then the self-signed certificate
        # 32 bytes: makes and checks our dial tokens (`overlay.core.wire.dial_tokens`).
        self.dial_key = dial_key
        self.peer_id = PeerId(bytes(nacl.signing.SigningKey(seed).verify_key))
        self.fingerprint = _fingerprint(certificate)  # SHA-256 of the certificate in DER, 32 bytes

    def __repr__(self) -> str:
        return f"Identity({peer_id_text(self.peer_id)})"

    @classmethod
    def generate(cls) -> "Identity":
        """A new node, not kept anywhere."""
        return cls(secrets.token_bytes(KEY_BYTES), _new_certificate(), _new_key())


def load_or_create(directory: Path, *, has_lived: bool = False) -> Identity:
    """The identity kept in a data directory, made there first if there is none.

    `has_lived`: there must be one, for a node has been there before; what is lost, empty or cannot
    be read is never made anew, because other members know this node by it.

    Raises ConfigError, one line, when the directory or a file is not as it should be.
    """
    _prepare_directory(directory)
    if not has_lived and not _is_there(directory / IDENTITY_FILE):
        # The identity comes last: where it is, all of it is, even after a crash in between.
        _create_missing(directory / DIAL_FILE, _new_key)
        _create_missing(directory / CERTIFICATE_FILE, _new_certificate)
        _create_missing(directory / IDENTITY_FILE, _new_key)
    seed = _read_key(directory / IDENTITY_FILE)
    dial_key = _read_key(directory / DIAL_FILE)
    return Identity(seed, _read_certificate(directory / CERTIFICATE_FILE), dial_key)


def _new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _new_certificate() -> bytes:
    """A self-signed ECDSA P-256 certificate after its private key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "overlay")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _fingerprint(pem: bytes) -> bytes:
    """SHA-256 over the certificate's DER form (RFC 8122 §5)."""
    text = pem.decode("ascii")
    start = text.index(ssl.PEM_HEADER)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[start:])).digest()


def _prepare_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"the data directory {directory} cannot be used ({error.strerror}): choose another "
            "with --data-dir"
        ) from None
    if mode & 0o022:
        raise ConfigError(
            f"the data directory {directory} can be written by others (mode {mode & 0o777:04o}), "
            f"who could replace its keys: run `chmod 700 {directory}`"
        )


def _is_there(path: Path) -> bool:
    """Whether there is such a file, be it a link that leads to a disk which is not mounted."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(path, error) from None
    return True


def _create_missing(path: Path, make: Callable[[], bytes]) -> None:
    """Write a new file whole or not at all, readable by its owner only."""
    if _is_there(path):
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}): make room or choose another directory "
            "with --data-dir"
        ) from None


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({error.strerror}): make it readable for the user who runs "
        "this node, or choose another directory with --data-dir"
    )


def _read_secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing, though this node has an identity: restore it, or delete "
            f"{path.parent} to start as a new node"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if mode & 0o077:
        raise ConfigError(
            f"{path} is a secret that others can get at (mode {mode & 0o777:04o}): "
            f"run `chmod 600 {path}`"
        )
    return data


def _read_key(path: Path) -> bytes:
    data = _read_secret(path)
    if len(data) != KEY_BYTES:
        raise ConfigError(
            f"{path} is damaged (it has {len(data)} bytes, not {KEY_BYTES}): restore it, or "
            f"delete {path.parent} to start as a new node"
        )
    return data


def _read_certificate(path: Path) -> bytes:
    data = _read_secret(path)
    damaged = ConfigError(
        f"{path} is damaged (no private key with its certificate): restore it, or delete "
        f"{path.parent} to start as a new node"
    )
    try:
        key = serialization.load_pem_private_key(data, password=None)
        certificate = x509.load_pem_x509_certificate(data)
        _fingerprint(data)
    except (ValueError, TypeError):
        raise damaged from None
    public = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != public:
        raise damaged
    return data


# --- the keys at work --------------------------------------------------------------------------


class PrekeyStore(Protocol):
    """Keeps private prekeys, 32 bytes each, by their id, for as long as they live."""

    def load(self, prekey_id: int) -> bytes | None:
        """The key kept under this id."""
        ...

    def save(self, prekey_id: int, private: bytes) -> None:
        """Keep a key."""
        ...

    def delete(self, prekey_id: int) -> None:
        """Destroy a key, kept or not."""
        ...


class MemoryPrekeys:
    """Prekeys of a node that keeps nothing across restarts."""

    def __init__(self) -> None:
        self._keys: dict[int, bytes] = {}

    def load(self, prekey_id: int) -> bytes | None:
        """The key kept under this id."""
        return self._keys.get(prekey_id)

    def save(self, prekey_id: int, private: bytes) -> None:
        """Keep a key until the process ends."""
        self._keys[prekey_id] = private

    def delete(self, prekey_id: int) -> None:
        """Forget a key, kept or not."""
        self._keys.pop(prekey_id, None)


class Keys:
    """The core's `Crypto` port in production: libsodium for signatures, HPKE for seals."""

    def __init__(self, identity: Identity, prekeys: PrekeyStore) -> None:
        self.peer_id = identity.peer_id
        self.fingerprint = identity.fingerprint
        self._signing = nacl.signing.SigningKey(identity.seed)
        self._prekeys = prekeys

    def __repr__(self) -> str:
        return f"Keys({peer_id_text(self.peer_id)})"

    def token(self, size: int) -> bytes:
        """Fresh random bytes of the operating system."""
        return secrets.token_bytes(size)

    def sign(self, data: bytes) -> bytes:
        """Our Ed25519 signature (RFC 8032), 64 bytes."""
        return self._signing.sign(data).signature

    def verify(self, signer: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether `signer` signed exactly `data`. Never raises."""
        try:
            nacl.signing.VerifyKey(signer).verify(data, signature)
        except (nacl.exceptions.CryptoError, ValueError, TypeError):
            return False
        return True

    def sign_with(self, seed: bytes, data: bytes) -> bytes:
        """The signature of the key with this 32-byte seed."""
        return nacl.signing.SigningKey(seed).sign(data).signature

    def public_of(self, seed: bytes) -> PeerId:
        """The public key of the key with this 32-byte seed."""
        return PeerId(bytes(nacl.signing.SigningKey(seed).verify_key))

    def new_prekey(self, prekey_id: int) -> bytes:
        """Make and keep an X25519 key, or find the one kept; its public half, 32 bytes."""
        private = self._prekeys.load(prekey_id)
        if private is None:
            private = X25519PrivateKey.generate().private_bytes_raw()
            self._prekeys.save(prekey_id, private)
        return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()

    def forget_prekey(self, prekey_id: int) -> None:
        """Destroy a prekey: what was sealed to it can no longer be opened."""
        self._prekeys.delete(prekey_id)

    def sealing_key(self, peer: PeerId) -> bytes:
        """The peer's Ed25519 key as an X25519 key (RFC 7748 §4.1, the birational map).

        A peer id that is no point of the curve gives zeros, to which nothing can be sealed.
        """
        try:
            return nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(peer)
        except (nacl.exceptions.CryptoError, ValueError, TypeError):
            return bytes(32)

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """HPKE base mode (RFC 9180 §6.1): encapsulated key ‖ ciphertext.

        A peer may publish a key to which nothing can be sealed (of low order, RFC 7748 §6.1):
        what comes out then is noise that nobody can open.
        """
        try:
            return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public), info)
        except ValueError:
            return secrets.token_bytes(_SEAL_OVERHEAD + len(plaintext))

    def open(self, prekey_id: int, info: bytes, sealed: bytes) -> bytes | None:
        """The plaintext, or None when the key is gone or the seal broken. Never raises."""
        if prekey_id == IDENTITY:
            private: bytes | None = bytes(self._signing.to_curve25519_private_key())
        else:
            private = self._prekeys.load(prekey_id)
        if private is None:
            return None
        try:
            return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)
        except (InvalidTag, ValueError):
            return None


def ephemeral() -> Keys:
    """The keys of nobody: to check what others have signed."""
    return Keys(Identity.generate(), MemoryPrekeys())


# --- PeerIds as text ---------------------------------------------------------------------------

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Identity hash of 36 bytes: a protobuf of key type 1, Ed25519, and 32 bytes (libp2p peer-ids).
_IDENTITY_MULTIHASH = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_TEXT_LENGTH = 52


def peer_id_text(peer: PeerId) -> str:
    """The libp2p PeerId: ``12D3KooW…``, 52 characters of base58btc."""
    number = int.from_bytes(_IDENTITY_MULTIHASH + peer, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" + digits  # one leading zero byte, so one leading 1


def parse_peer_id(text: str) -> PeerId:
    """The peer with this PeerId. Raises UsageError when it is none of an Ed25519 key."""
    wrong = UsageError(
        f"{text[:60]!r} is no peer id: one has {_TEXT_LENGTH} characters and begins with 12D3KooW "
        "(see `overlay peers`)"
    )
    if len(text) != _TEXT_LENGTH or not set(text) <= set(_BASE58):
        raise wrong
    number = 0
    for digit in text:
        number = number * 58 + _BASE58.index(digit)
    data = number.to_bytes(_TEXT_LENGTH, "big")[-len(_IDENTITY_MULTIHASH) - KEY_BYTES :]
    peer = PeerId(data[len(_IDENTITY_MULTIHASH) :])
    if peer_id_text(peer) != text:
        raise wrong
    return peer
