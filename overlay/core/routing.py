"""Offers and answers on their way through the mesh: forwarded, acknowledged, tried elsewhere.

A hop sees a target, a request id and a TTL. It takes charge of an offer by acknowledging it,
keeps it until the next hop has done the same, and tries its next best neighbour when that takes
longer than max(3 SRTT, 300 ms) or the offer bounces. The answer goes back the way the offer came.
(First cut: neighbours, then neighbours of neighbours, then the rest in random order.)
"""

from dataclasses import dataclass, field

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.messages import (
    Answer,
    Bounce,
    Message,
    Offer,
    SignalAck,
    Trace,
    TraceReply,
)
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId

OFFER_TTL = 8
"""Hops (guess): twice what a mesh of 100,000 nodes needs (BENCHMARKS: 9.0 there, M3)."""
ACK_TIMEOUT_MIN = 0.3
"""Seconds (DESIGN, routing)."""
REQUEST_LIFE = 15.0
"""Seconds that a hop remembers a request: longer than any offerer waits."""
REQUESTS_MAX = 1024
OFFERS_PER_SECOND = 50.0
OFFERS_BURST = 100.0
DIGEST_MAX = 64
"""Neighbours of a neighbour that we remember."""


Routed = Offer | Trace
Reply = Answer | TraceReply


@dataclass(slots=True)
class Neighbour:
    """What routing knows of a neighbour."""

    link: LinkId
    srtt: float = 0.0
    peers: dict[PeerId, None] = field(default_factory=dict)
    """Its neighbours, as it says (a dict for its order)."""
    tokens: float = OFFERS_BURST
    tokens_at: float = 0.0


@dataclass(slots=True)
class _Request:
    """An offer that we have taken charge of."""

    offer: Routed
    came_from: PeerId | None
    """None: it is ours."""
    tried: dict[PeerId, None] = field(default_factory=dict)
    acknowledged: bool = False
    """By the last peer in `tried`."""
    answered: bool = False


@dataclass(frozen=True, slots=True)
class OfferArrived:
    """An offer for us; `via` handed it over."""

    offer: Routed
    via: PeerId


@dataclass(frozen=True, slots=True)
class AnswerArrived:
    """The answer to an offer of ours; `via` handed it over."""

    answer: Reply
    via: PeerId


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Nobody could pass our offer on."""

    request: bytes
    code: str


RoutingFact = OfferArrived | AnswerArrived | Undeliverable


@dataclass(slots=True)
class Counters:
    """Offers and answers, counted where they are handled."""

    sent: int = 0
    forwarded: int = 0
    delivered: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Routing:
    """The signalling of one node, its own and what it forwards for others."""

    context: Context
    counters: Counters = field(default_factory=Counters)
    neighbours: dict[PeerId, Neighbour] = field(default_factory=dict)
    _requests: dict[bytes, _Request] = field(default_factory=dict)
    _timers: Timers[tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- neighbours --------------------------------------------------------------------------

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A neighbour came, moved to another link, or woke up."""
        known = self.neighbours.get(peer)
        if known is None:
            self.neighbours[peer] = Neighbour(link, tokens_at=now)
        else:
            known.link = link

    def remove(self, peer: PeerId, now: float) -> list[RoutingFact]:
        """A neighbour went or fell silent: what it had not acknowledged is tried elsewhere."""
        if self.neighbours.pop(peer, None) is None:
            return []
        facts: list[RoutingFact] = []
        for request in list(self._requests.values()):
            if request.tried and not request.answered and _last(request.tried) == peer:
                facts += self._next_best(request, "link_down", now)
        return facts

    def learn(self, peer: PeerId, peers: list[bytes]) -> None:
        """A neighbour says who its neighbours are."""
        known = self.neighbours.get(peer)
        if known is not None:
            known.peers = {PeerId(each): None for each in peers[:DIGEST_MAX]}

    # --- offers ------------------------------------------------------------------------------

    def send(self, offer: Routed, now: float) -> list[RoutingFact]:
        """Send an offer of our own."""
        self.counters.sent += 1
        return self._take_charge(_Request(offer, came_from=None), now)

    def on_offer(self, peer: PeerId, offer: Routed, now: float) -> list[RoutingFact]:
        """A neighbour hands us an offer."""
        known = self._requests.get(offer.request)
        if known is not None:
            if known.came_from != peer:
                self._bounce(peer, offer.request, "loop")
            return []
        if not self._allowed(peer, now):
            return self._drop(peer, offer, "busy")
        if offer.target == self.context.peer_id:
            self.counters.delivered += 1
            self._acknowledge(peer, offer.request)
            self._remember(_Request(offer, came_from=peer, answered=True), now)
            return [OfferArrived(offer, peer)]
        if offer.ttl <= 1:
            return self._drop(peer, offer, "ttl")
        self._acknowledge(peer, offer.request)
        return self._take_charge(_Request(self._onward(offer), came_from=peer), now)

    def _onward(self, offer: Routed) -> Routed:
        ttl = min(offer.ttl, OFFER_TTL) - 1
        if isinstance(offer, Trace):
            path = [*offer.path[:OFFER_TTL], bytes(self.context.peer_id)]
            return msgspec.structs.replace(offer, ttl=ttl, path=path)
        return msgspec.structs.replace(offer, ttl=ttl)

    def on_ack(self, peer: PeerId, message: SignalAck) -> None:
        """The next hop has taken charge."""
        request = self._requests.get(message.request)
        if request is None or message.answer:
            self._timers.stop(("answer", message.request))
        elif peer in request.tried and _last(request.tried) == peer:
            request.acknowledged = True
            self._timers.stop(("offer", message.request))

    def on_bounce(self, peer: PeerId, message: Bounce, now: float) -> list[RoutingFact]:
        """The next hop could not pass the offer on."""
        request = self._requests.get(message.request)
        if request is None or request.answered or not request.tried:
            return []
        return self._next_best(request, message.code, now) if _last(request.tried) == peer else []

    def _take_charge(self, request: _Request, now: float) -> list[RoutingFact]:
        self._remember(request, now)
        return self._next_best(request, "no_route", now)

    def _next_best(self, request: _Request, code: str, now: float) -> list[RoutingFact]:
        """Hand the offer to the best neighbour not yet tried, or give up."""
        name = ("offer", request.offer.request)
        best = self._best(request)
        if best is None:
            self._timers.stop(name)
            if code == "no_ack":
                return []  # Late is not lost: the last hop may yet acknowledge and answer.
            request.answered = True
            self.counters.dropped += 1
            if request.came_from is None:
                return [Undeliverable(request.offer.request, code)]
            self._bounce(request.came_from, request.offer.request, code)
            return []
        neighbour = self.neighbours[best]
        if request.came_from is not None and not request.tried:
            self.counters.forwarded += 1
        request.tried[best] = None
        request.acknowledged = False
        self._hand_over(neighbour, request.offer)
        self._timers.set(name, now + max(3 * neighbour.srtt, ACK_TIMEOUT_MIN))
        return []

    def _hand_over(self, neighbour: Neighbour, offer: Routed) -> None:
        self.context.emit(Transmit(neighbour.link, offer))

    def _best(self, request: _Request) -> PeerId | None:
        """The target itself, else a neighbour that knows it, else any; never one twice."""
        target = PeerId(request.offer.target)
        untried = [
            peer
            for peer in self.neighbours
            if peer not in request.tried and peer != request.came_from
        ]
        if target in untried:
            return target
        knowing = [peer for peer in untried if target in self.neighbours[peer].peers]
        candidates = knowing or untried
        return self.context.random.choice(candidates) if candidates else None

    # --- answers -----------------------------------------------------------------------------

    def answer(self, answer: Reply, now: float) -> None:
        """Send our own answer back the way the offer came."""
        request = self._requests.get(answer.request)
        if request is not None and request.came_from is not None:
            self.counters.sent += 1
            self._send_back(request, answer, now)

    def on_answer(self, peer: PeerId, answer: Reply, now: float) -> list[RoutingFact]:
        """An answer comes back: to us, or through us."""
        request = self._requests.get(answer.request)
        if request is None or request.answered or peer not in request.tried:
            self.counters.dropped += 1
            return []
        request.answered = True
        self._timers.stop(("offer", answer.request))
        peer_link = self.neighbours.get(peer)
        if peer_link is not None:
            self.context.emit(Transmit(peer_link.link, SignalAck(answer.request, answer=True)))
        if request.came_from is None:
            self.counters.delivered += 1
            return [AnswerArrived(answer, peer)]
        self.counters.forwarded += 1
        self._send_back(request, answer, now)
        return []

    def _send_back(self, request: _Request, answer: Reply, now: float) -> None:
        assert request.came_from is not None
        previous = self.neighbours.get(request.came_from)
        if previous is None:
            self.counters.dropped += 1
            return
        self.context.emit(Transmit(previous.link, answer))
        self._timers.set(("answer", answer.request), now + REQUEST_LIFE)

    # --- housekeeping ------------------------------------------------------------------------

    def on_time(self, now: float) -> list[RoutingFact]:
        """Try elsewhere what was not acknowledged in time; forget what is old."""
        facts: list[RoutingFact] = []
        for kind, request_id in list(self._timers.pop_due(now)):
            request = self._requests.get(request_id)
            if kind == "answer":
                self.counters.dropped += 1
            elif request is None:
                continue
            elif kind == "forget":
                del self._requests[request_id]
                self._timers.stop(("offer", request_id))
            elif not request.acknowledged and not request.answered:
                facts += self._next_best(request, "no_ack", now)
        return facts

    def _remember(self, request: _Request, now: float) -> None:
        while len(self._requests) >= REQUESTS_MAX:
            oldest = next(iter(self._requests))
            del self._requests[oldest]
            for kind in ("offer", "forget"):
                self._timers.stop((kind, oldest))
        self._requests[request.offer.request] = request
        self._timers.set(("forget", request.offer.request), now + REQUEST_LIFE)

    def _allowed(self, peer: PeerId, now: float) -> bool:
        """A token bucket a neighbour, before anything is kept for its offer."""
        neighbour = self.neighbours.get(peer)
        if neighbour is None:
            return False
        gained = (now - neighbour.tokens_at) * OFFERS_PER_SECOND
        neighbour.tokens = min(OFFERS_BURST, neighbour.tokens + gained)
        neighbour.tokens_at = now
        if neighbour.tokens < 1.0:
            return False
        neighbour.tokens -= 1.0
        return True

    def _drop(self, peer: PeerId, offer: Routed, code: str) -> list[RoutingFact]:
        self.counters.dropped += 1
        self._bounce(peer, offer.request, code)
        return []

    def _acknowledge(self, peer: PeerId, request: bytes) -> None:
        self._transmit(peer, SignalAck(request, answer=False))

    def _bounce(self, peer: PeerId, request: bytes, code: str) -> None:
        self._transmit(peer, Bounce(request, code))

    def _transmit(self, peer: PeerId, message: Message) -> None:
        neighbour = self.neighbours.get(peer)
        if neighbour is not None:
            self.context.emit(Transmit(neighbour.link, message))


def _last(tried: dict[PeerId, None]) -> PeerId:
    return next(reversed(tried))
