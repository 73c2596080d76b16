"""Offers and answers sealed for the way: to a passphrase, or to the key that a peer id is.

A passphrase is stretched with argon2id (RFC 9106) at libsodium's interactive cost, so that a guess
takes 64 MiB and a tenth of a second; the box is XSalsa20-Poly1305. Sealed to a peer id, only that
node can open it (a libsodium sealed box to its Ed25519 key as X25519).
"""

import nacl.exceptions
import nacl.public
import nacl.pwhash.argon2id as argon2
import nacl.secret
import nacl.signing
import nacl.utils

from overlay.core.types import PeerId
from overlay.core.wire.by_hand import Kind
from overlay.errors import InviteError

_PASSPHRASE, _KEY = 0, 1
_OPSLIMIT, _MEMLIMIT = argon2.OPSLIMIT_INTERACTIVE, argon2.MEMLIMIT_INTERACTIVE
PASSPHRASE_MIN = 8
"""Characters (guess): what is shorter is guessed in no time, whatever a guess costs."""


def seal_with(passphrase: str, payload: bytes) -> bytes:
    """The payload for whoever knows the passphrase: 57 bytes more."""
    salt = nacl.utils.random(argon2.SALTBYTES)
    box = nacl.secret.SecretBox(_stretched(passphrase, salt))
    return bytes([Kind.SEALED << 4 | _PASSPHRASE]) + salt + bytes(box.encrypt(payload))


def seal_to(peer: PeerId, payload: bytes) -> bytes:
    """The payload for this peer alone: 49 bytes more. InviteError: nobody can have that id."""
    try:
        public = nacl.signing.VerifyKey(peer).to_curve25519_public_key()
    except (nacl.exceptions.CryptoError, ValueError, TypeError, RuntimeError):
        raise InviteError("nothing can be sealed to this peer id: nobody can have it") from None
    return bytes([Kind.SEALED << 4 | _KEY]) + nacl.public.SealedBox(public).encrypt(payload)


def is_sealed(payload: bytes) -> bool:
    """Whether it has to be opened first."""
    return payload[0] >> 4 == Kind.SEALED


def opened(payload: bytes, seed: bytes, passphrase: str | None) -> bytes:
    """What was sealed to our key (its seed) or with this passphrase. InviteError: neither."""
    if not is_sealed(payload):
        return payload
    how, sealed = payload[0] & 15, payload[1:]
    try:
        if how == _KEY:
            private = nacl.signing.SigningKey(seed).to_curve25519_private_key()
            return bytes(nacl.public.SealedBox(private).decrypt(sealed))
        if how == _PASSPHRASE and passphrase is not None:
            salt, box = sealed[: argon2.SALTBYTES], sealed[argon2.SALTBYTES :]
            return bytes(nacl.secret.SecretBox(_stretched(passphrase, salt)).decrypt(box))
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        why = "to the key of another node" if how == _KEY else "with another passphrase"
        raise InviteError(f"it is sealed {why}, or was changed on its way") from None
    if how == _PASSPHRASE:
        raise InviteError("it is sealed with a passphrase: give the same with `--seal`")
    raise InviteError("it is sealed in a way that this overlay does not know: update overlay")


def _stretched(passphrase: str, salt: bytes) -> bytes:
    return argon2.kdf(
        nacl.secret.SecretBox.KEY_SIZE,
        passphrase.encode(),
        salt,
        opslimit=_OPSLIMIT,
        memlimit=_MEMLIMIT,
    )
