"""Requests and their replies on their way through the mesh: forwarded, acknowledged, tried again.

Greedy by ring distance with one step of look-ahead, never twice through a node. A hop takes charge
of a request by acknowledging it, keeps it until the next hop has done the same, and tries its next
best neighbour when that takes longer than max(3 SRTT, 300 ms) or the request bounces. The reply
goes back the way the request came. A request of our own that finds no way, or no answer, is tried
once more over another first link, and then by short random walks (DESIGN, routing).
"""

from dataclasses import dataclass, field

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.keyspace import distance, place_of
from overlay.core.lookahead import Neighbour, Surroundings
from overlay.core.messages import (
    Answer,
    Bounce,
    Locate,
    Located,
    Message,
    Offer,
    SignalAck,
    Trace,
    TraceReply,
)
from overlay.core.requests import ATTEMPTS_MAX, WALK, attempt_of, base_of, walks
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId

OFFER_TTL = 24
"""Hops (guess): more than twice the mean of a mesh of 100,000 nodes (BENCHMARKS: 9.0)."""
STRAY_COST = 5
"""What a hop that leads nowhere nearer, or at random, costs of the TTL (guess): four of them."""
STRAYS_MAX = 3
"""Such hops that one node tries for one request (guess): a target that is gone floods nobody."""
TRIES_MAX = 6
"""Next hops that one node tries for one request (guess); half of them for a place."""
PATH_MAX = 64
"""Nodes that a trace remembers."""
ACK_TIMEOUT_MIN = 0.3
"""Seconds (DESIGN, routing)."""
RETRY_AFTER = 2.0
"""Seconds (guess) without an answer before a request of ours goes another way."""
REQUEST_LIFE = 15.0
"""Seconds that a hop remembers a request: longer than any asker waits."""
REQUESTS_MAX = 1024


Routed = Offer | Trace | Locate
Reply = Answer | TraceReply | Located


@dataclass(slots=True)
class _Request:
    """A request that we have taken charge of."""

    routed: Routed
    came_from: PeerId | None
    """None: it is ours."""
    tried: dict[PeerId, None] = field(default_factory=dict)
    avoided: PeerId | None = None
    """The first link of an earlier attempt: this one goes another way."""
    strays: int = 0
    acknowledged: bool = False
    """By the last peer in `tried`."""
    answered: bool = False


@dataclass(slots=True)
class _Own:
    """A request of our own over all its attempts."""

    routed: Routed
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


@dataclass(slots=True)
class Routing:
    """The signalling of one node, its own and what it forwards for others."""

    context: Context
    counters: Counters = field(default_factory=Counters)
    surroundings: Surroundings = field(init=False)
    _requests: dict[bytes, _Request] = field(default_factory=dict)
    """By the name of the attempt."""
    _own: dict[bytes, _Own] = field(default_factory=dict)
    """By the name of the request."""
    _replies: dict[bytes, Reply] = field(default_factory=dict)
    """What we replied to requests that ended here, should another attempt arrive."""
    _timers: Timers[tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)
        self.surroundings = Surroundings(self.context.peer_id)

    # --- neighbours --------------------------------------------------------------------------

    @property
    def neighbours(self) -> dict[PeerId, Neighbour]:
        """The peers that requests can be handed to."""
        return self.surroundings.neighbours

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A neighbour came, moved to another link, or woke up."""
        self.surroundings.add(peer, link, now)

    def remove(self, peer: PeerId, now: float) -> list[RoutingFact]:
        """A neighbour went or fell silent: what it had not acknowledged is tried elsewhere."""
        if self.neighbours.pop(peer, None) is None:
            return []
        facts: list[RoutingFact] = []
        for request in list(self._requests.values()):
            waits = request.tried and not request.answered and not request.acknowledged
            if waits and _last(request.tried) == peer:
                facts += self._next_best(request, "link_down", now)
        return facts

    # --- requests of our own -----------------------------------------------------------------

    def send(self, routed: Routed, now: float) -> list[RoutingFact]:
        """Send a request of our own."""
        self.counters.sent += 1
        own = self._own[routed.request] = _Own(routed)
        self._timers.set(("retry", routed.request), now + RETRY_AFTER)
        self._timers.set(("over", routed.request), now + REQUEST_LIFE)
        return self._attempt(own, None, now)

    def send_through(self, peer: PeerId, routed: Routed, now: float) -> None:
        """Send a request of our own with this first hop, and no second try."""
        self.counters.sent += 1
        request = _Request(routed, came_from=None)
        self._remember(request, now)
        self._hand_over(request, peer, routed.ttl, now)

    def _attempt(self, own: _Own, avoided: PeerId | None, now: float) -> list[RoutingFact]:
        name = attempt_of(own.routed.request, own.attempt)
        routed = msgspec.structs.replace(own.routed, request=name)
        request = _Request(routed, came_from=None, avoided=avoided)
        own.open += 1
        facts = self._take_charge(request, now)
        if own.attempt == 0 and request.tried:
            own.first = _last(request.tried)
        return facts

    def _try_again(self, own: _Own, now: float) -> list[RoutingFact]:
        """Once over another first link, then by walks; with a single link both are in vain."""
        base = own.routed.request
        if isinstance(own.routed, Locate):
            return []  # the next look will do
        if isinstance(own.routed, Offer) and own.routed.target in self.neighbours:
            self._forget_own(base)  # linked meanwhile
            return []
        if own.attempt + 1 >= ATTEMPTS_MAX or len(self.neighbours) < 2:
            return []
        self._timers.set(("retry", base), now + RETRY_AFTER)
        own.attempt += 1
        if own.attempt < WALK:
            return self._attempt(own, own.first, now)
        facts: list[RoutingFact] = []
        while own.attempt < ATTEMPTS_MAX and base in self._own:
            facts += self._attempt(own, None, now)
            own.attempt += 1
        return facts

    def _came_to_nothing(self, name: bytes, code: str, now: float) -> list[RoutingFact]:
        """An attempt of ours has found no way."""
        base = base_of(name)
        own = self._own.get(base)
        if own is None:
            return []
        own.open -= 1
        if own.open:
            return []
        facts = self._try_again(own, now)
        if not self._is_open(base):
            facts.append(Undeliverable(base, code))
            self._forget_own(base)
        return facts

    def _is_open(self, base: bytes) -> bool:
        own = self._own.get(base)
        return own is None or own.open > 0

    def _forget_own(self, base: bytes) -> None:
        self._own.pop(base, None)
        self._timers.stop(("retry", base))
        self._timers.stop(("over", base))

    # --- requests of others ------------------------------------------------------------------

    def on_request(self, peer: PeerId, routed: Routed, now: float) -> list[RoutingFact]:
        """A neighbour hands us a request."""
        known = self._requests.get(routed.request)
        if known is not None:
            if self._is_for_us(routed):
                self._acknowledge(peer, routed.request)
            elif known.came_from != peer:
                self._bounce(peer, routed.request, "loop")
            return []
        neighbour = self.neighbours.get(peer)
        if neighbour is None or not neighbour.allowed(now):
            return self._drop(peer, routed, "busy")
        request = _Request(self._onward(routed), came_from=peer)
        if self._ends_here(request):
            self._acknowledge(peer, routed.request)
            return self._deliver(request, routed, peer, now)
        if routed.ttl <= 1:
            return self._drop(peer, routed, "ttl")
        self._acknowledge(peer, routed.request)
        return self._take_charge(request, now)

    def _is_for_us(self, routed: Routed) -> bool:
        return not isinstance(routed, Locate) and routed.target == self.context.peer_id

    def _ends_here(self, request: _Request) -> bool:
        """Whether we are the target, or nobody that we know of is nearer to the place."""
        routed = request.routed
        if not isinstance(routed, Locate):
            return self._is_for_us(routed)
        return routed.ttl < 1 or self._nearer(request, self._untried(request)) is None

    def _deliver(
        self, request: _Request, routed: Routed, peer: PeerId, now: float
    ) -> list[RoutingFact]:
        request.answered = True
        self._remember(request, now)
        reply = self._replies.get(base_of(routed.request))
        if reply is not None:  # another attempt of what was answered: its answer got lost
            again = msgspec.structs.replace(reply, request=routed.request)
            self._send_back(request, again, now)
            return []
        self.counters.delivered += 1
        return [RequestArrived(routed, peer)]

    def _onward(self, routed: Routed) -> Routed:
        ttl = min(routed.ttl, OFFER_TTL) - 1
        if isinstance(routed, Trace):
            path = [*routed.path[:PATH_MAX], bytes(self.context.peer_id)]
            return msgspec.structs.replace(routed, ttl=ttl, path=path)
        return msgspec.structs.replace(routed, ttl=ttl)

    def on_ack(self, peer: PeerId, message: SignalAck) -> None:
        """The next hop has taken charge."""
        request = self._requests.get(message.request)
        if request is None or message.answer:
            self._timers.stop(("answer", message.request))
        elif peer in request.tried and _last(request.tried) == peer:
            request.acknowledged = True
            self._timers.stop(("ack", message.request))

    def on_bounce(self, peer: PeerId, message: Bounce, now: float) -> list[RoutingFact]:
        """The next hop could not pass the request on."""
        request = self._requests.get(message.request)
        if request is None or request.answered or not request.tried:
            return []
        return self._next_best(request, message.code, now) if _last(request.tried) == peer else []

    def _take_charge(self, request: _Request, now: float) -> list[RoutingFact]:
        self._remember(request, now)
        return self._next_best(request, "no_route", now)

    def _next_best(self, request: _Request, code: str, now: float) -> list[RoutingFact]:
        """Hand the request to the best neighbour not yet tried, or give up."""
        name = request.routed.request
        best, cost = self._best(request)
        if best is not None:
            if request.came_from is not None and not request.tried:
                self.counters.forwarded += 1
            self._hand_over(request, best, request.routed.ttl - cost, now)
            return []
        self._timers.stop(("ack", name))
        if code == "no_ack":
            return []  # Late is not lost: the last hop may yet acknowledge and answer.
        request.answered = True
        if isinstance(request.routed, Locate):  # those nearer are gone: it ends here
            via = request.came_from or self.context.peer_id
            return [RequestArrived(request.routed, via)]
        self.counters.dropped += 1
        if request.came_from is None:
            return self._came_to_nothing(name, code, now)
        self._bounce(request.came_from, name, code)
        return []

    def _hand_over(self, request: _Request, peer: PeerId, ttl: int, now: float) -> None:
        request.tried[peer] = None
        request.acknowledged = False
        neighbour = self.neighbours[peer]
        onward = msgspec.structs.replace(request.routed, ttl=ttl)
        self.context.emit(Transmit(neighbour.link, onward))
        wait = max(3 * neighbour.srtt, ACK_TIMEOUT_MIN)
        self._timers.set(("ack", request.routed.request), now + wait)

    # --- the next hop ------------------------------------------------------------------------

    def _untried(self, request: _Request) -> list[PeerId]:
        avoid = (request.came_from, request.avoided)
        left = [each for each in self.neighbours if each not in request.tried and each not in avoid]
        if not isinstance(request.routed, Locate):
            return left if len(request.tried) < TRIES_MAX else []
        place = request.routed.place  # whoever is exactly there is the one who asks
        left = [each for each in left if self.neighbours[each].place != place]
        return left if len(request.tried) < TRIES_MAX // 2 else []

    def _best(self, request: _Request) -> tuple[PeerId | None, int]:
        """The next hop and what it costs of the TTL; never one twice."""
        routed, untried = request.routed, self._untried(request)
        if isinstance(routed, Locate):
            return self._nearer(request, untried), 0
        knowing = self.surroundings.knowing(PeerId(routed.target), untried)
        if knowing is None and not walks(routed.request):
            knowing = self._nearer(request, untried)
        if knowing is not None:
            return knowing, 0
        if not untried or request.strays >= STRAYS_MAX or routed.ttl <= STRAY_COST:
            return None, 0
        request.strays += 1
        if walks(routed.request):
            return self.context.random.choice(untried), STRAY_COST
        nearest = self.surroundings.best(place_of(PeerId(routed.target)), untried)
        return (nearest[1] if nearest else None), STRAY_COST

    def _nearer(self, request: _Request, untried: list[PeerId]) -> PeerId | None:
        """The neighbour that leads nearest, if that is nearer than we are ourselves."""
        routed = request.routed
        look = isinstance(routed, Locate)
        place = routed.place if isinstance(routed, Locate) else place_of(PeerId(routed.target))
        best = self.surroundings.best(place, untried, beside=look)
        ours = distance(place_of(self.context.peer_id), place)
        if best is None or (request.came_from is None and look and ours == 0):
            return best[1] if best else None
        return best[1] if best[0] < ours else None

    # --- replies -----------------------------------------------------------------------------

    def reply(self, reply: Reply, now: float) -> list[RoutingFact]:
        """Send our own reply back the way the request came."""
        request = self._requests.get(reply.request)
        if request is None:
            return []
        if request.came_from is None:  # a place that nobody is nearer to than we are
            self._forget_own(base_of(reply.request))
            return [ReplyArrived(reply, self.context.peer_id)]
        self.counters.sent += 1
        self._replies[base_of(reply.request)] = reply
        self._send_back(request, reply, now)
        return []

    def on_reply(self, peer: PeerId, reply: Reply, now: float) -> list[RoutingFact]:
        """A reply comes back: to us, or through us."""
        request = self._requests.get(reply.request)
        if request is None or request.answered or peer not in request.tried:
            self.counters.dropped += 1
            return []
        request.answered = True
        self._timers.stop(("ack", reply.request))
        neighbour = self.neighbours.get(peer)
        if neighbour is not None:
            self.context.emit(Transmit(neighbour.link, SignalAck(reply.request, answer=True)))
        if request.came_from is None:
            base = base_of(reply.request)
            if self._own.pop(base, None) is not None:
                self._forget_own(base)
                self.counters.delivered += 1
            return [ReplyArrived(reply, peer)]
        self.counters.forwarded += 1
        self._send_back(request, reply, now)
        return []

    def _send_back(self, request: _Request, reply: Reply, now: float) -> None:
        assert request.came_from is not None
        previous = self.neighbours.get(request.came_from)
        if previous is None:
            self.counters.dropped += 1
            return
        self.context.emit(Transmit(previous.link, reply))
        self._timers.set(("answer", reply.request), now + REQUEST_LIFE)

    # --- housekeeping ------------------------------------------------------------------------

    def on_time(self, now: float) -> list[RoutingFact]:
        """Try elsewhere what was not acknowledged or answered in time; forget what is old."""
        facts: list[RoutingFact] = []
        for kind, name in list(self._timers.pop_due(now)):
            request = self._requests.get(name)
            if kind == "retry":
                own = self._own.get(name)
                facts += self._try_again(own, now) if own else []
            elif kind == "over":
                self._forget_own(name)
            elif kind == "answer":
                self.counters.dropped += 1
            elif request is None:
                continue
            elif kind == "forget":
                self._forget(name)
            elif not request.acknowledged and not request.answered:
                facts += self._next_best(request, "no_ack", now)
        return facts

    def _remember(self, request: _Request, now: float) -> None:
        while len(self._requests) >= REQUESTS_MAX:
            self._forget(next(iter(self._requests)))
        self._requests[request.routed.request] = request
        self._timers.set(("forget", request.routed.request), now + REQUEST_LIFE)

    def _forget(self, name: bytes) -> None:
        del self._requests[name]
        self._replies.pop(base_of(name), None)
        for kind in ("ack", "forget"):
            self._timers.stop((kind, name))

    def _drop(self, peer: PeerId, routed: Routed, code: str) -> list[RoutingFact]:
        self.counters.dropped += 1
        self._bounce(peer, routed.request, code)
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
