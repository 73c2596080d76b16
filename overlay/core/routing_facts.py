"""What routing keeps of requests, and what it says of them: facts and counts."""

from dataclasses import dataclass, field

from overlay.core.messages import (
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
from overlay.core.types import PeerId

Routed = Offer | Trace | Locate | ViewExchange | RecordPull
Reply = Answer | TraceReply | Located | ViewExchanged | RecordPulled


@dataclass(slots=True)
class Request:
    """A request that we have taken charge of."""

    routed: Routed
    came_from: PeerId | None
    """None: it is ours."""
    forget_at: float = 0.0
    tried: dict[PeerId, None] = field(default_factory=dict)
    avoided: PeerId | None = None
    """The first link of an earlier attempt: this one goes another way."""
    left: int = 0
    """Of the TTL."""
    handed: int = 0
    """Of that, what the last peer in `tried` was given."""
    strays: int = 0
    """Hops tried that lead nowhere nearer."""
    acknowledged: bool = False
    """By the last peer in `tried`."""
    answered: bool = False


@dataclass(slots=True)
class OwnRequest:
    """A request of our own over all its attempts."""

    routed: Routed
    walk: bool
    """Whether it is worth walking for."""
    attempt: int = 0
    first: PeerId | None = None
    """Whom the first attempt was handed to."""
    open: int = 0
    """Attempts that have not come to nothing."""


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A request that ends here; `via` handed it over."""

    routed: Routed
    via: PeerId


@dataclass(frozen=True, slots=True)
class ReplyArrived:
    """The reply to a request of ours; `via` handed it over."""

    reply: Reply
    via: PeerId


@dataclass(frozen=True, slots=True)
class Undeliverable:
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
