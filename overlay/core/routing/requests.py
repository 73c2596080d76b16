"""Signalling requests: their names, what hops keep of them, and what routing says of them.

A name is 15 random bytes, and one that counts the attempts. Hops take all 16 bytes as the name, so
that each attempt finds its own way; the ends compare the first 15. The second attempt keeps away
from the first one's path, those after it begin at random.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from overlay.core.types import Crypto, PeerId
from overlay.core.wire.messages import (
    Answer,
    Locate,
    Located,
    Offer,
    RecordPull,
    RecordPulled,
    Trace,
    TraceReply,
    ViewExchange,
    ViewExchanged,
)

WALK = 2
"""The first attempt that walks."""
ATTEMPTS_MAX = 18
"""Greedy, greedy over another first link, sixteen walks (guess)."""
SOUGHT = ATTEMPTS_MAX
"""The attempt that follows the answer to a seek."""


def new_request(crypto: Crypto) -> bytes:
    """A fresh name, as of the first attempt."""
    return crypto.token(15) + b"\0"


def base_of(request: bytes) -> bytes:
    """The name that all attempts of one request share: that of its first."""
    return request[:15] + b"\0"


def attempt_of(request: bytes, attempt: int) -> bytes:
    """The name of another attempt of the same request."""
    return request[:15] + bytes([attempt])


def walks(request: bytes) -> bool:
    """Whether this attempt begins at random."""
    return WALK <= request[15] < SOUGHT


Routed = Offer | Trace | Locate | ViewExchange | RecordPull
Reply = Answer | TraceReply | Located | ViewExchanged | RecordPulled
PATH_MAX = 64
"""Nodes that a trace remembers."""


def onward(routed: Routed, ours: PeerId, hops_max: int) -> Routed:
    """A request as it goes on from us."""
    if isinstance(routed, Trace):
        return msgspec.structs.replace(routed, path=[*routed.path[:PATH_MAX], bytes(ours)])
    if isinstance(routed, Offer):
        return msgspec.structs.replace(routed, hops=min(routed.hops, hops_max) + 1)
    return routed


class BounceCode(StrEnum):
    """Why a hop has not passed a request on."""

    LOOP = "loop"  # it has handled this attempt before
    BUSY = "busy"  # the neighbour hands it more than its share
    TTL = "ttl"  # there is nothing left of the TTL
    NO_ROUTE = "no_route"  # it has no neighbour that has not been tried
    LINK_DOWN = "link_down"  # nor has it, after the link to the last that it tried has ended
    NO_ACK = "no_ack"  # nor has it, while the last that it tried is slow to acknowledge


@dataclass(slots=True)
class Request:
    """A request that we have taken charge of."""

    routed: Routed
    came_from: PeerId | None
    """None: it is ours."""
    forget_at: float = 0.0
    tried: tuple[PeerId, ...] = ()
    """Next hops, the last one last."""
    handed_at: float = 0.0
    """When the last of them was handed it."""
    vain: tuple[int, ...] = ()
    """Places that lead nowhere, as other hops have found."""
    avoided: PeerId | None = None
    """The first link of an earlier attempt: this one goes another way."""
    left: int = 0
    """What may still be spent of the TTL."""
    handed: int = 0
    """How much of that the last peer in `tried` was given."""
    next: PeerId | None = None
    """The next hop, if it has been chosen already."""
    acknowledged: bool = False
    """By the last peer in `tried`."""
    answered: bool = False
    owed: bool = False
    """It ends here, and who handed it over has heard neither an acknowledgement nor a reply."""


class SeekState(StrEnum):
    """Whether everybody has been asked for the target of a request (`seek`)."""

    NOT_YET = "not yet"
    UNDER_WAY = "under way"
    OVER = "over"  # answered, without an answer in time, or not allowed


@dataclass(slots=True)
class OwnRequest:
    """A request of our own over all its attempts."""

    routed: Routed
    walk: bool
    """Whether it is worth walking for."""
    once: bool = False
    """It is tried in one way only."""
    attempt: int = 0
    first: PeerId | None = None
    """Whom the first attempt was handed to."""
    open: int = 0
    """Attempts that may still be answered."""
    seek: SeekState = SeekState.NOT_YET


class RequestArrived(msgspec.Struct, frozen=True, gc=False):
    """A request that ends here; `via` handed it over."""

    routed: Routed
    via: PeerId


class ReplyArrived(msgspec.Struct, frozen=True, gc=False):
    """The reply to a request of ours; `via` handed it over."""

    reply: Reply
    via: PeerId


class Undeliverable(msgspec.Struct, frozen=True, gc=False):
    """Nobody could pass our request on, whichever way it went."""

    request: bytes
    code: str


RoutingFact = RequestArrived | ReplyArrived | Undeliverable


@dataclass(slots=True)
class Counters:
    """Requests and replies, counted where they are handled."""

    sent: int = 0
    forwarded: int = 0
    delivered: int = 0
    dropped: int = 0
