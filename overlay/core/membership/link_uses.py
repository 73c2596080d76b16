"""Why each link is kept, and how long it may stay without a reason.

A link is kept for the active view, for the ring, as a long link, or because a command asked for it.
The peer of a link that serves nothing is a guest: its link is ended after a while, so that the next
newcomers find room. Each end tells the other what it uses the link for, because one end may need a
link that the other does not (decision 0017).
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
"""Links (guess) beyond `links.max` that newcomers may have here at once."""
GUESTS_EASY = 32
"""With more guests than this (guess) each newcomer shortens the stay of the oldest guest …"""
STAY_LEAST = 5.0
"""… to so many seconds (guess), in which it finds others. So one contact takes in 20 a second."""
REVIEW_INTERVAL = 1.0
"""Seconds (guess) between two looks at all links while they are too many."""


class Use(IntFlag):
    """What a link is for; the other end is told of all but `VIEW`."""

    VIEW = 1  # the active view: both ends have agreed on it (HyParView)
    RING = 2
    LONG = 4
    KEPT = 8  # a command asked for this link
    RELAY = 16  # the peer relays for us


@dataclass(frozen=True, slots=True)
class UsesChanged:
    """What some link is for has changed, and so perhaps which links last."""


TOLD = Use.RING | Use.LONG | Use.KEPT | Use.RELAY
_TOLD, _RING, _RELAY = int(TOLD), int(Use.RING), int(Use.RELAY)


@dataclass(slots=True)
class _Link:
    """A link and its uses, as plain numbers: they are looked at with every message."""

    link: LinkId
    ours: int = 0
    theirs: int = 0


@dataclass(slots=True)
class LinkUses:
    """The links of one node by what they are for. Methods return facts."""

    context: Context
    is_near: Callable[[PeerId], bool]
    """Whether a peer could be right when it counts us among its ring neighbours."""
    is_served: Callable[[PeerId], bool]
    """Whether a peer is right when it says that circuits run over its link to us."""
    links: dict[PeerId, _Link] = field(default_factory=dict)
    # Guests that may stay their whole time, and since when; the oldest first.
    _guests: dict[PeerId, float] = field(default_factory=dict)
    _review_at: float = 0.0
    _timers: Timers[PeerId] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def has_room(self) -> bool:
        """Whether another link may come, if only as a guest."""
        return len(self.links) <= self.context.settings.links_max + GUESTS_MAX

    def on_linked(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A link has come up, or has replaced another to the same peer."""
        known = self.links.get(peer)
        if known is None:
            self.links[peer] = _Link(link)
            self._review(peer, now)
        else:
            known.link = link
            self._tell(known)

    def on_unlinked(self, peer: PeerId) -> None:
        """A link has ended."""
        self.links.pop(peer, None)
        self._guests.pop(peer, None)
        self._timers.stop(peer)

    def lasts(self, peer: PeerId) -> bool:
        """Whether either end has a use for the link to this peer."""
        known = self.links.get(peer)
        return known is not None and (known.ours or known.theirs) != 0

    def hold(self, peer: PeerId, use: Use, now: float) -> list[UsesChanged]:
        """From now on we use the link for this, too."""
        known = self.links.get(peer)
        return [] if known is None else self._change(peer, known, known.ours | int(use), now)

    def release(self, peer: PeerId, use: Use, now: float) -> list[UsesChanged]:
        """From now on we do not use the link for this."""
        known = self.links.get(peer)
        return [] if known is None else self._change(peer, known, known.ours & ~int(use), now)

    def _change(self, peer: PeerId, known: _Link, uses: int, now: float) -> list[UsesChanged]:
        if uses == known.ours:
            return []
        told, known.ours = known.ours & _TOLD, uses
        if uses & _TOLD != told:
            self._tell(known)
        self._review(peer, now)
        return [UsesChanged()]

    def on_link_use(self, peer: PeerId, message: LinkUse, now: float) -> list[UsesChanged]:
        """The peer says what it uses this link for."""
        known = self.links.get(peer)
        if known is None:
            return []
        known.theirs = message.uses & _TOLD
        self._review(peer, now)
        return [UsesChanged()]

    def _tell(self, known: _Link) -> None:
        self.context.emit(Transmit(known.link, LinkUse(known.ours & _TOLD)))

    def _serves(self, peer: PeerId) -> bool:
        """Whether there is a reason to keep this link, within the budget of links."""
        known = self.links[peer]
        if known.ours or (known.theirs & _RING and self.is_near(peer)):
            return True
        if known.theirs & _RELAY and self.is_served(peer):
            return True  # What we have taken on we see through, however many links there are.
        settings = self.context.settings
        return bool(known.theirs) and len(self.links) <= settings.links_max + settings.long_links

    def _review(self, peer: PeerId, now: float) -> None:
        if self._serves(peer):
            self._guests.pop(peer, None)
            self._timers.stop(peer)
        elif peer not in self._timers:
            self._guests[peer] = now
            self._timers.set(peer, now + self.context.settings.guest_stay)
            self._hurry(now)

    def _hurry(self, now: float) -> None:
        """In a burst of newcomers, the stay of the oldest guest is cut short."""
        if len(self._guests) > GUESTS_EASY:
            oldest = next(iter(self._guests))
            stay = min(STAY_LEAST, self.context.settings.guest_stay)
            self._timers.set(oldest, max(now, self._guests.pop(oldest) + stay))

    def on_time(self, now: float) -> list[PeerId]:
        """Guests whose time is up; one whose link is not ended now is returned again later."""
        over: list[PeerId] = []
        for peer in self._timers.pop_due(now):
            self._guests.pop(peer, None)
            if not self._serves(peer):
                over.append(peer)
                self._timers.set(peer, now + self.context.settings.guest_stay)
        if now >= self._review_at and len(self.links) > self.context.settings.links_max:
            self._review_at = now + REVIEW_INTERVAL
            for peer in self.links:
                self._review(peer, now)
        return over
