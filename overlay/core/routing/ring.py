"""The ring: to whom we link so that greedy routing finds everybody.

Each node has a place on a ring of 2^64, the hash of its peer id. It keeps links to its two nearest
neighbours on either side, which make greedy routing end at the right node, and to a few peers at
harmonic distances, which make it short (J. Kleinberg, "The small-world phenomenon", STOC 2000;
G. S. Manku, M. Bawa, P. Raghavan, "Symphony: distributed hashing in a small world", USITS 2003).

Near peers are learnt from the neighbours' digests, as in T-Man (M. Jelasity, A. Montresor,
O. Babaoglu, Computer Networks 53, 2009), and by locating our own place through a random neighbour:
that finds it in a few hops after a join, and merges rings that a partition had parted.
"""

import hashlib
from bisect import insort
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import assert_never

import msgspec

from overlay.core.context import Context
from overlay.core.timers import Timers
from overlay.core.types import PeerId

SPACE = 1 << 64
CHECK_FIRST = 1.0
"""Seconds (guess) from the first link to the first time that our place is located: a join brings
several links, and each of them would change the answer."""
CHECK_INTERVAL = 10.0
"""Seconds (guess) until our place is located again; so much longer each time that nothing changes,
…"""
CHECK_INTERVAL_MAX = 60.0
"""… up to this (guess)."""
PLACED_AFTER = 3.0
"""Seconds (guess) that the first answer to where our place is may take."""
CANDIDATES = 8
"""Near peers remembered on either side (guess): the next ones when those that we chose die."""
RETRY_INTERVAL = 15.0
"""Seconds (guess) after which one of the lost ring neighbours is tried again: a partition may have
ended. One at a time, for an attempt that fails costs more than one that succeeds; when one of them
is back, all the others are tried, too."""
RETRY_FOR = 1800.0
"""Seconds (guess) that a lost ring neighbour is remembered."""
GONE_FOR = 60.0
"""Seconds (guess): digests and answers that are older than this name nobody who has left."""
LOST_MAX = 32
REDRAWN = 4.0
"""A long link drawn for a mesh so many times larger or smaller is drawn anew (guess; Symphony
draws anew when its estimate of the size has doubled or halved)."""
SMALL_MESH = 24.0
"""Below this size (guess) look-ahead over ring and random links sees nearly everybody."""


@dataclass(frozen=True, slots=True)
class RingParameters:
    """How many links the ring may ask for."""

    side: int = 2
    """Ring neighbours on either side; 0 switches the ring off."""
    long: int = 2
    """Links at harmonic distances."""


class Needed(msgspec.Struct, frozen=True, gc=False):
    """Open a link to this peer; `on_linked` or `on_unreachable` is expected to follow."""

    peer: PeerId


class Held(msgspec.Struct, frozen=True, gc=False):
    """The link to this peer is one that routing counts on."""

    peer: PeerId
    ring: bool
    """False: a long link."""


class Released(msgspec.Struct, frozen=True, gc=False):
    """Routing counts on the link to this peer no longer."""

    peer: PeerId


class LocateNeeded(msgspec.Struct, frozen=True, gc=False):
    """Find out who is nearest to a place; `on_located` may follow."""

    place: int
    own: bool
    """The place is ours: ask through a random neighbour. A greedy first hop knows us and what we
    know, and would end the request where it began."""


RingFact = Needed | Held | Released | LocateNeeded


@lru_cache(maxsize=1 << 18)
def place_of(peer: PeerId) -> int:
    """A peer's place on the ring."""
    return int.from_bytes(hashlib.sha256(b"overlay ring 1" + peer).digest()[:8], "big")


def distance(one: int, other: int) -> int:
    """The shorter way around the ring."""
    clockwise = (one - other) % SPACE
    return min(clockwise, SPACE - clockwise)


class Due(StrEnum):
    """What falls due."""

    CHECK = "check"  # our own place is located anew
    PLACED = "placed"  # the answer to that should have come
    LOST = "lost"  # one of the lost is tried again


@dataclass(slots=True)
class Ring:
    """The ring links and the long links of one node. Methods return facts."""

    context: Context
    parameters: RingParameters
    linked: dict[PeerId, None] = field(default_factory=dict)
    """Peers with an open link, whatever it is for."""
    near: dict[PeerId, None] = field(default_factory=dict)
    """Linked ring neighbours."""
    long: dict[PeerId, float] = field(default_factory=dict)
    """Long links, and for how large a mesh each was drawn."""
    place: int = 0
    # Near peers clockwise and counter-clockwise, by their distance that way around.
    _sides: tuple[list[tuple[int, PeerId]], list[tuple[int, PeerId]]] = field(
        default_factory=lambda: ([], [])
    )
    _asked: dict[PeerId, None] = field(default_factory=dict)  # peers to whom a link is wanted
    # Of these, those drawn for a long link, and for what size of mesh.
    _drawn: dict[PeerId, float] = field(default_factory=dict)
    # Peers not reached: until when they rest, and until when they are remembered.
    _lost: dict[PeerId, tuple[float, float]] = field(default_factory=dict)
    # Peers that said goodbye, and until when nobody's word is taken that they are there.
    _gone: dict[PeerId, float] = field(default_factory=dict)
    _interval: float = CHECK_INTERVAL
    # Whoever is so far away on either side is no candidate: most that are heard of.
    _reach: tuple[int, int] = (SPACE + 1, SPACE + 1)
    _changed: bool = False  # there are other candidates than when links were last asked for
    # Our place has been located: those whom we would link to before that are soon replaced.
    _placed: bool = False
    _timers: Timers[Due] = field(init=False)
    _facts: list[RingFact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)
        self.place = place_of(self.context.peer_id)

    # --- what is heard ---------------------------------------------------------------------------

    def on_linked(self, peer: PeerId, now: float) -> list[RingFact]:
        """A link stands, whoever asked for it."""
        self.linked[peer] = None
        self._asked.pop(peer, None)
        self._gone.pop(peer, None)
        if self._lost.pop(peer, None) is not None:
            for lost in list(self._lost):
                self._try_again(lost, now)
        self._learn(peer, now)
        size = self._drawn.pop(peer, None)
        if size is not None and peer not in self.near:
            self._hold_long(peer, size)
        if Due.CHECK not in self._timers and self.parameters.side:
            self._timers.set(Due.CHECK, now + CHECK_FIRST * self.context.random.uniform(0.5, 1.5))
        return self._done(now)

    def on_unlinked(self, peer: PeerId, now: float) -> list[RingFact]:
        """A link has ended or fallen silent."""
        self.linked.pop(peer, None)
        self._asked.pop(peer, None)
        if peer in self.near or peer in self.long:
            self.near.pop(peer, None)
            self.long.pop(peer, None)
            self._hurry(now)
        if any(peer == each for side in self._sides for _, each in side):
            self._lose(peer, now)
        return self._done(now)

    def on_unreachable(self, peer: PeerId, now: float) -> list[RingFact]:
        """A link that was wanted did not come about."""
        if peer in self._asked:
            del self._asked[peer]
            self._drawn.pop(peer, None)
            self._lose(peer, now)
        return self._done(now)

    def on_heard(self, peers: list[PeerId], now: float) -> list[RingFact]:
        """Peers that exist, as a neighbour or a passing record says."""
        place, (after, before) = self.place, self._reach
        for peer in peers:
            clockwise = (place_of(peer) - place) & (SPACE - 1)
            if clockwise < after or SPACE - clockwise < before:
                self._learn(peer, now)
        return self._done(now) if self._changed else []

    def on_known(self, peer: PeerId, now: float) -> list[RingFact]:
        """A newer record of this peer has come: it is there, whatever was thought."""
        self._gone.pop(peer, None)
        return self.on_heard([peer], now)

    def on_located(self, place: int, peers: list[PeerId], now: float) -> list[RingFact]:
        """Who is nearest to a place that we had located."""
        others = [peer for peer in peers if peer != self.context.peer_id]
        for peer in others:
            self._learn(peer, now)
        self._placed = True
        if place != self.place and others:
            nearest = min(others, key=lambda peer: distance(place_of(peer), place))
            self._draw(nearest)
        return self._done(now)

    def forget(self, peer: PeerId, now: float) -> None:
        """A member has left: it is no candidate, whoever still names it."""
        while len(self._gone) >= LOST_MAX:
            del self._gone[next(iter(self._gone))]
        self._gone[peer] = now + GONE_FOR
        self._unlearn(peer)
        self._lost.pop(peer, None)
        self._drawn.pop(peer, None)
        self._asked.pop(peer, None)
        self._changed = True

    def size(self) -> float:
        """How many nodes the mesh seems to have, from how dense it is around us (as Symphony)."""
        sides = [side[: self.parameters.side] for side in self._sides]
        gaps = sum(map(len, sides))
        span = sum(side[-1][0] for side in sides if side)
        return gaps * SPACE / span + 1 if span else 1.0

    def nearest(self, place: int, count: int) -> list[PeerId]:
        """Of ourselves and those that we are linked to, the nearest to a place."""
        everybody = [self.context.peer_id, *self.linked]
        return sorted(everybody, key=lambda peer: distance(place_of(peer), place))[:count]

    def is_near(self, peer: PeerId) -> bool:
        """Whether a peer is among the nearest that we know of, on either side."""
        return any(peer == each for side in self._sides for _, each in side)

    # --- near peers ------------------------------------------------------------------------------

    def _learn(self, peer: PeerId, now: float) -> None:
        """Into the candidates of either side, if it is near enough and not known to be away."""
        if not self.parameters.side:
            return
        clockwise = (place_of(peer) - self.place) & (SPACE - 1)
        after, before = self._reach
        self._consider(self._sides[0], (clockwise, peer), after, now)
        self._consider(self._sides[1], (SPACE - clockwise, peer), before, now)

    def _consider(
        self, side: list[tuple[int, PeerId]], entry: tuple[int, PeerId], reach: int, now: float
    ) -> None:
        offset, peer = entry
        if offset > reach or entry in side:
            return
        lost = self._lost.get(peer)
        if peer == self.context.peer_id or (lost is not None and lost[0] > now):
            return
        if self._gone.get(peer, now) <= now:
            insort(side, entry)
            del side[CANDIDATES:]
            self._changed = True
            self._measure()

    def _measure(self) -> None:
        """How near a candidate has to be."""
        one, other = (side[-1][0] if len(side) >= CANDIDATES else SPACE + 1 for side in self._sides)
        self._reach = (one, other)

    def _unlearn(self, peer: PeerId) -> None:
        for side in self._sides:
            for entry in [entry for entry in side if entry[1] == peer]:
                side.remove(entry)
                self._changed = True
        self._measure()

    def _lose(self, peer: PeerId, now: float) -> None:
        """Not a candidate for now; it is tried again, for it may come back."""
        self._unlearn(peer)
        known = self._lost.pop(peer, None)
        until = known[1] if known else now + RETRY_FOR
        while len(self._lost) >= LOST_MAX:
            del self._lost[next(iter(self._lost))]
        self._lost[peer] = (now + RETRY_INTERVAL * self.context.random.uniform(0.8, 1.2), until)
        self._wait_for_lost(now)

    def _wait_for_lost(self, now: float) -> None:
        if self._lost and self._timers.deadlines.get(Due.LOST, now) <= now:
            self._timers.set(Due.LOST, now + RETRY_INTERVAL * self.context.random.uniform(0.8, 1.2))

    def _chosen(self) -> dict[PeerId, None]:
        """Those that should be our ring neighbours; for one that may be away, the next one, too."""
        chosen: dict[PeerId, None] = {}
        for side in self._sides:
            missing = self.parameters.side
            for at, (_, peer) in enumerate(side):
                away = peer in self._lost and peer in self._asked
                if missing and (not away or at < self.parameters.side):
                    chosen[peer] = None
                    missing -= not away
        return chosen

    # --- long links ------------------------------------------------------------------------------

    def _draw(self, peer: PeerId) -> None:
        if peer in self.near or peer in self.long or peer == self.context.peer_id:
            return
        if peer in self.linked:
            self._hold_long(peer, self.size())
        elif peer not in self._asked and peer not in self._lost:
            self._drawn[peer] = self.size()
            self._ask(peer)

    def _hold_long(self, peer: PeerId, size: float) -> None:
        self.long[peer] = size
        self._facts.append(Held(peer, ring=False))
        while len(self.long) > self.parameters.long:
            self._release_long(next(iter(self.long)))

    def _release_long(self, peer: PeerId) -> None:
        del self.long[peer]
        self._facts.append(Released(peer))

    def _locate_far(self) -> None:
        """Have a peer at a harmonic distance located, if a long link is missing."""
        size = self.size()
        if size < SMALL_MESH:
            return
        fits = [drawn for drawn in self.long.values() if size / REDRAWN < drawn < size * REDRAWN]
        if len(fits) + len(self._drawn) >= self.parameters.long:
            return
        random = self.context.random
        # Symphony §3.1: the distance x, a share of the ring, is drawn with density 1 / (x ln n).
        offset = int(SPACE * size ** (random.random() - 1.0))
        # Deviation: Symphony draws clockwise only; we route either way around.
        place = (self.place + random.choice((1, -1)) * offset) % SPACE
        self._facts.append(LocateNeeded(place, own=False))

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[RingFact]:
        """Have our own place located, and peers far away; try those again that were lost."""
        all_due = self._timers.pop_due(now)
        for due in all_due:
            match due:
                case Due.CHECK:
                    self._check(now)
                case Due.PLACED:
                    self._placed = True
                case Due.LOST:
                    self._try_lost(now)
                case _:
                    assert_never(due)
        return self._done(now) if all_due else []

    def _check(self, now: float) -> None:
        if not self.linked:
            return  # The next link sets the timer again.
        self._facts.append(LocateNeeded(self.place, own=True))
        self._timers.set(Due.PLACED, now + PLACED_AFTER)
        for _ in range(self.parameters.long - len(self.long)):
            self._locate_far()
        self._timers.set(Due.CHECK, now + self._interval * self.context.random.uniform(0.8, 1.2))
        self._interval = min(self._interval + CHECK_INTERVAL, CHECK_INTERVAL_MAX)

    def _hurry(self, now: float) -> None:
        """Something has changed around us: locate our place again soon."""
        self._interval = CHECK_INTERVAL
        if Due.CHECK in self._timers and self.linked:
            self._timers.set(Due.CHECK, now + CHECK_FIRST * self.context.random.uniform(0.5, 1.5))

    def _try_lost(self, now: float) -> None:
        """One of those that would still be near is a candidate again."""
        for peer in [peer for peer, (_, until) in self._lost.items() if until <= now]:
            del self._lost[peer]
        due = [peer for peer, (at, _) in self._lost.items() if at <= now]
        if due:
            self._try_again(self.context.random.choice(due), now)
        self._wait_for_lost(now)

    def _try_again(self, peer: PeerId, now: float) -> None:
        """A candidate like others, if it is near; else it is forgotten."""
        _, until = self._lost.pop(peer)
        self._learn(peer, now)
        if self.is_near(peer):
            self._lost[peer] = (now + RETRY_INTERVAL, until)

    def _ask(self, peer: PeerId) -> None:
        self._asked[peer] = None
        self._facts.append(Needed(peer))

    def _done(self, now: float) -> list[RingFact]:
        """Ask for links to those that are near, hold those that stand, and hand over the facts."""
        if self.parameters.side:
            self._settle(now)
        facts, self._facts = self._facts, []
        return facts

    def _settle(self, now: float) -> None:
        self._changed = False
        chosen = self._chosen()
        for peer in chosen:
            if peer in self.near:
                continue
            if peer in self.linked:
                if self.long.pop(peer, None) is not None:
                    self._facts.append(Released(peer))
                self.near[peer] = None
                self._facts.append(Held(peer, ring=True))
                self._hurry(now)
            elif peer not in self._asked and self._placed:
                self._ask(peer)
        # Nobody is let go before all of those that replace it are linked: requests need a way.
        if all(peer in self.near for peer in chosen):
            for peer in [peer for peer in self.near if peer not in chosen]:
                del self.near[peer]
                self._facts.append(Released(peer))
