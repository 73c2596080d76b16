"""Who is in the mesh: the book of signed records, and our own.

Records travel by gossip: a neighbour gets all we know when it comes, and every newer record once.
Whom we link to is HyParView's concern; links that it has no use for are guests for a while.
"""

from dataclasses import dataclass, field

from overlay.core import dial
from overlay.core.context import Context
from overlay.core.events import Remember, Transmit
from overlay.core.links import Link, Links
from overlay.core.messages import (
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
GUESTS_MAX = 128


@dataclass(slots=True)
class Membership:
    """The book of records, our own record, and the guests."""

    context: Context
    links: Links
    reflexive: Reflexive
    book: RecordBook
    own: bytes = b""
    _sequence: int = 0
    _fresh: dict[PeerId, PeerId | None] = field(default_factory=dict)
    """Records to be passed on, and who brought each."""
    _guests: dict[PeerId, None] = field(default_factory=dict)
    _timers: Timers[tuple[str, PeerId]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

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
            wire_min=context.settings.wire[0],
            wire_max=context.settings.wire[1],
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

    # --- guests ------------------------------------------------------------------------------

    def seat(self, peer: PeerId, now: float) -> bool:
        """Find a new neighbour a place: in the view, as a guest, or none at all."""
        over = len(self.links.by_peer) - self.context.settings.links_max
        if over <= 0:
            return True
        if over > GUESTS_MAX:
            return False
        self._guests[peer] = None
        self._timers.set(("guest", peer), now + self.context.settings.guest_stay)
        return True

    def dismiss(self, peer: PeerId, now: float) -> None:
        """The view has no more use for this neighbour: its link may serve a little longer."""
        if peer not in self._guests:
            self._guests[peer] = None
            self._timers.set(("guest", peer), now + self.context.settings.guest_stay)

    def unseat(self, peer: PeerId) -> None:
        """A guest is gone, or has become a neighbour for good."""
        self._guests.pop(peer, None)
        self._timers.stop(("guest", peer))

    # --- time --------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[PeerId]:
        """Do what is due; returns the guests whose time is up."""
        leaving: list[PeerId] = []
        for kind, peer in list(self._timers.pop_due(now)):
            if kind == "renew":
                self.renew(now)
            elif kind == "tell":
                self._tell_records()
            elif kind == "digest":
                self._tell_digest()
            elif kind == "guest":
                self._guests.pop(peer, None)
                leaving.append(peer)
        return leaving
