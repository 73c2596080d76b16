"""Where we are, as the surroundings show it: the clock, our sockets, and what peers see of us."""

from dataclasses import dataclass

from overlay.core.context import Context
from overlay.core.events import ClockSet, Listening, Mapped, PathMoved
from overlay.core.link.links import Link, Links
from overlay.core.membership.membership import Membership
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, LinkId


@dataclass(slots=True)
class Bearings:
    """Takes our bearings, and has our record and our peers told when they change."""

    context: Context
    links: Links
    reflexive: Reflexive
    membership: Membership

    def on_event(self, event: ClockSet | Listening | Mapped | PathMoved, now: float) -> None:
        """The host or a link says something of where we are."""
        match event:
            case ClockSet(wall):
                self.context.wall_offset = wall - now
                self.membership.renew_soon(now)
            case Listening(addresses, advertised):
                self.reflexive.listen(addresses, advertised)
                self.membership.renew(now)
            case Mapped(link_id, address):
                self._on_mapped(link_id, address, now)
            case PathMoved(link_id, facts):
                link = self.links.by_id.get(link_id)
                if link is not None:
                    link.facts = facts
                    self._show_path(link, now)

    def on_up(self, link: Link, now: float) -> None:
        """A link has its peer: where the path has shown us to be is this neighbour's word."""
        if link.mapped is not None:
            self._on_vote(link, link.mapped, now)

    def _on_mapped(self, link_id: LinkId, address: Address, now: float) -> None:
        """The checks say it as soon as the path stands; whose word it is, the hello says later."""
        link = self.links.by_id.get(link_id)
        if link is None:
            return
        link.mapped = address
        if link.peer is not None:
            self._on_vote(link, address, now)

    def _on_vote(self, link: Link, address: Address, now: float) -> None:
        assert link.peer is not None
        moved = self.reflexive.seen_by(link.peer) not in (None, address)
        if self.reflexive.vote(link.peer, address):
            self.membership.renew_soon(now)
        if moved:
            self._show_path(link, now)

    def _show_path(self, link: Link, now: float) -> None:
        """A peer follows us to another address only when a packet of ours decrypts from there."""
        if link.peer is not None:
            self.links.ping(link, None, now)
