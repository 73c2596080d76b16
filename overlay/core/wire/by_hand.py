"""First contact by hand: an offer and an answer that people carry, in the alphabet of links.

An offer is an invite (`overlay.core.wire.compact`) that names its maker alone, with all addresses
at which it may be met; its secret is the invite's. An answer names the answerer's key, certificate
and addresses, under a MAC by that secret. What else ICE needs follows from both: no credentials and
no attempt are written. Either may be sealed (`overlay.rendezvous.seals`), and is armoured then.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from overlay.core.types import Crypto, IceCredentials
from overlay.core.wire import compact
from overlay.core.wire.armour import Damage, armour, found, read
from overlay.core.wire.bounds import violation
from overlay.core.wire.documents import InviteBody, InviteMember
from overlay.core.wire.invite import AGAIN, OTHERS, grant_of
from overlay.errors import InviteError

Body = TypeVar("Body")
MAC_BYTES = 16
_KEY_BYTES = 32


class Kind(IntEnum):
    """What an armoured text is: the high half of its first byte."""

    LINK = compact.VERSION
    OFFER = 4
    ANSWER = 5
    SEALED = 6


NAMES = {int(Kind.LINK): "an invite link, which `overlay join` takes", **OTHERS}


@dataclass(frozen=True, slots=True)
class Answer:
    """Who wants to meet the maker of an offer, and where it is."""

    invite_id: bytes
    """Of the offer that it answers."""
    member: InviteMember
    """The answerer; it has no token."""
    signed: bytes
    """What the MAC is over."""
    mac: bytes


def kind_of(payload: bytes) -> Kind | None:
    """What a payload is, if this version knows."""
    try:
        return Kind(payload[0] >> 4)
    except ValueError:
        return None


def payloads_of(text: str, what: str) -> list[bytes]:
    """The payloads in what somebody pasted: a reply may quote what it replies to.

    InviteError says that there is none, and so no `what`.
    """
    payloads: list[bytes] = []
    wrong = ""
    for pieces in found(text):
        payload = read(pieces)
        if isinstance(payload, bytes):
            payloads.append(payload)
        else:
            wrong = _damage(payload)
    why = wrong or "there is no word in it that begins with `overlay:`"
    if not payloads:
        raise InviteError(f"this is no {what}, or not all of it: {why}; {AGAIN}")
    return payloads


def is_whole(text: str, kind: Kind) -> bool:
    """Whether all of a text of this kind, or of one that is sealed, is there."""
    payloads = map(read, found(text))
    return any(
        isinstance(each, bytes) and kind_of(each) in (kind, Kind.SEALED) for each in payloads
    )


def write_offer(body: InviteBody) -> bytes:
    """The payload of an offer."""
    payload = compact.write(body, grant_of(body))
    return bytes([Kind.OFFER << 4 | payload[0] & 15]) + payload[1:]


def read_offer(payload: bytes, crypto: Crypto) -> InviteBody:
    """The offer in a payload. Raises InviteError."""
    body = _expect(payload, Kind.OFFER, lambda: compact.read(payload, crypto.public_of))
    issuer = grant_of(body).issuer
    outside = violation(body)
    if outside is not None or [member.peer_id for member in body.members] != [issuer]:
        raise InviteError("the offer is malformed: ask for a new one")
    return body


def write_answer(invite_id: bytes, member: InviteMember, seed: bytes) -> bytes:
    """The payload of an answer to the offer with this id and invite key."""
    signed = bytes([Kind.ANSWER << 4]) + invite_id + member.peer_id
    signed += compact.write_addresses(member.addresses) + member.fingerprint
    return signed + _derived(seed, b"answer", signed)[:MAC_BYTES]


def read_answer(payload: bytes) -> Answer:
    """The answer in a payload, its MAC unchecked. Raises InviteError."""
    return _expect(payload, Kind.ANSWER, lambda: _read_answer(payload))


def _read_answer(payload: bytes) -> Answer:
    reader = compact.Reader(payload)
    reader.take(1)
    invite_id, peer = reader.take(8), reader.take(_KEY_BYTES)
    addresses = compact.read_addresses(reader)
    member = InviteMember(peer, reader.take(_KEY_BYTES), bytes(16), addresses)
    mac = reader.take(MAC_BYTES)
    if reader.left or violation(member) is not None:
        raise compact.Odd("what no answer says")
    return Answer(invite_id, member, payload[:-MAC_BYTES], mac)


def is_answer_to(answer: Answer, seed: bytes) -> bool:
    """Whether its author holds the offer."""
    return hmac.compare_digest(_derived(seed, b"answer", answer.signed)[:MAC_BYTES], answer.mac)


@dataclass(frozen=True, slots=True)
class Terms:
    """What both ends know once the answer has been carried back."""

    offerer: IceCredentials
    answerer: IceCredentials
    attempt: bytes


def terms(seed: bytes, answerer: bytes) -> Terms:
    """For the offer with this invite key and the answerer with this certificate fingerprint."""
    names = [_derived(seed, name, answerer)[:16] for name in (b"ou", b"op", b"au", b"ap", b"at")]
    offer_ufrag, offer_password, answer_ufrag, answer_password, attempt = names
    return Terms(
        IceCredentials(offer_ufrag.hex(), offer_password.hex()),
        IceCredentials(answer_ufrag.hex(), answer_password.hex()),
        attempt,
    )


def text_of(payload: bytes) -> str:
    """The payload as people carry it."""
    return armour(payload)


def _expect(payload: bytes, kind: Kind, parse: Callable[[], Body]) -> Body:
    actual = kind_of(payload)
    if actual is not kind:
        other = "of a newer version: update overlay" if actual is None else NAMES[actual]
        raise InviteError(f"this is no {kind.name.lower()}, it is {other}")
    try:
        return parse()
    except (compact.Cut, compact.Odd) as error:
        why = str(error) or "it ends early"
        raise InviteError(
            f"the {kind.name.lower()} is malformed ({why}): ask for a new one"
        ) from None


def _damage(damage: Damage) -> str:
    if damage.other:
        return f"{damage.other!r} is in none"
    return "its end is missing" if damage.cut else "a part is missing, or was changed"


def _derived(seed: bytes, what: bytes, data: bytes) -> bytes:
    return hmac.digest(seed, b"overlay by hand " + what + b"\0" + data, hashlib.sha256)
