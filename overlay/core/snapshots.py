"""What a node shows of itself to people and programs: snapshots, never live state."""

from dataclasses import dataclass

from overlay.core.link.links import Link, LinkState
from overlay.core.routing.requests import Counters
from overlay.core.types import LinkFacts, LinkId, Negotiated, PeerId
from overlay.core.wire.documents import Record


@dataclass(frozen=True, slots=True)
class Status:
    """What `overlay status` shows of the core."""

    links: int
    signalling: Counters
    refused: dict[str, int]
    payloads: int = 0
    """Published messages sent whole, to each neighbour."""
    announcements: int = 0
    """Published messages announced, to each neighbour."""
    recalling: str = ""
    """What is being tried, and what would help, while nobody is linked; else empty."""
    identity_elsewhere: bool = False
    """Whether another node lives under our identity."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """What `overlay peers` shows of a link."""

    peer: PeerId
    name: str
    link: LinkId
    direction: str
    negotiated: Negotiated
    via: PeerId | None
    hops: int
    since_wall: float
    facts: LinkFacts
    rtt: float | None
    state: LinkState


def view_of(peer: PeerId, link: Link, record: Record | None) -> PeerView:
    """The view of a neighbour's link."""
    return PeerView(
        peer=peer,
        name=record.name if record else "",
        link=link.id,
        direction="in" if link.inbound else "out",
        negotiated=link.negotiated,
        via=link.via,
        hops=link.hops,
        since_wall=link.since,
        facts=link.facts,
        rtt=link.rtt,
        state=link.state,
    )
