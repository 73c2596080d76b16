"""One idea: a relayed link goes beyond ICE, one at a time a node: planned, attested, begun, ended.

Offer and answer have restarted ICE on the link, and have said what both NATs do; so both ends have
the same plan (`overlay.core.punch.plan`). Our own neighbours are then asked where they see the peer
(`overlay.core.punch.sights`), and what the plan says is aimed there. Where ports are foretold, the
two ends tell each other over the link itself, which the relay carries on meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.addresses import is_circuit, is_private
from overlay.core.connect.table import Table
from overlay.core.context import Context
from overlay.core.events import Aim, Foretold, Punch, PunchOver, Transmit
from overlay.core.limits import BoundedDict, TokenBuckets
from overlay.core.nat.knocking import Neighbour
from overlay.core.punch.plan import Plan, are_fixed, plan
from overlay.core.punch.sights import ASKED_MAX, Sights
from overlay.core.routing.ring import place_of
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId, PunchEnd, PunchRole, Technique
from overlay.core.wire import messages as m

ICE_SHARE = 0.6
"""Seconds (guess) for which ICE is alone where it might do: a round trip of any network."""
SIGHTS_TIMEOUT = 1.0
"""Seconds (guess) for neighbours to say where they see a peer; then those that have decide."""
SIGHTS_LATEST = 2.5
"""Seconds (guess) after which it is in vain if too few have: one may be busy for a while."""
TIMEOUT = 8.0
"""Seconds after which nothing can be left of it: longer than all of its parts."""
PUNCH_TIMEOUT = 7.8
"""Seconds of the ICE restart that it helps: longer than any technique and what goes before."""
PEER_INTERVAL = 9.0
"""Seconds (guess) from one attempt with a peer to the next: less than our own pause after one."""
RATE, BURST = 0.1, 16.0
"""Attempts a second with all peers, and at once (guess): each may be thousands of packets."""
PEERS_MAX = 256
UNSEEN = "fewer than two neighbours see the peer at one address, so nothing was aimed there"
ENDS: dict[PunchEnd, str] = {
    PunchEnd.UNANSWERED: "no packet met an open port in time",
    PunchEnd.SOCKETS: "this host could not open enough sockets",
    PunchEnd.UNSAMPLED: "no neighbour said which port a fresh socket got",
}
"""What to say when a technique has come to nothing."""


class Due(StrEnum):
    """What falls due."""

    BEGIN = "begin"  # ICE has had its moment
    SIGHTS = "sights"  # who has not answered by now is not waited for, if others have
    UNSEEN = "unseen"  # nor if too few have
    OVER = "over"


@dataclass(slots=True)
class _Current:
    """The attempt under way."""

    peer: PeerId
    link: LinkId
    name: bytes
    """The request of the offer."""
    ufrag: str
    plan: Plan
    sights: Sights
    may_begin: bool
    is_late: bool = False
    """Some neighbour has not answered in time: those that have are enough, if they agree."""
    begun: bool = False
    aim: tuple[int, tuple[int, ...]] | None = None
    """What the peer has foretold before we had begun."""


@dataclass(slots=True)
class Punching:
    """The techniques of one node."""

    context: Context
    table: Table
    neighbours: Callable[[], list[Neighbour]]
    _current: _Current | None = None
    _timers: Timers[Due] = field(init=False)
    # Peers with whom ICE was in vain since our surroundings have changed.
    _in_vain: BoundedDict[PeerId, None] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    # When an attempt with each peer began last, and how many there may be with all.
    _begun: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    _budget: TokenBuckets[None] = field(default_factory=lambda: TokenBuckets(RATE, BURST))

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- what there is to do ---------------------------------------------------------------------

    @property
    def able(self) -> list[str]:
        """What we could do, if nothing were under way."""
        settings = self.context.settings
        able = {
            Technique.PREDICTION: settings.prediction,
            Technique.BIRTHDAY: settings.birthday,
        }
        return [technique.value for technique, can in able.items() if can]

    def offered(self, peer: PeerId, now: float) -> list[str]:
        """What an offer that restarts ICE says that we can do."""
        if not self.is_free(peer, now):
            return []
        return [*self.able, Technique.LOW_TTL.value] if self.may_refresh(peer) else self.able

    def answerable(self, peer: PeerId, now: float) -> list[str]:
        """What we can do if such an offer says so: probing takes nothing of our own."""
        return [*self.able, Technique.LOW_TTL.value] if self.is_free(peer, now) else []

    def on_in_vain(self, peer: PeerId) -> None:
        """ICE has found nothing with this peer, though it has answered."""
        self._in_vain.put(peer, None)

    def on_tried(self, peer: PeerId) -> None:
        """Nor has anything else: ICE has its turn again."""
        self._in_vain.pop(peer, None)

    def may_refresh(self, peer: PeerId) -> bool:
        """Whether ICE ought to have found a path, and a fresh socket may: a router remembers."""
        words = self.table.nat(), self.table.history.nat_of(peer)
        return bool(self.context.settings.low_ttl) and peer in self._in_vain and are_fixed(*words)

    def is_free(self, peer: PeerId, now: float) -> bool:
        """Whether we can do anything now with this peer: one at a time, and not too much."""
        if self._current is not None and self._current.peer != peer:
            return False
        lately = now < self._begun.get(peer, -PEER_INTERVAL) + PEER_INTERVAL
        return not lately and self._budget.left(None, now) >= 1.0

    def may_help(self, peer: PeerId) -> bool:
        """Whether by what is known of both NATs there is something to be tried."""
        return plan(self.table.nat(), self.table.history.nat_of(peer), self.able) is not None

    def has_more(self, peer: PeerId) -> bool:
        """The same, or whether ICE ought to have found a path and a fresh socket may."""
        return self.may_help(peer) or self.may_refresh(peer)

    def is_forbidden(self, peer: PeerId) -> bool:
        """Whether ICE finds no path between the two NATs, and we know of nothing else."""
        return self.table.is_hopeless(peer) and not self.may_help(peer)

    # --- from the plan to the begin --------------------------------------------------------------

    def begin(
        self, peer: PeerId, link: LinkId, name: bytes, ufrag: str, chosen: Plan, now: float
    ) -> None:
        """Offer and answer are both known, and ICE is restarted with these credentials."""
        asked = self._witnesses(peer)
        by_host = chosen.role is not PunchRole.OPENS
        sights = Sights(peer, by_host, asked)
        self._begun.put(peer, now)
        self._budget.take(None, now)
        self._current = _Current(
            peer, link, name, ufrag, chosen, sights, may_begin=not chosen.ice_first
        )
        for neighbour in asked.values():
            self.context.emit(Transmit(neighbour.link, m.SightAsk(peer)))
        if chosen.ice_first:
            self._timers.set(Due.BEGIN, now + ICE_SHARE)
        self._timers.set(Due.SIGHTS, now + SIGHTS_TIMEOUT)
        self._timers.set(Due.UNSEEN, now + SIGHTS_LATEST)
        self._timers.set(Due.OVER, now + TIMEOUT)

    def _witnesses(self, peer: PeerId) -> dict[PeerId, Neighbour]:
        """Whom we ask: first those who say that they are linked to the peer."""
        place, known = place_of(peer), self.table.routing.neighbours
        others = [each for each in self.neighbours() if each.peer != peer]
        seen = [each for each in others if not is_circuit(each.remote)]
        linked = [each for each, told in known.items() if place in told.places]
        seen.sort(key=lambda each: each.peer not in linked)
        return {each.peer: each for each in seen[:ASKED_MAX]}

    def _begin_if_ready(self, current: _Current) -> str | None:
        """Returns why it cannot be begun at all."""
        complete = current.sights.complete
        if current.begun or not current.may_begin or not (complete or current.is_late):
            return None
        target = current.sights.verdict()
        observers = self._observers(":" in target.host) if target is not None else []
        if target is None or not observers:
            if not complete and Due.UNSEEN in self._timers:
                return None  # who has not answered yet may
            self.end()
            return UNSEEN
        current.begun = True
        punch = Punch(
            link=current.link,
            ufrag=current.ufrag,
            technique=current.plan.technique,
            role=current.plan.role,
            target=target,
            host=observers[0].local.host,
            observers=tuple(each.remote for each in observers),
            ttl=self.context.settings.low_ttl or None,
        )
        self.context.emit(punch)
        if current.aim is not None:
            self.context.emit(Aim(current.link, *current.aim))
        return None

    def _observers(self, ipv6: bool) -> list[Neighbour]:
        """Neighbours that see what our NAT does, those that strangers reach first."""
        outside = [
            each
            for each in self.neighbours()
            if not is_circuit(each.remote)
            and not is_private(each.remote.host)
            and (":" in each.remote.host) == ipv6
        ]
        return sorted(outside, key=lambda each: not each.is_public)

    # --- what comes in ---------------------------------------------------------------------------

    def on_sight(self, neighbour: PeerId, sight: m.Sight) -> tuple[PeerId, str] | None:
        """A neighbour says where it sees the peer; returns whose attempt is over, and why."""
        current = self._current
        if current is None:
            return None
        current.sights.learn(neighbour, sight)
        return _told(current, self._begin_if_ready(current))

    def on_foretold(self, event: Foretold) -> None:
        """Our port has an idea where it will be next: tell the peer."""
        current = self._current
        if current is not None and current.link == event.link:
            word = m.Foretell(current.name, event.round, list(event.ports))
            self.context.emit(Transmit(current.link, word))

    def on_foretell(self, peer: PeerId, word: m.Foretell) -> None:
        """The peer tells where it will be: that only counts in the attempt that we share."""
        current = self._current
        if current is None or current.peer != peer or current.name != word.attempt:
            return
        current.aim = (word.round, tuple(word.ports))
        if current.begun:
            self.context.emit(Aim(current.link, *current.aim))

    def on_over(self, event: PunchOver) -> tuple[PeerId, str] | None:
        """It has come to nothing; returns towards whom, and why."""
        current = self._current
        if current is None or current.link != event.link:
            return None
        self.end()
        return current.peer, ENDS[event.end]

    # --- ends ------------------------------------------------------------------------------------

    def on_restart(self, link: LinkId) -> None:
        """Another restart of ICE takes the place of the one that we help."""
        self.on_path(link)

    def on_path(self, link: LinkId) -> None:
        """A link has another path: what was looked for is found."""
        if self._current is not None and self._current.link == link:
            self.end()

    def on_surroundings(self) -> PeerId | None:
        """We are elsewhere: an attempt from where we were leads nowhere; returns towards whom."""
        current = self._current
        self._in_vain.clear()
        self.end()
        return None if current is None else current.peer

    def end(self) -> None:
        """Nothing is under way any more."""
        self._current = None
        for due in Due:
            self._timers.stop(due)

    def on_time(self, now: float) -> tuple[PeerId, str] | None:
        """Do what is due; returns whose attempt is over, and why."""
        ended = None
        for due in self._timers.pop_due(now):
            current = self._current
            if current is None:
                continue
            match due:
                case Due.BEGIN:
                    current.may_begin = True
                    ended = _told(current, self._begin_if_ready(current)) or ended
                case Due.SIGHTS | Due.UNSEEN:
                    current.is_late = True
                    ended = _told(current, self._begin_if_ready(current)) or ended
                case Due.OVER:
                    self.end()
                case _:
                    assert_never(due)
        return ended


def _told(current: _Current, why: str | None) -> tuple[PeerId, str] | None:
    return None if why is None else (current.peer, why)


def common(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """What both ends can do."""
    return [each for each in one if each in other]
