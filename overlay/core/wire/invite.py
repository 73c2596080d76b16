"""Invites: a link that lets its holder in, and what the holder shows to be let in.

``overlay:`` and base64url of version ‖ MessagePack ‖ checksum. The issuer's `Grant` names a
public invite key; the link carries that key's seed. A joiner signs its own key and the session
with it, so any member can check an admission, and nobody can use one twice on another link.
"""

import base64
import hashlib
import re
from dataclasses import dataclass

import msgspec

from overlay.core.types import Address, Crypto, GoodbyeCode, PeerId, Refusal
from overlay.core.wire import signing
from overlay.core.wire.bounds import ADMISSION_MAX
from overlay.core.wire.codec import Broken, Reader
from overlay.core.wire.documents import AddressEntry, Admission, Grant, InviteBody, Signed
from overlay.errors import InviteError

PREFIX = "overlay:"
INVITE_VERSION = 1
CHECKSUM_BYTES = 4
LINK_MAX = 32 * 1024
"""Characters of a link, white space included."""
ADMISSION_LABEL = b"overlay admission 1"
_BODIES = Reader(InviteBody)
_ADMISSIONS = Reader(Admission)
_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")
_AGAIN = "ask for the link again, or copy all of it, from `overlay:` to its last character"


# --- the link ----------------------------------------------------------------------------------


def encode(body: InviteBody) -> str:
    """The invite as a link: one word that survives e-mail. It is a secret."""
    payload = bytes([INVITE_VERSION]) + msgspec.msgpack.encode(body)
    packed = payload + _checksum(payload)
    return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(text: str) -> InviteBody:
    """The invite in a link; white space and line breaks in it do no harm.

    Raises InviteError, one line: no link at all, truncated, mistyped, of a newer version. Whether
    it has expired, or is a forgery, is for `check` to say.
    """
    packed = _unwrap(text)
    payload, checksum = packed[:-CHECKSUM_BYTES], packed[-CHECKSUM_BYTES:]
    if len(packed) <= CHECKSUM_BYTES or _checksum(payload) != checksum:
        raise InviteError(_damage(packed))
    if payload[0] != INVITE_VERSION:
        raise InviteError(
            f"the invite link has version {payload[0]}, this overlay reads version "
            f"{INVITE_VERSION}: update overlay, or ask for a link from the same version"
        )
    body = _BODIES.read(payload[1:], LINK_MAX)
    if isinstance(body, Broken):
        raise InviteError(f"the invite link is malformed ({body.why}): ask for a new one")
    grant_of(body)
    return body


def grant_of(body: InviteBody) -> Grant:
    """The grant inside, its signature unchecked. Raises InviteError when there is none."""
    grant = signing.peek(body.grant, Grant)
    if isinstance(grant, str):
        raise InviteError(f"the invite link is malformed ({grant}): ask for a new one")
    return grant


def check(body: InviteBody, wall: float, crypto: Crypto) -> Grant:
    """The grant, if a member would honour it now. Raises InviteError: forged or expired."""
    grant = signing.verified(body.grant, Grant, crypto)
    if isinstance(grant, str) or crypto.public_of(body.seed) != grant.invite_key:
        raise InviteError("the invite link was not made by whom it names: ask for a new one")
    if grant.expires_at <= wall:
        ago = _duration(wall - grant.expires_at)
        raise InviteError(
            f"the invite link expired {ago} ago: ask for a new one (or set this machine's clock)"
        )
    return grant


@dataclass(frozen=True, slots=True)
class ExplainedMember:
    """Whom an invite lets one dial, and where."""

    peer: PeerId
    addresses: tuple[tuple[Address, bool], ...]
    """With each, whether it is proven."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an invite says, without its secrets."""

    network: bytes
    network_name: str
    invite_id: bytes
    issuer: PeerId
    role: str
    uses: int
    """0 is without limit."""
    expires_at: int
    expired: bool
    members: tuple[ExplainedMember, ...]


def explain(body: InviteBody, wall: float) -> Explanation:
    """What `overlay invite show` prints: no seed, no token. Raises InviteError if malformed."""
    grant = grant_of(body)
    members = tuple(
        ExplainedMember(PeerId(member.peer_id), tuple(map(_address, member.addresses)))
        for member in body.members
    )
    return Explanation(
        network=grant.network,
        network_name=body.network_name,
        invite_id=grant.invite_id,
        issuer=PeerId(grant.issuer),
        role=grant.role,
        uses=grant.uses,
        expires_at=grant.expires_at,
        expired=grant.expires_at <= wall,
        members=members,
    )


# --- grants and admissions ---------------------------------------------------------------------


def make_grant(grant: Grant, crypto: Crypto) -> Signed:
    """The signed grant: whoever holds the invite key may join until it expires."""
    assert grant.issuer == crypto.peer_id, "a grant of somebody else"
    return signing.sign(grant, crypto)


def open_grant(signed: Signed, wall: float, crypto: Crypto) -> Grant | Refusal:
    """The grant, or why it is not to be honoured. Never raises."""
    grant = signing.verified(signed, Grant, crypto)
    if isinstance(grant, str):
        return _refused(f"the invite's grant does not hold ({grant})")
    if grant.expires_at <= wall:
        ago = _duration(wall - grant.expires_at)
        return Refusal(GoodbyeCode.EXPIRED, f"the invite has expired {ago} ago")
    return grant


def make_admission(grant: Signed, seed: bytes, session: bytes, crypto: Crypto) -> bytes:
    """What we show to be let in on this very session; `seed` is the invite key's."""
    signed = _admission_text(grant, session, crypto.peer_id)
    return msgspec.msgpack.encode(Admission(grant, crypto.sign_with(seed, signed)))


def check_admission(
    data: bytes, session: bytes, peer: PeerId, network: bytes, wall: float, crypto: Crypto
) -> Grant | Refusal:
    """The grant that lets `peer` in on this session, or why not. Never raises."""
    admission = _ADMISSIONS.read(data, ADMISSION_MAX)
    if isinstance(admission, Broken):
        return _refused(f"the admission is malformed ({admission.why})")
    grant = open_grant(admission.grant, wall, crypto)
    if isinstance(grant, Refusal):
        return grant
    if grant.network != network:
        return _refused("the invite is for another network")
    signed = _admission_text(admission.grant, session, peer)
    if not crypto.verify(PeerId(grant.invite_key), signed, admission.signature):
        return _refused("the admission was not made with the invite's key for this link")
    return grant


def _refused(text: str) -> Refusal:
    return Refusal(GoodbyeCode.REFUSED, text)


def _admission_text(grant: Signed, session: bytes, peer: PeerId) -> bytes:
    """What the invite key signs: who, on which session, by which grant."""
    parts = (peer, session, hashlib.sha256(grant.body).digest())
    return signing.labelled(ADMISSION_LABEL, msgspec.msgpack.encode(parts))


# --- reading what people paste -----------------------------------------------------------------


def _unwrap(text: str) -> bytes:
    """The bytes that a link stands for. Raises InviteError."""
    if len(text) > LINK_MAX:
        raise InviteError(f"this is no invite link: it is too long; {_AGAIN}")
    word = "".join(text.split()).strip("<>\"'`")
    if not word.lower().startswith(PREFIX):
        raise InviteError(f"this is no invite link: one begins with `{PREFIX}`; {_AGAIN}")
    encoded = word[len(PREFIX) :].rstrip("=")
    if not _ALPHABET.fullmatch(encoded):
        raise InviteError(f"the invite link is mistyped: it has a character too many; {_AGAIN}")
    if len(encoded) % 4 == 1:  # no number of bytes is written like this (RFC 4648 §4)
        raise InviteError(f"the invite link is truncated; {_AGAIN}")
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:CHECKSUM_BYTES]


def _damage(packed: bytes) -> str:
    """What has most likely happened to a link whose checksum is wrong."""
    if _ends_early(packed):
        return f"the invite link is truncated; {_AGAIN}"
    return f"the invite link is mistyped (its checksum is wrong); {_AGAIN}"


def _ends_early(packed: bytes) -> bool:
    """Whether the body, or the checksum behind it, is not all there."""
    for missing in range(1, CHECKSUM_BYTES + 1):
        body = packed[1 : len(packed) - CHECKSUM_BYTES + missing]
        if not isinstance(_BODIES.read(body, LINK_MAX), Broken):
            return True
    try:
        msgspec.msgpack.decode(packed[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "truncated" in str(error)  # msgspec has no type for it; a test watches the word
    return False


def _address(entry: AddressEntry) -> tuple[Address, bool]:
    return Address(entry.host, entry.port), entry.proven


def _duration(seconds: float) -> str:
    """Roughly, for people."""
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} seconds"
