"""The last resort of routing: everybody is asked who is, or is linked to, a peer.

When an attempt over second-best links and sixteen walks have not found it, a small `Seek` goes to
all neighbours, and from each node once to all of its own: no gap in the ring, no lie about
neighbours and no node that drops requests can hide the target. Whoever is the target, or linked to
it, answers `Sought`; the answer goes back as the seek came, and each hop remembers for some seconds
that this is the way. Then the request itself follows.

A seek costs every link of the mesh a message or two, so seeks are limited: by a token bucket for
our own, and by one for each neighbour, which its own seeks and those that it passes on share. What
a bucket does not let in goes no further: a node that floods is never amplified.
"""

from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.limits import BoundedDict, TokenBuckets
from overlay.core.routing.lookahead import Lookahead
from overlay.core.types import PeerId
from overlay.core.wire.messages import Seek, Sought

SEEK_TTL = 12
"""Hops (guess): twice the diameter of 100,000 nodes with a dozen links each."""
OWN_RATE, OWN_BURST = 0.2, 3.0
"""Seeks a second of our own, and at once (guess)."""
BEARER_RATE, BEARER_BURST = 1.0, 8.0
"""Seeks a second that one neighbour may bring, and at once (guess): all that pass through it."""
SEEKS_MAX = 512
"""Seeks remembered; of more, the oldest is forgotten."""


@dataclass(slots=True)
class _Seek:
    target: PeerId
    came_from: PeerId | None  # None: it is ours
    found: bool = False


@dataclass(slots=True)
class Seeking:
    """The seeks of one node, its own and those that pass through it."""

    context: Context
    lookahead: Lookahead
    _seeks: BoundedDict[bytes, _Seek] = field(default_factory=lambda: BoundedDict(SEEKS_MAX))
    _own: TokenBuckets[None] = field(default_factory=lambda: TokenBuckets(OWN_RATE, OWN_BURST))
    _bearers: TokenBuckets[PeerId] = field(
        default_factory=lambda: TokenBuckets(BEARER_RATE, BEARER_BURST)
    )

    def start(self, target: PeerId, request: bytes, now: float) -> bool:
        """Ask everybody; returns whether the limit allows it."""
        if not self.lookahead.neighbours or not self._own.take(None, now):
            return False
        self._seeks.put(request, _Seek(target, None))
        self._spread(Seek(target, request, SEEK_TTL), None)
        return True

    def on_seek(self, peer: PeerId, seek: Seek, now: float) -> None:
        """A neighbour asks: answer, or ask our neighbours; each seek once."""
        self.lookahead.heard(peer)
        if seek.request in self._seeks or not self._allows(peer, now):
            return
        target = PeerId(seek.target)
        known = target in self.lookahead.neighbours and target not in self.lookahead.doubted
        self._seeks.put(seek.request, _Seek(target, peer))
        if target == self.context.peer_id or (known and target != peer):
            self._transmit(peer, Sought(seek.request))
        elif seek.ttl > 1:
            self._spread(Seek(target, seek.request, min(seek.ttl, SEEK_TTL) - 1), peer)

    def on_sought(self, peer: PeerId, sought: Sought, now: float) -> bool:
        """A neighbour knows the way; returns whether it was our seek. The first answer counts."""
        self.lookahead.heard(peer)
        seek = self._seeks.get(sought.request)
        if seek is None or seek.found or peer == seek.came_from:
            return False
        seek.found = True
        self.lookahead.brought(seek.target, peer, now)
        if seek.came_from is None:
            return True
        self._transmit(seek.came_from, sought)
        return False

    def forget(self, peer: PeerId) -> None:
        """A neighbour went."""
        self._bearers.forget(peer)

    def _allows(self, peer: PeerId, now: float) -> bool:
        return peer in self.lookahead.neighbours and self._bearers.take(peer, now)

    def _spread(self, seek: Seek, but: PeerId | None) -> None:
        for peer in self.lookahead.neighbours:
            if peer not in (but, seek.target):
                self._transmit(peer, seek)

    def _transmit(self, peer: PeerId, message: Seek | Sought) -> None:
        neighbour = self.lookahead.neighbours.get(peer)
        if neighbour is not None:
            self.context.emit(Transmit(neighbour.link, message))
