"""Which neighbour is handed a request next, and how much of the TTL with it.

The target itself; else a neighbour linked to it; else the one that leads nearest, unless a link of
ours leads to the target, which is slow then. Places that lead nowhere do not count: where the
request has been, and who did not answer. When no neighbour is nearer than we are but places in
between lead nowhere, the target may be behind dead nodes, and the search goes on, depth first.
Without such a sign the target is most likely not there, and the search ends after a few more
messages (docs/decisions/0021-a-request-takes-along-what-leads-nowhere.md).
"""

from dataclasses import dataclass

from overlay.core.routing.lookahead import Lookahead
from overlay.core.routing.requests import SOUGHT, WALK, Request, walks
from overlay.core.routing.ring import distance, place_of
from overlay.core.types import PeerId, Random
from overlay.core.wire.bounds import VAIN_MAX
from overlay.core.wire.messages import Locate

OFFER_TTL = 64
"""Messages (measured: at 10,000 nodes, a fifth of them dead, .1 % more come to nothing with 40);
seven times the mean way through 100,000 nodes (docs/benchmarks.md: 9.0)."""
STRAYS = 4
"""Messages (measured: with 8, .1 % more of those requests find their way) that an attempt may still
cost when nobody is nearer to its target and no dead nodes are known to be in between."""
RANDOM_HOPS = 2
"""Hops (guess) that a walk goes at random before it turns greedy: so it gets around a node that
acknowledges requests and drops them."""
TRIES_MAX = 8
"""Next hops that one node tries for one request (guess); half of them for a place."""


@dataclass(slots=True)
class NextHop:
    """The choice of one node; it keeps nothing of a request but what the request itself holds."""

    lookahead: Lookahead
    random: Random

    def vain(self, request: Request) -> tuple[int, ...]:
        """The places that others need not try.

        In the order of the ring, so that hops do not learn who has handled the request before
        them; whoever asks leaves itself out, for the same reason.
        """
        places = self.lookahead.places([]).union(request.vain)
        if request.came_from is None:
            places.discard(self.lookahead.place)
        return tuple(sorted(places)[:VAIN_MAX])

    def _untried(self, request: Request) -> list[PeerId]:
        neighbours, doubted = self.lookahead.neighbours, self.lookahead.doubted
        out = (*request.tried, request.came_from, request.avoided)
        left = [each for each in neighbours if each not in out]
        if request.vain:
            left = [each for each in left if neighbours[each].place not in request.vain]
        if doubted:
            left = [each for each in left if each not in doubted] or left
        tries_max = TRIES_MAX
        if isinstance(request.routed, Locate):
            # Whoever is exactly there is most likely the node that asks about its own place.
            place = request.routed.place
            left = [each for each in left if neighbours[each].place != place]
            tries_max = TRIES_MAX // 2
        return left if len(request.tried) < tries_max else []

    def best(self, request: Request, now: float) -> tuple[PeerId | None, int]:
        """The next hop and what it is given of the TTL; never one twice."""
        routed = request.routed
        if request.next is not None:
            found, request.next = request.next, None
            return found, request.left
        untried = self._untried(request)
        if self.is_last_hop(request):
            assert not isinstance(routed, Locate)
            return PeerId(routed.target), max(request.left, 1)
        if request.left < 1 or not untried:
            return None, 0
        if isinstance(routed, Locate):
            return self._nearer(request, untried), request.left
        target, walk = PeerId(routed.target), walks(routed.request)
        if target in request.tried and target in self.lookahead.neighbours:
            # It is slow, or our link to it is dead: only another link to it can be of use.
            return self._knowing(request, untried, now), request.left
        if walk and request.left > OFFER_TTL - RANDOM_HOPS:
            return self.random.choice(untried), request.left
        better = self._knowing(request, untried, now) or self._nearer(request, untried)
        if better is None:
            best = self.lookahead.best(place_of(target), untried, self._visited(request))
            better = best[1] if best else None
            if not self._is_before_a_gap(request, place_of(target)):
                request.left = min(request.left, STRAYS)
        return better, request.left

    def _is_before_a_gap(self, request: Request, place: int) -> bool:
        """Whether nodes that lead nowhere are in between: then the target may be behind them.

        Not so when the target itself has been tried.
        """
        ours = distance(self.lookahead.place, place)
        vain = self.lookahead.places([]).union(request.vain)
        return place not in vain and any(distance(each, place) < ours for each in vain)

    def is_last_hop(self, request: Request) -> bool:
        """Whether the target is a neighbour of ours that has not been tried, and may be."""
        routed = request.routed
        if isinstance(routed, Locate) or routed.target in (*request.tried, request.avoided):
            return False
        return routed.target in self.lookahead.neighbours and routed.target != request.came_from

    def _visited(self, request: Request) -> set[int]:
        """Places that lead nowhere: where the request has been, and who may be dead."""
        came_from = request.came_from or self.lookahead.peer_id
        places = self.lookahead.places([*request.tried, came_from])
        places.update(request.vain)
        return places

    def _knowing(self, request: Request, untried: list[PeerId], now: float) -> PeerId | None:
        """A neighbour that says it is linked to the target: at each attempt another."""
        assert not isinstance(request.routed, Locate)
        if request.routed.request[-1] == SOUGHT:
            bearer = self.lookahead.bearer(PeerId(request.routed.target), now)
            if bearer in untried:
                return bearer
        knowing = self.lookahead.knowing(PeerId(request.routed.target), untried, now)
        return knowing[request.routed.request[-1] % len(knowing)] if knowing else None

    def nearer(self, request: Request) -> PeerId | None:
        """The neighbour that leads nearer to a request's place than we are, if there is one."""
        return self._nearer(request, self._untried(request))

    def _nearer(self, request: Request, untried: list[PeerId]) -> PeerId | None:
        """The neighbour that leads nearest, if that is nearer than we are ourselves.

        The second attempt takes the second best: it shares as few nodes with the first as it can.
        """
        routed, skip = request.routed, self._visited(request)
        locate = isinstance(routed, Locate)
        place = routed.place if isinstance(routed, Locate) else place_of(PeerId(routed.target))
        if locate:
            skip.add(place)
        if (best := self.lookahead.best(place, untried, skip)) is None:
            return None
        ours = distance(self.lookahead.place, place)
        if request.came_from is None and locate and ours == 0:
            return best[1]
        if best[0] >= ours:
            return None
        if routed.request[-1] == WALK - 1:  # The second attempt, before the walks.
            others = [peer for peer in untried if peer != best[1]]
            second = self.lookahead.best(place, others, skip)
            return second[1] if second and second[0] < ours else best[1]
        return best[1]
