"""Look-ahead: what a node knows of its neighbours and of theirs, and which leads nearest.

Greedy routing with one step of look-ahead ("know thy neighbour's neighbour", G. S. Manku, M. Naor,
U. Wieder, STOC 2004): the next hop is the neighbour that is, or has a neighbour that is, nearest
to the place that a request goes to.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from overlay.core.limits import BoundedDict
from overlay.core.routing.ring import SPACE, place_of
from overlay.core.types import LinkId, PeerId

DIGEST_MAX = 64
"""Neighbours of a neighbour that we remember."""
DIGESTS_SHARED = 1 << 12
"""Digests kept in order for all nodes of a simulation, which hear them at about the same time."""
REQUESTS_PER_SECOND = 50.0
"""Requests that one neighbour may hand us (guess), and at once:"""
REQUESTS_BURST = 100.0
SRTT_GAIN = 0.125
"""RFC 6298 §2.3."""
SRTT_MAX = 1.0
"""Seconds (guess)."""
BROUGHT_FOR = 10.0
"""Seconds (guess) for which whoever brought word of a newcomer is the way to it: later, digests
name it, for its links are more than a guest's."""
BROUGHT_MAX = 64
"""Newcomers of whom that is remembered; of more, the oldest is forgotten."""


@lru_cache(maxsize=DIGESTS_SHARED)
def _in_order(place: int, peers: tuple[PeerId, ...]) -> tuple[int, ...]:
    """A place and those of these peers, around the ring: the same for all who hear of them."""
    return tuple(sorted({place, *map(place_of, peers)}))


@dataclass(slots=True)
class Neighbour:
    """What routing knows of a neighbour."""

    link: LinkId
    place: int
    srtt: float = 0.0
    places: tuple[int, ...] = ()
    """Its own and those of its neighbours, as it says, in order around the ring; maybe ours."""
    tokens: float = REQUESTS_BURST
    tokens_at: float = 0.0

    def learn(self, peers: list[PeerId]) -> None:
        """It says who its neighbours are."""
        self.places = _in_order(self.place, tuple(peers[:DIGEST_MAX]))

    def reach(self, place: int, skip: Collection[int] = ()) -> int:
        """How near it or one of its neighbours is; places to `skip` do not count.

        >>> Neighbour(LinkId(0), 5, places=(5, 9)).reach(8)
        1
        """
        places = self.places
        at = bisect_left(places, place)
        after, before = places[at - len(places)], places[at - 1]
        if after not in skip and before not in skip:  # nearly always
            clockwise, back = (after - place) % SPACE, (place - before) % SPACE
            return min(clockwise, back)
        return min(
            self.beyond(place, skip, clockwise=True), self.beyond(place, skip, clockwise=False)
        )

    def beyond(self, place: int, skip: Collection[int] = (), *, clockwise: bool) -> int:
        """How near it or one of its neighbours is, on one side of the place only; `skip` as above.

        >>> Neighbour(LinkId(0), 5, places=(5, 9)).beyond(8, clockwise=False)
        3
        """
        places = self.places
        step = 1 if clockwise else -1
        at = bisect_left(places, place) if clockwise else bisect_right(places, place) - 1
        for _ in places:
            found = places[at % len(places)]
            if found not in skip:
                return (found - place) * step % SPACE
            at += step
        return SPACE

    def allowed(self, now: float) -> bool:
        """A token bucket, before anything is kept for a request of this neighbour."""
        gained = (now - self.tokens_at) * REQUESTS_PER_SECOND
        self.tokens = min(REQUESTS_BURST, self.tokens + gained)
        self.tokens_at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(slots=True)
class Lookahead:
    """The neighbours of one node by what can be reached through them."""

    peer_id: PeerId
    neighbours: dict[PeerId, Neighbour] = field(default_factory=dict)
    # Newcomers, who brought word of them, and when; the latest last.
    _brought: BoundedDict[PeerId, tuple[PeerId, float]] = field(
        default_factory=lambda: BoundedDict(BROUGHT_MAX)
    )
    doubted: dict[PeerId, None] = field(default_factory=dict)
    """Neighbours that have left a request unacknowledged, and said nothing since."""
    place: int = field(init=False)

    def __post_init__(self) -> None:
        self.place = place_of(self.peer_id)

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A neighbour came, moved to another link, or woke up."""
        known = self.neighbours.get(peer)
        if known is None:
            place = place_of(peer)
            self.neighbours[peer] = Neighbour(link, place, places=(place,), tokens_at=now)
        else:
            known.link = link
            self.heard(peer)  # on a link that nobody doubts

    def remove(self, peer: PeerId) -> bool:
        """A neighbour went or fell silent; whether it was one."""
        self.doubted.pop(peer, None)
        return self.neighbours.pop(peer, None) is not None

    def learn(self, peer: PeerId, peers: list[PeerId]) -> None:
        """A neighbour says who its neighbours are."""
        known = self.neighbours.get(peer)
        if known is not None:
            known.learn(peers)

    def doubt(self, peer: PeerId) -> None:
        """It may be dead: until it says something, others come first."""
        if peer in self.neighbours:
            self.doubted[peer] = None

    def is_sure(self, peer: PeerId) -> bool:
        """Whether it is a neighbour, and not in doubt."""
        return peer in self.neighbours and peer not in self.doubted

    def heard(self, peer: PeerId) -> None:
        """It is alive."""
        if self.doubted:
            self.doubted.pop(peer, None)

    def measured(self, peer: PeerId, rtt: float) -> None:
        """It has answered after so many seconds (RFC 6298 §2)."""
        known = self.neighbours.get(peer)
        if known is not None:
            known.srtt = known.srtt + SRTT_GAIN * (rtt - known.srtt) if known.srtt else rtt

    def unanswered(self, peer: PeerId) -> None:
        """It has let time run out: it may be dead, or take longer than we think (RFC 6298 §5.5)."""
        known = self.neighbours.get(peer)
        if known is not None:
            known.srtt = min(2 * known.srtt, SRTT_MAX)
            self.doubt(peer)

    def best(
        self, place: int, untried: list[PeerId], skip: Collection[int] = ()
    ) -> tuple[int, PeerId] | None:
        """The untried neighbour that leads nearest to a place, and how near."""
        neighbours = self.neighbours
        nearest, best = SPACE + 1, self.peer_id
        for peer in untried:
            reach = neighbours[peer].reach(place, skip)
            if reach < nearest or (reach == nearest and peer < best):
                nearest, best = reach, peer
        return (nearest, best) if untried else None

    def places(self, peers: Iterable[PeerId]) -> set[int]:
        """Where these are, and we, and neighbours that may be dead: places that lead nowhere."""
        return {place_of(peer) for peer in (self.peer_id, *peers, *self.doubted)}

    def brought(self, newcomer: PeerId | None, bearer: PeerId | None, now: float) -> None:
        """A neighbour has brought word of somebody new: offers go that way first."""
        if newcomer is not None and bearer is not None:
            self._brought.put(newcomer, (bearer, now))

    def bearer(self, peer: PeerId, now: float) -> PeerId | None:
        """Who has brought word of a peer, not long ago."""
        bearer, at = self._brought.get(peer, (None, 0.0))
        return bearer if now < at + BROUGHT_FOR else None

    def knowing(self, target: PeerId, untried: list[PeerId], now: float) -> list[PeerId]:
        """The neighbours that say they are linked to the target, the quickest first.

        A newcomer may be named by nobody yet: then the way to it is the one that word of it came.
        """
        place, neighbours = place_of(target), self.neighbours
        knowing = [peer for peer in untried if place in neighbours[peer].places]
        if knowing or target not in self._brought:
            return sorted(knowing, key=lambda peer: neighbours[peer].srtt)
        bearer, at = self._brought[target]
        return [bearer] if bearer in untried and now < at + BROUGHT_FOR else []
