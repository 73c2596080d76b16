"""What a node knows of its surroundings: its neighbours, their neighbours, and who is nearest.

Greedy routing with one step of look-ahead ("know thy neighbour's neighbour", G. S. Manku, M. Naor,
U. Wieder, STOC 2004): the next hop is the neighbour that is, or has a neighbour that is, nearest
to the place that a request goes to.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from overlay.core.keyspace import SPACE, distance, place_of
from overlay.core.types import LinkId, PeerId

DIGEST_MAX = 64
"""Neighbours of a neighbour that we remember."""
REQUESTS_PER_SECOND = 50.0
REQUESTS_BURST = 100.0


@dataclass(slots=True)
class Neighbour:
    """What routing knows of a neighbour."""

    link: LinkId
    place: int
    srtt: float = 0.0
    peers: dict[PeerId, None] = field(default_factory=dict)
    """Its neighbours, as it says (a dict for its order)."""
    places: list[int] = field(default_factory=list)
    """Theirs and its own, in order around the ring."""
    doubted: bool = False
    """It has left a request unacknowledged, and said nothing since."""
    tokens: float = REQUESTS_BURST
    tokens_at: float = 0.0

    def learn(self, peers: list[PeerId]) -> None:
        """It says who its neighbours are."""
        self.peers = dict.fromkeys(peers[:DIGEST_MAX])
        self.places = sorted({self.place, *map(place_of, self.peers)})

    def reach(self, place: int, *, beside: bool = False) -> int:
        """How near it or one of its neighbours is; `beside`: whoever is exactly there is ignored.

        >>> Neighbour(LinkId(0), 5, places=[5, 9]).reach(8)
        1
        """
        places = self.places
        at = bisect_left(places, place)
        if beside and at < len(places) and places[at] == place:
            after, before = places[(at + 1) % len(places)], places[at - 1]
            others = [each for each in (after, before) if each != place]
            return min((distance(place, each) for each in others), default=SPACE)
        return min(distance(place, places[at % len(places)]), distance(place, places[at - 1]))

    def beyond(self, place: int, *, clockwise: bool) -> int:
        """How near it or one of its neighbours is, on one side of the place only.

        >>> Neighbour(LinkId(0), 5, places=[5, 9]).beyond(8, clockwise=False)
        3
        """
        at = bisect_left(self.places, place)
        if clockwise:
            return (self.places[at % len(self.places)] - place) % SPACE
        return (place - self.places[at - 1]) % SPACE

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
class Surroundings:
    """The neighbours of one node by what can be reached through them."""

    peer_id: PeerId
    neighbours: dict[PeerId, Neighbour] = field(default_factory=dict)

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A neighbour came, moved to another link, or woke up."""
        known = self.neighbours.get(peer)
        if known is None:
            place = place_of(peer)
            self.neighbours[peer] = Neighbour(link, place, places=[place], tokens_at=now)
        else:
            known.link = link

    def learn(self, peer: PeerId, peers: list[PeerId]) -> None:
        """A neighbour says who its neighbours are."""
        known = self.neighbours.get(peer)
        if known is not None:
            known.learn([each for each in peers if each != self.peer_id])

    def doubt(self, peer: PeerId) -> None:
        """It may be dead: until it says something, others come first."""
        if peer in self.neighbours:
            self.neighbours[peer].doubted = True

    def heard(self, peer: PeerId) -> None:
        """It is alive."""
        if peer in self.neighbours:
            self.neighbours[peer].doubted = False

    def best(
        self, place: int, untried: list[PeerId], *, beside: bool = False
    ) -> tuple[int, PeerId] | None:
        """The untried neighbour that leads nearest to a place, and how near."""
        reaches = ((self.neighbours[peer].reach(place, beside=beside), peer) for peer in untried)
        return min(reaches, default=None)

    def across(self, place: int, untried: list[PeerId]) -> PeerId | None:
        """The untried neighbour that leads nearest to a place on the side where we are not."""
        clockwise = (place - place_of(self.peer_id)) % SPACE < SPACE // 2
        reaches = (
            (self.neighbours[peer].beyond(place, clockwise=clockwise), peer) for peer in untried
        )
        return min(reaches, default=(SPACE, None))[1]

    def knowing(self, target: PeerId, untried: list[PeerId]) -> list[PeerId]:
        """The neighbours that say they are linked to the target, the quickest first."""
        knowing = [peer for peer in untried if target in self.neighbours[peer].peers]
        return sorted(knowing, key=lambda peer: self.neighbours[peer].srtt)
