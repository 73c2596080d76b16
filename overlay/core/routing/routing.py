"""One idea: requests and their replies on their way through the mesh, hop by hop.

Routing is greedy by ring distance with one step of look-ahead, and never goes twice through a node.
A hop takes charge of a request by acknowledging it, and keeps it until the next hop has done the
same; a reply acknowledges as well, so who replies at once does nothing else. When that takes longer
than max(3 SRTT, 100 ms), or the request bounces, the hop tries its next best neighbour; one that
let it wait is tried last until it says something. The reply goes back the way the request came.

A request of our own that finds no way, or no answer, is tried once more over second-best links,
then by walks that begin at random; in the end everybody is asked for its target (`seek`).

The TTL is not only how far a request may go but how much may be done for it: what a hop hands on
and what it tries in vain come out of what it was given, so an attempt costs at most `OFFER_TTL`
messages, wherever its target is. (When a hop is merely slow to acknowledge, it goes on with the
request while the one before it tries elsewhere: that much may be done twice.)
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.routing.lookahead import Lookahead, Neighbour
from overlay.core.routing.next_hop import OFFER_TTL, NextHop
from overlay.core.routing.requests import (
    ATTEMPTS_MAX,
    SOUGHT,
    WALK,
    BounceCode,
    Counters,
    OwnRequest,
    Reply,
    ReplyArrived,
    Request,
    RequestArrived,
    Routed,
    RoutingFact,
    SeekState,
    Undeliverable,
    attempt_of,
    base_of,
    onward,
)
from overlay.core.routing.seek import Seeking
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import Bounce, Locate, Message, Offer, Seek, SignalAck, Sought

ACK_TIMEOUT_MIN = 0.1
"""Seconds (measured: with a fifth of the nodes dead .3 % more than with 300 ms are answered before
they are tried again)."""
ACK_TIMEOUT_UNKNOWN = 0.3
"""Seconds (guess) for a neighbour whose round trip is unknown."""
ACK_TIMEOUT_TARGET = 1.0
"""Seconds (guess) for the target itself: who else is tried has to come to it as well, and one that
dozens of newcomers talk to at once is slow, not dead."""
RETRY_AFTER = 2.5
"""Seconds (measured: a fifth of the nodes dead, 1 in 200 takes longer) without an answer before a
request of ours goes another way, …"""
WALK_AFTER = 2.5
"""… and as many (measured) from then until the first walks."""
WALKS_AT_ONCE = 4
"""(guess)"""
SEEK_TIMEOUT = 2.0
"""Seconds (guess) until nobody is expected to answer a seek any more."""
WALK_INTERVAL = 1.0
"""Seconds (guess) from some walks to the next."""
REQUEST_LIFE = 15.0
"""Seconds (guess) that a hop remembers a request: longer than any asker waits."""
FORGET_INTERVAL = 2.0
"""Seconds (guess) by which that may be longer: one wake-up for many requests."""
REQUESTS_MAX = 1024
"""Requests remembered; of more, the oldest is forgotten."""


class Due(StrEnum):
    """What falls due of a request."""

    ACK = "ack"  # the next hop should have taken charge of this attempt
    RETRY = "retry"  # our own request should have been answered: another attempt
    OVER = "over"  # nobody waits for an answer to our own request any more
    FORGET = "forget"  # some requests are old


ACK, RETRY, OVER = Due.ACK, Due.RETRY, Due.OVER
"""Looked up once: every request on its way sets and stops some of these."""
FORGET = (Due.FORGET, b"")
"""Of all requests."""


@dataclass(slots=True)
class Routing:
    """The signalling of one node, its own and what it forwards for others."""

    context: Context
    counters: Counters = field(default_factory=Counters)
    lookahead: Lookahead = field(init=False)
    """The neighbours, and what can be reached through them."""
    seeking: Seeking = field(init=False)
    _next: NextHop = field(init=False)
    _requests: dict[bytes, Request] = field(default_factory=dict)  # by the name of the attempt
    _own: dict[bytes, OwnRequest] = field(default_factory=dict)  # by the name of the request
    # What we replied to requests that ended here, should another attempt arrive.
    _replies: dict[bytes, Reply] = field(default_factory=dict)
    _timers: Timers[tuple[Due, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)
        self.lookahead = Lookahead(self.context.peer_id)
        self.seeking = Seeking(self.context, self.lookahead)
        self._next = NextHop(self.lookahead, self.context.random)

    # --- neighbours --------------------------------------------------------------------------

    @property
    def neighbours(self) -> dict[PeerId, Neighbour]:
        """The peers that requests can be handed to."""
        return self.lookahead.neighbours

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A neighbour came, moved to another link, or woke up."""
        self.lookahead.add(peer, link, now)

    def on_round_trip(self, peer: PeerId, rtt: float | None) -> None:
        """A neighbour's link has been measured, in seconds: this replaces what was estimated."""
        neighbour = self.neighbours.get(peer)
        if neighbour is not None and rtt is not None:
            neighbour.srtt = rtt

    def on_neighbours(self, peer: PeerId, peers: list[PeerId]) -> None:
        """A neighbour says who its neighbours are."""
        self.lookahead.learn(peer, peers)

    def on_news(self, newcomer: PeerId | None, bearer: PeerId | None, now: float) -> None:
        """A neighbour has brought word of somebody new: it is the way to it for a while."""
        self.lookahead.brought(newcomer, bearer, now)

    def on_suspect(self, peer: PeerId) -> None:
        """A neighbour may be dead: until it says something, others come first."""
        self.lookahead.doubt(peer)

    def on_alive(self, peer: PeerId) -> None:
        """A neighbour has been heard again."""
        self.lookahead.heard(peer)

    def remove(self, peer: PeerId, now: float) -> list[RoutingFact]:
        """A neighbour went or fell silent: what it had not acknowledged is tried elsewhere."""
        if not self.lookahead.remove(peer):
            return []
        self.seeking.forget(peer)
        facts: list[RoutingFact] = []
        for request in list(self._requests.values()):
            waits = request.tried and not request.answered and not request.acknowledged
            if waits and request.tried[-1] == peer:
                facts += self._next_best(request, now, BounceCode.LINK_DOWN, spent=1)
        return facts

    # --- requests of our own -----------------------------------------------------------------

    def send(
        self, routed: Routed, now: float, *, walk: bool = True, beside: bool = False
    ) -> list[RoutingFact]:
        """Send a request of our own. `walk`: if need be, sixteen times over.

        `beside`: to a neighbour in doubt, by others than itself; without walks in one way only.
        """
        self.counters.sent += 1
        own = self._own[routed.request] = OwnRequest(routed, walk, once=beside and not walk)
        self._timers.set((RETRY, routed.request), now + RETRY_AFTER)
        self._timers.set((OVER, routed.request), now + REQUEST_LIFE)
        return self._attempt(own, _target(routed) if beside else None, now)

    def send_through(self, peer: PeerId, routed: Routed, now: float) -> None:
        """Send a request of our own with this first hop, and no second try."""
        self.counters.sent += 1
        self._remember(request := Request(routed, came_from=None, left=routed.ttl), now)
        self._hand_over(request, peer, routed.ttl, now)

    def _attempt(self, own: OwnRequest, avoided: PeerId | None, now: float) -> list[RoutingFact]:
        name = attempt_of(own.routed.request, own.attempt)
        routed = msgspec.structs.replace(own.routed, request=name)
        request = Request(routed, came_from=None, avoided=avoided, left=routed.ttl)
        own.open += 1
        facts = self._take_charge(request, now)
        if own.attempt == 0 and request.tried:
            own.first = request.tried[-1]
        return facts

    def _try_again(self, own: OwnRequest, now: float) -> list[RoutingFact]:
        """Once over another first link, then by walks; with a single link both are in vain."""
        base = own.routed.request
        if isinstance(own.routed, Locate) or own.once:
            return []  # The ring asks again anyway.
        if isinstance(own.routed, Offer) and self.lookahead.is_sure(PeerId(own.routed.target)):
            self._forget_own(base)  # It is linked meanwhile: there is nothing to negotiate.
            return []
        last = ATTEMPTS_MAX if own.walk else WALK
        if own.attempt + 1 >= last or len(self.neighbours) < 2:
            return self._seek(own, now)
        own.attempt += 1
        if own.attempt < WALK:
            self._timers.set((RETRY, base), now + WALK_AFTER)
            return self._attempt(own, own.first, now)
        self._timers.set((RETRY, base), now + WALK_INTERVAL)
        return self._walk(own, now)

    def _walk(self, own: OwnRequest, now: float) -> list[RoutingFact]:
        """Some attempts at once; `own.attempt` is the first of them and then the last."""
        facts = self._attempt(own, None, now)
        for _ in range(WALKS_AT_ONCE - 1):
            if own.attempt + 1 < ATTEMPTS_MAX and own.routed.request in self._own:
                own.attempt += 1
                facts += self._attempt(own, None, now)
        return facts

    def _seek(self, own: OwnRequest, now: float) -> list[RoutingFact]:
        """Have everybody asked, once; an unanswered seek counts as an attempt that has failed."""
        base, target = own.routed.request, _target(own.routed)
        if target is None or len(self.neighbours) < 2 or not own.walk or own.seek is SeekState.OVER:
            return []
        if own.seek is SeekState.UNDER_WAY:
            own.seek = SeekState.OVER
            return self._came_to_nothing(base, BounceCode.NO_ROUTE, now)
        name = attempt_of(base, SOUGHT)
        own.seek = SeekState.OVER
        if self.seeking.start(target, name, now):
            own.seek = SeekState.UNDER_WAY
            own.open += 1
            self._timers.set((RETRY, base), now + SEEK_TIMEOUT)
        return []

    def on_seek(self, peer: PeerId, message: Seek | Sought, now: float) -> list[RoutingFact]:
        """Somebody seeks a peer, or says where it is: then our request follows."""
        if isinstance(message, Seek):
            self.seeking.on_seek(peer, message, now)
            return []
        own = self._own.get(base_of(message.request))
        ours = self.seeking.on_sought(peer, message, now)
        if not ours or own is None or own.seek is SeekState.OVER:
            return []
        own.seek, own.attempt = SeekState.OVER, SOUGHT
        own.open -= 1
        return self._attempt(own, None, now)

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
        left = self._own.get(base)
        if left is not None and left.open == 0:
            facts.append(Undeliverable(base, code))
            self._forget_own(base)
        return facts

    def _on_answered(self, base: bytes) -> None:
        """Whatever else comes of our request is late."""
        if base in self._own:
            self.call_off(base)
            self.counters.delivered += 1

    def is_near(self, peer: PeerId, now: float) -> bool:
        """Whether a neighbour that is not in doubt says that it is linked to this peer."""
        lookahead = self.lookahead
        sure = [each for each in lookahead.neighbours if each not in lookahead.doubted]
        return bool(lookahead.knowing(peer, [each for each in sure if each != peer], now))

    def call_off(self, base: bytes) -> None:
        """Nobody waits for an answer to a request of ours any more."""
        own = self._own.get(base)
        for attempt in range(own.attempt + 1) if own is not None else ():
            request = self._requests.get(attempt_of(base, attempt))
            if request is not None:
                request.answered = True
        self._forget_own(base)

    def _forget_own(self, base: bytes) -> None:
        self._own.pop(base, None)
        self._timers.stop((RETRY, base))
        self._timers.stop((OVER, base))

    # --- requests of others ------------------------------------------------------------------

    def on_request(self, peer: PeerId, routed: Routed, now: float) -> list[RoutingFact]:
        """A neighbour hands us a request."""
        self.lookahead.heard(peer)
        known = self._requests.get(routed.request)
        if known is not None:
            if self._is_for_us(routed):
                self._transmit(peer, SignalAck(routed.request, answer=False))
            elif known.came_from != peer:
                self._transmit(peer, Bounce(routed.request, BounceCode.LOOP))
            return []
        neighbour = self.neighbours.get(peer)
        if neighbour is None or not neighbour.allowed(now):
            return self._drop(peer, routed, BounceCode.BUSY)
        left = min(routed.ttl, OFFER_TTL) - 1
        routed_on = onward(routed, self.context.peer_id, OFFER_TTL)
        request = Request(routed_on, came_from=peer, left=left, vain=routed.vain)
        if self._ends_here(request):
            return self._deliver(request, routed, peer, now)
        if routed.ttl <= 1 and not self._next.is_last_hop(request):
            return self._drop(peer, routed, BounceCode.TTL)
        self._transmit(peer, SignalAck(routed.request, answer=False))
        return self._take_charge(request, now)

    def _is_for_us(self, routed: Routed) -> bool:
        return not isinstance(routed, Locate) and routed.target == self.context.peer_id

    def _ends_here(self, request: Request) -> bool:
        """Whether we are the target, or nobody that we know of is nearer to the place."""
        routed = request.routed
        if not isinstance(routed, Locate):
            return self._is_for_us(routed)
        request.next = None if request.left < 1 else self._next.nearer(request)
        return request.next is None

    def _deliver(
        self, request: Request, routed: Routed, peer: PeerId, now: float
    ) -> list[RoutingFact]:
        request.answered = True
        self._remember(request, now)
        reply = self._replies.get(base_of(routed.request))
        if reply is not None:  # Another attempt of what was answered: its answer got lost.
            again = msgspec.structs.replace(reply, request=routed.request)
            self._send_back(request, again)
            return []
        self.counters.delivered += 1
        request.owed = True
        return [RequestArrived(routed, peer)]

    def acknowledge(self, name: bytes) -> None:
        """A request that ends here has been looked at: say so, unless a reply has gone back."""
        request = self._requests.get(name)
        if request is not None and request.owed and request.came_from is not None:
            request.owed = False
            self._transmit(request.came_from, SignalAck(name, answer=False))

    def on_ack(self, peer: PeerId, message: SignalAck, now: float) -> None:
        """The next hop has taken charge."""
        self.lookahead.heard(peer)
        request = self._requests.get(message.request)
        if request is None or message.answer:
            return  # Nodes of long ago acknowledge answers, too.
        if peer in request.tried and request.tried[-1] == peer:
            self.lookahead.measured(peer, now - request.handed_at)
            request.acknowledged = True
            self._timers.stop((ACK, message.request))

    def on_bounce(self, peer: PeerId, message: Bounce, now: float) -> list[RoutingFact]:
        """The next hop has not taken the request, or has found no way after all."""
        self.lookahead.heard(peer)
        request = self._requests.get(message.request)
        if request is None or request.answered or not request.tried:
            return []
        if request.tried[-1] != peer:
            return []
        spent = max(1, request.handed - message.left) if request.acknowledged else 1
        request.vain = tuple(dict.fromkeys((*request.vain, *message.vain)))
        # A peer that gives up for want of an acknowledgement gives up all the same.
        code = BounceCode.NO_ROUTE if message.code == BounceCode.NO_ACK else message.code
        return self._next_best(request, now, code, spent=spent)

    def _take_charge(self, request: Request, now: float) -> list[RoutingFact]:
        self._remember(request, now)
        return self._next_best(request, now)

    def _next_best(
        self, request: Request, now: float, code: str = BounceCode.NO_ROUTE, spent: int = 0
    ) -> list[RoutingFact]:
        """Hand the request to the best neighbour not yet tried, or give up.

        `code`: why, if there is none; `spent`: what the last try has cost of the TTL.
        """
        name = request.routed.request
        request.left -= spent
        best, ttl = self._next.best(request, now)
        if best is not None:
            if request.came_from is not None and not request.tried:
                self.counters.forwarded += 1
            self._hand_over(request, best, ttl, now)
            return []
        self._timers.stop((ACK, name))
        if code == BounceCode.NO_ACK:
            return []  # Late is not lost: the last hop may yet acknowledge and answer.
        request.answered = True
        if isinstance(request.routed, Locate):  # Those nearer to the place are gone: it ends here.
            via = request.came_from or self.context.peer_id
            return [RequestArrived(request.routed, via)]
        self.counters.dropped += 1
        if request.came_from is None:
            return self._came_to_nothing(name, code, now)
        bounce = Bounce(name, code, max(0, request.left), self._next.vain(request))
        self._transmit(request.came_from, bounce)
        return []

    def _hand_over(self, request: Request, peer: PeerId, ttl: int, now: float) -> None:
        request.tried += (peer,)
        request.handed_at = now
        request.acknowledged = False
        request.handed = ttl
        neighbour = self.neighbours[peer]
        handed = msgspec.structs.replace(request.routed, ttl=ttl, vain=self._next.vain(request))
        self.context.emit(Transmit(neighbour.link, handed))
        known = neighbour.srtt > 0.0
        wait = max(3 * neighbour.srtt, ACK_TIMEOUT_MIN) if known else ACK_TIMEOUT_UNKNOWN
        if peer == _target(request.routed):
            wait = max(wait, ACK_TIMEOUT_TARGET)
        self._timers.set((ACK, request.routed.request), now + wait)

    # --- replies -----------------------------------------------------------------------------

    def reply(self, reply: Reply) -> list[RoutingFact]:
        """Send our own reply back the way the request came."""
        request = self._requests.get(reply.request)
        if request is None:
            return []
        if request.came_from is None:  # We ourselves are nearest to a place that we asked about.
            self._forget_own(base_of(reply.request))
            return [ReplyArrived(reply, self.context.peer_id)]
        self.counters.sent += 1
        self._replies[base_of(reply.request)] = reply
        self._send_back(request, reply)
        return []

    def on_reply(self, peer: PeerId, reply: Reply, now: float) -> list[RoutingFact]:
        """A reply comes back: to us, or through us."""
        self.lookahead.heard(peer)
        request = self._requests.get(reply.request)
        if request is None or peer not in request.tried:
            self.counters.dropped += 1
            return []
        if request.answered:
            return []
        request.answered = True
        if not request.acknowledged and request.tried[-1] == peer:
            self.lookahead.measured(peer, now - request.handed_at)
        self._timers.stop((ACK, reply.request))
        if request.came_from is None:
            self._on_answered(base_of(reply.request))
            return [ReplyArrived(reply, peer)]
        self.counters.forwarded += 1
        self._send_back(request, reply)
        return []

    def _send_back(self, request: Request, reply: Reply) -> None:
        assert request.came_from is not None
        request.owed = False
        previous = self.neighbours.get(request.came_from)
        if previous is None:
            self.counters.dropped += 1
            return
        self.context.emit(Transmit(previous.link, reply))

    def count_dropped(self) -> None:
        """A request that ended here did not hold: nobody is told, but it is counted."""
        self.counters.dropped += 1

    # --- housekeeping ------------------------------------------------------------------------

    def on_time(self, now: float) -> list[RoutingFact]:
        """Try elsewhere what was not acknowledged or answered in time; forget what is old."""
        facts: list[RoutingFact] = []
        for due, name in self._timers.pop_due(now):
            match due:
                case Due.ACK:
                    facts += self._on_unacknowledged(name, now)
                case Due.RETRY:
                    own = self._own.get(name)
                    facts += self._try_again(own, now) if own else []
                case Due.OVER:
                    self._forget_own(name)
                case Due.FORGET:
                    self._forget_old(now)
                case _:
                    assert_never(due)
        return facts

    def _on_unacknowledged(self, name: bytes, now: float) -> list[RoutingFact]:
        """The next hop has let time run out."""
        request = self._requests.get(name)
        if request is None or request.acknowledged or request.answered:
            return []
        self.lookahead.unanswered(request.tried[-1])
        return self._next_best(request, now, BounceCode.NO_ACK, spent=1)

    def _remember(self, request: Request, now: float) -> None:
        while len(self._requests) >= REQUESTS_MAX:
            self._forget(next(iter(self._requests)))
        request.forget_at = now + REQUEST_LIFE
        self._requests[request.routed.request] = request
        if FORGET not in self._timers:
            self._timers.set(FORGET, request.forget_at + FORGET_INTERVAL)

    def _forget_old(self, now: float) -> None:
        """The oldest come first; those that grow old together are forgotten together."""
        while self._requests:
            name, oldest = next(iter(self._requests.items()))
            if oldest.forget_at > now:
                self._timers.set(FORGET, oldest.forget_at + FORGET_INTERVAL)
                return
            self._forget(name)

    def _forget(self, name: bytes) -> None:
        del self._requests[name]
        self._replies.pop(base_of(name), None)
        self._timers.stop((ACK, name))

    def _drop(self, peer: PeerId, routed: Routed, code: str) -> list[RoutingFact]:
        self.counters.dropped += 1
        self._transmit(peer, Bounce(routed.request, code))
        return []

    def _transmit(self, peer: PeerId, message: Message) -> None:
        neighbour = self.neighbours.get(peer)
        if neighbour is not None:
            self.context.emit(Transmit(neighbour.link, message))


def _target(routed: Routed) -> PeerId | None:
    """Whom a request is for, if it is for somebody."""
    return None if isinstance(routed, Locate) else PeerId(routed.target)
