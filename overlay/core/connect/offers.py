"""Offers and answers as documents: signed by one end, sealed to the other, checked on opening.

An offer is signed, then sealed with HPKE to a daily prekey from the recipient's record; hops see
neither credentials nor addresses, and can change nothing unnoticed. The answer signs the hash of
the offer that it answers. Each offer counts once: whoever repeats one is refused.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from overlay.core.context import Context
from overlay.core.link.hello import MAX_CLOCK_SKEW
from overlay.core.routing.requests import base_of
from overlay.core.types import Address, Candidate, IceCredentials, PeerId
from overlay.core.wire import signing
from overlay.core.wire.bounds import CANDIDATES_MAX
from overlay.core.wire.documents import AnswerBody, CandidateEntry, OfferBody, PrekeyEntry
from overlay.core.wire.messages import Answer, Offer

OFFER_INFO = b"overlay offer 1"
ANSWER_INFO = b"overlay answer 1"
OFFER_LIFE = 20.0
"""Seconds (guess): longer than an attempt lasts, short enough to remember every offer so long."""
SEEN_MAX = 4096
"""Attempts remembered; of more, the oldest is forgotten."""


class Declined(StrEnum):
    """Why an offer that holds is not accepted: what the answer says."""

    FULL = "full"  # the node has no room for another link
    BUSY = "busy"  # it is answering too many offers
    NATS = "nats"  # what is known of both NATs leaves no direct path


class OfferRefusal(StrEnum):
    """Why an offer or an answer does not hold."""

    SEAL = "seal"  # it is not sealed to a key of ours
    DOCUMENT = "document"  # it is no document that its author has signed
    NETWORK = "network"  # it is of another network
    RECIPIENT = "recipient"  # it is for somebody else, or has come by another request
    SELF = "self"  # we are its author
    EXPIRED = "expired"  # it is too old, or from too far ahead
    REPLAY = "replay"  # it has been opened before
    OFFER = "offer"  # it answers another offer


class Refused(Exception):
    """A document does not hold; the text is for the log. Never leaves `overlay.core.connect`."""

    def __init__(self, code: OfferRefusal, text: str = "") -> None:
        self.code, self.text = code, text or code.value
        super().__init__(self.text)


@dataclass(frozen=True, slots=True)
class OpenedOffer:
    """An offer that held: what it says, and its hash for the answer."""

    body: OfferBody
    digest: bytes
    request: bytes
    """The name of the attempt that it came by (`overlay.core.routing.requests`)."""


@dataclass(slots=True)
class OfferReader:
    """Opens the offers of others, each once."""

    context: Context
    # Attempts opened, and until when a replay could still pass as fresh.
    _seen: dict[bytes, float] = field(default_factory=dict)

    def open(self, offer: Offer, now: float) -> OpenedOffer:
        """Unseal and check an offer for us. Raises Refused."""
        opened = open_offer(self.context, offer, now)
        if opened.body.attempt in self._seen:
            raise Refused(OfferRefusal.REPLAY)
        self._remember(opened.body.attempt, now)
        return opened

    def _remember(self, attempt: bytes, now: float) -> None:
        until = now + OFFER_LIFE + 2 * MAX_CLOCK_SKEW
        while self._seen and (len(self._seen) >= SEEN_MAX or next(iter(self._seen.values())) < now):
            del self._seen[next(iter(self._seen))]
        self._seen[attempt] = until


def seal_offer(context: Context, body: OfferBody, prekey: PrekeyEntry) -> tuple[Offer, bytes]:
    """The offer as it travels, and its hash, which the answer will sign."""
    data = signing.pack(signing.sign(body, context.crypto))
    sealed = context.crypto.seal(prekey.public, OFFER_INFO + body.request, data)
    offer = Offer(body.recipient, body.request, body.ttl, prekey.prekey_id, sealed)
    return offer, hashlib.sha256(data).digest()


def open_offer(context: Context, offer: Offer, now: float) -> OpenedOffer:
    """Unseal an offer for us, and check all but whether it is new. Raises Refused."""
    info = OFFER_INFO + base_of(offer.request)
    body, data = _opened(context, offer, info, OfferBody)
    if body.network != context.settings.network:
        raise Refused(OfferRefusal.NETWORK)
    if body.recipient != context.peer_id or body.request != base_of(offer.request):
        raise Refused(OfferRefusal.RECIPIENT)
    if body.sender == context.peer_id:
        raise Refused(OfferRefusal.SELF)
    wall = context.wall(now)
    if not wall - MAX_CLOCK_SKEW < body.expires_at < wall + OFFER_LIFE + MAX_CLOCK_SKEW:
        raise Refused(OfferRefusal.EXPIRED)
    return OpenedOffer(body, hashlib.sha256(data).digest(), offer.request)


def seal_answer(context: Context, body: AnswerBody, prekey: PrekeyEntry, request: bytes) -> Answer:
    """The answer as it travels back, the way that this attempt of the request came."""
    data = signing.pack(signing.sign(body, context.crypto))
    sealed = context.crypto.seal(prekey.public, ANSWER_INFO + body.request, data)
    return Answer(request, prekey.prekey_id, sealed)


def open_answer(context: Context, answer: Answer, sender: PeerId, digest: bytes) -> AnswerBody:
    """Unseal and check the answer to our offer with this hash. Raises Refused."""
    info = ANSWER_INFO + base_of(answer.request)
    body, _ = _opened(context, answer, info, AnswerBody)
    if body.sender != sender or body.recipient != context.peer_id:
        raise Refused(OfferRefusal.RECIPIENT)
    if body.network != context.settings.network or body.offer_hash != digest:
        raise Refused(OfferRefusal.OFFER)
    return body


def _opened(
    context: Context, message: Offer | Answer, info: bytes, kind: type[signing.Body]
) -> tuple[signing.Body, bytes]:
    """What a sealed document says, its author's signature checked; and its bytes."""
    data = context.crypto.open(message.prekey, info, message.sealed)
    if data is None:
        raise Refused(OfferRefusal.SEAL)
    body = signing.opened(data, kind, context.crypto)
    if isinstance(body, str):
        raise Refused(OfferRefusal.DOCUMENT, body)
    return body, data


def new_credentials(context: Context) -> IceCredentials:
    """Fresh ICE credentials: 128 bits each, hexadecimal (RFC 8445 §5.3)."""
    token = context.crypto.token
    return IceCredentials(token(16).hex(), token(16).hex())


def to_entries(candidates: Sequence[Candidate]) -> list[CandidateEntry]:
    """Candidates as an offer carries them: the first eight, best first."""
    best = sorted(candidates[:CANDIDATES_MAX], key=lambda candidate: -candidate.priority)
    return [CandidateEntry(c.kind, c.address.host, c.address.port, c.priority) for c in best]


def to_candidates(entries: list[CandidateEntry]) -> tuple[Candidate, ...]:
    """The candidates of a checked offer or answer."""
    return tuple(
        Candidate(entry.kind, Address(entry.host, entry.port), entry.priority) for entry in entries
    )
