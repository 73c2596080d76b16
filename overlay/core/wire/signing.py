"""Signed documents: an author's word on exact bytes, under a label that says what it is.

The signature covers ``label ‖ 0 ‖ body``, so no document can pass for one of another kind, and
the body is read from the very bytes that were signed.
"""

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from overlay.core.types import Crypto, PeerId
from overlay.core.wire.bounds import SEALED_MAX, violation
from overlay.core.wire.codec import Broken, Reader
from overlay.core.wire.documents import (
    AnswerBody,
    Attestation,
    Grant,
    OfferBody,
    Record,
    Signed,
    Ticket,
)
from overlay.errors import LocalProtocolError

Body = TypeVar("Body", Record, OfferBody, AnswerBody, Grant, Ticket, Attestation)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a kind of document is signed."""

    label: bytes
    author: str  # the field that names who has to have signed it


KINDS: dict[type[msgspec.Struct], _Kind] = {
    Record: _Kind(b"overlay record 1", "peer_id"),
    OfferBody: _Kind(b"overlay offer 1", "sender"),
    AnswerBody: _Kind(b"overlay answer 1", "sender"),
    Grant: _Kind(b"overlay grant 1", "issuer"),
    Ticket: _Kind(b"overlay ticket 1", "holder"),
    Attestation: _Kind(b"overlay attestation 1", "helper"),
}
_READERS = {kind: Reader(kind) for kind in KINDS}
_SIGNED = Reader(Signed)


def labelled(label: bytes, data: bytes) -> bytes:
    """What is signed: the data under a label that no other kind of document has."""
    return label + b"\0" + data


def sign(
    body: Record | OfferBody | AnswerBody | Grant | Ticket | Attestation, crypto: Crypto
) -> Signed:
    """The document signed by us, who have to be its author.

    Raises LocalProtocolError when it is out of bounds: nobody would accept it.
    """
    outside = violation(body)
    if outside is not None:
        raise LocalProtocolError(f"{outside} is out of bounds")
    packed = msgspec.msgpack.encode(body)
    return Signed(packed, crypto.sign(labelled(KINDS[type(body)].label, packed)))


def pack(signed: Signed) -> bytes:
    """A signed document as it travels."""
    return msgspec.msgpack.encode(signed)


def unpack(data: bytes) -> Signed | str:
    """A signed document from bytes, or why it is none. Never raises."""
    signed = _SIGNED.read(data, SEALED_MAX)
    return f"malformed: {signed.why}" if isinstance(signed, Broken) else signed


def peek(signed: Signed, kind: type[Body]) -> Body | str:
    """What the document says, its signature unchecked, or why it says nothing. Never raises."""
    body = _READERS[kind].read(signed.body, SEALED_MAX)
    if isinstance(body, Broken):
        return f"malformed: {body.why}"
    assert isinstance(body, kind)
    if _accepts_without_credentials(body):
        return "malformed: AnswerBody accepts without credentials"
    return body


def verified(signed: Signed, kind: type[Body], crypto: Crypto) -> Body | str:
    """What the document says, or why it does not hold. Never raises."""
    body = peek(signed, kind)
    if isinstance(body, str):
        return body
    return body if is_signed(signed, body, crypto) else "signature"


def is_signed(signed: Signed, body: Body, crypto: Crypto) -> bool:
    """Whether the author of what these bytes say has signed them."""
    kind = KINDS[type(body)]
    author = PeerId(getattr(body, kind.author))
    return crypto.verify(author, labelled(kind.label, signed.body), signed.signature)


def opened(data: bytes, kind: type[Body], crypto: Crypto) -> Body | str:
    """A document from bytes, checked: what it says, or why it does not hold. Never raises."""
    signed = unpack(data)
    return signed if isinstance(signed, str) else verified(signed, kind, crypto)


def _accepts_without_credentials(body: msgspec.Struct) -> bool:
    """A refusal needs none; an acceptance at least 4 and 22 characters (RFC 8445 §5.3)."""
    if not isinstance(body, AnswerBody) or not body.accepted:
        return False
    return len(body.ufrag) < 4 or len(body.password) < 22 or len(body.fingerprint) != 32
