"""Who is in the mesh, and whom we want to be linked to.

Signed records travel by gossip: a neighbour gets all we know when it comes, and every newer record
once. Up to eight nodes the mesh is full; beyond that each node keeps as many links (first cut;
HyParView follows). Newcomers beyond the view are guests: handed on within 30 s.
"""

from dataclasses import dataclass, field

from overlay.core import dial
from overlay.core.context import Context
from overlay.core.events import Remember, Transmit
from overlay.core.links import Link, Links
from overlay.core.messages import (
    WIRE_VERSION,
    Neighbours,
    Record,
    Records,
    TokenEntry,
)
from overlay.core.records import (
    DAY,
    RECORD_LIFE,
    RecordBook,
    make_record,
    next_rotation,
    rotate_prekeys,
)
from overlay.core.reflexive import Reflexive
from overlay.core.timers import Timers
from overlay.core.types import PeerId

DIGEST_DELAY = 0.05
"""Seconds (guess): changes that come together are told together."""
RECORDS_PER_MESSAGE = 16
"""A record has about 500 bytes: well below the message limit."""
NEIGHBOURS_MAX = 64
KNOWN_MAX = 1024
"""Peers of which we keep more than their record."""
GUESTS_MAX = 128
GUEST_STAY = 30.0
"""DESIGN, joins in bursts."""
FULL_REST = 120.0
"""Seconds (guess) that a peer without room is left alone."""
SECOND_ASK = 1.5
"""Seconds (guess) that the lower peer id leaves to the higher before it dials as well."""


@dataclass(slots=True)
class Membership:
    """The book of records, our own record, and the wish list."""

    context: Context
    links: Links
    reflexive: Reflexive
    book: RecordBook
    own: bytes = b""
    restless: bool = False
    """Whether something has happened since that may make us want other links."""
    _sequence: int = 0
    _fresh: dict[PeerId, PeerId | None] = field(default_factory=dict)
    """Records to be passed on, and who brought each."""
    _left: dict[PeerId, int] = field(default_factory=dict)
    """Peers that said goodbye, and the sequence of their record then."""
    _full: dict[PeerId, float] = field(default_factory=dict)
    """Peers without room for us, and when to ask again."""
    _known_since: dict[PeerId, float] = field(default_factory=dict)
    _guests: dict[PeerId, None] = field(default_factory=dict)
    _timers: Timers[tuple[str, PeerId]] = field(default_factory=Timers)

    # --- our own record ----------------------------------------------------------------------

    def renew(self, now: float) -> None:
        """Sign our record anew, because something in it changed or a day began."""
        context = self.context
        wall = context.wall(now)
        self.book.expire(wall)
        day = int(wall // DAY)
        sequence = max(self._sequence, context.settings.sequence) + 1
        self._sequence = max(sequence, int(wall * 1000))
        record = Record(
            network=context.settings.network,
            peer_id=context.peer_id,
            sequence=self._sequence,
            issued_at=int(wall),
            expires_at=int(wall) + RECORD_LIFE,
            name=context.settings.name,
            fingerprint=context.crypto.fingerprint,
            addresses=self.reflexive.entries(),
            token=self._member_token(day),
            prekeys=rotate_prekeys(wall, context.crypto),
            wire_min=WIRE_VERSION,
            wire_max=WIRE_VERSION,
        )
        self.own = make_record(record, context.crypto)
        context.emit(Remember(context.peer_id, self.own))
        self._fresh[context.peer_id] = None
        self._timers.set(("tell", context.peer_id), now + DIGEST_DELAY)
        self._timers.set(("renew", context.peer_id), now + max(1.0, next_rotation(wall) - wall))

    def renew_soon(self, now: float) -> None:
        """Renew once changes that come together have come."""
        self._timers.set(("renew", self.context.peer_id), now + DIGEST_DELAY)

    def _member_token(self, day: int) -> TokenEntry:
        """The day's token for members (DESIGN, dial tokens)."""
        token_id, expires_at = day.to_bytes(8, "big"), day * DAY + DAY + RECORD_LIFE
        key = self.context.settings.dial_key
        token = dial.make_token(key, dial.MEMBER, token_id, expires_at)
        return TokenEntry(dial.MEMBER, token_id, expires_at, token)

    # --- other members' records --------------------------------------------------------------

    def add(self, data: bytes, bearer: PeerId | None, now: float) -> Record | None:
        """Take in a record; returns it when it is newer than what we had, and passes it on."""
        record = self.book.add(data, self.context.wall(now))
        if record is None:
            return None
        peer = PeerId(record.peer_id)
        if peer == self.context.peer_id:
            self.book.forget(peer)  # our own, come back to us: nobody to link to
            return None
        self.restless = True
        self._known_since.setdefault(peer, now)
        while len(self._known_since) > KNOWN_MAX:
            del self._known_since[next(iter(self._known_since))]
        if record.sequence > self._left.get(peer, -1):
            self._left.pop(peer, None)
        self._fresh[peer] = bearer
        self._timers.set(("tell", self.context.peer_id), now + DIGEST_DELAY)
        if peer in self.links.by_peer:
            self.context.emit(Remember(peer, data))
        return record

    def welcome(self, link: Link) -> None:
        """Tell a new neighbour all members that we know, and our neighbours."""
        peers = [peer for peer in self.book.peers() if peer != link.peer]
        for start in range(0, len(peers), RECORDS_PER_MESSAGE):
            chunk = peers[start : start + RECORDS_PER_MESSAGE]
            records = [self.book.bytes_of(peer) for peer in chunk]
            self.context.emit(Transmit(link.id, Records([each for each in records if each])))

    def on_left(self, peer: PeerId) -> None:
        """A peer said goodbye for good: do not call after it until it is back with a new record."""
        record = self.book.get(peer)
        self._left[peer] = record.sequence if record else 0
        while len(self._left) > KNOWN_MAX:
            del self._left[next(iter(self._left))]

    def on_full(self, peer: PeerId, now: float) -> None:
        """A peer has no room for us: do not call it again for a while."""
        self._full[peer] = now + FULL_REST
        self._timers.set(("turn", peer), now + FULL_REST)
        while len(self._full) > KNOWN_MAX:
            del self._full[next(iter(self._full))]

    # --- telling the neighbours --------------------------------------------------------------

    def tell_soon(self, now: float) -> None:
        """Our neighbours have changed: say so shortly."""
        self._timers.set(("digest", self.context.peer_id), now + DIGEST_DELAY)

    def _tell_digest(self) -> None:
        alive = self.links.alive()
        peers = [link.peer for link in alive if link.peer is not None][:NEIGHBOURS_MAX]
        for link in alive:
            self.context.emit(Transmit(link.id, Neighbours([p for p in peers if p != link.peer])))

    def _tell_records(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for link in self.links.alive():
            chunk: list[bytes] = []
            for peer, bearer in fresh.items():
                data = self.own if peer == self.context.peer_id else self.book.bytes_of(peer)
                if data and link.peer not in (peer, bearer):
                    chunk.append(data)
            for start in range(0, len(chunk), RECORDS_PER_MESSAGE):
                part = chunk[start : start + RECORDS_PER_MESSAGE]
                self.context.emit(Transmit(link.id, Records(part)))

    # --- whom to link to ---------------------------------------------------------------------

    def wanted(self, now: float) -> list[PeerId]:
        """Members that we would link to now, in the order in which we heard of them."""
        if not self.context.settings.auto:
            return []
        mesh_size = self.context.settings.mesh_size
        room = min(mesh_size - 1, self.context.settings.links_max) - len(self.links.by_peer)
        if room <= 0:
            return []
        missing = [
            peer
            for peer in self.book.peers()
            if peer not in self.links.by_peer
            and peer not in self._left
            and self._full.get(peer, now) <= now
        ]
        if len(missing) > room:
            missing = self.context.random.sample(missing, room)
        return [peer for peer in missing if self._our_turn(peer, now)]

    def _our_turn(self, peer: PeerId, now: float) -> bool:
        """The higher id dials first, the lower a little later: fewer crossings."""
        if self.context.peer_id > peer:
            return True
        at = self._known_since.setdefault(peer, now) + SECOND_ASK
        if at > now:
            self._timers.set(("turn", peer), at)
        return at <= now

    # --- guests ------------------------------------------------------------------------------

    def seat(self, peer: PeerId, now: float) -> bool:
        """Find a new neighbour a place: in the view, as a guest, or none at all."""
        self.restless = True
        over = len(self.links.by_peer) - self.context.settings.links_max
        if over <= 0:
            return True
        if over > GUESTS_MAX:
            return False
        self._guests[peer] = None
        self._timers.set(("guest", peer), now + GUEST_STAY)
        return True

    def unseat(self, peer: PeerId) -> None:
        """A neighbour is gone: its place is free."""
        self.restless = True
        self._guests.pop(peer, None)
        self._timers.stop(("guest", peer))

    # --- time --------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_time` next has something to do."""
        return self._timers.next_deadline()

    def on_time(self, now: float) -> list[PeerId]:
        """Do what is due; returns the guests whose time is up while the view is still full."""
        leaving: list[PeerId] = []
        for kind, peer in list(self._timers.pop_due(now)):
            if kind == "renew":
                self.renew(now)
            elif kind == "tell":
                self._tell_records()
            elif kind == "digest":
                self._tell_digest()
            elif kind == "turn":
                self.restless = True
            elif kind == "guest":
                self._guests.pop(peer, None)
                if len(self.links.by_peer) > self.context.settings.links_max:
                    leaving.append(peer)
        return leaving
