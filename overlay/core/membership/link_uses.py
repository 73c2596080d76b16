"""Why each link is kept, and how long it may stay without a reason.

A link serves the active view, the ring, a long link, or somebody's command; one that serves
nothing is a guest's and goes after a while, so that bursts of newcomers find a way in. What one
end counts on the other is told, because only one of them may count on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntFlag

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import LinkUse

GUESTS_MAX = 128
"""DESIGN, joins in bursts."""
GUESTS_EASY = 32
"""With more guests than this (guess) each newcomer shortens the stay of the oldest …"""
STAY_LEAST = 5.0
"""… to so many seconds (guess): time to be handed on. So one contact takes in 20 a second."""
REVIEW_INTERVAL = 1.0
"""Seconds (guess) between two looks at all links while they are too many."""


class Use(IntFlag):
    """What a link is for; all but the first are told to the other end."""

    NOTHING = 0
    VIEW = 1
    """Both ends have agreed on this one (HyParView)."""
    RING = 2
    LONG = 4
    KEPT = 8
    """A command asked for this link."""


TOLD = Use.RING | Use.LONG | Use.KEPT
_TOLD, _RING = int(TOLD), int(Use.RING)


@dataclass(slots=True)
class _Seat:
    """The uses as plain numbers: they are asked for with every message."""

    link: LinkId
    ours: int = 0
    theirs: int = 0


@dataclass(slots=True)
class Seats:
    """The links of one node by what they are for."""

    context: Context
    is_near: Callable[[PeerId], bool]
    """Whether a peer could be right when it counts us among its ring neighbours."""
    taken: dict[PeerId, _Seat] = field(default_factory=dict)
    _guests: dict[PeerId, float] = field(default_factory=dict)
    """Guests that may stay their whole time, and since when; the oldest first."""
    news: bool = False
    """What some link is for has changed since this was last looked at."""
    _review_at: float = 0.0
    _timers: Timers[PeerId] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def has_room(self) -> bool:
        """Whether another link may come, if only as a guest."""
        return len(self.taken) <= self.context.settings.links_max + GUESTS_MAX

    def take(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A link has come up, or has moved."""
        seat = self.taken.get(peer)
        if seat is None:
            self.taken[peer] = _Seat(link)
            self._review(peer, now)
        else:
            seat.link = link
            self._tell(seat)

    def lasts(self, peer: PeerId) -> bool:
        """Whether either end has a use for the link to this peer."""
        seat = self.taken.get(peer)
        return seat is not None and (seat.ours or seat.theirs) != 0

    def leave(self, peer: PeerId) -> None:
        """A link has ended."""
        self.taken.pop(peer, None)
        self._guests.pop(peer, None)
        self._timers.stop(peer)

    def hold(self, peer: PeerId, use: Use, now: float) -> None:
        """From now on the link serves this, too."""
        seat = self.taken.get(peer)
        if seat is not None:
            self._change(peer, seat, seat.ours | int(use), now)

    def release(self, peer: PeerId, use: Use, now: float) -> None:
        """From now on the link does not serve this."""
        seat = self.taken.get(peer)
        if seat is not None:
            self._change(peer, seat, seat.ours & ~int(use), now)

    def _change(self, peer: PeerId, seat: _Seat, uses: int, now: float) -> None:
        if uses == seat.ours:
            return
        told, seat.ours = seat.ours & _TOLD, uses
        self.news = True
        if uses & _TOLD != told:
            self._tell(seat)
        self._review(peer, now)

    def on_told(self, peer: PeerId, message: LinkUse, now: float) -> None:
        """The peer says what it counts on this link for."""
        seat = self.taken.get(peer)
        if seat is not None:
            seat.theirs = message.uses & _TOLD
            self.news = True
            self._review(peer, now)

    def _tell(self, seat: _Seat) -> None:
        self.context.emit(Transmit(seat.link, LinkUse(seat.ours & _TOLD)))

    def _serves(self, peer: PeerId) -> bool:
        """Whether there is a reason to keep this link, within the budget of links."""
        seat = self.taken[peer]
        if seat.ours or (seat.theirs & _RING and self.is_near(peer)):
            return True
        settings = self.context.settings
        return bool(seat.theirs) and len(self.taken) <= settings.links_max + settings.long_links

    def _review(self, peer: PeerId, now: float) -> None:
        if self._serves(peer):
            self._guests.pop(peer, None)
            self._timers.stop(peer)
        elif peer not in self._timers:
            self._guests[peer] = now
            self._timers.set(peer, now + self.context.settings.guest_stay)
            self._hurry(now)

    def _hurry(self, now: float) -> None:
        """A burst of newcomers needs the seats: the oldest guest is handed on early."""
        if len(self._guests) > GUESTS_EASY:
            oldest = next(iter(self._guests))
            stay = min(STAY_LEAST, self.context.settings.guest_stay)
            self._timers.set(oldest, max(now, self._guests.pop(oldest) + stay))

    def on_time(self, now: float) -> list[PeerId]:
        """The guests whose time is up; each is given another term unless its link is ended."""
        over: list[PeerId] = []
        for peer in self._timers.pop_due(now):
            self._guests.pop(peer, None)
            if not self._serves(peer):
                over.append(peer)
                self._timers.set(peer, now + self.context.settings.guest_stay)
        if now >= self._review_at and len(self.taken) > self.context.settings.links_max:
            self._review_at = now + REVIEW_INTERVAL
            for peer in self.taken:
                self._review(peer, now)
        return over
