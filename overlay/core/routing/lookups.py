"""What a node asks of the mesh: who is nearest to a place on the ring; which way requests take."""

from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.events import Rejected, Resolved, Traced, TracePeer
from overlay.core.limits import BoundedDict
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import RoutingFact, base_of, new_request
from overlay.core.routing.ring import LocateNeeded, Ring
from overlay.core.routing.routing import Routing
from overlay.core.timers import Timers
from overlay.core.types import PeerId, RequestId
from overlay.core.wire.messages import Locate, Located, Trace, TraceReply
from overlay.errors import Failure

LOCATED_MAX = 8
"""Peers named in an answer: as many as the ring remembers on either side."""
LOCATES_MAX = 16
"""Places being located at once; of more, the oldest is forgotten."""


@dataclass(slots=True)
class Locating:
    """The places that one node is having located, and its answers to others."""

    context: Context
    routing: Routing
    ring: Ring
    # What was asked about, by request.
    _places: BoundedDict[bytes, int] = field(default_factory=lambda: BoundedDict(LOCATES_MAX))

    def start(self, needed: LocateNeeded, now: float) -> list[RoutingFact]:
        """Ask the mesh who is nearest to a place."""
        locate = Locate(needed.place, new_request(self.context.crypto), OFFER_TTL)
        self._places.put(locate.request, needed.place)
        neighbours = list(self.routing.neighbours)
        if not (needed.own and neighbours):
            return self.routing.send(locate, now)
        self.routing.send_through(self.context.random.choice(neighbours), locate, now)
        return []

    def answer(self, locate: Locate) -> list[RoutingFact]:
        """Nobody that we know of is nearer to the place than we: say who is near."""
        near = self.ring.nearest(locate.place, LOCATED_MAX)
        return self.routing.reply(Located(locate.request, list(near)))

    def on_located(self, located: Located) -> tuple[int, list[PeerId]] | None:
        """The place that we asked about, and who is nearest to it."""
        place = self._places.pop(located.request, None)
        return None if place is None else (place, list(map(PeerId, located.peers)))


TRACE_TIMEOUT = 10.0
"""Seconds (guess): hops remember a request for no more than 15."""
TRACES_MAX = 256


@dataclass(slots=True)
class Tracing:
    """The traces of one node that are under way, and its answers to others."""

    context: Context
    routing: Routing
    _waiting: dict[bytes, tuple[RequestId, float]] = field(default_factory=dict)
    _timers: Timers[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def start(self, command: TracePeer, now: float) -> list[RoutingFact]:
        """Send a trace; too many at once are refused."""
        if len(self._waiting) >= TRACES_MAX:
            text = f"{TRACES_MAX} traces are under way: try again later"
            self.context.emit(Rejected(command.request, Failure.BUSY, text))
            return []
        request = new_request(self.context.crypto)
        self._waiting[request] = (command.request, now)
        self._timers.set(request, now + TRACE_TIMEOUT)
        return self.routing.send(Trace(command.peer, request, OFFER_TTL, []), now)

    def answer(self, trace: Trace) -> list[RoutingFact]:
        """A trace ends here: send back the way that it took."""
        path = [*trace.path, bytes(self.context.peer_id)]
        return self.routing.reply(TraceReply(trace.request, path))

    def on_reply(self, reply: TraceReply, now: float) -> None:
        """A trace of ours is back."""
        request = base_of(reply.request)
        waiting = self._waiting.pop(request, None)
        if waiting is None:
            return
        self._timers.stop(request)
        command, sent_at = waiting
        hops = tuple(map(PeerId, reply.path))
        self.context.emit(Resolved(command, Traced(hops, now - sent_at, reply.request[-1])))

    def on_undeliverable(self, request: bytes, code: str) -> None:
        """Nobody could pass it on."""
        text = f"no neighbour could pass it on ({code})"
        self._give_up(request, Failure.UNREACHABLE, text)

    def on_time(self, now: float) -> None:
        """Give up what has not come back in time."""
        for request in self._timers.pop_due(now):
            text = f"no answer came back within {TRACE_TIMEOUT:g} s"
            self._give_up(request, Failure.TIMEOUT, text)

    def _give_up(self, request: bytes, code: Failure, text: str) -> None:
        waiting = self._waiting.pop(request, None)
        self._timers.stop(request)
        if waiting is not None:
            self.context.emit(Rejected(waiting[0], code, text))
