"""What routing says of requests and replies: facts, and counts of them."""

from dataclasses import dataclass

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
