"""Invites: a link that lets its holder in, and what the holder shows to be let in.

The issuer's `Grant` names a public invite key; the link carries that key's seed, or what it is
derived from. A joiner signs its own key and the session with it, so any member can check an
admission, and nobody can use one twice on another link.
"""

import hashlib
from dataclasses import dataclass

import msgspec

from overlay.core.types import Address, Crypto, GoodbyeCode, PeerId, Refusal
from overlay.core.wire import compact, old_links, signing
from overlay.core.wire.armour import PREFIX, TEXT_MAX, Damage, armour, bare, found
from overlay.core.wire.armour import read as read_armour
from overlay.core.wire.bounds import ADMISSION_MAX, violation
from overlay.core.wire.codec import Broken, Reader
from overlay.core.wire.documents import AddressEntry, Admission, Grant, InviteBody, Signed
from overlay.errors import InviteError

ADMISSION_LABEL = b"overlay admission 1"
OTHERS = {
    4: "an offer, which `overlay answer` takes",
    5: "an answer, which `overlay accept` takes where the offer was made",
    6: "sealed, so an offer or an answer: `overlay answer` or `overlay accept` takes it",
}
"""What else is armoured like a link (`overlay.core.wire.by_hand`)."""
_ADMISSIONS = Reader(Admission)
AGAIN = f"ask for the link again, or copy all of it, from `{PREFIX}` to its last character"


# --- the link ----------------------------------------------------------------------------------


def encode(body: InviteBody) -> str:
    """The invite as a link: one word that survives chat and mail. It is a secret."""
    return armour(compact.write(body, grant_of(body)))


def decode(text: str, crypto: Crypto) -> InviteBody:
    """The invite in a text that has a link in it, wrapped, quoted and decorated as may be.

    Raises InviteError, one line: no link at all, truncated, mistyped, of a newer version. Whether
    it has expired, or is a forgery, is for `check` to say.
    """
    errors: list[InviteError] = []
    for pieces in found(text):
        try:
            return _read(pieces, crypto)
        except InviteError as error:
            errors.append(error)
    if errors:
        raise errors[-1]
    if len(text) > TEXT_MAX:
        raise InviteError(f"this is no invite link: it is too long; {AGAIN}")
    raise InviteError(f"this is no invite link: one begins with `{PREFIX}`; {AGAIN}")


def is_whole(text: str) -> bool:
    """Whether there is all of a link in it."""
    for pieces in found(text):
        old = bare(pieces[0])[: len(old_links.BEGIN)].lower() == old_links.BEGIN
        if isinstance(old_links.payload(pieces) if old else read_armour(pieces), bytes):
            return True
    return False


def _read(pieces: list[str], crypto: Crypto) -> InviteBody:
    """The invite in the link that these words begin with. Raises InviteError."""
    if bare(pieces[0])[: len(old_links.BEGIN)].lower() == old_links.BEGIN:
        body = old_links.read(pieces, AGAIN)
        grant_of(body)
        return body
    payload = read_armour(pieces)
    if isinstance(payload, Damage):
        other = old_links.payload(pieces)
        if other is not None:  # It is whole, in the letters of version 1, and of another one.
            raise InviteError(_newer(other[0]))
        raise InviteError(f"{_damage(payload)}; {AGAIN}")
    if payload[0] >> 4 in OTHERS:
        raise InviteError(f"this is no invite link: it is {OTHERS[payload[0] >> 4]}")
    if payload[0] >> 4 != compact.VERSION:
        raise InviteError(_newer(payload[0] >> 4))
    try:
        body = compact.read(payload, crypto.public_of)
    except (compact.Cut, compact.Odd) as error:
        why = str(error) or "it ends early"
        raise InviteError(f"the invite link is malformed ({why}): ask for a new one") from None
    outside = violation(body)
    if outside is not None:
        raise InviteError(f"the invite link is malformed ({outside}): ask for a new one")
    grant_of(body)
    return body


def _newer(version: int) -> str:
    return (
        f"the invite link has version {version}, this overlay reads version {compact.VERSION} and "
        "older: update overlay, or ask for a link from the same version"
    )


def _damage(damage: Damage) -> str:
    """What has most likely happened to a link whose checksum is wrong."""
    if damage.other:
        return f"the invite link is mistyped or shortened: {damage.other!r} is in none"
    if damage.cut or compact.missing(damage.packed):
        return "the invite link is truncated: its end is missing"
    return "the invite link is mistyped (its checksum is wrong)"


def grant_of(body: InviteBody) -> Grant:
    """The grant inside, its signature unchecked. Raises InviteError when there is none."""
    grant = signing.peek(body.grant, Grant)
    if isinstance(grant, str):
        raise InviteError(f"the invite link is malformed ({grant}): ask for a new one")
    return grant


def check(body: InviteBody, wall: float, crypto: Crypto, what: str = "invite link") -> Grant:
    """The grant, if a member would honour it now. Raises InviteError: forged or expired."""
    grant = signing.verified(body.grant, Grant, crypto)
    if isinstance(grant, str) or crypto.public_of(body.seed) != grant.invite_key:
        raise InviteError(f"the {what} was not made by whom it names: ask for a new one")
    if grant.expires_at <= wall:
        ago = _duration(wall - grant.expires_at)
        raise InviteError(
            f"the {what} expired {ago} ago: ask for a new one (or set this machine's clock)"
        )
    return grant


@dataclass(frozen=True, slots=True)
class ExplainedMember:
    """Whom an invite lets one dial, and where."""

    peer: PeerId | None
    """None: the link leaves it out, and the member's hello will prove it."""
    fingerprint: bytes
    """SHA-256 of its certificate: only the node that has it will do."""
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
        ExplainedMember(
            PeerId(member.peer_id) or None,
            member.fingerprint,
            tuple(map(_address, member.addresses)),
        )
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


# --- words -------------------------------------------------------------------------------------


def _address(entry: AddressEntry) -> tuple[Address, bool]:
    return Address(entry.host, entry.port), entry.proven


def _duration(seconds: float) -> str:
    """Roughly, for people."""
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} seconds"
