"""What a node shows of itself to people and programs: snapshots, never live state."""

from dataclasses import dataclass

from overlay.core.connect.connect import Connecting
from overlay.core.connect.history import Tried
from overlay.core.gossip.publications import Gossiping
from overlay.core.link.links import Link, Links, LinkState
from overlay.core.membership.elsewhere import Elsewhere
from overlay.core.membership.neighbourhood import Neighbourhood
from overlay.core.membership.recall import Recalling
from overlay.core.membership.records import RecordBook
from overlay.core.nat.behaviour import Behaviour
from overlay.core.nat.nat import Nat
from overlay.core.nat.reflexive import Reflexive
from overlay.core.relay.relaying import Relaying
from overlay.core.routing.requests import Counters
from overlay.core.routing.routing import Routing
from overlay.core.types import Address, LinkFacts, LinkId, Negotiated, PeerId
from overlay.core.wire.documents import AddressEntry, Record
from overlay.names import told


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
    remote: Address
    """Where its datagrams go: to the peer, or to whoever relays them."""
    relay: PeerId | None
    """Who relays the path, if anybody does."""


def view_of(
    peer: PeerId, link: Link, record: Record | None, relay: PeerId | None, remote: Address
) -> PeerView:
    """The view of a neighbour's link."""
    return PeerView(
        peer=peer,
        name=told(record.name) if record else "",
        link=link.id,
        direction="in" if link.inbound else "out",
        negotiated=link.negotiated,
        via=link.via,
        hops=link.hops,
        since_wall=link.since,
        facts=link.facts,
        rtt=link.rtt,
        state=link.state,
        remote=remote,
        relay=relay,
    )


class Snapshots:
    """What may be asked of a node; nothing here changes anything."""

    _book: RecordBook
    _relaying: Relaying
    _connecting: Connecting
    _elsewhere: Elsewhere
    _gossip: Gossiping
    _links: Links
    _nat: Nat
    _neighbourhood: Neighbourhood
    _recalling: Recalling
    _reflexive: Reflexive
    _routing: Routing

    def status(self) -> Status:
        """A snapshot of counts."""
        tree, links = self._gossip.tree, self._links
        counters, refused = self._routing.counters, dict(links.refused)
        return Status(
            len(links.by_peer),
            counters,
            refused,
            tree.payloads,
            tree.announcements,
            self._recalling.text(),
            self._elsewhere.is_so,
        )

    def peers(self) -> list[PeerView]:
        """A snapshot of the neighbours, in the order in which they came."""
        return [self._view_of(peer, link) for peer, link in self._links.by_peer.items()]

    def _view_of(self, peer: PeerId, link: Link) -> PeerView:
        relay = self._relaying.circuits.relay_of(link.facts.remote)
        towards = self._links.by_peer.get(relay, link) if relay is not None else link
        return view_of(peer, link, self._book.get(peer), relay, towards.facts.remote)

    def tried(self, peer: PeerId) -> tuple[tuple[Tried, ...], tuple[str, ...]]:
        """A snapshot of the last attempts to reach a peer, and of what it says of its NAT."""
        history = self._connecting.table.history
        return history.tried(peer), history.nat_of(peer)

    def addresses(self) -> list[AddressEntry]:
        """A snapshot of our own addresses, as our record names them."""
        return self._reflexive.entries()

    def behaviour(self) -> Behaviour:
        """A snapshot of what is known of our NAT."""
        return self._nat.behaviour()

    def active_view(self) -> tuple[PeerId, ...]:
        """A snapshot of the neighbours that gossip runs over (HyParView)."""
        return tuple(self._neighbourhood.views.active)

    def passive_view(self) -> tuple[PeerId, ...]:
        """A snapshot of who may replace neighbours: BASALT's slots, or HyParView's passive view."""
        return tuple(self._neighbourhood.passive_view())

    def samples(self) -> tuple[PeerId, ...]:
        """A snapshot of the members last drawn as samples (BASALT)."""
        return tuple(self._neighbourhood.samples())

    def known(self) -> list[Record]:
        """Every other member known by its record."""
        return [each for peer in self._book.peers() if (each := self._book.get(peer))]
