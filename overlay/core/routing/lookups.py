"""Looks for a place on the ring: asked of the mesh, answered to others."""

from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.routing.requests import new_request
from overlay.core.routing.ring import Keyspace, Look
from overlay.core.routing.routing import OFFER_TTL, Routing, RoutingFact
from overlay.core.types import PeerId
from overlay.core.wire.messages import Locate, Located

LOCATED_MAX = 8
"""Peers named to whoever looks for a place: as many as it remembers on either side."""
LOOKING_MAX = 16


@dataclass(slots=True)
class Looking:
    """The looks of one node that are under way."""

    context: Context
    routing: Routing
    keyspace: Keyspace
    _places: dict[bytes, int] = field(default_factory=dict)
    """What was asked about, by request."""

    def start(self, look: Look, now: float) -> list[RoutingFact]:
        """Have the mesh say who is nearest to a place."""
        while len(self._places) >= LOOKING_MAX:
            del self._places[next(iter(self._places))]
        locate = Locate(look.place, new_request(self.context.crypto), OFFER_TTL)
        self._places[locate.request] = look.place
        neighbours = list(self.routing.neighbours)
        if not (look.own and neighbours):
            return self.routing.send(locate, now)
        self.routing.send_through(self.context.random.choice(neighbours), locate, now)
        return []

    def answer(self, locate: Locate) -> list[RoutingFact]:
        """Nobody that we know of is nearer to the place than we: say who is near."""
        near = self.keyspace.nearest(locate.place, LOCATED_MAX)
        return self.routing.reply(Located(locate.request, list(near)))

    def finish(self, located: Located) -> tuple[int, list[PeerId]] | None:
        """The place that we looked for, and who is nearest to it."""
        place = self._places.pop(located.request, None)
        return None if place is None else (place, list(map(PeerId, located.peers)))
